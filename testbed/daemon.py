"""What a chitcpd of a lab is told as it starts, wherever it runs: its options, and the links that it is on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from chitcpd.faults import IP_HEADER, Drop, Shape
from testbed import shaping
from testbed.backends.base import Now, Probed
from testbed.plan import HostPlan, Interface, Plan, Underlay

_PROBE = 20 + IP_HEADER  # bytes, as chitcpd's rate counts them
_PROBE_ON_THE_WIRE = 14 + 20 + 32 + 16 + 20  # as netem's does: headers of Ethernet, IP, TCP and chiTCP, and the probe
_GOOD = 0.001  # seconds by which a round trip may be longer, and no measurement better: the bar, max(1 ms, 2 %)
_MOST_RATE = 1e9  # bits per second; what is faster waits for Python, and says nothing of the link


def options(plan: Plan, host: HostPlan, *, trace: str, segments: str, implementation: str) -> list[str]:
    """The options of this host's chitcpd, or router's; the paths are where a backend has its files."""
    said = ["--seed", str(host.seed), "--trace", trace, "--profile", host.profile, "--announce", host.name]
    for interface in host.interfaces:
        said += ["--bind", interface.address]
    for name, value in host.settings.items():
        said += ["--set", f"{name}={value}"]
    if plan.capture_segments:
        said += ["-c", segments]
    if host.implementation is not None:
        said += ["--tcp", implementation]
    return [*said, "--forward"] if host.forwards else said


def links(plan: Plan, host: HostPlan, *, by_netem: bool) -> list[dict[str, Any]]:
    """What `--links` takes; `by_netem`: delay, jitter and rate are netem's, where it can do them."""
    entries: list[dict[str, Any]] = []
    for interface in host.interfaces:
        beyond = [address for way in host.ways if way.link == interface.link for address in way.direct]
        entry = link(interface, interface.shape, interface.underlay, by_netem=by_netem)
        entry["peers"] = [*interface.peers.values(), *beyond]
        entry["seed"] = interface.seed
        if to_probe := _probes(plan, host, interface, by_netem=by_netem):
            entry["probe"] = {
                "peers": [probe.far.address for probe in to_probe],
                "good_rtt": max(probe.good_rtt for probe in to_probe),
                "rate": _rate(interface),
            }
        entries.append(entry)
    own = {interface.link: interface for interface in host.interfaces}
    return entries + [
        {"peers": list(way.behind), "via": way.gateway, "own": own[way.link].address, "mtu": way.mtu}
        for way in host.ways
        if way.behind
    ]


def link(interface: Interface, shape: Shape, underlay: Underlay, *, by_netem: bool) -> dict[str, Any]:
    """The entry for what leaves by this interface, with this shape. chitcpd remembers for us what netem does."""
    by_kernel = {"delay": shape.delay, "jitter": shape.jitter, "rate": shape.rate, "packets": asdict(underlay)}
    return {
        "peers": list(interface.peers.values()),
        "own": interface.address,
        "mtu": interface.mtu,
        **asdict(shaping.left_for_chitcpd(shape) if by_netem else shape),
        "underlay": by_kernel if by_netem else {},
    }


def now(told: dict[str, Any]) -> Now:
    """What a chitcpd says of a link of its (`link`), with what netem does there."""
    fields = {name: told[name] for name in Shape.__dataclass_fields__ if name in told}
    fields["drops"] = tuple(Drop(**rule) for rule in told.get("drops", ()))
    by_kernel = dict(told.get("underlay", {}))
    underlay = Underlay(**by_kernel.pop("packets", {}))
    return Now(Shape(**fields | by_kernel), underlay, Counter(told.get("counts", {})))


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a link: by whose chitcpd, from which end to which."""

    host: HostPlan
    neighbour: HostPlan
    near: Interface
    far: Interface
    by_netem: bool  # delay, jitter and rate are netem's, where it can do them

    @property
    def asked_rtt(self) -> float:
        """The round trip that was asked for, in seconds, and that of the probe's own bytes."""
        return sum(end.shape.delay + self._takes(end.shape) for end in (self.near, self.far))

    def _takes(self, shape: Shape) -> float:
        rate = shaping.netem_rate(shape) if self.by_netem else None
        if rate is not None:
            return _PROBE_ON_THE_WIRE * 8 / rate
        return _PROBE * 8 / shape.rate if shape.rate is not None else 0.0

    @property
    def good_rtt(self) -> float:
        """The longest, in seconds, that is as good as what was asked for."""
        return self.asked_rtt + max(_GOOD, self.asked_rtt * 0.02) / 2

    def found(self, told: dict[str, Any]) -> Probed:
        """What the daemon has told (`probed`)."""
        return Probed(
            link=self.near.link,
            direction=f"{self.host.name}->{self.neighbour.name}",
            asked_rtt=self.asked_rtt,
            measured_rtt=told["rtt"],
            asked_rate=_rate(self.near),
            measured_rate=told["rate"],
        )


def probes(plan: Plan, *, by_netem: bool) -> Iterator[Probe]:
    """All of a lab."""
    for host in plan.nodes:
        for interface in host.interfaces:
            yield from _probes(plan, host, interface, by_netem=by_netem)


def _probes(plan: Plan, host: HostPlan, interface: Interface, *, by_netem: bool) -> list[Probe]:
    """The first of a link's ends probes all others; each other one the first, if there is a rate to be measured.

    Another chitcpd than ours knows no probes.
    """
    first, *others = (plan.node(name) for name in plan.link(interface.link).endpoints)
    probed = others if host == first else [first] if _rate(interface) is not None else []
    both_ours = [neighbour for neighbour in probed if host.image is None and neighbour.image is None]
    return [Probe(host, one, interface, one.interface(interface.link), by_netem) for one in both_ours]


def _rate(interface: Interface) -> float | None:
    rate = interface.shape.rate
    return rate if rate is not None and rate <= _MOST_RATE else None
