"""The process that forks the submissions' processes, and hands on what is said to them and what they say.

    python -s -S -P forker.py              speaks over its standard input and output with testbed.grading.nursery

It has loaded all that they need, and nothing of anybody's: to fork one takes no time. Each has a folder of its own
below the current one, which goes with it. What is handed on has a head: which process, and how much follows. To one
that is not there yet: then it is made. Nothing follows: it is to end. Back, nothing follows when it has ended, and the
head tells how. It first says what it is: a message from process 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import select
import shutil
import signal
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

_HERE = Path(__file__).resolve().parents[2]
if str(_HERE) not in sys.path:
    sys.path.append(str(_HERE))

from testbed.grading import child, confine  # noqa: E402

HEAD = struct.Struct("!IIi")  # process, bytes that follow, status
NO_STATUS = 1000  # it was ended by us
_PIECE = 1 << 16  # bytes
_MOST_HELD = 1 << 20  # bytes that may wait to be told; then those who speak wait
_MOMENT = 0.5  # seconds, for one who has closed its output to be gone
_MOST_DESCRIPTORS = 256
_PARTS = (
    "chitcpd/tcp/api.py",
    "chitcpd/loader.py",
    *(f"testbed/grading/{n}.py" for n in ("child", "confine", "forker")),
)


def fingerprint() -> str:
    """Of all that a submission's process has of ours: another version might judge otherwise."""
    found = hashlib.sha256()
    for part in _PARTS:
        path = _HERE / part
        found.update(path.read_bytes() if path.exists() else b"")
    return found.hexdigest()


@dataclass(slots=True)
class Process:
    """A submission's, and pipes to it."""

    pid: int
    sink: int
    source: int
    folder: str
    waiting: bytearray = field(default_factory=bytearray)  # what it is still to be told


class Forker:
    """All of them, and what waits to be told."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._ours = os.getpid()
        self._processes: dict[int, Process] = {}
        self._made: set[int] = set()  # all that there have been
        self._come = bytearray()
        self._going = bytearray()
        for descriptor in (source, sink):
            os.set_blocking(descriptor, False)
        self._tell(0, json.dumps({"fingerprint": fingerprint(), "python": platform.python_version()}).encode())

    def serve(self) -> None:
        """Until nobody is there any more."""
        while True:
            by_source = {process.source: number for number, process in self._processes.items()}
            by_sink = {process.sink: number for number, process in self._processes.items() if process.waiting}
            heard = [*by_source] if len(self._going) < _MOST_HELD else []
            told = [*by_sink, *([self._sink] if self._going else [])]
            readable, writable, _ = select.select([self._source, *heard], told, [])
            if self._sink in writable:
                del self._going[: os.write(self._sink, self._going[:_PIECE])]
            for number in [by_sink[descriptor] for descriptor in writable if descriptor in by_sink]:
                self._hand_on(self._processes[number])
            for number in [by_source[descriptor] for descriptor in readable if descriptor in by_source]:
                self._listen_to(number)
            if self._source in readable and not self._listen_to_judge():
                return

    def _hand_on(self, process: Process) -> None:
        try:
            del process.waiting[: os.write(process.sink, process.waiting[:_PIECE])]
        except BlockingIOError:
            pass
        except OSError:  # it reads no more; that it ends is heard elsewhere
            process.waiting.clear()

    def _listen_to(self, number: int) -> None:
        part = os.read(self._processes[number].source, _PIECE)
        if part:
            self._tell(number, part)
        else:
            self._end(number, patience=_MOMENT)

    def _listen_to_judge(self) -> bool:
        part = os.read(self._source, _PIECE)
        self._come += part
        while len(self._come) >= HEAD.size:
            number, length, _ = HEAD.unpack_from(self._come)
            if len(self._come) < HEAD.size + length:
                break
            content = bytes(self._come[HEAD.size : HEAD.size + length])
            del self._come[: HEAD.size + length]
            self._told(number, content)
        return bool(part)

    def _told(self, number: int, content: bytes) -> None:
        if not content:
            self._end(number, patience=0.0)
            return
        if number not in self._made:
            self._made.add(number)
            self._processes[number] = self._fork(number)
        if process := self._processes.get(number):  # else it has ended, which the judge will hear
            process.waiting += content
            self._hand_on(process)

    def _tell(self, number: int, content: bytes, status: int = 0) -> None:
        self._going += HEAD.pack(number, len(content), status) + content

    def _fork(self, number: int) -> Process:
        folder = os.path.abspath(str(number))
        os.mkdir(folder, 0o700)
        their_source, sink = os.pipe()
        source, their_sink = os.pipe()
        pid = os.fork()
        if not pid:
            confine.die_with_parent()
            if os.getppid() != self._ours:  # it has died just before
                os._exit(1)
            os.dup2(their_source, 0)
            os.dup2(their_sink, 1)
            os.closerange(3, _MOST_DESCRIPTORS)
            os.chdir(folder)
            child.main()
            os._exit(0)
        os.close(their_source)
        os.close(their_sink)
        os.set_blocking(sink, False)
        return Process(pid, sink, source, folder)

    def _end(self, number: int, *, patience: float) -> None:
        """It is killed, unless it ends by itself within so many seconds; it has no children, for it can't have any."""
        process = self._processes.pop(number, None)
        if process is None:  # it has ended already, and that was told
            return
        until = time.monotonic() + patience
        while not (ended := os.waitpid(process.pid, os.WNOHANG))[0] and time.monotonic() < until:
            time.sleep(0.002)
        if not ended[0]:
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
        os.close(process.sink)
        os.close(process.source)
        shutil.rmtree(process.folder, ignore_errors=True)
        self._tell(number, b"", os.waitstatus_to_exitcode(ended[1]) if ended[0] else NO_STATUS)


if __name__ == "__main__":
    confine.die_with_parent()
    Forker(os.dup(0), os.dup(1)).serve()
