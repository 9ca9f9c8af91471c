"""testbed run."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from testbed import backends, topology
from testbed import run as core
from testbed.cli.output import Settings, complain, progress, say, verbose_option
from testbed.outcome import Outcome, Result
from testbed.topology.model import LabName

backend_option = click.option(
    "--backend",
    metavar="NAME",
    help="docker or local. By default docker where an engine answers and has the image, else local.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), help="In place of the topology's: all random choices follow from it."
)


def lab_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Check a lab's name, as the topology's is."""
    if value is None:
        return None
    try:
        return TypeAdapter(LabName).validate_python(value)
    except ValidationError as error:
        raise click.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


name_option = click.option(
    "--name", metavar="LAB", callback=lab_name, help="The lab's name; by default the topology's."
)


def load(path: Path, seed: int | None) -> topology.Topology:
    """The topology in this file, with another seed if there is one."""
    loaded = topology.load(path)
    return loaded if seed is None else loaded.model_copy(update={"seed": seed})


@click.command()
@click.argument("file", metavar="TOPOLOGY.yaml", type=click.Path(path_type=Path))
@backend_option
@seed_option
@name_option
@click.option(
    "--runs",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where the run folder is made: DIR/LAB/TIME.",
)
@verbose_option
@click.pass_obj
def run(settings: Settings, file: Path, backend: str | None, seed: int | None, name: str | None, runs: Path) -> int:
    """Bring a lab up, run its applications, check, collect, take it down.

    \b
    Examples:
      testbed run topologies/two-hosts.yaml
      testbed run topologies/lossy.yaml --seed 7 --backend local

    Everything that happened is in the run folder that is named at the end: logs, captures of the segments and of the
    wire, what applications wrote, manifest.json. Ctrl-C ends the run early, and takes the lab down too.
    """
    wanted = load(file, seed)
    choice = backends.choose(backend)
    lab = name or wanted.name
    say(f"backend {choice.backend.name}: {choice.why}")
    say(f"lab {lab}, seed {wanted.seed}")
    with progress() as step:
        outcome = core.run(wanted, file, choice, name=lab, runs=runs, report=step)
    _tell(outcome, settings)
    return outcome.status


def _tell(outcome: Outcome, settings: Settings) -> None:
    say(f"{len(outcome.plan.hosts)} hosts were ready after {outcome.up_seconds:.1f} s")
    for app, line in outcome.said:
        say(f"{app}: {line}")
    for result in outcome.checks:
        _tell_check(result)
    for note in outcome.notes:
        say(f"note: {note}", "note")
    if outcome.failure is not None:
        complain(outcome.failure)
    if outcome.error is not None:
        complain(outcome.error, outcome.traceback if settings.verbose else f"See {outcome.directory}/error.txt")
    say(f"run folder: {outcome.directory}")
    say(outcome.verdict, "good" if outcome.status == 0 else "bad")


def _tell_check(result: Result) -> None:
    say(f"{'pass' if result.ok else 'FAIL'} {result.check}: {result.message}", "good" if result.ok else "bad")
    for comparison in result.comparisons:
        say(f"  {comparison.file}, SHA-256")
        say(f"  sent     {comparison.sent}")
        say(f"  received {comparison.received or 'nothing'}")
