"""What a daemon costs that has nothing to do: memory, wake-ups, the time until it is ready."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from benchmarks import paths
from benchmarks.measures import Bar, Findings, Quantities, Session, benchmark, figure
from benchmarks.paths import Way
from benchmarks.processes import Program, resident_bytes, running, wake_ups

_PYTHON = "Python with asyncio, protobuf"
_CODE = "import asyncio, google.protobuf.message; print(flush=True); asyncio.run(asyncio.sleep(60))"
_MB, _KB = 1e6, 1e3  # bytes
_FIRST = 10  # connections
_SETTLE = 0.5  # seconds after which delayed acknowledgements have gone


@benchmark("idle", "a daemon with nothing to do: from start to ready, memory, wake-ups")
def idle(session: Session) -> Findings:
    """Beside a Python that has loaded what any daemon with these messages has to load."""
    samples = session.in_turns({"chitcpd": _start_chitcpd, _PYTHON: _start_python})
    waking = session.in_turns(
        {"a connection": partial(_watch, session, 1), "no connection": partial(_watch, session, 0)}
    )
    return Findings(
        [
            figure(samples, "ready", "ms", "less", of="chitcpd", beside=_PYTHON, bar=Bar(250, "figure")),
            figure(samples, "resident", "MB", "less", of="chitcpd", beside=_PYTHON, bar=Bar(40, "figure")),
            figure(waking, "wake-ups", "/s", "less", of="a connection", beside="no connection", bar=Bar(0, "figure")),
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
    return {"ready": ready * 1000, "resident": resident_bytes(program.pid) / _MB}


def _watch(session: Session, connections: int) -> Quantities:
    """Wake-ups a second of both daemons, while so many connections between them are idle."""
    with session.daemons() as way, held(way, connections):
        time.sleep(_SETTLE)
        before = sum(wake_ups(program.pid) for program in way.between)
        time.sleep(session.effort.watch)
        return {"wake-ups": (sum(wake_ups(program.pid) for program in way.between) - before) / session.effort.watch}


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
            return {"memory": (_resident(way) - before) / count / _KB}


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
