"""The README's commands, one after the other, as a newcomer types them: in a copy of the project, installed anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "make demo": ".ci/run calls it",
    "make test": "this test is a part of it",
    "make c": "make test calls it, where there is a compiler",
}
LEAVE = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache", ".hypothesis", "dist", "build")


def commands() -> list[str]:
    """The lines behind a `$` in the README's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.timeout(300)
def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT, project, ignore=LEAVE)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = os.environ | {"PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}", "COLUMNS": "80"}
    environment.pop("PYTHONPATH", None)
    done = []
    for command in commands():
        if command in ELSEWHERE:
            continue
        ended = subprocess.run(
            command, shell=True, cwd=project, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        done.append(command)
    assert any(command.startswith("testbed run") for command in done)
    assert (project / "runs/two-hosts/latest/manifest.json").is_file()


def test_the_links_of_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
