"""The receive buffer: puts segments back in order and holds what the application has not read yet."""

from __future__ import annotations

from collections import deque

from chitcpd.tcp.seq import Block, add, diff, le, lt, newer

_SMALL = 1 << 12  # bytes: less is not kept by itself, or single bytes would cost many times the window
_MAX_BLOCKS = 1024  # with gaps between them; beyond, a peer that sends single bytes would cost many times the window


class ReceiveBuffer:
    """Bytes in order, ready to be read, and blocks that came ahead of a gap.

    All that it holds lies within the window that was advertised: the caller trims segments to it, so memory is
    bounded by the size of the buffer.
    """

    def __init__(self) -> None:
        self._ready: deque[bytes | bytearray] = deque()  # in order; small ones are joined in a bytearray
        self._read = 0  # bytes of the first that were handed out
        self.readable = 0  # bytes in order that were not
        self._ahead: list[tuple[int, bytearray]] = []  # (sequence number, data), in order, not overlapping
        # What is ahead, joined, with a FIN, the newest first: what a SACK tells (RFC 2018 §4).
        self._ranges: list[Block] = []

    @property
    def has_gap(self) -> bool:
        """Something came ahead of what is missing."""
        return bool(self._ranges)

    def insert(self, seq: int, data: bytes, rcv_nxt: int) -> int:
        """Take in the data at `seq`, not before `rcv_nxt`; return the new RCV.NXT."""
        if seq != rcv_nxt:
            self._insert_ahead(seq, data)
            return rcv_nxt
        rcv_nxt = self._append(data, rcv_nxt)
        while self._ahead and not lt(rcv_nxt, self._ahead[0][0]):
            first, ahead = self._ahead.pop(0)
            del ahead[: diff(rcv_nxt, first)]
            rcv_nxt = self._append(ahead, rcv_nxt)
        if self._ranges:
            self._ranges = [block for block in self._ranges if lt(rcv_nxt, block[0])]
        return rcv_nxt

    def end(self, rcv_nxt: int) -> int:
        """The sequence number behind all that has come."""
        return add(self._ahead[-1][0], len(self._ahead[-1][1])) if self._ahead else rcv_nxt

    def has(self, seq: int, end: int) -> bool:
        """All of this is held already, ahead of the gap."""
        return any(le(first, seq) and le(end, behind) for first, behind in self._ranges)

    def blocks(self, most: int) -> tuple[Block, ...]:
        """The blocks ahead of the gap, the one that came last first."""
        return tuple(self._ranges[:most])

    def read(self, limit: int) -> bytes:
        """Hand out at most `limit` bytes."""
        parts, wanted = [], min(limit, self.readable)
        self.readable -= wanted
        while wanted > 0:
            first = self._ready[0]
            part = memoryview(first)[self._read : self._read + wanted]
            parts.append(part)
            wanted -= len(part)
            self._read += len(part)
            if self._read == len(first):
                self._ready.popleft()
                self._read = 0
        return b"".join(parts)

    def peek(self) -> bytes:
        """A copy of all that could be read."""
        return b"".join(self._ready)[self._read :]

    def fin_is_ahead(self, seq: int) -> None:
        """The peer's FIN has come, with this number; a SACK tells of it until all before it is there."""
        self._join(seq, add(seq, 1))

    def clear_ahead(self) -> None:
        """Forget what can never be read any more."""
        self._ahead.clear()
        self._ranges.clear()

    def _append(self, data: bytes | bytearray, rcv_nxt: int) -> int:
        last = self._ready[-1] if self._ready else None
        if not data:
            return rcv_nxt
        if isinstance(last, bytearray) and len(last) < _SMALL:
            last += data
        else:
            self._ready.append(data if len(data) >= _SMALL else bytearray(data))
        self.readable += len(data)
        return add(rcv_nxt, len(data))

    def _insert_ahead(self, seq: int, data: bytes) -> None:
        """Keep what is new of this block, in its place among the others."""
        if self.has(seq, add(seq, len(data))):
            self._join(seq, add(seq, len(data)))  # it came last, though nothing of it is new
            return
        blocks = self._ahead
        at = len(blocks)
        while at > 0 and lt(seq, blocks[at - 1][0]):
            at -= 1
        if at > 0:
            seq, data = _cut_front(seq, data, add(blocks[at - 1][0], len(blocks[at - 1][1])))
        while data:
            room = diff(blocks[at][0], seq) if at < len(blocks) else len(data)
            if room > 0:
                at = self._keep(at, seq, data[:room])
            if at == len(blocks):
                return
            seq, data = _cut_front(seq, data, add(blocks[at][0], len(blocks[at][1])))
            at += 1

    def _keep(self, at: int, seq: int, data: bytes) -> int:
        """Put this before the block at `at`: behind the one before it, if it goes on there. The index behind it."""
        if at > 0:
            first, before = self._ahead[at - 1]
            if add(first, len(before)) == seq:
                before += data
                self._join(seq, add(seq, len(data)))
                return at
        if len(self._ahead) < _MAX_BLOCKS:
            self._ahead.insert(at, (seq, bytearray(data)))
            self._join(seq, add(seq, len(data)))
            at += 1
        return at

    def _join(self, first: int, behind: int) -> None:
        """Put a block in front of the others, joined with those that it touches."""
        apart = []
        for block in self._ranges:
            if lt(behind, block[0]) or lt(block[1], first):
                apart.append(block)
            else:
                first = block[0] if lt(block[0], first) else first
                behind = newer(behind, block[1])
        self._ranges = [(first, behind), *apart]


def _cut_front(seq: int, data: bytes, start: int) -> tuple[int, bytes]:
    """What is left of a block when all before `start` is cut off."""
    cut = max(diff(start, seq), 0)
    return add(seq, cut), data[cut:]
