"""Labs on a Docker engine: a container for each host and each application, an internal network for each link.

A host's container runs chitcpd as a user without rights, beside a script of root's that shapes and captures its links
with a few (`setup`). A router's is the same, and its kernel forwards IP. An application's container has no network at
all: it reaches its host's chitcpd through a UNIX socket on a volume, and nothing else. A host with an image of its own
has two containers: that image's, without rights, and on the same network one of ours with the script. Files travel
through the engine's API, so the engine may be remote.

    chitcp-LAB-link-L    network
    chitcp-LAB-host-H    container, and the volume on its /run/chitcp, where the socket is
    chitcp-LAB-beside-H  container beside that of another chitcpd
    chitcp-LAB-router-R  container
    chitcp-LAB-app-A     container, and the volume on its /work, where its files are
    chitcp-LAB-exec-X    container of `testbed exec`
    chitcp-LAB-volume-whole-X  volume without content: its labels say how the lab was planned, and that it came up

Everything bears labels, and what works on a lab that is up reads nothing else.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from threading import Thread
from typing import IO, Any, Literal

from docker import APIClient
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import Mount
from requests.exceptions import RequestException

from testbed import daemon, saved
from testbed.backends import engine, processes, setup, terminals
from testbed.backends.base import Built, Exit, Item, Now, Recording, Report
from testbed.backends.docker_hosts import WORKERS, Hosts
from testbed.backends.docker_labels import (
    FOREIGN,
    KIND,
    LAB,
    MAKER,
    NAME,
    NODES,
    OWNER,
    PRINT,
    RUN,
    SOCKET_DIRECTORY,
    STAYS,
    TCP_FILE,
    UID,
    USER,
    WORK,
    confined,
    environment,
    host_of,
    image,
    image_id,
    item_of,
    kind_of,
    labels_of,
    name_of,
    owner,
    print_of,
    subnet_of,
    subnets_in_use,
    volume,
)
from testbed.backends.docker_reach import Reach
from testbed.events import Deed, Reshape
from testbed.plan import AppPlan, HostPlan, Interface, Plan
from testbed.search import LineSearch
from testbed.unavailable import Unavailable

_GRACE = 3  # seconds between SIGTERM and SIGKILL
# `tail` alone would see that nobody reads it any more when it writes next, and that may be never.
_FOLLOW = 'tail -c +1 -f "$0" & cat >/dev/null; kill $!'


class DockerBackend:
    """Hosts and applications as containers."""

    name = "docker"
    pool = "10.213.0.0/16"

    def __init__(self) -> None:
        self._exits: dict[tuple[str, str], SimpleQueue[Exit]] = {}  # by lab and run
        self._begins: dict[str, float | None] = {}  # when an application's earlier life has written its last line
        self._anew: set[str] = set()  # containers that end because a deed starts them anew: nobody is told of it

    @cached_property
    def _api(self) -> APIClient:
        api = engine.connect(WORKERS)
        weakref.finalize(self, api.close)
        return api

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

    def up(self, plan: Plan, report: Report, *, stays: bool) -> Built:
        """Make networks, then all hosts at once; whatever happens, leave a lab that is whole, or nothing."""
        with engine.faults():
            if plan.lab in self.labs():
                raise Unavailable(f"lab {plan.lab} is up.", f"Take it down: testbed down {plan.lab}")
            try:
                built = self._hosts.build(plan, {}, plan.nodes, report)
                self._mark_whole(plan, stays=stays)
            except BaseException:
                report(f"taking down what there is of {plan.lab}")
                # By run as well: somebody else's lab of this name may have come in between.
                self._remove(f"{LAB}={plan.lab}", f"{RUN}={plan.run_id}")
                raise
            return built

    def change(self, plan: Plan, report: Report) -> Built | None:
        """Remove what is no longer wanted, or has to be another; make what is not there; tell the rest its links."""
        with engine.faults():
            self._refuse_if_anothers(plan.lab)
            marks = self._marks(plan.lab)
            before = {node.name: node for node in _nodes_in(marks[0])} if marks else {}
            after = {node.name: node for node in plan.nodes}
            containers = self._containers(f"{LAB}={plan.lab}")
            prints = {
                container["Labels"][NAME]: container["Labels"][PRINT]
                for container in containers
                if container["State"] == "running" and PRINT in container["Labels"]
            }
            own = prints.keys() & before.keys()  # of a lab that never came up whole: none
            networks = {network["Labels"][NAME]: network for network in self._networks(f"{LAB}={plan.lab}")}
            links = {name for name, network in networks.items() if _is_as(plan, name, network)}
            kept = {
                name
                for name in own & after.keys()
                if prints[name] == print_of(plan, after[name])
                and links.issuperset(end.link for end in after[name].interfaces)
            }
            as_planned = saved.kept(plan.nodes) == tuple(before.values())
            if as_planned and kept == after.keys() and links == networks.keys():
                if marks[0]["Labels"][STAYS] != "yes":  # a run that was killed has left it
                    self._mark_whole(plan, stays=True)
                return None
            gone = [container for container in containers if host_of(container) not in kept]
            self._take_away(plan, gone, [networks[name] for name in networks.keys() - links], report)
            ids = {name: networks[name]["Id"] for name in links}
            for name in sorted(kept):  # first: the others probe the links to these
                self._tell_links(plan, after[name])
            built = self._hosts.build(plan, ids, [node for node in plan.nodes if node.name not in kept], report)
            self._mark_whole(plan, stays=True)
            return built

    def _refuse_if_anothers(self, lab: str) -> None:
        """A lab of this name may be somebody else's, or that of a run that goes on."""
        for labels in (thing["Labels"] for things in self._labelled(f"{LAB}={lab}") for thing in things):
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
        with ThreadPoolExecutor(WORKERS) as pool:
            remove = partial(self._api.remove_container, v=True, force=True)
            list(pool.map(partial(self._remove_one, remove), [container["Id"] for container in containers]))
            volumes = [mount["Name"] for container in containers for mount in container["Mounts"] if mount.get("Name")]
            own = [volume for volume in volumes if not self._is_used(volume)]
            list(pool.map(partial(self._remove_one, self._api.remove_volume), own))
            list(pool.map(partial(self._remove_one, self._api.remove_network), [n["Id"] for n in networks]))

    def _is_used(self, volume: str) -> bool:
        return bool(self._api.containers(all=True, filters={"volume": volume}))

    def _mark_whole(self, plan: Plan, *, stays: bool) -> None:
        """The new mark first, then the old one goes: at no moment is a lab that is whole without one."""
        before = self._marks(plan.lab)
        nodes = json.dumps([saved.dump(node) for node in plan.nodes])
        self._api.create_volume(
            name_of(plan.lab, "volume", f"whole-{token_hex(4)}"),
            labels={**labels_of(plan, "volume", "whole"), STAYS: "yes" if stays else "no", NODES: nodes},
        )
        for mark in before:
            self._remove_one(self._api.remove_volume, mark["Name"])

    def _marks(self, lab: str) -> list[dict[str, Any]]:
        """The volumes that say that the lab is whole, the latest first."""
        found = self._api.volumes(filters={"label": [f"{LAB}={lab}", f"{NAME}=whole"]})["Volumes"] or []
        return sorted(found, key=lambda volume: str(volume["CreatedAt"]), reverse=True)

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
        """As they were planned: the volume `whole` says it."""
        with engine.faults():
            marks = self._marks(lab)
            if not marks:
                raise Unavailable(f"lab {lab} never came up whole.", f"Remove what is there of it: testbed down {lab}")
            return _nodes_in(marks[0])

    def attend(self, lab: str, hosts: Sequence[str]) -> None:
        """Open the sessions by which their links are changed."""
        nodes = {node.name: node for node in self.nodes(lab)}
        for host in hosts:
            with suppress(Unavailable):  # the change itself will say so
                devices = "; ".join(map(setup.find_device, nodes[host].interfaces))
                self._reach.root(lab, host, f"{devices}; echo")
                self._reach.ask(lab, host, "ping")

    def now(self, lab: str, node: HostPlan, interface: Interface) -> Now:
        """As the daemon says; of another chitcpd, as tc does."""
        if node.image is None:
            return daemon.now(self._reach.ask(lab, node.name, "link", peer=next(iter(interface.peers.values()))))
        return Now(interface.shape, interface.underlay)

    def reshape(self, lab: str, changes: Sequence[Reshape]) -> None:
        """Tell netem at all ends at once, then the daemons."""

        def shape(change: Reshape) -> bool:
            return self._reach.shape(lab, change.node, change.interface, change.shape, change.underlay)

        def tell(change: Reshape, by_netem: bool) -> None:
            if not self._reach.is_foreign(lab, change.node):
                link = daemon.link(change.interface, change.shape, change.underlay, by_netem=by_netem)
                self._reach.ask(lab, change.node, "links", links=[link])

        with ThreadPoolExecutor(WORKERS) as pool:
            by_netem = list(pool.map(shape, changes))
            list(pool.map(tell, changes, by_netem))

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
                    self._anew.add(found["Id"])
                self._api.restart(container, timeout=0)
                self._api.restart(name_of(lab, "beside", host), timeout=_GRACE)  # its network was the other's
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

    def kill(self, lab: str, app: str, signal: str) -> None:
        """To the application, past its container's init."""
        with suppress(APIError):  # it has ended
            self._api.kill(name_of(lab, "app", app), signal)

    # ---- applications

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Make an application's container, with its files on a volume, and start it; anew, if it is there."""
        api, host = self._api, plan.node(app.host)
        with engine.faults():
            name = name_of(plan.lab, "app", app.name)
            with suppress(NotFound):
                end = engine.end_of_log(api, name)
                api.start(name)
                self._begins[name] = end
                return
            self._begins.pop(name, None)  # it was of another lab
            container = api.create_container(
                image(),
                list(app.run),
                name=name,
                hostname=host.name,
                user=USER,
                working_dir=WORK,
                labels=labels_of(plan, "app", app.name),
                environment={**environment(host), **app.env},
                host_config=self._of_an_application(
                    name_of(plan.lab, "host", app.host),
                    [volume(plan, "app", app.name, WORK)],
                    memory=app.memory,
                    processes=app.processes,
                ),
            )["Id"]
            engine.put_files(api, container, WORK, app.files, owner=UID, executables=app.executables)
            api.start(container)

    def _of_an_application(self, socket: str, mounts: list[Mount], *, memory: int, processes: int) -> dict[str, Any]:
        config: dict[str, Any] = self._api.create_host_config(
            **{**confined(), "mem_limit": memory, "pids_limit": processes},
            security_opt=["no-new-privileges"],
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": "size=64m"},
            mounts=[Mount(SOCKET_DIRECTORY, socket, read_only=True, no_copy=True), *mounts],
        )
        return config

    def execute(self, lab: str, host: str, command: Sequence[str], *, terminal: bool) -> int:
        """In a container of its own, which goes with it."""
        with engine.faults():
            beside = self._api.inspect_container(name_of(lab, "host", host))["Config"]["Labels"]
            node = next(node for node in self.nodes(lab) if node.name == host)
            name = f"exec-{token_hex(4)}"
            container = self._api.create_container(
                image(),
                list(command),
                name=name_of(lab, "exec", name),
                hostname=host,
                user=USER,
                working_dir="/tmp",
                tty=terminal,
                stdin_open=True,
                labels={**beside, KIND: "exec", NAME: name, PRINT: ""},
                environment={**environment(node), "TERM": os.environ.get("TERM", "dumb")},
                host_config=self._of_an_application(name_of(lab, "host", host), [], memory=2**29, processes=256),
            )["Id"]
            try:
                return terminals.run(self._api, container, tty=terminal)
            finally:
                with suppress(NotFound):
                    self._api.remove_container(container, v=True, force=True)

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Ask the daemon from inside its container, or read what the application writes; and see whether it ends first.

        A daemon that ends takes the command that asks it along.
        """
        answers: SimpleQueue[bool] = SimpleQueue()
        container = name_of(plan.lab, "app", app.name)

        def serves() -> bool:
            if app.says is not None:
                return bool(search.found())
            command = ["chitcpd", "ctl", "--wait", str(app.timeout), "listening", str(app.listening)]
            return engine.run(self._api, name_of(plan.lab, "host", app.host), command, user=USER).status == 0

        def ended() -> bool:
            self._api.wait(container, timeout=None)
            return False

        def answer(question: Callable[[], bool]) -> None:
            try:
                answers.put(question())
            except (APIError, RequestException):  # one of the containers is not there, or not running, any more
                answers.put(False)

        with ExitStack() as stack:
            if app.says is not None:
                search = stack.enter_context(LineSearch(app.says, self._written(container)))
            for question in (serves, ended):
                # Daemons: the slower one ends with its container, and nobody should have to wait for that.
                Thread(target=answer, args=(question,), daemon=True).start()
            try:
                return answers.get(timeout=app.timeout + 1)
            except Empty:
                return False

    def _written(self, container: str) -> Iterator[bytes]:
        """What an application writes; of what an earlier life of it has written, nothing."""
        with suppress(APIError, RequestException):  # its container is not there any more
            pieces = self._api.logs(container, stream=True, follow=True, since=self._begins.get(container))
            with engine.closing(pieces):
                yield from pieces

    def exits(self, plan: Plan) -> SimpleQueue[Exit]:
        """Filled by a thread that follows the engine's events."""
        run = (plan.lab, plan.run_id)
        if run not in self._exits:
            self._exits[run] = SimpleQueue()
            Thread(target=self._follow, args=(plan, self._exits[run]), daemon=True).start()
        return self._exits[run]

    def _follow(self, plan: Plan, exits: SimpleQueue[Exit]) -> None:
        """Tell each end once, until the last of the run's containers has been removed."""
        label = [f"{LAB}={plan.lab}", f"{RUN}={plan.run_id}"]
        told: set[tuple[str, str]] = set()

        def tell(container: str) -> None:
            found = self._api.inspect_container(container)
            end = (container, found["State"]["FinishedAt"])  # it may be started anew, and end once more
            if found["State"]["Status"] in ("exited", "removing", "dead") and end not in told:
                told.add(end)
                put(found["Config"]["Labels"], found["State"]["ExitCode"])

        def put(labels: dict[str, str], status: int) -> None:
            kind: Literal["host", "app"] = "app" if labels[KIND] == "app" else "host"
            if labels[KIND] not in ("beside", "helper", "exec"):
                exits.put(Exit(kind, labels[NAME], status))

        # From the first moment on (`since`): the engine repeats the events that it remembers. It remembers a few
        # hundred, so look at what has ended as well.
        events = self._api.events(
            since=1, decode=True, filters={"type": "container", "event": ["die", "destroy"], "label": label}
        )
        with engine.closing(events), suppress(RequestException):  # the engine has ended
            for container in self._containers(*label):
                with suppress(NotFound):
                    tell(container["Id"])
            for event in events:
                container, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
                if event["Action"] == "die" and container in self._anew:
                    self._anew.remove(container)
                elif event["Action"] == "die":
                    try:
                        tell(container)
                    except NotFound:  # somebody has removed it
                        if container not in {ended for ended, _ in told}:
                            put(attributes, int(attributes["exitCode"]))
                elif not self._containers(*label):
                    return

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, SIGKILL three seconds later."""
        with engine.faults(), suppress(NotFound):
            self._api.stop(name_of(plan.lab, "app", app.name), timeout=_GRACE)

    # ---- what it leaves

    def collect(self, plan: Plan, directory: Path) -> None:
        """Stop and read out all hosts and applications at once."""
        self._read_out(f"{LAB}={plan.lab}", directory, stop=True)

    def snapshot(self, lab: str, directory: Path) -> None:
        """Read out the same while it goes on."""
        self._read_out(f"{LAB}={lab}", directory, stop=False)

    def _read_out(self, label: str, directory: Path, *, stop: bool) -> None:
        def read_out(container: dict[str, Any]) -> None:
            self._read_out_one(container, directory, stop=stop)

        with engine.faults(), ThreadPoolExecutor(WORKERS) as pool:
            own = self._containers(label)
            for last in (False, True):  # those beside the others have the captures, and see the end
                list(pool.map(read_out, [one for one in own if (one["Labels"][KIND] == "beside") == last]))

    def _read_out_one(self, container: dict[str, Any], directory: Path, *, stop: bool) -> None:
        kind, name, id_ = container["Labels"][KIND], container["Labels"][NAME], container["Id"]
        with suppress(NotFound):
            if stop:
                self._api.stop(id_, timeout=_GRACE)
            if kind == "app":
                here = directory / "apps" / name
                here.mkdir(parents=True, exist_ok=True)
                self._save_log(id_, here / "stdout", stdout=True, stderr=False)
                self._save_log(id_, here / "stderr", stdout=False, stderr=True)
                for path, content in engine.get_files(self._api, id_, WORK):
                    _save(content, here / "files" / path)
            elif kind in ("host", "router", "beside"):
                here = directory / "hosts" / name
                here.mkdir(parents=True, exist_ok=True)
                is_ours = FOREIGN not in container["Labels"]
                if kind != "beside":
                    self._save_log(id_, here / "chitcpd.log", stdout=not is_ours, stderr=True)
                if is_ours:
                    for path, content in engine.get_files(self._api, id_, setup.DATA):
                        if str(path) != TCP_FILE and not path.name.startswith("."):
                            _save(content, here / path)

    def _save_log(self, container: str, path: Path, *, stdout: bool, stderr: bool) -> None:
        with path.open("wb") as file:
            file.writelines(self._api.logs(container, stdout=stdout, stderr=stderr, stream=True, follow=False))

    def recording(self, lab: str, node: str, recording: Recording, *, follow: bool) -> Iterator[bytes]:
        """Read by a command in the node's container."""
        path = setup.WIRE if recording == "wire" else setup.SEGMENTS
        with engine.faults():
            found = next(one for one in self.nodes(lab) if one.name == node)
            container = name_of(lab, kind_of(found), node)
            if engine.run(self._api, container, ["test", "-e", path], user="root").status != 0:
                raise Unavailable(
                    f"{node} of lab {lab} has no capture of {recording}.", "See `capture:` in the topology."
                )
            command = ["sh", "-c", _FOLLOW, path] if follow else ["cat", path]
            return engine.output(self._api, container, command, user="root")

    # ---- what is there

    def labs(self) -> list[str]:
        """Whatever bears a lab's label."""
        with engine.faults():
            return sorted({thing["Labels"][LAB] for things in self._labelled(LAB) for thing in things})

    def garbage(self) -> list[str]:
        """By the labels: what is ours, is not marked as whole and to stay, and was made by a process that is gone."""
        with engine.faults():
            things = list(chain.from_iterable(self._labelled(f"{OWNER}={owner()}")))
        labels = [thing["Labels"] for thing in things]
        stays = {own[LAB] for own in labels if own.get(STAYS) == "yes" or processes.is_known(own.get(MAKER, ""))}
        return sorted({own[LAB] for own in labels} - stays)

    def ps(self, lab: str | None) -> list[Item]:
        """Containers and networks; volumes belong to their containers."""
        label = LAB if lab is None else f"{LAB}={lab}"
        with engine.faults(), ThreadPoolExecutor(WORKERS) as pool:
            containers, networks, _ = self._labelled(label)
            containers = [c for c in containers if c["Labels"][KIND] not in ("beside", "helper")]
            items = [item for item in pool.map(self._container_item, containers) if item is not None]
            items += [item_of(network["Labels"], "link", "up", subnet_of(network)) for network in networks]
        order = ("host", "router", "app", "link")
        return sorted(items, key=lambda item: (item.lab, order.index(item.kind), item.name))

    def _container_item(self, container: dict[str, Any]) -> Item | None:
        try:
            found = self._api.inspect_container(container["Id"])
        except NotFound:
            return None
        state = found["State"]
        told = f"exited {state['ExitCode']}" if state["Status"] == "exited" else str(state["Status"])
        if container["Labels"][KIND] in ("app", "exec"):
            return item_of(container["Labels"], "app", told, shlex.join(found["Config"]["Cmd"]))
        ends = found["NetworkSettings"]["Networks"].values()
        addresses = [end["IPAMConfig"]["IPv4Address"] for end in ends if end["IPAMConfig"]]
        kind: Literal["host", "router"] = "router" if container["Labels"][KIND] == "router" else "host"
        return item_of(container["Labels"], kind, told, " ".join(addresses))

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """What the containers wrote, one after the other; with `follow` as it comes, until all have ended."""
        with engine.faults():
            containers = sorted(self._containers(f"{LAB}={lab}"), key=lambda container: container["Created"])
        named = [
            (container["Labels"][NAME], container["Id"], container["Labels"][KIND] in ("app", "exec"))
            for container in containers
            if container["Labels"][KIND] not in ("beside", "helper")
        ]
        chosen = [one for one in named if not names or one[0] in names]
        if follow:
            yield from self._followed(chosen)
        else:
            yield from chain.from_iterable(self._lines(*one, follow=False) for one in chosen)

    def _lines(self, name: str, container: str, both: bool, *, follow: bool) -> Iterator[tuple[str, str]]:
        """`both`: its standard output too; a host's script and its chitcpd tell us things there."""
        with suppress(NotFound):
            pieces = self._api.logs(container, stdout=both, stream=True, follow=follow)
            with engine.closing(pieces):
                yield from ((name, line) for line in engine.lines(pieces))

    def _followed(self, chosen: list[tuple[str, str, bool]]) -> Iterator[tuple[str, str]]:
        """Lines of all at once, each container read by a thread."""
        read: SimpleQueue[tuple[str, str] | None] = SimpleQueue()

        def follow(name: str, container: str, both: bool) -> None:
            try:
                for line in self._lines(name, container, both, follow=True):
                    read.put(line)
            finally:
                read.put(None)

        for one in chosen:
            Thread(target=follow, args=one, daemon=True).start()
        ended = 0
        while ended < len(chosen):
            line = read.get()
            if line is None:
                ended += 1
            else:
                yield line

    def down(self, lab: str, report: Report) -> int:
        """Remove containers, then what they used."""
        with engine.faults():
            things = sum(len(some) for some in self._labelled(f"{LAB}={lab}"))
            if things:
                report(f"taking down {lab}")
            self._reach.end_sessions(lab)
            return self._remove(f"{LAB}={lab}")

    def _remove(self, *label: str) -> int:
        """Remove all that bears these labels, until nothing does; return how many things that were.

        Again and again, because a controller that was killed may have asked the engine for something that comes only
        now; and another `down` may be at work on the same.
        """
        api = self._api
        removed = 0
        while any(found := self._labelled(*label)):
            containers, networks, volumes = found
            with ThreadPoolExecutor(WORKERS) as pool:
                for remove, ids in (
                    (partial(api.remove_container, v=True, force=True), [c["Id"] for c in containers]),
                    (api.remove_network, [network["Id"] for network in networks]),
                    (api.remove_volume, [volume["Name"] for volume in volumes]),
                ):
                    removed += sum(pool.map(partial(self._remove_one, remove), ids))
        return removed

    def _remove_one(self, remove: Callable[[str], None], thing: str) -> bool:
        """Whether it was us who removed it."""
        try:
            remove(thing)
        except NotFound:
            return False
        except APIError as error:
            if not engine.is_status(error, 409) or "already in progress" not in str(error.explanation):
                raise
            with suppress(NotFound):
                self._api.wait(thing, condition="removed")
            return False
        return True

    def _containers(self, *label: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.containers(all=True, filters={"label": list(label)})
        return found

    def _networks(self, *label: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.networks(filters={"label": list(label)})
        return found

    def _labelled(self, *label: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Containers, networks, volumes with all of these labels."""
        networks = self._networks(*label)
        volumes = self._api.volumes(filters={"label": list(label)})["Volumes"] or []
        return self._containers(*label), networks, volumes


def _nodes_in(mark: dict[str, Any]) -> tuple[HostPlan, ...]:
    return tuple(map(saved.load, json.loads(mark["Labels"][NODES])))


def _is_as(plan: Plan, name: str, network: dict[str, Any]) -> bool:
    """Whether a network is that of a link of the plan."""
    return any(link.name == name and link.subnet == subnet_of(network) for link in plan.links)


def _save(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)
