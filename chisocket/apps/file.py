"""File transfer: a server of the files in a directory, and a client that fetches and pushes them.

    python -m chisocket.apps.file serve --port 7000 --directory files
    python -m chisocket.apps.file fetch bob:7000 payload.bin
    python -m chisocket.apps.file push bob:7000 payload.bin

On the wire: lines of UTF-8, each ended by a newline and of at most 1024 bytes, and between them the bytes of the
file. One transfer per connection. Each side computes the SHA-256 of what it sent or got and tells it to the other.

    fetch:  client                        server
            FETCH <name>           ->
                                   <-     SIZE <bytes>
                                   <-     ... the file ...
                                   <-     SHA256 <hex>
            SHA256 <hex>           ->

    push:   PUSH <bytes> <name>    ->
                                   <-     READY
            ... the file ...       ->
            SHA256 <hex>           ->
                                   <-     SHA256 <hex>

In place of any of its lines the server may send `ERROR <why>`. In the end the server prints its line, then closes: so
when a client is done, its server has said so too. Who receives writes to a temporary name and renames it when both
SHA-256 are equal.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import chisocket
from chisocket.apps import _command
from chisocket.apps._command import Endpoint, Failed
from chisocket.apps._serving import serve_until_signal

CHUNK = 256 << 10  # bytes read, sent and hashed at a time
MAX_LINE = 1024  # bytes, with the newline
MAX_NAME = 255  # bytes of a file's name, as most file systems have it
MAX_SIZE = 16 << 30  # bytes of a file

_temporary_files: set[Path] = set()


@dataclass(slots=True)
class Transfer:
    """A file on its way: counts, hashes and times what passes."""

    name: str
    size: int
    done: int = 0
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    _start: float = field(default_factory=time.monotonic)
    _seconds: float = 0.0  # until both sides knew that all had passed

    def passed(self, data: bytes) -> None:
        """These bytes were sent, or came."""
        self._digest.update(data)
        self.done += len(data)

    def sha256(self) -> str:
        """Of all that has passed, as hexadecimal digits."""
        return self._digest.hexdigest()

    def finish(self, theirs: str) -> None:
        """Take the other side's SHA-256, which ends the transfer. Raises Failed if it is not ours."""
        self._seconds = time.monotonic() - self._start
        if theirs != self.sha256():
            raise Failed(
                f"{self.name} is not the same on both sides: sha256 {self.sha256()} here, {theirs} there; "
                "the TCP has changed the data"
            )

    def line(self, verb: str) -> str:
        """What is printed of it."""
        return f"{verb} {self.name}: {self.done} bytes in {self._speed()}, sha256 {self.sha256()}"

    def _speed(self) -> str:
        if self._seconds <= 0:
            return "no time"  # as over a link without delay or rate in a simulation
        rate = self.done / self._seconds / 1e6
        return f"{self._seconds:.2f} s, {rate:.2f} MB/s ({rate * 8:.1f} Mbit/s)"


class Wire:
    """One connection: lines and files, out and in."""

    def __init__(self, connection: chisocket.socket) -> None:
        self._connection = connection
        self._incoming = connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._incoming.close()

    def say(self, *words: object) -> None:
        """Send a line."""
        self._connection.sendall((" ".join(map(str, words)) + "\n").encode())

    def hear(self, *expected: str) -> str:
        """Receive a line that begins with the `expected` word, or one of them; returns it.

        Raises Failed if it is another line; with its words if it is an ERROR.
        """
        raw = self._incoming.readline(MAX_LINE)
        line = raw.decode(errors="backslashreplace")
        if not line.endswith("\n") and len(raw) < MAX_LINE:
            raise Failed("the other side ended before the transfer did: see what it printed")
        word, _, rest = line[:-1].partition(" ")
        if not line.endswith("\n") or not line[:-1].isprintable() or word not in (*expected, "ERROR"):
            raise Failed(f"expected {' or '.join(expected)}, got {line[:40]!r}: this is not the file protocol")
        if word == "ERROR":
            raise Failed(f"the other side says: {rest}")
        return line[:-1]

    def hear_sha256(self) -> str:
        """Receive the other side's SHA-256."""
        return self.hear("SHA256").partition(" ")[2]

    def send_file(self, source: BinaryIO, transfer: Transfer) -> None:
        """Send `transfer.size` bytes of `source`."""
        while left := transfer.size - transfer.done:
            chunk = source.read(min(CHUNK, left))
            if not chunk:
                raise Failed(f"{transfer.name} has become shorter while it was sent: send it again")
            self._connection.sendall(chunk)
            transfer.passed(chunk)

    def receive_file(self, target: BinaryIO, transfer: Transfer) -> None:
        """Write the `transfer.size` bytes that come to `target`."""
        while left := transfer.size - transfer.done:
            chunk = self._incoming.read1(min(CHUNK, left))
            if not chunk:
                raise Failed(f"{transfer.name} broke off after {transfer.done} of {transfer.size} bytes")
            target.write(chunk)
            transfer.passed(chunk)

    def wait_for_end(self) -> None:
        """Return when the other side has closed. How it did so is no matter: all has come."""
        with contextlib.suppress(ConnectionError):
            self._incoming.read(1)


def checked_name(name: str) -> str:
    """`name`, if it may be a file's name here. Raises Failed if it could lead elsewhere, or be hidden."""
    if not name or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
        raise Failed(f"{name!r} is no file name: neither a path, nor a leading dot, nor control characters are allowed")
    if len(name.encode(errors="replace")) > MAX_NAME:
        raise Failed(f"a file name of more than {MAX_NAME} bytes: rename the file")
    return name


def checked_size(size: int | str) -> int:
    """`size` in bytes, if a file may have it. Raises Failed."""
    if isinstance(size, str) and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise Failed(f"{size!r} is no size in bytes: this is not the file protocol")
    if int(size) > MAX_SIZE:
        raise Failed(f"{size} bytes are too many: a file may have {MAX_SIZE}")
    return int(size)


@contextlib.contextmanager
def open_source(path: Path, shown: str) -> Iterator[tuple[BinaryIO, int]]:
    """The file at `path`, to be sent, and its size. Raises Failed, which calls it `shown`, if it is none."""
    if not path.is_file():
        raise Failed(f"there is no file {shown!r}")
    with path.open("rb") as source:
        yield source, checked_size(os.fstat(source.fileno()).st_size)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and vanishes when it fails."""
    if path.is_dir() or not path.parent.is_dir():
        raise Failed(f"no file can be written at {str(path)!r}: it is a directory, or is in none")
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    _temporary_files.add(temporary)
    try:
        with temporary.open("xb") as target:
            yield target
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        _temporary_files.discard(temporary)


def serve_client(directory: Path, connection: chisocket.socket) -> None:
    """The server's side of one transfer."""
    with Wire(connection) as wire:
        try:
            verb, _, rest = wire.hear("FETCH", "PUSH").partition(" ")
            if verb == "FETCH":
                _serve_fetch(wire, directory, checked_name(rest))
            else:
                size, _, name = rest.partition(" ")
                _serve_push(wire, directory, checked_name(name), checked_size(size))
        except (Failed, OSError) as error:
            with contextlib.suppress(OSError):  # the connection may be what failed
                wire.say("ERROR", error.strerror if isinstance(error, OSError) else error)
            raise


def _serve_fetch(wire: Wire, directory: Path, name: str) -> None:
    with open_source(directory / name, name) as (source, size):
        transfer = Transfer(name, size)
        wire.say("SIZE", size)
        wire.send_file(source, transfer)
    wire.say("SHA256", transfer.sha256())
    transfer.finish(wire.hear_sha256())
    _command.say(transfer.line("served"))


def _serve_push(wire: Wire, directory: Path, name: str, size: int) -> None:
    with replacing(directory / name) as target:
        transfer = Transfer(name, size)
        wire.say("READY")
        wire.receive_file(target, transfer)
        transfer.finish(wire.hear_sha256())
    _command.say(transfer.line("received"))
    wire.say("SHA256", transfer.sha256())


def fetch(server: Endpoint, name: str, output: Path) -> int:
    """Fetch the file `name` to `output`; returns the exit status."""
    checked_name(name)
    with replacing(output) as target, _command.connected(server) as connection, Wire(connection) as wire:
        wire.say("FETCH", name)
        transfer = Transfer(name, checked_size(wire.hear("SIZE").partition(" ")[2]))
        wire.receive_file(target, transfer)
        theirs = wire.hear_sha256()
        wire.say("SHA256", transfer.sha256())
        transfer.finish(theirs)
        wire.wait_for_end()
    _command.say(transfer.line("fetched"))
    return 0


def push(server: Endpoint, path: Path) -> int:
    """Push the file at `path` to the server's directory; returns the exit status."""
    name = checked_name(path.name)
    with (
        open_source(path, str(path)) as (source, size),
        _command.connected(server) as connection,
        Wire(connection) as wire,
    ):
        wire.say("PUSH", size, name)
        wire.hear("READY")
        transfer = Transfer(name, size)
        wire.send_file(source, transfer)
        wire.say("SHA256", transfer.sha256())
        transfer.finish(wire.hear_sha256())
        wire.wait_for_end()
    _command.say(transfer.line("pushed"))
    return 0


def serve(port: int, directory: Path) -> int:
    """Serve and accept files in `directory` until a signal; returns the exit status."""
    if not directory.is_dir():
        raise Failed(f"there is no directory {str(directory)!r}: make it, or name another with --directory")
    try:
        return serve_until_signal(
            "file", port, f"serving {directory.resolve().name}/", lambda client, _: serve_client(directory, client)
        )
    finally:
        for left in list(_temporary_files):  # by threads that end with the process
            left.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "serve":
        return _command.run("file", lambda: serve(options.port, options.directory))
    if options.command == "push":
        return _command.run("file", lambda: push(options.server, options.file))
    return _command.run("file", lambda: fetch(options.server, options.name, options.output or Path(options.name)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chisocket.apps.file",
        description="Serve, fetch and push files over chiTCP. Both sides compare the SHA-256: status 1 if they differ.",
        epilog="CHITCPD_SOCK names the UNIX socket of the chitcpd to use.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="serve and accept files until SIGTERM or Ctrl-C")
    serving.add_argument("--port", type=_command.port, default=7000, help="listen here (default: 7000)")
    serving.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="the files are here (default: the current one)"
    )
    fetching = commands.add_parser("fetch", help="get a file from a server")
    fetching.add_argument("server", type=_command.endpoint, metavar="HOST:PORT", help="the server, like bob:7000")
    fetching.add_argument("name", metavar="NAME", help="the file's name at the server")
    fetching.add_argument("--output", type=Path, metavar="FILE", help="write it here (default: NAME)")
    pushing = commands.add_parser("push", help="give a file to a server; it replaces a file of its name there")
    pushing.add_argument("server", type=_command.endpoint, metavar="HOST:PORT", help="the server, like bob:7000")
    pushing.add_argument("file", type=Path, metavar="FILE", help="the file to give")
    return parser


if __name__ == "__main__":
    sys.exit(main())
