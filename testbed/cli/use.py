"""testbed exec, shell, capture, collect, gc: to work in a lab that is up, and to clean up after others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

import click

from testbed import lab as core
from testbed.backends.base import Recording
from testbed.cli.complete import labs
from testbed.cli.options import runs_option
from testbed.cli.output import (
    format_option,
    note_unreachable,
    print_json,
    progress,
    result_for,
    say,
    verbose_option,
)

_lab = click.argument("lab", shell_complete=labs)
_RAW = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("exec", context_settings=_RAW)
@_lab
@click.argument("host")
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@verbose_option
def exec_(lab: str, host: str, command: tuple[str, ...]) -> int:
    """Run a command as an application of a host, with our standard input and output; its status is ours.

    \b
    Examples:
      testbed exec two-hosts bob python -m chisocket.apps.echo serve --port 7
      testbed exec two-hosts alice python -m chisocket.apps.echo send bob:7 hello
      testbed exec two-hosts alice chirun curl http://bob:8000/

    A `--` in front of the command is left out. On docker the command has a container of its own, as every application
    has: no network but the host's chitcpd.
    """
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise click.UsageError("Missing argument 'COMMAND...'.")
    return core.execute(lab, host, command, terminal=_terminal())


def _terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


@click.command()
@_lab
@click.argument("host")
@verbose_option
def shell(lab: str, host: str) -> int:
    """Open a shell as an application of a host.

    \b
    Example:
      testbed shell two-hosts alice
    """
    return core.execute(lab, host, ["bash"], terminal=_terminal())


@click.command()
@_lab
@click.argument("node", metavar="HOST|ROUTER")
@click.option(
    "--wire/--segments",
    default=False,
    help="What passes on port 23300, or the segments in it as plain TCP (the default).",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the lab is down.")
@click.option("-o", "--output", type=click.File("wb"), default="-", help="A file; by default the standard output.")
@verbose_option
def capture(lab: str, node: str, wire: bool, follow: bool, output: IO[bytes]) -> int:
    """Write the capture of a host, or of a router, so far, as pcap.

    \b
    Examples:
      testbed capture two-hosts alice -o alice.pcap
      testbed capture two-hosts alice --follow | wireshark -k -i -
      testbed capture two-hosts alice --wire | tshark -r -
    """
    kind: Recording = "wire" if wire else "segments"
    pieces = core.recording(lab, node, kind, follow=follow)
    if output.name in ("-", "<stdout>") and sys.stdout.isatty():
        raise click.UsageError("a capture is nothing for a terminal: give -o FILE, or a pipe")
    for piece in pieces:
        output.write(piece)
        output.flush()
    return 0


@click.command()
@_lab
@runs_option
@verbose_option
def collect(lab: str, runs: Path) -> int:
    """Write what a lab that is up has left so far into a run folder: logs, traces, captures.

    \b
    Example:
      testbed collect two-hosts

    The lab goes on.
    """
    with progress() as step:
        step(f"collecting from {lab}")
        directory, missing = core.collect(lab, runs)
    for what in missing:
        say(what, "note")
    say(f"run folder: {directory}", "good")
    return 0


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what there is to remove.")
@format_option
@verbose_option
def gc(dry_run: bool, output_format: str) -> int:
    """Remove what commands that were killed have left behind.

    \b
    Examples:
      testbed gc --dry-run
      testbed gc

    That is every lab of yours, made from this machine, that a run has left, or that never came up whole, and what
    `testbed grade` has left. A lab that `testbed up` has left up, and one that a command is at work on, are not
    touched.
    """
    from testbed.grading import left

    with result_for(output_format):
        with progress() as step:
            removed, unreachable = core.gc(step, dry_run=dry_run)
            of_grading = left.remove(dry_run=dry_run)
        note_unreachable(unreachable)
        for lab, count in removed.items():
            say(f"lab {lab}: {count} things {'would go' if dry_run else 'removed'}")
        if of_grading:
            say(f"testbed grade: {of_grading} things {'would go' if dry_run else 'removed'}")
        if not removed and not of_grading:
            say("nothing was left behind")
    if output_format == "json":
        labs = [{"lab": lab, "removed": count} for lab, count in removed.items()]
        print_json({"labs": labs, "grading": of_grading})
    return 0
