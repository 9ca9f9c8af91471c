"""A backend in memory, for tests of what stands on backends: no process, no network, no clock of its own.

An application is a Python function that runs in a thread in the place of a process:

    def client(process: Process) -> int:
        process.files["payload.bin"] = process.lab.process("server").files["payload.bin"]
        process.print("fetched payload.bin")
        return 0

    backend = FakeBackend({"client": client, "server": server})

It is held to the same contract tests as the backends that are real.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

from testbed import daemon, saved
from testbed.backends.base import Built, Exit, Item, Mechanism, Now, Probed, Recording, Report
from testbed.clock import WALL, Clock
from testbed.events import Deed, Reshape
from testbed.plan import AppPlan, HostPlan, Interface, Plan
from testbed.unavailable import Unavailable

_numbers = itertools.count(1)
_EMPTY_PCAP = bytes.fromhex("4d3cb2a1 0200 0400 00000000 00000000 00000400 65000000")  # nanoseconds, raw IP


class Process:
    """An application that runs: what its program sees, and what it leaves."""

    def __init__(self, lab: Lab, app: AppPlan, before: Process | None = None) -> None:
        """`before`: the same application, which has ended; what it has left is still there."""
        self.lab = lab
        self.app = app
        self.files: dict[str, bytes] = dict(app.files) if before is None else before.files  # its working directory
        self.stdout: list[str] = [] if before is None else before.stdout
        self.stderr: list[str] = [] if before is None else before.stderr
        self._earlier = len(self.stdout), len(self.stderr)
        self.status: int | None = None  # None: it runs
        self.signals: list[str] = []
        self._stop = threading.Event()

    def print(self, line: str) -> None:
        """Write a line to its standard output."""
        with self.lab.changed:
            self.stdout.append(line)
            self.lab.changed.notify_all()

    def error(self, line: str) -> None:
        """Write a line to its standard error."""
        with self.lab.changed:
            self.stderr.append(line)
            self.lab.changed.notify_all()

    def has_written(self, pattern: str) -> bool:
        """Whether a line that it has written, since its own start, matches."""
        out, err = self._earlier
        return any(re.search(pattern, line) for line in self.stdout[out:] + self.stderr[err:])

    def listen(self, port: int) -> None:
        """Have its host's daemon listen on a port."""
        with self.lab.changed:
            self.lab.listeners.add((self.app.host, port))
            self.lab.changed.notify_all()

    def wait_for_stop(self) -> None:
        """Return when the run stops this application (SIGTERM)."""
        self._stop.wait()

    def stop(self) -> None:
        """Ask it to end; the program learns of it in `wait_for_stop`."""
        self._stop.set()

    def kill(self, signal: str) -> None:
        """A signal that an event sends; the program may look at `signals`, and is asked to end."""
        self.signals.append(signal)
        self._stop.set()


Program = Callable[[Process], int]


class Lab:
    """A lab that is up."""

    def __init__(self, plan: Plan, *, stays: bool) -> None:
        self.plan = plan
        self.stays = stays
        self.links: dict[tuple[str, str], Now] = {}  # (node, link) -> what it does
        self.blocked: dict[str, tuple[str, ...]] = {}
        self.paused: set[str] = set()
        self.deeds: list[tuple[str, Deed]] = []
        self.changed = threading.Condition()
        self.listeners: set[tuple[str, int]] = set()
        self.processes: dict[str, Process] = {}
        self.daemons: dict[str, int] = {}  # node -> a number that no other daemon has, or had
        self.hosts: dict[str, int | None] = {}  # node -> its daemon's exit status
        self.logs: dict[str, list[str]] = {}
        self.traces: dict[str, list[dict[str, object]]] = {}
        self.exits: SimpleQueue[Exit] = SimpleQueue()
        for node in plan.nodes:
            self.start_daemon(node)

    def start_daemon(self, node: HostPlan) -> None:
        """Start a node's daemon, with its links as they were planned; anew, if there was one."""
        self.daemons[node.name] = next(_numbers)
        self.hosts[node.name] = None
        self.blocked.pop(node.name, None)
        self.logs.setdefault(node.name, []).append("chitcpd is ready")
        self.traces.setdefault(node.name, [])
        self.plan_links(node)

    def plan_links(self, node: HostPlan) -> None:
        """Let a node's links do what was planned."""
        for end in node.interfaces:
            self.links[node.name, end.link] = Now(end.shape, end.underlay)

    def reaches(self, source: str, destination: str) -> bool:
        """Whether a segment from one host would reach another; what stops it is counted, and is in the trace.

        Of the links, only those that join the two themselves are looked at.
        """
        here, there = self.plan.node(source), self.plan.node(destination)
        if any(end.address in self.blocked.get(source, ()) for end in there.interfaces):
            self.traces[source].append({"event": "dropped", "why": "partition"})
            return False
        for end in here.interfaces:
            now = self.links[source, end.link]
            if destination in end.peers and now.shape.down:
                now.counts["down"] += 1
                self.traces[source].append({"event": "dropped", "why": "down"})
                return False
        return destination in here.names and self.hosts[destination] is None and destination not in self.paused

    def process(self, app: str) -> Process:
        """The application of this name, which must have been started."""
        return self.processes[app]

    def kill_host(self, name: str, status: int, *log: str) -> None:
        """Let a host's daemon end with a status, having logged these lines."""
        with self.changed:
            if self.hosts[name] is not None:
                return
            self.hosts[name] = status
            self.logs[name].extend(log)
            self.changed.notify_all()
        self.exits.put(Exit("host", name, status))


class FakeBackend:
    """Labs in memory; `programs` says what each application does, by its name."""

    name = "fake"
    pool = "127.128.0.0/16"
    clock: Clock = WALL
    repeatable = False

    def __init__(self, programs: dict[str, Program] | None = None) -> None:
        self.programs = programs or {}
        self._labs: dict[str, Lab] = {}

    def lab(self, name: str) -> Lab:
        """The lab of this name, which must be up."""
        return self._labs[name]

    def check(self) -> None:
        """Works everywhere."""

    def subnets_in_use(self) -> dict[str, str]:
        """Subnets of the labs that are up."""
        return {
            link.subnet: f"lab {name}, link {link.name}" for name, lab in self._labs.items() for link in lab.plan.links
        }

    def check_plan(self, plan: Plan) -> None:
        """It pretends to do everything."""

    def up(self, plan: Plan, report: Report, *, stays: bool) -> Built:
        """Make the lab. Raises Unavailable if it is there, or if a host's own TCP is not Python."""
        if plan.lab in self._labs:
            raise Unavailable(f"lab {plan.lab} is up.", f"Take it down: testbed down {plan.lab}")
        for host in plan.hosts:
            report(f"starting chitcpd on {host.name}")
            _load(host)
        self._labs[plan.lab] = Lab(plan, stays=stays)
        return _built(plan)

    def change(self, plan: Plan, report: Report) -> Built | None:
        """Start and end daemons where they have to be others; None if the plan is the same."""
        lab = self._labs[plan.lab]
        lab.stays = True
        prints = {node.name: _print(lab.plan, node) for node in lab.plan.nodes if lab.hosts[node.name] is None}
        kept = {node.name for node in plan.nodes if prints.get(node.name) == _print(plan, node)}
        if plan.nodes == lab.plan.nodes and plan.links == lab.plan.links and kept == lab.hosts.keys():
            return None
        for name in lab.hosts.keys() - kept:
            report(f"ending chitcpd of {name}")
            for known in (lab.hosts, lab.daemons, lab.logs, lab.traces):
                known.pop(name)
        lab.plan = plan
        for node in plan.nodes:
            if node.name in kept:
                lab.plan_links(node)
            else:
                report(f"starting chitcpd on {node.name}")
                _load(node)
                lab.start_daemon(node)
        return _built(plan)

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Run the program of this application; without one it ends at once, as a command not found does."""
        lab = self._labs[plan.lab]
        process = Process(lab, app, lab.processes.get(app.name))
        with lab.changed:
            lab.processes[app.name] = process
        program = self.programs.get(app.name, _not_found)
        threading.Thread(target=_run, args=(lab, process, program), name=app.name, daemon=True).start()

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Wait for the listener; False when it can't come any more, or is late."""
        lab = self._labs[plan.lab]
        process = lab.processes[app.name]

        def settled() -> bool:
            return self._is_ready(lab, process, app) or _ended(lab, process)

        # In slices: a Condition is deaf to signals as long as it waits.
        until = time.monotonic() + app.timeout
        with lab.changed:
            while not settled() and time.monotonic() < until:
                lab.changed.wait(min(0.1, max(0.0, until - time.monotonic())))
            return self._is_ready(lab, process, app) and not _ended(lab, process)

    def _is_ready(self, lab: Lab, process: Process, app: AppPlan) -> bool:
        if app.says is not None:
            return process.has_written(app.says)
        return (app.host, app.listening) in lab.listeners and app.host not in lab.paused

    def exits(self, plan: Plan) -> SimpleQueue[Exit]:
        """Where ends are told."""
        return self._labs[plan.lab].exits

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """Ask the program to end, and wait for it for at most two seconds: a thread can't be killed."""
        lab = self._labs[plan.lab]
        process = lab.processes.get(app.name)
        if process is None:
            return
        process.stop()
        with lab.changed:
            lab.changed.wait_for(lambda: process.status is not None, timeout=2)

    def nodes(self, lab: str) -> tuple[HostPlan, ...]:
        """As the plan says."""
        return self._labs[lab].plan.nodes

    def attend(self, lab: str, hosts: Sequence[str]) -> None:
        """There is nothing to make ready."""

    def now(self, lab: str, node: HostPlan, interface: Interface) -> Now:
        """What it was told last."""
        return self._labs[lab].links[node.name, interface.link]

    def reshape(self, lab: str, changes: Sequence[Reshape]) -> None:
        """Remember it."""
        links = self._labs[lab].links
        for change in changes:
            end = change.node, change.interface.link
            links[end] = Now(change.shape, change.underlay, links[end].counts)

    def block(self, lab: str, host: str, addresses: Sequence[str]) -> None:
        """Remember it."""
        self._labs[lab].blocked[host] = tuple(addresses)

    def deed(self, lab: str, host: str, deed: Deed) -> None:
        """Remember it, and do to the daemon what can be seen."""
        here = self._labs[lab]
        here.deeds.append((host, deed))
        if deed == "kill":
            here.kill_host(host, 137)
        elif deed == "restart":
            here.listeners = {(of, port) for of, port in here.listeners if of != host}
            here.start_daemon(here.plan.node(host))
        with here.changed:
            here.paused = here.paused | {host} if deed == "pause" else here.paused - {host}
            here.changed.notify_all()

    def kill(self, lab: str, app: str, signal: str) -> bool:
        """Tell the program."""
        process = self._labs[lab].processes.get(app)
        if process is None or process.status is not None:
            return False
        process.kill(signal)
        return True

    def collect(self, plan: Plan, directory: Path) -> list[str]:
        """Write the logs, captures without a packet in them, and what the applications left."""
        for node in plan.nodes:
            self._labs[plan.lab].kill_host(node.name, 0)
        return self.snapshot(plan.lab, directory)

    def snapshot(self, lab: str, directory: Path) -> list[str]:
        """The same."""
        up = self._labs[lab]
        plan = up.plan
        for host in plan.nodes:
            here = directory / "hosts" / host.name
            here.mkdir(parents=True)
            (here / "chitcpd.log").write_text("".join(f"{line}\n" for line in up.logs[host.name]))
            (here / "trace.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in up.traces[host.name]))
            if plan.capture_segments:
                (here / "segments.pcap").write_bytes(_EMPTY_PCAP)
            if plan.capture_wire:
                (here / "wire.pcap").write_bytes(_EMPTY_PCAP)
        for name, process in up.processes.items():
            here = directory / "apps" / name
            (here / "files").mkdir(parents=True)
            (here / "stdout").write_text("".join(f"{line}\n" for line in process.stdout))
            (here / "stderr").write_text("".join(f"{line}\n" for line in process.stderr))
            for file, content in process.files.items():
                (here / "files" / file).write_bytes(content)
        return []

    def recording(self, lab: str, node: str, recording: Recording, *, follow: bool) -> Iterator[bytes]:
        """A capture without a packet."""
        plan = self._labs[lab].plan
        if not (plan.capture_wire if recording == "wire" else plan.capture_segments):
            raise Unavailable(f"lab {lab} has no capture of {recording}.", "Ask for it in the topology: `capture:`.")
        return iter([_EMPTY_PCAP])

    def execute(self, lab: str, host: str, command: Sequence[str], *, terminal: bool) -> int:
        """There are no commands."""
        raise Unavailable(f"{command[0]} can't be executed: the fake backend has no commands.", "Take another one.")

    def labs(self) -> list[str]:
        """Names of the labs that are up."""
        return sorted(self._labs)

    def garbage(self) -> list[str]:
        """Labs that a run has left."""
        return sorted(name for name, lab in self._labs.items() if not lab.stays)

    def ps(self, lab: str | None) -> list[Item]:
        """What is there."""
        return [item for name in self.labs() if lab in (None, name) for item in _items(self._labs[name])]

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """Lines that there are; with `follow` also those that come, until what is followed has ended."""
        here = self._labs[lab]
        told: dict[tuple[str, int], int] = {}
        while True:
            with here.changed:
                over = not follow or _all_ended(here, names) or self._labs.get(lab) is not here
                fresh = _fresh_lines(here, names, told)
                if not fresh and not over:
                    here.changed.wait(0.1)
            yield from fresh
            if over and not fresh:
                return

    def down(self, lab: str, report: Report) -> int:
        """Forget the lab; its programs are asked to end."""
        gone = self._labs.pop(lab, None)
        if gone is None:
            return 0
        report(f"taking down {lab}")
        for process in gone.processes.values():
            process.stop()
        return len(_items(gone))


def _built(plan: Plan) -> Built:
    return Built(
        mechanisms=[
            Mechanism(interface.link, f"{node.name}->{interface.towards}")
            for node in plan.nodes
            for interface in node.interfaces
        ],
        probed=[
            Probed(
                link=probe.near.link,
                direction=f"{probe.host.name}->{probe.neighbour.name}",
                asked_rtt=probe.asked_rtt,
                measured_rtt=probe.asked_rtt,
                asked_rate=probe.near.shape.rate,
                measured_rate=probe.near.shape.rate,
            )
            for probe in daemon.probes(plan, by_netem=False)
        ],
        versions={"chitcpd": "fake"},
    )


def _print(plan: Plan, node: HostPlan) -> str:
    return saved.fingerprint(node, plan.capture_segments, plan.capture_wire)


def _load(host: HostPlan) -> None:
    if host.implementation is None:
        return
    try:
        compile(host.implementation, f"{host.name}'s TCP", "exec")
    except (SyntaxError, ValueError) as error:
        raise Unavailable(f"chitcpd of {host.name} did not start: {error}", "Mend that file.") from error


def _not_found(process: Process) -> int:
    process.error(f"{process.app.run[0]}: not found")
    return 127


def _run(lab: Lab, process: Process, program: Program) -> None:
    try:
        status = program(process)
    except Exception:
        for line in traceback.format_exc().splitlines():
            process.error(line)
        status = 1
    with lab.changed:
        process.status = status
        lab.changed.notify_all()
    lab.exits.put(Exit("app", process.app.name, status))


def _ended(lab: Lab, process: Process) -> bool:
    return process.status is not None or lab.hosts[process.app.host] is not None


def _all_ended(lab: Lab, names: tuple[str, ...]) -> bool:
    statuses: dict[str, int | None] = {n: p.status for n, p in lab.processes.items()} | lab.hosts
    return all(status is not None for name, status in statuses.items() if not names or name in names)


def _fresh_lines(lab: Lab, names: tuple[str, ...], told: dict[tuple[str, int], int]) -> list[tuple[str, str]]:
    sources = [(name, 0, lines) for name, lines in lab.logs.items()]
    for name, process in lab.processes.items():
        sources += [(name, 1, process.stdout), (name, 2, process.stderr)]
    fresh: list[tuple[str, str]] = []
    for name, stream, lines in sources:
        if names and name not in names:
            continue
        fresh += [(name, line) for line in lines[told.get((name, stream), 0) :]]
        told[name, stream] = len(lines)
    return fresh


def _items(lab: Lab) -> list[Item]:
    plan = lab.plan

    def said(status: int | None) -> str:
        return "running" if status is None else f"exited {status}"

    hosts = [
        Item(
            plan.lab,
            plan.run_id,
            "router" if node.forwards else "host",
            node.name,
            said(lab.hosts[node.name]),
            _addresses(node),
        )
        for node in plan.nodes
    ]
    apps = [
        Item(plan.lab, plan.run_id, "app", name, said(process.status), " ".join(process.app.run))
        for name, process in lab.processes.items()
    ]
    links = [Item(plan.lab, plan.run_id, "link", link.name, "up", link.subnet) for link in plan.links]
    return hosts + links + apps


def _addresses(host: HostPlan) -> str:
    return " ".join(interface.address for interface in host.interfaces)
