"""docs/ci.md: its YAML is YAML, and the commands in it are commands that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from testbed.cli import cli
from tests.testbed.conftest import PROJECT

BLOCKS = re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs" / "ci.md").read_text(), re.DOTALL)


def scripts(value: object) -> Iterator[str]:
    """Each command of a workflow: what `run:` and `script:` say."""
    if isinstance(value, list):
        for inner in value:
            yield from scripts(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in ("run", "script"):
                yield from [inner] if isinstance(inner, str) else inner
            else:
                yield from scripts(inner)


COMMANDS = [shlex.split(script) for block in BLOCKS for script in scripts(yaml.safe_load(block))]


def beginning_with(program: str) -> list[list[str]]:
    return [command[1:] for command in COMMANDS if command[0] == program]


def test_the_workflows_are_whole() -> None:
    actions, gitlab, steps = (yaml.safe_load(block) for block in BLOCKS)
    assert all({"uses", "run"} & step.keys() for step in (*actions["jobs"]["labs"]["steps"], *steps))
    assert gitlab["labs"]["artifacts"]["paths"] == ["testbed-artefacts/"]


@pytest.mark.parametrize("arguments", beginning_with("testbed"), ids=" ".join)
def test_the_commands_of_testbed_take_these_arguments(arguments: list[str]) -> None:
    name, *rest = arguments[: arguments.index(">")] if ">" in arguments else arguments
    cli.commands[name].make_context(name, rest)
    for file in (argument for argument in rest if argument.endswith(".yaml")):
        assert (PROJECT / file).is_file()


@pytest.mark.parametrize("arguments", beginning_with("pytest"), ids=" ".join)
def test_pytest_takes_these_options(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", *arguments, "--markers"]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)


@pytest.mark.parametrize("arguments", beginning_with("make"), ids=" ".join)
def test_make_has_these_targets(arguments: list[str]) -> None:
    assert arguments[:-1] == ["-C", "chitcp-testbed"]
    subprocess.run(["make", "--dry-run", arguments[-1]], cwd=PROJECT, check=True, capture_output=True)


def test_none_of_these_is_without_a_command() -> None:
    assert all(beginning_with(program) for program in ("testbed", "pytest", "make"))
