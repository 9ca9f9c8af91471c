"""Flame graphs of programs while they are measured, by py-spy (from the extra `bench`)."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import Program

_RATE = 200  # samples a second
_TO_DRAW = 30.0  # seconds


def available() -> str | None:
    """Where py-spy is."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


@contextmanager
def recording(programs: Sequence[Program], directory: Path | None, name: str) -> Iterator[None]:
    """Draw DIRECTORY/NAME-NUMBER.svg of each program, of the time in this block; nothing without a directory."""
    recorders = []
    try:
        for number, program in enumerate(programs if directory is not None else (), 1):
            command = ["py-spy", "record", "--rate", str(_RATE), "--pid", str(program.pid)]
            command += ["--output", f"{directory}/{name}-{number}.svg", "--format", "flamegraph"]
            recorders.append(
                subprocess.Popen(command, executable=available(), stdout=subprocess.DEVNULL, process_group=0)
            )
        yield
    finally:
        for recorder in recorders:
            recorder.send_signal(signal.SIGINT)  # end, and draw
        for recorder in recorders:
            _wait(recorder)


def _wait(recorder: subprocess.Popen[bytes]) -> None:
    try:
        recorder.wait(_TO_DRAW)
    except subprocess.TimeoutExpired:
        recorder.kill()
        recorder.wait()
