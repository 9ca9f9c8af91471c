"""A bounded model check: every interleaving of what can happen to two small endpoints, not just the likely ones.

Each end sends a few bytes and closes. What happens next is anything that can: a segment arrives, an application acts,
a timer expires. Once or twice in all something goes wrong besides: the network loses a segment, doubles it, lets it
overtake another, or is so slow that a timer expires before it should: while segments are on their way, or before an
earlier one. At most three segments are in flight; more are lost, as at a full queue.

Time stands still, so what holds here holds for every delay. From every state that is reached the run in which nothing
more goes wrong must end with both ends closed and all bytes there.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from chitcpd.tcp import wire
from chitcpd.tcp.api import Config, Segment, State, TcpConnection, Timer, Transition
from chitcpd.tcp.connection import Connection
from tests.tcp.transitions import assert_legal

IN_FLIGHT = 3  # segments, both ways together
LONGEST = 300  # steps without faults to the end
NOW = 0.0
PORTS = 1, 2
PSEUDO = wire.pseudo_header("10.0.0.2", "10.0.0.3")
ISS = 1000, 0xFFFFFFFE  # the second end's sequence numbers wrap on the way
# What each application sends, one after the other; None: it closes.
Script = tuple[bytes | None, ...]
SHORT: tuple[Script, Script] = (b"a", None), (b"c", None)
LONG: tuple[Script, Script] = (b"ab", None), (b"c", None)

Action = bytes | Timer | None  # a segment arrives, a timer expires, the application acts

PLAIN = Config(
    send_mss=1,
    nagle=False,
    delayed_ack=0.0,
    sack=False,
    timestamps=False,
    window_scaling=False,
    congestion="none",
    retries=100,
    syn_retries=100,
)
SETTINGS = {
    "plain": PLAIN,
    "delayed ACK": Config(send_mss=1, sack=False, timestamps=False, congestion="newreno", retries=100, syn_retries=100),
    "SACK, RACK, timestamps": Config(send_mss=13, nagle=False, delayed_ack=0.0, retries=100, syn_retries=100),
}


@dataclass(slots=True)
class End:
    """A connection and its application."""

    tcp: TcpConnection
    script: Script  # what the application still has to do
    received: bytes = b""

    def act(self, action: Action) -> list[Segment]:
        """Let something happen; the application reads at once what there is to read."""
        if isinstance(action, bytes):
            self.tcp.segment_arrives(wire.decode(action, PSEUDO)[2], NOW)
        elif isinstance(action, Timer):
            del self.tcp._deadlines[action]
            self.tcp.timeout(action, NOW)
        else:
            self._follow_script()
        while self.tcp.readable:
            self.received += self.tcp.receive(100, NOW)
        outputs = self.tcp.take_output()
        assert_legal(output for output in outputs if isinstance(output, Transition))
        assert self.tcp.error is None, f"failed with errno {self.tcp.error}"
        return [output for output in outputs if isinstance(output, Segment)]

    def _follow_script(self) -> None:
        step, *rest = self.script
        if step is None:
            self.tcp.close(NOW)
        else:
            assert self.tcp.send(step, NOW) == len(step)
        self.script = tuple(rest)

    @property
    def may_act(self) -> bool:
        """The application has something to do, and can."""
        return bool(self.script) and self.tcp.state in (State.SYN_RCVD, State.ESTABLISHED, State.CLOSE_WAIT)


@dataclass(frozen=True, slots=True)
class Known:
    """A state of one end that was reached, and what can happen in it besides segments."""

    snapshot: bytes
    timers: tuple[tuple[float, Timer], ...]  # the earliest deadline first
    may_act: bool
    done: bool  # closed, and the application has done all
    received: bytes


class World(NamedTuple):
    """A state of both ends, by their numbers, and of the network."""

    ends: tuple[int, int]
    flights: tuple[tuple[bytes, ...], tuple[bytes, ...]]  # from each end, the oldest first
    faults: int  # that may still happen


Move = tuple[World, str, int]  # where it leads, what it is, at which end


class Model:
    """Explores. An end's step depends on nothing but that end, so each is computed once, however often it is taken."""

    def __init__(
        self, config: Config, scripts: tuple[Script, Script], *, faults: int, both_active: bool = False
    ) -> None:
        self._known: list[Known] = []
        self._numbers: dict[bytes, int] = {}
        self._steps: dict[tuple[int, Action], tuple[int, tuple[bytes, ...]]] = {}
        self._ends_well: set[World] = set()
        self._all = tuple(b"".join(step for step in script if step is not None) for script in scripts)
        ends = [End(Connection(iss=iss, config=config), script) for iss, script in zip(ISS, scripts, strict=True)]
        ends[1].tcp.open(NOW, active=both_active)
        ends[0].tcp.open(NOW, active=True)
        flights = [
            tuple(_raw(output) for output in end.tcp.take_output() if isinstance(output, Segment)) for end in ends
        ]
        self.start = World((self._number(ends[0]), self._number(ends[1])), (flights[0], flights[1]), faults)

    def explore(self) -> int:
        """Go everywhere; how many states there are."""
        came_from: dict[World, Move] = {self.start: (self.start, "start", 0)}
        waiting = deque([self.start])
        try:
            while waiting:
                world = waiting.popleft()
                self._check_ends_well(world)
                for following, what, who in self._moves(world):
                    if following not in came_from:
                        came_from[following] = world, what, who
                        waiting.append(following)
        except AssertionError as error:
            error.add_note("the way to it: " + "; ".join(self._way(came_from, world)))
            raise
        return len(came_from)

    def _way(self, came_from: dict[World, Move], world: World) -> list[str]:
        way = []
        while world != self.start:
            world, what, who = came_from[world]
            way.append(f"{what} of {who}")
        return way[::-1]

    # ---- what can happen -----------------------------------------------------------------------------------

    def _moves(self, world: World) -> Iterator[Move]:
        due = self._due(world)
        for who in (0, 1):
            end, flight = self._known[world.ends[who]], world.flights[who]
            if flight:
                yield self._arrives(world, who, 0), "arrival", who
            if end.may_act:
                yield self._step(world, who, None), "application", who
            for deadline, timer in end.timers:
                if deadline == due or timer == Timer.DELAYED_ACK:
                    yield self._step(world, who, timer), timer.name, who
                elif world.faults:
                    yield self._step(_with_fault(world), who, timer), "early " + timer.name, who
            if world.faults and flight:
                yield from self._faults(_with_fault(world), who)

    def _due(self, world: World) -> float | None:
        """The deadline that comes next if nothing is on its way."""
        if any(world.flights):
            return None
        return min((deadline for number in world.ends for deadline, _ in self._known[number].timers), default=None)

    def _faults(self, world: World, who: int) -> Iterator[Move]:
        flight = world.flights[who]
        for at, raw in enumerate(flight):
            yield _with_flight(world, who, flight[:at] + flight[at + 1 :]), "loss", who
            if sum(map(len, world.flights)) < IN_FLIGHT:
                yield _with_flight(world, who, (*flight[:at], raw, *flight[at:])), "doubling", who
            if at:
                yield self._arrives(world, who, at), "overtaking", who

    def _arrives(self, world: World, who: int, at: int) -> World:
        """The segment at this place in the flight from `who` reaches the other."""
        flight = world.flights[who]
        return self._step(_with_flight(world, who, flight[:at] + flight[at + 1 :]), 1 - who, flight[at])

    def _step(self, world: World, who: int, action: Action, in_flight: int = IN_FLIGHT) -> World:
        (one, other), (there, back), faults = world
        if who == 0:
            one, sent = self._end_step(one, 0, action)
            there = (there + sent)[: max(in_flight - len(back), 0)] if sent else there
        else:
            other, sent = self._end_step(other, 1, action)
            back = (back + sent)[: max(in_flight - len(there), 0)] if sent else back
        return World((one, other), (there, back), faults)

    def _end_step(self, number: int, who: int, action: Action) -> tuple[int, tuple[bytes, ...]]:
        step = self._steps.get((number, action))
        if step is None:
            end: End = pickle.loads(self._known[number].snapshot)
            sent = tuple(map(_raw, end.act(action)))
            assert self._all[1 - who].startswith(end.received), f"end {who} received {end.received!r}"
            step = self._steps[number, action] = self._number(end), sent
        return step

    def _number(self, end: End) -> int:
        """The number of this state of an end, a new one if it is new."""
        snapshot = pickle.dumps(end)
        number = self._numbers.get(snapshot)
        if number is None:
            number = self._numbers[snapshot] = len(self._known)
            timers = tuple(sorted((deadline, timer) for timer, deadline in end.tcp._deadlines.items()))
            done = end.tcp.state == State.CLOSED and not end.script
            self._known.append(Known(snapshot, timers, end.may_act, done, end.received))
        return number

    # ---- how it ends ---------------------------------------------------------------------------------------

    def _check_ends_well(self, world: World) -> None:
        """Without further faults: segments arrive in order, applications act, and timers expire when all is quiet."""
        world = World(world.ends, world.flights, 0)
        way = []
        while world not in self._ends_well:
            way.append(world)
            assert len(way) < LONGEST, f"no end after {LONGEST} steps without faults: {self._describe(world)}"
            following = self._without_faults(world)
            if following is None:
                break
            world = following
        self._ends_well.update(way)

    def _without_faults(self, world: World) -> World | None:
        """The next state, or None if this is the proper end."""
        ends = [self._known[number] for number in world.ends]
        for who in (0, 1):
            if world.flights[who]:
                raw, rest = world.flights[who][0], world.flights[who][1:]
                return self._step(_with_flight(world, who, rest), 1 - who, raw, in_flight=100)
        for who in (0, 1):
            if ends[who].may_act:
                return self._step(world, who, None, in_flight=100)
        timers = [(deadline, who, timer) for who in (0, 1) for deadline, timer in ends[who].timers]
        if timers:
            _, who, timer = min(timers)
            return self._step(world, who, timer, in_flight=100)
        assert ends[0].done, f"stuck: {self._describe(world)}"
        assert ends[1].done, f"stuck: {self._describe(world)}"
        assert (ends[1].received, ends[0].received) == self._all
        return None

    def _describe(self, world: World) -> str:
        ends = [pickle.loads(self._known[number].snapshot) for number in world.ends]
        return ", ".join(f"{end.tcp.state.name} with {end.received!r} received" for end in ends)


def _raw(seg: Segment) -> bytes:
    return wire.encode(seg, *PORTS, PSEUDO)


def _with_flight(world: World, who: int, flight: tuple[bytes, ...]) -> World:
    ends, (there, back), faults = world
    return World(ends, (flight, back) if who == 0 else (there, flight), faults)


def _with_fault(world: World) -> World:
    return World(world.ends, world.flights, world.faults - 1)


@pytest.mark.parametrize("both_active", [False, True], ids=["one listens", "both open at once"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_every_interleaving_with_one_fault(settings: str, both_active: bool) -> None:
    """Two segments one way, one the other; 397,000 states in all six."""
    explore(Model(SETTINGS[settings], LONG, faults=1, both_active=both_active))


def test_every_interleaving_with_two_faults() -> None:
    """A segment each way; 232,000 states."""
    explore(Model(SETTINGS["SACK, RACK, timestamps"], SHORT, faults=2))


def test_the_check_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TCP that never retransmits when time is over; the way to the failure is told."""
    monkeypatch.setattr(
        Connection, "_retransmission_timeout", lambda tcp, now: tcp._arm(Timer.RETRANSMISSION, now + 1.0)
    )
    with pytest.raises(AssertionError, match="no end after") as caught:
        Model(PLAIN, SHORT, faults=1).explore()
    assert "loss of" in caught.value.__notes__[0]


def explore(model: Model) -> None:
    states = model.explore()
    print(f"{states:,} states of both ends and the network, {len(model._known):,} of one end")
    assert states > 30_000
