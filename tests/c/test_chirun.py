"""chirun, and programs that were never made for chiTCP under it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import chitcpd
from tests.c.conftest import Calls, Start, addr, connected, home, listening, needs
from tests.chisocket.scripted_daemon import scripted_daemon
from tests.daemon.conftest import PATIENCE, Daemon

PYTHON = str(Path(sys.executable).resolve())


def chirun(
    build: Path, daemon: Daemon, *command: str, stdin: str = "", timeout: float = 60, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [str(build / "chirun"), *command],
        env=home(daemon.socket, "chirun", **more),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextlib.contextmanager
def serving(build: Path, daemon: Daemon, port: int, *command: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that serves during the block."""
    process = subprocess.Popen(
        [str(build / "chirun"), *command],
        env=home(daemon.socket, "chirun", PYTHONUNBUFFERED="1"),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            daemon.ask("wait_listening", port=port)
            yield process
        finally:
            process.kill()


class TestPrograms:
    @pytest.mark.parametrize("loss", ["0%", "5%"])
    def test_curl_gets_a_file_from_http_server(
        self, build: Path, alice_daemon: Daemon, bob_daemon: Daemon, tmp_path: Path, loss: str
    ) -> None:
        needs("curl")
        payload = random.Random(1).randbytes(1 << 20)
        (tmp_path / "file").write_bytes(payload)
        names = f"bob={bob_daemon.address}"
        for daemon, peer in ((alice_daemon, bob_daemon), (bob_daemon, alice_daemon)):
            daemon.ask(
                "links",
                links=[{"peers": [peer.address], "own": daemon.address, "seed": 1, "loss": float(loss[:-1]) / 100}],
            )
        with serving(build, bob_daemon, 8000, PYTHON, "-m", "http.server", "8000", cwd=tmp_path):
            got = chirun(
                build,
                alice_daemon,
                "curl",
                "-sS",
                "http://bob:8000/file",
                "-o",
                str(tmp_path / "got"),
                CHITCP_HOSTS=names,
            )
        for daemon, peer in ((alice_daemon, bob_daemon), (bob_daemon, alice_daemon)):
            daemon.ask("links", links=[{"peers": [peer.address], "own": daemon.address}])
        assert (got.returncode, got.stderr) == (0, "")
        received = hashlib.sha256((tmp_path / "got").read_bytes()).hexdigest()
        assert received == hashlib.sha256(payload).hexdigest()

    def test_netcat_chats(self, build: Path, alice_daemon: Daemon, bob_daemon: Daemon, tmp_path: Path) -> None:
        needs("nc")
        with serving(build, bob_daemon, 9000, "nc", "-l", "9000", cwd=tmp_path) as server:
            assert server.stdin is not None
            server.stdin.write("Who is there?\n")
            server.stdin.flush()
            client = subprocess.Popen(
                [str(build / "chirun"), "nc", bob_daemon.address, "9000"],
                env=home(alice_daemon.socket, "chirun"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            with client:
                assert client.stdin is not None
                assert client.stdout is not None
                assert server.stdout is not None
                assert client.stdout.readline() == "Who is there?\n"
                client.stdin.write("It is me.\n")
                client.stdin.flush()
                assert server.stdout.readline() == "It is me.\n"
                client.kill()

    def test_the_program_opens_no_kernel_tcp_socket(
        self, build: Path, alice_daemon: Daemon, bob_daemon: Daemon, tmp_path: Path
    ) -> None:
        needs("curl")
        needs("strace")
        (tmp_path / "file").write_text("content")
        trace = tmp_path / "trace"
        with serving(build, bob_daemon, 8001, PYTHON, "-m", "http.server", "8001", cwd=tmp_path):
            done = subprocess.run(
                [
                    *("strace", "-f", "-e", "trace=socket,connect", "-o", str(trace)),
                    *(str(build / "chirun"), "curl", "-sS", f"http://{bob_daemon.address}:8001/file"),
                ],
                env=home(alice_daemon.socket, "chirun"),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert (done.returncode, done.stdout) == (0, "content")
        opened = re.findall(r"socket\((\w+), (\w+)", trace.read_text())
        assert ("AF_UNIX", "SOCK_STREAM") in opened
        assert not [(family, kind) for family, kind in opened if family.startswith("AF_INET") and kind == "SOCK_STREAM"]

    def test_other_sockets_are_the_kernels(self, build: Path, alice_daemon: Daemon) -> None:
        code = (
            "import socket as s\n"
            "for kind in (s.AF_INET, s.SOCK_STREAM), (s.AF_INET, s.SOCK_DGRAM), (s.AF_UNIX, s.SOCK_STREAM):\n"
            "    sock = s.socket(*kind)\n"
            "    import os; print(os.readlink(f'/proc/self/fd/{sock.fileno()}')[:6], sock.family.name)\n"
            "a, b = s.socketpair(); a.send(b'x'); print(b.recv(1)); a.close(); print(b.recv(1))\n"
            "u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.bind(('127.0.0.1', 0)); print(u.getsockname()[0])\n"
        )
        done = chirun(build, alice_daemon, PYTHON, "-c", code)
        assert done.stderr == ""
        shown = ["socket AF_INET", "socket AF_INET", "socket AF_UNIX", "b'x'", "b''", "127.0.0.1"]
        assert done.stdout.splitlines() == shown

    def test_a_child_that_was_executed(
        self, build: Path, alice_daemon: Daemon, bob_daemon: Daemon, tmp_path: Path
    ) -> None:
        """A server that gives its connection to another program as standard input and output, as inetd does."""
        code = (
            "import os, socket, sys\n"
            "server = socket.create_server(('', 9001)); sock, _ = server.accept()\n"
            "os.dup2(sock.fileno(), 0); os.dup2(sock.fileno(), 1)\n"
            "os.execvp('cat', ['cat'])\n"
        )
        with serving(build, bob_daemon, 9001, PYTHON, "-c", code, cwd=tmp_path):
            ask = (
                f"import socket; s = socket.create_connection(('{bob_daemon.address}', 9001)); s.sendall(b'a cat');"
                "s.shutdown(socket.SHUT_WR); print(s.makefile().read())"
            )
            done = chirun(build, alice_daemon, PYTHON, "-c", ask)
        assert (done.stdout, done.stderr) == ("a cat\n", "")


class TestCalls:
    """What a pair of UNIX sockets would answer otherwise than a TCP does."""

    @pytest.fixture
    def client(self, start: Start, alice_daemon: Daemon) -> Calls:
        return start(alice_daemon, "chirun")

    @pytest.fixture
    def server(self, start: Start, bob_daemon: Daemon) -> Calls:
        return start(bob_daemon, "chirun")

    @pytest.mark.parametrize("call", ["read", "readv", "recv", "recvfrom", "recvmsg"])
    def test_reading(self, client: Calls, server: Calls, bob_daemon: Daemon, call: str) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        server.good("send", accepted, b"data")
        assert client(call, sock, 100).bytes == b"data"  # and no sender's address
        client.good("send", sock, b"unread")
        assert server("poll", accepted, 1, 10_000).ret == 1
        server.kill()
        assert client(call, sock, 100).errno == errno.ECONNRESET  # not an end of file

    @pytest.mark.parametrize("call", ["write", "writev", "send", "sendto", "sendmsg"])
    def test_writing(self, client: Calls, server: Calls, bob_daemon: Daemon, call: str) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        assert client(call, sock, b"data").ret == 4  # whatever address sendto and sendmsg name
        assert server("recv", accepted, 100).bytes == b"data"
        client.good("send", sock, b"unread")
        assert server("poll", accepted, 1, 10_000).ret == 1
        server.kill()
        assert client("poll", sock, 0, 10_000).ret & 0x10  # POLLHUP
        assert client(call, sock, b"data").errno == errno.ECONNRESET
        assert client(call, sock, b"data").errno == errno.EPIPE

    @pytest.mark.parametrize("call", ["write", "writev", "send", "sendto", "sendmsg"])
    def test_the_signal_comes_behind_the_error(
        self, client: Calls, server: Calls, bob_daemon: Daemon, call: str
    ) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        client.good("die_of_sigpipe")
        client.good("send", sock, b"unread")
        assert server("poll", accepted, 1, 10_000).ret == 1
        server.kill()
        assert client("poll", sock, 0, 10_000).ret & 0x10  # POLLHUP
        assert client(call, sock, b"data").errno == errno.ECONNRESET
        client.begin(call, sock, b"data")
        assert client.process.wait(PATIENCE) == -signal.SIGPIPE
        client.process.returncode = -signal.SIGKILL  # it was the test's doing

    @pytest.mark.parametrize("call", ["sendto", "sendmsg"])
    def test_fast_open_is_not_to_be_had(self, client: Calls, call: str) -> None:
        sock = client.good("socket", 2, 1, 0).ret
        assert client(call, sock, b"data", 0x20000000).errno == errno.EOPNOTSUPP

    def test_a_program_that_empties_its_environment(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        client.good("empty_environment")
        sock, accepted = connected(client, server, bob_daemon.address)
        client.good("setsockopt", sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1))
        client.good("send", sock, b"still known")
        assert server("recv", accepted, 100).bytes == b"still known"

    def test_an_end_of_file_is_one(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        server.good("close", accepted)
        assert client("read", sock, 100) == (0, 0, "")
        client.good("shutdown", sock, socket.SHUT_WR)
        assert client("read", sock, 100) == (0, 0, "")

    def test_close_lingers(self, client: Calls, server: Calls, alice_daemon: Daemon, bob_daemon: Daemon) -> None:
        """It returns once the peer has acknowledged all, over a slow link; without the option, at once."""
        link = {"peers": [bob_daemon.address], "own": alice_daemon.address, "seed": 1}
        for seconds in (10, 0):
            sock, accepted = connected(client, server, bob_daemon.address)
            client.good(
                "setsockopt", sock, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", seconds > 0, seconds)
            )
            alice_daemon.ask("links", links=[link | {"delay": 0.2}])
            client.good("send", sock, b"the last")
            began = time.monotonic()
            client.good("close", sock)
            assert (time.monotonic() - began >= 0.2) == (seconds > 0)
            alice_daemon.ask("links", links=[link])
            assert server("recv", accepted, 100).bytes == b"the last"

    @pytest.mark.parametrize("call", ["write", "writev"])
    def test_a_copy_is_no_worse(self, client: Calls, server: Calls, bob_daemon: Daemon, call: str) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        client.good("duplicate", sock, 50)
        client.good("close", sock)
        client.good("die_of_sigpipe")
        client.good("send", 50, b"unread")
        assert server("poll", accepted, 1, 10_000).ret == 1
        server.kill()
        assert client("poll", 50, 0, 10_000).ret & 0x10  # POLLHUP
        assert client(call, 50, b"data").errno == errno.ECONNRESET

    def test_names(self, start: Start, alice_daemon: Daemon) -> None:
        calls = start(alice_daemon, "chirun", CHITCP_HOSTS="alice=10.1.2.3  bob6=fd00::7 alice2=10.1.2.4 ")
        for family in (0, 2):  # AF_UNSPEC, AF_INET
            assert calls("resolve", "alice", 7, family).bytes == addr("10.1.2.3", 7)
        assert calls("resolve", "bob6", 7, 10).bytes == addr("fd00::7", 7)
        assert calls("resolve", "alice2", 7, 0).bytes == addr("10.1.2.4", 7)
        assert calls("resolve", "ali", 7, 0).ret != 0
        assert calls("resolve", "bob6", 7, 2).ret != 0
        assert calls("resolve", "127.0.0.1", 7, 2).bytes == addr("127.0.0.1", 7)

    def test_gethostbyname(self, build: Path, alice_daemon: Daemon) -> None:
        code = (
            "import socket; print(socket.gethostbyname('bob'), socket.gethostbyname_ex('bob'))\n"
            "print(socket.getaddrinfo('bob', 7, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_CANONNAME)[0][3:])"
        )
        done = chirun(build, alice_daemon, PYTHON, "-c", code, CHITCP_HOSTS="bob=10.1.2.3")
        assert done.stderr == ""
        assert done.stdout == "10.1.2.3 ('bob', [], ['10.1.2.3'])\n('bob', ('10.1.2.3', 7))\n"


def port_of_nobody() -> int:
    """A port that is free in the kernel, too, and stays so: the kernel gives it to nobody who asks for any."""
    for port in random.sample(range(10_000, 23_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
    raise AssertionError("each of a hundred ports is taken")


class TestNetworks:
    """CHITCP_NETWORKS: what is not the lab's is the kernel's."""

    @pytest.fixture
    def kernels(self) -> Iterator[socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE)
            yield server

    def test_without_it_all_is_the_labs(self, start: Start, alice_daemon: Daemon, kernels: socket.socket) -> None:
        calls = start(alice_daemon, "chirun")
        sock = calls.good("socket", 2, 1, 0).ret
        calls.good("nonblocking", sock)
        assert calls("connect", sock, addr("127.0.0.1", kernels.getsockname()[1])).errno == errno.EINPROGRESS
        kernels.settimeout(0.2)
        with pytest.raises(TimeoutError):
            kernels.accept()

    @pytest.mark.parametrize("networks", ["127.40.0.0/13", "10.0.0.0/8 127.40.0.0/13", "fd00::/8", "127.0.0.2"])
    def test_a_connect_elsewhere(
        self, start: Start, alice_daemon: Daemon, kernels: socket.socket, networks: str
    ) -> None:
        calls = start(alice_daemon, "chirun", CHITCP_NETWORKS=networks)
        sock = calls.good("socket", 2, 1, 0).ret
        calls.good("setsockopt", sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1))
        calls.good("connect", sock, addr("127.0.0.1", kernels.getsockname()[1]))
        with kernels.accept()[0] as accepted:
            accepted.sendall(b"of the kernel")
            assert calls("recv", sock, 100).bytes == b"of the kernel"
        nodelay = calls.good("getsockopt", sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 4).bytes
        assert nodelay == struct.pack("i", 1)  # it was set before

    @pytest.mark.parametrize("networks", ["127.32.0.0/11", "127.0.0.0/8 ::/0", "::ffff:127.0.0.0/104"])
    def test_a_connect_in_the_lab(self, start: Start, alice_daemon: Daemon, bob_daemon: Daemon, networks: str) -> None:
        client = start(alice_daemon, "chirun", CHITCP_NETWORKS=networks)
        server = start(bob_daemon, "chirun", CHITCP_NETWORKS=networks)
        sock, accepted = connected(client, server, bob_daemon.address)
        client.good("send", sock, b"in the lab")
        assert server("recv", accepted, 100).bytes == b"in the lab"

    def test_what_was_said_before_is_kept(self, start: Start, alice_daemon: Daemon, kernels: socket.socket) -> None:
        calls = start(alice_daemon, "chirun", CHITCP_NETWORKS="10.0.0.0/8")
        sock = calls.good("socket", 2, 1, 0).ret
        port = port_of_nobody()
        calls.good("bind", sock, addr("0.0.0.0", port))
        limit = struct.pack("@ll", 0, 200_000)
        calls.good("setsockopt", sock, socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        calls.good("connect", sock, addr("127.0.0.1", kernels.getsockname()[1]))
        assert calls.good("getsockname", sock, 16).bytes[2:4] == port.to_bytes(2)
        assert calls("recv", sock, 10).errno == errno.EAGAIN  # and it does not wait for ever

    def test_one_that_is_in_use_stays(self, start: Start, alice_daemon: Daemon, bob_daemon: Daemon) -> None:
        lab = {"CHITCP_NETWORKS": "127.40.0.0/13"}
        client, server = start(alice_daemon, "chirun", **lab), start(bob_daemon, "chirun", **lab)
        sock, accepted = connected(client, server, bob_daemon.address)
        assert client("connect", sock, addr("127.0.0.1", 7)).errno == errno.EISCONN
        client.good("send", sock, b"still here")
        assert server("recv", accepted, 100).bytes == b"still here"
        listener, _ = listening(server, bob_daemon.address)
        assert server("bind", listener, addr("127.0.0.1", 0)).errno == errno.EINVAL
        assert server("getsockopt", listener, socket.SOL_SOCKET, socket.SO_ACCEPTCONN, 4).bytes[0] == 1

    def test_a_server_elsewhere(self, start: Start, alice_daemon: Daemon) -> None:
        calls = start(alice_daemon, "chirun", CHITCP_NETWORKS="10.0.0.0/8")
        listener, port = listening(calls, "127.0.0.1")
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
            assert calls.good("accept", listener, 16).bytes[4:8] == socket.inet_aton("127.0.0.1")


class TestCommand:
    def test_help(self, build: Path, alice_daemon: Daemon) -> None:
        done = chirun(build, alice_daemon, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith("usage: chirun PROGRAM [ARG ...]\n")
        assert "CHITCP_NETWORKS" in done.stdout
        assert max(map(len, done.stdout.splitlines())) < 80
        assert chirun(build, alice_daemon, "--version").stdout == f"chirun {chitcpd.__version__}\n"

    @pytest.mark.parametrize("words", [(), ("-x", "true")])
    def test_wrong_usage(self, build: Path, alice_daemon: Daemon, words: tuple[str, ...]) -> None:
        done = chirun(build, alice_daemon, *words)
        assert (done.returncode, done.stderr) == (125, "usage: chirun PROGRAM [ARG ...] (chirun --help tells more)\n")

    def test_the_status_is_the_programs(self, build: Path, alice_daemon: Daemon) -> None:
        assert chirun(build, alice_daemon, "sh", "-c", "exit 7").returncode == 7

    def test_no_such_program(self, build: Path, alice_daemon: Daemon) -> None:
        done = chirun(build, alice_daemon, "nobody-has-this")
        assert (done.returncode, done.stderr) == (127, "chirun: nobody-has-this: not found\n")

    def test_programs_are_found_as_execvp_finds_them(self, build: Path, alice_daemon: Daemon, tmp_path: Path) -> None:
        """The empty folder of PATH is the current one; a script without `#!` is a shell's."""
        (tmp_path / "say-found").write_text("echo found")
        command = [str(build / "chirun"), "say-found"]
        env = home(alice_daemon.socket, "chirun", PATH="/usr/bin:")
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (126, "chirun: ./say-found: Permission denied\n")
        (tmp_path / "say-found").chmod(0o755)
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "found\n")

    def test_a_path_that_no_socket_can_have(self, build: Path, alice_daemon: Daemon) -> None:
        done = chirun(build, alice_daemon, "true", CHITCPD_SOCK="/tmp/" + "x" * 120)
        assert done.returncode == 125
        assert done.stderr.endswith("x can't be used: File name too long\n")

    def test_what_cannot_be_executed(self, build: Path, alice_daemon: Daemon, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("data")
        done = chirun(build, alice_daemon, str(tmp_path / "data"))
        assert (done.returncode, done.stderr) == (126, f"chirun: {tmp_path}/data: Permission denied\n")

    @pytest.mark.parametrize(
        ("variable", "value", "expected"),
        [
            (
                "CHITCP_HOSTS",
                "alice=10.0.0.2 bob",
                "'bob', expected NAME=ADDRESS ..., like alice=10.0.0.2 bob=10.0.0.3",
            ),
            (
                "CHITCP_HOSTS",
                "alice=10.0.0",
                "'alice=10.0.0', expected NAME=ADDRESS ..., like alice=10.0.0.2 bob=10.0.0.3",
            ),
            ("CHITCP_HOSTS", "=10.0.0.2", "'=10.0.0.2', expected NAME=ADDRESS ..., like alice=10.0.0.2 bob=10.0.0.3"),
            ("CHITCP_NETWORKS", "10.0.0.0/33", "'10.0.0.0/33', expected networks, like 10.0.0.0/8 fd00::/8"),
            ("CHITCP_NETWORKS", "fd00::/8 lab", "'lab', expected networks, like 10.0.0.0/8 fd00::/8"),
            (
                "CHITCP_NETWORKS",
                "10.0.0.0/8,fd00::/8",
                "'10.0.0.0/8,fd00::/8', expected networks, like 10.0.0.0/8 fd00::/8",
            ),
            (
                "CHITCP_NETWORKS",
                "10.0.0.0/2147483647",
                "'10.0.0.0/2147483647', expected networks, like 10.0.0.0/8 fd00::/8",
            ),
            ("CHITCP_NETWORKS", "10.0.0.0/", "'10.0.0.0/', expected networks, like 10.0.0.0/8 fd00::/8"),
        ],
    )
    def test_a_lab_that_nobody_can_read(
        self, build: Path, alice_daemon: Daemon, variable: str, value: str, expected: str
    ) -> None:
        more: dict[str, Any] = {variable: value}
        done = chirun(build, alice_daemon, "true", **more)
        assert (done.returncode, done.stderr) == (125, f"chirun: {variable} has {expected}\n")

    def test_no_daemon(self, build: Path, alice_daemon: Daemon) -> None:
        done = chirun(build, alice_daemon, "true", CHITCPD_SOCK="/tmp/nobody.sock")
        assert done.returncode == 125
        assert done.stderr == (
            "chirun: no chitcpd answers at /tmp/nobody.sock: start one with `chitcpd -s /tmp/nobody.sock`, "
            "or set CHITCPD_SOCK to the socket of one that runs\n"
        )

    def test_a_c_daemon(self, build: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with scripted_daemon(directory, monkeypatch) as c_daemon:
            done = subprocess.run(
                [str(build / "chirun"), "true"],
                env=home(str(c_daemon.path), "chirun"),
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 125
        assert done.stderr.endswith(
            "is a C one, which hands out no descriptors: use the chisocket_ functions with it\n"
        )

    def test_a_static_program(self, build: Path, alice_daemon: Daemon, tmp_path: Path) -> None:
        needs("cc")
        (tmp_path / "main.c").write_text("int main(void) { return 0; }")
        subprocess.run(["cc", "-static", "-o", tmp_path / "static", tmp_path / "main.c"], check=True)
        done = chirun(build, alice_daemon, str(tmp_path / "static"))
        assert done.returncode == 125
        assert "it is statically linked, and LD_PRELOAD does not reach it" in done.stderr

    def test_a_program_in_go(self, build: Path, alice_daemon: Daemon, tmp_path: Path) -> None:
        """Known by its note; this one is only labelled so."""
        needs("cc")
        words = [
            '.pushsection .note.go.buildid,\\"a\\",@note',
            ".long 4,4,4",
            '.ascii \\"Go\\\\0\\\\0\\"',
            ".long 0",
            ".popsection",
        ]
        note = "\\n".join(words)
        (tmp_path / "main.c").write_text(f'__asm__("{note}");\nint main(void) {{ return 0; }}\n')
        subprocess.run(["cc", "-o", tmp_path / "go", tmp_path / "main.c"], check=True)
        done = chirun(build, alice_daemon, str(tmp_path / "go"))
        assert done.returncode == 125
        assert "it is written in Go, and LD_PRELOAD does not reach it" in done.stderr

    def test_a_path_that_ld_preload_can_not_have(self, build: Path, alice_daemon: Daemon, tmp_path: Path) -> None:
        folder = tmp_path / "a b"
        folder.mkdir()
        for name in ("chirun", "libchisocket-preload.so"):
            shutil.copy(build / name, folder)
        done = chirun(folder, alice_daemon, "true")
        assert done.returncode == 125
        assert done.stderr.endswith("/a b/libchisocket-preload.so, with a blank or a colon in it: move it\n")

    def test_a_library_that_is_nowhere(self, build: Path, alice_daemon: Daemon, tmp_path: Path) -> None:
        shutil.copy(build / "chirun", tmp_path)
        done = chirun(tmp_path, alice_daemon, "true")
        if done.returncode == 0:
            pytest.skip("it is installed on this machine")
        assert done.returncode == 125
        assert done.stderr.startswith(f"chirun: libchisocket-preload.so is neither in {tmp_path} nor in ")

    def test_a_relative_path_of_the_daemon(self, build: Path, alice_daemon: Daemon, bob_daemon: Daemon) -> None:
        """It holds wherever the program goes."""
        code = "import os, socket; os.chdir('/'); print(socket.create_server(('', 0)).family.name)"
        path = Path(alice_daemon.socket)
        done = subprocess.run(
            [str(build / "chirun"), "--", PYTHON, "-c", code],
            env=home(path.name, "chirun"),
            cwd=path.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("AF_INET\n", "")

    def test_a_daemon_that_is_no_socket(self, build: Path, alice_daemon: Daemon) -> None:
        done = chirun(build, alice_daemon, "true", CHITCPD_SOCK="/tmp")
        assert (done.returncode, done.stderr) == (
            125,
            "chirun: /tmp is no socket: set CHITCPD_SOCK to the socket of a chitcpd\n",
        )

    def test_other_preloaded_libraries_stay(self, build: Path, alice_daemon: Daemon) -> None:
        libc = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line)
        done = chirun(build, alice_daemon, "sh", "-c", "echo $LD_PRELOAD", LD_PRELOAD=libc)
        assert done.stdout == f"{build}/libchisocket-preload.so:{libc}\n"

    def test_many_at_once(
        self, build: Path, alice_daemon: Daemon, bob_daemon: Daemon, tmp_path: Path, background: ThreadPoolExecutor
    ) -> None:
        """A threaded server, unmodified, and 20 unmodified clients."""
        code = (
            "import socketserver\n"
            "class Echo(socketserver.StreamRequestHandler):\n"
            "    def handle(self): self.wfile.write(self.rfile.readline())\n"
            "class Server(socketserver.ThreadingTCPServer): request_queue_size = 50\n"
            "Server(('', 9002), Echo).serve_forever()\n"
        )
        ask = (
            "import socket, sys; s = socket.create_connection((sys.argv[1], 9002)); s.sendall(b'line %s\\n' % "
            "sys.argv[2].encode()); print(s.makefile().read(), end='')"
        )
        with serving(build, bob_daemon, 9002, PYTHON, "-c", code, cwd=tmp_path):
            running = [
                background.submit(chirun, build, alice_daemon, PYTHON, "-c", ask, bob_daemon.address, str(number))
                for number in range(20)
            ]
            answers = [process.result(60).stdout for process in running]
        assert answers == [f"line {number}\n" for number in range(20)]
