"""What a daemon costs that has nothing to do: memory, wake-ups, the time until it is ready."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from benchmarks import paths
from benchmarks.measures import KB, MB, Bar, Findings, Quantities, Session, benchmark, figure
from benchmarks.paths import Way
from benchmarks.processes import Program, resident_bytes, running, wake_ups

_PYTHON = "Python, asyncio"
_CODE = "import asyncio, google.protobuf.message; print(flush=True); asyncio.run(asyncio.sleep(60))"
_FIRST = 10  # connections
_SETTLE = 2.0  # seconds after which all is acknowledged, and the SYN's timer of one second was looked at for nothing


@benchmark("idle", "a daemon with nothing to do: from start to ready, memory, wake-ups")
def idle(session: Session) -> Findings:
    """Beside a Python that has loaded what any daemon with these messages has to load."""
    starts = session.in_turns({"chitcpd": _start_chitcpd, _PYTHON: _start_python})
    sleeps = session.in_turns(
        {
            "chitcpd": partial(_sleeping_chitcpd, session, 0),
            "a connection": partial(_sleeping_chitcpd, session, 1),
            _PYTHON: partial(_sleeping_python, session),
        }
    )
    never = Bar(0, "figure")
    return Findings(
        [
            figure(starts, "ready", "ms", "less", of="chitcpd", beside=_PYTHON, bar=Bar(250, "figure")),
            figure(starts, "resident", "MB", "less", of="chitcpd", beside=_PYTHON, bar=Bar(40, "figure")),
            figure(sleeps, "wake-ups", "/s", "less", of="chitcpd", beside=_PYTHON, bar=never),
            figure(
                sleeps, "wake-ups", "/s", "less", of="a connection", beside=_PYTHON, bar=never, name="with a connection"
            ),
        ]
    )


def _start_chitcpd() -> Quantities:
    begun = time.monotonic()
    with paths.daemons_at_once(1) as (program,):
        return _ready(program, begun)


def _start_python() -> Quantities:
    begun = time.monotonic()
    with running([sys.executable, "-c", _CODE]) as program:
        program.line()
        return _ready(program, begun)


def _ready(program: Program, begun: float) -> Quantities:
    ready = time.monotonic() - begun
    return {"ready": ready * 1000, "resident": resident_bytes(program.pid) / MB}


def _sleeping_chitcpd(session: Session, connections: int) -> Quantities:
    """Two daemons, with so many connections between them on which nothing happens."""
    with session.daemons() as way, held(way, connections):
        return _wake_ups(session, way.between)


def _sleeping_python(session: Session) -> Quantities:
    with running([sys.executable, "-c", _CODE]) as program:
        program.line()
        return _wake_ups(session, [program])


def _wake_ups(session: Session, programs: Sequence[Program]) -> Quantities:
    """Of all together in a second."""
    time.sleep(_SETTLE)
    before = sum(wake_ups(program.pid) for program in programs)
    time.sleep(session.effort.watch)
    return {"wake-ups": (sum(wake_ups(program.pid) for program in programs) - before) / session.effort.watch}


@benchmark("memory", "a thousand connections that are idle")
def memory(session: Session) -> Findings:
    """What the two processes between the applications need for a connection."""
    samples = session.in_turns(
        {"chitcpd": lambda: _memory(session, session.daemons()), "relay": lambda: _memory(session, paths.relay())}
    )
    return Findings([figure(samples, "memory", "kB", "less", of="chitcpd", beside="relay")])


def _memory(session: Session, ways: AbstractContextManager[Way]) -> Quantities:
    """Kilobytes for a connection, of both processes; the first few have brought what is needed only once."""
    count = session.effort.connections
    with ways as way:
        with held(way, _FIRST):
            before = _resident(way)
        with held(way, _FIRST + count):
            return {"memory": (_resident(way) - before) / count / KB}


def _resident(way: Way) -> int:
    return sum(resident_bytes(program.pid) for program in way.between)


@contextmanager
def held(way: Way, connections: int) -> Iterator[None]:
    """So many connections that have carried a byte each."""
    if not connections:
        yield
        return
    said = [f"connections={connections}"]
    with paths.talking(way, "hold", client=said, server=said) as (client, server):
        client.result()
        server.result()
        yield
