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


def acknowledgement(ack: int) -> Event:
    """Of all that A has sent before this number."""
    return segment("received", 1, 0) | {"ack": ack % TOP}


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

    @pytest.mark.parametrize("isn", [5000, 50000, TOP - 10])
    def test_a_daemon_that_was_started_anew_uses_its_ports_again(self, isn: int) -> None:
        events = [segment("sent", 0, 0, flags="S"), segment("sent", 1, 10000), acknowledgement(10001)]
        events.append(segment("sent", 10001, 10))  # of which nobody knows whether it has arrived
        events += [segment("sent", isn, 0, flags="S"), segment("sent", isn + 1, 100), acknowledgement(isn + 101)]
        assert traces.retransmissions(events) == 0
        flow = traces.flow(events)
        assert flow is not None
        assert flow.bytes == 10100

    def test_a_syn_that_is_sent_again_begins_nothing(self) -> None:
        events = [segment("sent", 0, 0, flags=flags) for flags in ("S", "S", "S.")]
        data = segment("sent", 1, 100)
        assert traces.retransmissions([*events, data, events[-1], data]) == 1

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
                acknowledgement(201),
            ]
        )
        assert flow is not None
        assert (flow.bytes, flow.first, flow.last) == (250, 10.0, 14.0)
        assert (flow.seconds, flow.bits_per_second) == (4.0, 500.0)

    @pytest.mark.parametrize("start", [1, TOP - 150])
    def test_what_comes_late_is_new_as_well(self, start: int) -> None:
        """After a loss, what fills the gap comes when more has long been there; and a copy of it is not new."""
        flow = traces.flow([segment("received", start + at, 100) for at in (100, 400, 0, 450, 200, 250, 100, 300, 200)])
        assert flow is not None
        assert flow.bytes == 550

    def test_nothing(self) -> None:
        assert traces.flow([]) is None

    def test_in_no_time(self) -> None:
        flow = traces.flow([segment("sent", 1, 100, t=1.0), acknowledgement(101)])
        assert flow is not None
        assert flow.bits_per_second == 0.0

    def test_what_is_new_in_a_while(self) -> None:
        """What was sent before is not new, whenever it is sent again."""
        events = [segment("sent", seq, 100, t=t) for seq, t in ((1, 1.0), (101, 2.0), (1, 2.5), (201, 3.0), (301, 4.0))]
        assert traces.bytes_between([*events, acknowledgement(401)], 2.0, 3.0) == 200

    @pytest.mark.parametrize("start", [1, TOP - 150])
    def test_what_was_sent_and_not_acknowledged_does_not_count(self, start: int) -> None:
        events = [segment("sent", start + at, 100, t=float(at)) for at in (0, 100, 200, 100)]
        flow = traces.flow([*events[:3], acknowledgement(start + 100), events[3], acknowledgement(start + 200)])
        assert flow is not None
        assert (flow.bytes, flow.first, flow.last) == (200, 0.0, 100.0)


@pytest.mark.parametrize(
    ("shares", "index"), [([5.0, 5.0, 5.0], 1.0), ([1.0, 0.0], 0.5), ([1.0, 3.0], 0.8), ([0.0, 0.0], 0.0)]
)
def test_jain_s_index(shares: list[float], index: float) -> None:
    assert traces.jain(shares) == pytest.approx(index)


class TestBackoffs:
    @staticmethod
    def expired(*times: float, connection: int = 1) -> list[Event]:
        plain = {"event": "timer", "timer": "RETRANSMISSION", "local": A, "peer": B, "connection": connection}
        return [{**plain, "t": t} for t in times]

    def test_waits_that_double(self) -> None:
        assert traces.backoffs(self.expired(1, 2, 4, 8, 15.5)) == [traces.Backoff(3, None)]

    def test_what_is_received_begins_anew(self) -> None:
        received = {"t": 4.5, "event": "received", "local": A, "peer": B, "connection": 1, "flags": "."}
        events = [*self.expired(1, 2, 4), received, *self.expired(5, 6, 8, 12)]
        assert traces.backoffs(events) == [traces.Backoff(1, None), traces.Backoff(2, None)]

    def test_a_daemon_that_was_started_anew_numbers_its_connections_as_before(self) -> None:
        syns = [segment("sent", isn, 0, flags="S") | {"connection": 1} for isn in (7, 7, 1000)]
        events = [syns[0], *self.expired(1, 2), syns[1], *self.expired(4), syns[2], *self.expired(5, 6, 8)]
        assert traces.backoffs(events) == [traces.Backoff(1, None), traces.Backoff(1, None)]

    def test_each_connection_has_its_own(self) -> None:
        events = [*self.expired(1, 2, 4), *self.expired(5, 6, connection=2), *self.expired(8)]
        assert traces.backoffs(events) == [traces.Backoff(2, None)]

    def test_a_wait_that_did_not_grow(self) -> None:
        assert traces.backoffs(self.expired(1, 2, 4, 6)) == [traces.Backoff(1, (2, 2))]

    def test_a_minute_need_not_grow(self) -> None:
        assert traces.backoffs(self.expired(0, 40, 100, 160)) == [traces.Backoff(0, None)]

    def test_other_timers_do_not_count(self) -> None:
        assert traces.backoffs([event | {"timer": "PERSIST"} for event in self.expired(1, 2, 4)]) == []


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


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(traces.read(tmp_path / "nothing"))


def test_who_is_at_the_other_end() -> None:
    assert traces.peers([segment("sent", 1, 1), segment("sent", 1, 1, ends=(B, A))]) == {"10.0.0.2", "10.0.0.3"}
