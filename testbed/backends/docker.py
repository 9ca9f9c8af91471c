"""Labs on a Docker engine: a container for each host and each application, an internal network for each link.

A host's container runs chitcpd as a user without rights, beside a script of root's that shapes and captures its links
with a few (`setup`). A router's is the same, and its kernel forwards IP. An application's container has no network at
all: it reaches its host's chitcpd through a UNIX socket on a volume, and nothing else. A host with an image of its own
has two containers: that image's, without rights, and on the same network one of ours with the script. Files travel
through the engine's API, so the engine may be remote.

    chitcp-LAB.link-L    network
    chitcp-LAB.host-H    container, and the volume on its /run/chitcp, where the socket is
    chitcp-LAB.beside-H  container beside that of another chitcpd
    chitcp-LAB.router-R  container
    chitcp-LAB.app-A     container, and the volume on its /work, where its files are
    chitcp-LAB.exec-X    container of `testbed exec`
    chitcp-LAB.volume-whole-X  volume without content: its labels say how the lab was planned, and that it came up

Everything bears labels, and what works on a lab that is up reads nothing else.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from docker import APIClient
from docker.errors import ImageNotFound, NotFound

from chitcpd.faults import Shape
from testbed import daemon, saved, shaping
from testbed.backends import engine, processes, setup
from testbed.backends.base import Built, Exit, Item, Now, Recording, Report
from testbed.backends.docker_apps import Applications
from testbed.backends.docker_hosts import Hosts
from testbed.backends.docker_labels import (
    GRACE,
    LAB,
    MAKER,
    NAME,
    OWNER,
    PRINT,
    RUN,
    STAYS,
    USER,
    host_of,
    image,
    image_id,
    name_of,
    owner,
    print_of,
    subnet_of,
    subnets_in_use,
)
from testbed.backends.docker_left import Readings
from testbed.backends.docker_reach import Reach
from testbed.backends.docker_things import Things, nodes_in
from testbed.clock import WALL, Clock
from testbed.events import Deed, Reshape
from testbed.plan import AppPlan, HostPlan, Interface, Plan
from testbed.unavailable import Unavailable


class DockerBackend:
    """Hosts and applications as containers."""

    name = "docker"
    pool = "10.213.0.0/16"
    clock: Clock = WALL
    repeatable = False

    @cached_property
    def _api(self) -> APIClient:
        api = engine.connect(engine.WORKERS)
        weakref.finalize(self, api.close)
        return api

    @cached_property
    def _things(self) -> Things:
        return Things(self._api)

    @cached_property
    def _apps(self) -> Applications:
        return Applications(self._api, self._things)

    @cached_property
    def _readings(self) -> Readings:
        return Readings(self._api, self._things)

    @cached_property
    def _hosts(self) -> Hosts:
        return Hosts(self._api)

    @cached_property
    def _reach(self) -> Reach:
        reach = Reach(self._api)
        weakref.finalize(self, reach.close)
        return reach

    def check(self) -> None:
        """Raise Unavailable if no engine answers this user, or if it does not have the image."""
        with engine.faults():
            try:
                image_id(self._api, image())
            except ImageNotFound as error:
                what = f"the Docker engine does not have the image {image()}."
                raise Unavailable(what, "Build it in the project's directory: make image") from error

    def subnets_in_use(self) -> dict[str, str]:
        """Subnets of all networks of the engine, ours or not."""
        with engine.faults():
            return subnets_in_use(self._api)

    # ---- up

    def check_plan(self, plan: Plan) -> None:
        """Raise Unavailable if the engine does not have the image of a host."""
        with engine.faults():
            self._hosts.require_images(plan.nodes)

    def up(self, plan: Plan, report: Report, *, stays: bool) -> Built:
        """Make networks, then all hosts at once; whatever happens, leave a lab that is whole, or nothing."""
        with engine.faults():
            if plan.lab in self.labs():
                raise Unavailable(f"lab {plan.lab} is up.", f"Take it down: testbed down {plan.lab}")
            self._hosts.require_images(plan.nodes)
            try:
                built = self._hosts.build(plan, {}, plan.nodes, report)
                self._things.mark_whole(plan, stays=stays)
            except BaseException:
                report(f"taking down what there is of {plan.lab}")
                # By run as well: somebody else's lab of this name may have come in between.
                self._things.remove(f"{LAB}={plan.lab}", f"{RUN}={plan.run_id}")
                raise
            return built

    def change(self, plan: Plan, report: Report) -> Built | None:
        """Remove what is no longer wanted, or has to be another; make what is not there; tell the rest its links."""
        with engine.faults():
            self._refuse_if_anothers(plan.lab)
            self._hosts.require_images(plan.nodes)
            marks = self._things.marks(plan.lab)
            before = {node.name: node for node in nodes_in(marks[0])} if marks else {}
            after = {node.name: node for node in plan.nodes}
            containers = self._things.containers(f"{LAB}={plan.lab}")
            daemons = [container for container in containers if PRINT in container["Labels"]]
            prints = {container["Labels"][NAME]: container["Labels"][PRINT] for container in daemons}
            ended = {container["Labels"][NAME] for container in daemons if container["State"] != "running"}
            own = prints.keys() & before.keys() - ended  # of a lab that never came up whole: none
            networks = {network["Labels"][NAME]: network for network in self._things.networks(f"{LAB}={plan.lab}")}
            links = {name for name, network in networks.items() if _is_as(plan, name, network)}
            kept = {
                name
                for name in own & after.keys()
                if prints[name] == print_of(self._api, plan, after[name])
                and links.issuperset(end.link for end in after[name].interfaces)
            }
            as_planned = saved.kept(plan.nodes) == tuple(before.values())
            if as_planned and kept == after.keys() and links == networks.keys():
                if marks[0]["Labels"][STAYS] != "yes":  # a run that was killed has left it
                    self._things.mark_whole(plan, stays=True)
                return None
            fresh = [node for node in plan.nodes if node.name not in kept]
            gone = [container for container in containers if host_of(container) not in kept]
            self._take_away(plan, gone, [networks[name] for name in networks.keys() - links], report)
            ids = {name: networks[name]["Id"] for name in links}
            for name in sorted(kept):  # first: the others probe the links to these
                self._tell_links(plan, after[name])
            built = self._hosts.build(plan, ids, fresh, report)
            self._things.mark_whole(plan, stays=True)
            return built

    def _refuse_if_anothers(self, lab: str) -> None:
        """A lab of this name may be somebody else's, or that of a run that goes on."""
        for labels in (thing["Labels"] for things in self._things.labelled(f"{LAB}={lab}") for thing in things):
            maker = labels.get(MAKER, "")
            runs = labels.get(STAYS) == "no" and maker != processes.this_one() and processes.is_known(maker)
            if labels.get(OWNER) != owner() or runs:
                what = f"lab {lab} is up, made by {labels.get(OWNER, 'nobody')}."
                raise Unavailable(what, "Give this one another name: --name LAB.")

    def _take_away(
        self, plan: Plan, containers: list[dict[str, Any]], networks: list[dict[str, Any]], report: Report
    ) -> None:
        names = sorted({container["Labels"][NAME] for container in containers} | {n["Labels"][NAME] for n in networks})
        if names:
            report(f"removing {', '.join(names)}")
        self._reach.end_sessions(plan.lab)
        with ThreadPoolExecutor(engine.WORKERS) as pool:
            remove = partial(self._api.remove_container, v=True, force=True)
            list(pool.map(partial(self._things.remove_one, remove), [container["Id"] for container in containers]))
            volumes = [mount["Name"] for container in containers for mount in container["Mounts"] if mount.get("Name")]
            own = [volume for volume in volumes if not self._is_used(volume)]
            list(pool.map(partial(self._things.remove_one, self._api.remove_volume), own))
            list(pool.map(partial(self._things.remove_one, self._api.remove_network), [n["Id"] for n in networks]))

    def _is_used(self, volume: str) -> bool:
        return bool(self._api.containers(all=True, filters={"volume": volume}))

    # ---- links that change

    def _tell_links(self, plan: Plan, node: HostPlan) -> None:
        for route in setup.routes(node):
            self._reach.root(plan.lab, node.name, f"ip {route} 2>/dev/null; echo")
        shaped = [
            self._reach.shape(plan.lab, node.name, interface, interface.shape, interface.underlay)
            for interface in node.interfaces
        ]
        if node.image is not None:
            return
        links = daemon.links(plan, node, by_netem=all(shaped))
        told = [{key: link[key] for key in link if key != "probe"} for link in links]
        self._reach.ask(plan.lab, node.name, "links", links=told, only=True)

    def nodes(self, lab: str) -> tuple[HostPlan, ...]:
        """As they were planned."""
        return self._things.nodes(lab)

    def attend(self, lab: str, hosts: Sequence[str]) -> None:
        """Open the sessions by which their links are changed."""
        nodes = {node.name: node for node in self.nodes(lab)}

        def attend_to(host: str) -> None:
            with suppress(Unavailable):  # the change itself will say so
                self._reach.attend(lab, nodes[host])

        with ThreadPoolExecutor(engine.WORKERS) as pool:
            list(pool.map(attend_to, hosts))

    def now(self, lab: str, node: HostPlan, interface: Interface) -> Now:
        """As the daemon says; of another chitcpd, as tc does."""
        if node.image is None:
            return daemon.now(self._reach.ask(lab, node.name, "link", peer=next(iter(interface.peers.values()))))
        return Now(*self._reach.shown(lab, node.name, interface))

    def reshape(self, lab: str, changes: Sequence[Reshape]) -> None:
        """Tell netem at all ends at once, then the daemons.

        What another chitcpd than ours sends meets only what netem does. Raises Unavailable if that is nothing of what
        is asked for, at all ends.
        """

        def shape(change: Reshape) -> bool:
            return self._reach.shape(lab, change.node, change.interface, change.shape, change.underlay)

        def tell(change: Reshape, by_netem: bool, foreign: bool) -> None:
            if not foreign:
                link = daemon.link(change.interface, change.shape, change.underlay, by_netem=by_netem)
                self._reach.ask(lab, change.node, "links", links=[link])

        with ThreadPoolExecutor(engine.WORKERS) as pool:
            foreign = list(pool.map(lambda change: self._reach.is_foreign(lab, change.node), changes))
            undone = [change for change in changes if not _is_for_netem(change)] if all(foreign) else []
            by_netem = [] if undone else list(pool.map(shape, changes))
            if all(foreign) and not all(by_netem):
                undone = [change for change in changes if shaping.has_work(change.shape, change.underlay)]
            if undone:
                raise _can_not(undone[0])
            list(pool.map(tell, changes, by_netem, foreign))

    def block(self, lab: str, host: str, addresses: Sequence[str]) -> None:
        """Tell the daemon."""
        self._reach.ask(lab, host, "block", peers=list(addresses))

    def deed(self, lab: str, host: str, deed: Deed) -> None:
        """Of the container, but for a chitcpd of ours that is started anew."""
        container = name_of(lab, "host", host)
        with engine.faults(), suppress(NotFound):
            found = self._api.inspect_container(container)
            state, foreign = found["State"], self._reach.is_foreign(lab, host)
            if not state["Running"] and deed != "restart":
                return
            if deed == "kill":
                self._api.kill(container)
            elif foreign and deed == "pause" and not state["Paused"]:
                self._api.pause(container)
            elif foreign and state["Paused"]:
                self._api.unpause(container)
            if foreign and deed == "restart":
                if state["Running"]:
                    self._apps.anew.add(found["Id"])
                self._api.restart(container, timeout=0)
                self._api.restart(name_of(lab, "beside", host), timeout=GRACE)  # its network was the other's
                self._reach.end_sessions(lab)
            elif not foreign and deed in ("pause", "resume"):
                engine.run(self._api, container, ["sh", "-c", setup.STAND_STILL[deed]], user=USER)
            elif deed == "restart":
                if state["Running"]:
                    engine.run(self._api, container, ["sh", "-c", setup.KILL_TO_BEGIN_AGAIN], user=USER)
                else:
                    self._api.start(container)
                    self._reach.end_sessions(lab)
                self._reach.ask(lab, host, "ping", wait=setup.READY_WITHIN)
                node = next(node for node in self.nodes(lab) if node.name == host)
                for interface in node.interfaces:
                    self._reach.shape(lab, host, interface, interface.shape, interface.underlay)

    def down(self, lab: str, report: Report) -> int:
        """Remove containers, then what they used."""
        with engine.faults():
            things = sum(len(some) for some in self._things.labelled(f"{LAB}={lab}"))
            if things:
                report(f"taking down {lab}")
            self._reach.end_sessions(lab)
            return self._things.remove(f"{LAB}={lab}")

    # ---- applications

    def start(self, plan: Plan, app: AppPlan) -> None:
        """A container for each."""
        self._apps.start(plan, app)

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """As its daemon says, or as it writes."""
        return self._apps.wait_ready(plan, app)

    def exits(self, plan: Plan) -> SimpleQueue[Exit]:
        """As the engine's events tell."""
        return self._apps.exits(plan)

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, SIGKILL three seconds later."""
        self._apps.stop(plan, app)

    def kill(self, lab: str, app: str, signal: str) -> bool:
        """To the application, past its container's init."""
        return self._apps.kill(lab, app, signal)

    def execute(self, lab: str, host: str, command: Sequence[str], *, terminal: bool) -> int:
        """In a container of its own, which goes with it."""
        return self._apps.execute(lab, host, command, terminal=terminal)

    # ---- what it leaves, and what is there

    def collect(self, plan: Plan, directory: Path) -> list[str]:
        """Stop and read out all hosts and applications at once."""
        self._readings.read_out(plan.lab, directory, stop=True)
        return []  # the engine reads as root

    def snapshot(self, lab: str, directory: Path) -> list[str]:
        """Read out the same while it goes on."""
        self._readings.read_out(lab, directory, stop=False)
        return []

    def recording(self, lab: str, node: str, recording: Recording, *, follow: bool) -> Iterator[bytes]:
        """Read by a command in the node's container."""
        return self._readings.recording(lab, node, recording, follow=follow)

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """What the containers wrote."""
        return self._readings.logs(lab, names, follow=follow)

    def labs(self) -> list[str]:
        """Whatever bears a lab's label."""
        return self._things.labs()

    def garbage(self) -> list[str]:
        """By the labels."""
        return self._things.garbage()

    def ps(self, lab: str | None) -> list[Item]:
        """Containers and networks; volumes belong to their containers."""
        return self._things.items(lab)


def _is_for_netem(change: Reshape) -> bool:
    """Whether netem does all of it that is not as it was planned."""
    left, planned = (shaping.left_for_chitcpd(shape) for shape in (change.shape, change.interface.shape))
    return left in (Shape(), planned)


def _can_not(change: Reshape) -> Unavailable:
    return Unavailable(
        f"what {change.node} sends over {change.interface.link} can't be changed so: its chitcpd is another, and netem "
        "does only delay, jitter, and a rate without a queue, where the kernel has it.",
        "Change what others send (`--from`), or see `testbed doctor`.",
    )


def _is_as(plan: Plan, name: str, network: dict[str, Any]) -> bool:
    """Whether a network is that of a link of the plan."""
    return any(link.name == name and link.subnet == subnet_of(network) for link in plan.links)
