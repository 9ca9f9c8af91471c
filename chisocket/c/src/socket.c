#define _GNU_SOURCE
#include "chitcp/socket.h"

#include <errno.h>
#include <stdlib.h>

#include "endpoint.h"
#include "pool.h"
#include "requests.h"
#include "system.h"

/* Which socket is meant: one that requests made (the C chiTCP's way), or a descriptor. */
enum kind { NONE, NUMBER, DESCRIPTOR };

static enum kind kind_of(int sockfd, struct name *name) {
    if (pool_has_made(sockfd)) {
        *name = (struct name){.instance = "", .sockfd = sockfd};
        return NUMBER;
    }
    return name_of(sockfd, name) ? DESCRIPTOR : NONE;
}

int chisocket_socket(int domain, int type, int protocol) {
    const char *requests = getenv("CHISOCKET_REQUESTS");
    if (requests == NULL || requests[0] == '\0') {
        int fd = endpoint_socket(domain, type, protocol, 0);
        if (fd >= 0 || errno != EOPNOTSUPP)
            return fd;
    }
    int number;
    int error = request_socket(domain, type, protocol, &number);
    return error != 0 ? outcome(error) : number;
}

int chisocket_bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen) {
    struct name name;
    return kind_of(sockfd, &name) == NONE ? outcome(EBADF) : endpoint_bind(&name, addr, addrlen);
}

int chisocket_listen(int sockfd, int backlog) {
    struct name name;
    return kind_of(sockfd, &name) == NONE ? outcome(EBADF) : endpoint_listen(&name, backlog);
}

int chisocket_accept(int sockfd, struct sockaddr *addr, socklen_t *addrlen) {
    struct name name;
    switch (kind_of(sockfd, &name)) {
    case DESCRIPTOR:
        return endpoint_accept(sockfd, addr, addrlen, 0);
    case NUMBER:
        if (addr != NULL && addrlen == NULL)
            return outcome(EFAULT);
        if (addr != NULL && is_negative(*addrlen))
            return outcome(EINVAL);
        int accepted;
        int error = request_accept(sockfd, addr, addrlen, &accepted);
        return error != 0 ? outcome(error) : accepted;
    default:
        return outcome(EBADF);
    }
}

int chisocket_connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen) {
    struct name name;
    struct sockaddr_storage peer;
    int error;
    switch (kind_of(sockfd, &name)) {
    case DESCRIPTOR:
        return endpoint_connect(sockfd, &name, addr, addrlen);
    case NUMBER:
        error = take_address(addr, addrlen, &peer, &addrlen);
        return outcome(error != 0 ? error : request_connect(sockfd, (struct sockaddr *)&peer, addrlen));
    default:
        return outcome(EBADF);
    }
}

/* The same for a call that moves data: `*error` is ENOTCONN if there is no connection, for which a descriptor would
 * wait. The usual case asks nothing of chitcpd. */
static enum kind kind_of_connected(int sockfd, struct name *name, int *error) {
    *error = 0;
    if (!pool_has_made(sockfd) && name_of_connected(sockfd, name))
        return DESCRIPTOR;
    enum kind kind = kind_of(sockfd, name);
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    if (kind == NONE)
        *error = EBADF;
    else if (kind == DESCRIPTOR)
        *error = request_getpeername(name, (struct sockaddr *)&peer, &len);
    return kind;
}

ssize_t chisocket_send(int sockfd, const void *buf, size_t len, int flags) {
    if (len == 0)
        return outcome(EINVAL);
    if (buf == NULL)
        return outcome(EFAULT);
    struct name name;
    int error;
    ssize_t sent = 0;
    enum kind kind = kind_of_connected(sockfd, &name, &error);
    if (error == 0 && kind == NUMBER)
        error = request_send(sockfd, buf, len, flags, &sent);
    else if (error == 0 && (sent = sys_send(sockfd, buf, len, (flags & ~MSG_OOB) | MSG_NOSIGNAL)) < 0)
        error = write_error(sockfd, errno);
    return error != 0 ? outcome(error) : sent;
}

ssize_t chisocket_recv(int sockfd, void *buf, size_t len, int flags) {
    if (len == 0)
        return outcome(EINVAL);
    if (buf == NULL)
        return outcome(EFAULT);
    struct name name;
    int error;
    ssize_t received = 0;
    enum kind kind = kind_of_connected(sockfd, &name, &error);
    if (error == 0 && kind == NUMBER)
        error = request_recv(sockfd, buf, len, flags, &received);
    else if (error == 0 && (received = sys_recv(sockfd, buf, len, flags)) < 0)
        error = errno;
    else if (error == 0 && received == 0)
        error = read_error(sockfd);
    return error != 0 ? outcome(error) : received;
}

int chisocket_close(int sockfd) {
    struct name name;
    switch (kind_of(sockfd, &name)) {
    case DESCRIPTOR:
        return sys_close(sockfd) < 0 ? -1 : outcome(request_wait_acknowledged(&name, -1));
    case NUMBER:
        return outcome(request_close(sockfd));
    default:
        return outcome(EBADF);
    }
}

int chisocket_shutdown(int sockfd, int how) {
    struct name name;
    bool listening;
    switch (kind_of(sockfd, &name)) {
    case DESCRIPTOR:
        return endpoint_shutdown(sockfd, &name, how);
    case NUMBER:
        return outcome(request_shutdown(&name, how, &listening));
    default:
        return outcome(EBADF);
    }
}

int chisocket_getsockname(int sockfd, struct sockaddr *addr, socklen_t *addrlen) {
    struct name name;
    return kind_of(sockfd, &name) == NONE ? outcome(EBADF) : endpoint_getsockname(&name, addr, addrlen);
}

int chisocket_getpeername(int sockfd, struct sockaddr *addr, socklen_t *addrlen) {
    struct name name;
    return kind_of(sockfd, &name) == NONE ? outcome(EBADF) : endpoint_getpeername(&name, addr, addrlen);
}

int chisocket_getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen) {
    struct name name;
    switch (kind_of(sockfd, &name)) {
    case DESCRIPTOR:
        return endpoint_getsockopt(sockfd, &name, level, optname, optval, optlen);
    case NUMBER:
        return endpoint_getsockopt(-1, &name, level, optname, optval, optlen);
    default:
        return outcome(EBADF);
    }
}

int chisocket_setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen) {
    struct name name;
    switch (kind_of(sockfd, &name)) {
    case DESCRIPTOR:
        return endpoint_setsockopt(sockfd, &name, level, optname, optval, optlen);
    case NUMBER:
        return endpoint_setsockopt(-1, &name, level, optname, optval, optlen);
    default:
        return outcome(EBADF);
    }
}
