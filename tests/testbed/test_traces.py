"""What checks read in traces: literal events, and numbers that go round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed import traces
from testbed.traces import Event

A, B = "10.0.0.2:50000", "10.0.0.3:7"
TOP = 2**32


def segment(
    event: str, seq: int, length: int, *, t: float = 0.0, ends: tuple[str, str] = (A, B), flags: str = "."
) -> Event:
    return {"t": t, "event": event, "local": ends[0], "peer": ends[1], "flags": flags, "seq": seq % TOP, "len": length}


class TestRetransmissions:
    @pytest.mark.parametrize("start", [1, TOP - 150])
    def test_what_was_sent_before(self, start: int) -> None:
        sent = [segment("sent", start + at, 100) for at in (0, 100, 200, 100, 300, 0)]
        assert traces.retransmissions(sent) == 2

    def test_in_part(self) -> None:
        assert traces.retransmissions([segment("sent", 1, 100), segment("sent", 51, 100)]) == 1

    def test_each_connection_and_direction_has_its_own_numbers(self) -> None:
        ends = [(A, B), (B, A), ("10.0.0.2:50001", B)]
        assert traces.retransmissions([segment("sent", 1, 100, ends=one) for one in ends]) == 0

    def test_neither_what_is_received_nor_what_has_no_data(self) -> None:
        events = [segment("received", 1, 100)] * 2 + [segment("sent", 1, 0)] * 2
        assert traces.retransmissions(events) == 0


class TestFlow:
    def test_each_byte_once_in_both_directions(self) -> None:
        flow = traces.flow(
            [
                segment("sent", 1, 100, t=10.0),
                segment("received", 7, 50, t=11.0),
                segment("sent", 1, 100, t=12.0),
                segment("sent", 101, 100, t=14.0),
                segment("sent", 201, 0, t=99.0),
            ]
        )
        assert (flow.bytes, flow.seconds, flow.bits_per_second) == (250, 4.0, 500.0)

    def test_nothing(self) -> None:
        assert traces.flow([]).bits_per_second == 0.0


def test_resets() -> None:
    events = [segment("sent", 1, 0, flags="R."), segment("received", 1, 0, flags="R"), segment("sent", 1, 0, flags="S")]
    assert traces.resets(events) == 1


def test_states() -> None:
    events = [
        {"event": "state", "local": A, "peer": B, "from": "?", "to": to} for to in ("SYN_SENT", "CLOSED", "SYN_SENT")
    ]
    assert traces.states(events) == ["SYN_SENT", "CLOSED"]


def test_those_of_a_host() -> None:
    ends = [(A, B), (B, A), ("10.0.0.3:7", "10.0.0.4:9"), ("[fd00::2]:1", "[fd00::3]:2")]
    events = [segment("sent", 1, 1, ends=one) for one in ends]
    assert list(traces.of_host(events, frozenset({"10.0.0.2"}))) == events[:2]
    assert list(traces.of_host(events, frozenset({"fd00::3"}))) == events[3:]


def test_a_trace_that_was_cut_off(tmp_path: Path) -> None:
    events = [segment("sent", 1, 1), segment("sent", 2, 1)]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"t": 1.0, "ev')
    assert list(traces.read(tmp_path / "trace.jsonl")) == events
    assert list(traces.read(tmp_path / "nothing")) == []
