"""Captures of segments: pcap or pcapng, with nanoseconds, each segment behind an IP header made for it.

Any analyser shows plain TCP, with the addresses as the network has them: the sender first. A segment that was dropped
has no hop left (TTL 0; others have 64); in pcapng a comment says why besides, and flags say which way it went.
"""

from __future__ import annotations

import ipaddress
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Protocol

_MAGIC_NANOSECONDS = 0xA1B23C4D
LINKTYPE_RAW = 101
_SNAPSHOT = 1 << 18
_FILE_HEADER = struct.Struct("=IHHiIII")
_RECORD_HEADER = struct.Struct("=IIII")
_BILLION = 1_000_000_000
_HOPS = 64
_MOST_HELD = 1000  # packets

# pcapng (draft-ietf-opsawg-pcapng): blocks of type, length, body, length again; options of code, length, padded value.
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_COMMENT, _FLAGS, _NAME, _RESOLUTION = 1, 2, 2, 9
_INBOUND, _OUTBOUND = 1, 2
_LONGEST_COMMENT = 1000  # bytes


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take them."""

    def flush(self) -> object:
        """Write them out."""


@dataclass(slots=True)
class Packets:
    """What is known of packets in a capture that went one way at one moment."""

    time: int  # nanoseconds since the epoch
    source: str
    destination: str
    segments: Sequence[bytes]
    sent: bool  # by the host that captures; else received
    fates: dict[int, str] = field(default_factory=dict)  # id() of a segment -> why it went no further

    def by_fate(self) -> Iterable[tuple[str | None, Iterable[bytes]]]:
        """Those that follow each other and have the same fate, with it; None: nothing happened to them."""
        if not self.fates:
            return ((None, self.segments),)
        return itertools.groupby(self.segments, lambda segment: self.fates.get(id(segment)))


class Capture:
    """Writes a capture. It holds packets back until the flush, for they may be dropped meanwhile."""

    def __init__(self, sink: Sink, *, pcapng: bool = False, begun: bool = False) -> None:
        """`begun`: the sink has a capture already, with which this one goes on."""
        self._sink = sink
        self._encode = _enhanced_packets if pcapng else _records
        self._held: list[Packets] = []
        self._of: dict[int, Packets] = {}  # id() of a held segment -> those it is among
        if pcapng:
            sink.write(section(("chitcp", LINKTYPE_RAW)))  # a file may have more than one
        elif not begun:
            sink.write(_file_header())
        sink.flush()  # a capture without a packet can be opened too

    def take(self, packets: Packets) -> None:
        """Packets were sent or received."""
        if max(len(self._of), len(self._held)) >= _MOST_HELD:
            self._write_held()
        self._held.append(packets)
        self._of.update(dict.fromkeys(map(id, packets.segments), packets))

    def drop(self, packet: Packets, why: str) -> None:
        """One went no further: one that was taken and is held, or another."""
        [segment] = packet.segments
        among = self._of.get(id(segment))
        if among is None:
            self.take(packet)
            among = packet
        among.fates[id(segment)] = why

    def flush(self) -> None:
        """Write out all that was taken."""
        self._write_held()
        self._sink.flush()

    def _write_held(self) -> None:
        if self._held:
            self._sink.write(b"".join([part for packets in self._held for part in self._encode(packets)]))
            self._held.clear()
            self._of.clear()


def whole_packets(file: IO[bytes]) -> int:
    """How many bytes of a capture of ours, pcap or pcapng, are whole records."""
    end = file.seek(0, 2)
    file.seek(0)
    is_pcap = file.read(4) == _file_header()[:4]
    whole = at = _FILE_HEADER.size if is_pcap else 0
    while at <= end:
        whole = at
        file.seek(at)
        head = file.read(_RECORD_HEADER.size if is_pcap else 8)
        if len(head) < (_RECORD_HEADER.size if is_pcap else 8):
            break
        at += (
            _RECORD_HEADER.size + _RECORD_HEADER.unpack(head)[2]
            if is_pcap
            else struct.unpack("=II", head)[1] or end + 1
        )
    return min(whole, end)


def _file_header() -> bytes:
    return _FILE_HEADER.pack(_MAGIC_NANOSECONDS, 2, 4, 0, 0, _SNAPSHOT, LINKTYPE_RAW)


def _records(packets: Packets) -> Iterator[bytes]:
    """Those of one length have the same headers, put before all of them in one step: that is most of the speed."""
    seconds, nanoseconds = divmod(packets.time, _BILLION)
    for why, segments in packets.by_fate():
        for length, alike in itertools.groupby(segments, len):
            header = _ip_header_of(packets, length, why)
            whole = len(header) + length
            header = _RECORD_HEADER.pack(seconds, nanoseconds, whole, whole) + header
            yield header
            yield header.join(alike)


def section(*interfaces: tuple[str, int]) -> bytes:
    """The begin of a pcapng; packets name its interfaces by their place. Each has a name, and a link type."""
    begin = _block(_SECTION, struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1))
    return begin + b"".join(_interface(name, link_type) for name, link_type in interfaces)


def _interface(name: str, link_type: int) -> bytes:
    options = _option(_NAME, name.encode(errors="replace")) + _option(_RESOLUTION, b"\x09") + _option(0, b"")
    return _block(_INTERFACE, struct.pack("=HHI", link_type, 0, _SNAPSHOT) + options)


def packet_block(
    interface: int, time: int, raw: bytes, length: int, sent: bool | None = None, comments: Sequence[str] = ()
) -> bytes:
    """A packet for a pcapng; `time`: nanoseconds since the epoch, `length`: before anything was cut off from `raw`."""
    head = struct.pack("=IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(raw), length)
    options = b"" if sent is None else _option(_FLAGS, struct.pack("=I", _OUTBOUND if sent else _INBOUND))
    options += b"".join(_option(_COMMENT, comment.encode(errors="replace")[:_LONGEST_COMMENT]) for comment in comments)
    return _block(_PACKET, head + _padded(raw) + (options + _option(0, b"") if options else b""))


def _enhanced_packets(packets: Packets) -> Iterator[bytes]:
    for why, segments in packets.by_fate():
        comments = () if why is None else (f"dropped: {why}",)
        for segment in segments:
            raw = _ip_header_of(packets, len(segment), why) + segment
            yield packet_block(0, packets.time, raw, len(raw), packets.sent, comments)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _ip_header_of(packets: Packets, length: int, why: str | None) -> bytes:
    """That of each whose segment has so many bytes; `why`: it went no further."""
    return _ip_header(packets.source, packets.destination, length, _HOPS if why is None else 0)


@lru_cache(maxsize=4096)
def _ip_header(source: str, destination: str, length: int, hops: int) -> bytes:
    src, dst = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if src.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, 6, hops) + src.packed + dst.packed
    # Longer than a real packet could be: analysers take a length of 0 as "see the record" (as with TSO).
    total = 20 + length if 20 + length <= 0xFFFF else 0
    head = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0x4000, hops, 6, 0) + src.packed + dst.packed
    checksum = -int.from_bytes(head) % 0xFFFF
    return head[:10] + checksum.to_bytes(2) + head[12:]
