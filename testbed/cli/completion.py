"""testbed completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from testbed.cli.output import verbose_option


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@verbose_option
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print what lets a shell complete the commands of testbed, labs that are up, and topology files.

    \b
    For bash, in ~/.bashrc:
      eval "$(testbed completion bash)"

    \b
    For zsh, in ~/.zshrc, below compinit:
      eval "$(testbed completion zsh)"

    \b
    For fish, once:
      testbed completion fish > \\
        ~/.config/fish/completions/testbed.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "testbed", "_TESTBED_COMPLETE").source())
    return 0
