"""The state directory and its locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import state
from testbed.unavailable import Unavailable


def test_it_is_ours_and_closed_to_others(own_state: Path) -> None:
    assert state.directory() == own_state
    assert own_state.stat().st_mode & 0o777 == 0o700


def test_a_runtime_directory_that_is_not_there_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert state.directory().name == f"chitcp-{os.getuid()}"


def test_a_link_in_its_place_is_refused(own_state: Path, tmp_path: Path) -> None:
    own_state.symlink_to(tmp_path)
    with pytest.raises(Unavailable, match="belongs to somebody else"):
        state.directory()
    own_state.unlink()


def test_a_file_in_its_place_is_refused(own_state: Path) -> None:
    own_state.touch()
    with pytest.raises(Unavailable, match="state directory"):
        state.directory()
    own_state.unlink()


def test_a_command_whose_words_are_no_utf_8_may_hold_a_lab(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["testbed", "up", os.fsdecode(b"\xff.yaml")])
    with state.lab_lock("lab"):
        assert b"\xff.yaml" in (own_state / "locks" / "lab").read_bytes()


HOLD = """
import sys
from testbed import state
with state.lab_lock("two-hosts"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_user_of_a_lab_is_told_who_has_it(own_state: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable, match=f"lab two-hosts is in use by process {holder.pid}"):
            state.lab_lock("two-hosts").__enter__()
        with state.lab_lock("another"):  # that one is free
            pass
        holder.kill()
        holder.wait()
    with state.lab_lock("two-hosts"):  # nothing stale is left of a holder that was killed
        pass
    assert list((own_state / "locks").iterdir()) == []
