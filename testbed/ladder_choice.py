"""A part of a ladder diagram: some of the connections, and a stretch of time."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.ladder import Connection, Ladder, Row, StateChange
from testbed.wrong import Wrong


class NoSuchConnection(Wrong):
    """Nothing is left of the choice; the message says what there is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be shown."""

    connections: list[Connection]
    rows: list[Row]
    start: float  # what a person calls 0: seconds since the epoch
    states_before: dict[int, list[str]]  # number of a connection -> its two ends' states, before these rows


def choose(
    ladder: Ladder,
    *,
    between: tuple[str, str] | None = None,
    connection: int | None = None,
    port: int | None = None,
    begin: float | None = None,
    end: float | None = None,
    start: float | None = None,
) -> Choice:
    """The part of a ladder that fulfils all that is asked for; `begin` and `end` in seconds from `start`.

    `start`: seconds since the epoch; None: with the first row. Raises NoSuchConnection if there is none.
    """
    chosen = [
        one
        for one in ladder.connections
        if (between is None or set(one.hosts) == set(between))
        and (connection is None or one.number == connection)
        and (port is None or port in one.ports)
    ]
    if not ladder.connections:
        raise NoSuchConnection(
            "there is nothing to draw: no segment was sent, so the TCP of the client never sent a SYN"
        )
    if not chosen:
        raise NoSuchConnection(f"there is no such connection; {_known(ladder)}")
    start = ladder.rows[0].t if start is None else start
    first = start + begin if begin is not None else float("-inf")
    last = start + end if end is not None else float("inf")
    numbers = {one.number for one in chosen}
    states: dict[int, list[str]] = {}
    rows = []
    for row in ladder.rows:
        if row.connection.number not in numbers:
            continue
        if first <= row.t <= last:
            rows.append(row)
        elif row.t < first and isinstance(row, StateChange):
            states.setdefault(row.connection.number, ["", ""])[row.side] = row.new
    if not rows:
        raise NoSuchConnection(
            f"nothing happened in that time; it ends at {max(one.end for one in chosen) - start:.6f} s"
        )
    numbers = {row.connection.number for row in rows}
    return Choice([one for one in chosen if one.number in numbers], rows, start, states)


def _known(ladder: Ladder) -> str:
    pairs = sorted({" and ".join(sorted(one.hosts)) for one in ladder.connections})
    ports = sorted({one.ports[1] for one in ladder.connections})
    count = len(ladder.connections)
    return (
        f"there {'is' if count == 1 else 'are'} {count}, between {', '.join(_some(pairs))}, "
        f"to port {', '.join(_some(list(map(str, ports))))}"
    )


def _some(names: list[str]) -> list[str]:
    return names if len(names) <= 6 else [*names[:6], "..."]
