"""Descriptors that chitcpd hands out: how they are named, and what comes through a listening one.

A descriptor is one end of a pair of UNIX sockets, and bears a name in the abstract namespace. So whoever holds it, also
after a fork, an exec or a dup, can ask its own kernel which socket of which daemon it is: by getsockname(2). The name
is as long as a sockaddr_in has room for: who takes the descriptor for an IPv4 socket reads it whole. Once the
connection is open the daemon's end bears a name too: getpeername(2) tells whether there is a connection.

Before connect, the end is full: it can be written to once the connection is open, and the daemon has emptied it. From
a listening one the application receives, for each connection, one record: the peer's address as a sockaddr_storage,
and with it (SCM_RIGHTS) the descriptor of the connection.
"""

from __future__ import annotations

import secrets
import string
from typing import NamedTuple

from chisocket.protocol.addresses import STORAGE

RECORD = STORAGE  # bytes
_DIGITS = string.digits + string.ascii_letters + "+-"
_ASCII = _DIGITS.encode()
_VALUES = bytes.maketrans(_ASCII, bytes(range(64)))
_PREFIX = b"\0chi"
_LENGTH = len(_PREFIX) + 4 + 3 + 3  # instance, descriptor, serial


class Name(NamedTuple):
    """Which socket it is."""

    instance: str | None  # of the daemon: another one each time that it is started; None: whichever answers
    sockfd: int
    serial: int = 0  # of a descriptor: tells it from former ones of this number


def new_instance() -> str:
    """What a daemon that starts calls itself."""
    return "".join(secrets.choice(_DIGITS) for _ in range(4))


def name(instance: str, sockfd: int, serial: int) -> bytes:
    """The name of a descriptor; `serial` tells it from former ones of the same number."""
    return f"\0chi{instance}{_three_digits(sockfd)}{_three_digits(serial)}".encode()


def connected_name(name: bytes) -> bytes:
    """The name of the daemon's end, once there is a connection: of the same length."""
    return name.replace(b"\0chi", b"\0CHI")


def parse(raw: object) -> Name | None:
    """What getsockname(2) has answered; None if that is no name of ours."""
    if not isinstance(raw, bytes) or len(raw) != _LENGTH or raw[:4] != _PREFIX or raw[4:].translate(None, _ASCII):
        return None
    a, b, c, d, e, f = raw[8:].translate(_VALUES)
    return Name(raw[4:8].decode(), a << 12 | b << 6 | c, d << 12 | e << 6 | f)


def _three_digits(number: int) -> str:
    return _DIGITS[number >> 12 & 63] + _DIGITS[number >> 6 & 63] + _DIGITS[number & 63]
