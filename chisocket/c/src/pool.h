/* The connections of this process to its chitcpd. A request may wait, and a connection carries one at a time: so each
 * request takes one that is idle, or opens one, and puts it back. At most one per thread is in use, as in the C chiTCP.
 *
 * chitcpd resets the sockets of a connection that goes. So one that has made a socket, by SOCKET or ACCEPT, is set
 * aside until that socket is closed and carries nothing but its CLOSE: whatever is interrupted, no socket dies of it.
 *
 * Thread-safe, and safe in signal handlers; a child after fork(2) begins with none. All functions that return an int
 * return 0 or an errno. */
#ifndef POOL_H
#define POOL_H

#include "connection.h"

/* One to the chitcpd that $CHITCPD_SOCK names. If `instance` is not "", then to none but that one: else ENETDOWN. */
int pool_take(const char *instance, struct connection **taken);

void pool_put_back(struct connection *connection);

/* One that begins with another INIT than a command connection, for the caller alone. */
int pool_open(const char *instance, InitArgs *init, struct connection **opened);

/* Close it: it is of no more use. */
void pool_discard(struct connection *connection);

/* Set it aside: it has made the socket of this number. */
void pool_set_aside(struct connection *connection, int number);

/* The one that has made the socket of this number, for its CLOSE; NULL if none of this process has. */
struct connection *pool_take_maker(int number);

/* Whether one of this process has made the socket of this number. */
bool pool_has_made(int number);

/* Where the chitcpd is. */
const char *socket_path(void);

#endif
