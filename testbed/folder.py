"""The folder of a run: `runs/LAB/RUN_ID/`, and `runs/LAB/latest` that points at the last one."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed.unavailable import Unavailable

_LAST = 1 << 16  # bytes, of a file of any length, that are looked at
_LONGEST_LINE = 400  # characters


def run_id() -> str:
    """The time in UTC, like 20261122T174500Z."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


@contextmanager
def created(runs: Path, lab: str) -> Iterator[Path]:
    """A new folder for a run of this lab; its name is the run's id. Raises Unavailable if that can't be.

    If what is done with it fails, all is as it was before.
    """
    fresh = [path for path in (runs / lab, runs) if not path.exists()]
    directory = _create(runs, lab)
    try:
        yield directory
    except BaseException:
        shutil.rmtree(directory)
        for path in fresh:
            with suppress(OSError):  # another run has come into it
                path.rmdir()
        raise


def _create(runs: Path, lab: str) -> Path:
    stamp = run_id()
    try:
        (runs / lab).mkdir(parents=True, exist_ok=True)
        for name in itertools.chain([stamp], (f"{stamp}-{number}" for number in itertools.count(2))):
            with suppress(FileExistsError):
                (runs / lab / name).mkdir()
                return runs / lab / name
    except OSError as error:
        raise Unavailable(
            f"the run folder {runs / lab} can't be made: {error.strerror}.",
            "Give a directory that can be written: --runs DIR.",
        ) from error
    raise AssertionError("itertools.count has ended")


def point_latest(directory: Path) -> None:
    """Let `latest` beside the folder point at it."""
    fresh = directory.parent / f".latest-{directory.name}"
    fresh.symlink_to(directory.name)
    os.replace(fresh, directory.parent / "latest")


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file, none if there is none: of very much, or of very long ones, only what a person reads."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST))
        lines = file.read(_LAST).decode(errors="replace").splitlines()[-count:]
    return [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in lines]
