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

import re
import secrets
import string
from typing import NamedTuple

from chisocket.protocol.addresses import STORAGE

RECORD = STORAGE  # bytes
_DIGITS = string.digits + string.ascii_letters + "+-"
_NAME = re.compile(rb"\0chi([0-9a-zA-Z+-]{4})([0-9a-zA-Z+-]{3})([0-9a-zA-Z+-]{3})")


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
    match = _NAME.fullmatch(raw) if isinstance(raw, bytes) else None
    if match is None:
        return None
    return Name(match[1].decode(), _number(match[2].decode()), _number(match[3].decode()))


def _number(digits: str) -> int:
    high, middle, low = map(_DIGITS.index, digits)
    return high << 12 | middle << 6 | low


def _three_digits(number: int) -> str:
    return "".join(_DIGITS[number >> shift & 63] for shift in (12, 6, 0))
