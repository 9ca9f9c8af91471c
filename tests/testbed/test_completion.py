"""What a shell is told when somebody presses Tab: by the protocol, and in a bash."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from testbed.cli import main
from tests.testbed.test_local import TESTBED, run_testbed

LAB = "name: {}\nhosts: {{alice: {{}}, bob: {{}}}}\nlinks: [{{endpoints: [alice, bob]}}]\n"


@pytest.fixture(autouse=True)
def here(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory has files of many kinds; no Docker engine answers."""
    del own_state
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    for file in ("lab.yaml", "notes.txt", ".hidden.yaml", "labs/one.yaml", "labs/two.yml", "labs/deep/three.yaml"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(LAB.format("one"))


@pytest.fixture
def labs_up() -> None:
    """Labs `first` and `second` are up."""
    for lab in ("first", "second"):
        assert run_testbed("up", "lab.yaml", "--name", lab, "--backend", "local").returncode == 0


def complete(line: str, **environment: str) -> list[str]:
    """What comes in the place of the last word, by click's protocol for bash."""
    asked = {"_TESTBED_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    environment = {**os.environ, **environment, **asked}
    done = subprocess.run(TESTBED, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    answers = done.stdout.split()
    assert all(answer.startswith("plain,") for answer in answers)
    return [answer.removeprefix("plain,") for answer in answers]


@pytest.mark.parametrize("command", ["run", "up --seed 7", "plan", "graph", "validate lab.yaml"])
def test_topology_files_and_directories(command: str) -> None:
    assert complete(f"testbed {command} ") == ["lab.yaml", "labs/"]


def test_what_begins_so() -> None:
    assert complete("testbed run labs/o") == ["labs/one.yaml"]
    assert complete("testbed run nothing") == []
    assert complete("testbed run no/such/place") == []


def test_the_only_directory_is_opened() -> None:
    """A shell puts a space behind the only answer, as if that were all."""
    assert complete("testbed run labs") == ["labs/deep/", "labs/one.yaml", "labs/two.yml"]
    assert complete("testbed run labs/d") == ["labs/deep/three.yaml"]


def test_what_is_hidden_has_to_be_asked_for() -> None:
    assert complete("testbed run .h") == [".hidden.yaml"]


@pytest.mark.usefixtures("labs_up")
def test_labs_that_are_up() -> None:
    assert complete("testbed ps ") == ["first", "second"]
    assert complete("testbed logs -f f") == ["first"]
    assert complete("testbed down ") == ["first", "second", "lab.yaml", "labs/"]
    assert complete("testbed down s") == ["second"]


@pytest.mark.usefixtures("labs_up")
def test_an_engine_that_is_silent_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert complete("testbed ps ", DOCKER_HOST=engine) == ["first", "second"]
        assert time.monotonic() - began < 30  # the engine's client would have waited for 60 s


def test_a_state_directory_that_can_not_be_used_is_no_error() -> None:
    assert complete("testbed ps ", XDG_RUNTIME_DIR="/proc") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_and_where_it_belongs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert f"_TESTBED_COMPLETE={shell}_complete" in capsys.readouterr().out
    assert main(["completion", "--help"]) == 0
    assert f"testbed completion {shell}" in capsys.readouterr().out


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_in_bash(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "testbed"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {TESTBED[0]} -c "{TESTBED[2]}" "$@"\n')
    program.chmod(0o755)
    script = """
eval "$(testbed completion bash)"
complete -p testbed >&2
COMP_WORDS=(testbed run labs/o) COMP_CWORD=2
_testbed_completion testbed
echo "${COMPREPLY[@]}"
"""
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "-F _testbed_completion testbed" in done.stderr
    assert done.stdout == "labs/one.yaml\n"
