"""What the daemons of a simulation log: all by one logger of Python's, each to the log of the node that it befalls.

Not in `chitcpd.simlab`, which may be compiled: a compiled class can't derive from logging's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from chitcpd.simlab import Lab, without_places

_log = logging.getLogger("chitcpd")


@contextmanager
def logs_of(lab: Lab) -> Iterator[None]:
    """Meanwhile what daemons log goes to the logs of their nodes, and nowhere else."""
    handler = _Handler(lab)
    before = _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(before[0])
        _log.propagate = before[1]


class _Handler(logging.Handler):
    """Writes to the log of the node that it befalls."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(logging.INFO)
        self._lab = lab

    def emit(self, record: logging.LogRecord) -> None:
        """A line."""
        node = self._lab.speaking
        if node is not None:
            own = node.settings.tcp
            node.say(without_places(record.getMessage(), *([] if own is None else [own.parent])))
