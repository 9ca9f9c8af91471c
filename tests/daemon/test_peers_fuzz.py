"""A bounded size of the fuzz of port 23300, and proof that it finds what is wrong."""

from __future__ import annotations

import pytest

from chitcpd import carrier
from chitcpd.carrier import Carrier
from chitcpd.peer import Peer
from tests.daemon import fuzz_peers

SEED, INPUTS = 1, 15_000


def test_bad_input_does_no_harm() -> None:
    fuzz_peers.fuzz(INPUTS, SEED)


def test_nor_to_a_real_daemon() -> None:
    print(fuzz_peers.harass_a_daemon(2000, SEED))


def found() -> str:
    try:
        fuzz_peers.fuzz(INPUTS, SEED)
    except Exception as failure:
        return f"{type(failure).__name__} {failure} {failure.__notes__}"
    pytest.fail("nothing was found")


def test_a_length_that_is_trusted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "_MIN_SEGMENT", 19)
    assert "--replay 1:" in found()


def test_a_stall_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Carrier, "_look", lambda _: None)
    assert "stalls since" in found()


def test_too_many_connections_of_one_peer_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_peers, "_ADDRESSES", ("10.0.0.1", "10.0.0.9"))
    monkeypatch.setattr(Peer, "_shed", lambda *_: None)
    assert "AssertionError" in found()


def test_a_timer_that_outlives_its_connection_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_peers.Handle, "cancel", lambda _: None)
    assert "AssertionError" in found()
