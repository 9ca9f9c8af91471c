"""testbed init."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

import click

from testbed import fresh
from testbed.cli.output import say, verbose_option


@click.command()
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), default=Path("my-lab.yaml"))
@verbose_option
def init(file: Path) -> int:
    """Write a topology to begin with, with a comment for each of its lines.

    \b
    Examples:
      testbed init
      testbed init first.yaml

    By default it is my-lab.yaml. A file that is there already is left as it is.
    """
    start = files("testbed.topology").joinpath("start.yaml").read_text()
    try:
        fresh.write({file: start})
    except fresh.CannotStart as error:
        raise click.UsageError(f"{error}.") from error
    say(f"{file} is written. Read it, change it, then: testbed run {shlex.quote(str(file))}", "good")
    return 0
