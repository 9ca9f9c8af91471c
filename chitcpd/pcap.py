"""Captures of segments: pcap or pcapng, with nanoseconds, each segment behind an IP header made for it.

Any analyser shows plain TCP, with the addresses as the network has them: the sender first. A segment that was dropped
has no hop left (TTL 0; others have 64); in pcapng a comment says why besides, and flags say which way it went.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
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
class Packet:
    """What is known of a packet in a capture."""

    time: int  # nanoseconds since the epoch
    source: str
    destination: str
    segment: bytes
    sent: bool  # by the host that captures; else received
    dropped: str | None = None  # why, if it went no further


class Capture:
    """Writes a capture. It holds packets back until the flush, for they may be dropped meanwhile."""

    def __init__(self, sink: Sink, *, pcapng: bool = False, begun: bool = False) -> None:
        """`begun`: the sink has a capture already, with which this one goes on."""
        self._sink = sink
        self._encode = _enhanced_packet if pcapng else _record
        self._held: dict[int, Packet] = {}  # by the identity of the segment
        if pcapng:
            sink.write(section(("chitcp", LINKTYPE_RAW)))  # a file may have more than one
        elif not begun:
            sink.write(_file_header())
        sink.flush()  # a capture without a packet can be opened too

    def take(self, packet: Packet) -> None:
        """A packet was sent or received; or dropped, and then this may be one that is held, again."""
        key = id(packet.segment)
        held = self._held.get(key)
        if held is not None and packet.dropped is not None:
            held.dropped = packet.dropped
            return
        if held is not None or len(self._held) >= _MOST_HELD:
            self._write_held()
        self._held[key] = packet

    def flush(self) -> None:
        """Write out all that was taken."""
        self._write_held()
        self._sink.flush()

    def _write_held(self) -> None:
        if self._held:
            self._sink.write(b"".join([part for packet in self._held.values() for part in self._encode(packet)]))
            self._held.clear()


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


def _record(packet: Packet) -> tuple[bytes, ...]:
    header = _ip_header_of(packet)
    length = len(header) + len(packet.segment)
    record = _RECORD_HEADER.pack(packet.time // _BILLION, packet.time % _BILLION, length, length)
    return record, header, packet.segment


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


def _enhanced_packet(packet: Packet) -> tuple[bytes, ...]:
    raw = _ip_header_of(packet) + packet.segment
    comments = () if packet.dropped is None else (f"dropped: {packet.dropped}",)
    return (packet_block(0, packet.time, raw, len(raw), packet.sent, comments),)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _ip_header_of(packet: Packet) -> bytes:
    hops = _HOPS if packet.dropped is None else 0
    return _ip_header(packet.source, packet.destination, len(packet.segment), hops)


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
