"""Echo between two hosts, and what the class `socket` does with chitcpd that run."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

import chisocket
from chisocket.apps import _serving
from tests.chisocket.applications import Server, run, serving
from tests.conftest import PATIENCE, Host

PORT = 7


@pytest.fixture
def server(two_daemons: tuple[Host, Host], tmp_path: Path) -> Iterator[Server]:
    with serving(two_daemons[1], "echo", port=PORT, cwd=tmp_path) as running:
        yield running


@pytest.fixture
def alice(two_daemons: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> Host:
    """The host on which this process is."""
    for name, value in two_daemons[0].environment.items():
        monkeypatch.setenv(name, value)
    return two_daemons[0]


def test_a_text_comes_back(two_daemons: tuple[Host, Host], server: Server, tmp_path: Path) -> None:
    client = run(two_daemons[0], "echo", "send", "bob:7", "hello", "there", cwd=tmp_path)
    assert (client.returncode, client.stdout, client.stderr) == (0, "hello there\n", "")
    assert server.next_line().startswith(f"echoed 12 bytes to {two_daemons[0].address}:")


@pytest.mark.usefixtures("server")
def test_lines_come_back_however_long_they_are(two_daemons: tuple[Host, Host], tmp_path: Path) -> None:
    text = "one\n\n" + "long " * 10_000 + "\nno newline"
    client = run(two_daemons[0], "echo", "send", "bob:7", cwd=tmp_path, stdin=text)
    assert (client.returncode, client.stdout, client.stderr) == (0, text, "")


@pytest.mark.usefixtures("alice")
def test_what_is_no_echo_is_status_1(
    two_daemons: tuple[Host, Host], tmp_path: Path, background: ThreadPoolExecutor
) -> None:
    def shout() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(100).upper())

    with chisocket.create_server(("", PORT)) as listener:
        background.submit(shout)
        client = run(two_daemons[1], "echo", "send", "alice:7", "hello", cwd=tmp_path)
    assert (client.returncode, client.stdout) == (1, "HELLO\n")
    assert client.stderr == "echo: sent 6 bytes, and 6 other ones came back: is it an echo server?\n"


@pytest.mark.usefixtures("alice")
def test_a_server_that_ends_early_is_status_1(
    two_daemons: tuple[Host, Host], tmp_path: Path, background: ThreadPoolExecutor
) -> None:
    def end() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(100)[:2])

    with chisocket.create_server(("", PORT)) as listener:
        background.submit(end)
        client = run(two_daemons[1], "echo", "send", "alice:7", "hello", cwd=tmp_path)
    assert (client.returncode, client.stdout) == (1, "he")
    assert client.stderr == "echo: the server ended after 2 of 6 bytes: see what it printed\n"


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("bob", "'bob' is no HOST:PORT: expected something like bob:7000"),
        ("bob:x", "'x' is no port: expected a number from 0 to 65535"),
        ("bob:65536", "'65536' is no port: expected a number from 0 to 65535"),
    ],
)
def test_wrong_usage_is_status_2(to: str, message: str) -> None:
    command = [sys.executable, "-m", "chisocket.apps.echo", "send", to, "hello"]
    client = subprocess.run(command, capture_output=True, text=True, check=False)
    assert client.returncode == 2
    assert message in client.stderr


def test_no_daemon_is_status_1_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHITCPD_SOCK", str(tmp_path / "nobody"))
    command = [sys.executable, "-m", "chisocket.apps.echo", "send", "127.0.0.1:7", "hello"]
    client = subprocess.run(command, capture_output=True, text=True, check=False)
    assert client.returncode == 1
    assert client.stderr.startswith(f"echo: no chitcpd answers at {tmp_path}/nobody")
    assert client.stderr.count("\n") == 1


@pytest.mark.usefixtures("server")
def test_a_conversation(alice: Host, two_daemons: tuple[Host, Host]) -> None:
    with chisocket.create_connection(("bob", PORT), source_address=("alice", 4321)) as connection:
        assert connection.getsockname() == (alice.address, 4321)
        assert connection.getpeername() == (two_daemons[1].address, PORT)
        connection.sendall(b"one")
        buffer = bytearray(10)
        assert connection.recv_into(buffer) == 3
        assert buffer[:3] == b"one"
        connection.sendall(b"two")
        connection.shutdown(chisocket.SHUT_WR)
        with connection.makefile("rb") as rest:
            assert rest.read() == b"two"
        assert connection.recv(10) == b""
        with pytest.raises(BrokenPipeError):
            connection.send(b"more")


@pytest.mark.usefixtures("alice", "server")
def test_megabytes_both_ways_at_once(background: ThreadPoolExecutor) -> None:
    data = bytes(range(256)) * (4 << 12)  # 4 MiB, more than all buffers on the way hold
    with chisocket.create_connection(("bob", PORT)) as connection:
        sending = background.submit(connection.sendall, data)
        with connection.makefile("rb") as back:
            assert back.read(len(data)) == data
        sending.result(PATIENCE)


@pytest.mark.usefixtures("alice")
def test_a_connection_to_the_own_host(background: ThreadPoolExecutor) -> None:
    with chisocket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        accepting = background.submit(listener.accept)
        with chisocket.create_connection(("alice", port)) as connection:
            accepted, address = accepting.result(PATIENCE)
            with accepted:
                assert address == connection.getsockname()
                connection.sendall(b"myself")
                assert accepted.recv(100) == b"myself"


@pytest.mark.usefixtures("alice")
def test_connect_ex_to_a_port_where_nobody_listens() -> None:
    with chisocket.socket() as sock:
        assert sock.connect_ex(("bob", 9)) == errno.ECONNREFUSED


@pytest.mark.usefixtures("alice")
def test_what_a_process_has_closed_arrives_after_its_end(two_daemons: tuple[Host, Host]) -> None:
    sending = 'import chisocket; c = chisocket.create_connection(("alice", 7)); c.sendall(bytes(10_000)); c.close()'
    with chisocket.create_server(("", PORT)) as listener:
        process = subprocess.Popen([sys.executable, "-c", sending], env=two_daemons[1].environment)
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as incoming:
            assert process.wait(PATIENCE) == 0
            assert incoming.read() == bytes(10_000)


def test_clients_beyond_the_limit_wait_for_their_turn(
    alice: Host, background: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serving, "MAX_CLIENTS", 1)
    events: SimpleQueue[bytes] = SimpleQueue()

    def serve(client: chisocket.socket, _peer: str) -> None:
        name = client.recv(1)
        events.put(name + b" begins")
        client.recv(1)  # until it ends
        events.put(name + b" ends")

    over: SimpleQueue[OSError | None] = SimpleQueue()
    clients = _serving._Clients("test", serve)
    with chisocket.create_server(("", PORT)) as listener:
        background.submit(clients.accept, listener, over)
        with chisocket.create_connection((alice.address, PORT)) as first:
            first.sendall(b"1")
            assert events.get(timeout=PATIENCE) == b"1 begins"
            with chisocket.create_connection((alice.address, PORT)) as second:
                second.sendall(b"2")
                first.close()
                assert [events.get(timeout=PATIENCE) for _ in range(2)] == [b"1 ends", b"2 begins"]
    assert over.get(timeout=PATIENCE) is not None
    clients.finish()


def test_a_server_whose_daemon_dies_says_so(two_daemons: tuple[Host, Host], tmp_path: Path) -> None:
    with serving(two_daemons[1], "echo", port=PORT, cwd=tmp_path, status=1) as server:
        two_daemons[1].daemon.terminate()
        server.wait()
        assert two_daemons[1].daemon.wait(PATIENCE) == 0
        assert server.stderr.splitlines()[1] == "echo: the socket was shut down, or its chitcpd has ended"
        assert server.stderr.count("\n") == 2
