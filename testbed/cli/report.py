"""testbed report."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from testbed import report as core
from testbed.cli.options import runs_option
from testbed.cli.output import print_json, say, verbose_option
from testbed.folder import find


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["html", "json", "svg", "png"]),
    default="html",
    show_default=True,
    help="A page, its numbers for programs, or one plot.",
)
@click.option("--plot", type=click.Choice(list(core.PLOTS)), help="Which plot, for svg and png.")
@click.option("--connection", type=click.IntRange(1), help="Of which connection, by the number in the report; by default the one with the most data.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write here; - is the standard output.")
@click.option("--open", "opens", is_flag=True, help="Show the page in a browser.")
@runs_option
@verbose_option
def report(
    run: str | None,
    output_format: str,
    plot: str | None,
    connection: int | None,
    output: Path | None,
    opens: bool,
    runs: Path,
) -> int:
    """Show what happened in a run: one HTML file with plots, ladder diagrams, logs and verdicts.

    \b
    Examples:
      testbed report                                     of the last run
      testbed report lossy --open                        of the last run of a lab
      testbed report runs/lossy/20261126T233605Z -o lossy.html
      testbed report lossy --plot windows --format svg -o windows.svg

    RUN is a run folder, or a lab's name. `testbed run` writes the page, too: it is report.html in the run folder. It
    needs no network, so it can be sent to others.
    """
    if (plot is not None) != (output_format in ("svg", "png")):
        raise click.UsageError("--plot NAME and --format svg or png go together.")
    if opens and output_format != "html":
        raise click.UsageError("--open shows the page: it goes with --format html.")
    folder = find(runs, run)
    read = core.Report(folder)
    if output_format == "json":
        print_json(read.summary)
        return 0
    path = output or (folder / core.NAME if plot is None else Path(f"{plot}.{output_format}"))
    if plot is None:
        read.write(path)
    else:
        read.plot(plot, path, output_format, connection)
    say(f"report: {path}" if plot is None else f"plot: {path}")
    if opens:
        webbrowser.open(path.resolve().as_uri())
    return 0
