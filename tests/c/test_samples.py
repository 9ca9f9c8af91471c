"""The samples, with the Python library at the other end: both profiles, both ways, sizes at the edges of segments and
buffers."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import chisocket
from tests.c.conftest import CHISOCKET, WRAPPER, home
from tests.daemon.conftest import PATIENCE, Daemon, running_daemon

SIZES = (1, 535, 536, 537, 1072, 4096, 4097, 32768)  # MSS of `classic` 536, its buffers 4096 bytes
PAYLOAD = bytes(i % 251 for i in range(max(SIZES)))  # the pattern of chisocket-bulk


@pytest.fixture(scope="module", params=["classic", "modern"])
def pair(request: pytest.FixtureRequest, directory: Path) -> Iterator[tuple[Daemon, Daemon]]:
    with (
        running_daemon(directory, "--profile", request.param) as alice,
        running_daemon(directory, "--profile", request.param) as bob,
    ):
        yield alice, bob


@pytest.fixture(params=CHISOCKET)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def sample(build: Path, daemon: Daemon, way: str, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sample, until the end of the block."""
    command = [*WRAPPER, str(build / f"chisocket-{name}"), *arguments]
    process = subprocess.Popen(
        command, env=home(daemon.socket, way), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(build: Path, daemon: Daemon, way: str, name: str, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """A sample's exit status, and what it has written."""
    with sample(build, daemon, way, name, *arguments) as process:
        output, _ = process.communicate(stdin, timeout=PATIENCE)
        return process.returncode, output


@contextlib.contextmanager
def listening(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[chisocket.socket, str]]:
    """A Python socket at this daemon, and its port."""
    monkeypatch.setenv("CHITCPD_SOCK", daemon.socket)
    with chisocket.create_server((daemon.address, 0)) as server:
        server.settimeout(PATIENCE)
        yield server, str(server.getsockname()[1])


def free_port(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> str:
    with listening(daemon, monkeypatch) as (_, port):
        return port


def receive_all(sock: chisocket.socket) -> bytes:
    received = bytearray()
    while data := sock.recv(1 << 16):
        received += data
    return bytes(received)


def test_hello(
    build: Path, pair: tuple[Daemon, Daemon], way: str, monkeypatch: pytest.MonkeyPatch, background: ThreadPoolExecutor
) -> None:
    with listening(pair[1], monkeypatch) as (server, port):
        client = background.submit(run, build, pair[0], way, "hello", pair[1].address, port)
        with server.accept()[0] as sock:
            assert receive_all(sock) == b"Hello!"
        assert client.result(PATIENCE) == (0, b"")


def test_echo_from_c_to_python(
    build: Path, pair: tuple[Daemon, Daemon], way: str, monkeypatch: pytest.MonkeyPatch, background: ThreadPoolExecutor
) -> None:
    def echo(server: chisocket.socket) -> None:
        with server.accept()[0] as sock:
            while data := sock.recv(5000):
                sock.sendall(data)

    with listening(pair[1], monkeypatch) as (server, port):
        for size in SIZES:
            echoing = background.submit(echo, server)
            status, output = run(build, pair[0], way, "echo-client", pair[1].address, port, stdin=PAYLOAD[:size])
            assert (status, output) == (0, PAYLOAD[:size])
            echoing.result(PATIENCE)


def test_echo_from_python_to_c(
    build: Path, pair: tuple[Daemon, Daemon], way: str, monkeypatch: pytest.MonkeyPatch, background: ThreadPoolExecutor
) -> None:
    port = free_port(pair[1], monkeypatch)
    with sample(build, pair[1], way, "echo-server", port):
        pair[1].ask("wait_listening", port=int(port))
        monkeypatch.setenv("CHITCPD_SOCK", pair[0].socket)
        for size in SIZES:
            with chisocket.create_connection((pair[1].address, int(port)), timeout=PATIENCE) as sock:
                sending = background.submit(sock.sendall, PAYLOAD[:size])
                received = bytearray()
                while len(received) < size:
                    received += sock.recv(size - len(received)) or pytest.fail("the echo has ended")
                assert received == PAYLOAD[:size]
                sending.result(PATIENCE)


def test_one_way_from_c_to_python(
    build: Path, pair: tuple[Daemon, Daemon], way: str, monkeypatch: pytest.MonkeyPatch, background: ThreadPoolExecutor
) -> None:
    with listening(pair[1], monkeypatch) as (server, port):
        for size in SIZES:
            client = background.submit(run, build, pair[0], way, "bulk", "send", pair[1].address, port, str(size))
            with server.accept()[0] as sock:
                assert receive_all(sock) == PAYLOAD[:size]
            status, output = client.result(PATIENCE)
            assert status == 0
            assert output.startswith(b"sent %d bytes in " % size)


def test_one_way_from_python_to_c(
    build: Path, pair: tuple[Daemon, Daemon], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in SIZES:
        port = free_port(pair[1], monkeypatch)
        with sample(build, pair[1], way, "bulk", "receive", port) as receiver:
            pair[1].ask("wait_listening", port=int(port))
            monkeypatch.setenv("CHITCPD_SOCK", pair[0].socket)
            with chisocket.create_connection((pair[1].address, int(port)), timeout=PATIENCE) as sock:
                sock.sendall(PAYLOAD[:size])
            output, _ = receiver.communicate(timeout=PATIENCE)
            assert b"received %d bytes in " % size in output
            assert receiver.returncode == 0


def test_a_damaged_stream_is_noticed(
    build: Path, pair: tuple[Daemon, Daemon], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port(pair[1], monkeypatch)
    with sample(build, pair[1], way, "bulk", "receive", port) as receiver:
        pair[1].ask("wait_listening", port=int(port))
        monkeypatch.setenv("CHITCPD_SOCK", pair[0].socket)
        with chisocket.create_connection((pair[1].address, int(port)), timeout=PATIENCE) as sock:
            sock.sendall(PAYLOAD[:300] + b"?" + PAYLOAD[301:600])
        output, _ = receiver.communicate(timeout=PATIENCE)
    assert receiver.returncode == 1
    assert b"byte 300 is not the one that was sent" in output


@pytest.mark.parametrize("name", ["hello", "echo-client", "echo-server", "bulk"])
def test_wrong_usage(build: Path, pair: tuple[Daemon, Daemon], name: str) -> None:
    status, output = run(build, pair[0], "descriptors", name, "one", "two", "three", "four", "five")
    assert status == 2
    assert output.startswith(b"usage: ")


@pytest.mark.parametrize(
    ("host", "port", "hosts", "expected"),
    [
        ("nobody.invalid", "7", "", "No such device or address"),
        ("127.0.0.1", "99999", "", "No such device or address"),
        ("bob", "7", "bob:127.0.0.3", "Invalid argument"),
    ],
)
def test_a_host_that_nobody_knows(
    build: Path,
    pair: tuple[Daemon, Daemon],
    host: str,
    port: str,
    hosts: str,
    expected: str,
) -> None:
    command = [*WRAPPER, str(build / "chisocket-echo-client"), host, port]
    env = home(pair[0].socket, CHITCP_HOSTS=hosts)
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"host {host}, port {port}: {expected} (CHITCP_HOSTS is {hosts})\n"


def test_no_daemon(build: Path) -> None:
    command = [*WRAPPER, str(build / "chisocket-echo-server"), "7"]
    done = subprocess.run(command, env=home("/tmp/nobody.sock"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("socket: Network is down\nNo chitcpd answers: start one, or set CHITCPD_SOCK")


def test_threads(build: Path, pair: tuple[Daemon, Daemon], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 threads, 5 connections each one after the other, and a server with a thread for each."""
    port = free_port(pair[1], monkeypatch)
    with sample(build, pair[1], way, "echo-server", port):
        pair[1].ask("wait_listening", port=int(port))
        command = [*WRAPPER, str(build / "threads"), pair[1].address, port, "16", "5"]
        done = subprocess.run(
            command, env=home(pair[0].socket, way), capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "80\n", "")
