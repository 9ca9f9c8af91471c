"""Fixtures for tests that need daemons that run."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import chitcpd
from chitcpd import ctl

PROJECT = Path(chitcpd.__file__).parents[1]
PORT = 23300
PATIENCE = 10.0  # seconds for a daemon to answer, or to end
SHOWN = 60  # lines of a log


def pytest_configure() -> None:
    """Signals do what they do by default, for the programs that tests start, too: nohup has them ignored, and `&`."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@dataclass(frozen=True, slots=True)
class Host:
    """A host on loopback: its daemon runs."""

    name: str
    address: str
    socket: str  # path of the daemon's UNIX socket
    daemon: subprocess.Popen[bytes]
    environment: dict[str, str]  # for the host's applications

    def link(self, peer: Host, **shape: float) -> None:
        """Reach `peer` over a link of this shape (the fields of testbed.plan.Shape), from here to there."""
        entry = {"peers": [peer.address], "own": self.address, "seed": 1, **shape}
        ctl.request(self.socket, "links", {"links": [entry]})

    def wait_listening(self, port: int) -> None:
        """Return once an application of this host listens on `port`."""
        ctl.request(self.socket, "wait_listening", {"port": port}, timeout=PATIENCE)


@pytest.fixture
def two_daemons() -> Iterator[tuple[Host, Host]]:
    """Two hosts, "alice" and "bob", each with a chitcpd, and a perfect link between them.

    If the test fails, the end of both logs is shown.
    """
    addresses = dict(zip(("alice", "bob"), _free_addresses(), strict=True))
    with contextlib.ExitStack() as stack:
        # Not tmp_path: a UNIX socket's path must be short.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ct-")))
        alice, bob = (stack.enter_context(_host(name, addresses, directory)) for name in addresses)
        for host in (alice, bob):
            ctl.request(host.socket, "ping", {}, wait=PATIENCE)
        alice.link(bob)
        bob.link(alice)
        yield alice, bob


@contextlib.contextmanager
def _host(name: str, addresses: dict[str, str], directory: Path) -> Iterator[Host]:
    path, log = str(directory / f"{name}.sock"), directory / f"{name}.log"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
        "CHITCPD_SOCK": path,
        "CHITCP_HOSTS": " ".join(f"{host}={address}" for host, address in addresses.items()),
    }
    command = [sys.executable, "-m", "chitcpd", "-p", str(PORT), "--bind", addresses[name], "-v"]
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(command, stderr=stderr, stdin=subprocess.DEVNULL, env=environment)
    try:
        yield Host(name, addresses[name], path, daemon, environment)
    finally:
        status = _stop(daemon)
        print(f"--- {name}'s chitcpd ended with status {status}; the end of its log:")
        print("".join(log.read_text().splitlines(keepends=True)[-SHOWN:]))
    assert status == 0, f"{name}'s chitcpd did not end in order"


def _stop(daemon: subprocess.Popen[bytes]) -> int:
    daemon.terminate()
    try:
        return daemon.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        daemon.kill()
        return daemon.wait()


@functools.cache
def own_number() -> int:
    """A number from 1 to 62 that no other process of tests on this machine has at this time: for subnets of its own."""
    holder = socket.socket(socket.AF_UNIX)
    atexit.register(holder.close)  # until then it keeps others off: only one socket can have a name
    for number in range(1, 63):
        with contextlib.suppress(OSError):
            holder.bind(f"\0chitcp-tests-{number}")
            return number
    pytest.fail("62 processes run these tests: there are no more subnets")


def _free_addresses() -> tuple[str, str]:
    """Two loopback addresses on which nobody has PORT: other tests may run at the same time."""
    for _ in range(20):
        network = f"127.{random.randrange(20, 64)}.{random.randrange(256)}"
        if all(_is_free(f"{network}.{host}") for host in (2, 3)):
            return f"{network}.2", f"{network}.3"
    pytest.fail(f"port {PORT} is taken on every loopback address: end the chitcpd that listens there")


def _is_free(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, PORT)) != 0
