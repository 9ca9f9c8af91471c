"""Grading a chitcpd of which only port 23300 and the UNIX protocol are known, here without containers."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chitcpd import loader
from chitcpd.tcp.api import Segment
from testbed.grading import catalog
from testbed.grading.outside import docker_image
from testbed.grading.outside import judge as judges
from testbed.grading.outside.judge import event_of, judge
from testbed.grading.outside.live import LiveScript
from testbed.grading.outside.tests import UNSEEN, reference_of
from testbed.grading.outside.wire import Mailbox
from testbed.grading.script import Bench
from tests.grading.mutants import Mutant, mutants

ASKED = [test for test in catalog.catalog() if test.id not in UNSEEN]
QUICK = [  # of every stage
    "active-open",
    "passive-open",
    "bad-ack-in-syn-received",
    "data-is-acknowledged",
    "whole-transfer",
    "both-close-at-once",
    "ack-of-data-is-none-of-the-fin",
    "lost-window",
    "several-gaps",
    "our-window-opens",
    "beyond-our-window",
    "data-does-not-restart-the-timer",
    "loss-halves-the-window",
    "nonsense",
]
_numbers = itertools.count(1)


@contextmanager
def a_daemon(folder: Path, *options: str) -> Iterator[dict[str, Any]]:
    """A chitcpd of its own address, and what a judge must know of it."""
    number = next(_numbers)
    theirs, ours = (f"127.{os.getpid() % 200 + 20}.{number}.{end}" for end in (2, 3))
    path = f"{folder}/s{number}"
    command = [sys.executable, "-m", "chitcpd", "--bind", theirs, "-p", "23300", "-s", path, *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield {"socket": path, "ours": ours, "theirs": theirs, "seed": 1, "jobs": 16}
        finally:
            process.terminate()


def judged(job: dict[str, Any], tests: list[str]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """(test -> what was wrong, all that the judge told)."""
    told: list[dict[str, Any]] = []
    judge({**job, "tests": tests}, told.append)
    return {line["ended"]: line["message"] for line in told if "ended" in line}, told


@pytest.mark.parametrize("test", ASKED, ids=lambda test: test.id)
def test_what_is_asked_of_a_daemon_holds_of_the_reference_in_virtual_time(test: catalog.Test) -> None:
    for seed in (1, 2):
        bench = Bench(loader.load(loader.REFERENCE), Random(seed))
        reference_of(test)(bench)  # raises Failed if something is not as it should be
        assert bench.events


@pytest.mark.parametrize("profile", ["modern", "classic"])
def test_our_chitcpd_does_all_that_is_asked(tmp_path: Path, profile: str) -> None:
    quick = [test for test in QUICK if profile == "modern" or test != "data-does-not-restart-the-timer"]
    with a_daemon(tmp_path, "--profile", profile) as job:
        wrong, told = judged(job, quick)
    assert wrong == dict.fromkeys(quick, "")
    assert told[-1] == {"over": True}
    assert not [line for line in told if "note" in line]


@pytest.mark.parametrize(
    ("number", "test"),
    [
        ("014", "bad-ack-in-syn-received"),
        ("018", "data-is-acknowledged"),
        ("039", "ack-of-data-is-none-of-the-fin"),
        ("050", "lost-window"),
        ("061", "several-gaps"),
        ("078", "our-window-opens"),
        ("103", "fast-retransmit"),
    ],
)
def test_a_mistake_loses_the_test_that_asks_for_it(tmp_path: Path, number: str, test: str) -> None:
    mutant: Mutant = next(mutant for mutant in mutants() if mutant.name.startswith(number))
    (tmp_path / "tcp.py").write_text(mutant.source().text)
    with a_daemon(tmp_path, "--tcp", str(tmp_path / "tcp.py")) as job:
        wrong, told = judged(job, [test, "active-open"])
    assert wrong[test].startswith("expected ")
    assert wrong["active-open"] == ""
    events = next(line["events"] for line in told if line.get("ended") == test)
    assert any(event_of(event).segment for event in events), "the ladder shows segments"


def test_what_ends_in_a_test_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "tcp.py").write_text(
        "import os\nfrom chitcpd.tcp.connection import Connection\n"
        "class Dies(Connection):\n"
        "    def segment_arrives(self, seg, now):\n"
        "        os._exit(3) if seg.flags & 3 == 3 else super().segment_arrives(seg, now)\n"
    )
    with a_daemon(tmp_path, "--tcp", str(tmp_path / "tcp.py")) as job:
        wrong, told = judged({**job, "jobs": 1}, ["active-open", "nonsense", "passive-open"])
    assert wrong == {"active-open": ""}
    assert [line["begun"] for line in told if "begun" in line] == ["active-open", "nonsense"]
    assert told[-1] == {"trouble": "it ended"}


@pytest.mark.parametrize("what", [b"\xff" * 100_000, bytes(8)])
def test_what_answers_is_no_chitcpd(tmp_path: Path, what: bytes) -> None:
    path = f"{tmp_path}/s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(what)

        thread = threading.Thread(target=answer)
        thread.start()
        number = next(_numbers)
        ours, theirs = (f"127.{os.getpid() % 200 + 20}.{number}.{end}" for end in (2, 3))
        _, told = judged({"socket": path, "ours": ours, "theirs": theirs, "seed": 1, "jobs": 1}, ["active-open"])
        thread.join()
    assert [*told[-1]] == ["trouble"]
    assert "no application can talk to it" in told[-1]["trouble"]


def test_a_second_connect_that_nobody_answers_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = LiveScript._connect
    monkeypatch.setattr(
        LiveScript, "_connect", lambda live, sockfd: connect(live, sockfd) if live.opening is None else Future()
    )
    with a_daemon(tmp_path) as job:
        wrong, _ = judged(job, ["misuse-is-told"])
    assert wrong["misuse-is-told"].startswith("expected CONNECT to be answered")


def test_a_fault_of_the_judge_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: Bench) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(judges, "asked", lambda _: breaks)
    with a_daemon(tmp_path) as job:
        wrong, told = judged(job, ["active-open"])
    assert wrong == {"active-open": 'the judge could not go on: RuntimeError("can\'t start new thread")'}
    assert told[-1] == {"over": True}


def test_a_judge_that_is_killed_in_the_middle_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel, or when its time is over."""

    @contextmanager
    def lines(_lab: docker_image._Lab, _job: str, _end: float) -> Iterator[Iterator[str]]:
        yield iter(['{"begun": "active-open"}', '{"ended": "active-open", "mess'])

    lab = object.__new__(docker_image._Lab)
    monkeypatch.setattr(docker_image._Lab, "_lines", lines)
    monkeypatch.setattr(docker_image._Lab, "_address", lambda _lab, _container: "172.18.0.2")
    monkeypatch.setattr(docker_image._Lab, "_how_it_ended", lambda _lab: "")
    lab._daemon = lab._beside = ""
    said = lab.judge(["active-open"], 1, 1, 0.0, lambda _: None)
    assert (said.unfinished, said.over, said.late) == (["active-open"], False, True)


@pytest.mark.parametrize(("length", "taken"), [(0, 20_000), (60_000, (64 << 20) // 60_000)])
def test_nobody_fills_the_judge_while_it_looks_elsewhere(length: int, taken: int) -> None:
    box, segment = Mailbox(), Segment(0, data=bytes(length))
    for _ in range(taken):
        box.put(0.0, 7, segment)
    assert not box.flooded
    box.put(0.0, 7, segment)
    assert box.flooded
    assert len(box.empty()) == taken


def test_a_mailbox_takes_any_amount_that_is_looked_at() -> None:
    box, segment = Mailbox(), Segment(0, data=bytes(60_000))
    for _ in range(3):
        for _ in range(1000):
            box.put(0.0, 7, segment)
        assert len(box.empty()) == 1000
    assert not box.flooded
