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

`testbed.passages` says which segment it is that came, `testbed.lives` of which connection. An event
{"event": "app", "t", "local", "peer", "text"} becomes a Note: daemons write none, a program that simulates may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from testbed.lives import Life, Lives
from testbed.passages import OPTIONS, Found, Passage, Passages, host_of, in_order, port_of, what
from testbed.traces import Event, Seen

_MODULO = 1 << 32
AFTER_RECEIVED = frozenset({"backlog full", "fault in the TCP"})  # drops of what has its line `received` already
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
        return port_of(self.addresses[0]), port_of(self.addresses[1])


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
    shown = (_shown(name, events) for name, events in traces.items())
    for _, name, event in in_order(shown, builder.passages.too_early):
        builder.take(name, event)
    return builder.finish()


def _shown(name: str, events: Iterable[Event]) -> Iterator[tuple[float, str, Event]]:
    return ((event["t"], name, event) for event in events if event["event"] in _SHOWN)


# ---- from events to rows -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Known:
    """What is known of a connection beside what its rows need."""

    connection: Connection
    sent: list[Seen] = field(default_factory=lambda: [Seen(), Seen()])
    shifts: list[int | None] = field(default_factory=lambda: [None, None])
    last: list[Segment | None] = field(default_factory=lambda: [None, None])  # that each side sent or received


class _Builder:
    """Takes events, and has the ladder at the end."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._lives: Lives[_Known] = Lives(self._begin)
        self.passages: Passages[Segment] = Passages(self._copy)
        self._owners: dict[str, str] = {}  # address -> name of the trace of the host that has it

    def take(self, name: str, event: Event) -> None:
        """The next event of a trace."""
        kind = event["event"]
        if kind == "dropped":
            self._take_drop(name, event)
            return
        self._owners.setdefault(host_of(event["local"]), name)
        if kind == "sent":
            self._take_sent(name, event)
        elif kind == "received":
            self._take_received(name, event)
        else:
            self._take_happened(name, event)

    def finish(self) -> Ladder:
        """The ladder, when all events were taken."""
        absorbed = set()
        for segment, copy in self.passages.given_to_the_unseen():
            segment.arrived, segment.dropped = copy.arrived, copy.dropped
            segment.why, segment.where, segment.damaged = copy.why, copy.where, copy.damaged
            absorbed.add(id(copy))
        self._rows = [row for row in self._rows if id(row) not in absorbed]
        for life in self._lives.all:
            self._finish(life)
        _mark_overtaken(self._rows)
        return Ladder([life.of.connection for life in self._lives.all], self._rows)

    def _finish(self, life: Life[_Known]) -> None:
        known, connection, (left, right) = life.of, life.of.connection, life.ends
        connection.hosts = self._name(left), self._name(right)
        connection.isns = [isn or 0 for isn in life.isns]
        if known.shifts[0] is not None and known.shifts[1] is not None:
            connection.shifts = [known.shifts[0], known.shifts[1]]

    def _name(self, address: str) -> str:
        host = host_of(address)
        return self._owners.get(host, host)

    # ---- events -------------------------------------------------------------------------------------------

    def _take_sent(self, name: str, event: Event) -> None:
        source, destination = event["local"], event["peer"]
        known = self._lives.find(name, event).of
        segment = _segment(known.connection, event, source)
        segment.sent = event["t"]
        known.connection.segments += 1
        takes = segment.length + segment.flags.count("S") + segment.flags.count("F")
        segment.retransmission = takes > 0 and known.sent[segment.side].add(segment.absolute_seq, takes) < takes
        self.passages.sent(source, destination, self._passage(segment, event))
        _learn(known, segment)
        known.last[segment.side] = segment

    def _passage(self, segment: Segment, event: Event) -> Passage[Segment]:
        self._rows.append(segment)
        return Passage(segment, what(event), segment.connection.number, segment.sent, segment.retransmission)

    def _take_received(self, name: str, event: Event) -> None:
        segment = self._arrival(name, event)
        if segment is not None:
            segment.arrived = event["t"]
            _touch(segment, event["t"])
            self._lives.all[segment.connection.number - 1].of.last[1 - segment.side] = segment

    def _take_drop(self, name: str, event: Event) -> None:
        if event["direction"] == "sent":
            segment = self._departed(name, event)
        elif event["why"] in AFTER_RECEIVED:
            segment = self.passages.just_arrived(event["peer"], event["local"], what(event))
            segment = segment or self._arrival(name, event)
        else:
            segment = self._arrival(name, event)
        if segment is None:
            return  # what nobody has sent was no segment either
        if event["direction"] == "received" and segment.arrived is None:
            segment.arrived = event["t"]
        segment.dropped, segment.why, segment.where = event["t"], event["why"], name
        _touch(segment, event["t"])

    def _take_happened(self, name: str, event: Event) -> None:
        known = self._lives.find(name, event).of
        connection = known.connection
        side, t = connection.addresses.index(event["local"]), event["t"]
        if event["event"] == "state":
            self._rows.append(StateChange(connection, side, t, event["from"], event["to"], known.last[side]))
        else:
            known.last[side] = None
            is_timer = event["event"] == "timer"
            text = event["timer" if is_timer else "text"]
            self._rows.append((Expiry if is_timer else Note)(connection, side, t, text))
        connection.end = max(connection.end, t)

    # ---- which connection, which segment ------------------------------------------------------------------

    def _begin(self, left: str, right: str, event: Event) -> _Known:
        number = len(self._lives.all) + 1
        return _Known(Connection(number, (left, right), begin=event["t"], end=event["t"]))

    def _arrival(self, name: str, event: Event) -> Segment | None:
        """The row of what has come; None if it can't be said."""
        source, destination, t = event["peer"], event["local"], event["t"]
        if "flags" not in event:  # it is too damaged to be read
            return _row(self.passages.of_size(source, destination, event["bytes"], t))
        is_copy = event.get("debugger") == "duplicate"
        found = self.passages.arrived(source, destination, what(event), t, is_copy=is_copy)
        return _row(found) or self._unknown(name, event)

    def _unknown(self, name: str, event: Event) -> Segment:
        """The row of what has come, but nobody saw it leave."""
        source, destination = event["peer"], event["local"]
        known = self._lives.find(name, event).of
        segment = _segment(known.connection, event, source)
        if event["event"] == "received":  # else it may say anything
            _learn(known, segment)
        self.passages.appeared(source, destination, self._passage(segment, event))
        return segment

    def _departed(self, name: str, event: Event) -> Segment | None:
        """The row of what was dropped by its sender, or on its way."""
        source, destination, t = event["local"], event["peer"], event["t"]
        if "flags" not in event:
            return _row(self.passages.of_size(source, destination, event["bytes"], t))
        # A sender drops what it sends at once, unless that waits until its peer turns out not to be there.
        at_once = name == self._owners.get(host_of(source)) and event["why"] != "unreachable"
        return _row(self.passages.departed(source, destination, what(event), t, at_once=at_once))

    def _copy(self, of: Segment, number: int) -> Segment:
        """A row for one more copy."""
        copy = replace(of, copy=number, arrived=None, dropped=None, why=None, where=None, damaged=False)
        self._rows.append(copy)
        return copy


def _learn(known: _Known, segment: Segment) -> None:
    """How windows are shifted."""
    if "S" in segment.flags:
        known.shifts[segment.side] = segment.options.get("window_scale")


def _row(found: Found[Segment] | None) -> Segment | None:
    if found is None:
        return None
    found.row.damaged = found.row.damaged or found.damaged
    return found.row


def _segment(connection: Connection, event: Event, source: str) -> Segment:
    return Segment(
        connection,
        connection.addresses.index(source),
        event["flags"],
        event["seq"],
        event.get("ack"),
        event["len"],
        event["wnd"],
        {name: event[name] for name in OPTIONS if name in event},
    )


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
