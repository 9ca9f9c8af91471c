"""A bounded size of the fuzz, and proof that it finds what is wrong. More: python -m tests.tcp.fuzz."""

from __future__ import annotations

import re
from random import Random

import pytest

from chitcpd.tcp import wire
from chitcpd.tcp.api import Segment, State
from chitcpd.tcp.connection import Connection
from chitcpd.tcp.receive import ReceiveBuffer
from tests.tcp import fuzz

SEED = 1
CASES = {"codec": 10_000, "sequence": 1_000}


@pytest.mark.parametrize("what", fuzz.RUN)
def test_bad_input_does_no_harm(what: str) -> None:
    random = Random(SEED)
    executions = sum(fuzz.execute(what, fuzz.DRAW[what](random)) for _ in range(CASES[what]))
    assert executions >= CASES[what]


def test_the_sequences_meet_every_state() -> None:
    """From each they go on, and into most others they lead."""
    random, steps = Random(SEED), set[str]()
    for _ in range(300):
        report = fuzz.report("sequence", fuzz.draw_sequence(random))
        steps |= set(re.findall(r"^    ([A-Z_0-9]+ to [A-Z_0-9]+)$", report, re.MULTILINE))
        steps |= set(re.findall(r"^in ([A-Z_0-9]+),", report))
    assert {state.name for state in State} <= steps
    assert len(steps - {state.name for state in State}) >= 20


# ---- what it must find: one fault of each kind -----------------------------------------------------------------


def found(what: str) -> str:
    """The report of the first failure."""
    random = Random(SEED)
    try:
        for _ in range(CASES[what]):
            fuzz.execute(what, fuzz.DRAW[what](random))
    except fuzz.Found as failure:
        return str(failure)
    pytest.fail("nothing was found")


def test_a_decoder_that_trusts_a_length_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_decode_option", lambda options, _, body: setattr(options, "window_scale", body[0]))
    assert "IndexError" in found("codec")


def test_an_exception_is_found_cut_down_and_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    arrives = Connection.segment_arrives

    def segment_arrives(self: Connection, seg: Segment, now: float) -> None:
        arrives(self, seg, now)
        if self.state == State.CLOSE_WAIT and len(seg.data) > 100:
            raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Connection, "segment_arrives", segment_arrives)
    report = found("sequence")
    assert "ZeroDivisionError: a fault" in report
    assert len(re.findall("^segment ", report, re.MULTILINE)) <= 3
    what, case = re.findall("--replay ([a-z]+):([0-9a-f]+)$", report)[0]
    assert fuzz.report(what, bytes.fromhex(case)) == report


def test_a_step_outside_the_table_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "_enter_time_wait", lambda self, _: self._enter(State.LAST_ACK))
    assert "is not in RFC 9293" in found("sequence")


def test_memory_beyond_the_window_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window never closes, whatever waits to be read."""
    monkeypatch.setattr(Connection, "_window_gain", lambda _: 1000)
    assert "bytes received are held" in found("sequence")


def test_misplaced_bytes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReceiveBuffer, "read", lambda self, limit: bytes(min(self.readable, limit)))
    assert "wrong bytes are received" in found("sequence")
