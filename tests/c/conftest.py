"""The C library, built by `make c`, and a program that makes the calls that tests tell it (chisocket/c/tests/calls.c).

CHITCP_C_BUILD names another build (`make c-checks`: other compilers, sanitizers), CHITCP_C_WRAPPER a command that runs
its programs (valgrind). Without a build these tests are skipped, with the reason; with REQUIRE_C=1 they fail instead.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from chisocket.protocol.addresses import pack
from tests.chisocket.conftest import alice_daemon, background, bob_daemon, directory, ipv6_daemon
from tests.daemon.conftest import PATIENCE, PROJECT, Daemon, environment

__all__ = ["alice_daemon", "background", "bob_daemon", "directory", "ipv6_daemon"]

BUILD = Path(os.environ.get("CHITCP_C_BUILD", PROJECT / "build" / "c")).absolute()
WRAPPER = shlex.split(os.environ.get("CHITCP_C_WRAPPER", ""))
CHISOCKET = ("descriptors", "requests")  # the ways of libchisocket
BY_DESCRIPTOR = ("descriptors", "chirun")
WAYS = (*CHISOCKET, "chirun")


@pytest.fixture(scope="session", autouse=True)
def build() -> Path:
    """The folder with what was built."""
    if not (BUILD / "calls").exists():
        why = f"{BUILD} has no build of the C library: `make c` makes one, and says what it needs"
        if os.environ.get("REQUIRE_C"):
            pytest.fail(f"{why} (REQUIRE_C is set)", pytrace=False)
        pytest.skip(why)
    return BUILD


class Answer(NamedTuple):
    """What a call has returned."""

    ret: int
    errno: int  # 0 if it succeeded
    data: str  # what it has brought: hexadecimal digits, mostly

    @property
    def bytes(self) -> bytes:
        return bytes.fromhex(self.data)


class Calls:
    """The program, and one call after another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, name: str, *arguments: object) -> Answer:
        """Make a call, and wait for what it returns. Bytes are arguments too; None is NULL."""
        self.begin(name, *arguments)
        return self.end()

    def begin(self, name: str, *arguments: object) -> None:
        """Make a call that waits."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join([name, *map(_word, arguments)]) + "\n")
        self.process.stdin.flush()

    def end(self) -> Answer:
        """Wait until it has returned."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the program has ended with status {self.process.wait(PATIENCE)}"
        ret, error, data = line.removesuffix("\n").split(" ", 2)
        return Answer(int(ret), int(error), data)

    def kill(self) -> None:
        """End the program at once, as SIGKILL does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def good(self, name: str, *arguments: object) -> Answer:
        """Make a call that has to succeed."""
        answer = self(name, *arguments)
        assert answer.ret >= 0, f"{name}{arguments}: {os.strerror(answer.errno)}"
        return answer


def _word(argument: object) -> str:
    if argument is None:
        return "NULL"
    if isinstance(argument, bytes):
        return argument.hex() or "-"  # a word there has to be
    return str(argument)


def addr(host: str, port: int) -> bytes:
    """A socket address as C has it."""
    return pack((host, port))


def program(build: Path, way: str) -> list[str]:
    """The command that makes the calls in this way."""
    if way == "chirun":
        return [str(build / "chirun"), str(build / "system-calls")]
    return [*WRAPPER, str(build / "calls")]


def home(path: str, way: str = "descriptors", **more: str) -> dict[str, str]:
    """The environment of a program that uses the daemon at this path, in this way."""
    own = {"CHITCPD_SOCK": path, **more}
    if way == "requests":
        own["CHISOCKET_REQUESTS"] = "1"
    if way == "chirun":  # in a build with it: LD_PRELOAD puts us before it, and the programs' own leaks are not ours
        own["ASAN_OPTIONS"] = "verify_asan_link_order=0:detect_leaks=0"
    return {**environment(), **own}


@contextlib.contextmanager
def calling(build: Path, path: str, way: str, **more: str) -> Iterator[Calls]:
    """The program, until the end of the block; it must end in order, which is when sanitizers tell what they found."""
    process = subprocess.Popen(
        program(build, way), env=home(path, way, **more), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield Calls(process)
            if process.poll() != -signal.SIGKILL:  # else the test has ended it
                assert process.stdin is not None
                process.stdin.close()
                assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


class Start(Protocol):
    """The fixture `start`: `start(daemon, "requests")`."""

    def __call__(self, daemon: Daemon | str, way: str, **more: str) -> Calls:
        """One more program; of a daemon, or of whoever has the UNIX socket at a path."""


@pytest.fixture
def start(build: Path) -> Iterator[Start]:
    """Starts programs, which end with the test."""
    with ExitStack() as stack:

        def start(daemon: Daemon | str, way: str, **more: str) -> Calls:
            path = daemon if isinstance(daemon, str) else daemon.socket
            return stack.enter_context(calling(build, path, way, **more))

        yield start


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How the programs of a test use their daemon: each way, if the test does not say otherwise."""
    return str(request.param)


@pytest.fixture
def client(start: Start, alice_daemon: Daemon, way: str) -> Calls:
    """A program of alice's daemon."""
    return start(alice_daemon, way)


@pytest.fixture
def server(start: Start, bob_daemon: Daemon, way: str) -> Calls:
    """A program of bob's daemon."""
    return start(bob_daemon, way)


def listening(calls: Calls, host: str, backlog: int = 5) -> tuple[int, int]:
    """A listening socket: its number, and its port."""
    sock = calls.good("socket", 10 if ":" in host else 2, 1, 6).ret
    calls.good("bind", sock, addr(host, 0))
    calls.good("listen", sock, backlog)
    name = calls.good("getsockname", sock, 128).bytes
    return sock, int.from_bytes(name[2:4], "big")


def connected(client: Calls, server: Calls, host: str) -> tuple[int, int]:
    """A connection: its socket at the client, and at the server."""
    listener, port = listening(server, host)
    sock = client.good("socket", 10 if ":" in host else 2, 1, 0).ret
    client.good("connect", sock, addr(host, port))
    accepted = server.good("accept", listener, 128).ret
    server.good("close", listener)
    return sock, accepted


def needs(program: str) -> None:
    """Skip the test, or let it fail, where a program is not installed."""
    if shutil.which(program) is None:
        if os.environ.get("REQUIRE_C"):
            pytest.fail(f"{program} is not installed (REQUIRE_C is set)", pytrace=False)
        pytest.skip(f"{program} is not installed")
