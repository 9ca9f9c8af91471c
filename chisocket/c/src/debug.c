#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "chitcp/debug_api.h"
#include "endpoint.h"

/* In events a socket that is no descriptor of this process is a number with this bit: chitcpd's own number. */
#define FOREIGN (1 << 30)

/* Any number may be looked at, those too that other processes have made. */
static struct name name_to_look_at(int sockfd) {
    struct name name = {.instance = "", .sockfd = sockfd};
    if (sockfd >= FOREIGN)
        name.sockfd = sockfd - FOREIGN;
    else if (!pool_has_made(sockfd))
        name_of(sockfd, &name);
    return name;
}

static int get_state(const struct name *name, debug_socket_state_t *state) {
    GetSocketStateArgs args = GET_SOCKET_STATE_ARGS__INIT;
    args.sockfd = name->sockfd;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__GET_SOCKET_STATE, message.get_socket_state_args = &args;
    int error = ask(name->instance, &message, PATIENT, &answer);
    if (error != 0)
        return error;
    const SocketState *now = answer.resp->socket_state;
    if (now != NULL)
        *state = (debug_socket_state_t){
            .tcp_state = (tcp_state_t)now->tcp_state,
            .iss = (uint32_t)now->iss,
            .irs = (uint32_t)now->irs,
            .snd_una = (uint32_t)now->snd_una,
            .snd_nxt = (uint32_t)now->snd_nxt,
            .rcv_nxt = (uint32_t)now->rcv_nxt,
            .snd_wnd = (uint32_t)now->snd_wnd,
            .rcv_wnd = (uint32_t)now->rcv_wnd,
        };
    error = now == NULL ? EPROTO : 0;
    answer_free(&answer);
    return error;
}

int chitcpd_get_socket_state(int sockfd, debug_socket_state_t *state) {
    if (state == NULL)
        return outcome(EFAULT);
    struct name name = name_to_look_at(sockfd);
    return outcome(get_state(&name, state));
}

/* A copy that the caller frees; never NULL, also of nothing. */
static uint8_t *copy_of(ProtobufCBinaryData data) {
    uint8_t *copy = malloc(data.len > 0 ? data.len : 1);
    if (copy != NULL && data.len > 0)
        memcpy(copy, data.data, data.len);
    return copy;
}

int chitcpd_get_socket_buffer_contents(int sockfd, debug_socket_buffers_t *contents) {
    if (contents == NULL)
        return outcome(EFAULT);
    struct name name = name_to_look_at(sockfd);
    GetSocketBufferContentsArgs args = GET_SOCKET_BUFFER_CONTENTS_ARGS__INIT;
    args.sockfd = name.sockfd;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__GET_SOCKET_BUFFER_CONTENTS, message.get_socket_buffer_contents_args = &args;
    int error = ask(name.instance, &message, PATIENT, &answer);
    if (error != 0)
        return outcome(error);
    const SocketBufferContents *now = answer.resp->socket_buffer_contents;
    if (now == NULL) {
        answer_free(&answer);
        return outcome(EPROTO);
    }
    *contents = (debug_socket_buffers_t){
        .snd = copy_of(now->snd), .snd_len = now->snd.len, .rcv = copy_of(now->rcv), .rcv_len = now->rcv.len};
    answer_free(&answer);
    if (contents->snd != NULL && contents->rcv != NULL)
        return 0;
    chitcpd_free_socket_buffer_contents(contents);
    return outcome(ENOMEM);
}

void chitcpd_free_socket_buffer_contents(debug_socket_buffers_t *contents) {
    if (contents == NULL)
        return;
    free(contents->snd);
    free(contents->rcv);
    *contents = (debug_socket_buffers_t){0};
}

int chitcpd_wait_for_state(int sockfd, tcp_state_t state) {
    struct name name = name_to_look_at(sockfd);
    WaitForStateArgs args = WAIT_FOR_STATE_ARGS__INIT;
    args.sockfd = name.sockfd, args.tcp_state = (int32_t)state;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    message.code = MSG_CODE__WAIT_FOR_STATE, message.wait_for_state_args = &args;
    return outcome(tell(name.instance, &message, INTERRUPTIBLE));
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

struct watch {
    struct connection *connection;
    int sockfd;       /* as the caller knows it */
    struct name name; /* as chitcpd knows it */
    debug_event_handler handler;
    void *handler_args;
    bool foreign; /* the caller's sockets are descriptors */
};

/* A socket of an event, as the handler is to know it. */
static int known_as(const struct watch *watch, int number) {
    if (number < 0 || !watch->foreign)
        return number;
    return number == watch->name.sockfd ? watch->sockfd : number + FOREIGN;
}

static int call_handler(const struct watch *watch, const DebugEventArgs *event, int *response) {
    debug_socket_state_t state, *shown = NULL;
    if (event->is_active) {
        struct name name = watch->name;
        name.sockfd = event->sockfd;
        int error = get_state(&name, &state);
        if (error != 0)
            return error; /* chitcpd is ending, and waits for no answer any more */
        shown = &state;
    }
    *response = (int)watch->handler(known_as(watch, event->sockfd), (enum debug_event)event->event_flag, shown,
                                    watch->handler_args, known_as(watch, event->new_sockfd));
    return 0;
}

static int answer_next(struct watch *watch) {
    struct answer event;
    int error = connection_receive(watch->connection, &event);
    if (error != 0)
        return error;
    int response = DBG_RESP_NONE;
    if (event.message->code != MSG_CODE__DEBUG_EVENT || event.message->debug_event_args == NULL)
        error = EPROTO;
    else
        error = call_handler(watch, event.message->debug_event_args, &response);
    answer_free(&event);
    if (error != 0)
        return error;
    Resp resp = RESP__INIT;
    resp.ret = response;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    message.code = MSG_CODE__RESP, message.resp = &resp;
    return connection_send(watch->connection, &message);
}

static void *serve(void *argument) {
    struct watch *watch = argument;
    while (answer_next(watch) == 0)
        ;
    pool_discard(watch->connection);
    free(watch);
    return NULL;
}

/* A thread that gets none of the program's signals, and that nobody waits for. */
static int start_thread(struct watch *watch) {
    sigset_t every, before;
    pthread_attr_t detached;
    pthread_t thread;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &detached, serve, watch);
    pthread_attr_destroy(&detached);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int chitcpd_debug(int sockfd, int event_flags, debug_event_handler handler, void *handler_args) {
    if (handler == NULL || event_flags <= 0 || event_flags >= 2 * DBG_EVT_PENDING_CONNECTION)
        return outcome(EINVAL);
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return outcome(ENOMEM);
    watch->name = name_to_look_at(sockfd);
    watch->sockfd = sockfd, watch->handler = handler, watch->handler_args = handler_args;
    watch->foreign = watch->name.instance[0] != '\0' || sockfd >= FOREIGN;
    DebugInitArgs args = DEBUG_INIT_ARGS__INIT;
    args.sockfd = watch->name.sockfd, args.event_flags = event_flags;
    InitArgs init = INIT_ARGS__INIT;
    init.connection_type = CONNECTION_TYPE__DEBUG_CONNECTION, init.debug = &args;
    int error = pool_open(watch->name.instance, &init, &watch->connection);
    if (error == 0 && (error = start_thread(watch)) != 0)
        pool_discard(watch->connection);
    if (error != 0)
        free(watch);
    return outcome(error);
}
