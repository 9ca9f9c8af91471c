"""testbed doctor."""

from __future__ import annotations

from dataclasses import asdict

import click

from testbed import doctor as core
from testbed.cli.output import complain, format_option, print_json, progress, say, table, verbose_option


@click.command()
@format_option
@verbose_option
def doctor(output_format: str) -> int:
    """Try what testbed needs of this machine, and say what to do where it is missing.

    Nothing is concluded from versions or settings: a qdisc is added and deleted, a capture begun, an address bound.
    The exit status is 0 if some backend works, else 3.
    """
    if output_format == "json":
        found = core.examine(lambda _step: None)
        print_json(asdict(found))
        return 0 if found.backend else 3
    with progress() as step:
        found = core.examine(step)
    first: dict[str, str] = {}  # what was found -> the first probe that found it: one reason may be that of many
    rows = []
    for probe in found.probes:
        of = first.setdefault(probe.found, probe.name)
        rows.append(("yes" if probe.ok else "NO", probe.name, probe.found if of == probe.name else f"see {of}"))
    table(("OK", "WHAT", "FOUND"), rows)
    for remedy in dict.fromkeys(probe.remedy for probe in found.probes if not probe.ok):
        names = ", ".join(probe.name for probe in found.probes if probe.remedy == remedy)
        say(f"{names}: {remedy}", "note")
    if found.backend is None:
        complain(f"no backend works here: {found.why}")
        return 3
    say(f"testbed run takes {found.backend}: {found.why}", "good")
    return 0
