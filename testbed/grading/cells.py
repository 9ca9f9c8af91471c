"""Which kind of cell a submission is locked up in, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from testbed.grading.nursery import Cell, Nursery, on_this_machine
from testbed.grading.runner import nothing
from testbed.signals import Signals
from testbed.unavailable import Unavailable


@contextmanager
def cells(kind: str, tell: Callable[[str], None] = nothing) -> Iterator[Callable[[], Cell]]:
    """What makes cells of this kind; what they share is removed at the end. Raises Unavailable.

    "auto" is docker where an engine answers and has our image, else process; `tell` is told which, in a sentence.
    """
    with ExitStack() as stack:
        yield (_container(stack, kind, tell) or stack.enter_context(on_this_machine())).cell


def settled(kind: str, tell: Callable[[str], None] = nothing) -> str:
    """Which kind "auto" is, now: for many that are to have the same. Raises Interrupted."""
    if kind != "auto":
        return kind
    with Signals() as signals:
        with ExitStack() as stack:
            kind = "docker" if _container(stack, kind, tell) else "process"
        signals.raise_if_any()
    return kind


def _container(stack: ExitStack, kind: str, tell: Callable[[str], None]) -> Nursery | None:
    """One that is removed with the stack; None if there should be none, or can't be."""
    if kind == "process":
        return None
    from testbed.backends.docker_labels import image  # the engine's library takes time to load
    from testbed.grading.docker_cell import in_a_container

    try:
        nursery = stack.enter_context(in_a_container())
    except Unavailable as why:
        if kind == "docker":
            raise
        tell(f"It runs in a locked-up process, in no container: {why}")
        return None
    if kind == "auto":
        tell(f"It runs in a locked-up process in a container ({image()}, Python {nursery.python}).")
    return nursery
