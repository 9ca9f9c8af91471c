"""`python -m benchmarks`: run them, show what they found."""

from __future__ import annotations

import json
import resource
import signal
import sys
import traceback
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from benchmarks import baseline, classic, flames, idle, labs, pytcp, report, simulator, traffic
from benchmarks.measures import BENCHMARKS, QUICK, Effort, Session, Unavailable
from benchmarks.processes import ProgramFailed
from benchmarks.report import Report

_MODULES = (traffic, classic, pytcp, idle, simulator, labs)  # they have put their benchmarks into BENCHMARKS


def _known(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in BENCHMARKS:
            raise click.BadParameter(f"there is no {name!r}, but {', '.join(BENCHMARKS)}")
    return names


def _list(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        for one in BENCHMARKS.values():
            click.echo(f"{one.name:<16}{one.meaning}")
        context.exit()


@click.command()
@click.option("--only", "names", multiple=True, metavar="NAME", callback=_known, help="This benchmark; again for more.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="Name them all.")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/bench"),
    show_default=True,
    help="Where plots and the report go.",
)
@click.option("--save", is_flag=True, help="Keep the ratios in benchmarks/baseline.json.")
@click.option("--quick", is_flag=True, help="See whether all runs; the figures mean nothing.")
@click.option("--rounds", type=click.IntRange(1), help="How often each is measured.")
@click.option("--flame", is_flag=True, help="Draw flame graphs of the daemons, by py-spy. That slows them down.")
def main(
    names: tuple[str, ...],
    output_format: str,
    output: Path,
    save: bool,
    quick: bool,
    rounds: int | None,
    flame: bool,
) -> None:
    """How fast it is, beside a relay in plain Python and the kernel's TCP, on this machine and in this run."""
    if save and (quick or flame):
        raise click.UsageError("--save keeps figures that mean something: not with --quick or --flame")
    if flame and flames.available() is None:
        raise click.UsageError("--flame needs py-spy: pip install -e '.[bench]'")
    signal.signal(signal.SIGTERM, _interrupt)
    _allow_descriptors()
    output.mkdir(parents=True, exist_ok=True)
    effort = QUICK if quick else Effort()
    effort = replace(effort, rounds=rounds or effort.rounds)
    console = Console(stderr=True)
    found = _run(names or tuple(BENCHMARKS), effort, output if flame else None, console)
    worse = [] if quick or flame else baseline.worse(found.findings, baseline.load())
    text = json.dumps(report.as_json(found, worse), indent=2, ensure_ascii=False)
    (output / "report.json").write_text(text + "\n")
    try:
        report.plot(found.findings.values(), output)
    except ImportError:
        console.print("There are no plots without matplotlib: pip install -e '.[bench]'", style="yellow", markup=False)
    if output_format == "json":
        click.echo(text)
    else:
        report.show(found, worse, output, _console())
    if save:
        baseline.save(found.findings)
    sys.exit(1 if found.failed else 0)


def _console() -> Console:
    """The table is whole, also in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def _run(names: tuple[str, ...], effort: Effort, flame_graphs: Path | None, console: Console) -> Report:
    found = Report(report.machine(), {}, {}, {})
    status = console.status("") if console.is_terminal else nullcontext()
    with status as line:
        for number, name in enumerate(names, 1):

            def step(what: str, head: str = f"{name} ({number} of {len(names)})") -> None:
                if line is not None:
                    line.update(f"{head}: {what}")

            if line is None:
                console.print(f"{name} ({number} of {len(names)})", highlight=False)
            _try(name, Session(effort, step, flame_graphs, name), found)
    return found


def _try(name: str, session: Session, found: Report) -> None:
    try:
        found.findings[name] = BENCHMARKS[name].run(session)
    except Unavailable as why:
        found.left_out[name] = str(why)
    except ProgramFailed as why:
        found.failed[name] = str(why)
    except Exception as error:  # the others' figures are not lost for that
        found.failed[name] = "".join(traceback.format_exception(error))


def _allow_descriptors() -> None:
    """A thousand connections need more of them than most shells allow."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
