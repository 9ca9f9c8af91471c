/* The ones' complement sum of bytes, for chitcpd/tcp/wire.py. Optional: without it, Python's own numbers do the same,
   at 2 ns a byte. Nothing but the stable interface of Python 3.11 and later. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* The sum of the 16-bit words that `bytes` are in network order, the last padded by a zero byte (RFC 1071). Words are
   added as they lie in memory, two at a time: the order of their bytes is set right at the end (RFC 1071 section 2 (B)). */
static uint16_t ones_complement_sum(const unsigned char *bytes, size_t count)
{
    uint64_t sum = 0; /* no overflow below 2^34 bytes */
    for (; count >= 4; bytes += 4, count -= 4) {
        uint32_t word;
        memcpy(&word, bytes, 4);
        sum += word;
    }
    if (count > 0) {
        uint32_t word = 0;
        memcpy(&word, bytes, count);
        sum += word;
    }
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    uint16_t folded = (uint16_t)sum;
    const unsigned char *memory = (const unsigned char *)&folded;
    return (uint16_t)(memory[0] << 8 | memory[1]);
}

static PyObject *word_sum(PyObject *module, PyObject *data)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    uint16_t sum = ones_complement_sum(view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return PyLong_FromLong(sum);
}

static PyMethodDef functions[] = {
    { "word_sum", word_sum, METH_O, "A number that is, modulo 65535, the sum of the 16-bit words of these bytes." },
    { NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_checksum",
    .m_size = 0,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__checksum(void);

PyMODINIT_FUNC PyInit__checksum(void)
{
    return PyModule_Create(&definition);
}
