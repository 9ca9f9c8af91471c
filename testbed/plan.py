"""A topology, made concrete: every address, every way, every impairment, every command, before anything starts.

`plan` is pure: it reads a Topology and the subnets that are taken and makes a Plan; a backend carries the Plan out and
decides nothing. Nothing here knows Docker, processes or files on the engine's machine.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, ip_network

from chitcpd.faults import Drop, Shape
from chitcpd.units import Queue
from testbed.topology.model import App, Link, LinkSettings, OwnFile, RandomFile, Topology
from testbed.unavailable import Unavailable

_NOT_HOSTS = 3  # addresses of a subnet: its own, the engine's gateway, and the broadcast address
_LONGEST_PREFIX = 29


@dataclass(frozen=True, slots=True)
class Underlay:
    """What befalls the packets of the real connections, by netem: shares between 0 and 1."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0


@dataclass(frozen=True, slots=True)
class Interface:
    """A host's, or a router's, end of a link."""

    link: str
    address: str
    peers: dict[str, str]  # the others on this link: name -> address there
    shape: Shape  # what leaves here meets this
    underlay: Underlay
    mtu: int  # bytes, of the link that the TCP under study sees
    seed: int  # of this direction's random choices
    queue: Queue | None = None  # as it was written: of the shape's rate and delay, if in time or bdp

    @property
    def towards(self) -> str:
        """Where what leaves here goes: the other end, or the LAN."""
        return next(iter(self.peers)) if len(self.peers) == 1 else self.link


@dataclass(frozen=True, slots=True)
class Way:
    """The way to some subnets that a host is not on: past a router, over one of its links."""

    link: str
    gateway: str  # the router's address on that link
    subnets: tuple[str, ...]
    behind: tuple[str, ...]  # addresses of the hosts there: segments to them go by the router's chitcpd
    direct: tuple[str, ...]  # of hosts with another chitcpd, which knows no routes: these are dialled themselves
    mtu: int  # bytes, the least on any of these ways; for `behind`: to those in `direct` it is the first link's


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """A link: one network."""

    name: str
    subnet: str  # like 10.213.0.0/29
    endpoints: tuple[str, ...]  # two, or those of a LAN


@dataclass(frozen=True, slots=True)
class HostPlan:
    """A host: one chitcpd. Or a router: one that carries segments on."""

    name: str
    interfaces: tuple[Interface, ...]
    ways: tuple[Way, ...]
    names: dict[str, str]  # host name -> the address at which this host reaches it
    profile: str
    settings: dict[str, str]  # of its TCP, over the profile's, as `chitcpd --set` takes them
    seed: int
    implementation: bytes | None = field(
        default=None, repr=False
    )  # somebody's own TCP, a Python file; None: the reference
    image: str | None = None  # another chitcpd's; None: ours
    command: tuple[str, ...] = ()  # of that image; empty: its own
    forwards: bool = False  # a router

    def interface(self, link: str) -> Interface:
        """Its end of this link, which it must be on."""
        return next(interface for interface in self.interfaces if interface.link == link)


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
    says: str | None  # or when it has written a line that matches this; None with listening None: ready at once
    expect_exit: int | None  # the status it must end with; None: it serves until the run ends
    timeout: float  # seconds until it must have ended
    restarts: int  # how often it is started anew when it ends otherwise than it should
    memory: int  # bytes that it may have
    processes: int  # that it may have


@dataclass(frozen=True)
class Plan:
    """A lab, ready to be built."""

    lab: str
    run_id: str
    seed: int
    links: tuple[LinkPlan, ...]
    hosts: tuple[HostPlan, ...]
    routers: tuple[HostPlan, ...]
    apps: tuple[AppPlan, ...]  # in an order in which each comes after all that it needs
    capture_segments: bool
    capture_wire: bool
    later_underlay: bool = False  # an event of the run asks for one

    @property
    def nodes(self) -> tuple[HostPlan, ...]:
        """Hosts and routers."""
        return self.hosts + self.routers

    def node(self, name: str) -> HostPlan:
        """The host or router of this name, which must be there."""
        return self._nodes[name]

    def link(self, name: str) -> LinkPlan:
        """The link of this name, which must be there."""
        return self._links[name]

    @cached_property
    def _nodes(self) -> dict[str, HostPlan]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _links(self) -> dict[str, LinkPlan]:
        return {link.name: link for link in self.links}


def plan(
    topology: Topology,
    *,
    run_id: str,
    lab: str,
    pool: str,
    in_use: Mapping[str, str],
    keep: Mapping[str, str] | None = None,
) -> Plan:
    """Decide everything about a run of `topology`.

    Links without a subnet of their own get one from `pool` (an IPv4 network), apart from the subnets in `in_use`
    (subnet -> its owner, for a person); those in `keep` (link -> subnet, of this lab as it is up) have theirs already.
    Raises Unavailable if a link's own subnet is in use, naming the owner, or if the pool has too
    few left.
    """
    subnets = _subnets(topology, pool, in_use, keep or {})
    links = tuple(
        LinkPlan(link.title, str(subnet), link.endpoints) for link, subnet in zip(topology.links, subnets, strict=True)
    )
    network = _Network(topology, links)
    return Plan(
        lab=lab,
        run_id=run_id,
        seed=topology.seed,
        links=links,
        hosts=tuple(_host(topology, name, network) for name in topology.hosts),
        routers=tuple(_router(topology, name, network) for name in topology.routers),
        apps=tuple(_apps(topology)),
        capture_segments=topology.capture.segments,
        capture_wire=topology.capture.wire,
        later_underlay=any(event.set_ is not None and event.set_.underlay is not None for event in topology.events),
    )


def derive(seed: int, *purpose: str) -> int:
    """A 32-bit seed for one purpose, so that a change in one part of a topology does not touch the others' choices."""
    digest = hashlib.sha256("\0".join((str(seed), *purpose)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


# Subnets


def _subnets(topology: Topology, pool: str, in_use: Mapping[str, str], keep: Mapping[str, str]) -> list[IPv4Network]:
    """One per link, in their order."""
    networks = ((ip_network(text, strict=False), owner) for text, owner in in_use.items())
    taken = {network: owner for network, owner in networks if isinstance(network, IPv4Network)}  # and no IPv6
    for link in topology.links:
        owner = next((taken[other] for other in taken if link.subnet and link.subnet.overlaps(other)), None)
        if owner is not None:
            what = f"The subnet {link.subnet} of link {link.title} is in use by {owner}."
            raise Unavailable(what, "Take that down, or give the link another `subnet:`, or none.")
    written = [link.subnet for link in topology.links if link.subnet is not None]
    given = {link.title: link.subnet or _kept(link, keep, written) for link in topology.links}
    free = _Free(IPv4Network(pool), [*taken, *(subnet for subnet in given.values() if subnet is not None)])
    subnets = [given[link.title] or free.next(_prefix(link)) for link in topology.links]
    if None in subnets:
        what = f"The pool {pool} has too few free subnets for the {len(subnets)} links of {topology.name}."
        raise Unavailable(what, "Take other labs down, or give links a `subnet:` outside of the pool.")
    return [subnet for subnet in subnets if subnet is not None]


def _prefix(link: Link) -> int:
    addresses = len(link.endpoints) + _NOT_HOSTS
    return min(_LONGEST_PREFIX, 32 - (addresses - 1).bit_length())


def _kept(link: Link, keep: Mapping[str, str], written: list[IPv4Network]) -> IPv4Network | None:
    """The subnet that the link has, if it has room for its ends and no link is to have it from now on."""
    subnet = IPv4Network(keep[link.title]) if link.title in keep else None
    if subnet is None or subnet.prefixlen > _prefix(link) or any(subnet.overlaps(other) for other in written):
        return None
    return subnet


class _Free:
    """The free subnets of a pool, from its beginning on, each handed out once."""

    def __init__(self, pool: IPv4Network, taken: list[IPv4Network]) -> None:
        self._at = int(pool.network_address)
        self._end = int(pool.broadcast_address) + 1
        self._taken = sorted((int(one.network_address), int(one.broadcast_address) + 1) for one in taken)

    def next(self, prefix: int) -> IPv4Network | None:
        """The next one of this size; None if there is none."""
        size = 1 << (32 - prefix)
        at = -(-self._at // size) * size
        for begin, end in self._taken:  # sorted: what ends before `at` can't be in the way later
            if begin < at + size and end > at:
                at = -(-end // size) * size
        if at + size > self._end:
            return None
        self._at = at + size
        return IPv4Network((at, prefix))


# Hosts, routers and the ways between them


class _Network:
    """Who is on which link, and which way leads where: over the fewest routers, the first in the file among equals."""

    def __init__(self, topology: Topology, links: tuple[LinkPlan, ...]) -> None:
        self.written = {link.name: written for link, written in zip(links, topology.links, strict=True)}
        self.links = {link.name: link for link in links}
        self.of_node: dict[str, list[str]] = {name: [] for name in (*topology.hosts, *topology.routers)}
        self._routers = topology.routers
        self._addresses: dict[tuple[str, str], str] = {}
        self._mtus: dict[tuple[str, str], int] = {}  # of what leaves a node over a link
        for link in links:
            # The subnet's first address is for the engine's gateway.
            first = IPv4Network(link.subnet).network_address + 2
            for index, node in enumerate(link.endpoints):
                self.of_node[node].append(link.name)
                self._addresses[link.name, node] = str(first + index)
                self._mtus[link.name, node] = topology.settings(self.written[link.name], node).mtu

    def address(self, link: str, node: str) -> str:
        """Of a node on a link."""
        return self._addresses[link, node]

    def ways(self, node: str) -> dict[str, _Hop]:
        """Link -> how `node` comes there, the nearest first."""
        found = {link: _Hop(0, link, None, self._mtus[link, node]) for link in self.of_node[node]}
        waiting = deque(found)
        while waiting:
            link = waiting.popleft()
            here = found[link]
            for router in self.links[link].endpoints:
                if router not in self._routers or router == node:
                    continue
                for beyond in self.of_node[router]:
                    if beyond not in found:
                        first = here.router or (router if here.hops == 0 else None)
                        mtu = min(here.mtu, self._mtus[beyond, router])
                        found[beyond] = _Hop(here.hops + 1, here.link, first, mtu)
                        waiting.append(beyond)
        return found


@dataclass(frozen=True, slots=True)
class _Hop:
    """How a node comes to a link: over so many routers, by which of its own links, past which router first."""

    hops: int
    link: str
    router: str | None
    mtu: int  # bytes, the least on the way


def _host(topology: Topology, name: str, network: _Network) -> HostPlan:
    written, tcp = topology.hosts[name], topology.tcp(name)
    hops = network.ways(name)
    return HostPlan(
        name=name,
        interfaces=_interfaces(topology, name, network),
        ways=_ways(topology, name, network, hops),
        names=_names(topology, name, network, hops),
        profile=tcp.profile,
        settings=tcp.changes,
        implementation=tcp.implementation,
        seed=derive(topology.seed, "host", name),
        image=written.image,
        command=written.command,
    )


def _router(topology: Topology, name: str, network: _Network) -> HostPlan:
    return HostPlan(
        name=name,
        interfaces=_interfaces(topology, name, network),
        ways=_ways(topology, name, network, network.ways(name)),
        names={},
        profile="modern",
        settings={},
        seed=derive(topology.seed, "router", name),
        forwards=True,
    )


def _interfaces(topology: Topology, node: str, network: _Network) -> tuple[Interface, ...]:
    return tuple(
        Interface(
            link=link,
            address=network.address(link, node),
            peers={other: network.address(link, other) for other in network.links[link].endpoints if other != node},
            shape=shape_of(topology, network.written[link], node),
            underlay=underlay_of(topology.settings(network.written[link], node)),
            mtu=topology.settings(network.written[link], node).mtu,
            seed=derive(topology.seed, "link", link, node),
            queue=topology.settings(network.written[link], node).queue,
        )
        for link in network.of_node[node]
    )


def _ways(topology: Topology, node: str, network: _Network, hops: dict[str, _Hop]) -> tuple[Way, ...]:
    """One for each router that is next on the way to somewhere, and each MTU of such a way."""
    past: dict[tuple[str, str, int], list[str]] = {}
    for link, hop in hops.items():
        if hop.router is not None:
            past.setdefault((hop.link, hop.router, hop.mtu), []).append(link)
    ways = []
    for (first, router, mtu), beyond in past.items():
        hosts = [(link, host) for link in beyond for host in network.links[link].endpoints if host in topology.hosts]
        there = [(network.address(link, host), topology.hosts[host].image) for link, host in hosts if host != node]
        ways.append(
            Way(
                link=first,
                gateway=network.address(first, router),
                subnets=tuple(network.links[link].subnet for link in beyond),
                behind=tuple(address for address, image in there if image is None),
                direct=tuple(address for address, image in there if image is not None),
                mtu=mtu,
            )
        )
    return tuple(ways)


def _names(topology: Topology, node: str, network: _Network, hops: dict[str, _Hop]) -> dict[str, str]:
    """Itself and each other host that it can reach, at the address that is nearest; of equals the first link's."""
    names: dict[str, str] = {}
    for link in sorted(hops, key=lambda link: hops[link].hops):  # stable
        for host in (node, *network.links[link].endpoints):
            if host in topology.hosts and host in network.links[link].endpoints:
                names.setdefault(host, network.address(link, host))
    return names


def shape_of(topology: Topology, link: Link, sender: str) -> Shape:
    """What leaves `sender` over the link meets this."""
    return shape(topology.settings(link, sender), link, sender)


def shape(settings: LinkSettings, link: Link, sender: str) -> Shape:
    """These settings of one direction, and the link's `drop` rules for it."""
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


def underlay_of(settings: LinkSettings) -> Underlay:
    """What netem does to the packets of the real connections."""
    asked = settings.underlay
    return Underlay() if asked is None else Underlay(asked.loss, asked.duplicate, asked.reorder, asked.corrupt)


# Applications


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
        says=app.ready.output if app.ready else None,
        expect_exit=expect_exit,
        timeout=app.timeout,
        restarts=app.restart,
        memory=app.limits.memory,
        processes=app.limits.processes,
    )


def _random_bytes(size: int, seed: int) -> bytes:
    generator, piece = random.Random(seed), 2**20  # randbytes itself can't make more than 256 MiB at once
    return b"".join(generator.randbytes(min(piece, size - start)) for start in range(0, size, piece))
