"""What the logs of a run tell of a TCP that has raised: what its author wants to know first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import IO

_FAULT = re.compile(r"\[[\d:.]+\] +\S+ (?:\[S\d+\] )?fault in the TCP")
_PLACE = re.compile(r'  File ".*", line (\d+), in (\S+)')
_MOST = 200  # lines of a traceback
_LONGEST = 400  # characters of a line: a TCP may print what it likes


def tcp_faults(directory: Path) -> list[str]:
    """A sentence for each host of a run folder whose TCP has raised: what first, where, and how often."""
    return [said for log in sorted(directory.glob("hosts/*/chitcpd.log")) for said in _of_a_host(log)]


def _of_a_host(log: Path) -> Iterator[str]:
    first, count = "", 0
    with log.open(errors="replace") as file:
        for line in iter(lambda: file.readline(_LONGEST), ""):
            if _FAULT.match(line):
                count += 1
                first = first or _told(file)
    if count:
        often = f", and {count - 1} more" if count > 1 else ""
        yield f"the TCP of {log.parent.name} has a fault: {first}{often}; see {log.relative_to(log.parents[2])}"


def _told(file: IO[str]) -> str:
    """The exception of the traceback that comes next, and where it was raised."""
    lines = takewhile(str.strip, iter(lambda: file.readline(_LONGEST), ""))
    where, error = "", ""
    for line in islice(lines, _MOST):
        if found := _PLACE.match(line):
            where = f"line {found[1]}, in {found[2]}: "
        error = line.strip()
    return where + error
