"""Reads out what the containers of a lab have left or go on to write: logs, captures, files of applications."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

from docker import APIClient
from docker.errors import NotFound

from testbed.backends import engine, setup
from testbed.backends.base import Recording
from testbed.backends.docker_labels import FOREIGN, GRACE, KIND, LAB, NAME, TCP_FILE, WORK, kind_of, name_of
from testbed.backends.docker_things import Things
from testbed.unavailable import Unavailable

# `tail` alone would see that nobody reads it any more when it writes next, and that may be never.
_FOLLOW = 'tail -c +1 -f "$0" & cat >/dev/null; kill $!'


class Readings:
    """All that is read of labs."""

    def __init__(self, api: APIClient, things: Things) -> None:
        self._api = api
        self._things = things

    def read_out(self, lab: str, directory: Path, *, stop: bool) -> None:
        """Write into the directory what all hosts and applications have left; `stop`: they end first."""

        def read_out(container: dict[str, Any]) -> None:
            self._read_out_one(container, directory, stop=stop)

        with engine.faults(), ThreadPoolExecutor(engine.WORKERS) as pool:
            own = self._things.containers(f"{LAB}={lab}")
            for last in (False, True):  # those beside the others have the captures, and see the end
                list(pool.map(read_out, [one for one in own if (one["Labels"][KIND] == "beside") == last]))

    def _read_out_one(self, container: dict[str, Any], directory: Path, *, stop: bool) -> None:
        kind, name, id_ = container["Labels"][KIND], container["Labels"][NAME], container["Id"]
        with suppress(NotFound):
            if stop:
                self._api.stop(id_, timeout=GRACE)
            if kind == "app":
                here = directory / "apps" / name
                here.mkdir(parents=True, exist_ok=True)
                self._save_log(id_, here / "stdout", stdout=True, stderr=False)
                self._save_log(id_, here / "stderr", stdout=False, stderr=True)
                for path, content in engine.get_files(self._api, id_, WORK):
                    _save(content, here / "files" / path)
            elif kind in ("host", "router", "beside"):
                here = directory / "hosts" / name
                here.mkdir(parents=True, exist_ok=True)
                is_ours = FOREIGN not in container["Labels"]
                if kind != "beside":
                    self._save_log(id_, here / "chitcpd.log", stdout=not is_ours, stderr=True)
                if is_ours:
                    for path, content in engine.get_files(self._api, id_, setup.DATA):
                        if str(path) != TCP_FILE and not path.name.startswith("."):
                            _save(content, here / path)

    def _save_log(self, container: str, path: Path, *, stdout: bool, stderr: bool) -> None:
        with path.open("wb") as file:
            file.writelines(self._api.logs(container, stdout=stdout, stderr=stderr, stream=True, follow=False))

    def recording(self, lab: str, node: str, recording: Recording, *, follow: bool) -> Iterator[bytes]:
        """Read by a command in the node's container."""
        path = setup.WIRE if recording == "wire" else setup.SEGMENTS
        with engine.faults():
            found = next(one for one in self._things.nodes(lab) if one.name == node)
            container = name_of(lab, kind_of(found), node)
            if engine.run(self._api, container, ["test", "-e", path], user="root").status != 0:
                raise Unavailable(
                    f"{node} of lab {lab} has no capture of {recording}.", "See `capture:` in the topology."
                )
            command = ["sh", "-c", _FOLLOW, path] if follow else ["cat", path]
            return engine.output(self._api, container, command, user="root")

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """What the containers wrote, one after the other; with `follow` as it comes, until all have ended."""
        with engine.faults():
            containers = sorted(self._things.containers(f"{LAB}={lab}"), key=lambda container: container["Created"])
        named = [
            (container["Labels"][NAME], container["Id"], container["Labels"][KIND] in ("app", "exec"))
            for container in containers
            if container["Labels"][KIND] not in ("beside", "helper")
        ]
        chosen = [one for one in named if not names or one[0] in names]
        if follow:
            yield from self._followed(chosen)
        else:
            yield from chain.from_iterable(self._lines(*one, follow=False) for one in chosen)

    def _lines(self, name: str, container: str, both: bool, *, follow: bool) -> Iterator[tuple[str, str]]:
        """`both`: its standard output too; a host's script and its chitcpd tell us things there."""
        with suppress(NotFound):
            pieces = self._api.logs(container, stdout=both, stream=True, follow=follow)
            with engine.closing(pieces):
                yield from ((name, line) for line in engine.lines(pieces))

    def _followed(self, chosen: list[tuple[str, str, bool]]) -> Iterator[tuple[str, str]]:
        """Lines of all at once, each container read by a thread."""
        read: SimpleQueue[tuple[str, str] | None] = SimpleQueue()

        def follow(name: str, container: str, both: bool) -> None:
            try:
                for line in self._lines(name, container, both, follow=True):
                    read.put(line)
            finally:
                read.put(None)

        for one in chosen:
            Thread(target=follow, args=one, daemon=True).start()
        ended = 0
        while ended < len(chosen):
            line = read.get()
            if line is None:
                ended += 1
            else:
                yield line


def _save(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)
