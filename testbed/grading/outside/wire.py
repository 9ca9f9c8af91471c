"""The judge's end of the network layer: one real TCP connection to the daemon's port, or from it, and segments inside.

Each port of ours belongs to one mailbox, so that many tests share the wire. What the daemon sends is strictly read; a
header that makes no sense ends the real connection, and is kept as a fault.
"""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from threading import Condition, Lock, Thread

from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, RST, Segment

HEADER = struct.Struct("!HBB12x")  # payload length, protocol, flags
_TCP = 1
_SHORTEST = 20  # bytes of a segment
_MOST_SEGMENTS, _MOST_BYTES = 20_000, 1 << 26  # that one connection may have sent before anybody looks
_DIAL_WITHIN, _PONG_WITHIN = 5.0, 2.0  # seconds


class Gone(Exception):
    """The daemon can't be reached any more; the text says how that showed."""


class Mailbox:
    """What has come to a port of ours, and when."""

    def __init__(self) -> None:
        self.come = Condition()
        self.flooded = False
        self._segments: deque[tuple[float, int, Segment]] = deque()
        self._bytes = 0  # of their data

    def put(self, at: float, port: int, seg: Segment) -> None:
        """A segment from this port of the daemon's."""
        with self.come:
            self._bytes += len(seg.data)
            self.flooded = self.flooded or len(self._segments) >= _MOST_SEGMENTS or self._bytes > _MOST_BYTES
            if not self.flooded:
                self._segments.append((at, port, seg))
            self.come.notify_all()

    def empty(self) -> list[tuple[float, int, Segment]]:
        """All that has come since the last time: when, from which port, what."""
        with self.come:
            segments = list(self._segments)
            self._segments.clear()
            self._bytes = 0
        return segments


class Wire:
    """The network between the judge and the daemon."""

    def __init__(self, ours: str, theirs: str, port: int) -> None:
        self.ours, self.theirs = ours, theirs
        self.dialled_by_it = 0  # real connections
        self.fault = ""  # the last that made no sense
        self.pings = False  # it answers what is for no connection: so we know when it has seen what we sent
        self._port = port
        self._out = wire.pseudo_header(ours, theirs)
        self._in = wire.pseudo_header(theirs, ours)
        self._boxes: dict[int, Mailbox] = {}
        self._ports = itertools.count(20_000)
        self._lock = Lock()
        self._carrier: socket.socket | None = None
        self._up = Condition()
        self._listener = socket.create_server((ours, port))
        Thread(target=self._accept, daemon=True).start()

    def port(self) -> tuple[int, Mailbox]:
        """A port of ours that nobody has used."""
        port, box = next(self._ports), Mailbox()
        self._boxes[port] = box
        return port, box

    def leave(self, port: int) -> None:
        """Nobody looks at it any more."""
        self._boxes.pop(port, None)

    def send(self, seg: Segment, source: int, destination: int) -> None:
        """Send a segment. Raises Gone if no real connection can be had."""
        self.send_raw(self.encoded(seg, source, destination))

    def encoded(self, seg: Segment, source: int, destination: int) -> bytes:
        """As it is sent."""
        return wire.encode(seg, source, destination, self._out)

    def decoded(self, raw: bytes) -> tuple[int, int, Segment]:
        """What we have encoded. Raises MalformedSegment if it was damaged since."""
        return wire.decode(raw, self._out)

    def send_raw(self, raw: bytes) -> None:
        """Send what may be no segment."""
        with self._lock:
            for _ in range(2):  # the daemon may have closed it since
                carrier = self._carrier or self._dial()
                try:
                    carrier.sendall(HEADER.pack(len(raw), _TCP, 0) + raw)
                except OSError:
                    self._drop(carrier)
                else:
                    return
        raise Gone("its real connection on the chiTCP port breaks whenever a segment is sent")

    def hang_up(self) -> None:
        """Close the real connection; the next segment opens another."""
        with self._lock:
            if self._carrier is not None:
                self._drop(self._carrier)

    def wait_for_its_dial(self, within: float) -> bool:
        """Whether it opens a real connection to us in this time (seconds)."""
        with self._up:
            return self._up.wait_for(lambda: self.dialled_by_it > 0, within)

    def ping(self, port: int) -> bool:
        """Send an ACK to a port of the daemon's without a connection, and wait for the RST that answers it."""
        source, box = self.port()
        try:
            self.send(Segment(1, 1, ACK), source, port)
            end = time.monotonic() + _PONG_WITHIN
            while (left := end - time.monotonic()) > 0:
                if any(seg.flags & RST for _, _, seg in box.empty()):
                    return True
                with box.come:
                    box.come.wait(min(left, 0.05))
        finally:
            self.leave(source)
        return False

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # whoever waits for a connection ends
        self._listener.close()
        self.hang_up()

    # ---- inside

    def _dial(self) -> socket.socket:
        try:
            carrier = socket.create_connection((self.theirs, self._port), _DIAL_WITHIN, (self.ours, 0))
        except OSError as error:
            raise Gone(f"nothing answers at its port {self._port}: {error.strerror or error}") from error
        self._take(carrier)
        return carrier

    def _take(self, carrier: socket.socket) -> None:
        carrier.settimeout(_DIAL_WITHIN)
        carrier.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._carrier = carrier
        Thread(target=self._read, args=(carrier,), daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                carrier, (address, _) = self._listener.accept()
            except OSError:
                return
            if address != self.theirs:
                carrier.close()
                continue
            self._take(carrier)
            with self._up:
                self.dialled_by_it += 1
                self._up.notify_all()

    def _read(self, carrier: socket.socket) -> None:
        buffered = b""
        while True:
            try:
                piece = carrier.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                piece = b""
            if not piece:
                break
            buffered += piece
            now = time.monotonic()
            while len(buffered) >= HEADER.size:
                length, protocol, _ = HEADER.unpack_from(buffered)
                if protocol != _TCP or length < _SHORTEST:
                    self.fault = f"it sent a chiTCP header with protocol {protocol} and length {length}"
                    self._drop(carrier)
                    return
                if len(buffered) < HEADER.size + length:
                    break
                self._deliver(now, buffered[HEADER.size : HEADER.size + length])
                buffered = buffered[HEADER.size + length :]
        self._drop(carrier)

    def _deliver(self, now: float, raw: bytes) -> None:
        try:
            source, destination, seg = wire.decode(raw, self._in)
        except wire.MalformedSegment as error:
            self.fault = f"it sent what is no segment: {error}"
            return
        if (box := self._boxes.get(destination)) is not None:
            box.put(now, source, seg)

    def _drop(self, carrier: socket.socket) -> None:
        if self._carrier is carrier:
            self._carrier = None
        with suppress(OSError):
            carrier.shutdown(socket.SHUT_RDWR)
        carrier.close()
