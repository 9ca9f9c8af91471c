"""The C library's functions by their names: descriptors are ints, addresses (ip, port) tuples, data bytes.

Where C returns -1 and sets errno, these raise OSError with that errno, in the subclass that Python's own sockets raise
(ConnectionRefusedError ...). `chisocket_shutdown`, `_getsockname` and `_getpeername` are not in the C library.
A descriptor belongs to the process that made it: a child of a fork can't use it.
"""

from __future__ import annotations

from chisocket import requests
from chisocket.client import client
from chisocket.names import resolve
from chisocket.protocol.addresses import Address, pack
from chisocket.protocol.chitcpd_pb2 import (
    ACCEPT,
    CLOSE,
    CONNECT,
    RECV,
    SEND,
    SOCKET,
    AcceptArgs,
    ChitcpdMsg,
    CloseArgs,
    ConnectArgs,
    RecvArgs,
    SendArgs,
    SocketArgs,
)
from chisocket.protocol.descriptors import Name

MAX_DATA = 256 << 10  # bytes that one SEND or RECV carries: well below MAX_MESSAGE


def chitcp_addr_construct(host: str, port: int) -> Address:
    """The address of `port` on `host`, a name or an IP address. Raises socket.gaierror if no such host is known."""
    return resolve(host)[0], port


def chisocket_socket(domain: int, type: int, protocol: int) -> int:  # noqa: A002  # socket(2) calls it so
    """A new socket; for TCP: AF_INET or AF_INET6, SOCK_STREAM, 0."""
    arguments = SocketArgs(domain=domain, type=type, protocol=protocol)
    return client.make(ChitcpdMsg(code=SOCKET, socket_args=arguments)).ret


def chisocket_bind(sockfd: int, address: Address) -> None:
    """Give the socket its own address; port 0 asks for one that is free."""
    requests.bind(Name(None, sockfd), address)


def chisocket_listen(sockfd: int, backlog: int) -> None:
    """Wait for connections, at most `backlog` of them until they are accepted."""
    requests.listen(Name(None, sockfd), backlog)


def chisocket_accept(sockfd: int) -> tuple[int, Address]:
    """Wait for a connection to a listening socket: its new descriptor, and the peer's address."""
    answer = client.make(ChitcpdMsg(code=ACCEPT, accept_args=AcceptArgs(sockfd=sockfd)))
    return answer.ret, requests.unpack_address(answer.addr)


def chisocket_connect(sockfd: int, address: Address) -> None:
    """Connect to a listening socket; returns once the connection is established."""
    client.request(ChitcpdMsg(code=CONNECT, connect_args=ConnectArgs(sockfd=sockfd, addr=pack(address))))


def chisocket_send(sockfd: int, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
    """Queue data to be sent; returns how many bytes were taken, from 1 to min(len(data), MAX_DATA).

    Waits for room in the send buffer. No data at all is EINVAL, as in C.
    """
    taken = bytes(memoryview(data).cast("B")[:MAX_DATA])
    arguments = SendArgs(sockfd=sockfd, flags=flags, buf=taken)
    return client.request(ChitcpdMsg(code=SEND, send_args=arguments)).ret


def chisocket_recv(sockfd: int, length: int, flags: int = 0) -> bytes:
    """Wait for data: from 1 to min(length, MAX_DATA) bytes, or b"" at the end of the stream.

    A length of 0 is EINVAL, as in C.
    """
    arguments = RecvArgs(sockfd=sockfd, flags=flags, len=min(length, MAX_DATA))
    return client.request(ChitcpdMsg(code=RECV, recv_args=arguments)).buf


def chisocket_close(sockfd: int) -> None:
    """Close the connection in order: returns once the peer has acknowledged all that was sent, and our FIN."""
    client.close(sockfd, ChitcpdMsg(code=CLOSE, close_args=CloseArgs(sockfd=sockfd)))


def chisocket_shutdown(sockfd: int, how: int) -> None:
    """End one direction or both: SHUT_RD, SHUT_WR or SHUT_RDWR."""
    requests.shutdown(Name(None, sockfd), how)


def chisocket_getsockname(sockfd: int) -> Address:
    """The socket's own address."""
    return requests.getsockname(Name(None, sockfd))


def chisocket_getpeername(sockfd: int) -> Address:
    """The address of the peer; ENOTCONN if there is none."""
    return requests.getpeername(Name(None, sockfd))
