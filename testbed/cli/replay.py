"""testbed replay."""

from __future__ import annotations

import re
from pathlib import Path

import click

from testbed import compared, finished
from testbed import replay as core
from testbed.cli.options import past_run_options
from testbed.cli.output import format_option, print_json, progress, result_for, say, verbose_option

_MOST = 5  # differences, and files, that are told: the first one is what there is to look at


@click.command()
@past_run_options
@format_option
@verbose_option
def replay(run: str | None, runs: Path, output_format: str) -> int:
    """Run a run again, and say whether it came out the same, and where it first differs.

    \b
    Examples:
      testbed replay
      testbed replay lossy
      testbed replay runs/lossy/20261122T174500Z --format json

    RUN is a run folder, or the name of a topology, whose latest run it is; by default the latest run of all. It is run
    with the same topology, files, seed and backend, into a new folder. A simulation (--backend sim) must be the same
    byte for byte; elsewhere times vary, and what does not depend on them is compared. Exit status: 0 if it came out
    the same, 1 if not.
    """
    recorded = core.recorded(finished.find(run, runs))
    with result_for(output_format):
        say(f"replaying {recorded.folder}")
        say(f"lab {recorded.lab}, seed {recorded.topology.seed}, backend {recorded.backend}")
        with progress() as step:
            comparison = core.again(recorded, runs, step)
    if output_format == "json":
        print_json(compared.as_json(comparison))
    else:
        _tell(comparison)
    return 0 if comparison.same else 1


def _tell(comparison: compared.Comparison) -> None:
    for name, then, now in comparison.versions:
        say(f"note: {name} was {_short(then)}, and is {_short(now)} now", "note")
    say(f"compared: {'; '.join(comparison.compared)}")
    for what in comparison.not_compared:
        say(f"not compared: {what}")
    for number, one in enumerate(comparison.differences[:_MOST]):
        at = "" if one.at is None else f", at {one.at:.6f} s"
        say(f"{'first difference' if number == 0 else 'then'}: {one.where}, {one.what}{at}", "bad")
        say(f"  then: {one.then}")
        say(f"  now:  {one.now}")
    if len(comparison.differences) > _MOST:
        say(f"and {len(comparison.differences) - _MOST} more")
    if comparison.files:
        more = f" and {len(comparison.files) - _MOST} more" if len(comparison.files) > _MOST else ""
        say(f"files that differ: {', '.join(comparison.files[:_MOST])}{more}")
    say(f"run folder: {comparison.second}")
    say("the same" if comparison.same else "not the same", "good" if comparison.same else "bad")


def _short(version: str) -> str:
    """A hash is told apart by its beginning."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", version)
