"""Grades one submission: each test in a sandbox of its own, so that none depends on those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from chitcpd import loader
from testbed.grading.catalog import Test
from testbed.grading.diagram import short
from testbed.grading.sandbox import Broken, Cell, Raised, Sandbox, Source
from testbed.grading.script import Bench, Event, Failed, NotThere

MOST_HANGS = 3  # after so many, no further test is run: each costs seconds
TIME = 120.0  # seconds for all tests together

Step = Callable[[str], None]
NewCell = Callable[[], Cell]


def nothing(_step: str) -> None:
    """Nobody asks."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one test came out."""

    test: Test
    points: float  # that it is worth
    passed: bool
    message: str = ""  # what was expected, and what came
    way: tuple[str, ...] = ()  # the lines of the submission on the way to where it raised
    printed: str = ""
    happened: tuple[Event, ...] = ()
    expected: tuple[Event, ...] = ()  # what the reference does in the same test

    ran: bool = True
    unseen: str = ""  # why it can't be judged from outside; then it is worth nothing, and `left_out` what it would be
    left_out: float = 0.0
    began: bool = True  # it has come to the state in which the test begins

    @property
    def earned(self) -> float:
        """The points that it gives."""
        return self.points if self.passed else 0.0


@dataclass(slots=True)
class Grade:
    """What a submission is worth."""

    name: str
    seed: int
    verdicts: list[Verdict] = field(default_factory=list)
    trouble: str = ""  # why nothing, or not all, could be tested
    way: tuple[str, ...] = ()  # the lines of the submission that show it
    notes: list[str] = field(default_factory=list)
    is_image: bool = False  # and `name` is the image's

    @property
    def earned(self) -> float:
        """Points."""
        return round(sum(verdict.earned for verdict in self.verdicts), 6)

    @property
    def points(self) -> float:
        """That there are."""
        return round(sum(verdict.points for verdict in self.verdicts), 6)

    @property
    def left_out(self) -> float:
        """Points of what can't be judged from outside."""
        return round(sum(verdict.left_out for verdict in self.verdicts), 6)

    @property
    def good(self) -> bool:
        """Whether all that was judged passed."""
        return all(verdict.passed or verdict.unseen for verdict in self.verdicts) and not self.trouble

    def stages(self) -> Iterator[tuple[str, list[Verdict]]]:
        """The verdicts, stage after stage."""
        names = dict.fromkeys(verdict.test.stage for verdict in self.verdicts)
        for name in names:
            yield name, [verdict for verdict in self.verdicts if verdict.test.stage == name]


def grade(
    source: Source,
    tests: Sequence[tuple[Test, float]],
    *,
    new_cell: NewCell,
    seed: int = 1,
    step: Step = nothing,
) -> Grade:
    """Run tests, each with its points. Raises Unavailable if a submission can't be locked up here."""
    result = Grade(source.name, seed, trouble=source.trouble)
    hangs, taken = 0, 0.0
    for number, (test, points) in enumerate(tests, start=1):
        step(f"{source.name}: {number}/{len(tests)} {test.stage}: {test.title}")
        if result.trouble:
            result.verdicts.append(Verdict(test, points, passed=False, message=f"not run: {result.trouble}", ran=False))
            continue
        with Sandbox(source, new_cell()) as sandbox:
            try:
                sandbox.load()
            except Broken as broken:
                result.trouble, result.way = broken.text, broken.way
                result.verdicts.append(
                    Verdict(test, points, passed=False, message=broken.text, way=broken.way, ran=False)
                )
                continue
            if not sandbox.hidden:
                result.notes = ["this kernel has no Landlock: a submission may read files that you may read"]
            verdict, hung = _run(test, points, sandbox, seed)
        result.verdicts.append(verdict)
        hangs, taken = hangs + hung, taken + sandbox.taken
        if hangs >= MOST_HANGS:
            result.trouble = f"it has hung in {hangs} tests before this one"
        elif taken > TIME:
            result.trouble = f"the tests before this one have taken more than {TIME:g} s"
    return result


def reference(test: Test, seed: int) -> list[Event]:
    """What the reference does in a test."""
    bench = Bench(loader.load(loader.REFERENCE), _dice(test, seed))
    test.run(bench)
    return bench.events


def _run(test: Test, points: float, sandbox: Sandbox, seed: int) -> tuple[Verdict, bool]:
    bench = Bench(sandbox.tcp, _dice(test, seed))
    hung, began = False, True
    way: tuple[str, ...] = ()
    try:
        try:
            test.run(bench)
        finally:
            sandbox.close()  # before what is left of the test is cleared: that must ask for nothing more
    except Failed as failed:
        message, began = str(failed), not isinstance(failed, NotThere)
    except Broken as broken:
        message, way, hung = broken.text, broken.way, broken.hung
    except OSError as error:
        message = f"expected no error; got that {error.strerror or error}"
        way = error.way if isinstance(error, Raised) else ()
    else:
        return Verdict(test, points, passed=True, printed=sandbox.printed), False
    verdict = Verdict(
        test,
        points,
        passed=False,
        message=message,
        way=way,
        printed=sandbox.printed,
        happened=short(bench.events),
        expected=short(reference(test, seed), like=bench.events),
        began=began,
    )
    return verdict, hung


def _dice(test: Test, seed: int) -> Random:
    """All that is random in a test: it does not depend on which others are run."""
    return Random(f"{seed} {test.id}")


__all__ = ["Grade", "Verdict", "grade", "reference"]
