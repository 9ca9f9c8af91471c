"""Files that are written whole, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from testbed.whole import whole


def test_the_file_is_there_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")
    with whole(file) as fresh:
        fresh.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["report.html"]


def test_after_an_exception_there_is_what_was(tmp_path: Path) -> None:
    def write() -> None:
        with whole(file) as fresh:
            fresh.write_text("half")
            raise ZeroDivisionError

    file = tmp_path / "report.html"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "there", tmp_path / "here"
    link.symlink_to(file)
    with whole(link) as fresh:
        fresh.write_text("new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_nothing_takes_the_place_of_a_pipe(tmp_path: Path) -> None:
    """Or of /dev/null, where it was root who wrote."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with whole(pipe) as fresh:
        assert fresh == pipe
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]
