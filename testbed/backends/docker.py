"""Labs on a Docker engine: a container for each host and each application, an internal network for each link.

A host's container runs chitcpd as a user without rights; what shapes and captures its links are commands of root's in
that container, with a few capabilities. An application's container has no network at all: it reaches its host's chitcpd
through a UNIX socket on a volume, and nothing else. Files travel through the engine's API, so the engine may be remote.

    chitcp-LAB-link-L    network
    chitcp-LAB-host-H    container, and the volume on its /run/chitcp, where the socket is
    chitcp-LAB-app-A     container, and the volume on its /work, where its files are

Everything bears labels, and `down`, `labs`, `ps` and `logs` read nothing else.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import shlex
import shutil
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, Literal

from docker import APIClient
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import IPAMConfig, IPAMPool, LogConfig, Mount
from requests.exceptions import RequestException

from chitcpd import __version__
from testbed import shaping
from testbed.backends import engine
from testbed.backends.base import Built, Exit, Item, Mechanism, Report, Unavailable
from testbed.plan import AppPlan, HostPlan, Interface, LinkPlan, Plan, daemon_options

LAB, RUN, KIND, NAME = "org.chitcp.lab", "org.chitcp.run", "org.chitcp.kind", "org.chitcp.name"
Kind = Literal["host", "app", "link", "volume"]

# The image's side of the contract: see the Dockerfile.
USER, OWNER = "chitcp", 23300
SOCKET_DIRECTORY, DATA, WORK = "/run/chitcp", "/var/lib/chitcp", "/work"
SEGMENTS, TRACE, WIRE = f"{DATA}/segments.pcap", f"{DATA}/trace.jsonl", f"{DATA}/wire.pcap"
TCP_FILE = "tcp.py"

_WORKERS = 8  # requests at a time; an engine does not become faster with more
_READY_WITHIN = 20  # seconds until a chitcpd answers; long, because a busy machine starts Python slowly
_SET_UP = f'chitcpd ctl --wait {_READY_WITHIN} request links "$1" >/dev/null && chitcpd ctl ping'
_GRACE = 3  # seconds between SIGTERM and SIGKILL
_LAST_LINES = 5  # of a log, in a message

# Each packet is written when it passes (`-U`, immediate), so that nothing is lost when the capture is stopped. Offloads
# are off: no packet is longer than 1600 bytes, and many fit the kernel's buffer of 8 MiB.
_TCPDUMP = f"tcpdump -i any -n -p -U --immediate-mode -s 1600 -B 8192 -Z root -w {WIRE} tcp port 23300"
_START_CAPTURE = f"echo $$ >/run/tcpdump.pid && exec {_TCPDUMP}"
_STOP_CAPTURE = f"pid=$(cat /run/tcpdump.pid) && kill $pid && timeout {_GRACE} tail -s 0.02 --pid=$pid -f /dev/null"


class DockerBackend:
    """Hosts and applications as containers."""

    name = "docker"
    pool = "10.213.0.0/16"

    def __init__(self) -> None:
        self._exits: dict[tuple[str, str], SimpleQueue[Exit]] = {}  # by lab and run

    @cached_property
    def _api(self) -> APIClient:
        api = engine.connect(_WORKERS)
        weakref.finalize(self, api.close)
        return api

    def check(self) -> None:
        """Raise Unavailable if no engine answers this user, or if it does not have the image."""
        with engine.faults():
            try:
                self._image_id()
            except ImageNotFound as error:
                what = f"the Docker engine does not have the image {_image()}."
                raise Unavailable(what, "Build it in the project's directory: make image") from error

    def _image_id(self) -> str:
        return str(self._api.inspect_image(_image())["Id"])  # type: ignore[no-untyped-call]

    def subnets_in_use(self) -> dict[str, str]:
        """Subnets of all networks of the engine, ours or not."""
        with engine.faults():
            return {subnet: owner for network in self._api.networks() for subnet, owner in _subnets(network)}

    def up(self, plan: Plan, report: Report) -> Built:
        """Make networks, then all hosts at once; whatever happens, leave a lab that is whole, or nothing."""
        with engine.faults():
            if plan.lab in self.labs():
                raise Unavailable(f"lab {plan.lab} is up.", f"Take it down: testbed down {plan.lab}")
            try:
                return self._build(plan, report)
            except BaseException:
                report(f"taking down what there is of {plan.lab}")
                # By run as well: somebody else's lab of this name may have come in between.
                self._remove(f"{LAB}={plan.lab}", f"{RUN}={plan.run_id}")
                raise

    def _build(self, plan: Plan, report: Report) -> Built:
        with ThreadPoolExecutor(_WORKERS) as pool:
            report(f"making the networks of {', '.join(link.name for link in plan.links)}")
            networks = dict(
                zip(
                    (link.name for link in plan.links),
                    pool.map(partial(self._make_link, plan), plan.links),
                    strict=True,
                )
            )
            report(f"starting chitcpd on {', '.join(host.name for host in plan.hosts)}")
            hosts = list(pool.map(partial(self._make_host, plan, networks), plan.hosts))
        about = self._api.version()
        return Built(
            mechanisms=[mechanism for shaped, _, _ in hosts for mechanism in shaped],
            versions={
                "chitcpd": ", ".join(sorted({version for _, version, _ in hosts})),
                "docker": about["Version"],
                "kernel": about["KernelVersion"],
                "image": f"{_image()} {self._image_id()}",
            },
            notes=[note for _, _, note in hosts if note],
        )

    def _make_link(self, plan: Plan, link: LinkPlan) -> str:
        """Make a link's network; return its id."""
        try:
            network = self._api.create_network(
                _name(plan, "link", link.name),
                driver="bridge",
                internal=True,
                ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=link.subnet)]),
                labels=_labels(plan, "link", link.name),
            )
        except APIError as error:
            if "overlap" not in str(error.explanation).lower():
                raise
            wanted = ipaddress.ip_network(link.subnet)
            owners = (
                owner
                for subnet, owner in self.subnets_in_use().items()
                if wanted.overlaps(ipaddress.ip_network(subnet))
            )
            owner = next(owners, "a network that the engine does not list")
            raise Unavailable(
                f"the subnet {link.subnet} of link {link.name} is in use by {owner}.",
                "Take that down, or give the link another `subnet:`, or none.",
            ) from error
        return str(network["Id"])

    def _make_host(self, plan: Plan, networks: dict[str, str], host: HostPlan) -> tuple[list[Mechanism], str, str]:
        """Start a host's chitcpd and set its links up; return how they are shaped, its version, and a note if due."""
        container = self._start_daemon(plan, networks, host)
        try:
            shaped = [self._shape(container, host, interface) for interface in host.interfaces]
            note = self._start_capture(container, host) if plan.capture_wire else ""
            links = [
                _link(interface, by_netem=mechanism.delay_jitter_rate == "netem")
                for interface, mechanism in zip(host.interfaces, shaped, strict=True)
            ]
            answer = engine.run(self._api, container, ["sh", "-c", _SET_UP, "sh", json.dumps({"links": links})])
        except APIError as error:  # no command can be run in a container that has ended
            if self._ended(container) is None:
                raise
            raise self._did_not_start(host, container, "") from error
        if answer.status != 0:
            raise self._did_not_start(host, container, answer.stderr)
        return shaped, json.loads(answer.stdout)["version"], note

    def _start_daemon(self, plan: Plan, networks: dict[str, str], host: HostPlan) -> str:
        api = self._api
        volume = self._make_volume(plan, "host", host.name)
        ends = [(networks[interface.link], interface.address) for interface in host.interfaces]
        options = daemon_options(plan, host, trace=TRACE, segments=SEGMENTS, implementation=f"{DATA}/{TCP_FILE}")
        container = api.create_container(
            _image(),
            ["chitcpd", *options],
            name=_name(plan, "host", host.name),
            hostname=host.name,
            user=USER,
            labels=_labels(plan, "host", host.name),
            environment=_environment(host),
            host_config=api.create_host_config(
                **_confined(),
                # For root's commands: tc, tcpdump, and what tcpdump does to its own identity. Nothing that runs as
                # another user can make use of them, and the image has no setuid program to become root with.
                # (`no-new-privileges` would take them from root's commands as well.)
                cap_add=["NET_ADMIN", "NET_RAW", "SETGID", "SETUID"],
                network_mode=ends[0][0] if ends else "none",
                mounts=[Mount(SOCKET_DIRECTORY, volume)],
            ),
            networking_config=_endpoint(api, *ends[0]) if ends else None,
        )["Id"]
        for network, address in ends[1:]:
            api.connect_container_to_network(container, network, ipv4_address=address)
        if host.implementation is not None:
            engine.put_files(api, container, DATA, {TCP_FILE: host.implementation}, owner=OWNER)
        api.start(container)
        return str(container)

    def _shape(self, container: str, host: HostPlan, interface: Interface) -> Mechanism:
        """Have netem delay what leaves an interface, where that is asked for and the kernel can."""
        mechanism = Mechanism(interface.link, f"{host.name}->{interface.peer}")
        shape = interface.shape
        wanted = shaping.left_for_chitcpd(shape) != shape
        command = _shaping_command(interface.address, shaping.netem(shape, mtu=interface.mtu) if wanted else [])
        ran = engine.run(self._api, container, ["sh", "-euc", command], user="root")
        if wanted and ran.status == 0:
            _compare(interface, ran.stdout)
            mechanism.delay_jitter_rate = "netem"
        elif wanted:
            mechanism.delay_jitter_rate = "chitcpd"
            mechanism.why = _why_no_netem(ran.stderr)
        return mechanism

    def _start_capture(self, container: str, host: HostPlan) -> str:
        """Start tcpdump, and return when it listens; if it does not, say why."""
        said = engine.start_until(self._api, container, ["sh", "-c", _START_CAPTURE], "listening on", user="root")
        return f"no capture of the wire on {host.name}: {said.splitlines()[-1]}" if said else ""

    def _did_not_start(self, host: HostPlan, container: str, said: str) -> Unavailable:
        status = self._ended(container)
        try:
            log = self._api.logs(container, tail=_LAST_LINES).decode(errors="replace").strip().splitlines()
        except APIError:
            return Unavailable(
                f"the container of {host.name} was removed while it started.",
                "Somebody has taken this lab down (testbed down --all?): try again.",
            )
        how = f"ended with status {status} as it started" if status is not None else f"does not answer ({said.strip()})"
        return Unavailable(
            f"chitcpd of {host.name} {how}; its log says:\n  " + ("\n  ".join(log) or "nothing"),
            "Mend what the log complains of, then try again.",
        )

    def _ended(self, container: str) -> int | None:
        """The status with which a container has ended, or does within two seconds; None if it runs on."""
        with suppress(RequestException):  # also the time-out
            return int(self._api.wait(container, timeout=2)["StatusCode"])
        return None

    def _make_volume(self, plan: Plan, kind: Literal["host", "app"], name: str) -> str:
        volume = _name(plan, kind, name)
        self._api.create_volume(volume, labels=_labels(plan, "volume", f"{kind}-{name}"))
        return volume

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Make an application's container, with its files on a volume, and start it."""
        api = self._api
        host = next(host for host in plan.hosts if host.name == app.host)
        with engine.faults():
            work = self._make_volume(plan, "app", app.name)
            container = api.create_container(
                _image(),
                list(app.run),
                name=_name(plan, "app", app.name),
                hostname=host.name,
                user=USER,
                working_dir=WORK,
                labels=_labels(plan, "app", app.name),
                environment={**_environment(host), **app.env},
                host_config=api.create_host_config(
                    **_confined(),
                    security_opt=["no-new-privileges"],
                    network_mode="none",
                    read_only=True,
                    tmpfs={"/tmp": "size=64m"},
                    mounts=[
                        Mount(SOCKET_DIRECTORY, _name(plan, "host", app.host), read_only=True),
                        Mount(WORK, work),
                    ],
                ),
            )["Id"]
            engine.put_files(api, container, WORK, app.files, owner=OWNER, executables=app.executables)
            api.start(container)

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Ask the daemon from inside its container, and the engine for the end of the application; see who is first.

        A daemon that ends takes the command that asks it along.
        """
        answers: SimpleQueue[bool] = SimpleQueue()

        def listening() -> bool:
            command = ["chitcpd", "ctl", "--wait", str(app.timeout), "listening", str(app.listening)]
            return engine.run(self._api, _name(plan, "host", app.host), command).status == 0

        def ended() -> bool:
            self._api.wait(_name(plan, "app", app.name), timeout=None)
            return False

        def answer(question: Callable[[], bool]) -> None:
            try:
                answers.put(question())
            except (APIError, RequestException):  # one of the containers is not there, or not running, any more
                answers.put(False)

        for question in (listening, ended):
            # Daemons: the slower one ends with its container, and nobody should have to wait for that.
            Thread(target=answer, args=(question,), daemon=True).start()
        return answers.get()

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
        told: set[str] = set()

        def tell(container: str) -> None:
            with suppress(NotFound):  # of an earlier run, or removed by now
                found = self._api.inspect_container(container)
                if found["State"]["Status"] == "exited" and container not in told:
                    told.add(container)
                    labels = found["Config"]["Labels"]
                    kind: Literal["host", "app"] = "host" if labels[KIND] == "host" else "app"
                    exits.put(Exit(kind, labels[NAME], found["State"]["ExitCode"]))

        # From the first moment on (`since`): the engine repeats the events that it remembers. It remembers a few
        # hundred, so look at what has ended as well.
        events = self._api.events(
            since=1, decode=True, filters={"type": "container", "event": ["die", "destroy"], "label": label}
        )
        with closing(events), suppress(RequestException):  # the engine has ended
            for container in self._containers(*label):
                tell(container["Id"])
            for event in events:
                if event["Action"] == "die":
                    tell(event["Actor"]["ID"])
                elif not self._containers(*label):
                    return

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, SIGKILL three seconds later."""
        with engine.faults(), suppress(NotFound):
            self._api.stop(_name(plan, "app", app.name), timeout=_GRACE)

    def collect(self, plan: Plan, directory: Path) -> None:
        """Stop and read out all hosts and applications at once."""
        with engine.faults(), ThreadPoolExecutor(_WORKERS) as pool:
            jobs = [pool.submit(self._collect_host, plan, host, directory / "hosts" / host.name) for host in plan.hosts]
            jobs += [pool.submit(self._collect_app, plan, app, directory / "apps" / app.name) for app in plan.apps]
            for job in jobs:
                job.result()

    def _collect_host(self, plan: Plan, host: HostPlan, directory: Path) -> None:
        container = _name(plan, "host", host.name)
        with suppress(NotFound):
            if plan.capture_wire:
                self._stop_capture(container)
            self._api.stop(container, timeout=_GRACE)
            directory.mkdir(parents=True, exist_ok=True)
            self._save_log(container, directory / "chitcpd.log", stdout=True, stderr=True)
            for path, content in engine.get_files(self._api, container, DATA):
                if str(path) != TCP_FILE:
                    _save(content, directory / path)

    def _stop_capture(self, container: str) -> None:
        with suppress(APIError):  # the container has ended, and the capture with it
            engine.run(self._api, container, ["sh", "-c", _STOP_CAPTURE], user="root")

    def _collect_app(self, plan: Plan, app: AppPlan, directory: Path) -> None:
        container = _name(plan, "app", app.name)
        with suppress(NotFound):
            self._api.stop(container, timeout=_GRACE)
            directory.mkdir(parents=True, exist_ok=True)
            self._save_log(container, directory / "stdout", stdout=True, stderr=False)
            self._save_log(container, directory / "stderr", stdout=False, stderr=True)
            for path, content in engine.get_files(self._api, container, WORK):
                _save(content, directory / "files" / path)

    def _save_log(self, container: str, path: Path, *, stdout: bool, stderr: bool) -> None:
        with path.open("wb") as file:
            file.writelines(self._api.logs(container, stdout=stdout, stderr=stderr, stream=True, follow=False))

    def labs(self) -> list[str]:
        """Whatever bears a lab's label."""
        with engine.faults():
            return sorted({thing["Labels"][LAB] for things in self._labelled(LAB) for thing in things})

    def ps(self, lab: str | None) -> list[Item]:
        """Containers and networks; volumes belong to their containers."""
        label = LAB if lab is None else f"{LAB}={lab}"
        with engine.faults(), ThreadPoolExecutor(_WORKERS) as pool:
            containers, networks, _ = self._labelled(label)
            items = [item for item in pool.map(self._container_item, containers) if item is not None]
            items += [_item(network["Labels"], "link", "up", _subnet(network)) for network in networks]
        order = ("host", "app", "link")
        return sorted(items, key=lambda item: (item.lab, order.index(item.kind), item.name))

    def _container_item(self, container: dict[str, Any]) -> Item | None:
        try:
            found = self._api.inspect_container(container["Id"])
        except NotFound:
            return None
        state = found["State"]
        told = f"exited {state['ExitCode']}" if state["Status"] == "exited" else str(state["Status"])
        if container["Labels"][KIND] == "app":
            return _item(container["Labels"], "app", told, shlex.join(found["Config"]["Cmd"]))
        ends = found["NetworkSettings"]["Networks"].values()
        addresses = [end["IPAMConfig"]["IPv4Address"] for end in ends if end["IPAMConfig"]]
        return _item(container["Labels"], "host", told, " ".join(addresses))

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """What the containers wrote, one after the other; with `follow` as it comes, until all have ended."""
        with engine.faults():
            containers = sorted(self._containers(f"{LAB}={lab}"), key=lambda container: container["Created"])
        named = [(container["Labels"][NAME], container["Id"]) for container in containers]
        chosen = [(name, container) for name, container in named if not names or name in names]
        if follow:
            yield from self._followed(chosen)
        else:
            yield from chain.from_iterable(self._lines(name, container, follow=False) for name, container in chosen)

    def _lines(self, name: str, container: str, *, follow: bool) -> Iterator[tuple[str, str]]:
        with suppress(NotFound):
            pieces = self._api.logs(container, stream=True, follow=follow)
            yield from ((name, line) for line in engine.lines(pieces))

    def _followed(self, chosen: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Lines of all at once, each container read by a thread."""
        read: SimpleQueue[tuple[str, str] | None] = SimpleQueue()

        def follow(name: str, container: str) -> None:
            try:
                for line in self._lines(name, container, follow=True):
                    read.put(line)
            finally:
                read.put(None)

        for name, container in chosen:
            Thread(target=follow, args=(name, container), daemon=True).start()
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
            with ThreadPoolExecutor(_WORKERS) as pool:
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

    def _labelled(self, *label: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Containers, networks, volumes with all of these labels."""
        networks = self._api.networks(filters={"label": list(label)})
        volumes = self._api.volumes(filters={"label": list(label)})["Volumes"] or []
        return self._containers(*label), networks, volumes


def _image() -> str:
    return os.environ.get("CHITCP_IMAGE") or f"chitcp:{__version__}"


def _name(plan: Plan, kind: Kind, name: str) -> str:
    return f"chitcp-{plan.lab}-{kind}-{name}"


def _labels(plan: Plan, kind: Kind, name: str) -> dict[str, str]:
    return {LAB: plan.lab, RUN: plan.run_id, KIND: kind, NAME: name}


def _item(labels: dict[str, str], kind: Literal["host", "app", "link"], state: str, detail: str) -> Item:
    return Item(labels[LAB], labels[RUN], kind, labels[NAME], state, detail)


def _environment(host: HostPlan) -> dict[str, str]:
    return {"CHITCP_HOSTS": " ".join(f"{name}={address}" for name, address in host.names.items())}


def _confined() -> dict[str, Any]:
    """What holds for every container of a lab."""
    return {
        "cap_drop": ["ALL"],
        "mem_limit": "512m",
        "pids_limit": 256,
        "init": True,  # a program that does not handle SIGTERM would not end by it as process 1
        "log_config": LogConfig(type="json-file"),  # an engine's own default may be one that can't be read back
    }


def _endpoint(api: APIClient, network: str, address: str) -> dict[str, object]:
    return {"EndpointsConfig": {network: api.create_endpoint_config(ipv4_address=address)}}


def _link(interface: Interface, *, by_netem: bool) -> dict[str, object]:
    """A link as chitcpd is told of it, without what netem does."""
    shape = shaping.left_for_chitcpd(interface.shape) if by_netem else interface.shape
    return {
        "peer": interface.peer_address,
        "own": interface.address,
        "mtu": interface.mtu,
        "seed": interface.seed,
        **asdict(shape),
    }


def _shaping_command(address: str, netem: list[str]) -> str:
    """A shell command: offloads off at the interface with this address, then `netem` on it; says what tc reads back.

    With offloads, netem would delay and count bundles of up to 64 kB, and captures would show wrong checksums.
    """
    command = f"device=$(ip -o -4 address show to {address} | cut -d' ' -f2); "
    command += '! command -v ethtool >/dev/null || ethtool -K "$device" tso off gso off gro off tx off >/dev/null'
    if netem:
        command += f'; tc qdisc replace dev "$device" root {shlex.join(netem)}; tc -json qdisc show dev "$device"'
    return command


def _compare(interface: Interface, told: str) -> None:
    """Raise Unavailable if what tc reads back is not what was asked for."""
    options = json.loads(told)[0]["options"]
    delay, rate = options.get("delay", {}), options.get("rate", {}).get("rate", 0) * 8
    shape = interface.shape
    exact = (  # as far as the kernel counts: in microseconds and in whole bytes per second
        math.isclose(shape.delay, delay.get("delay", 0), abs_tol=2e-6)
        and math.isclose(shape.jitter, delay.get("jitter", 0), abs_tol=2e-6)
        and math.isclose(shape.rate or rate, rate, abs_tol=8)
    )
    if not exact:
        raise Unavailable(
            f"the kernel does not shape link {interface.link} as asked: tc reads back {json.dumps(options)}.",
            "Use --backend local, where chitcpd shapes, and please report this.",
        )


def _why_no_netem(said: str) -> str:
    reason = " ".join(said.split()) or "tc failed without a word"
    unknown = ("qdisc kind is unknown", "No such file or directory")
    return f"this kernel has no sch_netem ({reason})" if any(word in reason for word in unknown) else reason


def _save(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _subnet(network: dict[str, Any]) -> str:
    return ", ".join(subnet for subnet, _ in _subnets(network))


def _subnets(network: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each subnet of a network, and who has it."""
    lab = (network["Labels"] or {}).get(LAB)
    owner = f"Docker network {network['Name']}" + (f" of lab {lab}" if lab else "")
    for pool in network["IPAM"]["Config"] or []:
        if "Subnet" in pool:
            yield pool["Subnet"], owner
