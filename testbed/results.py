"""A run that is over, to be asked by a test: how it ended, and what each application and each host has left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed import traces
from testbed.folder import last_lines
from testbed.outcome import Ending, Outcome, Result

_LAST_LINES = 12


class Run:
    """A run; `folder` is where its files are (docs/output.md says which)."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.folder = outcome.directory

    def __repr__(self) -> str:
        return f"<Run {self._outcome.plan.lab}: {self.verdict}>"

    @property
    def passed(self) -> bool:
        """Whether every application and every check went as the topology expects."""
        return self.status == 0

    @property
    def status(self) -> int:
        """What `testbed run` would have exited with: 0, 1 if a check or an application failed, 3 or 4 for an error."""
        return self._outcome.status

    @property
    def verdict(self) -> str:
        """The same for a person, like "failed: exit client, integrity client"."""
        return self._outcome.verdict

    @property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json says."""
        read: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return read

    def app(self, name: str) -> AppRun:
        """What an application has left. Raises LookupError, which lists the applications that there are."""
        _require(name, self._outcome.endings, "app")
        return AppRun(self, self._outcome.endings[name])

    def host(self, name: str) -> HostRun:
        """What a host has left. Raises LookupError, which lists the hosts that there are."""
        _require(name, (host.name for host in self._outcome.plan.hosts), "host")
        return HostRun(self, name)

    def check(self, name: str) -> Result:
        """The verdict on a check, by its name in the output of `testbed run`, like "integrity client".

        Raises LookupError, which lists the checks that there are: none if the run was cut short.
        """
        results = {result.check: result for result in self._outcome.checks}
        _require(name, results, "check")
        return results[name]

    def explain(self) -> list[str]:
        """The verdict, and all that did not go as it should, in lines for a person."""
        outcome = self._outcome
        lines = [f"{outcome.plan.lab}: {self.verdict}", f"run folder: {self.folder}"]
        lines += [f"FAIL {result.check}: {result.message}" for result in outcome.checks if not result.ok]
        lines += [what for what in (outcome.failure, outcome.error) if what is not None]
        for name, ending in outcome.endings.items():
            if ending.went_wrong:
                said = last_lines(self.folder / "apps" / name / "stderr", _LAST_LINES) or ["nothing"]
                lines += [f"the end of the standard error of {name}:", *(f"  {line}" for line in said)]
        return lines


@dataclass(frozen=True, slots=True)
class AppRun:
    """An application of a run that is over."""

    _run: Run
    _ending: Ending

    @property
    def exit(self) -> int | None:
        """Its status, 128 + n after signal n; None if it never ran."""
        return self._ending.status

    @property
    def ended(self) -> str:
        """How: "by itself", "stopped" by the run, "timed out", "not started"; "running" if nobody could say."""
        return self._ending.how

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return self._ending.seconds

    @property
    def stdout(self) -> str:
        """What it wrote to its standard output."""
        return _text(self._folder / "stdout")

    @property
    def stderr(self) -> str:
        """What it wrote to its standard error."""
        return _text(self._folder / "stderr")

    @property
    def files(self) -> Path:
        """Its working directory, as it left it."""
        return self._folder / "files"

    @property
    def _folder(self) -> Path:
        return self._run.folder / "apps" / self._ending.app.name


@dataclass(frozen=True, slots=True)
class HostRun:
    """A host of a run that is over."""

    _run: Run
    _name: str

    @property
    def log(self) -> str:
        """What its chitcpd logged."""
        return _text(self._folder / "chitcpd.log")

    @property
    def trace(self) -> Iterator[traces.Event]:
        """The events of its chitcpd, each time from the first one (docs/trace.md)."""
        return traces.read(self._folder / "trace.jsonl")

    @property
    def segments(self) -> Path:
        """The capture of the segments of the TCP under study; not there if the topology does not want it."""
        return self._folder / "segments.pcap"

    @property
    def wire(self) -> Path:
        """The capture of the packets that carried them; not there if it could not be: the manifest's notes say why."""
        return self._folder / "wire.pcap"

    @property
    def _folder(self) -> Path:
        return self._run.folder / "hosts" / self._name


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _require(name: str, known: Iterable[str], kind: str) -> None:
    known = list(known)
    if name not in known:
        raise LookupError(f"the run has no {kind} {name!r}, it has {', '.join(known) or 'none'}")
