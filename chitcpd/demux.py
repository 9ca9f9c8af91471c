"""Which connection a segment is for: four-tuples, listeners, ports, and the initial sequence number of a new one."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
from collections import deque
from collections.abc import Callable, Collection
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from chitcpd.tcp.api import Config

if TYPE_CHECKING:
    from chitcpd.driver import Endpoint

ANY = ""  # the local address of a listener that takes connections to each of ours, of both families
ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"  # the same, of one family
ip_address = lru_cache(maxsize=1024)(ipaddress.ip_address)  # asked for each connection, and not cheap
_EPHEMERAL = range(49152, 65536)  # RFC 6335 §6
_ISN_TICKS = 250_000  # per second: the 4 microseconds of RFC 9293 §3.4.1


class FourTuple(NamedTuple):
    """The two ends of a connection."""

    local: str
    local_port: int
    peer: str
    peer_port: int


class Listener:
    """A port that takes connections, and those that wait to be accepted."""

    def __init__(self, local: str, port: int, backlog: int, config: Config, changed: Callable[[], None]) -> None:
        """`config`: of the connections that it takes."""
        self.local = local
        self.port = port
        self.backlog = backlog
        self.config = config
        self.changed = changed
        self.offered: Callable[[Endpoint], None] | None = None  # called for each SYN, before its connection takes it
        self.opening = 0  # connections in SYN-RECEIVED
        self.ready: deque[Endpoint] = deque()

    @property
    def full(self) -> bool:
        """No more SYNs are taken for now."""
        return self.opening + len(self.ready) >= self.backlog


class Demux:
    """The tables; `seed` makes ports and sequence numbers unpredictable, or repeatable."""

    def __init__(self, seed: bytes) -> None:
        self.connections: dict[FourTuple, Endpoint] = {}
        self.listeners: dict[tuple[str, int], Listener] = {}
        self._users: dict[int, dict[str, int]] = {}  # local port -> local address -> how many connections have both
        self._secret = hashlib.blake2b(seed, digest_size=32).digest()
        self._random = Random(self._secret)

    def add(self, endpoint: Endpoint) -> None:
        """A connection that begins."""
        local, port = endpoint.four.local, endpoint.four.local_port
        self.connections[endpoint.four] = endpoint
        users = self._users.setdefault(port, {})
        users[local] = users.get(local, 0) + 1

    def remove(self, endpoint: Endpoint) -> None:
        """A connection that is over, and is in the table."""
        local, port = endpoint.four.local, endpoint.four.local_port
        del self.connections[endpoint.four]
        users = self._users[port]
        users[local] -= 1
        if not users[local]:
            del users[local]
        if not users:
            del self._users[port]

    def listener(self, local: str, port: int) -> Listener | None:
        """The listener for this address and port, the most specific first."""
        of_family = ANY_IPV6 if ":" in local else ANY_IPV4
        listeners = self.listeners
        return listeners.get((local, port)) or listeners.get((of_family, port)) or listeners.get((ANY, port))

    def check_bind(self, local: str, port: int) -> None:
        """Raise OSError(EADDRINUSE) if a listener has this port already, on this address or on all."""
        if any(used == port and overlap(at, local) for at, used in self.listeners):
            raise OSError(errno.EADDRINUSE, f"port {port} is in use")

    def ephemeral_port(self, local: str, taken: Collection[int] = ()) -> int:
        """A port that nothing of ours uses, and not one of `taken`. Raises OSError(EADDRNOTAVAIL) if there is none."""
        taken = {*taken, *(port for _, port in self.listeners)}
        start = self._random.randrange(len(_EPHEMERAL))
        for step in range(len(_EPHEMERAL)):
            port = _EPHEMERAL[(start + step) % len(_EPHEMERAL)]
            if port not in taken and not any(overlap(local, at) for at in self._users.get(port, ())):
                return port
        raise OSError(errno.EADDRNOTAVAIL, "all ephemeral ports are in use")

    def initial_sequence_number(self, four: FourTuple, now: float, beyond: int | None = None) -> int:
        """ISN = M + F(four-tuple, secret key) (RFC 6528 §3), but not before `beyond`, if that is given."""
        digest = hashlib.blake2b(repr(tuple(four)).encode(), key=self._secret, digest_size=4).digest()
        number = (int(now * _ISN_TICKS) + int.from_bytes(digest)) & 0xFFFFFFFF
        return beyond if beyond is not None and (number - beyond) & 0xFFFFFFFF >= 1 << 31 else number


def overlap(a: str, b: str) -> bool:
    """Whether two local addresses, each of which may stand for many, have one in common."""
    if a == b or ANY in (a, b):
        return True
    any_of_a_family = a in (ANY_IPV4, ANY_IPV6) or b in (ANY_IPV4, ANY_IPV6)
    return any_of_a_family and (":" in a) == (":" in b)
