"""Fixtures for tests of a daemon that runs, and the network layer's addresses."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

import chitcpd
from chitcpd import ctl

PROJECT = Path(chitcpd.__file__).parents[1]
PORT = 23300
PATIENCE = 10.0  # seconds for what should come at once

_networks = random.sample(range(1 << 16), 1 << 16)  # others may run these tests at the same time
_addresses = (f"127.40.{n >> 8}.{n & 0xFF}" for n in itertools.cycle(_networks))


def pytest_configure(config: pytest.Config) -> None:
    """Two marks, of the two columns of interop.md's table of socket calls."""
    config.addinivalue_line("markers", "match: as the C chiTCP does it, because its programs rely on it")
    config.addinivalue_line("markers", "better: deliberately otherwise than the C chiTCP")


def free_address() -> str:
    """A loopback address on which nobody has PORT."""
    for address in _addresses:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((address, PORT))
            return address
    raise AssertionError("there is no end of addresses")


def environment() -> dict[str, str]:
    """What a daemon needs to be found, and nothing that would change its defaults."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHITCP")}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))}


@dataclass
class Daemon:
    """A chitcpd that runs."""

    address: str
    socket: str  # path of its UNIX socket
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A control request, and its answer."""
        return ctl.request(self.socket, command, arguments, timeout=PATIENCE)

    def wait_until_it_answers(self) -> None:
        """Return once it does; fail at once if it has ended."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                ctl.request(self.socket, "ping", {}, wait=0.2)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                assert self.process.poll() is None, f"chitcpd has ended with status {self.process.poll()}"
                assert time.monotonic() < until, "chitcpd does not answer"

    def sockets(self) -> list[dict[str, Any]]:
        """Its sockets, as `chitcpd ctl sockets` tells of them."""
        described = self.ask("sockets")["sockets"]
        assert isinstance(described, list)
        return described

    def wait_until_it_sleeps(self) -> None:
        """Return once it waits for something to happen; one that is busy for ever never does."""
        until = time.monotonic() + PATIENCE
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
            assert time.monotonic() < until, "chitcpd does not come to rest"

    def end(self) -> int:
        """Ask it to end; its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def running_daemon(directory: Path, *arguments: str, address: str | None = None) -> Iterator[Daemon]:
    """A daemon that answers, until the end of the block; its log is printed, for pytest to show if a test fails."""
    address = address or free_address()
    path, log = str(directory / f"{address}.sock"), directory / f"{address}.log"
    command = [sys.executable, "-m", "chitcpd", "--bind", address, "-s", path, *arguments]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdin=subprocess.DEVNULL, env=environment())
    daemon = Daemon(address, path, log, process)
    try:
        daemon.wait_until_it_answers()
        yield daemon
    finally:
        status = daemon.end()
        print(f"--- log of the chitcpd at {address}, which ended with status {status}")
        print(log.read_text())


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A folder with a short path, as that of a UNIX socket must be."""
    path = Path(tempfile.mkdtemp(prefix="cd-"))
    yield path
    shutil.rmtree(path)


class StartDaemon(Protocol):
    """The fixture `daemon`: `daemon("-v")`."""

    def __call__(self, *arguments: str, address: str | None = None) -> Daemon:
        """Start one more."""


@pytest.fixture
def daemon(directory: Path) -> Iterator[StartDaemon]:
    """Starts daemons, which end with the test."""
    with ExitStack() as stack:

        def start(*arguments: str, address: str | None = None) -> Daemon:
            return stack.enter_context(running_daemon(directory, *arguments, address=address))

        yield start
