"""The ratios of an earlier run, in benchmarks/baseline.json, and what has got worse since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.measures import Better, Figure, Findings

PATH = Path(__file__).with_name("baseline.json")
_WORSE = 0.15
Ratios = dict[str, float]  # "BENCHMARK: FIGURE / REFERENCE" -> ratio


def ratios(findings: Mapping[str, Findings]) -> Ratios:
    """Those of a run."""
    return {name: figure.ratio for name, figure in _named(findings) if figure.ratio is not None}


def load(path: Path = PATH) -> Ratios:
    """The ratios that are kept; none if there is no file yet."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text())
    return {str(name): float(ratio) for name, ratio in kept.items()}


def save(findings: Mapping[str, Findings], path: Path = PATH) -> None:
    """Keep these, beside those of benchmarks that did not run now."""
    kept = {**load(path), **ratios(findings)}
    text = json.dumps({name: round(ratio, 4) for name, ratio in kept.items()}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n")


def worse(findings: Mapping[str, Findings], before: Ratios) -> list[str]:
    """A line for each ratio that is worse by more than 15 % than it was."""
    lines = []
    for name, figure in _named(findings):
        if name in before and figure.ratio is not None:
            change = _change(before[name], figure.ratio, figure.better)
            if change > _WORSE:
                lines.append(f"{name} is {figure.ratio:.3g}, and was {before[name]:.3g}: worse by {change:.0%}")
    return lines


def _named(findings: Mapping[str, Findings]) -> Iterator[tuple[str, Figure]]:
    for name, found in findings.items():
        yield from ((f"{name}: {figure.name} / {figure.reference}", figure) for figure in found.figures)


def _change(before: float, now: float, better: Better) -> float:
    """By which part it has got worse; negative if better."""
    return (before - now) / before if better == "more" else (now - before) / before
