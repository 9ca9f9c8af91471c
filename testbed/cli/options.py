"""What several commands take: a topology with what stands in place of what it says, and a place for run folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from testbed import topology
from testbed.cli.complete import past_runs, topologies
from testbed.cli.output import complain
from testbed.topology.model import LabName

runs_option = click.option(
    "--runs",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where the run folder is made: DIR/LAB/TIME.",
)

_past_run = click.argument("run", required=False, shell_complete=past_runs)
_past_runs = click.option(
    "--runs",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where run folders are: DIR/LAB/TIME.",
)


def past_run_options(command: Callable[..., int]) -> Callable[..., int]:
    """Let a command take a run that is over: `run`, if it is given, and `runs` (testbed.finished.find)."""
    return _past_run(_past_runs(command))


file_argument = click.argument(
    "file", metavar="TOPOLOGY.yaml", type=click.Path(path_type=Path), shell_complete=topologies
)


def _variables(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    variables = dict(value.partition("=")[::2] for value in values)
    if not all("=" in value for value in values):
        raise click.BadParameter("expected NAME=VALUE, like DELAY=50ms")
    return variables


variables_option = click.option(
    "--var",
    "variables",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_variables,
    help="What stands for ${NAME} in the topology, in place of the environment's; again for more.",
)


def _lab_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Check a lab's name, as the topology's is."""
    if value is None:
        return None
    try:
        return TypeAdapter(LabName).validate_python(value)
    except ValidationError as error:
        raise click.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command is to make a lab of."""

    file: Path
    topology: topology.Topology
    lab: str
    backend: str | None  # by name; None: the best


def lab_options(command: Callable[..., int]) -> Callable[..., int]:
    """Let a command take what it is to make a lab of, a Wanted, which is its first argument."""

    @file_argument
    @click.option(
        "--backend",
        metavar="NAME",
        help="docker, local, or sim, in virtual time. By default docker where an engine answers and has the image, "
        "else local.",
    )
    @click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        help="In place of the topology's: all random choices follow from it.",
    )
    @variables_option
    @click.option("--name", metavar="LAB", callback=_lab_name, help="The lab's name; by default the topology's.")
    @wraps(command)
    def with_wanted(
        file: Path,
        backend: str | None,
        seed: int | None,
        variables: dict[str, str],
        name: str | None,
        **others: Any,
    ) -> int:
        loaded = topology.load(file, variables)
        _tell_unused(loaded, variables)
        if seed is not None:
            loaded = loaded.model_copy(update={"seed": seed})
        return command(Wanted(file, loaded, name or loaded.name, backend), **others)

    return with_wanted


def _tell_unused(loaded: topology.Topology, variables: dict[str, str]) -> None:
    """A variable that nothing asks for is a mistyped one, as a rule."""
    for name in sorted(variables.keys() - loaded.variables.keys()):
        known = ", ".join(sorted(loaded.variables)) or "none"
        complain(f"note: nothing in the topology asks for {name}; it has {known}.")
