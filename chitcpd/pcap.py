"""Captures of segments: pcap with nanoseconds, each segment behind an IP header made for it.

Any analyser shows plain TCP, with the addresses as the network has them: the sender first.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache

_MAGIC_NANOSECONDS = 0xA1B23C4D
_LINKTYPE_RAW = 101
_SNAPSHOT = 1 << 18
_FILE_HEADER = struct.Struct("=IHHiIII")
_RECORD_HEADER = struct.Struct("=IIII")
_BILLION = 1_000_000_000

FILE_HEADER = _FILE_HEADER.pack(_MAGIC_NANOSECONDS, 2, 4, 0, 0, _SNAPSHOT, _LINKTYPE_RAW)


def record(time_ns: int, source: str, destination: str, segment: bytes) -> bytes:
    """The bytes of one packet in a capture: `time_ns` since the epoch, an IP header, the segment."""
    packet = _ip_header(source, destination, len(segment)) + segment
    return _RECORD_HEADER.pack(time_ns // _BILLION, time_ns % _BILLION, len(packet), len(packet)) + packet


@lru_cache(maxsize=4096)
def _ip_header(source: str, destination: str, length: int) -> bytes:
    src, dst = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if src.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, 6, 64) + src.packed + dst.packed
    # Longer than a real packet could be: analysers take a length of 0 as "see the record" (as with TSO).
    total = 20 + length if 20 + length <= 0xFFFF else 0
    head = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0x4000, 64, 6, 0) + src.packed + dst.packed
    checksum = -int.from_bytes(head) % 0xFFFF
    return head[:10] + checksum.to_bytes(2) + head[12:]
