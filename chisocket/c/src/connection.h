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

/* Connect to the chitcpd at `path` and say INIT. ENETDOWN if none answers, EACCES if it is another user's. The lists of
 * a connection are left alone. */
int connection_open(struct connection *connection, const char *path, InitArgs *init);

/* Whether it is of no more use: chitcpd has closed it, or this program has. */
bool connection_is_gone(const struct connection *connection);

void connection_close(struct connection *connection);

/* A message that has come, and the memory that it lies in: nothing is asked of the heap for a usual one, so that a
 * signal handler may make the calls that POSIX lets it make. */
struct answer {
    ChitcpdMsg *message;
    const Resp *resp; /* of the message, if it is an answer */
    int fd;           /* a descriptor that has come with it, or -1 */
    ProtobufCAllocator allocator;
    size_t used;
    _Alignas(16) unsigned char space[2048];
};

/* Also closes the descriptor, unless somebody has taken it, and set `fd` to -1. */
void answer_free(struct answer *answer);

/* How a request is to be waited for. */
struct patience {
    int milliseconds;   /* ETIME after so many; -1: never */
    bool interruptible; /* EINTR if a signal handler was called */
};

#define PATIENT ((struct patience){.milliseconds = -1})
#define INTERRUPTIBLE ((struct patience){.milliseconds = -1, .interruptible = true})

/* Send `message` and wait for the answer, to be freed if there is no error. After an error the connection is of no more
 * use. ENETDOWN if chitcpd has gone away, EPROTO if it is none.
 *
 * An interrupted request is taken back (not from a C chitcpd, which would not notice). If something has been done of it
 * by then, that is the answer, and `*used_up` tells that the connection is of no more use all the same. */
int connection_exchange(struct connection *connection, const ChitcpdMsg *message, struct patience patience,
                        struct answer *answer, bool *used_up);

/* Send a message, or wait for one, on a debug connection. */
int connection_send(struct connection *connection, const ChitcpdMsg *message);
int connection_receive(struct connection *connection, struct answer *message);

#endif
