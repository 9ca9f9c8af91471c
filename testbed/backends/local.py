"""Labs of ordinary processes on this machine: no Docker, no root.

A host is a chitcpd that listens on loopback addresses of its own (127.x.y.z) and on a UNIX socket of its own; an
application is a process that is told that socket. chitcpd does all that a link does to what passes. Nothing keeps an
application from going around chitcpd to the machine's own network: where that matters, take docker.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from signal import Signals
from typing import Any, Literal

from chitcpd import ctl
from testbed import daemon, folder, saved, state
from testbed.backends import local_left, processes, wire
from testbed.backends.base import Built, Exit, Item, Mechanism, Now, Probed, Recording, Report
from testbed.backends.local_lab import LABEL, Entry, Kind, LocalLab
from testbed.backends.spawner import Spawner
from testbed.clock import WALL, Clock
from testbed.events import Deed, Reshape
from testbed.plan import AppPlan, HostPlan, Interface, Plan, Underlay
from testbed.search import LineSearch
from testbed.signals import Interrupted
from testbed.unavailable import Unavailable

_READY_WITHIN = 20.0  # seconds until a chitcpd answers; long, because a busy machine starts Python slowly
_GRACE = 3.0  # seconds between SIGTERM and SIGKILL
_C_BUILD = Path(__file__).parents[2] / "build" / "c"
_SLICE = 0.25  # seconds that one question to a daemon waits, before we look whether it can still be answered


def port() -> int:
    """The port that all daemons of this machine's labs listen on. Raises Unavailable if CHITCPD_PORT is not a port."""
    text = os.environ.get("CHITCPD_PORT", "23300")
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Unavailable(
            f"CHITCPD_PORT is {text!r}, which is not a port.", "Unset it, or give a number from 1 to 65535."
        )
    return int(text)


def check_address(address: str) -> None:
    """Raise Unavailable if a daemon could not listen on this loopback address and `port()`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as chitcpd does: TIME-WAIT is no obstacle
        try:
            probe.bind((address, port()))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Unavailable(
                    f"port {port()} is in use on {address}.",
                    f"End what listens there (`ss -ltnp sport = :{port()}` shows it), or set CHITCPD_PORT to "
                    "another port.",
                ) from error
            raise Unavailable(
                f"the loopback address {address} can't be used: {error.strerror}.",
                "The local backend needs Linux, where the whole of 127.0.0.0/8 is this machine.",
            ) from error


class LocalBackend:
    """Hosts and applications as processes of this user."""

    name = "local"
    pool = "127.64.0.0/10"
    clock: Clock = WALL
    repeatable = False

    def __init__(self) -> None:
        self._labs: dict[str, LocalLab] = {}
        self._exits: dict[str, SimpleQueue[Exit]] = {}
        self._spawners: dict[str, Spawner] = {}
        self._begins: dict[tuple[str, str], dict[Path, int]] = {}  # of a lab's application: what an earlier life wrote

    def check(self) -> None:
        """Raise Unavailable if this is not Linux, if there is no state directory, or if the port is taken."""
        if not sys.platform.startswith("linux"):
            raise Unavailable("the local backend needs Linux.", "Use docker: --backend docker.")
        self._home()
        check_address("127.127.255.254")  # the last of the pool: if even this is taken, then by a listener on all

    def subnets_in_use(self) -> dict[str, str]:
        """Subnets of this user's labs, and each address of the pool at which any process listens on our port."""
        used = {
            subnet: f"lab {name}, link {link}"
            for name, lab in self._all().items()
            for link, subnet in lab.links.items()
        }
        for address in _listening(port()):
            if ipaddress.IPv4Address(address) in ipaddress.IPv4Network(self.pool):
                used.setdefault(f"{address}/32", f"a process that listens on {address}:{port()}")
        return used

    def check_plan(self, plan: Plan) -> None:
        """Raise Unavailable for what only docker has."""
        _refuse_what_only_docker_has(plan, events=True)

    def up(self, plan: Plan, report: Report, *, stays: bool) -> Built:
        """Start a chitcpd for each host, and tcpdump if asked for and possible."""
        _refuse_what_only_docker_has(plan, events=not stays)
        lab = LocalLab(self._home() / plan.lab, plan.run_id, stays=stays, capture=_captures(plan))
        try:
            lab.directory.mkdir()
        except FileExistsError:
            raise Unavailable(f"lab {plan.lab} is up.", f"Take it down: testbed down {plan.lab}") from None
        self._labs[plan.lab], self._exits[plan.lab] = lab, SimpleQueue()
        try:
            built = self._build(plan, lab, plan.nodes, report)
            lab.whole = True
            lab.save()
        except BaseException:
            self.down(plan.lab, report)
            raise
        return built

    def change(self, plan: Plan, report: Report) -> Built | None:
        """End the daemons that are no longer wanted or have to be others, start those, tell all their links."""
        _refuse_what_only_docker_has(plan, events=False)
        lab = self.lab(plan.lab)
        built = self._make_as(plan, lab, report)
        lab.stays = lab.whole = True  # whoever made it, and whether it came up then
        lab.save()
        return built

    def _make_as(self, plan: Plan, lab: LocalLab, report: Report) -> Built | None:
        before, after = {node.name: node for node in lab.nodes}, {node.name: node for node in plan.nodes}
        prints = {name: saved.fingerprint(node, *_captures(plan)) for name, node in after.items()}
        own = {entry.name for entry in lab.of("host") if entry.state == "running"} if lab.whole else set()
        kept = {name for name in after if name in own and lab.prints.get(name) == prints[name]}
        if kept == after.keys() and saved.kept(plan.nodes) == lab.nodes:
            if all(entry.state == "running" for entry in lab.of("capture")):
                return None
            report("starting the capture of the wire again")
            note = self._start_capture(plan, lab)
            for node in plan.nodes:  # something was changed, so all links are to be as planned
                self._tell_links(plan, lab, node)
            return Built(notes=[note] if note else [])
        if lab.name not in self._spawners:  # another command made it, and may have been killed before it recorded all
            lab.end_unrecorded()
        for name in before.keys() - kept:
            report(f"ending chitcpd of {name}")
            lab.forget(name, grace=_GRACE)
        lab.capture = _captures(plan)
        for name in sorted(kept):  # first: the others probe the links to these
            self._tell_links(plan, lab, after[name])
        return self._build(plan, lab, [node for node in plan.nodes if node.name not in kept], report)

    def _build(self, plan: Plan, lab: LocalLab, nodes: Sequence[HostPlan], report: Report) -> Built:
        """Start these daemons of the plan; what is not here must be there already."""
        lab.run_id, lab.links = plan.run_id, {link.name: link.subnet for link in plan.links}
        lab.nodes = saved.kept(plan.nodes)
        lab.prints = {node.name: saved.fingerprint(node, *lab.capture) for node in plan.nodes}
        lab.save()
        note = ""
        if plan.capture_wire:
            note = self._start_capture(plan, lab)
        else:
            self._end_capture(lab)
        report(f"starting chitcpd on {', '.join(node.name for node in nodes)}" if nodes else "telling all their links")
        spawner = self._spawner(lab)
        for node in nodes:
            self._start_daemon(plan, lab, node, spawner)
        lab.save()
        for node in nodes:
            _wait_answer(lab, node, spawner)
        report("probing the links")
        return Built(
            mechanisms=[_mechanism(node, interface) for node in plan.nodes for interface in node.interfaces],
            probed=self._probed(plan, lab, {node.name for node in nodes}, spawner),
            versions={"chitcpd": spawner.ready[nodes[0].name]} if nodes else {},
            notes=[note] if note else [],
        )

    def _start_daemon(
        self, plan: Plan, lab: LocalLab, node: HostPlan, spawner: Spawner, *, append: bool = False
    ) -> None:
        here = lab.directory / "hosts" / node.name
        here.mkdir(parents=True, exist_ok=True)
        arguments = ["-p", str(port()), "-s", str(lab.socket(node.name))]
        arguments += daemon.options(
            plan, node, trace="trace.jsonl", segments="segments.pcap", implementation="implementation.py"
        )
        arguments += ["--append"] if append else []
        (here / "links.json").write_text(json.dumps(daemon.links(plan, node, by_netem=False)))
        (here / "arguments.json").write_text(json.dumps(arguments))
        if node.implementation is not None:
            (here / "implementation.py").write_bytes(node.implementation)
        self._spawn_daemon(lab, node.name, arguments, spawner)

    def _spawn_daemon(self, lab: LocalLab, name: str, arguments: list[str], spawner: Spawner) -> None:
        here = lab.directory / "hosts" / name
        pid = spawner.start(name, [*arguments, "--links", (here / "links.json").read_text()], here)
        command = ["chitcpd", *arguments]
        lab.put(Entry("host", name, command, pid=pid, start=processes.start_time(pid) or 0))

    def _spawner(self, lab: LocalLab) -> Spawner:
        if lab.name not in self._spawners:
            exits = self._exits.setdefault(lab.name, SimpleQueue())

            def ended(name: str, status: int) -> None:
                for entry in lab.of("host"):
                    if entry.name == name:
                        entry.status = status
                try:
                    lab.save()
                finally:  # a full disk must not let the run wait for ever
                    exits.put(Exit("host", name, status))

            label = {LABEL: f"{lab.directory}/hosts/"}
            self._spawners[lab.name] = Spawner(lab.directory, {**environment(), **label}, ended)
        return self._spawners[lab.name]

    def _tell_links(self, plan: Plan, lab: LocalLab, node: HostPlan) -> None:
        links = daemon.links(plan, node, by_netem=False)
        (lab.directory / "hosts" / node.name / "links.json").write_text(json.dumps(links))
        told = [{key: link[key] for key in link if key != "probe"} for link in links]
        _ask(lab, node.name, "links", links=told, only=True)

    def _probed(self, plan: Plan, lab: LocalLab, fresh: set[str], spawner: Spawner) -> list[Probed]:
        """What was measured of each link that a fresh daemon probes. Raises Unavailable if one of these ends."""
        probes = [probe for probe in daemon.probes(plan, by_netem=False) if probe.host.name in fresh]
        keys = [(probe.host.name, probe.far.address) for probe in probes]
        longest = max((probe.good_rtt for probe in probes), default=0.0)

        def is_over() -> bool:
            return not fresh.isdisjoint(spawner.statuses) or all(key in spawner.probed for key in keys)

        spawner.wait(is_over, _READY_WITHIN + 10 * longest)
        for name in fresh & spawner.statuses.keys():
            raise _has_ended(lab, name, spawner)
        for probe, key in zip(probes, keys, strict=True):
            if key not in spawner.probed:
                raise Unavailable(
                    f"no probe of link {probe.near.link} came back from {probe.far.address} to {probe.host.name}.",
                    "See what `testbed doctor` says of this machine.",
                )
        return [probe.found(spawner.probed[key]) for probe, key in zip(probes, keys, strict=True)]

    def _start_capture(self, plan: Plan, lab: LocalLab) -> str:
        """Capture what passes in the lab's subnets, after what was captured before; if that can't be, say why."""
        log, out = lab.directory / "tcpdump.log", lab.directory / "wire.pcap"
        try:
            command = wire.command([link.subnet for link in plan.links], port())
            if any(entry.command == command and entry.state == "running" for entry in lab.of("capture")):
                return ""
            self._end_capture(lab)
            tcpdump = self._spawn(lab, Entry("capture", "wire", command), environment(), lab.directory, out, log)
            wire.wait_listening(tcpdump, log)
        except wire.NoCapture as why:
            self._end_capture(lab)  # there is none that could be started again
            if out.is_file() and out.stat().st_size == 0:
                out.unlink()
            return f"no capture of the wire: {why}. {why.remedy}"
        return ""

    def _end_capture(self, lab: LocalLab) -> None:
        lab.end("capture", grace=_GRACE)
        lab.drop("capture")
        (lab.directory / "tcpdump.log").unlink(missing_ok=True)  # the next one is to say itself that it listens

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Start an application in `apps/A/files`, with the testbed's own Python first on PATH."""
        lab = self.lab(plan.lab)
        here = lab.directory / "apps" / app.name
        if not here.is_dir():  # else it is started anew, with what it has
            (here / "files").mkdir(parents=True)
            for name, content in app.files.items():
                (here / "files" / name).write_bytes(content)
                (here / "files" / name).chmod(0o755 if name in app.executables else 0o644)
        outputs = (here / "stdout", here / "stderr")
        self._begins[lab.name, app.name] = {path: path.stat().st_size if path.exists() else 0 for path in outputs}
        own = {**_of_an_application(lab, plan.node(app.host)), **app.env}
        entry = Entry("app", app.name, list(app.run))
        try:
            process = self._spawn(lab, entry, own, here / "files", *outputs)
            _limit_memory(process.pid, app.memory)
        except OSError as error:
            # As a shell does it: such an application has ended, and the reason is in its standard error.
            (here / "stderr").write_text(f"{app.run[0]}: {error.strerror}{_remedy(app.run[0])}\n")
            entry.status = 127 if isinstance(error, FileNotFoundError) else 126
            lab.add(entry)
            self._exits[plan.lab].put(Exit("app", app.name, entry.status))

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Ask the daemon, which answers when it has the listener, or read what the app writes.

        In between look whether it still can.
        """
        lab = self.lab(plan.lab)
        until = time.monotonic() + app.timeout
        if app.says is not None:
            return self._wait_said(lab, app, app.says, until)
        while self._may_get_ready(lab, app):
            left = until - time.monotonic()
            if left <= 0:
                return False
            wait = min(_SLICE, left)
            try:
                ctl.request(
                    str(lab.socket(app.host)), "wait_listening", {"port": app.listening}, wait=wait, timeout=wait
                )
            except OSError:
                continue
            return True
        return False

    def _wait_said(self, lab: LocalLab, app: AppPlan, pattern: str, until: float) -> bool:
        written = local_left.Written(self._begins[lab.name, app.name])
        with written, LineSearch(pattern, written.pieces()) as search:
            while self._may_get_ready(lab, app) and (left := until - time.monotonic()) > 0:
                if (found := search.found(min(_SLICE, left))) is not None:
                    return found
        return False

    def _may_get_ready(self, lab: LocalLab, app: AppPlan) -> bool:
        """Whether the app runs, and its daemon does, or is being started anew: then the record is the old one's."""
        own = [entry for entry in lab.entries if (entry.kind, entry.name) in (("app", app.name), ("host", app.host))]
        ended = [entry for entry in own if entry.state != "running"]
        spawner = self._spawners.get(lab.name)
        return not ended or (
            spawner is not None and all(e.kind == "host" and e.pid != spawner.pids.get(e.name) for e in ended)
        )

    def exits(self, plan: Plan) -> SimpleQueue[Exit]:
        """Filled by a thread for each process, which waits for its end."""
        return self._exits[plan.lab]

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, SIGKILL three seconds later; what the application started goes with it."""
        self.lab(plan.lab).end("app", app.name, grace=_GRACE)

    def nodes(self, lab: str) -> tuple[HostPlan, ...]:
        """As the record says."""
        return self.lab(lab).nodes

    def attend(self, lab: str, hosts: Sequence[str]) -> None:
        """There is nothing to make ready."""

    def now(self, lab: str, node: HostPlan, interface: Interface) -> Now:
        """As the daemon says."""
        peer = next(iter(interface.peers.values()))
        return daemon.now(_ask(self.lab(lab), node.name, "link", peer=peer))

    def reshape(self, lab: str, changes: Sequence[Reshape]) -> None:
        """Tell the daemons."""
        for change in changes:
            if change.underlay != Underlay():
                raise Unavailable(*_NO_UNDERLAY)
            link = daemon.link(change.interface, change.shape, change.underlay, by_netem=False)
            _ask(self.lab(lab), change.node, "links", links=[link])

    def block(self, lab: str, host: str, addresses: Sequence[str]) -> None:
        """Tell the daemon."""
        _ask(self.lab(lab), host, "block", peers=list(addresses))

    def deed(self, lab: str, host: str, deed: Deed) -> None:
        """Signals, and one more start."""
        here = self.lab(lab)
        entry = next(entry for entry in here.of("host") if entry.name == host)
        if deed in ("pause", "resume"):
            processes.send(entry.known, signal.SIGSTOP if deed == "pause" else signal.SIGCONT)
            return
        spawner = self._spawner(here)
        if deed == "restart":
            spawner.forget(host)
        processes.end([entry.known], grace=0.0)
        if deed == "restart":
            arguments = json.loads((here.directory / "hosts" / host / "arguments.json").read_text())
            self._spawn_daemon(here, host, [*arguments, "--append"], spawner)
            here.save()
            _wait_answer(here, next(node for node in here.nodes if node.name == host), spawner)

    def kill(self, lab: str, app: str, signal: str) -> bool:
        """To the process that was started, not to those that it has."""
        own = (entry for entry in self.lab(lab).of("app") if entry.name == app and entry.pid)
        return any(processes.send(entry.known, Signals[signal]) for entry in own)

    def collect(self, plan: Plan, directory: Path) -> list[str]:
        """End what runs: applications, then daemons, then the capture, so that this sees the end; copy the files."""
        lab = self.lab(plan.lab)
        kinds: tuple[Kind, ...] = ("app", "host", "capture")
        for kind in kinds:
            lab.end(kind, grace=_GRACE)
        return local_left.copy(lab, directory)

    def snapshot(self, lab: str, directory: Path) -> list[str]:
        """Copy the files as they are."""
        return local_left.copy(self.lab(lab), directory)

    def recording(self, lab: str, node: str, recording: Recording, *, follow: bool) -> Iterator[bytes]:
        """Read the file."""
        return local_left.recording(self.lab(lab), node, recording, follow=follow)

    def execute(self, lab: str, host: str, command: Sequence[str], *, terminal: bool) -> int:
        """Run it here, with the host's environment."""
        here = self.lab(lab)
        node = next(node for node in here.nodes if node.name == host)
        label = f"{here.directory}/apps/exec.{os.getpid()}/"  # no application has a dot in its name
        process: subprocess.Popen[bytes] | None = None
        try:
            process = subprocess.Popen(list(command), env={**_of_an_application(here, node), LABEL: label})
            status = process.wait()
        except OSError as error:
            raise Unavailable(f"{command[0]} can't be executed: {error.strerror}.", "Is it installed?") from error
        except Interrupted as interrupted:
            if process is not None and interrupted.number == signal.SIGINT:  # the terminal has told the command, too
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE)
            processes.end(processes.with_environment(LABEL, label), grace=_GRACE)
            if process is not None:
                process.poll()
            raise
        return status if status >= 0 else 128 - status

    def garbage(self) -> list[str]:
        """Labs that were a run's, or never became whole."""
        return sorted(name for name, lab in self._all().items() if not (lab.stays and lab.whole))

    def labs(self) -> list[str]:
        """The directories in the state directory."""
        return sorted(self._all())

    def ps(self, lab: str | None) -> list[Item]:
        """What the records say, and whether it runs."""
        return [item for name, here in sorted(self._all().items()) if lab in (None, name) for item in _items(here)]

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """Lines of chitcpd's log, and of what applications wrote."""
        return local_left.logs(self.lab(lab), names, follow=follow)

    def down(self, lab: str, report: Report) -> int:
        """End every process of the lab, those too that no record knows, and remove its directory."""
        here = self._find(lab)
        self._labs.pop(lab, None)
        if (spawner := self._spawners.pop(lab, None)) is not None:
            spawner.end()
        if here is None:
            return 0
        report(f"taking down {lab}")
        count = len(_items(here))
        here.remove()
        return max(count, 1)

    def _spawn(
        self, lab: LocalLab, entry: Entry, environment: dict[str, str], directory: Path, out: Path, err: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, record it, and have a thread wait for its end."""
        label = f"{lab.directory}/{entry.kind}s/{entry.name}/"
        with out.open("ab") as stdout, err.open("ab") as stderr:
            process = subprocess.Popen(
                entry.command,
                cwd=directory,
                env={**environment, LABEL: label},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # the terminal's Ctrl-C is for the testbed, which ends things in order
            )
        entry.pid = process.pid
        entry.start = processes.start_time(process.pid) or 0
        lab.add(entry)
        waiter = threading.Thread(target=self._wait, args=(lab, entry, process), daemon=True)
        waiter.start()
        return process

    def _wait(self, lab: LocalLab, entry: Entry, process: subprocess.Popen[bytes]) -> None:
        status = process.wait()
        entry.status = status if status >= 0 else 128 - status
        try:
            lab.save()
        finally:  # a full disk must not let the run wait for ever
            if entry.kind != "capture":
                self._exits[lab.name].put(Exit(entry.kind, entry.name, entry.status))

    def _home(self) -> Path:
        home = state.directory() / "local"
        home.mkdir(exist_ok=True)
        return home

    def _all(self) -> dict[str, LocalLab]:
        names = [path.name for path in self._home().glob("[!.]*")]  # what begins with a dot is on its way out
        found = {name: self._find(name) for name in names}
        return {name: lab for name, lab in found.items() if lab is not None}

    def _find(self, name: str) -> LocalLab | None:
        directory = self._home() / name
        # Another command may have taken down what we made.
        return (self._labs.get(name) or LocalLab.load(directory)) if directory.is_dir() else None

    def lab(self, name: str) -> LocalLab:
        """The lab of this name. Raises Unavailable if nothing of it is here."""
        lab = self._find(name)
        if lab is None:
            raise Unavailable(f"there is no lab {name} any more.", "Somebody has taken it down.")
        return lab


def _limit_memory(pid: int, most: int) -> None:
    """Let a process have so many bytes, or what it may have as a child of ours, if that is less."""
    # It may have ended already; and one that is set-uid is not ours to limit.
    with suppress(ProcessLookupError, PermissionError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


def _remedy(program: str) -> str:
    """What to do about one that can't be executed."""
    if program.startswith(("chirun", "chisocket-")):
        return " (`make c` builds it)"
    if "/" in program and not program.startswith("/"):
        return " (an application has a folder of its own: `files:` puts a program there)"
    return ""


def environment() -> dict[str, str]:
    """What each process gets: the user's, without what leads to another daemon.

    `python` is the testbed's own; in a checkout, `chirun` and the samples in C are those that `make c` has built.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHITC")}
    kept["PATH"] = f"{os.path.dirname(sys.executable)}:{_C_BUILD}:{kept.get('PATH', os.defpath)}"
    return kept


def _of_an_application(lab: LocalLab, node: HostPlan) -> dict[str, str]:
    """The environment of an application of this host."""
    return {
        **environment(),
        "PYTHONUNBUFFERED": "1",
        "CHITCPD_SOCK": str(lab.socket(node.name)),
        "CHITCP_HOSTS": " ".join(f"{name}={address}" for name, address in node.names.items()),
    }


def _captures(plan: Plan) -> tuple[bool, bool]:
    return plan.capture_segments, plan.capture_wire


def _ask(lab: LocalLab, host: str, command: str, **arguments: object) -> dict[str, Any]:
    """The answer of a host's chitcpd. Raises Unavailable if there is none, or if it refuses."""
    remedy = f"See its log: testbed logs {lab.name} {host}"
    try:
        return ctl.request(str(lab.socket(host)), command, arguments)
    except OSError as error:
        why = error.strerror or "no answer in time"
        raise Unavailable(f"chitcpd of {host} does not answer ({why}).", remedy) from error
    except ctl.ControlError as error:
        raise Unavailable(f"chitcpd of {host} refuses: {error}.", remedy) from error


def _wait_answer(lab: LocalLab, node: HostPlan, spawner: Spawner) -> None:
    """Return once the host's chitcpd is ready. Raises Unavailable if it ends, or never is."""
    name = node.name
    spawner.wait(lambda: name in spawner.ready or name in spawner.statuses, _READY_WITHIN)
    if name not in spawner.ready:
        raise _has_ended(lab, name, spawner)


def _has_ended(lab: LocalLab, name: str, spawner: Spawner) -> Unavailable:
    """Or does not answer."""
    said = "\n  ".join(folder.last_lines(lab.directory / "hosts" / name / "chitcpd.log", 5)) or "nothing"
    if name in spawner.statuses:
        what = f"ended with status {spawner.statuses[name]}"
        remedy = "Mend what the log complains of, then try again."
    else:
        what, remedy = "does not answer", "See what `testbed doctor` says of this machine."
    return Unavailable(f"chitcpd of {name} {what}; its log says:\n  {said}", remedy)


_NO_UNDERLAY = (
    "`underlay:` is for netem on real links, and the local backend has none.",
    "Leave it out, or use docker: --backend docker.",
)


def _refuse_what_only_docker_has(plan: Plan, *, events: bool) -> None:
    """`events`: they are to happen, too."""
    if events and plan.later_underlay:
        raise Unavailable(*_NO_UNDERLAY)
    for link in plan.links:
        if not ipaddress.IPv4Network(link.subnet).is_loopback:
            raise Unavailable(
                f"link {link.name} has the subnet {link.subnet}, and the local backend has loopback addresses only.",
                "Leave out `subnet:`, or use docker: --backend docker.",
            )
    for node in plan.nodes:
        if not node.interfaces:
            raise Unavailable(
                f"{node.name} has no link, so that it has no address on the local backend.",
                "Give it a link, or use docker: --backend docker.",
            )
        if node.image is not None:
            raise Unavailable(
                f"host {node.name} has the image {node.image}, and the local backend runs none.",
                "Use docker: --backend docker.",
            )
        if any(interface.underlay != Underlay() for interface in node.interfaces):
            raise Unavailable(*_NO_UNDERLAY)


def _mechanism(node: HostPlan, interface: Interface) -> Mechanism:
    shape = interface.shape
    mechanism = Mechanism(interface.link, f"{node.name}->{interface.towards}")
    if shape.delay or shape.jitter or shape.rate is not None:
        mechanism.delay_jitter_rate = "chitcpd"
        mechanism.why = "all links of the local backend share the loopback interface, which can't be shaped for one"
    return mechanism


def _listening(wanted: int) -> Iterator[str]:
    """The IPv4 addresses on which any process of this machine listens at this port."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        next(table)
        for row in table:
            _, local, _, tcp_state, *_ = row.split()
            address, _, number = local.partition(":")
            if tcp_state == "0A" and int(number, 16) == wanted:
                yield socket.inet_ntoa(bytes.fromhex(address)[:: -1 if sys.byteorder == "little" else 1])


def _items(lab: LocalLab) -> list[Item]:
    def item(kind: Literal["host", "router", "app", "link"], name: str, state: str, detail: str) -> Item:
        return Item(lab.name, lab.run_id, kind, name, state, detail)

    daemons = {entry.name: entry for entry in lab.of("host")}
    nodes = []
    for node in lab.nodes:
        if node.name in daemons:
            addresses = " ".join(end.address for end in node.interfaces)
            detail = addresses if node.forwards else f"{addresses} CHITCPD_SOCK={lab.socket(node.name)}"
            nodes.append(item("router" if node.forwards else "host", node.name, daemons[node.name].state, detail))
    links = [item("link", name, "up", subnet) for name, subnet in lab.links.items()]
    return nodes + links + [item("app", e.name, e.state, shlex.join(e.command)) for e in lab.of("app")]
