"""The daemons of a local lab, started by `chitcpd.spawn`, and what they and it tell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from testbed.unavailable import Unavailable

_STARTED_WITHIN = 10.0  # seconds, of a fork
Ended = Callable[[str, int], None]  # of a daemon: its name, its status as a shell says it


class Spawner:
    """One `chitcpd.spawn`. The daemons outlive it, and it outlives no command of ours: it reads our pipe to the end."""

    def __init__(self, directory: Path, environment: Mapping[str, str], ended: Ended) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chitcpd.spawn"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._environment = dict(environment)
        self._ended = ended
        self._told = Condition()
        self.pids: dict[str, int] = {}
        self.ready: dict[str, str] = {}  # host -> its version
        self.probed: dict[tuple[str, str], dict[str, Any]] = {}  # (host, address of its neighbour) -> what was found
        self.statuses: dict[str, int] = {}
        Thread(target=self._listen, daemon=True).start()

    def start(self, name: str, arguments: list[str], directory: Path) -> int:
        """Start a daemon; return its process's number. Raises Unavailable."""
        wanted = {
            "name": name,
            "arguments": arguments,
            "directory": str(directory),
            "log": str(directory / "chitcpd.log"),
            "environment": self._environment,
        }
        assert self._process.stdin is not None
        self.forget(name)
        try:
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            self._process.stdin.flush()
            started = self.wait(lambda: name in self.pids, _STARTED_WITHIN)
        except BrokenPipeError:
            started = False
        if not started:
            raise Unavailable(
                f"chitcpd of {name} can't be started: what starts daemons on this machine has ended, or hangs.",
                "Was it killed? Take the lab down and try again.",
            )
        return self.pids[name]

    def forget(self, name: str) -> None:
        """Nothing counts any more that a daemon of this name has told; nor is its end told."""
        with self._told:
            for known in (self.pids, self.ready, self.statuses):
                known.pop(name, None)
            self.probed = {probe: found for probe, found in self.probed.items() if probe[0] != name}

    def end(self) -> None:
        """Start no more. What runs goes on, and is listened to."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until it is so, or for so long; whether it is."""
        with self._told:
            return self._told.wait_for(condition, seconds)

    def _listen(self) -> None:
        """To the end of the last daemon: they all write to this pipe."""
        assert self._process.stdout is not None
        with suppress(BrokenPipeError), self._process:
            for line in self._process.stdout:
                self._note(json.loads(line))

    def _note(self, told: dict[str, Any]) -> None:
        name = told["name"]
        status = told.get("status")
        with self._told:
            if status is not None and told["pid"] != self.pids.get(name):
                return  # it was forgotten
            if status is not None:
                status = self.statuses[name] = status if status >= 0 else 128 - status
            elif "pid" in told:
                self.pids[name] = told["pid"]
            elif "ready" in told:
                self.ready[name] = told["ready"]
            elif "probed" in told:
                self.probed[name, told["probed"]] = told
            self._told.notify_all()
        if status is not None:
            self._ended(name, status)
