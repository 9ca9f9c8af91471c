"""testbed ladder."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from testbed import finished, ladder_choice, ladder_json, ladder_text
from testbed.cli.options import past_run_options
from testbed.cli.output import format_option, print_pieces, say, say_all, table, verbose_option

_MOST_DIAGRAMS = 4  # without a choice: more are too much to look at
_WIDEST = 120  # columns: longer arrows are harder to follow


@click.command()
@past_run_options
@click.option("--between", nargs=2, metavar="HOST HOST", help="Only connections between these two.")
@click.option("--connection", type=click.IntRange(1), metavar="N", help="Only this one, as the list numbers them.")
@click.option("--port", type=click.IntRange(0, 65535), help="Only connections with this port at either end.")
@click.option("--from", "begin", type=float, metavar="SECONDS", help="Only what was sent from then on ...")
@click.option("--to", "end", type=float, metavar="SECONDS", help="... and until then, as the diagram counts.")
@click.option("--all", "everything", is_flag=True, help="Every segment and every connection: fold nothing.")
@click.option("--list", "only_list", is_flag=True, help="Only list the connections.")
@format_option
@verbose_option
def ladder(
    run: str | None,
    between: tuple[str, str] | None,
    connection: int | None,
    port: int | None,
    begin: float | None,
    end: float | None,
    everything: bool,
    only_list: bool,
    runs: Path,
    output_format: str,
) -> int:
    """Draw what two hosts have said to each other: segments, what became of them, states, timers.

    \b
    Examples:
      testbed ladder
      testbed ladder lossy
      testbed ladder runs/lossy/latest --port 7000 --from 0.5 --to 1
      testbed ladder dumbbell --connection 2 --all | less

    RUN is a run folder, or the name of a topology, whose latest run it is; by default the latest run of all. An arrow
    begins with its sender, at the time at the left, in seconds from the start of the first application, as in the
    report; one that ends in X was dropped, and beside it stands why. Numbers count from the first one of their sender.
    "(again)" was sent before, "(copy 2)" came twice, "(overtaken)" came later than what was sent after it.
    """
    folder = finished.find(run, runs)
    choice = ladder_choice.choose(
        finished.ladder_of(folder),
        between=between,
        connection=connection,
        port=port,
        begin=begin,
        end=end,
        start=finished.began(folder),
    )
    if output_format == "json":
        print_pieces(ladder_json.pieces(str(folder), choice.connections, [] if only_list else choice.rows))
        return 0
    if only_list or (len(choice.connections) > _MOST_DIAGRAMS and not everything):
        _list(choice)
        if not only_list:
            say(f"These are many: choose with --connection N, --port or --between, or have all with --all. ({folder})")
        return 0
    width = min(shutil.get_terminal_size().columns, _WIDEST)  # in a file 80, or $COLUMNS
    lines = ladder_text.lines(choice.rows, width, start=choice.start, fold=not everything, states=choice.states_before)
    say_all((line.text, line.style) for line in lines)
    return 0


def _list(choice: ladder_choice.Choice) -> None:
    rows = [
        (
            str(one.number),
            f"{one.hosts[0]} {one.addresses[0]}",
            f"{one.hosts[1]} {one.addresses[1]}",
            f"{one.begin - choice.start:.3f}",
            f"{one.end - choice.start:.3f}",
            str(one.segments),
        )
        for one in choice.connections
    ]
    table(("", "opened by", "to", "from", "until", "segments"), rows)
