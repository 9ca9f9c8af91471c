"""The wire of a lab on this machine: tcpdump on the loopback interface, one capture per host."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


class NoCapture(Exception):
    """There is no capture of the wire; the message says why."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def command(addresses: Sequence[str], port: int) -> list[str]:
    """The tcpdump that writes what these addresses send and receive on `port`, as pcap, to its standard output.

    Raises NoCapture if tcpdump is not installed.
    """
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # an ordinary user's PATH lacks these
    tcpdump = shutil.which("tcpdump", path=path)
    if tcpdump is None:
        raise NoCapture("tcpdump is not installed", "Install it: sudo apt-get install tcpdump")
    hosts = " or ".join(f"host {address}" for address in addresses)
    # Packet by packet: what is in the buffer when the capture ends would be lost.
    return [tcpdump, "-n", "-i", "lo", "--immediate-mode", "-U", "-w", "-", f"tcp port {port} and ({hosts})"]


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
