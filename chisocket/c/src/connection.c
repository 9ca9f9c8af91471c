#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "system.h"

#define MOST_LENGTH (16u << 20) /* bytes of a message */
#define AT_ONCE 512             /* bytes of a message for which no memory is asked of the heap */
#define HIGH 100                /* our descriptors begin here: programs expect the low numbers to be theirs */

static int move_high(int fd) {
    int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);
    if (high < 0)
        return fd; /* fewer may be open than that */
    sys_close(fd);
    return high;
}

/* A socket that this process's `connection` knows before it is of any use: a child of a fork closes it. */
static int make_socket(struct connection *connection) {
    struct stat status;
    int fd = sys_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    fd = move_high(fd);
    if (fstat(fd, &status) < 0) {
        int error = errno;
        sys_close(fd);
        return error;
    }
    connection->device = status.st_dev;
    connection->inode = status.st_ino;
    connection->fd = fd;
    return 0;
}

static int connect_socket(struct connection *connection, const char *path) {
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path)
        return ENAMETOOLONG;
    strcpy(addr.sun_path, path);
    strcpy(connection->path, path);
    int error = make_socket(connection);
    while (error == 0 && sys_connect(connection->fd, &addr, sizeof addr) < 0)
        if (errno != EINTR)
            error = errno == EACCES || errno == EPERM ? EACCES : ENETDOWN;
    return error;
}

int connection_open(struct connection *connection, const char *path, InitArgs *init) {
    connection->fd = connection->number = -1;
    memset(connection->instance, 0, sizeof connection->instance);
    int error = connect_socket(connection, path);
    if (error != 0) {
        connection_close(connection);
        return error;
    }
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    message.code = MSG_CODE__INIT, message.init_args = init;
    struct answer answer;
    bool used_up;
    error = connection_exchange(connection, &message, PATIENT, &answer, &used_up);
    if (error == 0) {
        error = answer.resp->error_code;
        if (answer.resp->has_buf && answer.resp->buf.len == INSTANCE)
            memcpy(connection->instance, answer.resp->buf.data, INSTANCE);
        answer_free(&answer);
    }
    if (error != 0)
        connection_close(connection);
    return error;
}

static bool is_ours(const struct connection *connection) {
    struct stat status;
    return fstat(connection->fd, &status) == 0 && status.st_dev == connection->device &&
           status.st_ino == connection->inode;
}

bool connection_is_gone(const struct connection *connection) {
    char byte;
    return !is_ours(connection) ||
           !(sys_recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

void connection_close(struct connection *connection) {
    if (is_ours(connection))
        sys_close(connection->fd);
    connection->fd = -1;
}

/* ---- messages and their memory ----------------------------------------------------------------------------------- */

static void *take_space(void *data, size_t size) {
    struct answer *answer = data;
    size_t rounded = (size + 15) / 16 * 16;
    if (rounded > sizeof answer->space - answer->used)
        return malloc(size);
    answer->used += rounded;
    return answer->space + answer->used - rounded;
}

static void give_back(void *data, void *pointer) {
    struct answer *answer = data;
    uintptr_t at = (uintptr_t)pointer, begin = (uintptr_t)answer->space;
    if (at < begin || at >= begin + sizeof answer->space)
        free(pointer);
}

/* Take the message in these bytes. EPROTO if it is none. */
static int unpack(struct answer *answer, const uint8_t *body, size_t len) {
    answer->allocator = (ProtobufCAllocator){.alloc = take_space, .free = give_back, .allocator_data = answer};
    answer->used = 0;
    answer->message = chitcpd_msg__unpack(&answer->allocator, len, body);
    answer->resp = answer->message != NULL ? answer->message->resp : NULL;
    return answer->message != NULL ? 0 : EPROTO;
}

void answer_free(struct answer *answer) {
    chitcpd_msg__free_unpacked(answer->message, &answer->allocator);
    if (answer->fd >= 0)
        sys_close(answer->fd);
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static int gone(int error) {
    return error == ECONNRESET || error == EPIPE || error == ENOTCONN ? ENETDOWN : error;
}

static int write_all(int fd, const uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t sent = sys_send(fd, data, len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return gone(errno);
        if (sent > 0) {
            data += sent;
            len -= (size_t)sent;
        }
    }
    return 0;
}

int connection_send(struct connection *connection, const ChitcpdMsg *message) {
    size_t body = chitcpd_msg__get_packed_size(message);
    uint64_t length = body;
    uint8_t small[AT_ONCE], *frame = small;
    if (sizeof length + body > sizeof small && (frame = malloc(sizeof length + body)) == NULL)
        return ENOMEM;
    memcpy(frame, &length, sizeof length);
    chitcpd_msg__pack(message, frame + sizeof length);
    int error = write_all(connection->fd, frame, sizeof length + body);
    if (frame != small)
        free(frame);
    return error;
}

/* As recv(2); the first descriptor that comes with the data is kept. */
static ssize_t receive(int fd, void *data, size_t len, int *rights) {
    int with;
    ssize_t count = receive_with_descriptor(fd, data, len, &with);
    if (with >= 0 && *rights >= 0)
        sys_close(with);
    else if (with >= 0)
        *rights = with;
    return count;
}

static long long now_in_milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static int wait_readable(int fd, struct patience patience) {
    struct pollfd one = {.fd = fd, .events = POLLIN};
    long long until = now_in_milliseconds() + patience.milliseconds;
    for (;;) {
        long long left = until - now_in_milliseconds();
        int ready = sys_poll(&one, 1, left > 0 ? (int)left : 0);
        if (ready > 0)
            return 0;
        if (ready == 0)
            return ETIME;
        if (errno != EINTR || patience.interruptible)
            return errno;
    }
}

static int read_all(int fd, uint8_t *data, size_t len, struct patience patience, int *rights) {
    while (len > 0) {
        int error = patience.milliseconds >= 0 ? wait_readable(fd, patience) : 0;
        if (error != 0)
            return error;
        ssize_t count = receive(fd, data, len, rights);
        if (count < 0 && (errno != EINTR || patience.interruptible))
            return gone(errno);
        if (count == 0)
            return ENETDOWN;
        if (count > 0) {
            data += count;
            len -= (size_t)count;
            patience.interruptible = false; /* the rest is on its way */
        }
    }
    return 0;
}

static int read_body(int fd, size_t len, struct answer *answer) {
    uint8_t small[AT_ONCE], *body = small;
    if (len > sizeof small && (body = malloc(len)) == NULL)
        return ENOMEM;
    int error = read_all(fd, body, len, PATIENT, &answer->fd);
    if (error == 0)
        error = unpack(answer, body, len);
    if (body != small)
        free(body);
    return error;
}

static int read_message(int fd, struct patience patience, struct answer *answer) {
    uint64_t length;
    answer->fd = -1;
    int error = read_all(fd, (uint8_t *)&length, sizeof length, patience, &answer->fd);
    if (error == 0)
        error = length > MOST_LENGTH ? EPROTO : read_body(fd, (size_t)length, answer);
    if (error != 0 && answer->fd >= 0)
        sys_close(answer->fd);
    return error;
}

int connection_receive(struct connection *connection, struct answer *message) {
    return read_message(connection->fd, PATIENT, message);
}

static int read_answer(int fd, struct patience patience, struct answer *answer) {
    int error = read_message(fd, patience, answer);
    if (error != 0)
        return error;
    const Resp *resp = answer->resp;
    if (answer->message->code == MSG_CODE__RESP && resp != NULL && resp->error_code >= 0 && resp->error_code < 4096)
        return 0;
    answer_free(answer);
    return EPROTO;
}

int connection_exchange(struct connection *connection, const ChitcpdMsg *message, struct patience patience,
                        struct answer *answer, bool *used_up) {
    *used_up = false;
    int error = connection_send(connection, message);
    if (error == 0)
        error = read_answer(connection->fd, patience, answer);
    if (error == EINTR && connection->instance[0] != '\0') {
        sys_shutdown(connection->fd, SHUT_WR);
        *used_up = true;
        error = read_answer(connection->fd, PATIENT, answer);
        error = error == ENETDOWN ? EINTR : error;
    }
    return error;
}
