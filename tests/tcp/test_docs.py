"""docs/tcp.md says what is so: its diagram and its table are those of the code, its examples run, its names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from chitcpd import settings
from chitcpd.tcp.api import PROFILES
from tests.tcp.transitions import diagram

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "tcp.md").read_text()
SOURCES = "".join(path.read_text() for path in ROOT.glob("chitcpd/tcp/*.py"))


def blocks(language: str) -> list[str]:
    """The content of the fenced blocks in this language."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def settings_table() -> str:
    """All settings, their values in both profiles, what they may be, what they are for, and who says so."""
    lines = ["| setting | modern | classic | may be | what it is | where it is from |", "|---|---|---|---|---|---|"]
    for name, setting in settings.TABLE.items():
        modern, classic = (settings.spell(name, getattr(PROFILES[p](), name)) for p in ("modern", "classic"))
        cells = [f"`{name}`", modern, classic, settings.allowed(name), setting.meaning, setting.source]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_diagram_is_drawn_from_the_table_that_the_tests_judge_by() -> None:
    assert blocks("mermaid") == [diagram() + "\n"], "put in what `python -m tests.tcp.transitions` prints"


def test_the_settings_are_those_that_there_are() -> None:
    assert settings_table() in DOCUMENT, f"put in this table:\n\n{settings_table()}"


def test_its_names_exist() -> None:
    """What stands as code in the text, and is a method or a function, is one."""
    names = re.findall(r"`(_?[a-z][a-z_]*)\(?\)?`", re.sub(r"```.*?```", "", DOCUMENT, flags=re.DOTALL))
    methods = {name for name in names if "_" in name and name not in settings.TABLE}
    assert len(methods) > 12
    assert {name for name in methods if f"def {name}(" not in SOURCES} == set()


@pytest.mark.parametrize("example", blocks("python"), ids=lambda text: text.splitlines()[0])
def test_its_examples_run(example: str, tmp_path: Path) -> None:
    """Each as a program of its own; it prints what its comments say."""
    program = tmp_path / "example.py"
    program.write_text(example)
    ended = subprocess.run([sys.executable, program], cwd=ROOT, capture_output=True, text=True, env=environment())
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == re.findall(r"^# prints: (.*)$", example, re.MULTILINE)


@pytest.mark.parametrize("command", re.findall(r"^\$ (.*)$", "".join(blocks("console")), re.MULTILINE))
def test_its_commands_work(command: str, tmp_path: Path) -> None:
    """With the project's own stop-and-wait in the place of the reader's my_tcp.py."""
    (tmp_path / "my_tcp.py").write_text((ROOT / "examples" / "stop_and_wait.py").read_text())
    program, *arguments = shlex.split(command.replace("my_tcp.py", str(tmp_path / "my_tcp.py")))
    if program != "python":
        arguments = ["-m", program, *arguments]
    ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment())
    assert ended.returncode == 0, ended.stdout + ended.stderr


def environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}


def test_its_packet_script_is_one_of_the_suite() -> None:
    [script] = re.findall(r"(?:^    .*\n)+", DOCUMENT[DOCUMENT.index("    tcp = a_connection(") :], re.MULTILINE)[:1]
    assert script in (ROOT / "tests" / "tcp" / "conformance" / "test_reordering.py").read_text()


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(DOCUMENT.splitlines()) < 300
