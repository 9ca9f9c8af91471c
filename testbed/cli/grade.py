"""testbed grade, testbed matrix."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from testbed.backends.base import Report
from testbed.cli.output import complain, format_option, print_json, progress, result_for, say, table, verbose_option
from testbed.grading import many, page, reports
from testbed.grading.catalog import STAGES, catalog
from testbed.grading.cells import KINDS, cells
from testbed.grading.runner import Grade, Verdict, grade
from testbed.grading.sandbox import Source, Unreadable
from testbed.grading.weights import Weights
from testbed.grading.weights import load as load_weights

_IN_FULL = 3  # failed tests of a stage that are told of in full, if nobody has asked for it

_seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="All random choices follow from it."
)
_jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=os.cpu_count() or 1,
    show_default="one for each processor",
    help="How many to judge at once.",
)
_sandbox_option = click.option(
    "--sandbox",
    type=click.Choice(KINDS),
    default="process",
    show_default=True,
    help="Where it runs: in a locked-up process, or in one in a container; auto: that, where an engine has our image.",
)


@click.command("grade")
@click.argument("path", metavar="FILE.py|DIR", required=False, type=click.Path(path_type=Path))
@click.option("--image", metavar="IMAGE", help="Grade a chitcpd in an image, through the wire and the UNIX protocol.")
@click.option("--only", metavar="TEST|STAGE", multiple=True, help="Only this test, or stage; again for more.")
@click.option("--weights", metavar="FILE.yaml", type=click.Path(path_type=Path), help="How many points for what.")
@_seed_option
@_sandbox_option
@_jobs_option
@format_option
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit's XML there, too.")
@click.option("--gradescope", metavar="FILE", type=click.Path(path_type=Path), help="Write Gradescope's results.json.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page that shows all of it.")
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Of a class: where pages go.")
@click.option("--list", "list_", is_flag=True, help="Show the tests, and run none.")
@verbose_option
def grade_(
    path: Path | None,
    image: str | None,
    only: tuple[str, ...],
    weights: Path | None,
    seed: int,
    sandbox: str,
    jobs: int,
    output_format: str,
    junit: Path | None,
    gradescope: Path | None,
    html: Path | None,
    output: Path | None,
    list_: bool,
) -> int:
    """Grade a TCP, or those of a whole class: stages, tests, points, and what went wrong.

    \b
    Examples:
      testbed grade my_tcp.py
      testbed grade my_tcp.py --only fast-retransmit
      testbed grade my_tcp.py --html my_tcp.html
      testbed grade submissions/ --weights weights.yaml -o grades
      testbed grade --image my-chitcpd

    A failed test shows what happened beside what should have, and how to run it again. The submission runs in a process
    of its own that can do nothing but compute (docs/grading.md). The exit status is 1 if a test failed; of a class it
    is 0.
    """
    weighed = _only(load_weights(weights) if weights else Weights(), only)
    if list_:
        tests = weighed.points(catalog())
        table(
            ("TEST", "STAGE", "POINTS", "WHAT"), [(t.id, t.stage, _number(p), f"{t.title} ({t.rfc})") for t, p in tests]
        )
        return 0
    if image is not None:
        if path is not None or output:
            raise click.UsageError("--image grades one image, and takes neither FILE.py nor -o DIR")
        with result_for(output_format), progress() as step:
            from testbed.grading.outside.docker_image import grade_image  # the engine's library takes time to load

            result = grade_image(image, weighed.points(catalog()), seed=seed, step=_on_terminal(step, output_format))
        return _hand_out(result, image, output_format, junit, gradescope, html, everything=bool(only))
    if path is None:
        raise click.UsageError("which TCP? Name its file, or a folder with many: testbed grade my_tcp.py")
    if path.is_dir():
        if html or gradescope:
            raise click.UsageError("--html and --gradescope are for one submission; a class has -o DIR")
        return _class(path, weighed, seed, sandbox, jobs, output_format, junit, output)
    source = _read(path)
    with result_for(output_format), cells(sandbox) as new_cell, progress() as step:
        shown = _on_terminal(step, output_format)
        result = grade(source, weighed.points(catalog()), seed=seed, step=shown, new_cell=new_cell)
    return _hand_out(result, str(path), output_format, junit, gradescope, html, everything=bool(only))


def _on_terminal(step: Report, output_format: str) -> Report:
    return step if output_format == "text" and sys.stdout.isatty() else _quiet


def _hand_out(
    result: Grade,
    path: str,
    output_format: str,
    junit: Path | None,
    gradescope: Path | None,
    html: Path | None,
    *,
    everything: bool,
) -> int:
    written: list[tuple[Path | None, Callable[[], str]]] = [
        (junit, lambda: reports.to_junit([result])),
        (gradescope, lambda: reports.to_gradescope(result)),
        (html, lambda: page.page(result, path)),
    ]
    for file, make in written:
        if file is not None:
            _write(file, make())
    if output_format == "json":
        print_json(reports.to_json(result, path))
    else:
        _tell(result, path, everything=everything)
    return 0 if result.good else 1


@click.command()
@click.argument("paths", metavar="FILE.py...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_seed_option
@_sandbox_option
@_jobs_option
@format_option
@verbose_option
def matrix(paths: tuple[Path, ...], seed: int, sandbox: str, jobs: int, output_format: str) -> int:
    """Let every TCP talk to every other: who gets along with whom?

    \b
    Examples:
      testbed matrix alice.py bob.py examples/stop_and_wait.py
      testbed matrix submissions/*.py --format json

    Each is client and server, over a clean link and over one that loses, swaps and doubles segments; 40 kB go each way
    and must come whole. The exit status is 1 if some pair does not get along.
    """
    sources = [_read(path) for path in paths]
    if len({source.name for source in sources}) < len(sources):
        raise click.UsageError("two files have the same name; give each its own, or the table can't be read")
    with result_for(output_format), progress() as step:
        meetings = many.meet_all(
            sources, seed=seed, jobs=jobs, kind=sandbox, done=lambda m: step(f"{m.client} - {m.server}, {m.link}")
        )
    if output_format == "json":
        print_json([{"client": m.client, "server": m.server, "link": m.link, "trouble": m.trouble} for m in meetings])
    else:
        _tell_meetings([source.name for source in sources], meetings)
    return 1 if any(meeting.trouble for meeting in meetings) else 0


def _only(weights: Weights, only: tuple[str, ...]) -> Weights:
    """With all other tests worth nothing."""
    if not only:
        return weights
    tests = catalog()
    known = {*STAGES, *(test.id for test in tests)}
    for name in only:
        if name not in known:
            raise click.UsageError(f"there is no test and no stage {name!r}; testbed grade --list shows them")
    left_out = {test.id: 0.0 for test in tests if test.id not in only and test.stage not in only}
    return Weights({}, weights.tests | left_out)


def _class(
    folder: Path,
    weights: Weights,
    seed: int,
    sandbox: str,
    jobs: int,
    output_format: str,
    junit: Path | None,
    output: Path | None,
) -> int:
    paths = many.submissions(folder)
    if not paths:
        raise click.UsageError(f"{folder} has no *.py")
    sources = [_read(path) for path in paths]
    if output is not None:
        _make(output)
    done = 0

    def tell(result: Grade) -> None:
        nonlocal done
        done += 1
        step(f"{done}/{len(sources)} {result.name}: {_number(result.earned)} of {_number(result.points)}")

    with result_for(output_format), progress() as step:
        grades = many.grade_all(sources, weights, seed=seed, jobs=jobs, kind=sandbox, done=tell)
    if output is not None:
        pages = {result.name: f"{result.name}.html" for result in grades}
        for path, result in zip(paths, grades, strict=True):
            _write(output / pages[result.name], page.page(result, str(path)))
        _write(output / "index.html", page.summary(grades, pages))
        _write(output / "grades.csv", reports.to_csv(grades))
    if junit is not None:
        _write(junit, reports.to_junit(grades))
    if output_format == "json":
        print_json([reports.to_json(result, str(path)) for path, result in zip(paths, grades, strict=True)])
        return 0
    rows = [(r.name, _number(r.earned), _number(r.points), r.trouble or _where_lost(r)) for r in grades]
    table(("SUBMISSION", "POINTS", "OF", "LOST IN"), rows)
    if output is not None:
        say(f"{output / 'index.html'} and {output / 'grades.csv'} have all of it.", "good")
    return 0


def _where_lost(result: Grade) -> str:
    lost = {stage: sum(verdict.points - verdict.earned for verdict in verdicts) for stage, verdicts in result.stages()}
    return ", ".join(f"{stage} {_number(points)}" for stage, points in lost.items() if points)


def _tell(result: Grade, path: str, *, everything: bool) -> None:
    """The grade for people: the ladders of all that failed, or of the first in each stage."""
    for _, verdicts in result.stages():
        failed = [verdict for verdict in verdicts if not verdict.passed and verdict.ran]
        for number, verdict in enumerate(failed if everything else failed[:_IN_FULL]):
            _tell_failure(result, verdict, path, ladder=everything or not number)
        if len(failed) > _IN_FULL and not everything:
            say(f"✗ and {len(failed) - _IN_FULL} more: {', '.join(v.test.id for v in failed[_IN_FULL:])}\n", "bad")
    rows = [
        (stage, _number(sum(v.earned for v in verdicts)), _number(sum(v.points for v in verdicts)), _count(verdicts))
        for stage, verdicts in result.stages()
    ]
    table(("STAGE", "POINTS", "OF", "TESTS"), rows)
    for note in result.notes:
        say(f"note: {note}", "note")
    if result.left_out:
        unseen = [verdict.test.id for verdict in result.verdicts if verdict.unseen]
        say(f"not judged, {_number(result.left_out)} points: {', '.join(unseen)}", "note")
    if result.trouble:
        complain(f"{path}: {result.trouble}")
    of = " that can be judged from outside" if result.is_image else ""
    say(f"{path}: {_number(result.earned)} of {_number(result.points)} points{of}", "good" if result.good else "bad")


def _tell_failure(result: Grade, verdict: Verdict, path: str, *, ladder: bool) -> None:
    test = verdict.test
    say(f"✗ {test.stage}: {test.title} ({test.rfc})", "bad")
    say(f"  {verdict.message}")
    for line in verdict.way:
        say(f"    {line}")
    if verdict.printed and ladder:
        say("  it printed:")
        for line in verdict.printed.splitlines()[-10:]:
            say(f"    {line[:200]}")
    say(f"  again: {reports.replay(result, verdict, path)}")
    happened, expected = reports.diagrams(result, verdict)
    if ladder and happened:
        say(f"\n  what happened:\n{happened}\n  what should have:\n{expected}")
    say("")


def _tell_meetings(names: list[str], meetings: list[many.Meeting]) -> None:
    """A row for each client, a column for each server; the troubles below."""
    trouble = {(m.client, m.server, m.link): m.trouble for m in meetings}

    def cell(client: str, server: str) -> str:
        bad = [link for link in many.LINKS if trouble[client, server, link]]
        return "good" if not bad else "fails" if len(bad) == len(many.LINKS) else f"fails: {bad[0]}"

    table(("CLIENT \\ SERVER", *names), [(client, *(cell(client, server) for server in names)) for client in names])
    for meeting in meetings:
        if meeting.trouble:
            say(f"{meeting.client} to {meeting.server}, {meeting.link}: {meeting.trouble}", "bad")


def _count(verdicts: list[Verdict]) -> str:
    return f"{sum(verdict.passed for verdict in verdicts)}/{sum(not verdict.unseen for verdict in verdicts)}"


def _number(points: float) -> str:
    return f"{points:.2f}".rstrip("0").rstrip(".")


def _quiet(_step: str) -> None:
    """A file needs no progress."""


def _read(path: Path) -> Source:
    try:
        return Source.read(path)
    except Unreadable as error:
        raise click.UsageError(f"{error}.") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"{folder} can't be made: {error.strerror}") from error


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{file} can't be written: {error.strerror}") from error
