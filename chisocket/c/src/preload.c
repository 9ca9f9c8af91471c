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
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
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

/* What is known of a number, so that not every write has to ask the kernel: a hint, and no more. What is closed past us
 * (closefrom(3), the kernel itself) leaves it as it was. */
enum known { UNKNOWN, OURS, ANOTHERS };
#define MOST_KNOWN 65536
static _Atomic unsigned char known[MOST_KNOWN];

static bool may_be_ours(int fd) {
    struct name name;
    if (fd < 0 || fd >= MOST_KNOWN)
        return false;
    unsigned char what = atomic_load_explicit(&known[fd], memory_order_relaxed);
    if (what == UNKNOWN) {
        what = name_of(fd, &name) ? OURS : ANOTHERS;
        atomic_store_explicit(&known[fd], what, memory_order_relaxed);
    }
    return what == OURS;
}

/* It is another file from now on. */
static int forgotten(int fd) {
    if (fd >= 0 && fd < MOST_KNOWN)
        atomic_store_explicit(&known[fd], UNKNOWN, memory_order_relaxed);
    return fd;
}

REPLACE(int, socket, (int domain, int type, int protocol)) {
    int flags = type & (SOCK_NONBLOCK | SOCK_CLOEXEC);
    if ((domain != AF_INET && domain != AF_INET6) || (type & ~flags) != SOCK_STREAM ||
        (protocol != 0 && protocol != IPPROTO_TCP))
        return NEXT(socket)(domain, type, protocol);
    return forgotten(endpoint_socket(domain, SOCK_STREAM, protocol, flags));
}

/* What a program may have set before it says where to: options, and a port. */
static const struct {
    int level, option;
    socklen_t size;
} carried_over[] = {
    {SOL_SOCKET, SO_REUSEADDR, sizeof(int)},           {SOL_SOCKET, SO_REUSEPORT, sizeof(int)},
    {SOL_SOCKET, SO_KEEPALIVE, sizeof(int)},           {SOL_SOCKET, SO_LINGER, sizeof(struct linger)},
    {SOL_SOCKET, SO_RCVTIMEO, sizeof(struct timeval)}, {SOL_SOCKET, SO_SNDTIMEO, sizeof(struct timeval)},
    {IPPROTO_TCP, TCP_NODELAY, sizeof(int)},           {IPPROTO_TCP, TCP_KEEPIDLE, sizeof(int)},
    {IPPROTO_TCP, TCP_KEEPINTVL, sizeof(int)},         {IPPROTO_TCP, TCP_KEEPCNT, sizeof(int)},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, sizeof(int)},      {IPPROTO_IP, IP_TOS, sizeof(int)},
    {IPPROTO_IPV6, IPV6_V6ONLY, sizeof(int)},          {IPPROTO_IPV6, IPV6_TCLASS, sizeof(int)},
};

static void carry_options_over(int fd, const struct name *name, int kernels) {
    for (size_t i = 0; i < sizeof carried_over / sizeof carried_over[0]; i++) {
        _Alignas(struct timeval) char value[sizeof(struct timeval)];
        socklen_t len = carried_over[i].size;
        if (endpoint_getsockopt(fd, name, carried_over[i].level, carried_over[i].option, value, &len) == 0)
            sys_setsockopt(kernels, carried_over[i].level, carried_over[i].option, value, len);
    }
}

static int carry_port_over(const struct name *name, int kernels) {
    struct sockaddr_storage own = {0};
    socklen_t len = sizeof own;
    if (endpoint_getsockname(name, (struct sockaddr *)&own, &len) < 0)
        return -1;
    bool bound = ((struct sockaddr_in *)&own)->sin_port != 0; /* at the same place in a sockaddr_in6 */
    return bound ? sys_bind(kernels, &own, len) : 0;
}

/* Whether it is to be a socket of the kernel's from now on: it is about to be bound or connected elsewhere. One that is
 * in use stays, and chitcpd says what is wrong with the call. */
static bool leaves(int fd, const struct name *name, const struct sockaddr *addr, socklen_t len) {
    unsigned char state = 0; /* the first byte of struct tcp_info */
    socklen_t size = sizeof state;
    return is_elsewhere(addr, len) && endpoint_getsockopt(fd, name, IPPROTO_TCP, TCP_INFO, &state, &size) == 0 &&
           state == TCP_CLOSE;
}

static int leave_the_lab(int fd, const struct name *name) {
    int family, status = fcntl(fd, F_GETFL);
    socklen_t len = sizeof family;
    if (endpoint_getsockopt(fd, name, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0)
        return -1;
    int kernels = sys_socket(family, SOCK_STREAM | SOCK_CLOEXEC | (status & O_NONBLOCK ? SOCK_NONBLOCK : 0), 0);
    if (kernels < 0)
        return -1;
    carry_options_over(fd, name, kernels);
    int left = carry_port_over(name, kernels);
    if (left == 0)
        left = sys_dup3(kernels, fd, fcntl(fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0);
    int error = errno;
    sys_close(kernels);
    errno = error;
    return left < 0 ? -1 : 0;
}

REPLACE(int, bind, (int fd, const struct sockaddr *addr, socklen_t len)) {
    struct name name;
    if (!name_of(fd, &name))
        return NEXT(bind)(fd, addr, len);
    if (!leaves(fd, &name, addr, len))
        return endpoint_bind(&name, addr, len);
    return leave_the_lab(fd, &name) < 0 ? -1 : NEXT(bind)(fd, addr, len);
}

REPLACE(int, connect, (int fd, const struct sockaddr *addr, socklen_t len)) {
    struct name name;
    if (!name_of(fd, &name))
        return NEXT(connect)(fd, addr, len);
    if (!leaves(fd, &name, addr, len))
        return endpoint_connect(fd, &name, addr, len);
    return leave_the_lab(fd, &name) < 0 ? -1 : NEXT(connect)(fd, addr, len);
}

REPLACE(int, listen, (int fd, int backlog)) {
    struct name name;
    return name_of(fd, &name) ? endpoint_listen(&name, backlog) : NEXT(listen)(fd, backlog);
}

REPLACE(int, accept, (int fd, struct sockaddr *addr, socklen_t *len)) {
    struct name name;
    return name_of(fd, &name) ? forgotten(endpoint_accept(fd, addr, len, 0)) : NEXT(accept)(fd, addr, len);
}

REPLACE(int, accept4, (int fd, struct sockaddr *addr, socklen_t *len, int flags)) {
    struct name name;
    if (!name_of(fd, &name))
        return NEXT(accept4)(fd, addr, len, flags);
    return flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC) ? outcome(EINVAL) : forgotten(endpoint_accept(fd, addr, len, flags));
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

static atomic_bool some_linger; /* one of our descriptors has had SO_LINGER: close() asks for it */

REPLACE(int, setsockopt, (int fd, int level, int option, const void *value, socklen_t len)) {
    struct name name;
    if (!name_of(fd, &name))
        return NEXT(setsockopt)(fd, level, option, value, len);
    if (level == SOL_SOCKET && option == SO_LINGER)
        atomic_store(&some_linger, true);
    return endpoint_setsockopt(fd, &name, level, option, value, len);
}

/* For how many seconds close() waits. */
static int seconds_to_linger(int fd, struct name *name) {
    struct linger linger = {0};
    socklen_t len = sizeof linger;
    if (!atomic_load(&some_linger) || !name_of(fd, name))
        return 0;
    if (endpoint_getsockopt(fd, name, SOL_SOCKET, SO_LINGER, &linger, &len) < 0 || !linger.l_onoff)
        return 0;
    return linger.l_linger < INT_MAX / 1000 ? linger.l_linger : INT_MAX / 1000;
}

REPLACE(int, close, (int fd)) {
    struct name name;
    int before = errno, seconds = seconds_to_linger(fd, &name);
    errno = before;
    forgotten(fd);
    int result = NEXT(close)(fd);
    if (result == 0 && seconds > 0) {
        request_wait_acknowledged(&name, seconds * 1000); /* time may be up, or the connection over before */
        errno = before;
    }
    return result;
}

REPLACE(int, dup2, (int from, int to)) {
    return forgotten(NEXT(dup2)(from, to));
}

REPLACE(int, dup3, (int from, int to, int flags)) {
    return forgotten(NEXT(dup3)(from, to, flags));
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

static ssize_t (*next_sendmsg)(int fd, const struct msghdr *message, int flags);

/* Send on what may be ours. The signal comes with EPIPE only, and not with the error of a connection that has failed,
 * which stands before it. ENOTSOCK if it is another file by now. */
static ssize_t send_quietly(int fd, const struct msghdr *message, int flags) {
    ssize_t count = write_outcome(fd, NEXT(sendmsg)(fd, message, flags | MSG_NOSIGNAL));
    if (count < 0 && errno == EPIPE && !(flags & MSG_NOSIGNAL)) {
        raise(SIGPIPE);
        errno = EPIPE; /* whatever the handler has made of it */
    }
    if (count < 0 && errno == ENOTSOCK)
        forgotten(fd);
    return count;
}

static ssize_t write_quietly(int fd, const struct iovec *parts, size_t count) {
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = count};
    return send_quietly(fd, &message, 0);
}

REPLACE(ssize_t, write, (int fd, const void *data, size_t len)) {
    if (may_be_ours(fd)) {
        ssize_t count = write_quietly(fd, &(struct iovec){.iov_base = (void *)data, .iov_len = len}, 1);
        if (count >= 0 || errno != ENOTSOCK)
            return count;
    }
    return write_outcome(fd, NEXT(write)(fd, data, len));
}

REPLACE(ssize_t, writev, (int fd, const struct iovec *parts, int count)) {
    if (may_be_ours(fd) && count >= 0) {
        ssize_t result = write_quietly(fd, parts, (size_t)count);
        if (result >= 0 || errno != ENOTSOCK)
            return result;
    }
    return write_outcome(fd, NEXT(writev)(fd, parts, count));
}

/* A stream goes to its peer, whatever the address: Linux's TCP does not look at it. Urgent data goes in line (RFC
 * 6093), and there is no Fast Open. */
REPLACE(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags)) {
    struct name name;
    if (message == NULL || !name_of(fd, &name))
        return NEXT(sendmsg)(fd, message, flags);
    if (flags & MSG_FASTOPEN)
        return outcome(EOPNOTSUPP);
    struct msghdr plain = *message;
    plain.msg_name = NULL, plain.msg_namelen = 0;
    return send_quietly(fd, &plain, flags & ~MSG_OOB);
}

REPLACE(ssize_t, sendto,
        (int fd, const void *data, size_t len, int flags, const struct sockaddr *addr, socklen_t addrlen)) {
    struct name name;
    if (!may_be_ours(fd) && !name_of(fd, &name))
        return NEXT(sendto)(fd, data, len, flags, addr, addrlen);
    struct iovec part = {.iov_base = (void *)data, .iov_len = len};
    struct msghdr message = {.msg_name = (void *)addr, .msg_namelen = addrlen, .msg_iov = &part, .msg_iovlen = 1};
    return chi_sendmsg(fd, &message, flags);
}

REPLACE(ssize_t, send, (int fd, const void *data, size_t len, int flags)) {
    if (!may_be_ours(fd) || flags & (MSG_OOB | MSG_FASTOPEN))
        return chi_sendto(fd, data, len, flags, NULL, 0);
    struct iovec part = {.iov_base = (void *)data, .iov_len = len};
    return send_quietly(fd, &(struct msghdr){.msg_iov = &part, .msg_iovlen = 1}, flags);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* The canonical name of a host of the lab is its name, and not the address that was looked up in its place. */
static int name_it(const char *host, int error, struct addrinfo **result) {
    if (error != 0 || *result == NULL || (*result)->ai_canonname == NULL)
        return error;
    char *name = strdup(host);
    if (name != NULL) {
        free((*result)->ai_canonname);
        (*result)->ai_canonname = name;
    }
    return 0;
}

REPLACE(int, getaddrinfo,
        (const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **result)) {
    char address[INET6_ADDRSTRLEN];
    struct addrinfo wanted;
    bool numeric = hints != NULL && hints->ai_flags & AI_NUMERICHOST;
    if (hints != NULL && hints->ai_flags & AI_ADDRCONFIG) {
        wanted = *hints; /* the kernel's own addresses, of which there may be none, say nothing of the lab */
        wanted.ai_flags &= ~AI_ADDRCONFIG;
        hints = &wanted;
    }
    if (host != NULL && !numeric && lab_address(host, address))
        return name_it(host, NEXT(getaddrinfo)(address, service, hints, result), result);
    return NEXT(getaddrinfo)(host, service, hints, result);
}

/* Likewise the name in what gethostbyname() and its like return, which is kept in `space`. */
static struct hostent *call_it(struct hostent *entry, const char *host, char *space) {
    if (entry != NULL)
        entry->h_name = strcpy(space, host);
    return entry;
}

static char called[NI_MAXHOST]; /* as their results, it holds until the next call */

REPLACE(struct hostent *, gethostbyname, (const char *host)) {
    char address[INET6_ADDRSTRLEN];
    if (!lab_address(host, address) || strlen(host) >= sizeof called)
        return NEXT(gethostbyname)(host);
    return call_it(NEXT(gethostbyname)(address), host, called);
}

REPLACE(struct hostent *, gethostbyname2, (const char *host, int family)) {
    char address[INET6_ADDRSTRLEN];
    if (!lab_address(host, address) || strlen(host) >= sizeof called)
        return NEXT(gethostbyname2)(host, family);
    return call_it(NEXT(gethostbyname2)(address, family), host, called);
}

REPLACE(int, gethostbyname2_r,
        (const char *host, int family, struct hostent *entry, char *space, size_t size, struct hostent **result,
         int *error)) {
    char address[INET6_ADDRSTRLEN];
    size_t own = strlen(host) + 1;
    if (!lab_address(host, address))
        return NEXT(gethostbyname2_r)(host, family, entry, space, size, result, error);
    if (size < own) {
        *result = NULL, *error = NETDB_INTERNAL;
        return ERANGE;
    }
    int failure = NEXT(gethostbyname2_r)(address, family, entry, space, size - own, result, error);
    if (failure == 0)
        call_it(*result, host, space + size - own);
    return failure;
}

REPLACE(int, gethostbyname_r,
        (const char *host, struct hostent *entry, char *space, size_t size, struct hostent **result, int *error)) {
    char address[INET6_ADDRSTRLEN];
    if (!lab_address(host, address))
        return NEXT(gethostbyname_r)(host, entry, space, size, result, error);
    int family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;
    return chi_gethostbyname2_r(host, family, entry, space, size, result, error);
}

/* ---- the functions that these replace ---------------------------------------------------------------------------- */

#define OF(name) {#name, (void *)&next_##name}

static void find_all(void) {
    static const struct {
        const char *name;
        void *next;
    } functions[] = {
        OF(socket),
        OF(bind),
        OF(connect),
        OF(listen),
        OF(accept),
        OF(accept4),
        OF(shutdown),
        OF(getsockname),
        OF(getpeername),
        OF(getsockopt),
        OF(setsockopt),
        OF(close),
        OF(dup2),
        OF(dup3),
        OF(read),
        OF(readv),
        OF(recv),
        OF(recvfrom),
        OF(recvmsg),
        OF(__read_chk),
        OF(__recv_chk),
        OF(__recvfrom_chk),
        OF(write),
        OF(writev),
        OF(send),
        OF(sendto),
        OF(sendmsg),
        OF(getaddrinfo),
        OF(gethostbyname),
        OF(gethostbyname2),
        OF(gethostbyname_r),
        OF(gethostbyname2_r),
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(RTLD_NEXT, functions[i].name);
        memcpy(functions[i].next, &function, sizeof function);
    }
}

/* Before the program begins: a child of fork(2) that calls close() must find the system's. */
__attribute__((constructor)) static void begin(void) {
    pthread_once(&found, find_all);
    remember_settings();
}
