"""The state directory of this user: what outlives a command, and the locks that keep two commands apart.

$XDG_RUNTIME_DIR/chitcp, else /tmp/chitcp-<uid>
  locks/LAB         held (flock) by the command that works on the lab, says who that is
  allocation.lock   held while subnets are chosen and taken
  links/LAB         what is to be undone of changes of links that pass
  local/LAB/        what the local backend keeps of a lab
  sim/LAB/          what a simulation has written so far
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed.unavailable import Unavailable

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def directory() -> Path:
    """The state directory, made if it is not there: ours, and closed to others.

    Raises Unavailable if it can't be made, or if somebody else made it.
    """
    path = _location()
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise Unavailable(
                f"the state directory {path} belongs to somebody else.",
                "Remove it, or set XDG_RUNTIME_DIR to a directory of yours.",
            )
        path.chmod(0o700)
    except OSError as error:
        raise Unavailable(
            f"the state directory {path} can't be made: {error.strerror}.",
            "Set XDG_RUNTIME_DIR to a directory of yours that can be written.",
        ) from error
    return path


def _location() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # After `sudo -E` or `su` the variable still names the other user's directory.
    if runtime and os.path.isabs(runtime) and os.path.isdir(runtime) and os.stat(runtime).st_uid == os.getuid():
        return Path(runtime) / "chitcp"
    return Path(f"/tmp/chitcp-{os.getuid()}")


@contextmanager
def lab_lock(lab: str, *, patience: float = 0.0) -> Iterator[None]:
    """Keep every other command of this user off the lab; raises Unavailable if one is at work on it.

    `patience`: for so many seconds wait until that one has ended. The kernel lets go of the lock when its holder dies,
    so that nothing stale can be left.
    """
    if _NAME.fullmatch(lab) is None:  # it may come from a label that anybody has set
        raise Unavailable(f"{lab!r} is no name of a lab.", "Remove what bears it as its label by hand.")
    locks = directory() / "locks"
    locks.mkdir(exist_ok=True)
    path = locks / lab
    descriptor = _hold(path, lab, time.monotonic() + patience)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_at_work(lab: str) -> bool:
    """Whether a command of this user works on the lab. Asked without the lock, so that nobody is kept off for it."""
    if _NAME.fullmatch(lab) is None:  # as for the lock
        return False
    try:
        said = (directory() / "locks" / lab).read_text(errors="replace")
        os.kill(int(said.split(maxsplit=2)[1]), 0)
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # its number may be somebody else's by now
        return False
    except (IndexError, ValueError, OverflowError):  # it is about to write who it is
        return True
    return True


def passing(lab: str) -> Path:
    """Where it says what is to be undone of changes of the lab's links; its lock must be held."""
    links = directory() / "links"
    links.mkdir(exist_ok=True)
    return links / lab


def _hold(path: Path, lab: str, until: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                os.close(descriptor)
                time.sleep(0.02)  # flock itself waits for ever
                continue
            holder = os.pread(descriptor, 400, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise Unavailable(
                f"lab {lab} is in use by {holder}.",
                "Wait until it has ended, or end it (Ctrl-C there). A lab beside it needs another name: --name LAB.",
            ) from None
        if _is_still(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, os.fsencode(f"process {os.getpid()} ({_command()})"), 0)
            return descriptor
        os.close(descriptor)  # its last holder removed the file between our open and our flock


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _command() -> str:
    return shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])[:300]


def tidy() -> None:
    """Remove what commands that were killed have left here: locks that nobody holds, labs half removed."""
    for path in (directory() / "locks").glob("*"):
        with suppress(Unavailable), lab_lock(path.name):
            pass  # who takes a lock removes it in the end
    for gone in (directory() / "local").glob(".*"):
        shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def allocation_lock(waiting: Callable[[], None]) -> Iterator[None]:
    """Let one command at a time choose subnets and take them, so that two labs never choose the same.

    `waiting` is told if another one is at it.
    """
    descriptor = os.open(directory() / "allocation.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
