"""The reference's memory: what it holds, in which order, and that it is bounded."""

from __future__ import annotations

from chitcpd.tcp.api import Config
from chitcpd.tcp.receive import ReceiveBuffer
from chitcpd.tcp.recovery import LossDetection
from chitcpd.tcp.send import Record, SendBuffer


def test_single_bytes_ahead_of_a_gap_cost_a_bounded_number_of_blocks() -> None:
    """A peer that sends every second byte of a large window must not make us hold one object for each."""
    buffer = ReceiveBuffer()
    for k in range(4500):
        assert buffer.insert(2 + 2 * k, b"x", 0) == 0
    assert len(buffer._ahead) <= 1024


def test_what_goes_on_behind_a_gap_is_one_block_however_many_segments_it_came_in() -> None:
    buffer = ReceiveBuffer()
    for k in range(5000):
        assert buffer.insert(1000 + 500 * k, bytes((k % 251,)) * 500, 0) == 0
    assert buffer.insert(0, bytes(1000), 0) == 1000 + 500 * 5000
    assert buffer.read(1 << 30) == bytes(1000) + b"".join(bytes((k % 251,)) * 500 for k in range(5000))


def test_blocks_are_joined_and_the_newest_is_first() -> None:
    buffer = ReceiveBuffer()
    for first, length in ((10, 5), (30, 5), (20, 5), (15, 5)):
        buffer.insert(first, bytes(length), 0)
    assert buffer.blocks(4) == ((10, 25), (30, 35))
    assert buffer.has(12, 24)
    assert not buffer.has(24, 31)
    assert buffer.insert(0, bytes(10), 0) == 25
    assert buffer.blocks(4) == ((30, 35),)


def test_clear_ahead_forgets_what_can_never_be_read() -> None:
    buffer = ReceiveBuffer()
    buffer.insert(10, b"x", 0)
    buffer.clear_ahead()
    assert not buffer.has_gap
    assert buffer.blocks(4) == ()


def in_flight(count: int) -> SendBuffer:
    buffer = SendBuffer(99, 100_000)
    buffer.write(bytes(count * 10))
    for k in range(count):
        buffer.sent(Record(100 + 10 * k, 110 + 10 * k, 0, 1.0, 1.0))
    return buffer


def test_the_pipe_of_rfc_6675() -> None:
    """§4, SetPipe: what is SACKed has left the network, so has what is lost, unless it was sent again."""
    buffer = in_flight(5)
    assert buffer.in_flight == 50
    buffer.mark_sacked(((110, 130),), 100, 150)
    assert (buffer.in_flight, buffer.sacked) == (30, 2)
    buffer.mark_lost(buffer.records[0])
    assert buffer.in_flight == 20
    assert list(buffer.lost()) == buffer.records[:1]
    buffer.sent_again(buffer.records[0], 2.0)
    assert (buffer.in_flight, list(buffer.lost())) == (30, [])
    covered = buffer.acknowledge(130)
    assert [record.seq for record in covered] == [100, 110, 120]
    assert (buffer.in_flight, buffer.sacked, len(buffer.records)) == (20, 0, 2)


def test_an_acknowledgement_within_a_segment_leaves_its_end() -> None:
    buffer = in_flight(2)
    assert buffer.acknowledge(104) == []
    assert (buffer.records[0].seq, buffer.records[0].length, buffer.in_flight) == (104, 6, 16)
    assert len(buffer.peek()) == 16


def test_after_a_time_out_all_but_the_sacked_is_lost() -> None:
    """RFC 6675 §5.1; unless that is the oldest: then the peer has thrown away what it had (RFC 2018 §8)."""
    buffer = in_flight(4)
    buffer.mark_sacked(((120, 140),), 100, 140)
    loss = LossDetection(Config(), buffer, 99)
    loss.on_timeout(140, None, 1.0)
    assert [record.lost for record in buffer.records] == [True, True, False, False]
    buffer.acknowledge(120)
    loss.on_timeout(140, None, 2.0)
    assert [(record.lost, record.sacked) for record in buffer.records] == [(True, False), (True, False)]


def test_a_full_buffer_takes_what_fits() -> None:
    buffer = SendBuffer(0, 10)
    assert buffer.write(b"0123456") == 7
    assert buffer.write(memoryview(b"789abc")) == 3
    assert buffer.room == 0
    assert buffer.payload(3, 5) == b"23456"
    assert buffer.unsent(4) == 7
