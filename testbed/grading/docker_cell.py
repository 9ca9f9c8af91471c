"""A cell in a container of a Docker engine, without network and rights; in it the same locked-up process."""

from __future__ import annotations

import struct
from contextlib import suppress
from types import TracebackType
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound

from testbed.backends import engine
from testbed.backends.docker_labels import KIND, MAKER, OWNER, USER, image, owner
from testbed.backends.processes import this_one
from testbed.unavailable import Unavailable

_LONGEST = 900  # seconds: then the container ends, also if nobody is left to remove it
_WAIT = ["python", "-c", f"import time; time.sleep({_LONGEST})"]
_CHILD = ["python", "-s", "-P", "-m", "testbed.grading.child"]
_MEMORY, _PROCESSES = 1 << 30, 32
_FRAME = struct.Struct("!BxxxI")  # which stream, and how many bytes follow


class Container:
    """One container, for all tests of a submission; each has a process of its own in it."""

    def __init__(self) -> None:
        """Raises Unavailable if no engine answers."""
        self._api: APIClient = engine.connect(4)
        self._id = ""

    def __enter__(self) -> Container:
        with engine.faults():
            try:
                self._id = self._api.create_container(
                    image(),
                    _WAIT,
                    user=USER,
                    working_dir="/tmp",
                    labels={KIND: "grade", OWNER: owner(), MAKER: this_one()},
                    environment={"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
                    host_config=self._api.create_host_config(
                        network_mode="none",
                        read_only=True,
                        cap_drop=["ALL"],
                        security_opt=["no-new-privileges"],
                        mem_limit=_MEMORY,
                        memswap_limit=_MEMORY,
                        pids_limit=_PROCESSES,
                        tmpfs={"/tmp": "size=16m"},
                        auto_remove=True,
                        init=True,
                    ),
                )["Id"]
            except NotFound as error:
                raise Unavailable(f"there is no image {image()}.", "Build it: make image.") from error
            self._api.start(self._id)
            knows = engine.run(self._api, self._id, ["python", "-c", "import testbed.grading.child"])
        if knows.status:
            self.__exit__(None, None, None)
            raise Unavailable(f"the image {image()} is older than this testbed.", "Build it anew: make image.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(APIError):
            self._api.remove_container(self._id, force=True)
        self._api.close()

    def cell(self) -> ContainerCell:
        """A new process in it."""
        return ContainerCell(self._api, self._id)


class ContainerCell:
    """A process in a container. One that hangs goes with the container, or when its time is up."""

    def __init__(self, api: APIClient, container: str) -> None:
        self._api = api
        with engine.faults():
            self._exec = api.exec_create(container, _CHILD, stdin=True, stderr=False)["Id"]
            self._stream: Any = api.exec_start(self._exec, socket=True)
        self._socket: Any = getattr(self._stream, "_sock", self._stream)
        self.source = self.sink = self._socket.fileno()
        self._framed = b""

    def plain(self, raw: bytes) -> bytes:
        """Without the headers that the engine puts between."""
        self._framed += raw
        content = b""
        while len(self._framed) >= _FRAME.size:
            stream, length = _FRAME.unpack_from(self._framed)
            if len(self._framed) < _FRAME.size + length:
                break
            if stream == 1:
                content += self._framed[_FRAME.size : _FRAME.size + length]
            self._framed = self._framed[_FRAME.size + length :]
        return content

    def end(self, *, patience: float = 0.0) -> str:
        """Hang up: who reads on ends."""
        how = "it answered nothing"
        with suppress(APIError):
            status = self._api.exec_inspect(self._exec)["ExitCode"] if patience else None
            if status is not None:
                how = f"it ended itself with status {status}" if status < 128 else f"signal {status - 128} ended it"
        with suppress(OSError):
            self._stream._response.close()
            self._socket.close()
        return how
