"""Randomly drawn transfers over bad networks, one after another: what arrives is what was sent, and it always ends.

    python -m tests.tcp.simulation --segments 10_000_000     run scenarios until so many segments with data were sent
    python -m tests.tcp.simulation --replay 1234             run the one scenario that seed 1234 stands for

A seed says everything about a scenario. `draw` makes it, `run` runs it in chitcpd.sim and judges it, after each step.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import os
import signal
import sys
import time
import traceback
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from chitcpd.demux import FourTuple
from chitcpd.driver import Endpoint
from chitcpd.faults import IP_HEADER
from chitcpd.sim import Application, Host, Shape, Simulation, Socket
from chitcpd.tcp import congestion
from chitcpd.tcp.api import ACK, SYN, Config, Expiry, Segment, State, TcpConnection, Timer, Transition
from chitcpd.tcp.connection import Connection
from chitcpd.tcp.seq import add, diff, newer
from chitcpd.trace import flag_letters
from tests.tcp.transitions import LEGAL, name

CLIENT, SERVER = "10.0.0.2", "10.0.0.3"
LONGEST = 1e6  # seconds of virtual time
MOST_EVENTS = 5_000_000
MOST_BYTES = 1 << 20  # that an end of a flow sends
_HEADERS = 40  # bytes of IP and TCP
_LAST = 40  # events that a failure shows
_CLOSING = (State.FIN_WAIT_1, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK)  # a FIN may wait for the window
_UNSYNCHRONIZED = (State.CLOSED, State.LISTEN, State.SYN_SENT)
_PLAIN_LINES = 10.0  # seconds between two lines of progress where there is no terminal

# What a scenario has for sure; seeds take them in turn. All else is drawn.
FAMILIES = ("no loss", "little loss", "loss", "heavy loss", "reordering", "duplication", "corruption", "wrap")

# Bytes that tell where they belong, so that misplaced ones show: a counter in each four.
_counter = array("I", range(1 << 20))
if sys.byteorder == "little":
    _counter.byteswap()
PATTERN = _counter.tobytes()


@dataclass(frozen=True, slots=True)
class End:
    """What the application at one end of a flow does."""

    data: bytes
    write_size: int  # bytes that it hands over at once
    read_limit: int
    pause_every: int  # bytes that it reads between two pauses; 0: it never pauses
    pause: float  # seconds
    answers: bool  # sends only after it has read to the end: the other has closed its half by then

    def __str__(self) -> str:
        pauses = f", pauses {self.pause} s every {self.pause_every}" if self.pause_every else ""
        after = " after it has read all" if self.answers else ""
        return f"sends {len(self.data)} bytes, {self.write_size} at once{after}, reads {self.read_limit}{pauses}"


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection, and what each end sends over it."""

    port: int
    start: float
    client: End
    server: End


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that a seed says."""

    seed: int
    family: str
    mtu: int
    there: Shape
    back: Shape
    configs: tuple[Config, Config]  # of the client's host, of the server's
    wraps: tuple[int | None, int | None]  # sequence numbers until the wrap, if it is forced
    flows: tuple[Flow, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.family}, MTU {self.mtu}, wraps {self.wraps}"]
        lines += [f"  there {self.there}", f"  back  {self.back}"]
        lines += [f"  {config}" for config in self.configs]
        for flow in self.flows:
            lines += [
                f"  port {flow.port} from {flow.start:.2f} s",
                f"    client {flow.client}",
                f"    server {flow.server}",
            ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did. The fingerprint is of every segment and its time."""

    segments: int
    data_segments: int
    seconds: float  # of virtual time
    fingerprint: int


# ---- drawing -----------------------------------------------------------------------------------------------


def draw(seed: int) -> Scenario:
    """The scenario of this seed."""
    random = Random(seed)
    family = FAMILIES[seed % len(FAMILIES)]
    mtu = random.choice((1500, 1500, 1500, 576, 9000))
    configs = _config(random, mtu), _config(random, mtu)
    segment = min(min(a.mss, b.send_mss, a.send_buffer, b.receive_buffer) for a, b in (configs, configs[::-1]))
    wraps = (random.randrange(1, 30_000), random.randrange(1, 30_000)) if family == "wrap" else (None, None)
    flows = tuple(_flow(random, 7000 + i, segment) for i in range(random.choice((1, 1, 1, 2, 4))))
    return Scenario(seed, family, mtu, _shape(random, family), _shape(random, family), configs, wraps, flows)


def _shape(random: Random, family: str) -> Shape:
    def sometimes(most: float) -> float:
        return random.choice((0.0, random.uniform(0.0, most)))

    delay = random.choice((0.0, 0.001, 0.01, 0.05, 0.3))
    losses = {"no loss": 0.0, "little loss": random.uniform(0.001, 0.02), "heavy loss": random.uniform(0.2, 0.3)}
    rate = random.choice((None, None, 10 ** random.uniform(5, 9)))
    return Shape(
        delay=delay,
        jitter=sometimes(delay),
        rate=rate,
        queue_packets=random.choice((None, random.randint(5, 100))) if rate else None,
        queue_bytes=random.choice((None, random.randint(20_000, 200_000))) if rate else None,
        loss=losses.get(family, random.uniform(0.0, 0.15)),
        reorder=random.uniform(0.05, 0.3) if family == "reordering" else sometimes(0.05),
        duplicate=random.uniform(0.05, 0.3) if family == "duplication" else sometimes(0.05),
        corrupt=random.uniform(0.05, 0.2) if family == "corruption" else sometimes(0.02),
    )


def _config(random: Random, mtu: int) -> Config:
    """Any settings that a connection must work with; none that make it give up."""
    buffers = (64, 1000, 4096, 20_000, 65_535, 1 << 20)
    mss = random.choice((64, 536, mtu - _HEADERS, mtu - _HEADERS))
    flip = (True, False)
    return Config(
        mss=mss,
        send_mss=random.choice((mss, mtu - _HEADERS)),
        send_buffer=random.choice(buffers),
        receive_buffer=random.choice(buffers),
        window_scaling=random.choice(flip),
        timestamps=random.choice(flip),
        sack=random.choice(flip),
        rack=random.choice(flip),
        rto_min=random.choice((0.2, 1.0)),
        retries=10_000,
        syn_retries=10_000,
        keep_alive=random.choice((None, None, 0.5)),
        keep_alive_interval=0.5,
        keep_alive_probes=10_000,
        msl=random.choice((0.0, 0.1, 1.0)),
        delayed_ack=random.choice((0.0, 0.04, 0.5)),
        nagle=random.choice(flip),
        congestion=random.choice(sorted(congestion._REGISTRY)),
        initial_window=random.randint(1, 10),
    )


def _flow(random: Random, port: int, segment: int) -> Flow:
    answering = random.choice((None, None, None, "client", "server"))
    return Flow(
        port,
        random.choice((0.0, random.uniform(0.0, 2.0))),
        _end(random, segment, answers=answering == "client"),
        _end(random, segment, answers=answering == "server"),
    )


def _end(random: Random, segment: int, *, answers: bool) -> End:
    length = random.choice((0, 1, *[int(segment * 10 ** random.uniform(1, 3)) for _ in range(6)]))
    length = min(length, MOST_BYTES)
    start = random.randrange(len(PATTERN) - length + 1)
    pausing = random.random() < 0.3
    return End(
        data=PATTERN[start : start + length],
        write_size=random.choice((max(length, 1), random.randint(1, max(length, 1)), max(segment // 2, length // 200))),
        read_limit=random.choice((1 << 20, random.randint(max(segment // 4, 1), 10 * segment))),
        pause_every=max(int(length * random.uniform(0.1, 1.0)), 1) if pausing else 0,
        pause=random.choice((0.1, 1.0, 20.0)),
        answers=answers,
    )


# ---- running -----------------------------------------------------------------------------------------------


def run(scenario: Scenario) -> Result:
    """Run a scenario to its end and judge it. What is wrong raises, with notes that say how to see it again."""
    simulation = Simulation(scenario.seed, longest=LONGEST, most_events=MOST_EVENTS)
    judge = Judge(simulation, scenario.mtu)
    try:
        with _faults_raise():
            _run(scenario, simulation, judge)
    except Exception as error:
        error.add_note("\n".join(judge.last_events()))
        error.add_note(str(scenario))
        error.add_note(f"to see it again: python -m tests.tcp.simulation --replay {scenario.seed}")
        raise
    return Result(simulation.segments, judge.data_segments, simulation.now, judge.fingerprint)


def _run(scenario: Scenario, simulation: Simulation, judge: Judge) -> None:
    client, server = (
        simulation.host(address, tcp=_wrapping(before), config=config, recorder=judge)
        for address, before, config in zip((CLIENT, SERVER), scenario.wraps, scenario.configs, strict=True)
    )
    simulation.link(client, server, scenario.there, scenario.back, mtu=scenario.mtu)
    applications = []
    for flow in scenario.flows:
        applications += [server.start(_accept(server, flow)), client.start(_connect(client, flow))]
    simulation.step = judge.step
    simulation.run()
    assert all(application.ended for application in applications), "an application waits, and nothing will happen"
    for host in (client, server):
        left = [endpoint.connection.state.name for endpoint in host.driver.demux.connections.values()]
        assert not left, f"{host.address} has connections left over, in {left}, and no timer runs"


def _wrapping(before: int | None) -> type[TcpConnection]:
    """The reference; its sequence numbers wrap `before` numbers after the first, if that is given."""
    if before is None:
        return Connection

    first = add(0, -before)

    class Wrapping(Connection):
        def __init__(self, *, iss: int, config: Config) -> None:
            super().__init__(iss=first, config=config)

    return Wrapping


def _connect(host: Host, flow: Flow) -> Application:
    yield flow.start
    socket = yield from host.connect(SERVER, flow.port)
    yield from _use(host, socket, flow.client, flow.server.data)


def _accept(host: Host, flow: Flow) -> Application:
    listener = host.listen(flow.port)
    socket = yield from listener.accept()
    yield from _use(host, socket, flow.server, flow.client.data)


def _use(host: Host, socket: Socket, end: End, expected: bytes) -> Application:
    """One end's application: reads and writes at once, or one after the other."""
    if end.answers:
        yield from _read(socket, end, expected)
        yield from _write(socket, end)
        socket.close()
        return
    reader = host.start(_read(socket, end, expected))
    yield from _write(socket, end)
    while not reader.ended:
        yield socket
    socket.close()


def _write(socket: Socket, end: End) -> Application:
    for at in range(0, len(end.data), end.write_size):
        yield from socket.send(end.data[at : at + end.write_size])
    socket.shutdown()


def _read(socket: Socket, end: End, expected: bytes) -> Application:
    at, pause_at = 0, end.pause_every
    while data := (yield from socket.recv(end.read_limit)):
        assert data == expected[at : at + len(data)], f"wrong bytes after {at} right ones"
        at += len(data)
        if pause_at and at >= pause_at:
            pause_at += end.pause_every
            yield end.pause
    assert at == len(expected), f"the stream ended after {at} of {len(expected)} bytes"
    socket.changed()  # _use waits for this reader


@contextmanager
def _faults_raise() -> Iterator[None]:
    """The driver logs a fault of the TCP and serves on, as a daemon must; here it ends the run."""

    class Raise(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise AssertionError(record.getMessage())

    handler, log = Raise(logging.ERROR), logging.getLogger("chitcpd.driver")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


# ---- judging -----------------------------------------------------------------------------------------------


class Judge:
    """Looks at every segment and state, and after each step at every connection of the host where it happened."""

    def __init__(self, simulation: Simulation, mtu: int) -> None:
        self._simulation = simulation
        self._mtu = mtu
        self._edges: dict[Endpoint, tuple[int, int]] = {}  # RCV.NXT and the right edge of the window, as last seen
        self._shifts: dict[tuple[str, FourTuple], int | None] = {}  # of the windows in what was sent and received
        self._offers: dict[FourTuple, int] = {}  # the furthest right edge that was received
        self._last: deque[tuple[float, str, FourTuple, Segment]] = deque(maxlen=_LAST)
        self.data_segments = 0
        self.fingerprint = 0

    def seen(self, event: str, endpoint: Endpoint | None, four: FourTuple, seg: Segment, raws: Sequence[bytes]) -> None:
        for one, raw in zip(seg.cut(), raws, strict=True):
            self._look(event, four, one, raw)

    def _look(self, event: str, four: FourTuple, seg: Segment, raw: bytes) -> None:
        now = self._simulation.now
        self._last.append((now, event, four, seg))
        if seg.flags & SYN:
            self._shifts[event, four] = seg.options.window_scale if seg.options is not None else None
        if event == "received" and seg.flags & ACK:
            edge = add(seg.ack, seg.wnd << self._shift(four, seg))
            self._offers[four] = newer(self._offers.get(four, edge), edge)
        if event == "sent":
            self.data_segments += bool(seg.data)
            self.fingerprint = zlib.crc32(raw, zlib.crc32(repr(now).encode(), self.fingerprint))
            assert len(raw) + IP_HEADER <= self._mtu, f"a segment of {len(raw)} bytes is too long for MTU {self._mtu}"

    def _shift(self, four: FourTuple, seg: Segment) -> int:
        """How far to shift the window of a segment that was received (RFC 7323 §2.2)."""
        ours, theirs = self._shifts.get(("sent", four)), self._shifts.get(("received", four))
        return 0 if ours is None or theirs is None or seg.flags & SYN else theirs

    def transition(self, endpoint: Endpoint, transition: Transition) -> None:
        change = (transition.old, transition.new)
        assert change in LEGAL, f"{name(change[0])} to {name(change[1])} is not in RFC 9293"

    def expiry(self, endpoint: Endpoint, expiry: Expiry) -> None:
        pass

    def dropped(self, why: str, local: str, peer: str, raw: bytes) -> None:
        pass

    def lost(self, why: str, local: str, peer: str, raw: bytes) -> None:
        pass

    def settled(self, endpoint: Endpoint) -> None:
        pass

    def step(self, host: Host) -> None:
        """What must hold whenever the TCP is not at work."""
        for endpoint in host.driver.demux.connections.values():
            self._check(endpoint)

    def _check(self, endpoint: Endpoint) -> None:
        tcp = endpoint.connection
        in_flight = diff(tcp.snd_nxt, tcp.snd_una)
        assert in_flight >= 0, f"SND.NXT is {-in_flight} before SND.UNA"
        deadlines = tcp._deadlines
        for timer in deadlines:
            assert MAY_RUN[timer](tcp), f"{timer.name} runs in {tcp.state.name} with {in_flight} in flight"
        assert deadlines or not in_flight, f"{in_flight} in flight and no timer runs"
        if tcp.state in _UNSYNCHRONIZED:
            self._edges.pop(endpoint, None)
            return
        # SND.NXT =< SND.UNA + SND.WND + 1, with the window that was offered: when an older segment comes late, the
        # rule of 3.10.7.4 may put an older, smaller window into SND.WND, and what is in flight is none the worse.
        beyond = diff(tcp.snd_nxt, self._offers.get(endpoint.four, tcp.snd_nxt))
        assert beyond <= 1, f"{beyond} bytes were sent beyond every window that was offered"
        edge = add(tcp.rcv_nxt, tcp.rcv_wnd)
        rcv_nxt, last_edge = self._edges.get(endpoint, (tcp.rcv_nxt, edge))
        assert diff(tcp.rcv_nxt, rcv_nxt) >= 0, f"RCV.NXT went back by {diff(rcv_nxt, tcp.rcv_nxt)}"
        assert diff(edge, last_edge) >= 0, f"the receive window's right edge went left by {diff(last_edge, edge)}"
        self._edges[endpoint] = tcp.rcv_nxt, edge

    def last_events(self) -> Iterator[str]:
        """The last segments, as lines."""
        yield "the last segments:"
        for now, event, four, seg in self._last:
            options = f" {seg.options}" if seg.options is not None else ""
            where = f"{four.local}:{four.local_port} {event}"
            yield (
                f"  {now:.6f} {where} [{flag_letters(seg.flags)}] seq {seg.seq} ack {seg.ack} wnd {seg.wnd} "
                f"len {len(seg.data)}{options}"
            )


def _in_flight(tcp: TcpConnection) -> bool:
    return tcp.snd_una != tcp.snd_nxt


def _synchronized(tcp: TcpConnection) -> bool:
    return tcp.state not in _UNSYNCHRONIZED


# The reasons that a timer may have, as far as they show outside.
MAY_RUN: dict[Timer, Callable[[TcpConnection], bool]] = {
    Timer.RETRANSMISSION: _in_flight,
    Timer.PERSIST: lambda tcp: tcp.state in _CLOSING or bool(tcp.unacknowledged),
    Timer.DELAYED_ACK: _synchronized,
    Timer.TIME_WAIT: lambda tcp: tcp.state == State.TIME_WAIT,
    Timer.REORDERING: _in_flight,
    Timer.PROBE: _in_flight,
    Timer.KEEP_ALIVE: _synchronized,
    Timer.USER_TIMEOUT: _in_flight,
}


# ---- the command -------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was done so far."""

    scenarios: int = 0
    segments: int = 0
    data_segments: int = 0
    seconds: float = 0.0
    failures: list[int] = dataclasses.field(default_factory=list)

    def add(self, result: Result) -> None:
        self.segments += result.segments
        self.data_segments += result.data_segments
        self.seconds += result.seconds


def main() -> int:
    options = _options()
    if options.replay is not None:
        scenario = draw(options.replay)
        print(scenario)
        print(run(scenario))
        return 0
    tally, start = Tally(), time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have let a program in the background ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    try:
        with _progress(options.segments) as show:
            _run_many(options, tally, show)
        ended = "done"
    except KeyboardInterrupt:
        ended = "stopped"
    took = time.monotonic() - start
    print(
        f"{ended}: {tally.scenarios} scenarios from seed {options.seed} on, {tally.segments:,} segments, "
        f"{tally.data_segments:,} of them with data, {tally.seconds:,.0f} s of virtual time "
        f"in {took:,.0f} s ({tally.segments / took:,.0f} segments/s); {len(tally.failures)} failed"
    )
    for seed in tally.failures:
        print(f"to see it again: python -m tests.tcp.simulation --replay {seed}")
    return 1 if tally.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.tcp.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--segments", type=_positive, default=200_000, help="segments with data to send in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first scenario; each has the next")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes at work at once")
    parser.add_argument("--minutes", type=_positive, help="stop after so long, at the latest")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one scenario, and show it")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.replace("_", "").isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above zero, not {text}")
    return int(text)


def _run_many(options: argparse.Namespace, tally: Tally, show: Callable[[Tally], None]) -> None:
    """Keep the processes busy until enough was sent, or the time is over."""
    end = time.monotonic() + 60 * options.minutes if options.minutes is not None else float("inf")
    seeds = itertools.count(options.seed)
    running: dict[Future[Result | str], int] = {}
    with ProcessPoolExecutor(options.jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            while tally.data_segments < options.segments and time.monotonic() < end:
                while len(running) < 2 * options.jobs:
                    seed = next(seeds)
                    running[pool.submit(_try, seed)] = seed
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    _take(tally, running.pop(future), future.result())
                show(tally)
        finally:
            pool.shutdown(cancel_futures=True)


def _try(seed: int) -> Result | str:
    """Run in another process; a failure comes back as its text."""
    try:
        return run(draw(seed))
    except Exception:
        return traceback.format_exc()


def _take(tally: Tally, seed: int, result: Result | str) -> None:
    tally.scenarios += 1
    if isinstance(result, Result):
        tally.add(result)
    else:
        tally.failures.append(seed)
        print(result, file=sys.stderr)


@contextmanager
def _progress(goal: int) -> Iterator[Callable[[Tally], None]]:
    """A bar on a terminal; elsewhere a line now and then."""
    if not sys.stdout.isatty():
        yield _plain_lines(goal)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=goal)

        def show(tally: Tally) -> None:
            description = f"{tally.scenarios} scenarios, {len(tally.failures)} failed"
            progress.update(task, completed=tally.data_segments, description=description)

        yield show


def _plain_lines(goal: int) -> Callable[[Tally], None]:
    due = time.monotonic() + _PLAIN_LINES

    def show(tally: Tally) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due += _PLAIN_LINES
            print(
                f"{tally.data_segments:,} of {goal:,} segments with data, "
                f"{tally.scenarios} scenarios, {len(tally.failures)} failed",
                flush=True,
            )

    return show


if __name__ == "__main__":
    sys.exit(main())
