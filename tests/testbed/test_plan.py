"""What a plan decides: addresses, names, seeds, what each direction of a link does, and the order of applications."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv4Network

import pytest

from chitcpd.faults import Shape
from testbed.plan import Underlay, Way, derive
from testbed.unavailable import Unavailable
from tests.testbed.plans import Written, plan_of

CHAIN: Written = {
    "name": "chain",
    "seed": "7",
    "hosts": {"alice": {}, "bob": {}, "carol": {}},
    "links": [{"endpoints": ["alice", "bob"]}, {"endpoints": ["bob", "carol"]}],
}


def bare(*names: str) -> Written:
    """So many hosts, or routers, of which nothing is said."""
    return {name: {} for name in names}


def with_apps(**apps: Written) -> Written:
    return CHAIN | {"apps": {name: {"host": "alice", "run": ["x"]} | app for name, app in apps.items()}}


def with_link(**link: object) -> Written:
    return CHAIN | {"links": [{"endpoints": ["alice", "bob"], **link}]}


def test_each_link_has_a_subnet_and_leaves_its_first_address_to_the_gateway() -> None:
    lab = plan_of(CHAIN)

    assert [(link.name, link.subnet) for link in lab.links] == [
        ("alice-bob", "10.213.0.0/29"),
        ("bob-carol", "10.213.0.8/29"),
    ]
    bob = lab.hosts[1]
    assert [(end.link, end.address, end.peers, end.towards) for end in bob.interfaces] == [
        ("alice-bob", "10.213.0.3", {"alice": "10.213.0.2"}, "alice"),
        ("bob-carol", "10.213.0.10", {"carol": "10.213.0.11"}, "carol"),
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
    def seeds(topology: Written) -> list[int]:
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
        settings: Written = {"files": {"payload.bin": {"random": "3MiB"}}}
        return plan_of(with_apps(**{app: settings}) | {"seed": seed}).apps[0].files["payload.bin"]

    assert len(content("1")) == 3 * 2**20
    assert content("1") == content("1")
    assert len({content("1"), content("2"), content("1", "b")}) == 3


def test_a_whole_plan_says_what_it_is_for() -> None:
    lab = plan_of(CHAIN | {"capture": {"wire": "false"}}, lab="mine")

    assert (lab.lab, lab.run_id, lab.seed) == ("mine", "run-1", 7)
    assert (lab.capture_segments, lab.capture_wire) == (True, False)


def test_the_local_pool_has_room_for_all_that_a_topology_may_have() -> None:
    links = [{"endpoints": ["alice", "bob"], "name": f"link-{number}"} for number in range(128)]
    subnets = [IPv4Network(link.subnet) for link in plan_of(CHAIN | {"links": links}, pool="127.64.0.0/10").links]

    assert len(set(subnets)) == 128
    assert all(subnet.subnet_of(IPv4Network("127.64.0.0/10")) for subnet in subnets)


# Routers and LANs

DUMBBELL: Written = {
    "name": "dumbbell",
    "seed": "7",
    "hosts": {"alice": {}, "bob": {}, "carol": {}},
    "routers": {"r1": {}, "r2": {}},
    "links": [
        {"endpoints": ["alice", "r1"]},
        {"endpoints": ["r1", "r2"], "rate": "10mbit", "mtu": "1280"},
        {"endpoints": ["bob", "carol", "r2"], "name": "office"},
    ],
}


def test_a_lan_has_an_address_for_each_of_its_ends() -> None:
    bob = plan_of(DUMBBELL).node("bob")
    (end,) = bob.interfaces

    assert (end.address, end.peers) == ("10.213.0.18", {"carol": "10.213.0.19", "r2": "10.213.0.20"})
    assert end.towards == "office"


@pytest.mark.parametrize(("ends", "prefix"), [(2, 29), (5, 29), (6, 28), (13, 28), (14, 27), (61, 26), (253, 24)])
def test_a_lan_has_a_subnet_with_room_for_all_and_the_gateway(ends: int, prefix: int) -> None:
    hosts = [f"h{number}" for number in range(ends)]
    lab = plan_of({"name": "lan", "hosts": bare(*hosts), "links": [{"name": "lan", "endpoints": hosts}]})
    subnet = IPv4Network(lab.links[0].subnet)
    addresses = {IPv4Address(host.interfaces[0].address) for host in lab.hosts}

    assert subnet.prefixlen == prefix
    assert len(addresses) == ends
    assert addresses <= set(subnet.hosts()) - {subnet[1]}


def test_subnets_of_many_sizes_do_not_overlap() -> None:
    hosts = [f"h{number}" for number in range(20)]
    links = [{"name": f"lan-{size}", "endpoints": hosts[:size]} for size in (2, 20, 3, 9, 2)]
    written: Written = {"name": "lab", "hosts": bare(*hosts), "links": links}
    subnets = [IPv4Network(link.subnet) for link in plan_of(written, in_use={"10.213.0.16/30": "another"}).links]

    assert not any(a.overlaps(b) for a in subnets for b in subnets if a is not b)
    assert not any(subnet.overlaps(IPv4Network("10.213.0.16/30")) for subnet in subnets)


def test_a_host_comes_to_every_subnet_by_the_router_next_to_it() -> None:
    lab = plan_of(DUMBBELL)
    there = tuple(lab.node(name).interfaces[0].address for name in ("bob", "carol"))

    assert lab.node("alice").ways == (
        Way("alice-r1", "10.213.0.3", ("10.213.0.8/29", "10.213.0.16/29"), there, (), 1280),
    )
    assert lab.node("r1").ways == (Way("r1-r2", "10.213.0.11", ("10.213.0.16/29",), there, (), 1280),)
    (back,) = lab.node("bob").ways
    assert (back.gateway, set(back.subnets)) == ("10.213.0.20", {"10.213.0.0/29", "10.213.0.8/29"})
    assert back.behind == (lab.node("alice").interfaces[0].address,)


def test_names_are_also_of_hosts_behind_routers_and_never_of_routers() -> None:
    lab = plan_of(DUMBBELL)

    assert lab.node("alice").names == {name: lab.node(name).interfaces[0].address for name in ("alice", "bob", "carol")}
    assert lab.node("r1").names == {}
    assert lab.node("r1").forwards
    assert [node.name for node in lab.nodes] == ["alice", "bob", "carol", "r1", "r2"]


def test_the_mtu_of_a_way_is_the_least_on_it() -> None:
    lab = plan_of(DUMBBELL)

    assert {way.mtu for way in lab.node("alice").ways} == {1280}
    assert {(subnet, way.mtu) for way in lab.node("r2").ways for subnet in way.subnets} == {("10.213.0.0/29", 1280)}


def test_ways_of_one_router_with_different_mtus_are_apart() -> None:
    links = [{"endpoints": ["a", "r"]}, {"endpoints": ["r", "b"], "mtu": "576"}, {"endpoints": ["r", "c"]}]
    written: Written = {"name": "lab", "hosts": {"a": {}, "b": {}, "c": {}}, "routers": {"r": {}}, "links": links}
    lab = plan_of(written)
    mtus = {way.behind: way.mtu for way in lab.node("a").ways}

    assert mtus == {(lab.node(name).interfaces[0].address,): mtu for name, mtu in (("b", 576), ("c", 1500))}


def test_the_way_is_over_the_fewest_routers() -> None:
    links = [
        {"endpoints": ["alice", "r1"]},
        {"endpoints": ["r1", "r2"]},
        {"endpoints": ["r2", "bob"]},
        {"endpoints": ["alice", "r3"]},
        {"endpoints": ["r3", "bob"]},
    ]
    routers = bare("r1", "r2", "r3")
    lab = plan_of({"name": "lab", "hosts": bare("alice", "bob"), "routers": routers, "links": links})
    alice, bob = lab.hosts

    assert alice.names["bob"] == bob.interface("r3-bob").address
    (way,) = (way for way in alice.ways if bob.interface("r3-bob").address in way.behind)
    assert way.gateway == lab.node("r3").interface("alice-r3").address
    (other,) = (way for way in alice.ways if bob.interface("r2-bob").address in way.behind)
    assert other.gateway == lab.node("r1").interface("alice-r1").address


def test_a_name_is_the_address_on_a_link_of_both_before_one_behind_a_router() -> None:
    links = [{"endpoints": ["alice", "r"]}, {"endpoints": ["r", "bob"]}, {"endpoints": ["alice", "bob"]}]
    lab = plan_of({"name": "lab", "hosts": {"alice": {}, "bob": {}}, "routers": {"r": {}}, "links": links})
    alice, bob = lab.hosts

    assert alice.names["bob"] == bob.interface("alice-bob").address


def test_hosts_do_not_forward() -> None:
    """Alice and carol are joined by a host, and not by a router."""
    assert all(host.ways == () for host in plan_of(CHAIN).hosts)


def test_another_chitcpd_is_dialled_itself() -> None:
    hosts: Written = {"alice": {}, "bob": {"image": "other:1", "command": ["run", "it"]}, "carol": {}}
    lab = plan_of(DUMBBELL | {"hosts": hosts})
    bob, carol = (lab.node(name).interfaces[0].address for name in ("bob", "carol"))

    assert [(way.behind, way.direct) for way in lab.node("r1").ways] == [((carol,), (bob,))]
    assert (lab.node("bob").image, lab.node("bob").command) == ("other:1", ("run", "it"))


def test_each_direction_of_a_lan_may_be_another() -> None:
    links = [{"name": "lan", "endpoints": ["a", "b", "c"], "delay": "1ms", "a->lan": {"delay": "20ms"}}]
    lab = plan_of({"name": "lab", "hosts": {"a": {}, "b": {}, "c": {}}, "links": links})

    assert [host.interfaces[0].shape.delay for host in lab.hosts] == [0.02, 0.001, 0.001]


def test_what_befalls_the_real_packets_is_beside_the_shape() -> None:
    alice = plan_of(with_link(underlay={"loss": "1%"}, loss="2%")).hosts[0]

    assert (alice.interfaces[0].underlay, alice.interfaces[0].shape) == (Underlay(loss=0.01), Shape(loss=0.02))


# Labs that are up already


def test_a_link_does_not_keep_what_another_one_is_to_have() -> None:
    first, second = CHAIN["links"]
    written = CHAIN | {"links": [first, second | {"subnet": "10.213.0.0/28"}]}
    links = plan_of(written, keep={"alice-bob": "10.213.0.0/29", "bob-carol": "10.213.1.0/29"}).links
    assert [link.subnet for link in links] == ["10.213.0.16/29", "10.213.0.0/28"]


def test_links_that_are_there_keep_their_subnets() -> None:
    keep = {"bob-carol": "10.213.7.0/29", "gone": "10.213.9.0/29"}

    assert [link.subnet for link in plan_of(CHAIN, keep=keep).links] == ["10.213.0.0/29", "10.213.7.0/29"]


def test_a_subnet_that_has_become_too_small_is_not_kept() -> None:
    hosts = [f"h{number}" for number in range(9)]
    written: Written = {
        "name": "lab",
        "hosts": bare(*hosts),
        "links": [{"name": "lan", "endpoints": hosts}],
    }

    assert plan_of(written, keep={"lan": "10.213.0.0/29"}).links[0].subnet == "10.213.0.0/28"


def test_a_subnet_of_its_own_stands_over_the_one_that_a_link_has() -> None:
    link = {"endpoints": ["alice", "bob"], "subnet": "10.9.0.0/24"}

    assert plan_of(CHAIN | {"links": [link]}, keep={"alice-bob": "10.213.0.0/29"}).links[0].subnet == "10.9.0.0/24"


# Applications, again


def test_what_an_app_may_use_and_how_often_it_is_started_anew() -> None:
    limits = {"memory": "64MiB", "processes": "5"}
    own, plain = plan_of(with_apps(own={"limits": limits, "restart": "3", "ready": {"output": "^x"}}, plain={})).apps

    assert (own.memory, own.processes, own.restarts, own.says, own.listening) == (2**26, 5, 3, "^x", None)
    assert (plain.memory, plain.processes, plain.restarts, plain.says) == (2**29, 256, 0, None)


@pytest.mark.parametrize("routed", [False, True], ids=["a star of links", "a tree of routers"])
def test_256_nodes_are_planned_in_less_than_a_second(routed: bool) -> None:
    hosts = [f"h{number}" for number in range(240 if routed else 256)]
    if routed:
        links = [{"endpoints": [f"r{index // 16}", host]} for index, host in enumerate(hosts)]
        links += [{"endpoints": [f"r{index}", "r15"]} for index in range(15)]
    else:
        links = [{"endpoints": [hosts[0], host]} for host in hosts[1:]]
    routers = bare(*(f"r{index}" for index in range(16))) if routed else {}
    written: Written = {"name": "big", "hosts": bare(*hosts), "routers": routers, "links": links}
    began = time.process_time()
    lab = plan_of(written, pool="127.64.0.0/10")

    assert time.process_time() - began < 1
    assert len(lab.nodes) == 256
    if routed:
        assert len(lab.node("h0").names) == 240
