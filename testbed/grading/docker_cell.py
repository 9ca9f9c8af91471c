"""Cells in a container of a Docker engine, without network and rights; in it the same locked-up processes."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.types import LogConfig
from requests.exceptions import RequestException

from testbed.backends import engine
from testbed.backends.docker_labels import KIND, MAKER, OWNER, USER, image, owner
from testbed.backends.processes import is_known, this_one
from testbed.grading import forker
from testbed.grading.nursery import Nursery
from testbed.grading.sandbox import MEMORY
from testbed.unavailable import Unavailable

GRADE = "grade"  # the kind of such a container
_FORKER = ["python", "-s", "-P", "-m", "testbed.grading.forker"]
_MEMORY = 2 * MEMORY + (128 << 20)  # two processes at once, and the forker
_PROCESSES = 32
_FRAME = struct.Struct("!BxxxI")  # which stream, and how many bytes follow


@contextmanager
def in_a_container() -> Iterator[Nursery]:
    """A container, and cells in it. It ends with us, for its input does. Raises Unavailable."""
    api = engine.connect(4)
    container = ""
    try:
        with engine.faults():
            container = _create(api)
            attached = _Attached(api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stream": 1}))
            api.start(container)
        with attached.open():
            try:
                nursery = Nursery(attached)
            except (Unavailable, ValueError) as error:
                raise _other_version() from error
            if nursery.fingerprint != forker.fingerprint():
                raise _other_version()
            yield nursery
    finally:
        if container:
            _remove(api, container)
        api.close()


def remove_left(*, dry_run: bool) -> int:
    """Remove containers whose maker has ended before they did; how many. Raises Unavailable if no engine answers."""
    api = engine.connect(1)
    try:
        with engine.faults():
            labels = [f"{KIND}={GRADE}", f"{OWNER}={owner()}"]
            found = api.containers(all=True, filters={"label": labels})
            left = [one["Id"] for one in found if not is_known(one["Labels"].get(MAKER, ""))]
            for container in left if not dry_run else ():
                _remove(api, container)
            return len(left)
    finally:
        api.close()


def _remove(api: APIClient, container: str) -> None:
    with suppress(APIError, RequestException):  # it has gone, or is going, by itself; or the engine has
        api.remove_container(container, force=True)


def _create(api: APIClient) -> str:
    try:
        return str(
            api.create_container(
                image(),
                _FORKER,
                stdin_open=True,  # until we are gone
                user=USER,
                working_dir="/tmp",
                labels={KIND: GRADE, OWNER: owner(), MAKER: this_one()},
                environment={"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
                host_config=api.create_host_config(
                    network_mode="none",
                    read_only=True,
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    mem_limit=_MEMORY,
                    memswap_limit=_MEMORY,
                    pids_limit=_PROCESSES,
                    tmpfs={"/tmp": "size=16m"},
                    log_config=LogConfig(type="none"),
                    auto_remove=True,
                    init=True,
                ),
            )["Id"]
        )
    except NotFound as error:
        raise Unavailable(f"there is no image {image()}.", "Build it: make image.") from error


def _other_version() -> Unavailable:
    return Unavailable(f"the image {image()} is of another version than this testbed.", "Build it anew: make image.")


class _Attached:
    """The way to the first process of a container: the engine puts heads between what it writes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._socket: Any = getattr(stream, "_sock", stream)
        self._framed = bytearray()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Until the end of this."""
        try:
            yield
        finally:
            self._stream._response.close()  # with its connection; the SDK hands it out nowhere else

    def send(self, content: bytes, until: float) -> None:
        self._socket.settimeout(max(until - time.monotonic(), 0.001))
        self._socket.sendall(content)

    def receive(self, until: float) -> bytes:
        content = bytearray()
        while not content:
            self._socket.settimeout(max(until - time.monotonic(), 0.001))
            part = self._socket.recv(1 << 16)
            if not part:
                return b""
            self._framed += part
            while len(self._framed) >= _FRAME.size:
                stream, length = _FRAME.unpack_from(self._framed)
                if len(self._framed) < _FRAME.size + length:
                    break
                if stream == 1:
                    content += self._framed[_FRAME.size : _FRAME.size + length]
                del self._framed[: _FRAME.size + length]
        return bytes(content)
