"""Runs the sample applications on the hosts of a test."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import PATIENCE, Host


def run(host: Host, application: str, *arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run an application to its end."""
    return subprocess.run(
        [sys.executable, "-m", f"chisocket.apps.{application}", *arguments],
        env=host.environment,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Server:
    """An application that serves. Its output is known once it has ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.stdout = ""
        self.stderr = ""

    def next_line(self) -> str:
        """The next line of its stdout, waiting for it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> int:
        """SIGTERM; returns its status."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns its status."""
        if self.process.returncode is None:
            try:
                self.stdout, self.stderr = self.process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.stdout, self.stderr = self.process.communicate()
        return self.process.returncode


@contextlib.contextmanager
def serving(host: Host, application: str, *arguments: str, port: int, cwd: Path, status: int = 0) -> Iterator[Server]:
    """An application that serves on `port` during the block, and ends with `status`."""
    server = Server(
        subprocess.Popen(
            [sys.executable, "-m", f"chisocket.apps.{application}", "serve", "--port", str(port), *arguments],
            env=host.environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    try:
        host.wait_listening(port)
        yield server
    finally:
        server.end()
        print(f"--- {application} serve:\n{server.stdout}{server.stderr}")
    assert server.wait() == status
