/* To look into a chitcpd: what a connection's variables are, and what happens to it, step by step.
 *
 * A socket is what chisocket_socket() or chisocket_accept() has returned. Events tell of sockets that no call has
 * returned yet: those of a pending connection. Such a number is none of this process's descriptors, but the functions
 * here take it, also once accept has returned the connection by another number.
 */
#ifndef CHITCP_DEBUG_API_H
#define CHITCP_DEBUG_API_H

#include <stddef.h>
#include <stdint.h>

#include "chitcp/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum debug_event {                              /* flags, to be added together */
                   DBG_EVT_STATE_CHANGE = 1,    /* after it has changed, before any call returns for it */
                   DBG_EVT_INCOMING_PACKET = 2, /* before the TCP sees it */
                   DBG_EVT_OUTGOING_PACKET = 4, /* before it goes */
                   DBG_EVT_PENDING_CONNECTION =
                       8, /* to a listening socket: a SYN has come, its connection has not seen it yet */
};

enum debug_response {
    DBG_RESP_NONE = 0,           /* go on */
    DBG_RESP_STOP = 1,           /* go on, and tell no more of this socket */
    DBG_RESP_ACCEPT_MONITOR = 2, /* to a pending connection: the same handler for it, from its first state on */
    DBG_RESP_DROP = 3,           /* to a packet: it is lost */
    DBG_RESP_DUPLICATE = 4,      /* to an incoming packet: it has come twice */
    DBG_RESP_WITHHOLD = 5,       /* to an incoming packet: keep it back */
    DBG_RESP_DRAW_WITHHELD = 6,  /* to an incoming packet: deliver it, and behind it the oldest that is kept back */
};

/* The variables of RFC 9293 section 3.3.1. */
typedef struct debug_socket_state {
    tcp_state_t tcp_state;
    uint32_t iss;
    uint32_t irs;
    uint32_t snd_una;
    uint32_t snd_nxt;
    uint32_t rcv_nxt;
    uint32_t snd_wnd; /* bytes */
    uint32_t rcv_wnd; /* bytes */
} debug_socket_state_t;

/* What was taken to be sent and is not acknowledged yet, and what has come and is not received yet. */
typedef struct debug_socket_buffers {
    uint8_t *snd;
    size_t snd_len;
    uint8_t *rcv;
    size_t rcv_len;
} debug_socket_buffers_t;

/* Is called at each event, in a thread of the library's. `state_info` is that of `sockfd`, NULL if it is listening;
 * `new_sockfd` is -1 unless `event_flag` is DBG_EVT_PENDING_CONNECTION. What has happened is held until it returns. */
typedef enum debug_response (*debug_event_handler)(int sockfd, enum debug_event event_flag,
                                                   debug_socket_state_t *state_info, void *handler_args,
                                                   int new_sockfd);

/* Call `handler` at these events until the connection is over, or the handler says DBG_RESP_STOP. 0; or -1, with errno:
 * EBADF if there is no such socket, EAGAIN if it is watched already, EINVAL. */
CHITCP_API int chitcpd_debug(int sockfd, int event_flags, debug_event_handler handler, void *handler_args);

/* As they are now, or as they were at the event that is not answered yet. 0; or -1, with errno EBADF if the socket has
 * no connection. */
CHITCP_API int chitcpd_get_socket_state(int sockfd, debug_socket_state_t *state);

/* Likewise; to be freed by chitcpd_free_socket_buffer_contents(). */
CHITCP_API int chitcpd_get_socket_buffer_contents(int sockfd, debug_socket_buffers_t *contents);
CHITCP_API void chitcpd_free_socket_buffer_contents(debug_socket_buffers_t *contents);

/* Return once the connection is in this state, or has passed through it since the call. 0; or -1, with errno. */
CHITCP_API int chitcpd_wait_for_state(int sockfd, tcp_state_t state);

#ifdef __cplusplus
}
#endif

#endif
