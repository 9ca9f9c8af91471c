"""A whole class, some submissions at a time; and every implementation with every other."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import TypeVar

from chitcpd.sim import Shape
from testbed.grading import confine
from testbed.grading.catalog import catalog
from testbed.grading.cells import cells, settled
from testbed.grading.network import Talk
from testbed.grading.nursery import own_folder
from testbed.grading.runner import Grade, Step, grade, nothing
from testbed.grading.sandbox import TIME, Broken, Sandbox, Source, Unreadable
from testbed.grading.script import Bench, settings
from testbed.grading.weights import Weights
from testbed.signals import Interrupted, Signals
from testbed.unavailable import Unavailable

BYTES = 40_000  # that go each way when two implementations talk
LINKS = {"clean": Shape(delay=0.01), "lossy": Shape(delay=0.01, loss=0.05, reorder=0.05, duplicate=0.02)}

_GRACE = 10.0  # seconds for a worker to remove its container

_T = TypeVar("_T")


def submissions(folder: Path) -> list[tuple[Path, Source]]:
    """Those of a class: all *.py in a folder, by their names. One that can't be read is none, and says why."""
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith("."))
    return [(path, submission(path)) for path in paths if path.is_symlink() or path.is_file()]


def submission(path: Path) -> Source:
    """A stranger's: what can't be read, and a link, is none, and says why."""
    if path.is_symlink():  # who hands in files must not choose which of the instructor's are read
        return Source.missing(path, f"{path.name} is a link, which is not followed: put the file itself there")
    try:
        return Source.read(path)
    except Unreadable as why:
        return Source.missing(path, str(why))


def grade_one(
    source: Source, weights: Weights, *, seed: int, kind: str, step: Step = nothing, tell: Step = nothing
) -> Grade:
    """Grade a submission; whatever ends it early, a signal too, leaves nothing behind.

    `kind`: of the cells (cells.py). Raises Unavailable, and Interrupted.
    """
    with Signals() as signals, cells(kind, tell) as new_cell, signals.interruptible():
        return grade(source, weights.points(catalog()), seed=seed, new_cell=new_cell, step=step)


def grade_all(
    sources: Sequence[Source],
    weights: Weights,
    *,
    seed: int,
    jobs: int,
    kind: str,
    done: Callable[[Grade], None],
    tell: Step = nothing,
) -> list[Grade]:
    """Grade submissions, so many at a time; `done` is told of each as it is finished. In the order of `sources`.

    `kind`: of the cells (cells.py). Raises Unavailable, and Interrupted.
    """
    kind = settled(kind, tell)
    tasks = [partial(grade_one, source, weights, seed=seed, kind=kind) for source in sources]
    return _in_parallel(tasks, jobs, done)


@dataclass(frozen=True, slots=True)
class Meeting:
    """How two implementations got along."""

    client: str
    server: str
    link: str  # "clean" or "lossy"
    trouble: str | None  # None: all that was sent came whole, and both have closed
    unusable: tuple[str, ...] = ()  # lines: why one of the files can't meet anybody, whoever the other one is


def meet_all(
    sources: Sequence[Source],
    *,
    seed: int,
    jobs: int,
    kind: str,
    done: Callable[[Meeting], None],
    tell: Step = nothing,
) -> list[Meeting]:
    """Each with each, itself too, as client and as server, over each link. Raises Unavailable, and Interrupted."""
    kind = settled(kind, tell)
    pairs = product(sources, repeat=2)
    tasks = [partial(_meet, client, server, link, seed, kind) for client, server in pairs for link in LINKS]
    return _in_parallel(tasks, jobs, done)


def _meet(client: Source, server: Source, link: str, seed: int, kind: str) -> Meeting:
    for role, source in (("client", client), ("server", server)):
        if source.trouble:
            return Meeting(client.name, server.name, link, f"{role}: {source.trouble}", (source.trouble,))
    with (
        Signals() as signals,
        cells(kind) as new_cell,
        signals.interruptible(),
        Sandbox(client, new_cell()) as one,
        Sandbox(server, new_cell()) as other,
    ):
        trouble: str | None
        for name, sandbox in (("client", one), ("server", other)):
            try:
                sandbox.load()
            except Broken as broken:
                return Meeting(client.name, server.name, link, f"{name}: {broken.text}", (broken.text, *broken.way))
        bench = Bench(one.tcp, Random(f"{seed} {client.name} {server.name} {link}"))
        try:
            talk = Talk(bench, LINKS[link], settings(rto_min=0.2, msl=1.0, congestion="newreno"), other=other.tcp)
            trouble = talk.run(client=True, there=BYTES, back=BYTES)
        except Broken as broken:
            late = min(one.taken, other.taken) > TIME  # then it was one's turn, and maybe the other has taken the time
            trouble = broken.text if late else f"{'client' if one.broken is broken else 'server'}: {broken.text}"
        return Meeting(client.name, server.name, link, trouble)


def _in_parallel(tasks: Sequence[Callable[[], _T]], jobs: int, done: Callable[[_T], None]) -> list[_T]:
    """The results in the order of the tasks. Whatever ends it early leaves no process behind."""
    if jobs == 1 or len(tasks) < 2:
        return [_told(task(), done) for task in tasks]
    with Signals() as signals, own_folder() as folder:
        context = get_context("spawn")
        pool = ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=_begin, initargs=(folder,))
        try:
            results = {}
            with _without_ctrl_c():
                waiting = {pool.submit(_or_end, task): at for at, task in enumerate(tasks)}
            with signals.interruptible():
                for number, result in _as_they_end(waiting):
                    results[number] = _told(result, done)
        except BrokenProcessPool as error:
            what = "a process that grades was killed, by the kernel if memory is short."
            raise Unavailable(what, "Grade fewer at once: --jobs 1.") from error
        except BaseException:
            _end(list((pool._processes or {}).values()))
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [results[number] for number in range(len(tasks))]


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that are started meanwhile never see it: it is for us, who end them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _or_end(task: Callable[[], _T]) -> _T:
    """In a worker: one that is told to end has removed what it had made, and does no other task."""
    try:
        return task()
    except Interrupted as interrupted:
        os._exit(interrupted.status)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Workers in the middle of a task would go on with it."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(until - time.monotonic(), 0.0))
        process.kill()


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
