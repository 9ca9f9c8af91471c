"""What becomes of events that are out of order, doubled or strange: made by hand, without a run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from testbed.report.collect import Collector
from testbed.report.paths import Network
from testbed.report.segments import AGAIN, ARRIVED, DUPLICATE
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
