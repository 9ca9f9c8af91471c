"""The ladder diagram: what was sent and what came are put together rightly, whatever the network does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chitcpd.sim import Shape
from chitcpd.tcp.api import Config
from testbed import finished, ladder_choice
from testbed.ladder import Expiry, Ladder, Note, Segment, StateChange, build
from testbed.ladder_text import render_text
from tests.testbed.recorded import Passage, Recorded, record
from tests.testbed.test_local import run_testbed

A, B = "10.0.0.2:5000", "10.0.0.3:7"
NEAR = 1e-6  # seconds: traces have nanoseconds, and what is due is a float
Event = dict[str, Any]


def segment(t: float, event: str, source: str, destination: str, flags: str, seq: int, **others: Any) -> Event:
    """An event of the one who sends or receives it."""
    local, peer = (source, destination) if event == "sent" else (destination, source)
    fields = {"flags": flags, "seq": seq, "len": 0, "wnd": 1000, **others}
    return {"t": t, "event": event, "local": local, "peer": peer, **fields}


def sent(t: float, source: str, flags: str, seq: int, **others: Any) -> Event:
    return segment(t, "sent", source, B if source == A else A, flags, seq, **others)


def came(t: float, source: str, flags: str, seq: int, **others: Any) -> Event:
    return segment(t, "received", source, B if source == A else A, flags, seq, **others)


def lost(why: str, event: Event) -> Event:
    """The line behind that of a segment that went no further."""
    return {**event, "event": "dropped", "direction": event["event"], "why": why, "bytes": event["len"] + 20}


def segments(ladder: Ladder, host: str | None = None) -> list[Segment]:
    return [row for row in ladder.rows if isinstance(row, Segment) and host in (None, row.source)]


def fates(ladder: Ladder) -> list[tuple[str, str, float | None]]:
    return [(row.source, row.fate, row.arrived) for row in segments(ladder)]


class TestOneSegment:
    def test_it_arrives(self) -> None:
        [row] = segments(build({"alice": [sent(1.0, A, "S", 100)], "bob": [came(1.5, A, "S", 100)]}))
        assert (row.source, row.destination, row.sent, row.arrived, row.fate) == ("alice", "bob", 1.0, 1.5, "arrived")
        assert (row.seq, row.ack, row.flags, row.retransmission, row.copy) == (0, None, "S", False, 1)

    def test_its_sender_has_lost_it(self) -> None:
        it = sent(1.0, A, "S", 100)
        [row] = segments(build({"alice": [it, lost("loss", it)], "bob": []}))
        assert (row.fate, row.why, row.where, row.arrived) == ("dropped", "loss", "alice", None)

    def test_a_router_has_lost_it(self) -> None:
        it = sent(1.0, A, "S", 100)
        [row] = segments(build({"alice": [it], "r1": [{**lost("queue", it), "t": 1.1}], "bob": []}))
        assert (row.why, row.where, row.dropped, row.source) == ("queue", "r1", 1.1, "alice")

    def test_its_receiver_had_no_room_for_it(self) -> None:
        here = came(1.5, A, "S", 100)
        [row] = segments(build({"alice": [sent(1.0, A, "S", 100)], "bob": [here, lost("backlog full", here)]}))
        assert (row.fate, row.why, row.where, row.arrived) == ("dropped", "backlog full", "bob", 1.5)

    def test_nobody_saw_it_come(self) -> None:
        [row] = segments(build({"alice": [sent(1.0, A, "S", 100)]}))
        assert (row.fate, row.source, row.destination) == ("unseen", "alice", "10.0.0.3")

    def test_nobody_saw_it_leave(self) -> None:
        [row] = segments(build({"bob": [came(1.5, A, "S", 100)]}))
        assert (row.fate, row.source, row.destination, row.sent) == ("arrived", "10.0.0.2", "bob", None)

    def test_it_came_twice(self) -> None:
        there = [came(t, A, "S", 100) for t in (1.5, 1.6)]
        ladder = build({"alice": [sent(1.0, A, "S", 100)], "bob": there})
        assert [(row.copy, row.arrived) for row in segments(ladder)] == [(1, 1.5), (2, 1.6)]

    def test_a_debugger_gives_it_again(self) -> None:
        """While an equal one is under way: it is not that one."""
        there = [came(1.5, A, "S", 100), came(2.1, A, "S", 100, debugger="duplicate"), came(2.5, A, "S", 100)]
        ladder = build({"alice": [sent(t, A, "S", 100) for t in (1.0, 2.0)], "bob": there})
        assert [(row.copy, row.sent, row.arrived) for row in segments(ladder)] == [
            (1, 1.0, 1.5),
            (1, 2.0, 2.5),
            (2, 1.0, 2.1),
        ]

    def test_numbers_are_from_the_initial_ones_also_around_the_wrap(self) -> None:
        first, data = sent(1, A, "S", 2**32 - 1), sent(3, A, "P.", 9, ack=501, len=5, sack=[[503, 504]])
        ladder = build({"alice": [first, data], "bob": [came(1, A, "S", 2**32 - 1), sent(2, B, "S.", 500, ack=0)]})
        assert [(row.seq, row.ack, row.sack) for row in segments(ladder)] == [
            (0, None, []),
            (0, 1, []),
            (10, 1, [(3, 4)]),
        ]

    def test_windows_are_in_bytes(self) -> None:
        syns = [sent(1, A, "S", 1, window_scale=2), sent(3, A, ".", 2, ack=1)], [sent(2, B, "S.", 0, ack=2)]
        assert [row.window for row in segments(build({"alice": syns[0], "bob": syns[1]}))] == [1000, 1000, 1000]
        syns[1][0]["window_scale"] = 0
        assert [row.window for row in segments(build({"alice": syns[0], "bob": syns[1]}))] == [1000, 1000, 4000]


class TestEqualSegments:
    """Retransmissions without timestamps, ACKs that say the same."""

    def test_the_first_was_lost(self) -> None:
        data = [sent(t, A, ".", 1, len=5) for t in (1.0, 2.0)]
        trace = [data[0], lost("loss", data[0]), data[1]]
        rows = segments(build({"alice": trace, "bob": [came(2.5, A, ".", 1, len=5)]}))
        assert [(row.fate, row.arrived, row.retransmission) for row in rows] == [
            ("dropped", None, False),
            ("arrived", 2.5, True),
        ]

    def test_the_second_was_lost_while_the_first_was_under_way(self) -> None:
        data = [sent(t, A, ".", 1, len=5) for t in (1.0, 1.2)]
        trace = [*data, lost("loss", data[1])]
        rows = segments(build({"alice": trace, "bob": [came(1.5, A, ".", 1, len=5)]}))
        assert [(row.fate, row.arrived) for row in rows] == [("arrived", 1.5), ("dropped", None)]

    def test_a_copy_is_not_a_retransmission_that_would_be_too_fast(self) -> None:
        trace = [sent(0.0, A, "S", 0), *(sent(t, A, ".", 1, len=5) for t in (1.0, 1.45))]
        there = [came(0.5, A, "S", 0), *(came(t, A, ".", 1, len=5) for t in (1.5, 1.51, 1.95))]
        rows = segments(build({"alice": trace, "bob": there}))
        assert [(row.sent, row.arrived, row.copy) for row in rows] == [
            (0.0, 0.5, 1),
            (1.0, 1.5, 1),
            (1.45, 1.95, 1),
            (1.0, 1.51, 2),
        ]

    def test_a_way_that_has_become_shorter(self) -> None:
        """What looked too fast to be the second was the second after all: nothing else has come."""
        trace = [sent(0.0, A, "S", 0), *(sent(t, A, ".", 1, len=5) for t in (1.0, 2.0))]
        there = [came(0.5, A, "S", 0), *(came(t, A, ".", 1, len=5) for t in (1.5, 2.1))]
        rows = segments(build({"alice": trace, "bob": there}))
        assert [(row.sent, row.arrived, row.copy) for row in rows] == [(0.0, 0.5, 1), (1.0, 1.5, 1), (2.0, 2.1, 1)]


class TestConnections:
    def test_the_one_that_opens_it_is_at_the_left(self) -> None:
        passive = {"t": 1.0, "event": "state", "connection": 4, "local": B, "peer": A, "from": "CLOSED", "to": "LISTEN"}
        [connection] = build({"bob": [passive]}).connections
        assert connection.addresses == (A, B)

    def test_ports_that_are_used_again_are_another_connection(self) -> None:
        def state(t: float, local: str, old: str, new: str, number: int) -> Event:
            ends = {"local": local, "peer": B if local == A else A}
            return {"t": t, "event": "state", "connection": number, **ends, "from": old, "to": new}

        alice = [
            state(1.0, A, "CLOSED", "SYN_SENT", 1),
            sent(1.0, A, "S", 10, connection=1),
            state(4.0, A, "SYN_SENT", "CLOSED", 1),
            state(5.0, A, "CLOSED", "SYN_SENT", 1),  # a daemon that was started anew counts from 1 again
            sent(5.0, A, "S", 99, connection=1),
        ]
        bob = [
            came(1.1, A, "S", 10),
            state(1.1, B, "CLOSED", "LISTEN", 7),
            came(5.1, A, "S", 99),
            state(5.2, B, "SYN_RCVD", "CLOSED", 7),  # late, and of the first one
            state(5.3, B, "CLOSED", "LISTEN", 8),
        ]
        ladder = build({"alice": alice, "bob": bob})
        assert [len(ladder.of(connection)) for connection in ladder.connections] == [5, 3]
        assert [connection.hosts for connection in ladder.connections] == [("alice", "bob")] * 2
        assert [row.seq for row in segments(ladder)] == [0, 0]

    def test_a_daemon_that_was_started_anew_numbers_its_connections_as_before(self) -> None:
        """Of which only the SYN tells: that it came from CLOSED stands in no trace that was cut off."""
        ladder = build({"alice": [sent(t, A, "S", seq, connection=1) for t, seq in ((1, 10), (2, 10), (5, 99))]})
        assert [(row.connection.number, row.retransmission, row.seq) for row in segments(ladder)] == [
            (1, False, 0),
            (1, True, 0),
            (2, False, 0),
        ]

    def test_the_same_ports_and_the_same_numbers_after_a_restart(self) -> None:
        """As of a daemon with a seed: what comes then is what it has sent then, though it says the same as before."""
        begins = {"event": "state", "connection": 1, "local": A, "peer": B, "from": "CLOSED", "to": "SYN_SENT"}
        alice = [event for t in (1.0, 5.0) for event in ({**begins, "t": t}, sent(t, A, "S", 10, connection=1))]
        rows = segments(build({"alice": alice, "bob": [came(5.1, A, "S", 10)]}))
        assert [(row.connection.number, row.fate, row.arrived, row.retransmission) for row in rows] == [
            (1, "unseen", None, False),
            (2, "arrived", 5.1, False),
        ]

    def test_without_numbers_a_new_syn_is_a_new_connection(self) -> None:
        ladder = build({"alice": [sent(t, A, "S", seq) for t, seq in ((1, 10), (2, 10), (3, 99))]})
        assert [(row.connection.number, row.retransmission) for row in segments(ladder)] == [
            (1, False),
            (1, True),
            (2, False),
        ]

    def test_what_is_no_segment_has_a_row_too(self) -> None:
        ends = {"local": A, "peer": B}
        events = [
            {"t": 1.0, "event": "state", "connection": 1, **ends, "from": "CLOSED", "to": "SYN_SENT"},
            {"t": 2.0, "event": "timer", "connection": 1, **ends, "timer": "RETRANSMISSION"},
            {"t": 3.0, "event": "app", **ends, "text": "close()"},
            {"t": 4.0, "event": "tcp", "connection": 1, **ends, "cwnd": 1},
        ]
        change, expiry, note = build({"alice": events}).rows
        assert isinstance(change, StateChange)
        assert (change.host, change.old, change.new) == ("alice", "CLOSED", "SYN_SENT")
        assert isinstance(expiry, Expiry)
        assert (expiry.host, expiry.timer) == ("alice", "RETRANSMISSION")
        assert isinstance(note, Note)
        assert (note.host, note.text) == ("alice", "close()")


class TestDamaged:
    @pytest.mark.parametrize(
        "turned",
        [
            {"seq": 1001 ^ 4},
            {"ack": 2**31},
            {"wnd": 1000 ^ 256},
            {"flags": "P."},
            {"peer": "10.0.0.2:5001"},
            {"local": "10.0.0.3:6"},
            {"timestamp": [1, 2 ^ 64]},
            {},  # in the data
        ],
        ids=str,
    )
    def test_one_bit_was_turned(self, turned: Event) -> None:
        stamps: Event = {"ack": 0, "timestamp": [1, 2]}
        trace = [sent(1.0, A, ".", seq, len=1000, **stamps) for seq in (1, 1001, 2001)]
        there = [came(1.5, A, ".", seq, len=1000, **stamps) for seq in (1, 1001, 2001)]
        there[1] = {**lost("wrong checksum", there[1]), **turned}
        rows = segments(build({"alice": trace, "bob": there}))
        assert [row.why for row in rows] == [None, "wrong checksum", None]
        assert [row.absolute_seq for row in rows] == [1, 1001, 2001]

    def test_what_is_no_segment_any_more_is_found_by_its_length(self) -> None:
        trace = [sent(1.0, A, ".", 1, len=100), sent(1.1, A, ".", 101, len=60), sent(1.2, A, ".", 161, len=60)]
        broken = {"t": 1.6, "event": "dropped", "local": "10.0.0.3", "peer": "10.0.0.2", "direction": "received"}
        there = [came(1.5, A, ".", 1, len=100), {**broken, "why": "a data offset", "bytes": 80}]
        rows = segments(build({"alice": trace, "bob": there}))
        assert [(row.fate, row.damaged) for row in rows] == [("arrived", False), ("dropped", True), ("unseen", False)]

    def test_what_comes_from_a_host_without_a_trace_is_whole(self) -> None:
        """Though it may differ in one bit from what came before."""
        rows = segments(build({"bob": [came(1.0 + seq, A, ".", 1024 * seq, len=1024) for seq in range(4)]}))
        assert [(row.copy, row.damaged, row.absolute_seq) for row in rows] == [
            (1, False, 1024 * seq) for seq in range(4)
        ]

    def test_what_a_stranger_sends_is_no_row(self) -> None:
        broken = {"t": 1.6, "event": "dropped", "local": "10.0.0.3", "peer": "10.0.0.9", "direction": "received"}
        assert build({"bob": [{**broken, "why": "3 bytes", "bytes": 3}]}).rows == []


# ---- against the truth -------------------------------------------------------------------------------------

shares = st.sampled_from([0.0, 0.05, 0.2])
shapes = st.builds(
    Shape,
    delay=st.sampled_from([0.0, 0.001, 0.02, 0.3]),
    jitter=st.sampled_from([0.0, 0.001]),
    rate=st.sampled_from([None, 1e6]),
    queue_packets=st.sampled_from([None, 10]),
    loss=shares,
    duplicate=shares,
    reorder=shares,
)
configs = st.builds(
    Config,
    timestamps=st.booleans(),
    sack=st.booleans(),
    delayed_ack=st.sampled_from([0.0, 0.04]),
    retries=st.just(1000),
    syn_retries=st.just(1000),
)
seeds = st.integers(0, 2**32 - 1)


def test_what_comes_after_the_end_is_answered_in_the_same_ladder() -> None:
    """The daemon gives each such answer a number of its own: it has no connection any more."""
    alice = [sent(1.0, A, "S", 100, connection=1), sent(2.0, A, "R.", 101, connection=1)]
    alice += [sent(2.1, A, "R", 101, connection=2), sent(2.2, A, "R", 101, connection=3)]
    assert [one.segments for one in build({"alice": alice}).connections] == [4]
    again = sent(3.0, A, "S", 900, connection=4)
    assert [one.segments for one in build({"alice": [*alice, again]}).connections] == [4, 1]


def by_content(recorded: Recorded, ladder: Ladder, side: int) -> Iterable[tuple[list[Segment], list[Passage]]]:
    """The rows of segments of one side that say the same, copies too, and what became of these in truth."""
    rows = segments(ladder, ("alice", "bob")[side])
    groups: defaultdict[Any, tuple[list[Segment], list[Passage]]] = defaultdict(lambda: ([], []))

    def content(row: Segment) -> Any:
        return row.flags, row.absolute_seq, row.absolute_ack, row.length, row.wnd, str(row.options)

    originals = [row for row in rows if row.copy == 1 and row.sent is not None]
    assert len(originals) == len(recorded.truth[side])
    for row, passage in zip(originals, recorded.truth[side], strict=True):
        assert row.sent == pytest.approx(passage.sent, abs=NEAR)
        groups[content(row)][1].append(passage)
    for row in rows:
        groups[content(row)][0].append(row)
    return groups.values()


def times(values: Iterable[float | None]) -> Any:
    return pytest.approx(sorted(value for value in values if value is not None), abs=NEAR)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, shape=shapes, config=configs, size=st.sampled_from([100, 20_000, 60_000]))
def test_each_row_is_what_really_happened(seed: int, shape: Shape, config: Config, size: int) -> None:
    """Of segments that say the same nobody can tell which is which, but how many of them came, and when."""
    recorded = record(seed, shape, config=config, size=size, answer=size // 3)
    ladder = build(recorded.traces)
    assert {connection.hosts for connection in ladder.connections} == {("alice", "bob")}  # also of an old SYN's copy
    for side in (0, 1):
        for rows, passages in by_content(recorded, ladder, side):
            assert sorted(row.arrived for row in rows if row.arrived is not None) == times(
                due for passage in passages for due in passage.whole
            )
            assert sorted(str(row.why) for row in rows if row.copy == 1) == sorted(str(one.why) for one in passages)
            assert all(row.sent is not None and row.sent <= (row.arrived or row.sent) + NEAR for row in rows)
            assert not any(row.damaged for row in rows)
    if not shape.reorder and not shape.duplicate:  # of a copy and an equal one either may seem to be the later
        assert not any(row.overtaken for row in segments(ladder))


@settings(max_examples=60, deadline=None)
@given(seed=seeds, shape=shapes, config=configs, corrupt=st.sampled_from([0.02, 0.2]))
def test_what_comes_whole_is_told_rightly_among_damaged_ones(
    seed: int, shape: Shape, config: Config, corrupt: float
) -> None:
    recorded = record(seed, among_damaged(shape, corrupt), config=config)
    ladder = build(recorded.traces)
    for side in (0, 1):
        rows = segments(ladder, ("alice", "bob")[side])
        assert sum(row.arrived is not None for row in rows) <= sum(len(one.arrivals) for one in recorded.truth[side])
        for group, passages in by_content(recorded, ladder, side):
            whole = [row for row in group if row.arrived is not None and row.fate == "arrived"]
            assert len(whole) == sum(len(passage.whole) for passage in passages)


def test_damaged_ones_are_found_as_a_rule() -> None:
    """Now and then one is taken for another that is very like it."""
    wrong = damaged = 0
    for seed in range(40):
        shape = Shape(delay=0.02, loss=0.05, duplicate=0.05, reorder=0.05, corrupt=0.1)
        recorded = record(seed, shape, config=Config(timestamps=seed % 2 == 0), size=40_000)
        ladder = build(recorded.traces)
        for side in (0, 1):
            for group, passages in by_content(recorded, ladder, side):
                ours = sum(row.fate == "dropped" and row.arrived is not None for row in group)
                theirs = sum(len(passage.damaged) for passage in passages)
                wrong, damaged = wrong + abs(ours - theirs), damaged + theirs
    assert damaged > 200
    assert wrong < damaged * 0.05


def among_damaged(shape: Shape, corrupt: float) -> Shape:
    """Without a delay all happens in one moment, and nobody can tell what was sent before it came."""
    return replace(shape, delay=shape.delay or 0.001, jitter=0.0, corrupt=corrupt)


def test_through_a_router_that_drops(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every drop is a segment's, none is anybody else's, and of no segment it is unknown what became of it."""
    del own_state
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routed.yaml").write_text(ROUTED)
    ran = run_testbed("run", "routed.yaml", "--backend", "sim", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    folder = finished.find("routed", Path("runs"))
    dropped = Counter(
        (path.parent.name, event["why"])
        for path in finished.trace_files(folder).values()
        for event in finished.events(path)
        if event["event"] == "dropped"
    )
    rows = segments(finished.ladder_of(folder))
    assert {name for name, _ in dropped} >= {"r1", "bob"}
    assert Counter((row.where, row.why) for row in rows if row.why is not None) == dropped
    assert "unseen" not in {row.fate for row in rows}
    assert all(row.sent is not None for row in rows)


ROUTED = """
name: routed
hosts: {alice: {}, bob: {}}
routers: {r1: {}}
links:
  - {endpoints: [alice, r1], delay: 5ms, rate: 10mbit, queue: 10pkt}
  - {endpoints: [r1, bob], delay: 5ms, loss: 2%}
apps:
  server:
    host: bob
    run: [python, -m, chisocket.apps.file, serve, --port, "7000"]
    files: {payload.bin: {random: 300kB}}
    ready: {listening: 7000}
  client:
    host: alice
    run: [python, -m, chisocket.apps.file, fetch, "bob:7000", payload.bin]
    needs: [server]
    expect: {exit: 0}
"""


# ---- in the terminal ---------------------------------------------------------------------------------------


def test_a_diagram() -> None:
    recorded = record(2, Shape(delay=0.02, loss=0.1, duplicate=0.1), config=Config(timestamps=False), size=5000)
    text = render_text(build(recorded.traces).rows)
    assert text == DIAGRAM
    assert max(map(len, text.splitlines())) <= 80


DIAGRAM = """\
  seconds alice 10.0.0.2:52868                                    bob 10.0.0.3:7
 0.000000 SYN-SENT     - S seq 0 wnd 65535 mss 1460 ws 5 sackOK --> SYN-RECEIVED
 0.020000 ESTABLISHED  <-- S. seq 0 ack 1 wnd 65535 mss 1460 ws 5 -
 0.040000              --- . ack 1 wnd 1048576 -------------------> ESTABLISHED
 0.040000              --- . seq 1:1461 ack 1 wnd 1048576 ---X loss
 0.040000              --- . seq 1461:2921 ack 1 wnd 1048576 ----->
 0.040000              --- . seq 2921:4381 ack 1 wnd 1048576 ----->
 0.040000 FIN-WAIT-1   --- P. seq 4381:5001 ack 1 wnd 1048576 ---->
 0.040000              --- F. seq 5001 ack 1 wnd 1048576 --------->
 0.060000              <-- . ack 1 sack 1461:2921 wnd 1048576 -----
 0.060000              <-- . ack 1 sack 1461:4381 wnd 1048576 -----
 0.060000              <-- . ack 1 sack 1461:5001 wnd 1048576 -----
 0.060000              <-- . ack 1 sack 1461:5002 wnd 1048576 -----
 0.080000              - . seq 1:1461 ack 1 (again) wnd 1048576 --> CLOSE-WAIT
 0.100000 FIN-WAIT-2   <-- . ack 5002 wnd 1043552 -----------------
 0.100000 TIME-WAIT    <-- F. seq 1 ack 5002 wnd 1048576 ---------- LAST-ACK
 0.120000              --- . ack 2 wnd 1048544 -------------------> CLOSED
 2.120000 * TIME_WAIT timer
 2.120000 CLOSED
"""


@pytest.mark.parametrize("width", [10, 72, 80, 100, 120])
def test_no_line_is_wider_than_it_may_be(width: int) -> None:
    shape = Shape(delay=0.02, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1)
    text = render_text(build(record(5, shape, size=100_000).traces).rows, width, fold=False)
    assert max(map(len, text.splitlines())) <= max(width, 72)


def test_what_is_alike_is_folded() -> None:
    ladder = build(record(1, Shape(delay=0.02), size=1_000_000).traces)
    folded, whole = render_text(ladder.rows), render_text(ladder.rows, fold=False)
    assert len(folded.splitlines()) < 25 < 700 < len(whole.splitlines())
    assert "bytes to bob" in folded


def test_nothing_to_draw() -> None:
    assert render_text([]) == ""


# ---- a part of it ------------------------------------------------------------------------------------------

CHOICES: list[tuple[dict[str, Any], Callable[[Ladder, ladder_choice.Choice], bool]]] = [
    ({}, lambda ladder, choice: choice.rows == ladder.rows),
    ({"between": ("bob", "alice")}, lambda ladder, choice: choice.rows == ladder.rows),
    ({"port": 7}, lambda ladder, choice: choice.rows == ladder.rows),
    ({"connection": 1}, lambda ladder, choice: choice.rows == ladder.rows),
    ({"begin": 0.03}, lambda _, choice: choice.states_before == {1: ["SYN_SENT", "SYN_RCVD"]}),
    ({"end": 0.03}, lambda ladder, choice: 0 < len(choice.rows) < len(ladder.rows)),
]


@pytest.mark.parametrize(("asked", "is_right"), CHOICES, ids=[str(asked) for asked, _ in CHOICES])
def test_a_choice(asked: dict[str, Any], is_right: Callable[[Ladder, ladder_choice.Choice], bool]) -> None:
    ladder = build(record(1, Shape(delay=0.02), epoch=10**18).traces)
    assert is_right(ladder, ladder_choice.choose(ladder, **asked))


@pytest.mark.parametrize(
    "asked", [{"between": ("bob", "carol")}, {"port": 8}, {"connection": 2}, {"begin": 1e5}, {"end": -1.0}], ids=str
)
def test_a_choice_of_which_nothing_is_left(asked: dict[str, Any]) -> None:
    with pytest.raises(ladder_choice.NoSuchConnection, match=r"there is 1, between alice and bob|nothing happened"):
        ladder_choice.choose(build(record(1, Shape(delay=0.02)).traces), **asked)
