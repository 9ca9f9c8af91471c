"""Transfers between the TCP under test and the reference, over links as bad as you like, in virtual time."""

from __future__ import annotations

import errno
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from chitcpd import loader
from chitcpd.driver import Endpoint
from chitcpd.sim import Host, LimitExceeded, Shape, Simulation
from chitcpd.tcp.api import ACK, Config, Expiry, Segment, TcpConnection, Timer, Transition
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

    def seen(self, event: str, endpoint: Endpoint | None, four: object, seg: Segment, raws: Sequence[bytes]) -> None:
        """A segment was sent or received."""
        if endpoint is None:
            return
        connection = endpoint.connection
        iss, irs = connection.iss, connection.irs
        ours, theirs = (iss, irs) if event == "sent" else (irs or seg.seq, iss)
        ack = (seg.ack - theirs) & 0xFFFFFFFF if seg.flags & ACK else 0
        relative = replace(seg, seq=(seg.seq - ours) & 0xFFFFFFFF, ack=ack)
        self._note(Event(self._simulation.now, "sent" if event == "sent" else "received", segment=relative))

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
        """What went was lost."""
        self._note(Event(self._simulation.now, "lost", why))

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
) -> None:
    """Bytes go `there` from client to server, then `back`; the TCP under test is the client, or the server.

    Raises Failed if they do not come whole, or both ends do not close.
    """
    shape = shape or Shape(delay=0.01)
    if bench.events:
        bench.events.append(Event(0.0, "begin"))
    bench.note(f"it is the {'client' if client else 'server'}")
    talk = Talk(bench, shape, settings(rto_min=0.2, msl=1.0, congestion="newreno", initial_window=4, syn_retries=12))
    outcome = talk.run(client=client, there=there, back=back, slow=slow)
    check(outcome is None, f"{there} bytes to go there and {back} back, whole", outcome)


class Talk:
    """A client and a server on two hosts, one with the TCP under test."""

    def __init__(self, bench: Bench, shape: Shape, config: Config, *, other: type[TcpConnection] | None = None) -> None:
        """`other`: the TCP of the other host; by default the reference."""
        self._simulation = Simulation(bench.random.getrandbits(32), longest=LONGEST, most_events=_MOST_EVENTS)
        recorder = Recorder(bench, self._simulation)
        other = other or loader.load(loader.REFERENCE)
        self._ours = self._simulation.host(OURS, tcp=bench.tcp, config=config, recorder=recorder)
        self._theirs = self._simulation.host(THEIRS, tcp=other, config=config)
        self._simulation.link(self._ours, self._theirs, shape)
        self._progress: dict[str, int] = {}

    def run(self, *, client: bool, there: int, back: int, slow: bool = False) -> str | None:
        """What went wrong, in words; None if nothing did."""
        one, other = (self._ours, self._theirs) if client else (self._theirs, self._ours)
        serving = other.start(self._server(other, _bytes(back), slow))
        asking = one.start(self._client(one, other.address, _bytes(there), slow))
        try:
            self._simulation.run(until=LONGEST)
        except LimitExceeded:
            return f"no end: {self._simulation.segments} segments after {self._simulation.now:.1f} s"
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            return f"{name} at {self._simulation.now:.1f} s, after {self._so_far()}"
        if not (serving.ended and asking.ended):
            return f"nothing more: it stands still after {self._so_far()}"
        for name, got, wanted in (("there", serving.result, _bytes(there)), ("back", asking.result, _bytes(back))):
            if got != wanted:
                at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), len(got))
                return f"{len(got)} of {len(wanted)} bytes {name}, which are right up to the byte {at}"
        return None

    def _so_far(self) -> str:
        return " and ".join(f"{count} bytes {way}" for way, count in self._progress.items()) or "nothing"

    def _server(self, host: Host, answer: bytes, slow: bool) -> Waits:
        socket = yield from host.listen(PORT).accept()
        received = yield from self._receive_all(socket, "there", slow)
        yield from socket.send(answer)
        socket.close()
        return received

    def _client(self, host: Host, address: str, request: bytes, slow: bool) -> Waits:
        socket = yield from host.connect(address, PORT)
        yield from socket.send(request)
        socket.shutdown()
        return (yield from self._receive_all(socket, "back", slow))

    def _receive_all(self, socket: Any, way: str, slow: bool) -> Waits:
        received = b""
        while data := (yield from socket.recv(_SLOW[0] if slow else 1 << 20)):
            received += data
            self._progress[way] = len(received)
            if slow:
                yield _SLOW[1]
        return received


def _bytes(length: int) -> bytes:
    return b"".join(stream(min(_PERIOD, length - at)) for at in range(0, length, _PERIOD))


__all__ = ["Failed", "Recorder", "Shape", "Talk", "transfer"]
