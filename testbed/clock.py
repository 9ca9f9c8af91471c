"""Time for whoever waits: the wall clock's, or that of a simulation, in which nothing is waited for in vain.

What runs a lab (`run`, `conductor`) asks its backend's clock for the time, for queues that can be waited for, and for
threads: so it does the same in virtual time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Queue(Protocol[T]):
    """What one thread puts, another one gets."""

    def put(self, item: T, /) -> None:
        """Never waits."""

    def get(self, *, timeout: float) -> T:
        """Wait for so many seconds. Raises queue.Empty."""


class Clock(Protocol):
    """One kind of time."""

    def now(self) -> float:
        """Seconds, since some moment."""

    def epoch(self) -> float:
        """Seconds since the epoch, as traces have them."""

    def queue(self) -> Queue[Any]:
        """A queue whose waits take this time."""

    def start(self, work: Callable[[], None]) -> None:
        """Do this beside all else, in a thread whose waits take this time."""


class TimeStands(Exception):
    """A simulation does not get on; the message says why."""


class WallClock:
    """The time of this machine."""

    def now(self) -> float:
        """As time.monotonic."""
        return time.monotonic()

    def epoch(self) -> float:
        """As time.time."""
        return time.time()

    def queue(self) -> Queue[Any]:
        """Python's own."""
        return SimpleQueue()

    def start(self, work: Callable[[], None]) -> None:
        """A thread of Python's."""
        threading.Thread(target=work, daemon=True).start()


WALL = WallClock()
