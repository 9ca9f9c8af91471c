"""Ways from one application to another, ready to be used: two chitcpd, a relay in plain Python, the kernel's TCP."""

from __future__ import annotations

import random
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import Program, cpu_seconds, python, running

PORT = 23300
_ANY_PORT = "tcp:127.0.0.1:0"
_NETWORKS = 100  # of loopback addresses that are tried


@dataclass(frozen=True, slots=True)
class Way:
    """From a client to a server, through programs that already run."""

    listen: str  # the server's place
    dial: str | None = None  # the client's, None: what the server says
    between: tuple[Program, ...] = ()
    at_server: dict[str, str] = field(default_factory=dict)  # their environments
    at_client: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What client and server have seen, and how much CPU time it took."""

    client: dict[str, Any]
    server: dict[str, Any]
    cpu_between: float  # seconds, of the programs between the two

    @property
    def cpu(self) -> float:
        """CPU seconds of all programs, the two applications too."""
        return self.cpu_between + float(self.client["cpu"]) + float(self.server["cpu"])


def carry(way: Way, workload: str, *, client: Sequence[str] = (), server: Sequence[str] = ()) -> Traffic:
    """Let a workload's client talk to its server (benchmarks/programs.py). Raises ProgramFailed."""
    pids = [program.pid for program in way.between]
    with ExitStack() as stack:
        serve = python("benchmarks.programs", f"{workload}-server", way.listen, *server)
        serving = stack.enter_context(running(serve, way.at_server))
        place = serving.line()
        before = cpu_seconds(pids)
        ask = python("benchmarks.programs", f"{workload}-client", way.dial or place, *client)
        asking = stack.enter_context(running(ask, way.at_client))
        asked, served = asking.result(), serving.result()
        return Traffic(asked, served, cpu_seconds(pids) - before)


@contextmanager
def kernel() -> Iterator[Way]:
    """The kernel's own TCP, on loopback: nothing between the two."""
    yield Way(_ANY_PORT)


@contextmanager
def relay(limit: int = 1 << 16) -> Iterator[Way]:
    """Two relays (benchmarks/relay.py), which move at most `limit` bytes in a system call."""
    with tempfile.TemporaryDirectory(prefix="ct-") as directory, ExitStack() as stack:
        near, far = f"unix:{directory}/near", f"unix:{directory}/far"
        second = stack.enter_context(running(python("benchmarks.relay", _ANY_PORT, far, limit)))
        first = stack.enter_context(running(python("benchmarks.relay", near, second.line(), limit)))
        first.line()
        yield Way(far, near, (first, second))


@contextmanager
def daemons(*options: str, capture: bool = False) -> Iterator[Way]:
    """Two chitcpd with these options; `capture`: with a pcap file and a trace each."""
    with tempfile.TemporaryDirectory(prefix="ct-") as name, ExitStack() as stack:
        directory, network = Path(name), _free_network()
        far = stack.enter_context(daemon(directory / "far", f"{network}.3", *options, capture=capture))
        near = stack.enter_context(daemon(directory / "near", f"{network}.2", *options, capture=capture))
        environments = [{"CHITCPD_SOCK": str(directory / side / "sock")} for side in ("far", "near")]
        yield Way(f"chitcp:{network}.3:0", None, (near, far), *environments)


@contextmanager
def daemon(directory: Path, address: str, *options: str, capture: bool = False) -> Iterator[Program]:
    """A chitcpd that is ready, with all its files in `directory`."""
    directory.mkdir()
    files = ["--capture", directory / "segments.pcap"] if capture else []
    arguments = [
        "--port",
        PORT,
        "--bind",
        address,
        "--socket",
        directory / "sock",
        "--announce",
        "it",
        *files,
        *options,
    ]
    with running(python("chitcpd", *arguments)) as program:
        program.line()
        yield program


def _free_network() -> str:
    """Three numbers of addresses on which nobody has the port: others may run daemons too."""
    for _ in range(_NETWORKS):
        network = f"127.{random.randrange(64, 128)}.{random.randrange(256)}"
        if all(_is_free(f"{network}.{host}") for host in (2, 3)):
            return network
    raise RuntimeError(f"port {PORT} is taken on every loopback address: end the chitcpd that listens there")


def _is_free(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, PORT)) != 0
