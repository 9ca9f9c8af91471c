"""A segment as bytes: the TCP header of RFC 9293 §3.1, its options and its checksum.

Decoding takes anything: what is no segment raises MalformedSegment, with the reason, and nothing else.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache

from chitcpd.tcp.api import Options, Segment

HEADER = struct.Struct("!HHIIBBHHH")  # ports, seq, ack, data offset, flags, window, checksum, urgent pointer
_PROTOCOL = 6

# Option kinds, as IANA lists them.
_END, _NOP, _MSS, _WINDOW_SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMP = 0, 1, 2, 3, 4, 5, 8
_MAX_SHIFT = 14  # RFC 7323 §2.3: a larger one counts as 14
_TIMESTAMP_OPTION = struct.Struct("!BBBBII")  # padded in front to a multiple of 4, as RFC 7323 appendix A has it
_TIMESTAMP_HEAD = bytes((_NOP, _NOP, _TIMESTAMP, 10))
_BLOCK = struct.Struct("!II")


class MalformedSegment(Exception):
    """These bytes are no TCP segment, or were damaged on the way."""


@lru_cache(maxsize=4096)
def pseudo_header(source: str, destination: str) -> int:
    """The part of the checksum that the two IP addresses and the protocol make (§3.1), without the length."""
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return int.from_bytes(packed) % 0xFFFF + _PROTOCOL


def checksum(raw: bytes, pseudo: int) -> int:
    """The checksum field of the segment `raw`, whose own checksum field is zero; 0 if `raw` has the right one."""
    return -(word_sum(raw) + pseudo + len(raw)) % 0xFFFF


def _word_sum(raw: bytes, /) -> int:
    """A number that is, modulo 65535, the ones' complement sum of the 16-bit words of `raw`.

    It is the number that the bytes spell, since 2^16 is 1 modulo 65535: one division in C, not a loop in Python.
    """
    return int.from_bytes(raw) << 8 if len(raw) & 1 else int.from_bytes(raw)


try:  # twenty times as fast, if it was compiled
    from chitcpd.tcp._checksum import word_sum as word_sum
except ImportError:
    word_sum = _word_sum


def encode(seg: Segment, source_port: int, destination_port: int, pseudo: int) -> bytes:
    """The bytes of a segment between two ports; `pseudo` is of the pair of addresses."""
    options = encode_options(seg.options)
    head = HEADER.size + len(options)
    # What checksum says of the bytes, from the fields: the data is copied once, when all is known.
    total = source_port + destination_port + seg.seq + seg.ack + (head << 10 | seg.flags) + seg.wnd + seg.up
    total += word_sum(options) + word_sum(seg.data) + pseudo + head + len(seg.data)
    header = HEADER.pack(
        source_port,
        destination_port,
        seg.seq,
        seg.ack,
        head << 2,
        seg.flags,
        seg.wnd,
        -total % 0xFFFF,
        seg.up,
    )
    return b"".join((header, options, seg.data))


def decode(raw: bytes, pseudo: int) -> tuple[int, int, Segment]:
    """(source port, destination port, segment) of these bytes.

    A checksum of zero means "not computed", as the C chiTCP sends it, and is taken. Raises MalformedSegment.
    """
    parsed = parse(raw)
    if not has_no_checksum(raw) and checksum(raw, pseudo):
        raise MalformedSegment("wrong checksum")
    return parsed


def parse(raw: bytes) -> tuple[int, int, Segment]:
    """The same, whatever the checksum says. Raises MalformedSegment."""
    if len(raw) < HEADER.size:
        raise MalformedSegment(f"{len(raw)} bytes are less than a TCP header")
    source, destination, seq, ack, offset, flags, wnd, _, up = HEADER.unpack_from(raw)
    head = (offset >> 4) * 4
    if not HEADER.size <= head <= len(raw):
        raise MalformedSegment(f"a data offset of {head} bytes in a segment of {len(raw)}")
    options = _decode_options(raw[HEADER.size : head]) if head > HEADER.size else None
    return source, destination, Segment(seq, ack, flags & 0x3F, wnd, raw[head:], options, up)


def has_no_checksum(raw: bytes) -> bool:
    """The field is zero: not computed, or computed to be zero, once in 65,535 segments."""
    return raw[16:18] == b"\0\0"


def options_length(options: Options | None) -> int:
    """The bytes that the options take in the header."""
    return len(encode_options(options))


def encode_options(options: Options | None) -> bytes:
    """The options as they stand in the header, padded to a multiple of 4 bytes."""
    raw = b""
    if options is None:
        return raw
    if options.mss is not None:
        raw += struct.pack("!BBH", _MSS, 4, options.mss)
    if options.window_scale is not None:
        raw += bytes((_NOP, _WINDOW_SCALE, 3, options.window_scale))
    if options.sack_permitted:
        raw += bytes((_NOP, _NOP, _SACK_PERMITTED, 2))
    if options.timestamp is not None:
        raw += _TIMESTAMP_OPTION.pack(_NOP, _NOP, _TIMESTAMP, 10, *options.timestamp)
    if options.sack:
        raw += bytes((_NOP, _NOP, _SACK, 2 + _BLOCK.size * len(options.sack)))
        raw += b"".join(_BLOCK.pack(first, behind) for first, behind in options.sack)
    return raw


def _decode_options(raw: bytes) -> Options:
    """The options that we know; unknown ones are skipped (MUST-6), a malformed one ends the list (MUST-7)."""
    if len(raw) == _TIMESTAMP_OPTION.size and raw.startswith(_TIMESTAMP_HEAD):  # what most segments have
        return Options(timestamp=_BLOCK.unpack_from(raw, len(_TIMESTAMP_HEAD)))
    options = Options()
    at = 0
    while at < len(raw) and raw[at] != _END:
        if raw[at] == _NOP:
            at += 1
            continue
        if at + 1 >= len(raw) or raw[at + 1] < 2 or at + raw[at + 1] > len(raw):
            break
        _decode_option(options, raw[at], raw[at + 2 : at + raw[at + 1]])
        at += raw[at + 1]
    return options


def _decode_option(options: Options, kind: int, body: bytes) -> None:
    """Take one option in; one whose length is not that of its kind is skipped."""
    if kind == _TIMESTAMP and len(body) == 8:
        options.timestamp = _BLOCK.unpack(body)
    elif kind == _SACK and len(body) % _BLOCK.size == 0:
        options.sack = tuple(_BLOCK.iter_unpack(body))
    elif kind == _MSS and len(body) == 2:
        options.mss = int.from_bytes(body)
    elif kind == _WINDOW_SCALE and len(body) == 1:
        options.window_scale = min(body[0], _MAX_SHIFT)
    elif kind == _SACK_PERMITTED and not body:
        options.sack_permitted = True
