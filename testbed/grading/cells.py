"""Which kind of cell a submission is locked up in, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from testbed.grading.nursery import Nursery
from testbed.grading.sandbox import Cell
from testbed.unavailable import Unavailable

KINDS = ("process", "docker", "auto")


@contextmanager
def cells(kind: str) -> Iterator[Callable[[], Cell]]:
    """What makes cells of this kind; what they share is removed at the end. Raises Unavailable.

    "auto" is docker where an engine answers and has our image, else process.
    """
    with ExitStack() as stack:
        if kind != "process":
            from testbed.grading.docker_cell import Container  # the engine's library takes time to load

            try:
                container = stack.enter_context(Container())
            except Unavailable:
                if kind == "docker":
                    raise
            else:
                yield container.cell
                return
        yield stack.enter_context(Nursery()).cell
