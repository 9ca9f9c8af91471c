"""testbed report."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import click

from testbed import finished
from testbed import report as core
from testbed.cli.options import past_run_options
from testbed.cli.output import complain, print_json, say, verbose_option
from testbed.unavailable import Unavailable

_STDOUT = Path("-")


@click.command()
@past_run_options
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["html", "json", "svg", "png"]),
    default="html",
    show_default=True,
    help="A page; its numbers for programs; one plot.",
)
@click.option("--plot", type=click.Choice(list(core.PLOTS)), help="Which plot, with --format svg or png.")
@click.option("--connection", type=click.IntRange(1), metavar="N", help="Whose plot; else that with the most data.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where, in place of report.html in the run folder, or of PLOT.FORMAT here; -: to the standard output.",
)
@click.option("--open", "opens", is_flag=True, help="Show the page in the browser.")
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
    """Show a run as a page: plots, ladder diagrams, logs and verdicts, in one HTML file.

    \b
    Examples:
      testbed report --open
      testbed report lossy -o lossy.html
      testbed report lossy --plot windows --format svg
      testbed report lossy --format json

    RUN is a run folder, or the name of a topology, whose latest run it is; by default the latest run of all. `testbed
    run` writes the page, too. It needs no network and no other file: send it to whoever should see it. A single
    plot (--plot) needs matplotlib.
    """
    _require_sense(output_format, plot, connection, output, opens=opens)
    folder = finished.find(run, runs)
    try:
        read = core.Report(folder)
        if output_format == "json":
            print_json(read.summary())
            return 0
        if output == _STDOUT:
            _print(read, plot, output_format, connection)
            return 0
        path = output or (Path(f"{plot}.{output_format}") if plot is not None else folder / core.NAME)
        if plot is not None:
            read.plot(plot, path, output_format, connection)
        else:
            read.write(path)
    except BrokenPipeError:
        raise
    except OSError as error:
        what = f"{error.filename or 'the standard output'} can't be read or written: {error.strerror}."
        raise Unavailable(what, "-o FILE writes it elsewhere.") from error
    say(f"{output_format if plot is not None else 'report'}: {path}")
    if opens and not webbrowser.open(path.resolve().as_uri()):
        complain("note: there is no browser to show it in.")
    return 0


def _print(read: core.Report, plot: str | None, output_format: str, connection: int | None) -> None:
    stream = sys.stdout.buffer
    if plot is None:
        stream.write(read.html().encode())
    elif stream.isatty() and output_format == "png":
        raise click.UsageError("-o - writes a picture, which is nothing for a terminal: > FILE, or -o FILE")
    else:
        read.plot(plot, stream, output_format, connection)


def _require_sense(
    output_format: str, plot: str | None, connection: int | None, output: Path | None, *, opens: bool
) -> None:
    """Raise UsageError for options that do not go together."""
    is_plot = output_format in ("svg", "png")
    if is_plot and plot is None:
        raise click.UsageError(f"which plot? --plot with one of {', '.join(core.PLOTS)}")
    if plot is not None and not is_plot:
        raise click.UsageError("--plot needs --format svg or --format png")
    if connection is not None and not is_plot:
        raise click.UsageError("--connection goes with --plot: a page has all connections")
    if opens and (output_format != "html" or output == _STDOUT):
        raise click.UsageError("--open shows the page: it goes with --format html, written to a file")
    if output is not None and output_format == "json":
        raise click.UsageError("--format json goes to the standard output; > FILE writes it to a file")
