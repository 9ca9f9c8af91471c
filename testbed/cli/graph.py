"""testbed graph."""

from __future__ import annotations

from pathlib import Path

import click

from testbed import graph as core
from testbed import topology
from testbed.cli.options import file_argument, variables_option
from testbed.cli.output import say, verbose_option

_FORMATS = {"ascii": core.ascii, "mermaid": core.mermaid, "dot": core.dot}


@click.command()
@file_argument
@click.option(
    "--format",
    "output_format",
    type=click.Choice(list(_FORMATS)),
    default="ascii",
    show_default=True,
    help="For a terminal, for Markdown, or for Graphviz.",
)
@variables_option
@verbose_option
def graph(file: Path, output_format: str, variables: dict[str, str]) -> int:
    """Draw a topology: its hosts with their applications, its links and what they do.

    \b
    Examples:
      testbed graph topologies/satellite.yaml
      testbed graph topologies/lossy.yaml --format dot | dot -Tsvg >lossy.svg

    Nothing is started. What a link has from its preset and from the defaults is shown too.
    """
    say(_FORMATS[output_format](topology.load(file, variables)))
    return 0
