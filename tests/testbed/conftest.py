"""Fixtures of the testbed's tests."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import testbed

PROJECT = Path(testbed.__file__).parents[1]


@pytest.fixture
def own_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory and a port that no other lab of this machine has; what a test leaves running is ended."""
    from testbed.backends.local import LocalBackend

    runtime = Path(tempfile.mkdtemp(prefix="ct-"))  # not tmp_path: a UNIX socket's path must be short
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("CHITCPD_PORT", str(_free_port()))
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{PROJECT}:{inherited}" if inherited else str(PROJECT))
    yield runtime / "chitcp"
    backend = LocalBackend()
    for lab in backend.labs():
        backend.down(lab, lambda _step: None)
    shutil.rmtree(runtime)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
