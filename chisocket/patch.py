"""`with chisocket.patched():` programs that know Python's own sockets only use chiTCP.

It is the class `socket.socket` itself that changes, so also its subclasses (`ssl.SSLSocket`) and what was imported by
name before. New TCP sockets are ours from then on; all other sockets, and those that are there already, are as before.
"""

from __future__ import annotations

import socket as system
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from chisocket import _socket
from chisocket.names import lab_hosts, unknown_host

_ASKED = ("bind", "listen", "_accept", "connect", "connect_ex", "shutdown", "getsockname", "getpeername")
_RECEIVE = ("recv", "recv_into", "recvmsg", "recvmsg_into", "recvfrom", "recvfrom_into")
_SEND = ("send", "sendall", "sendmsg", "sendto")
_METHODS = {name: getattr(_socket, name) for name in (*_ASKED, "getsockopt", "setsockopt", *_RECEIVE, *_SEND)}
_lock = threading.Lock()
_depth = 0
_before: dict[tuple[Any, str], Any] = {}
_MISSING = object()


@contextmanager
def patched() -> Iterator[None]:
    """In this process, as long as the block lasts, sockets for TCP are chiTCP's. Blocks may be nested."""
    begin()
    try:
        yield
    finally:
        _end()


def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> list[Any]:
    """As socket.getaddrinfo(); the names of the lab are known too."""
    try:
        return _getaddrinfo(_address_of(host), *arguments, **options)
    except system.gaierror as error:
        if error.errno != system.EAI_NONAME or not isinstance(host, str):
            raise
        raise unknown_host(host, error) from None


def gethostbyname(host: str) -> str:
    """As socket.gethostbyname(), likewise."""
    return _gethostbyname(_address_of(host))


def _address_of(host: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    return lab_hosts().get(name, host) if isinstance(name, str) else host


_getaddrinfo, _gethostbyname = system.getaddrinfo, system.gethostbyname


def begin() -> None:
    """As patched() begins, without an end."""
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            for name, method in _METHODS.items():
                _replace(system.socket, name, method)
            _replace(system.socket, "__init__", _init)
            _replace(system.socket, "_real_close", _real_close)
            _replace(system, "getaddrinfo", getaddrinfo)
            _replace(system, "gethostbyname", gethostbyname)


def _end() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            for (owner, name), value in _before.items():
                if value is _MISSING:
                    delattr(owner, name)
                else:
                    setattr(owner, name, value)
            _before.clear()


def _replace(owner: Any, name: str, value: Callable[..., Any]) -> None:
    _before[owner, name] = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)


def _init(
    self: system.socket,
    family: int = -1,
    type: int = -1,  # noqa: A002
    proto: int = -1,
    fileno: int | None = None,
) -> None:
    if fileno is not None:
        _socket.adopt(self, family, type, proto, fileno)
    elif _socket.is_tcp(family, type, proto):
        _socket.make(self, family, type, proto)
    else:
        _socket.init_native(self, family, type, proto)


def _real_close(self: system.socket, _: object = None) -> None:
    _socket.close(self)
