"""What checks ask of the traces of a run (docs/trace.md): pure, from lines to numbers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_HALF = 1 << 31


def read(path: Path) -> Iterator[Event]:
    """The events of a trace.jsonl; none if it is not there. A last line that was cut off is passed over."""
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)
    except FileNotFoundError:
        return


def of_host(events: Iterable[Event], addresses: frozenset[str]) -> Iterator[Event]:
    """Those of connections that have one of these addresses at either end."""
    for event in events:
        if _host(event["local"]) in addresses or _host(event["peer"]) in addresses:
            yield event


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")


class _Reach:
    """How far the data of one direction has come, by sequence numbers, which go round (RFC 9293 §3.4)."""

    def __init__(self) -> None:
        self.end: int | None = None
        self.bytes = 0  # each once

    def advance(self, seq: int, length: int) -> int:
        """How many of these bytes are new."""
        if self.end is None:
            self.end = seq
        new = (seq + length - self.end + _HALF) % (1 << 32) - _HALF
        if new > 0:
            self.end = (seq + length) % (1 << 32)
            self.bytes += min(new, length)
        return max(min(new, length), 0)


def retransmissions(events: Iterable[Event]) -> int:
    """Segments of data that their sender has sent before, in whole or in part."""
    reaches: defaultdict[tuple[str, str], _Reach] = defaultdict(_Reach)
    sent = (event for event in events if event["event"] == "sent" and event.get("len"))
    return sum(
        reaches[event["local"], event["peer"]].advance(event["seq"], event["len"]) < event["len"] for event in sent
    )


def resets(events: Iterable[Event]) -> int:
    """Segments with RST that were sent."""
    return sum(event["event"] == "sent" and "R" in event["flags"] for event in events)


def states(events: Iterable[Event]) -> list[str]:
    """Each state that a connection has come to, in the order in which it was first seen."""
    return list(dict.fromkeys(event["to"] for event in events if event["event"] == "state"))


@dataclass(frozen=True, slots=True)
class Flow:
    """Data that has crossed, each byte once, in both directions of all connections."""

    bytes: int
    seconds: float  # from the first such segment to the last

    @property
    def bits_per_second(self) -> float:
        """The goodput; 0 if there was no time in which it could be measured."""
        return self.bytes * 8 / self.seconds if self.seconds > 0 else 0.0


def flow(events: Iterable[Event]) -> Flow:
    """What one end has seen: what it has sent, and what it has received."""
    reaches: defaultdict[tuple[str, str, str], _Reach] = defaultdict(_Reach)
    first = last = None
    for event in events:
        if event["event"] not in ("sent", "received") or not event.get("len"):
            continue
        key = event["event"], event["local"], event["peer"]
        reaches[key].advance(event["seq"], event["len"])
        first, last = event["t"] if first is None else first, event["t"]
    seconds = last - first if first is not None and last is not None else 0.0
    return Flow(sum(reach.bytes for reach in reaches.values()), seconds)
