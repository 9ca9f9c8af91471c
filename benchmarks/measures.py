"""What a benchmark is, and what it finds: figures beside their references, and series.

A benchmark is a function that `@benchmark(NAME, MEANING)` has put into `BENCHMARKS`. It is given a Session, which says
how much effort to make, and measures its subjects in turns: what else the machine does meanwhile is the same for all.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks import flames, paths
from benchmarks.paths import Way

KB, MB, GB = 1e3, 1e6, 1e9  # bytes
US = 1e6  # in a second
Better = Literal["more", "less"]
Quantities = Mapping[str, float]  # what one measurement has found: name -> value
Samples = dict[str, dict[str, list[float]]]  # subject -> quantity -> one value for each round


class Unavailable(Exception):
    """This machine can't do this; the text says what is missing, and how to get it."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What is to be reached: at least this where more is better, else at most."""

    limit: float
    of: Literal["ratio", "figure"] = "ratio"


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity of our own, and of the reference: medians of all rounds, and the median of the rounds' ratios."""

    name: str
    unit: str
    better: Better
    value: float
    reference: str
    reference_value: float
    ratio: float | None  # None if the reference is 0
    bar: Bar | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the bar is reached; None if there is none."""
        found = self.ratio if self.bar is not None and self.bar.of == "ratio" else self.value
        if self.bar is None or found is None:
            return None
        return found >= self.bar.limit if self.better == "more" else found <= self.bar.limit


@dataclass(frozen=True, slots=True)
class Series:
    """How a quantity grows with another one: a line of (x, y) for each subject."""

    name: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(slots=True)
class Findings:
    """What a benchmark has found."""

    figures: list[Figure] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    rounds: int = 3
    seconds: float = 1.5  # of traffic, in each
    connections: int = 1000  # that are "many"
    at_once: tuple[int, ...] = (1, 4, 16)  # threads that connect
    segments: int = 200_000  # in the simulator
    hosts: tuple[int, ...] = (2, 10, 20, 50)  # of a lab
    watch: float = 5.0  # seconds for which an idle daemon is watched


QUICK = Effort(
    rounds=1, seconds=0.2, connections=20, at_once=(1, 2), segments=2000, hosts=(2,), watch=0.5
)  # whether it runs, not how fast


@dataclass(frozen=True, slots=True)
class Session:
    """A run of benchmarks."""

    effort: Effort
    step: Callable[[str], None] = lambda _: None  # is told what is measured now
    flames: Path | None = None  # where flame graphs of the daemons go
    name: str = ""  # of the benchmark that runs

    def in_turns(self, subjects: Mapping[str, Callable[[], Quantities]]) -> Samples:
        """Measure each subject in each round, in the other direction every second time."""
        samples: Samples = {subject: defaultdict(list) for subject in subjects}
        for number in range(self.effort.rounds):
            for subject in list(subjects)[:: -1 if number % 2 else 1]:
                self.step(f"round {number + 1} of {self.effort.rounds}: {subject}")
                for quantity, value in subjects[subject]().items():
                    samples[subject][quantity].append(value)
        return samples

    @contextmanager
    def daemons(self, *options: str, capture: bool = False) -> Iterator[Way]:
        """As paths.daemons; each is recorded, if flame graphs are wanted."""
        with paths.daemons(*options, capture=capture) as way, flames.recording(way.between, self.flames, self.name):
            yield way


def figure(
    samples: Samples,
    quantity: str,
    unit: str,
    better: Better,
    *,
    of: str,
    beside: str,
    name: str | None = None,
    bar: Bar | None = None,
) -> Figure:
    """The figure that these samples of a quantity make, `of` one subject `beside` another."""
    ours, theirs = samples[of][quantity], samples[beside][quantity]
    return Figure(
        name=name or quantity,
        unit=unit,
        better=better,
        value=statistics.median(ours),
        reference=beside,
        reference_value=statistics.median(theirs),
        ratio=statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) if all(theirs) else None,
        bar=bar,
    )


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of them."""

    name: str
    meaning: str
    run: Callable[[Session], Findings]


BENCHMARKS: dict[str, Benchmark] = {}
Run = Callable[[Session], Findings]


def benchmark(name: str, meaning: str) -> Callable[[Run], Run]:
    """Make a function one of the benchmarks."""

    def register(run: Run) -> Run:
        BENCHMARKS[name] = Benchmark(name, meaning, run)
        return run

    return register
