"""Which links a segment crosses, by what the manifest says of nodes and links; and which of them lets it wait."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from testbed.report.curves import Curve
from testbed.report.read import finite


@dataclass(frozen=True, slots=True)
class Asked:
    """What one direction of a link is asked to do from a moment on."""

    since: int  # microseconds; the first one holds before, too
    delay: float  # seconds
    rate: float | None  # bits per second
    queue_packets: int | None
    queue_bytes: int | None


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a link: what leaves its sender there."""

    index: int  # in the manifest's `links`
    link: str
    name: str  # like alice->bob
    sender: str
    asked: tuple[Asked, ...]  # at first, and after each event that changed it

    @property
    def slowest(self) -> float | None:
        """The least rate that it has had."""
        return min((asked.rate for asked in self.asked if asked.rate), default=None)

    @property
    def in_packets(self) -> bool:
        """Whether its queue is limited in packets; else in bytes, if at all."""
        return any(asked.queue_packets is not None for asked in self.asked)

    def rates(self) -> Curve:
        """Its rate; NaN: unlimited."""
        return self._curve(lambda asked: asked.rate)

    def limits(self) -> Curve:
        """How much its queue may hold; NaN: no limit in this unit."""
        return self._curve(lambda asked: asked.queue_packets if self.in_packets else asked.queue_bytes)

    def _curve(self, value: Callable[[Asked], float | None]) -> Curve:
        curve = Curve()
        for asked in self.asked:
            found = value(asked)
            curve.add(asked.since, math.nan if found is None else found)
        return curve


class Wait:
    """Where on its way a segment may wait."""

    def __init__(self, direction: Direction, before: Sequence[Direction], after: Sequence[Direction]) -> None:
        self.direction = direction
        self._before, self._after = _delays(before), _delays(after)

    def queued(self, sent: int, arrived: int) -> tuple[int, int]:
        """When a segment came into the queue and when it left it, by when it was sent and arrived: microseconds."""
        return sent + _at(self._before, sent), arrived - _at(self._after, sent)


_Delays = list[tuple[int, int]]  # from when on, and how much: microseconds


def _delays(way: Sequence[Direction]) -> _Delays:
    """What a way takes, from each moment on at which that changes."""
    moments = sorted({0, *(asked.since for direction in way for asked in direction.asked)})

    def at(moment: int) -> float:
        return sum(
            next((asked.delay for asked in reversed(one.asked) if asked.since <= moment), one.asked[0].delay)
            for one in way
        )

    return [(moment, round(at(moment) * 1e6)) for moment in moments]


def _at(delays: _Delays, t: int) -> int:
    return delays[max(0, bisect_right(delays, t, key=itemgetter(0)) - 1)][1] if len(delays) > 1 else delays[0][1]


class Network:
    """The nodes and links of a lab."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError, ValueError or AttributeError if the manifest is not as its schema says."""
        self.hosts = list(manifest["hosts"])
        self.nodes = [*self.hosts, *manifest["routers"]]
        addresses = {name: host["addresses"] for name, host in manifest["hosts"].items()} | manifest["routers"]
        self.node_of = {address: name for name, own in addresses.items() for address in own.values()}
        self.directions = [_direction(index, link, manifest) for index, link in enumerate(manifest["links"])]
        on_link: dict[str, list[str]] = {}
        for name, own in addresses.items():
            for link in own:
                on_link.setdefault(link, []).append(name)
        self._links = {name: list(own) for name, own in addresses.items()}
        self.on_link = on_link
        self._ways: dict[tuple[str, str], list[Direction]] = {}

    def way(self, sender: str, receiver: str) -> list[Direction]:
        """The directions that a segment crosses, the shortest way; none if nobody knows."""
        key = sender, receiver
        if key not in self._ways:
            self._ways[key] = self._search(sender, receiver)
        return self._ways[key]

    def _search(self, sender: str, receiver: str) -> list[Direction]:
        if sender not in self._links or receiver not in self._links:
            return []
        came: dict[str, tuple[str, Direction]] = {}
        known, found = {sender}, deque([sender])
        while found:
            node = found.popleft()
            if node != sender and node in self.hosts:
                continue  # hosts carry nothing on for others
            for direction in self.directions:
                if direction.sender != node:
                    continue
                for other in self.on_link.get(direction.link, ()):
                    if other not in known:
                        known.add(other)
                        came[other] = node, direction
                        found.append(other)
        way: list[Direction] = []
        at = receiver
        while at in came:
            at, direction = came[at]
            way.insert(0, direction)
        return way

    def wait(self, sender: str, receiver: str) -> Wait | None:
        """Where its segments wait: before the slowest link on the way. None if no link has a rate."""
        way = self.way(sender, receiver)
        limited = [(direction.slowest, place) for place, direction in enumerate(way) if direction.slowest]
        if not limited:
            return None
        place = min(limited)[1]
        return Wait(way[place], way[:place], way[place:])


def _direction(index: int, link: Mapping[str, Any], manifest: Mapping[str, Any]) -> Direction:
    name = str(link["direction"])
    asked = [_asked(0.0, link["asked"])]
    if manifest.get("began") is not None:  # else nobody knows when the events were
        for event in manifest["events"]:
            asked += [
                _asked(event["done"], change["asked"])
                for change in event.get("links", ())
                if event["done"] is not None and (change["link"], change["direction"]) == (link["link"], name)
            ]
    in_order = sorted(asked, key=lambda one: one.since)  # stable
    return Direction(index, str(link["link"]), name, name.partition("->")[0], tuple(in_order))


def _asked(since: float, asked: Mapping[str, Any]) -> Asked:
    rate, packets, size = (asked.get(name) for name in ("rate", "queue_packets", "queue_bytes"))
    return Asked(
        round(finite(since) * 1e6),
        finite(asked.get("delay") or 0.0),
        finite(rate) if rate else None,
        None if packets is None else int(packets),
        None if size is None else int(size),
    )
