"""What an application sees when something dies: its peer's application, its peer's daemon, its own daemon.

The right errno in the right time, and nothing left in the daemons that live on.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

import chisocket
from tests.daemon.conftest import PATIENCE, Daemon, StartDaemon, environment, free_address, running_daemon
from tests.daemon.connections import CHUNK, Connection, fill

USER_TIMEOUT = 500  # ms


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Daemon], None]:
    """Sockets made from now on are that daemon's."""
    return lambda daemon: monkeypatch.setenv("CHITCPD_SOCK", daemon.socket)


@pytest.fixture
def hosts(daemon: StartDaemon) -> tuple[Daemon, Daemon]:
    return daemon(), daemon()


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, hosts: tuple[Daemon, Daemon]) -> Iterator[Connection]:
    with Connection(monkeypatch, *hosts) as connected:
        yield connected


def failure(call: Callable[..., Any], *arguments: Any) -> int | None:
    """The errno with which it fails, sooner or later."""
    try:
        for _ in range(1000):
            call(*arguments)
    except OSError as error:
        return error.errno
    return None


class TestTheOwnDaemonIsKilled:
    def test_who_reads_is_reset(self, pair: Connection, hosts: tuple[Daemon, Daemon]) -> None:
        hosts[0].process.kill()
        assert failure(pair.near.recv, 1) == errno.ECONNRESET

    def test_who_writes_is_reset(self, pair: Connection, hosts: tuple[Daemon, Daemon]) -> None:
        fill(pair.near)
        threading.Timer(0.1, hosts[0].process.kill).start()
        assert failure(pair.near.sendall, CHUNK) in (errno.ECONNRESET, errno.EPIPE)

    def test_what_came_before_can_be_read(self, pair: Connection, hosts: tuple[Daemon, Daemon]) -> None:
        pair.far.sendall(b"the last words")
        assert select.select([pair.near], [], [], PATIENCE)[0]
        hosts[0].process.kill()
        hosts[0].process.wait()
        assert pair.near.recv(100) == b"the last words"
        assert failure(pair.near.recv, 1) == errno.ECONNRESET

    def test_who_waits_for_a_connection(self, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]) -> None:
        use(hosts[0])
        with chisocket.create_server((hosts[0].address, 0)) as listener:
            listener.settimeout(PATIENCE)
            hosts[0].process.kill()
            assert failure(listener.accept) == errno.EINVAL

    def test_a_new_socket_says_that_there_is_none(self, pair: Connection, hosts: tuple[Daemon, Daemon]) -> None:
        hosts[0].process.kill()
        hosts[0].process.wait()
        assert failure(chisocket.socket) == errno.ENETDOWN

    def test_a_request_for_an_old_socket_does_not_reach_the_next_daemon(
        self, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon], directory: Path
    ) -> None:
        client = hosts[0]
        use(client)
        with chisocket.socket() as old:
            client.process.kill()
            client.process.wait()
            with running_daemon(directory, address=client.address), chisocket.socket() as new:
                assert failure(old.bind, (client.address, 0)) == errno.ENETDOWN
                assert new.getsockname() == ("0.0.0.0", 0)


class TestThePeersDaemonIsKilled:
    def test_and_is_back_the_connection_is_reset(
        self, pair: Connection, hosts: tuple[Daemon, Daemon], directory: Path
    ) -> None:
        fill(pair.near)
        hosts[1].process.kill()
        hosts[1].process.wait()
        with running_daemon(directory, address=hosts[1].address):
            assert failure(pair.near.sendall, CHUNK) == errno.ECONNRESET

    def test_and_stays_away_the_connection_times_out(self, pair: Connection, hosts: tuple[Daemon, Daemon]) -> None:
        pair.near.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        hosts[1].process.kill()
        hosts[1].process.wait()
        start = time.monotonic()
        pair.near.sendall(b"y")
        assert failure(pair.near.recv, 1) == errno.ETIMEDOUT
        assert USER_TIMEOUT / 1000 <= time.monotonic() - start < PATIENCE

    def test_a_connection_can_be_made_once_it_is_back(
        self, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon], pair: Connection, directory: Path
    ) -> None:
        hosts[1].process.kill()
        hosts[1].process.wait()
        assert failure(chisocket.create_connection, (hosts[1].address, 7)) == errno.EHOSTUNREACH
        with running_daemon(directory, address=hosts[1].address) as again:
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:  # dials begin again after a while that grows
                error = failure(chisocket.create_connection, (again.address, 7))
                if error != errno.EHOSTUNREACH:
                    break
            assert error == errno.ECONNREFUSED


SENDER = """
import os, sys, chisocket
connection = chisocket.create_connection((sys.argv[1], int(sys.argv[2])))
if sys.argv[3] == "reading":
    connection.sendall(b"ready")
    connection.recv(1)
while True:
    connection.sendall(bytes(65536))
    os.write(1, b".")
"""


class TestAnApplicationIsKilled:
    """As the kernel has it: what it has written is sent, and then a FIN; or a RST, if it has left something unread."""

    @pytest.fixture
    def listener(self, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]) -> Iterator[chisocket.socket]:
        use(hosts[1])
        with chisocket.create_server((hosts[1].address, 0)) as sock:
            sock.settimeout(PATIENCE)
            yield sock

    @pytest.fixture
    def start(
        self, hosts: tuple[Daemon, Daemon], listener: chisocket.socket
    ) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
        with ExitStack() as stack:

            def run(what: str) -> subprocess.Popen[bytes]:
                host, port = listener.getsockname()
                process = subprocess.Popen(
                    [sys.executable, "-c", SENDER, host, str(port), what],
                    env={**environment(), "CHITCPD_SOCK": hosts[0].socket},
                    stdout=subprocess.PIPE,
                )
                stack.enter_context(process)
                stack.callback(process.kill)
                return process

            yield run

    def test_while_it_writes(
        self, start: Callable[[str], subprocess.Popen[bytes]], listener: chisocket.socket, hosts: tuple[Daemon, Daemon]
    ) -> None:
        process = start("writing")
        connection, _ = listener.accept()
        with closing(connection):
            assert process.stdout is not None
            assert process.stdout.read(3) == b"..."
            process.kill()
            written = 65536 * (3 + len(process.stdout.read()))
            received = 0
            while data := connection.recv(1 << 16):
                received += len(data)
            assert received >= written
        wait_for_no_sockets(hosts[0])

    def test_that_has_left_something_unread(
        self, start: Callable[[str], subprocess.Popen[bytes]], listener: chisocket.socket, hosts: tuple[Daemon, Daemon]
    ) -> None:
        process = start("reading")
        connection, _ = listener.accept()
        with closing(connection):
            assert connection.recv(5) == b"ready"
            process.send_signal(signal.SIGSTOP)
            fill(connection)
            process.kill()
            assert failure(connection.sendall, CHUNK) == errno.ECONNRESET
        wait_for_no_sockets(hosts[0])

    def test_in_connect(self, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]) -> None:
        """The SYN is not answered; the application goes, and the connection with it."""
        use(hosts[0])
        hosts[1].process.send_signal(signal.SIGSTOP)
        try:
            with chisocket.socket() as sock:
                sock.setblocking(False)
                assert sock.connect_ex((hosts[1].address, 7)) == errno.EINPROGRESS
            wait_for_no_sockets(hosts[0])
        finally:
            hosts[1].process.send_signal(signal.SIGCONT)


def wait_for_no_sockets(daemon: Daemon) -> None:
    """Until it has none: the applications' ends are closed, and it is told of that by its kernel."""
    until = time.monotonic() + PATIENCE
    while daemon.sockets():
        assert time.monotonic() < until, daemon.sockets()


class TestNothingIsLeft:
    def test_after_connections_of_every_kind(
        self, monkeypatch: pytest.MonkeyPatch, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]
    ) -> None:
        self.round(monkeypatch, use, hosts)  # what is made once stays: carriers, caches
        for host in hosts:
            wait_for_no_sockets(host)
        before = [descriptors(host) for host in hosts]
        for _ in range(20):
            self.round(monkeypatch, use, hosts)
        for host in hosts:
            wait_for_no_sockets(host)
        after = [descriptors(host) for host in hosts]
        # Our own connections for requests, which come and go, are among them.
        assert max(now - then for now, then in zip(after, before, strict=True)) < 5

    def round(
        self, monkeypatch: pytest.MonkeyPatch, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]
    ) -> None:
        good = Connection(monkeypatch, *hosts)
        good.near.sendall(b"x")
        good.near.close()
        assert good.far.recv(10) == b"x"
        good.far.close()
        reset = Connection(monkeypatch, *hosts)
        reset.far.sendall(b"unread")
        select.select([reset.near], [], [], PATIENCE)
        reset.near.close()
        with pytest.raises(ConnectionResetError):
            reset.far.recv(10)
        reset.far.close()
        assert failure(chisocket.create_connection, (hosts[1].address, 9)) == errno.ECONNREFUSED
        use(hosts[1])
        with chisocket.create_server((hosts[1].address, 0)) as never_accepted:
            address = never_accepted.getsockname()
            use(hosts[0])
            waiting = [chisocket.create_connection(address) for _ in range(5)]
        for sock in waiting:
            sock.close()


def descriptors(daemon: Daemon) -> int:
    """How many the process has open."""
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


class TestManyConnections:
    COUNT = 1000
    SIZE = 32 << 10  # bytes that each carries: more than an initial window

    def test_all_at_once_and_all_whole(self, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]) -> None:
        use(hosts[1])
        with chisocket.create_server((hosts[1].address, 0), backlog=self.COUNT) as listener, ExitStack() as stack:
            use(hosts[0])
            ends: dict[int, tuple[chisocket.socket, bytes]] = {}
            poll = select.poll()
            for number in range(self.COUNT):
                near = stack.enter_context(chisocket.create_connection(listener.getsockname()))
                far = stack.enter_context(listener.accept()[0])
                ends[near.fileno()] = (near, number.to_bytes(2) * (self.SIZE // 2))
                ends[far.fileno()] = (far, b"")
                poll.register(near, select.POLLOUT)
                poll.register(far, select.POLLIN)
            whole = self.carry(poll, ends)
        assert sorted(whole) == [number.to_bytes(2) * (self.SIZE // 2) for number in range(self.COUNT)]

    def carry(self, poll: select.poll, ends: dict[int, tuple[chisocket.socket, bytes]]) -> list[bytes]:
        """Send and receive on all of them; what has come on each."""
        whole: list[bytes] = []
        while len(whole) < self.COUNT:
            events = poll.poll(PATIENCE * 1000)
            assert events, f"{len(whole)} of {self.COUNT} have come whole"
            for fd, event in events:
                sock, data = ends[fd]
                if event & select.POLLOUT:
                    data = data[sock.send(data[:65536], socket.MSG_DONTWAIT) :]
                    if not data:
                        poll.unregister(fd)
                        sock.shutdown(socket.SHUT_WR)
                elif more := sock.recv(1 << 17):
                    data += more
                else:
                    poll.unregister(fd)
                    whole.append(data)
                ends[fd] = (sock, data)
        return whole


def test_an_address_of_which_no_daemon_is(use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]) -> None:
    use(hosts[0])
    assert failure(chisocket.create_connection, (free_address(), 7)) == errno.EHOSTUNREACH
