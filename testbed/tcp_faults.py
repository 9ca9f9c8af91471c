"""What the logs of a run tell of a TCP that has raised: what its author wants to know first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_LINE = re.compile(r"\[[\d:.]+\] ")
_FAULT = re.compile(r"\[[\d:.]+\] +\S+ (?:\[S\d+\] )?fault in the TCP")
_PLACE = re.compile(r'  File ".*", line (\d+), in (\S+)')
_NO_ERROR = ("Traceback (most", "During handling of", "The above exception")
_LONGEST = 400  # characters of a line: a TCP may print what it likes


def tcp_faults(directory: Path) -> list[str]:
    """A sentence for each host of a run folder whose TCP has raised: what first, where, and how often."""
    return [said for log in sorted(directory.glob("hosts/*/chitcpd.log")) for said in _of_a_host(log)]


def _of_a_host(log: Path) -> Iterator[str]:
    count, first = 0, _Fault()
    with log.open(errors="replace") as file:
        for line in iter(lambda: file.readline(_LONGEST), ""):
            if _FAULT.match(line):
                count += 1
            elif count == 1:
                first.take(line)
    if count:
        often = f", and {count - 1} more" if count > 1 else ""
        yield f"the TCP of {log.parent.name} has a fault: {first}{often}; see {log.relative_to(log.parents[2])}"


class _Fault:
    """What a traceback ends with: the last exception of a chain, and where it was raised."""

    def __init__(self) -> None:
        self._where = ""
        self._error = ""
        self._is_open = True  # no exception has come yet for this place
        self._is_over = False  # the log has gone on

    def take(self, line: str) -> None:
        """The next line of the log."""
        if self._is_over or _LINE.match(line):
            self._is_over = True
        elif found := _PLACE.match(line):
            self._where, self._is_open = f"line {found[1]}, in {found[2]}: ", True
        elif self._is_open and line.strip() and not line[0].isspace() and not line.startswith(_NO_ERROR):
            self._error, self._is_open = line.strip(), False

    def __str__(self) -> str:
        return self._where + self._error
