"""From the events of all nodes, in the order in which they happened, to connections: pure.

A connection is known by its two ends, and by the sequence number of its first SYN if they are used again. Each segment
is one row, whoever has seen it: what one end has sent and the other has received is the same if it says the same.
"""

from __future__ import annotations

import functools
import itertools
import struct
from array import array
from collections import Counter
from dataclasses import dataclass, field

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
_RECENT = 512  # segments that may yet come once more
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
_Key = tuple[object, ...]
_AFTER_RECEIVED = frozenset({"backlog full", "fault in the TCP"})  # it has been told as received before
_SOUND = _AFTER_RECEIVED | {"partition", "debugger"}
_COMPARED = 1000  # segments under way, to find what a damaged one was


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
    waiting: dict[_Key, list[int]] = field(default_factory=dict)  # rows of segments under way, by what they say
    recent: dict[_Key, int] = field(default_factory=dict)  # those that have just arrived
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
        self._open: dict[frozenset[str], Connection] = {}
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

    def add(self, t: float, node: int, event: Event) -> None:
        """An event of a node. One that is not as docs/trace.md says is counted, and no more."""
        if self._zero is None:
            self._zero = t
        at = round((t - self._zero) * 1e6)
        try:
            self._take(at, node, event)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, struct.error):
            self.unreadable += 1
        else:
            self.last = max(self.last, at)

    def _take(self, at: int, node: int, event: Event) -> None:
        kind = event["event"]
        if kind == "sent":
            self._sent(at, event)
        elif kind == "received":
            self._received(at, event)
        elif kind == "tcp":
            self._told(at, event)
        elif kind == "dropped":
            self._dropped(at, node, event)
        elif kind in ("state", "timer"):
            found = self._find(event)
            if found is not None:
                end = found[0].ends[found[1]]
                end.traced = True
                if kind == "state":
                    end.states.add(at, _STATES[event["to"]])
                else:
                    end.timers.add(at, _TIMERS[event["timer"]])
        else:
            raise ValueError

    # ---- whose it is ---------------------------------------------------------------------------------------------

    def _find(self, event: Event) -> tuple[Connection, int] | None:
        """The connection, and which of its ends is `local`."""
        local, peer = event["local"], event["peer"]
        found = self._open.get(frozenset((local, peer)))
        if found is None:
            return self._begin(local, peer)
        return found, 0 if found.ends[0].address == local else 1

    def _begin(self, first: str, second: str) -> tuple[Connection, int] | None:
        if len(self.connections) >= MOST_CONNECTIONS:
            self.left_out += 1
            return None
        nodes = [self._network.node_of.get(_host(address), _host(address)) for address in (first, second)]
        ways = self._network.wait(*nodes), self._network.wait(*reversed(nodes))
        ends = End(first, nodes[0], ways[0]), End(second, nodes[1], ways[1])
        self._open[frozenset((first, second))] = connection = Connection(ends)
        self.connections.append(connection)
        return connection, 0

    def _of_segment(self, sender: str, receiver: str, event: Event, flags: int) -> tuple[Connection, int] | None:
        """The connection, and which of its ends is the sender: a new one if a SYN begins it.

        A SYN that only came may be a late copy of an old one: it begins nothing, unless its sender has no trace.
        """
        found = self._open.get(frozenset((sender, receiver)))
        if found is None:
            return self._begin(sender, receiver)
        index = 0 if found.ends[0].address == sender else 1
        end, may_begin = found.ends[index], event["event"] == "sent"
        if flags & (_SYN | _ACK) == _SYN and end.isn not in (None, event["seq"]) and (may_begin or not end.traced):
            return self._begin(sender, receiver)  # these ends are used again
        return found, index

    # ---- segments ------------------------------------------------------------------------------------------------

    def _sent(self, at: int, event: Event) -> None:
        flags = _flags(event["flags"])
        found = self._of_segment(event["local"], event["peer"], event, flags)
        if found is None:
            return
        connection, index = found
        end = connection.ends[index]
        end.traced = True
        row = self._row(at, connection, index, event, flags, 0)
        end.waiting.setdefault(_key(event), []).append(row)

    def _row(self, at: int, connection: Connection, index: int, event: Event, flags: int, kind: int) -> int:
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
        return row

    def _received(self, at: int, event: Event) -> None:
        flags = _flags(event["flags"])
        found = self._of_segment(event["peer"], event["local"], event, flags)
        if found is None:
            return
        connection, index = found
        sender, receiver = connection.ends[index], connection.ends[1 - index]
        receiver.traced = True
        key = _key(event)
        row = _first(sender.waiting, key)
        if row is not None:
            way = connection.segments.ended(row, at, ARRIVED)
            self._waited(sender, at - way, at, event)
            sender.recent[key] = row
            if len(sender.recent) > _RECENT:
                del sender.recent[next(iter(sender.recent))]
        elif key in sender.recent:
            connection.segments.ended(sender.recent[key], at, DUPLICATE)
        else:
            row = self._row(at, connection, index, event, flags, UNSENT)
            connection.segments.ended(row, at, ARRIVED)
        if event["len"]:
            self._data(sender, at, event)
        if flags & _ACK:
            self._acknowledged(connection, index, at, event, flags)

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

    def _told(self, at: int, event: Event) -> None:
        found = self._find(event)
        if found is None:
            return
        end = found[0].ends[found[1]]
        end.traced = True
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
        found = self._find_dropped(*ends, event, sent=sent) if "flags" in event else None
        if found is None:
            size = int(event["bytes"])
            self.strays_dropped[why if len(self.strays_dropped) < _MOST_REASONS else _OTHER] += 1
            if len(self.strays) >= _MOST_STRAY:
                self.left_out += 1
            else:
                self.strays.append(Stray(at, node, f"{size} bytes from {_text(ends[0])} to {_text(ends[1])}: {why}"))
            return
        connection, index = found
        sender, key = connection.ends[index], _key(event)
        row = sender.recent.get(key) if why in _AFTER_RECEIVED else None
        if row is None:
            row = _first(sender.waiting, key)
        if row is None:
            row = self._row(at, connection, index, event, _flags(event["flags"]), UNSENT)
        connection.segments.ended(row, at, DROPPED, self._reason(why), node)
        sender.dropped[why] += 1
        sender.dropped_data += event["len"] > 0

    def _find_dropped(self, sender: str, receiver: str, event: Event, *, sent: bool) -> tuple[Connection, int] | None:
        """Whose segment was dropped. What came may be damaged: its ports and numbers say nothing then."""
        if sent or event["why"] in _SOUND:
            return self._of_segment(sender, receiver, event, _flags(event["flags"]))
        for connection in reversed(self.connections):
            for index, end in enumerate(connection.ends):
                hosts = _host(end.address), _host(connection.ends[1 - index].address)
                if hosts == (_host(sender), _host(receiver)) and (key := _alike(end.waiting, _key(event))) is not None:
                    event.update(zip(("seq", "len", "flags", "ack", "wnd", "timestamp"), key, strict=True))
                    return connection, index
        return None

    def _count_drop(self, node: int, ends: tuple[str, str]) -> None:
        to = self._network.node_of.get(_host(ends[1]))
        way = self._network.way(self._network.nodes[node], to) if to is not None else []
        if way:
            self.drops[way[0].index] += 1

    def _reason(self, why: str) -> int:
        if why not in self.reasons:
            if len(self.reasons) >= _MOST_REASONS:
                return 0
            self.reasons.append(why)
        return self.reasons.index(why)


def _host(endpoint: str) -> str:
    host, colon, port = endpoint.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() and (":" not in host or host.startswith("[")) else endpoint


def _text(endpoint: object) -> str:
    return str(endpoint)[:64]


@functools.lru_cache(maxsize=256)
def _flags(letters: str) -> int:
    return sum({FLAGS[letter] for letter in letters})


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _key(event: Event) -> _Key:
    """What makes a segment known again where it arrives."""
    stamp = event.get("timestamp")
    return event["seq"], event["len"], event["flags"], event.get("ack"), event["wnd"], tuple(stamp) if stamp else None


def _alike(waiting: dict[_Key, list[int]], damaged: _Key) -> _Key | None:
    """Of those under way the first that differs in one field at most: a bit was turned."""
    for key in itertools.islice(waiting, _COMPARED):
        if sum(one != other for one, other in zip(key, damaged, strict=True)) <= 1:
            return key
    return None


def _first(waiting: dict[_Key, list[int]], key: _Key) -> int | None:
    rows = waiting.get(key)
    if rows is None:
        return None
    row = rows.pop(0)
    if not rows:
        del waiting[key]
    return row


def _size(event: Event, wait: Wait) -> int:
    """What a segment takes of the queue: packets if it is so limited, else bytes."""
    if wait.direction.in_packets:
        return 1
    options = (12 if "timestamp" in event else 0) + (4 + 8 * len(event["sack"]) if "sack" in event else 0)
    return 40 + options + int(event["len"])  # with the header of IP, as rates and queues count it
