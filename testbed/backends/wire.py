"""The wire of a lab on this machine: one tcpdump on the loopback interface, of which each host has its part."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Protocol

_FILE_HEADER, _RECORD = struct.Struct("=IHHiIII"), struct.Struct("=IIII")
_ETHERNET = 14  # bytes before the IP header, as loopback has them too


class NoCapture(Exception):
    """There is no capture of the wire; the message says why."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def command(subnets: Sequence[str], port: int) -> list[str]:
    """The tcpdump that writes what passes on `port` in these subnets, as pcap, to its standard output.

    Raises NoCapture if tcpdump is not installed.
    """
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # an ordinary user's PATH lacks these
    tcpdump = shutil.which("tcpdump", path=path)
    if tcpdump is None:
        raise NoCapture("tcpdump is not installed", "Install it: sudo apt-get install tcpdump")
    nets = " or ".join(f"src net {subnet}" for subnet in subnets)
    # Packet by packet: what is in the buffer when the capture ends would be lost.
    return [tcpdump, "-n", "-i", "lo", "--immediate-mode", "-U", "-w", "-", f"tcp port {port} and ({nets})"]


def wait_listening(process: subprocess.Popen[bytes], log: Path, seconds: float = 5.0) -> None:
    """Return when tcpdump says in its log that it listens. Raises NoCapture if it ends, or never says so."""
    until = time.monotonic() + seconds
    while "listening on" not in log.read_text(errors="replace"):
        if process.poll() is not None:
            said = " ".join(log.read_text(errors="replace").split()) or f"status {process.returncode}"
            raise NoCapture(
                f"tcpdump could not begin ({said})",
                "Run as root, or give it the right: sudo setcap cap_net_raw+ep $(command -v tcpdump)",
            )
        if time.monotonic() > until:
            raise NoCapture(f"tcpdump did not begin within {seconds:g} s", "Try again when the machine is less busy.")
        time.sleep(0.01)  # a log in a file, so that the capture outlives this command; files have no event


class Readable(Protocol):
    """What a capture is read from."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer only at the end."""


def records(capture: Readable) -> Iterator[tuple[bytes, tuple[str, str]]]:
    """The file header, with no addresses, and each packet of a pcap as it is written, with its two addresses.

    Other captures of the same kind may follow, each with its header. A last packet that was cut off is passed over.
    """
    header = capture.read(_FILE_HEADER.size)
    if len(header) == _FILE_HEADER.size:
        yield header, ("", "")
    while len(head := capture.read(_RECORD.size)) == _RECORD.size:
        if head == header[: _RECORD.size]:  # as a packet's it would say that nothing of it was captured
            capture.read(_FILE_HEADER.size - _RECORD.size)
            continue
        packet = capture.read(_RECORD.unpack(head)[2])
        if len(packet) < _ETHERNET + 20:
            return
        source, destination = packet[_ETHERNET + 12 : _ETHERNET + 16], packet[_ETHERNET + 16 : _ETHERNET + 20]
        yield head + packet, (socket.inet_ntoa(source), socket.inet_ntoa(destination))


def split(capture: Path, hosts: Mapping[Path, Iterable[str]]) -> None:
    """Write each host's part of a capture: file -> the addresses of which it is to have all packets."""
    with ExitStack() as stack:
        of_address: dict[str, list[IO[bytes]]] = {}
        for path, addresses in hosts.items():
            file: IO[bytes] = stack.enter_context(path.open("wb"))
            for address in ("", *addresses):
                of_address.setdefault(address, []).append(file)
        source = stack.enter_context(capture.open("rb"))
        for record, ends in records(source):
            for file in {id(file): file for end in ends for file in of_address.get(end, ())}.values():
                file.write(record)
