"""The send side's memory: bytes that wait or are in flight, and a record of each segment in flight."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from chitcpd.tcp.seq import Block, add, diff, le, lt

_PAGE = 1 << 18  # bytes: the data is kept in pieces, so that what is acknowledged goes without moving the rest


@dataclass(slots=True)
class Record:
    """A segment in flight, or a burst of them, until it is acknowledged."""

    seq: int
    end: int  # the sequence number behind its last
    flags: int  # SYN or FIN, or 0
    sent_at: float  # seconds; of the last transmission
    first_sent_at: float
    retransmissions: int = 0
    sacked: bool = False  # the peer has it, out of order
    lost: bool = False  # taken to be lost, and not sent again yet
    size: int = 0  # of a burst: bytes of data in each of its segments but the last
    order: int = 0  # of the last transmission among all: the time does not tell of two at one moment

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
        self._pages: deque[bytearray] = deque()  # the data: all but the last are full
        self._length = 0  # bytes of it
        self._gone = 0  # bytes of the first page that are acknowledged
        self._start = add(iss, 1)  # the sequence number behind them
        self._known: tuple[Block, ...] = ()  # the blocks of the last SACK
        self.records: list[Record] = []
        self.in_flight = 0  # sequence numbers
        self.sacked = 0  # records that are SACKed
        self.lost_records = 0  # that are taken to be lost, and not sent again yet
        self._has_bursts = False
        self._transmissions = 0

    @property
    def room(self) -> int:
        """Bytes that write would take."""
        return max(self.capacity - self._length, 0)  # it may have been made smaller

    def write(self, data: bytes | memoryview) -> int:
        """Take as many bytes as there is room for."""
        taken, at = min(len(data), self.room), 0
        while at < taken:
            if not self._pages or len(self._pages[-1]) == _PAGE:
                self._pages.append(bytearray())
            page = self._pages[-1]
            end = min(at + _PAGE - len(page), taken)
            page += data[at:end]
            at = end
        self._length += taken
        return taken

    def unsent(self, snd_nxt: int) -> int:
        """Bytes from `snd_nxt` on."""
        return max(self._length - diff(snd_nxt, self._start), 0)

    def peek(self) -> bytes:
        """A copy of all that is not acknowledged."""
        return b"".join(self._pages)[self._gone :]

    def payload(self, seq: int, length: int) -> bytes:
        """`length` bytes at `seq`."""
        number, at = divmod(diff(seq, self._start) + self._gone, _PAGE)
        parts = []
        while length > 0 and number < len(self._pages):
            with memoryview(self._pages[number]) as page:
                parts.append(bytes(page[at : at + length]))
            length -= len(parts[-1])
            number, at = number + 1, 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ---- what is in flight ---------------------------------------------------------------------------------

    def sent(self, record: Record) -> None:
        """Remember a new segment in flight."""
        self.records.append(record)
        self._number(record)
        self.in_flight += record.length
        self._has_bursts |= record.size > 0

    def take_apart(self) -> None:
        """Each segment of a burst gets a record of its own: something has happened to some of them."""
        if self._has_bursts:
            self._has_bursts = False
            self.records = [part for record in self.records for part in _parts(record)]

    def sent_again(self, record: Record, now: float) -> None:
        """A record is in flight once more."""
        if record.lost:
            record.lost = False
            self.lost_records -= 1
            self.in_flight += record.length
        record.retransmissions += 1
        record.sent_at = now
        self._number(record)

    def _number(self, record: Record) -> None:
        self._transmissions += 1
        record.order = self._transmissions

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
        self._take_apart_if_within_a_segment(ack)
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
            oldest = self.records[0]
            self._uncount(oldest, diff(ack, oldest.seq))
            if oldest.size:
                covered.append(replace(oldest, end=ack))
            oldest.seq = ack
        if self._known:
            self._known = tuple(block for block in self._known if lt(ack, block[1]))
        self._forget_data(min(max(diff(ack, self._start), 0), self._length))
        return covered

    def _take_apart_if_within_a_segment(self, ack: int) -> None:
        """An ACK that covers a part of a segment: what is left of a burst would begin there, and be cut elsewhere."""
        if self._has_bursts:
            hit = next((record for record in self.records if lt(ack, record.end)), None)
            if hit is not None and hit.size and lt(hit.seq, ack) and diff(ack, hit.seq) % hit.size:
                self.take_apart()

    def _forget_data(self, length: int) -> None:
        self._start = add(self._start, length)
        self._length -= length
        self._gone += length
        while self._gone >= _PAGE or (self._gone and not self._length):
            self._gone -= len(self._pages.popleft())

    def mark_sacked(self, blocks: tuple[Block, ...], snd_una: int, snd_nxt: int) -> list[Record]:
        """The peer has these blocks (RFC 6675 §4, Update); return the records that it did not have before.

        Blocks outside of what is in flight are not believed.
        """
        self.take_apart()
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


def _parts(record: Record) -> list[Record]:
    """The segments of a burst; any other record is one itself."""
    if not record.size:
        return [record]
    count = max(record.length - bool(record.flags) - 1, 0) // record.size + 1
    starts = [add(record.seq, number * record.size) for number in range(count)]
    ends = [*starts[1:], record.end]
    parts = [replace(record, seq=seq, end=end, flags=0, size=0) for seq, end in zip(starts, ends, strict=True)]
    parts[-1].flags = record.flags
    return parts
