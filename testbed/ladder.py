"""The ladder diagram of connections: what each end sent, when it came to the other or why it did not, states, timers.

Pure: from the events of traces (docs/trace.md) to rows, all on one clock; `testbed.ladder_text` draws them in a
terminal. The events may come from files, or from a `chitcpd.trace.Recorder` in a simulation:

    ladder = build({"alice": events_of_alice, "bob": events_of_bob, "r1": events_of_a_router})
    for connection in ladder.connections:
        print(connection.hosts, connection.addresses)
    for row in ladder.of(connection):
        match row:
            case Segment(): print(row.source, row.sent, row.flags, row.seq, row.fate, row.why, row.arrived)
            case StateChange(): print(row.host, row.t, row.old, row.new)
            case Expiry(): print(row.host, row.t, row.timer)
            case Note(): print(row.host, row.t, row.text)

Rows are in the order in which things happened: a segment stands where it was sent, a further copy of it where that
came. Side 0 is the left host, the one that opened the connection, side 1 the other one.

A segment has no name on its way, so what was sent and what came are put together by what they say and by their order:
of equal ones the first that is under way comes first, unless it would have been faster than any other was. What came
damaged is the one under way that differs in the fewest bits. An event {"event": "app", "t", "local", "peer", "text"}
becomes a Note: daemons write none, a program that simulates may.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from testbed.traces import Event, Seen

_MODULO = 1 << 32
_REMEMBERED = 1 << 16  # segments between two hosts: a copy that comes later than so many others is not recognised
_COMPARED = 1 << 10  # of these, the last ones, to find what a damaged one was
_MOST_DAMAGE = 3  # bits that may differ, or fields for one bit of the header's length
_A_LITTLE_FASTER = 0.9  # of the shortest way so far: what would have been faster than this was another one
_AFTER_RECEIVED = frozenset({"backlog full", "fault in the TCP"})  # drops of what has its line `received` already
_OPTIONS = ("mss", "window_scale", "sack_permitted", "timestamp", "sack")
_OPTION_LENGTHS = {"mss": 4, "window_scale": 4, "sack_permitted": 4, "timestamp": 12}  # bytes, with padding
_FLAG_BITS = {"U": 32, "P": 8, "R": 4, "S": 2, "F": 1, ".": 16}
_SHOWN = frozenset({"sent", "received", "dropped", "state", "timer", "app"})

Fate = Literal["arrived", "dropped", "unseen"]


@dataclass(slots=True, eq=False)
class Connection:
    """Two ends and one life: if they use their ports again, that is another connection."""

    number: int  # from 1, in the order in which they begin
    addresses: tuple[str, str]  # with ports, as in the trace: left, right
    hosts: tuple[str, str] = ("", "")  # the names of the traces; of a host without a trace its address
    begin: float = 0.0  # the first event, and the last: seconds since the epoch
    end: float = 0.0
    segments: int = 0  # that were sent, as far as the traces know
    isns: list[int] = field(default_factory=lambda: [0, 0])  # the initial sequence number of each side
    shifts: list[int] = field(default_factory=lambda: [0, 0])  # of the windows of each side (RFC 7323 §2)

    @property
    def ports(self) -> tuple[int, int]:
        """The two ports."""
        return _port(self.addresses[0]), _port(self.addresses[1])


@dataclass(slots=True, eq=False)
class Segment:
    """A segment on its way, or a further copy of one."""

    connection: Connection
    side: int  # that has sent it
    flags: str  # as tcpdump writes them: "S." is SYN and ACK
    absolute_seq: int
    absolute_ack: int | None
    length: int  # bytes of data
    wnd: int  # as it is in the header
    options: dict[str, Any]  # those that are there, by the names of docs/trace.md; "sack" has absolute numbers
    sent: float | None = None  # seconds since the epoch; None: nobody saw that
    arrived: float | None = None
    dropped: float | None = None  # when it was; what was refused where it came has arrived, too
    why: str | None = None  # it was dropped
    where: str | None = None  # it was dropped: the name of the host or router
    retransmission: bool = False  # all or a part of it was sent before
    copy: int = 1  # 2 and more: what the network, or a debugger, has made of it
    damaged: bool = False  # it did not come as it was sent
    overtaken: bool = False  # one that was sent later came earlier

    @property
    def fate(self) -> Fate:
        """What became of it. "unseen": no trace says that it came, nor that it was dropped."""
        if self.why is not None:
            return "dropped"
        return "unseen" if self.arrived is None else "arrived"

    @property
    def source(self) -> str:
        """The host that has sent it."""
        return self.connection.hosts[self.side]

    @property
    def destination(self) -> str:
        """The host that it goes to."""
        return self.connection.hosts[1 - self.side]

    @property
    def t(self) -> float:
        """Where the row stands: when it was sent; of a further copy, what became of it. Seconds since the epoch."""
        times = (self.sent, self.arrived, self.dropped) if self.copy == 1 else (self.arrived, self.dropped, self.sent)
        return next((time for time in times if time is not None), 0.0)

    @property
    def seq(self) -> int:
        """Its sequence number, from the initial one: a SYN has 0."""
        return (self.absolute_seq - self.connection.isns[self.side]) % _MODULO

    @property
    def ack(self) -> int | None:
        """Its acknowledgement number, from the initial sequence number of the other side."""
        return None if self.absolute_ack is None else self._theirs(self.absolute_ack)

    @property
    def sack(self) -> list[tuple[int, int]]:
        """Its SACK blocks, from the initial sequence number of the other side."""
        return [(self._theirs(first), self._theirs(behind)) for first, behind in self.options.get("sack", ())]

    @property
    def window(self) -> int:
        """The window in bytes."""
        return self.wnd if "S" in self.flags else self.wnd << self.connection.shifts[self.side]

    def _theirs(self, number: int) -> int:
        return (number - self.connection.isns[1 - self.side]) % _MODULO


@dataclass(slots=True, eq=False)
class StateChange:
    """One end has gone from a state to another one."""

    connection: Connection
    side: int
    t: float  # seconds since the epoch
    old: str
    new: str
    after: Segment | None = None  # the last that this end sent or received, if nothing else has happened to it since

    @property
    def host(self) -> str:
        """Where."""
        return self.connection.hosts[self.side]


@dataclass(slots=True, eq=False)
class Expiry:
    """A timer of one end has expired."""

    connection: Connection
    side: int
    t: float  # seconds since the epoch
    timer: str

    @property
    def host(self) -> str:
        """Where."""
        return self.connection.hosts[self.side]


@dataclass(slots=True, eq=False)
class Note:
    """Something else that happened at one end: what the application did."""

    connection: Connection
    side: int
    t: float  # seconds since the epoch
    text: str

    @property
    def host(self) -> str:
        """Where."""
        return self.connection.hosts[self.side]


Row = Segment | StateChange | Expiry | Note


@dataclass(slots=True)
class Ladder:
    """All connections of some traces, and all rows."""

    connections: list[Connection]
    rows: list[Row]

    def of(self, *connections: Connection) -> list[Row]:
        """The rows of these connections."""
        return [row for row in self.rows if row.connection in connections]


def build(traces: Mapping[str, Iterable[Event]]) -> Ladder:
    """The ladder of these traces: name of the host or router -> its events, in their order.

    Events that are of no use here are passed over; those that are not as docs/trace.schema.json says raise KeyError,
    TypeError or ValueError.
    """
    builder = _Builder()
    for name, event in _in_order(traces, builder.too_early):
        builder.take(name, event)
    return builder.finish()


# ---- one order for all events ------------------------------------------------------------------------------


def _in_order(traces: Mapping[str, Iterable[Event]], too_early: Callable[[Event], int]) -> Iterator[tuple[str, Event]]:
    """The events of all traces by their time; of one time, nothing is received before it is sent."""
    waiting: dict[str, Event] = {}
    rest: dict[str, Iterator[Event]] = {
        name: (event for event in events if event["event"] in _SHOWN) for name, events in traces.items()
    }
    for name in list(rest):
        _advance(name, waiting, rest)
    while waiting:
        first = min(event["t"] for event in waiting.values())
        now = [name for name, event in waiting.items() if event["t"] == first]
        name = min(now, key=lambda name: too_early(waiting[name])) if len(now) > 1 else now[0]
        yield name, waiting[name]
        _advance(name, waiting, rest)


def _advance(name: str, waiting: dict[str, Event], rest: dict[str, Iterator[Event]]) -> None:
    event = next(rest[name], None)
    if event is None:
        waiting.pop(name, None)
    else:
        waiting[name] = event


# ---- from events to rows -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Equal:
    """Segments that say the same, in one direction between two ends."""

    last: Segment  # of those that were sent
    under_way: list[Segment] = field(default_factory=list)
    came: Segment | None = None  # the last that did
    copies: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class _Way:
    """One direction between two ends."""

    equal: dict[int, _Equal] = field(default_factory=dict)  # by what they say
    damaged: dict[int, tuple[_Equal, Segment]] = field(default_factory=dict)  # by what it said when it came
    fastest: float | None = None  # seconds from one end to the other, of what can't be mistaken


_Sent = tuple[_Way, int, Segment]  # with what it says


@dataclass(slots=True)
class _Life:
    """What is known of a connection beside what its rows need."""

    connection: Connection
    numbers: list[int | None] = field(default_factory=lambda: [None, None])  # of each side's daemon
    isns: list[int | None] = field(default_factory=lambda: [None, None])
    states: list[bool] = field(default_factory=lambda: [False, False])  # whether a change of state was seen
    sent: list[Seen] = field(default_factory=lambda: [Seen(), Seen()])
    shifts: list[int | None] = field(default_factory=lambda: [None, None])
    last: list[Segment | None] = field(default_factory=lambda: [None, None])  # that each side sent or received


class _Builder:
    """Takes events, and has the ladder at the end."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._lives: list[_Life] = []
        self._current: dict[tuple[str, str], _Life] = {}  # by the two ends, in alphabetical order
        self._numbered: dict[tuple[str, int, str, str], _Life] = {}
        self._ways: defaultdict[tuple[str, str], _Way] = defaultdict(_Way)  # source, destination
        self._hosts: defaultdict[tuple[str, str], deque[_Sent]] = defaultdict(deque)  # the same, without ports
        self._owners: dict[str, str] = {}  # address -> name of the trace of the host that has it

    def too_early(self, event: Event) -> int:
        """The more, the later this is, of what has one time: 0 for all but arrivals, 3 if it was not sent yet."""
        if event["event"] != "received" and event.get("direction") != "received":
            return 0
        way = self._ways.get((event["peer"], event["local"]))
        if "flags" in event and way is not None and _content(event) in way.equal:
            return 1
        return 2 if event["event"] == "dropped" else 3  # what is damaged may be anything

    def take(self, name: str, event: Event) -> None:
        """The next event of a trace."""
        kind = event["event"]
        if kind == "dropped":
            self._take_drop(name, event)
            return
        self._owners.setdefault(_host(event["local"]), name)
        if kind == "sent":
            self._take_sent(name, event)
        elif kind == "received":
            self._take_received(name, event)
        else:
            self._take_happened(name, event)

    def finish(self) -> Ladder:
        """The ladder, when all events were taken."""
        absorbed = {id(copy) for way in self._ways.values() for copy in _given_to_the_unseen(way)}
        self._rows = [row for row in self._rows if id(row) not in absorbed]
        for life in self._lives:
            self._finish(life)
        _mark_overtaken(self._rows)
        return Ladder([life.connection for life in self._lives], self._rows)

    def _finish(self, life: _Life) -> None:
        connection, (left, right) = life.connection, life.connection.addresses
        connection.hosts = self._name(left), self._name(right)
        connection.isns = [isn or 0 for isn in life.isns]
        if life.shifts[0] is not None and life.shifts[1] is not None:
            connection.shifts = [life.shifts[0], life.shifts[1]]

    def _name(self, address: str) -> str:
        host = _host(address)
        return self._owners.get(host, host)

    # ---- events -------------------------------------------------------------------------------------------

    def _take_sent(self, name: str, event: Event) -> None:
        source, destination = event["local"], event["peer"]
        life = self._life(name, event, source)
        segment = _segment(life.connection, event, source)
        segment.sent = event["t"]
        life.connection.segments += 1
        takes = segment.length + segment.flags.count("S") + segment.flags.count("F")
        segment.retransmission = takes > 0 and life.sent[segment.side].add(segment.absolute_seq, takes) < takes
        _learn(life, segment)
        self._remember(source, destination, event, segment).under_way.append(segment)
        self._rows.append(segment)
        life.last[segment.side] = segment

    def _remember(self, source: str, destination: str, event: Event, segment: Segment) -> _Equal:
        way, content = self._ways[source, destination], _content(event)
        equal = way.equal.get(content)
        if equal is None:
            equal = way.equal[content] = _Equal(segment)
        equal.last = segment
        sent = self._hosts[_host(source), _host(destination)]
        sent.append((way, content, segment))
        if len(sent) > _REMEMBERED:
            old_way, old_content, old = sent.popleft()
            known = old_way.equal.get(old_content)
            if known is not None and known.last is old:
                del old_way.equal[old_content]
        return equal

    def _take_received(self, name: str, event: Event) -> None:
        segment = self._arrival(name, event, is_copy=event.get("debugger") == "duplicate")
        if segment is not None:
            segment.arrived = event["t"]
            _touch(segment, event["t"])
            self._lives[segment.connection.number - 1].last[1 - segment.side] = segment

    def _take_drop(self, name: str, event: Event) -> None:
        if event["direction"] == "sent":
            segment = self._departed(name, event)
        elif event["why"] in _AFTER_RECEIVED:
            segment = self._just_arrived(event) or self._arrival(name, event)
        else:
            segment = self._arrival(name, event)
        if segment is None:
            return  # what nobody has sent was no segment either
        if event["direction"] == "received" and segment.arrived is None:
            segment.arrived = event["t"]
        segment.dropped, segment.why, segment.where = event["t"], event["why"], name
        _touch(segment, event["t"])

    def _take_happened(self, name: str, event: Event) -> None:
        life = self._life(name, event, event["local"])
        connection = life.connection
        side, t = connection.addresses.index(event["local"]), event["t"]
        if event["event"] == "state":
            life.states[side] = True
            self._rows.append(StateChange(connection, side, t, event["from"], event["to"], life.last[side]))
        else:
            life.last[side] = None
            is_timer = event["event"] == "timer"
            text = event["timer" if is_timer else "text"]
            self._rows.append((Expiry if is_timer else Note)(connection, side, t, text))
        connection.end = max(connection.end, t)

    # ---- which connection ---------------------------------------------------------------------------------

    def _life(self, name: str, event: Event, source: str) -> _Life:
        """The connection of an event; `source` is the end that began it, if it is the first."""
        local, peer, number = event["local"], event["peer"], event.get("connection")
        pair = (local, peer) if local < peer else (peer, local)
        current = self._current.get(pair)
        if number is None:
            is_other = current is not None and _is_another_syn(current, event)
            return self._begin(pair, source, event) if current is None or is_other else current
        key = (name, number, local, peer)
        known = self._numbered.get(key)
        if known is not None:
            side = known.connection.addresses.index(local)
            if not (event["event"] == "state" and event["from"] == "CLOSED" and known.states[side]):
                return known
        if current is None or current.numbers[current.connection.addresses.index(local)] is not None:
            if event["event"] == "state" and event["to"] in ("LISTEN", "SYN_RCVD"):
                source = peer
            current = self._begin(pair, source, event)
        current.numbers[current.connection.addresses.index(local)] = number
        self._numbered[key] = current
        return current

    def _begin(self, pair: tuple[str, str], left: str, event: Event) -> _Life:
        right = pair[0] if pair[1] == left else pair[1]
        connection = Connection(len(self._lives) + 1, (left, right), begin=event["t"], end=event["t"])
        life = self._current[pair] = _Life(connection)
        self._lives.append(life)
        return life

    # ---- which segment ------------------------------------------------------------------------------------

    def _arrival(self, name: str, event: Event, *, is_copy: bool = False) -> Segment | None:
        """The row of what has come; None if it can't be said."""
        source, destination = event["peer"], event["local"]
        if "flags" not in event:  # it is too damaged to be read
            return self._shapeless(source, destination, event)
        way = self._ways[source, destination]
        equal = way.equal.get(_content(event))
        if equal is not None:
            segment = None if is_copy else _first_under_way(way, equal, event["t"])
            equal.came = segment = segment or self._copy(equal)
            return segment
        return self._like(source, destination, event) or self._unknown(name, event)

    def _unknown(self, name: str, event: Event) -> Segment:
        """The row of what has come, but nobody saw it leave."""
        source, destination = event["peer"], event["local"]
        life = self._life(name, event, source)
        segment = _segment(life.connection, event, source)
        if event["event"] == "received":  # else it may say anything
            _learn(life, segment)
        self._remember(source, destination, event, segment).came = segment
        self._rows.append(segment)
        return segment

    def _just_arrived(self, event: Event) -> Segment | None:
        equal = self._ways[event["peer"], event["local"]].equal.get(_content(event))
        return None if equal is None else equal.came

    def _departed(self, name: str, event: Event) -> Segment | None:
        """The row of what was dropped by its sender, or on its way."""
        source, destination = event["local"], event["peer"]
        if "flags" not in event:
            return self._shapeless(source, destination, event)
        equal = self._ways[source, destination].equal.get(_content(event))
        if equal is None:
            return self._like(source, destination, event)
        if not equal.under_way:
            return self._copy(equal)
        # A sender drops what it sends at once, unless that waits until its peer turns out not to be there.
        at_once = name == self._owners.get(_host(source)) and event["why"] != "unreachable"
        return equal.under_way.pop(-1 if at_once else 0)

    def _copy(self, equal: _Equal) -> Segment:
        """A row for one more copy."""
        copy = _twin(equal.came or equal.last)
        equal.copies.append(copy)
        copy.copy = len(equal.copies) + 1
        self._rows.append(copy)
        return copy

    # ---- damaged ones -------------------------------------------------------------------------------------

    def _like(self, source: str, destination: str, event: Event) -> Segment | None:
        """The one that is most like this, which is damaged; None if none is."""
        way, content = self._ways[source, destination], _content(event)
        if content in way.damaged:  # a copy of what was damaged before it was copied
            return self._damaged(*way.damaged[content])
        best: tuple[int, bool, int] | None = None
        for age, (equal, segment, is_too_fast) in enumerate(self._lately(source, destination, event["t"])):
            damage = _damage(segment, event, source, destination)
            score = damage + 2 * is_too_fast, segment not in equal.under_way, -age
            if damage <= _MOST_DAMAGE and (best is None or score < best):
                best = score
                way.damaged[content] = equal, segment
        return self._damaged(*way.damaged[content]) if best is not None else None

    def _shapeless(self, source: str, destination: str, event: Event) -> Segment | None:
        """The first under way of so many bytes: what came is no segment any more."""
        found = None
        for equal, segment, is_too_fast in self._lately(source, destination, event["t"]):
            if _size(segment) == event["bytes"] and segment in equal.under_way and not (found and is_too_fast):
                found = equal, segment
        return self._damaged(*found) if found is not None else None

    def _lately(self, source: str, destination: str, t: float) -> Iterator[tuple[_Equal, Segment, bool]]:
        """What was sent from host to host lately, the last first; whether it can hardly be there at the time `t`."""
        sent = self._hosts.get((_host(source), _host(destination)), ())
        for way, content, segment in itertools.islice(reversed(sent), _COMPARED):
            yield way.equal[content], segment, _is_too_fast(way, segment, t)

    def _damaged(self, equal: _Equal, segment: Segment) -> Segment:
        if segment in equal.under_way:
            equal.under_way.remove(segment)
        else:
            segment = self._copy(equal)
        segment.damaged = True
        equal.came = segment
        return segment


def _is_another_syn(life: _Life, event: Event) -> bool:
    if event["event"] != "sent" or event["flags"] != "S":
        return False
    isn = life.isns[life.connection.addresses.index(event["local"])]
    return isn is not None and isn != event["seq"]


def _learn(life: _Life, segment: Segment) -> None:
    """What a segment says of its connection: initial sequence numbers, and how windows are shifted."""
    side, is_syn = segment.side, "S" in segment.flags
    if is_syn:
        life.shifts[side] = segment.options.get("window_scale")
    if life.isns[side] is None:  # where there was no SYN: the first byte has number 1, as it would have
        life.isns[side] = (segment.absolute_seq - (not is_syn and "R" not in segment.flags)) % _MODULO
    if life.isns[1 - side] is None and segment.absolute_ack is not None and not is_syn:
        life.isns[1 - side] = (segment.absolute_ack - 1) % _MODULO


def _segment(connection: Connection, event: Event, source: str) -> Segment:
    return Segment(
        connection,
        connection.addresses.index(source),
        event["flags"],
        event["seq"],
        event.get("ack"),
        event["len"],
        event["wnd"],
        {name: event[name] for name in _OPTIONS if name in event},
    )


def _twin(of: Segment) -> Segment:
    """One more copy, which nothing has become of."""
    return Segment(
        of.connection,
        of.side,
        of.flags,
        of.absolute_seq,
        of.absolute_ack,
        of.length,
        of.wnd,
        of.options,
        of.sent,
        retransmission=of.retransmission,
    )


def _content(event: Event) -> int:
    """A number that equal segments have in common: 64 bits, so that a run of millions has no two that do by chance."""
    timestamp, sack = event.get("timestamp"), event.get("sack")
    return hash(
        (
            event["flags"],
            event["seq"],
            event.get("ack"),
            event["len"],
            event["wnd"],
            None if timestamp is None else tuple(timestamp),
            None if sack is None else tuple(map(tuple, sack)),
            event.get("mss"),
            event.get("window_scale"),
            "sack_permitted" in event,
        )
    )


def _first_under_way(way: _Way, equal: _Equal, t: float) -> Segment | None:
    """Take the one of these that came at the time `t`; None if it was none of them."""
    if not equal.under_way:
        return None
    segment = equal.under_way[0]
    can_be_mistaken = equal.last is not segment or equal.came is not None or segment.retransmission
    if not can_be_mistaken:
        took = t - (segment.sent or 0.0)
        way.fastest = took if way.fastest is None else min(way.fastest, took)
    elif _is_too_fast(way, segment, t):
        return None
    return equal.under_way.pop(0)


def _is_too_fast(way: _Way, segment: Segment, t: float) -> bool:
    """Whether this can hardly be there at the time `t` already."""
    return way.fastest is not None and t - (segment.sent or 0.0) < way.fastest * _A_LITTLE_FASTER


def _given_to_the_unseen(way: _Way) -> Iterator[Segment]:
    """What came as a copy while an equal one was under way that nobody saw again was that one, and no copy."""
    for equal in way.equal.values():
        copies = list(equal.copies) if equal.under_way else []
        for segment in reversed(equal.under_way):
            while copies and copies[-1].t < (segment.sent or 0.0):
                copies.pop()
            if copies:
                copy = copies.pop()
                segment.arrived, segment.dropped = copy.arrived, copy.dropped
                segment.why, segment.where, segment.damaged = copy.why, copy.where, copy.damaged
                yield copy


def _touch(segment: Segment, t: float) -> None:
    segment.connection.end = max(segment.connection.end, t)


def _mark_overtaken(rows: list[Row]) -> None:
    earliest: dict[tuple[int, int], float] = {}  # arrival of what was sent later
    for row in reversed(rows):
        if not isinstance(row, Segment) or row.arrived is None or row.copy > 1:
            continue
        key = row.connection.number, row.side
        later = earliest.get(key)
        if later is not None and row.arrived > later:
            row.overtaken = True
        else:
            earliest[key] = row.arrived


# ---- what was damaged --------------------------------------------------------------------------------------


def _damage(segment: Segment, event: Event, source: str, destination: str) -> int:
    """In how many bits a segment that came differs from one that was sent, as far as the trace tells."""
    ends = segment.connection.addresses
    bits: int = (_port(ends[segment.side]) ^ _port(source)).bit_count()
    bits += (_port(ends[1 - segment.side]) ^ _port(destination)).bit_count()
    bits += (segment.absolute_seq ^ event["seq"]).bit_count() + (segment.wnd ^ event["wnd"]).bit_count()
    bits += (flag_bits(segment.flags) ^ flag_bits(event["flags"])).bit_count()
    if segment.absolute_ack is not None and "ack" in event:
        bits += (segment.absolute_ack ^ event["ack"]).bit_count()
    bits += segment.length != event["len"]
    return bits + _damage_of_options(segment.options, event)


def _damage_of_options(options: dict[str, Any], event: Event) -> int:
    came = {name: event[name] for name in _OPTIONS if name in event}
    if options.keys() != came.keys():
        return 1
    ours, theirs = list(_numbers(options.values())), list(_numbers(came.values()))
    if len(ours) != len(theirs):
        return 1
    # Where a kind, a length or the header's length was damaged, all else may be other bytes.
    return min(sum((one ^ other).bit_count() for one, other in zip(ours, theirs, strict=True)), 2)


def _numbers(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, int):
            yield value
        else:
            yield from _numbers(value)


def flag_bits(flags: str) -> int:
    """The control bits of these letters: "S." is SYN and ACK."""
    return sum(_FLAG_BITS[letter] for letter in flags)


def _size(segment: Segment) -> int:
    """Bytes with the header."""
    options = sum(_OPTION_LENGTHS.get(name, 0) for name in segment.options)
    blocks = len(segment.options.get("sack", ()))
    return 20 + options + (4 + 8 * blocks if blocks else 0) + segment.length


@lru_cache(maxsize=4096)
def _host(address: str) -> str:
    """Without its port."""
    return address.rpartition(":")[0].strip("[]") if not _is_bare(address) else address


def _is_bare(address: str) -> bool:
    """Whether it is an address alone, as those have that are of no segment."""
    return ":" not in address or (address.count(":") > 1 and not address.startswith("["))


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
