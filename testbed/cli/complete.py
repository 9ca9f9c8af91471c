"""What a shell may put in the place of an argument: labs that are up, topology files. None of it raises or is slow."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

import click

from testbed import backends

_PATIENCE = 1.0  # seconds in which a backend must have told its labs


def labs(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Labs that are up, on those backends that answer at once."""
    answers: SimpleQueue[list[str]] = SimpleQueue()

    def ask(name: str) -> None:
        with suppress(
            Exception
        ):  # a backend that can't be asked has nothing to offer, and a prompt is no place to say so
            answers.put(backends.get(name).labs())

    for name in backends.FACTORIES:
        Thread(target=ask, args=(name,), daemon=True).start()
    until = time.monotonic() + _PATIENCE
    found: set[str] = set()
    for _ in backends.FACTORIES:
        with suppress(Empty):
            found.update(answers.get(timeout=max(0.0, until - time.monotonic())))
    return sorted(lab for lab in found if lab.startswith(incomplete))


def topologies(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Files that may be topologies, and directories."""
    found = _entries(incomplete)
    while len(found) == 1 and found[0].endswith("/"):  # the shell would put a space behind it, as if that were all
        found = _entries(found[0])
    return found


def past_runs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of labs that have run folders."""
    runs = context.params.get("runs") or "runs"
    with suppress(OSError), os.scandir(runs) as entries:
        return sorted(entry.name for entry in entries if entry.name.startswith(incomplete) and entry.is_dir())
    return []


def labs_and_topologies(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Either, where a command takes both."""
    return labs(context, parameter, incomplete) + topologies(context, parameter, incomplete)


def _entries(incomplete: str) -> list[str]:
    directory, beginning = os.path.split(incomplete)
    found: list[str] = []
    with suppress(OSError), os.scandir(directory or ".") as entries:
        for entry in entries:
            is_hidden = entry.name.startswith(".") and not beginning.startswith(".")
            if is_hidden or not entry.name.startswith(beginning):
                continue
            path = os.path.join(directory, entry.name)
            if entry.is_dir():
                found.append(f"{path}/")
            elif path.endswith((".yaml", ".yml")):
                found.append(path)
    return sorted(found)
