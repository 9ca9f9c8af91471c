"""Many segments as one, in the manner of a network card: cut when they leave (TSO), joined when they come (GRO).

A TCP that says `takes_bursts` works on 256 KiB at a time; on the wire, in traces and captures each segment is its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, FIN, PSH, Segment

_MOST = 1 << 18  # bytes of data that are joined
_FIELDS = struct.Struct("!IIIBBH")  # both ports, seq, ack, data offset, flags, window
_ACK_PSH = ACK | PSH


def encode(seg: Segment, source_port: int, destination_port: int, pseudo: int) -> list[bytes]:
    """The bytes of each of the segments that `seg` stands for; `pseudo` as wire.encode has it."""
    if not seg.size:
        return [wire.encode(seg, source_port, destination_port, pseudo)]
    if seg.size < 0 or seg.flags & ~(ACK | PSH | FIN):
        raise ValueError("a burst has data, ACK, and at its end PSH and FIN")
    raws, size, pack, word_sum = [], seg.size, wire.HEADER.pack, wire.word_sum
    options = wire.encode_options(seg.options)
    head = wire.HEADER.size + len(options)
    flags, last = seg.flags & ~(PSH | FIN), max(len(seg.data) - 1, 0) // size * size
    same = source_port + destination_port + seg.ack + seg.wnd + seg.up + word_sum(options) + pseudo + head
    for at in range(0, last + 1, size):
        data = seg.data[at : at + size]
        number = (seg.seq + at) & 0xFFFFFFFF
        if at == last:
            flags = seg.flags
        check = -(same + number + (head << 10 | flags) + word_sum(data) + len(data)) % 0xFFFF
        header = pack(source_port, destination_port, number, seg.ack, head << 2, flags, seg.wnd, check, seg.up)
        raws.append(b"".join((header, options, data)))
    return raws


def join(seg: Segment, raws: Sequence[bytes], at: int, pseudo: int) -> int:
    """Put into `seg`, which raws[at] says, the data of those behind it; how many it stands for then.

    Joined is what goes on where the last one ends and is the same otherwise: mere data of one size, with the same
    acknowledgement, window and options, and a checksum that is right. The last may be shorter, and have PSH. The peer
    gets one ACK for all of them, though SHLD-19 wants one for two: who may be told so little says the driver.
    """
    first, size = raws[at], len(seg.data)
    end = at + min(_MOST // size, len(raws) - at) if size and seg.flags == ACK else 0
    if end - at < 2 or wire.has_no_checksum(first):
        return 1
    head = len(first) - size
    ports, number, ack, offset, _, wnd = _FIELDS.unpack_from(first)
    options, number = first[wire.HEADER.size : head], number + size
    unpack, checksum = _FIELDS.unpack_from, wire.checksum
    pieces, whole, count = [seg.data], head + size, 1
    for index in range(at + 1, end):
        raw = raws[index]
        length = len(raw)
        if not head < length <= whole:
            break
        same_ports, its_number, same_ack, same_offset, its_flags, same_wnd = unpack(raw)
        if (
            its_number != number & 0xFFFFFFFF
            or same_ack != ack
            or its_flags | PSH != _ACK_PSH
            or (same_ports, same_offset, same_wnd) != (ports, offset, wnd)
            or raw[wire.HEADER.size : head] != options
            or wire.has_no_checksum(raw)
            or checksum(raw, pseudo)
        ):
            break
        pieces.append(raw[head:])
        number += length - head
        count += 1
        seg.flags = its_flags
        if length < whole or its_flags & PSH:
            break
    if count > 1:
        seg.data, seg.size = b"".join(pieces), size
    return count
