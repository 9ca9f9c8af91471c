"""Carries out the events of a run on time, in a thread of its own, whatever the rest of the run waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import Literal

from testbed.backends.base import Backend, Report
from testbed.events import Deed, Reshape, Step

_A_STEP = 120.0  # seconds that one may take, at the very most: each waits for daemons, and these waits are bounded


@dataclass(slots=True)
class Happened:
    """A step of the timeline, and when it took place."""

    step: Step
    at: float | None = None  # seconds since the applications began, when it was done; None: it was not
    error: Exception | None = None  # why it could not be done; None with at None: the run ended before, or ...
    in_vain: bool = False  # ... the application that was to get a signal did not run


@dataclass(frozen=True, slots=True)
class Meant:
    """An end of this host's daemon, or of this application, is what an event wants, or is not after all."""

    kind: Literal["host", "app"]
    name: str
    to_end: bool


class Conductor:
    """The timeline of one run."""

    def __init__(
        self,
        backend: Backend,
        lab: str,
        steps: Sequence[Step],
        report: Report,
        tell: Callable[[Meant | Exception], None],
    ) -> None:
        """`tell`: before a kill, after one in vain, after a new start; why a step can't be done, and none follows.

        It is told in the order of the ends themselves, which nobody may have taken note of yet.
        """
        self.happened = [Happened(step) for step in steps]
        self._backend = backend
        self._lab = lab
        self._report = report
        self._tell = tell
        self._clock = backend.clock
        self._over, self._done = self._clock.queue(), self._clock.queue()
        self._begun = False
        self._shapes: dict[tuple[str, str], Reshape] = {}  # as they are now, where an event has changed them
        # Hosts that are told when they are back: what stands still may be killed, and then does not go on.
        self._paused: set[str] = set()
        self._gone: set[str] = set()
        self._blocked: dict[str, tuple[str, ...]] = {}

    def begin(self) -> None:
        """From now on time counts."""
        if self.happened:
            steps = [happened.step for happened in self.happened]
            hosts = {change.node for step in steps for change in step.reshapes}
            self._backend.attend(self._lab, sorted(hosts.union(*(step.blocked for step in steps))))
            self._begun = True
            self._clock.start(self._play)

    def end(self) -> None:
        """Do no more; return when nothing is being done."""
        if self._begun:
            self._begun = False
            self._over.put(None)
            with suppress(Empty):  # a simulation that was interrupted does no more
                self._done.get(timeout=_A_STEP)

    def _play(self) -> None:
        try:
            self._play_all()
        finally:
            self._done.put(None)

    def _play_all(self) -> None:
        began = self._clock.now()
        for happened in self.happened:
            if self._is_over(began + happened.step.at):
                return
            try:
                self._report(happened.step.title)
                happened.in_vain = not self._do(happened.step)
            except Exception as error:
                happened.error = error
                self._tell(error)
                return
            happened.at = None if happened.in_vain else self._clock.now() - began

    def _is_over(self, moment: float) -> bool:
        """Wait until this moment; whether the run has ended before."""
        try:
            self._over.get(timeout=max(0.0, moment - self._clock.now()))
        except Empty:
            return False
        return True

    def _do(self, step: Step) -> bool:
        """Whether it took place: an application that does not run gets no signal."""
        deaf = self._paused | self._gone
        if step.reshapes:
            self._backend.reshape(self._lab, [change for change in step.reshapes if change.node not in deaf])
            self._shapes |= {(change.node, change.interface.link): change for change in step.reshapes}
        for host, addresses in step.blocked.items():
            if addresses != self._blocked.get(host, ()):
                if host not in deaf:
                    self._backend.block(self._lab, host, addresses)
                self._blocked[host] = addresses
        if step.host is not None:
            self._do_to(*step.host)
        return step.app is None or self._kill(*step.app)

    def _kill(self, app: str, signal: str) -> bool:
        self._tell(Meant("app", app, to_end=True))
        got_it = self._backend.kill(self._lab, app, signal)
        if not got_it:
            self._tell(Meant("app", app, to_end=False))
        return got_it

    def _do_to(self, host: str, deed: Deed) -> None:
        if deed == "kill" and host not in self._gone:
            self._tell(Meant("host", host, to_end=True))
        self._backend.deed(self._lab, host, deed)
        if deed == "kill":
            self._gone.add(host)
        elif deed == "pause":
            self._paused.add(host)
        else:
            self._paused.discard(host)
        if deed == "restart":
            self._gone.discard(host)
            self._tell(Meant("host", host, to_end=False))
        if deed in ("restart", "resume") and host not in self._gone:
            self._tell_again(host)

    def _tell_again(self, host: str) -> None:
        """A daemon that has started anew knows its links as they were planned; one that stood still missed changes."""
        changes = [change for (node, _), change in self._shapes.items() if node == host]
        if changes:
            self._backend.reshape(self._lab, changes)
        if host in self._blocked:  # by nobody, if a partition has ended meanwhile
            self._backend.block(self._lab, host, self._blocked[host])
