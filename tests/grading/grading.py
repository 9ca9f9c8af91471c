"""What tests of the grader share."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.grading import runner
from testbed.grading.catalog import Test
from testbed.grading.cells import cells
from testbed.grading.sandbox import Source


def grade(source: Source, tests: Sequence[tuple[Test, float]]) -> runner.Grade:
    """Grade a submission in a process."""
    with cells("process") as new_cell:
        return runner.grade(source, tests, new_cell=new_cell)
