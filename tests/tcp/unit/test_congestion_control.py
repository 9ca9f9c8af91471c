"""The reference's congestion controls, by the numbers of RFC 5681 and RFC 9438; windows here in segments of 1000."""

from __future__ import annotations

import pytest

from chitcpd.tcp.congestion import controller

MSS = 1000


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError) as caught:
        controller("vegas", MSS, 10)
    assert str(caught.value) == "unknown congestion control 'vegas', expected one of cubic, newreno, none"


@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_slow_start_counts_bytes_however_many_one_ack_covers(name: str) -> None:
    """RFC 5681 §3.1, RFC 3465 §2.1."""
    control = controller(name, MSS, 10)
    assert control.cwnd == 10_000
    control.on_ack(1000, 0.1, 1.0)
    control.on_ack(500, 0.1, 1.0)
    control.on_ack(5000, 0.1, 1.0)
    assert control.cwnd == 16_500


@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_slow_start_ends_at_the_threshold_however_much_one_ack_covers(name: str) -> None:
    """RFC 5681 §3.1: what is beyond it counts for congestion avoidance."""
    control = controller(name, MSS, 10)
    control.resume(19_000, 20_000)
    control.on_ack(19_000, 0.1, 1.0)
    assert 20_000 <= control.cwnd <= 21_000


def test_newreno_halves_and_then_adds_a_segment_per_window() -> None:
    """RFC 5681 §3.1, equation 3 in its bytes-counted form; §3.2."""
    control = controller("newreno", MSS, 20)
    control.on_loss(20_000, 1.0)
    assert (control.cwnd, control.ssthresh) == (10_000, 10_000)
    for _ in range(9):
        control.on_ack(1000, 0.1, 1.1)
    assert control.cwnd == 10_000
    control.on_ack(1000, 0.1, 1.1)
    assert control.cwnd == 11_000


def test_newreno_never_falls_below_two_segments_but_by_a_time_out() -> None:
    """RFC 5681 §3.1, equation 4."""
    control = controller("newreno", MSS, 10)
    control.on_loss(1500, 1.0)
    assert control.cwnd == 2000
    control.on_timeout(2000, 2.0)
    assert (control.cwnd, control.ssthresh) == (1000, 2000)


def test_cubic_falls_to_seven_tenths_and_is_back_after_k() -> None:
    """RFC 9438 §4.2: W_max = 100, so K = cbrt(100 * 0.3 / 0.4) = 4.217 s; W_cubic(K) = W_max."""
    control = controller("cubic", MSS, 100)
    control.on_loss(100_000, 0.0)
    assert control.cwnd == control.ssthresh == 70_000
    rtt, now = 0.1, 0.0
    curve = []
    while now < 5.5:  # then Reno would have the larger window
        for _ in range(control.cwnd // MSS):
            control.on_ack(MSS, rtt, now)
        curve.append((now, control.cwnd / MSS))
        now += rtt
    k = (100 * 0.3 / 0.4) ** (1 / 3)
    for at, window in curve[1:]:
        expected = 0.4 * (at + rtt - k) ** 3 + 100
        assert window == pytest.approx(expected, abs=2.5), f"at {at:.1f} s"


def test_cubic_does_not_grow_by_time_in_which_something_else_was_the_limit() -> None:
    """RFC 9438 §4.2, RFC 8312 §5.8: t must not include it."""
    windows = []
    for pause in (0.0, 30.0):
        control = controller("cubic", MSS, 100)
        control.on_loss(100_000, 0.0)
        now = 0.0
        for round_trip in range(20):
            for _ in range(control.cwnd // MSS):
                control.on_ack(MSS, 0.1, now)
            now += 0.1 + (pause if round_trip == 10 else 0.0)
        windows.append(control.cwnd)
    assert windows[0] == pytest.approx(windows[1])


def test_cubic_grows_as_fast_as_reno_where_that_is_faster() -> None:
    """RFC 9438 §4.3: alpha = 3 * 0.3 / 1.7 per round trip, and 1 once the window is what it was before the loss."""
    control = controller("cubic", MSS, 10)
    control.on_loss(10_000, 0.0)
    rtt, rounds = 0.001, 20
    for k in range(rounds):
        for _ in range(control.cwnd // MSS):
            control.on_ack(MSS, rtt, k * rtt)
    rounds_to_prior = (10 - 7) / (3 * 0.3 / 1.7)
    assert control.cwnd / MSS == pytest.approx(10 + rounds - rounds_to_prior, abs=1.5)


def test_cubic_makes_room_for_others() -> None:
    """RFC 9438 §4.7, fast convergence: a loss below the last maximum lowers it further, to 0.85 of that window."""
    control = controller("cubic", MSS, 100)
    control.on_loss(100_000, 0.0)
    control.on_loss(70_000, 1.0)
    assert control.cwnd == pytest.approx(49_000, abs=1)
    now = 1.0
    for _ in range(6):  # after K = cbrt((59.5 - 49) / 0.4) = 3 s it is at 59.5 segments
        for _ in range(control.cwnd // MSS):
            control.on_ack(MSS, 0.5, now)
        now += 0.5
    assert control.cwnd == pytest.approx(59_500, abs=2000)


def test_cubic_after_a_time_out() -> None:
    """RFC 9438 §4.8."""
    control = controller("cubic", MSS, 20)
    control.on_timeout(20_000, 1.0)
    assert (control.cwnd, control.ssthresh) == (1000, 14_000)
    control.on_timeout(1000, 3.0, again=True)
    assert (control.cwnd, control.ssthresh) == (1000, 14_000)
    for _ in range(13):
        control.on_ack(1000, 0.1, 4.0)
    assert control.cwnd == 14_000
    control.on_ack(1000, 0.1, 4.0)
    for round_trip in range(20):  # K = 0 and W_max = 14: convex from the first
        for _ in range(control.cwnd // MSS):
            control.on_ack(MSS, 0.1, 4.1 + 0.1 * round_trip)
    assert control.cwnd > 16_000


def test_none_never_limits() -> None:
    control = controller("none", MSS, 10)
    control.on_loss(10_000, 1.0)
    control.on_timeout(10_000, 2.0)
    control.on_ack(1000, 0.1, 3.0)
    assert control.cwnd >= 1 << 30


@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_the_window_counts_not_what_is_beyond_a_gap(name: str) -> None:
    """RFC 5681 §3.1: ssthresh is at most FlightSize / 2; while a gap lasts FlightSize is many times the window."""
    control = controller(name, MSS, 10)
    control.on_loss(500_000, 1.0)
    assert control.cwnd < 10_000


@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_after_idleness_it_is_the_initial_window_again(name: str) -> None:
    """RFC 5681 §4.1; if it was less, it stays so."""
    control = controller(name, MSS, 10)
    for _ in range(20):
        control.on_ack(1000, 0.1, 1.0)
    control.on_idle()
    assert control.cwnd == 10_000
    control.on_timeout(10_000, 2.0)
    control.on_idle()
    assert control.cwnd == 1000
