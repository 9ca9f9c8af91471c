/* Sockets whose TCP is a chitcpd's. Each function does what the system's function of its name does, and returns -1 with
 * errno if it can't.
 *
 * $CHITCPD_SOCK names the chitcpd to use (else /tmp/chitcpd.socket.LOGIN, else /tmp/chitcpd.socket). If it can't be
 * reached, or ends, errno is ENETDOWN.
 *
 * What chisocket_socket() and chisocket_accept() return is a descriptor of this process, which poll(2) waits for, which
 * read(2) and write(2) take, and which a child has after fork(2). With a C chitcpd, and if $CHISOCKET_REQUESTS is set,
 * it is a number of chitcpd's in place of that: then each call is a request to chitcpd, only the functions of these
 * headers take it, and only the process that made it may use it.
 *
 * All functions may be called by several threads at a time. A signal handler interrupts those that wait (EINTR), as it
 * interrupts the system's: unless it was installed with SA_RESTART.
 */
#ifndef CHITCP_SOCKET_H
#define CHITCP_SOCKET_H

#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "chitcp/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A new socket: PF_INET or PF_INET6, SOCK_STREAM, 0 or IPPROTO_TCP. */
CHITCP_API int chisocket_socket(int domain, int type, int protocol);

/* Give it a local address; port 0 picks one, which chisocket_getsockname() tells. */
CHITCP_API int chisocket_bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen);

CHITCP_API int chisocket_listen(int sockfd, int backlog);

/* Wait for a connection: a socket for it, and the peer's address, unless `addr` is NULL. */
CHITCP_API int chisocket_accept(int sockfd, struct sockaddr *addr, socklen_t *addrlen);

/* Open a connection; returns once it is established. */
CHITCP_API int chisocket_connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen);

/* Queue data to be sent, waiting for room; how many bytes were taken. None at all is EINVAL; there is no SIGPIPE. */
CHITCP_API ssize_t chisocket_send(int sockfd, const void *buf, size_t len, int flags);

/* Wait for data, and return how many bytes there are: from 1 to `len`, or 0 at the end of the stream. A `len` of 0 is
 * EINVAL. */
CHITCP_API ssize_t chisocket_recv(int sockfd, void *buf, size_t len, int flags);

/* Close the connection in order; returns once the peer has acknowledged all data and our FIN, which takes as long as
 * the TCP tries. If it gives up, or the peer resets the connection, that is -1 with errno; the socket is closed all the
 * same. close(2) of a descriptor does not wait. */
CHITCP_API int chisocket_close(int sockfd);

/* Not in the C chiTCP: one with a C chitcpd fails. */
CHITCP_API int chisocket_shutdown(int sockfd, int how);
CHITCP_API int chisocket_getsockname(int sockfd, struct sockaddr *addr, socklen_t *addrlen);
CHITCP_API int chisocket_getpeername(int sockfd, struct sockaddr *addr, socklen_t *addrlen);
CHITCP_API int chisocket_getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen);
CHITCP_API int chisocket_setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen);

#ifdef __cplusplus
}
#endif

#endif
