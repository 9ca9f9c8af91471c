"""The `events:` of a topology, made concrete: at which moment which end of which link does what, and so on. Pure.

What lasts for a while (`for: 2s`, `down: 2s`, `pause: 2s`) has two steps, of which the second one makes it as it
would be without. So two events that overlap end each on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from chitcpd.faults import Shape
from testbed.graph import changes
from testbed.plan import Interface, Plan, Underlay, shape, underlay_of
from testbed.topology.model import Event, Link, LinkSettings, Topology

Titles = Callable[[Event], str]
Deed = Literal["restart", "kill", "pause", "resume"]


@dataclass(frozen=True, slots=True)
class Reshape:
    """What leaves a node by an interface meets this from now on."""

    node: str
    interface: Interface  # as it was planned
    shape: Shape
    underlay: Underlay


@dataclass(frozen=True, slots=True)
class Step:
    """What happens at one moment."""

    at: float  # seconds since the applications began
    title: str  # for a person, like "link r1-bob: down"
    reshapes: tuple[Reshape, ...] = ()
    blocked: dict[str, tuple[str, ...]] = field(default_factory=dict)  # node -> all addresses that it no longer reaches
    host: tuple[str, Deed] | None = None
    app: tuple[str, str] | None = None  # and the signal, like SIGTERM


def timeline(topology: Topology, plan: Plan) -> tuple[Step, ...]:
    """All steps, in their order."""
    events = topology.events
    steps = [*_links(topology, plan), *_partitions(plan, events), *_deeds(events)]
    return tuple(sorted(steps, key=lambda step: step.at))  # stable


def _links(topology: Topology, plan: Plan) -> Iterator[Step]:
    for link in topology.links:
        own = [event for event in topology.events if event.link == link.title]
        titles = _moments(own, partial(_title, link))
        before = {end: _now(topology, plan, link, own, end, -1.0) for end in link.endpoints}
        for at in sorted(titles):
            after = {end: _now(topology, plan, link, own, end, at) for end in link.endpoints}
            changed = tuple(after[end] for end in link.endpoints if after[end] != before[end])
            if changed:
                yield Step(at, titles[at], changed)
            before = after


def _now(topology: Topology, plan: Plan, link: Link, own: list[Event], end: str, at: float) -> Reshape:
    """What the link does to what `end` sends, at this moment."""
    settings, down = topology.settings(link, end), False
    ups = [event.at for event in own if event.up]
    for event in sorted(own, key=lambda event: event.at):
        if not event.at <= at < _end(event, ups):
            continue
        if event.set_ is not None and event.sender in (None, end):
            settings = LinkSettings.over(event.set_, settings)
        down = down or event.down is not None
    planned = plan.node(end).interface(link.title)
    return Reshape(end, planned, replace(shape(settings, link, end), down=down), underlay_of(settings))


def _end(event: Event, ups: Iterable[float] = ()) -> float:
    if event.down is not None:
        return min(event.at + event.down, *(up for up in ups if up > event.at), math.inf)
    return event.at + (event.duration if event.duration is not None else math.inf)


def _moments(events: list[Event], title: Titles) -> dict[float, str]:
    """Each moment at which something begins or ends -> what, for a person."""
    moments: dict[float, list[str]] = {}
    for event in events:
        moments.setdefault(event.at, []).append(title(event))
        if _end(event) < math.inf:
            moments.setdefault(_end(event), []).append(f"the end of {title(event)}")
    return {at: "; ".join(titles) for at, titles in moments.items()}


def _title(link: Link, event: Event) -> str:
    if event.up:
        return f"link {link.title}: up"
    if event.down is not None:
        return f"link {link.title}: down"
    assert event.set_ is not None
    sender = f" from {event.sender}" if event.sender else ""
    return f"link {link.title}{sender}: {', '.join(changes(event.set_))}"


def _partitions(plan: Plan, events: tuple[Event, ...]) -> Iterator[Step]:
    own = [event for event in events if event.partition is not None]
    titles = _moments(own, lambda event: "partition " + " | ".join(" ".join(group) for group in event.partition or ()))
    for at in sorted(titles):
        blocked: dict[str, set[str]] = {host.name: set() for host in plan.hosts if host.image is None}
        for event in own:
            if event.at <= at < _end(event):
                for host, others in _apart(event.partition or ()):
                    if host in blocked:
                        blocked[host] |= {end.address for other in others for end in plan.node(other).interfaces}
        yield Step(at, titles[at], blocked={host: tuple(sorted(addresses)) for host, addresses in blocked.items()})


def _apart(groups: tuple[tuple[str, ...], ...]) -> Iterator[tuple[str, list[str]]]:
    for group in groups:
        others = [host for other in groups if other is not group for host in other]
        yield from ((host, others) for host in group)


def _deeds(events: tuple[Event, ...]) -> Iterator[Step]:
    told: set[tuple[str, float]] = set()  # hosts that go on, and when
    for event in events:
        if event.app is not None and event.kill is not None:
            yield Step(event.at, f"{event.kill} to {event.app}", app=(event.app, event.kill))
        elif event.host is not None and event.pause is not None:
            yield Step(event.at, f"chitcpd of {event.host} stands still", host=(event.host, "pause"))
            if (event.host, end := event.at + event.pause) not in told and not _stands_still(event.host, end, events):
                told.add((event.host, end))
                yield Step(end, f"chitcpd of {event.host} goes on", host=(event.host, "resume"))
        elif event.host is not None:
            deed: Deed = "restart" if event.restart else "kill"
            yield Step(event.at, f"{deed} of chitcpd of {event.host}", host=(event.host, deed))


def _stands_still(host: str, at: float, events: tuple[Event, ...]) -> bool:
    pauses = [(event.at, event.at + event.pause) for event in events if event.host == host and event.pause is not None]
    anew = [event.at for event in events if event.host == host and event.restart]
    return any(begin <= at < min(end, *(one for one in anew if one > begin), math.inf) for begin, end in pauses)
