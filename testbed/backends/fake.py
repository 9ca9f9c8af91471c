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

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

from testbed.backends.base import Built, Exit, Item, Mechanism, Report, Unavailable
from testbed.plan import AppPlan, HostPlan, Plan

_EMPTY_PCAP = bytes.fromhex("4d3cb2a1 0200 0400 00000000 00000000 00000400 65000000")  # nanoseconds, raw IP


class Process:
    """An application that runs: what its program sees, and what it leaves."""

    def __init__(self, lab: Lab, app: AppPlan) -> None:
        self.lab = lab
        self.app = app
        self.files = dict(app.files)  # its working directory
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.status: int | None = None  # None: it runs
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


Program = Callable[[Process], int]


class Lab:
    """A lab that is up."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.changed = threading.Condition()
        self.listeners: set[tuple[str, int]] = set()
        self.processes: dict[str, Process] = {}
        self.hosts: dict[str, int | None] = {host.name: None for host in plan.hosts}  # exit status
        self.logs: dict[str, list[str]] = {host.name: ["chitcpd is ready"] for host in plan.hosts}
        self.exits: SimpleQueue[Exit] = SimpleQueue()

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

    def up(self, plan: Plan, report: Report) -> Built:
        """Make the lab. Raises Unavailable if it is there, or if a host's own TCP is not Python."""
        if plan.lab in self._labs:
            raise Unavailable(f"lab {plan.lab} is up.", f"Take it down: testbed down {plan.lab}")
        for host in plan.hosts:
            report(f"starting chitcpd on {host.name}")
            _load(host)
        self._labs[plan.lab] = Lab(plan)
        return Built(
            mechanisms=[
                Mechanism(interface.link, f"{host.name}->{interface.peer}")
                for host in plan.hosts
                for interface in host.interfaces
            ],
            versions={"chitcpd": "fake"},
        )

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Run the program of this application; without one it ends at once, as a command not found does."""
        lab = self._labs[plan.lab]
        process = Process(lab, app)
        with lab.changed:
            lab.processes[app.name] = process
        program = self.programs.get(app.name, _not_found)
        threading.Thread(target=_run, args=(lab, process, program), name=app.name, daemon=True).start()

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Wait for the listener; False when it can't come any more, or is late."""
        lab = self._labs[plan.lab]
        process = lab.processes[app.name]

        def settled() -> bool:
            return (app.host, app.listening) in lab.listeners or _ended(lab, process)

        # In slices: a Condition is deaf to signals as long as it waits.
        until = time.monotonic() + app.timeout
        with lab.changed:
            while not settled() and time.monotonic() < until:
                lab.changed.wait(min(0.1, max(0.0, until - time.monotonic())))
            return (app.host, app.listening) in lab.listeners and not _ended(lab, process)

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

    def collect(self, plan: Plan, directory: Path) -> None:
        """Write the logs, captures without a packet in them, and what the applications left."""
        lab = self._labs[plan.lab]
        for host in plan.hosts:
            lab.kill_host(host.name, 0)
            here = directory / "hosts" / host.name
            here.mkdir(parents=True)
            (here / "chitcpd.log").write_text("".join(f"{line}\n" for line in lab.logs[host.name]))
            (here / "trace.jsonl").touch()
            if plan.capture_segments:
                (here / "segments.pcap").write_bytes(_EMPTY_PCAP)
            if plan.capture_wire:
                (here / "wire.pcap").write_bytes(_EMPTY_PCAP)
        for name, process in lab.processes.items():
            here = directory / "apps" / name
            (here / "files").mkdir(parents=True)
            (here / "stdout").write_text("".join(f"{line}\n" for line in process.stdout))
            (here / "stderr").write_text("".join(f"{line}\n" for line in process.stderr))
            for file, content in process.files.items():
                (here / "files" / file).write_bytes(content)

    def labs(self) -> list[str]:
        """Names of the labs that are up."""
        return sorted(self._labs)

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

    def state(status: int | None) -> str:
        return "running" if status is None else f"exited {status}"

    hosts = [
        Item(plan.lab, plan.run_id, "host", host.name, state(lab.hosts[host.name]), _addresses(host))
        for host in plan.hosts
    ]
    apps = [
        Item(plan.lab, plan.run_id, "app", name, state(process.status), " ".join(process.app.run))
        for name, process in lab.processes.items()
    ]
    links = [Item(plan.lab, plan.run_id, "link", link.name, "up", link.subnet) for link in plan.links]
    return hosts + links + apps


def _addresses(host: HostPlan) -> str:
    return " ".join(interface.address for interface in host.interfaces)
