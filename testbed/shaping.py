"""Link profile -> the arguments of `tc qdisc replace dev DEVICE root ...`, and what is left for chitcpd. Pure.

Real TCP carries the segments and would repair netem's losses before chitcpd saw them. So netem does delay, jitter and
rate on the real link; loss, duplication, reordering, corruption and the bottleneck's queue are chitcpd's, on segments.
A queue stands where the rate is: with a `queue` the rate is chitcpd's too, and what overflows is lost, as in a
router. Behind netem's rate the kernel's own buffers would hold everything, and the TCP under study never see a loss.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from chitcpd.faults import Shape

# netem keeps the order of packets only where it has a rate: a packet then leaves no earlier than the one before it.
# 30gbit is what old kernels take too (below 2^32 bytes/s); a full packet then takes less than half a microsecond.
ORDERING_RATE = 30e9  # bits per second
ETHERNET_MTU = 1500  # bytes, of the real packets, however large the segments of the link are
MARGIN = 32  # packets, for small ones, and for bursts where the product of bandwidth and delay is small


def netem(shape: Shape, *, mtu: int) -> list[str]:
    """`["netem", "limit", ...]`, to follow `tc qdisc replace dev DEVICE root`; `mtu` in bytes.

    Says every attribute that netem has a value for, also those that are off: what a change leaves out, netem keeps.
    """
    rate = _rate(shape) or (ORDERING_RATE if shape.jitter else 0)
    return [
        *("netem", "limit", str(netem_limit(shape, mtu=mtu))),
        *("delay", _time(shape.delay), _time(shape.jitter), "0%"),
        *("loss", "random", "0%", "duplicate", "0%", "reorder", "0%", "corrupt", "0%"),
        *("rate", f"{round(rate)}bit"),
    ]


def netem_limit(shape: Shape, *, mtu: int) -> int:
    """How many packets netem may hold: 1.5 times those under way on a full link, and a margin.

    Too few, and netem drops what should only be late; too many, and they are a queue that nobody asked for.
    """
    rate = shape.rate or ORDERING_RATE
    under_way = rate * (shape.delay + shape.jitter) / 8 / min(mtu, ETHERNET_MTU)
    return ceil(1.5 * under_way) + MARGIN


def left_for_chitcpd(shape: Shape) -> Shape:
    """What chitcpd does where there is netem. Equal to `shape`: there is nothing for netem to do."""
    return replace(shape, delay=0.0, jitter=0.0, rate=shape.rate if _rate(shape) is None else None)


def _rate(shape: Shape) -> float | None:
    """The rate that netem is to have."""
    has_queue = shape.queue_packets is not None or shape.queue_bytes is not None
    return None if has_queue else shape.rate


def _time(seconds: float) -> str:
    return f"{round(seconds * 1e6)}us"
