"""The send side's memory: bytes that wait or are in flight, and a record of each segment in flight."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from chitcpd.tcp.seq import Block, add, diff, le, lt


@dataclass(slots=True)
class Record:
    """A segment in flight, until it is acknowledged."""

    seq: int
    end: int  # the sequence number behind its last
    flags: int  # SYN or FIN, or 0
    sent_at: float  # seconds; of the last transmission
    first_sent_at: float
    retransmissions: int = 0
    sacked: bool = False  # the peer has it, out of order
    lost: bool = False  # taken to be lost, and not sent again yet

    @property
    def length(self) -> int:
        """Sequence numbers that it takes."""
        return diff(self.end, self.seq)


class SendBuffer:
    """The bytes that are not acknowledged, sent or not, and the records of what is in flight, oldest first.

    The records are the scoreboard of RFC 6675 §3, and `in_flight` is its `pipe`: a record counts unless it is SACKed,
    or lost and not sent again yet.
    """

    def __init__(self, iss: int, capacity: int) -> None:
        self.capacity = capacity
        self._data = bytearray()
        self._start = add(iss, 1)  # the sequence number of _data[0]
        self._known: tuple[Block, ...] = ()  # the blocks of the last SACK
        self.records: list[Record] = []
        self.in_flight = 0  # sequence numbers
        self.sacked = 0  # records that are SACKed
        self.lost_records = 0  # that are taken to be lost, and not sent again yet

    @property
    def room(self) -> int:
        """Bytes that write would take."""
        return max(self.capacity - len(self._data), 0)  # it may have been made smaller

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

    # ---- what is in flight ---------------------------------------------------------------------------------

    def sent(self, record: Record) -> None:
        """Remember a new segment in flight."""
        self.records.append(record)
        self.in_flight += record.length

    def sent_again(self, record: Record, now: float) -> None:
        """A record is in flight once more."""
        if record.lost:
            record.lost = False
            self.lost_records -= 1
            self.in_flight += record.length
        record.retransmissions += 1
        record.sent_at = now

    def mark_lost(self, record: Record) -> None:
        """Take a record to be lost: it is no longer in flight, and the first to be sent."""
        if not record.lost and not record.sacked:
            record.lost = True
            self.lost_records += 1
            self.in_flight -= record.length

    def forget_sacks_if_broken(self) -> None:
        """If even the oldest was SACKed, and was not acknowledged since, the peer has thrown it away (RFC 2018 §8)."""
        if self.records[0].sacked:
            self._forget_sacks()

    def lost(self) -> Iterator[Record]:
        """The records that must be sent again, the oldest first; they may be while this goes on."""
        return (record for record in self.records if record.lost) if self.lost_records else iter(())

    def acknowledge(self, ack: int) -> list[Record]:
        """Forget all before `ack`; return the records that it covers whole."""
        count = 0
        while count < len(self.records) and le(self.records[count].end, ack):
            count += 1
        covered = self.records[:count]
        del self.records[:count]
        for record in covered:
            self._uncount(record, record.length)
            self.lost_records -= record.lost
            self.sacked -= record.sacked
        if self.records and lt(self.records[0].seq, ack):
            self._uncount(self.records[0], diff(ack, self.records[0].seq))
            self.records[0].seq = ack
        if self._known:
            self._known = tuple(block for block in self._known if lt(ack, block[1]))
        length = min(max(diff(ack, self._start), 0), len(self._data))
        del self._data[:length]
        self._start = add(self._start, length)
        return covered

    def mark_sacked(self, blocks: tuple[Block, ...], snd_una: int, snd_nxt: int) -> list[Record]:
        """The peer has these blocks (RFC 6675 §4, Update); return the records that it did not have before.

        Blocks outside of what is in flight are not believed.
        """
        news = []
        believed = tuple((a, b) for a, b in blocks if le(snd_una, a) and lt(a, b) and le(b, snd_nxt))
        for first, behind in believed:
            start = next((known[1] for known in self._known if le(known[0], first) and lt(first, known[1])), first)
            at = bisect_left(self.records, diff(start, snd_una), key=lambda record: diff(record.seq, snd_una))
            if at > 0 and le(first, self.records[at - 1].seq):
                at -= 1  # the last SACK may have told of a part of it only
            while at < len(self.records) and le(self.records[at].end, behind):
                if not self.records[at].sacked:
                    self._mark_sacked(self.records[at])
                    news.append(self.records[at])
                at += 1
        self._known = believed
        return news

    def _mark_sacked(self, record: Record) -> None:
        self._uncount(record, record.length)
        self.lost_records -= record.lost
        self.sacked += 1
        record.lost, record.sacked = False, True

    def _forget_sacks(self) -> None:
        for record in self.records:
            if record.sacked:
                record.sacked = False
                self.in_flight += record.length
        self.sacked, self._known = 0, ()

    def _uncount(self, record: Record, length: int) -> None:
        if not record.lost and not record.sacked:
            self.in_flight -= length
