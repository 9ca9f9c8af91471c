"""What tc is told about a link, and what is left for chitcpd."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chitcpd.faults import Shape
from testbed.plan import Underlay
from testbed.shaping import has_work, left_for_chitcpd, netem, netem_limit, netem_rate

WAN = Shape(
    delay=0.025, jitter=0.002, rate=10e6, queue_packets=100, loss=0.01, duplicate=0.02, reorder=0.03, corrupt=0.04
)


NONE = Underlay()


def said(shape: Shape, attribute: str, words: int = 1, underlay: Underlay = NONE) -> list[str]:
    arguments = netem(shape, underlay, mtu=1500)
    start = arguments.index(attribute) + 1
    return arguments[start : start + words]


def test_delay_jitter_and_rate_are_for_netem() -> None:
    assert " ".join(netem(replace(WAN, queue_packets=None), NONE, mtu=1500)) == (
        "netem limit 66 delay 25000us 2000us 0% loss random 0% duplicate 0% reorder 0% corrupt 0% rate 10426997bit"
    )


def test_a_rate_counts_what_the_tcp_under_study_sends() -> None:
    """1452 bytes of each full real packet, which has 1514."""
    assert netem_rate(Shape(rate=10e6)) == pytest.approx(10e6 * 1514 / 1452)


def test_the_rest_is_left_for_chitcpd() -> None:
    left = left_for_chitcpd(replace(WAN, queue_packets=None))

    assert left == Shape(loss=0.01, duplicate=0.02, reorder=0.03, corrupt=0.04)
    assert left_for_chitcpd(left) == left


def test_the_rate_stays_with_the_queue_that_it_fills() -> None:
    """Behind netem's rate the kernel's buffers would hold all, and no segment would ever find the queue full."""
    left = left_for_chitcpd(WAN)

    assert (left.rate, left.queue_packets) == (WAN.rate, WAN.queue_packets)
    assert said(WAN, "rate") == ["30000000000bit"]  # only what keeps jitter in order


def test_what_is_off_is_said_too_because_netem_keeps_what_a_change_leaves_out() -> None:
    assert said(Shape(), "delay", 3) == ["0us", "0us", "0%"]
    assert said(Shape(), "loss", 2) == ["random", "0%"]
    assert said(Shape(), "rate") == ["0bit"]
    assert [said(Shape(), word) for word in ("duplicate", "reorder", "corrupt")] == [["0%"]] * 3


def test_jitter_keeps_the_order_because_there_is_always_a_rate_with_it() -> None:
    assert said(Shape(delay=0.02, jitter=0.01), "rate") == ["30000000000bit"]
    assert said(Shape(delay=0.02), "rate") == ["0bit"]


@pytest.mark.parametrize(
    ("shape", "mtu"),
    [
        (Shape(delay=0.1, rate=1e9), 1500),
        (Shape(delay=0.1, jitter=0.05, rate=1e9), 1500),
        (Shape(delay=0.1, rate=1e6), 576),
        (Shape(delay=0.1, rate=1e9), 9000),  # the real packets are no larger for it
        (Shape(delay=0.5), 1500),
    ],
)
def test_the_limit_has_room_for_all_that_is_under_way(shape: Shape, mtu: int) -> None:
    under_way = (shape.rate or 1e10) * (shape.delay + shape.jitter) / 8 / min(mtu, 1500)

    assert netem_limit(shape, mtu=mtu) >= 1.5 * under_way


def test_the_limit_of_a_slow_link_is_no_queue_of_many_seconds() -> None:
    limit = netem_limit(Shape(delay=0.01, rate=1e6), mtu=1500)

    assert limit * 1500 * 8 / 1e6 < 0.5  # seconds that a full queue takes


def test_what_befalls_the_real_packets_is_netem_s_alone() -> None:
    underlay = Underlay(loss=0.01, duplicate=0.02, reorder=0.03, corrupt=0.000001)

    assert said(Shape(delay=0.01), "loss", 2, underlay) == ["random", "1%"]
    shares = [said(Shape(delay=0.01), word, 1, underlay) for word in ("duplicate", "reorder", "corrupt")]
    assert shares == [["2%"], ["3%"], ["0.0001%"]]


@pytest.mark.parametrize(
    ("shape", "underlay", "work"),
    [
        (Shape(), NONE, False),
        (Shape(loss=0.1, duplicate=0.1, corrupt=0.1, down=True), NONE, False),
        (Shape(rate=1e6, queue_packets=10), NONE, False),
        (Shape(rate=1e6), NONE, True),
        (Shape(delay=0.001), NONE, True),
        (Shape(), Underlay(corrupt=0.1), True),
    ],
)
def test_a_link_of_which_netem_does_nothing_has_no_netem(shape: Shape, underlay: Underlay, work: bool) -> None:
    assert has_work(shape, underlay) == work
