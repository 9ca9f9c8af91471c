"""testbed run."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from testbed import backends, topology
from testbed import run as core
from testbed.backends.base import Built, Probed
from testbed.cli.complete import topologies
from testbed.cli.output import Settings, complain, format_option, progress, result_for, say, verbose_option
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


runs_option = click.option(
    "--runs",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where the run folder is made: DIR/LAB/TIME.",
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


def load(path: Path, seed: int | None, variables: dict[str, str]) -> topology.Topology:
    """The topology in this file, with another seed if there is one."""
    loaded = topology.load(path, variables)
    tell_unused(loaded, variables)
    return loaded if seed is None else loaded.model_copy(update={"seed": seed})


def tell_unused(loaded: topology.Topology, variables: dict[str, str]) -> None:
    """A variable that nothing asks for is a mistyped one, as a rule."""
    for name in sorted(variables.keys() - loaded.variables.keys()):
        known = ", ".join(sorted(loaded.variables)) or "none"
        complain(f"note: nothing in the topology asks for {name}; it has {known}.")


@click.command()
@click.argument("file", metavar="TOPOLOGY.yaml", type=click.Path(path_type=Path), shell_complete=topologies)
@backend_option
@seed_option
@variables_option
@name_option
@runs_option
@format_option
@verbose_option
@click.pass_obj
def run(
    settings: Settings,
    file: Path,
    backend: str | None,
    seed: int | None,
    variables: dict[str, str],
    name: str | None,
    runs: Path,
    output_format: str,
) -> int:
    """Bring a lab up, run its applications, check, collect, take it down.

    \b
    Examples:
      testbed run topologies/two-hosts.yaml
      testbed run topologies/lossy.yaml --seed 7 --backend local

    Everything that happened is in the run folder that is named at the end: logs, captures of the segments and of the
    wire, what applications wrote, manifest.json; --format json prints this one. Ctrl-C ends the run early, and takes
    the lab down too.
    """
    wanted = load(file, seed, variables)
    choice = backends.choose(backend)
    lab = name or wanted.name
    with result_for(output_format):
        say(f"backend {choice.backend.name}: {choice.why}")
        say(f"lab {lab}, seed {wanted.seed}")
        with progress() as step:
            outcome = core.run(wanted, file, choice, name=lab, runs=runs, report=step)
        _tell(outcome, settings)
    if output_format == "json":
        click.echo((outcome.directory / "manifest.json").read_text(), nl=False)
    return outcome.status


def _tell(outcome: Outcome, settings: Settings) -> None:
    say(f"{len(outcome.plan.hosts)} hosts were ready after {outcome.up_seconds:.1f} s")
    tell_built(outcome.built)
    for app, line in outcome.said:
        say(f"{app}: {line}")
    for result in outcome.checks:
        _tell_check(result)
    for note in outcome.notes[len(outcome.built.notes) :]:
        say(f"note: {note}", "note")
    if outcome.failure is not None:
        complain(outcome.failure)
    if outcome.error is not None:
        complain(outcome.error, outcome.traceback if settings.verbose else f"See {outcome.directory}/error.txt")
    say(f"run folder: {outcome.directory}")
    say(outcome.verdict, "good" if outcome.status == 0 else "bad")


def tell_built(built: Built) -> None:
    """What was measured of links that do something, and what could not be done."""
    for probed in built.probed:
        if probed.asked_rate is not None or probed.asked_rtt > 0.0005 or not probed.good:
            say(f"link {probed.link}: {_measured(probed)}", "plain" if probed.good else "note")
    for note in built.notes:
        say(f"note: {note}", "note")


def _measured(probed: Probed) -> str:
    parts = [
        f"round trip {probed.measured_rtt * 1000:.2f} ms, asked {probed.asked_rtt * 1000:.4g}{_off(probed.good_rtt)}"
    ]
    if probed.asked_rate is not None:
        found = "not measured" if probed.measured_rate is None else f"{probed.measured_rate / 1e6:.4g} mbit"
        parts.append(f"rate {found}, asked {probed.asked_rate / 1e6:.4g}{_off(probed.good_rate)}")
    return f"{probed.direction}: {'; '.join(parts)}"


def _off(good: bool) -> str:
    return "" if good else " (off)"


def _tell_check(result: Result) -> None:
    say(f"{'pass' if result.ok else 'FAIL'} {result.check}: {result.message}", "good" if result.ok else "bad")
    for comparison in result.comparisons:
        say(f"  {comparison.file}, SHA-256")
        say(f"  sent     {comparison.sent}")
        say(f"  received {comparison.received or 'nothing'}")
