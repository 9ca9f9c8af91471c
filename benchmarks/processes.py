"""Programs that are started, heard and ended, and what the kernel knows of them. Linux only."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
PATIENCE = 90.0  # seconds for a program to say its next line
_GRACE = 5.0  # seconds from SIGTERM to SIGKILL
_SHOWN = 2000  # characters of what a program that has failed said
_NANOSECOND = 1e-9


class ProgramFailed(Exception):
    """A program has ended, or kept silent, where it should not; the text has what it said."""


@dataclass(slots=True)
class Program:
    """A program that runs."""

    process: subprocess.Popen[bytes]
    command: Sequence[str]
    errors: IO[bytes]
    _said: bytes = field(default=b"")

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def line(self, patience: float = PATIENCE) -> str:
        """The next line of its standard output. Raises ProgramFailed."""
        assert self.process.stdout is not None
        until = time.monotonic() + patience
        while b"\n" not in self._said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(until - time.monotonic(), 0))
            chunk = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not chunk:
                raise self._failed("has ended" if ready else f"has said nothing for {patience:g} s")
            self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def result(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The next line of its standard output, as JSON. Raises ProgramFailed."""
        result = json.loads(self.line(patience))
        assert isinstance(result, dict)
        return result

    def end(self) -> None:
        """SIGTERM, and SIGKILL if that does not help, or if we are interrupted here."""
        self.process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE)
        finally:
            self.process.kill()  # nothing, if it has ended

    def _failed(self, how: str) -> ProgramFailed:
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace")[-_SHOWN:].strip()
        return ProgramFailed(f"{' '.join(self.command)} {how}. {text or 'It gave no reason.'}")


@contextmanager
def running(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Program]:
    """Start a program, and end it with the block, whatever happens there."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            process_group=0,  # Ctrl-C is for us, and we end it
        )
        with process:
            program = Program(process, command, errors)
            try:
                yield program
            finally:
                program.end()


def finish(command: Sequence[str]) -> None:
    """Run a program to its end. Raises ProgramFailed if it does not succeed."""
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT, timeout=PATIENCE, process_group=0
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ProgramFailed(str(error)) from None
    if ended.returncode:
        text = (ended.stdout + ended.stderr).decode(errors="replace")[-_SHOWN:].strip()
        raise ProgramFailed(f"{' '.join(command)} has ended with status {ended.returncode}. {text}")


def succeeds(command: Sequence[str]) -> bool:
    """Run a program to its end, and whether it succeeds."""
    try:
        finish(command)
    except ProgramFailed:
        return False
    return True


def python(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of ours."""
    return [sys.executable, "-m", module, *map(str, arguments)]


# ---- what the kernel knows -------------------------------------------------------------------------------------


def cpu_seconds(pids: Iterable[int]) -> float:
    """The CPU time that these processes have used, all threads together."""
    return sum(
        int(schedstat.read_text().split()[0]) * _NANOSECOND
        for pid in pids
        for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def resident_bytes(pid: int) -> int:
    """The memory that the process has in RAM."""
    return int(_status(pid, "VmRSS").split()[0]) * 1024


def wake_ups(pid: int) -> int:
    """How often the process's first thread has gone to sleep by itself, and so was woken."""
    return int(_status(pid, "voluntary_ctxt_switches"))


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))
