"""A run: bring the lab up, start the applications in order, wait for their ends, check, collect, take down.

Whatever happens in between (an error, Ctrl-C, a daemon that dies), what is there is collected and the lab is taken
down. Nothing here knows what the lab is made of: the backend does.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from testbed import checks, folder, lab, manifest, state
from testbed.backends import Choice
from testbed.backends.base import Backend, Exit, Report, Unavailable
from testbed.outcome import Ending, Outcome
from testbed.plan import AppPlan
from testbed.signals import Interrupted, Signals
from testbed.topology import Topology

T = TypeVar("T")

_LAST_LINES = 12
_DAEMON_TOLD_WITHIN = 1.0  # seconds between the end of an application by its daemon's end, and the news of this


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
        directory = folder.create(runs, name)
        began = time.monotonic()
        try:
            shutil.copyfile(source, directory / "topology.yaml")
            plan, built = lab.build(topology, backend, lab=name, run_id=directory.name, signals=signals, report=report)
        except BaseException:
            folder.discard(directory)
            raise
        endings = {app.name: Ending(app) for app in plan.apps}
        outcome = Outcome(directory, plan, built, endings, up_seconds=time.monotonic() - began)
        _use(topology, choice, outcome, signals, report)
        return outcome


def _use(topology: Topology, choice: Choice, outcome: Outcome, signals: Signals, report: Report) -> None:
    """What is done with a lab that is up; ends with the lab down, in any case."""
    backend, plan, directory = choice.backend, outcome.plan, outcome.directory
    play = _Play(backend, outcome, signals, report)
    log: str | None = None
    try:
        play.apps()
    except CutShort as cut:
        outcome.failure, log = str(cut), cut.log
    except Interrupted as interrupted:
        outcome.interrupted, outcome.failure = interrupted.status, f"interrupted by {interrupted}"
    except Exception as error:
        _blame_us(outcome, error)

    # From here on no signal is raised, and no error keeps the rest from being done.
    def write_manifest() -> None:
        manifest.write(outcome, topology=topology.name, backend=backend.name, why=choice.why)

    _attempt(outcome, play.stop_all)
    _attempt(outcome, lambda: _quiet(report)("collecting"))
    _attempt(outcome, lambda: backend.collect(plan, directory))
    _attempt(outcome, lambda: _judge(topology, outcome, log))
    _attempt(outcome, write_manifest)
    if not _attempt(outcome, lambda: backend.down(plan.lab, _quiet(report))):
        outcome.error = f"{outcome.error}; what is left of the lab goes with: testbed down {plan.lab}"
        _attempt(outcome, write_manifest)
    _attempt(outcome, lambda: folder.point_latest(directory))


class _Play:
    """The applications of a run, from the first start to the last end."""

    def __init__(self, backend: Backend, outcome: Outcome, signals: Signals, report: Report) -> None:
        self._backend = backend
        self._plan = outcome.plan
        self._outcome = outcome
        self._signals = signals
        self._report = report
        self._exits = backend.exits(outcome.plan)
        self._begun: dict[str, float] = {}  # application -> when it was started
        self._first = time.monotonic()

    def apps(self) -> None:
        """Start each application when those before it are ready; return when none has to end any more.

        Raises CutShort if the run can't go on, and Interrupted.
        """
        for app in self._plan.apps:
            self._signals.raise_if_any()
            self._report(f"starting {app.name} on {app.host}")
            self._begun[app.name] = time.monotonic()
            self._outcome.endings[app.name].how = "running"
            self._backend.start(self._plan, app)
            if app.listening is not None:
                self._wait_ready(app)
        while due := [ending.app for ending in self._outcome.endings.values() if ending.is_due]:
            self._report(f"waiting for {', '.join(app.name for app in due)}")
            self._wait_for_one(due)

    def stop_all(self) -> None:
        """Stop what serves, the last started first, and learn how it ended."""
        for app in reversed(self._plan.apps):
            if self._outcome.endings[app.name].how == "running":
                self._outcome.endings[app.name].how = "stopped"
                self._backend.stop(self._plan, app)
        until = time.monotonic() + 2
        while any(ending.how != "not started" and ending.status is None for ending in self._outcome.endings.values()):
            try:
                exit_ = self._exits.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if exit_.kind == "app":
                self._note_end(exit_)
        self._outcome.run_seconds = time.monotonic() - self._first

    def _wait_ready(self, app: AppPlan) -> None:
        self._report(f"waiting for {app.name} to listen on {app.host}:{app.listening}")
        answers: SimpleQueue[bool | Exception] = SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._backend.wait_ready(self._plan, app))
            except Exception as error:
                answers.put(error)

        # Beside it we look at what ends: any daemon's end is the run's, and must not wait for this application.
        threading.Thread(target=ask, daemon=True).start()
        while (answer := self._get(answers, timeout=0.1)) is None:
            self._take(timeout=0, getting_ready=app.name)
        if isinstance(answer, Exception):
            raise answer
        ending = self._outcome.endings[app.name]
        if not answer and time.monotonic() - self._begun[app.name] < app.timeout:
            while ending.how == "running" and self._take(timeout=2, getting_ready=app.name):
                pass  # its end, or its daemon's, is in the queue, or will be at once
        if not answer:
            hint = "" if app.run[0] == "chirun" else " (one that knows nothing of chisocket needs `via: chirun`)"
            what = (
                f"did not listen on port {app.listening} of {app.host} within {app.timeout:g} s{hint}"
                if ending.how == "running"
                else f"ended with status {ending.status} before it listened on port {app.listening}"
            )
            raise CutShort(f"{app.name} {what}", f"apps/{app.name}/stderr")

    def _wait_for_one(self, due: list[AppPlan]) -> None:
        """Return when something has ended, or one of these is late and has been stopped."""
        deadline = min(self._begun[app.name] + app.timeout for app in due)
        if self._take(timeout=deadline - time.monotonic()):
            return
        for app in due:
            if time.monotonic() >= self._begun[app.name] + app.timeout:
                self._outcome.endings[app.name].how = "timed out"
                self._backend.stop(self._plan, app)

    def _take(self, timeout: float, getting_ready: str = "") -> bool:
        """Take an end from the queue; False if there was none. Raises CutShort if the run can't go on after it."""
        exit_ = self._get(self._exits, timeout)
        if exit_ is None:
            return False
        if exit_.kind == "host":
            raise _daemon_died(exit_)
        ending = self._note_end(exit_)
        if ending.how == "by itself" and ending.status not in (0, ending.app.expect_exit):
            self._look_for_a_dead_daemon()
        for name, ended in self._outcome.endings.items():
            serves = ended.app.expect_exit is None and name != getting_ready
            if serves and ended.how == "by itself" and ended.status != 0:
                what = f"{name}, which serves the others, ended with status {ended.status}"
                raise CutShort(what, f"apps/{name}/stderr")
        return True

    def _look_for_a_dead_daemon(self) -> None:
        """An application that fails may do so because its daemon died, the end of which can be told a moment later."""
        until = time.monotonic() + _DAEMON_TOLD_WITHIN
        while (exit_ := self._get(self._exits, until - time.monotonic())) is not None:
            if exit_.kind == "host":
                raise _daemon_died(exit_)
            self._note_end(exit_)

    def _get(self, queue: SimpleQueue[T], timeout: float) -> T | None:
        """The next of a queue, or None after `timeout` seconds; a signal interrupts it."""
        try:
            with self._signals.interruptible():
                return queue.get(timeout=max(0.0, timeout))
        except Empty:
            return None

    def _note_end(self, exit_: Exit) -> Ending:
        ending = self._outcome.endings[exit_.name]
        ending.status = exit_.status
        ending.seconds = time.monotonic() - self._begun[exit_.name]
        if ending.how == "running":
            ending.how = "by itself"
        return ending


def _daemon_died(exit_: Exit) -> CutShort:
    what = f"chitcpd of {exit_.name} ended with status {exit_.status} during the run"
    return CutShort(what, f"hosts/{exit_.name}/chitcpd.log")


def _judge(topology: Topology, outcome: Outcome, log: str | None) -> None:
    """Read what was collected: what applications said, the log that tells of a failure, the verdicts."""
    plan, directory = outcome.plan, outcome.directory
    for app in plan.apps:
        as_asked = outcome.endings[app.name].status in (None, 0, app.expect_exit, 128 + signal.SIGTERM)
        for stream in ("stdout",) if as_asked else ("stdout", "stderr"):
            outcome.said += [(app.name, line) for line in _last_lines(directory / "apps" / app.name / stream)]
    if log is not None:
        tail = "".join(f"\n  {line}" for line in _last_lines(directory / log))
        outcome.failure = f"{outcome.failure}; the last lines of {log}:{tail}" if tail else outcome.failure
    if outcome.failure is not None:
        return  # verdicts on a run that was cut short would say nothing
    outcome.checks += [checks.exit_status(e) for e in outcome.endings.values() if e.app.expect_exit is not None]
    addresses = {host.name: frozenset(end.address for end in host.interfaces) for host in plan.hosts}
    outcome.checks += [checks.judge(check, outcome.endings, addresses, directory) for check in topology.checks]


def _last_lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-_LAST_LINES:] if path.is_file() else []


def _attempt(outcome: Outcome, step: Callable[[], object]) -> bool:
    """Whether the step was done; an error is noted, and nobody is disturbed."""
    try:
        step()
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
        (outcome.directory / "error.txt").write_text(outcome.traceback)


def _quiet(report: Report) -> Report:
    """The same, but a terminal that has gone away is no reason to leave a lab up."""

    def tell(text: str) -> None:
        with suppress(OSError):
            report(text)

    return tell
