/* Socket addresses: from names, for people, compared. The names are those of the lab ($CHITCP_HOSTS, like
 * "alice=10.0.0.2 bob=10.0.0.3"), then those that the system's resolver knows. */
#ifndef CHITCP_ADDR_H
#define CHITCP_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "chitcp/export.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHITCP_ADDR_STRLEN 56 /* the longest that chitcp_addr_str() writes, with its final NUL */

/* The IPv4 address of a port ("7", "http") on a host, a name or an address. 0; or -1, with errno: ENXIO if nobody
 * knows the host or the service, EAFNOSUPPORT if the host has no IPv4 address, EINVAL if an argument is NULL, or if
 * $CHITCP_HOSTS can't be read. */
CHITCP_API int chitcp_addr_construct(const char *host, const char *service, struct sockaddr_in *addr);

/* The same for either family, AF_INET6, AF_INET, or AF_UNSPEC for whichever comes first; its length is in *addrlen. */
CHITCP_API int chitcp_addr_resolve(const char *host, const char *service, int family, struct sockaddr_storage *addr,
                                   socklen_t *addrlen);

/* Write it as "10.0.0.2:7" or "[fd00::2]:7", cut to `size` bytes with a final NUL; returns `buf`. Another family is
 * "?". */
CHITCP_API char *chitcp_addr_str(const struct sockaddr *addr, char *buf, size_t size);

/* Less than, equal to or greater than 0, by family, then address, then port; chitcp_addr_host_cmp() leaves the port
 * out. NULL comes first. */
CHITCP_API int chitcp_addr_cmp(const struct sockaddr *a, const struct sockaddr *b);
CHITCP_API int chitcp_addr_host_cmp(const struct sockaddr *a, const struct sockaddr *b);

#ifdef __cplusplus
}
#endif

#endif
