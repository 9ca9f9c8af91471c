"""Labs of ordinary processes on this machine: no Docker, no root.

A host is a chitcpd that listens on loopback addresses of its own (127.x.y.z) and on a UNIX socket of its own; an
application is a process that is told that socket. chitcpd does all that a link does to what passes. Nothing keeps an
application from going around chitcpd to the machine's own network: where that matters, take docker.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from chitcpd import ctl
from testbed import state
from testbed.backends import processes, wire
from testbed.backends.base import Built, Exit, Item, Mechanism, Report, Unavailable
from testbed.backends.local_lab import LABEL, Entry, Kind, LocalLab
from testbed.plan import AppPlan, HostPlan, Interface, Plan, daemon_options

_AT_ONCE = 8  # hosts that are started at the same time
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

    def __init__(self) -> None:
        self._labs: dict[str, LocalLab] = {}
        self._exits: dict[str, SimpleQueue[Exit]] = {}

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

    def up(self, plan: Plan, report: Report) -> Built:
        """Start a chitcpd for each host, and tcpdump if asked for and possible; tell the daemons their links."""
        _refuse_other_addresses(plan)
        lab = LocalLab(
            self._home() / plan.lab,
            plan.run_id,
            {link.name: link.subnet for link in plan.links},
            {host.name: [interface.address for interface in host.interfaces] for host in plan.hosts},
        )
        try:
            lab.directory.mkdir()
        except FileExistsError:
            raise Unavailable(f"lab {plan.lab} is up.", f"Take it down: testbed down {plan.lab}") from None
        self._labs[plan.lab], self._exits[plan.lab] = lab, SimpleQueue()
        try:
            lab.save()
            return self._build(plan, lab, report)
        except BaseException:
            self.down(plan.lab, report)
            raise

    def _build(self, plan: Plan, lab: LocalLab, report: Report) -> Built:
        def bring_up(host: HostPlan) -> tuple[str, str | None]:
            daemon = self._start_daemon(plan, lab, host)
            note = self._start_capture(lab, host) if plan.capture_wire else None
            version = _wait_answer(lab, host, daemon)
            ctl.request(str(lab.socket(host.name)), "links", {"links": [_link(i) for i in host.interfaces]})
            return version, note

        report(f"starting chitcpd on {', '.join(host.name for host in plan.hosts)}")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            results = list(pool.map(bring_up, plan.hosts))
        notes = dict.fromkeys(note for _, note in results if note)  # each once, and in order
        return Built(
            mechanisms=[_mechanism(host, interface) for host in plan.hosts for interface in host.interfaces],
            versions={"chitcpd": results[0][0]},
            notes=list(notes),
        )

    def _start_daemon(self, plan: Plan, lab: LocalLab, host: HostPlan) -> subprocess.Popen[bytes]:
        here = lab.directory / "hosts" / host.name
        here.mkdir(parents=True)
        command = [sys.executable, "-m", "chitcpd", "-p", str(port()), "-s", str(lab.socket(host.name))]
        command += daemon_options(
            plan, host, trace="trace.jsonl", segments="segments.pcap", implementation="implementation.py"
        )
        if host.implementation is not None:
            (here / "implementation.py").write_bytes(host.implementation)
        log = here / "chitcpd.log"
        return self._spawn(lab, Entry("host", host.name, command), environment(), here, log, log)

    def _start_capture(self, lab: LocalLab, host: HostPlan) -> str | None:
        """Capture what the host sends and receives; if that can't be, say why."""
        here = lab.directory / "hosts" / host.name
        log = lab.directory / f"{host.name}.tcpdump"
        try:
            command = wire.command(lab.hosts[host.name], port())
            entry = Entry("capture", host.name, command)
            tcpdump = self._spawn(lab, entry, environment(), here, here / "wire.pcap", log)
            wire.wait_listening(tcpdump, log)
        except wire.NoCapture as why:
            (here / "wire.pcap").unlink(missing_ok=True)
            return f"no capture of the wire: {why}. {why.remedy}"
        return None

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Start an application in `apps/A/files`, with the testbed's own Python first on PATH."""
        lab = self.lab(plan.lab)
        here = lab.directory / "apps" / app.name
        (here / "files").mkdir(parents=True)
        for name, content in app.files.items():
            (here / "files" / name).write_bytes(content)
            (here / "files" / name).chmod(0o755 if name in app.executables else 0o644)
        names = next(host.names for host in plan.hosts if host.name == app.host)
        own = {
            **environment(),
            "PYTHONUNBUFFERED": "1",
            "CHITCPD_SOCK": str(lab.socket(app.host)),
            "CHITCP_HOSTS": " ".join(f"{name}={address}" for name, address in names.items()),
            **app.env,
        }
        entry = Entry("app", app.name, list(app.run))
        try:
            self._spawn(lab, entry, own, here / "files", here / "stdout", here / "stderr")
        except OSError as error:
            # As a shell does it: such an application has ended, and the reason is in its standard error.
            (here / "stderr").write_text(f"{app.run[0]}: {error.strerror}{_remedy(app.run[0])}\n")
            entry.status = 127 if isinstance(error, FileNotFoundError) else 126
            lab.add(entry)
            self._exits[plan.lab].put(Exit("app", app.name, entry.status))

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Ask the daemon, which answers when it has the listener; look in between whether it still can."""
        lab = self.lab(plan.lab)
        own = [entry for entry in lab.entries if (entry.kind, entry.name) in (("app", app.name), ("host", app.host))]
        until = time.monotonic() + app.timeout
        while all(entry.state == "running" for entry in own):
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

    def exits(self, plan: Plan) -> SimpleQueue[Exit]:
        """Filled by a thread for each process, which waits for its end."""
        return self._exits[plan.lab]

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, SIGKILL three seconds later; what the application started goes with it."""
        self.lab(plan.lab).end("app", app.name, grace=_GRACE)

    def collect(self, plan: Plan, directory: Path) -> None:
        """End what runs: applications, then daemons, then captures, so that these see the end; copy the files."""
        lab = self.lab(plan.lab)
        kinds: tuple[Kind, ...] = ("app", "host", "capture")
        for kind in kinds:
            lab.end(kind, grace=_GRACE)
        for part in ("hosts", "apps"):
            if (lab.directory / part).is_dir():
                shutil.copytree(
                    lab.directory / part, directory / part, symlinks=True, ignore=_special_files, dirs_exist_ok=True
                )

    def labs(self) -> list[str]:
        """The directories in the state directory."""
        return sorted(self._all())

    def ps(self, lab: str | None) -> list[Item]:
        """What the records say, and whether it runs."""
        return [item for name, here in sorted(self._all().items()) if lab in (None, name) for item in _items(here)]

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """Lines of chitcpd's log, and of what applications wrote."""
        here = self.lab(lab)
        read: dict[Path, int] = {}
        while True:
            own = [e for e in here.entries if e.kind != "capture" and (not names or e.name in names)]
            over = not follow or not here.directory.is_dir() or all(entry.state != "running" for entry in own)
            for entry in own:
                for path in _outputs(here, entry):
                    yield from ((entry.name, line) for line in _fresh_lines(path, read, whole_only=not over))
            if over:
                return
            time.sleep(0.1)  # files have no event to wait for

    def down(self, lab: str, report: Report) -> int:
        """End every process of the lab, those too that no record knows, and remove its directory."""
        here = self._find(lab)
        self._labs.pop(lab, None)
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
        with out.open("wb") as stdout, err.open("ab") as stderr:
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
        """The lab of this name. Raises LookupError if nothing of it is here."""
        lab = self._find(name)
        if lab is None:
            raise LookupError(f"there is no lab {name}")
        return lab


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


def _wait_answer(lab: LocalLab, host: HostPlan, daemon: subprocess.Popen[bytes]) -> str:
    """Return the version of the host's chitcpd once it answers. Raises Unavailable if it ends, or never answers."""
    until = time.monotonic() + _READY_WITHIN
    while daemon.poll() is None and time.monotonic() < until:
        try:
            answer = ctl.request(str(lab.socket(host.name)), "ping", {}, wait=_SLICE)
        except OSError:
            continue
        return str(answer["version"])
    log = (lab.directory / "hosts" / host.name / "chitcpd.log").read_text(errors="replace").strip()
    said = "\n  ".join(log.splitlines()[-5:]) or "nothing"
    if daemon.returncode is None:
        what, remedy = "does not answer", "See what `testbed doctor` says of this machine."
    else:
        what = f"ended with status {daemon.returncode}"
        remedy = "Mend what the log complains of, then try again."
    raise Unavailable(f"chitcpd of {host.name} {what}; its log says:\n  {said}", remedy)


def _refuse_other_addresses(plan: Plan) -> None:
    for link in plan.links:
        if not ipaddress.IPv4Network(link.subnet).is_loopback:
            raise Unavailable(
                f"link {link.name} has the subnet {link.subnet}, and the local backend has loopback addresses only.",
                "Leave out `subnet:`, or use docker: --backend docker.",
            )
    for host in plan.hosts:
        if not host.interfaces:
            raise Unavailable(
                f"host {host.name} has no link, so that it has no address on the local backend.",
                "Give it a link, or use docker: --backend docker.",
            )


def _link(interface: Interface) -> dict[str, object]:
    return {
        "peer": interface.peer_address,
        "own": interface.address,
        "mtu": interface.mtu,
        "seed": interface.seed,
        **asdict(interface.shape),
    }


def _mechanism(host: HostPlan, interface: Interface) -> Mechanism:
    shape = interface.shape
    mechanism = Mechanism(interface.link, f"{host.name}->{interface.peer}")
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


def _special_files(directory: str, names: list[str]) -> list[str]:
    """FIFOs, sockets and devices that an application made: they can't be copied."""
    kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    modes = {name: os.lstat(os.path.join(directory, name)).st_mode for name in names}
    return [name for name, mode in modes.items() if not any(kind(mode) for kind in kinds)]


def _outputs(lab: LocalLab, entry: Entry) -> list[Path]:
    here = lab.directory / f"{entry.kind}s" / entry.name
    return [here / "chitcpd.log"] if entry.kind == "host" else [here / "stdout", here / "stderr"]


def _fresh_lines(path: Path, read: dict[Path, int], *, whole_only: bool) -> list[str]:
    """The lines that were not read yet; not the last one if its end is still to be written."""
    try:
        with path.open("rb") as file:
            file.seek(read.get(path, 0))
            text = file.read()
    except FileNotFoundError:
        return []
    if whole_only:
        text = text[: text.rfind(b"\n") + 1]
    read[path] = read.get(path, 0) + len(text)
    return text.decode(errors="replace").splitlines()


def _items(lab: LocalLab) -> list[Item]:
    def item(kind: Literal["host", "app", "link"], name: str, state: str, detail: str) -> Item:
        return Item(lab.name, lab.run_id, kind, name, state, detail)

    daemons = {entry.name: entry for entry in lab.of("host")}
    hosts = [
        item("host", name, daemons[name].state, f"{' '.join(addresses)} CHITCPD_SOCK={lab.socket(name)}")
        for name, addresses in lab.hosts.items()
        if name in daemons
    ]
    links = [item("link", name, "up", subnet) for name, subnet in lab.links.items()]
    return hosts + links + [item("app", e.name, e.state, shlex.join(e.command)) for e in lab.of("app")]
