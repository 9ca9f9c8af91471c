"""The network layer: segments behind a 16-byte chiTCP header, over one real TCP connection per pair of addresses.

A connection (a "carrier") is dialled when the first segment wants to go, serves both directions whoever dialled it,
and stays. If both sides dial at once, the carrier that the lower address has dialled is kept; the other is drained:
its dialler closes its sending side and reads on until the other side has closed too, so no segment is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from chitcpd.faults import Impairment, Shape

log = logging.getLogger(__name__)

HEADER = struct.Struct("!HBB12x")  # payload length, protocol, flags, zeros
PROTO_TCP = 1
_MIN_SEGMENT = 20
_READ_BUFFER = 1 << 18
_BACKLOG_PACKETS = 1000  # what waits for a carrier, if the link says nothing: as long as a Linux txqueuelen
_DIAL_TIMEOUT = 5.0  # seconds
_RETRY_FIRST, _RETRY_MAX = 0.1, 5.0  # seconds between dials that fail
_CARRIER_DEAD_AFTER = 10_000  # ms without an acknowledgement from the peer's kernel (TCP_USER_TIMEOUT)

Deliver = Callable[[str, str, bytes], None]  # our address, the peer's, the segment
Unreachable = Callable[[str, str], None]  # our address, the peer's
Dropped = Callable[[str, str, str, bytes], None]  # why, our address, the peer's, the segment


@dataclass(slots=True)
class Link:
    """What is known of the way to one peer."""

    own: str | None  # our address to dial from
    mtu: int | None  # bytes
    impairment: Impairment | None


class Carrier(asyncio.BufferedProtocol):
    """One real TCP connection: cuts what arrives into segments."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._buffer = bytearray(_READ_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self.transport: asyncio.Transport | None = None
        self.peer: Peer | None = None
        self.dialled = False  # by us
        self.paused = False
        self._drained = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up: find whose it is."""
        self.transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _CARRIER_DEAD_AFTER)
        if not self.dialled:
            address = transport.get_extra_info("peername")[0]  # the socket forgets it if the peer has reset it already
            self.peer = self._peers.peer(sock.getsockname()[0], address)
            self.peer.accepted(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come: hand on each whole segment."""
        self._filled += nbytes
        assert self.peer is not None
        at = 0
        while self._filled - at >= HEADER.size:
            length, proto, _ = HEADER.unpack_from(self._view, at)
            if proto != PROTO_TCP or length < _MIN_SEGMENT:
                self._give_up(f"a chiTCP header with protocol {proto} and length {length}")
                return
            end = at + HEADER.size + length
            if end > self._filled:
                break
            self._peers.deliver(self.peer.own, self.peer.address, bytes(self._view[at + HEADER.size : end]))
            at = end
        self._buffer[: self._filled - at] = self._buffer[at : self._filled]
        self._filled -= at

    def eof_received(self) -> bool:
        """The peer sends no more on it; what we still send may be lost, so another carrier must be found."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self.peer is not None:
            self.peer.lost(self, exc)

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self.paused = True

    def resume_writing(self) -> None:
        """The kernel takes more."""
        self.paused = False
        if self.peer is not None:
            self.peer.flush()

    @property
    def usable(self) -> bool:
        """Whether what is sent on it arrives, as far as we know."""
        return self.transport is not None and not self.transport.is_closing() and not self._drained

    def drain(self) -> None:
        """Send no more on it, and read on until the peer has closed it too."""
        self._drained = True
        if self.transport is not None:
            with contextlib.suppress(OSError):  # the peer has reset it already
                self.transport.write_eof()

    def _give_up(self, why: str) -> None:
        assert self.peer is not None
        assert self.transport is not None
        log.warning("%s sent %s; connection closed", self.peer.address, why)
        self.transport.abort()


class Peer:
    """The daemon at one address, as seen from one address of ours."""

    def __init__(self, peers: Peers, own: str, address: str) -> None:
        self._peers = peers
        self._carrier: Carrier | None = None  # what we send on
        self._queue: deque[bytes] = deque()
        self._dial: asyncio.Task[None] | None = None
        self._retry_after = _RETRY_FIRST
        self._retry_at = 0.0  # no dial before this
        self._flushing = False
        self.own = own
        self.address = address

    def send(self, raw: bytes) -> None:
        """Queue a segment; the queue is short, and what finds it full is lost."""
        if len(self._queue) >= _BACKLOG_PACKETS:
            self._peers.dropped("queue", self.own, self.address, raw)
            return
        self._queue.append(HEADER.pack(len(raw), PROTO_TCP, 0) + raw)
        if not self._flushing:
            self._flushing = True
            self._peers.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write all that waits in one call, or see to it that there is a carrier."""
        self._flushing = False
        if not self._queue:
            return
        carrier = self._carrier
        if carrier is None:
            self._start_dial()
        elif carrier.usable and not carrier.paused:
            assert carrier.transport is not None
            carrier.transport.write(b"".join(self._queue))
            self._queue.clear()

    def accepted(self, carrier: Carrier) -> None:
        """The peer has dialled us. We take its carrier, unless we have dialled too and our address is the lower one.

        Even long after: the peer may have given this dial up since, for ours. If not, ours is dead, and the next
        segment on it will tell.
        """
        dialled = self._dial is not None or (self._carrier is not None and self._carrier.dialled)
        if dialled and _lower(self.own, self.address):
            return
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self._use(carrier)

    def lost(self, carrier: Carrier, exc: Exception | None) -> None:
        """A carrier is gone; the next segment dials a new one."""
        self._peers.forget(carrier)
        if carrier is self._carrier:
            self._carrier = None
            log.info("connection to %s closed%s", self.address, f": {exc}" if exc else "")
            if not self._use_another() and self._queue:
                self.flush()

    def _use_another(self) -> bool:
        """Send on a carrier that the peer has dialled, if there is one."""
        another = next((c for c in self._peers.carriers if c.peer is self and c.usable), None)
        if another is not None:
            self._use(another)
        return another is not None

    def _use(self, carrier: Carrier) -> None:
        old, self._carrier = self._carrier, carrier
        self._retry_after, self._retry_at = _RETRY_FIRST, 0.0
        if old is not None:
            old.drain()
        log.info("connection to %s %s", self.address, "made" if carrier.dialled else "accepted")
        self.flush()

    def _start_dial(self) -> None:
        if self._dial is not None:
            return
        if self._peers.loop.time() < self._retry_at:
            self._fail_queue()
            return
        self._dial = self._peers.loop.create_task(self._dial_once())

    async def _dial_once(self) -> None:
        loop = self._peers.loop
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                carrier = await self._connect()
        except OSError as error:  # TimeoutError is one
            self._dial = None
            if self._use_another():
                return
            self._retry_at = loop.time() + self._retry_after
            self._retry_after = min(self._retry_after * 2, _RETRY_MAX)
            why = os.strerror(error.errno) if error.errno else "timed out"
            log.warning("%s can't be reached: %s", self.address, why)
            self._fail_queue()
            return
        self._dial = None
        self._use(carrier)

    async def _connect(self) -> Carrier:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind((self.own, 0))
            await self._peers.loop.sock_connect(sock, (self.address, self._peers.port))
        except BaseException:
            sock.close()
            raise
        carrier = self._peers.new_carrier()
        carrier.peer, carrier.dialled = self, True
        try:
            await self._peers.loop.create_connection(lambda: carrier, sock=sock)
        except BaseException:
            self._peers.forget(carrier)
            raise
        return carrier

    def _fail_queue(self) -> None:
        for frame in self._queue:
            self._peers.dropped("unreachable", self.own, self.address, frame[HEADER.size :])
        self._queue.clear()
        self._peers.unreachable(self.own, self.address)


class Peers:
    """All peers of this daemon; what the driver knows as the network."""

    def __init__(
        self, *, port: int, addresses: list[str], deliver: Deliver, unreachable: Unreachable, dropped: Dropped
    ) -> None:
        """`addresses`: ours, to listen on; 0.0.0.0 and :: mean all of a family."""
        self.loop = asyncio.get_running_loop()
        self.port = port
        self.addresses = addresses
        self.deliver = deliver
        self.unreachable = unreachable
        self.dropped = dropped
        self.carriers: set[Carrier] = set()
        self._carrier_lost = asyncio.Event()
        self._links: dict[str, Link] = {}
        self._peers: dict[tuple[str, str], Peer] = {}
        self._servers: list[asyncio.Server] = []

    async def listen(self) -> None:
        """Take connections from other daemons. Raises OSError if the port is in use or an address is not ours."""
        for address in self.addresses:
            self._servers.append(await self.loop.create_server(self.new_carrier, address, self.port))

    async def close(self, within: float) -> None:
        """Close every connection, after what waits for it is written, or after so many seconds."""
        for server in self._servers:
            server.close()
        for peer in self._peers.values():
            peer.flush()
        for carrier in self.carriers:
            if carrier.transport is not None:
                carrier.transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.carriers:
                    await self._carrier_lost.wait()
                    self._carrier_lost.clear()

    def new_carrier(self) -> Carrier:
        """A carrier that is not connected yet."""
        carrier = Carrier(self)
        self.carriers.add(carrier)
        return carrier

    def forget(self, carrier: Carrier) -> None:
        """A carrier is gone."""
        self.carriers.discard(carrier)
        self._carrier_lost.set()

    def peer(self, own: str, address: str) -> Peer:
        """The peer at `address`, from our address `own`."""
        peer = self._peers.get((own, address))
        if peer is None:
            peer = self._peers[own, address] = Peer(self, own, address)
        return peer

    def set_link(self, peer: str, *, own: str | None, mtu: int | None, shape: Shape, seed: int) -> None:
        """From now on, reach `peer` from `own`, and do to its segments what `shape` says."""
        impairment = Impairment(shape, seed) if shape != Shape() else None
        self._links[peer] = Link(own, mtu, impairment)

    def impairment_counts(self) -> dict[str, dict[str, int]]:
        """What was done to segments so far: peer -> kind -> segments."""
        return {peer: dict(link.impairment.counts) for peer, link in self._links.items() if link.impairment}

    # ---- the driver's network ------------------------------------------------------------------------------

    def send(self, local: str, peer: str, raw: bytes) -> None:
        """Carry a segment, past the link's impairment."""
        link = self._links.get(peer)
        if link is None or link.impairment is None:
            self._carry(local, peer, raw)
            return
        now = self.loop.time()
        arrivals, why = link.impairment.push(raw, now)
        if why is not None:
            self.dropped(why, local, peer, raw)
        for due, copy in arrivals:
            if due <= now:
                self._carry(local, peer, copy)
            else:
                self.loop.call_at(due, self._carry, local, peer, copy)

    def source(self, peer: str) -> str:
        """Our address towards `peer`: the link's, or the one we listen on, or the kernel's choice."""
        link = self._links.get(peer)
        if link is not None and link.own is not None:
            return link.own
        if peer in self.addresses:
            return peer
        ip = ipaddress.ip_address(peer)
        mine = [a for a in self.addresses if ipaddress.ip_address(a).version == ip.version]
        if len(mine) == 1 and not ipaddress.ip_address(mine[0]).is_unspecified:
            return mine[0]
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((peer, self.port))  # sends nothing: only asks for the route
            return cast(str, probe.getsockname()[0])

    def mtu(self, peer: str) -> int | None:
        """The link's MTU in bytes, if it was told."""
        link = self._links.get(peer)
        return link.mtu if link is not None else None

    def _carry(self, local: str, peer: str, raw: bytes) -> None:
        if local == peer or peer in self.addresses:  # our own address: no real connection is needed
            self.loop.call_soon(self.deliver, peer, local, raw)
        else:
            self.peer(local, peer).send(raw)


def _lower(a: str, b: str) -> bool:
    return ipaddress.ip_address(a).packed < ipaddress.ip_address(b).packed
