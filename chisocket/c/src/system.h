/* System calls, past the C library: libchisocket-preload.so replaces its functions, which would come back to us. None
 * of these is a cancellation point: a thread is not cancelled in the middle of a request. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline int sys_socket(int domain, int type, int protocol) {
    return (int)syscall(SYS_socket, domain, type, protocol);
}

static inline int sys_bind(int fd, const void *addr, socklen_t len) {
    return (int)syscall(SYS_bind, fd, addr, len);
}

static inline int sys_connect(int fd, const void *addr, socklen_t len) {
    return (int)syscall(SYS_connect, fd, addr, len);
}

static inline int sys_close(int fd) {
    return (int)syscall(SYS_close, fd);
}

static inline int sys_shutdown(int fd, int how) {
    return (int)syscall(SYS_shutdown, fd, how);
}

static inline int sys_dup3(int from, int to, int flags) {
    return (int)syscall(SYS_dup3, from, to, flags);
}

static inline int sys_getsockname(int fd, void *addr, socklen_t *len) {
    return (int)syscall(SYS_getsockname, fd, addr, len);
}

static inline int sys_getpeername(int fd, void *addr, socklen_t *len) {
    return (int)syscall(SYS_getpeername, fd, addr, len);
}

static inline int sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
}

static inline int sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}

static inline ssize_t sys_send(int fd, const void *data, size_t len, int flags) {
    return syscall(SYS_sendto, fd, data, len, flags, NULL, 0);
}

static inline ssize_t sys_recv(int fd, void *data, size_t len, int flags) {
    return syscall(SYS_recvfrom, fd, data, len, flags, NULL, NULL);
}

static inline ssize_t sys_recvmsg(int fd, struct msghdr *message, int flags) {
    return syscall(SYS_recvmsg, fd, message, flags);
}

/* `milliseconds`: -1 waits for ever. */
static inline int sys_poll(struct pollfd *fds, unsigned count, int milliseconds) {
    struct timespec limit = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000L};
    return (int)syscall(SYS_ppoll, fds, count, milliseconds < 0 ? NULL : &limit, NULL, 0);
}

#endif
