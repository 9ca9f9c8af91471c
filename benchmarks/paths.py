"""Ways from one application to another, ready to be used: two chitcpd, a relay in plain Python, the kernel's TCP."""

from __future__ import annotations

import random
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
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


@contextmanager
def talking(
    way: Way, workload: str, *, client: Sequence[str] = (), server: Sequence[str] = ()
) -> Iterator[tuple[Program, Program]]:
    """A workload's client that talks to its server (benchmarks/programs.py), and this. Raises ProgramFailed."""
    with ExitStack() as stack:
        serve = python("benchmarks.programs", f"{workload}-server", way.listen, *server)
        serving = stack.enter_context(running(serve, way.at_server))
        place = serving.line()
        ask = python("benchmarks.programs", f"{workload}-client", way.dial or place, *client)
        yield stack.enter_context(running(ask, way.at_client)), serving


def carry(way: Way, workload: str, *, client: Sequence[str] = (), server: Sequence[str] = ()) -> Traffic:
    """Let them talk until both have said what they saw. Raises ProgramFailed."""
    pids = [program.pid for program in way.between]
    before = cpu_seconds(pids)
    with talking(way, workload, client=client, server=server) as (asking, serving):
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
    """Two chitcpd with these options; `capture`: each writes its segments to a file."""
    with tempfile.TemporaryDirectory(prefix="ct-") as directory, ExitStack() as stack:
        near_host, far_host = _free_addresses(2)
        far = stack.enter_context(_daemon(Path(directory), far_host, *options, capture=capture))
        near = stack.enter_context(_daemon(Path(directory), near_host, *options, capture=capture))
        near.line()
        far.line()
        at_server, at_client = ({"CHITCPD_SOCK": f"{directory}/{host}"} for host in (far_host, near_host))
        yield Way(f"chitcp:{far_host}:0", None, (near, far), at_server, at_client)


@contextmanager
def daemons_at_once(count: int) -> Iterator[list[Program]]:
    """So many chitcpd, started at the same time, and ended likewise."""
    with tempfile.TemporaryDirectory(prefix="ct-") as directory, ExitStack() as stack:
        addresses = _free_addresses(count)
        programs = [stack.enter_context(_daemon(Path(directory), address)) for address in addresses]
        for program in programs:
            program.line()
        yield programs
        for program in programs:
            program.process.terminate()


def _daemon(directory: Path, address: str, *options: str, capture: bool = False) -> AbstractContextManager[Program]:
    """A chitcpd whose files are in `directory`, by its address; its first line says that it is ready."""
    files = ["--capture", f"{directory}/{address}.pcap"] if capture else []
    where = ["--socket", f"{directory}/{address}"]
    return running(python("chitcpd", "--port", PORT, "--bind", address, "--announce", "it", *where, *files, *options))


def _free_addresses(count: int) -> list[str]:
    """Neighbours on loopback, on none of which anybody has the port: others may run daemons too."""
    for _ in range(_NETWORKS):
        network = f"127.{random.randrange(64, 128)}.{random.randrange(256)}"
        addresses = [f"{network}.{host}" for host in range(2, 2 + count)]
        if all(map(_is_free, addresses)):
            return addresses
    raise RuntimeError(f"port {PORT} is taken on every loopback address: end the chitcpd that listens there")


def _is_free(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, PORT)) != 0
