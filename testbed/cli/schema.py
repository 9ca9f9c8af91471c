"""testbed schema."""

from __future__ import annotations

import click

from testbed.cli.output import print_json, verbose_option
from testbed.topology.schema import schema as make


@click.command()
@verbose_option
def schema() -> int:
    """Print a JSON schema of topology files, for an editor.

    \b
    Write it beside your topologies:
      testbed schema > testbed.schema.json

    \b
    and say so in the first line of each:
      # yaml-language-server: $schema=testbed.schema.json

    Then an editor with a YAML language server completes keys, shows what they mean, and underlines what can't be. What
    refers to what, `testbed validate` checks.
    """
    print_json(make())
    return 0
