/* The states of a connection (RFC 9293 section 3.3.2), by their numbers in chiTCP's protocol. */
#ifndef CHITCP_TYPES_H
#define CHITCP_TYPES_H

#include "chitcp/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    CLOSED = 0,
    LISTEN = 1,
    SYN_RCVD = 2,
    SYN_SENT = 3,
    ESTABLISHED = 4,
    FIN_WAIT_1 = 5,
    FIN_WAIT_2 = 6,
    CLOSE_WAIT = 7,
    CLOSING = 8,
    TIME_WAIT = 9,
    LAST_ACK = 10,
} tcp_state_t;

/* Its name, like "ESTABLISHED"; of another number, "UNKNOWN". */
CHITCP_API const char *tcp_str(tcp_state_t state);

#ifdef __cplusplus
}
#endif

#endif
