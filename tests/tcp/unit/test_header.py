"""The header and its options as bytes: RFC 9293 sections 3.1 and 3.2."""

from __future__ import annotations

from itertools import product

import pytest

from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, SYN, Options, Segment

PSEUDO = wire.pseudo_header("10.0.0.2", "10.0.0.3")
COMBINATIONS = [
    Options(mss, scale, sack_permitted, sack, timestamp)
    for mss, scale, sack_permitted, sack, timestamp in product(
        (None, 1460), (None, 7), (False, True), ((), ((1, 2),), ((1, 2), (5, 9), (11, 12))), (None, (3, 4))
    )
    if not (sack and (mss or scale or sack_permitted))  # blocks are in no SYN
]


def decoded(options: bytes, data: bytes = b"") -> Segment:
    """A segment with these bytes as options; its checksum says "not computed"."""
    head = wire.HEADER.pack(1, 2, 3, 4, (20 + len(options)) << 2, ACK, 5, 0, 0)
    return wire.decode(head + options + data, PSEUDO)[2]


@pytest.mark.rfc9293("MUST-2")
def test_every_segment_has_a_checksum() -> None:
    """§3.1: the sum over the pseudo-header, the header and the text is all ones."""
    for data in (b"", b"a", b"ab", bytes(1460)):
        raw = wire.encode(Segment(1, 2, ACK, 3, data), 4, 5, PSEUDO)
        assert raw[16:18] != b"\0\0"
        words = raw + bytes(len(raw) % 2)
        total = sum(int.from_bytes(words[i : i + 2]) for i in range(0, len(words), 2))
        total += 0x0A00 + 2 + 0x0A00 + 3 + 6 + len(raw)
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        assert total == 0xFFFF


@pytest.mark.rfc9293("MUST-3")
def test_a_damaged_segment_is_not_taken() -> None:
    """§3.1: wherever the damage is, in header, text or the addresses."""
    raw = wire.encode(Segment(1, 2, ACK, 3, b"text"), 4, 5, PSEUDO)
    for at in range(len(raw)):
        damaged = raw[:at] + bytes((raw[at] ^ 0x10,)) + raw[at + 1 :]
        with pytest.raises(wire.MalformedSegment):
            wire.decode(damaged, PSEUDO)
    with pytest.raises(wire.MalformedSegment):
        wire.decode(raw, wire.pseudo_header("10.0.0.2", "10.0.0.4"))


@pytest.mark.rfc9293("MUST-5")
@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: f"{wire.options_length(options)} bytes")
def test_options_are_read_in_any_segment(options: Options) -> None:
    """§3.1: with SYN or without, with text or without."""
    for flags, data in product((SYN, ACK, 0), (b"", b"text")):
        seg = Segment(1, 2 if flags & ACK else 0, flags, 3, data, options)
        assert wire.decode(wire.encode(seg, 4, 5, PSEUDO), PSEUDO)[2] in (seg, Segment(1, seg.ack, flags, 3, data))


@pytest.mark.rfc9293("MUST-4")
def test_end_of_list_no_operation_and_mss() -> None:
    """§3.1: the mandatory ones."""
    assert decoded(b"\x01\x02\x04\x05\xb4\x00\x00\x00").options == Options(mss=1460)
    assert decoded(b"\x00\x02\x04\x05\xb4\x00\x00\x00").options == Options()


@pytest.mark.rfc9293("MUST-6")
def test_an_unknown_option_is_skipped_by_its_length() -> None:
    """§3.1: what comes behind it counts."""
    for kind in (9, 28, 30, 34, 69, 253, 254, 255):
        for length in (2, 3, 6, 12):
            unknown = bytes((kind, length)) + bytes(range(length - 2))
            options = unknown + b"\x02\x04\x05\xb4"
            assert decoded(options + bytes(-len(options) % 4), b"text").options == Options(mss=1460)


@pytest.mark.rfc9293("MUST-7")
def test_an_illegal_length_ends_the_list_and_nothing_else() -> None:
    """§3.1: zero, one, beyond the header, cut off; the segment itself is taken."""
    for kind in range(2, 256):
        for length in (0, 1, 9, 255):
            seg = decoded(b"\x02\x04\x05\xb4" + bytes((kind, length, 0, 0)), b"text")
            assert (seg.options, seg.data) == (Options(mss=1460), b"text")


def test_a_known_option_with_the_length_of_another_is_skipped() -> None:
    """RFC 9293 §3.1: as if it were unknown."""
    for kind in (2, 3, 4, 8):
        assert decoded(bytes((kind, 7, 1, 2, 3, 4, 5, 1))).options == Options()
    assert decoded(b"\x05\x05\x01\x02\x03\x01\x01\x01").options == Options()


@pytest.mark.rfc9293("MUST-64")
def test_options_may_begin_anywhere() -> None:
    """§3.2: not only on a word boundary."""
    for before in range(4):
        options = b"\x01" * before + b"\x02\x04\x05\xb4" + b"\x08\x0a" + bytes(range(8))
        options += bytes(-len(options) % 4)
        assert decoded(options).options == Options(mss=1460, timestamp=(0x00010203, 0x04050607))


@pytest.mark.rfc9293("MUST-68", "MUST-69")
@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: f"{wire.options_length(options)} bytes")
def test_options_that_are_sent_have_lengths_and_end_on_a_word(options: Options) -> None:
    """§3.1: padding is no-operation in front of an option; nothing comes after the last."""
    raw = wire.encode(Segment(1, options=options), 4, 5, PSEUDO)[20:]
    assert len(raw) % 4 == 0
    at = 0
    while at < len(raw):
        assert raw[at] != 0
        if raw[at] == 1:
            at += 1
            continue
        assert raw[at + 1] >= 2
        at += raw[at + 1]
    assert at == len(raw)


def test_a_shift_above_14_counts_as_14() -> None:
    """RFC 7323 §2.3."""
    assert decoded(b"\x03\x03\x0f\x01").options == Options(window_scale=14)
    assert decoded(b"\x03\x03\xff\x01").options == Options(window_scale=14)


@pytest.mark.rfc9293("MUST-1")
def test_the_window_is_read_without_a_sign() -> None:
    """§3.1."""
    raw = wire.encode(Segment(1, 2, ACK, 0xFFFF), 4, 5, PSEUDO)
    assert wire.decode(raw, PSEUDO)[2].wnd == 0xFFFF
