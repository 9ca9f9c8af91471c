"""Links of a lab that is up: what they do, and something else from now on, or for a while."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chitcpd.faults import Shape
from testbed import backends, lab, links, state
from testbed.backends.base import Backend
from testbed.backends.fake import FakeBackend
from testbed.backends.local import LocalBackend
from testbed.lab import NoSuchLab, UnknownName
from testbed.links import BadSetting, End, parse
from testbed.plan import Underlay
from testbed.topology import Topology
from testbed.unavailable import Unavailable
from tests.testbed.plans import Written

LAB: Written = {
    "name": "lab",
    "hosts": {"alice": {}, "bob": {}, "carol": {}},
    "routers": {"r1": {}},
    "links": [
        {"endpoints": ["alice", "r1"], "delay": "10ms", "loss": "1%", "drop": [{"from": "alice", "nth": "1000"}]},
        {"endpoints": ["r1", "bob", "carol"], "name": "office"},
    ],
}


@pytest.fixture(params=[FakeBackend, LocalBackend], ids=["fake", "local"])
def backend(request: pytest.FixtureRequest, own_state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The only backend, on which the lab is up."""
    del own_state
    backend: Backend = request.param()
    monkeypatch.setattr(backends, "FACTORIES", {"only": lambda: backend})
    lab.up(Topology.model_validate(LAB), backend, lab="lab", report=lambda _step: None)
    yield backend
    backend.down("lab", lambda _step: None)


def shapes(*names: str) -> dict[str, Shape]:
    return {end.direction: end.now.shape for end in links.show("lab", names)}


def planned(direction: str) -> Shape:
    return next(end.interface.shape for end in links.show("lab") if end.direction == direction)


@pytest.mark.usefixtures("backend")
def test_each_end_is_shown_with_what_it_does() -> None:
    ends = links.show("lab")
    assert [(end.interface.link, end.direction) for end in ends] == [
        ("alice-r1", "alice->r1"),
        ("alice-r1", "r1->alice"),
        ("office", "bob->office"),
        ("office", "carol->office"),
        ("office", "r1->office"),
    ]
    assert all(end.is_as_planned for end in ends)
    assert [end.direction for end in links.show("lab", ["office"])] == ["bob->office", "carol->office", "r1->office"]


@pytest.mark.usefixtures("backend")
def test_a_change_is_over_what_the_link_does_and_is_seen() -> None:
    links.change("lab", "alice-r1", parse(["delay=30ms", "rate=1mbit"]), None)
    links.change("lab", "alice-r1", parse(["loss=20%"]), "alice")
    plain = planned("alice->r1")
    shown = shapes("alice-r1")
    assert shown["r1->alice"] == Shape(delay=0.03, rate=1e6, loss=0.01)
    assert shown["alice->r1"] == Shape(delay=0.03, rate=1e6, loss=0.2, drops=plain.drops)
    assert [end.is_as_planned for end in links.show("lab")] == [False, False, True, True, True]


@pytest.mark.usefixtures("backend")
def test_a_link_is_down_and_up_and_does_what_it_did() -> None:
    links.change("lab", "office", parse(["delay=5ms"]), None)
    links.set_down("lab", "office", down=True)
    assert {(shape.down, shape.delay) for shape in shapes("office").values()} == {(True, 0.005)}
    links.set_down("lab", "office", down=False)
    assert set(shapes("office").values()) == {Shape(delay=0.005)}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("link", ["office", None])
def test_reset_is_what_the_topology_says(link: str | None) -> None:
    links.change("lab", "office", parse(["delay=5ms"]), "bob")
    links.change("lab", "alice-r1", parse(["loss=50%"]), None)
    links.reset("lab", link)
    changed = {end.interface.link for end in links.show("lab") if not end.is_as_planned}
    assert changed == (set() if link is None else {"alice-r1"})


@pytest.mark.usefixtures("backend")
def test_a_change_can_be_undone_and_then_it_is_as_it_was_just_before() -> None:
    links.change("lab", "office", parse(["delay=5ms"]), None)
    undo = links.change("lab", "office", parse(["delay=20ms", "jitter=1ms"]), "carol", passing=True)
    assert shapes()["carol->office"] == Shape(delay=0.02, jitter=0.001)
    links.undo("lab", undo)
    assert shapes()["carol->office"] == Shape(delay=0.005)


@pytest.mark.usefixtures("backend")
def test_of_two_changes_that_overlap_each_undoes_its_own() -> None:
    slow = links.change("lab", "office", parse(["delay=20ms", "rate=8mbit", "queue=10pkt"]), "carol", passing=True)
    lossy = links.change("lab", "office", parse(["loss=5%"]), "carol", passing=True)
    down = links.set_down("lab", "office", down=True, passing=True)
    links.undo("lab", slow)
    assert shapes()["carol->office"] == Shape(loss=0.05, down=True)
    links.undo("lab", lossy)
    links.undo("lab", down)
    assert shapes()["carol->office"] == Shape()


def carols_delay() -> float:
    return shapes()["carol->office"].delay


def for_a_while(delay: str, sender: str | None = "carol") -> str:
    return links.change("lab", "office", parse([f"delay={delay}"]), sender, passing=True)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("order", "then"),
    [
        ((0, 1, 2), [0.03, 0.03, 0.005]),
        ((0, 2, 1), [0.03, 0.02, 0.005]),
        ((1, 0, 2), [0.03, 0.03, 0.005]),
        ((1, 2, 0), [0.03, 0.01, 0.005]),
        ((2, 0, 1), [0.02, 0.02, 0.005]),
        ((2, 1, 0), [0.02, 0.01, 0.005]),
    ],
)
def test_of_changes_of_one_setting_the_newest_holds_that_lasts_and_in_the_end_it_is_as_before_them(
    order: tuple[int, ...], then: list[float]
) -> None:
    links.change("lab", "office", parse(["delay=5ms"]), None)
    changes = [for_a_while("10ms"), for_a_while("20ms", None), for_a_while("30ms")]
    found = []
    for which in order:
        links.undo("lab", changes[which])
        found.append(carols_delay())
    assert found == then
    assert {shape.delay for shape in shapes("office").values()} == {0.005}


@pytest.mark.usefixtures("backend")
def test_a_change_for_good_holds_whatever_is_over_later() -> None:
    first, second = for_a_while("10ms"), for_a_while("20ms", None)
    links.change("lab", "office", parse(["delay=7ms"]), "carol")
    assert links.undo("lab", first) == "as it was changed later"
    assert links.undo("lab", second) == "as it was"  # at the other ends
    assert {direction: shape.delay for direction, shape in shapes("office").items()} == {
        "bob->office": 0.0,
        "carol->office": 0.007,
        "r1->office": 0.0,
    }


@pytest.mark.usefixtures("backend")
def test_after_a_reset_there_is_nothing_to_undo() -> None:
    undo = for_a_while("10ms")
    links.reset("lab", None)
    links.change("lab", "office", parse(["delay=7ms"]), "carol")
    links.undo("lab", undo)
    assert carols_delay() == 0.007


def test_a_lab_that_is_up_anew_has_nothing_to_undo_either(backend: Backend) -> None:
    undo = for_a_while("10ms")
    lab.down("lab", lambda _step: None)
    lab.up(Topology.model_validate(LAB), backend, lab="lab", report=lambda _step: None)
    links.change("lab", "office", parse(["delay=7ms"]), "carol")
    links.undo("lab", undo)
    assert carols_delay() == 0.007


def test_up_of_a_lab_whose_links_were_changed_resets_these_and_says_so(backend: Backend) -> None:
    said: list[str] = []

    def bring_up() -> object:
        return lab.up(Topology.model_validate(LAB), backend, lab="lab", report=said.append)[1]

    links.change("lab", "alice-r1", parse(["loss=50%", "delay=200ms"]), "alice")
    links.set_down("lab", "office", down=True, passing=True)
    assert bring_up() is not None
    assert said == ["resetting alice-r1, office"]
    assert all(end.is_as_planned for end in links.show("lab"))
    assert bring_up() is None
    assert len(said) == 1


def test_in_a_lab_that_is_down_there_is_nothing_to_undo(backend: Backend) -> None:
    undo = links.set_down("lab", "office", down=True, passing=True)
    backend.down("lab", lambda _step: None)
    assert links.undo("lab", undo) is None


def test_nor_is_there_at_a_link_that_is_gone(backend: Backend) -> None:
    undo = links.set_down("lab", "office", down=True, passing=True)
    without: Written = LAB | {"links": [LAB["links"][0], {"endpoints": ["r1", "bob", "carol"], "name": "home"}]}
    lab.up(Topology.model_validate(without), backend, lab="lab", report=lambda _step: None)
    assert links.undo("lab", undo) is not None
    assert all(end.is_as_planned for end in links.show("lab"))


@pytest.mark.usefixtures("backend")
def test_to_undo_a_change_waits_for_another_command() -> None:
    undo = links.change("lab", "office", parse(["delay=20ms"]), "carol", passing=True)
    with ThreadPoolExecutor() as pool:
        with state.lab_lock("lab"):
            undone = pool.submit(links.undo, "lab", undo)
            with pytest.raises(TimeoutError):
                undone.result(timeout=0.2)
        assert undone.result()
    assert shapes()["carol->office"] == Shape()


@pytest.mark.usefixtures("backend")
def test_a_queue_in_bdp_is_of_what_the_link_does_then() -> None:
    links.change("lab", "alice-r1", parse(["rate=8mbit", "queue=2bdp"]), "alice")
    assert shapes()["alice->r1"].queue_bytes == 2 * 8e6 * 0.02 / 8


@pytest.mark.parametrize("backend", [FakeBackend], indirect=True)
def test_a_queue_in_bdp_goes_with_the_rate_and_the_delay_as_in_an_event(backend: Backend) -> None:
    link = {"endpoints": ["alice", "r1"], "delay": "10ms", "rate": "8mbit", "queue": "2bdp"}
    queued: Written = LAB | {"links": [link, LAB["links"][1]]}
    lab.up(Topology.model_validate(queued), backend, lab="lab", report=lambda _step: None)
    undo = links.change("lab", "alice-r1", parse(["rate=80mbit"]), "alice", passing=True)
    assert shapes()["alice->r1"].queue_bytes == 2 * 80e6 * 0.02 / 8
    links.change("lab", "alice-r1", parse(["delay=20ms"]), "r1")
    assert shapes()["r1->alice"].queue_bytes == 2 * 8e6 * 0.04 / 8
    links.undo("lab", undo)
    assert shapes()["alice->r1"] == planned("alice->r1")

    links.change("lab", "alice-r1", parse(["queue=100pkt"]), None)
    links.change("lab", "alice-r1", parse(["rate=1mbit"]), None)
    assert [(shapes()[way].queue_packets, shapes()[way].queue_bytes) for way in ("alice->r1", "r1->alice")] == [
        (100, None),
        (100, None),
    ]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jitter=11ms"], "jitter: found a jitter above the delay"),
        (["queue=10pkt"], "queue: found a queue without a rate"),
        (["rate=1mbit", "queue=500B"], "queue: found a queue in which no full segment fits"),
        (["delay=0s", "reorder=1%"], "reorder: found reorder without a delay"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_changed(words: list[str], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        links.change("lab", "alice-r1", parse(words), None)
    assert all(end.is_as_planned for end in links.show("lab"))


@pytest.mark.usefixtures("backend")
def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="lab lab has no link 'x', it has alice-r1, office"):
        links.show("lab", ["x"])
    with pytest.raises(UnknownName, match="'alice' is at no end of office, there are bob, carol, r1"):
        links.change("lab", "office", parse(["loss=1%"]), "alice")
    with pytest.raises(NoSuchLab, match="there is no lab other here, up are lab"):
        links.show("other")


@pytest.mark.usefixtures("backend")
def test_a_lab_that_a_command_is_at_work_on_is_not_changed() -> None:
    with state.lab_lock("lab"), pytest.raises(Unavailable, match="lab lab is in use"):
        links.set_down("lab", "office", down=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["delay"], "found 'delay', expected NAME=VALUE with one of delay, jitter, rate, queue, loss, duplicate"),
        (["mtu=1400"], "found 'mtu=1400', expected NAME=VALUE"),
        (["underlay=1%"], "found 'underlay=1%', expected NAME=VALUE"),
        (["loss=1%", "delay=1ms", "delay=2ms"], "found delay twice, expected each once"),
        (["delay=25"], "delay: expected a time with its unit"),
        (["loss=2"], "loss: expected a share in percent"),
        (["rate="], "rate: expected a rate with its unit"),
    ],
)
def test_words_that_say_nothing_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        parse(words)


def test_an_end_is_as_planned_only_if_its_underlay_is_too(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del own_state
    backend = FakeBackend()
    monkeypatch.setattr(backends, "FACTORIES", {"only": lambda: backend})
    written: Written = LAB | {"links": [{"endpoints": ["alice", "r1"], "underlay": {"loss": "1%"}}]}
    lab.up(Topology.model_validate(written), backend, lab="lab", report=lambda _step: None)
    ends: list[End] = links.show("lab")
    assert [(end.is_as_planned, end.now.underlay) for end in ends] == [(True, Underlay(loss=0.01))] * 2

    links.change("lab", "alice-r1", parse(["delay=1ms"]), None)  # and that stays
    assert [end.now.underlay for end in links.show("lab")] == [Underlay(loss=0.01)] * 2
