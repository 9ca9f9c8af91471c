"""One real TCP connection between two daemons, and the 16-byte chiTCP header before each segment on it.

The header says whose segment it is (the "route": source, destination, and how many routers it may still pass) in bytes
that are zero otherwise, if it is one that crosses a lab with routers; only a neighbour is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from chitcpd.peer import Peer
    from chitcpd.peers import Peers

HEADER = struct.Struct("!HBB12s")  # payload length, protocol, flags, and zeros, or a route
PROTO_TCP = 1
PROTO_PROBE = 254  # ours alone, between neighbours of a lab: what a probe.Prober sends
ROUTED = 0x80  # the flag: there is a route
HEADER_START = struct.Struct("!HBB")  # all of it that is read
ROUTE = struct.Struct("!4s4sB")  # source, destination, routers that it may still pass
_LAST_DATA_RECV = struct.Struct("=52xI")  # of Linux's tcp_info: ms
_MIN_SEGMENT, MAX_SEGMENT = 20, 0xFFFF  # bytes

READ = 1 << 18  # bytes of one carrier at most, before the others have their turn
_FRAME_TIMEOUT = 30.0  # seconds for a segment to come whole: 1500 bytes at 400 bit/s. And for the first one to come
_CARRIER_DEAD_AFTER = 10_000  # ms without an acknowledgement from the peer's kernel (TCP_USER_TIMEOUT)
_KEEP_IDLE, _KEEP_INTERVAL = 60, 10  # seconds: the kernel asks after a peer of which nothing is heard
_UNSENT = 1 << 17  # bytes that the kernel may hold beyond what is in flight: more were a queue that nobody asked for


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
        peer, unpack = self.peer, HEADER_START.unpack_from
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


@lru_cache(maxsize=1024)
def ends(route: bytes) -> tuple[str, str, int]:
    """Source, destination, and how many routers may still be passed, from a header's route of 9 bytes or more."""
    source, destination, routers = ROUTE.unpack_from(route)
    return socket.inet_ntoa(source), socket.inet_ntoa(destination), routers


def _set_options(sock: socket.socket) -> None:
    """Segments leave at once, and the kernel finds out when the peer's machine is gone, whether we send or not."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _CARRIER_DEAD_AFTER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEP_INTERVAL)
