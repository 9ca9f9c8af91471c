"""What checks ask of the traces of a run (docs/trace.md): pure, from lines to numbers."""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_HALF = 1 << 31


def read(path: Path) -> Iterator[Event]:
    """The events of a trace.jsonl. A last line that was cut off is passed over. Raises FileNotFoundError."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def peers(events: Iterable[Event]) -> set[str]:
    """The addresses at the other end of all connections."""
    return {_host(event["peer"]) for event in events}


def of_host(events: Iterable[Event], addresses: frozenset[str]) -> Iterator[Event]:
    """Those of connections that have one of these addresses at either end."""
    for event in events:
        if _host(event["local"]) in addresses or _host(event["peer"]) in addresses:
            yield event


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")


class Seen:
    """Which data of one direction was seen, by sequence numbers, which go round (RFC 9293 §3.4)."""

    def __init__(self) -> None:
        self._first: int | None = None  # the sequence number from which all below is counted
        self._end = 0  # of what was seen
        self._gaps = [(-_HALF, 0)]  # before that, and not seen: begin and end of each, in order

    def add(self, seq: int, length: int) -> int:
        """How many of these bytes are new."""
        if self._first is None:
            self._first = seq
        begin = self._end + (seq - self._first - self._end + _HALF) % (1 << 32) - _HALF
        end = begin + length
        if begin > self._end:
            self._gaps.append((self._end, begin))
        new = max(end - max(begin, self._end), 0)
        self._end = max(end, self._end)
        return new + (self._fill(begin, end) if begin < self._gaps[-1][1] else 0)

    def _fill(self, begin: int, end: int) -> int:
        """How many of these bytes were in gaps, and are no more."""
        before, after = sum(high - low for low, high in self._gaps), []
        for low, high in self._gaps:
            rest = (low, min(high, begin)), (max(low, end), high)
            after += [(one, other) for one, other in rest if one < other]
        self._gaps = after
        return before - sum(high - low for low, high in after)


class _Beginnings:
    """Tells a connection from an earlier one between the same two ends: by the sequence number of its SYN.

    A daemon that was started anew uses its ports again, and numbers its connections as before.
    """

    def __init__(self) -> None:
        self._isn: dict[tuple[str, str, str], int] = {}

    def is_one(self, event: Event) -> bool:
        """Whether a segment, sent or received, is a SYN, and not the one before it once more."""
        key = event["event"], event["local"], event["peer"]
        if "S" not in event["flags"] or self._isn.get(key) == event["seq"]:
            return False
        self._isn[key] = event["seq"]
        return True


class _Reaches:
    """What was seen of each direction of all connections."""

    def __init__(self) -> None:
        self._beginnings = _Beginnings()
        self._seen: defaultdict[tuple[str, str, str], Seen] = defaultdict(Seen)

    def add(self, event: Event) -> int:
        """How many bytes of this segment, sent or received, are new."""
        key = event["event"], event["local"], event["peer"]
        if self._beginnings.is_one(event):
            self._seen.pop(key, None)
        return self._seen[key].add(event["seq"], event["len"]) if event.get("len") else 0


def retransmissions(events: Iterable[Event]) -> int:
    """Segments of data that their sender has sent before, in whole or in part."""
    reaches = _Reaches()
    sent = (event for event in events if event["event"] == "sent")
    return sum(reaches.add(event) < event.get("len", 0) for event in sent)


def resets(events: Iterable[Event]) -> int:
    """Segments with RST that were sent."""
    return sum(event["event"] == "sent" and "R" in event["flags"] for event in events)


def states(events: Iterable[Event]) -> list[str]:
    """Each state that a connection has come to, in the order in which it was first seen."""
    return list(dict.fromkeys(event["to"] for event in events if event["event"] == "state"))


def _crossed(events: Iterable[Event]) -> Iterator[tuple[float, int]]:
    """(time, bytes that are new) of each segment of data that one end has received, or sent and seen acknowledged.

    What was sent is told of when its acknowledgement comes, with the time at which it was sent.
    """
    reaches = _Reaches()
    flights: defaultdict[tuple[str, str], deque[tuple[int, float, int]]] = defaultdict(deque)
    for event in events:
        if event["event"] not in ("sent", "received"):
            continue
        new, flight = reaches.add(event), flights[event["local"], event["peer"]]
        if event["event"] == "sent":
            if "S" in event["flags"]:
                flight.clear()  # of an earlier connection
            if event.get("len"):
                flight.append((event["seq"] + event["len"], event["t"], new))
            continue
        while "ack" in event and flight and (event["ack"] - flight[0][0]) % (1 << 32) < _HALF:
            yield flight.popleft()[1:]
        if event.get("len"):
            yield event["t"], new


@dataclass(frozen=True, slots=True)
class Flow:
    """Data that has arrived, each byte once, in both directions of all connections."""

    bytes: int
    first: float  # when the end saw the first such segment, and the last: seconds since the epoch
    last: float
    segments: int

    @property
    def seconds(self) -> float:
        """From the first such segment to the last."""
        return self.last - self.first

    @property
    def bits_per_second(self) -> float:
        """The goodput; 0 of a single segment, for it has no time, and infinite if more were seen at one moment."""
        if self.seconds > 0:
            return self.bytes * 8 / self.seconds
        return math.inf if self.segments > 1 and self.bytes else 0.0


def flow(events: Iterable[Event]) -> Flow | None:
    """What one end has seen: what it has received, and sent and seen acknowledged. None if there was no such data."""
    found = Flow(0, math.inf, -math.inf, 0)
    for t, new in _crossed(events):
        found = Flow(found.bytes + new, min(found.first, t), max(found.last, t), found.segments + 1)
    return found if found.segments else None


def bytes_between(events: Iterable[Event], first: float, last: float) -> int:
    """How much of the same was new from `first` to `last`, seconds since the epoch."""
    return sum(new for t, new in _crossed(events) if first <= t <= last)


def jain(shares: Sequence[float]) -> float:
    """Jain, Chiu and Hawe's index (1984): 1 if all have the same, 1/n if one has all; 0 if there is nothing."""
    squares = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How the waits between expiries of one connection's retransmission timer grew while nothing came."""

    doublings: int  # waits that were at least nearly twice the one before
    flat: tuple[float, float] | None  # seconds: a wait, and the one after it that did not grow so


_GROWTH = 1.8  # of a wait over the one before: less than 2, for a timer is a little late now and then
_CEILING = 59.9  # seconds: beyond a minute a time-out need not grow (RFC 6298 (2.5)), and a timer may have been late


def backoffs(events: Iterable[Event]) -> list[Backoff]:
    """One for each time that a connection's time-out expired at least thrice with nothing received in between."""
    expiries: defaultdict[tuple[str, str, int | None], list[float]] = defaultdict(list)
    found: list[list[float]] = []
    beginnings = _Beginnings()
    for event in events:
        key = event["local"], event["peer"], event.get("connection")
        begins = event["event"] == "sent" and beginnings.is_one(event)
        if (begins or event["event"] == "received") and key in expiries:
            found.append(expiries.pop(key))
        elif event["event"] == "timer" and event["timer"] == "RETRANSMISSION":
            expiries[key].append(event["t"])
    return [_backoff(times) for times in [*found, *expiries.values()] if len(times) >= 3]


def _backoff(times: list[float]) -> Backoff:
    waits = [after - before for before, after in pairwise(times)]
    doublings = sum(after >= _GROWTH * before for before, after in pairwise(waits))
    flat = ((one, two) for one, two in pairwise(waits) if two < _GROWTH * one and two < _CEILING)
    return Backoff(doublings, next(flat, None))
