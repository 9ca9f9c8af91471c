"""Quantities as people write them: `25ms`, `10mbit`, `1%`, `64kB`, `100pkt`.

A bare number is refused everywhere: `25` could be milliseconds or seconds, and the wrong guess costs an afternoon.
Each function takes the text and raises ValueError with what it expected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ%]+)", re.ASCII)
_TIME = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_RATE = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_SIZE = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _parse(text: object, units: dict[str, float] | dict[str, int], expected: str) -> float:
    match = _NUMBER.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"expected {expected}")
    value = float(match[1]) * units[match[2]]
    if value == float("inf"):
        raise ValueError(f"expected {expected}")
    return value


def seconds(text: object) -> float:
    """`25ms` -> 0.025. Units: ns, us, ms, s, min."""
    return _parse(text, _TIME, "a time with its unit, like 25ms or 1.5s")


def bits_per_second(text: object) -> float:
    """`10mbit` -> 10,000,000.0. Units: bit, kbit, mbit, gbit (per second, powers of 1000)."""
    rate = _parse(text, _RATE, "a rate with its unit, like 10mbit or 512kbit")
    if rate == 0:
        raise ValueError("expected a rate above zero, like 10mbit")
    return rate


def probability(text: object) -> float:
    """`1%` -> 0.01; at most 100%."""
    value = _parse(text, {"%": 0.01}, "a share in percent, like 1% or 0.1%")
    if value > 1:
        raise ValueError("expected a share of at most 100%")
    return value


def size(text: object) -> int:
    """`64kB` -> 64,000, `5MiB` -> 5,242,880. Units: B, kB, MB, GB, KiB, MiB, GiB."""
    return round(_parse(text, _SIZE, "a size with its unit, like 64kB or 5MiB"))


@dataclass(frozen=True, slots=True)
class Queue:
    """The limit of a queue, in exactly one of its units."""

    packets: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    bdp: float | None = None  # multiples of rate x round-trip delay

    def limit(self, *, rate: float | None, delay: float) -> tuple[int | None, int | None]:
        """(packets, bytes) for a link of `rate` bits/s (None: unlimited) and `delay` seconds one way.

        Raises ValueError if the limit is a time or a BDP and the link has no rate, or one that is out of all bounds.
        """
        if self.packets is not None or self.bytes is not None:
            return self.packets, self.bytes
        if rate is None:
            raise ValueError("a queue in ms or bdp needs the link's rate; give it in pkt or kB, or add a rate")
        held = self.seconds if self.seconds is not None else (self.bdp or 0) * 2 * delay
        size = held * rate / 8
        if size == float("inf"):
            raise ValueError("expected a queue of fewer bytes: less time, or a lower rate")
        return None, max(round(size), 1600)


def queue(text: object) -> Queue:
    """`100pkt`, `64kB`, `50ms` or `2bdp` -> Queue."""
    expected = "a queue in packets, bytes, time or bdp, like 100pkt, 64kB, 50ms or 2bdp"
    value = _parse(text, _SIZE | _TIME | {"pkt": 1, "bdp": 1}, expected)
    unit = _NUMBER.fullmatch(str(text).strip())[2]  # type: ignore[index]  # _parse matched it
    if value == 0 or (unit in ("pkt", "B") and round(value) == 0):
        raise ValueError("expected a queue above zero, like 100pkt")
    if unit == "pkt":
        return Queue(packets=round(value))
    if unit == "bdp":
        return Queue(bdp=value)
    return Queue(seconds=value) if unit in _TIME else Queue(bytes=round(value))
