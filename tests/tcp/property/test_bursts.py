"""Bursts are a way to work on many segments at once, and nothing else: whatever is true of the segments, is of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chitcpd.tcp import bursts, wire
from chitcpd.tcp.api import ACK, FIN, PSH, Options, Segment
from chitcpd.tcp.send import Record, SendBuffer
from chitcpd.tcp.seq import add

PSEUDO = wire.pseudo_header("10.0.0.2", "10.0.0.3")
numbers = st.integers(0, 2**32 - 1)
bursts_of_data = st.builds(
    Segment,
    seq=numbers,
    ack=numbers,
    flags=st.sampled_from((ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN)),
    wnd=st.integers(0, 0xFFFF),
    data=st.binary(max_size=200),
    options=st.none() | st.builds(Options, timestamp=st.tuples(numbers, numbers)),
    size=st.integers(1, 50),
)


# ---- as bytes ------------------------------------------------------------------------------------------------


@given(bursts_of_data)
def test_a_burst_is_encoded_as_its_segments_are(seg: Segment) -> None:
    assert bursts.encode(seg, 7, 9, PSEUDO) == [wire.encode(one, 7, 9, PSEUDO) for one in seg.cut()]


@given(bursts_of_data)
def test_its_segments_say_the_same(seg: Segment) -> None:
    parts = seg.cut()
    assert b"".join(one.data for one in parts) == seg.data
    assert sum(map(len, parts)) == len(seg)
    assert {one.flags & (PSH | FIN) for one in parts[:-1]} <= {0}
    assert parts[-1].flags == seg.flags
    assert [one.seq for one in parts] == [add(seg.seq, seg.size * number) for number in range(len(parts))]


@given(bursts_of_data)
def test_what_was_cut_is_joined_up_to_a_fin(seg: Segment) -> None:
    raws = bursts.encode(seg, 7, 9, PSEUDO)
    assume(not any(map(wire.has_no_checksum, raws)))  # as one in 65,535 seems to be
    first = wire.decode(raws[0], PSEUDO)[2]
    count = bursts.join(first, raws, 0, PSEUDO)
    mere = [one for one in seg.cut() if not one.flags & FIN and one.data]
    assert count == max(len(mere), 1)
    if count > 1:
        length = sum(len(one.data) for one in mere)
        assert first == replace(seg, data=seg.data[:length], flags=mere[-1].flags)


CHANGES = {
    "seq": lambda seg: replace(seg, seq=add(seg.seq, 1)),
    "ack": lambda seg: replace(seg, ack=add(seg.ack, 1)),
    "window": lambda seg: replace(seg, wnd=seg.wnd ^ 1),
    "flags": lambda seg: replace(seg, flags=seg.flags | FIN),
    "options": lambda seg: replace(seg, options=Options(timestamp=(1, 2))),
    "no data": lambda seg: replace(seg, data=b""),
    "more data": lambda seg: replace(seg, data=seg.data + b"!"),
}


@given(st.sampled_from(sorted(CHANGES)), numbers)
def test_what_differs_is_not_joined(change: str, seq: int) -> None:
    parts = Segment(seq, 3, ACK, 100, bytes(range(30)), size=10).cut()
    parts[1] = CHANGES[change](parts[1])
    raws = [wire.encode(one, 7, 9, PSEUDO) for one in parts]
    assert bursts.join(wire.decode(raws[0], PSEUDO)[2], raws, 0, PSEUDO) == 1


@given(st.integers(0, 29), st.integers(0, 7))
def test_what_is_damaged_is_not_joined(at: int, bit: int) -> None:
    raws = bursts.encode(Segment(5, 3, ACK, 100, bytes(range(30)), size=10), 7, 9, PSEUDO)
    damaged = bytearray(raws[1])
    damaged[at] ^= 1 << bit
    raws[1] = bytes(damaged)
    assert bursts.join(wire.decode(raws[0], PSEUDO)[2], raws, 0, PSEUDO) == 1


def test_no_more_than_256_kib_are_joined() -> None:
    raws = bursts.encode(Segment(5, 3, ACK, 100, bytes(300_000), size=1000), 7, 9, PSEUDO)
    first = wire.decode(raws[0], PSEUDO)[2]
    assert bursts.join(first, raws, 0, PSEUDO) == 262
    assert len(first.data) == 262_000


def test_a_shorter_one_ends_the_row() -> None:
    parts = [*Segment(5, 3, ACK, 100, bytes(25), size=10).cut(), Segment(30, 3, ACK, 100, bytes(5))]
    raws = [wire.encode(one, 7, 9, PSEUDO) for one in parts]
    assert bursts.join(wire.decode(raws[0], PSEUDO)[2], raws, 0, PSEUDO) == 3


def test_a_push_ends_the_row() -> None:
    parts = [Segment(5 + 10 * number, 3, ACK, 100, bytes(10)) for number in range(4)]
    parts[1].flags |= PSH
    raws = [wire.encode(one, 7, 9, PSEUDO) for one in parts]
    first = wire.decode(raws[0], PSEUDO)[2]
    assert bursts.join(first, raws, 0, PSEUDO) == 2
    assert [one.flags for one in first.cut()] == [ACK, ACK | PSH]
    assert bursts.join(wire.decode(raws[1], PSEUDO)[2], raws, 1, PSEUDO) == 1


def test_bits_that_we_do_not_know_are_not_passed_on() -> None:
    raws = bursts.encode(Segment(5, 3, ACK, 100, bytes(20), size=10), 7, 9, PSEUDO)
    marked = bytearray(raws[0])
    marked[13] |= 0x80
    marked[16:18] = bytes(2)
    marked[16:18] = wire.checksum(bytes(marked), PSEUDO).to_bytes(2)
    raws[0] = bytes(marked)
    first = wire.decode(raws[0], PSEUDO)[2]
    assert bursts.join(first, raws, 0, PSEUDO) == 2
    assert first.flags == ACK


# ---- in flight -----------------------------------------------------------------------------------------------

SIZE = 10


class Pair:
    """Two send buffers that are told the same: one of bursts, one of each segment."""

    def __init__(self, iss: int) -> None:
        self.start = add(iss, 1)
        self.burst, self.single = SendBuffer(iss, 10_000), SendBuffer(iss, 10_000)
        self.sent = self.acknowledged = 0

    def send(self, length: int, at: float) -> None:
        for buffer in (self.burst, self.single):
            buffer.write(bytes(length))
        seq = add(self.start, self.sent)
        self.burst.sent(Record(seq, add(seq, length), 0, at, at, size=SIZE))
        for first in range(0, length, SIZE):
            behind = min(first + SIZE, length)
            self.single.sent(Record(add(seq, first), add(seq, behind), 0, at, at))
        self.sent += length

    def edges(self) -> list[int]:
        return [(record.end - self.start) & 0xFFFFFFFF for record in self.single.records]


@settings(max_examples=200)
@given(numbers, st.lists(st.integers(11, 60), min_size=1, max_size=5), st.data())
def test_whatever_becomes_of_them_the_records_say_the_same(iss: int, lengths: list[int], data: st.DataObject) -> None:
    pair = Pair(iss)
    for number, length in enumerate(lengths):
        pair.send(length, float(number))
    for fate in data.draw(st.lists(st.sampled_from(("ack", "sack", "apart")), max_size=6)):
        if not pair.edges():
            break
        edge = data.draw(st.sampled_from(pair.edges()))
        if fate == "ack":
            edge = data.draw(st.integers(pair.acknowledged, edge))
            pair.acknowledged = edge
            at = add(pair.start, edge)
            covered = [buffer.acknowledge(at)[-1:] for buffer in (pair.burst, pair.single)]
            assert [record.end for record in covered[0]] == [record.end for record in covered[1]]
            assert [record.sent_at for record in covered[0]] == [record.sent_at for record in covered[1]]
        elif fate == "sack":
            block = (add(pair.start, pair.acknowledged), add(pair.start, edge))
            behind = add(pair.start, pair.sent)
            news = [buffer.mark_sacked((block,), block[0], behind) for buffer in (pair.burst, pair.single)]
            assert _but_for_order(news[0]) == _but_for_order(news[1])
        else:
            pair.burst.take_apart()
        assert pair.burst.in_flight == pair.single.in_flight
        assert pair.burst.sacked == pair.single.sacked
    pair.burst.take_apart()
    assert _but_for_order(pair.burst.records) == _but_for_order(pair.single.records)


def _but_for_order(records: list[Record]) -> list[Record]:
    """Within a burst the sequence numbers tell it."""
    return [replace(record, order=0) for record in records]


def test_the_fin_stays_with_the_last_of_a_burst() -> None:
    buffer = SendBuffer(99, 1000)
    buffer.write(bytes(20))
    buffer.sent(Record(100, 121, FIN, 1.0, 1.0, size=SIZE))
    buffer.take_apart()
    assert [(record.seq, record.end, record.flags) for record in buffer.records] == [(100, 110, 0), (110, 121, FIN)]
