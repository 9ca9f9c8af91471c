"""testbed run."""

from __future__ import annotations

from pathlib import Path

import click

from testbed import backends
from testbed import run as core
from testbed.cli.lab import tell_built
from testbed.cli.options import Wanted, lab_options, runs_option
from testbed.cli.output import Settings, complain, format_option, progress, result_for, say, verbose_option
from testbed.outcome import Outcome, Result


@click.command()
@lab_options
@runs_option
@format_option
@verbose_option
@click.pass_obj
def run(settings: Settings, wanted: Wanted, runs: Path, output_format: str) -> int:
    """Bring a lab up, run its applications, check, collect, take it down.

    \b
    Examples:
      testbed run topologies/two-hosts.yaml
      testbed run topologies/lossy.yaml --seed 7 --backend local
      testbed run topologies/lossy.yaml --backend sim

    Everything that happened is in the run folder that is named at the end: logs, captures of the segments and of the
    wire, what applications wrote, manifest.json; --format json prints this one. Ctrl-C ends the run early, and takes
    the lab down too.
    """
    choice = backends.choose(wanted.backend)
    with result_for(output_format):
        say(f"backend {choice.backend.name}: {choice.why}")
        say(f"lab {wanted.lab}, seed {wanted.topology.seed}")
        with progress() as step:
            outcome = core.run(wanted.topology, wanted.file, choice, name=wanted.lab, runs=runs, report=step)
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
    ended_early = outcome.interrupted is not None and outcome.error is None
    if outcome.failure is not None and not ended_early:
        complain(outcome.failure)
    if outcome.error is not None:
        complain(outcome.error, outcome.traceback if settings.verbose else f"See {outcome.directory}/error.txt")
    say(f"run folder: {outcome.directory}")
    if outcome.report is not None:
        say(f"report: {outcome.report}")
    else:
        say(f"note: there is no report ({outcome.no_report}); try: testbed report {outcome.directory}", "note")
    if ended_early:
        complain(f"{outcome.failure}; nothing is left behind but the run folder.")
        return
    say(outcome.verdict, "good" if outcome.status == 0 else "bad")


def _tell_check(result: Result) -> None:
    say(f"{'pass' if result.ok else 'FAIL'} {result.check}: {result.message}", "good" if result.ok else "bad")
    for comparison in result.comparisons:
        say(f"  {comparison.file}, SHA-256")
        say(f"  sent     {comparison.sent}")
        say(f"  received {comparison.received or 'nothing'}")
