"""What the events of a topology come to: which end of which link does what, from when on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from chitcpd.faults import Shape
from testbed.events import Step, timeline
from testbed.plan import Plan, Underlay
from testbed.topology import Topology
from tests.testbed.plans import Written, plan_of

LAB: Written = {
    "name": "lab",
    "hosts": {"alice": {}, "bob": {}, "carol": {}},
    "routers": {"r1": {}},
    "links": [
        {"endpoints": ["alice", "r1"], "delay": "10ms", "rate": "10mbit", "queue": "2bdp"},
        {"endpoints": ["bob", "carol", "r1"], "name": "office"},
    ],
    "apps": {"client": {"host": "alice", "run": ["x"]}},
}


def steps(*events: Mapping[str, object], **changes: object) -> tuple[Step, ...]:
    written = LAB | {"events": list(events)} | changes
    return timeline(Topology.model_validate(written), plan_of(written))


def plan() -> Plan:
    return plan_of(LAB)


def shapes(events: tuple[Step, ...], node: str) -> list[tuple[float, Shape]]:
    """(when, what from then on) of what a node sends."""
    return [(step.at, change.shape) for step in events for change in step.reshapes if change.node == node]


def delays(events: tuple[Step, ...], node: str = "alice") -> list[tuple[float, float]]:
    return [(at, shape.delay) for at, shape in shapes(events, node)]


def downs(events: tuple[Step, ...], node: str = "alice") -> list[tuple[float, bool]]:
    return [(at, shape.down) for at, shape in shapes(events, node)]


def test_without_events_nothing_happens() -> None:
    assert steps() == ()


def test_a_change_is_over_what_the_link_does_and_holds() -> None:
    (step,) = steps({"at": "5s", "link": "alice-r1", "set": {"loss": "1%"}})
    assert (step.at, step.title) == (5.0, "link alice-r1: loss 1%")
    assert [change.node for change in step.reshapes] == ["alice", "r1"]
    planned = plan().node("alice").interface("alice-r1")
    assert step.reshapes[0].interface == planned
    assert step.reshapes[0].shape == Shape(delay=0.01, rate=10e6, queue_bytes=planned.shape.queue_bytes, loss=0.01)
    assert step.reshapes[0].underlay == Underlay()


def test_a_change_may_be_of_one_direction_and_for_a_while() -> None:
    events = steps({"at": "5s", "link": "alice-r1", "set": {"delay": "50ms"}, "from": "r1", "for": "2s"})
    assert [step.title for step in events] == [
        "link alice-r1 from r1: delay 50ms",
        "the end of link alice-r1 from r1: delay 50ms",
    ]
    assert delays(events, "alice") == []
    assert delays(events, "r1") == [(5, 0.05), (7, 0.01)]


def test_a_queue_in_bdp_goes_with_the_rate_and_the_delay() -> None:
    (step,) = steps({"at": "0s", "link": "alice-r1", "set": {"rate": "1mbit"}})
    assert step.reshapes[0].shape.queue_bytes == 2 * 1e6 * 2 * 0.01 / 8


def test_of_two_changes_that_overlap_the_later_one_counts_and_each_ends_by_itself() -> None:
    events = steps(
        {"at": "3s", "link": "alice-r1", "set": {"delay": "30ms"}, "for": "4s"},  # out of order in the file
        {"at": "1s", "link": "alice-r1", "set": {"delay": "20ms", "loss": "5%"}, "for": "4s"},
    )
    assert [(at, shape.delay, shape.loss) for at, shape in shapes(events, "alice")] == [
        (1, 0.02, 0.05),
        (3, 0.03, 0.05),
        (5, 0.03, 0.0),
        (7, 0.01, 0.0),
    ]


def test_a_change_that_changes_nothing_is_no_step() -> None:
    assert steps({"at": "1s", "link": "alice-r1", "set": {"delay": "10ms"}}) == ()


def test_the_underlay_changes_too() -> None:
    (step,) = steps({"at": "1s", "link": "office", "set": {"underlay": {"loss": "1%"}}})
    assert [(change.node, change.underlay) for change in step.reshapes] == [
        (end, Underlay(loss=0.01)) for end in ("bob", "carol", "r1")
    ]


def test_a_link_is_down_for_a_while() -> None:
    events = steps({"at": "1s", "link": "office", "down": "500ms"})
    assert downs(events, "carol") == [(1, True), (1.5, False)]
    assert [step.title for step in events] == ["link office: down", "the end of link office: down"]


def test_a_link_is_down_until_it_is_up() -> None:
    events = steps({"at": "1s", "link": "office", "down": "true"}, {"at": "4s", "link": "office", "up": "true"})
    assert downs(events, "bob") == [(1, True), (4, False)]
    assert [step.title for step in events] == ["link office: down", "link office: up"]
    assert downs(steps({"at": "1s", "link": "office", "down": "true"}), "bob") == [(1, True)]


def test_up_ends_what_is_down_for_a_while_too_and_only_what_was_down_before() -> None:
    down = {"at": "1s", "link": "office", "down": "9s"}
    assert downs(steps(down, {"at": "4s", "link": "office", "up": "true"}), "bob") == [(1, True), (4, False)]
    assert downs(steps(down, {"at": "500ms", "link": "office", "up": "true"}), "bob") == [(1, True), (10, False)]


def test_two_times_down_that_overlap_are_one() -> None:
    events = steps({"at": "1s", "link": "office", "down": "3s"}, {"at": "2s", "link": "office", "down": "4s"})
    assert downs(events, "bob") == [(1, True), (6, False)]


def test_what_changes_while_a_link_is_down_is_there_when_it_is_up() -> None:
    events = steps(
        {"at": "1s", "link": "alice-r1", "down": "4s"},
        {"at": "2s", "link": "alice-r1", "set": {"delay": "70ms"}},
    )
    assert [(at, shape.down, shape.delay) for at, shape in shapes(events, "alice")] == [
        (1, True, 0.01),
        (2, True, 0.07),
        (5, False, 0.07),
    ]


def test_drop_rules_stay_with_the_link() -> None:
    drops = LAB | {"links": [LAB["links"][0] | {"drop": [{"from": "alice", "nth": "3"}]}, LAB["links"][1]]}
    (step,) = steps({"at": "1s", "link": "alice-r1", "set": {"loss": "1%"}}, links=drops["links"])
    assert [len(change.shape.drops) for change in step.reshapes] == [1, 0]


def test_a_partition_blocks_all_addresses_of_the_others_and_ends() -> None:
    begin, end = steps({"at": "2s", "partition": [["alice"], ["bob", "carol"]], "for": "3s"})
    lab = plan()
    alice, bob, carol = (lab.node(name).interfaces[0].address for name in ("alice", "bob", "carol"))
    assert (begin.at, begin.title) == (2.0, "partition alice | bob carol")
    assert begin.blocked == {"alice": tuple(sorted((bob, carol))), "bob": (alice,), "carol": (alice,)}
    assert (end.at, end.blocked) == (5.0, {"alice": (), "bob": (), "carol": ()})


def test_partitions_that_overlap_add_up() -> None:
    events = steps(
        {"at": "1s", "partition": [["alice"], ["bob"]], "for": "3s"},
        {"at": "2s", "partition": [["alice"], ["carol"]], "for": "4s"},
    )
    assert [(step.at, len(step.blocked["alice"])) for step in events] == [(1, 1), (2, 2), (4, 1), (6, 0)]


def test_another_chitcpd_than_ours_is_told_of_no_partition_but_is_blocked_by_ours() -> None:
    hosts = LAB["hosts"] | {"bob": {"image": "other:1"}}
    (step,) = steps({"at": "1s", "partition": [["alice"], ["bob"]]}, hosts=hosts)
    assert step.blocked.keys() == {"alice", "carol"}
    assert len(step.blocked["alice"]) == 1


def test_a_pause_has_two_steps() -> None:
    events = steps({"at": "1s", "host": "alice", "pause": "2s"})
    assert [(step.at, step.host) for step in events] == [(1, ("alice", "pause")), (3, ("alice", "resume"))]
    assert [step.title for step in events] == ["chitcpd of alice stands still", "chitcpd of alice goes on"]


@pytest.mark.parametrize(
    ("pauses", "goes_on"),
    [
        ([("1s", "3s"), ("2s", "1s")], [4]),
        ([("1s", "2s"), ("2s", "3s")], [5]),
        ([("1s", "2s"), ("3s", "1s")], [4]),
        ([("1s", "2s"), ("2s", "1s")], [3]),
        ([("1s", "1s"), ("3s", "1s")], [2, 4]),
    ],
)
def test_a_host_goes_on_when_no_pause_of_its_lasts(pauses: list[tuple[str, str]], goes_on: list[int]) -> None:
    bob = {"at": "0s", "host": "bob", "pause": "10s"}
    events = steps(bob, *({"at": at, "host": "alice", "pause": duration} for at, duration in pauses))
    assert [step.at for step in events if step.host == ("alice", "resume")] == goes_on


def test_a_pause_ends_as_the_daemon_is_started_anew() -> None:
    alice = {"host": "alice"}
    restart = {"at": "2s", "restart": "chitcpd"}
    events = steps({"at": "1s", "pause": "9s"} | alice, restart | alice, {"at": "3s", "pause": "1s"} | alice)
    assert 4 in [step.at for step in events if step.host == ("alice", "resume")]


@pytest.mark.parametrize(
    ("event", "host", "app"),
    [
        ({"host": "bob", "restart": "chitcpd"}, ("bob", "restart"), None),
        ({"host": "bob", "kill": "chitcpd"}, ("bob", "kill"), None),
        ({"app": "client", "kill": "SIGUSR1"}, None, ("client", "SIGUSR1")),
    ],
)
def test_other_deeds_have_one(event: dict[str, object], host: object, app: object) -> None:
    (step,) = steps({"at": "1s", **event})
    assert (step.host, step.app, step.reshapes, step.blocked) == (host, app, (), {})


def test_all_are_in_the_order_of_time_and_equals_in_that_of_the_kinds() -> None:
    events = steps(
        {"at": "3s", "app": "client", "kill": "SIGTERM"},
        {"at": "3s", "partition": [["alice"], ["bob"]]},
        {"at": "3s", "link": "office", "down": "true"},
        {"at": "1s", "host": "alice", "pause": "1s"},
    )
    assert [step.title for step in events] == [
        "chitcpd of alice stands still",
        "chitcpd of alice goes on",
        "link office: down",
        "partition alice | bob",
        "SIGTERM to client",
    ]


def test_two_links_that_change_at_once_are_two_steps_and_one_link_is_one() -> None:
    events = steps(
        {"at": "1s", "link": "office", "set": {"delay": "5ms"}},
        {"at": "1s", "link": "alice-r1", "set": {"delay": "5ms"}},
        {"at": "1s", "link": "office", "set": {"loss": "5%"}},
    )
    assert [step.title for step in events] == [
        "link alice-r1: delay 5ms",
        "link office: delay 5ms; link office: loss 5%",
    ]
