"""Processes by number: is this one still ours, end it, wait until it has ended. Linux only.

A number is given anew once its process is gone, so a process is known by its number and its start time together, and
is signalled through a descriptor (pidfd) that can't come to mean another one.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

_PROC = Path("/proc")
_BOOT = _PROC / "sys/kernel/random/boot_id"
_NOBODY_KNOWS = "somebody"
Known = tuple[int, int]  # number, start time in clock ticks since the machine started


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since the machine did; None if there is none, or it is a zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def is_running(known: Known) -> bool:
    """Whether this very process still runs."""
    pid, started = known
    return start_time(pid) == started


def this_one() -> str:
    """This process, as a label: so that it is known later whether it still runs (on Linux; elsewhere nobody knows)."""
    if not _BOOT.exists():
        return _NOBODY_KNOWS
    boot = _BOOT.read_text().strip()
    return f"{boot} {os.getpid()} {start_time(os.getpid())}"


def is_known(label: str) -> bool:
    """Whether the process of this label, as `this_one` says it, still runs, as far as anybody knows."""
    if label == _NOBODY_KNOWS:
        return True
    boot, _, known = label.partition(" ")
    pid, _, started = known.partition(" ")
    same_boot = boot == _BOOT.read_text().strip()
    return same_boot and pid.isdecimal() and started.isdecimal() and is_running((int(pid), int(started)))


def with_environment(variable: str, prefix: str) -> list[Known]:
    """The processes of this user that were started with a `variable` whose value begins with `prefix`."""
    wanted = f"{variable}={prefix}".encode()
    found: list[Known] = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            settings = (entry / "environ").read_bytes().split(b"\0")
            started = start_time(int(entry.name))
            if started is not None and any(setting.startswith(wanted) for setting in settings):
                found.append((int(entry.name), started))
    return found


def end(known: Iterable[Known], *, grace: float) -> int:
    """SIGTERM to each; SIGKILL to those that still run `grace` seconds later; return how many were running.

    With no grace it is SIGKILL at once.
    Returns when all of them have ended.
    """
    with ExitStack() as stack:
        waiting: list[int] = []
        for process in known:
            descriptor = _open(process)
            if descriptor is not None:
                stack.callback(os.close, descriptor)
                waiting.append(descriptor)
        count = len(waiting)
        if grace:
            _signal(waiting, signal.SIGTERM)
            waiting = _still_running(waiting, grace)
        _signal(waiting, signal.SIGKILL)
        _still_running(waiting, 10)
        return count


def send(process: Known, number: signal.Signals) -> bool:
    """Send a signal; False if the process has ended."""
    descriptor = _open(process)
    if descriptor is None:
        return False
    _signal([descriptor], number)
    os.close(descriptor)
    return True


def _open(process: Known) -> int | None:
    try:
        descriptor = os.pidfd_open(process[0])
    except ProcessLookupError:
        return None
    if is_running(process):
        return descriptor
    os.close(descriptor)
    return None


def _signal(descriptors: list[int], number: signal.Signals) -> None:
    for descriptor in descriptors:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)


def _still_running(descriptors: list[int], seconds: float) -> list[int]:
    """Those of the processes that have not ended after so many seconds."""
    until = time.monotonic() + seconds
    poll = select.poll()
    running = set(descriptors)
    for descriptor in running:
        poll.register(descriptor, select.POLLIN)
    while running and (left := until - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            running.discard(descriptor)
    return [descriptor for descriptor in descriptors if descriptor in running]
