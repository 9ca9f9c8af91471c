"""A Docker engine as the docker backend speaks to it: its faults, commands in containers, files."""

from __future__ import annotations

import io
import os
import select
import socket
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from threading import Lock
from typing import IO, Any

import docker
from docker import APIClient
from docker.context import Context, ContextAPI
from docker.context.config import get_current_context_name
from docker.errors import APIError, DockerException
from docker.utils.socket import frames_iter
from requests.exceptions import RequestException

from testbed.unavailable import Unavailable

WORKERS = 8  # requests at a time; an engine does not become faster with more
_ANSWER = 180  # seconds for an answer of the engine: a slow one takes more than one minute to start a container
_PATIENCE = 30.0  # seconds for an answer of a session: some wait for a daemon that starts


def connect(connections: int) -> APIClient:
    """A client of the engine that `docker` itself would ask, with so many connections kept open.

    Raises Unavailable if no engine answers, or not this user.
    """
    address, says = _address()
    where = f"{address} ({says})" if says else address
    try:
        _knock(address)
        return docker.from_env(max_pool_size=connections, timeout=_ANSWER).api
    except (OSError, DockerException) as error:
        cause = _first_cause(error)
        if isinstance(cause, PermissionError):
            raise Unavailable(
                f"this user may not open the Docker engine's socket, {where}.",
                "Join its group (usually `sudo usermod -aG docker $USER`, then log in anew), or use --backend local.",
            ) from error
        raise Unavailable(
            f"no Docker engine answers at {where}: {cause}.",
            "Start one (`sudo systemctl start docker`), name another one (DOCKER_HOST, `docker context use`), "
            "or use --backend local.",
        ) from error


def _address() -> tuple[str, str]:
    """The address that `from_env` takes, and who says so. Raises Unavailable if that is a context that is not there."""
    if address := os.environ.get("DOCKER_HOST"):
        return address, "DOCKER_HOST"
    name = os.environ.get("DOCKER_CONTEXT") or get_current_context_name()
    context: Context | None = ContextAPI.get_context(name)
    if context is None:  # `from_env` would take another engine
        raise Unavailable(
            f"no Docker context {name} is found.", "Choose one of `docker context ls`, or set DOCKER_HOST."
        )
    return str(context.Host), "" if name == "default" else f"Docker context {name}"


def _knock(address: str) -> None:
    """Raise OSError if nobody answers at a UNIX socket. The SDK would find that out too, and leave its own open."""
    scheme, _, path = address.partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(path)


def _first_cause(error: BaseException) -> BaseException:
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error


@contextmanager
def faults() -> Iterator[None]:
    """An engine that fails or falls silent raises Unavailable. What we asked wrongly stays an APIError: our fault."""
    try:
        yield
    except APIError as error:
        if error.is_server_error():
            what = f"the Docker engine failed: {error.explanation}."
            raise Unavailable(what, "Its own log says more (`journalctl -u docker`).") from error
        raise
    except RequestException as error:
        what = f"the Docker engine does not answer any more ({_first_cause(error)})."
        raise Unavailable(what, "See whether it still runs (`docker info`); then `testbed down --all`.") from error


def is_status(error: APIError, status: int) -> bool:
    """Whether the engine answered with this HTTP status: 404 not there, 409 not in a state for this."""
    return error.response is not None and error.response.status_code == status


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str


def run(api: APIClient, container: str, command: list[str], *, user: str = "") -> Ran:
    """Run a command in a container that runs, to its end. Raises APIError if the container does not run."""
    execution = api.exec_create(container, command, user=user)["Id"]
    stdout, stderr = api.exec_start(execution, demux=True)
    status = api.exec_inspect(execution)["ExitCode"]
    return Ran(status, (stdout or b"").decode(errors="replace"), (stderr or b"").decode(errors="replace"))


def output(api: APIClient, container: str, command: list[str], *, user: str) -> Iterator[bytes]:
    """What a command in a container that runs writes to its standard output, as it comes.

    Once nobody reads any more, it sees the end of its input.
    """
    execution = api.exec_create(container, command, user=user, stdin=True, stderr=False)["Id"]
    stream: Any = api.exec_start(execution, socket=True)
    try:
        yield from (piece for _, piece in frames_iter(stream, tty=False))  # type: ignore[no-untyped-call]
    finally:
        stream._response.close()  # with its connection; the SDK hands it out nowhere else


class Session:
    """A command that runs in a container for as long as we like, is told something and answers in lines."""

    def __init__(self, api: APIClient, container: str, command: list[str], *, user: str) -> None:
        execution = api.exec_create(container, command, user=user, stdin=True, stderr=False)["Id"]
        self._stream: Any = api.exec_start(execution, socket=True)
        self._frames = frames_iter(self._stream, tty=False)  # type: ignore[no-untyped-call]
        self._rest = b""
        self._lock = Lock()

    def ask(self, text: str, ends: str = "") -> str:
        """The answer: lines, up to the first that begins so.

        Raises EOFError if the command has ended, TimeoutError if it stands still.
        """
        with self._lock:
            self._stream._sock.sendall(text.encode() + b"\n")
            answer = [self._line()]
            while not answer[-1].startswith(ends):
                answer.append(self._line())
            return "\n".join(answer)

    def _line(self) -> str:
        while b"\n" not in self._rest:
            if not select.select([self._stream], [], [], _PATIENCE)[0]:
                raise TimeoutError
            _, piece = next(self._frames, (0, b""))
            if not piece:
                raise EOFError
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace")

    def close(self) -> None:
        """The command sees the end of its input."""
        self._stream._response.close()  # with its connection; the SDK hands it out nowhere else


@contextmanager
def closing(stream: Any) -> Iterator[None]:
    """Close a stream of the SDK's in the end, with its connection: `close` alone keeps the descriptor open."""
    try:
        yield
    finally:
        stream.close()
        stream._response.close()  # the SDK hands it out nowhere else


def end_of_log(api: APIClient, container: str) -> float | None:
    """When what a container has written ends, in the engine's time, as `logs` takes it; None: it has written nothing.

    Raises NotFound.
    """
    last: bytes = api.logs(container, timestamps=True, tail=1)
    written_at, _, _ = last.partition(b" ")
    if not written_at:
        return None
    return datetime.fromisoformat(written_at.decode()).timestamp() + 2e-6  # the time was cut to microseconds


_LONGEST_LINE = 1 << 20  # bytes: what a router of hundreds of links tells of them is shorter; a longer one is several


def lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Whole lines of a text that comes in pieces cut anywhere."""
    rest = bytearray()
    for piece in pieces:
        known = len(rest)  # without an end
        rest += piece
        while (end := rest.find(b"\n", known)) >= 0:
            yield rest[:end].decode(errors="replace").rstrip("\r")
            del rest[: end + 1]
            known = 0
        if len(rest) >= _LONGEST_LINE:
            yield rest.decode(errors="replace")
            rest.clear()
    if rest:
        yield rest.decode(errors="replace")


def put_files(
    api: APIClient,
    container: str,
    directory: str,
    files: Mapping[str, bytes],
    *,
    owner: int,
    executables: Set[str] = frozenset(),
) -> None:
    """Write files, of this user and group, into a directory of a container, which need not run."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid = len(content), owner, owner
            member.mode = 0o755 if name in executables else 0o644
            archive.addfile(member, io.BytesIO(content))
    api.put_archive(container, directory, packed.getvalue())


def get_files(api: APIClient, container: str, directory: str) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """Each regular file under a directory of a container, which need not run: its path from there, and its content.

    A content must be read before the next file is asked for.
    """
    pieces, _ = api.get_archive(container, directory)
    with tarfile.open(fileobj=_Pieces(pieces), mode="r|") as archive:
        for member in archive:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])  # the first part is the directory itself
            content = archive.extractfile(member) if member.isreg() else None
            # An application has filled the directory, and must not be able to write outside of where it is put.
            if content is not None and not path.is_absolute() and ".." not in path.parts:
                yield path, content
    for _ in pieces:  # what pads the archive: read, so that the connection can be used again
        pass


class _Pieces(io.RawIOBase):
    """A stream of pieces as the file that tarfile reads; it takes pieces of any length."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int = -1) -> bytes:
        """The next piece; b"" at the end."""
        return next(self._pieces, b"")
