"""Threads in virtual time: real ones, of which one at a time goes on, when the simulation says so.

A thread that would wait hands the baton back to the simulation, and says what it waits for: so code that blocks runs in
virtual time as it is, and always in the same order. The thread that runs the simulation waits by running it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any, Generic, TypeVar

from chitcpd.sim import Application, Host, LimitExceeded, Process, Signal, Simulation
from testbed.clock import TimeStands

T = TypeVar("T")
_LAST_STEP = 2.0  # seconds, of the wall clock, for a thread to come to its next wait, once we are interrupted


class Ended(BaseException):
    """Ends a thread, at the wait in which it is: what it belongs to is gone."""


def raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise it in another thread, as soon as that runs Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


class VirtualClock:
    """The time of a simulation."""

    def __init__(self, simulation: Simulation, host: Host) -> None:
        """`host`: to whom what happens for the testbed itself is ascribed."""
        self.simulation = simulation
        self.host = host
        self.broken = False  # the simulation was interrupted, anywhere in its midst: it does not go on
        self.running: Thread | None = None  # that has the baton
        self.home = -1  # the directory in which all but applications work, while any of them may go on
        self._runs_in = 0  # the thread that runs the simulation
        self.back = threading.Lock()  # free when the baton is the simulation's again
        self.back.acquire()
        self._threads: dict[Thread, None] = {}  # that have begun

    def now(self) -> float:
        """Virtual seconds."""
        return self.simulation.now

    def epoch(self) -> float:
        """The simulation began with it."""
        return self.simulation.now

    @property
    def ident(self) -> int:
        """Of the thread that goes on: for another one."""
        running = self.running
        return self._runs_in if running is None else running.ident

    def queue(self) -> VirtualQueue[Any]:
        """For threads of this time."""
        return VirtualQueue(self)

    def start(self, work: Callable[[], None]) -> None:
        """A thread of the testbed's."""
        Thread(self, work).start()

    def wait(self, signal: Signal, until: float | None = None) -> None:
        """Return after a change of `signal`, or at this moment, or now and then before: who waits looks again."""
        if self.running is not None:
            if until is not None:
                self.simulation.schedule(max(until, self.now()), self.host, lambda _: signal.changed(), None)
            self.running.wait(signal)
        elif self.broken:
            raise TimeStands("the simulation was interrupted")
        else:
            self._run(signal, until)

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now() + seconds
        while self.now() < until:
            self.wait(Signal(self.simulation), until)

    def end(self) -> None:
        """End all threads: each at its wait, one after the other. The simulation does not go on afterwards."""
        self.broken = True
        with self._at_home():
            for thread in list(self._threads):
                thread.end()

    def begun(self, thread: Thread) -> None:
        """It has a thread of the system's."""
        self._threads[thread] = None

    def over(self, thread: Thread) -> None:
        """It has none any more."""
        self._threads.pop(thread, None)

    def _run(self, signal: Signal, until: float | None) -> None:
        simulation, self._runs_in = self.simulation, threading.get_ident()
        Process(self.host, self._halt_at(signal)).resume()
        try:
            with self._at_home():
                simulation.run(until)
        except LimitExceeded as limit:
            self.broken = True
            raise TimeStands(f"{limit}: is a timer of a TCP always due?") from None
        except BaseException:
            self.broken = True
            raise

    @contextmanager
    def _at_home(self) -> Iterator[None]:
        self.home = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield
        finally:
            os.close(self.home)

    def _halt_at(self, signal: Signal) -> Application:
        yield signal
        self.simulation.halt()


class VirtualQueue(Generic[T]):
    """What queue.SimpleQueue is, in virtual time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._items: deque[T] = deque()
        self._signal = Signal(clock.simulation)

    def put(self, item: T, /) -> None:
        """Wake one who waits."""
        self._items.append(item)
        self._signal.changed()

    def get(self, *, timeout: float | None = None) -> T:
        """Wait for an item, and for so many virtual seconds at most. Raises queue.Empty."""
        until = None if timeout is None else self._clock.now() + timeout
        while not self._items:
            if self._clock.broken or (until is not None and self._clock.now() >= until):
                raise Empty
            self._clock.wait(self._signal, until)
        return self._items.popleft()


class Thread:
    """A thread that goes on when the simulation says so."""

    def __init__(self, clock: VirtualClock, work: Callable[[], None], directory: Path | None = None) -> None:
        """`directory`: where it works; None: where we do."""
        self._clock = clock
        self._work = work
        self._directory = directory
        self._go = threading.Lock()
        self._go.acquire()
        self._waits_for: float | Signal = 0.0
        self._ends = False
        self._error: BaseException | None = None
        self.ended = False
        self._thread = threading.Thread(target=self._begin, daemon=True)

    @property
    def ident(self) -> int:
        """The system's number of it, once it has begun."""
        return self._thread.ident or 0

    def start(self) -> None:
        """Let it begin at this moment, after what is being done."""
        clock = self._clock
        clock.simulation.wake([Process(clock.host, self._steps())])

    def wait(self, what: float | Signal) -> None:
        """Called by the thread itself: go on after so many seconds, or when this has changed. Raises Ended."""
        if self._ends:
            raise Ended
        self._waits_for = what
        self._clock.back.release()
        self._go.acquire()
        if self._ends:
            raise Ended

    def forget(self) -> None:
        """It does not go on any more, whatever it waits for."""
        self._ends = True

    def end(self) -> None:
        """Unwind it, in nobody's time."""
        self._ends = True
        if self._thread.is_alive():
            self._go_on(last=True)
            self._thread.join(_LAST_STEP)
        self._clock.over(self)

    def _steps(self) -> Application:
        """From one wait to the next, as the simulation sees it."""
        if self._ends:
            return
        self._thread.start()
        self._clock.begun(self)
        while not self._ends:
            self._go_on()
            if self._error is not None:
                raise self._error
            if self.ended:
                self._clock.over(self)
                return
            yield self._waits_for

    def _go_on(self, *, last: bool = False) -> None:
        """Hand it the baton, and wait until it is back; `last`: not for ever."""
        clock = self._clock
        before, clock.running = clock.running, self
        try:
            if self._directory is not None:
                os.chdir(self._directory)
            self._go.release()
            try:
                while not clock.back.acquire(timeout=_LAST_STEP):
                    if last:
                        raise_in(self.ident, Ended)
                        break
                    # A signal that came just before this wait has not ended it: it is handled here.
            except BaseException:  # a signal: the thread goes on, up to its next wait, and must not do so elsewhere
                clock.broken = True
                if not clock.back.acquire(timeout=_LAST_STEP):
                    raise_in(self.ident, Ended)  # it is in a call of a TCP that does not end
                    clock.back.acquire(timeout=_LAST_STEP)
                raise
        finally:
            clock.running = before
            if self._directory is not None:
                os.fchdir(clock.home)

    def _begin(self) -> None:
        self._go.acquire()
        try:
            if not self._ends:
                self._work()
        except Ended:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.ended = True
            self._clock.back.release()
