"""Sockets whose TCP is chitcpd's: what Python's `socket` module offers, and the C library's functions.

    import chisocket as socket

    with socket.create_connection(("bob", 7000)) as connection:
        connection.sendall(b"hello")

Constants, errors and what else has nothing to do with TCP are those of the `socket` module. The functions that look
into a connection, `chitcpd_debug` and others, are in `chisocket.debug` too, which explains them.

$CHITCPD_SOCK names the UNIX socket of the chitcpd to use, $CHITCP_HOSTS the hosts of the lab.
"""

from __future__ import annotations

import socket as _system
from socket import AF_INET, AF_INET6, SHUT_RD, SHUT_RDWR, SHUT_WR, SOCK_STREAM

from chisocket._socket import create_connection, create_server, socket
from chisocket.debug import (
    DBG_EVT_INCOMING_PACKET,
    DBG_EVT_OUTGOING_PACKET,
    DBG_EVT_PENDING_CONNECTION,
    DBG_EVT_STATE_CHANGE,
    DBG_RESP_ACCEPT_MONITOR,
    DBG_RESP_DRAW_WITHHELD,
    DBG_RESP_DROP,
    DBG_RESP_DUPLICATE,
    DBG_RESP_NONE,
    DBG_RESP_STOP,
    DBG_RESP_WITHHOLD,
    SocketBufferContents,
    SocketState,
    TcpState,
    chitcpd_debug,
    get_socket_buffer_contents,
    get_socket_state,
    wait_for_state,
)
from chisocket.functions import (
    chisocket_accept,
    chisocket_bind,
    chisocket_close,
    chisocket_connect,
    chisocket_getpeername,
    chisocket_getsockname,
    chisocket_listen,
    chisocket_recv,
    chisocket_send,
    chisocket_shutdown,
    chisocket_socket,
    chitcp_addr_construct,
)
from chisocket.patch import getaddrinfo, gethostbyname, patched

__all__ = [
    "AF_INET",
    "AF_INET6",
    "DBG_EVT_INCOMING_PACKET",
    "DBG_EVT_OUTGOING_PACKET",
    "DBG_EVT_PENDING_CONNECTION",
    "DBG_EVT_STATE_CHANGE",
    "DBG_RESP_ACCEPT_MONITOR",
    "DBG_RESP_DRAW_WITHHELD",
    "DBG_RESP_DROP",
    "DBG_RESP_DUPLICATE",
    "DBG_RESP_NONE",
    "DBG_RESP_STOP",
    "DBG_RESP_WITHHOLD",
    "SHUT_RD",
    "SHUT_RDWR",
    "SHUT_WR",
    "SOCK_STREAM",
    "SocketBufferContents",
    "SocketState",
    "TcpState",
    "chisocket_accept",
    "chisocket_bind",
    "chisocket_close",
    "chisocket_connect",
    "chisocket_getpeername",
    "chisocket_getsockname",
    "chisocket_listen",
    "chisocket_recv",
    "chisocket_send",
    "chisocket_shutdown",
    "chisocket_socket",
    "chitcp_addr_construct",
    "chitcpd_debug",
    "create_connection",
    "create_server",
    "get_socket_buffer_contents",
    "get_socket_state",
    "getaddrinfo",
    "gethostbyname",
    "patched",
    "socket",
    "wait_for_state",
]

_WOULD_NOT_BE_OURS = frozenset({"SocketType", "fromfd", "gethostbyname_ex", "socketpair"})


def __getattr__(name: str) -> object:
    """SOL_SOCKET, TCP_NODELAY, gaierror, inet_aton ...: as the `socket` module has them."""
    if name not in _system.__all__ or name in _WOULD_NOT_BE_OURS:
        raise AttributeError(f"module 'chisocket' has no attribute {name!r}")
    return getattr(_system, name)
