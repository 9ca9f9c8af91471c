"""A ladder diagram (testbed.ladder) for programs: docs/schemas/ladder.schema.json describes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from testbed.ladder import Connection, Expiry, Note, Row, Segment, StateChange


def as_json(connections: Iterable[Connection], rows: Iterable[Row]) -> dict[str, Any]:
    """These, of what JSON knows."""
    return {"connections": [_connection(one) for one in connections], "rows": [_row(row) for row in rows]}


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
