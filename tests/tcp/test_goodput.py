"""How fast the TCP is, in virtual time: the bars that it must reach, and the textbook's curves of its window.

`python -m tests.tcp.goodput` prints the tables of which this is a part.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import mean

import pytest

from tests.tcp.goodput import (
    AS_SMOLTCP,
    BDP,
    BOTTLENECK,
    DELAY,
    LONG,
    RATE,
    SECONDS,
    SMOLTCP,
    Flow,
    jain,
    one_flow,
    share_of_link,
    small_window,
    two_flows,
)

SEGMENT = 1500  # bytes of a full segment on the link
Curve = list[tuple[float, float]]  # seconds, segments


@pytest.mark.parametrize(("loss", "bar"), SMOLTCP.items())
def test_a_small_window_and_random_loss(loss: float, bar: int) -> None:
    """smoltcp's setting, without congestion control: more than smoltcp delivers, in every cell."""
    seeds = (1,) if not loss else (1, 2, 3)
    goodputs = {seed: round(small_window("none", loss, seed, SECONDS[loss], **AS_SMOLTCP)) for seed in seeds}
    assert mean(goodputs.values()) > bar, f"by seed: {goodputs}"


@pytest.fixture(scope="module", params=["newreno", "cubic"])
def alone(request: pytest.FixtureRequest) -> Flow:
    """A flow over 10 Mbit/s, 40 ms, with a queue of one BDP."""
    return one_flow(request.param, BOTTLENECK, seed=1, seconds=30.0)


def test_one_flow_fills_the_link(alone: Flow) -> None:
    """Payload alone, as a share of all that the link carries: over the whole transfer, and after slow start."""
    assert share_of_link(alone.goodput(0.0, 30.0), BOTTLENECK) >= 0.9
    assert share_of_link(alone.goodput(10.0, 30.0), BOTTLENECK) >= 0.95


@pytest.mark.parametrize(("congestion", "second"), [("newreno", 1.0), ("cubic", 4.0)])
def test_two_flows_share_the_link(congestion: str, second: float) -> None:
    goodputs = two_flows(congestion, BOTTLENECK, seed=1, seconds=60.0, second=second)
    assert jain(goodputs) >= 0.9, goodputs
    assert share_of_link(sum(goodputs), BOTTLENECK) >= 0.9


# ---- the curves of the congestion window -------------------------------------------------------------------


def teeth(curve: Curve) -> list[Curve]:
    """The curve, cut where the window falls."""
    pieces: list[Curve] = [[]]
    for before, point in pairwise(curve):
        if point[1] < 0.95 * before[1]:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


def after_recovery(tooth: Curve) -> Curve:
    """The part of a tooth in which the window grows."""
    return [(at, segments) for at, segments in tooth if segments > tooth[0][1]]


def round_trip(segments: float) -> float:
    """Seconds: the queue holds what is in flight and not on the way."""
    return max(2 * DELAY, segments * SEGMENT * 8 / RATE)


@pytest.mark.parametrize("alone", ["newreno"], indirect=True)
def test_newreno_is_the_sawtooth(alone: Flow) -> None:
    """Slow start; then between losses a segment per round trip, at each loss one half, and all teeth alike."""
    first, *rest = teeth(alone.cwnd)
    full = 2 * BDP / SEGMENT  # segments that fill link and queue
    assert first[-1][1] > 1.5 * full  # slow start shoots beyond
    saw = rest[1:-1]  # its losses are over; and the last tooth is cut off
    assert len(saw) >= 10
    for tooth, following in pairwise(saw):
        windows = [segments for _, segments in tooth]
        assert windows == sorted(windows)
        assert windows[-1] == pytest.approx(full, rel=0.03)
        assert following[0][1] / windows[-1] == pytest.approx(0.5, abs=0.02)
        growing = after_recovery(tooth)
        rounds = sum((later - at) / round_trip(segments) for (at, segments), (later, _) in pairwise(growing))
        assert (growing[-1][1] - growing[0][1]) / rounds == pytest.approx(1.0, abs=0.1)
    periods = [following[0][0] - tooth[0][0] for tooth, following in pairwise(saw)]
    assert max(periods) < 1.05 * min(periods)


def test_cubic_is_a_cubic() -> None:
    """RFC 9438: at each loss 0.7 of the window; then quickly towards W_max, slowly around it, and quickly beyond it."""
    saw = teeth(one_flow("cubic", LONG, seed=1, seconds=60.0).cwnd)[3:-1]
    w_max = 0.0
    beyond = 0
    for tooth, following in pairwise(saw):
        at_loss = tooth[-1][1]
        assert following[0][1] / at_loss == pytest.approx(0.7, abs=0.02)
        w_max = at_loss * (1 + 0.7) / 2 if at_loss < w_max else at_loss  # §4.7, fast convergence
        growing = after_recovery(following)
        (epoch, low), top = growing[0], growing[-1][1]
        k = ((w_max - low) / 0.4) ** (1 / 3)  # §4.2
        for at, segments in growing:
            assert segments == pytest.approx(0.4 * (at - epoch - k) ** 3 + w_max, rel=0.03)
        beyond += top > 1.1 * w_max
    assert beyond >= 2  # the convex part was seen, and not only the concave one
