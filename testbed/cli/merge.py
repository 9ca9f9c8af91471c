"""testbed merge."""

from __future__ import annotations

from pathlib import Path

import click

from testbed import finished, merged
from testbed.cli.options import past_run_options
from testbed.cli.output import format_option, print_json, result_for, say, verbose_option


@click.command()
@past_run_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="By default merged.pcapng, in the run folder.",
)
@format_option
@verbose_option
def merge(run: str | None, runs: Path, output: Path | None, output_format: str) -> int:
    """Merge all captures of a run into one pcapng, with comments, for Wireshark.

    \b
    Examples:
      testbed merge
      testbed merge lossy -o lossy.pcapng
      wireshark runs/lossy/latest/merged.pcapng

    RUN is a run folder, or the name of a topology, whose latest run it is; by default the latest run of all. Each host
    has an interface by its name; the packets on port 23300 are on "wire", each once. Comments say which segments were
    dropped and why, which are retransmissions, and what happened then: changes of state, timers.
    """
    folder = finished.find(run, runs)
    path = output or folder / merged.NAME
    with result_for(output_format):
        done = merged.merge_into(folder, path)
        why_no_wire = merged.why_no_wire(folder)
        say(f"{done.packets} packets of {', '.join(done.interfaces)}; {done.comments} comments")
        if why_no_wire is not None:
            say(why_no_wire, "note")
        say(f"capture: {path}", "good")
    if output_format == "json":
        print_json(
            {
                "run": str(folder),
                "file": str(path),
                "packets": done.packets,
                "comments": done.comments,
                "interfaces": done.interfaces,
                "captured_twice": done.twice,
                "why_no_wire": why_no_wire,
            }
        )
    return 0
