"""What becomes of events that are out of order, doubled or strange: made by hand, without a run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from testbed.report.collect import Collector
from testbed.report.paths import Network
from testbed.report.segments import AGAIN, ARRIVED, DROPPED, DUPLICATE
from testbed.report.summary import summary

ALICE, BOB = "127.64.0.2:1", "127.64.0.10:2"


@pytest.fixture
def collector() -> Collector:
    """One that knows two nodes, and no link between them."""
    hosts: dict[str, Any] = {"alice": {"addresses": {}}, "bob": {"addresses": {}}}
    return Collector(Network({"hosts": hosts, "routers": {}, "links": []}), 0.0)


def tell(collector: Collector, t: float, node: int, event: str, **more: Any) -> None:
    """Something happens to data that alice sends to bob; node 0 is alice, 1 is bob."""
    local, peer = (ALICE, BOB) if node == 0 else (BOB, ALICE)
    said = {"flags": ".", "seq": 1000, "ack": 1, "len": 100, "wnd": 9, "local": local, "peer": peer}
    collector.add(t, node, {"event": event, **said, **more})
    assert collector.unreadable == 0


def numbers(collector: Collector) -> dict[str, Any]:
    """What the report says of it."""
    manifest = {"lab": "x", "run_id": "x", "verdict": "x", "status": 0}
    return summary(manifest, collector.connections, collector.strays_dropped, collector.last)


def test_a_duplicate_does_not_move_the_first_arrival(collector: Collector) -> None:
    tell(collector, 1.0, 0, "sent")
    tell(collector, 1.1, 1, "received")
    tell(collector, 1.9, 1, "received")
    (row,) = collector.connections[0].segments
    assert row.kind & ARRIVED
    assert row.kind & DUPLICATE
    assert row.way == 100_000


@pytest.mark.parametrize("drop_first", [True, False])
def test_a_dropped_copy_of_a_duplicate_was_not_sent_again(collector: Collector, *, drop_first: bool) -> None:
    tell(collector, 1.0, 0, "sent")
    for drops in (drop_first, not drop_first):
        if drops:
            tell(collector, 1.1, 1, "dropped", why="partition", direction="received", bytes=140)
        else:
            tell(collector, 1.1, 1, "received")
    (sender, _) = collector.connections[0].ends
    assert (sender.segments, sender.data_segments, sender.retransmissions) == (1, 1, 0)
    assert not any(row.kind & AGAIN for row in collector.connections[0].segments)
    assert sender.dropped == {"partition": 1}


def test_what_comes_from_a_host_without_a_trace_counts_as_sent(collector: Collector) -> None:
    tell(collector, 1.0, 1, "received")
    tell(collector, 1.1, 1, "received", seq=1100)
    (sender, receiver) = collector.connections[0].ends
    assert (sender.segments, receiver.segments) == (2, 0)


def test_only_a_syn_that_is_sent_begins_another_life(collector: Collector) -> None:
    """The ends of a connection are used again, and an old SYN comes once more."""
    for t, isn in ((1.0, 100), (2.0, 700)):
        tell(collector, t, 0, "sent", flags="S", seq=isn, len=0)
        tell(collector, t + 0.1, 1, "received", flags="S", seq=isn, len=0)
    tell(collector, 2.2, 1, "received", flags="S", seq=100, len=0)
    tell(collector, 2.3, 0, "sent", seq=701)
    first, second = collector.connections
    assert (first.ends[0].segments, second.ends[0].segments) == (1, 2)
    assert second.segments[len(second.segments) - 1].seq == 1


def test_the_same_ports_and_numbers_after_a_restart_are_another_connection(collector: Collector) -> None:
    """As of a daemon with a seed, which numbers its connections as before."""
    for t in (1.0, 5.0):
        collector.add(
            t,
            0,
            {"event": "state", "connection": 1, "local": ALICE, "peer": BOB, "from": "CLOSED", "to": "SYN_SENT"},
        )
        tell(collector, t, 0, "sent", flags="S", seq=100, len=0, connection=1)
    tell(collector, 5.1, 1, "received", flags="S", seq=100, len=0)
    collector.finish()
    assert [[row.kind & ARRIVED for row in one.segments] for one in collector.connections] == [[0], [ARRIVED]]


def test_of_damaged_segments_that_which_differs_least_is_the_one(collector: Collector) -> None:
    """Wherever the bits were turned: also in a port. Two others are under way before it."""
    for seq in (1000, 1100, 1200):
        tell(collector, 1.0, 0, "sent", seq=seq)
    damaged = {"seq": 1200, "local": BOB, "peer": "127.64.0.2:3", "why": "wrong checksum", "direction": "received"}
    tell(collector, 1.1, 1, "dropped", bytes=120, **damaged)
    (connection,) = collector.connections
    assert [row.kind & DROPPED for row in connection.segments] == [0, 0, DROPPED]


def test_what_is_no_segment_any_more_is_found_by_its_length(collector: Collector) -> None:
    tell(collector, 1.0, 0, "sent", len=100)
    tell(collector, 1.0, 0, "sent", seq=1100, len=60)
    broken = {"event": "dropped", "local": "127.64.0.10", "peer": "127.64.0.2", "direction": "received"}
    collector.add(1.1, 1, {**broken, "why": "a data offset", "bytes": 80})
    (connection,) = collector.connections
    assert [row.kind & DROPPED for row in connection.segments] == [0, DROPPED]
    assert numbers(collector)["dropped"] == {"a data offset": 1}


def test_a_way_that_has_become_shorter_makes_no_duplicate(collector: Collector) -> None:
    """What looked too fast to be the second was the second after all: nothing else has come."""
    tell(collector, 0.0, 0, "sent", flags="S", len=0, seq=999)
    tell(collector, 0.5, 1, "received", flags="S", len=0, seq=999)
    for sent, came in ((1.0, 1.5), (2.0, 2.1)):
        tell(collector, sent, 0, "sent")
        tell(collector, came, 1, "received")
    collector.finish()
    (connection,) = collector.connections
    assert [(row.kind & (ARRIVED | DUPLICATE), row.way) for row in connection.segments] == [
        (ARRIVED, 500_000),
        (ARRIVED, 500_000),
        (ARRIVED, 100_000),
    ]


def test_very_many_connections_are_counted_and_left_out(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.report.collect.MOST_CONNECTIONS", 3)
    for port in range(5):
        for t in (1.0, 2.0):
            tell(collector, t + port, 0, "sent", peer=f"127.64.0.10:{port}", seq=int(1000 * t))
    assert (len(collector.connections), collector.left_out) == (3, 4)


def test_acknowledgments_that_overtake_each_other_take_nothing_back(collector: Collector) -> None:
    tell(collector, 1.0, 0, "sent", seq=1000, len=5000)
    for t, ack, wnd in ((1.1, 1000, 9000), (1.2, 4900, 6000), (1.3, 2900, 7000), (1.4, 4900, 9000)):
        tell(collector, t, 0, "received", seq=1, ack=ack, len=0, wnd=wnd)
    (sender, _) = collector.connections[0].ends
    assert list(sender.acked.v) == [0, 3900]
    assert list(sender.edge.v) == [9000, 9900, 12900]


@pytest.mark.parametrize(("segments", "bits_per_second"), [(2, 0), (4, 4 * 8 * 500 / 0.03)])
def test_a_few_segments_have_no_goodput(collector: Collector, segments: int, bits_per_second: float) -> None:
    for number in range(segments):
        tell(collector, 1.0 + number / 100, 0, "sent", seq=1000 + 500 * number, len=500)
        tell(collector, 1.0 + number / 100, 1, "received", seq=1000 + 500 * number, len=500)
    assert numbers(collector)["connections"][0]["directions"][0]["bits_per_second"] == pytest.approx(bits_per_second)


def test_a_link_that_an_event_changes_has_another_rate_limit_and_delay_from_then_on() -> None:
    """The end of the event has not come: the run was over before."""
    at_first = {"delay": 0.003, "rate": 10e6, "queue_packets": None, "queue_bytes": 9000}
    later = {"delay": 0.04, "rate": 3e6, "queue_packets": None, "queue_bytes": None}
    link = {"link": "radio", "direction": "alice->bob"}
    manifest: dict[str, Any] = {
        "began": 1000.0,
        "hosts": {name: {"addresses": {"radio": address}} for name, address in (("alice", "a"), ("bob", "b"))},
        "routers": {},
        "links": [{**link, "asked": at_first}],
        "events": [
            {"done": 2.0, "links": [{**link, "asked": later}]},
            {"done": None, "links": [{**link, "asked": at_first}]},
        ],
    }
    network = Network(manifest)
    (direction,) = network.directions
    assert (list(direction.rates().t), list(direction.rates().v)) == ([0, 2_000_000], [10e6, 3e6])
    limits = direction.limits()
    assert limits.v[0] == 9000
    assert math.isnan(limits.v[1])
    wait = network.wait("alice", "bob")
    assert wait is not None
    assert wait.queued(1_000_000, 1_010_000) == (1_000_000, 1_007_000)
    assert wait.queued(2_000_000, 2_050_000) == (2_000_000, 2_010_000)


def test_what_was_dropped_and_belongs_to_no_connection_counts(collector: Collector) -> None:
    """Of many only the first are listed: the others are told as left out."""
    stray = {"event": "dropped", "local": BOB, "peer": ALICE, "direction": "received", "bytes": 9, "why": "too short"}
    for _ in range(1003):
        collector.add(1.0, 1, dict(stray))
    assert numbers(collector)["dropped"] == {"too short": 1003}
    assert (len(collector.strays), collector.left_out, collector.unreadable) == (1000, 3, 0)
