"""testbed up, down, ps, logs: labs that stay."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from testbed import backends
from testbed import lab as core
from testbed.backends.base import Unavailable
from testbed.cli.output import complain, format_option, print_json, progress, say, table, verbose_option
from testbed.cli.run import backend_option, load, name_option, seed_option


@click.command()
@click.argument("file", metavar="TOPOLOGY.yaml", type=click.Path(path_type=Path))
@backend_option
@seed_option
@name_option
@verbose_option
def up(file: Path, backend: str | None, seed: int | None, name: str | None) -> int:
    """Bring a lab's hosts and links up, and leave them up.

    \b
    Examples:
      testbed up topologies/two-hosts.yaml
      testbed up topologies/two-hosts.yaml --name mine --backend local

    Returns when every chitcpd answers. Applications are not started: that is for `testbed run`, or for you. On the
    local backend, `testbed ps` shows each host's CHITCPD_SOCK, with which any chisocket program can use it. If
    something fails, nothing stays behind; if the lab is up already, nothing is done.
    """
    wanted = load(file, seed)
    choice = backends.choose(backend)
    lab = name or wanted.name
    say(f"backend {choice.backend.name}: {choice.why}")
    with progress() as step:
        items = core.up(wanted, choice.backend, lab=lab, report=step)
    for item in items:
        say(f"{item.kind} {item.name}: {item.state}, {item.detail}")
    say(f"lab {lab} is up; testbed down {lab} takes it down", "good")
    return 0


@click.command()
@click.argument("lab", metavar="[LAB|TOPOLOGY.yaml]", required=False)
@click.option("--all", "all_", is_flag=True, help="Every lab of every backend.")
@verbose_option
def down(lab: str | None, all_: bool) -> int:
    """Remove everything of a lab, whatever is left of it.

    \b
    Examples:
      testbed down two-hosts
      testbed down topologies/two-hosts.yaml
      testbed down --all

    --all takes also labs that are running, and on a shared engine those of others.

    What there is to remove is found by its labels, not read from a topology: of a file only the name is used.
    """
    if all_ == (lab is not None):
        raise click.UsageError("give the name of a lab, its topology file, or --all")
    names, unreachable = core.labs() if lab is None else ([_name(lab)], {})
    for backend, why in unreachable.items():
        complain(f"{backend} could not be asked: {why.rstrip('.')}.")
    if not names:
        say("no lab is up")
    refused = 0
    for name in names:
        try:
            with progress() as step:
                count = core.down(name, step)
        except Unavailable as error:
            if not all_:
                raise
            complain(str(error), error.remedy)  # the others can go
            refused = 3
        else:
            say(f"lab {name} is down: {count} things removed")
    return refused


def _name(lab: str) -> str:
    if lab.endswith((".yaml", ".yml")):
        return core.name_in(Path(lab))
    return lab


@click.command()
@click.argument("lab", required=False)
@format_option
@verbose_option
def ps(lab: str | None, output_format: str) -> int:
    """Show hosts, links and applications of one lab, or of all.

    \b
    Examples:
      testbed ps
      testbed ps two-hosts --format json
    """
    found = core.ps(lab)
    if output_format == "json":
        print_json([{"backend": backend, **asdict(item)} for backend, item in found])
    elif not found:
        say("no lab is up")
    else:
        columns = ("LAB", "KIND", "NAME", "STATE", "DETAIL", "BACKEND")
        table(columns, [(i.lab, i.kind, i.name, i.state, i.detail, backend) for backend, i in found])
    return 0


@click.command()
@click.argument("lab")
@click.argument("names", metavar="[HOST|APP]...", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until all of them have ended.")
@verbose_option
def logs(lab: str, names: tuple[str, ...], follow: bool) -> int:
    """Show what the daemons of a lab log, and what its applications write.

    \b
    Examples:
      testbed logs two-hosts
      testbed logs -f two-hosts alice

    The logs of a run that is over are in its run folder: runs/LAB/latest/.
    """
    for name, line in core.logs(lab, names, follow=follow):
        say(f"{name}: {line}")
    return 0
