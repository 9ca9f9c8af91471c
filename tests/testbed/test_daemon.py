"""What the chitcpd of each host is told as it starts, and what is read out of what it tells."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from chitcpd import settings
from chitcpd.faults import Drop, Shape
from chitcpd.tcp.api import Config
from testbed import daemon
from testbed.backends.base import Now, Probed
from testbed.plan import HostPlan, Plan, Underlay
from tests.testbed.plans import TWO, Written, plan_of

LAB: Written = {
    "name": "lab",
    "seed": "7",
    "hosts": {"alice": {"tcp": {"profile": "classic", "msl": "1s"}}, "bob": {}, "carol": {}},
    "routers": {"r1": {}},
    "links": [
        {"endpoints": ["alice", "r1"], "delay": "10ms", "jitter": "1ms", "rate": "10mbit", "loss": "1%"},
        {"endpoints": ["r1", "bob", "carol"], "name": "office", "mtu": "1400", "bob->office": {"rate": "1mbit"}},
    ],
}
ALICE, R1, R1_OFFICE, BOB, CAROL = "10.213.0.2", "10.213.0.3", "10.213.0.10", "10.213.0.11", "10.213.0.12"


def with_image(*names: str) -> Written:
    hosts = {name: {"image": "other:1"} if name in names else host for name, host in LAB["hosts"].items()}
    return LAB | {"hosts": hosts}


def options(lab: Plan, host: HostPlan) -> list[str]:
    return daemon.options(lab, host, trace="t.jsonl", segments="s.pcap", implementation="mine.py")


def entries(lab: Plan, name: str, *, by_netem: bool = False) -> list[dict[str, object]]:
    return daemon.links(lab, lab.node(name), by_netem=by_netem)


# Options


def test_a_host_is_told_who_it_is_and_what_it_writes() -> None:
    lab = plan_of(LAB)
    alice = lab.node("alice")

    assert options(lab, alice) == [
        *("--seed", str(alice.seed), "--trace", "t.jsonl", "--profile", "classic", "--announce", "alice"),
        *("--bind", ALICE, "--set", "msl=1s", "-c", "s.pcap"),
    ]


def test_a_router_forwards_and_captures_what_passes() -> None:
    lab = plan_of(LAB)
    said = options(lab, lab.node("r1"))

    assert said[-7:] == ["--bind", R1, "--bind", R1_OFFICE, "-c", "s.pcap", "--forward"]


def test_a_daemon_captures_and_runs_somebody_s_own_tcp_only_if_it_is_to() -> None:
    lab = dataclasses.replace(plan_of(LAB), capture_segments=False)
    said = options(lab, dataclasses.replace(lab.hosts[0], implementation=b"# a TCP"))

    assert said[-2:] == ["--tcp", "mine.py"]
    assert "-c" not in said


@pytest.mark.parametrize("name", settings.TABLE)
def test_every_setting_of_chitcpd_can_stand_in_a_topology_and_comes_to_its_command_line(name: str) -> None:
    text = settings.spell(name, getattr(Config(), name))
    lab = plan_of({"name": "lab", "hosts": {"alice": {"tcp": {name: text}}}})
    said = options(lab, lab.hosts[0])

    assert said[said.index("--set") + 1] == f"{name}={text}"


# Links


def test_a_link_without_netem_is_chitcpd_s_alone() -> None:
    entry, _ = entries(plan_of(LAB), "alice")

    assert (entry["peers"], entry["own"], entry["mtu"]) == ([R1], ALICE, 1500)
    assert (entry["delay"], entry["jitter"], entry["rate"], entry["loss"]) == (0.01, 0.001, 10e6, 0.01)
    assert entry["underlay"] == {}


def test_with_netem_it_is_told_what_is_left_and_what_netem_does() -> None:
    entry, _ = entries(plan_of(LAB), "alice", by_netem=True)

    assert (entry["delay"], entry["jitter"], entry["rate"], entry["loss"]) == (0, 0, None, 0.01)
    assert entry["underlay"] == {
        "delay": 0.01,
        "jitter": 0.001,
        "rate": 10e6,
        "packets": dataclasses.asdict(Underlay()),
    }


def test_who_is_behind_a_router_is_reached_by_it() -> None:
    _, way = entries(plan_of(LAB), "alice")

    assert way == {"peers": [BOB, CAROL], "via": R1, "own": ALICE, "mtu": 1400}


def test_a_lan_s_peers_share_one_link() -> None:
    to_alice, to_office = entries(plan_of(LAB), "r1")

    assert (to_alice["peers"], to_office["peers"]) == ([ALICE], [BOB, CAROL])
    assert to_alice["seed"] != to_office["seed"]


def test_another_chitcpd_behind_a_router_is_dialled_over_the_link_itself() -> None:
    entry, way = entries(plan_of(with_image("bob")), "alice")

    assert (entry["peers"], way["peers"]) == ([R1, BOB], [CAROL])


def test_if_there_are_only_such_behind_it_there_is_no_way() -> None:
    assert len(entries(plan_of(with_image("bob", "carol")), "alice")) == 1


# What a link does


SHAPE = Shape(delay=0.03, rate=1e6, queue_bytes=5000, loss=0.5, drops=(Drop("SYN", 1, 2),), down=True)


@pytest.mark.parametrize("by_netem", [False, True])
@pytest.mark.parametrize("shape", [Shape(), SHAPE, dataclasses.replace(SHAPE, queue_bytes=None)])
def test_what_a_daemon_was_told_is_read_out_of_it_again(shape: Shape, by_netem: bool) -> None:
    interface = plan_of(TWO).hosts[0].interfaces[0]
    underlay = Underlay(loss=0.25) if by_netem else Underlay()
    told = json.loads(json.dumps(daemon.link(interface, shape, underlay, by_netem=by_netem)))

    assert daemon.now(told | {"counts": {"loss": 3}}) == Now(shape, underlay, Counter(loss=3))


def test_a_link_of_which_a_daemon_says_nothing_does_nothing() -> None:
    assert daemon.now({"own": ALICE, "mtu": 1500}) == Now(Shape())


# Probes


def pairs(lab: Plan) -> list[tuple[str, str]]:
    return [(probe.host.name, probe.neighbour.name) for probe in daemon.probes(lab, by_netem=False)]


def test_the_first_end_of_a_link_probes_all_others_and_who_has_a_rate_the_first() -> None:
    assert pairs(plan_of(LAB)) == [("alice", "r1"), ("bob", "r1"), ("r1", "alice"), ("r1", "bob"), ("r1", "carol")]


def test_another_chitcpd_neither_probes_nor_is_probed() -> None:
    assert pairs(plan_of(with_image("bob"))) == [("alice", "r1"), ("r1", "alice"), ("r1", "carol")]
    assert pairs(plan_of(with_image("alice", "bob", "carol"))) == []


def test_each_daemon_is_told_whom_to_probe_and_how_long_is_good() -> None:
    lab = plan_of(LAB)
    to_alice, to_office = entries(lab, "r1")

    assert to_office["probe"] == {"peers": [BOB, CAROL], "good_rtt": pytest.approx(0.0005, abs=0.0006), "rate": None}
    both_ways = 2 * (0.01 + 40 * 8 / 10e6)
    assert to_alice["probe"] == {"peers": [ALICE], "good_rtt": pytest.approx(both_ways + 0.0005), "rate": 10e6}
    assert "probe" not in entries(lab, "carol")[0]


@pytest.mark.parametrize(
    ("more", "by_netem", "size"),
    [({}, False, 40), ({}, True, 102 * 1452 / 1514), ({"queue": "10pkt"}, True, 40)],
)
def test_what_a_probe_of_a_slow_link_takes_is_as_whoever_has_the_rate_counts_its_bytes(
    more: dict[str, str], by_netem: bool, size: float
) -> None:
    slow = TWO | {"links": [{"endpoints": ["alice", "bob"], "rate": "64kbit"} | more]}
    probe = next(daemon.probes(plan_of(slow), by_netem=by_netem))

    assert probe.asked_rtt == pytest.approx(2 * size * 8 / 64e3)


def test_what_is_too_fast_to_be_measured_is_not() -> None:
    lab = plan_of(TWO | {"links": [{"endpoints": ["alice", "bob"], "rate": "10gbit"}]})

    assert pairs(lab) == [("alice", "bob")]
    assert next(daemon.probes(lab, by_netem=False)).found({"rtt": 0.1, "rate": None}).asked_rate is None


def test_a_probe_is_good_within_its_bounds() -> None:
    probe = next(daemon.probes(plan_of(LAB), by_netem=False))
    asked = probe.asked_rtt
    found = probe.found({"rtt": asked + 0.0009, "rate": 9.8e6})

    assert found == Probed("alice-r1", "alice->r1", asked, asked + 0.0009, 10e6, 9.8e6)
    assert found.good
    assert probe.found({"rtt": asked, "rate": None}).good  # nothing is known of the rate
    assert not probe.found({"rtt": asked + 0.0011, "rate": 10e6}).good
    assert not probe.found({"rtt": asked, "rate": 9.6e6}).good
    assert not probe.found({"rtt": asked, "rate": 10.4e6}).good


def test_a_long_way_has_wider_bounds() -> None:
    probed = Probed("x", "a->b", 1.0, 1.0199, None, None)

    assert probed.good
    assert not dataclasses.replace(probed, measured_rtt=1.0201).good
