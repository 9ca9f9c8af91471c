"""Which kind of cell a submission is locked up in, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from testbed.grading.nursery import Nursery
from testbed.grading.sandbox import Cell

KINDS = ("process", "docker")


@contextmanager
def cells(kind: str) -> Iterator[Callable[[], Cell]]:
    """What makes cells of this kind; what they share is removed at the end. Raises Unavailable."""
    if kind == "docker":
        from testbed.grading.docker_cell import Container

        with Container() as container:
            yield container.cell
    else:
        with Nursery() as nursery:
            yield nursery.cell
