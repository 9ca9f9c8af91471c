"""Sequence number arithmetic modulo 2^32 (RFC 9293 §3.4, RFC 1982): plain ints, plain functions.

Comparisons hold for numbers less than 2^31 apart, as all numbers of one connection are.
"""

from __future__ import annotations

Block = tuple[int, int]  # sequence numbers: the first, and the one behind the last

_MASK = 0xFFFFFFFF
_HALF = 0x80000000


def add(seq: int, count: int) -> int:
    """The sequence number `count` (may be negative) after `seq`."""
    return (seq + count) & _MASK


def diff(a: int, b: int) -> int:
    """How far `a` is after `b`: -2^31 to 2^31 - 1."""
    return ((a - b + _HALF) & _MASK) - _HALF


def lt(a: int, b: int) -> bool:
    """`a` is before `b`."""
    return (a - b) & _MASK >= _HALF


def le(a: int, b: int) -> bool:
    """`a` is before `b`, or is `b`."""
    return (b - a) & _MASK < _HALF


def newer(a: int, b: int) -> int:
    """The later of both."""
    return b if lt(a, b) else a
