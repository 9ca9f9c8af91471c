"""A topology, made concrete: every address, every impairment, every command, decided before anything starts.

`plan` is pure: it reads a Topology and the subnets that are taken and makes a Plan; a backend carries the Plan out and
decides nothing. Nothing here knows Docker, processes or files on the engine's machine.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_network

from chitcpd.faults import Drop, Shape
from testbed.topology.model import App, Link, OwnFile, RandomFile, Topology

LINK_PREFIX = 29  # network, the engine's gateway, two hosts, and the broadcast address fit in


@dataclass(frozen=True, slots=True)
class Interface:
    """A host's end of a link."""

    link: str
    address: str
    peer: str  # the host at the other end
    peer_address: str
    shape: Shape  # what leaves here towards the peer meets this
    mtu: int  # bytes, of the link that the TCP under study sees
    seed: int  # of this direction's random choices


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """A link: one network."""

    name: str
    subnet: str  # like 10.213.0.0/29
    endpoints: tuple[str, str]


@dataclass(frozen=True, slots=True)
class HostPlan:
    """A host: one chitcpd."""

    name: str
    interfaces: tuple[Interface, ...]
    names: dict[str, str]  # host name -> the address at which this host reaches it
    profile: str
    settings: dict[str, str]  # of its TCP, over the profile's, as `chitcpd --set` takes them
    seed: int
    implementation: bytes | None = field(
        default=None, repr=False
    )  # somebody's own TCP, a Python file; None: the reference


@dataclass(frozen=True, slots=True)
class AppPlan:
    """An application on one host."""

    name: str
    host: str
    run: tuple[str, ...]
    env: dict[str, str]
    files: dict[str, bytes] = field(repr=False)  # name in its working directory -> content
    executables: frozenset[str]  # those files that may be executed
    needs: tuple[str, ...]  # apps that are ready before this one starts
    listening: int | None  # ready when the host's daemon has a listener on this port
    expect_exit: int | None  # the status it must end with; None: it serves until the run ends
    timeout: float  # seconds until it must have ended


@dataclass(frozen=True, slots=True)
class Plan:
    """A lab, ready to be built."""

    lab: str
    run_id: str
    seed: int
    links: tuple[LinkPlan, ...]
    hosts: tuple[HostPlan, ...]
    apps: tuple[AppPlan, ...]  # in an order in which each comes after all that it needs
    capture_segments: bool
    capture_wire: bool


def plan(topology: Topology, *, run_id: str, lab: str, pool: str, in_use: Mapping[str, str]) -> Plan:
    """Decide everything about a run of `topology`.

    Links without a subnet of their own get a /29 from `pool` (an IPv4 network), apart from the subnets in `in_use`
    (subnet -> its owner, for a person). Raises testbed.backends.base.Unavailable if a link's own subnet is in use,
    naming the owner, or if the pool has too few left.
    """
    subnets = _subnets(topology, pool, in_use)
    links = [
        LinkPlan(_link_name(link), str(subnet), (link.endpoints[0], link.endpoints[1]))
        for link, subnet in zip(topology.links, subnets, strict=True)
    ]
    return Plan(
        lab=lab,
        run_id=run_id,
        seed=topology.seed,
        links=tuple(links),
        hosts=tuple(_host(topology, host, links) for host in topology.hosts),
        apps=tuple(_apps(topology)),
        capture_segments=topology.capture.segments,
        capture_wire=topology.capture.wire,
    )


def daemon_options(plan: Plan, host: HostPlan, *, trace: str, segments: str, implementation: str) -> list[str]:
    """The options of this host's chitcpd, wherever it runs; the paths are where a backend has its files."""
    options = ["--seed", str(host.seed), "--trace", trace, "--profile", host.profile]
    for interface in host.interfaces:
        options += ["--bind", interface.address]
    for name, value in host.settings.items():
        options += ["--set", f"{name}={value}"]
    if plan.capture_segments:
        options += ["-c", segments]
    if host.implementation is not None:
        options += ["--tcp", implementation]
    return options


def derive(seed: int, *purpose: str) -> int:
    """A 32-bit seed for one purpose, so that a change in one part of a topology does not touch the others' choices."""
    digest = hashlib.sha256("\0".join((str(seed), *purpose)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _link_name(link: Link) -> str:
    return link.name or "-".join(link.endpoints)


def _subnets(topology: Topology, pool: str, in_use: Mapping[str, str]) -> list[IPv4Network]:
    """One per link, in their order."""
    from testbed.backends.base import Unavailable  # it imports this module

    networks = ((ip_network(text, strict=False), owner) for text, owner in in_use.items())
    taken = {network: owner for network, owner in networks if isinstance(network, IPv4Network)}  # and no IPv6
    for link in topology.links:
        owner = next((taken[other] for other in taken if link.subnet and link.subnet.overlaps(other)), None)
        if owner is not None:
            what = f"The subnet {link.subnet} of link {_link_name(link)} is in use by {owner}."
            raise Unavailable(what, "Take that down, or give the link another `subnet:`, or none.")
    own = [link.subnet for link in topology.links if link.subnet is not None]
    free = _free(IPv4Network(pool), [*taken, *own])
    subnets = [link.subnet or next(free, None) for link in topology.links]
    if None in subnets:
        what = f"The pool {pool} has too few free subnets for the {len(subnets)} links of {topology.name}."
        raise Unavailable(what, "Take other labs down, or give links a `subnet:` outside of the pool.")
    return [subnet for subnet in subnets if subnet is not None]


def _free(pool: IPv4Network, taken: list[IPv4Network]) -> Iterator[IPv4Network]:
    for subnet in pool.subnets(new_prefix=LINK_PREFIX):
        if not any(subnet.overlaps(other) for other in taken):
            yield subnet


def _host(topology: Topology, name: str, links: list[LinkPlan]) -> HostPlan:
    interfaces = [
        _interface(name, link, shape_of(topology, written, name), topology.settings(written, name).mtu, topology.seed)
        for link, written in zip(links, topology.links, strict=True)
        if name in link.endpoints
    ]
    names: dict[str, str] = {}
    for interface in interfaces:  # of two links to one host the first is its name's
        names.setdefault(name, interface.address)
        names.setdefault(interface.peer, interface.peer_address)
    tcp = topology.tcp(name)
    return HostPlan(
        name=name,
        interfaces=tuple(interfaces),
        names=names,
        profile=tcp.profile,
        settings=tcp.changes,
        implementation=tcp.implementation,
        seed=derive(topology.seed, "host", name),
    )


def _interface(host: str, link: LinkPlan, shape: Shape, mtu: int, seed: int) -> Interface:
    end = link.endpoints.index(host)
    peer = link.endpoints[1 - end]
    network = IPv4Network(link.subnet)
    return Interface(
        link=link.name,
        address=str(network[2 + end]),  # .1 is for the engine's gateway
        peer=peer,
        peer_address=str(network[3 - end]),
        shape=shape,
        mtu=mtu,
        seed=derive(seed, "link", link.name, host),
    )


def shape_of(topology: Topology, link: Link, sender: str) -> Shape:
    """What leaves `sender` over the link meets this."""
    settings = topology.settings(link, sender)
    packets = size = None
    if settings.queue is not None:
        packets, size = settings.queue.limit(rate=settings.rate, delay=settings.delay)
    return Shape(
        delay=settings.delay,
        jitter=settings.jitter,
        rate=settings.rate,
        queue_packets=packets,
        queue_bytes=size,
        loss=settings.loss,
        duplicate=settings.duplicate,
        reorder=settings.reorder,
        corrupt=settings.corrupt,
        drops=tuple(Drop(rule.match, *rule.nth) for rule in link.drop if rule.sender == sender),
    )


def _apps(topology: Topology) -> list[AppPlan]:
    """Each after all that it needs, else in the order of the file. If none says how it ends, all must end with 0."""
    nobody_expects = not any(app.expect for app in topology.apps.values())
    placed: dict[str, AppPlan] = {}

    def place(name: str) -> None:
        app = topology.apps[name]
        for need in app.needs:
            if need not in placed:
                place(need)
        exit_status = app.expect.exit if app.expect else 0 if nobody_expects else None
        placed[name] = _app(name, app, topology.seed, exit_status)

    for name in topology.apps:
        if name not in placed:
            place(name)
    return list(placed.values())


def _app(name: str, app: App, seed: int, expect_exit: int | None) -> AppPlan:
    return AppPlan(
        name=name,
        host=app.host,
        run=app.run if app.via is None else (app.via, *app.run),
        env=dict(app.env),
        files={
            file: _random_bytes(source.random, derive(seed, "file", name, file))
            if isinstance(source, RandomFile)
            else source.content
            for file, source in app.files.items()
        },
        executables=frozenset(
            file for file, source in app.files.items() if isinstance(source, OwnFile) and source.executable
        ),
        needs=app.needs,
        listening=app.ready.listening if app.ready else None,
        expect_exit=expect_exit,
        timeout=app.timeout,
    )


def _random_bytes(size: int, seed: int) -> bytes:
    generator, piece = random.Random(seed), 2**20  # randbytes itself can't make more than 256 MiB at once
    return b"".join(generator.randbytes(min(piece, size - start)) for start in range(0, size, piece))
