/* Descriptors that chitcpd has handed out: one end of a pair of UNIX sockets each, which bears a name in the abstract
 * namespace. So whoever holds one, also after a fork, an exec or a dup, can ask the kernel which socket of which
 * chitcpd it is (chisocket/protocol/descriptors.py has the format). */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#define INSTANCE 4 /* characters: what a chitcpd calls itself, another word each time that it is started */
#define RECORD 128 /* bytes: the peer's address, which comes with each connection from a listening descriptor */

/* Which socket it is. */
struct name {
    char instance[INSTANCE + 1]; /* "": whichever chitcpd answers */
    int sockfd;                  /* chitcpd's own number for it */
    int serial;                  /* tells a descriptor from former ones of this number */
};

/* Whether `fd` is such a descriptor. */
bool name_of(int fd, struct name *name);

/* Whether it is one with a connection; false too in the rare case that somebody else has the name of chitcpd's end. */
bool name_of_connected(int fd, struct name *name);

/* Whether it is one that listens. Nothing is asked of chitcpd: an end takes no data before it is connected or listens.
 */
bool is_listening(int fd);

/* Whether chitcpd has shut down its end in both directions: the connection has failed, or is over. */
bool is_hung_up(int fd);

/* As recv(2); `*with` is a descriptor that has come with the data (SCM_RIGHTS), closed on exec, or -1. EMFILE
 * if the process had no number for it: the kernel has closed it. */
ssize_t receive_with_descriptor(int fd, void *data, size_t len, int *with);

#endif
