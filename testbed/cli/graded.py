"""What testbed grade and testbed matrix do, and how they tell of it."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from testbed.backends.base import Report
from testbed.cli.output import print_json, progress, result_for, say, table
from testbed.grading import many, page, reports
from testbed.grading.catalog import STAGES, catalog
from testbed.grading.runner import Grade, Verdict
from testbed.grading.sandbox import Source, Unreadable, harmless
from testbed.grading.weights import Weights
from testbed.grading.weights import load as load_weights
from testbed.topology.faults import nearest
from testbed.whole import whole

_LONGEST = 4096  # characters of a path
_IN_FULL = 3  # failed tests of a stage that are told of in full, if nobody has asked for it
_HEAD, _TAIL = 20, 6  # lines of a ladder that are shown then; what goes wrong first is what counts


@dataclass(frozen=True, slots=True)
class How:
    """What the options say of any grade."""

    weights: Weights
    seed: int
    sandbox: str
    jobs: int
    output_format: str


def how(weights: Weights, seed: int | None, sandbox: str, jobs: int, output_format: str, *, draws: bool) -> How:
    """`draws`: without a seed, one that no submission can have known before; else 1."""
    if seed is None and draws:
        seed = secrets.randbits(32)
        with result_for(output_format):
            say(f"The seed was drawn: --seed {seed} grades in the same way again.", "quiet")
    return How(weights, 1 if seed is None else seed, sandbox, jobs, output_format)


def weighed(weights: Path | None, only: tuple[str, ...]) -> Weights:
    """How many points there are for what. Raises BadWeights, and UsageError if there are none for anything."""
    chosen = load_weights(weights) if weights else Weights()
    if only:
        chosen = _only(chosen, only)
    if not chosen.points(catalog()):
        raise click.UsageError("no test is left that is worth any points: see --weights and --only")
    return chosen


def _only(weights: Weights, only: tuple[str, ...]) -> Weights:
    """Those tests and stages alone, for the points that they have among all."""
    known = {*STAGES, *(test.id for test in catalog())}
    for name in only:
        if name not in known:
            hint = nearest(name, sorted(known)) or "; testbed grade --list shows them"
            raise click.UsageError(f"there is no test and no stage {name!r}{hint}")
    return replace(weights, only=only)


def tell_tests(weights: Weights, output_format: str) -> None:
    """All tests."""
    tests = weights.points(catalog())
    if output_format == "json":
        print_json([reports.of_test(test, points) for test, points in tests])
        return
    rows = [(t.id, t.stage, reports.number(p), f"{t.title} ({t.rfc})") for t, p in tests]
    table(("TEST", "STAGE", "POINTS", "WHAT"), rows)


def grade_one(
    path: Path, how: How, *, everything: bool, junit: Path | None, gradescope: Path | None, html: Path | None
) -> int:
    """Grade one; the exit status. For Gradescope it is a stranger's: what can't be read gets no points."""
    source = _read(path) if gradescope is None else many.submission(path)
    with result_for(how.output_format), progress() as step:
        shown: Report = step if how.output_format == "text" and sys.stdout.isatty() else _quiet
        result = many.grade_one(source, how.weights, seed=how.seed, kind=how.sandbox, step=shown, tell=_tell_where)
    return _hand_out(result, _shown(path), how, everything=everything, junit=junit, gradescope=gradescope, html=html)


def grade_image(
    image: str, how: How, *, everything: bool, junit: Path | None, gradescope: Path | None, html: Path | None
) -> int:
    """Grade a chitcpd in an image; the exit status. Raises UsageError if no test can be judged so."""
    from testbed.grading.outside import docker_image  # the engine's library takes time to load
    from testbed.grading.outside.tests import UNSEEN

    tests = how.weights.points(catalog())
    if all(test.id in UNSEEN for test, _ in tests):
        raise click.UsageError("none of these tests can be judged from outside: docs/grading.md says why")
    with result_for(how.output_format), progress() as step:
        shown: Report = step if how.output_format == "text" and sys.stdout.isatty() else _quiet
        result = docker_image.grade_image(image, tests, seed=how.seed, step=shown)
    return _hand_out(result, image, how, everything=everything, junit=junit, gradescope=gradescope, html=html)


def _hand_out(
    result: Grade,
    path: str,
    how: How,
    *,
    everything: bool,
    junit: Path | None,
    gradescope: Path | None,
    html: Path | None,
) -> int:
    written: list[tuple[Path | None, Callable[[], str]]] = [
        (junit, lambda: reports.to_junit([result], [path])),
        (gradescope, lambda: reports.to_gradescope(result)),
        (html, lambda: page.page(result, path)),
    ]
    for file, make in written:
        if file is not None:
            _write(file, make())
    if how.output_format == "json":
        print_json(reports.to_json(result, path))
    else:
        _tell(result, path, everything=everything)
    return 0 if result.good else 1


def grade_class(folder: Path, how: How, *, junit: Path | None, output: Path | None) -> int:
    """Grade all of a folder; the exit status."""
    found = many.submissions(folder)
    if not found:
        raise click.UsageError(f"{folder} has no *.py")
    paths, sources = [_shown(path) for path, _ in found], [source for _, source in found]
    if output is not None:
        _make(output)
    done = 0

    def tell(result: Grade) -> None:
        nonlocal done
        done += 1
        points = f"{reports.number(result.earned)} of {reports.number(result.points)}"
        step(f"{done}/{len(sources)} {result.name}: {points}")

    with result_for(how.output_format), progress() as step:
        grades = many.grade_all(
            sources, how.weights, seed=how.seed, jobs=how.jobs, kind=how.sandbox, done=tell, tell=_tell_where
        )
    if output is not None:
        for name, text in page.pages(grades, paths).items():
            _write(output / name, text)
        _write(output / "grades.csv", reports.to_csv(grades))
    if junit is not None:
        _write(junit, reports.to_junit(grades, paths))
    if how.output_format == "json":
        print_json([reports.to_json(result, path) for path, result in zip(paths, grades, strict=True)])
        return 0
    rows = [(r.name, reports.number(r.earned), reports.number(r.points), r.trouble or _where_lost(r)) for r in grades]
    table(("SUBMISSION", "POINTS", "OF", "LOST IN"), rows)
    if output is not None:
        say(f"{output / 'index.html'} and {output / 'grades.csv'} have all of it.", "good")
    return 0


def matrix(paths: Sequence[Path], *, seed: int, sandbox: str, jobs: int, output_format: str) -> int:
    """Let all talk to all; the exit status."""
    sources = [source for path in paths for source in _all_of(path)]
    if len({source.name for source in sources}) < len(sources):
        raise click.UsageError("two files have the same name; give each its own, or the table can't be read")

    def tell(meeting: many.Meeting) -> None:
        step(f"{meeting.client} - {meeting.server}, {meeting.link}")

    with result_for(output_format), progress() as step:
        meetings = many.meet_all(sources, seed=seed, jobs=jobs, kind=sandbox, done=tell, tell=_tell_where)
    if output_format == "json":
        print_json([{"client": m.client, "server": m.server, "link": m.link, "trouble": m.trouble} for m in meetings])
    else:
        _tell_meetings([source.name for source in sources], meetings)
    return 1 if any(meeting.trouble for meeting in meetings) else 0


# ---- in words ------------------------------------------------------------------------------------------------


def _tell_where(where: str) -> None:
    say(where, "quiet")


def _quiet(_step: str) -> None:
    """A file needs no progress."""


def _where_lost(result: Grade) -> str:
    lost = {stage: sum(verdict.points - verdict.earned for verdict in verdicts) for stage, verdicts in result.stages()}
    return ", ".join(f"{stage} {reports.number(points)}" for stage, points in lost.items() if points)


def _tell(result: Grade, path: str, *, everything: bool) -> None:
    """The grade for people: the ladders of all that failed, or of the first in each stage."""
    for stage, verdicts in result.stages():
        failed = [verdict for verdict in verdicts if not verdict.passed and verdict.ran]
        too_early = [] if everything else [verdict for verdict in failed if not verdict.began]
        failed = [verdict for verdict in failed if verdict not in too_early]
        for at, verdict in enumerate(failed if everything else failed[:_IN_FULL]):
            _tell_failure(result, verdict, path, ladder=everything or not at, whole_ladder=everything)
        if len(failed) > _IN_FULL and not everything:
            say(
                f"✗ and {len(failed) - _IN_FULL} more: {', '.join(v.test.id for v in failed[_IN_FULL:])}\n",
                "bad",
                wrap=True,
            )
        if too_early:
            ids = ", ".join(verdict.test.id for verdict in too_early)
            say(
                f"✗ {stage}: it does not come to the state in which {len(too_early)} tests begin: {ids}\n",
                "bad",
                wrap=True,
            )
    rows = [
        (
            stage,
            reports.number(sum(v.earned for v in verdicts)),
            reports.number(sum(v.points for v in verdicts)),
            _count(verdicts),
        )
        for stage, verdicts in result.stages()
    ]
    table(("STAGE", "POINTS", "OF", "TESTS"), rows)
    for note in result.notes:
        say(f"note: {note}", "note")
    if result.left_out:
        unseen = [verdict.test.id for verdict in result.verdicts if verdict.unseen]
        say(f"not judged, {reports.number(result.left_out)} points: {', '.join(unseen)}", "note", wrap=True)
    if result.trouble:
        _tell_why((result.trouble if result.name in result.trouble else f"{path}: {result.trouble}", *result.way))
    points = f"{reports.number(result.earned)} of {reports.number(result.points)} points"
    of = " that can be judged from outside" if result.is_image else ""
    say(f"{path}: {points}{of}", "good" if result.good else "bad")
    if not result.trouble and (first := next((v for v in result.verdicts if v.ran and not v.passed and v.began), None)):
        say(f"next: {first.test.title}: {reports.replay(result, first, path)}")


def _tell_why(lines: Sequence[str]) -> None:
    """What is wrong with a file, and the lines of it that show it."""
    first, *way = lines
    say(first, "bad")
    for line in way:
        say(f"  {line}")


def _tell_failure(result: Grade, verdict: Verdict, path: str, *, ladder: bool, whole_ladder: bool) -> None:
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
        happened, expected = (text if whole_ladder else _cut(text) for text in (happened, expected))
        say(f"\n  what happened:\n{happened}\n  what should have happened:\n{expected}")
    say("")


def _cut(ladder: str) -> str:
    """Its begin and its end."""
    lines = ladder.splitlines()
    if len(lines) > _HEAD + _TAIL + 1:
        left_out = f"{'':10}... {len(lines) - _HEAD - _TAIL} lines, which --only and --html show ..."
        lines[_HEAD:-_TAIL] = [left_out]
    return "\n".join(lines) + "\n"


def _tell_meetings(names: list[str], meetings: list[many.Meeting]) -> None:
    """A row for each client, a column for each server; the troubles below."""
    trouble = {(m.client, m.server, m.link): m.trouble for m in meetings}

    def cell(client: str, server: str) -> str:
        bad = [link for link in many.LINKS if trouble[client, server, link]]
        return "good" if not bad else "fails" if len(bad) == len(many.LINKS) else f"fails: {bad[0]}"

    table(("CLIENT \\ SERVER", *names), [(client, *(cell(client, server) for server in names)) for client in names])
    for lines in dict.fromkeys(meeting.unusable for meeting in meetings if meeting.unusable):
        _tell_why(lines)
    for meeting in meetings:
        if meeting.trouble and not meeting.unusable:
            say(f"{meeting.client} to {meeting.server}, {meeting.link}: {meeting.trouble}", "bad")


def _count(verdicts: list[Verdict]) -> str:
    return f"{sum(verdict.passed for verdict in verdicts)}/{sum(not verdict.unseen for verdict in verdicts)}"


# ---- files ---------------------------------------------------------------------------------------------------


def _shown(path: Path) -> str:
    return harmless(str(path), _LONGEST)


def _read(path: Path) -> Source:
    try:
        return Source.read(path)
    except Unreadable as error:
        raise click.UsageError(f"{error}.") from error


def _all_of(path: Path) -> list[Source]:
    """A file, or all *.py of a folder, as `grade` takes them."""
    if not os.path.isdir(path):  # unlike Path.is_dir, no error where a name is too long
        return [_read(path)]
    if not (found := many.submissions(path)):
        raise click.UsageError(f"{path} has no *.py")
    return [source for _, source in found]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"{folder} can't be made: {error.strerror}") from error


def _write(file: Path, text: str) -> None:
    try:
        with whole(file) as fresh:
            fresh.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{file} can't be written: {error.strerror}") from error
