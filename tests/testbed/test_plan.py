"""What a plan decides: addresses, names, seeds, what each direction of a link does, and the order of applications."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network

import pytest

from chitcpd import settings
from chitcpd.faults import Shape
from chitcpd.tcp.api import Config
from testbed.backends.base import Unavailable
from testbed.plan import Plan, daemon_options, derive, plan
from testbed.topology import Topology

POOL = "10.213.0.0/16"
CHAIN: dict[str, object] = {
    "name": "chain",
    "seed": "7",
    "hosts": {"alice": {}, "bob": {}, "carol": {}},
    "links": [{"endpoints": ["alice", "bob"]}, {"endpoints": ["bob", "carol"]}],
}


def plan_of(topology: dict[str, object], *, pool: str = POOL, in_use: dict[str, str] | None = None) -> Plan:
    return plan(Topology.model_validate(topology), run_id="run-1", lab="chain", pool=pool, in_use=in_use or {})


def with_apps(**apps: dict[str, object]) -> dict[str, object]:
    return CHAIN | {"apps": {name: {"host": "alice", "run": ["x"]} | app for name, app in apps.items()}}


def with_link(**link: str) -> dict[str, object]:
    return CHAIN | {"links": [{"endpoints": ["alice", "bob"], **link}]}


def test_each_link_has_a_subnet_and_leaves_its_first_address_to_the_gateway() -> None:
    lab = plan_of(CHAIN)

    assert [(link.name, link.subnet) for link in lab.links] == [
        ("alice-bob", "10.213.0.0/29"),
        ("bob-carol", "10.213.0.8/29"),
    ]
    bob = lab.hosts[1]
    assert [(end.link, end.address, end.peer, end.peer_address) for end in bob.interfaces] == [
        ("alice-bob", "10.213.0.3", "alice", "10.213.0.2"),
        ("bob-carol", "10.213.0.10", "carol", "10.213.0.11"),
    ]


def test_a_name_is_the_address_that_the_asking_host_can_reach() -> None:
    alice, bob, _ = plan_of(CHAIN).hosts

    assert alice.names == {"alice": "10.213.0.2", "bob": "10.213.0.3"}  # and no carol: nobody forwards to her
    assert bob.names == {"bob": "10.213.0.3", "alice": "10.213.0.2", "carol": "10.213.0.11"}


def test_subnets_in_use_are_passed_over() -> None:
    in_use = {"10.213.0.0/30": "a network", "10.213.0.16/28": "another", "fd00::/64": "one of IPv6"}

    assert [link.subnet for link in plan_of(CHAIN, in_use=in_use).links] == ["10.213.0.8/29", "10.213.0.32/29"]


def test_a_link_may_have_a_subnet_of_its_own_and_others_keep_clear_of_it() -> None:
    links = [{"endpoints": ["alice", "bob"]}, {"endpoints": ["bob", "carol"], "subnet": "10.213.0.0/24"}]

    assert [link.subnet for link in plan_of(CHAIN | {"links": links}).links] == ["10.213.1.0/29", "10.213.0.0/24"]


def test_a_clash_names_who_has_the_subnet() -> None:
    with pytest.raises(Unavailable, match=r"10\.9\.0\.0/24 of link alice-bob is in use by the network of lab other"):
        plan_of(with_link(subnet="10.9.0.0/24"), in_use={"10.9.0.0/16": "the network of lab other"})


def test_a_pool_can_run_out() -> None:
    with pytest.raises(Unavailable, match="too few free subnets for the 2 links of chain"):
        plan_of(CHAIN, pool="10.213.0.0/29")


def test_both_directions_of_a_link_meet_its_shape() -> None:
    lab = plan_of(with_link(delay="25ms", jitter="2ms", rate="10mbit", queue="2bdp", loss="1%", mtu="576"))

    bdp = 10e6 / 8 * 2 * 0.025
    shape = Shape(delay=0.025, jitter=0.002, rate=10e6, queue_bytes=round(2 * bdp), loss=0.01)
    for host in lab.hosts[:2]:
        assert [(end.shape, end.mtu) for end in host.interfaces] == [(shape, 576)]


def test_one_direction_may_be_another() -> None:
    link = {"endpoints": ["alice", "bob"], "delay": "5ms", "bob->alice": {"loss": "3%", "delay": "50ms"}}
    alice, bob, _ = plan_of(CHAIN | {"links": [link]}).hosts

    assert alice.interfaces[0].shape == Shape(delay=0.005)
    assert bob.interfaces[0].shape == Shape(delay=0.05, loss=0.03)


def test_each_direction_has_its_own_seed_and_keeps_it_whatever_else_changes() -> None:
    def seeds(topology: dict[str, object]) -> list[int]:
        return [end.seed for host in plan_of(topology).hosts for end in host.interfaces if end.link == "alice-bob"]

    assert len(set(seeds(CHAIN))) == 2
    assert seeds(CHAIN) == seeds(with_link(delay="5ms"))
    assert seeds(CHAIN) != seeds(CHAIN | {"seed": "8"})


def test_a_seed_is_the_same_everywhere_and_always() -> None:
    assert derive(7, "link", "alice-bob", "alice") == 2806184289


def test_an_application_via_chirun_is_a_command_of_chiruns() -> None:
    lab = plan_of(with_apps(curl={"run": ["curl", "http://bob/"], "via": "chirun"}, own={"run": ["own"]}))

    assert [app.run for app in lab.apps] == [("chirun", "curl", "http://bob/"), ("own",)]


def test_a_host_has_its_tcp_and_its_settings_over_the_defaults() -> None:
    alice_s = {"profile": "classic", "rto_min": "300ms", "sack": "true"}
    topology = {
        "name": "lab",
        "defaults": {"host": {"tcp": {"rto_min": "100ms", "congestion": "newreno"}}},
        "hosts": {"alice": {"tcp": alice_s}, "bob": {}},
    }
    alice, bob = plan_of(topology).hosts

    assert (alice.profile, bob.profile) == ("classic", "modern")
    assert alice.settings == {"rto_min": "300ms", "congestion": "newreno", "sack": "true"}
    assert bob.settings == {"rto_min": "100ms", "congestion": "newreno"}
    assert alice.implementation is None


def test_a_daemon_is_told_all_of_that_on_its_command_line() -> None:
    topology = CHAIN | {"hosts": {"alice": {"tcp": {"profile": "classic", "msl": "1s"}}, "bob": {}, "carol": {}}}
    lab = plan_of(topology)
    alice, bob, _ = (
        daemon_options(lab, host, trace="t.jsonl", segments="s.pcap", implementation="mine.py") for host in lab.hosts
    )

    common = ["--seed", str(lab.hosts[0].seed), "--trace", "t.jsonl"]
    assert alice == [*common, "--profile", "classic", "--bind", "10.213.0.2", "--set", "msl=1s", "-c", "s.pcap"]
    assert bob[4:] == ["--profile", "modern", "--bind", "10.213.0.3", "--bind", "10.213.0.10", "-c", "s.pcap"]


def test_a_daemon_captures_and_runs_somebody_s_own_tcp_only_if_it_is_to() -> None:
    lab = dataclasses.replace(plan_of(CHAIN), capture_segments=False)
    host = dataclasses.replace(lab.hosts[0], implementation=b"# a TCP")
    options = daemon_options(lab, host, trace="t.jsonl", segments="s.pcap", implementation="mine.py")

    assert options[-2:] == ["--tcp", "mine.py"]
    assert "-c" not in options


@pytest.mark.parametrize("name", settings.TABLE)
def test_every_setting_of_chitcpd_can_stand_in_a_topology_and_comes_to_its_command_line(name: str) -> None:
    text = settings.spell(name, getattr(Config(), name))
    lab = plan_of({"name": "lab", "hosts": {"alice": {"tcp": {name: text}}}})
    options = daemon_options(lab, lab.hosts[0], trace="t.jsonl", segments="s.pcap", implementation="mine.py")

    assert options[options.index("--set") + 1] == f"{name}={text}"


def test_apps_come_after_what_they_need_and_else_in_the_order_of_the_file() -> None:
    lab = plan_of(with_apps(d={"needs": ["c", "a"]}, c={"needs": ["b"]}, b={}, a={}))

    assert [app.name for app in lab.apps] == ["b", "c", "a", "d"]


def test_an_app_without_expect_serves_until_the_run_ends() -> None:
    server, client = plan_of(with_apps(server={}, client={"expect": {"exit": "1"}, "timeout": "5s"})).apps

    assert (server.expect_exit, server.timeout) == (None, 60)
    assert (client.expect_exit, client.timeout) == (1, 5)


def test_if_no_app_has_expect_all_must_end_well() -> None:
    assert [app.expect_exit for app in plan_of(with_apps(one={}, two={})).apps] == [0, 0]


def test_random_files_come_from_the_seed() -> None:
    def content(seed: str, app: str = "a") -> bytes:
        settings: dict[str, object] = {"files": {"payload.bin": {"random": "3MiB"}}}
        return plan_of(with_apps(**{app: settings}) | {"seed": seed}).apps[0].files["payload.bin"]

    assert len(content("1")) == 3 * 2**20
    assert content("1") == content("1")
    assert len({content("1"), content("2"), content("1", "b")}) == 3


def test_a_whole_plan_says_what_it_is_for() -> None:
    lab = plan_of(CHAIN | {"capture": {"wire": "false"}})

    assert (lab.lab, lab.run_id, lab.seed) == ("chain", "run-1", 7)
    assert (lab.capture_segments, lab.capture_wire) == (True, False)


def test_the_local_pool_has_room_for_all_that_a_topology_may_have() -> None:
    links = [{"endpoints": ["alice", "bob"], "name": f"link-{number}"} for number in range(128)]
    subnets = [IPv4Network(link.subnet) for link in plan_of(CHAIN | {"links": links}, pool="127.64.0.0/10").links]

    assert len(set(subnets)) == 128
    assert all(subnet.subnet_of(IPv4Network("127.64.0.0/10")) for subnet in subnets)
