"""testbed new."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from testbed.cli.output import say, verbose_option
from testbed.fresh import CannotStart
from testbed.grading import start


@click.command()
@click.argument("file", metavar="[FILE.py]", type=click.Path(path_type=Path), default=Path("my_tcp.py"))
@verbose_option
def new(file: Path) -> int:
    """Write the skeleton of a TCP, each method with what RFC 9293 asks there, and a topology that runs it.

    \b
    Examples:
      testbed new
      testbed new my_tcp.py

    By default they are my_tcp.py and my-tcp.yaml. A file that is there already is left as it is.
    """
    try:
        topology = start.new(file)
    except CannotStart as error:
        raise click.UsageError(f"{error}.") from error
    say(f"{file} and {topology} are written. Read the first, fill it in, and see how far it comes:", "good")
    say(f"  testbed grade {shlex.quote(str(file))}\n  testbed run {shlex.quote(str(topology))}")
    return 0
