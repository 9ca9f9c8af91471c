"""To look into a chitcpd: what a connection's variables are, and what happens to it, step by step.

    def lose_the_second(sockfd, event, state, new_sockfd):
        counted.append(event)
        return DBG_RESP_DROP if len(counted) == 2 else DBG_RESP_NONE

    chitcpd_debug(connection, DBG_EVT_INCOMING_PACKET, lose_the_second)

A socket is a `chisocket.socket`, or the int of the chisocket_ functions: chitcpd's own number, by which handlers are
told of sockets too. All functions raise OSError: EBADF if there is no such socket, or it has no connection.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import IntEnum

from chisocket import _socket
from chisocket.client import Connection, client
from chisocket.protocol.chitcpd_pb2 import (
    DEBUG_CONNECTION,
    DEBUG_EVENT,
    GET_SOCKET_BUFFER_CONTENTS,
    GET_SOCKET_STATE,
    RESP,
    WAIT_FOR_STATE,
    ChitcpdMsg,
    DebugInitArgs,
    GetSocketBufferContentsArgs,
    GetSocketStateArgs,
    InitArgs,
    Resp,
    WaitForStateArgs,
)
from chisocket.protocol.descriptors import Name

# The events that a debugger may ask for, added together.
DBG_EVT_STATE_CHANGE = 1  # after it has changed, before any call returns for it
DBG_EVT_INCOMING_PACKET = 2  # before the TCP sees it
DBG_EVT_OUTGOING_PACKET = 4  # before it goes
DBG_EVT_PENDING_CONNECTION = 8  # to a listening socket: a SYN has come, and its connection has not seen it yet

# What a handler may answer.
DBG_RESP_NONE = 0  # go on
DBG_RESP_STOP = 1  # go on, and tell no more of this socket
DBG_RESP_ACCEPT_MONITOR = 2  # to a pending connection: the same handler for it too, from its first state on
DBG_RESP_DROP = 3  # to a packet: it is lost
DBG_RESP_DUPLICATE = 4  # to an incoming packet: it has come twice
DBG_RESP_WITHHOLD = 5  # to an incoming packet: keep it back
DBG_RESP_DRAW_WITHHELD = 6  # to an incoming packet: deliver it, and behind it the oldest that is kept back


class TcpState(IntEnum):
    """The states of RFC 9293 §3.3.2, by their numbers in the protocol."""

    CLOSED = 0
    LISTEN = 1
    SYN_RCVD = 2
    SYN_SENT = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    TIME_WAIT = 9
    LAST_ACK = 10


@dataclass(frozen=True, slots=True)
class SocketState:
    """The variables of RFC 9293 §3.3.1: sequence numbers from 0 to 2^32 - 1, windows in bytes."""

    tcp_state: TcpState
    iss: int
    irs: int
    snd_una: int
    snd_nxt: int
    snd_wnd: int
    rcv_nxt: int
    rcv_wnd: int


@dataclass(frozen=True, slots=True)
class SocketBufferContents:
    """What was taken to be sent and is not acknowledged yet, and what has come and is not received yet."""

    snd: bytes
    rcv: bytes


Socket = int | socket.socket
Handler = Callable[[int, int, SocketState | None, int], int | None]


def chitcpd_debug(sock: Socket, event_flags: int, handler: Handler) -> threading.Thread:
    """Call `handler(sockfd, event, state, new_sockfd)` at each of these events, in a thread of its own.

    What has happened is held until the handler returns one of DBG_RESP_ (None: DBG_RESP_NONE); meanwhile chitcpd serves
    everyone, and shows this socket as it was at the event. `state` is that of `sockfd`, None if it is listening;
    `new_sockfd` is -1 unless `event` is DBG_EVT_PENDING_CONNECTION (a C handler is called twice for that, ours once).

    Returns the thread: it ends when there is nothing more to tell, or when the handler raises, and then all goes on.
    Raises OSError: EBADF, EAGAIN if the socket is watched already.
    """
    if not 0 < event_flags < 2 * DBG_EVT_PENDING_CONNECTION:
        raise ValueError(f"event_flags is {event_flags}, expected a sum of DBG_EVT_ values")
    name = _name(sock)
    connection = Connection(client.path(name.instance))
    arguments = DebugInitArgs(sockfd=name.sockfd, event_flags=event_flags)
    try:
        connection.open(InitArgs(connection_type=DEBUG_CONNECTION, debug=arguments))
    except BaseException:
        connection.close()
        raise
    thread = threading.Thread(target=_serve, args=(connection, handler), name=f"debug {name.sockfd}", daemon=True)
    thread.start()
    return thread


def get_socket_state(sock: Socket) -> SocketState:
    """The variables of a connection as they are now, or as they were at the event that is not answered yet."""
    return _state(_name(sock))


def get_socket_buffer_contents(sock: Socket) -> SocketBufferContents:
    """The buffers of a connection, likewise; at most 7 MiB of each."""
    name = _name(sock)
    arguments = GetSocketBufferContentsArgs(sockfd=name.sockfd)
    message = ChitcpdMsg(code=GET_SOCKET_BUFFER_CONTENTS, get_socket_buffer_contents_args=arguments)
    answer = client.request(message, name.instance).socket_buffer_contents
    return SocketBufferContents(answer.snd, answer.rcv)


def wait_for_state(sock: Socket, state: TcpState, timeout: float | None = None) -> None:
    """Return once the connection is in this state, or has passed through it since the call.

    A number whose socket is closed, and its connection too, is CLOSED. Raises TimeoutError after `timeout` seconds.
    """
    name = _name(sock)
    arguments = WaitForStateArgs(sockfd=name.sockfd, tcp_state=state)
    message = ChitcpdMsg(code=WAIT_FOR_STATE, wait_for_state_args=arguments)
    client.request(message, name.instance, timeout)


def _name(sock: Socket) -> Name:
    if isinstance(sock, int):
        return Name(None, sock)
    name = _socket.name_of(sock)
    if name is None:
        raise TypeError("this is no socket of chitcpd's")
    return name


def _state(name: Name) -> SocketState:
    message = ChitcpdMsg(code=GET_SOCKET_STATE, get_socket_state_args=GetSocketStateArgs(sockfd=name.sockfd))
    answer = client.request(message, name.instance).socket_state
    unsigned = {field: getattr(answer, field) & 0xFFFFFFFF for field in SocketState.__slots__[1:]}
    return SocketState(TcpState(answer.tcp_state), **unsigned)


def _serve(connection: Connection, handler: Handler) -> None:
    with closing(connection):
        while (message := connection.receive()) is not None:
            if message.code != DEBUG_EVENT or not message.HasField("debug_event_args"):
                raise OSError(f"chitcpd sends message {message.code} over a debug connection")
            event = message.debug_event_args
            try:
                state = _state(Name(connection.instance, event.sockfd)) if event.is_active else None
            except OSError:  # chitcpd is ending, and waits for no answer any more
                return
            response = handler(event.sockfd, event.event_flag, state, event.new_sockfd)
            if not connection.send(ChitcpdMsg(code=RESP, resp=Resp(ret=response or DBG_RESP_NONE, error_code=0))):
                return
