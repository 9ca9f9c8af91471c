"""Curves, amounts and levels: what is left out is what nobody could see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.report.curves import Bins, Curve, Level


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(-1e9, 1e9)), min_size=1, max_size=400), st.integers(8, 100))
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(changes: list[tuple[int, float]], most: int) -> None:
    curve = Curve()
    for t, value in sorted(changes):
        curve.add(t, value)
    thin = curve.thinned(most)
    assert len(thin.t) <= max(most * 2, 8)
    assert (thin.t[0], thin.t[-1]) == (curve.t[0], curve.t[-1])
    assert (min(thin.v), max(thin.v)) == (min(curve.v), max(curve.v))
    assert set(zip(thin.t, thin.v, strict=True)) <= set(zip(curve.t, curve.v, strict=True))


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)), max_size=200))
def test_amounts_in_stretches_are_all_that_there_was(amounts: list[tuple[int, int]]) -> None:
    bins = Bins()
    for t, amount in amounts:
        bins.add(t, amount)
    width, curve = bins.rate()
    ends = [*curve.t[1:], curve.t[-1]] if curve.t else []
    area = sum((end - t) * value for t, end, value in zip(curve.t, ends, curve.v, strict=True)) / 1e6
    assert abs(area - sum(amount for _, amount in amounts)) <= 1e-6 * max(1.0, area)
    assert len(curve.t) <= 2 * Bins.MOST + 4
    assert width % Bins.FINEST == 0


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 100), st.integers(1, 9)), max_size=50))
def test_a_level_is_what_is_there_and_nothing_in_the_end(stays: list[tuple[int, int, int]]) -> None:
    level = Level()
    for enters, stay, amount in stays:
        level.add(enters, enters + stay, amount)
    curve = level.curve()
    for t, value in zip(curve.t, curve.v, strict=True):
        assert value == sum(amount for enters, stay, amount in stays if enters <= t < enters + stay)
    assert not curve.v or curve.v[-1] == 0


def test_a_level_of_a_very_long_run_is_one_of_few_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that one segment after the other fills and leaves, for ever, is as long as ever."""
    monkeypatch.setattr(Level, "MOST", 1000)
    level = Level()
    for t in range(0, 1_000_000, 100):
        level.add(t, t + 10_000, 1)
    curve = level.curve()
    assert len(curve.t) <= 1000
    assert max(curve.v) == pytest.approx(100, abs=11)
    assert curve.v[-1] == 0
