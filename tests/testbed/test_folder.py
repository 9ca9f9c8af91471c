"""The folder of a run, and what is read of the files in it."""

from __future__ import annotations

from pathlib import Path

from testbed.folder import last_lines


def test_the_last_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "stdout"
    assert last_lines(file, 2) == []
    file.write_text("one\ntwo\nthree")
    assert last_lines(file, 2) == ["two", "three"]


def test_of_a_huge_file_and_of_a_long_line_only_what_a_person_reads(tmp_path: Path) -> None:
    file = tmp_path / "stdout"
    with file.open("wb") as sparse:
        sparse.seek(1 << 40)  # nobody could read it whole
        sparse.write(b"\n" + b"x" * 1000 + b"\nend\n")
    assert last_lines(file, 2) == ["x" * 400 + "...", "end"]
