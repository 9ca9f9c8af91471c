/* The requests about one socket of chitcpd's. All functions return 0 or an errno. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "descriptors.h"

/* A fresh socket: its descriptor, which is the caller's to close. EOPNOTSUPP if chitcpd has none to give: a C one. */
int request_open(int domain, int type, int protocol, int *fd);

/* A fresh socket that only requests can use: its number. request_accept() likewise. */
int request_socket(int domain, int type, int protocol, int *number);
int request_accept(int number, struct sockaddr *addr, socklen_t *addrlen, int *accepted);
int request_connect(int number, const struct sockaddr *addr, socklen_t addrlen);
int request_send(int number, const void *data, size_t len, int flags, ssize_t *sent);
int request_recv(int number, void *data, size_t len, int flags, ssize_t *received);
int request_close(int number);

int request_bind(const struct name *name, const struct sockaddr *addr, socklen_t addrlen);
int request_listen(const struct name *name, int backlog);

/* Begin to connect, and `wait` for the end of that, for so many milliseconds (-1: for ever). `*renewed` is -1, or a
 * descriptor that takes the place of the former one, since a former connect has failed: then there was no waiting. */
int request_start_connect(const struct name *name, const struct sockaddr *addr, socklen_t addrlen, bool wait,
                          int milliseconds, int *renewed);

/* `*listening`: whether it was; then the descriptor itself must be shut down too. */
int request_shutdown(const struct name *name, int how, bool *listening);

/* After the descriptor was closed: return once the peer has all, or after so many milliseconds; -1: no such limit. */
int request_wait_acknowledged(const struct name *name, int milliseconds);

int request_getsockname(const struct name *name, struct sockaddr *addr, socklen_t *addrlen);
int request_getpeername(const struct name *name, struct sockaddr *addr, socklen_t *addrlen);
int request_getsockopt(const struct name *name, int level, int option, void *value, socklen_t *len);
int request_setsockopt(const struct name *name, int level, int option, const void *value, socklen_t len);

/* The error that is pending on the socket (SO_ERROR), which is taken by that; what has become of asking for it, if that
 * fails. */
int request_error(const struct name *name);

/* A length that Linux takes for one below zero, and refuses with EINVAL. */
static inline bool is_negative(socklen_t len) {
    return len > INT32_MAX;
}

/* An address as a system call hands it out: cut to the caller's `*len`, which becomes its true length. */
int hand_out_address(const void *raw, size_t raw_len, struct sockaddr *addr, socklen_t *len);

/* An address that the caller has given, as chitcpd is to see it: without what lies behind it, or in its padding. */
int take_address(const struct sockaddr *addr, socklen_t len, struct sockaddr_storage *taken, socklen_t *taken_len);

#endif
