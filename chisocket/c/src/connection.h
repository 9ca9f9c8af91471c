/* One connection to a chitcpd, over its UNIX socket: a message out, its answer back. Each message travels behind its
 * length, 8 bytes in native order. All functions return 0 or an errno. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stdbool.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "chitcpd.pb-c.h"
#include "descriptors.h"

struct connection {
    int fd;
    dev_t device; /* of `fd`, with `inode`: a program that closes numbers which are not its own closes ours, too */
    ino_t inode;
    char instance[INSTANCE + 1]; /* of the chitcpd; "" if it is a C one */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int number;                      /* of the socket that it has made (pool.h), or -1 */
    LIST_ENTRY(connection) all;      /* of this process */
    LIST_ENTRY(connection) in_state; /* idle ones, or those that have made a socket */
};

/* Connect to the chitcpd at `path` and say INIT. ENETDOWN if none answers, EACCES if it is another user's. */
int connection_open(struct connection *connection, const char *path, InitArgs *init);

/* Whether it is of no more use: chitcpd has closed it, or this program has. */
bool connection_is_gone(const struct connection *connection);

void connection_close(struct connection *connection);

/* How a request is to be waited for. */
struct patience {
    int milliseconds;   /* ETIMEDOUT after so many; -1: none */
    bool interruptible; /* EINTR if a signal handler was called */
};

#define PATIENT ((struct patience){.milliseconds = -1})
#define INTERRUPTIBLE ((struct patience){.milliseconds = -1, .interruptible = true})

/* Send `message` and wait for the answer, to be freed by chitcpd_msg__free_unpacked(). After an error the connection
 * is of no more use. `*rights` is a descriptor that has come with the answer, or -1.
 *
 * ENETDOWN if chitcpd has gone away, EPROTO if it is none. An interrupted request is taken back; if chitcpd has
 * answered it meanwhile, that is the answer, so that nothing is lost, and `*used_up` tells that the connection is of no
 * more use. */
int connection_exchange(struct connection *connection, const ChitcpdMsg *message, struct patience patience,
                        ChitcpdMsg **answer, int *rights, bool *used_up);

/* Send a message, or wait for one, on a debug connection. */
int connection_send(struct connection *connection, const ChitcpdMsg *message);
int connection_receive(struct connection *connection, ChitcpdMsg **message);

#endif
