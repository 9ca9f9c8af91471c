"""The ladder diagram of a test: what the TCP under test and its peer said to each other (testbed.ladder draws it)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chitcpd.tcp.api import ACK, Options
from chitcpd.trace import flag_letters
from testbed import ladder, ladder_text
from testbed.grading.script import Event

FIRST, LAST = 20, 60  # of a long test, so many events are drawn
_JUDGED = 12  # rows at the end, which lead to the verdict: not folded


def draw(events: Sequence[Event], name: str, *, width: int = 80) -> str:
    """The diagram: the peer on the left, the TCP called `name` on the right.

    What the peer sends is never folded: whether it was two duplicates or three is what a test is about.
    """
    rows = _rows(events, name)
    by_script = [row for row in rows if isinstance(row, ladder.Segment) and row.side == 0]
    return ladder_text.render_text(rows, width, start=0.0, kept=[*by_script, *rows[-_JUDGED:]])


def short(events: Sequence[Event], *, like: Sequence[Event] | None = None) -> tuple[Event, ...]:
    """Of a long test, what a person reads: the first events of its last connection, and the last.

    `like`: other events of the same test; then it is the connection of that number, for both to show the same one.
    """
    begins = [0, *(at for at, event in enumerate(events) if event.kind == "begin"), len(events)]
    others = events if like is None else like
    number = min(sum(event.kind == "begin" for event in others), len(begins) - 2)
    events = events[begins[number] : begins[number + 1]]
    if len(events) <= FIRST + LAST:
        return tuple(events)
    left_out = len(events) - FIRST - LAST
    return (*events[:FIRST], Event(events[FIRST].at, "note", f"... {left_out} more ..."), *events[-LAST:])


def _rows(events: Iterable[Event], name: str) -> list[ladder.Row]:
    rows: list[ladder.Row] = []
    connection = ladder.Connection(1, ("peer:1", f"{name}:1"), ("peer", name))
    sent: ladder.Segment | None = None
    state = "CLOSED"
    for event in events:
        if event.kind == "begin":
            connection = ladder.Connection(connection.number + 1, connection.addresses, connection.hosts)
            state = "CLOSED"
        elif event.segment is not None:
            row = _segment(connection, event)
            sent = row if event.kind == "sent" else sent
            rows.append(row)
        elif event.kind == "lost" and sent is not None:
            sent.arrived, sent.dropped, sent.why, sent.where = None, event.at, event.text, "link"
        elif event.kind == "state":
            rows.append(ladder.StateChange(connection, 1, event.at, state, event.text))
            state = event.text
        elif event.kind == "timer":
            rows.append(ladder.Expiry(connection, 1, event.at, event.text))
        else:
            rows.append(ladder.Note(connection, 1, event.at, event.text))
    return rows


def _segment(connection: ladder.Connection, event: Event) -> ladder.Segment:
    seg = event.segment
    assert seg is not None
    return ladder.Segment(
        connection,
        side=1 if event.kind == "sent" else 0,
        flags=flag_letters(seg.flags),
        absolute_seq=seg.seq & 0xFFFFFFFF,
        absolute_ack=seg.ack & 0xFFFFFFFF if seg.flags & ACK else None,
        length=len(seg.data),
        wnd=seg.wnd,
        options=_options(seg.options),
        sent=event.at,
        arrived=event.at,
    )


def _options(options: Options | None) -> dict[str, object]:
    """By the names of docs/trace.md."""
    if options is None:
        return {}
    told = {"mss": options.mss, "window_scale": options.window_scale, "timestamp": options.timestamp}
    shown: dict[str, object] = {name: value for name, value in told.items() if value is not None}
    if options.sack_permitted:
        shown["sack_permitted"] = True
    if options.sack:
        shown["sack"] = [list(block) for block in options.sack]
    return shown
