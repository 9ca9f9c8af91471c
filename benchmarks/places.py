"""Where an application listens, or connects to, as text: `chitcp:HOST:PORT`, `tcp:HOST:PORT` or `unix:PATH`.

So the same application runs over our TCP, over the kernel's, and over a relay that it reaches by a UNIX socket.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

BACKLOG = 4096  # connections that wait to be accepted


def prepare(place: str) -> None:
    """Load what sockets of this place need: that is not to be measured."""
    kind, _, _ = place.partition(":")
    _class(kind)


def listen(place: str) -> tuple[socket.socket, str]:
    """A socket that listens there, and the place that reaches it: port 0 is any that is free."""
    sock, address = _unbound(place)
    if sock.family == socket.AF_UNIX:
        with suppress(FileNotFoundError):
            os.unlink(address)
    sock.bind(address)
    sock.listen(BACKLOG)
    kind, _, _ = place.partition(":")
    return sock, place if kind == "unix" else "{}:{}:{}".format(kind, *sock.getsockname())


def connect(place: str) -> socket.socket:
    """A connection to there, without Nagle's algorithm."""
    sock, address = _unbound(place)
    sock.connect(address)
    send_at_once(sock)
    return sock


def send_at_once(sock: socket.socket) -> None:
    """Small data does not wait for what is in flight (3.7.4 of RFC 9293)."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _unbound(place: str) -> tuple[socket.socket, Any]:
    kind, _, address = place.partition(":")
    if kind == "unix":
        return socket.socket(socket.AF_UNIX), address
    host, _, port = address.rpartition(":")
    return _class(kind)(socket.AF_INET), (host, int(port))


def _class(kind: str) -> type[socket.socket]:
    if kind != "chitcp":
        return socket.socket
    import chisocket  # here: who doesn't need it starts faster

    return chisocket.socket
