"""Cells that are processes of this machine: forked from one that has loaded all they need, then locked up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

_CHILD = Path(__file__).with_name("child.py")
_SIGNALS = {-9: "it was killed: too much time or memory", -11: "it crashed (SIGSEGV)", -24: "it took too much time"}


class Nursery:
    """The process that makes them. What it makes ends with it, and it with us."""

    def __enter__(self) -> Nursery:
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", str(_CHILD), "nursery"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},  # the order of a set is the same each time
            start_new_session=True,  # Ctrl-C is for us
        )
        theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def cell(self) -> ProcessCell:
        """A new process, in an empty folder."""
        return ProcessCell(self)

    def ask(self, request: dict[str, Any], descriptors: tuple[int, ...] = ()) -> Any:
        """Ask it for something, and give it descriptors. Raises ConnectionError if it is gone."""
        socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        answer = self._socket.recv(100)
        if not answer:
            raise ConnectionError("the process that makes others is gone")
        return json.loads(answer)


class ProcessCell:
    """One process, and pipes to it."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self.folder = tempfile.TemporaryDirectory(prefix="testbed-grade-")
        their_source, self.sink = os.pipe()
        self.source, their_sink = os.pipe()
        self.pid: int = nursery.ask({"folder": self.folder.name}, (their_source, their_sink))
        os.close(their_source)
        os.close(their_sink)
        self._how: str | None = None

    def plain(self, raw: bytes) -> bytes:
        """It is that."""
        return raw

    def end(self, *, patience: float = 0.0) -> str:
        """Kill it; it has no children, for it can't have any."""
        if self._how is None:
            self._how = "it answered nothing"
            with suppress(ConnectionError):  # then it has ended with it
                self._how = _told(self._nursery.ask({"end": self.pid, "patience": patience}))
            os.close(self.source)
            os.close(self.sink)
            self.folder.cleanup()
        return self._how


def _told(status: int | None) -> str:
    """How a process has ended, in words."""
    if status is None:
        return "it answered nothing"
    if status >= 0:
        return f"it ended itself with status {status}"
    return _SIGNALS.get(status, f"it was ended by signal {-status}")
