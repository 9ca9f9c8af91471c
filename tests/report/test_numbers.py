"""What a report says of a real run is what its traces say, read otherwise."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from testbed import finished, ladder, traces
from testbed.report import Report
from testbed.report.collect import STATES, Collector
from testbed.report.segments import AGAIN, ARRIVED, DROPPED, FROM_B
from tests.testbed.schemas import faults

Events = dict[str, list[dict[str, Any]]]


def test_its_numbers_are_those_of_the_traces(report: Report, events: Events) -> None:
    told = report.summary()
    everything = list(chain.from_iterable(events.values()))
    assert faults("report", told) == []
    assert told["segments"] == sum(event["event"] == "sent" for event in everything)
    assert told["dropped"] == Counter(event["why"] for event in everything if event["event"] == "dropped")
    assert told["retransmissions"] == sum(map(traces.retransmissions, events.values())) > 0
    assert told["dropped"]["loss"] > 0
    assert told["dropped"]["queue"] > 0
    (connection,) = told["connections"]
    back = connection["directions"][1]  # bob has opened it, so what alice sends is the second direction
    assert back["from"]["node"] == "alice"
    assert back["to"]["node"] == "bob"
    received = [event for event in events["bob"] if event["event"] == "received"]
    flow = traces.flow(received)
    assert flow is not None
    assert back["bytes"] == flow.bytes
    assert abs(back["bits_per_second"] - flow.bits_per_second) < 0.001 * flow.bits_per_second


def test_segments_are_paired_as_the_ladder_pairs_them(report: Report, run_folder: Path) -> None:
    """testbed.ladder keeps an object for each segment, the report a packed row: they agree on what became of it."""
    (connection,) = report.collected.connections
    whole = finished.ladder_of(run_folder)
    (other,) = whole.connections
    assert (connection.ends[0].address, connection.ends[1].address) == other.addresses
    segments = [row for row in whole.rows if isinstance(row, ladder.Segment)]
    assert len(segments) == len(connection.segments) > 500
    zero = report.collected.zero
    for row, segment in zip(connection.segments, sorted(segments, key=lambda one: one.t), strict=True):
        assert segment.sent is not None
        assert abs(row.at - (segment.sent - zero) * 1e6) < 1
        assert (row.seq, row.len, bool(row.kind & FROM_B)) == (segment.seq, segment.length, segment.side == 1)
        assert row.kind & ARRIVED == (ARRIVED if segment.fate == "arrived" else 0)
        assert row.kind & DROPPED == (DROPPED if segment.fate == "dropped" else 0)
        assert bool(row.kind & AGAIN) == (segment.retransmission and segment.length > 0)
        ended = segment.arrived or segment.dropped
        if ended is not None:
            assert abs(row.at + row.way - (ended - zero) * 1e6) < 2
        if segment.fate == "dropped":
            assert report.network.nodes[row.where] == segment.where
            assert report.collected.reasons[row.why] == segment.why


def test_states_and_curves_are_those_of_each_end(report: Report, events: Events) -> None:
    (connection,) = report.collected.connections
    alice = connection.ends[1]
    mine = [event for event in events["alice"] if event["event"] == "state"]
    assert [STATES[state] for state in alice.states.what] == [event["to"] for event in mine]
    windows = [event["cwnd"] for event in events["alice"] if "cwnd" in event]
    assert list(alice.curves["cwnd"].v) == windows


def test_the_queue_is_as_long_as_the_link_lets_it_be(report: Report) -> None:
    narrow = next(one for one in report.network.directions if one.name == "r1->bob")
    lengths = report.collected.queues[narrow.index].curve().v
    assert list(narrow.limits().v) == [5]
    assert min(lengths) == 0
    assert 4 <= max(lengths) <= 13  # one is being sent beside those that wait; computers are late now and then
    assert report.collected.drops[narrow.index] > 0


def test_the_same_run_gives_the_same_bytes(report: Report, run_folder: Path) -> None:
    text = Report(run_folder).html()
    assert text == report.html()
    assert text == (run_folder / "report.html").read_text()


def test_events_in_any_shape_are_no_reason_to_fail(report: Report) -> None:
    """A trace may be somebody's own work."""
    ends = {"local": "127.64.0.2:1", "peer": "127.64.0.11:2"}
    segment = {"event": "sent", "flags": "S", "seq": 1, "len": 0, "wnd": 1, **ends}
    odd: tuple[Any, ...] = (None, -1, 1 << 70, "x" * 1000, [], {}, 1.5)
    strange: list[Any] = [
        *(None, 1, "sent", [], {}, {"event": "sent"}, {"event": "boom", **ends}),
        *({**segment, name: value} for name in segment for value in odd),
        *({**segment, "sack": value} for value in (1, [1], [[1]], [["a", "b"]], [[1 << 80, 2]] * 300)),
        *({**segment, "timestamp": value} for value in (1, [], [1, 2, 3], ["a", "b"], [-1, 1 << 40])),
        {"event": "dropped", **ends},
        {"event": "dropped", "why": {}, "direction": [], "bytes": "many", **ends},
        {"event": "state", "from": "CLOSED", "to": "HAPPY", **ends},
        {"event": "tcp", "cwnd": "big", "srtt": [], **ends},
    ]
    collector = Collector(report.network, 0.0)
    for event in strange:
        collector.add(1.0, 0, event)
    assert collector.unreadable > len(strange) / 2


def test_ports_that_are_used_again_are_another_connection(report: Report) -> None:
    collector = Collector(report.network, 0.0)
    ends = {"local": "127.64.0.2:1", "peer": "127.64.0.11:2"}
    for t, isn in ((1.0, 100), (2.0, 100), (3.0, 700)):  # the second is the first once more
        collector.add(t, 0, {"event": "sent", "flags": "S", "seq": isn, "len": 0, "wnd": 1, **ends})
    assert [len(connection.segments) for connection in collector.connections] == [2, 1]


def test_sequence_numbers_go_round(report: Report) -> None:
    collector = Collector(report.network, 0.0)
    ends = {"local": "127.64.0.2:1", "peer": "127.64.0.11:2"}
    first = (1 << 32) - 1000
    collector.add(1.0, 0, {"event": "sent", "flags": "S", "seq": first, "len": 0, "wnd": 1, **ends})
    for step in range(3):
        seq = (first + 1 + step * 1000) % (1 << 32)
        collector.add(
            2.0 + step, 0, {"event": "sent", "flags": ".", "ack": 5, "seq": seq, "len": 1000, "wnd": 1, **ends}
        )
    (connection,) = collector.connections
    assert [row.seq for row in connection.segments] == [0, 1, 1001, 2001]
    assert connection.ends[0].retransmissions == 0


def test_what_came_damaged_is_one_that_was_sent(report: Report) -> None:
    """A wrong checksum: what stands in the segment is not to be believed."""
    collector = Collector(report.network, 0.0)
    sent = {"event": "sent", "flags": ".", "seq": 1000, "ack": 1, "len": 100, "wnd": 9}
    came = {
        **sent,
        "event": "dropped",
        "why": "wrong checksum",
        "direction": "received",
        "bytes": 120,
        "seq": 1000 + (1 << 30),
    }
    collector.add(1.0, 0, {**sent, "local": "127.64.0.2:1", "peer": "127.64.0.10:2"})
    collector.add(1.1, 1, {**came, "local": "127.64.0.10:2", "peer": "127.64.0.2:1"})
    (connection,) = collector.connections
    (row,) = connection.segments
    assert row.kind & DROPPED
    assert row.way == 100_000
    assert collector.reasons[row.why] == "wrong checksum"
