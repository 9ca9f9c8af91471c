"""The network layer: segments behind a 16-byte chiTCP header, over one real TCP connection per pair of addresses.

A connection (a "carrier") is dialled when the first segment wants to go, serves both directions whoever dialled it,
and stays. If both sides dial at once, the carrier that the lower address has dialled is kept; the other is drained:
its dialler closes its sending side and reads on until the other side has closed too, so no segment is lost.

Whoever can reach the port may say anything, so all that a stranger can make us keep has a bound: carriers, bytes of an
unfinished segment and the time for it, bytes that wait to be sent, peers that are remembered, lines in the log.

In a lab with routers, a segment crosses each link in a carrier of that link's own two ends: so each link loses, delays
and queues what passes, whoever sent it. Such a frame says whose segment it is (the "route": source, destination, and
how many routers it may still pass) in bytes of the header that are zero otherwise; only a neighbour is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

from chitcpd.demux import ip_address
from chitcpd.faults import Impairment
from chitcpd.links import Links, UnderWay
from chitcpd.turns import Turn

log = logging.getLogger(__name__)

HEADER = struct.Struct("!HBB12s")  # payload length, protocol, flags, and zeros, or a route
PROTO_TCP = 1
PROTO_PROBE = 254  # ours alone, between neighbours of a lab: what a probe.Prober sends
ROUTED = 0x80  # the flag: there is a route
_HEADER_START = struct.Struct("!HBB")  # all of it that is read
_ROUTE = struct.Struct("!4s4sB")  # source, destination, routers that it may still pass
_MOST_ROUTERS = 64
_LAST_DATA_RECV = struct.Struct("=52xI")  # of Linux's tcp_info: ms
_MIN_SEGMENT, _MAX_SEGMENT = 20, 0xFFFF  # bytes

# ---- what waits to be sent
_BACKLOG = (1000, 1 << 21)  # segments and bytes that wait for the carrier of a lab's link: a Linux txqueuelen
_BACKLOG_UNTOLD = (1 << 15, 1 << 25)  # of any other: room for a thousand connections, which drops would starve
_ALL_BACKLOGS = 1 << 26  # bytes in all queues: beyond these, each is as short as a link's
_ENOUGH = 1 << 18  # bytes for any other: with so many there applications wait, which costs less than what is dropped
_SHARE = 1 << 16  # bytes that one of those is expected to have for us
_HANDLE = 160  # bytes that a segment takes beside its own while it waits, its header too
_WRITE = 1 << 18  # bytes at once; beyond these, and asyncio's high-water mark of 64 KiB, the transport buffers nothing

# ---- what comes in
_READ = 1 << 18  # bytes of one carrier at most, before the others have their turn
_FRAME_TIMEOUT = 30.0  # seconds for a segment to come whole: 1500 bytes at 400 bit/s. And for the first one to come
_LISTEN_BACKLOG = 256  # connections that may come at once
_MOST_OF_A_PEER = 4  # carriers: two when dials cross, and again two after a restart of which we know nothing yet
_MOST_ACCEPTED = 512  # carriers in all, before one more is accepted
_IDLE = 1000  # ms without a byte: then one of those may go for another. Sooner, those in use would oust each other
_MOST_CARRIERS = 1024  # in all, before one more is dialled: strangers can't take all of the room
_MOST_PEERS = 1024  # that are remembered without need, for what went wrong with them

_LOOPBACK = frozenset({"127.0.0.1", "::1"})

# ---- time
_DIAL_TIMEOUT = 5.0  # seconds
_RETRY_FIRST, _RETRY_MAX = 0.1, 5.0  # seconds between dials that fail
_QUIET = 60.0  # seconds between two lines in the log about what one peer sends
_CARRIER_DEAD_AFTER = 10_000  # ms without an acknowledgement from the peer's kernel (TCP_USER_TIMEOUT)
_KEEP_IDLE, _KEEP_INTERVAL = 60, 10  # seconds: the kernel asks after a peer of which nothing is heard
_UNSENT = 1 << 17  # bytes that the kernel may hold beyond what is in flight: more were a queue that nobody asked for

Frame = tuple[bytes, bytes]  # the chiTCP header and the segment
Deliver = Callable[[str, str, Sequence[bytes]], None]  # our address, the peer's, the segments
Unreachable = Callable[[str, str], None]  # our address, the peer's
Dropped = Callable[[str, str, str, bytes], None]  # why, our address, the peer's, the segment
Passed = Callable[[str, str, bytes], None]  # the source, the destination, the segment
Probed = Callable[[str, bytes], None]  # the neighbour's address, what it sends


class Carrier(asyncio.BufferedProtocol):
    """One real TCP connection: cuts what arrives into segments."""

    __slots__ = ("_drained", "_peers", "_rest", "_since", "_watch", "dialled", "paused", "peer", "proven", "transport")

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._rest = b""  # of a segment that has not come whole yet
        self._since = 0.0  # when that began
        self._watch: asyncio.TimerHandle | None = None
        self._drained = False
        self.transport: asyncio.Transport | None = None
        self.peer: Peer | None = None
        self.dialled = False  # by us
        self.paused = False
        self.proven = False  # the other end speaks chiTCP: a whole segment has come, and nothing else

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up: find whose it is."""
        self.transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        _set_options(sock)
        if self.dialled:
            assert self.peer is not None
            self._peers.carriers[self] = None
            self.peer.carriers.append(self)
            return
        # The peer's name as it was when the connection came: the socket forgets it if the peer has reset it already.
        self.peer = self._peers.admit(self, sock.getsockname(), transport.get_extra_info("peername"))
        if self.peer is None:
            self.transport.abort()
            return
        self._begin_watch()
        self.peer.accepted(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go, behind the rest: one place for all carriers, as `buffer_updated` follows at once."""
        scratch, kept = self._peers.scratch, len(self._rest)
        scratch[:kept] = self._rest
        return scratch[kept:]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come: hand on each whole segment."""
        with self._peers.turn:
            self._cut(nbytes)

    def _cut(self, nbytes: int) -> None:
        peer, unpack = self.peer, _HEADER_START.unpack_from
        assert peer is not None
        data, is_neighbour = self._peers.scratch, self._peers.links.is_neighbour(peer.address)
        row: list[bytes] = []  # segments that are handed on together: of one protocol and route
        kind = (PROTO_TCP, b"")
        filled, at, start = len(self._rest) + nbytes, 0, HEADER.size
        while start <= filled:
            length, proto, flags = unpack(data, at)
            if (proto != PROTO_TCP and not (is_neighbour and proto == PROTO_PROBE)) or length < _MIN_SEGMENT:
                self._hand_on(kind, row)
                self._give_up(f"a chiTCP header with protocol {proto} and length {length}")
                return
            end = start + length
            if end > filled:
                break
            if not self.proven:
                self.proven = True
                peer.proven(self)
            this = (proto, bytes(data[at + 4 : start]) if flags == ROUTED and is_neighbour else b"")
            if this != kind:
                self._hand_on(kind, row)
                row, kind = [], this
            row.append(bytes(data[start:end]))
            at, start = end, end + HEADER.size
        begins, self._rest = not self._rest or at > 0, bytes(data[at:filled])
        self._hand_on(kind, row)
        # A stranger's first segment has its time already.
        if self._rest and begins and (self.proven or self.dialled):
            self._begin_watch()

    def _hand_on(self, kind: tuple[int, bytes], row: list[bytes]) -> None:
        if row and self.peer is not None:
            proto, route = kind
            self._peers.take(self.peer.own, self.peer.address, proto, route, row)

    def eof_received(self) -> bool:
        """The peer sends no more on it; what we still send may be lost, so another carrier must be found."""
        if self._rest and self.peer is not None:
            self.peer.complain("a part of a segment, and then the end")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._peers.forget(self)
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
    def is_open(self) -> bool:
        """Whether it is up, and nobody has begun to close it."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def usable(self) -> bool:
        """Whether what is sent on it arrives, as far as we know."""
        return self.is_open and not self._drained

    def silence(self) -> int:
        """For how many ms nothing has come. The kernel is asked, so that what comes need not be timed."""
        assert self.transport is not None
        sock: socket.socket = self.transport.get_extra_info("socket")
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECV.size)
        return cast(int, _LAST_DATA_RECV.unpack(info)[0])

    def drain(self) -> None:
        """Send no more on it, and read on until the peer has closed it too."""
        self._drained = True
        if self.transport is not None:
            with contextlib.suppress(OSError):  # the peer has reset it already
                self.transport.write_eof()

    def abort(self) -> None:
        """End it now."""
        if self.transport is not None:
            self.transport.abort()

    def _begin_watch(self) -> None:
        """A segment is due, whole, within _FRAME_TIMEOUT. The timer that runs already looks again when it expires."""
        self._since = self._peers.loop.time()
        if self._watch is None:
            self._watch = self._peers.loop.call_at(self._since + _FRAME_TIMEOUT, self._look)

    def _look(self) -> None:
        """End a carrier that stalls. One that is merely silent has no timer, once its first segment has come."""
        self._watch = None
        if not self._rest and (self.proven or self.dialled):
            return
        due = self._since + _FRAME_TIMEOUT
        if self._peers.loop.time() < due:
            self._watch = self._peers.loop.call_at(due, self._look)
        else:
            self._give_up(f"no whole segment for {_FRAME_TIMEOUT:g} s")

    def _give_up(self, what: str) -> None:
        assert self.peer is not None
        self.proven = False
        self.peer.complain(what)
        self.abort()


class Peer:
    """The daemon at one address, as seen from one address of ours."""

    __slots__ = (
        *("_answered", "_carrier", "_dial", "_down", "_flushing", "_peers", "_queue", "_queued", "_quiet_until"),
        *("_retry_after", "_retry_at", "_waiting", "address", "carriers", "own"),
    )

    def __init__(self, peers: Peers, own: str, address: str) -> None:
        self._peers = peers
        self._carrier: Carrier | None = None  # what we send on
        self._queue: deque[Frame] = deque()
        self._queued = 0  # bytes that it takes
        self._dial: asyncio.Task[None] | None = None
        self._retry_after = _RETRY_FIRST
        self._retry_at = 0.0  # no dial before this
        self._down = False  # the last dial has failed
        self._answered = False  # something came since we last dialled, on whichever carrier
        self._quiet_until = 0.0
        self._flushing = False
        self._waiting: dict[Callable[[], None], None] = {}  # for room; the first comes first
        self.own = own
        self.address = address
        self.carriers: list[Carrier] = []  # all that are up, the oldest first

    def send(self, raws: Sequence[bytes], route: bytes = b"", proto: int = PROTO_TCP) -> None:
        """Queue segments; the queue is short, and what finds it full is lost."""
        queue, flags = self._queue, ROUTED if route else 0
        short = self._peers.waiting > _ALL_BACKLOGS or self._peers.links.get(self.address) is not None
        most, most_bytes = _BACKLOG if short else _BACKLOG_UNTOLD
        for raw in raws:
            frame = (HEADER.pack(len(raw), proto, flags, route), raw)
            if len(queue) >= most or self._queued + len(raw) + _HANDLE > most_bytes:
                self._lose("queue", frame)
            else:
                queue.append(frame)
                self._count(len(raw) + _HANDLE)
        if not self._flushing:
            self._flushing = True
            self._peers.turn.put_off(self.flush)

    def flush(self) -> None:
        """Write what waits, as far as the carrier takes it, or see to it that there is a carrier."""
        self._flushing = False
        carrier = self._carrier
        if carrier is None:
            if self._queue:
                self._start_dial()
            return
        while self._queue and carrier.usable and not carrier.paused:
            assert carrier.transport is not None
            carrier.transport.write(self._take(_WRITE))
        self._let_go_on()

    def has_room(self, again: Callable[[], None]) -> bool:
        """Whether the queue is not long. If it is, `again` is called once it no longer is."""
        if self._queued < _ENOUGH:
            return True
        self._waiting[again] = None
        return False

    def _let_go_on(self) -> None:
        """Call those that wait, as many as will fill the queue; after these the next, if they did not."""
        room = _ENOUGH - self._queued
        if room <= 0 or not self._waiting:
            return
        for again in list(itertools.islice(self._waiting, 1 + room // _SHARE)):
            del self._waiting[again]
            self._peers.turn.put_off(again)
        self._peers.turn.put_off(self._let_go_on)

    def end(self) -> None:
        """Write all that waits, and close."""
        if self._dial is not None:
            self._dial.cancel()
        if self._queue and self._carrier is not None and self._carrier.usable:
            assert self._carrier.transport is not None
            self._carrier.transport.write(self._take(self._queued))
        for carrier in self.carriers:
            if carrier.transport is not None:
                carrier.transport.close()

    def accepted(self, carrier: Carrier) -> None:
        """The peer has dialled us. We take its carrier, unless we have dialled too and our address is the lower one.

        Even long after: the peer may have given this dial up since, for ours. If not, ours is dead, and the next
        segment on it will tell. One that replaces another must first prove that it is no passing stranger's.
        """
        self.carriers.append(carrier)
        self._shed()
        if self._keeps_its_own():
            return
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._carrier is None:
            self._use(carrier)

    def proven(self, carrier: Carrier) -> None:
        """The first segment has come on this carrier: whoever is there is a chitcpd."""
        log.info("connection to %s %s", self.address, "made" if carrier.dialled else "accepted")
        self._retry_after, self._retry_at, self._down, self._answered = _RETRY_FIRST, 0.0, False, True
        if carrier is not self._carrier and not carrier.dialled and carrier.usable and not self._keeps_its_own():
            self._use(carrier)

    def lost(self, carrier: Carrier, exc: Exception | None) -> None:
        """A carrier is gone; the next segment dials a new one."""
        self.carriers.remove(carrier)
        if carrier is self._carrier:
            self._carrier = None
            if self._answered:
                log.info("connection to %s closed%s", self.address, f": {exc}" if exc else "")
            if not self._use_another():
                if carrier.dialled and not self._answered:
                    self._back_off()  # it takes our dials, and hangs up
                self.flush()
        self._peers.release(self)

    def hurry(self) -> None:
        """Dial at the next need, whatever has failed before."""
        self._retry_after, self._retry_at = _RETRY_FIRST, 0.0

    def complain(self, what: str) -> None:
        """The peer has sent something wrong: a line in the log, but not many."""
        self._answered = False
        now = self._peers.loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            log.warning("%s sent %s; connection closed", self.address, what)

    @property
    def busy(self) -> bool:
        """Whether anything goes on."""
        return bool(self.carriers or self._queue or self._flushing or self._dial is not None)

    @property
    def memorable(self) -> bool:
        """Whether something went wrong that should be known at its next segment, or at its next garbage."""
        return self._down or max(self._retry_at, self._quiet_until) > self._peers.loop.time()

    def _keeps_its_own(self) -> bool:
        dialled = self._dial is not None or (self._carrier is not None and self._carrier.dialled)
        return dialled and _lower(self.own, self.address)

    def _shed(self) -> None:
        """End the carrier that is needed least, if there are too many."""
        others = [c for c in self.carriers[:-1] if c is not self._carrier and c.is_open]
        if len(others) > _MOST_OF_A_PEER - 2:
            min(others, key=lambda c: c.proven).abort()

    def _use_another(self) -> bool:
        """Send on a carrier that the peer has dialled, if there is one."""
        another = max((c for c in self.carriers if c.usable), key=lambda c: c.proven, default=None)
        if another is not None:
            self._use(another)
        return another is not None

    def _use(self, carrier: Carrier) -> None:
        old, self._carrier = self._carrier, carrier
        if old is not None:
            old.drain()
        self.flush()

    def _take(self, most: int) -> bytes:
        """Take whole frames from the queue, until there are `most` bytes or more."""
        if self._queued <= most:
            frames = [part for frame in self._queue for part in frame]
            self._queue.clear()
            size = self._queued
        else:
            frames, size = [], 0
            while size < most:
                frame = self._queue.popleft()
                frames += frame
                size += len(frame[1]) + _HANDLE
        self._count(-size)
        return b"".join(frames)

    def _count(self, size: int) -> None:
        self._queued += size
        self._peers.waiting += size

    # ---- dialling

    def _start_dial(self) -> None:
        if self._dial is not None:
            return
        if self._peers.loop.time() < self._retry_at or self._peers.closing:
            self._fail_queue()
        elif not self._peers.may_dial():
            self._tell_once("too many connections are open")
            self._fail_queue()
        else:
            self._answered = False
            self._dial = self._peers.loop.create_task(self._dial_once())

    async def _dial_once(self) -> None:
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                carrier = await self._connect()
        except OSError as error:  # TimeoutError is one
            self._dial = None
            if not self._use_another():
                self._tell_once(_reason(error))
                self._back_off()
                self._fail_queue()
                self._peers.release(self)
            return
        self._dial = None
        self._use(carrier)

    async def _connect(self) -> Carrier:
        ip = ipaddress.ip_address(self.address)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:  # its own name is another
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._peers.dialling += 1
        try:
            sock.bind((self.own, 0))
            await self._peers.loop.sock_connect(sock, (self.address, self._peers.port))
        except BaseException:
            sock.close()
            raise
        finally:
            self._peers.dialling -= 1
        carrier = Carrier(self._peers)
        carrier.peer, carrier.dialled = self, True
        await self._peers.loop.create_connection(lambda: carrier, sock=sock)
        return carrier

    def _tell_once(self, why: str) -> None:
        """Into the log, until the peer can be reached again."""
        log.log(logging.DEBUG if self._down else logging.WARNING, "%s can't be reached: %s", self.address, why)
        self._down = True

    def _back_off(self) -> None:
        self._retry_at = self._peers.loop.time() + self._retry_after
        self._retry_after = min(self._retry_after * 2, _RETRY_MAX)

    def _fail_queue(self) -> None:
        for frame in self._queue:
            self._lose("unreachable", frame)
        self._queue.clear()
        self._count(-self._queued)
        self._let_go_on()
        if self._down:
            self._peers.unreachable(self.own, self.address)

    def _lose(self, why: str, frame: Frame) -> None:
        header, raw = frame
        _, proto, flags = _HEADER_START.unpack_from(header)
        if proto == PROTO_TCP:
            source, destination, _ = _ends(header[4:13]) if flags == ROUTED else (self.own, self.address, 0)
            self._peers.dropped(why, source, destination, raw)


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
        self.scratch = memoryview(bytearray(_READ))
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
        if max(map(len, raws), default=0) > _MAX_SEGMENT:
            self._drop("length", local, peer, [raw for raw in raws if len(raw) > _MAX_SEGMENT])
            raws = [raw for raw in raws if len(raw) <= _MAX_SEGMENT]
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
        source, destination, routers = _ends(route) if route else (neighbour, own, 0)
        if not route or (self.links.get(source) is not None and (destination == own or self.is_own(destination))):
            self.receiver(source)(destination, source, raws)
        elif self._forwards and routers and None not in (self.links.get(source), self.links.get(destination)):
            onwards = _ROUTE.pack(route[:4], route[4:8], routers - 1)
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
            route = route or _ROUTE.pack(socket.inet_aton(local), socket.inet_aton(peer), _MOST_ROUTERS)
            there = link.via or peer
            self.peer(link.own or self.source(there), there).send(raws, route)
        elif local == peer or ((local, peer) not in self._peers and self.is_own(peer)):
            self._carry_to_ourselves(local, peer, raws)
        else:
            self.peer(local, peer).send(raws)

    def _carry_to_ourselves(self, local: str, peer: str, raws: Sequence[bytes]) -> None:
        """No real connection is needed, but a queue: what is sent while a segment is delivered waits for its turn."""
        for raw in raws:
            if len(self._own_queue) >= _BACKLOG_UNTOLD[0] or self._own_queued + len(raw) > _BACKLOG_UNTOLD[1]:
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


@lru_cache(maxsize=1024)
def _ends(route: bytes) -> tuple[str, str, int]:
    """Source, destination, and how many routers may still be passed, from a header's route of 9 bytes or more."""
    source, destination, routers = _ROUTE.unpack_from(route)
    return socket.inet_ntoa(source), socket.inet_ntoa(destination), routers


def _set_options(sock: socket.socket) -> None:
    """Segments leave at once, and the kernel finds out when the peer's machine is gone, whether we send or not."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _CARRIER_DEAD_AFTER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEP_INTERVAL)


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


def _reason(error: OSError) -> str:
    """In words; asyncio's own name the address once more, and a resolver's numbers are not the system's."""
    if isinstance(error, TimeoutError) and not error.errno:
        return "timed out"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def _lower(a: str, b: str) -> bool:
    return ipaddress.ip_address(a).packed < ipaddress.ip_address(b).packed
