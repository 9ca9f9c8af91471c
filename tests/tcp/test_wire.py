"""Segments as bytes, sequence arithmetic, and the receive buffer, held to slow and obvious models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chitcpd.tcp import seq, wire
from chitcpd.tcp.api import Options, Segment
from chitcpd.tcp.receive import ReceiveBuffer

PSEUDO = wire.pseudo_header("10.0.0.2", "10.0.0.3")
numbers = st.integers(0, 2**32 - 1)
ports = st.integers(0, 65535)
segments = st.builds(
    Segment,
    seq=numbers,
    ack=numbers,
    flags=st.integers(0, 0x3F),
    wnd=ports,
    data=st.binary(max_size=100),
    options=st.none() | st.builds(Options, mss=ports),
    up=ports,
)


@given(segments, ports, ports)
def test_what_is_encoded_is_decoded(seg: Segment, source: int, destination: int) -> None:
    assert wire.decode(wire.encode(seg, source, destination, PSEUDO), PSEUDO) == (source, destination, seg)


@given(segments, st.data())
def test_one_turned_bit_is_found(seg: Segment, data: st.DataObject) -> None:
    raw = bytearray(wire.encode(seg, 1, 2, PSEUDO))
    at = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[at // 8] ^= 1 << at % 8
    if raw[16:18] != b"\0\0":  # then it would say "not computed"
        with pytest.raises(wire.MalformedSegment):
            wire.decode(bytes(raw), PSEUDO)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_segment_or_malformed(raw: bytes) -> None:
    raw = raw[:16] + b"\0\0" + raw[18:]
    try:
        wire.decode(raw, PSEUDO)
    except wire.MalformedSegment as fault:
        assert str(fault)


def test_the_checksum_is_the_one_of_rfc_9293() -> None:
    """§3.1, word by word: the ones' complement sum over pseudo-header and segment is all ones."""
    raw = wire.encode(Segment(0x01020304, flags=2, wnd=65535, options=Options(mss=1460)), 49152, 7000, PSEUDO)
    words = [int.from_bytes(raw[i : i + 2]) for i in range(0, len(raw), 2)]
    total = sum(words) + 0x0A00 + 0x0002 + 0x0A00 + 0x0003 + 6 + len(raw)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_a_checksum_of_zero_means_not_computed() -> None:
    raw = bytearray(wire.encode(Segment(1, data=b"abc"), 1, 2, PSEUDO))
    raw[16:18] = b"\0\0"
    assert wire.decode(bytes(raw), PSEUDO)[2].data == b"abc"


@pytest.mark.parametrize(
    ("options", "mss"),
    [
        (b"\x02\x04\x05\xb4", 1460),
        (b"\x01\x01\x02\x04\x05\xb4\x00\x00", 1460),
        (b"\xfe\x04ab\x02\x04\x05\xb4", 1460),  # an unknown one is skipped by its length
        (b"\x00\x00\x02\x04\x05\xb4\x00\x00", None),  # nothing counts after the end
        (b"\x02\x00\x05\xb4", None),  # a length of 0 would loop for ever
        (b"\x02\x0a\x05\xb4", None),  # longer than there is
        (b"\x02\x03\x05\x00", None),  # an MSS of one byte
        (b"\x01\x01\x01\x02", None),  # cut off
    ],
)
def test_options_are_survived(options: bytes, mss: int | None) -> None:
    head = wire.HEADER.pack(1, 2, 3, 4, (20 + len(options)) << 2, 2, 5, 0, 0)
    decoded = wire.decode(head + options, PSEUDO)[2]
    assert decoded.options == Options(mss=mss)


@given(numbers, st.integers(-(2**31) + 1, 2**31 - 1))
def test_sequence_arithmetic_is_that_of_a_circle(start: int, step: int) -> None:
    end = seq.add(start, step)
    assert seq.diff(end, start) == step
    assert seq.lt(start, end) == (step > 0)
    assert seq.le(start, end) == (step >= 0)
    assert seq.newer(start, end) == (end if step > 0 else start)


@given(numbers, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30))
def test_reassembly_gives_the_stream_whatever_comes_in_whatever_order(
    start: int, pieces: list[tuple[int, int]]
) -> None:
    stream = bytes(range(80))
    buffer, rcv_nxt, have = ReceiveBuffer(), start, set[int]()
    for offset, length in pieces:
        done = seq.diff(rcv_nxt, start)
        have |= set(range(offset, offset + length))
        offset, length = max(offset, done), length - max(done - offset, 0)
        if length > 0:
            rcv_nxt = buffer.insert(seq.add(start, offset), stream[offset : offset + length], rcv_nxt)
    whole = next(i for i in range(81) if i not in have)
    assert seq.diff(rcv_nxt, start) == whole == buffer.readable
    assert buffer.peek() == stream[:whole]
    assert buffer.read(7) + buffer.read(1000) == stream[:whole]
    assert buffer.has_gap == any(i > whole for i in have)


def test_a_checksum_that_comes_to_zero_is_zero() -> None:
    """Ones' complement has two zeros, and analysers call a segment with the other one damaged."""
    plain = wire.encode(Segment(1), 1, 2, PSEUDO)
    raw = wire.encode(Segment(1, up=int.from_bytes(plain[16:18])), 1, 2, PSEUDO)
    assert raw[16:18] == b"\0\0"
