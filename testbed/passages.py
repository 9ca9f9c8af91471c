"""What was sent and what came, put together: for ladders and for reports. Pure.

A segment has no name on its way, so it is known again by what it says and by its order: of equal ones the first that
is under way comes first, unless it would have been faster than any other was. What came damaged is the one under way
that differs in the fewest bits. Ends are as in traces (docs/trace.md): addresses with ports.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Generic, TypeVar

from testbed.traces import Event

Row = TypeVar("Row")  # what the caller keeps of a segment
Node = TypeVar("Node")  # how the caller calls a host or router
What = tuple[Any, ...]  # all that a segment says: flags, seq, ack, len, wnd, and its options
OPTIONS = ("mss", "window_scale", "sack_permitted", "timestamp", "sack")

_REMEMBERED = 1 << 15  # segments between two hosts: a copy that comes later than so many others is not recognised
_COMPARED = 1 << 10  # of these, the last ones, to find what a damaged one was ...
_IN_VAIN, _FEW = 100, 16  # ... but if that was in vain so often, only the last few: a trace is missing, or a part of it
_MOST_DAMAGE = 3  # bits that may differ, or fields for one bit of the header's length
_A_LITTLE_FASTER = 0.9  # of the shortest way so far: what would have been faster than this was another one
_OPTION_LENGTHS = (4, 4, 4, 12)  # bytes, with padding, of all but SACK
_FLAG_BITS = {"U": 32, "P": 8, "R": 4, "S": 2, "F": 1, ".": 16}


def in_order(
    traces: Iterable[Iterator[tuple[float, Node, Event]]], too_early: Callable[[Event], int]
) -> Iterator[tuple[float, Node, Event]]:
    """The events of all nodes by their time; of one time, nothing is received before it is sent.

    Each trace has (time, its node, event) in the trace's own order, which stays. `too_early` is `Passages.too_early`
    of who takes the events, and knows all that were taken so far. Only one event of each trace is held.
    """
    rests = list(traces)
    heads = ((place, next(rest, None)) for place, rest in enumerate(rests))
    waiting = [(head[0], place, head) for place, head in heads if head is not None]
    heapify(waiting)
    while waiting:
        now = [heappop(waiting)]  # of this moment: the next of each trace, in the order of the traces
        moment = now[0][0]
        while waiting and waiting[0][0] == moment:
            now.append(heappop(waiting))
        while now:
            first = _first(now, too_early) if len(now) > 1 else 0
            _, place, head = now[first]
            yield head
            following = next(rests[place], None)
            if following is not None and following[0] <= moment:
                now[first] = moment, place, following
                continue
            del now[first]
            if following is not None:
                heappush(waiting, (following[0], place, following))


def _first(now: list[tuple[float, int, tuple[float, Node, Event]]], too_early: Callable[[Event], int]) -> int:
    """Which of these is the least early; the first of equal ones."""
    least, found = None, 0
    for index, (_, _, (_, _, event)) in enumerate(now):
        how = too_early(event)
        if how == 0:
            return index
        if least is None or how < least:
            least, found = how, index
    return found


@dataclass(slots=True, eq=False)
class Passage(Generic[Row]):
    """A segment on its way."""

    row: Row
    what: What
    life: int  # of which connection: the greater, the later it began
    sent: float | None  # when it was, in any unit; None: nobody saw that
    again: bool = False  # all or a part of it was sent before


@dataclass(slots=True)
class _Equal(Generic[Row]):
    """Segments that say the same, in one direction between two ends."""

    last: Passage[Row]
    under_way: list[Passage[Row]] = field(default_factory=list)
    came: Row | None = None  # the last that did
    copies: list[tuple[float, Row]] | None = None  # when, and what; None: there is none, as of nearly all

    def next(self) -> Passage[Row]:
        """The first under way: of the newest connection, for one that has ended sends nothing more."""
        first, newest = self.under_way[0], self.last.life
        return first if first.life == newest else next((one for one in self.under_way if one.life == newest), first)


@dataclass(slots=True)
class _Way(Generic[Row]):
    """One direction between two ends."""

    equal: dict[What, _Equal[Row]] = field(default_factory=dict)
    fastest: float | None = None  # from one end to the other, of what can't be mistaken


@dataclass(slots=True)
class _Between(Generic[Row]):
    """What was seen of what goes from one host to another, on all ports."""

    seen: deque[tuple[_Way[Row], Passage[Row]]] = field(default_factory=deque)
    damaged: dict[What, tuple[_Equal[Row], Passage[Row]]] = field(default_factory=dict)  # by what it said when it came
    in_vain: int = 0  # how often in a row nothing was like a damaged one


@dataclass(frozen=True, slots=True)
class Found(Generic[Row]):
    """Which segment it was that came, or was dropped."""

    row: Row
    damaged: bool = False  # it was not as it was sent


class Passages(Generic[Row]):
    """All segments between all ends."""

    def __init__(self, copy: Callable[[Row, int], Row]) -> None:
        """`copy`: makes the row of a further copy (2, 3 ...) of a segment, which the network or a debugger has made."""
        self._copy = copy
        self._ways: defaultdict[tuple[str, str], _Way[Row]] = defaultdict(_Way)  # source, destination
        self._hosts: defaultdict[tuple[str, str], _Between[Row]] = defaultdict(_Between)  # the same, without ports

    def too_early(self, event: Event) -> int:
        """The more, the later this is, of what has one time: 0 for all but arrivals, 3 if it was not sent yet.

        Raises KeyError, TypeError, ValueError or AttributeError if it is not as docs/trace.schema.json says.
        """
        if event["event"] != "received" and event.get("direction") != "received":
            return 0
        if "flags" in event and self._equal(event["peer"], event["local"], what(event)) is not None:
            return 1
        return 2 if event["event"] == "dropped" else 3  # what is damaged may be anything

    def _equal(self, source: str, destination: str, what: What) -> _Equal[Row] | None:
        way = self._ways.get((source, destination))
        return None if way is None else way.equal.get(what)

    def sent(self, source: str, destination: str, passage: Passage[Row]) -> None:
        """A segment is under way."""
        self._remember(source, destination, passage).under_way.append(passage)

    def appeared(self, source: str, destination: str, passage: Passage[Row]) -> None:
        """A segment has come that nobody saw leave."""
        self._remember(source, destination, passage).came = passage.row

    def _remember(self, source: str, destination: str, passage: Passage[Row]) -> _Equal[Row]:
        way = self._ways[source, destination]
        equal = way.equal.get(passage.what)
        if equal is None:
            equal = way.equal[passage.what] = _Equal(passage)
        equal.last = passage
        seen = self._hosts[host_of(source), host_of(destination)].seen
        seen.append((way, passage))
        if len(seen) > _REMEMBERED:
            old_way, old = seen.popleft()
            known = old_way.equal.get(old.what)
            if known is not None and known.last is old:
                del old_way.equal[old.what]
        return equal

    def arrived(
        self, source: str, destination: str, what: What, t: float, *, is_copy: bool = False
    ) -> Found[Row] | None:
        """Which segment it is that has come at the time `t`; None: nobody saw it leave, nor one that is like it."""
        way = self._ways.get((source, destination))
        equal = way.equal.get(what) if way is not None else None
        if way is None or equal is None:
            return self._like(source, destination, what, t)
        passage = None if is_copy else _first_under_way(way, equal, t)
        equal.came = passage.row if passage is not None else self._further(equal, t)
        return Found(equal.came)

    def just_arrived(self, source: str, destination: str, what: What) -> Row | None:
        """The last such segment that has come."""
        equal = self._equal(source, destination, what)
        return None if equal is None else equal.came

    def departed(self, source: str, destination: str, what: What, t: float, *, at_once: bool) -> Found[Row] | None:
        """Which segment was dropped by its sender, `at_once` when it was sent or later, or on its way."""
        equal = self._equal(source, destination, what)
        if equal is None:
            return self._like(source, destination, what, t)
        if not equal.under_way:
            return Found(self._further(equal, t))
        passage = equal.under_way[-1] if at_once else equal.next()
        equal.under_way.remove(passage)
        return Found(passage.row)

    def of_size(self, source: str, destination: str, size: int, t: float) -> Found[Row] | None:
        """The first under way of so many bytes: what came is no segment any more."""
        found, between = None, self._hosts.get((host_of(source), host_of(destination)))
        for way, passage in islice(reversed(between.seen), _COMPARED) if between is not None else ():
            equal = way.equal[passage.what]
            fits = passage in equal.under_way and _size(passage.what) == size
            if fits and not (found and _is_too_fast(way, passage, t)):
                found = equal, passage
        return self._damaged(*found, t) if found is not None else None

    def given_to_the_unseen(self) -> Iterator[tuple[Row, Row]]:
        """(unseen, copy): what came as a copy while an equal one was under way that nobody saw was that one."""
        for way in self._ways.values():
            for equal in way.equal.values():
                copies = list(equal.copies or ()) if equal.under_way else []
                for passage in reversed(equal.under_way):
                    while copies and copies[-1][0] < (passage.sent or 0.0):
                        copies.pop()
                    if copies:
                        yield passage.row, copies.pop()[1]

    # ---- copies, and damaged ones ---------------------------------------------------------------------------

    def _further(self, equal: _Equal[Row], t: float) -> Row:
        equal.copies = equal.copies or []
        copy = self._copy(equal.last.row if equal.came is None else equal.came, len(equal.copies) + 2)
        equal.copies.append((t, copy))
        return copy

    def _like(self, source: str, destination: str, what: What, t: float) -> Found[Row] | None:
        """The one that is most like this, which is damaged; None if none is."""
        between = self._hosts.get((host_of(source), host_of(destination)))
        if between is None:
            return None
        found = between.damaged.get(what)  # a copy of what was damaged before it was copied
        if found is None:
            found = self._most_like(between, what, t)
            between.in_vain = 0 if found is not None else between.in_vain + 1
        if found is None:
            return None
        if len(between.damaged) >= _COMPARED:
            del between.damaged[next(iter(between.damaged))]
        between.damaged[what] = found
        return self._damaged(*found, t)

    def _most_like(self, between: _Between[Row], what: What, t: float) -> tuple[_Equal[Row], Passage[Row]] | None:
        best: tuple[int, bool, int] | None = None
        found = None
        compared = _COMPARED if between.in_vain < _IN_VAIN else _FEW
        for age, (way, passage) in enumerate(islice(reversed(between.seen), compared)):
            damage = _damage(passage.what, what) if passage.sent is not None else _MOST_DAMAGE + 1
            if damage > _MOST_DAMAGE:
                continue
            equal = way.equal[passage.what]
            score = damage + 2 * _is_too_fast(way, passage, t), passage not in equal.under_way, -age
            if best is None or score < best:
                best, found = score, (equal, passage)
        return found

    def _damaged(self, equal: _Equal[Row], passage: Passage[Row], t: float) -> Found[Row]:
        if passage in equal.under_way:
            equal.under_way.remove(passage)
            equal.came = passage.row
        else:
            equal.came = self._further(equal, t)
        return Found(equal.came, damaged=True)


def _first_under_way(way: _Way[Row], equal: _Equal[Row], t: float) -> Passage[Row] | None:
    """Take the one of these that came at the time `t`; None if it was none of them."""
    if not equal.under_way:
        return None
    passage = equal.next()
    can_be_mistaken = equal.last is not passage or equal.came is not None or passage.again
    if not can_be_mistaken:
        took = t - (passage.sent or 0.0)
        way.fastest = took if way.fastest is None else min(way.fastest, took)
    elif _is_too_fast(way, passage, t):
        return None
    equal.under_way.remove(passage)
    return passage


def _is_too_fast(way: _Way[Row], passage: Passage[Row], t: float) -> bool:
    """Whether this can hardly be there at the time `t` already."""
    return way.fastest is not None and t - (passage.sent or 0.0) < way.fastest * _A_LITTLE_FASTER


# ---- what a segment says ------------------------------------------------------------------------------------


def what(event: Event) -> What:
    """All that the segment of an event says, ports included."""
    ends = event["local"], event["peer"]
    source, destination = ends if event["event"] == "sent" or event.get("direction") == "sent" else reversed(ends)
    get = event.get
    timestamp, sack = get("timestamp"), get("sack")
    return (
        _ports(source, destination),
        event["flags"],
        event["seq"],
        get("ack"),
        event["len"],
        event["wnd"],
        get("mss"),
        get("window_scale"),
        True if "sack_permitted" in event else None,
        None if timestamp is None else tuple(timestamp),
        None if sack is None else tuple(map(tuple, sack)),
    )


@lru_cache(maxsize=4096)
def _ports(source: str, destination: str) -> tuple[int, int]:
    return port_of(source), port_of(destination)


def _damage(sent: What, came: What) -> int:
    """In how many bits a segment that came differs from one that was sent, as far as the trace tells."""
    (
        (ports, flags, seq, ack, length, wnd, *options),
        (its_ports, its_flags, its_seq, its_ack, its_length, its_wnd, *its),
    ) = (
        sent,
        came,
    )
    bits: int = (seq ^ its_seq).bit_count()
    if bits > _MOST_DAMAGE:
        return bits
    bits += (wnd ^ its_wnd).bit_count() + (flag_bits(flags) ^ flag_bits(its_flags)).bit_count()
    bits += sum((one ^ other).bit_count() for one, other in zip(ports, its_ports, strict=True))
    if ack is not None and its_ack is not None:
        bits += (ack ^ its_ack).bit_count()
    bits += length != its_length
    return bits + _damage_of_options(options, its)


def _damage_of_options(options: list[Any], came: list[Any]) -> int:
    if [one is None for one in options] != [one is None for one in came]:
        return 1
    ours, theirs = list(_numbers(options)), list(_numbers(came))
    if len(ours) != len(theirs):
        return 1
    # Where a kind, a length or the header's length was damaged, all else may be other bytes.
    return min(sum((one ^ other).bit_count() for one, other in zip(ours, theirs, strict=True)), 2)


def _numbers(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, int):
            yield value
        elif value is not None:
            yield from _numbers(value)


def flag_bits(flags: str) -> int:
    """The control bits of these letters: "S." is SYN and ACK."""
    return sum(_FLAG_BITS[letter] for letter in flags)


def _size(said: What) -> int:
    """Bytes with the header."""
    *fixed, sack = said[6:]
    options = sum(length for length, value in zip(_OPTION_LENGTHS, fixed, strict=True) if value is not None)
    return 20 + options + (4 + 8 * len(sack) if sack else 0) + int(said[4])


@lru_cache(maxsize=4096)
def host_of(address: str) -> str:
    """Without its port, if it has one: what is of no segment has none."""
    host, colon, port = address.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() and (":" not in host or host.startswith("[")) else address


def port_of(address: str) -> int:
    """Its port."""
    return int(address.rpartition(":")[2])
