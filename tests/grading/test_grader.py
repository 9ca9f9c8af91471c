"""The grader: who gets which points, the same each time, and in which words."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from chitcpd import loader
from chitcpd.tcp.api import ACK, Segment, State, TcpConnection, Timer
from testbed.grading import start
from testbed.grading.catalog import STAGES, catalog
from testbed.grading.diagram import draw
from testbed.grading.network import Shape, transfer
from testbed.grading.runner import Grade, reference
from testbed.grading.sandbox import Source
from testbed.grading.script import MSS, Bench, Failed
from testbed.grading.weights import BadWeights, Weights, load
from tests.grading.grading import grade, passes
from tests.grading.mutants import CHOICES, Mutant, mutants, noticed, pack

PROJECT = Path(__file__).parents[2]
STOP_AND_WAIT = Source.read(PROJECT / "examples" / "stop_and_wait.py")
ALL = [(test, test.points) for test in catalog()]

# What examples/stop_and_wait.py leaves out, and the tests that ask for it.
DESERVED = {
    "data": {"acks-are-delayed", "nagle"},
    "reordering": {
        "kept-until-the-gap-is-filled",
        "filled-gap-at-once",
        "several-gaps",
        "overlapping-pieces",
        "repeated-ahead-of-a-gap",
        "fin-ahead-is-kept",
        "gap-at-the-wrap",
        "any-order",
    },
    "flow control": {"whole-window-is-used", "silly-windows-are-not-filled"},
    "RTO": {
        "first-measurement",
        "second-measurement",
        "steady-round-trips",
        "floor",
        "karn",
        "measurement-ends-back-off",
        "measured-from-its-own-segment",
    },
    "congestion control": {
        "initial-window",
        "slow-start",
        "congestion-avoidance",
        "fast-retransmit",
        "two-duplicates-are-not-enough",
        "loss-halves-the-window",
        "never-below-two-segments",
        "partial-ack",
        "time-out-leaves-one-segment",
        "repeated-time-outs",
    },
}


@pytest.fixture(scope="module")
def stop_and_wait() -> Grade:
    return grade(STOP_AND_WAIT, ALL)


def failed(result: Grade) -> dict[str, set[str]]:
    lost = {stage: {v.test.id for v in verdicts if not v.passed} for stage, verdicts in result.stages()}
    return {stage: ids for stage, ids in lost.items() if ids}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_gets_all_points(seed: int) -> None:
    """Here in this process; `make grading-mutants` and CI need not do more. 100 seeds were measured."""
    for test in catalog():
        assert reference(test, seed), test.id  # events; raises Failed if one is not as it should be


def test_the_reference_as_a_submission_gets_all_points() -> None:
    """Packed into one file, and locked up: the grader can't tell it from others."""
    result = grade(pack("reference.py"), ALL)
    assert failed(result) == {}
    assert result.earned == result.points


def test_stop_and_wait_gets_exactly_what_it_deserves(stop_and_wait: Grade) -> None:
    assert failed(stop_and_wait) == DESERVED


def test_each_failure_says_what_was_expected_and_what_should_have_happened(stop_and_wait: Grade) -> None:
    for verdict in stop_and_wait.verdicts:
        if not verdict.passed:
            assert verdict.message.startswith("expected ")
            assert "; got " in verdict.message
            happened, expected = draw(verdict.happened, "stop_and_wait.py"), draw(verdict.expected, "reference")
            assert "stop_and_wait.py" in happened
            assert happened != expected
            assert max(map(len, f"{happened}{expected}".splitlines())) <= 80


def test_both_diagrams_show_the_same_connection(stop_and_wait: Grade) -> None:
    """Of a test with several, the one that failed."""
    [verdict] = [verdict for verdict in stop_and_wait.verdicts if verdict.test.id == "karn"]
    sent = [[event.text for event in events if event.kind == "call"] for events in (verdict.happened, verdict.expected)]
    assert sent[0] == sent[1][: len(sent[0])]


def test_a_test_alone_comes_out_as_it_does_among_all(stop_and_wait: Grade) -> None:
    """Each has a process, dice and a clock of its own."""
    for verdict in stop_and_wait.verdicts[-30::6]:
        [alone] = grade(STOP_AND_WAIT, [(verdict.test, verdict.points)]).verdicts
        assert alone == verdict


def test_an_empty_skeleton_gets_nothing_and_is_told_what_to_do_first(tmp_path: Path) -> None:
    start.new(tmp_path / "my_tcp.py")
    tests = [(test, points) for test, points in ALL if test.stage in ("connection", "data", "robustness")]
    result = grade(Source.read(tmp_path / "my_tcp.py"), tests)
    assert result.earned == 0
    assert result.trouble == ""
    assert result.verdicts[0].message == "expected SYN seq 0; got nothing"
    assert not any(verdict.way for verdict in result.verdicts)  # nothing raises: unfilled parts fail tests


def test_a_skeleton_loads_as_the_tcp_of_a_host(tmp_path: Path) -> None:
    start.new(tmp_path / "my_tcp.py")
    assert loader.load(str(tmp_path / "my_tcp.py")).__name__ == "MyTcp"


# What the RFCs leave free, and the tests that ask for one way of it nevertheless: windows are counted in full segments.
ASKED_FOR = {
    "small-segments": {
        "segments-are-full",
        "no-silly-windows",
        *(test.id for test in catalog() if test.stage == "congestion control"),
    }
}


@pytest.mark.parametrize("choice", sorted(CHOICES.glob("*.patch")), ids=lambda path: path.stem)
def test_a_tcp_that_has_chosen_otherwise_loses_nothing(choice: Path, tmp_path: Path) -> None:
    """Each is the reference with something else that is right too. In this process, for speed."""
    file = tmp_path / "choice.py"
    file.write_text(pack(file.name, choice).text)
    tcp = loader.load(str(file))
    assert {test.id for test in catalog() if not passes(test, tcp)} <= ASKED_FOR.get(choice.stem, set())


def test_data_needs_no_fin() -> None:
    """The stages are done in this order; and where a FIN is needed, its lack is told."""
    text = STOP_AND_WAIT.text.replace("fin = self._closing and not", "fin = False and not")
    tests = [(test, points) for test, points in ALL if test.id in ("whole-transfer", "lossy-transfer")]
    whole, lossy = grade(Source("x.py", text), tests).verdicts
    assert whole.passed, whole.message
    assert lossy.message.endswith("after 60000 bytes there; the application has closed, and no FIN was sent")
    assert "close" in [event.text for event in lossy.happened if event.kind == "call"]


def test_bursts_are_shown_segment_by_segment() -> None:
    """As they cross the link: none is larger than the MSS, and what was lost is sent again."""
    bench = Bench(loader.load(loader.REFERENCE), Random(1))
    transfer(bench, client=True, there=60_000, back=60_000, shape=Shape(delay=0.02, loss=0.1))
    segments = [event.segment for event in bench.events if event.segment is not None]
    assert max(len(seg.data) for seg in segments) == MSS
    sent = [event.segment.seq for event in bench.events if event.segment is not None and event.kind == "sent"]
    lost = [event.segment for event, after in pairwise(bench.events) if after.kind == "lost"]
    assert len(lost) > 3
    assert all(sent.count(seg.seq) > 1 for seg in lost if seg is not None and seg.data)


class Chatter(TcpConnection):
    """Sends an ACK again and again, and never what is wanted."""

    readable = writable = at_eof = 0  # type: ignore[assignment]

    def open(self, now: float, *, active: bool) -> None:
        self._arm(Timer.RETRANSMISSION, now)

    def send(self, data: bytes | memoryview, now: float) -> int:
        return 0

    def receive(self, limit: int, now: float) -> bytes:
        return b""

    def close(self, now: float) -> None: ...

    def abort(self, now: float) -> None: ...

    def segment_arrives(self, seg: Segment, now: float) -> None: ...

    def timeout(self, timer: Timer, now: float) -> None:
        self._emit(Segment(0, flags=ACK))
        self._arm(timer, now)


def test_each_segment_is_looked_at_once() -> None:
    """However many there are: a submission must not keep the judge busy."""
    script = Bench(Chatter, Random(1)).connection(State.CLOSED)
    script.open(active=True)
    looked = 0

    def wanted(_seg: Segment) -> bool:
        nonlocal looked
        looked += 1
        return False

    with pytest.raises(Failed, match="expected timers that end"):
        script._wait_for(wanted, 1.0)
    assert looked == len(script.sent)


SAMPLE = ["no-karn", "fin-is-not-acknowledged", "no-wrap-around", "window-off-by-one", "four-duplicates"]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_student_s_mistake_costs_points_in_its_stage(name: str) -> None:
    """All of them: make grading-mutants."""
    [mutant] = [mutant for mutant in mutants() if mutant.name.partition("-")[2] == name]
    assert noticed(mutant)


def test_there_are_mutants_enough_of_each_stage() -> None:
    found: list[Mutant] = mutants()
    assert len(found) >= 60
    assert {mutant.stage for mutant in found} == set(STAGES)
    assert len({mutant.name for mutant in found}) == len(found)


def test_the_tests_are_named_for_what_they_ask() -> None:
    tests = catalog()
    assert len({test.title for test in tests}) == len(tests)
    for test in tests:
        assert test.rfc.startswith("RFC ")
        assert test.points > 0
        assert len(test.title) < 120, test.title
    assert list(dict.fromkeys(test.stage for test in tests)) == list(STAGES)


# ---- weights -----------------------------------------------------------------------------------------------


def test_a_stage_has_the_points_that_it_is_given_and_its_tests_share_them(tmp_path: Path) -> None:
    file = tmp_path / "weights.yaml"
    file.write_text("stages: {connection: 40, RTO: 0}\ntests: {active-open: 0, slow-start: 9}\n")
    points = load(file).points(catalog())
    assert sum(p for test, p in points if test.stage == "connection") == pytest.approx(40)
    assert not any(test.stage == "RTO" or test.id == "active-open" for test, _ in points)
    assert {test.id: p for test, p in points}["slow-start"] == 9


def test_a_test_alone_has_the_points_that_it_has_among_all() -> None:
    weights = Weights({"connection": 40.0}, {"active-open": 4.0})
    among_all = dict(weights.points(catalog()))
    alone = Weights(weights.stages, weights.tests, only=("active-open", "RTO")).points(catalog())
    assert {test.id for test, _ in alone} == {"active-open", *(t.id for t in catalog() if t.stage == "RTO")}
    assert all(points == among_all[test] for test, points in alone)


def test_without_a_file_each_test_has_its_own_points() -> None:
    assert Weights().points(catalog()) == ALL


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stages: {conection: 3}", "1:21: stages.conection: found conection, expected the name of a stage: connection"),
        ("tests:\n  nagle: many", "2:10: tests.nagle: found many, expected points: 0 to 10000"),
        ("tests:\n  nagle: -1", "2:10: tests.nagle: found -1, expected points"),
        ("tests:\n  nagle: .nan", "found .nan, expected points"),
        ("points: {}", "1:9: points: found points, expected one of the keys: stages, tests"),
        ("stages: 3", "1:9: stages: found no mapping"),
        ("stages: {data: 1, data: 2}", "1:25: stages.data: found for the second time, expected once"),
        (
            "stages: {connection: 3, close: 0, data: 2}\ntests: {"
            + ", ".join(f"{test.id}: 0" for test in catalog() if test.stage in ("connection", "close"))
            + "}",
            "1:22: stages.connection: found 3 points that no test shares, expected one of the stage worth more than 0",
        ),
        ("stages:\n\tdata: 1", "2:1: found no YAML (found character '\\t' that cannot start any token), expected"),
        ("- 1", "found no mapping"),
        ("", "found no mapping"),
        ("stages: {", "found no YAML"),
        ("[" * 5000, "found no"),
    ],
)
def test_a_fault_in_a_file_of_weights_is_told_with_its_place(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "weights.yaml"
    file.write_text(text)
    with pytest.raises(BadWeights) as caught:
        load(file)
    assert fault in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_of_weights_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="found no file of weights"):
        load(tmp_path / "nothing.yaml")
