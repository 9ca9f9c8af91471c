"""The tests by which a TCP is graded, by stages of an assignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.grading.script import Bench

STAGES = (
    "connection",
    "data",
    "close",
    "loss",
    "reordering",
    "flow control",
    "RTO",
    "congestion control",
    "robustness",
)


@dataclass(frozen=True, slots=True)
class Test:
    """One behaviour that is asked for."""

    id: str  # like fast-retransmit
    title: str  # names the behaviour
    stage: str
    rfc: str  # where it is asked for
    points: float
    run: Callable[[Bench], None]  # raises script.Failed


_TESTS: dict[str, Test] = {}


def graded(stage: str, points: float, rfc: str) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """A function is a test of this stage; its name is the id, its first line of documentation the title."""

    def register(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        test_id = run.__name__.replace("_", "-")
        title = (run.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        assert stage in STAGES
        assert title
        assert test_id not in _TESTS
        _TESTS[test_id] = Test(test_id, title, stage, rfc, points, run)
        return run

    return register


def catalog() -> list[Test]:
    """All tests, stage after stage."""
    import testbed.grading.stages  # noqa: F401 - they register themselves, and need this module for it

    return sorted(_TESTS.values(), key=lambda test: STAGES.index(test.stage))
