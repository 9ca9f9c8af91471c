"""A topology as a picture: lines for a terminal, Mermaid for Markdown, dot for Graphviz. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from chitcpd.faults import Shape
from chitcpd.units import Queue
from testbed.plan import Underlay, shape_of, underlay_of
from testbed.topology import model
from testbed.topology.model import Event, Link, LinkChanges, Topology, direction

_SHARES = ("loss", "duplicate", "reorder", "corrupt")


def ascii(topology: Topology) -> str:  # noqa: A001  # as the format is called
    """A line for each host with its applications, for each router, link, and event."""
    names = {host: host for host in topology.hosts} | {router: f"({router})" for router in topology.routers}
    width = max(map(len, names.values()))
    lines = [f"{topology.name}, seed {topology.seed}", ""]
    lines += [f"  {shown:{width}}  {', '.join(_apps(topology, name))}".rstrip() for name, shown in names.items()]
    pairs = [link for link in topology.links if len(link.endpoints) == 2]
    lans = [link for link in topology.links if len(link.endpoints) > 2]
    starts = max((len(names[link.endpoints[0]]) for link in pairs), default=0)
    joined = [f"  {names[a]:>{starts}} ── {names[b]}" for a, b in (link.endpoints for link in pairs)]
    joined += [f"  {link.title}: {', '.join(names[end] for end in link.endpoints)}" for link in lans]
    does = [_joined(topology, link) for link in (*pairs, *lans)]
    lines += ["", *(f"{ends}  {text}".rstrip() for ends, text in zip(joined, does, strict=True))] if joined else []
    lines += ["", *(f"  {happens(event)}" for event in topology.events)] if topology.events else []
    return "\n".join(lines)


def mermaid(topology: Topology) -> str:
    """For Markdown: a fenced block of `mermaid`."""
    lines = ["graph LR"]
    for host in topology.hosts:
        label = "<br/>".join([f"<b>{host}</b>", *_apps(topology, host)])
        lines.append(f'  {_id(host)}["{label}"]')
    lines += [f'  {_id(router)}(("{router}"))' for router in topology.routers]
    for link in topology.links:
        text = _joined(topology, link).replace("->", "→")
        if len(link.endpoints) > 2:
            lan = "lan_" + link.title.replace("-", "_")
            lines.append(f'  {lan}(["{"<br/>".join(filter(None, (link.title, text)))}"])')
            lines += [f"  {_id(end)} --- {lan}" for end in link.endpoints]
        else:
            first, second = map(_id, link.endpoints)
            lines.append(f'  {first} ---|"{text}"| {second}' if text else f"  {first} --- {second}")
    return "\n".join(lines)


def dot(topology: Topology) -> str:
    """For Graphviz: `testbed graph lab.yaml --format dot | dot -Tsvg`."""
    lines = [f'graph "{topology.name}" {{', "  node [shape=box];"]
    for host in topology.hosts:
        label = "\\n".join([host, *_apps(topology, host)])
        lines.append(f'  "{host}" [label="{label}"];')
    lines += [f'  "{router}" [shape=ellipse];' for router in topology.routers]
    for link in topology.links:
        text = _joined(topology, link)
        if len(link.endpoints) > 2:
            label = "\\n".join(filter(None, (link.title, text)))
            lines.append(f'  "lan {link.title}" [shape=plaintext, label="{label}"];')
            lines += [f'  "{end}" -- "lan {link.title}";' for end in link.endpoints]
        else:
            first, second = link.endpoints
            lines.append(f'  "{first}" -- "{second}" [label="{text}"];')
    return "\n".join([*lines, "}"])


def happens(event: Event) -> str:
    """What an event does, as a person would say it."""
    what = ""
    if event.link is not None:
        what = f"link {event.link}" + (f" from {event.sender}" if event.sender else "")
    if event.set_ is not None:
        what += f": {', '.join(changes(event.set_))}"
    elif event.down is not None:
        what += " down" + ("" if event.down == math.inf else f" for {_time(event.down)}")
    elif event.up:
        what += " up"
    elif event.partition is not None:
        what = f"partition {' | '.join(', '.join(group) for group in event.partition)}"
    elif event.app is not None:
        what = f"app {event.app}: {event.kill}"
    else:
        does = f"pause chitcpd for {_time(event.pause)}" if event.pause else "kill chitcpd"
        what = f"host {event.host}: {'restart chitcpd' if event.restart else does}"
    return f"at {_time(event.at)}: {what}" + (f" for {_time(event.duration)}" if event.duration else "")


def changes(settings: LinkChanges) -> Iterator[str]:
    """Each key that an event sets, with its value as it would be written."""
    for key in (key for key in LinkChanges.model_fields if key in settings.model_fields_set):
        value = getattr(settings, key)
        if key in ("delay", "jitter"):
            yield f"{key} {_time(value)}"
        elif key == "rate":
            yield f"rate {_rate(value)}"
        elif key == "queue":
            yield f"queue {_queue(value)}"
        elif key == "underlay":
            yield from _underlay(value)
        else:
            yield f"{key} {value * 100:g}%"


def _id(host: str) -> str:
    """Mermaid's names have no hyphen, and `end` is a word of its own."""
    return "host_" + host.replace("-", "_")


def _apps(topology: Topology, host: str) -> list[str]:
    return [name for name, app in topology.apps.items() if app.host == host]


def _joined(topology: Topology, link: Link) -> str:
    """What the link does: to all directions, if that is the same, else to each."""
    does = {direction(end, link.endpoints, link.title): _sends(topology, link, end) for end in link.endpoints}
    parts: list[str] = [link.link] if link.link else []
    first = next(iter(does.values()))
    if all(said == first for said in does.values()):
        parts += first
    else:
        parts += [f"{way}: {' '.join(said)}" for way, said in does.items()]
    return ", ".join(parts)


def _sends(topology: Topology, link: Link, sender: str) -> list[str]:
    return list(said(shape_of(topology, link, sender), underlay_of(topology.settings(link, sender))))


def _underlay(underlay: Underlay | model.Underlay) -> Iterator[str]:
    for name in _SHARES:
        if share := getattr(underlay, name):
            yield f"underlay {name} {share * 100:g}%"


def said(shape: Shape, underlay: Underlay) -> Iterator[str]:
    """What one direction of a link does, each as a person would write it."""
    if shape.down:
        yield "down"
    if shape.delay:
        yield _time(shape.delay) + (f"±{_time(shape.jitter)}" if shape.jitter else "")
    if shape.rate is not None:
        yield _rate(shape.rate)
    if shape.queue_packets is not None:
        yield f"queue {shape.queue_packets}pkt"
    if shape.queue_bytes is not None:
        yield f"queue {_size(shape.queue_bytes)}"
    for name in _SHARES:
        if share := getattr(shape, name):
            yield f"{name} {share * 100:g}%"
    for rule in shape.drops:
        yield f"drop {rule.kind} {rule.first if rule.first == rule.last else f'{rule.first}-{rule.last}'}"
    yield from _underlay(underlay)


def _queue(queue: Queue) -> str:
    if queue.bytes is not None:
        return _size(queue.bytes)
    if queue.seconds is not None:
        return _time(queue.seconds)
    return f"{queue.packets}pkt" if queue.packets is not None else f"{queue.bdp:g}bdp"


def _rate(bits_per_second: float) -> str:
    return _scaled(bits_per_second, (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)))


def _size(size: int) -> str:
    return _scaled(size, (("MB", 1e6), ("kB", 1e3), ("B", 1.0)))


def _time(seconds: float) -> str:
    return "0s" if seconds == 0 else _scaled(seconds, (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)))


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """In the largest unit in which it is at least 1."""
    unit, factor = next((pair for pair in units if value >= pair[1] * (1 - 1e-9)), units[-1])
    return f"{value / factor:.6g}{unit}"
