#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <string.h>

#include "ask.h"

#define MOST_DATA (1u << 20) /* bytes of one SEND or RECV: chitcpd queues no more by default, and answers with less */

static const char ANY[] = ""; /* instance: a number is known to whichever chitcpd answers */

/* ---- addresses --------------------------------------------------------------------------------------------------- */

static size_t size_of_address(sa_family_t family) {
    return family == AF_INET ? sizeof(struct sockaddr_in) : family == AF_INET6 ? sizeof(struct sockaddr_in6) : 0;
}

int take_address(const struct sockaddr *addr, socklen_t len, struct sockaddr_storage *taken, socklen_t *taken_len) {
    if (addr == NULL)
        return EFAULT;
    if (len < sizeof addr->sa_family)
        return EINVAL;
    size_t size = size_of_address(addr->sa_family);
    if (size == 0)
        return EAFNOSUPPORT;
    if (len < size)
        return EINVAL;
    memcpy(taken, addr, size);
    if (taken->ss_family == AF_INET)
        memset(((struct sockaddr_in *)taken)->sin_zero, 0, sizeof((struct sockaddr_in *)taken)->sin_zero);
    *taken_len = (socklen_t)size;
    return 0;
}

int hand_out_address(const void *raw, size_t raw_len, struct sockaddr *addr, socklen_t *len) {
    sa_family_t family;
    if (raw_len < sizeof family)
        return EPROTO;
    memcpy(&family, raw, sizeof family);
    size_t size = size_of_address(family);
    if (size == 0 || raw_len < size)
        return EPROTO;
    memcpy(addr, raw, *len < size ? *len : size);
    *len = (socklen_t)size;
    return 0;
}

static ProtobufCBinaryData bytes(const void *data, size_t len) {
    return (ProtobufCBinaryData){.data = (uint8_t *)data, .len = len};
}

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

int request_open(int domain, int type, int protocol, int *fd) {
    SocketArgs args = SOCKET_ARGS__INIT;
    args.domain = domain, args.type = type, args.protocol = protocol;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__OPEN, message.socket_args = &args;
    struct connection *connection;
    int error = pool_take(ANY, &connection);
    if (error != 0)
        return error;
    bool is_c = connection->instance[0] == '\0';
    pool_put_back(connection);
    if (is_c)
        return EOPNOTSUPP;
    error = ask(ANY, &message, PATIENT, &answer);
    if (error != 0)
        return error;
    *fd = answer.fd, answer.fd = -1;
    answer_free(&answer);
    return *fd < 0 ? EPROTO : 0;
}

/* A request that makes a socket: the connection that carries it is set aside. */
static int make(const ChitcpdMsg *message, struct patience patience, struct answer *answer) {
    struct connection *connection;
    int error = pool_take(ANY, &connection);
    if (error != 0)
        return error;
    bool used_up;
    error = connection_exchange(connection, message, patience, answer, &used_up);
    if (error != 0) {
        pool_discard(connection);
        return error;
    }
    error = answer->resp->error_code;
    if (error == 0 && answer->resp->ret < 0)
        error = EPROTO;
    if (error == 0 && used_up)
        error = EINTR; /* the socket goes with the connection that has made it: its peer sees a reset */
    if (used_up)
        pool_discard(connection);
    else if (error != 0)
        pool_put_back(connection);
    else
        pool_set_aside(connection, answer->resp->ret);
    if (error != 0)
        answer_free(answer);
    return error;
}

int request_socket(int domain, int type, int protocol, int *number) {
    SocketArgs args = SOCKET_ARGS__INIT;
    args.domain = domain, args.type = type, args.protocol = protocol;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__SOCKET, message.socket_args = &args;
    int error = make(&message, PATIENT, &answer);
    if (error != 0)
        return error;
    *number = answer.resp->ret;
    answer_free(&answer);
    return 0;
}

int request_accept(int number, struct sockaddr *addr, socklen_t *addrlen, int *accepted) {
    AcceptArgs args = ACCEPT_ARGS__INIT;
    args.sockfd = number;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__ACCEPT, message.accept_args = &args;
    int error = make(&message, INTERRUPTIBLE, &answer);
    if (error != 0)
        return error;
    *accepted = answer.resp->ret;
    if (addr != NULL)
        error = hand_out_address(answer.resp->addr.data, answer.resp->addr.len, addr, addrlen);
    answer_free(&answer);
    if (error != 0)
        request_close(*accepted);
    return error;
}

int request_connect(int number, const struct sockaddr *addr, socklen_t addrlen) {
    ConnectArgs args = CONNECT_ARGS__INIT;
    args.sockfd = number, args.addr = bytes(addr, addrlen);
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    message.code = MSG_CODE__CONNECT, message.connect_args = &args;
    return tell(ANY, &message, INTERRUPTIBLE);
}

int request_send(int number, const void *data, size_t len, int flags, ssize_t *sent) {
    size_t taken = len < MOST_DATA ? len : MOST_DATA;
    SendArgs args = SEND_ARGS__INIT;
    args.sockfd = number, args.flags = flags, args.buf = bytes(data, taken);
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__SEND, message.send_args = &args;
    int error = ask(ANY, &message, INTERRUPTIBLE, &answer);
    if (error != 0)
        return error;
    *sent = answer.resp->ret;
    answer_free(&answer);
    return *sent < 0 || (size_t)*sent > taken ? EPROTO : 0;
}

int request_recv(int number, void *data, size_t len, int flags, ssize_t *received) {
    size_t limit = len < MOST_DATA ? len : MOST_DATA;
    RecvArgs args = RECV_ARGS__INIT;
    args.sockfd = number, args.flags = flags, args.len = (int32_t)limit;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__RECV, message.recv_args = &args;
    int error = ask(ANY, &message, INTERRUPTIBLE, &answer);
    if (error != 0)
        return error;
    ProtobufCBinaryData come = answer.resp->buf;
    if (come.len > limit || come.len != (size_t)answer.resp->ret)
        error = EPROTO;
    else if (come.len > 0)
        memcpy(data, come.data, come.len);
    *received = (ssize_t)come.len;
    answer_free(&answer);
    return error;
}

int request_close(int number) {
    /* Before the request: once chitcpd has freed the number, another thread may be given it. */
    struct connection *maker = pool_take_maker(number);
    if (maker == NULL)
        return EBADF;
    CloseArgs args = CLOSE_ARGS__INIT;
    args.sockfd = number;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__CLOSE, message.close_args = &args;
    bool used_up;
    int error = connection_exchange(maker, &message, PATIENT, &answer, &used_up);
    if (error != 0) {
        pool_discard(maker);
        return error;
    }
    error = answer.resp->error_code;
    answer_free(&answer);
    bool is_c = maker->instance[0] == '\0';
    if (error != 0 && is_c && !pool_has_made(number))
        pool_set_aside(maker, number); /* the socket may still be there; ours is gone in any case */
    else
        pool_put_back(maker);
    return error;
}

/* ---- a socket of either kind ------------------------------------------------------------------------------------- */

int request_bind(const struct name *name, const struct sockaddr *addr, socklen_t addrlen) {
    BindArgs args = BIND_ARGS__INIT;
    args.sockfd = name->sockfd, args.addr = bytes(addr, addrlen);
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    message.code = MSG_CODE__BIND, message.bind_args = &args;
    return tell(name->instance, &message, PATIENT);
}

int request_listen(const struct name *name, int backlog) {
    ListenArgs args = LISTEN_ARGS__INIT;
    args.sockfd = name->sockfd, args.backlog = backlog;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    message.code = MSG_CODE__LISTEN, message.listen_args = &args;
    return tell(name->instance, &message, PATIENT);
}

int request_start_connect(const struct name *name, const struct sockaddr *addr, socklen_t addrlen, bool wait,
                          int milliseconds, int *renewed) {
    ConnectArgs args = CONNECT_ARGS__INIT;
    args.sockfd = name->sockfd, args.addr = bytes(addr, addrlen);
    args.has_wait = args.wait = wait;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__START_CONNECT, message.connect_args = &args;
    struct patience patience = {.milliseconds = milliseconds, .interruptible = wait};
    int error = ask(name->instance, &message, patience, &answer);
    if (error != 0)
        return error;
    *renewed = answer.fd, answer.fd = -1;
    answer_free(&answer);
    return 0;
}

int request_shutdown(const struct name *name, int how, bool *listening) {
    ShutdownArgs args = SHUTDOWN_ARGS__INIT;
    args.sockfd = name->sockfd, args.how = how;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__SHUTDOWN, message.shutdown_args = &args;
    int error = ask(name->instance, &message, PATIENT, &answer);
    if (error != 0)
        return error;
    *listening = answer.resp->ret != 0;
    answer_free(&answer);
    return 0;
}

int request_wait_acknowledged(const struct name *name, int milliseconds) {
    LingerArgs args = LINGER_ARGS__INIT;
    args.sockfd = name->sockfd, args.serial = name->serial;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    message.code = MSG_CODE__LINGER, message.linger_args = &args;
    return tell(name->instance, &message, (struct patience){.milliseconds = milliseconds, .interruptible = true});
}

static int ask_name(const struct name *name, MsgCode code, struct sockaddr *addr, socklen_t *addrlen) {
    NameArgs args = NAME_ARGS__INIT;
    args.sockfd = name->sockfd;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = (int32_t)code, message.name_args = &args;
    int error = ask(name->instance, &message, PATIENT, &answer);
    if (error != 0)
        return error;
    error = hand_out_address(answer.resp->addr.data, answer.resp->addr.len, addr, addrlen);
    answer_free(&answer);
    return error;
}

int request_getsockname(const struct name *name, struct sockaddr *addr, socklen_t *addrlen) {
    return ask_name(name, MSG_CODE__GETSOCKNAME, addr, addrlen);
}

int request_getpeername(const struct name *name, struct sockaddr *addr, socklen_t *addrlen) {
    return ask_name(name, MSG_CODE__GETPEERNAME, addr, addrlen);
}

int request_getsockopt(const struct name *name, int level, int option, void *value, socklen_t *len) {
    SockoptArgs args = SOCKOPT_ARGS__INIT;
    args.sockfd = name->sockfd, args.level = level, args.name = option;
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    struct answer answer;
    message.code = MSG_CODE__GETSOCKOPT, message.sockopt_args = &args;
    int error = ask(name->instance, &message, PATIENT, &answer);
    if (error != 0)
        return error;
    ProtobufCBinaryData has = answer.resp->buf;
    if (has.len < *len)
        *len = (socklen_t)has.len;
    if (*len > 0)
        memcpy(value, has.data, *len);
    answer_free(&answer);
    return 0;
}

int request_setsockopt(const struct name *name, int level, int option, const void *value, socklen_t len) {
    SockoptArgs args = SOCKOPT_ARGS__INIT;
    args.sockfd = name->sockfd, args.level = level, args.name = option;
    args.has_value = 1, args.value = bytes(value, len);
    ChitcpdMsg message = CHITCPD_MSG__INIT;
    message.code = MSG_CODE__SETSOCKOPT, message.sockopt_args = &args;
    return tell(name->instance, &message, PATIENT);
}

int request_error(const struct name *name) {
    int value = 0;
    socklen_t len = sizeof value;
    int error = request_getsockopt(name, SOL_SOCKET, SO_ERROR, &value, &len);
    if (error == ENETDOWN || error == EBADF)
        return ECONNRESET; /* chitcpd itself is gone */
    return error != 0 ? error : value;
}
