"""Carries out the events of a run on time, in a thread of its own, whatever the rest of the run waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.backends.base import Backend, Report
from testbed.events import Reshape, Step


@dataclass(slots=True)
class Happened:
    """A step of the timeline, and when it took place."""

    step: Step
    at: float | None = None  # seconds since the applications began, when it was done; None: the run ended before


@dataclass(frozen=True, slots=True)
class Meant:
    """From now on the end of this host's daemon, or of this application, is what an event wants, or is not any more."""

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
        """`tell`: before a kill, after a new start; and why a step can't be done, after which no other follows.

        It is told in the order of the ends themselves, which nobody may have taken note of yet.
        """
        self.happened = [Happened(step) for step in steps]
        self._backend = backend
        self._lab = lab
        self._report = report
        self._tell = tell
        self._over = threading.Event()
        self._shapes: dict[tuple[str, str], Reshape] = {}  # as they are now, where an event has changed them
        self._deaf: set[str] = set()  # hosts that stand still, or are gone: they are told when they are back
        self._blocked: dict[str, tuple[str, ...]] = {}
        self._thread = threading.Thread(target=self._play, name="events", daemon=True)

    def begin(self) -> None:
        """From now on time counts."""
        if self.happened:
            steps = [happened.step for happened in self.happened]
            hosts = {change.node for step in steps for change in step.reshapes}
            self._backend.attend(self._lab, sorted(hosts.union(*(step.blocked for step in steps))))
            self._thread.start()

    def end(self) -> None:
        """Do no more; return when nothing is being done."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _play(self) -> None:
        began = time.monotonic()
        for happened in self.happened:
            if self._over.wait(max(0.0, began + happened.step.at - time.monotonic())):
                return
            try:
                self._report(happened.step.title)
                self._do(happened.step)
            except Exception as error:
                self._tell(error)
                return
            happened.at = time.monotonic() - began

    def _do(self, step: Step) -> None:
        if step.reshapes:
            self._backend.reshape(self._lab, [change for change in step.reshapes if change.node not in self._deaf])
            self._shapes |= {(change.node, change.interface.link): change for change in step.reshapes}
        for host, addresses in step.blocked.items():
            if addresses != self._blocked.get(host, ()):
                if host not in self._deaf:
                    self._backend.block(self._lab, host, addresses)
                self._blocked[host] = addresses
        if step.host is not None:
            name, deed = step.host
            if deed == "kill":
                self._tell(Meant(name, to_end=True))
            self._backend.deed(self._lab, name, deed)
            if deed == "restart":
                self._tell(Meant(name, to_end=False))
            if deed in ("kill", "pause"):
                self._deaf.add(name)
            else:
                self._deaf.discard(name)
                self._tell_again(name)
        if step.app is not None:
            self._tell(Meant(step.app[0], to_end=True))
            self._backend.kill(self._lab, *step.app)

    def _tell_again(self, host: str) -> None:
        """A daemon that has started anew knows its links as they were planned; one that stood still missed changes."""
        changes = [change for (node, _), change in self._shapes.items() if node == host]
        if changes:
            self._backend.reshape(self._lab, changes)
        if self._blocked.get(host):
            self._backend.block(self._lab, host, self._blocked[host])
