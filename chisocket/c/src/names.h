/* What is the lab's: the names of its hosts ($CHITCP_HOSTS, like "alice=10.0.0.2 bob=10.0.0.3"), and its networks
 * ($CHITCP_NETWORKS, like "10.0.0.0/8 fd00::/8"; if it is not set, every network is). */
#ifndef NAMES_H
#define NAMES_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

/* What the environment says. */
enum variable { CHITCPD_SOCK, CHITCP_HOSTS, CHITCP_NETWORKS };
const char *setting(enum variable variable);

/* From now on, what it says now: some programs empty their environment. */
void remember_settings(void);

/* The address of a host of the lab, as text; false if the lab has none of this name. */
bool lab_address(const char *host, char address[INET6_ADDRSTRLEN]);

/* Whether this address belongs to none of the lab's networks. The wildcard addresses are the lab's. */
bool is_elsewhere(const struct sockaddr *addr, socklen_t len);

/* The first word of $CHITCP_HOSTS or $CHITCP_NETWORKS that is none of what it should be, to be freed; NULL if all are
 * right. The functions above pass over such a word. */
char *malformed_host(void);
char *malformed_network(void);

#endif
