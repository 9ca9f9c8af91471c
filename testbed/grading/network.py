"""Transfers between the TCP under test and the reference, over links as bad as you like, in virtual time."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from chitcpd import driver, loader
from chitcpd.driver import Endpoint
from chitcpd.sim import Host, LimitExceeded, Shape, Simulation
from chitcpd.tcp.api import ACK, FIN, Config, Expiry, Segment, TcpConnection, Timer, Transition
from testbed.grading.sandbox import Raised, harmless
from testbed.grading.script import Bench, Event, Failed, check, settings, state_name, stream

OURS, THEIRS, PORT = "10.0.0.2", "10.0.0.3", 7
LONGEST = 600.0  # seconds of virtual time for one transfer
_MOST_EVENTS = 400_000
_SLOW = 700, 0.02  # a slow reader takes so many bytes, and sleeps so many seconds
_PERIOD = 60_000

Waits = Generator[Any, None, Any]


class Recorder:
    """Writes down what the host under test sees, with numbers that count from the initial ones."""

    def __init__(self, bench: Bench, simulation: Simulation) -> None:
        self._bench = bench
        self._simulation = simulation
        self._iss = 0

    def seen(self, event: str, endpoint: Endpoint | None, four: object, seg: Segment, raws: Sequence[bytes]) -> None:
        """All that `seg` stands for was sent or received."""
        if endpoint is None:
            return
        connection = endpoint.connection
        self._iss = iss = connection.iss
        irs = connection.irs
        ours, theirs = (iss, irs) if event == "sent" else (irs or seg.seq, iss)
        ack = (seg.ack - theirs) & 0xFFFFFFFF if seg.flags & ACK else 0
        for one in seg.cut():
            relative = replace(one, seq=(one.seq - ours) & 0xFFFFFFFF, ack=ack)
            self._note(Event(self._simulation.now, "sent" if event == "sent" else "received", segment=relative))

    def closes(self) -> None:
        """The application closes."""
        self._note(Event(self._simulation.now, "call", "close"))

    def transition(self, endpoint: Endpoint, transition: Transition) -> None:
        """It has changed its state."""
        self._note(Event(self._simulation.now, "state", state_name(transition.new)))

    def expiry(self, endpoint: Endpoint, expiry: Expiry) -> None:
        """A timer has expired."""
        self._note(Event(self._simulation.now, "timer", Timer(expiry.timer).name))

    def dropped(self, why: str, local: str, peer: str, raw: bytes) -> None:
        """What came went no further."""
        self._note(Event(self._simulation.now, "note", f"what came was dropped: {why}"))

    def lost(self, why: str, local: str, peer: str, raw: bytes) -> None:
        """What went was lost: one of those that were sent together, behind which it is noted."""
        seq = (int.from_bytes(raw[4:8], "big") - self._iss) & 0xFFFFFFFF
        events = self._bench.events
        for at in reversed(range(len(events))):
            event = events[at]
            if event.at < self._simulation.now:
                break
            if event.kind == "sent" and event.segment is not None and event.segment.seq == seq:
                events.insert(at + 1, Event(event.at, "lost", why))
                break

    def settled(self, endpoint: Endpoint) -> None:
        """Nothing more of this."""

    def _note(self, event: Event) -> None:
        self._bench.events.append(event)


def transfer(
    bench: Bench,
    *,
    client: bool,
    there: int,
    back: int,
    shape: Shape | None = None,
    slow: bool = False,
    closes: bool = True,
) -> None:
    """Bytes go `there` from client to server, then `back`; the TCP under test is the client, or the server.

    Raises Failed if they do not come whole, or both ends do not close. Without `closes`, no end does: each application
    knows how many bytes there are.
    """
    shape = shape or Shape(delay=0.01)
    if bench.events:
        bench.events.append(Event(0.0, "begin"))
    bench.note(f"it is the {'client' if client else 'server'}")
    talk = Talk(bench, shape, settings(rto_min=0.2, msl=1.0, congestion="newreno", initial_window=4, syn_retries=12))
    outcome = talk.run(client=client, there=there, back=back, slow=slow, closes=closes)
    check(outcome is None, f"{there} bytes to go there and {back} back, whole", outcome)


class Talk:
    """A client and a server on two hosts, one with the TCP under test."""

    def __init__(self, bench: Bench, shape: Shape, config: Config, *, other: type[TcpConnection] | None = None) -> None:
        """`other`: the TCP of the other host; by default the reference."""
        self._simulation = Simulation(bench.random.getrandbits(32), longest=LONGEST, most_events=_MOST_EVENTS)
        self._recorder = Recorder(bench, self._simulation)
        self._events = bench.events
        self._first = len(bench.events)  # of this talk
        self._two = other is not None
        other = other or loader.load(loader.REFERENCE)
        self._ours = self._simulation.host(OURS, tcp=bench.tcp, config=config, recorder=self._recorder)
        self._theirs = self._simulation.host(THEIRS, tcp=other, config=config)
        self._simulation.link(self._ours, self._theirs, shape)
        self._progress: dict[str, int] = {}

    def run(self, *, client: bool, there: int, back: int, slow: bool = False, closes: bool = True) -> str | None:
        """What went wrong, in words; None if nothing did. `closes`: as `transfer` has it."""
        with _faults() as faults:
            outcome = self._run(client, there, back, slow, closes)
        return outcome and "; ".join([outcome, *([] if self._two else faults[:1])])  # of two, whose it is is not known

    def _run(self, client: bool, there: int, back: int, slow: bool, closes: bool) -> str | None:
        one, other = (self._ours, self._theirs) if client else (self._theirs, self._ours)
        lengths = (None, None) if closes else (there, back)
        serving = other.start(self._server(other, _bytes(back), slow, lengths[0]))
        asking = one.start(self._client(one, other.address, _bytes(there), slow, lengths[1]))
        try:
            self._simulation.run(until=LONGEST)
        except LimitExceeded:
            return f"no end: {self._simulation.segments} segments after {self._simulation.now:.1f} s"
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            why = f"; {error.strerror}" if isinstance(error, Raised) else ""
            return f"{name} at {self._simulation.now:.1f} s, after {self._so_far()}{why}"
        if not (serving.ended and asking.ended):
            sent_whole = self._progress.get("there" if client else "back") == (there if client else back)
            why = "; the application has closed, and no FIN was sent" if sent_whole and self._lacks_a_fin() else ""
            return f"nothing more: it stands still after {self._so_far()}{why}"
        for name, got, wanted in (("there", serving.result, _bytes(there)), ("back", asking.result, _bytes(back))):
            if got != wanted:
                at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), len(got))
                return f"{len(got)} of {len(wanted)} bytes {name}, which are right up to the byte {at}"
        return None

    def _so_far(self) -> str:
        return " and ".join(f"{count} bytes {way}" for way, count in self._progress.items()) or "nothing"

    def _lacks_a_fin(self) -> bool:
        """The application of the TCP under test has closed, and the peer was not told."""
        events = self._events[self._first :]
        sent = (event.segment for event in events if event.kind == "sent")
        closed = any(event.kind == "call" for event in events)
        return closed and not any(seg is not None and seg.flags & FIN for seg in sent)

    def _server(self, host: Host, answer: bytes, slow: bool, length: int | None) -> Waits:
        socket = yield from host.listen(PORT).accept()
        received = yield from self._receive_all(socket, "there", slow, length)
        yield from socket.send(answer)
        if length is None:
            self._closes(host)
            socket.close()
        return received

    def _client(self, host: Host, address: str, request: bytes, slow: bool, length: int | None) -> Waits:
        socket = yield from host.connect(address, PORT)
        yield from socket.send(request)
        if length is None:
            self._closes(host)
            socket.shutdown()
        return (yield from self._receive_all(socket, "back", slow, length))

    def _closes(self, host: Host) -> None:
        if host is self._ours:
            self._recorder.closes()

    def _receive_all(self, socket: Any, way: str, slow: bool, length: int | None) -> Waits:
        """So many bytes, or all up to the end of the stream."""
        received = b""
        while length is None or len(received) < length:
            if not (data := (yield from socket.recv(_SLOW[0] if slow else 1 << 20))):
                break
            received += data
            self._progress[way] = len(received)
            if slow:
                yield _SLOW[1]
        return received


@contextmanager
def _faults() -> Iterator[list[str]]:
    """What the driver finds wrong with a TCP: not for the log here, but for a verdict."""
    found: list[str] = []

    def keep(_record: logging.LogRecord) -> bool:
        error = sys.exception()  # the driver has just caught it
        found.append(harmless(str(error.strerror if isinstance(error, Raised) else error)))
        return False

    driver.log.addFilter(keep)
    try:
        yield found
    finally:
        driver.log.removeFilter(keep)


def _bytes(length: int) -> bytes:
    return b"".join(stream(min(_PERIOD, length - at)) for at in range(0, length, _PERIOD))


__all__ = ["Failed", "Recorder", "Shape", "Talk", "transfer"]
