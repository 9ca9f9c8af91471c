#define _GNU_SOURCE
#include "endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>

#include "requests.h"
#include "system.h"

int outcome(int error) {
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

static void apply(int fd, int flags) {
    if (flags & SOCK_NONBLOCK)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (!(flags & SOCK_CLOEXEC))
        fcntl(fd, F_SETFD, 0); /* it has come with it */
}

int endpoint_socket(int domain, int type, int protocol, int flags) {
    int fd = -1;
    int error = request_open(domain, type, protocol, &fd);
    if (error != 0)
        return outcome(error);
    apply(fd, flags);
    return fd;
}

/* The next record of a listening descriptor. accept() is a cancellation point. */
static ssize_t take_record(int fd, uint8_t record[RECORD], int *accepted) {
    int before;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before);
    ssize_t count = receive_with_descriptor(fd, record, RECORD, accepted);
    pthread_setcanceltype(before, NULL);
    return count;
}

int endpoint_accept(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags) {
    if (addr != NULL && addrlen == NULL)
        return outcome(EFAULT);
    if (!is_listening(fd) || (addr != NULL && is_negative(*addrlen)))
        return outcome(EINVAL);
    int number = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (number < 0)
        return -1; /* EMFILE: what waits goes on waiting; if threads take the last number meanwhile, it is lost */
    sys_close(number);
    uint8_t record[RECORD]; /* the peer's address; with it comes the connection */
    int accepted;
    ssize_t count = take_record(fd, record, &accepted);
    if (count < 0)
        return -1;
    if (count == 0)
        return outcome(EINVAL); /* it was shut down, or its chitcpd has ended */
    if (accepted < 0)
        return outcome(EPROTO);
    int error = addr != NULL ? hand_out_address(record, (size_t)count, addr, addrlen) : 0;
    if (error != 0) {
        sys_close(accepted);
        return outcome(error);
    }
    apply(accepted, flags);
    return accepted;
}

int endpoint_bind(const struct name *name, const struct sockaddr *addr, socklen_t addrlen) {
    struct sockaddr_storage own;
    int error = take_address(addr, addrlen, &own, &addrlen);
    return outcome(error != 0 ? error : request_bind(name, (struct sockaddr *)&own, addrlen));
}

int endpoint_listen(const struct name *name, int backlog) {
    return outcome(request_listen(name, backlog));
}

/* In the place of `fd`, also for those that share it with us as the same number; not for copies made before. */
static void renew(int fd, int renewed, int status) {
    if (status & O_NONBLOCK)
        fcntl(renewed, F_SETFL, fcntl(renewed, F_GETFL) | O_NONBLOCK);
    sys_dup3(renewed, fd, fcntl(fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0);
    sys_close(renewed);
}

/* How long connect waits, as in Linux: -1, or SO_SNDTIMEO in milliseconds. */
static int patience_of(int fd) {
    struct timeval limit = {0};
    socklen_t len = sizeof limit;
    if (sys_getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &len) < 0 || (limit.tv_sec == 0 && limit.tv_usec == 0))
        return -1;
    long long milliseconds = limit.tv_sec * 1000LL + (limit.tv_usec + 999) / 1000;
    return milliseconds < INT_MAX ? (int)milliseconds : INT_MAX;
}

/* Wait for the end of a connect over a new descriptor. */
static int wait_connected(int fd, const struct name *name, int milliseconds) {
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    int ready = poll(&writable, 1, milliseconds);
    if (ready < 0)
        return errno; /* EINTR: it goes on by itself, as POSIX has it */
    if (ready == 0)
        return EINPROGRESS;
    return writable.revents & (POLLHUP | POLLERR) ? request_error(name) : 0;
}

int endpoint_connect(int fd, const struct name *name, const struct sockaddr *addr, socklen_t addrlen) {
    struct sockaddr_storage peer;
    int error = take_address(addr, addrlen, &peer, &addrlen);
    if (error != 0)
        return outcome(error);
    int renewed = -1, status = fcntl(fd, F_GETFL);
    bool wait = !(status & O_NONBLOCK);
    int milliseconds = wait ? patience_of(fd) : -1;
    error = request_start_connect(name, (struct sockaddr *)&peer, addrlen, wait, milliseconds, &renewed);
    if (error == 0 && renewed >= 0) {
        renew(fd, renewed, status);
        error = wait ? wait_connected(fd, name, milliseconds) : 0;
    }
    if (error == 0 && !wait)
        error = EINPROGRESS;
    return outcome(error == ETIME ? EINPROGRESS : error);
}

int endpoint_shutdown(int fd, const struct name *name, int how) {
    if (how < SHUT_RD || how > SHUT_RDWR)
        return outcome(EINVAL);
    bool listening = false;
    int error = request_shutdown(name, how, &listening);
    if (error != 0)
        return outcome(error);
    if (listening)
        return sys_shutdown(fd, how);
    if (how != SHUT_RD)
        sys_shutdown(fd, SHUT_WR);
    return 0;
}

int endpoint_getsockname(const struct name *name, struct sockaddr *addr, socklen_t *addrlen) {
    if (addr == NULL || addrlen == NULL)
        return outcome(EFAULT);
    if (is_negative(*addrlen))
        return outcome(EINVAL);
    return outcome(request_getsockname(name, addr, addrlen));
}

int endpoint_getpeername(const struct name *name, struct sockaddr *addr, socklen_t *addrlen) {
    if (addr == NULL || addrlen == NULL)
        return outcome(EFAULT);
    if (is_negative(*addrlen))
        return outcome(EINVAL);
    return outcome(request_getpeername(name, addr, addrlen));
}

/* Whether an option is the descriptor's own, and not the connection's. */
static bool is_of_descriptor(int level, int option) {
    return level == SOL_SOCKET && (option == SO_RCVTIMEO || option == SO_SNDTIMEO || option == SO_RCVLOWAT);
}

/* What send() takes goes into the end first. It is made no larger: before connect it is full, and must be. */
static void bound_end(int fd, const void *value, socklen_t len) {
    int wanted, before; /* the kernel has doubled it */
    socklen_t size = sizeof before;
    if (len < sizeof wanted || sys_getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &before, &size) < 0)
        return;
    memcpy(&wanted, value, sizeof wanted);
    int half = (wanted < 0 ? 0 : wanted < before ? wanted : before) / 2;
    sys_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
}

/* `fd` is -1 if there is no descriptor: then nothing is its own. */
int endpoint_getsockopt(int fd, const struct name *name, int level, int option, void *value, socklen_t *len) {
    if (value == NULL || len == NULL)
        return outcome(EFAULT);
    if (is_negative(*len))
        return outcome(EINVAL);
    if (fd >= 0 && is_of_descriptor(level, option))
        return sys_getsockopt(fd, level, option, value, len);
    return outcome(request_getsockopt(name, level, option, value, len));
}

int endpoint_setsockopt(int fd, const struct name *name, int level, int option, const void *value, socklen_t len) {
    if (fd >= 0 && is_of_descriptor(level, option))
        return sys_setsockopt(fd, level, option, value, len);
    if (value == NULL && len > 0)
        return outcome(EFAULT);
    int error = len > 1024 ? EINVAL : request_setsockopt(name, level, option, value, len);
    if (error == 0 && fd >= 0 && level == SOL_SOCKET && option == SO_SNDBUF)
        bound_end(fd, value, len);
    return outcome(error);
}

int read_error(int fd) {
    struct name name;
    if (!is_hung_up(fd) || !name_of(fd, &name))
        return 0;
    int before = errno;
    int error = request_error(&name);
    errno = before;
    return error;
}

int write_error(int fd, int error) {
    int hidden = error == EPIPE ? read_error(fd) : 0;
    return hidden != 0 ? hidden : error;
}
