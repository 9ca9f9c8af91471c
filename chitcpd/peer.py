"""The daemon at one address: what waits to be sent there, and the carrier that it is sent on.

If both sides dial at once, the carrier that the lower address has dialled is kept; the other is drained: its dialler
closes its sending side and reads on until the other side has closed too, so no segment is lost.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from chitcpd.carrier import HEADER, HEADER_START, PROTO_TCP, ROUTED, Carrier, ends

if TYPE_CHECKING:
    from chitcpd.peers import Peers

log = logging.getLogger(__name__)

# ---- what waits to be sent
_BACKLOG = (1000, 1 << 21)  # segments and bytes that wait for the carrier of a lab's link: a Linux txqueuelen
BACKLOG_UNTOLD = (1 << 15, 1 << 25)  # of any other: room for a thousand connections, which drops would starve
_ALL_BACKLOGS = 1 << 26  # bytes in all queues: beyond these, each is as short as a link's
_ENOUGH = 1 << 18  # bytes for any other: with so many there applications wait, which costs less than what is dropped
_SHARE = 1 << 16  # bytes that one of those is expected to have for us
_HANDLE = 160  # bytes that a segment takes beside its own while it waits, its header too
_WRITE = 1 << 18  # bytes at once; beyond these, and asyncio's high-water mark of 64 KiB, the transport buffers nothing

_MOST_OF_A_PEER = 4  # carriers: two when dials cross, and again two after a restart of which we know nothing yet

# ---- time
_DIAL_TIMEOUT = 5.0  # seconds
_RETRY_FIRST, _RETRY_MAX = 0.1, 5.0  # seconds between dials that fail
_QUIET = 60.0  # seconds between two lines in the log about what one peer sends

Frame = tuple[bytes, bytes]  # the chiTCP header and the segment


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
        most, most_bytes = _BACKLOG if short else BACKLOG_UNTOLD
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
        _, proto, flags = HEADER_START.unpack_from(header)
        if proto == PROTO_TCP:
            source, destination, _ = ends(header[4:13]) if flags == ROUTED else (self.own, self.address, 0)
            self._peers.dropped(why, source, destination, raw)


def _reason(error: OSError) -> str:
    """In words; asyncio's own name the address once more, and a resolver's numbers are not the system's."""
    if isinstance(error, TimeoutError) and not error.errno:
        return "timed out"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def _lower(a: str, b: str) -> bool:
    return ipaddress.ip_address(a).packed < ipaddress.ip_address(b).packed
