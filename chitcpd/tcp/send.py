"""The send side's memory: bytes that wait or are in flight, and a record of each segment in flight."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from chitcpd.tcp.seq import add, diff, le, lt


@dataclass(slots=True)
class Record:
    """A segment in flight, until it is acknowledged."""

    seq: int
    end: int  # the sequence number after its last
    flags: int  # SYN or FIN, or 0
    sent_at: float
    retransmissions: int = 0
    lost: bool = False  # taken to be lost, and not sent again yet

    @property
    def length(self) -> int:
        """Sequence numbers that it takes."""
        return diff(self.end, self.seq)


class SendBuffer:
    """The bytes that are not acknowledged, sent or not, and the records of what is in flight, oldest first."""

    def __init__(self, iss: int, capacity: int) -> None:
        self._capacity = capacity
        self._data = bytearray()
        self._start = add(iss, 1)  # the sequence number of _data[0]
        self._lost = 0  # records taken to be lost
        self.records: deque[Record] = deque()
        self.in_flight = 0  # sequence numbers sent, not acknowledged and not taken to be lost

    @property
    def room(self) -> int:
        """Bytes that write would take."""
        return self._capacity - len(self._data)

    def write(self, data: bytes | memoryview) -> int:
        """Take as many bytes as there is room for."""
        taken = data[: self.room]
        self._data += taken
        return len(taken)

    def unsent(self, snd_nxt: int) -> int:
        """Bytes from `snd_nxt` on."""
        return max(len(self._data) - diff(snd_nxt, self._start), 0)

    def peek(self) -> bytes:
        """A copy of all that is not acknowledged."""
        return bytes(self._data)

    def payload(self, seq: int, length: int) -> bytes:
        """`length` bytes at `seq`."""
        at = diff(seq, self._start)
        with memoryview(self._data) as view:
            return bytes(view[at : at + length])

    def sent(self, record: Record) -> None:
        """Remember a new segment in flight."""
        self.records.append(record)
        self.in_flight += record.length

    def sent_again(self, record: Record, now: float) -> None:
        """A record is in flight once more."""
        if record.lost:
            record.lost = False
            self._lost -= 1
            self.in_flight += record.length
        record.retransmissions += 1
        record.sent_at = now

    def mark_lost(self, record: Record) -> None:
        """Take a record to be lost: it is no longer in flight, and the first to be sent."""
        if not record.lost:
            record.lost = True
            self._lost += 1
            self.in_flight -= record.length

    def mark_all_lost(self) -> None:
        """After a time-out nothing in flight is trusted any more (RFC 5681 §3.1)."""
        for record in self.records:
            self.mark_lost(record)

    def first_lost(self) -> Record | None:
        """The oldest record that must be sent again."""
        return next((record for record in self.records if record.lost), None) if self._lost else None

    def acknowledge(self, ack: int) -> list[Record]:
        """Forget all before `ack`; return the records that it covers whole."""
        covered = []
        while self.records and le(self.records[0].end, ack):
            record = self.records.popleft()
            covered.append(record)
            self._forget(record, record.length)
            self._lost -= record.lost
        if self.records and lt(self.records[0].seq, ack):
            record = self.records[0]
            self._forget(record, diff(ack, record.seq))
            record.seq = ack
        count = min(max(diff(ack, self._start), 0), len(self._data))
        del self._data[:count]
        self._start = add(self._start, count)
        return covered

    def _forget(self, record: Record, length: int) -> None:
        if not record.lost:
            self.in_flight -= length
