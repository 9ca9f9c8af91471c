"""What is put off is done once, at the end of the turn: of what the event loop has called us for.

So segments that come together are answered together, and without another round of the event loop, which costs as much
as a system call or two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Turn:
    """The turn that goes on, or the next one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._goes_on = False
        self._put_off: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        """The event loop has called us."""
        self._goes_on = True

    def __exit__(self, *_: object) -> None:
        """We are about to return to it."""
        self._end()

    def put_off(self, action: Callable[[], None]) -> None:
        """Do this at the end of the turn; it may put off more, and must not do so for ever."""
        if not self._goes_on and not self._put_off:
            self._loop.call_soon(self._end)
        self._put_off.append(action)

    def _end(self) -> None:
        self._goes_on = True
        while self._put_off:
            actions, self._put_off = self._put_off, []
            for action in actions:
                try:
                    action()
                except Exception as error:  # the others are to be done all the same
                    self._loop.call_exception_handler({"message": "fault in the daemon", "exception": error})
        self._goes_on = False
