"""How findings are shown: a table, JSON, plots."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measures import Figure, Findings, Series

_REACHED = {True: "[green]reached[/]", False: "[bold red]missed[/]", None: ""}

_MOMENT = 1.0  # seconds
_IDLE, _WAITING = 3, 4  # fields of /proc/stat
_BUSY = 0.1
_MANY_TIMES = 20  # from the lowest to the highest: else the lowest can't be told from 0


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    machine: dict[str, Any]
    findings: dict[str, Findings]  # of each benchmark
    left_out: dict[str, str]  # benchmark -> why it could not run here
    failed: dict[str, str]  # benchmark -> what went wrong


def machine() -> dict[str, Any]:
    """What it was measured on, and how busy that was before."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "busy": _busy(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
    }


def _busy() -> float:
    """The part of all cores' time that programs have used in a moment before we began."""
    before = _cpu_times()
    time.sleep(_MOMENT)
    passed = [now - then for then, now in zip(before, _cpu_times(), strict=True)]
    return round(1 - (passed[_IDLE] + passed[_WAITING]) / max(sum(passed), 1), 3)


def _cpu_times() -> list[int]:
    """What all cores did so far, in ticks: the fields of the first line of /proc/stat (man 5 proc)."""
    return [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]


def as_json(report: Report, worse: list[str]) -> dict[str, Any]:
    """All of it; each figure says whether its bar is reached."""
    return {
        "machine": report.machine,
        "figures": [
            {"benchmark": name, **asdict(figure), "reached": figure.reached}
            for name, findings in report.findings.items()
            for figure in findings.figures
        ],
        "series": [asdict(series) for findings in report.findings.values() for series in findings.series],
        "left_out": report.left_out,
        "failed": report.failed,
        "worse": worse,
    }


def show(report: Report, worse: list[str], output: Path, console: Console) -> None:
    """The table, and what is to be said below it."""
    if any(found.figures for found in report.findings.values()):
        console.print(_table(report.findings))
    for name, why in report.left_out.items():
        console.print(f"{name} was left out: {why}", style="yellow", markup=False)
    for name, why in report.failed.items():
        console.print(f"{name} failed: {why}", style="bold red", markup=False)
    for line in worse:
        console.print(line, style="bold red", markup=False)
    console.print(f"All figures and plots are in {output}/.", markup=False)
    if report.machine["busy"] > _BUSY:
        text = f"{report.machine['busy']:.0%} of this machine was busy before: do not trust these figures."
        console.print(text, style="yellow")


def _table(findings: Mapping[str, Findings]) -> Table:
    table = Table("benchmark", "figure", "beside", box=box.SIMPLE, pad_edge=False)
    for heading in ("ours", "theirs", "ratio", "bar"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, found in findings.items():
        for number, figure in enumerate(found.figures):
            last = number == len(found.figures) - 1
            table.add_row("" if number else name, *_cells(figure), end_section=last)
    for column in table.columns:
        column.no_wrap = True
    return table


def _cells(figure: Figure) -> list[str]:
    numbers = [_short(number) for number in (figure.value, figure.reference_value)]
    ratio = "" if figure.ratio is None else _short(figure.ratio)
    what = ", ".join(filter(None, (figure.name, figure.unit)))
    return [what, figure.reference, *numbers, ratio, _bar(figure), _REACHED[figure.reached]]


def _bar(figure: Figure) -> str:
    if figure.bar is None:
        return ""
    sign = "≥" if figure.better == "more" else "≤"
    return f"{sign} {_short(figure.bar.limit)}" + (f" {figure.unit}" if figure.bar.of == "figure" else " x")


def _short(value: float) -> str:
    """Two or three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def plot(findings: Iterable[Findings], output: Path) -> None:
    """Draw each series as SVG. Raises ImportError without matplotlib, which is in the extra `bench`."""
    for found in findings:
        for series in found.series:
            _plot(series, output / f"{series.name.replace(' ', '-')}.svg")


def _plot(series: Series, path: Path) -> None:
    from matplotlib.figure import Figure as Canvas  # here: who has no series need not have it

    canvas = Canvas(figsize=(7, 4.5), layout="constrained")
    axes = canvas.add_subplot(xlabel=series.x, ylabel=series.y, title=series.name, xscale="log")
    for subject, line in series.lines.items():
        axes.plot(*zip(*line, strict=True), marker="o", label=subject)
    measured = sorted({x for line in series.lines.values() for x, _ in line})
    axes.set_xticks(measured, [f"{x:,.0f}" for x in measured])
    axes.minorticks_off()
    heights = [y for line in series.lines.values() for _, y in line]
    if min(heights) * _MANY_TIMES < max(heights):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.savefig(path)
