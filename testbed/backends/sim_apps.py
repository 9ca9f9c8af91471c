"""The applications of chisocket in virtual time: the very modules that `python -m` runs, in another world.

Each life of an application has its own copies of the modules of `chisocket.apps`. What these import is Python's own but
for what waits, asks a clock, throws dice, or is the process's alone: `chisocket`, `time`, `threading`, `queue`,
`signal`, `secrets`, `sys`, the environment and the output of `argparse` are those of this life. It works in its own
directory.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import io
import os
import pkgutil
import queue
import random
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

from chitcpd.sim import Signal
from chitcpd.simlab import File, Node, without_places
from testbed.backends.sim_sockets import Chisocket, End
from testbed.backends.sim_threads import Ended, Thread, VirtualClock
from testbed.plan import AppPlan

PACKAGE = "chisocket.apps"
_COLUMNS = 80  # of the help that a parser prints


@cache
def names() -> list[str]:
    """The modules that can be run, like chisocket.apps.echo."""
    found = pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__)
    return [f"{PACKAGE}.{module.name}" for module in found if not module.name.startswith("_")]


def module_of(command: Sequence[str]) -> tuple[str, list[str]] | None:
    """(module, arguments) of a command that can be run here; None if it is another one."""
    python, *rest = command
    if rest and rest[0] == "-u":
        rest = rest[1:]
    if python in ("python", "python3") and len(rest) > 1 and rest[0] == "-m" and rest[1] in names():
        return rest[1], rest[2:]
    return None


class AppLife:
    """An application, from one start to its end."""

    def __init__(
        self,
        plan: AppPlan,
        node: Node,
        hosts: dict[str, str],
        clock: VirtualClock,
        directory: Path,
        *,
        seed: int,
        changed: Callable[[], None],
        ended: Callable[[int], None],
    ) -> None:
        """`hosts`: name -> address; `changed`: called when it has written, listens, or has ended."""
        self.plan = plan
        self.node = node
        self.hosts = hosts
        self.clock = clock
        self.changed = changed
        self.status: int | None = None  # None: it runs
        self.written = bytearray()  # by this life, on both streams, until it is ready
        self.ready = plan.says is None
        self.directory = directory / "files"
        self.files = File(directory / "stdout"), File(directory / "stderr")
        self.stdout, self.stderr = (_text(file, self._wrote) for file in self.files)
        self.random = random.Random(seed)
        self.sockets: dict[End, None] = {}  # that are open
        self.handlers: dict[int, Any] = {}
        self._ended = ended
        self._signals: deque[int] = deque()  # that have come
        self._waits_for: Signal | None = None  # the first thread
        self._threads: dict[Thread, None] = {}  # that have not ended
        self._first = self.thread(self._main)

    def start(self) -> None:
        """Let it begin."""
        self._first.start()

    def kill(self, number: int) -> None:
        """Send it a signal; nothing if it has ended."""
        handler = self.handlers.get(number, signal.SIG_DFL) if number != signal.SIGKILL else signal.SIG_DFL
        if self.status is not None or handler == signal.SIG_IGN:
            return
        if handler == signal.SIG_DFL and number != signal.SIGINT:
            self.exit(128 + number)
            return
        self._signals.append(number)
        if self._waits_for is not None:
            self._waits_for.changed()

    def exit(self, status: int) -> None:
        """Its end: whatever its threads wait for, they do not go on, and its sockets are closed."""
        if self.status is not None:
            return
        self.status = status
        for thread in self._threads:
            thread.forget()
        if self.clock.broken:  # a thread may be in the midst of a call of the TCP, and there is to be no other one
            self.sockets.clear()
        for each in list(self.sockets):
            each.close()
        for file in self.files:
            file.write_out()
        self._ended(status)
        self.changed()

    def wait(self, what: Signal, until: float | None = None) -> None:
        """Called by a thread of its own: wait for a change, or for a moment; who waits looks again."""
        is_first = self.clock.running is self._first
        if is_first:
            self._handle_signals()
            self._waits_for = what
        self.clock.wait(what, until)
        if is_first:
            self._waits_for = None
            self._handle_signals()

    def thread(self, work: Callable[[], None]) -> Thread:
        """One more thread."""

        def whole() -> None:
            work()
            self._threads.pop(thread, None)

        thread = Thread(self.clock, whole, self.directory)
        self._threads[thread] = None
        return thread

    def _handle_signals(self) -> None:
        while self._signals:
            number = self._signals.popleft()
            handler = self.handlers.get(number, signal.SIG_DFL)
            if handler == signal.SIG_DFL:
                raise KeyboardInterrupt
            handler(number, None)

    def _wrote(self, data: bytes) -> None:
        if not self.ready:
            self.written += data
            self.changed()

    def _main(self) -> None:
        found = module_of(self.plan.run)
        assert found is not None  # it was asked before
        name, arguments = found
        try:
            raise SystemExit(_Modules(self).load(name).main(arguments))
        except Ended:
            raise
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if not isinstance(end.code, int | None):
                print(end.code, file=self.stderr)
        except KeyboardInterrupt:
            status = 128 + signal.SIGINT
        except BaseException:
            self.complain()
            status = 1
        self.exit(status & 0xFF)

    def complain(self, head: str = "") -> None:
        """Say on its standard error which exception nobody has handled."""
        self.stderr.write(without_places(head + traceback.format_exc()))


# ---- its modules -----------------------------------------------------------------------------------------------


class _Modules:
    """What an application's modules import."""

    def __init__(self, life: AppLife) -> None:
        self._loaded: dict[str, Any] = {}
        self._builtins = {**vars(builtins), "__import__": self._import, "print": partial(_print, life)}
        self._own: dict[str, Any] = {
            "argparse": _Like(argparse, ArgumentParser=_parser_of(life)),
            "chisocket": Chisocket(life),
            "os": _Like(os, environ=life.plan.env.copy(), fsencode=_in_utf_8),
            "queue": SimpleNamespace(Empty=queue.Empty, SimpleQueue=partial(_Queue, life)),
            "secrets": SimpleNamespace(token_hex=lambda count=32: life.random.randbytes(count).hex()),
            "signal": _Like(signal, signal=partial(_set_handler, life)),
            "sys": _Like(sys, stdin=_no_input(), stdout=life.stdout, stderr=life.stderr, argv=list(life.plan.run)),
            "threading": _Threading(life),
            "time": _Like(time, monotonic=life.clock.now, sleep=partial(_sleep, life)),
        }

    def load(self, name: str) -> Any:
        """This life's copy of a module of chisocket.apps."""
        if name not in self._loaded:
            module = self._loaded[name] = ModuleType(name)
            module.__dict__["__builtins__"] = self._builtins
            exec(_code(name), module.__dict__)
        return self._loaded[name]

    def _import(self, name: str, *rest: Any) -> Any:
        """As `__import__`: the names that are wanted of the module are the third of the `rest`."""
        if name in self._own:
            return self._own[name]
        if name == PACKAGE:
            return SimpleNamespace(**{each: self.load(f"{PACKAGE}.{each}") for each in rest[2]})
        if name.startswith(f"{PACKAGE}."):
            return self.load(name)
        return __import__(name, *rest)


@cache
def _code(name: str) -> CodeType:
    real = importlib.import_module(name)  # dataclasses look their module up
    assert real.__file__ is not None
    return compile(Path(real.__file__).read_bytes(), real.__file__, "exec")


class _Like:
    """A module, but for some of its names."""

    def __init__(self, module: ModuleType, **own: object) -> None:
        self._module = module
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _print(life: AppLife, *values: object, file: Any = None, **options: Any) -> None:
    print(*values, file=life.stdout if file is None else file, **options)


def _in_utf_8(text: str) -> bytes:
    """os.fsencode, whatever the locale."""
    return text.encode(errors="surrogateescape")


def _no_input() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO())


def _set_handler(life: AppLife, number: int, handler: Any) -> Any:
    before = life.handlers.get(number, signal.SIG_DFL)
    life.handlers[number] = handler
    return before


def _sleep(life: AppLife, seconds: float) -> None:
    until = life.clock.now() + seconds
    while life.clock.now() < until:
        life.wait(Signal(life.clock.simulation), until)


def _parser_of(life: AppLife) -> type[argparse.ArgumentParser]:
    """Like argparse's, but what it prints is the application's."""

    class Parser(argparse.ArgumentParser):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            columns = partial(argparse.HelpFormatter, width=_COLUMNS - 2)
            super().__init__(*arguments, **{"formatter_class": columns, **options})

        def _print_message(self, message: str, file: Any = None) -> None:
            (life.stderr if file is sys.stderr else life.stdout).write(message or "")

    return Parser


class _Output(io.RawIOBase):
    """A standard stream, as `python -u` has it: what is written is written."""

    def __init__(self, file: File, wrote: Callable[[bytes], None]) -> None:
        self._file = file
        self._wrote = wrote

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._file.write(bytes(data))
        self._wrote(bytes(data))
        return len(data)


def _text(file: File, wrote: Callable[[bytes], None]) -> io.TextIOWrapper:
    output: Any = _Output(file, wrote)
    return io.TextIOWrapper(output, "utf-8", "backslashreplace", newline="\n", write_through=True)


# ---- queue, threading ------------------------------------------------------------------------------------------


class _Queue:
    """queue.SimpleQueue."""

    def __init__(self, life: AppLife) -> None:
        self._life = life
        self._items: deque[Any] = deque()
        self._signal = Signal(life.clock.simulation)

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._signal.changed()

    def get(self) -> Any:
        while not self._items:
            self._life.wait(self._signal)
        return self._items.popleft()


class _Threading:
    """threading: what the applications use of it, and no more, lest something else waits in nobody's time."""

    def __init__(self, life: AppLife) -> None:
        self.Thread = partial(_AppThread, life, self)
        self.Semaphore = partial(_Semaphore, life)
        self.running: dict[Thread, _AppThread] = {}  # that have not ended
        self.numbers = count()
        self._life = life

    def current_thread(self) -> _AppThread | None:
        running = self._life.clock.running
        return None if running is None else self.running.get(running)


class _AppThread:
    """threading.Thread: one that ends with the application."""

    def __init__(
        self, life: AppLife, module: _Threading, *, target: Callable[..., None], args: Sequence[Any] = (), daemon: bool
    ) -> None:
        if not daemon:
            raise ValueError("a simulated application's threads end with it: daemon=True")
        self._life = life
        self._target = target
        self._args = args
        self._ended = False
        self._over = Signal(life.clock.simulation)
        self._thread = life.thread(self._run)
        self._module = module
        self._number = next(module.numbers)
        module.running[self._thread] = self

    def __hash__(self) -> int:
        return self._number  # the order of a set of threads is the same in each run

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        until = None if timeout is None else self._life.clock.now() + timeout
        while not self._ended and (until is None or self._life.clock.now() < until):
            self._life.wait(self._over, until)

    def _run(self) -> None:
        try:
            self._target(*self._args)
        except Ended:
            raise
        except BaseException:
            self._life.complain(f"Exception in thread {self._target.__name__}:\n")
        self._ended = True
        self._module.running.pop(self._thread)
        self._over.changed()


class _Semaphore:
    """threading.Semaphore."""

    def __init__(self, life: AppLife, value: int = 1) -> None:
        self._life = life
        self._value = value
        self._signal = Signal(life.clock.simulation)

    def acquire(self) -> None:
        while not self._value:
            self._life.wait(self._signal)
        self._value -= 1

    def release(self) -> None:
        self._value += 1
        self._signal.changed()
