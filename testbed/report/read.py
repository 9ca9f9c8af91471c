"""What a run has left in its folder, as far as it can be read: the folder may be cut short, or somebody's own work."""

from __future__ import annotations

import calendar
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from testbed.passages import in_order
from testbed.traces import Event
from testbed.wrong import Wrong

Seen = tuple[float, int, Event]  # seconds since the epoch, which of the nodes, what

_TRACES = "hosts/*/trace.jsonl"
_LINES_FOR_ADDRESSES = 1000  # of a trace
_LONGEST = 1 << 16  # bytes of a line of a trace or a log
_LONGEST_FILE = 1 << 26  # bytes of a manifest
_LATEST = 1e10  # seconds since the epoch: 2286
_LOG_FIRST, _LOG_LAST = 1000, 4000  # lines of a log, if it has more than both together
_SHOWN = 500  # characters of a line
_STAMP = re.compile(r"\[(\d\d):(\d\d):(\d\d\.\d+)\] *")
_RUN_ID = re.compile(r"(\d{8})T(\d\d)(\d\d)(\d\d)Z")
_DAY = 86400.0
_ZONES = 900.0  # seconds: clocks of the world differ by quarters of an hour


def finite(value: Any) -> float:
    """A number as a float. Raises TypeError or OverflowError if it is none, and ValueError for NaN and Infinity."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no finite number")
    return number


class Unreadable(Wrong):
    """This is no run folder, or none that can be read; the message says why."""


def manifest(folder: Path) -> dict[str, Any]:
    """What manifest.json says; of a folder that has traces and no manifest, what is known without.

    Raises Unreadable.
    """
    path = inside(folder, "manifest.json")
    if path is None:
        if not os.path.lexists(folder / "manifest.json") and any(folder.glob(_TRACES)):
            return _without_manifest(folder)
        raise Unreadable(f"{folder} is no run folder: it has neither a file manifest.json nor traces")
    try:
        with path.open("rb") as file:
            read = json.loads(file.read(_LONGEST_FILE))
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"{path} can't be read: {error}") from error
    if not isinstance(read, dict):
        raise Unreadable(f"{path} is no JSON object")
    return read


def _without_manifest(folder: Path) -> dict[str, Any]:
    """Of what `testbed collect` has written of a lab that goes on, or of a run that was killed."""
    names = sorted(path.parent.name for path in folder.glob(_TRACES))
    hosts = {name: {"addresses": _addresses(inside(folder, "hosts", name, "trace.jsonl"))} for name in names}
    note = "There is no manifest.json: the lab was still up, or the run was killed. So nothing is known of links."
    return {
        "lab": folder.resolve().parent.name,
        "run_id": folder.resolve().name,
        "topology": "",
        "seed": "unknown",
        "verdict": "no verdict",
        "status": None,
        "failure": None,
        "error": None,
        "notes": [note],
        "hosts": hosts,
        "routers": {},
        "links": [],
        "apps": {},
        "probes": [],
        "events": [],
        "checks": [],
        "began": None,
        "seconds": {"run": None},
        "versions": {},
        "backend": {"name": "unknown"},
    }


def _addresses(path: Path | None) -> dict[str, str]:
    """Those that a host calls its own at the beginning of its trace."""
    found: dict[str, str] = {}
    if path is not None:
        with path.open("rb") as file:
            for line in islice(iter(lambda: file.readline(_LONGEST), b""), _LINES_FOR_ADDRESSES):
                with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    event = json.loads(line)
                    if event["event"] != "dropped":
                        host = event["local"].rpartition(":")[0].strip("[]")
                        found[host] = host
    return found


def inside(folder: Path, *parts: str) -> Path | None:
    """A file of the folder, None if there is none: a name or a symbolic link must not lead out of it."""
    root = folder.resolve()
    path = root.joinpath(*parts).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


@dataclass(slots=True)
class Traces:
    """The traces of all nodes."""

    folder: Path
    nodes: Sequence[str]
    unreadable: int = 0  # lines that are no event
    _paths: list[Path | None] = field(init=False)

    def __post_init__(self) -> None:
        self._paths = [inside(self.folder, "hosts", node, "trace.jsonl") for node in self.nodes]

    def events(self, too_early: Callable[[Event], int]) -> Iterator[Seen]:
        """All events in the order in which they happened, of all nodes; `too_early` as of `testbed.passages`.

        Only a few are in memory at a time.
        """
        return in_order(map(self._of, range(len(self.nodes))), too_early)

    def _of(self, index: int) -> Iterator[Seen]:
        path, loads = self._paths[index], json.loads
        if path is None:
            return
        last = 0.0  # a clock that was set back makes nothing earlier than what came before it
        with path.open("rb") as file:
            for line in iter(lambda: file.readline(_LONGEST), b""):
                try:
                    event = loads(line.decode())
                    t = event["t"]
                    if not 0 <= t < _LATEST:
                        raise ValueError
                except (ValueError, KeyError, TypeError, RecursionError):
                    self.unreadable += line.endswith(b"\n")  # the last line of a daemon that was killed has no end
                else:
                    last = max(last, t)
                    yield last, index, event


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a daemon's log."""

    t: float | None  # seconds since the epoch; None: as the line before
    text: str


def log(path: Path | None, near: float | None) -> list[LogLine]:
    """The lines of a log; of a long one the first and the last, and how many are between them.

    A log has the time of day, on the clock of its host's zone: `near` is when it begins, give or take minutes, in
    seconds since the epoch; None: nobody knows.
    """
    found: list[LogLine] = []
    zone: float | None = None
    for line in _some_lines(path):
        stamp = _STAMP.match(line)
        t: float | None = None
        if stamp is not None and near is not None:
            of_day = int(stamp[1]) * 3600 + int(stamp[2]) * 60 + float(stamp[3])
            if zone is None:
                zone = round((of_day - near) % _DAY / _ZONES) * _ZONES
            t = near + (of_day - zone - near + _DAY / 2) % _DAY - _DAY / 2
        found.append(LogLine(t, line[stamp.end() :] if stamp is not None else line))
    return found


def moment(run_id: str) -> float | None:
    """A run's id as seconds since the epoch; None if it is no time."""
    found = _RUN_ID.match(run_id)
    try:
        return None if found is None else float(calendar.timegm(time.strptime(found[0], "%Y%m%dT%H%M%SZ")))
    except ValueError:
        return None


def _some_lines(path: Path | None) -> list[str]:
    first: list[str] = []
    last: list[str] = []
    left_out = 0
    if path is None:
        return first
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(_LONGEST), b""):
            text = shown(line.decode(errors="replace").rstrip("\r\n"))
            if len(first) < _LOG_FIRST:
                first.append(text)
                continue
            last.append(text)
            if len(last) >= 2 * _LOG_LAST:
                left_out += len(last) - _LOG_LAST
                del last[:-_LOG_LAST]
    if len(last) > _LOG_LAST:
        left_out += len(last) - _LOG_LAST
        del last[:-_LOG_LAST]
    return [*first, *([f"... {left_out} lines are left out here"] if left_out else []), *last]


def shown(text: str, longest: int = _SHOWN) -> str:
    """As much of a text as a person reads."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def tail(path: Path | None, size: int = 1 << 14) -> str:
    """The end of what an application wrote."""
    if path is None:
        return ""
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - size))
        text = file.read(size).decode(errors="replace")
    return text if length <= size else f"... {length - size} bytes are left out here\n{text}"
