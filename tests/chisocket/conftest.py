"""Daemons that run, for the tests of what applications see."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.daemon.conftest import Daemon, running_daemon

# To close a connection that is over is an error, by requests: no test is so slow that TIME-WAIT has ended.
LASTING = ("--set", "msl=1min")


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A folder with a short path, as that of a UNIX socket must be."""
    path = Path(tempfile.mkdtemp(prefix="cs-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def alice_daemon(directory: Path) -> Iterator[Daemon]:
    with running_daemon(directory, *LASTING) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def bob_daemon(directory: Path) -> Iterator[Daemon]:
    with running_daemon(directory, *LASTING) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def ipv6_daemon(directory: Path) -> Iterator[Daemon]:
    """One whose address is ::1."""
    with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
        port = probe.getsockname()[1]
    with running_daemon(directory, *LASTING, "-p", str(port), address="::1") as daemon:
        yield daemon


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """Threads. The end does not wait for those that still run: their test has failed."""
    threads = ThreadPoolExecutor()
    yield threads
    threads.shutdown(wait=False, cancel_futures=True)
