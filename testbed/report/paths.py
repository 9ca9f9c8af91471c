"""Which links a segment crosses, by what the manifest says of nodes and links; and which of them lets it wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.report.read import finite


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a link: what leaves its sender there."""

    index: int  # in the manifest's `links`
    link: str
    name: str  # like alice->bob
    sender: str
    delay: float  # seconds, as the topology asks
    rate: float | None  # bits per second
    queue_packets: int | None
    queue_bytes: int | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Where on its way a segment may wait."""

    direction: Direction
    before: int  # microseconds from its sender to the queue
    after: int  # and from its end to the receiver


class Network:
    """The nodes and links of a lab."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError, ValueError or AttributeError if the manifest is not as its schema says."""
        self.hosts = list(manifest["hosts"])
        self.nodes = [*self.hosts, *manifest["routers"]]
        addresses = {name: host["addresses"] for name, host in manifest["hosts"].items()} | manifest["routers"]
        self.node_of = {address: name for name, own in addresses.items() for address in own.values()}
        self.directions = [_direction(index, link) for index, link in enumerate(manifest["links"])]
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
        limited = [(direction.rate, place) for place, direction in enumerate(way) if direction.rate]
        if not limited:
            return None
        place = min(limited)[1]
        return Wait(way[place], _microseconds(way[:place]), _microseconds(way[place:]))


def _direction(index: int, link: Mapping[str, Any]) -> Direction:
    asked = link["asked"]
    rate = asked.get("rate")
    return Direction(
        index,
        str(link["link"]),
        str(link["direction"]),
        str(link["direction"]).partition("->")[0],
        finite(asked.get("delay") or 0.0),
        finite(rate) if rate else None,
        asked.get("queue_packets"),
        asked.get("queue_bytes"),
    )


def _microseconds(way: Sequence[Direction]) -> int:
    return round(sum(direction.delay for direction in way) * 1e6)
