"""What a topology takes from the disk: applications' files and somebody's own TCPs, bounded in all."""

from __future__ import annotations

import ast
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator, ValidationInfo

from chitcpd import units
from testbed.topology.scalars import PATH, SIZE, quantity, text, written

SOURCE_SIZE = 1 << 20  # bytes, of somebody's own TCP
FILES_IN_ALL = 2**30  # bytes: they are held in memory


@dataclass(slots=True)
class Files:
    """The validation context: where relative paths begin, and how many bytes of files may still be read or made."""

    directory: Path
    left: int = FILES_IN_ALL
    instead: Mapping[str, OwnFile] | None = None  # of those on the disk: path as it is written -> what is there
    read: dict[str, OwnFile] = field(default_factory=dict)  # likewise, all that were read

    def take(self, size: int) -> None:
        """Count `size` bytes; ValueError if that is too much for one topology."""
        if size > self.left:
            raise ValueError("expected at most 1GiB for all files of a topology together")
        self.left -= size


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file for an application."""

    content: bytes
    executable: bool


def _own_file(value: object, info: ValidationInfo) -> OwnFile:
    """A path, relative to the topology file -> what is there."""
    if not isinstance(value, str) or not value:
        raise ValueError("expected a path, like ./payload.bin, or {random: 5MiB}")
    return _read(value, info)


def _implementation(value: object, info: ValidationInfo) -> bytes:
    """The Python of a TCP."""
    if not isinstance(value, str) or not value:
        raise ValueError("expected the path of a Python file, like ./my_tcp.py")
    source = _read(value, info).content
    if len(source) > SOURCE_SIZE:
        raise ValueError(f"expected a Python file of at most {SOURCE_SIZE >> 20}MiB")
    try:
        tree = ast.parse(source, value)
        compile(tree, value, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise ValueError(f"expected Python, but{where} it is none ({getattr(error, 'msg', error)})") from error
    if not any(_may_bring_a_class(node) for node in ast.walk(tree)):
        raise ValueError("expected a class that derives from TcpConnection")
    return source


def _may_bring_a_class(node: ast.AST) -> bool:
    """Whether a TCP may come from here: only running the file can tell, and that is chitcpd's to do."""
    if isinstance(node, ast.ImportFrom):
        return node.module != "__future__"
    return isinstance(node, ast.Import) or (isinstance(node, ast.ClassDef) and bool(node.bases))


def _read(value: str, info: ValidationInfo) -> OwnFile:
    files = info.context if isinstance(info.context, Files) else Files(Path())
    if files.instead is not None and value not in files.instead:
        raise ValueError("expected a file that was kept with the topology")
    files.read[value] = file = _from_disk(value, files) if files.instead is None else files.instead[value]
    return file


def _from_disk(value: str, files: Files) -> OwnFile:
    try:
        path = files.directory / text(value)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("expected an ordinary file")
        files.take(found.st_size)
        with path.open("rb") as file:
            content = file.read(found.st_size)  # no more than was counted: it may grow meanwhile
        return OwnFile(content, executable=bool(found.st_mode & stat.S_IXUSR))
    except OSError as error:
        reason = error.strerror or "it can't be read"
        raise ValueError(f"expected a file that can be read, beside the topology file ({reason})") from error


def _random_size(value: object, info: ValidationInfo) -> int:
    size = quantity(units.size, lambda size: 1 <= size <= FILES_IN_ALL, "a size from 1B to 1GiB")(value)
    if isinstance(info.context, Files):
        info.context.take(size)
    return size


Implementation = Annotated[bytes, PlainValidator(_implementation), PATH]
BesideTopology = Annotated[OwnFile, PlainValidator(_own_file), PATH]
RandomSize = Annotated[int, PlainValidator(_random_size), written(SIZE, "5MiB")]
