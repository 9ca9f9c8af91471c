"""What a report says in numbers: for its tables, and for `testbed report --format json` (docs/schemas)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from testbed.report.collect import STATES, Connection, End

_FEWEST = 4  # segments of data that arrived, of which a rate says anything


def summary(
    manifest: Mapping[str, Any], connections: list[Connection], strays: Counter[str], span: int
) -> dict[str, Any]:
    """Of a run of so many microseconds; `strays`: how often what belongs to no connection was dropped, and why."""
    told = [_connection(number, connection) for number, connection in enumerate(connections, 1)]
    ways = [way for connection in told for way in connection["directions"]]
    dropped = Counter(strays)
    for way in ways:
        dropped.update(way["dropped"])
    return {
        "lab": manifest["lab"],
        "run_id": manifest["run_id"],
        "verdict": manifest["verdict"],
        "status": manifest["status"],
        "seconds": span / 1e6,
        "segments": sum(way["segments"] for way in ways),
        "bytes": sum(way["bytes"] for way in ways),
        "retransmissions": sum(way["retransmissions"] for way in ways),
        "dropped": dict(sorted(dropped.items())),
        "connections": told,
    }


def _connection(number: int, connection: Connection) -> dict[str, Any]:
    ends = connection.ends
    return {
        "number": number,
        "directions": [_direction(*ends), _direction(*reversed(ends))],
        "begins": connection.segments[0].at / 1e6 if len(connection.segments) else None,
    }


def _direction(sender: End, receiver: End) -> dict[str, Any]:
    arrived = sender.data_segments - sender.dropped_data
    seconds = (sender.last - sender.first) / 1e6 if sender.first is not None else 0.0
    states = sender.states.what
    return {
        "from": {"node": sender.node, "address": sender.address},
        "to": {"node": receiver.node, "address": receiver.address},
        "segments": sender.segments,
        "data_segments": sender.data_segments,
        "bytes": sender.bytes_arrived,
        "seconds": seconds,
        "bits_per_second": sender.bytes_arrived * 8 / seconds if seconds > 0 and arrived >= _FEWEST else 0.0,
        "retransmissions": sender.retransmissions,
        "dropped": dict(sorted(sender.dropped.items())),
        "min_rtt": sender.least_rtt,
        "state": STATES[states[-1]] if states else None,
    }
