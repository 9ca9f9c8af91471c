"""A run: bring the lab up, start the applications in order, wait for their ends, check, collect, take down.

Whatever happens in between (an error, Ctrl-C, a daemon that dies), what is there is collected and the lab is taken
down. Nothing here knows what the lab is made of: the backend does.
"""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from queue import Empty
from typing import TypeVar

from testbed import checks, folder, inputs, lab, manifest, state
from testbed import report as reports
from testbed import topology as topologies
from testbed.backends import Choice
from testbed.backends.base import Backend, Exit, Report
from testbed.clock import Queue, TimeStands
from testbed.conductor import Conductor, Meant
from testbed.events import Step, timeline
from testbed.outcome import Ending, Outcome
from testbed.plan import AppPlan
from testbed.signals import Interrupted, Signals
from testbed.tcp_faults import tcp_faults
from testbed.topology import Topology
from testbed.unavailable import Unavailable

T = TypeVar("T")

_LAST_LINES = 12
_DAEMON_TOLD_WITHIN = 1.0  # seconds between the end of an application by its daemon's end, and the news of this

_SOON_READ = 20_000_000  # bytes of traces, of which there is a report in two seconds


class CutShort(Exception):
    """The run can't go on; the message says why, `log` is the file in the run folder that tells more."""

    def __init__(self, why: str, log: str) -> None:
        super().__init__(why)
        self.log = log


def run(topology: Topology, source: Path, choice: Choice, *, name: str, runs: Path, report: Report) -> Outcome:
    """Run a topology, read from the file `source`, as the lab `name`; leave everything in a folder under `runs`.

    Raises Unavailable and Interrupted if the lab could not be brought up: then nothing is left.
    """
    backend = choice.backend
    with Signals() as signals, state.lab_lock(name):
        lab.refuse_if_up(backend, name)
        with folder.created(runs, name) as directory:
            began = backend.clock.now()
            (directory / "topology.yaml").write_text(topologies.resolved(source, topology.variables), encoding="utf-8")
            inputs.keep(directory, topology.inputs)
            run_id = f"seed-{topology.seed}" if backend.repeatable else directory.name
            plan, built = lab.build(
                topology, backend, lab=name, run_id=run_id, stays=False, signals=signals, report=report
            )
        endings = {app.name: Ending(app) for app in plan.apps}
        outcome = Outcome(directory, plan, built, endings, up_seconds=backend.clock.now() - began)
        _use(topology, choice, outcome, signals, report)
        return outcome


def _use(topology: Topology, choice: Choice, outcome: Outcome, signals: Signals, report: Report) -> None:
    """What is done with a lab that is up; ends with the lab down, in any case."""
    backend, plan, directory = choice.backend, outcome.plan, outcome.directory
    play: _Play | None = None
    log: str | None = None
    try:
        play = _Play(backend, outcome, timeline(topology, plan), signals, report)
        play.apps()
    except CutShort as cut:
        outcome.failure, log = str(cut), cut.log
    except TimeStands as why:
        outcome.failure = str(why)
    except Interrupted as interrupted:
        outcome.interrupted, outcome.failure = interrupted.status, f"interrupted by {interrupted}"
    except Exception as error:
        _blame_us(outcome, error)

    # From here on no signal is raised, and no error keeps the rest from being done.
    def write_manifest() -> None:
        manifest.write(outcome, topology=topology, backend=backend.name, why=choice.why)

    if play is not None:
        _attempt(outcome, play.stop_all)
    _attempt(outcome, lambda: _quiet(report)("collecting"))
    _attempt(outcome, lambda: outcome.missing.extend(backend.collect(plan, directory)))
    _attempt(outcome, lambda: outcome.faults.extend(tcp_faults(directory)))
    _attempt(outcome, lambda: _require_lab(backend, outcome))
    _attempt(outcome, lambda: _judge(topology, outcome, log))
    _attempt(outcome, write_manifest)
    if not _attempt(outcome, lambda: backend.down(plan.lab, _quiet(report))):
        outcome.error = f"{outcome.error}; what is left of the lab goes with: testbed down {plan.lab}"
        _attempt(outcome, write_manifest)
    _write_report(outcome, signals, report)
    _attempt(outcome, lambda: folder.point_latest(directory))


def _write_report(outcome: Outcome, signals: Signals, report: Report) -> None:
    """Write report.html; if that can't be, or a signal ends it, the run is as it was."""
    path = outcome.directory / reports.NAME
    size = sum(trace.stat().st_size for trace in outcome.directory.glob("hosts/*/trace.jsonl"))
    if signals.came and size > _SOON_READ:
        outcome.no_report = "the run was interrupted, and there is much to read"
        return
    _quiet(report)("writing the report")
    try:
        with nullcontext() if signals.came else signals.interruptible():
            reports.Report(outcome.directory).write(path)
        outcome.report = path
    except Interrupted as interrupted:
        outcome.no_report = f"interrupted by {interrupted}"
    except Exception as error:
        outcome.no_report = f"{type(error).__name__}: {error}"


def _require_lab(backend: Backend, outcome: Outcome) -> None:
    """Raise Unavailable if somebody has taken the lab down meanwhile: what else went wrong may follow from that."""
    lab = outcome.plan.lab
    if not {node.name for node in outcome.plan.nodes} <= {item.name for item in backend.ps(lab)}:
        outcome.error = None
        raise Unavailable(f"somebody has taken lab {lab} down while it ran.", "Run it again.")


class _Play:
    """The applications of a run, from the first start to the last end."""

    def __init__(
        self, backend: Backend, outcome: Outcome, steps: Sequence[Step], signals: Signals, report: Report
    ) -> None:
        self._backend = backend
        self._now = backend.clock.now
        self._plan = outcome.plan
        self._outcome = outcome
        self._signals = signals
        self._report = report
        self._exits: Queue[Exit | Meant | Exception] = backend.exits(outcome.plan)  # type: ignore[assignment]
        self._aside: deque[Exit] = deque()  # ends of applications that were taken too early
        # Of hosts and applications, how many ends events have made, or are about to.
        self._killed: Counter[tuple[str, str]] = Counter()
        self._conductor = Conductor(backend, outcome.plan.lab, steps, report, self._exits.put)
        outcome.events = self._conductor.happened
        self._begun: dict[str, float] = {}  # application -> when it was started
        self._first = self._now()
        outcome.began = backend.clock.epoch()

    def apps(self) -> None:
        """Start each application when those before it are ready; return when none has to end any more.

        Raises CutShort if the run can't go on, and Interrupted.
        """
        self._conductor.begin()
        for app in self._plan.apps:
            self._signals.raise_if_any()
            self._report(f"starting {app.name} on {app.host}")
            self._begun[app.name] = self._now()
            self._outcome.endings[app.name].how = "running"
            self._backend.start(self._plan, app)
            if app.listening is not None or app.says is not None:
                self._wait_ready(app)
        while due := [ending.app for ending in self._outcome.endings.values() if ending.is_due]:
            self._report(f"waiting for {', '.join(app.name for app in due)}")
            self._wait_for_one(due)

    def stop_all(self) -> None:
        """Stop the events, then what serves, the last started first, and learn how it ended."""
        self._conductor.end()
        for app in reversed(self._plan.apps):
            if self._outcome.endings[app.name].how == "running":
                self._outcome.endings[app.name].how = "stopped"
                self._backend.stop(self._plan, app)
        until = self._now() + 2
        while any(ending.how != "not started" and ending.status is None for ending in self._outcome.endings.values()):
            try:
                left = max(0.0, until - self._now())
                exit_ = self._aside.popleft() if self._aside else self._exits.get(timeout=left)
            except Empty:
                break
            if isinstance(exit_, Exit) and exit_.kind == "app":
                self._note_end(exit_)
        self._outcome.run_seconds = self._now() - self._first
        failed = next((happened.error for happened in self._outcome.events if happened.error is not None), None)
        if failed is not None and self._outcome.error is None and self._outcome.failure is None:
            raise failed  # as the last application ended: nobody was told

    def _wait_ready(self, app: AppPlan) -> None:
        listens = app.listening is not None
        self._report(f"waiting for {app.name} to {'listen on' if listens else 'write that it serves'}{_where(app)}")
        ending = self._outcome.endings[app.name]
        tried = -1
        while tried < ending.restarts:  # it has been started anew
            tried = ending.restarts
            if self._is_ready(app, ending):
                return
        raise CutShort(f"{app.name} {_not_ready(app, ending)}", f"apps/{app.name}/stderr")

    def _is_ready(self, app: AppPlan, ending: Ending) -> bool:
        """Whether it serves; if not, its end is known, or it is late."""
        tried = ending.restarts
        answers: Queue[bool | Exception] = self._backend.clock.queue()

        def ask() -> None:
            try:
                answers.put(self._backend.wait_ready(self._plan, app))
            except Exception as error:
                answers.put(error)

        # Beside it we look at what ends: any daemon's end is the run's, and must not wait for this application; nor
        # must one that is late.
        self._backend.clock.start(ask)
        while (answer := self._get(answers, timeout=0.1)) is None:
            if not self._take(timeout=0, getting_ready=app.name):
                self._stop_late(getting_ready=app.name)
        if isinstance(answer, Exception):
            raise answer
        if not answer and self._now() - self._begun[app.name] < app.timeout:
            # Its end, or its daemon's, is in the queue, or will be at once.
            while ending.how == "running" and ending.restarts == tried:
                if not self._take(timeout=2, getting_ready=app.name):
                    break
        return answer

    def _wait_for_one(self, due: list[AppPlan]) -> None:
        """Return when something has ended, or one of these is late and has been stopped."""
        deadline = min(self._begun[app.name] + app.timeout for app in due)
        if self._take(timeout=deadline - self._now()):
            return
        self._stop_late()

    def _stop_late(self, getting_ready: str = "") -> None:
        """Applications that should have ended by now; of one that gets ready this is for who waits for it to say."""
        for name, begun in self._begun.items():
            ending = self._outcome.endings[name]
            if ending.is_due and name != getting_ready and self._now() >= begun + ending.app.timeout:
                ending.how = "timed out"
                self._backend.stop(self._plan, ending.app)

    def _take(self, timeout: float, getting_ready: str = "") -> bool:
        """Take an end from the queue; False if there was none. Raises CutShort if the run can't go on after it."""
        told = self._aside.popleft() if self._aside else self._get(self._exits, timeout)
        if isinstance(told, Exit) and told.kind == "app":
            self._take_end(told, getting_ready)
        elif told is not None:
            self._heed(told)
        return told is not None

    def _take_end(self, exit_: Exit, getting_ready: str) -> None:
        """Of an application. Raises CutShort if the run can't go on after it."""
        ending = self._note_end(exit_)
        if ending.may_go_on:
            self._start_anew(ending)
            return
        if ending.how == "by itself" and ending.status not in (0, ending.app.expect_exit):
            self._look_for_a_dead_daemon()
        for name, ended in self._outcome.endings.items():
            serves = ended.app.expect_exit is None and name != getting_ready
            killed = self._killed["app", name]
            if serves and ended.how == "by itself" and ended.status != 0 and not killed:
                what = f"{name}, which serves the others, ended with status {ended.status}"
                raise CutShort(what, f"apps/{name}/stderr")

    def _heed(self, told: Exit | Meant | Exception) -> None:
        """What is not the end of an application. Raises CutShort for a daemon's, and an event's error."""
        if isinstance(told, Exception):
            raise told
        if isinstance(told, Meant):
            one = told.kind, told.name
            self._killed[one] = max(self._killed[one] + (1 if told.to_end else -1), 0)
        elif not self._killed["host", told.name]:
            raise _daemon_died(told)

    def _look_for_a_dead_daemon(self) -> None:
        """An application that fails may do so because its daemon died, the end of which can be told a moment later."""
        until = self._now() + _DAEMON_TOLD_WITHIN
        while (told := self._get(self._exits, until - self._now())) is not None:
            if isinstance(told, Exit) and told.kind == "app":
                self._aside.append(told)
            else:
                self._heed(told)

    def _start_anew(self, ending: Ending) -> None:
        name = ending.app.name
        ending.restarts += 1
        del self._killed["app", name]
        self._report(f"starting {name} anew ({ending.restarts} of {ending.app.restarts}): status {ending.status}")
        self._begun[name] = self._now()
        ending.how, ending.status = "running", None
        self._backend.start(self._plan, ending.app)

    def _get(self, queue: Queue[T], timeout: float) -> T | None:
        """The next of a queue, or None after `timeout` seconds; a signal interrupts it."""
        try:
            with self._signals.interruptible():
                return queue.get(timeout=max(0.0, timeout))
        except Empty:
            return None

    def _note_end(self, exit_: Exit) -> Ending:
        ending = self._outcome.endings[exit_.name]
        ending.status = exit_.status
        ending.seconds = exit_.at - self._begun[exit_.name]
        if ending.how == "running":
            ending.how = "by itself"
        return ending


def _where(app: AppPlan) -> str:
    return f" {app.host}:{app.listening}" if app.listening is not None else ""


def _not_ready(app: AppPlan, ending: Ending) -> str:
    """What an application did in place of serving."""
    if ending.how != "running":
        before = f"it listened on port {app.listening}" if app.listening is not None else f"it wrote {app.says!r}"
        return f"ended with status {ending.status} before {before}"
    if app.listening is None:
        return f"wrote nothing that matches {app.says!r} within {app.timeout:g} s"
    hint = "" if app.run[0] == "chirun" else " (one that knows nothing of chisocket needs `via: chirun`)"
    return f"did not listen on port {app.listening} of {app.host} within {app.timeout:g} s{hint}"


def _daemon_died(exit_: Exit) -> CutShort:
    what = f"chitcpd of {exit_.name} ended with status {exit_.status} during the run"
    return CutShort(what, f"hosts/{exit_.name}/chitcpd.log")


def _judge(topology: Topology, outcome: Outcome, log: str | None) -> None:
    """Read what was collected: what applications said, the log that tells of a failure, the verdicts."""
    plan, directory = outcome.plan, outcome.directory
    for app in plan.apps:
        for stream in ("stdout", "stderr") if outcome.endings[app.name].went_wrong else ("stdout",):
            path = directory / "apps" / app.name / stream
            outcome.said += [(app.name, line) for line in folder.last_lines(path, _LAST_LINES)]
    if log is not None:
        tail = "".join(f"\n  {line}" for line in folder.last_lines(directory / log, _LAST_LINES))
        outcome.failure = f"{outcome.failure}; the last lines of {log}:{tail}" if tail else outcome.failure
    if outcome.failure is not None:
        return  # verdicts on a run that was cut short would say nothing
    outcome.checks += [checks.exit_status(e) for e in outcome.endings.values() if e.app.expect_exit is not None]
    addresses = {host.name: frozenset(end.address for end in host.interfaces) for host in plan.hosts}
    outcome.checks += [checks.judge(check, outcome.endings, addresses, directory) for check in topology.checks]


def _attempt(outcome: Outcome, step: Callable[[], object]) -> bool:
    """Whether the step was done; an error is noted, and nobody is disturbed."""
    try:
        step()
    except TimeStands as why:
        outcome.failure = outcome.failure or str(why)
        return False
    except Exception as error:
        _blame_us(outcome, error)
        return False
    return True


def _blame_us(outcome: Outcome, error: Exception) -> None:
    """Note an error that nobody expected; the first one counts, each one's traceback is in `error.txt`."""
    if outcome.error is None:
        outcome.error = f"{type(error).__name__}: {error}"
        if isinstance(error, Unavailable):
            outcome.error, outcome.error_status = f"{error} {error.remedy}", 3
    outcome.traceback += "".join(traceback.format_exception(error))
    with suppress(OSError):  # a full disk must not keep the lab up
        text = outcome.traceback.encode(errors="backslashreplace")
        (outcome.directory / "error.txt").write_bytes(text)


def _quiet(report: Report) -> Report:
    """The same, but a terminal that has gone away is no reason to leave a lab up."""

    def tell(text: str) -> None:
        with suppress(OSError):
            report(text)

    return tell
