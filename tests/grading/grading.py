"""What tests of the grader share."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from chitcpd.tcp.api import TcpConnection
from testbed.grading import runner
from testbed.grading.catalog import Test
from testbed.grading.cells import cells
from testbed.grading.sandbox import Source
from testbed.grading.script import Bench, Failed


def grade(source: Source, tests: Sequence[tuple[Test, float]]) -> runner.Grade:
    """Grade a submission in a process."""
    with cells("process") as new_cell:
        return runner.grade(source, tests, new_cell=new_cell)


def passes(test: Test, tcp: type[TcpConnection]) -> bool:
    """Whether a TCP passes a test, here in this process."""
    try:
        test.run(Bench(tcp, Random(f"1 {test.id}")))
    except Failed:
        return False
    return True
