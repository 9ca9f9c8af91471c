"""Cells: submissions' processes, made and spoken with through the forker (forker.py), on this machine or elsewhere."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from testbed.backends.processes import this_one
from testbed.grading import forker
from testbed.unavailable import Unavailable

PREFIX, MAKER = "testbed-grade-", ".maker"  # of folders; in them, the process that has made it
_FORKER = Path(forker.__file__)
_PATIENCE = 30.0  # seconds, for the forker itself
_MOST_HELD = 16 << 20  # bytes of one process; more is thrown away
_SIGNALS = {-9: "it was killed: too much time or memory", -11: "it crashed (SIGSEGV)", -24: "it took too much time"}


class Stream(Protocol):
    """The way to a forker and back."""

    def send(self, content: bytes, until: float) -> None:
        """All of it, by then (time.monotonic). Raises TimeoutError and OSError."""

    def receive(self, until: float) -> bytes:
        """Some; b"" at the end. Raises TimeoutError and OSError."""


class Nursery:
    """What makes cells."""

    def __init__(self, stream: Stream) -> None:
        """Raises Unavailable if it does not answer."""
        self._stream = stream
        self._buffer = bytearray()
        self._said: dict[int, bytearray] = {0: bytearray()}
        self._ended: dict[int, int] = {}
        self._last = 0
        told = json.loads(self.read(0, time.monotonic() + _PATIENCE))
        self.python: str = told["python"]
        self.fingerprint: str = told["fingerprint"]

    def cell(self) -> Cell:
        """A new process."""
        self._last += 1
        self._said[self._last] = bytearray()
        return Cell(self, self._last)

    def write(self, number: int, content: bytes) -> None:
        """Tell a process; nothing: end it. Raises Unavailable if the forker is gone: it always listens."""
        try:
            self._stream.send(forker.HEAD.pack(number, len(content), 0) + content, time.monotonic() + _PATIENCE)
        except OSError as error:
            raise _gone() from error

    def read(self, number: int, until: float) -> bytes:
        """What a process has said; b"" if it has ended. Raises TimeoutError, and Unavailable as `write` does."""
        said = self._said[number]
        while not said and number not in self._ended:
            self._take(until)
        content = bytes(said)
        said.clear()
        return content

    def ended(self, number: int, until: float) -> int:
        """Wait for the end of a process; how it came. Raises as `read` does."""
        while number not in self._ended:
            self._take(until)
            self._said[number].clear()
        del self._said[number]
        return self._ended.pop(number)

    def _take(self, until: float) -> None:
        try:
            part = self._stream.receive(until)
        except TimeoutError:
            raise
        except OSError as error:
            raise _gone() from error
        if not part:
            raise _gone()
        self._buffer += part
        while len(self._buffer) >= forker.HEAD.size:
            number, length, status = forker.HEAD.unpack_from(self._buffer)
            if len(self._buffer) < forker.HEAD.size + length:
                break
            if not length:
                self._ended[number] = status
            elif len(said := self._said[number]) < _MOST_HELD:
                said += self._buffer[forker.HEAD.size : forker.HEAD.size + length]
            del self._buffer[: forker.HEAD.size + length]


class Cell:
    """One process: it is made when it is first told something."""

    def __init__(self, nursery: Nursery, number: int) -> None:
        self._nursery = nursery
        self._number = number
        self._made = False
        self._how: str | None = None

    def write(self, content: bytes) -> None:
        """Tell it something."""
        self._made = True
        self._nursery.write(self._number, content)

    def read(self, until: float) -> bytes:
        """What it says; b"" if it has ended. Raises TimeoutError."""
        return self._nursery.read(self._number, until)

    def end(self) -> str:
        """End it, unless it has ended; how it has, in words."""
        if self._how is None:
            self._how = "it answered nothing"
            with suppress(Unavailable):  # then it has ended with it
                if self._made:
                    self._nursery.write(self._number, b"")
                    self._how = _in_words(self._nursery.ended(self._number, time.monotonic() + _PATIENCE))
        return self._how


class _Socket:
    """The way to a process of this machine."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours

    def send(self, content: bytes, until: float) -> None:
        self._socket.settimeout(max(until - time.monotonic(), 0.001))
        self._socket.sendall(content)

    def receive(self, until: float) -> bytes:
        self._socket.settimeout(max(until - time.monotonic(), 0.001))
        return self._socket.recv(1 << 16)


@contextmanager
def own_folder() -> Iterator[str]:
    """A folder for what passes, which says whose it is: one that nobody could remove is found later (left.py)."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        Path(folder, MAKER).write_text(this_one())
        yield folder


@contextmanager
def on_this_machine() -> Iterator[Nursery]:
    """Cells that are processes here. At the end nothing is left of them, nor of their folder; all end with us."""
    with own_folder() as folder:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", str(_FORKER)],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},  # the order of a set is the same each time
            start_new_session=True,  # Ctrl-C is for us
        )
        theirs.close()
        try:
            yield Nursery(_Socket(ours))
        finally:
            ours.close()
            process.kill()
            process.wait()


def _gone() -> Unavailable:
    return Unavailable(
        "the process that keeps the submissions' processes is gone.", "Is there memory enough? See the kernel's log."
    )


def _in_words(status: int) -> str:
    if status == forker.NO_STATUS:
        return "it answered nothing"
    if status >= 0:
        return f"it ended itself with status {status}"
    return _SIGNALS.get(status, f"it was ended by signal {-status}")
