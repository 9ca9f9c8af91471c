"""What a grade leaves behind when it is ended early: nothing, or, if it was killed, what `testbed gc` finds."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grading.grading import containers_of, require_containers

SLEEPER = """
import time
time.sleep(0.01)
print("asleep")
while True:
    pass
"""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for what passes, of this process and those that it starts."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def kind(request: pytest.FixtureRequest) -> str:
    kind = str(request.param)
    if kind == "docker":
        require_containers()
    return kind


def waits_for(condition: object, process: subprocess.Popen[str]) -> None:
    """Ask again and again; a deadline of a minute. There is no event to wait for: it is another process's doing."""
    assert callable(condition)
    ended = os.pidfd_open(process.pid)
    try:
        for _ in range(3000):
            if condition():
                return
            assert not select.select([ended], [], [], 0.02)[0], process.communicate()
    finally:
        os.close(ended)
    pytest.fail("it did not come in a minute")


@pytest.fixture
def grading(
    tmp_path: Path, scratch: Path, kind: str, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[str]]:
    """A `testbed grade` of a submission that is in an endless loop, or of a class of such."""
    submissions = tmp_path / "class"
    submissions.mkdir()
    for name in ("alice.py", "bob.py", "carol.py"):
        (submissions / name).write_text(SLEEPER)
    path = submissions if getattr(request, "param", "one") == "class" else submissions / "alice.py"
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed", "grade", str(path), "--sandbox", kind, "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C goes to all of it
    )
    try:
        if kind == "docker":
            waits_for(lambda: running_in_container(process.pid), process)
        else:
            waits_for(lambda: list(scratch.rglob("alice.py")), process)
        yield process
    finally:
        process.kill()
        process.communicate()


def running_in_container(pid: int) -> bool:
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return any(containers_of(one, status="running") for one in (pid, *children))


@pytest.mark.parametrize("grading", ["one", "class"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(
    grading: subprocess.Popen[str], scratch: Path, kind: str, number: signal.Signals
) -> None:
    children = descendants(grading.pid)
    ends = [os.pidfd_open(child) for child in children]
    if number == signal.SIGINT:
        os.killpg(grading.pid, number)
    else:
        grading.send_signal(number)
    _, said = grading.communicate(timeout=60)
    assert grading.returncode == 128 + number, said
    assert said == f"testbed: interrupted by {number.name}.\n"
    assert list(scratch.glob("testbed-grade-*")) == []
    for end in ends:
        assert select.select([end], [], [], 30)[0]
        os.close(end)
    if kind == "docker":
        assert not [one for child in (grading.pid, *children) for one in containers_of(child)]


def test_what_a_killed_grade_has_left_is_found(grading: subprocess.Popen[str], scratch: Path, kind: str) -> None:
    grading.kill()
    grading.communicate()
    if kind == "docker":  # the container ends by itself: its input has
        waits_until_gone(grading.pid)
        return
    assert len(list(scratch.glob("testbed-grade-*"))) == 1
    assert json.loads(gc("--dry-run", "--format", "json"))["grading"] >= 1  # others may have left something too
    assert len(list(scratch.glob("testbed-grade-*"))) == 1
    assert "testbed grade: " in gc()
    assert list(scratch.glob("testbed-grade-*")) == []


def test_gc_leaves_a_grade_alone_that_is_at_work(grading: subprocess.Popen[str], scratch: Path, kind: str) -> None:
    grading.send_signal(signal.SIGSTOP)  # it is there, and its submission's time does not run out before gc has looked
    folders = list(scratch.glob("testbed-grade-*"))
    containers = containers_of(grading.pid) if kind == "docker" else []
    assert folders or containers
    gc()
    assert list(scratch.glob("testbed-grade-*")) == folders
    assert not containers or containers_of(grading.pid) == containers


def gc(*options: str) -> str:
    command = [sys.executable, "-m", "testbed", "gc", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def waits_until_gone(pid: int) -> None:
    sleeper = subprocess.Popen(["sleep", "60"], text=True)
    try:
        waits_for(lambda: not containers_of(pid), sleeper)
    finally:
        sleeper.kill()
        sleeper.wait()


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for child in children for one in (child, *descendants(child))]
