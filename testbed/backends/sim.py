"""Labs in virtual time: no process and no packet, and the same seed gives the same bytes in every file.

Hosts and routers are nodes of `chitcpd.simlab`, which has the daemon's own parts: what they do to the n-th segment on a
link, the local backend's daemons do too. Applications are those of chisocket (sim_apps), in threads that take turns
(sim_threads). `run` and `conductor` do in its clock's time what they do elsewhere in the wall clock's, so that all that
waits, is late, or is killed is so at the same moment in each run.

A lab lives only while the command does that runs it; what it has written so far is in the state directory, sim/LAB.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from signal import Signals
from textwrap import shorten
from typing import NoReturn

import chitcpd
from chitcpd import settings
from chitcpd.sim import LimitExceeded, Signal
from chitcpd.simlab import File, Files, Lab, Node, Settings
from testbed import search, state
from testbed.backends import sim_apps
from testbed.backends.base import Built, Exit, Item, Mechanism, Now, Recording, Report
from testbed.backends.sim_apps import AppLife
from testbed.backends.sim_log import logs_of
from testbed.backends.sim_threads import VirtualClock
from testbed.backends.sim_watch import Watch
from testbed.clock import Clock, Queue
from testbed.events import Deed, Reshape
from testbed.plan import AppPlan, HostPlan, Interface, Plan, Underlay, derive
from testbed.topology.model import Limits
from testbed.unavailable import Unavailable

_GRACE = 3.0  # virtual seconds between SIGTERM and SIGKILL
_SEARCH_WITHIN = 10  # seconds, of the wall clock
_LIMITS = Limits()
_NO_WIRE = "no capture of the wire: a simulation has none"
_NO_TIME = (
    "no link has a delay or a rate: in a simulation what crosses it takes no time then, so there is little or nothing "
    "to plot. Try `delay: 10ms, rate: 10mbit`"
)
_KEEP_IT = ("a simulation lives only while `testbed run` does.", "Use docker or local: --backend local.")


class SimBackend:
    """One lab at a time, in this process."""

    name = "sim"
    pool = "10.213.0.0/16"
    repeatable = True

    def __init__(self) -> None:
        self._up: _SimLab | None = None
        self.clock: Clock = _clock(Lab(0))

    def check(self) -> None:
        """Raise Unavailable if there is no state directory."""
        self._home()

    def subnets_in_use(self) -> dict[str, str]:
        """None: nobody else has anything of a simulation's."""
        return {}

    def check_plan(self, plan: Plan) -> None:
        """Raise Unavailable for what a simulation has not."""
        _refuse_what_it_has_not(plan)

    def up(self, plan: Plan, report: Report, *, stays: bool) -> Built:
        """Make the nodes. Raises Unavailable for what a simulation has not."""
        if stays:
            raise Unavailable(*_KEEP_IT)
        _refuse_what_it_has_not(plan)
        directory = self._home() / plan.lab
        if self._up is not None or directory.exists():
            raise Unavailable(f"lab {plan.lab} is up.", f"Take it down: testbed down {plan.lab}")
        lab = Lab(plan.seed)
        self.clock = clock = _clock(lab)
        self._up = _SimLab(plan, lab, clock, directory)
        try:
            report(f"starting chitcpd on {', '.join(node.name for node in plan.nodes)}")
            self._up.build()
        except BaseException:
            self.down(plan.lab, report)
            raise
        notes = [_NO_WIRE] if plan.capture_wire else []
        limited = [app.name for app in plan.apps if (app.memory, app.processes) != (_LIMITS.memory, _LIMITS.processes)]
        if limited:
            notes.append(f"limits of {', '.join(limited)}: a simulation limits nothing")
        shapes = [end.shape for node in plan.nodes for end in node.interfaces]
        if shapes and not any(shape.delay or shape.jitter or shape.rate for shape in shapes):
            notes.append(_NO_TIME)
        return Built(
            mechanisms=[_mechanism(node, end) for node in plan.nodes for end in node.interfaces],
            versions={"chitcpd": chitcpd.__version__, "kernel": "none"},
            notes=notes,
        )

    def change(self, plan: Plan, report: Report) -> Built | None:
        """Nothing stays up."""
        raise Unavailable(*_KEEP_IT)

    def start(self, plan: Plan, app: AppPlan) -> None:
        """In a thread."""
        self._lab(plan.lab).start(app)

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """In virtual time."""
        return self._lab(plan.lab).wait_ready(app)

    def exits(self, plan: Plan) -> Queue[Exit]:
        """Of the lab's clock."""
        return self._lab(plan.lab).exits

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, SIGKILL three virtual seconds later."""
        self._lab(plan.lab).stop(app.name)

    def nodes(self, lab: str) -> tuple[HostPlan, ...]:
        """As the plan says."""
        return self._lab(lab).plan.nodes

    def attend(self, lab: str, hosts: Sequence[str]) -> None:
        """There is nothing to make ready."""

    def now(self, lab: str, node: HostPlan, interface: Interface) -> Now:
        """As the node says."""
        found = self._lab(lab).node(node.name).impairment(next(iter(interface.peers.values())))
        return Now(interface.shape) if found is None else Now(found.shape, counts=Counter(found.counts))

    def reshape(self, lab: str, changes: Sequence[Reshape]) -> None:
        """Tell the nodes. Raises Unavailable for an `underlay`."""
        for change in changes:
            if change.underlay != Underlay():
                raise Unavailable(*_NO_UNDERLAY)
            _shape(self._lab(lab).node(change.node), change.interface, change)

    def block(self, lab: str, host: str, addresses: Sequence[str]) -> None:
        """Tell the node."""
        self._lab(lab).node(host).block(addresses)

    def deed(self, lab: str, host: str, deed: Deed) -> None:
        """To the node."""
        self._lab(lab).deed(host, deed)

    def kill(self, lab: str, app: str, signal: str) -> bool:
        """To its first thread."""
        return self._lab(lab).kill(app, Signals[signal])

    def collect(self, plan: Plan, directory: Path) -> list[str]:
        """End applications, then daemons; copy the files."""
        lab = self._lab(plan.lab)
        lab.finish()
        return self.snapshot(plan.lab, directory)

    def snapshot(self, lab: str, directory: Path) -> list[str]:
        """Copy the files."""
        here = self._lab(lab).directory
        for part in ("hosts", "apps"):
            if (here / part).is_dir():
                shutil.copytree(here / part, directory / part, symlinks=True)
        return []

    def recording(self, lab: str, node: str, recording: Recording, *, follow: bool) -> Iterator[bytes]:
        """Only when the run is over, in its folder."""
        _refuse_to_watch(lab)

    def execute(self, lab: str, host: str, command: Sequence[str], *, terminal: bool) -> int:
        """There are no commands."""
        _refuse_to_watch(lab)

    def labs(self) -> list[str]:
        """Those of which there are files, of this user's other commands too."""
        return sorted(path.name for path in self._home().iterdir())

    def garbage(self) -> list[str]:
        """All of them: none outlives its command."""
        return self.labs()

    def ps(self, lab: str | None) -> list[Item]:
        """The nodes and applications of our own; of others there is one item."""
        items: list[Item] = []
        for name in self.labs():
            if self._up is not None and self._up.plan.lab == name:
                items += self._up.items()
            else:
                items.append(Item(name, "", "host", "simulation", "of another command", ""))
        return [item for item in items if lab in (None, item.lab)]

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """Only when the run is over, in its folder."""
        _refuse_to_watch(lab)

    def down(self, lab: str, report: Report) -> int:
        """End all threads, and remove the files."""
        count = len(self.ps(lab))
        if self._up is not None and self._up.plan.lab == lab:
            self._up.end()
            self._up, self.clock = None, _clock(Lab(0))
        shutil.rmtree(self._home() / lab, ignore_errors=True)
        return count

    def _lab(self, name: str) -> _SimLab:
        if self._up is None or self._up.plan.lab != name:
            _refuse_to_watch(name)
        return self._up

    def _home(self) -> Path:
        home = state.directory() / "sim"
        home.mkdir(exist_ok=True)
        return home


class _SimLab:
    """A lab that is up: its nodes, and its applications."""

    def __init__(self, plan: Plan, lab: Lab, clock: VirtualClock, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.exits: Queue[Exit] = clock.queue()
        self._lab = lab
        self._clock = clock
        self._apps: dict[str, AppLife] = {}
        self._lives: Counter[str] = Counter()
        self._changed = Signal(lab.simulation)  # an application has written, listens, or has ended; or a daemon
        self._stack = ExitStack()

    def build(self) -> None:
        """Make all nodes. Raises Unavailable."""
        self._stack.enter_context(logs_of(self._lab))
        self._stack.enter_context(Watch(self._lab, self._clock))
        for node in self.plan.nodes:
            here = self.directory / "hosts" / node.name
            here.mkdir(parents=True)
            own = self.directory / "own" / node.name / "implementation.py" if node.implementation else None
            if own is not None:
                own.parent.mkdir(parents=True)
                own.write_bytes(node.implementation or b"")
            files = Files(
                File(here / "chitcpd.log"),
                File(here / "trace.jsonl"),
                File(here / "segments.pcap") if self.plan.capture_segments else None,
            )
            try:
                made = self._lab.node(node.name, _settings(node, own), files)
            except ValueError as error:
                what = str(error).replace(f"{self.directory}/own/{node.name}/", "")
                raise Unavailable(f"chitcpd of {node.name} did not start: {what}", "Mend that file.") from error
            _link(made, node)

    def node(self, name: str) -> Node:
        """The host or router of this name."""
        return self._lab.nodes[name]

    def start(self, app: AppPlan) -> None:
        """Start an application; anew, with what it has left, if there was one."""
        here = self.directory / "apps" / app.name
        if not here.is_dir():
            (here / "files").mkdir(parents=True)
            for name, content in app.files.items():
                (here / "files" / name).write_bytes(content)
                (here / "files" / name).chmod(0o755 if name in app.executables else 0o644)
        self._lives[app.name] += 1
        life = self._apps[app.name] = AppLife(
            app,
            self.node(app.host),
            self.plan.node(app.host).names,
            self._clock,
            here,
            seed=derive(self.plan.seed, "app", app.name, str(self._lives[app.name])),
            changed=self._changed.changed,
            ended=lambda status: self.exits.put(Exit("app", app.name, status, at=self._clock.now())),
        )
        life.start()

    def wait_ready(self, app: AppPlan) -> bool:
        """Until it listens, or has written a line that matches."""
        life, now = self._apps[app.name], self._clock.now
        until = now() + app.timeout
        while life.status is None and life.node.runs and now() < until:
            if self._is_ready(life):
                life.ready = True
                return True
            self._clock.wait(self._changed, until)
        return False

    def stop(self, app: str) -> None:
        """SIGTERM, and SIGKILL if it does not end."""
        life = self._apps.get(app)
        if life is None:
            return
        if not self._clock.broken:
            life.kill(Signals.SIGTERM)
            until = self._clock.now() + _GRACE
            while life.status is None and self._clock.now() < until:
                self._clock.wait(self._changed, until)
        life.kill(Signals.SIGKILL)

    def kill(self, app: str, number: Signals) -> bool:
        """Send a signal; False if it does not run."""
        life = self._apps.get(app)
        if life is None or life.status is not None:
            return False
        life.kill(number)
        return True

    def deed(self, host: str, deed: Deed) -> None:
        """What an event does to a host's daemon."""
        node = self.node(host)
        if deed == "pause":
            node.pause()
        elif deed == "resume":
            node.resume()
        else:
            was_there = node.runs
            node.kill()
            if deed == "restart":
                node.start()
                _link(node, self.plan.node(host))
            elif was_there:
                self.exits.put(Exit("host", host, 128 + Signals.SIGKILL))
        self._changed.changed()

    def finish(self) -> None:
        """The end of all applications, then of all daemons; all is in the files."""
        for life in self._apps.values():
            life.kill(Signals.SIGKILL)
        if self._clock.broken:
            self._lab.write_out()
        else:
            with suppress(LimitExceeded):  # the run is over: what connections do for ever after is nobody's fault
                self._lab.finish()

    def end(self) -> None:
        """Nothing of it goes on."""
        self._clock.end()
        self._stack.close()

    def items(self) -> Iterator[Item]:
        """What is there."""
        plan = self.plan

        def item(kind: str, name: str, said: str, detail: str) -> Item:
            return Item(plan.lab, plan.run_id, kind, name, said, detail)  # type: ignore[arg-type]

        for node in plan.nodes:
            runs = node.name in self._lab.nodes and self.node(node.name).runs
            addresses = " ".join(end.address for end in node.interfaces)
            kind = "router" if node.forwards else "host"
            yield item(kind, node.name, "running" if runs else "exited 0", addresses)
        for name, life in self._apps.items():
            ended = "running" if life.status is None else f"exited {life.status}"
            yield item("app", name, ended, " ".join(life.plan.run))
        for link in plan.links:
            yield item("link", link.name, "up", link.subnet)

    def _is_ready(self, life: AppLife) -> bool:
        app = life.plan
        if app.says is None:
            return app.listening is not None and life.node.listens(app.listening)
        lines, end, rest = life.written.rpartition(b"\n")
        if not end:
            return False
        life.written = rest
        try:
            return search.search(app.says, bytes(lines), within=_SEARCH_WITHIN) is not None
        except TimeoutError:
            return False


def _clock(lab: Lab) -> VirtualClock:
    return VirtualClock(lab.simulation, lab.testbed)


def _settings(node: HostPlan, own: Path | None) -> Settings:
    return Settings(
        addresses=tuple(end.address for end in node.interfaces),
        tcp=own,
        profile=node.profile,
        changes=node.settings,
        config=settings.configure(node.profile, node.settings),
        seed=node.seed,
        forwards=node.forwards,
    )


def _link(node: Node, plan: HostPlan) -> None:
    """Tell a node its links and routes, as they were planned."""
    for end in plan.interfaces:
        node.shape(list(end.peers.values()), end.address, end.shape, seed=end.seed, mtu=end.mtu)
    for way in plan.ways:
        if way.behind:
            node.route(way.behind, way.gateway, own=plan.interface(way.link).address, mtu=way.mtu)


def _shape(node: Node, end: Interface, change: Reshape) -> None:
    node.shape(list(end.peers.values()), end.address, change.shape, seed=None, mtu=end.mtu)


def _mechanism(node: HostPlan, end: Interface) -> Mechanism:
    shaped = bool(end.shape.delay or end.shape.jitter or end.shape.rate is not None)
    return Mechanism(
        end.link,
        f"{node.name}->{end.towards}",
        delay_jitter_rate="sim" if shaped else "none",
        why="a simulation has no real links" if shaped else "",
        all_else="sim",
    )


_NO_UNDERLAY = (
    "`underlay:` is for netem on real links, and a simulation has none.",
    "Leave it out, or use docker: --backend docker.",
)


def _refuse_what_it_has_not(plan: Plan) -> None:
    for node in plan.nodes:
        if node.image is not None:
            raise Unavailable(
                f"host {node.name} has the image {node.image}, and a simulation runs none.",
                "Use docker: --backend docker.",
            )
        if plan.later_underlay or any(end.underlay != Underlay() for end in node.interfaces):
            raise Unavailable(*_NO_UNDERLAY)
    others = [app for app in plan.apps if sim_apps.module_of(app.run) is None]
    if others:
        runs = "; ".join(f"{app.name} runs {shorten(' '.join(app.run), 60, placeholder=' ...')}" for app in others[:3])
        more = f"; and {len(others) - 3} more" if len(others) > 3 else ""
        known = ", ".join(f"python -m {name}" for name in sim_apps.names())
        raise Unavailable(
            f"a simulation runs {known} and no other program, but {runs}{more}.",
            "Use local or docker for these: --backend local.",
        )


def _refuse_to_watch(lab: str) -> NoReturn:
    raise Unavailable(
        f"lab {lab} is a simulation of another command, which nobody can look into.",
        "Its run folder tells all, when it is over.",
    )
