"""The laws of sequence arithmetic: those of whole numbers, as long as all lie within half of the circle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chitcpd.tcp.seq import add, diff, le, lt, newer

HALF = 1 << 31
numbers = st.integers(0, 2**32 - 1)
starts = st.sampled_from((0, 1, HALF - 1, HALF, 2**32 - 2, 2**32 - 1)) | numbers
counts = st.integers(-(2**33), 2**33)
near = st.integers(0, HALF - 1)


@given(starts, counts, counts)
def test_counts_add_up(start: int, a: int, b: int) -> None:
    assert add(add(start, a), b) == add(start, a + b)
    assert add(add(start, a), -a) == start
    assert 0 <= add(start, a) < 2**32


@given(starts, starts)
def test_the_difference_leads_from_one_to_the_other(a: int, b: int) -> None:
    assert add(b, diff(a, b)) == a
    assert -HALF <= diff(a, b) < HALF
    assert diff(b, a) == -diff(a, b) or diff(a, b) == -HALF


@given(starts, near, near)
def test_the_order_is_that_of_the_distances(start: int, a: int, b: int) -> None:
    """So it is total, and transitive, among all that lie within half of the circle."""
    x, y = add(start, a), add(start, b)
    assert lt(x, y) == (a < b)
    assert le(x, y) == (a <= b)
    assert newer(x, y) == newer(y, x) == add(start, max(a, b))
    assert diff(x, y) == a - b


@given(starts, starts)
def test_one_of_three_holds(a: int, b: int) -> None:
    """Opposite points of the circle apart: each is before the other."""
    if diff(a, b) != -HALF:
        assert lt(a, b) + lt(b, a) + (a == b) == 1
        assert le(a, b) == (not lt(b, a))
