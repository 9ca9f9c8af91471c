"""The gate of the tests that need Docker, and what they share: the command line, a lab's name, a look at the engine.

Without an engine or the image these tests are skipped, with the reason; with REQUIRE_DOCKER=1 they fail instead.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

import testbed
from testbed.backends.docker import DockerBackend
from testbed.backends.docker_labels import LAB
from testbed.unavailable import Unavailable

PROJECT = Path(testbed.__file__).parents[1]
PATIENCE = 60.0  # seconds that any command may take
_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def gate() -> None:
    """Let the tests through if Docker labs can be built here."""
    try:
        DockerBackend().check()
    except Unavailable as why:
        if os.environ.get("REQUIRE_DOCKER"):
            pytest.fail(f"{why} {why.remedy} (REQUIRE_DOCKER is set)", pytrace=False)
        pytest.skip(f"{why} {why.remedy}")


@pytest.fixture(scope="session")
def client(gate: None) -> Iterator[docker.DockerClient]:
    """The engine, seen without any code of ours."""
    del gate
    client = docker.from_env()
    yield client
    client.close()


@dataclass(slots=True)
class Command:
    """A command line that has ended."""

    status: int
    output: str  # standard output and error, as they came


@dataclass(slots=True)
class Running:
    """A command line that runs, and what it has said so far."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def wait_for(self, words: str) -> None:
        """Return when it has said a line with these words in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if words in line:
                return
        pytest.fail(f"it ended and never said {words!r}, only:\n{''.join(self.said)}")

    def end(self) -> Command:
        """Wait for its end."""
        assert self.process.stdout is not None
        self.said.extend(self.process.stdout)
        return Command(self.process.wait(PATIENCE), "".join(self.said))


class Bench:
    """`testbed` as a user has it, on Docker, for one lab with a name of its own, in a directory of its own."""

    def __init__(self, client: docker.DockerClient, directory: Path) -> None:
        self.client = client
        self.directory = directory
        self.lab = f"it-{os.getpid()}-{next(_numbers)}"
        self.latest = directory / "runs" / self.lab / "latest"

    def topology(self, text: str) -> str:
        """Write a topology, and return what to call its file on a command line."""
        (self.directory / "lab.yaml").write_text(text)
        return "lab.yaml"

    def run(self, file: str, **environment: str) -> Command:
        """`testbed run --backend docker`, to its end."""
        with self.running(file, **environment) as running:
            return running.end()

    @contextmanager
    def running(self, file: str, **environment: str) -> Iterator[Running]:
        """The same, while it runs; killed at the end of the block if it still does."""
        with self._start("run", file, "--backend", "docker", "--name", self.lab, **environment) as running:
            yield running

    def command(self, *arguments: str, **environment: str) -> Command:
        """Any command of testbed, to its end."""
        with self._start(*arguments, **environment) as running:
            return running.end()

    @contextmanager
    def _start(self, *arguments: str, **environment: str) -> Iterator[Running]:
        process = subprocess.Popen(
            [sys.executable, "-m", "testbed", *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                yield Running(process)
            finally:
                process.kill()

    def left(self) -> list[str]:
        """Everything on the engine that bears the lab's label."""
        label: dict[str, Any] = {"label": f"{LAB}={self.lab}"}
        containers = self.client.containers.list(all=True, filters=label, ignore_removed=True)
        networks = self.client.networks.list(filters=label)
        things: list[Any] = [*containers, *networks, *self.client.volumes.list(filters=label)]
        return sorted(thing.name for thing in things)


@pytest.fixture
def bench(client: docker.DockerClient, tmp_path: Path) -> Iterator[Bench]:
    """A bench for one lab, taken down in the end whatever the test has made of it."""
    bench = Bench(client, tmp_path)
    yield bench
    if bench.left():
        bench.command("down", bench.lab)
    assert bench.left() == []
