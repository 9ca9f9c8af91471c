"""Draws a ladder diagram (testbed.ladder) with characters: a line per segment, the hosts' states at both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from testbed.ladder import Connection, Expiry, Row, Segment, StateChange

LEAST_WIDTH = 72
_TIME, _STATE = 9, 12  # columns
_AT_ONCE = 0.001  # seconds: a state stands on the line of the segment that led to it, if no more lies between them
_LONGEST_WHY = 24  # characters
_LEAST_RUN = 8  # rows that are alike before they are folded
_SHOWN_OF_RUN = 2  # at its begin, and at its end
_QUIET_TIMERS = frozenset({"DELAYED_ACK"})

Style = str  # "plain", "bad", "note", "head", "state" or "quiet"


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and what it is about: who prints it on a terminal may give it a colour."""

    text: str
    style: Style = "plain"


def render_text(
    rows: Iterable[Row],
    width: int = 80,
    *,
    start: float | None = None,
    fold: bool = True,
    kept: Collection[Row] = (),
) -> str:
    """The diagram as text, with a newline at the end of each line; "" if there is nothing to draw.

    `width`: columns, at least 72. `start`: the time that is 0, seconds since the epoch; by default the first row's.
    Unless `fold` is False, many rows that are alike are one line that counts them; never those of `kept`.
    """
    return "".join(f"{line.text}\n" for line in lines(rows, width, start=start, fold=fold, kept=kept))


def lines(
    rows: Iterable[Row],
    width: int = 80,
    *,
    start: float | None = None,
    fold: bool = True,
    kept: Collection[Row] = (),
    states: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> Iterator[Line]:
    """The same, line by line: a diagram for each connection.

    `states`: the number of a connection -> in which state its two ends are before these rows, where that is known.
    """
    by_connection: dict[int, list[Row]] = {}
    for row in rows:
        by_connection.setdefault(row.connection.number, []).append(row)
    never_folded = {id(row) for row in kept}
    if start is None:
        start = min((group[0].t for group in by_connection.values()), default=0.0)
    for index, (number, group) in enumerate(by_connection.items()):
        if index:
            yield Line("")
        if len(by_connection) > 1:
            yield Line(f"connection {number}", "head")
        diagram = _Diagram(group[0].connection, max(width, LEAST_WIDTH), start)
        yield from diagram.lines(group, states.get(number, ("", "")), fold=fold, kept=never_folded)


class _Diagram:
    """The diagram of one connection."""

    def __init__(self, connection: Connection, width: int, start: float) -> None:
        self._connection = connection
        self._middle = width - _TIME - 2 * _STATE - 3
        self._start = start

    def lines(self, rows: Sequence[Row], states: Sequence[str], *, fold: bool, kept: set[int]) -> Iterator[Line]:
        """All of it."""
        yield self._head()
        if any(states):
            left, right = map(_rfc_name, states)
            yield Line(f"{'':{_TIME}} {left:<{_STATE}} {'':{self._middle}} {right}".rstrip(), "state")
        absorbed, cells = _states_on_segments(rows)
        rest = [row for row in rows if id(row) not in absorbed]
        draw = self._row_with(cells)
        for run in _runs(rest, kept | {key for key, _ in cells}):
            if len(run) < _LEAST_RUN or not fold:
                yield from map(draw, run)
            else:
                yield from map(draw, run[:_SHOWN_OF_RUN])
                yield self._folded(run[_SHOWN_OF_RUN:-_SHOWN_OF_RUN])
                yield from map(draw, run[-_SHOWN_OF_RUN:])

    def _head(self) -> Line:
        names = []
        for host, address in zip(self._connection.hosts, self._connection.addresses, strict=True):
            names.append(address if address.startswith(host) else f"{host} {address}")
        space = self._middle + 2 * _STATE + 2
        left, right = names
        gap = max(space - len(left) - len(right), 2)
        return Line(f"{'seconds':>{_TIME}} {left}{' ' * gap}{right}".rstrip(), "head")

    def _row_with(self, cells: dict[tuple[int, int], str]) -> Callable[[Row], Line]:
        def draw(row: Row) -> Line:
            left, right = (_rfc_name(cells.get((id(row), side), "")) for side in (0, 1))
            if isinstance(row, Segment):
                return self._line(row.t, left, self._arrow(row), right, _style(row))
            if isinstance(row, StateChange):
                text, style = _rfc_name(row.new), "state"
            elif isinstance(row, Expiry):
                text, style = f"* {row.timer} timer", "quiet" if row.timer in _QUIET_TIMERS else "note"
            else:
                text, style = f"* {row.text}", "quiet"
            return self._at(row.t, row.side, text, style)

        return draw

    def _line(self, t: float, left: str, middle: str, right: str, style: Style) -> Line:
        time = f"{t - self._start:{_TIME}.6f}"
        if len(time) > _TIME:
            time = f"{t - self._start:{_TIME}.3f}"
        return Line(f"{time} {left:<{_STATE}} {middle:<{self._middle}} {right}".rstrip(), style)

    def _at(self, t: float, side: int, text: str, style: Style) -> Line:
        """Something at one end: it may take the room between the two."""
        text = _cut(text, _STATE + self._middle)
        if side == 0:
            return self._line(t, text, "", "", style)
        rest = _STATE + 1 + self._middle + 1 + _STATE
        text = f"{text:<{_STATE}}"
        line = self._line(t, "", "", "", style).text
        return Line(f"{line:<{_TIME}} {text:>{rest}}".rstrip(), style)

    def _arrow(self, segment: Segment) -> str:
        """`--- S seq 0 --->`: as long as it came, and what became of it."""
        end = _end_of(segment)
        label = _fitting(_fields(segment), self._middle - len(end) - 5)
        room = self._middle - len(end) - len(label) - 2
        if segment.fate != "arrived" and segment.arrived is None:
            room = min(room, max(self._middle * 2 // 3 - len(label), 6))
        before = min(3, room // 2)
        if segment.side == 0:
            return f"{'-' * before} {label} {'-' * (room - before)}{end}"
        if segment.arrived is None:
            return f"{_mirrored(end)}{'-' * (room - before)} {label} {'-' * before}".rjust(self._middle)
        end = _mirrored(end)
        before = max(3 - len(end), 0)  # so that what is said begins where that of the other direction does
        return f"{end}{'-' * before} {label} {'-' * (room - before)}"

    def _folded(self, run: Sequence[Row]) -> Line:
        """What a run is, in one line."""
        segments = [row for row in run if isinstance(row, Segment)]
        parts = []
        for side, way in ((0, f"to {self._connection.hosts[1]}"), (1, f"to {self._connection.hosts[0]}")):
            data = [segment for segment in segments if segment.side == side and segment.length]
            others = sum(segment.side == side and not segment.length for segment in segments)
            if data:
                parts.append(f"{len(data)} with {sum(segment.length for segment in data)} bytes {way}")
            if others:
                parts.append(f"{others} {'ACK' if others == 1 else 'ACKs'} {way}")
        timers = Counter(row.timer for row in run if isinstance(row, Expiry))
        parts += [f"{count} {name} timer{'' if count == 1 else 's'}" for name, count in timers.items()]
        kind = _kind(run[0])
        about = f"{kind}: " if kind not in (None, "plain") else ""
        return Line(f"{':':>{_TIME}} {about}{', '.join(parts)}", "quiet")


def _states_on_segments(rows: Sequence[Row]) -> tuple[set[int], dict[tuple[int, int], str]]:
    """Which changes of state have room on the line of a segment: (identities of those), (segment, side) -> state."""
    absorbed: set[int] = set()
    cells: dict[tuple[int, int], str] = {}
    there = {id(row) for row in rows}
    for row in rows:
        if not isinstance(row, StateChange) or (segment := row.after) is None or id(segment) not in there:
            continue
        when = segment.sent if segment.side == row.side and segment.copy == 1 else segment.arrived
        key = id(segment), row.side
        if when is not None and row.t - when <= _AT_ONCE and cells.get(key, "LISTEN") == "LISTEN":
            absorbed.add(id(row))
            cells[key] = row.new
    return absorbed, cells


def _runs(rows: Sequence[Row], single: set[int]) -> Iterator[list[Row]]:
    """Rows that follow each other and are of one kind, together; those with an identity in `single` alone."""
    alone = iter(range(len(rows)))
    for _, run in groupby(rows, lambda row: next(alone) if id(row) in single else _kind(row) or next(alone)):
        yield list(run)


def _kind(row: Row) -> str | None:
    """Rows of one kind can be folded; None: never."""
    if isinstance(row, Expiry):
        return "plain" if row.timer in _QUIET_TIMERS else None
    if not isinstance(row, Segment) or row.damaged or set(row.flags) & set("SFR"):
        return None
    if row.fate == "dropped":
        return f"dropped ({row.why})"
    if row.fate == "unseen":
        return "not seen again"
    if row.copy > 1:
        return "further copies"
    if row.retransmission:
        return "sent again"
    return "overtaken" if row.overtaken else "plain"


def _style(segment: Segment) -> Style:
    if segment.fate == "dropped":
        return "bad"
    unusual = segment.retransmission or segment.copy > 1 or segment.fate == "unseen" or "R" in segment.flags
    return "note" if unusual else "plain"


def _fields(segment: Segment) -> list[str]:
    """The fields, the most telling ones first."""
    parts = [segment.flags or "no flags"]
    if segment.length:
        parts.append(f"seq {segment.seq}:{segment.seq + segment.length}")
    elif segment.flags != ".":
        parts.append(f"seq {segment.seq}")
    if segment.ack is not None:
        parts.append(f"ack {segment.ack}")
    parts += [f"sack {first}:{behind}" for first, behind in segment.sack]
    if segment.copy > 1:
        parts.append(f"(copy {segment.copy})")
    elif segment.retransmission:
        parts.append("(again)")
    if segment.overtaken:
        parts.append("(overtaken)")
    parts.append(f"wnd {segment.window}")
    options = segment.options
    if "mss" in options:
        parts.append(f"mss {options['mss']}")
    if "window_scale" in options:
        parts.append(f"ws {options['window_scale']}")
    if "sack_permitted" in options:
        parts.append("sackOK")
    return parts


def _end_of(segment: Segment) -> str:
    """The end of the arrow that points to the right."""
    if segment.fate == "unseen":
        return " ?"
    if segment.fate == "arrived":
        return ">"
    at = "" if segment.where in (segment.source, segment.destination) else f" at {segment.where}"
    why = _cut(segment.why or "", _LONGEST_WHY)
    return f"X {why}{at}" if segment.arrived is None else f">X {why}"


def _mirrored(end: str) -> str:
    """The same of one that points to the left."""
    if end in (">", " ?"):
        return "<" if end == ">" else "? "
    return f"{end.partition('X ')[2]} X{'<' if end.startswith('>') else ''}"


def _fitting(parts: Iterable[str], room: int) -> str:
    """As many of these as there is room for."""
    text = ""
    for part in parts:
        if len(text) + len(part) + 1 > room:
            return text or _cut(part, room)
        text = f"{text} {part}" if text else part
    return text


def _rfc_name(state: str) -> str:
    """A state of a trace as RFC 9293 spells it (§3.3.2): SYN-RECEIVED for SYN_RCVD."""
    return state.replace("RCVD", "RECEIVED").replace("_", "-")


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 2, 1)].rstrip() + ".."
