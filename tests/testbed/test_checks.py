"""Verdicts on how applications ended and on what they left."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from testbed import checks
from testbed.outcome import Ending
from testbed.plan import AppPlan

CONTENT = b"what was sent"


def app(name: str, **changes: object) -> AppPlan:
    plain = AppPlan(name, "alice", ("true",), {}, {}, frozenset(), (), None, 0, 60.0)
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


SERVER = app("server", files={"payload.bin": CONTENT})
CLIENT = app("client")


def test_an_expected_status_is_good() -> None:
    result = checks.exit_status(Ending(CLIENT, "by itself", 0))
    assert (result.check, result.ok, result.message) == ("exit client", True, "client ended with status 0")


def test_another_status_is_not() -> None:
    result = checks.exit_status(Ending(app("client", expect_exit=2), "by itself", 0))
    assert (result.ok, result.message) == (False, "client ended with status 0, expected 2")


def test_an_application_that_was_late_is_not_good_whatever_its_status() -> None:
    result = checks.exit_status(Ending(CLIENT, "timed out", 0))
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


def test_a_link_instead_of_a_file_is_no_evidence(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(CONTENT)
    files = tmp_path / "files"
    files.mkdir()
    (files / "payload.bin").symlink_to(elsewhere)
    assert not checks.integrity("client", [SERVER, CLIENT], files).ok
