"""testbed dissector."""

from __future__ import annotations

import click

from testbed import dissector as core
from testbed.cli.output import say, verbose_option


@click.command()
@click.option("--install", is_flag=True, help="Copy it into your own folder of Wireshark's Lua plugins.")
@verbose_option
def dissector(install: bool) -> int:
    """Say where the Wireshark dissector for port 23300 is: it shows the segments in a wire.pcap.

    \b
    Examples:
      testbed dissector --install
      tshark -X lua_script:$(testbed dissector) -r runs/lossy/latest/hosts/alice/wire.pcap

    Its fields are chitcp.* and chitcp.tcp.*, like chitcp.tcp.flags.syn == 1.
    """
    if install:
        say(f"installed: {core.install()}", "good")
    else:
        click.echo(core.FILE)
    return 0
