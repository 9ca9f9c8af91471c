"""A topology as a picture: lines for a terminal, Mermaid for Markdown, dot for Graphviz. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from chitcpd.faults import Shape
from testbed.plan import shape_of
from testbed.topology.model import Link, Topology

_SHARES = ("loss", "duplicate", "reorder", "corrupt")


def ascii(topology: Topology) -> str:  # noqa: A001  # as the format is called
    """A line for each host with its applications, one for each link."""
    width = max(map(len, topology.hosts))
    lines = [f"{topology.name}, seed {topology.seed}", ""]
    lines += [f"  {host:{width}}  {', '.join(_apps(topology, host))}".rstrip() for host in topology.hosts]
    if topology.links:
        lines.append("")
    starts = max((len(link.endpoints[0]) for link in topology.links), default=0)
    for link in topology.links:
        first, second = link.endpoints
        lines.append(f"  {first:>{starts}} ── {second}  {_joined(topology, link)}".rstrip())
    return "\n".join(lines)


def mermaid(topology: Topology) -> str:
    """For Markdown: a fenced block of `mermaid`."""
    lines = ["graph LR"]
    for host in topology.hosts:
        label = "<br/>".join([f"<b>{host}</b>", *_apps(topology, host)])
        lines.append(f'  {_id(host)}["{label}"]')
    for link in topology.links:
        first, second = map(_id, link.endpoints)
        text = _joined(topology, link).replace("->", "→")
        lines.append(f'  {first} ---|"{text}"| {second}' if text else f"  {first} --- {second}")
    return "\n".join(lines)


def dot(topology: Topology) -> str:
    """For Graphviz: `testbed graph lab.yaml --format dot | dot -Tsvg`."""
    lines = [f'graph "{topology.name}" {{', "  node [shape=box];"]
    for host in topology.hosts:
        label = "\\n".join([host, *_apps(topology, host)])
        lines.append(f'  "{host}" [label="{label}"];')
    for link in topology.links:
        first, second = link.endpoints
        lines.append(f'  "{first}" -- "{second}" [label="{_joined(topology, link)}"];')
    return "\n".join([*lines, "}"])


def _id(host: str) -> str:
    """Mermaid's names have no hyphen, and `end` is a word of its own."""
    return "host_" + host.replace("-", "_")


def _apps(topology: Topology, host: str) -> list[str]:
    return [name for name, app in topology.apps.items() if app.host == host]


def _joined(topology: Topology, link: Link) -> str:
    """What the link does: to both directions, if that is the same, else to each."""
    first, second = link.endpoints
    there, back = (list(said(shape_of(topology, link, sender))) for sender in (first, second))
    parts: list[str] = [link.link] if link.link else []
    if there == back:
        parts += there
    else:
        parts += [f"{first}->{second}: {' '.join(there)}", f"{second}->{first}: {' '.join(back)}"]
    return ", ".join(parts)


def said(shape: Shape) -> Iterator[str]:
    """What one direction of a link does, each as a person would write it."""
    if shape.delay:
        yield _time(shape.delay) + (f"±{_time(shape.jitter)}" if shape.jitter else "")
    if shape.rate is not None:
        yield _scaled(shape.rate, (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)))
    if shape.queue_packets is not None:
        yield f"queue {shape.queue_packets}pkt"
    if shape.queue_bytes is not None:
        yield f"queue {_scaled(shape.queue_bytes, (('MB', 1e6), ('kB', 1e3), ('B', 1.0)))}"
    for name in _SHARES:
        if share := getattr(shape, name):
            yield f"{name} {share * 100:g}%"
    for rule in shape.drops:
        yield f"drop {rule.kind} {rule.first if rule.first == rule.last else f'{rule.first}-{rule.last}'}"


def _time(seconds: float) -> str:
    return _scaled(seconds, (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)))


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """In the largest unit in which it is at least 1."""
    unit, factor = next((pair for pair in units if value >= pair[1] * (1 - 1e-9)), units[-1])
    return f"{value / factor:.6g}{unit}"
