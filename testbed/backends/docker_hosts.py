"""Brings hosts, routers and links up on a Docker engine, as many at a time as pay, and listens to what they tell."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from typing import Any, Literal

from docker import APIClient
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import DriverConfig, IPAMConfig, IPAMPool
from requests.exceptions import RequestException

from testbed import daemon, shaping
from testbed.backends import engine, processes, setup
from testbed.backends.base import Built, Mechanism, Probed, Report
from testbed.backends.docker_labels import (
    FOREIGN,
    KIND,
    LAB,
    MAKER,
    NAME,
    OWNER,
    PRINT,
    RUN,
    SOCKET_DIRECTORY,
    TCP_FILE,
    UID,
    confined,
    environment,
    image,
    image_id,
    kind_of,
    labels_of,
    name_of,
    owner,
    print_of,
    subnets_in_use,
    volume,
)
from testbed.plan import HostPlan, LinkPlan, Plan, Underlay
from testbed.unavailable import Unavailable

_MOST_IN_ENVIRONMENT = 1 << 15  # bytes; Linux takes four times as many, and a shell passes them on
_LAST_LINES = 5  # of a log, in a message
_TOLD_WITHIN = 90.0  # seconds until a host has told that it is ready, and what its probes found, beside the links' own
_LOOK_AFTER = 1.0  # seconds, whether the others still run
_RIGHTS = ["NET_ADMIN", "NET_RAW", "SETGID", "SETUID"]  # of root's: tc, tcpdump, and to start chitcpd as its user

# Another chitcpd makes its socket there, as whatever user its image has.
_FOR_ANYBODY = DriverConfig("local", {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777"})

# The far ends of a lab's links are in the engine's own network: what joins them must not bundle packets either.
_OFFLOADS_OFF = """\
for port in $(for bridge; do ls /sys/class/net/br-$bridge/brif; done); do
  ethtool -K "$port" tso off gso off gro off tx off >/dev/null || exit 1
done
"""


@dataclass(slots=True)
class _Told:
    """What a host's container has told as it started."""

    version: str | None = None
    shaped: setup.Shaped | None = None  # None: there was nothing to shape
    wire: str = ""  # why it is not captured
    probed: list[Probed] = field(default_factory=list)


class Hosts:
    """What it takes to make them."""

    def __init__(self, api: APIClient) -> None:
        self._api = api

    def require_images(self, nodes: Sequence[HostPlan]) -> None:
        """Raise Unavailable if the engine does not have the image of one of these."""
        for node in nodes:
            if node.image is None:
                continue
            try:
                image_id(self._api, node.image)
            except ImageNotFound as error:
                what = f"the Docker engine does not have the image {node.image} of host {node.name}."
                raise Unavailable(what, f"Build it, or pull it: docker pull {node.image}") from error

    def build(self, plan: Plan, known: dict[str, str], nodes: Sequence[HostPlan], report: Report) -> Built:
        """Start these hosts and routers of the plan, and make the links that are not `known` (link -> network's id)."""
        if nodes:
            report(f"starting chitcpd on {', '.join(node.name for node in nodes)}")
        with ThreadPoolExecutor(2) as links, ThreadPoolExecutor(engine.WORKERS) as pool:
            try:
                started, networks = self._start_all(plan, known, nodes, links, pool)
                # All are ready first: of one that does not start, others would only know that no probe comes back.
                listening = [self._listen_to(plan, node, started[node.name].result()) for node in nodes]
                offloads: Future[None] | None = None
                for ready in map(next, listening):
                    if offloads is None and ready.shaped is not None and ready.shaped.by_netem:
                        offloads = pool.submit(self._set_offloads_off, plan, networks)
                report("probing the links")
                told = list(map(next, listening))
            except BaseException:
                links.shutdown(cancel_futures=True)
                pool.shutdown(cancel_futures=True)
                raise
        about = self._api.version()
        images = {image()} | {node.image for node in nodes if node.image is not None}
        return Built(
            mechanisms=[one for node, said in zip(nodes, told, strict=True) for one in _mechanisms(node, said)],
            probed=[probed for said in told for probed in said.probed],
            versions={
                "chitcpd": ", ".join(sorted({said.version for said in told if said.version})),
                "docker": about["Version"],
                "kernel": about["KernelVersion"],
                "image": ", ".join(f"{name} {image_id(self._api, name)}" for name in sorted(images)),
            },
            notes=[*_notes(nodes, told), *_offload_notes(offloads)],
        )

    def _start_all(
        self,
        plan: Plan,
        known: dict[str, str],
        nodes: Sequence[HostPlan],
        links: ThreadPoolExecutor,
        pool: ThreadPoolExecutor,
    ) -> tuple[dict[str, Future[str]], dict[str, Future[str]]]:
        """Host -> its container, link -> its network, both to come.

        The engine makes one network at a time, and mostly waits for the kernel while it does. So a host starts as
        soon as its own networks are there, and those that take longest, with many links, are begun first.
        """
        networks: dict[str, Future[str]] = {}
        for name, network in known.items():
            networks[name] = Future()
            networks[name].set_result(network)
        networks |= {
            link.name: links.submit(self._make_link, plan, link) for link in plan.links if link.name not in known
        }
        by_links = sorted(nodes, key=lambda node: -len(node.interfaces))  # stable
        started = {node.name: pool.submit(self._start_node, plan, networks, node) for node in by_links}
        return started, networks

    def _make_link(self, plan: Plan, link: LinkPlan) -> str:
        """Make a link's network; return its id."""
        try:
            network = self._api.create_network(
                name_of(plan.lab, "link", link.name),
                driver="bridge",
                internal=True,
                ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=link.subnet)]),
                labels=labels_of(plan, "link", link.name),
            )
        except APIError as error:
            if "overlap" not in str(error.explanation).lower():
                raise
            wanted = ipaddress.ip_network(link.subnet)
            owners = (
                owner
                for subnet, owner in subnets_in_use(self._api).items()
                if wanted.overlaps(ipaddress.ip_network(subnet))
            )
            owner = next(owners, "a network that the engine does not list")
            raise Unavailable(
                f"the subnet {link.subnet} of link {link.name} is in use by {owner}.",
                "Take that down, or give the link another `subnet:`, or none.",
            ) from error
        return str(network["Id"])

    def _start_node(self, plan: Plan, networks: dict[str, Future[str]], node: HostPlan) -> str:
        """Start a host's chitcpd, or a router; return the id of the container that tells how it goes."""
        foreign = node.image is not None
        if foreign:
            self._start_foreign(plan, networks, node)
        api = self._api
        options = daemon.options(
            plan, node, trace=setup.TRACE, segments=setup.SEGMENTS, implementation=f"{setup.DATA}/{TCP_FILE}"
        )
        script = setup.script(node, options if node.image is None else None, capture_wire=plan.capture_wire)
        kind = kind_of(node)
        ends = [(networks[interface.link].result(), interface.address) for interface in node.interfaces]
        links, files = _links(plan, node)
        rest: dict[str, Any] = {}
        if node.image is not None:
            rest = {"network_mode": f"container:{name_of(plan.lab, 'host', node.name)}"}
        else:
            forwarding = {"net.ipv4.ip_forward": "1"} if node.forwards else {}
            rest = {"network_mode": ends[0][0] if ends else "none", "sysctls": {**setup.SYSCTLS, **forwarding}}
        container = api.create_container(
            image(),
            ["sh", "-c", script],
            name=name_of(plan.lab, kind, node.name),
            hostname=None if node.image is not None else node.name,
            user="root",
            labels={**labels_of(plan, kind, node.name), PRINT: print_of(self._api, plan, node)},
            environment={**environment(node), **links},
            host_config=api.create_host_config(
                **confined(),
                # For root's script. What runs as another user can make use of none of them: the image has no setuid
                # program to become root with, and chitcpd can't gain any (no_new_privs).
                cap_add=_RIGHTS,
                mounts=[volume(plan, "host", node.name, SOCKET_DIRECTORY, driver=_FOR_ANYBODY if foreign else None)],
                **rest,
            ),
            networking_config=_endpoint(api, *ends[0]) if ends and node.image is None else None,
        )["Id"]
        if node.image is None:
            self._connect(container, ends[1:])
        if files:
            engine.put_files(api, container, setup.DATA, files, owner=UID)
        try:
            api.start(container)
        except APIError as error:
            # Where the other chitcpd has ended already, its network is gone: an engine says so with 409 if it knows by
            # then, else with 400 or 500 and what its runtime met halfway.
            if node.image is None or self._ended(name_of(plan.lab, "host", node.name)) is None:
                raise
            raise self._did_not_start(plan, node, container) from error
        return str(container)

    def _start_foreign(self, plan: Plan, networks: dict[str, Future[str]], node: HostPlan) -> None:
        """Start another chitcpd: all that is known of it is that it has port 23300, and a UNIX socket."""
        assert node.image is not None
        ends = [(networks[interface.link].result(), interface.address) for interface in node.interfaces]
        container = self._api.create_container(
            node.image,
            list(node.command) or None,
            name=name_of(plan.lab, "host", node.name),
            hostname=node.name,
            labels={
                **labels_of(plan, "host", node.name),
                PRINT: print_of(self._api, plan, node),
                FOREIGN: node.image,
            },
            environment={**environment(node), "CHITCPD_SOCK": setup.SOCKET},
            host_config=self._api.create_host_config(
                **confined(),
                security_opt=["no-new-privileges"],
                network_mode=ends[0][0] if ends else "none",
                sysctls=setup.SYSCTLS,
                mounts=[volume(plan, "host", node.name, SOCKET_DIRECTORY, driver=_FOR_ANYBODY)],
            ),
            networking_config=_endpoint(self._api, *ends[0]) if ends else None,
        )["Id"]
        self._connect(container, ends[1:])
        self._api.start(container)

    def _connect(self, container: str, ends: Iterable[tuple[str, str]]) -> None:
        for network, address in ends:
            self._api.connect_container_to_network(container, network, ipv4_address=address)

    def _listen_to(self, plan: Plan, node: HostPlan, container: str) -> Iterator[_Told]:
        """What a host's script and its chitcpd tell: once when it is ready, once more when all probes are back."""
        told = _Told()
        due = {probe.far.address: probe for probe in daemon.probes(plan, by_netem=True) if probe.host == node}
        patience = _TOLD_WITHIN + 10 * max((probe.good_rtt for probe in due.values()), default=0.0)
        pieces = self._api.logs(container, stdout=True, stderr=False, stream=True, follow=True)
        lines = engine.lines(pieces)

        def is_ready() -> bool:
            return told.version is not None

        def is_probed() -> bool:
            return not due

        def is_hopeless() -> bool:
            return told.version is not None and bool(self._dead(plan))

        with engine.closing(pieces):
            for is_over in (is_ready, is_probed):
                with _alarm(patience, is_hopeless, pieces.close):
                    while not is_over() and (line := next(lines, None)) is not None:
                        _note(node, json.loads(line), told, due)
                if not is_over():
                    break
                yield told
        for name, dead in self._dead(plan).items():
            raise self._did_not_start(plan, plan.node(name), dead)
        if told.version is None or self._ended(container) is not None:
            raise self._did_not_start(plan, node, container)
        lost = next(iter(due.values()))
        raise Unavailable(
            f"no probe of link {lost.near.link} came back from {lost.neighbour.name} to {lost.host.name} within "
            f"{patience:g} s.",
            "Does a firewall of the engine's machine stop what crosses a bridge (br_netfilter)? See `testbed doctor`.",
        )

    def _did_not_start(self, plan: Plan, node: HostPlan, container: str) -> Unavailable:
        if node.image is not None:
            container = name_of(plan.lab, "host", node.name)
        status = self._ended(container)
        try:
            log = self._api.logs(container, stdout=node.image is not None, tail=_LAST_LINES).decode(errors="replace")
        except APIError:
            return Unavailable(
                f"the container of {node.name} was removed while it started.",
                "Somebody has taken this lab down (testbed down --all?): try again.",
            )
        how = f"ended with status {status} as it started" if status is not None else "does not answer"
        return Unavailable(
            f"chitcpd of {node.name} {how}; its log says:\n  " + ("\n  ".join(log.strip().splitlines()) or "nothing"),
            "Mend what the log complains of, then try again.",
        )

    def _dead(self, plan: Plan) -> dict[str, str]:
        """Hosts and routers of the lab that have ended, and their containers."""
        ended = self._api.containers(all=True, filters={"label": f"{LAB}={plan.lab}", "status": "exited"})
        own = {container["Labels"][NAME]: container for container in ended}
        return {node.name: own[node.name]["Id"] for node in plan.nodes if node.name in own}

    def _ended(self, container: str) -> int | None:
        """The status with which a container has ended, or does within two seconds; None if it runs on."""
        with suppress(RequestException, NotFound):  # also the time-out
            return int(self._api.wait(container, timeout=2)["StatusCode"])
        return None

    def _set_offloads_off(self, plan: Plan, networks: dict[str, Future[str]]) -> None:
        """At the bridges' ends of the links, by a container in the engine's own network."""
        ids = (network.result()[:12] for network in networks.values())
        labels = labels_of(plan, "helper", "offloads")
        command = ["sh", "-c", _OFFLOADS_OFF, "sh", *ids]
        status, said = try_out(self._api, command, network_mode="host", labels=labels)
        if status != 0:
            raise Unavailable(f"offloads stay on at the bridges ({' '.join(said.split()) or status})", "")


def _links(plan: Plan, node: HostPlan) -> tuple[dict[str, str], dict[str, bytes]]:
    """(what of a host's links is in its environment, files of the host): what is long is a file, which costs time."""
    environment: dict[str, str] = {}
    files = {} if node.implementation is None else {TCP_FILE: node.implementation}
    for name, by_netem in ((setup.OF_NETEM, True), (setup.OF_CHITCPD, False)):
        text = json.dumps(daemon.links(plan, node, by_netem=by_netem))
        environment[name] = text
        if len(text) > _MOST_IN_ENVIRONMENT:
            environment[name] = f"{setup.DATA}/.{name}"
            files[f".{name}"] = text.encode()
    return environment, files


def try_out(
    api: APIClient, command: Sequence[str], *, network_mode: str, labels: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a command of root's in a container for a moment, with the right to shape; its status, and what it said."""
    own = {LAB: "doctor", RUN: "doctor", KIND: "helper", NAME: "doctor"}
    container = api.create_container(
        image(),
        list(command),
        user="root",
        labels=labels or {**own, OWNER: owner(), MAKER: processes.this_one()},
        host_config=api.create_host_config(**confined(), cap_add=["NET_ADMIN"], network_mode=network_mode),
    )["Id"]
    try:
        api.start(container)
        status = int(api.wait(container, timeout=20)["StatusCode"])
        return status, api.logs(container).decode(errors="replace")
    finally:
        with suppress(NotFound):  # somebody has taken the lab down
            api.remove_container(container, force=True)


@contextmanager
def _alarm(seconds: float, is_hopeless: Callable[[], bool], ring: Callable[[], None]) -> Iterator[None]:
    """Something is done if the block lasts longer, or as soon as, looked at now and then, it need not last on."""
    until, over = time.monotonic() + seconds, Event()

    def watch() -> None:
        while not over.wait(min(_LOOK_AFTER, max(0.0, until - time.monotonic()))):
            with suppress(APIError, RequestException):
                if time.monotonic() >= until or is_hopeless():
                    ring()
                    return

    Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _endpoint(api: APIClient, network: str, address: str) -> dict[str, object]:
    return {"EndpointsConfig": {network: api.create_endpoint_config(ipv4_address=address)}}


def _note(node: HostPlan, said: dict[str, Any], told: _Told, due: dict[str, daemon.Probe]) -> None:
    """Something that a script or a chitcpd has told; `due`: address of the neighbour -> what is still measured."""
    told.version = said.get("ready", told.version)
    told.wire = said.get("wire", told.wire)
    if "netem" in said:
        told.shaped = setup.shaped(node, said)
        asks = next((end.link for end in node.interfaces if end.underlay != Underlay()), None)
        if asks is not None and not told.shaped.by_netem:
            raise Unavailable(f"link {asks} asks for `underlay`, and {told.shaped.why}.", "Leave it out.")
    if said.get("probed") in due:
        by_netem = told.shaped is None or told.shaped.by_netem
        told.probed.append(replace(due.pop(said["probed"]), by_netem=by_netem).found(said))


def _mechanisms(node: HostPlan, told: _Told) -> Iterator[Mechanism]:
    for interface in node.interfaces:
        all_else: Literal["chitcpd", "none"] = "chitcpd" if node.image is None else "none"
        mechanism = Mechanism(interface.link, f"{node.name}->{interface.towards}", all_else=all_else)
        if told.shaped is not None and shaping.has_work(interface.shape, interface.underlay):
            mechanism.delay_jitter_rate = "netem" if told.shaped.by_netem else mechanism.all_else
            mechanism.why = told.shaped.why
        yield mechanism


def _notes(nodes: Sequence[HostPlan], told: Sequence[_Told]) -> Iterator[str]:
    for node, said in zip(nodes, told, strict=True):
        if said.wire:
            yield f"no capture of the wire on {node.name}: {said.wire}"
        if node.image is not None:
            yield (
                f"{node.name} runs {node.image}: it has no trace and no capture of segments, and its links do to what "
                "it sends only what netem can"
            )


def _offload_notes(offloads: Future[None] | None) -> Iterator[str]:
    try:
        if offloads is not None:
            offloads.result()
    except (Unavailable, APIError, RequestException) as why:
        yield f"{why}: netem may delay bundles of packets"
