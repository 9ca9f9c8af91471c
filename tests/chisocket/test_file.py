"""File transfer between two hosts, through two chitcpd that run."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import chisocket
from chisocket.apps import file
from tests.chisocket.applications import Server, run, serving
from tests.conftest import PATIENCE, Host

PORT = 7000
LINE = r"{verb} {name}: {size} bytes in \d+\.\d\d s, \d+\.\d\d MB/s \(\d+\.\d Mbit/s\), sha256 {sha256}\n"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working directory of the client, on alice."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The directory of the server, on bob."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def server(two_daemons: tuple[Host, Host], there: Path) -> Iterator[Server]:
    with serving(two_daemons[1], "file", port=PORT, cwd=there) as running:
        yield running


@pytest.fixture
def connect(two_daemons: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> Callable[[], chisocket.socket]:
    """Connects this process, on alice, to the server."""
    monkeypatch.setenv("CHITCPD_SOCK", two_daemons[0].socket)
    return lambda: chisocket.create_connection((two_daemons[1].address, PORT))


def random_file(path: Path, size: int) -> str:
    """Write `size` bytes to `path`; returns their SHA-256."""
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def says(output: str, verb: str, name: str, size: int, digest: str) -> bool:
    return re.fullmatch(LINE.format(verb=verb, name=re.escape(name), size=size, sha256=digest), output) is not None


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_fetch(two_daemons: tuple[Host, Host], server: Server, here: Path, there: Path, size: int) -> None:
    digest = random_file(there / "payload.bin", size)
    client = run(two_daemons[0], "file", "fetch", f"bob:{PORT}", "payload.bin", cwd=here)
    assert (client.returncode, client.stderr) == (0, "")
    assert says(client.stdout, "fetched", "payload.bin", size, digest)
    assert sha256(here / "payload.bin") == digest
    # The server says so before the client ends, so nothing is lost if it is ended now.
    assert server.end() == 0
    assert says(server.stdout, "served", "payload.bin", size, digest)


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_push(two_daemons: tuple[Host, Host], server: Server, here: Path, there: Path, size: int) -> None:
    (there / "payload.bin").write_text("an older one")
    digest = random_file(here / "payload.bin", size)
    client = run(two_daemons[0], "file", "push", f"bob:{PORT}", "payload.bin", cwd=here)
    assert (client.returncode, client.stderr) == (0, "")
    assert says(client.stdout, "pushed", "payload.bin", size, digest)
    assert sha256(there / "payload.bin") == digest
    assert os.listdir(there) == ["payload.bin"]
    assert server.end() == 0
    assert says(server.stdout, "received", "payload.bin", size, digest)


@pytest.mark.usefixtures("server")
def test_fetch_with_lost_segments(two_daemons: tuple[Host, Host], here: Path, there: Path) -> None:
    alice, bob = two_daemons
    alice.link(bob, loss=0.05)
    bob.link(alice, loss=0.05)
    digest = random_file(there / "payload.bin", 200_000)
    client = run(alice, "file", "fetch", f"bob:{PORT}", "payload.bin", "--output", "copy", cwd=here)
    assert (client.returncode, client.stderr) == (0, "")
    assert sha256(here / "copy") == digest


@pytest.mark.usefixtures("server")
def test_clients_are_served_at_the_same_time(
    two_daemons: tuple[Host, Host],
    connect: Callable[[], chisocket.socket],
    here: Path,
    there: Path,
) -> None:
    random_file(there / "payload.bin", 1000)
    with connect(), connect():  # who say nothing
        client = run(two_daemons[0], "file", "fetch", f"bob:{PORT}", "payload.bin", cwd=here)
        assert client.returncode == 0


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["no.bin", "directory"])
def test_fetch_of_no_file(two_daemons: tuple[Host, Host], here: Path, there: Path, name: str) -> None:
    (there / "directory").mkdir()
    client = run(two_daemons[0], "file", "fetch", f"bob:{PORT}", name, cwd=here)
    assert (client.returncode, client.stdout) == (1, "")
    assert client.stderr == f"file: the other side says: there is no file '{name}'\n"
    assert os.listdir(here) == []


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"FETCH ../secret\n", "is no file name"),
        (b"FETCH .hidden\n", "is no file name"),
        (b"FETCH \n", "is no file name"),
        (b"FETCH /etc/passwd\n", "is no file name"),
        (b"FETCH a\\b\n", "is no file name"),
        (b"FETCH \xff\n", "is no file name"),
        (b"FETCH a\0b\n", "this is not the file protocol"),
        (b"PUSH 1 ../x\n", "is no file name"),
        (b"PUSH 1 " + b"x" * 256 + b"\n", "a file name of more than 255 bytes"),
        (b"PUSH -1 x\n", "'-1' is no size"),
        (b"PUSH 99999999999999999999999 x\n", "is no size"),
        (b"PUSH 17179869185 x\n", "17179869185 bytes are too many"),
        (b"PUSH 1 directory\n", "it is a directory"),
        (b"GET / HTTP/1.1\r\n", "expected FETCH or PUSH, got 'GET / HTTP/1.1"),
        (b"x" * 1024, "expected FETCH or PUSH"),
    ],
)
def test_the_server_refuses_what_it_must(
    connect: Callable[[], chisocket.socket], there: Path, line: bytes, answer: str
) -> None:
    (there.parent / "secret").write_text("secret")
    (there / ".hidden").write_text("secret")
    (there / "directory").mkdir()
    with connect() as connection, connection.makefile(encoding="utf-8") as answers:
        connection.sendall(line)
        said = answers.read()
    assert said.startswith("ERROR ")
    assert answer in said
    assert sorted(os.listdir(there)) == [".hidden", "directory"]


def test_the_server_goes_on_after_clients_that_hang_up(
    two_daemons: tuple[Host, Host],
    server: Server,
    connect: Callable[[], chisocket.socket],
    here: Path,
    there: Path,
) -> None:
    for start in (b"", b"FET", b"PUSH 10 x\n12345"):
        with connect() as connection:
            connection.sendall(start)
            if start.startswith(b"PUSH"):
                assert connection.recv(10) == b"READY\n"  # left unread, it would make of the end a reset
    random_file(here / "payload.bin", 1000)
    assert run(two_daemons[0], "file", "push", f"bob:{PORT}", "payload.bin", cwd=here).returncode == 0
    assert server.end() == 0
    assert os.listdir(there) == ["payload.bin"]
    assert "x broke off after 5 of 10 bytes" in server.stderr


@pytest.mark.usefixtures("server")
def test_a_push_that_was_changed_on_its_way_is_refused(connect: Callable[[], chisocket.socket], there: Path) -> None:
    with connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b"PUSH 5 x\n")
        assert answers.readline() == b"READY\n"
        connection.sendall(b"hello" + b"SHA256 " + b"0" * 64 + b"\n")
        assert answers.read().startswith(b"ERROR x is not the same on both sides: sha256 2cf24dba5fb0a30e")
    assert os.listdir(there) == []


def test_a_fetch_that_was_changed_on_its_way_is_status_1(
    two_daemons: tuple[Host, Host], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = two_daemons
    monkeypatch.setenv("CHITCPD_SOCK", alice.socket)  # where this process serves

    def serve_wrongly(listener: chisocket.socket) -> bytes:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as requests:
            requests.readline()
            connection.sendall(b"SIZE 5\nhello" + b"SHA256 " + b"0" * 64 + b"\n")
            return bytes(requests.readline())

    with chisocket.create_server(("", PORT)) as listener, ThreadPoolExecutor() as threads:
        verdict = threads.submit(serve_wrongly, listener)
        client = run(bob, "file", "fetch", f"alice:{PORT}", "x", cwd=here)
        assert verdict.result(PATIENCE) == b"SHA256 " + hashlib.sha256(b"hello").hexdigest().encode() + b"\n"
    assert (client.returncode, client.stdout) == (1, "")
    assert client.stderr.startswith("file: x is not the same on both sides: sha256 2cf24dba5fb0a30e")
    assert os.listdir(here) == []


def test_a_server_that_hangs_up_is_status_1(
    two_daemons: tuple[Host, Host], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = two_daemons
    monkeypatch.setenv("CHITCPD_SOCK", alice.socket)

    def hang_up(listener: chisocket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"SIZE 5\nhel")

    with chisocket.create_server(("", PORT)) as listener, ThreadPoolExecutor() as threads:
        threads.submit(hang_up, listener)
        client = run(bob, "file", "fetch", f"alice:{PORT}", "x", cwd=here)
    assert client.returncode == 1
    assert client.stderr == "file: x broke off after 3 of 5 bytes\n"
    assert os.listdir(here) == []


def test_a_signal_lets_a_transfer_end_first(
    server: Server, connect: Callable[[], chisocket.socket], there: Path
) -> None:
    with connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b"PUSH 5 x\n")
        assert answers.readline() == b"READY\n"
        server.process.send_signal(signal.SIGINT)
        connection.sendall(b"hello" + b"SHA256 " + hashlib.sha256(b"hello").hexdigest().encode() + b"\n")
        assert server.next_line().startswith("received x: 5 bytes")
        assert answers.read().startswith(b"SHA256 ")
    assert server.wait() == 0
    assert (there / "x").read_text() == "hello"


def test_a_signal_ends_the_server_in_bounded_time_and_leaves_nothing(
    server: Server, connect: Callable[[], chisocket.socket], there: Path
) -> None:
    with connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b"PUSH 5 x\n")
        assert answers.readline() == b"READY\n"
        assert server.end() == 0
        assert answers.read() == b""  # as when any process ends
    assert os.listdir(there) == []


def test_nobody_listens(two_daemons: tuple[Host, Host], here: Path) -> None:
    client = run(two_daemons[0], "file", "fetch", f"bob:{PORT}", "x", cwd=here)
    assert client.returncode == 1
    assert client.stderr == (
        "file: can't connect to bob:7000 (Connection refused): is a server running there? "
        "Its chitcpd knows: `chitcpd ctl listening 7000`\n"
    )


@pytest.mark.usefixtures("server")
def test_two_servers_on_one_port(two_daemons: tuple[Host, Host], there: Path) -> None:
    second = run(two_daemons[1], "file", "serve", "--port", str(PORT), cwd=there)
    assert (second.returncode, second.stderr) == (1, "file: Address already in use\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fetch", "bob:7000", "../x"), "'../x' is no file name: neither a path"),
        (("fetch", "bob:7000", "x", "--output", "."), "no file can be written at '.': it is a directory"),
        (("fetch", "bob:7000", "x", "--output", "no/x"), "no file can be written at 'no/x'"),
        (("push", "bob:7000", "no/x"), "there is no file 'no/x'"),
        (("serve", "--directory", "no"), "there is no directory 'no': make it"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_sent(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("CHITCPD_SOCK", str(here / "nobody"))
    assert file.main(list(arguments)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"file: {message}")
    assert said.err.count("\n") == 1


def test_help_tells_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        file.main(["--help"])
    said = capsys.readouterr().out
    assert all(command in said for command in ("serve", "fetch", "push", "CHITCPD_SOCK"))
