"""Segments and their options as bytes: what goes in comes out, whatever stands between the options."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chitcpd.tcp import wire
from chitcpd.tcp.api import Options, Segment

PSEUDO = wire.pseudo_header("10.0.0.2", "10.0.0.3")
numbers = st.integers(0, 2**32 - 1)
words = st.integers(0, 0xFFFF)
known = st.builds(
    Options,
    mss=st.none() | words,
    window_scale=st.none() | st.integers(0, 14),
    sack_permitted=st.booleans(),
    sack=st.lists(st.tuples(numbers, numbers), max_size=4).map(tuple),
    timestamp=st.none() | st.tuples(numbers, numbers),
)
segments = st.builds(
    Segment,
    seq=numbers,
    ack=numbers,
    flags=st.integers(0, 0x3F),
    wnd=words,
    data=st.binary(max_size=100),
    options=st.none() | known,
    up=words,
)


@given(segments, words, words)
def test_what_is_encoded_is_decoded(seg: Segment, source: int, destination: int) -> None:
    assume(wire.options_length(seg.options) <= 40)
    raw = wire.encode(seg, source, destination, PSEUDO)
    if seg.options == Options():
        seg.options = None  # no option at all
    assert wire.decode(raw, PSEUDO) == (source, destination, seg)
    assert len(raw) == 20 + wire.options_length(seg.options) + len(seg.data)
    assert wire.options_length(seg.options) % 4 == 0


def _encoded(options: Options) -> list[bytes]:
    """Each option by itself, without padding (RFC 9293 §3.2, RFC 7323, RFC 2018)."""
    parts = []
    if options.mss is not None:
        parts.append(b"\x02\x04" + options.mss.to_bytes(2))
    if options.window_scale is not None:
        parts.append(bytes((3, 3, options.window_scale)))
    if options.sack_permitted:
        parts.append(b"\x04\x02")
    if options.timestamp is not None:
        parts.append(b"\x08\x0a" + b"".join(number.to_bytes(4) for number in options.timestamp))
    if options.sack:
        numbers_of_blocks = (number for block in options.sack for number in block)
        parts.append(bytes((5, 2 + 8 * len(options.sack))) + b"".join(n.to_bytes(4) for n in numbers_of_blocks))
    return parts


unknown = st.builds(
    lambda kind, body: bytes((kind, 2 + len(body))) + body,
    st.sampled_from((6, 7, 9, 19, 28, 29, 30, 34, 69, 253, 254, 255)),
    st.binary(max_size=8),
)


@given(known, st.lists(st.just(b"\x01") | unknown, max_size=6), st.binary(max_size=10), st.data())
def test_the_order_and_what_stands_between_do_not_matter(
    options: Options, others: list[bytes], data: bytes, draw: st.DataObject
) -> None:
    """No-operation, and options of kinds that we don't know (MUST-6), in any order (MUST-64)."""
    raw = b"".join(draw.draw(st.permutations(_encoded(options) + others)))
    raw += bytes(-len(raw) % 4)
    assume(len(raw) <= 40)
    head = wire.HEADER.pack(1, 2, 3, 4, (20 + len(raw)) << 2, 0, 5, 0, 0)
    seg = wire.decode(head + raw + data, PSEUDO)[2]
    assert seg.options == (options if raw else None)
    assert seg.data == data


@given(segments, st.integers(0, 59))
def test_a_header_that_was_cut_off_is_none(seg: Segment, length: int) -> None:
    assume(length < 20 + wire.options_length(seg.options) <= 60)
    raw = wire.encode(seg, 1, 2, PSEUDO)
    with pytest.raises(wire.MalformedSegment, match=str(length)):
        wire.decode(raw[:length], PSEUDO)


@given(st.binary(max_size=3000))
def test_the_compiled_sum_is_the_same(data: bytes) -> None:
    """Without a compiler, both are Python's."""
    assert wire.word_sum(data) % 0xFFFF == wire._word_sum(data) % 0xFFFF


@given(segments, words, words)
def test_segments_are_the_same_without_a_compiler(seg: Segment, source: int, destination: int) -> None:
    assume(wire.options_length(seg.options) <= 40)
    compiled = wire.encode(seg, source, destination, PSEUDO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "word_sum", wire._word_sum)
        assert wire.encode(seg, source, destination, PSEUDO) == compiled
        wire.decode(compiled, PSEUDO)
