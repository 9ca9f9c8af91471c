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
from testbed.plan import Underlay

# netem keeps the order of packets only where it has a rate: a packet then leaves no earlier than the one before it.
# 30gbit is what old kernels take too (below 2^32 bytes/s); a full packet then takes less than half a microsecond.
ORDERING_RATE = 30e9  # bits per second
ETHERNET_MTU = 1500  # bytes, of the real packets, however large the segments of the link are
# A rate counts the packets of the TCP under study. A full real packet carries 1448 bytes of their segments and of the
# chiTCP headers, where they would have IP headers: so it counts 1452, and netem sees 1514. (netem could leave 62 bytes
# out of each packet; but then an ARP of 42 bytes never leaves.)
ON_THE_WIRE = 1514 / 1452
MARGIN = 32  # packets, for small ones, and for bursts where the product of bandwidth and delay is small


def netem(shape: Shape, underlay: Underlay, *, mtu: int) -> list[str]:
    """`["netem", "limit", ...]`, to follow `tc qdisc replace dev DEVICE root`; `mtu` in bytes.

    Says every attribute that netem has a value for, also those that are off: what a change leaves out, netem keeps.
    """
    rate = netem_rate(shape) or (ORDERING_RATE if shape.jitter else 0)
    return [
        *("netem", "limit", str(netem_limit(shape, mtu=mtu))),
        *("delay", _time(shape.delay), _time(shape.jitter), "0%"),
        *("loss", "random", _share(underlay.loss), "duplicate", _share(underlay.duplicate)),
        *("reorder", _share(underlay.reorder), "corrupt", _share(underlay.corrupt)),
        *("rate", f"{round(rate)}bit"),
    ]


def has_work(shape: Shape, underlay: Underlay) -> bool:
    """Whether there is anything for netem to do."""
    return left_for_chitcpd(shape) != shape or underlay != Underlay()


def netem_limit(shape: Shape, *, mtu: int) -> int:
    """How many packets netem may hold: 1.5 times those under way on a full link, and a margin.

    Too few, and netem drops what should only be late; too many, and they are a queue that nobody asked for.
    """
    rate = shape.rate or ORDERING_RATE
    under_way = rate * (shape.delay + shape.jitter) / 8 / min(mtu, ETHERNET_MTU)
    return ceil(1.5 * under_way) + MARGIN


def left_for_chitcpd(shape: Shape) -> Shape:
    """What chitcpd does where there is netem. Equal to `shape`: there is nothing for netem to do."""
    return replace(shape, delay=0.0, jitter=0.0, rate=shape.rate if netem_rate(shape) is None else None)


def netem_rate(shape: Shape) -> float | None:
    """The rate that netem is to have, in bits per second on the wire; None: none."""
    has_queue = shape.queue_packets is not None or shape.queue_bytes is not None
    return None if has_queue or shape.rate is None else shape.rate * ON_THE_WIRE


def rate_of_netem(rate: float) -> float | None:
    """The rate of the link for which netem has this one; None: none, this is only to keep the order.

    The kernel has whole bytes per second; of all rates that come to the same, the one that a person would write.
    """
    if rate >= ORDERING_RATE - 8:
        return None
    roundest = (float(f"{rate / ON_THE_WIRE:.{digits}g}") for digits in range(1, 17))
    return next(own for own in roundest if abs(own * ON_THE_WIRE - rate) <= 8)


def _share(share: float) -> str:
    return f"{share * 100:.7g}%"


def _time(seconds: float) -> str:
    return f"{round(seconds * 1e6)}us"
