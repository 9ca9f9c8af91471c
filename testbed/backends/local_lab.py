"""What the local backend keeps of a lab on disk: a directory, and in it a record of what was made.

LAB/lab.json              the record: addresses, and each process with its number and start time
LAB/HOST.sock             the UNIX socket of the host's chitcpd; HOST.sock.control: the one for control
LAB/hosts/H/  LAB/apps/A/ what they write
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Literal

from chisocket.protocol.location import control_path
from testbed import saved
from testbed.backends import processes
from testbed.plan import HostPlan
from testbed.unavailable import Unavailable

#: In the environment of each process: its directory and a slash. So the strays of an application are found, too,
#: and what was started in the instant in which the testbed was killed.
LABEL = "CHITCP_LOCAL_DIRECTORY"
_LONGEST_SOCKET = 107  # bytes, of sun_path without its final NUL

Kind = Literal["host", "app", "capture"]


@dataclass(slots=True)
class Entry:
    """A process of the lab."""

    kind: Kind
    name: str  # of the app or of the host
    command: list[str]
    pid: int = 0  # 0: it could not be started
    start: int = 0  # as processes.start_time says it
    status: int | None = None  # once it is known

    @property
    def known(self) -> processes.Known:
        """What tells it from a later process of the same number."""
        return self.pid, self.start

    @property
    def state(self) -> str:
        """For a person."""
        if self.status is not None:
            return f"exited {self.status}"
        return "running" if processes.is_running(self.known) else "gone"


@dataclass(slots=True)
class LocalLab:
    """A lab of the local backend; every change is on disk before the call returns."""

    directory: Path
    run_id: str = ""
    stays: bool = False  # it is to outlive the command that made it
    whole: bool = False  # it came up
    capture: tuple[bool, bool] = (False, False)  # of segments, of the wire
    links: dict[str, str] = field(default_factory=dict)  # name -> subnet
    nodes: tuple[HostPlan, ...] = ()
    prints: dict[str, str] = field(default_factory=dict)  # node -> saved.fingerprint
    entries: list[Entry] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)
    _removed: bool = False

    @classmethod
    def load(cls, directory: Path) -> LocalLab:
        """What the directory says; nothing if it was never written."""
        try:
            record = json.loads((directory / "lab.json").read_text())
            record["entries"] = [Entry(**entry) for entry in record["entries"]]
            record["nodes"] = tuple(map(saved.load, record["nodes"]))
            return cls(directory, **record)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(directory)

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.directory.name

    def socket(self, host: str) -> Path:
        """Where the host's chitcpd listens for applications. Raises Unavailable if a UNIX socket can't be there."""
        path = self.directory / f"{host}.sock"
        longest = control_path(str(path))
        if len(os.fsencode(longest)) > _LONGEST_SOCKET:
            raise Unavailable(
                f"the UNIX socket {longest} would have a longer path than the {_LONGEST_SOCKET} bytes that may be.",
                "Set XDG_RUNTIME_DIR to a directory with a shorter path.",
            )
        return path

    def save(self) -> None:
        """Write the record, whole or not at all; nothing once the lab is removed, by us or by another command."""
        with self._lock:
            if self._removed or not self.directory.is_dir():
                return
            record = {
                "run_id": self.run_id,
                "stays": self.stays,
                "whole": self.whole,
                "capture": self.capture,
                "links": self.links,
                "nodes": list(map(saved.dump, self.nodes)),
                "prints": self.prints,
                "entries": [asdict(entry) for entry in self.entries],
            }
            fresh = self.directory / "lab.json.new"
            with suppress(FileNotFoundError):  # another command takes the lab down at this very moment
                fresh.write_text(json.dumps(record, indent=1))
                fresh.replace(self.directory / "lab.json")

    def add(self, entry: Entry) -> None:
        """Record a process, in place of an earlier one of its kind and name."""
        self.put(entry)
        self.save()

    def put(self, entry: Entry) -> None:
        """The same, but nothing is on disk before `save`."""
        self.drop(entry.kind, entry.name, entry)

    def drop(self, kind: Kind, name: str | None = None, *instead: Entry) -> None:
        """Forget the processes of this kind, or one of them; nothing is on disk before `save`."""
        with self._lock:  # others add what they start at the same time
            kept = [entry for entry in self.entries if entry.kind != kind or name not in (None, entry.name)]
            self.entries = [*kept, *instead]

    def of(self, kind: Kind) -> Iterator[Entry]:
        """The processes of this kind."""
        return (entry for entry in list(self.entries) if entry.kind == kind)

    def end(self, kind: Kind, name: str | None = None, *, grace: float) -> None:
        """End the processes of this kind, or one of them, with all that it started."""
        own = [entry for entry in self.of(kind) if name in (None, entry.name)]
        processes.end([entry.known for entry in own if entry.pid], grace=grace)
        if kind == "app":
            prefix = f"{self.directory}/apps/" + (f"{name}/" if name else "")
            processes.end(processes.with_environment(LABEL, prefix), grace=0)

    def forget(self, host: str, *, grace: float) -> None:
        """End a host's daemon, and the applications there are left alone: they see their connections end."""
        self.end("host", host, grace=grace)
        self.drop("host", host)
        shutil.rmtree(self.directory / "hosts" / host, ignore_errors=True)
        self.save()

    def end_unrecorded(self) -> None:
        """End the daemons and the capture that a command has started and, killed, could not record."""
        kinds: tuple[Kind, ...] = ("host", "capture")
        for kind in kinds:
            recorded = {entry.known for entry in self.of(kind)}
            labelled = set(processes.with_environment(LABEL, f"{self.directory}/{kind}s/"))
            processes.end(labelled - recorded, grace=0)

    def remove(self) -> None:
        """End everything and remove the directory."""
        recorded = {entry.known for entry in self.entries if entry.pid}
        labelled = processes.with_environment(LABEL, f"{self.directory}/")
        processes.end(recorded.union(labelled), grace=2)
        with self._lock:
            self._removed = True
        # Under another name first: the command that runs the lab may be writing its record.
        gone = self.directory.with_name(f".{self.name}.{os.getpid()}")
        self.directory.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)  # `gc` may be removing it, too
