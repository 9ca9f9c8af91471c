"""A ladder diagram (testbed.ladder) for programs: docs/schemas/ladder.schema.json describes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from testbed.ladder import Connection, Expiry, Note, Row, Segment, StateChange


def pieces(run: str, connections: Iterable[Connection], rows: Iterable[Row]) -> Iterator[str]:
    """The text, a row on a line: of a long run it is not held whole."""
    yield f'{{"run": {json.dumps(run)},\n "connections": {json.dumps([_connection(one) for one in connections])},'
    yield '\n "rows": ['
    for index, row in enumerate(rows):
        yield f"{',' if index else ''}\n  {json.dumps(_row(row))}"
    yield "]}\n"


def _connection(connection: Connection) -> dict[str, Any]:
    ends = zip(connection.hosts, connection.addresses, connection.isns, connection.shifts, strict=True)
    return {
        "number": connection.number,
        "ends": [
            {"host": host, "address": address, "isn": isn, "window_shift": shift} for host, address, isn, shift in ends
        ],
        "begin": connection.begin,
        "end": connection.end,
        "segments": connection.segments,
    }


def _row(row: Row) -> dict[str, Any]:
    common = {"connection": row.connection.number, "t": row.t}
    match row:
        case Segment():
            return common | _segment(row)
        case StateChange():
            return common | {"kind": "state", "host": row.host, "from": row.old, "to": row.new}
        case Expiry():
            return common | {"kind": "timer", "host": row.host, "timer": row.timer}
        case Note():
            return common | {"kind": "note", "host": row.host, "text": row.text}


def _segment(segment: Segment) -> dict[str, Any]:
    others = {name: value for name, value in segment.options.items() if name != "sack"}
    return {
        "kind": "segment",
        "from": segment.source,
        "to": segment.destination,
        "sent": segment.sent,
        "arrived": segment.arrived,
        "fate": segment.fate,
        "dropped": segment.dropped,
        "why": segment.why,
        "where": segment.where,
        "copy": segment.copy,
        "retransmission": segment.retransmission,
        "overtaken": segment.overtaken,
        "damaged": segment.damaged,
        "flags": segment.flags,
        "seq": segment.seq,
        "ack": segment.ack,
        "len": segment.length,
        "window": segment.window,
        "options": others | ({"sack": segment.sack} if segment.sack else {}),
    }
