"""The segments of one connection: a row each, with what its sender, its receiver or a router has seen of it.

A row is packed, because a run may have millions: 46 bytes, and written anew when more is known.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# What the bits of `kind` mean.
FROM_B = 1  # sent by the second end; else by the first
AGAIN = 2  # data that was sent before, in whole or in part: a retransmission
SYN_FIN_AGAIN = 4  # a SYN or FIN without data that was sent before
DROPPED = 8  # and `way` is how long after it was sent
ARRIVED = 16  # and `way` is how long it took
DUPLICATE = 32  # the network has delivered it once more than it was sent
UNSENT = 64  # nobody has seen it leave: `at` is when it came
STAMPED = 128  # it has the timestamps option

COLUMNS = (
    *(("at", "q"), ("seq", "q"), ("ack", "q"), ("way", "i"), ("len", "H"), ("wnd", "H")),
    *(("flags", "B"), ("kind", "B"), ("why", "B"), ("sacks", "B"), ("where", "H"), ("tsval", "I"), ("tsecr", "I")),
)
ROW = struct.Struct("<" + "".join(letter for _, letter in COLUMNS))
_AT, _WAY, _KIND, _WHY, _WHERE = (
    struct.calcsize("<" + "".join(letter for _, letter in COLUMNS[: [name for name, _ in COLUMNS].index(column)]))
    for column in ("at", "way", "kind", "why", "where")
)
_TIME, _WAYS, _NODE = struct.Struct("<q"), struct.Struct("<i"), struct.Struct("<H")
_LONGEST_WAY = 2**31 - 1


class Row(NamedTuple):
    """One segment. Times in microseconds; sequence numbers from the sender's SYN on, not modulo 2^32."""

    at: int  # when it was sent
    seq: int
    ack: int  # from the receiver's SYN on; 0 without ACK
    way: int
    len: int
    wnd: int  # as it is in the header: not scaled
    flags: int
    kind: int
    why: int  # it was dropped: which of the report's reasons
    sacks: int  # how many SACK blocks it has, in `Segments.blocks`
    where: int  # which of the nodes has dropped it
    tsval: int
    tsecr: int


@dataclass(frozen=True, slots=True)
class Options:
    """Options that only a SYN has."""

    mss: int | None
    window_scale: int | None
    sack_permitted: bool


class Segments:
    """All segments of a connection, in the order in which they were first seen."""

    __slots__ = ("_rows", "blocks", "options")

    def __init__(self) -> None:
        self._rows = bytearray()
        self.blocks = array("q")  # first and behind of each SACK block, on the same scale as `ack`
        self.options: dict[int, Options] = {}  # by row

    def __len__(self) -> int:
        return len(self._rows) // ROW.size

    def append(self, *row: int) -> int:
        """Add a row and return its index. Raises struct.error if a number is none or does not fit: nothing is added."""
        self._rows += ROW.pack(*row)
        return len(self._rows) // ROW.size - 1

    def ended(self, index: int, t: int, kind: int, why: int = 0, where: int = 0) -> int:
        """At t it has come, or was dropped, says `kind`; return how long after it was sent.

        A duplicate comes later than the first, whose time stays.
        """
        start = index * ROW.size
        (at,) = _TIME.unpack_from(self._rows, start + _AT)
        way: int = max(-_LONGEST_WAY, min(t - at, _LONGEST_WAY))
        if kind != DUPLICATE:
            _WAYS.pack_into(self._rows, start + _WAY, way)
        self._rows[start + _KIND] |= kind
        if kind & DROPPED:
            self._rows[start + _WHY] = why
            _NODE.pack_into(self._rows, start + _WHERE, where)
        return way

    def was_no_duplicate(self, index: int) -> None:
        """Take back that it came once more."""
        self._rows[index * ROW.size + _KIND] &= ~DUPLICATE

    def __iter__(self) -> Iterator[Row]:
        return map(Row._make, ROW.iter_unpack(self._rows))

    def __getitem__(self, index: int) -> Row:
        return Row._make(ROW.unpack_from(self._rows, range(len(self))[index] * ROW.size))

    def columns(self) -> Iterator[tuple[str, str, int, bytes]]:
        """(name, struct's letter, bytes of a value, bytes) of each column: all first bytes, all second bytes ...

        So near values stand beside each other, and compress to a third of what rows do.
        """
        offset = 0
        for name, letter in COLUMNS:
            size = struct.calcsize(f"<{letter}")
            planes = [bytes(self._rows[offset + byte :: ROW.size]) for byte in range(size)]
            yield name, letter, size, b"".join(planes)
            offset += size
