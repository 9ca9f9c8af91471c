"""Threads in virtual time: their order, their waits, their ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty

import pytest

from chitcpd.sim import Signal, Simulation
from testbed.backends.sim_threads import Thread, VirtualClock
from testbed.clock import WALL, Clock, TimeStands


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    simulation = Simulation(seed=1, longest=1e9)
    clock = VirtualClock(simulation, simulation.host("testbed"))
    yield clock
    clock.end()
    assert threading.active_count() == 1 or not clock._threads


@pytest.mark.parametrize("virtual", [True, False])
def test_both_clocks_have_queues_and_threads(clock: VirtualClock, virtual: bool) -> None:
    """What `run` and `conductor` do with a clock is the same with each."""
    time_: Clock = clock if virtual else WALL
    asked, answered = time_.queue(), time_.queue()

    def answer() -> None:
        answered.put(asked.get(timeout=5) + 1)

    began = time_.now()
    time_.start(answer)
    asked.put(41)
    assert answered.get(timeout=5) == 42
    with pytest.raises(Empty):
        answered.get(timeout=0.02)
    assert 0.02 <= time_.now() - began < 5


def test_waiting_takes_virtual_time_only(clock: VirtualClock) -> None:
    began = time.monotonic()
    with pytest.raises(Empty):
        clock.queue().get(timeout=100_000)
    assert clock.now() == 100_000
    assert time.monotonic() - began < 5


def test_threads_take_turns_in_one_order(clock: VirtualClock) -> None:
    """One at a time, by the moments for which they wait, and by their beginning."""
    told: list[tuple[str, float]] = []

    def count(name: str, step: float) -> None:
        for _ in range(3):
            told.append((name, clock.now()))
            clock.sleep(step)

    clock.start(lambda: count("a", 1.0))
    clock.start(lambda: count("b", 1.5))
    clock.sleep(10)
    assert told == [("a", 0), ("b", 0), ("a", 1), ("b", 1.5), ("a", 2), ("b", 3)]


def test_many_wait_for_one_queue(clock: VirtualClock) -> None:
    queue, got = clock.queue(), []
    for number in range(3):
        clock.start(lambda number=number: got.append((number, queue.get(timeout=5))))  # type: ignore[misc]
    clock.sleep(1)
    for item in "xyz":
        queue.put(item)
    clock.sleep(1)
    assert got == [(0, "x"), (1, "y"), (2, "z")]


def test_what_a_thread_raises_is_raised_where_time_passes(clock: VirtualClock) -> None:
    def fail() -> None:
        clock.sleep(1)
        raise LookupError("no")

    clock.start(fail)
    with pytest.raises(LookupError, match="no"):
        clock.sleep(2)
    with pytest.raises(TimeStands):  # it was interrupted in its midst
        clock.sleep(2)


def test_each_works_in_its_own_directory(clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

        def write(name: str = name) -> None:
            for _ in range(2):
                with open("file", "a") as file:
                    file.write(name)
                clock.sleep(1)

        Thread(clock, write, tmp_path / name).start()
    clock.sleep(5)
    assert [(tmp_path / name / "file").read_text() for name in ("one", "two")] == ["oneone", "twotwo"]
    assert Path.cwd() == home
    assert os.listdir() == []


def test_one_that_is_forgotten_does_not_go_on_and_is_unwound_at_the_end(clock: VirtualClock) -> None:
    told = []

    def work() -> None:
        try:
            while True:
                told.append(clock.now())
                clock.sleep(1)
        finally:
            told.append(-1.0)

    thread = Thread(clock, work)
    thread.start()
    clock.sleep(1.5)
    thread.forget()
    clock.sleep(10)
    assert told == [0, 1]
    clock.end()
    assert told == [0, 1, -1]


def test_nobody_waits_for_what_can_not_come(clock: VirtualClock) -> None:
    """A wait without an end, in a simulation in which nothing is left to happen, returns."""
    clock.wait(Signal(clock.simulation))
    assert clock.now() == 0


def test_time_that_stands_still_is_told(clock: VirtualClock) -> None:
    clock.simulation.most_events = 100

    def loop() -> None:
        while True:
            clock.wait(Signal(clock.simulation), clock.now())

    clock.start(loop)
    with pytest.raises(TimeStands, match="is not over after 100 events"):
        clock.sleep(1)
