"""Hosts as text, and when two of them can be one chitcpd."""

from __future__ import annotations

import dataclasses
import json

import pytest

from chitcpd.faults import Drop, Shape
from testbed import saved
from testbed.plan import HostPlan, Underlay
from tests.testbed.plans import Written, plan_of

LAB: Written = {
    "name": "lab",
    "hosts": {"alice": {"tcp": {"rto_min": "300ms"}}, "bob": {"image": "other:1", "command": ["run", "it's"]}},
    "routers": {"r1": {}},
    "links": [
        {
            "endpoints": ["alice", "r1"],
            "delay": "10ms",
            "rate": "1mbit",
            "queue": "20pkt",
            "underlay": {"loss": "1%"},
            "drop": [{"from": "alice", "match": "SYN", "nth": "1-2"}],
        },
        {"endpoints": ["r1", "bob"]},
    ],
}


def node(name: str) -> HostPlan:
    return plan_of(LAB).node(name)


@pytest.mark.parametrize("name", ["alice", "bob", "r1"])
def test_a_node_comes_back_as_it_was(name: str) -> None:
    text = saved.dump(node(name))

    assert isinstance(json.loads(text), dict)
    assert saved.load(text) == node(name)


def test_what_comes_back_has_the_types_that_it_had() -> None:
    (interface,) = saved.load(saved.dump(node("alice"))).interfaces

    assert isinstance(interface.shape, Shape)
    assert interface.shape.drops == (Drop("SYN", 1, 2),)
    assert interface.underlay == Underlay(loss=0.01)


def test_somebody_s_own_tcp_is_left_out() -> None:
    own = dataclasses.replace(node("alice"), implementation=b"\xff\x00")

    assert saved.load(saved.dump(own)) == node("alice")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": "alice"}', saved.dump(node("alice"))[:-1]])
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        saved.load(text)


def fingerprint(host: HostPlan, *beside: object) -> str:
    return saved.fingerprint(host, *(beside or (True, True)))


def test_a_fingerprint_is_the_same_each_time() -> None:
    assert fingerprint(node("alice")) == fingerprint(node("alice"))
    assert fingerprint(saved.load(saved.dump(node("alice")))) == fingerprint(node("alice"))


def test_how_it_reaches_others_can_change() -> None:
    alice = node("alice")
    (interface,) = alice.interfaces
    other = dataclasses.replace(
        interface, shape=Shape(delay=1.0), underlay=Underlay(), mtu=576, peers={"r1": interface.peers["r1"], "x": "y"}
    )

    assert fingerprint(dataclasses.replace(alice, interfaces=(other,), ways=(), names={})) == fingerprint(alice)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "eve"},
        {"profile": "classic"},
        {"settings": {"rto_min": "301ms"}},
        {"seed": 1},
        {"image": "other:2"},
        {"command": ("true",)},
        {"forwards": True},
        {"implementation": b"# mine"},
        {"interfaces": ()},
    ],
    ids=str,
)
def test_what_a_chitcpd_is_once_and_for_all_makes_another(change: dict[str, object]) -> None:
    alice = node("alice")

    assert fingerprint(dataclasses.replace(alice, **change)) != fingerprint(alice)  # type: ignore[arg-type]


def test_so_do_another_address_and_other_captures() -> None:
    alice = node("alice")
    moved = dataclasses.replace(alice.interfaces[0], address="10.9.9.9")

    assert fingerprint(dataclasses.replace(alice, interfaces=(moved,))) != fingerprint(alice)
    assert len({fingerprint(alice, segments, wire) for segments in (True, False) for wire in (True, False)}) == 4


def test_own_tcps_that_differ_are_told_apart() -> None:
    one, other = (fingerprint(dataclasses.replace(node("alice"), implementation=code)) for code in (b"1", b"2"))

    assert one != other
