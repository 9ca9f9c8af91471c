"""A whole class, some submissions at a time; and every implementation with every other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import TypeVar

from chitcpd.sim import Shape
from testbed.grading import confine
from testbed.grading.catalog import catalog
from testbed.grading.cells import cells
from testbed.grading.network import Talk
from testbed.grading.runner import Grade, grade
from testbed.grading.sandbox import Broken, Sandbox, Source
from testbed.grading.script import Bench, settings
from testbed.grading.weights import Weights

BYTES = 40_000  # that go each way when two implementations talk
LINKS = {"clean": Shape(delay=0.01), "lossy": Shape(delay=0.01, loss=0.05, reorder=0.05, duplicate=0.02)}

_T = TypeVar("_T")


def submissions(folder: Path) -> list[Path]:
    """The files of a class: all *.py in a folder, by their names."""
    return sorted(path for path in folder.glob("*.py") if path.is_file() and not path.name.startswith("."))


def grade_all(
    sources: Sequence[Source],
    weights: Weights,
    *,
    seed: int,
    jobs: int,
    kind: str,
    done: Callable[[Grade], None],
) -> list[Grade]:
    """Grade submissions, so many at a time; `done` is told of each as it is finished. In the order of `sources`.

    `kind`: of the cells (cells.py). Raises Unavailable.
    """
    return _in_parallel([partial(_grade, source, weights, seed, kind) for source in sources], jobs, done)


def _grade(source: Source, weights: Weights, seed: int, kind: str) -> Grade:
    with cells(kind) as new_cell:
        return grade(source, weights.points(catalog()), seed=seed, new_cell=new_cell)


@dataclass(frozen=True, slots=True)
class Meeting:
    """How two implementations got along."""

    client: str
    server: str
    link: str  # "clean" or "lossy"
    trouble: str | None  # None: all that was sent came whole, and both have closed


def meet_all(
    sources: Sequence[Source], *, seed: int, jobs: int, kind: str, done: Callable[[Meeting], None]
) -> list[Meeting]:
    """Each with each, itself too, as client and as server, over each link. Raises Unavailable."""
    pairs = product(sources, repeat=2)
    tasks = [partial(_meet, client, server, link, seed, kind) for client, server in pairs for link in LINKS]
    return _in_parallel(tasks, jobs, done)


def _meet(client: Source, server: Source, link: str, seed: int, kind: str) -> Meeting:
    with cells(kind) as new_cell, Sandbox(client, new_cell()) as one, Sandbox(server, new_cell()) as other:
        trouble: str | None
        for name, sandbox in (("client", one), ("server", other)):
            try:
                sandbox.load()
            except Broken as broken:
                return Meeting(client.name, server.name, link, f"{name}: {broken.text}")
        bench = Bench(one.tcp, Random(f"{seed} {client.name} {server.name} {link}"))
        try:
            talk = Talk(bench, LINKS[link], settings(rto_min=0.2, msl=1.0, congestion="newreno"), other=other.tcp)
            trouble = talk.run(client=True, there=BYTES, back=BYTES)
        except Broken as broken:
            trouble = f"{'client' if one.broken is broken else 'server'}: {broken.text}"
        return Meeting(client.name, server.name, link, trouble)


def _in_parallel(tasks: Sequence[Callable[[], _T]], jobs: int, done: Callable[[_T], None]) -> list[_T]:
    """The results in the order of the tasks. Whatever ends it early leaves no process behind."""
    if jobs == 1 or len(tasks) < 2:
        return [_told(task(), done) for task in tasks]
    with tempfile.TemporaryDirectory(prefix="testbed-grade-") as folder:
        context = get_context("spawn")
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(folder,))
        try:
            results = {}
            for number, result in _as_they_end({pool.submit(task): at for at, task in enumerate(tasks)}):
                results[number] = _told(result, done)
        except BaseException:
            for process in list((pool._processes or {}).values()):  # one in the middle of a task would go on with it
                process.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [results[number] for number in range(len(tasks))]


def _begin(folder: str) -> None:
    """A worker ends with us, and what it makes is in our folder."""
    confine.die_with_parent()
    tempfile.tempdir = folder


def _as_they_end(waiting: dict[Future[_T], int]) -> Iterator[tuple[int, _T]]:
    while waiting:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            yield waiting.pop(future), future.result()


def _told(result: _T, done: Callable[[_T], None]) -> _T:
    done(result)
    return result
