"""testbed up, down, ps, logs: labs that stay."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from testbed import lab as core
from testbed.backends.base import Built, Probed
from testbed.cli.complete import labs, labs_and_topologies
from testbed.cli.options import Wanted, lab_options
from testbed.cli.output import (
    complain,
    format_option,
    note_unreachable,
    notice,
    print_json,
    print_json_line,
    progress,
    result_for,
    say,
    table,
    verbose_option,
)
from testbed.unavailable import Unavailable


@click.command()
@lab_options
@verbose_option
def up(wanted: Wanted) -> int:
    """Bring a lab's hosts and links up, and leave them up.

    \b
    Examples:
      testbed up topologies/two-hosts.yaml
      testbed up topologies/two-hosts.yaml --name mine --backend local

    Returns when every chitcpd answers. Applications are not started: that is for `testbed run`, or for you. On the
    local backend, `testbed ps` shows each host's CHITCPD_SOCK, with which any chisocket program can use it. If
    something fails, nothing stays behind. If the lab is up already, what differs from the topology is added, removed or
    changed, and nothing else: links that were changed are reset, and a host whose image was built anew is started anew.
    """
    lab = wanted.lab
    choice = core.choose(lab, wanted.backend)
    say(f"backend {choice.backend.name}: {choice.why}")
    with progress() as step:
        items, built = core.up(wanted.topology, choice.backend, lab=lab, report=step)
    for item in items:
        say(f"{item.kind} {item.name}: {item.state}, {item.detail}")
    if built is None:
        say(f"lab {lab} was up, just so: nothing was changed", "good")
        return 0
    tell_built(built)
    say(f"lab {lab} is up; testbed down {lab} takes it down", "good")
    return 0


def tell_built(built: Built) -> None:
    """What was measured of links that do something, and what could not be done."""
    for probed in built.probed:
        if probed.asked_rate is not None or probed.asked_rtt > 0.0005 or not probed.good:
            say(f"link {probed.link}: {_measured(probed)}", "plain" if probed.good else "note")
    for note in built.notes:
        say(f"note: {note}", "note")


def _measured(probed: Probed) -> str:
    off = "" if probed.good_rtt else f" (off by more than {probed.tolerated_rtt * 1000:.3g} ms)"
    parts = [f"round trip {probed.measured_rtt * 1000:.2f} ms, asked {probed.asked_rtt * 1000:.4g}{off}"]
    if probed.asked_rate is not None:
        off = "" if probed.good_rate else f" (off by more than {probed.TOLERATED_RATE:.0%})"
        found = "not measured" if probed.measured_rate is None else f"{probed.measured_rate / 1e6:.4g} mbit"
        parts.append(f"rate {found}, asked {probed.asked_rate / 1e6:.4g}{off}")
    return f"{probed.direction}: {'; '.join(parts)}"


@click.command()
@click.argument("lab", metavar="[LAB|TOPOLOGY.yaml]", required=False, shell_complete=labs_and_topologies)
@click.option("--all", "all_", is_flag=True, help="Every lab of every backend.")
@format_option
@verbose_option
def down(lab: str | None, all_: bool, output_format: str) -> int:
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
    with result_for(output_format):
        removed, refused = _all_down() if lab is None else ([_down(_name(lab))], False)
    if output_format == "json":
        print_json({"labs": removed})
    return 3 if refused else 0


def _all_down() -> tuple[list[dict[str, object]], bool]:
    """(what was removed of each lab that could go, whether one could not)."""
    names, unreachable = core.labs()
    note_unreachable(unreachable)
    if not names:
        say("no lab is up")
    removed: list[dict[str, object]] = []
    for name in names:
        try:
            removed.append(_down(name))
        except Unavailable as error:
            complain(str(error), error.remedy)  # the others can go
    return removed, len(removed) < len(names)


def _down(name: str) -> dict[str, object]:
    with progress() as step:
        count = core.down(name, step)
    say(f"lab {name} is down: {count} things removed")
    return {"lab": name, "removed": count}


def _name(lab: str) -> str:
    if lab.endswith((".yaml", ".yml")):
        return core.name_in(Path(lab))
    return lab


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
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
    note_unreachable(found.unreachable)
    if found.left_behind:
        notice(f"{', '.join(found.left_behind)}: left behind by a command that was killed; testbed gc removes what is.")
    if output_format == "json":
        print_json([{"backend": backend, **asdict(item)} for backend, item in found.items])
    elif not found.items:
        say("no lab is up")
    else:
        columns = ("LAB", "KIND", "NAME", "STATE", "DETAIL", "BACKEND")
        table(columns, [(i.lab, i.kind, i.name, i.state, i.detail, backend) for backend, i in found.items])
    return 0


@click.command()
@click.argument("lab", shell_complete=labs)
@click.argument("names", metavar="[HOST|APP]...", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until all of them have ended.")
@format_option
@verbose_option
def logs(lab: str, names: tuple[str, ...], follow: bool, output_format: str) -> int:
    """Show what the daemons of a lab log, and what its applications write.

    \b
    Examples:
      testbed logs two-hosts
      testbed logs -f two-hosts alice

    The logs of a run that is over are in its run folder: runs/LAB/latest/.
    """
    for name, line in core.logs(lab, names, follow=follow):
        if output_format == "json":
            print_json_line({"name": name, "line": line})
        else:
            say(f"{name}: {line}")
    return 0
