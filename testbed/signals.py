"""SIGINT, SIGTERM and SIGHUP while a lab is up: they end a wait, and never what makes or removes something.

Between a resource and the note that it exists there must be no exception. So a signal is only remembered, and raised
where the code says that it waits:

    with Signals() as signals:
        backend.up(...)                     # whole, whatever comes
        with signals.interruptible():
            exits.get()                     # Interrupted, at once
        backend.down(...)                   # whole, whatever comes
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal has asked to end. Not an Exception: what handles errors must not take it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status, as a shell says it."""
        return 128 + self.number


class Signals:
    """While it is entered, signals interrupt only what is `interruptible`."""

    def __init__(self) -> None:
        self._came: int | None = None
        self._waiting = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # elsewhere there is nothing to handle
            for number in _NUMBERS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, a shell's background job
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._came is None:
            self._came = number
            if self._waiting:
                raise Interrupted(number)

    @property
    def came(self) -> bool:
        """Whether a signal has come."""
        return self._came is not None

    def raise_if_any(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._came is not None:
            raise Interrupted(self._came)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A wait, which a signal ends at once with Interrupted, one that came before it too."""
        self._waiting = True
        try:
            self.raise_if_any()
            yield
        finally:
            self._waiting = False
