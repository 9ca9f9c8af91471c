"""testbed link."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import click

from testbed import links as core
from testbed.cli.complete import labs
from testbed.cli.output import Group, format_option, print_json, say, table, verbose_option
from testbed.graph import said
from testbed.signals import Interrupted, Signals
from testbed.topology.scalars import read_timeout

_lab = click.argument("lab", shell_complete=labs)
_link = click.argument("link")


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return read_timeout(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}, like 10s") from error


for_option = click.option(
    "--for",
    "duration",
    metavar="TIME",
    callback=_seconds,
    help="Like 10s: wait so long, then undo it. Ctrl-C does this at once.",
)


@click.group(cls=Group)
def link() -> None:
    """Look at the links of a lab that is up, and change them while it runs.

    \b
    Examples:
      testbed link show two-hosts
      testbed link set two-hosts alice-bob delay=50ms loss=2%
      testbed link set two-hosts alice-bob rate=1mbit --from alice --for 10s
      testbed link down two-hosts alice-bob --for 2s
      testbed link reset two-hosts

    A change holds until the next one, until `reset`, or with --for for so long. Of several with --for the newest holds
    that is not over; when all are over, the link is as it was before them.
    """


@link.command()
@_lab
@click.argument("names", metavar="[LINK]...", nargs=-1)
@format_option
@verbose_option
def show(lab: str, names: tuple[str, ...], output_format: str) -> int:
    """Show what each end of the links does, and what it has done to segments so far.

    \b
    Example:
      testbed link show two-hosts
    """
    ends = core.show(lab, names)
    if output_format == "json":
        print_json([_for_programs(end) for end in ends])
        return 0
    rows = []
    for end in ends:
        does = ", ".join(said(end.now.shape, end.now.underlay)) or "as it is"
        changed = "" if end.is_as_planned else "changed"
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(end.now.counts.items())) or "nothing"
        rows.append((end.interface.link, end.direction, does, changed, counts))
    table(("LINK", "DIRECTION", "DOES", "", "DONE TO SEGMENTS"), rows)
    return 0


def _for_programs(end: core.End) -> dict[str, object]:
    return {
        "link": end.interface.link,
        "direction": end.direction,
        "mtu": end.interface.mtu,
        "planned": {**asdict(end.interface.shape), "underlay": asdict(end.interface.underlay)},
        "now": {**asdict(end.now.shape), "underlay": asdict(end.now.underlay)},
        "counts": dict(end.now.counts),
    }


@link.command("set")
@_lab
@_link
@click.argument("settings", metavar="NAME=VALUE...", nargs=-1, required=True)
@click.option("--from", "sender", metavar="HOST", help="Only what this end sends.")
@for_option
@verbose_option
def set_(lab: str, link: str, settings: tuple[str, ...], sender: str | None, duration: float | None) -> int:
    """Change what a link does: delay, jitter, rate, queue, loss, duplicate, reorder, corrupt.

    \b
    Examples:
      testbed link set two-hosts alice-bob delay=50ms jitter=5ms
      testbed link set two-hosts alice-bob loss=10% --from alice --for 5s

    What is not named stays as it is; a queue that the topology has in time or bdp goes with the rate and the delay.
    """
    changes = core.parse(settings)
    return _for_a_while(
        lab, link, lambda: core.change(lab, link, changes, sender, passing=duration is not None), duration
    )


@link.command()
@_lab
@_link
@for_option
@verbose_option
def down(lab: str, link: str, duration: float | None) -> int:
    """Let no segment pass a link.

    \b
    Examples:
      testbed link down two-hosts alice-bob --for 2s
      testbed link down two-hosts alice-bob
    """
    return _for_a_while(lab, link, lambda: core.set_down(lab, link, down=True, passing=duration is not None), duration)


@link.command()
@_lab
@_link
@verbose_option
def up(lab: str, link: str) -> int:
    """Let segments pass a link again.

    \b
    Example:
      testbed link up two-hosts alice-bob
    """
    return _for_a_while(lab, link, lambda: core.set_down(lab, link, down=False), None)


@link.command()
@_lab
@click.argument("link", required=False)
@verbose_option
def reset(lab: str, link: str | None) -> int:
    """Let a link, or all of them, do what the topology says.

    \b
    Examples:
      testbed link reset two-hosts
      testbed link reset two-hosts alice-bob
    """
    core.reset(lab, link)
    say(f"{link or 'every link'} of {lab} is as the topology says")
    return 0


def _for_a_while(lab: str, link: str, change: Callable[[], str], duration: float | None) -> int:
    """Make a change; with a duration wait so long, and make it as it was, also after a signal that comes earlier."""
    interrupted: Interrupted | None = None
    with Signals() as signals:
        which = change()
        if duration is None:
            _say_what_it_does(lab, link)
            return 0
        try:
            _say_what_it_does(lab, link)
            say(f"for {duration:g} s")
            with signals.interruptible():
                time.sleep(duration)
        except Interrupted as signal:
            interrupted = signal
        finally:
            now = core.undo(lab, which)
    say(f"{link} is {now}" if now is not None else f"lab {lab} is down by now")
    return interrupted.status if interrupted else 0


def _say_what_it_does(lab: str, link: str) -> None:
    for end in core.show(lab, [link]):
        say(f"{end.direction}: {', '.join(said(end.now.shape, end.now.underlay)) or 'as it is'}")
