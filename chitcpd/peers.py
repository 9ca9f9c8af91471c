"""The network layer: segments behind a chiTCP header, over one real TCP connection per pair of addresses.

A connection (a "carrier") is dialled when the first segment wants to go, serves both directions whoever dialled it,
and stays.

Whoever can reach the port may say anything, so all that a stranger can make us keep has a bound: carriers, bytes of an
unfinished segment and the time for it, bytes that wait to be sent, peers that are remembered, lines in the log.

In a lab with routers, a segment crosses each link in a carrier of that link's own two ends: so each link loses, delays
and queues what passes, whoever sent it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import socket
from collections.abc import Callable, Sequence
from typing import cast

from chitcpd.carrier import MAX_SEGMENT, PROTO_PROBE, READ, ROUTE, Carrier, ends
from chitcpd.demux import ip_address
from chitcpd.faults import Impairment
from chitcpd.links import Links, UnderWay
from chitcpd.peer import BACKLOG_UNTOLD, Peer
from chitcpd.turns import Turn

_MOST_ROUTERS = 64
_LISTEN_BACKLOG = 256  # connections that may come at once
_MOST_ACCEPTED = 512  # carriers in all, before one more is accepted
_IDLE = 1000  # ms without a byte: then one of those may go for another. Sooner, those in use would oust each other
_MOST_CARRIERS = 1024  # in all, before one more is dialled: strangers can't take all of the room
_MOST_PEERS = 1024  # that are remembered without need, for what went wrong with them

_LOOPBACK = frozenset({"127.0.0.1", "::1"})

Deliver = Callable[[str, str, Sequence[bytes]], None]  # our address, the peer's, the segments
Unreachable = Callable[[str, str], None]  # our address, the peer's
Dropped = Callable[[str, str, str, bytes], None]  # why, our address, the peer's, the segment
Passed = Callable[[str, str, bytes], None]  # the source, the destination, the segment
Probed = Callable[[str, bytes], None]  # the neighbour's address, what it sends


class Peers:
    """All peers of this daemon; what the driver knows as the network."""

    def __init__(
        self,
        *,
        port: int,
        addresses: list[str],
        deliver: Deliver,
        unreachable: Unreachable,
        dropped: Dropped,
        refused: Dropped,
        forwards: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`addresses`: ours, to listen on; 0.0.0.0 and :: mean all of a family.

        `dropped` is told of what we send and `refused` of what comes, where it goes no further. `forwards`: a router.
        `loop`: another one than that which runs.
        """
        self.loop = loop or asyncio.get_running_loop()
        self.port = port
        self.addresses = addresses
        self.deliver = deliver
        self.unreachable = unreachable
        self.dropped = dropped
        self.passed: Passed = lambda _source, _destination, _raw: None  # told of what a router carries on
        self.probed: Probed = lambda _neighbour, _probe: None
        self.carriers: dict[Carrier, None] = {}  # all that are up, the oldest first
        self.dialling = 0  # connections that are not up yet
        self.waiting = 0  # bytes that all queues take
        self.closing = False
        self.scratch = memoryview(bytearray(READ))
        own = [ipaddress.ip_address(address) for address in addresses]
        self._own = frozenset(str(address) for address in own if not address.is_unspecified)
        self._all_of = frozenset(address.version for address in own if address.is_unspecified)
        if not all(address.is_loopback for address in own):
            self._own |= _LOOPBACK
        self._own_queue: list[tuple[str, str, bytes]] = []  # to ourselves: (our address, the peer's, the segment)
        self._own_queued = 0  # bytes in it
        self._forwards = forwards
        self._refused = refused
        self._carrier_lost = asyncio.Event()
        self.turn = Turn(self.loop)
        self._under_way = UnderWay(self.loop, self.turn, self._carry)
        self.links = Links(self._under_way)
        self._peers: dict[tuple[str, str], Peer] = {}
        self._servers: list[asyncio.Server] = []

    async def listen(self) -> None:
        """Take connections from other daemons. Raises OSError if the port is in use or an address is not ours."""
        for address in self.addresses:
            self._servers.append(
                await self.loop.create_server(lambda: Carrier(self), address, self.port, backlog=_LISTEN_BACKLOG)
            )

    async def close(self, within: float) -> None:
        """Close every connection, after what waits for it is written, or after so many seconds."""
        self.closing = True
        for server in self._servers:
            server.close()
        for peer in list(self._peers.values()):
            peer.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._until_all_are_lost()
        for carrier in list(self.carriers):
            carrier.abort()
        await self._until_all_are_lost()

    async def _until_all_are_lost(self) -> None:
        while self.carriers:
            self._carrier_lost.clear()
            await self._carrier_lost.wait()

    def admit(self, carrier: Carrier, own: tuple[str | int, ...], peer: tuple[str | int, ...]) -> Peer | None:
        """Whose this new connection is, by its two socket addresses; None if it can't be kept.

        An IPv6 address with a scope would not be the peer's name without it: nobody could answer. Nor does anybody else
        have an address of ours.
        """
        scoped = len(peer) == 4 and peer[3] != 0
        if self.closing or scoped or str(peer[0]) in self._own:
            return None
        if len(self.carriers) >= _MOST_ACCEPTED and not self._make_room():
            return None
        self.carriers[carrier] = None
        return self.peer(str(own[0]), str(peer[0]))

    def _make_room(self) -> bool:
        """End the oldest carrier on which no segment has come, or else the one that is idle for longest.

        Its peer dials again at the next need, and so do we. False if there is none.
        """
        accepted = [c for c in self.carriers if c.is_open and not c.dialled]
        gone = next((c for c in accepted if not c.proven), None) or max(accepted, key=Carrier.silence, default=None)
        if gone is None or (gone.proven and gone.silence() < _IDLE):
            return False
        gone.abort()
        return True

    def may_dial(self) -> bool:
        """Whether there is room for one more connection."""
        return len(self.carriers) + self.dialling < _MOST_CARRIERS

    def forget(self, carrier: Carrier) -> None:
        """A carrier is gone."""
        self.carriers.pop(carrier, None)
        self._carrier_lost.set()

    def peer(self, own: str, address: str) -> Peer:
        """The peer at `address`, from our address `own`."""
        peer = self._peers.get((own, address))
        if peer is None:
            self._forget_the_oldest()
            peer = self._peers[own, address] = Peer(self, own, address)
        return peer

    def _forget_the_oldest(self) -> None:
        """Make room for one more peer among those with which nothing goes on."""
        while len(self._peers) >= _MOST_PEERS:
            idle = next((key for key, peer in self._peers.items() if not peer.busy), None)
            if idle is None:
                return
            del self._peers[idle]

    def release(self, peer: Peer) -> None:
        """Nothing goes on with this peer for now: forget it, unless it is worth remembering."""
        if not peer.busy and not peer.memorable:
            self._peers.pop((peer.own, peer.address), None)

    def has_room(self, own: str, address: str, again: Callable[[], None]) -> bool:
        """Whether applications may send more to the peer at `address`. If not, `again` is called once they may.

        Always on a lab's link: there what is too much is lost, as on a real one.
        """
        peer = self._peers.get((own, address))
        return peer is None or self.links.get(address) is not None or peer.has_room(again)

    # ---- the driver's network ------------------------------------------------------------------------------

    def send(self, local: str, peer: str, raws: Sequence[bytes], route: bytes = b"") -> None:
        """Carry segments, past the link's impairment. `route`: the one they go on with, if we are a router."""
        if max(map(len, raws), default=0) > MAX_SEGMENT:
            self._drop("length", local, peer, [raw for raw in raws if len(raw) > MAX_SEGMENT])
            raws = [raw for raw in raws if len(raw) <= MAX_SEGMENT]
        link = self.links.get(peer)
        if peer in self.links.blocked:
            self._drop("partition", local, peer, raws)
        elif link is None or link.impairment is None or link.impairment.passes_all:
            self._carry(local, peer, raws, route)
        else:
            self._impair(link.impairment, local, peer, raws, route)

    def _impair(self, impairment: Impairment, local: str, peer: str, raws: Sequence[bytes], route: bytes) -> None:
        now, at_once = self.loop.time(), []
        for raw in raws:
            arrivals, why = impairment.push(raw, now)
            if why is not None:
                self.dropped(why, local, peer, raw)
            for due, copy in arrivals:
                if due <= now:
                    at_once.append(copy)
                elif not self._under_way.add(due, impairment, local, peer, copy, route):
                    self.dropped("queue", local, peer, copy)
        if at_once:
            self._carry(local, peer, at_once, route)

    def take(self, own: str, neighbour: str, proto: int, route: bytes, raws: Sequence[bytes]) -> None:
        """Segments have come from `neighbour` on a connection to our address `own`, or probes.

        All with this route: b"", or from whom we know to whom we know.
        """
        if proto == PROTO_PROBE:
            for raw in raws:
                self.probed(neighbour, raw)
            return
        source, destination, routers = ends(route) if route else (neighbour, own, 0)
        if not route or (self.links.get(source) is not None and (destination == own or self.is_own(destination))):
            self.receiver(source)(destination, source, raws)
        elif self._forwards and routers and None not in (self.links.get(source), self.links.get(destination)):
            onwards = ROUTE.pack(route[:4], route[4:8], routers - 1)
            for raw in raws:
                self.passed(source, destination, raw)
            self.send(source, destination, raws, onwards)
        else:
            self._drop("no route", source, destination, raws)

    def _drop(self, why: str, local: str, peer: str, raws: Sequence[bytes]) -> None:
        for raw in raws:
            self.dropped(why, local, peer, raw)

    def carry_probe(self, neighbour: str, raw: bytes) -> None:
        """Hand over a probe; the Prober has let it wait as the link would."""
        self.peer(self.source(neighbour), neighbour).send((raw,), proto=PROTO_PROBE)

    def hurry(self, neighbour: str) -> None:
        """Dial this neighbour anew at the next need, however often that has failed."""
        self.peer(self.source(neighbour), neighbour).hurry()

    def receiver(self, peer: str) -> Deliver:
        """What heeds the segments of this peer."""
        return self._refuse if peer in self.links.blocked else self.deliver

    def is_own(self, address: str) -> bool:
        """Whether an address is one of this daemon's: what is sent there stays here.

        That is each on which it listens; with 0.0.0.0 or :: each that this host has; and 127.0.0.1 and ::1, unless
        all on which it listens are loopback addresses: then those are the hosts of a lab.
        """
        if address in self._own:
            return True
        ip = ip_address(address)
        return ip.version in self._all_of and not ip.is_unspecified and _is_of_this_host(address)

    def source(self, peer: str) -> str:
        """Our address towards `peer`: the link's, or one that we listen on, as the kernel chooses.

        Raises OSError if there is no way.
        """
        link = self.links.get(peer)
        if link is not None and link.own is not None:
            return link.own
        if self.is_own(peer):
            return peer
        ip = ip_address(peer)
        mine = [a for a in self.addresses if ip_address(a).version == ip.version]
        anywhere = any(ip_address(a).is_unspecified for a in mine)
        if len(mine) == 1 and not anywhere:
            return mine[0]
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((peer, self.port))  # sends nothing: only asks for the route
            chosen = cast(str, probe.getsockname()[0])
        return chosen if anywhere or not mine or chosen in mine else mine[0]

    def may_join(self, peer: str) -> bool:
        """Not on a link of a lab that does anything: there each segment, and each ACK, may be what somebody studies."""
        link = self.links.get(peer)
        return link is None or link.passes_all

    def mtu(self, peer: str) -> int | None:
        """The link's MTU in bytes, if it was told."""
        link = self.links.get(peer)
        return link.mtu if link is not None else None

    def _refuse(self, own: str, peer: str, raws: Sequence[bytes]) -> None:
        for raw in raws:
            self._refused("partition", own, peer, raw)

    def _carry(self, local: str, peer: str, raws: Sequence[bytes], route: bytes) -> None:
        """Hand segments that have passed their link to whoever is at the link's other end."""
        link = self.links.get(peer)
        if link is not None and (link.via is not None or route):
            route = route or ROUTE.pack(socket.inet_aton(local), socket.inet_aton(peer), _MOST_ROUTERS)
            there = link.via or peer
            self.peer(link.own or self.source(there), there).send(raws, route)
        elif local == peer or ((local, peer) not in self._peers and self.is_own(peer)):
            self._carry_to_ourselves(local, peer, raws)
        else:
            self.peer(local, peer).send(raws)

    def _carry_to_ourselves(self, local: str, peer: str, raws: Sequence[bytes]) -> None:
        """No real connection is needed, but a queue: what is sent while a segment is delivered waits for its turn."""
        for raw in raws:
            if len(self._own_queue) >= BACKLOG_UNTOLD[0] or self._own_queued + len(raw) > BACKLOG_UNTOLD[1]:
                self.dropped("queue", local, peer, raw)
                continue
            if not self._own_queue:
                self.loop.call_soon(self._deliver_to_ourselves)
            self._own_queue.append((peer, local, raw))
            self._own_queued += len(raw)

    def _deliver_to_ourselves(self) -> None:
        arrived, self._own_queue, self._own_queued = self._own_queue, [], 0
        for (own, peer), row in itertools.groupby(arrived, key=lambda one: one[:2]):
            self.deliver(own, peer, [raw for _, _, raw in row])


def _is_of_this_host(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # ::ffff:127.0.0.1 has another name
            probe.bind((address, 0))
        except OSError:
            return False
    return True
