"""The data path: pairs of UNIX sockets between applications and the daemon, and the TCP's flow control through them."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import chisocket
from chisocket._socket import name_of
from chisocket.protocol import chitcpd_pb2 as pb
from chisocket.protocol import descriptors
from chitcpd import pairs
from tests.daemon.application import Application, Conversation, sockaddr_in
from tests.daemon.conftest import PATIENCE, Daemon, StartDaemon
from tests.daemon.connections import Connection, fill

CLASSIC_BUFFER = 4096


class TestFlowControl:
    def test_who_does_not_read_closes_the_window(self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
        """Of the classic buffers: the TCPs' own two, and the pairs', which are not much larger."""
        client, server = daemon("--profile", "classic"), daemon("--profile", "classic")
        with Connection(monkeypatch, client, server) as connection:
            sent = fill(connection.near)
            assert 2 * CLASSIC_BUFFER <= sent <= 8 * CLASSIC_BUFFER
            assert [sock["rcv_wnd"] for sock in server.sockets() if sock["state"] == "ESTABLISHED"] == [0]
            received = 0
            while received < sent:
                received += len(connection.far.recv(1 << 16))
            connection.near.sendall(b"more")
            assert connection.far.recv(10) == b"more"

    def test_who_waits_to_write_is_told_of_a_reset_also_if_there_is_something_to_read(
        self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon
    ) -> None:
        """More than the pair holds waits to be read, nothing more can be written: then the peer is gone."""
        one = daemon()
        with Connection(monkeypatch, one, one) as connection:
            connection.near.sendall(bytes(300_000))
            fill(connection.far)
            connection.near.close()  # with something unread: a reset
            with pytest.raises(OSError) as error:
                connection.far.sendall(bytes(1 << 20))
            assert error.value.errno in (errno.EPIPE, errno.ECONNRESET)

    def test_one_that_is_slow_holds_up_no_other(self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
        client, server = daemon(), daemon()
        with Connection(monkeypatch, client, server) as slow, Connection(monkeypatch, client, server) as other:
            fill(slow.near)
            other.near.sendall(b"x")
            assert other.far.recv(10) == b"x"

    def test_a_send_buffer_made_small_goes_on(self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
        one = daemon()
        with Connection(monkeypatch, one, one) as connection:
            connection.near.sendall(bytes(1000))
            connection.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            connection.near.sendall(bytes(100_000))
            connection.near.shutdown(socket.SHUT_WR)
            received = 0
            while data := connection.far.recv(1 << 16):
                received += len(data)
            assert received == 101_000

    def test_buffers_made_small_bound_what_is_taken(self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
        """The pairs' too: those of the socket on which the options are set, and of those that a listener hands down."""
        one = daemon()
        monkeypatch.setenv("CHITCPD_SOCK", one.socket)
        with chisocket.socket() as near, chisocket.socket() as listener:
            for sock in (near, listener):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CLASSIC_BUFFER)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CLASSIC_BUFFER)
            listener.bind((one.address, 0))
            listener.listen()
            near.connect(listener.getsockname())
            with listener.accept()[0] as far:
                assert fill(near) <= 8 * CLASSIC_BUFFER
                assert fill(far) <= 8 * CLASSIC_BUFFER


class TestMemory:
    def test_what_a_burst_took_stays_for_the_next(self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
        """Memory that is new costs a page fault for each page, and each byte is copied a few times on its way."""
        client, server, count = daemon(), daemon(), 1 << 26
        with Connection(monkeypatch, client, server) as connection:
            carry(connection, 1 << 25)
            before = page_faults(client) + page_faults(server)
            carry(connection, count)
            assert page_faults(client) + page_faults(server) - before < count / os.sysconf("SC_PAGE_SIZE") / 4


def carry(connection: Connection, count: int) -> None:
    """Send so many bytes, and receive them."""
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(connection.near.sendall, bytes(count))
        received = 0
        while received < count:
            received += len(connection.far.recv(1 << 16))
        sent.result(PATIENCE)


def page_faults(daemon: Daemon) -> int:
    """Those for which nothing was read from a disk."""
    return int(Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()[7])


class TestTheEnd:
    def test_it_bears_the_name_of_its_socket(self, daemon: StartDaemon) -> None:
        one = daemon()
        with Application(one.socket) as app:
            sockfd, end = app.opened()
            with end:
                name = descriptors.parse(end.getsockname())
                assert name is not None
                assert (name.instance, name.sockfd) == (app.instance, sockfd)

    def test_its_socket_lives_as_long_as_somebody_holds_it(
        self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon
    ) -> None:
        one = daemon()
        with Connection(monkeypatch, one, one) as connection:
            copy = os.dup(connection.near.fileno())
            connection.near.close()
            os.write(copy, b"by the copy")
            assert connection.far.recv(100) == b"by the copy"
            os.close(copy)
            assert connection.far.recv(100) == b""

    @pytest.mark.parametrize("code", [pb.SEND, pb.RECV, pb.ACCEPT])
    def test_it_is_not_read_and_written_by_requests(self, daemon: StartDaemon, code: pb.MsgCode) -> None:
        one = daemon()
        with Application(one.socket) as app:
            app.ask(pb.OPEN, domain=socket.AF_INET, type=socket.SOCK_STREAM, protocol=0)
            _, fds, _, _ = socket.recv_fds(app.raw, 4096, 1)
            more: dict[int, dict[str, Any]] = {pb.SEND: {"flags": 0, "buf": b"x"}, pb.RECV: {"flags": 0, "len": 1}}
            assert app.call(code, sockfd=0, **more.get(code, {})).error_code in (errno.EOPNOTSUPP, errno.EINVAL)
            os.close(fds[0])


def test_what_a_bare_descriptor_sends_urgently_comes_in_line(
    monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon
) -> None:
    """The kernel lets a read end at the mark: with all of it there at once, the daemon reads on."""
    one = daemon()
    with Connection(monkeypatch, one, one) as connection, socket.socket(fileno=connection.near.detach()) as bare:
        one.process.send_signal(signal.SIGSTOP)
        bare.sendall(b"abc")
        bare.send(b"XYZ", socket.MSG_OOB)
        bare.sendall(b"def")
        one.process.send_signal(signal.SIGCONT)
        with connection.far.makefile("rb") as file:
            assert file.read(9) == b"abcXYZdef"


class TestAConnectionThatIsOver:
    """It keeps the daemon no longer busy, though the application has not closed its end."""

    def test_by_a_reset(self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
        client, server = daemon(), daemon()
        with Connection(monkeypatch, client, server) as connection:
            connection.near.sendall(b"x")
            assert connection.far.recv(10, socket.MSG_PEEK) == b"x"
            connection.far.close()  # with something unread: a reset
            with pytest.raises(ConnectionResetError):
                connection.near.recv(10)
            client.wait_until_it_sleeps()

    def test_by_both_ends(self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
        client, server = daemon(), daemon()
        with Connection(monkeypatch, client, server) as connection:
            connection.near.shutdown(socket.SHUT_WR)
            assert connection.far.recv(10) == b""
            connection.far.shutdown(socket.SHUT_WR)
            assert connection.near.recv(10) == b""
            client.wait_until_it_sleeps()
            server.wait_until_it_sleeps()


@pytest.mark.parametrize("pieces", [[b"x" * 100_000], [b"x"] * 150], ids=["much", "in many pieces"])
def test_an_end_is_emptied_also_when_all_descriptors_are_taken(pieces: list[bytes]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with ours, theirs:
        for piece in pieces:
            theirs.sendall(piece)
        pairs.drain()  # as the daemon does when it begins
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            pairs.empty(ours)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


def test_close_is_for_those_that_have_no_descriptor(daemon: StartDaemon) -> None:
    with Application(daemon().socket) as app:
        sockfd, end = app.opened()
        with end:
            assert app.call(pb.CLOSE, sockfd=sockfd).error_code == errno.EOPNOTSUPP


class TestLinger:
    def test_it_means_the_descriptor_and_no_other_socket_of_its_number(self, daemon: StartDaemon) -> None:
        """The number may be given away between close(2) and the request."""
        one = daemon()
        with Application(one.socket) as app:
            sockfd, end = app.opened()
            name = descriptors.parse(end.getsockname())
            assert name is not None
            end.close()
            listener = next(fd for fd in (app.listening(one.address)[0] for _ in range(1000)) if fd == sockfd)
            app.good(pb.LINGER, sockfd=sockfd, serial=name.serial)
            assert app.good(pb.GETSOCKOPT, sockfd=listener, level=socket.SOL_SOCKET, name=socket.SO_ACCEPTCONN).buf[0]

    def test_it_returns_at_once_while_others_have_the_descriptor(
        self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon
    ) -> None:
        one = daemon()
        with Connection(monkeypatch, one, one) as connection, Application(one.socket) as app:
            name = name_of(connection.near)
            assert name is not None
            app.good(pb.LINGER, sockfd=name.sockfd, serial=name.serial)
            assert connection.near.send(b"still there") == 11

    def test_it_waits_for_the_acknowledgement_in_closing_too(self, daemon: StartDaemon) -> None:
        """Both ends close, and nothing that this one sends arrives: it is in CLOSING then, for as long as it tries."""
        one, far = daemon(), daemon()
        with Application(one.socket) as app, Application(far.socket) as server:
            listener, port = server.listening(far.address)
            server.ask(pb.ACCEPT, sockfd=listener)
            sockfd, end = app.opened()
            name = descriptors.parse(end.getsockname())
            assert name is not None
            app.good(pb.START_CONNECT, sockfd=sockfd, addr=sockaddr_in(far.address, port), wait=True)
            accepted = server.answer().ret
            link = {"peers": [far.address], "own": one.address, "seed": 1}
            one.ask("links", links=[link | {"loss": 1.0}])
            with end:
                end.send(b"which is lost")
                end.shutdown(socket.SHUT_WR)
            app.good(pb.WAIT_FOR_STATE, sockfd=sockfd, tcp_state=5)  # FIN_WAIT_1: it was the first to close
            server.good(pb.SHUTDOWN, sockfd=accepted, how=socket.SHUT_WR)
            app.good(pb.WAIT_FOR_STATE, sockfd=sockfd, tcp_state=8)  # CLOSING
            app.ask(pb.LINGER, sockfd=sockfd, serial=name.serial)
            app.raw.settimeout(0.3)
            with pytest.raises(TimeoutError):
                app.answer()
            one.ask("links", links=[link])
            app.raw.settimeout(PATIENCE)
            assert app.answer().error_code == 0
            assert server.recv(accepted) == b"which is lost"


class TestStartConnect:
    def test_with_wait_it_ends_when_nobody_has_the_descriptor_any_more(self, daemon: StartDaemon) -> None:
        one, far = daemon(), daemon()
        one.ask("links", links=[{"peers": [far.address], "own": one.address, "seed": 1, "loss": 1.0}])
        with Application(one.socket) as app:
            sockfd, end = app.opened()
            app.ask(pb.START_CONNECT, sockfd=sockfd, addr=sockaddr_in(far.address, 7), wait=True)
            with Application(one.socket) as other:
                other.good(pb.WAIT_FOR_STATE, sockfd=sockfd, tcp_state=3)  # SYN_SENT
            end.close()
            assert app.answer().error_code == errno.ECONNABORTED

    def test_with_wait_it_is_answered_when_connecting_has_ended(self, daemon: StartDaemon) -> None:
        one = daemon()
        with Application(one.socket) as app:
            _, port = app.listening(one.address)
            sockfd, end = app.opened()
            with end:
                there = sockaddr_in(one.address, port)
                app.good(pb.START_CONNECT, sockfd=sockfd, addr=there, wait=True)
                assert app.good(pb.GETPEERNAME, sockfd=sockfd).addr == there

    def test_or_has_failed(self, daemon: StartDaemon) -> None:
        one = daemon()
        with Application(one.socket) as app:
            sockfd, end = app.opened()
            with end:
                nobody = sockaddr_in(one.address, 9)
                answer = app.call(pb.START_CONNECT, sockfd=sockfd, addr=nobody, wait=True)
                assert answer.error_code == errno.ECONNREFUSED

    def test_one_that_is_taken_back_goes_on(self, daemon: StartDaemon) -> None:
        one, far = daemon(), daemon()
        link = {"peers": [far.address], "own": one.address, "seed": 1}
        one.ask("links", links=[link | {"delay": 0.3}])
        with Application(one.socket) as app, Application(one.socket) as impatient, Application(far.socket) as server:
            _, port = server.listening(far.address)
            sockfd, end = app.opened()
            with end:
                there = sockaddr_in(far.address, port)
                impatient.ask(pb.START_CONNECT, sockfd=sockfd, addr=there, wait=True)
                app.good(pb.WAIT_FOR_STATE, sockfd=sockfd, tcp_state=3)  # SYN_SENT
                impatient.take_back()
                assert impatient.is_closed()
                app.good(pb.START_CONNECT, sockfd=sockfd, addr=there, wait=True)  # waits for the same one
                app.good(pb.GETPEERNAME, sockfd=sockfd)


def test_a_send_that_is_taken_back_says_how_much_it_has_taken(daemon: StartDaemon) -> None:
    one = daemon("--profile", "classic")  # 4096 bytes of buffer, each way
    with Application(one.socket) as client, Application(one.socket) as server, Application(one.socket) as impatient:
        talk = Conversation(client, server, one.address)
        taken = client.send(talk.near, bytes(CLASSIC_BUFFER))  # which the peer's buffer holds
        taken += client.send(talk.near, bytes(CLASSIC_BUFFER - 100))
        impatient.ask(pb.SEND, sockfd=talk.near, flags=0, buf=bytes(CLASSIC_BUFFER))
        for _ in range(1000):
            contents = client.good(pb.GET_SOCKET_BUFFER_CONTENTS, sockfd=talk.near).socket_buffer_contents
            if len(contents.snd) == CLASSIC_BUFFER:
                break
        impatient.take_back()
        more = impatient.answer()
        assert more.error_code == 0
        assert 0 < more.ret < CLASSIC_BUFFER
        assert impatient.is_closed()
        client.good(pb.SHUTDOWN, sockfd=talk.near, how=socket.SHUT_WR)
        received = 0
        while data := server.recv(talk.far):
            received += len(data)
        assert received == taken + more.ret


class TestAFaultyTcp:
    """It costs its connection, says so in the log, and nobody else is held up."""

    SOURCE = """
from chitcpd.tcp.connection import Connection


class Faulty(Connection):
    takes = gives = True

    def send(self, data, now):
        if bytes(data) == b"take nothing":
            self.takes = False
        return super().send(data, now) if self.takes else 0

    def receive(self, limit, now):
        return super().receive(limit, now) if bytes(self.unread) != b"give nothing" else b""

    @property
    def readable(self):
        if bytes(self.unread) == b"fail":
            raise RuntimeError("what I did not think of")
        return super().readable
"""

    @pytest.fixture
    def faulty(self, daemon: StartDaemon, directory: Path) -> Daemon:
        file = directory / "faulty.py"
        file.write_text(self.SOURCE)
        return daemon("--tcp", str(file))

    def test_that_takes_less_than_it_said(self, monkeypatch: pytest.MonkeyPatch, faulty: Daemon) -> None:
        with Connection(monkeypatch, faulty, faulty) as bad:
            bad.near.sendall(b"take nothing")
            with pytest.raises(OSError) as failed:
                bad.near.recv(1)
            assert failed.value.errno == errno.EIO
            self.others_are_served(monkeypatch, faulty)
        assert "took less than it said" in faulty.log.read_text()

    def test_that_gives_nothing_though_it_said_so(self, monkeypatch: pytest.MonkeyPatch, faulty: Daemon) -> None:
        with Connection(monkeypatch, faulty, faulty) as bad:
            bad.near.sendall(b"give nothing")
            self.others_are_served(monkeypatch, faulty)
            assert select.select([bad.far], [], [], 0)[0] == []

    def test_that_raises_when_asked_what_it_has(self, monkeypatch: pytest.MonkeyPatch, faulty: Daemon) -> None:
        with Connection(monkeypatch, faulty, faulty) as bad:
            bad.near.sendall(b"fail")
            with pytest.raises(OSError) as failed:
                bad.far.recv(1)
            assert failed.value.errno == errno.EIO
            self.others_are_served(monkeypatch, faulty)
        assert "what I did not think of" in faulty.log.read_text()

    def others_are_served(self, monkeypatch: pytest.MonkeyPatch, daemon: Daemon) -> None:
        with Connection(monkeypatch, daemon, daemon) as good:
            good.near.sendall(b"fine")
            assert good.far.recv(10) == b"fine"


def test_a_listener_is_handed_a_few_ahead_and_the_others_wait(
    monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon
) -> None:
    one = daemon()
    monkeypatch.setenv("CHITCPD_SOCK", one.socket)
    with chisocket.create_server((one.address, 0), backlog=20) as listener:
        clients = [chisocket.create_connection(listener.getsockname(), timeout=PATIENCE) for _ in range(10)]
        waiting = [sock["waiting"] for sock in one.sockets() if sock["state"] == "LISTEN"]
        assert waiting[0] in range(6, 9)
        for client in clients:
            accepted, address = listener.accept()
            assert address == client.getsockname()
            accepted.close()
            client.close()


class TestShutdown:
    def test_for_reading_ends_what_is_not_read_and_the_peer_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon
    ) -> None:
        """With its buffers full, the peer stands still; then all that it sends is thrown away."""
        one = daemon()
        with Connection(monkeypatch, one, one) as connection:
            sent = fill(connection.near)
            connection.far.shutdown(socket.SHUT_RD)
            connection.near.sendall(bytes(4 << 20))
            received = 0
            while data := connection.far.recv(1 << 16):
                received += len(data)
            assert 0 < received < sent

    def test_of_a_listener_ends_it(self, monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
        one = daemon()
        monkeypatch.setenv("CHITCPD_SOCK", one.socket)
        with chisocket.create_server((one.address, 0)) as listener:
            address = listener.getsockname()
            listener.shutdown(socket.SHUT_RDWR)
            with pytest.raises(ConnectionRefusedError):
                chisocket.create_connection(address, timeout=PATIENCE)
            with pytest.raises(OSError) as failed:
                listener.accept()
            assert failed.value.errno == errno.EINVAL


def test_a_name_that_somebody_else_has_is_passed_over(monkeypatch: pytest.MonkeyPatch, daemon: StartDaemon) -> None:
    one = daemon()
    monkeypatch.setenv("CHITCPD_SOCK", one.socket)
    with Application(one.socket) as app, contextlib.ExitStack() as stack:
        for serial in range(50):
            squatter = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            squatter.bind(descriptors.name(app.instance, 0, serial))
        with chisocket.socket() as sock:
            assert sock.getsockname() == ("0.0.0.0", 0)
