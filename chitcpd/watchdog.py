"""A loaded TCP that never ends a call would leave the daemon deaf: this finds it, and raises an exception out of it.

It counts CPU time, so an idle daemon has no wake-ups. At each tick it asks the event loop for a sign of life; if
there is none until the next, and the same call of a TCP is still running, EndlessLoop is raised right where that is.
The driver takes it for a fault of that TCP: it costs one connection. Once the daemon is ending, ticks are of real
time, so that a TCP which sleeps is found as well; and if the end does not come, the process ends all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import traceback
from types import FrameType, TracebackType

from chitcpd import driver
from chitcpd.driver import Driver

log = logging.getLogger(__name__)

_TICK = 3.0  # seconds of CPU time: a call is found after one to two ticks
_TICK_AT_THE_END = 1.0  # seconds
_MOST_AT_THE_END = 8  # ticks; an end in order takes less than three
_STATUS = 70  # EX_SOFTWARE: our fault, or the TCP's


class EndlessLoop(Exception):
    """A call of a TCP does not come to an end."""


class Watchdog:
    """Looks after the event loop while it is entered."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked = False  # for a sign of life, and it has not come
        self._call: int | None = None  # the call of a TCP that was running then
        self.driver: Driver | None = None  # which calls the TCPs; until there is one, none is called
        self._complained = False
        self._at_the_end = 0  # ticks

    def __enter__(self) -> None:
        """Begin."""
        signal.signal(signal.SIGPROF, self._tick)
        signal.setitimer(signal.ITIMER_PROF, _TICK, _TICK)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """The end has come."""
        for timer, number in ((signal.ITIMER_PROF, signal.SIGPROF), (signal.ITIMER_REAL, signal.SIGALRM)):
            signal.setitimer(timer, 0)
            signal.signal(number, signal.SIG_IGN)

    def hurry(self) -> None:
        """The daemon is to end."""
        signal.signal(signal.SIGALRM, self._tick_at_the_end)
        signal.setitimer(signal.ITIMER_REAL, _TICK_AT_THE_END, _TICK_AT_THE_END)

    def _tick_at_the_end(self, number: int, frame: FrameType | None) -> None:
        self._at_the_end += 1
        if self._at_the_end == _MOST_AT_THE_END:
            log.critical("the daemon does not end, and is ended here:\n%s", _stack(frame))
            sys.stderr.flush()
            os._exit(_STATUS)
        self._tick(number, frame)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        call = self._guarded_call(frame)
        if not self._asked:
            self._asked, self._call = True, call
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._alive)
        elif call is None and not self._complained:
            self._complained = True
            log.error("the daemon is busy with one thing:\n%s", _stack(frame))
        elif call is not None and call == self._call:
            raise EndlessLoop("a call of the TCP does not come to an end")
        else:
            self._call = call

    def _alive(self) -> None:
        self._asked, self._call, self._complained = False, None, False

    def _guarded_call(self, frame: FrameType | None) -> int | None:
        """The driver's call in which a TCP is running; None if what is running is the daemon itself."""
        if self.driver is None or not self.driver.calling:
            return None
        if frame is not None and frame.f_code.co_filename == driver.__file__:
            return None
        return self.driver.calls


def _stack(frame: FrameType | None) -> str:
    return "".join(traceback.format_stack(frame))
