"""The requests about one descriptor of ours: each function asks the daemon that has made it.

A descriptor is an int, the number that the process's own kernel knows it by. Addresses are as chitcpd has them, an IP
address and a port. Each function raises OSError with the daemon's errno.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket
import struct

from chisocket.client import client
from chisocket.protocol.addresses import Address, pack, unpack
from chisocket.protocol.chitcpd_pb2 import (
    BIND,
    GETPEERNAME,
    GETSOCKNAME,
    GETSOCKOPT,
    LINGER,
    LISTEN,
    OPEN,
    SETSOCKOPT,
    SHUTDOWN,
    START_CONNECT,
    BindArgs,
    ChitcpdMsg,
    ConnectArgs,
    LingerArgs,
    ListenArgs,
    NameArgs,
    ShutdownArgs,
    SocketArgs,
    SockoptArgs,
)
from chisocket.protocol.descriptors import RECORD, Name

_INT = struct.Struct("=i")
_NO_FD = "chitcpd has sent no descriptor: is it a C chitcpd? Use the chisocket_ functions with that"


def open_descriptor(family: int, kind: int, protocol: int) -> int:
    """A new descriptor: the caller's to close."""
    arguments = SocketArgs(domain=family, type=kind, protocol=protocol)
    _, fd = client.request_rights(ChitcpdMsg(code=OPEN, socket_args=arguments))
    if fd is None:
        raise OSError(errno.EPROTO, _NO_FD)
    return fd


def bind(name: Name, address: Address) -> None:
    """Give it a local address."""
    client.request(ChitcpdMsg(code=BIND, bind_args=BindArgs(sockfd=name.sockfd, addr=pack(address))), name.instance)


def listen(name: Name, backlog: int) -> None:
    """Take connections."""
    arguments = ListenArgs(sockfd=name.sockfd, backlog=backlog)
    client.request(ChitcpdMsg(code=LISTEN, listen_args=arguments), name.instance)


def start_connect(name: Name, address: Address, fd: int) -> None:
    """Begin to connect: once that has ended, `fd` can be written to, or is hung up."""
    arguments = ConnectArgs(sockfd=name.sockfd, addr=pack(address))
    message = ChitcpdMsg(code=START_CONNECT, connect_args=arguments)
    _, new = client.request_rights(message, name.instance)
    if new is not None:  # connect has failed before, and the old end is of no more use
        os.set_blocking(new, os.get_blocking(fd))
        os.dup2(new, fd, os.get_inheritable(fd))
        os.close(new)


def shutdown(name: Name, how: int) -> bool:
    """All that SHUT_RD means; for SHUT_WR, the end itself must be shut down afterwards.

    Returns whether it is listening, and so its end must be shut down for reading too.
    """
    arguments = ShutdownArgs(sockfd=name.sockfd, how=how)
    return bool(client.request(ChitcpdMsg(code=SHUTDOWN, shutdown_args=arguments), name.instance).ret)


def wait_acknowledged(name: Name, seconds: float) -> None:
    """After the end was closed: return once the peer has all, or if others hold the end. Raises TimeoutError."""
    message = ChitcpdMsg(code=LINGER, linger_args=LingerArgs(sockfd=name.sockfd, serial=name.serial))
    client.request(message, name.instance, timeout=seconds)


def getsockname(name: Name) -> Address:
    """The own address."""
    arguments = NameArgs(sockfd=name.sockfd)
    return unpack_address(client.request(ChitcpdMsg(code=GETSOCKNAME, name_args=arguments), name.instance).addr)


def getpeername(name: Name) -> Address:
    """The peer's address."""
    arguments = NameArgs(sockfd=name.sockfd)
    return unpack_address(client.request(ChitcpdMsg(code=GETPEERNAME, name_args=arguments), name.instance).addr)


def getsockopt(name: Name, level: int, option: int, timeout: float | None = None) -> bytes:
    """The value of a socket option, as C has it. Raises TimeoutError after so many seconds."""
    arguments = SockoptArgs(sockfd=name.sockfd, level=level, name=option)
    return client.request(ChitcpdMsg(code=GETSOCKOPT, sockopt_args=arguments), name.instance, timeout=timeout).buf


def setsockopt(name: Name, level: int, option: int, value: bytes) -> None:
    """Change a socket option."""
    arguments = SockoptArgs(sockfd=name.sockfd, level=level, name=option, value=value)
    client.request(ChitcpdMsg(code=SETSOCKOPT, sockopt_args=arguments), name.instance)


def take_connection(listening: _socket.socket) -> tuple[int, Address]:
    """The next connection of a listening socket, which waits for it as its time-out says: descriptor, peer's address.

    Here the daemon is not asked: it has sent both.
    """
    os.close(os.dup(listening.fileno()))  # EMFILE: what waits goes on waiting
    flags = socket.MSG_CMSG_CLOEXEC
    record, ancillary, _, _ = _socket.socket.recvmsg(listening, RECORD, socket.CMSG_SPACE(4), flags)
    fds = [_INT.unpack_from(content)[0] for _, kind, content in ancillary if kind == socket.SCM_RIGHTS]
    if not record:
        raise OSError(errno.EINVAL, "the socket was shut down, or its chitcpd has ended")
    if not fds:  # threads have taken the last number meanwhile, and the kernel has closed it
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return fds[0], unpack_address(record)


def unpack_address(raw: bytes) -> Address:
    """The address in an answer. Raises OSError(EPROTO)."""
    try:
        return unpack(raw)
    except ValueError as error:
        raise OSError(errno.EPROTO, f"chitcpd answered with {error}") from None
