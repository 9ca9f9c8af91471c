"""From the events of all nodes, in the order in which they happened, to connections: pure.

Each segment is one row, whoever has seen it: `testbed.passages` says which segment it is that came, and `testbed.lives`
of which connection.
"""

from __future__ import annotations

import functools
import struct
from array import array
from collections import Counter
from dataclasses import dataclass, field

from testbed.ladder import AFTER_RECEIVED
from testbed.lives import Lives
from testbed.passages import Passage, Passages, host_of, what
from testbed.report.curves import Bins, Curve, Level
from testbed.report.paths import Network, Wait
from testbed.report.read import finite
from testbed.report.segments import (
    AGAIN,
    ARRIVED,
    DROPPED,
    DUPLICATE,
    FROM_B,
    STAMPED,
    SYN_FIN_AGAIN,
    UNSENT,
    Options,
    Segments,
)
from testbed.traces import Event, Seen

MOST_CONNECTIONS = 2000
_MOST_REASONS = 250
_MOST_STRAY = 1000
_OTHER = "other reasons"
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32}
_SYN, _ACK, _FIN = 2, 16, 1
STATES = (
    *("CLOSED", "LISTEN", "SYN_SENT", "SYN_RCVD", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT"),
    *("CLOSING", "LAST_ACK", "TIME_WAIT"),
)
TIMERS = (
    *("RETRANSMISSION", "PERSIST", "DELAYED_ACK", "TIME_WAIT", "REORDERING", "PROBE", "KEEP_ALIVE", "USER_TIMEOUT"),
)
_STATES = {name: index for index, name in enumerate(STATES)}
_TIMERS = {name: index for index, name in enumerate(TIMERS)}
CURVES = ("cwnd", "ssthresh", "in_flight", "srtt", "rttvar", "rto", "min_rtt")
_HALF, _ROUND = 1 << 31, 1 << 32
_SOUND = AFTER_RECEIVED | {"partition", "debugger"}


class Times:
    """What happened to one end: when, and which."""

    __slots__ = ("t", "what")

    def __init__(self) -> None:
        self.t = array("q")
        self.what = array("B")

    def add(self, t: int, what: int) -> None:
        """At t, in microseconds."""
        self.t.append(t)
        self.what.append(what)


@dataclass(slots=True)
class End:
    """One end of a connection, and what it sends."""

    address: str  # with its port
    node: str  # its name, or the address of who is none of the lab
    wait: Wait | None  # where what it sends may wait
    isn: int | None = None
    high: int = 0  # of its sequence numbers, counted from the ISN
    scale: int | None = None  # what its SYN says
    sent: Seen = field(default_factory=Seen)
    arrived: Seen = field(default_factory=Seen)
    segments: int = 0
    data_segments: int = 0
    retransmissions: int = 0
    bytes_arrived: int = 0  # each once
    first: int | None = None  # when data of its arrived, and when for the last time
    last: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_data: int = 0
    goodput: Bins = field(default_factory=Bins)
    acked: Curve = field(default_factory=Curve)  # as it is told
    edge: Curve = field(default_factory=Curve)
    highest_ack: int | None = None
    newest: tuple[int, int] | None = None  # acknowledgment and sequence number of what the edge was taken from
    curves: dict[str, Curve] = field(default_factory=dict)
    states: Times = field(default_factory=Times)
    timers: Times = field(default_factory=Times)
    traced: bool = False  # whether it has told something itself
    least_rtt: float | None = None

    def count(self, number: int, isn_if_first: int) -> int:
        """A sequence number of its, on from the ISN, which may have gone round."""
        if self.isn is None:
            self.isn = isn_if_first
        return self.high + (number - self.isn - self.high + _HALF) % _ROUND - _HALF


@dataclass(slots=True)
class Connection:
    """What is known of one."""

    ends: tuple[End, End]
    segments: Segments = field(default_factory=Segments)

    @property
    def scales(self) -> bool:
        """Whether windows are scaled: if both SYNs say so (RFC 7323 §2.2)."""
        return None not in (self.ends[0].scale, self.ends[1].scale)


@dataclass(slots=True, eq=False)
class _Crossing:
    """A segment of which something is known, and its row."""

    connection: Connection
    index: int  # of the end that has sent it
    row: int  # if this is a copy: of the original, unless it has one of its own
    length: int
    again: bool = False
    copy_of: _Crossing | None = None
    arrived: int | None = None  # microseconds
    duplicates: int = 0  # copies that arrived, too


def _further(of: _Crossing, _number: int) -> _Crossing:
    """One more copy: as a rule only a mark at the row of the original."""
    original = of.copy_of or of
    return _Crossing(original.connection, original.index, original.row, original.length, copy_of=original)


class _TooMany(Exception):
    """There are too many connections."""


@dataclass(frozen=True, slots=True)
class Stray:
    """Something that was dropped and belongs to no connection."""

    t: int
    node: int
    text: str


class Collector:
    """Takes events, one after the other."""

    def __init__(self, network: Network, zero: float | None) -> None:
        """`zero`: when the run's clock begins, seconds since the epoch; None: with the first event."""
        self._network = network
        self._zero = zero
        self._lives: Lives[Connection] = Lives(self._begin)
        self._passages: Passages[_Crossing] = Passages(_further)
        self.connections: list[Connection] = []
        self.unreadable = 0
        self.left_out = 0  # events of connections, and strays, beyond the most that are told
        self.reasons: list[str] = [""]
        self.strays: list[Stray] = []
        self.strays_dropped: Counter[str] = Counter()  # all of them, those that are left out, too
        self.queues = {direction.index: Level() for direction in network.directions if direction.slowest}
        self.drops: Counter[int] = Counter()  # by direction
        self.last = 0  # microseconds

    @property
    def zero(self) -> float:
        """When the run's clock begins, seconds since the epoch."""
        return self._zero or 0.0

    def too_early(self, event: Event) -> int:
        """As `Passages.too_early`; 0 of what is not as docs/trace.md says: `add` counts that."""
        try:
            return self._passages.too_early(event)
        except (KeyError, TypeError, ValueError, AttributeError):
            return 0

    def add(self, t: float, node: int, event: Event) -> None:
        """An event of a node. One that is not as docs/trace.md says is counted, and no more."""
        if self._zero is None:
            self._zero = t
        at = round((t - self._zero) * 1e6)
        try:
            self._take(at, node, event)
        except _TooMany:
            self.left_out += 1
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, struct.error):
            self.unreadable += 1
        else:
            self.last = max(self.last, at)

    def _take(self, at: int, node: int, event: Event) -> None:
        kind = event["event"]
        if kind == "sent":
            self._sent(at, node, event)
        elif kind == "received":
            self._received(at, node, event)
        elif kind == "tcp":
            self._told(at, self._end(node, event), event)
        elif kind == "dropped":
            self._dropped(at, node, event)
        elif kind == "state":
            self._end(node, event).states.add(at, _STATES[event["to"]])
        elif kind == "timer":
            self._end(node, event).timers.add(at, _TIMERS[event["timer"]])
        else:
            raise ValueError

    # ---- whose it is ---------------------------------------------------------------------------------------------

    def _begin(self, first: str, second: str, _event: Event) -> Connection:
        if len(self.connections) >= MOST_CONNECTIONS:
            raise _TooMany
        nodes = [self._network.node_of.get(host_of(address), host_of(address)) for address in (first, second)]
        ways = self._network.wait(*nodes), self._network.wait(*reversed(nodes))
        connection = Connection((End(first, nodes[0], ways[0]), End(second, nodes[1], ways[1])))
        self.connections.append(connection)
        return connection

    def _end(self, node: int, event: Event) -> End:
        """Which end has told this of itself."""
        life = self._lives.find(node, event)
        end = life.of.ends[life.side(event["local"])]
        end.traced = True
        return end

    # ---- segments ------------------------------------------------------------------------------------------------

    def _sent(self, at: int, node: int, event: Event) -> None:
        flags, life = _flags(event["flags"]), self._lives.find(node, event)
        index = life.side(event["local"])
        life.of.ends[index].traced = True
        crossing = self._row(at, life.of, index, event, flags, 0)
        passage = Passage(crossing, what(event), life.number, at, crossing.again)
        self._passages.sent(event["local"], event["peer"], passage)

    def _row(self, at: int, connection: Connection, index: int, event: Event, flags: int, kind: int) -> _Crossing:
        """Add a segment that was sent, or of which only the arrival was seen.

        The latter counts as sent only if its sender has no trace: else it is a copy that the network has made.
        """
        sender, receiver = connection.ends[index], connection.ends[1 - index]
        number, length, stamp = event["seq"], event["len"], event.get("timestamp")
        seq = sender.count(number, number)
        ack = receiver.count(event["ack"], event["ack"] - 1) if flags & _ACK else 0
        blocks = [
            receiver.count(edge, event["ack"] - 1) for block in event.get("sack", ()) for edge in (block[0], block[1])
        ]
        kind |= index and FROM_B
        behind = seq + length + (1 if flags & (_SYN | _FIN) else 0)
        is_copy = bool(kind & UNSENT) and sender.traced
        if is_copy:
            pass
        elif length:
            kind |= AGAIN if sender.sent.add(number, length) < length else 0
        elif flags & (_SYN | _FIN) and behind <= sender.high:
            kind |= SYN_FIN_AGAIN
        kind |= STAMPED if stamp is not None else 0
        value, echo = stamp if stamp is not None else (0, 0)
        row = connection.segments.append(
            *(at, seq, ack, 0, length, event["wnd"], flags, kind, 0, len(blocks) // 2, 0, value, echo)
        )
        connection.segments.blocks.extend(blocks)
        if flags & _SYN:
            scale = event.get("window_scale")
            scale = scale if isinstance(scale, int) and 0 <= scale <= 14 else None
            connection.segments.options[row] = Options(
                _number(event.get("mss")), scale, event.get("sack_permitted") is True
            )
            sender.scale = sender.scale if is_copy else scale
        if not is_copy:
            sender.high = max(sender.high, behind)
            sender.segments += 1
            sender.data_segments += length > 0
            sender.retransmissions += kind & AGAIN > 0
        return _Crossing(connection, index, row, length, again=kind & (AGAIN | SYN_FIN_AGAIN) > 0)

    def _received(self, at: int, node: int, event: Event) -> None:
        flags = _flags(event["flags"])
        is_copy = event.get("debugger") == "duplicate"
        found = self._passages.arrived(event["peer"], event["local"], what(event), at, is_copy=is_copy)
        crossing = found.row if found is not None else self._appeared(at, node, event, flags)
        connection, index = crossing.connection, crossing.index
        sender, original = connection.ends[index], crossing.copy_of
        connection.ends[1 - index].traced = True
        if original is None:
            way = connection.segments.ended(crossing.row, at, ARRIVED)
            crossing.arrived = at
            if found is not None:
                self._waited(sender, at - way, at, event)
        elif original.arrived is not None:
            connection.segments.ended(original.row, at, DUPLICATE)
            original.duplicates += 1
            crossing.arrived = at
        else:
            connection.segments.ended(self._copied(crossing, at), at, ARRIVED)
        if event["len"]:
            self._data(sender, at, event)
        if flags & _ACK:
            self._acknowledged(connection, index, at, event, flags)

    def _appeared(self, at: int, node: int, event: Event, flags: int) -> _Crossing:
        """A segment that nobody saw leave."""
        source, destination = event["local"], event["peer"]
        if event["event"] == "received" or event["direction"] == "received":
            source, destination = destination, source
        life = self._lives.find(node, event)
        crossing = self._row(at, life.of, life.side(source), event, flags, UNSENT)
        self._passages.appeared(source, destination, Passage(crossing, what(event), life.number, None))
        return crossing

    def _copied(self, crossing: _Crossing, at: int) -> int:
        """A row for a further copy."""
        segments, original = crossing.connection.segments, crossing.copy_of
        if original is not None and crossing.row == original.row:
            row = segments[original.row]
            kind = row.kind & (FROM_B | STAMPED) | UNSENT
            crossing.row = segments.append(*row._replace(at=at, way=0, kind=kind, why=0, where=0, sacks=0))
        return crossing.row

    def finish(self) -> None:
        """All events were told."""
        for unseen, copy in self._passages.given_to_the_unseen():
            original, segments = copy.copy_of, copy.connection.segments
            if original is None or copy.arrived is None:
                continue
            segments.ended(unseen.row, copy.arrived, ARRIVED)
            original.duplicates -= 1
            if original.duplicates == 0:
                segments.was_no_duplicate(original.row)

    def _data(self, sender: End, at: int, event: Event) -> None:
        new = sender.arrived.add(event["seq"], event["len"])
        sender.bytes_arrived += new
        if sender.first is None:
            sender.first = at
        sender.last = at
        sender.goodput.add(at, new)

    def _acknowledged(self, connection: Connection, index: int, at: int, event: Event, flags: int) -> None:
        """The other end is told what has come of its data, and how much more may."""
        told = connection.ends[1 - index]
        ack = told.count(event["ack"], event["ack"] - 1)
        scale = connection.ends[index].scale if connection.scales and not flags & _SYN else 0
        if told.traced and ack > told.high:
            return  # of what was never sent: it says nothing (RFC 9293 §3.10.7.4)
        told.highest_ack = ack if told.highest_ack is None else max(ack, told.highest_ack)
        told.acked.add(at, told.highest_ack)
        number = connection.ends[index].count(event["seq"], event["seq"])
        if told.newest is not None and (ack, number) < told.newest:
            return  # it was overtaken, and so is its window: as SND.WL1 and SND.WL2 tell (RFC 9293 §3.10.7.4)
        told.newest = ack, number
        told.edge.add(at, ack + (event["wnd"] << (scale or 0)))

    def _waited(self, sender: End, at: int, arrived: int, event: Event) -> None:
        wait = sender.wait
        if wait is not None:
            self.queues[wait.direction.index].add(*wait.queued(at, arrived), _size(event, wait))

    # ---- the rest ------------------------------------------------------------------------------------------------

    def _told(self, at: int, end: End, event: Event) -> None:
        for name in CURVES:
            if name in event:
                value = event[name]
                curve = end.curves.get(name)
                if curve is None:
                    curve = end.curves[name] = Curve()
                curve.add(at, float("nan") if value is None else finite(value))
        least = event.get("min_rtt")
        if least is not None:
            end.least_rtt = finite(least)

    def _dropped(self, at: int, node: int, event: Event) -> None:
        why, sent = str(event["why"])[:80], event["direction"] == "sent"
        ends = (event["local"], event["peer"]) if sent else (event["peer"], event["local"])
        if sent:
            self._count_drop(node, ends)
        crossing = self._find_dropped(at, node, event, ends, sent=sent)
        if crossing is None:
            size = int(event["bytes"])
            self.strays_dropped[why if len(self.strays_dropped) < _MOST_REASONS else _OTHER] += 1
            if len(self.strays) >= _MOST_STRAY:
                self.left_out += 1
            else:
                self.strays.append(Stray(at, node, f"{size} bytes from {_text(ends[0])} to {_text(ends[1])}: {why}"))
            return
        sender = crossing.connection.ends[crossing.index]
        crossing.connection.segments.ended(self._copied(crossing, at), at, DROPPED, self._reason(why), node)
        sender.dropped[why] += 1
        sender.dropped_data += crossing.length > 0

    def _find_dropped(self, at: int, node: int, event: Event, ends: tuple[str, str], *, sent: bool) -> _Crossing | None:
        """Which segment was dropped. What came may be damaged: what it says is not to be believed then."""
        if "flags" not in event:
            found = self._passages.of_size(*ends, event["bytes"], at)
            return None if found is None else found.row
        flags, said = _flags(event["flags"]), what(event)
        if sent:
            own = self._network.node_of.get(host_of(ends[0])) == self._network.nodes[node]
            at_once = own and event["why"] != "unreachable"
            found = self._passages.departed(*ends, said, at, at_once=at_once)
        else:
            came = self._passages.just_arrived(*ends, said) if event["why"] in AFTER_RECEIVED else None
            if came is not None:
                return came
            found = self._passages.arrived(*ends, said, at)
        if found is not None:
            return found.row
        return self._appeared(at, node, event, flags) if sent or event["why"] in _SOUND else None

    def _count_drop(self, node: int, ends: tuple[str, str]) -> None:
        to = self._network.node_of.get(host_of(ends[1]))
        way = self._network.way(self._network.nodes[node], to) if to is not None else []
        if way:
            self.drops[way[0].index] += 1

    def _reason(self, why: str) -> int:
        if why not in self.reasons:
            if len(self.reasons) >= _MOST_REASONS:
                return 0
            self.reasons.append(why)
        return self.reasons.index(why)


def _text(endpoint: object) -> str:
    return str(endpoint)[:64]


@functools.lru_cache(maxsize=256)
def _flags(letters: str) -> int:
    return sum({FLAGS[letter] for letter in letters})


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _size(event: Event, wait: Wait) -> int:
    """What a segment takes of the queue: packets if it is so limited, else bytes."""
    if wait.direction.in_packets:
        return 1
    options = (12 if "timestamp" in event else 0) + (4 + 8 * len(event["sack"]) if "sack" in event else 0)
    return 40 + options + int(event["len"])  # with the header of IP, as rates and queues count it
