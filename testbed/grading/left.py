"""What a grade that was killed has left behind: folders, and a container that had not started yet."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from testbed.backends.processes import is_known
from testbed.grading.nursery import MAKER, PREFIX
from testbed.unavailable import Unavailable

_JUST_MADE = 60.0  # seconds: whose it is may not be written yet


def remove(*, dry_run: bool) -> int:
    """Remove all of that, and say how many things it was. Where no engine answers there are no containers."""
    folders = list(_folders())
    if not dry_run:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(Unavailable):
        from testbed.grading import docker_cell  # the engine's library takes time to load

        return len(folders) + docker_cell.remove_left(dry_run=dry_run)
    return len(folders)


def _folders() -> Iterator[Path]:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):  # it is being removed
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not _is_used(path, found.st_mtime):
                yield path


def _is_used(folder: Path, changed: float) -> bool:
    try:
        return is_known((folder / MAKER).read_text(errors="replace"))
    except OSError:
        return time.time() - changed < _JUST_MADE
