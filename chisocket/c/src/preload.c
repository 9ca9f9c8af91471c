/* libchisocket-preload.so: the system's functions for sockets, in their place (LD_PRELOAD; chirun sets it).
 *
 * Stream sockets of IPv4 and IPv6 become descriptors of chitcpd's; all other descriptors are passed through. Data moves
 * by the descriptors themselves: the functions that move it are here only for what a pair of UNIX sockets would answer
 * otherwise than a TCP does: how a connection has failed, and who has sent.
 *
 * $CHITCPD_SOCK names the chitcpd, $CHITCP_HOSTS the lab's hosts. $CHITCP_NETWORKS, if it is set, has the networks that
 * are the lab's, like "10.213.0.0/16 fd00::/8": a socket that is bound or connected elsewhere is the kernel's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include "endpoint.h"
#include "names.h"
#include "requests.h"
#include "system.h"

/* Defines the function that takes the place of the system's `name`, which `next_name` calls. In C it has another name,
 * since the system's headers declare some of these with types of their own. */
#define REPLACE(type, name, parameters)                                                                                \
    static type(*next_##name) parameters;                                                                              \
    __attribute__((visibility("default"))) type chi_##name parameters __asm__(#name);                                  \
    type chi_##name parameters

static pthread_once_t found = PTHREAD_ONCE_INIT;
static void find_all(void);

/* The system's function, or the one of the next library that replaces it. */
#define NEXT(name) (pthread_once(&found, find_all), next_##name)

/* ---- calls that ask chitcpd -------------------------------------------------------------------------------------- */

REPLACE(int, socket, (int domain, int type, int protocol)) {
    int flags = type & (SOCK_NONBLOCK | SOCK_CLOEXEC);
    if ((domain != AF_INET && domain != AF_INET6) || (type & ~flags) != SOCK_STREAM ||
        (protocol != 0 && protocol != IPPROTO_TCP))
        return NEXT(socket)(domain, type, protocol);
    return endpoint_socket(domain, SOCK_STREAM, protocol, flags);
}

static void carry_over(int fd, const struct name *name, int kernels, int level, int option) {
    int value;
    socklen_t len = sizeof value;
    if (endpoint_getsockopt(fd, name, level, option, &value, &len) == 0 && value != 0)
        sys_setsockopt(kernels, level, option, &value, len);
}

/* Let `fd` be a socket of the kernel's from now on: what it is bound or connected to is not the lab's. */
static int leave_the_lab(int fd, const struct name *name) {
    int family, status = fcntl(fd, F_GETFL);
    socklen_t len = sizeof family;
    if (endpoint_getsockopt(fd, name, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0)
        return -1;
    int kernels = sys_socket(family, SOCK_STREAM | SOCK_CLOEXEC | (status & O_NONBLOCK ? SOCK_NONBLOCK : 0), 0);
    if (kernels < 0)
        return -1;
    static const int options[][2] = {
        {SOL_SOCKET, SO_REUSEADDR},  {SOL_SOCKET, SO_REUSEPORT}, {SOL_SOCKET, SO_KEEPALIVE},
        {IPPROTO_IPV6, IPV6_V6ONLY}, {IPPROTO_TCP, TCP_NODELAY},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        carry_over(fd, name, kernels, options[i][0], options[i][1]);
    int copied = sys_dup3(kernels, fd, fcntl(fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0);
    sys_close(kernels);
    return copied < 0 ? -1 : 0;
}

REPLACE(int, bind, (int fd, const struct sockaddr *addr, socklen_t len)) {
    struct name name;
    if (!name_of(fd, &name))
        return NEXT(bind)(fd, addr, len);
    if (!is_elsewhere(addr, len))
        return endpoint_bind(&name, addr, len);
    return leave_the_lab(fd, &name) < 0 ? -1 : NEXT(bind)(fd, addr, len);
}

REPLACE(int, connect, (int fd, const struct sockaddr *addr, socklen_t len)) {
    struct name name;
    if (!name_of(fd, &name))
        return NEXT(connect)(fd, addr, len);
    if (!is_elsewhere(addr, len))
        return endpoint_connect(fd, &name, addr, len);
    return leave_the_lab(fd, &name) < 0 ? -1 : NEXT(connect)(fd, addr, len);
}

REPLACE(int, listen, (int fd, int backlog)) {
    struct name name;
    return name_of(fd, &name) ? endpoint_listen(&name, backlog) : NEXT(listen)(fd, backlog);
}

REPLACE(int, accept, (int fd, struct sockaddr *addr, socklen_t *len)) {
    struct name name;
    return name_of(fd, &name) ? endpoint_accept(fd, addr, len, 0) : NEXT(accept)(fd, addr, len);
}

REPLACE(int, accept4, (int fd, struct sockaddr *addr, socklen_t *len, int flags)) {
    struct name name;
    if (!name_of(fd, &name))
        return NEXT(accept4)(fd, addr, len, flags);
    return flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC) ? outcome(EINVAL) : endpoint_accept(fd, addr, len, flags);
}

REPLACE(int, shutdown, (int fd, int how)) {
    struct name name;
    return name_of(fd, &name) ? endpoint_shutdown(fd, &name, how) : NEXT(shutdown)(fd, how);
}

REPLACE(int, getsockname, (int fd, struct sockaddr *addr, socklen_t *len)) {
    struct name name;
    return name_of(fd, &name) ? endpoint_getsockname(&name, addr, len) : NEXT(getsockname)(fd, addr, len);
}

REPLACE(int, getpeername, (int fd, struct sockaddr *addr, socklen_t *len)) {
    struct name name;
    return name_of(fd, &name) ? endpoint_getpeername(&name, addr, len) : NEXT(getpeername)(fd, addr, len);
}

REPLACE(int, getsockopt, (int fd, int level, int option, void *value, socklen_t *len)) {
    struct name name;
    return name_of(fd, &name) ? endpoint_getsockopt(fd, &name, level, option, value, len)
                              : NEXT(getsockopt)(fd, level, option, value, len);
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

#define MOST_LINGERING 65536                       /* descriptors */
static _Atomic uint16_t lingering[MOST_LINGERING]; /* descriptor -> seconds that close() waits (SO_LINGER) */

REPLACE(int, setsockopt, (int fd, int level, int option, const void *value, socklen_t len)) {
    struct name name;
    if (!name_of(fd, &name))
        return NEXT(setsockopt)(fd, level, option, value, len);
    int result = endpoint_setsockopt(fd, &name, level, option, value, len);
    if (result == 0 && level == SOL_SOCKET && option == SO_LINGER && fd < MOST_LINGERING) {
        struct linger linger;
        memcpy(&linger, value, sizeof linger); /* chitcpd refuses a shorter one */
        int seconds = linger.l_onoff && linger.l_linger > 0 ? linger.l_linger : 0;
        atomic_store(&lingering[fd], (uint16_t)(seconds < UINT16_MAX ? seconds : UINT16_MAX));
    }
    return result;
}

REPLACE(int, close, (int fd)) {
    struct name name;
    int seconds = fd >= 0 && fd < MOST_LINGERING ? atomic_exchange(&lingering[fd], 0) : 0;
    bool waits = seconds > 0 && name_of(fd, &name);
    int result = NEXT(close)(fd);
    if (result == 0 && waits)
        request_wait_acknowledged(&name, seconds * 1000); /* time may be up, or the connection over before */
    return result;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* What a read returns to a program: the end of a stream may be the failure of its connection. */
static ssize_t read_outcome(int fd, ssize_t count, size_t wanted) {
    return count == 0 && wanted > 0 ? outcome(read_error(fd)) : count;
}

static size_t total(const struct iovec *parts, size_t count) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += parts[i].iov_len;
    return bytes;
}

REPLACE(ssize_t, read, (int fd, void *data, size_t len)) {
    return read_outcome(fd, NEXT(read)(fd, data, len), len);
}

REPLACE(ssize_t, readv, (int fd, const struct iovec *parts, int count)) {
    ssize_t result = NEXT(readv)(fd, parts, count);
    return result == 0 ? read_outcome(fd, result, total(parts, (size_t)count)) : result;
}

REPLACE(ssize_t, recv, (int fd, void *data, size_t len, int flags)) {
    return read_outcome(fd, NEXT(recv)(fd, data, len, flags), len);
}

/* A stream names no sender. */
static void name_nobody(int fd, ssize_t count, const struct sockaddr *addr, socklen_t *len) {
    struct name name;
    if (count >= 0 && addr != NULL && len != NULL && name_of(fd, &name))
        *len = 0;
}

REPLACE(ssize_t, recvfrom, (int fd, void *data, size_t size, int flags, struct sockaddr *addr, socklen_t *len)) {
    ssize_t count = NEXT(recvfrom)(fd, data, size, flags, addr, len);
    name_nobody(fd, count, addr, len);
    return read_outcome(fd, count, size);
}

REPLACE(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags)) {
    ssize_t count = NEXT(recvmsg)(fd, message, flags);
    if (count < 0)
        return count;
    name_nobody(fd, count, message->msg_name, &message->msg_namelen);
    return count == 0 ? read_outcome(fd, count, total(message->msg_iov, message->msg_iovlen)) : count;
}

/* What programs that were compiled with _FORTIFY_SOURCE call. */
REPLACE(ssize_t, __read_chk, (int fd, void *data, size_t len, size_t size)) {
    return read_outcome(fd, NEXT(__read_chk)(fd, data, len, size), len);
}

REPLACE(ssize_t, __recv_chk, (int fd, void *data, size_t len, size_t size, int flags)) {
    return read_outcome(fd, NEXT(__recv_chk)(fd, data, len, size, flags), len);
}

REPLACE(ssize_t, __recvfrom_chk,
        (int fd, void *data, size_t len, size_t size, int flags, struct sockaddr *addr, socklen_t *addrlen)) {
    ssize_t count = NEXT(__recvfrom_chk)(fd, data, len, size, flags, addr, addrlen);
    name_nobody(fd, count, addr, addrlen);
    return read_outcome(fd, count, len);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static ssize_t write_outcome(int fd, ssize_t count) {
    if (count < 0)
        errno = write_error(fd, errno);
    return count;
}

REPLACE(ssize_t, write, (int fd, const void *data, size_t len)) {
    return write_outcome(fd, NEXT(write)(fd, data, len));
}

REPLACE(ssize_t, writev, (int fd, const struct iovec *parts, int count)) {
    return write_outcome(fd, NEXT(writev)(fd, parts, count));
}

REPLACE(ssize_t, send, (int fd, const void *data, size_t len, int flags)) {
    return write_outcome(fd, NEXT(send)(fd, data, len, flags));
}

/* A stream goes to its peer, whatever the address: Linux's TCP does not look at it. */
REPLACE(ssize_t, sendto,
        (int fd, const void *data, size_t len, int flags, const struct sockaddr *addr, socklen_t addrlen)) {
    struct name name;
    if (addr != NULL && name_of(fd, &name))
        addr = NULL, addrlen = 0;
    return write_outcome(fd, NEXT(sendto)(fd, data, len, flags, addr, addrlen));
}

REPLACE(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags)) {
    struct name name;
    struct msghdr without;
    if (message != NULL && message->msg_name != NULL && name_of(fd, &name)) {
        without = *message;
        without.msg_name = NULL, without.msg_namelen = 0;
        message = &without;
    }
    return write_outcome(fd, NEXT(sendmsg)(fd, message, flags));
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

REPLACE(int, getaddrinfo,
        (const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **result)) {
    char address[INET6_ADDRSTRLEN];
    struct addrinfo wanted;
    if (hints != NULL && hints->ai_flags & AI_ADDRCONFIG) {
        wanted = *hints; /* the kernel's own addresses, of which there may be none, say nothing of the lab */
        wanted.ai_flags &= ~AI_ADDRCONFIG;
        hints = &wanted;
    }
    return NEXT(getaddrinfo)(host != NULL && lab_address(host, address) ? address : host, service, hints, result);
}

REPLACE(struct hostent *, gethostbyname, (const char *host)) {
    char address[INET6_ADDRSTRLEN];
    return NEXT(gethostbyname)(lab_address(host, address) ? address : host);
}

REPLACE(struct hostent *, gethostbyname2, (const char *host, int family)) {
    char address[INET6_ADDRSTRLEN];
    return NEXT(gethostbyname2)(lab_address(host, address) ? address : host, family);
}

REPLACE(int, gethostbyname_r,
        (const char *host, struct hostent *entry, char *space, size_t size, struct hostent **result, int *error)) {
    char address[INET6_ADDRSTRLEN];
    return NEXT(gethostbyname_r)(lab_address(host, address) ? address : host, entry, space, size, result, error);
}

REPLACE(int, gethostbyname2_r,
        (const char *host, int family, struct hostent *entry, char *space, size_t size, struct hostent **result,
         int *error)) {
    char address[INET6_ADDRSTRLEN];
    host = lab_address(host, address) ? address : host;
    return NEXT(gethostbyname2_r)(host, family, entry, space, size, result, error);
}

/* ---- the functions that these replace ---------------------------------------------------------------------------- */

#define OF(name) {#name, (void *)&next_##name}

static void find_all(void) {
    static const struct {
        const char *name;
        void *next;
    } functions[] = {
        OF(socket),      OF(bind),          OF(connect),        OF(listen),          OF(accept),
        OF(accept4),     OF(shutdown),      OF(getsockname),    OF(getpeername),     OF(getsockopt),
        OF(setsockopt),  OF(close),         OF(read),           OF(readv),           OF(recv),
        OF(recvfrom),    OF(recvmsg),       OF(__read_chk),     OF(__recv_chk),      OF(__recvfrom_chk),
        OF(write),       OF(writev),        OF(send),           OF(sendto),          OF(sendmsg),
        OF(getaddrinfo), OF(gethostbyname), OF(gethostbyname2), OF(gethostbyname_r), OF(gethostbyname2_r),
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(RTLD_NEXT, functions[i].name);
        memcpy(functions[i].next, &function, sizeof function);
    }
}

/* Before the program begins: a child of fork(2) that calls close() must find the system's. */
__attribute__((constructor)) static void begin(void) {
    pthread_once(&found, find_all);
}
