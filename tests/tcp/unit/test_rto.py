"""The reference's estimator of the retransmission time-out, in the numbers of RFC 6298 section 2."""

from __future__ import annotations

import pytest

from chitcpd.tcp.api import Config
from chitcpd.tcp.rto import RetransmissionTimeout


def estimator(**settings: float) -> RetransmissionTimeout:
    return RetransmissionTimeout(Config(**({"rto_min": 0.001} | settings)))  # type: ignore[arg-type]


@pytest.mark.rfc9293("MUST-18")
def test_the_numbers_of_rfc_6298() -> None:
    """§2.2 and §2.3, worked by hand for the round trips 0.5, 0.7 and 0.1 s."""
    rto = estimator()
    assert (rto.rto, rto.srtt) == (1.0, None)
    seen = []
    for rtt in (0.5, 0.7, 0.1):
        rto.sample(rtt)
        seen.append((rto.srtt, rto.rttvar, rto.rto))
    assert seen == [
        pytest.approx((0.5, 0.25, 1.5)),
        pytest.approx((0.525, 0.2375, 1.475)),
        pytest.approx((0.471875, 0.284375, 1.609375)),
    ]


def test_the_granularity_of_the_clock_is_the_least_margin() -> None:
    """§4: RTO <- SRTT + max(G, K * RTTVAR)."""
    rto = estimator(clock_granularity=0.05)
    for _ in range(100):
        rto.sample(0.2)
    assert rto.rto == pytest.approx(0.25)


def test_floor_and_ceiling() -> None:
    """§2.4, §2.5."""
    rto = estimator(rto_min=0.3, rto_max=60.0)
    rto.sample(0.001)
    assert rto.rto == 0.3
    for _ in range(20):
        rto.double()
    assert rto.rto == 60.0


def test_a_sample_ends_the_backoff() -> None:
    """§5, the note at the end."""
    rto = estimator()
    rto.sample(0.5)
    rto.double()
    assert rto.rto == 3.0
    rto.sample(0.5)
    assert rto.rto == pytest.approx(0.5 + 4 * 0.1875)


def test_after_a_lost_syn_it_is_three_seconds() -> None:
    """§5.7."""
    rto = estimator()
    rto.double()
    rto.reset_after_syn()
    assert rto.rto == 3.0
