"""A grade as an HTML page, and the table of a class: each one file, which needs no other and no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from testbed.grading.reports import diagrams, number, replay
from testbed.grading.runner import Grade, Verdict

_PLAIN = re.compile(r"[\w=+@-][\w.=+@-]{0,199}", re.ASCII)
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a7d3a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --good: #6fcf7f; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; } tr + tr td { border-top: 1px solid var(--line); }
pre { font: 12px/1.35 ui-monospace, monospace; overflow-x: auto; margin: .3rem 0; }
details { border-top: 1px solid var(--line); padding: .4rem 0; } summary { cursor: pointer; }
.good { color: var(--good); } .bad { color: var(--bad); } .quiet { opacity: .7; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2rem; } .beside > div { min-width: 0; }
meter { width: 8rem; }
@media print { details > * { display: block; } }
"""


def page(grade: Grade, path: str | None = None) -> str:
    """The page of one submission."""
    rows = "".join(
        f"<tr><td>{escape(stage)}<td class=n>{_sum(verdicts, earned=True)}<td class=n>{_sum(verdicts)}"
        f"<td><meter value={_sum(verdicts, earned=True)} max={_sum(verdicts)}></meter>"
        for stage, verdicts in grade.stages()
    )
    ran = [(stage, [verdict for verdict in verdicts if verdict.ran]) for stage, verdicts in grade.stages()]
    stages = "".join(
        f"<h2>{escape(stage)}</h2>" + "".join(_verdict(grade, verdict, path) for verdict in verdicts)
        for stage, verdicts in ran
        if verdicts
    )
    body = (
        f"<h1>{escape(grade.name)}: {number(grade.earned)} of {number(grade.points)} points</h1>"
        f"{_trouble(grade)}{_left_out(grade)}"
        f"<table><tr><th>stage<th class=n>points<th class=n>of<th>{rows}</table>{stages}"
        f"<p class=quiet>seed {grade.seed}; numbers in the diagrams count from the initial sequence numbers"
    )
    return _html(grade.name, body)


def pages(grades: Sequence[Grade], paths: Sequence[str]) -> dict[str, str]:
    """Of a class: file name -> page, and index.html, which leads to them."""
    names = [_file_name(number, grade.name) for number, grade in enumerate(grades, start=1)]
    each = {name: page(grade, path) for name, grade, path in zip(names, grades, paths, strict=True)}
    return each | {"index.html": _summary(grades, names)}


def _file_name(number: int, name: str) -> str:
    """Of a submission's page: its name, if that makes a name of a file everywhere."""
    return f"{name}.html" if _PLAIN.fullmatch(name) else f"{number}.html"


def _summary(grades: Sequence[Grade], names: Sequence[str]) -> str:
    """The table of a class, with links to these files."""
    stages = list(dict.fromkeys(stage for grade in grades for stage, _ in grade.stages()))
    head = "".join(f"<th class=n>{escape(stage)}" for stage in stages)
    rows = ""
    for grade, name in zip(grades, names, strict=True):
        by_stage = dict(grade.stages())
        cells = "".join(f"<td class=n>{_sum(by_stage.get(stage, []), earned=True)}" for stage in stages)
        link = f'<a href="{quote(name)}">{escape(grade.name)}</a>'
        rows += f"<tr><td>{link}<td class=n><b>{number(grade.earned)}</b>{cells}<td class=bad>{escape(grade.trouble)}"
    most = number(max((grade.points for grade in grades), default=0.0))
    seeds = ", ".join(dict.fromkeys(str(grade.seed) for grade in grades))
    body = (
        f"<h1>{len(grades)} submissions</h1><table><tr><th>submission<th class=n>of {most}{head}<th>{rows}</table>"
        f"<p class=quiet>seed {seeds}"
    )
    return _html("Grades", body)


def _verdict(grade: Grade, verdict: Verdict, path: str | None) -> str:
    title, rfc = escape(verdict.test.title), escape(verdict.test.rfc)
    if verdict.unseen:
        return f"<div class=quiet>- {title} {rfc}; not judged: {escape(verdict.unseen)}</div>"
    if verdict.passed:
        return f"<div><span class=good>✓</span> {title} <span class=quiet>{rfc}; {_points(verdict.points)}</span></div>"
    happened, expected = diagrams(grade, verdict)
    ladders = (
        f"<div class=beside><div><b>what happened</b><pre>{escape(happened)}</pre></div>"
        f"<div><b>what should have happened</b><pre>{escape(expected)}</pre></div></div>"
        if happened
        else ""
    )
    way = f"<pre>{escape(chr(10).join(verdict.way))}</pre>" if verdict.way else ""
    printed = f"<b>it printed</b><pre>{escape(verdict.printed)}</pre>" if verdict.printed else ""
    again = f"<pre class=quiet>{escape(replay(grade, verdict, path))}</pre>"
    return (
        f"<details><summary><span class=bad>✗</span> {title} <span class=quiet>{rfc}; 0 of "
        f"{_points(verdict.points)}</span><br>{escape(verdict.message)}</summary>{way}{ladders}{printed}{again}</details>"
    )


def _trouble(grade: Grade) -> str:
    """Why tests were not run: once, and not with each of them."""
    if not grade.trouble:
        return ""
    way = f"<pre>{escape(chr(10).join(grade.way))}</pre>" if grade.way else ""
    count = sum(not verdict.ran for verdict in grade.verdicts)
    return f"<p class=bad>{escape(grade.trouble)}</p>{way}<p class=quiet>tests that were not run: {count}"


def _left_out(grade: Grade) -> str:
    notes = "".join(f"<p class=quiet>{escape(note)}" for note in grade.notes)
    text = f"<p class=quiet>{_points(grade.left_out)} can't be judged from outside" if grade.left_out else ""
    return notes + text


def _sum(verdicts: Sequence[Verdict], *, earned: bool = False) -> str:
    return number(sum(verdict.earned if earned else verdict.points for verdict in verdicts))


def _points(points: float) -> str:
    return f"{number(points)} {'point' if points == 1 else 'points'}"


def _html(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><body>{body}</body></html>\n"
    )
