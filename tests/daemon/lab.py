"""Hosts in one process: a driver each, a network of a dictionary and a heap between them, virtual time.

lab = Lab()
alice, bob = lab.host("10.0.0.2"), lab.host("10.0.0.3")
listener = bob.listen(7)
connection = alice.connect(bob, 7)
lab.run(until=1.0)
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from functools import partial

from chitcpd.demux import ANY, FourTuple, Listener
from chitcpd.driver import Driver, Endpoint
from chitcpd.driver import Recorder as RecorderProtocol
from chitcpd.tcp import wire
from chitcpd.tcp.api import Config, Expiry, Segment, TcpConnection, Transition
from chitcpd.tcp.connection import Connection
from chitcpd.trace import flag_letters

DELAY = 0.01  # seconds, one way


def nothing() -> None:
    """Nobody waits."""


class Notes:
    """A recorder that keeps what a test may want to see."""

    def __init__(self) -> None:
        self.segments: list[tuple[str, str]] = []  # ("sent" or "received", the flags as tcpdump writes them)
        self.states: list[tuple[str, str]] = []  # (from, to)
        self.drops: list[str] = []

    def seen(self, event: str, endpoint: Endpoint | None, four: FourTuple, seg: Segment, raws: Sequence[bytes]) -> None:
        self.segments += [(event, flag_letters(one.flags)) for one in seg.cut()]

    def transition(self, endpoint: Endpoint, transition: Transition) -> None:
        self.states.append((transition.old.name, transition.new.name))

    def expiry(self, endpoint: Endpoint, expiry: Expiry) -> None:
        pass

    def dropped(self, why: str, local: str, peer: str, raw: bytes) -> None:
        self.drops.append(why)

    def lost(self, why: str, local: str, peer: str, raw: bytes) -> None:
        pass

    def settled(self, endpoint: Endpoint) -> None:
        pass

    def sent(self) -> list[str]:
        """The flags of what was sent since the last look."""
        return self._take("sent")

    def received(self) -> list[str]:
        """The flags of what was received since the last look."""
        return self._take("received")

    def _take(self, event: str) -> list[str]:
        taken = [flags for at, flags in self.segments if at == event]
        self.segments = [(at, flags) for at, flags in self.segments if at != event]
        return taken


class Host:
    """A driver, its address, and what it was told and has asked for."""

    def __init__(
        self,
        lab: Lab,
        address: str,
        tcp: type[TcpConnection],
        config: Config,
        seed: bytes,
        recorder: RecorderProtocol | None,
    ) -> None:
        self.lab = lab
        self.address = address
        self.notes = Notes()
        self.wakes: list[float] = []  # the deadlines of which the driver has told
        self.link_mtu: int | None = None
        self.driver = Driver(
            tcp=tcp, config=config, network=self, recorder=recorder or self.notes, seed=seed, wake=self.wakes.append
        )

    # ---- the driver's network

    def send(self, local: str, peer: str, raws: Sequence[bytes]) -> None:
        for raw in raws:
            self.lab.carry(local, peer, raw)

    def source(self, peer: str) -> str:
        return self.address

    def may_join(self, peer: str) -> bool:
        return True

    def mtu(self, peer: str) -> int | None:
        return self.link_mtu

    # ---- its application

    def listen(self, port: int, backlog: int = 5) -> Listener:
        return self.driver.listen(ANY, port, backlog, nothing)

    def connect(self, peer: Host | str, port: int, *, local_port: int = 0) -> Endpoint:
        address = peer if isinstance(peer, str) else peer.address
        return self.driver.connect((ANY, local_port), (address, port), nothing, self.lab.now)

    def write(self, endpoint: Endpoint, data: bytes) -> int:
        return self.driver.send(endpoint, data, self.lab.now)

    def read(self, endpoint: Endpoint) -> bytes:
        return self.driver.receive(endpoint, 1 << 20, self.lab.now)


class Lab:
    """The hosts, the segments on their way, and the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hosts: dict[str, Host] = {}
        self.cut = False  # nothing arrives
        self.carried: list[tuple[str, str, bytes]] = []  # (from, to, segment), all that ever set out
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = itertools.count()

    def host(
        self,
        address: str,
        *,
        tcp: type[TcpConnection] = Connection,
        config: Config | None = None,
        seed: bytes = b"seed",
        recorder: RecorderProtocol | None = None,
    ) -> Host:
        host = self.hosts[address] = Host(self, address, tcp, config or Config(), seed, recorder)
        return host

    def carry(self, local: str, peer: str, raw: bytes) -> None:
        """A segment sets out; it is for nobody if there is no such host."""
        self.carried.append((local, peer, raw))
        if peer in self.hosts and not self.cut:
            due = self.now + DELAY
            arrive: Callable[[], None] = partial(self.hosts[peer].driver.segments_arrive, peer, local, [raw], due)
            heapq.heappush(self._events, (due, next(self._ties), arrive))

    def inject(self, host: Host, source: tuple[str, int], port: int, seg: Segment) -> None:
        """A segment from somewhere arrives at `host` now."""
        raw = wire.encode(seg, source[1], port, wire.pseudo_header(source[0], host.address))
        host.driver.segments_arrive(host.address, source[0], [raw], self.now)

    def run(self, *, until: float) -> None:
        """Time passes: segments arrive, timers expire."""
        while True:
            timers = [(wake, host) for host in self.hosts.values() for wake in host.wakes]
            wake, host = min(timers, key=lambda timer: timer[0], default=(float("inf"), None))
            arrival = self._events[0][0] if self._events else float("inf")
            if min(wake, arrival) > until:
                break
            if arrival <= wake:
                self.now, _, arrive = heapq.heappop(self._events)
                arrive()
            elif host is not None:
                self.now = wake
                host.wakes.clear()
                deadline = host.driver.expire(self.now)
                if deadline is not None:
                    host.wakes.append(deadline)
        self.now = until
