"""What a run has come to, as data: for the manifest, and for whoever prints it."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from testbed.backends.base import Built
from testbed.conductor import Happened
from testbed.plan import AppPlan, Plan


@dataclass(slots=True)
class Ending:
    """How an application has ended, if it has."""

    app: AppPlan
    how: Literal["not started", "running", "by itself", "stopped", "timed out"] = "not started"
    status: int | None = None  # None: it has not ended, or nobody could say
    seconds: float = 0.0  # from its (last) start to its end
    restarts: int = 0  # how often it was started anew

    @property
    def is_due(self) -> bool:
        """Whether the run has to wait for its end."""
        return self.app.expect_exit is not None and self.how in ("not started", "running")

    @property
    def may_go_on(self) -> bool:
        """Whether it has ended otherwise than it should, and is to be started anew."""
        as_it_should = self.how != "by itself" or (self.status is not None and self.status == self.app.expect_exit)
        return not as_it_should and self.restarts < self.app.restarts

    @property
    def went_wrong(self) -> bool:
        """Whether it ended with a status that nobody asked for, or had to be stopped because it was late."""
        asked_for = (None, 0, self.app.expect_exit, 128 + signal.SIGTERM)
        return self.how == "timed out" or self.status not in asked_for


@dataclass(frozen=True, slots=True)
class Comparison:
    """A file as an application was given it, and as it has arrived: SHA-256 in hex."""

    file: str
    giver: str  # the application that was given it
    sent: str
    received: str | None  # None: it is not there


@dataclass(frozen=True, slots=True)
class Result:
    """A check's verdict."""

    check: str  # like "integrity client"
    ok: bool
    message: str
    comparisons: tuple[Comparison, ...] = ()


@dataclass(slots=True)
class Outcome:
    """A run, from the moment in which its lab was up."""

    directory: Path
    plan: Plan
    built: Built
    endings: dict[str, Ending]
    up_seconds: float
    run_seconds: float = 0.0
    began: float | None = None  # when the applications did, seconds since the epoch
    checks: list[Result] = field(default_factory=list)
    events: list[Happened] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # what could not be collected, and why
    faults: list[str] = field(default_factory=list)  # which TCPs have raised, and where
    said: list[tuple[str, str]] = field(default_factory=list)  # (application, line): the last that it wrote
    failure: str | None = None  # why the run was cut short, with the last lines of a log
    interrupted: int | None = None  # the exit status that a signal asks for
    error: str | None = None  # what nobody expected, in one sentence
    error_status: int = 4  # our fault; 3 if the machine gave up
    traceback: str = ""
    report: Path | None = None  # report.html; None: there is none, because of ...
    no_report: str = ""

    @property
    def notes(self) -> list[str]:
        """What could not be done, and why, and what a TCP has failed on, for a person."""
        missed = [happened for happened in self.events if happened.at is None]
        events = [f"{_why_not(happened)}: {happened.step.title}" for happened in missed]
        return self.built.notes + events + self.missing + self.faults

    @property
    def status(self) -> int:
        """The exit status: 0 good, 1 a check or application failed, 3 or 4 an error, 128 + n after a signal."""
        if self.error is not None:
            return self.error_status
        if self.interrupted is not None:
            return self.interrupted
        return 1 if self.failure is not None or not all(result.ok for result in self.checks) else 0

    @property
    def verdict(self) -> str:
        """The same for a person, in one line."""
        failed = [result.check for result in self.checks if not result.ok]
        if self.error is not None:
            return "error"
        if self.interrupted is not None:
            return "interrupted"
        if self.failure is not None:
            return "failed: cut short"
        return f"failed: {', '.join(failed)}" if failed else "passed"


def _why_not(happened: Happened) -> str:
    if happened.in_vain and happened.step.app is not None:
        return f"{happened.step.app[0]} did not run at {happened.step.at:g} s"
    if happened.error is None:
        return f"the run ended before {happened.step.at:g} s"
    return f"what was to happen at {happened.step.at:g} s could not be done ({str(happened.error).rstrip('.')})"
