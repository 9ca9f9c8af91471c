/* The calls on a descriptor of chitcpd's, as the system has them for its own: they return -1 and set errno. */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include <sys/socket.h>
#include <sys/types.h>

#include "descriptors.h"

/* `flags`: SOCK_NONBLOCK and SOCK_CLOEXEC, for the new descriptor. */
int endpoint_socket(int domain, int type, int protocol, int flags);
int endpoint_accept(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags);

int endpoint_bind(const struct name *name, const struct sockaddr *addr, socklen_t addrlen);
int endpoint_listen(const struct name *name, int backlog);
int endpoint_connect(int fd, const struct name *name, const struct sockaddr *addr, socklen_t addrlen);
int endpoint_shutdown(int fd, const struct name *name, int how);
int endpoint_getsockname(const struct name *name, struct sockaddr *addr, socklen_t *addrlen);
int endpoint_getpeername(const struct name *name, struct sockaddr *addr, socklen_t *addrlen);
int endpoint_getsockopt(int fd, const struct name *name, int level, int option, void *value, socklen_t *len);
int endpoint_setsockopt(int fd, const struct name *name, int level, int option, const void *value, socklen_t len);

/* What a read that has returned 0 means on a descriptor, whatever it is: 0 if that it is the end, or the error with
 * which its connection has failed. */
int read_error(int fd);

/* The errno of a write that has failed with `error`, likewise: EPIPE may hide another. */
int write_error(int fd, int error);

/* Set errno to `error` and return -1; or return 0, if that is 0. */
int outcome(int error);

#endif
