"""What regular expressions describe is looked for in a process of its own.

Some expressions take for ever, and in this process nobody could end them, not even with Ctrl-C.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from threading import Thread
from typing import IO, Any

_LONGEST_LINE = 1 << 16  # bytes; a longer one is several
_NOTHING = 3  # the status of a search that has found nothing; 1 is that of a Python program which has failed
_SEARCH = f"""
import re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # seconds; who asked may have been killed
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))  # bytes
pattern, longest, given = re.compile(sys.argv[1], re.MULTILINE), int(sys.argv[2]), sys.stdin.buffer
lines = (line.rstrip(b"\\r\\n") for line in iter(lambda: given.readline(longest), b""))
for text in lines if longest else [given.read()]:
    if found := pattern.search(text.decode(errors="replace")):
        sys.stdout.buffer.write(found[0].encode(errors="replace"))
        sys.exit(0)
sys.exit({_NOTHING})
"""


def search(pattern: str, text: bytes | IO[bytes], *, within: float) -> str | None:
    """What matches first, in a text or in an open file; it may be of several lines.

    Raises TimeoutError if nobody knows after so many seconds, ChildProcessError if it could not be done: a text of a
    gigabyte takes more memory than the search may have.
    """
    given: dict[str, Any] = {"input": text} if isinstance(text, bytes) else {"stdin": text}
    try:
        done = subprocess.run(_command(pattern, 0), **given, capture_output=True, timeout=within, check=False)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    if done.returncode not in (0, _NOTHING):
        raise ChildProcessError(f"it ended with status {done.returncode}")
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


class LineSearch:
    """A search for a line that matches, in a text that comes in pieces cut anywhere, for as long as the block lasts."""

    def __init__(self, pattern: str, pieces: Iterable[bytes]) -> None:
        """`pieces`: taken by a thread, which ends with them, or at the first one after the search has ended."""
        self._process = subprocess.Popen(
            _command(pattern, _LONGEST_LINE), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        Thread(target=self._feed, args=(pieces,), daemon=True).start()

    def __enter__(self) -> LineSearch:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def found(self, within: float | None = None) -> bool | None:
        """Whether one is found, once it is known for good, for which we wait so many seconds; None: nobody knows."""
        try:
            return self._process.wait(within) == 0
        except subprocess.TimeoutExpired:
            return None

    def _feed(self, pieces: Iterable[bytes]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as given:
            for piece in pieces:
                given.write(piece)
                given.flush()


def _command(pattern: str, longest: int) -> list[str]:
    return [sys.executable, "-I", "-c", _SEARCH, pattern, str(longest)]
