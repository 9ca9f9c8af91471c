"""Reads out what the processes of a lab on this machine have left or go on to write: files, captures, logs."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event

from testbed.backends import wire
from testbed.backends.base import Recording
from testbed.backends.local_lab import Entry, LocalLab
from testbed.unavailable import Unavailable

_PIECE = 1 << 16  # bytes of a file that are read at once; a longer line is several


def copy(lab: LocalLab, directory: Path) -> list[str]:
    """All files of hosts and applications, and each host's part of the wire, as they are.

    Return which of them can't be read, and why: an application may do with its own what it likes.
    """
    unreadable: list[tuple[str, str, str]] = []
    for part in ("hosts", "apps"):
        if (lab.directory / part).is_dir():
            try:
                shutil.copytree(
                    lab.directory / part, directory / part, symlinks=True, ignore=_not_to_copy, dirs_exist_ok=True
                )
            except shutil.Error as error:  # at the end: all else is there
                unreadable += error.args[0]
    hosts = {directory / "hosts" / node.name: [end.address for end in node.interfaces] for node in lab.nodes}
    if (lab.directory / "wire.pcap").is_file():
        there = {here / "wire.pcap": addresses for here, addresses in hosts.items() if here.is_dir()}
        wire.split(lab.directory / "wire.pcap", there)
    return [f"{Path(path).relative_to(lab.directory)} could not be collected: {why}" for path, _, why in unreadable]


def _not_to_copy(directory: str, names: list[str]) -> list[str]:
    """What is ours, and FIFOs, sockets and devices that an application made: they can't be copied."""
    kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    modes = {name: os.lstat(os.path.join(directory, name)).st_mode for name in names}
    ours = {"links.json", "arguments.json"} if os.path.basename(os.path.dirname(directory)) == "hosts" else set()
    return [name for name, mode in modes.items() if name in ours or not any(kind(mode) for kind in kinds)]


def recording(lab: LocalLab, node: str, recording: Recording, *, follow: bool) -> Iterator[bytes]:
    """A node's capture; the wire's is the whole lab's, of which the node has its part. Raises Unavailable."""
    path = lab.directory / ("wire.pcap" if recording == "wire" else f"hosts/{node}/segments.pcap")
    if not path.is_file():
        raise Unavailable(f"lab {lab.name} has no capture of {recording}.", "Ask for it in the topology: `capture:`.")
    if recording == "segments":
        return _pieces(path, lab.directory, follow=follow)
    own = {"", *(end.address for one in lab.nodes if one.name == node for end in one.interfaces)}
    return _part(path, lab.directory, own, follow=follow)


def _pieces(path: Path, lab: Path, *, follow: bool) -> Generator[bytes, None, None]:
    """A file in pieces, as it grows; until its lab is gone."""
    with path.open("rb") as file:
        while True:
            over = not follow or not lab.is_dir()
            yield from iter(partial(file.read, _PIECE), b"")
            if over:
                return
            time.sleep(0.05)  # files have no event


def _part(path: Path, lab: Path, addresses: set[str], *, follow: bool) -> Iterator[bytes]:
    """A capture's header, and the packets from or to these addresses."""
    with closing(_pieces(path, lab, follow=follow)) as pieces:
        yield from (record for record, ends in wire.records(_Readable(pieces)) if addresses.intersection(ends))


class _Readable:
    """Pieces as a file, of which a read is whole."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer only at the end."""
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def logs(lab: LocalLab, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
    """(host or app, line) of the named ones, or of all; with `follow` until they end."""
    read: dict[Path, int] = {}
    while True:
        own = [e for e in lab.entries if e.kind != "capture" and (not names or e.name in names)]
        over = not follow or not lab.directory.is_dir() or all(entry.state != "running" for entry in own)
        for entry in own:
            for path in _outputs(lab, entry):
                while text := _fresh(path, read, whole_only=not over):
                    yield from ((entry.name, line) for line in text.decode(errors="replace").splitlines())
        if over:
            return
        time.sleep(0.1)  # files have no event to wait for


class Written:
    """What an application writes, for as long as the block lasts."""

    def __init__(self, begins: Mapping[Path, int]) -> None:
        """`begins`: the files, and where in them an earlier life of it has ended."""
        self._read = dict(begins)
        self._over = Event()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def pieces(self) -> Iterator[bytes]:
        """Whole lines, as they come."""
        while not self._over.is_set():
            pieces = [_fresh(path, self._read, whole_only=True) for path in self._read]
            yield from filter(None, pieces)
            if not any(pieces):
                self._over.wait(0.02)  # files have no event


def _outputs(lab: LocalLab, entry: Entry) -> list[Path]:
    here = lab.directory / f"{entry.kind}s" / entry.name
    return [here / "chitcpd.log"] if entry.kind == "host" else [here / "stdout", here / "stderr"]


def _fresh(path: Path, read: dict[Path, int], *, whole_only: bool) -> bytes:
    """What was not read yet, at most _PIECE bytes.

    Cut at the end of a line, if there is one; `whole_only`: not the last line if its end is still to be written.
    """
    try:
        with path.open("rb") as file:
            file.seek(read.get(path, 0))
            text = file.read(_PIECE)
    except FileNotFoundError:
        return b""
    end, is_cut = text.rfind(b"\n") + 1, len(text) == _PIECE
    if (whole_only or is_cut) and (end or not is_cut):
        text = text[:end]
    read[path] = read.get(path, 0) + len(text)
    return text
