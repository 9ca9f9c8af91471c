"""A run that is over: its folder, by a path or by the name of its lab, and what its traces say, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from testbed import ladder, traces
from testbed.report.read import Unreadable, manifest
from testbed.wrong import Wrong

_LONGEST_TEXT = 200  # characters: what is read ends on somebody's terminal
_ADDRESS = re.compile(r"([0-9.]{1,15}|\[[0-9a-f:.]{1,45}\]):[0-9]{1,5}")
_BARE = re.compile(r"[0-9a-f.:]{1,45}")
_FLAGS = re.compile(r"U?P?R?S?F?\.?")
_NAME = re.compile(r"[A-Z0-9_]{1,20}")
_SHIFTS = range(15)  # of windows (RFC 7323 §2.3)
_MOST_BLOCKS = 16  # of SACK; a header has room for 4


class NoSuchRun(Wrong):
    """There is no such run, or it has not what is asked for; the message says what there is."""


class BadTrace(Wrong):
    """A trace is not as docs/trace.schema.json says; the message says where."""


def find(run: str | None, runs: Path) -> Path:
    """The folder of a run.

    `run`: the folder, or below `runs` a lab's name, whose latest it is, or LAB/RUN_ID; None: the latest of all. Raises
    NoSuchRun.
    """
    labs = sorted(path for path in runs.glob("*") if path.is_dir()) if runs.is_dir() else []
    if run is None:
        latest = max(filter(None, map(_latest, labs)), key=lambda folder: folder.name, default=None)
        if latest is None:
            raise NoSuchRun(f"there is no run in {runs}/ yet; testbed run TOPOLOGY.yaml makes one")
        return latest
    for folder in (Path(run), runs / run):
        if _is_run(folder):
            return folder
    for lab in (Path(run), runs / run, runs / Path(run).stem):
        latest = _latest(lab)
        if latest is not None:
            return latest
    known = ", ".join(lab.name for lab in labs if _latest(lab) is not None)
    raise NoSuchRun(f"there is no run {run}; " + (f"{runs}/ has runs of {known}" if known else f"{runs}/ has none"))


def ladder_of(folder: Path) -> ladder.Ladder:
    """What became of each segment of a run. Raises NoSuchRun if it has no trace, BadTrace."""
    paths = trace_files(folder)
    if not paths:
        raise NoSuchRun(f"{folder} has no trace: there is no hosts/HOST/trace.jsonl in it")
    return ladder.build({name: events(path) for name, path in paths.items()})


def began(folder: Path) -> float | None:
    """When the first application of a run began, seconds since the epoch: what reports call 0. None: nobody knows."""
    try:
        found = manifest(folder)["began"]
    except (Unreadable, LookupError):
        return None
    return float(found) if is_time(found) else None


def trace_files(folder: Path) -> dict[str, Path]:
    """The traces of a run: name of the host or router -> its file."""
    return {path.parent.name: path for path in sorted(folder.glob("hosts/*/trace.jsonl"))}


def events(path: Path) -> Iterator[traces.Event]:
    """The events of a trace, each as the schema says. Raises BadTrace."""
    number = 0
    try:
        for number, event in enumerate(traces.read(path), 1):
            if not _is_event(event):
                raise BadTrace(f"{path}:{number} is no event as docs/trace.md describes them")
            yield event
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadTrace(f"{path}:{number + 1} is no JSON: {error}") from error
    except OSError as error:
        raise BadTrace(f"{path} can't be read: {error.strerror}") from error


def _latest(lab: Path) -> Path | None:
    if not lab.is_dir():
        return None
    latest = lab / (lab / "latest").resolve().name  # a link to elsewhere is none of ours
    if latest.name != "latest" and _is_run(latest):
        return latest
    runs = (folder for folder in lab.iterdir() if folder.name != "latest" and _is_run(folder))
    return max(runs, key=lambda folder: folder.name, default=None)


def _is_run(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() or (folder / "hosts").is_dir()


# ---- what an event must have -------------------------------------------------------------------------------


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict) or not is_time(event.get("t")) or not _is_number(event.get("connection", 1)):
        return False
    kind = event.get("event")
    if kind == "dropped":
        known = _is_text(event.get("why")) and event.get("direction") in ("sent", "received")
        return known and _is_number(event.get("bytes")) and (_has_ends(event, _BARE) or _is_segment(event))
    if kind in ("sent", "received"):
        return _is_segment(event)
    named = {"state": ("from", "to"), "timer": ("timer",), "tcp": ()}.get(str(kind))
    return named is not None and _has_ends(event, _ADDRESS) and all(_fits(_NAME, event.get(name)) for name in named)


def _is_segment(event: traces.Event) -> bool:
    return (
        _has_ends(event, _ADDRESS)
        and _fits(_FLAGS, event.get("flags"))
        and _is_number(event.get("seq"))
        and _is_number(event.get("len"))
        and _is_number(event.get("wnd"))
        and _is_number(event.get("ack", 0))
        and _is_number(event.get("mss", 0))
        and ("window_scale" not in event or event["window_scale"] in _SHIFTS)
        and ("timestamp" not in event or _is_pair(event["timestamp"]))
        and ("sack" not in event or all(map(_is_pair, _blocks(event))))
    )


def _blocks(event: traces.Event) -> list[Any]:
    blocks = event.get("sack", [])
    return blocks if isinstance(blocks, list) and len(blocks) <= _MOST_BLOCKS else [None]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def is_time(value: Any) -> bool:
    """Whether it may be the time of an event."""
    return type(value) in (int, float) and abs(value) < 1e12  # so it is finite


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT and value.isprintable()


def _fits(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and _matches(pattern, value)


@lru_cache(maxsize=4096)  # a trace says the same few things again and again
def _matches(pattern: re.Pattern[str], value: str) -> bool:
    return pattern.fullmatch(value) is not None


def _has_ends(event: traces.Event, pattern: re.Pattern[str]) -> bool:
    return _fits(pattern, event.get("local")) and _fits(pattern, event.get("peer"))
