"""The class `socket`: Python's own, over chiTCP.

The object has a real descriptor, one end of a pair of UNIX sockets, and reads and writes it as every socket does. What
is not data (connect, bind, options ...) is asked of chitcpd. Which socket of chitcpd's it is, the descriptor itself
knows (protocol/descriptors.py), so that it outlives a fork, `dup` and `detach`.

The functions here take any socket, and do for one that is not ours what Python's own do: `patched()` puts them into the
class of the standard library.
"""

from __future__ import annotations

import _socket
import errno
import operator
import os
import select
import socket as system
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

from chisocket import requests
from chisocket.names import resolve
from chisocket.protocol import descriptors
from chisocket.protocol.addresses import Address
from chisocket.protocol.descriptors import Name

DEFAULT_BACKLOG = 128
RetAddress = tuple[str, int] | tuple[str, int, int, int]  # the longer one for IPv6: flow and scope are 0

_INT = struct.Struct("=i")
_LINGER = struct.Struct("=ii")
_OPTIONS_OF_THE_END = frozenset(  # those that are the descriptor's own
    {system.SO_TYPE, system.SO_RCVTIMEO, system.SO_SNDTIMEO, system.SO_RCVLOWAT}
)
_OOB = int(system.MSG_OOB)
_PATIENCE = 1.0  # seconds for an answer that close() can do without
_HUNG_UP = select.POLLHUP | select.POLLERR
_some_linger = False  # a socket has had SO_LINGER with a time: close() asks for it
_Native = _socket.socket
init_native = system.socket.__init__
_family = _Native.family.__get__
_IPV6 = int(system.AF_INET6)


def name_of(sock: _Native) -> Name | None:
    """Which socket of chitcpd's it is; None if it is none. Raises OSError(EBADF) if it is closed."""
    try:
        return descriptors.parse(_Native.getsockname(sock))
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
        return None  # of a family that has no names


def is_tcp(family: int, kind: int, protocol: int) -> bool:
    """Whether these arguments of socket() ask for TCP."""
    stream = kind == -1 or kind & ~(system.SOCK_NONBLOCK | system.SOCK_CLOEXEC) == system.SOCK_STREAM
    return family in (-1, system.AF_INET, system.AF_INET6) and stream and protocol in (-1, 0, system.IPPROTO_TCP)


# ---- what is asked of chitcpd ----------------------------------------------------------------------------------


def make(self: system.socket, family: int, kind: int, protocol: int) -> None:
    """A new descriptor, and `self` with it."""
    family = system.AF_INET if family == -1 else family
    plain = system.SOCK_STREAM if kind == -1 else kind & ~(system.SOCK_NONBLOCK | system.SOCK_CLOEXEC)
    fd = requests.open_descriptor(family, plain, 0 if protocol == -1 else protocol)
    try:
        init_native(self, family, plain, 0 if protocol == -1 else protocol, fd)
    except BaseException:
        os.close(fd)
        raise
    if kind != -1 and kind & system.SOCK_NONBLOCK:
        self.setblocking(False)


def bind(self: _Native, address: Any, /) -> None:
    """As socket.bind()."""
    name = name_of(self)
    if name is None:
        return _Native.bind(self, address)
    return requests.bind(name, _resolved(self, address, "bind"))


def listen(self: _Native, backlog: int = DEFAULT_BACKLOG, /) -> None:
    """As socket.listen()."""
    name = name_of(self)
    if name is None:
        return _Native.listen(self, backlog)
    return requests.listen(name, max(_c_int(backlog), 0))


def _accept(self: _Native) -> tuple[int, Any]:
    """A connection's descriptor, and the peer's address."""
    name = name_of(self)
    if name is None:
        return _Native._accept(self)  # type: ignore[attr-defined,no-any-return]
    _raise_if_not_listening(self)
    fd, address = requests.take_connection(self)
    return fd, _named(self, address)


def connect(self: _Native, address: Any, /) -> None:
    """As socket.connect()."""
    name = name_of(self)
    if name is None:
        return _Native.connect(self, address)
    _start_connect(self, name, address)
    if self.gettimeout() == 0:
        raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))
    events = _wait_connected(self)
    if not events:
        raise TimeoutError("timed out")
    error = _outcome(self, events)
    if error:
        raise OSError(error, os.strerror(error))
    return None


def connect_ex(self: _Native, address: Any, /) -> int:
    """As socket.connect_ex()."""
    name = name_of(self)
    if name is None:
        return _Native.connect_ex(self, address)
    try:
        _start_connect(self, name, address)
    except OSError as error:
        if error.errno is None or isinstance(error, system.gaierror):
            raise
        return error.errno
    if self.gettimeout() == 0:
        return errno.EINPROGRESS
    events = _wait_connected(self)
    return _outcome(self, events) if events else errno.EAGAIN


def shutdown(self: _Native, how: int, /) -> None:
    """As socket.shutdown()."""
    name = name_of(self)
    if name is None or requests.shutdown(name, _c_int(how)):
        return _Native.shutdown(self, how)
    if how != system.SHUT_RD:
        _Native.shutdown(self, system.SHUT_WR)
    return None


def getsockname(self: _Native) -> Any:
    """As socket.getsockname()."""
    name = name_of(self)
    return _Native.getsockname(self) if name is None else _named(self, requests.getsockname(name))


def getpeername(self: _Native) -> Any:
    """As socket.getpeername()."""
    name = name_of(self)
    return _Native.getpeername(self) if name is None else _named(self, requests.getpeername(name))


def getsockopt(self: _Native, level: int, optname: int, buflen: int = 0, /) -> Any:
    """As socket.getsockopt()."""
    name = name_of(self)
    if name is None or (level == system.SOL_SOCKET and optname in _OPTIONS_OF_THE_END):
        return _Native.getsockopt(self, level, optname, buflen)
    if not 0 <= buflen <= 1024:
        raise OSError("getsockopt buflen out of range")
    value = requests.getsockopt(name, _c_int(level), _c_int(optname))
    return value[:buflen] if buflen else _INT.unpack_from(value)[0]


def setsockopt(self: _Native, level: int, optname: int, value: Any, optlen: int | None = None, /) -> None:
    """As socket.setsockopt()."""
    name = name_of(self)
    arguments = (level, optname, value) if optlen is None else (level, optname, value, optlen)
    if name is None or (level == system.SOL_SOCKET and optname in _OPTIONS_OF_THE_END):
        return _Native.setsockopt(self, *arguments)
    raw = bytes(optlen or 0) if value is None else _INT.pack(_c_int(value)) if isinstance(value, int) else bytes(value)
    requests.setsockopt(name, _c_int(level), _c_int(optname), raw)
    if (level, optname) == (system.SOL_SOCKET, system.SO_LINGER):
        global _some_linger
        _some_linger = _some_linger or _LINGER.unpack_from(raw)[1] > 0
    if (level, optname) == (system.SOL_SOCKET, system.SO_SNDBUF):
        _bound_end(self, _INT.unpack_from(raw)[0])
    return None


def _bound_end(self: _Native, buffer: int) -> None:
    """What `send` takes goes into the end first. It is made no larger: before connect it is full, and must be."""
    before = _Native.getsockopt(self, system.SOL_SOCKET, system.SO_SNDBUF)  # the kernel has doubled it
    _Native.setsockopt(self, system.SOL_SOCKET, system.SO_SNDBUF, min(max(buffer, 0), before) // 2)


def _start_connect(self: _Native, name: Name, address: Any) -> None:
    requests.start_connect(name, _resolved(self, address, "connect"), self.fileno())


def _wait_connected(self: _Native) -> int:
    """The events with which connecting has ended, 0 if it has not before the time-out."""
    return _poll(self, select.POLLOUT, self.gettimeout())  # hung up is an event too


def _outcome(self: _Native, events: int) -> int:
    """The errno with which connecting has ended, or 0."""
    name = name_of(self) if events & _HUNG_UP else None
    return 0 if name is None else _getint(name, system.SOL_SOCKET, system.SO_ERROR)


def _getint(name: Name, level: int, option: int) -> int:
    return int(_INT.unpack_from(requests.getsockopt(name, level, option))[0])


def _poll(self: _Native, events: int, timeout: float | None) -> int:
    """The events that have come, 0 if none has in time."""
    poll = select.poll()
    poll.register(_Native.fileno(self), events)
    return next((seen for _, seen in poll.poll(None if timeout is None else timeout * 1000)), 0)


def _is_hung_up(self: _Native) -> bool:
    return bool(_poll(self, 0, 0) & _HUNG_UP)


# ---- data: by the descriptor itself ----------------------------------------------------------------------------


def recv(self: _Native, bufsize: int, flags: int = 0, /) -> bytes:
    """As socket.recv()."""
    try:
        data = _Native.recv(self, bufsize, flags)
    except BlockingIOError:
        _raise_if_not_connected(self)
        raise
    if not data and bufsize:
        _raise_if_failed(self)
    return data


def recv_into(self: _Native, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
    """As socket.recv_into()."""
    count = _Native.recv_into(self, buffer, nbytes, flags)
    if not count:
        _raise_if_failed(self)
    return count


def recvmsg(self: _Native, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
    """As socket.recvmsg()."""
    received = _Native.recvmsg(self, bufsize, ancbufsize, flags)
    if not received[0] and bufsize:
        _raise_if_failed(self)
    return received if name_of(self) is None else (*received[:3], None)


def recvmsg_into(self: _Native, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /) -> Any:
    """As socket.recvmsg_into()."""
    views = [memoryview(buffer) for buffer in buffers]
    received = _Native.recvmsg_into(self, views, ancbufsize, flags)
    if not received[0] and any(view.nbytes for view in views):
        _raise_if_failed(self)
    return received if name_of(self) is None else (*received[:3], None)


def recvfrom(self: _Native, bufsize: int, flags: int = 0, /) -> Any:
    """As socket.recvfrom(): of a stream, which names no sender."""
    return _Native.recvfrom(self, bufsize, flags) if name_of(self) is None else (recv(self, bufsize, flags), None)


def recvfrom_into(self: _Native, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
    """As socket.recvfrom_into(), likewise."""
    if name_of(self) is None:
        return _Native.recvfrom_into(self, buffer, nbytes, flags)
    return recv_into(self, buffer, nbytes, flags), None


def send(self: _Native, data: Any, flags: int = 0, /) -> int:
    """As socket.send()."""
    if flags:
        flags = _in_line(self, flags)
    try:
        return _Native.send(self, data, flags)
    except BrokenPipeError:
        _raise_if_failed(self)
        raise


def sendall(self: _Native, data: Any, flags: int = 0, /) -> None:
    """As socket.sendall()."""
    if flags:
        flags = _in_line(self, flags)
    try:
        return _Native.sendall(self, data, flags)
    except BrokenPipeError:
        _raise_if_failed(self)
        raise


def sendmsg(self: _Native, buffers: Iterable[Any], ancdata: Iterable[Any] = (), flags: int = 0, *address: Any) -> int:
    """As socket.sendmsg()."""
    try:
        return _Native.sendmsg(self, buffers, ancdata, _in_line(self, flags), *address)
    except BrokenPipeError:
        _raise_if_failed(self)
        raise


def sendto(self: _Native, data: Any, *flags_and_address: Any) -> int:
    """As socket.sendto(): a stream goes to its peer, whatever the address (TCP of Linux does not look at it)."""
    if name_of(self) is None or not 1 <= len(flags_and_address) <= 2:
        return _Native.sendto(self, data, *flags_and_address)
    return send(self, data, *flags_and_address[:-1])


def _in_line(self: _Native, flags: int) -> int:
    """Without MSG_OOB (RFC 6093), of which a UNIX socket would make something of its own."""
    return flags & ~_OOB if flags & _OOB and name_of(self) is not None else flags


def _raise_if_not_connected(self: _Native) -> None:
    """Who would wait for data waits in vain. The daemon's end has a name once there is a connection."""
    if name_of(self) is not None and not _Native.getpeername(self):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


def _raise_if_not_listening(self: _Native) -> None:
    """Who would accept waits in vain, or takes data. An end takes no data before it is connected or listens."""
    if _Native.getpeername(self) or not _poll(self, select.POLLIN | select.POLLOUT, 0):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _raise_if_failed(self: _Native) -> None:
    """At the end of a stream: was it a reset or a time-out? The descriptor is hung up then, and not after a FIN."""
    if not _is_hung_up(self):
        return
    name = name_of(self)
    if name is None:
        return
    try:
        error = _getint(name, system.SOL_SOCKET, system.SO_ERROR)
    except OSError as failure:
        if failure.errno not in (errno.ENETDOWN, errno.EBADF):
            raise
        error = errno.ECONNRESET  # the daemon itself is gone
    if error:
        raise OSError(error, os.strerror(error))


# ---- closing ---------------------------------------------------------------------------------------------------


def close(self: _Native) -> None:
    """As socket.close(): returns at once, unless SO_LINGER says otherwise."""
    name, seconds = _linger_of(self) if _some_linger else (None, 0)
    _Native.close(self)
    if name is not None and seconds > 0:
        with suppress(OSError):  # time is up, or the connection was over before
            requests.wait_acknowledged(name, seconds)


def _linger_of(self: _Native) -> tuple[Name | None, int]:
    """For how many seconds close() waits for which socket."""
    try:
        name = name_of(self)
        asked = system.SOL_SOCKET, system.SO_LINGER
        raw = requests.getsockopt(name, *asked, timeout=_PATIENCE) if name is not None else bytes(8)
    except OSError:  # it is closed, or its daemon has ended, or stands still
        return None, 0
    on, seconds = _LINGER.unpack(raw)
    return name, seconds if on else 0


# ---- addresses -------------------------------------------------------------------------------------------------


def _resolved(self: _Native, address: Any, call: str) -> Address:
    """An address as Python's sockets take it, and as chitcpd takes it."""
    if not isinstance(address, tuple):
        raise TypeError(f"{call}(): AF_INET address must be tuple, not {type(address).__name__}")
    is_ipv6 = _is_ipv6(self)
    if len(address) < 2 or len(address) > (4 if is_ipv6 else 2):
        raise TypeError(f"{call}(): AF_INET address must be a pair (host, port)")
    host, port = address[:2]
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii")
    if not isinstance(host, str):
        raise TypeError("str, bytes or bytearray expected, not " + type(host).__name__)
    if not isinstance(port, int):
        raise TypeError(f"'{type(port).__name__}' object cannot be interpreted as an integer")
    if not 0 <= port <= 0xFFFF:
        raise OverflowError(f"{call}(): port must be 0-65535.")
    if not 0 <= (address[2] if len(address) > 2 else 0) <= 0xFFFFF:
        raise OverflowError(f"{call}(): flowinfo must be 0-1048575.")
    for ip in resolve(host):
        if (":" in ip) == is_ipv6:
            return ip, port
    raise system.gaierror(system.EAI_ADDRFAMILY, f"{host} has no address of the family {self.family!r}")


def _c_int(value: Any) -> int:
    """An argument that is an int in C. Raises TypeError, OverflowError."""
    number = operator.index(value)
    if not -(1 << 31) <= number < 1 << 31:
        raise OverflowError(f"{number} does not fit into a C int")
    return number


def _named(self: _Native, address: Address) -> RetAddress:
    return (*address, 0, 0) if _is_ipv6(self) else address


def _is_ipv6(self: _Native) -> bool:
    """By the number: the enumeration that `self.family` makes of it takes longer than all else here."""
    return bool(_family(self) == _IPV6)


class socket(system.socket):  # noqa: N801  # spelled as what it replaces
    """A stream socket whose TCP is chitcpd's. Methods do what those of the standard library's class of this name do.

    `select`, `poll`, `epoll` and asyncio wait for it as for any other. It may be used by many threads, and by the
    child of a fork.
    """

    def __init__(
        self,
        family: int = -1,
        type: int = -1,  # noqa: A002
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        if fileno is None:
            make(self, family, type, proto)
        else:
            adopt(self, family, type, proto, fileno)

    bind = bind
    listen = listen
    connect = connect
    connect_ex = connect_ex
    shutdown = shutdown
    getsockname = getsockname
    getpeername = getpeername
    getsockopt = getsockopt
    setsockopt = setsockopt
    recv = recv
    recv_into = recv_into
    recvmsg = recvmsg
    recvmsg_into = recvmsg_into
    recvfrom = recvfrom
    recvfrom_into = recvfrom_into
    send = send
    sendall = sendall
    sendmsg = sendmsg
    sendto = sendto

    def accept(self) -> tuple[Self, RetAddress]:
        """Wait for a connection: a socket for it, and the peer's address."""
        fd, address = _accept(self)
        accepted = self.__class__(self.family, self.type, self.proto, fileno=fd)
        if system.getdefaulttimeout() is None and self.gettimeout():
            accepted.setblocking(True)
        return accepted, address

    def _real_close(self, _: object = None) -> None:
        close(self)


def adopt(self: system.socket, family: int, kind: int, protocol: int, fileno: int) -> None:
    """`self` with a descriptor that is there: one of ours is a UNIX socket to its kernel, and TCP to its owner."""
    init_native(self, family, kind, protocol, fileno)
    if family == -1 and (name := name_of(self)) is not None:
        host, _ = requests.getsockname(name)
        init_native(self, system.AF_INET6 if ":" in host else system.AF_INET, kind, protocol, fileno)


def create_connection(
    address: tuple[str, int],
    timeout: float | object | None = system._GLOBAL_DEFAULT_TIMEOUT,  # type: ignore[attr-defined]
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> socket:
    """As socket.create_connection(): a socket connected to the first of the host's addresses that accepts."""
    host, port = address
    errors = []
    for ip in resolve(host):
        sock = socket(system.AF_INET6 if ":" in ip else system.AF_INET, proto=system.IPPROTO_TCP)
        try:
            if timeout is not system._GLOBAL_DEFAULT_TIMEOUT:  # type: ignore[attr-defined]
                sock.settimeout(timeout)  # type: ignore[arg-type]
            if source_address is not None:
                sock.bind(source_address)
            sock.connect((ip, port))
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            errors.append(error)
        else:
            return sock
    try:
        if all_errors:
            raise ExceptionGroup("create_connection failed", errors)
        raise errors[0]
    finally:
        errors.clear()  # else there is a cycle: the error's traceback holds this frame


def create_server(
    address: tuple[str, int],
    *,
    family: int = system.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> socket:
    """As socket.create_server(): a socket that listens at (host, port)."""
    if dualstack_ipv6 and family != system.AF_INET6:
        raise ValueError("dualstack_ipv6 requires AF_INET6 family")
    sock = socket(family, proto=system.IPPROTO_TCP)  # so asyncio turns Nagle's algorithm off, if it serves with it
    try:
        if reuse_port:
            sock.setsockopt(system.SOL_SOCKET, system.SO_REUSEPORT, 1)
        if family == system.AF_INET6:
            sock.setsockopt(system.IPPROTO_IPV6, system.IPV6_V6ONLY, int(not dualstack_ipv6))
        sock.bind(address)
        sock.listen(DEFAULT_BACKLOG if backlog is None else backlog)
    except BaseException:
        sock.close()
        raise
    return sock
