"""Verdicts on how applications ended and on what they left."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from testbed import checks
from testbed.outcome import Ending
from testbed.topology.model import Check
from tests.testbed.plans import an_app

CONTENT = b"what was sent"


SERVER = an_app("server", files={"payload.bin": CONTENT})
CLIENT = an_app("client")


def test_an_expected_status_is_good() -> None:
    result = checks.exit_status(Ending(CLIENT, "by itself", 0))
    assert (result.check, result.ok, result.message) == ("exit client", True, "client ended with status 0")


def test_another_status_is_not() -> None:
    result = checks.exit_status(Ending(an_app("client", expect_exit=2), "by itself", 0))
    assert (result.ok, result.message) == (False, "client ended with status 0, expected 2")


def test_an_application_that_was_late_is_not_good_whatever_its_status() -> None:
    for ending in (Ending(CLIENT, "timed out", 0), Ending(CLIENT, "by itself", 0, seconds=60.1)):
        result = checks.exit_status(ending)
        assert (result.ok, result.message) == (False, "client did not end within 60 s")


def test_what_arrived_whole_is_good_and_both_digests_are_told(tmp_path: Path) -> None:
    (tmp_path / "payload.bin").write_bytes(CONTENT)
    result = checks.integrity("client", [SERVER, CLIENT], tmp_path)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert result.ok
    assert [(c.file, c.giver, c.sent, c.received) for c in result.comparisons] == [
        ("payload.bin", "server", digest, digest)
    ]


def test_a_file_that_differs_is_not(tmp_path: Path) -> None:
    (tmp_path / "payload.bin").write_bytes(CONTENT[:-1])
    result = checks.integrity("client", [SERVER, CLIENT], tmp_path)
    assert (result.ok, result.message) == (False, "payload.bin is not what server was given")
    assert result.comparisons[0].received == hashlib.sha256(CONTENT[:-1]).hexdigest()


def test_nothing_that_arrived_is_not_good(tmp_path: Path) -> None:
    result = checks.integrity("client", [SERVER, CLIENT], tmp_path)
    assert (result.ok, result.message) == (False, "client has no file payload.bin in its working directory")
    assert result.comparisons[0].received is None


def test_what_the_receiver_itself_was_given_is_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "payload.bin").write_bytes(CONTENT)
    assert not checks.integrity("server", [SERVER, CLIENT], tmp_path).ok
    too = an_app("client", files={"payload.bin": CONTENT})
    result = checks.integrity("client", [SERVER, too], tmp_path)
    assert (result.ok, result.message) == (
        False,
        "no other application was given another file: there is nothing to compare with",
    )


def test_what_did_not_arrive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    giver = an_app("giver", files={"a": CONTENT, "b": CONTENT})
    result = checks.integrity("client", [giver, CLIENT], tmp_path)
    assert (result.ok, result.message) == (True, "a arrived whole; client has no b")


def test_a_link_instead_of_a_file_is_no_evidence(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(CONTENT)
    files = tmp_path / "files"
    files.mkdir()
    (files / "payload.bin").symlink_to(elsewhere)
    assert not checks.integrity("client", [SERVER, CLIENT], files).ok


# What the topology asks besides


def check(**asked: object) -> Check:
    return Check.model_validate(asked)


def verdict(asked: Check, directory: Path, *, seconds: float = 1.0) -> tuple[bool, str, str]:
    """Of a run of SERVER on bob and CLIENT on alice, which has left `directory`."""
    server = dataclasses.replace(SERVER, host="bob")
    endings = {"client": Ending(CLIENT, "by itself", 0, seconds), "server": Ending(server, "stopped")}
    addresses = {"alice": frozenset({"10.0.0.2"}), "bob": frozenset({"10.0.0.3"})}
    result = checks.judge(asked, endings, addresses, directory)
    return result.ok, result.check, result.message


def trace(directory: Path, host: str, *events: dict[str, Any]) -> None:
    """What a host's daemon has written: `event`, and what else it is to have."""
    ends = ("10.0.0.2:5", "10.0.0.3:7") if host == "alice" else ("10.0.0.3:7", "10.0.0.2:5")
    folder = directory / "hosts" / host
    folder.mkdir(parents=True)
    plain = {"local": ends[0], "peer": ends[1], "flags": "."}
    (folder / "trace.jsonl").write_text("".join(json.dumps(plain | event) + "\n" for event in events))


def sent(t: float, seq: int, length: int) -> dict[str, object]:
    return {"t": t, "event": "sent", "seq": seq, "len": length}


def acknowledged(seq: int) -> dict[str, object]:
    """All that was sent before this number."""
    return {"t": 99.0, "event": "received", "seq": 1, "len": 0, "ack": seq}


def test_it_completes_in_time_or_not(tmp_path: Path) -> None:
    asked = check(completes={"app": "client", "within": "5s"})
    assert verdict(asked, tmp_path, seconds=4.9) == (
        True,
        "completes client",
        "client ended after 4.9 s, expected at most 5 s",
    )
    assert not verdict(asked, tmp_path, seconds=5.1)[0]
    assert verdict(check(completes={"app": "server", "within": "5s"}), tmp_path)[2] == (
        "server did not end by itself: stopped"
    )


def test_output_that_matches_or_does_not(tmp_path: Path) -> None:
    stdout = tmp_path / "apps" / "client" / "stdout"
    stdout.parent.mkdir(parents=True)
    asked = check(output={"app": "client", "matches": r"^got \d+ bytes$"})
    assert verdict(asked, tmp_path)[0] is False  # there is none
    stdout.write_text("hello\ngot 17 bytes\n")
    assert verdict(asked, tmp_path) == (
        True,
        "output client",
        r"client wrote 'got 17 bytes' that matches ^got \d+ bytes$",
    )
    stdout.write_text("hello\n")
    assert verdict(asked, tmp_path)[2] == r"client wrote nothing that matches ^got \d+ bytes$"


def test_output_that_matches_nothing_at_all_matches(tmp_path: Path) -> None:
    """An empty line, say."""
    stdout = tmp_path / "apps" / "client" / "stdout"
    stdout.parent.mkdir(parents=True)
    stdout.write_text("one\n\ntwo\n")
    assert verdict(check(output={"app": "client", "matches": "^$"}), tmp_path)[0]


def test_output_is_searched_to_its_end(tmp_path: Path) -> None:
    stdout = tmp_path / "apps" / "client" / "stdout"
    stdout.parent.mkdir(parents=True)
    stdout.write_text("x" * 5_000_000 + "\nDONE\n")
    assert verdict(check(output={"app": "client", "matches": "DONE$"}), tmp_path)[0]


def test_an_expression_that_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_SEARCH_WITHIN", 0.5)
    stdout = tmp_path / "apps" / "client" / "stdout"
    stdout.parent.mkdir(parents=True)
    stdout.write_text("a" * 60)
    ok, _, message = verdict(check(output={"app": "client", "matches": "^(a+)+b$"}), tmp_path)
    assert (ok, message) == (False, "^(a+)+b$ was not found within 0.5 s: is it a simple one?")


def test_retransmissions_of_both_ends(tmp_path: Path) -> None:
    trace(tmp_path, "alice", sent(0.0, 1, 10), sent(1.0, 1, 10))
    trace(tmp_path, "bob", sent(0.0, 5, 10), sent(1.0, 5, 10), sent(2.0, 5, 10))
    for most, good in ((3, True), (2, False)):
        asked = check(retransmissions={"app": "client", "max": most})
        assert verdict(asked, tmp_path) == (
            good,
            "retransmissions client",
            f"3 retransmissions, expected at most {most}",
        )


def test_resets(tmp_path: Path) -> None:
    trace(tmp_path, "alice", sent(0.0, 1, 10))
    trace(tmp_path, "bob", {"t": 0.0, "event": "sent", "flags": "R", "seq": 1, "len": 0})
    assert verdict(check(resets={"app": "client", "max": 0}), tmp_path)[::2] == (False, "1 resets, expected at most 0")


def test_goodput_as_the_app_s_host_has_seen_it(tmp_path: Path) -> None:
    trace(tmp_path, "alice", sent(10.0, 1, 1000), sent(10.5, 1001, 1000), sent(12.0, 1001, 1000), acknowledged(2001))
    trace(tmp_path, "bob", sent(10.0, 1, 10**6), acknowledged(10**6 + 1))
    ok, name, message = verdict(check(goodput={"app": "client", "min": "8kbit"}), tmp_path)
    assert (ok, name, message) == (
        True,
        "goodput client",
        "2000 bytes in 2 s, 0.008 mbit, expected at least 0.008 mbit",
    )
    assert not verdict(check(goodput={"app": "client", "min": "9kbit"}), tmp_path)[0]


@pytest.mark.parametrize(
    ("segments", "good", "said"),
    [
        ([sent(10.0, 1, 1000), sent(10.0, 1001, 1000), acknowledged(2001)], True, "2000 bytes in no time"),
        (
            [sent(10.0, 1, 1000), acknowledged(1001)],
            False,
            "1000 bytes in one segment, which takes no time: too few to tell how fast",
        ),
        ([], False, "no data"),
        ([sent(10.0, 1, 1000), sent(10.0, 1001, 1000), acknowledged(1)], False, "no data"),  # it was lost
    ],
)
def test_goodput_in_no_time(tmp_path: Path, segments: list[dict[str, object]], good: bool, said: str) -> None:
    """As over a link without delay or rate in a simulation."""
    trace(tmp_path, "alice", *segments)
    ok, _, message = verdict(check(goodput={"app": "client", "min": "1mbit"}), tmp_path)
    assert (ok, message) == (good, f"{said}, expected at least 1 mbit")


def test_states(tmp_path: Path) -> None:
    trace(tmp_path, "alice", *({"event": "state", "to": state} for state in ("SYN_SENT", "ESTABLISHED")))
    good = check(states={"app": "client", "all": ["ESTABLISHED", "SYN_SENT"]})
    assert verdict(good, tmp_path) == (True, "states client", "passed through SYN_SENT, ESTABLISHED")
    more = check(states={"app": "client", "all": ["ESTABLISHED", "TIME_WAIT"]})
    assert verdict(more, tmp_path)[::2] == (False, "never in TIME_WAIT; passed through SYN_SENT, ESTABLISHED")


@pytest.mark.parametrize(
    "asked",
    [
        {"goodput": {"app": "client", "min": "1kbit"}},
        {"resets": {"app": "client", "max": "0"}},
        {"states": {"app": "client", "all": ["CLOSED"]}},
        {"backoff": {"app": "client", "min": "1"}},
        {"fairness": {"apps": ["client", "server"], "min": "0.5"}},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_a_host_without_a_trace_is_not_good(asked: dict[str, object], tmp_path: Path) -> None:
    """Another chitcpd than ours may have run there."""
    trace(tmp_path, "bob", sent(0.0, 1, 10))
    ok, name, message = verdict(check(**asked), tmp_path)
    assert (ok, message) == (False, "alice has no trace to judge by: its chitcpd writes none")
    assert name.startswith(f"{next(iter(asked))} client")


def test_a_peer_without_a_trace_is_not_good_where_both_ends_are_asked(tmp_path: Path) -> None:
    trace(tmp_path, "alice", sent(0.0, 1, 10), acknowledged(11))
    assert verdict(check(retransmissions={"app": "client", "max": "9"}), tmp_path)[::2] == (
        False,
        "bob has no trace to judge by: its chitcpd writes none",
    )
    assert verdict(check(goodput={"app": "client", "min": "1kbit"}), tmp_path)[2].startswith("10 bytes")


def expiries(*times: float) -> list[dict[str, object]]:
    return [{"t": t, "event": "timer", "timer": "RETRANSMISSION", "connection": 1} for t in times]


def test_backoff_of_either_end(tmp_path: Path) -> None:
    trace(tmp_path, "alice", sent(0.0, 1, 10))
    trace(tmp_path, "bob", *expiries(1.0, 2.0, 4.0, 8.0))  # waits of 1, 2, 4
    for least, good in ((2, True), (3, False)):
        assert verdict(check(backoff={"app": "client", "min": str(least)}), tmp_path) == (
            good,
            "backoff client",
            f"the wait doubled 2 times in a row, expected at least {least}",
        )


def test_a_wait_that_did_not_grow_is_named(tmp_path: Path) -> None:
    trace(tmp_path, "alice", *expiries(1.0, 2.0, 4.0, 6.5))
    trace(tmp_path, "bob")
    assert verdict(check(backoff={"app": "client", "min": "1"}), tmp_path)[::2] == (
        False,
        "after a wait of 2 s came one of 2.5 s, expected twice that",
    )


def shared(directory: Path, bob: int) -> tuple[bool, str, str]:
    """Alice and bob have data at the same time from 10 to 12; alice gets 1000 bytes in it, bob so many."""
    mine = sent(8.0, 1, 10**6), sent(11.0, 10**6 + 1, 1000), sent(12.0, 1, 1000)
    other = sent(10.0, 1, bob // 2), sent(11.5, 1 + bob // 2, bob - bob // 2), sent(13.0, 1 + bob, 9)
    trace(directory, "alice", *mine, acknowledged(10**6 + 1001))
    trace(directory, "bob", *other, acknowledged(bob + 10))
    return verdict(check(fairness={"apps": ["client", "server"], "min": "0.9"}), directory)


def test_fairness_while_all_have_data(tmp_path: Path) -> None:
    assert shared(tmp_path, 1000) == (
        True,
        "fairness client, server",
        "index 1, expected at least 0.9: client 0.004 mbit, server 0.004 mbit in 2 s together",
    )


def test_unfairness(tmp_path: Path) -> None:
    ok, _, message = shared(tmp_path, 3000)
    assert (ok, message.split(":")[0]) == (False, "index 0.8, expected at least 0.9")


def test_who_had_no_data_or_not_at_the_same_time_can_not_be_compared(tmp_path: Path) -> None:
    asked = check(fairness={"apps": ["client", "server"], "min": "0.9"})
    trace(tmp_path, "alice", sent(1.0, 1, 10), sent(2.0, 11, 10), acknowledged(21))
    trace(tmp_path, "bob", sent(1.0, 1, 10))  # which was lost
    assert verdict(asked, tmp_path)[::2] == (False, "no data crossed to or from the host of server")
    (tmp_path / "hosts" / "bob" / "trace.jsonl").unlink()
    (tmp_path / "hosts" / "bob").rmdir()
    trace(tmp_path, "bob", sent(3.0, 1, 10), sent(4.0, 11, 10), acknowledged(21))
    assert verdict(asked, tmp_path)[::2] == (False, "there was no time in which all of them had data in flight")
