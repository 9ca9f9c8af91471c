"""The class `socket`, over daemons that run: what a program sees is what it sees of a kernel's TCP."""

from __future__ import annotations

import errno
import io
import os
import resource
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import chisocket
from chisocket import _socket as implementation
from tests.daemon.conftest import PATIENCE, Daemon, environment
from tests.daemon.connections import fill

SOL, TCP = socket.SOL_SOCKET, socket.IPPROTO_TCP


@pytest.fixture(autouse=True)
def alice(alice_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The daemon of this process."""
    monkeypatch.setenv("CHITCPD_SOCK", alice_daemon.socket)
    return alice_daemon


@pytest.fixture
def listener(bob_daemon: Daemon, alice: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[chisocket.socket]:
    """It listens at bob."""
    monkeypatch.setenv("CHITCPD_SOCK", bob_daemon.socket)
    with chisocket.create_server((bob_daemon.address, 0)) as sock:
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("CHITCPD_SOCK", alice.socket)
        yield sock


class Ends:
    """The two ends of a connection from alice to bob."""

    def __init__(self, listener: chisocket.socket) -> None:
        self.near = chisocket.create_connection(listener.getsockname(), timeout=PATIENCE)
        self.far, self.address = listener.accept()
        self.far.settimeout(PATIENCE)


@pytest.fixture
def ends(listener: chisocket.socket) -> Iterator[Ends]:
    ends = Ends(listener)
    yield ends
    ends.near.close()
    ends.far.close()


@pytest.fixture
def cut(alice: Daemon, bob_daemon: Daemon) -> Iterator[Callable[[bool], None]]:
    """cut(True): what alice sends to bob is lost; cut(False): not any more."""

    def set_loss(on: bool) -> None:
        link = {"peers": [bob_daemon.address], "own": alice.address, "seed": 1, "loss": float(on)}
        alice.ask("links", links=[link])

    yield set_loss
    set_loss(False)


def refusing(daemon: Daemon) -> tuple[str, int]:
    """An address at which nobody listens."""
    return daemon.address, 9


def reset(sock: chisocket.socket) -> None:
    """Close it with a RST."""
    sock.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextmanager
def no_free_number() -> Iterator[None]:
    """Until the end of the block this process can open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:
        first = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (first, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# ---- who waits for a socket as an event loop does ---------------------------------------------------------------


def by_select(sock: chisocket.socket, write: bool, timeout: float) -> bool:
    readable, writable, _ = select.select([sock] * (not write), [sock] * write, [], timeout)
    return bool(readable or writable)


def by_poll(sock: chisocket.socket, write: bool, timeout: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT if write else select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def by_epoll(sock: chisocket.socket, write: bool, timeout: float) -> bool:
    with select.epoll() as epoll:
        epoll.register(sock, select.EPOLLOUT if write else select.EPOLLIN)
        return bool(epoll.poll(timeout))


Wait = Callable[[chisocket.socket, bool, float], bool]
every_way = pytest.mark.parametrize("ready", [by_select, by_poll, by_epoll])
READ, WRITE = False, True


class TestConnect:
    def test_names_of_both_ends(self, listener: chisocket.socket, ends: Ends) -> None:
        assert ends.near.getpeername() == ends.far.getsockname() == listener.getsockname()
        assert ends.far.getpeername() == ends.near.getsockname() == ends.address

    def test_from_an_address_that_was_bound(self, listener: chisocket.socket, alice: Daemon) -> None:
        with chisocket.create_connection(listener.getsockname(), source_address=(alice.address, 4321)) as near:
            assert near.getsockname() == (alice.address, 4321)

    def test_refused(self, bob_daemon: Daemon) -> None:
        with chisocket.socket() as sock:
            with pytest.raises(ConnectionRefusedError):
                sock.connect(refusing(bob_daemon))
            assert sock.connect_ex(refusing(bob_daemon)) == errno.ECONNREFUSED

    def test_again_on_the_same_socket_after_a_refusal(self, listener: chisocket.socket, bob_daemon: Daemon) -> None:
        with chisocket.socket() as sock:
            number = sock.fileno()
            assert sock.connect_ex(refusing(bob_daemon)) == errno.ECONNREFUSED
            sock.connect(listener.getsockname())
            accepted, _ = listener.accept()
            accepted.sendall(b"at last")
            assert (sock.fileno(), sock.recv(10)) == (number, b"at last")
            accepted.close()

    def test_twice_is_an_error(self, listener: chisocket.socket, ends: Ends) -> None:
        assert ends.near.connect_ex(listener.getsockname()) == errno.EISCONN

    @every_way
    def test_it_is_writable_when_connect_has_ended_and_not_before(
        self, ready: Wait, listener: chisocket.socket, cut: Callable[[bool], None]
    ) -> None:
        cut(True)
        with chisocket.socket() as sock:
            sock.setblocking(False)
            assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
            assert not ready(sock, WRITE, 0.1)
            assert sock.connect_ex(listener.getsockname()) == errno.EALREADY
            cut(False)
            assert ready(sock, WRITE, PATIENCE)  # the second SYN, after a second
            assert sock.getsockopt(SOL, socket.SO_ERROR) == 0
            assert sock.getpeername() == listener.getsockname()
            assert sock.send(b"x") == 1

    @every_way
    def test_a_refusal_is_an_event_too(self, ready: Wait, bob_daemon: Daemon) -> None:
        with chisocket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError) as caught:
                sock.connect(refusing(bob_daemon))
            assert caught.value.errno == errno.EINPROGRESS
            assert ready(sock, WRITE, PATIENCE)
            told = [sock.getsockopt(SOL, socket.SO_ERROR) for _ in range(2)]
            assert told == [errno.ECONNREFUSED, 0]

    def test_a_time_out(self, listener: chisocket.socket, cut: Callable[[bool], None]) -> None:
        cut(True)
        with chisocket.socket() as sock:
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.connect(listener.getsockname())

    def test_to_a_name_of_the_lab(self, listener: chisocket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        host, port = listener.getsockname()[:2]
        monkeypatch.setenv("CHITCP_HOSTS", f"bob={host} carol=2001:db8::3")
        with chisocket.create_connection(("bob", port)) as near:
            assert near.getpeername() == (host, port)
        found = chisocket.getaddrinfo("bob", port, type=socket.SOCK_STREAM)
        assert (socket.AF_INET, socket.SOCK_STREAM, TCP, "", (host, port)) in found
        with chisocket.socket() as sock, pytest.raises(socket.gaierror, match="carol has no address of the family"):
            sock.connect(("carol", port))

    @pytest.mark.parametrize(
        ("address", "error"),
        [("bob", TypeError), (("127.0.0.1",), TypeError), (("127.0.0.1", "80"), TypeError), ((1, 80), TypeError)]
        + [(("127.0.0.1", port), OverflowError) for port in (-1, 65536)],
    )
    def test_what_is_no_address(self, address: object, error: type[Exception]) -> None:
        with chisocket.socket() as sock:
            for call in (sock.connect, sock.connect_ex, sock.bind):
                with pytest.raises(error):
                    call(address)

    def test_of_an_address_that_is_not_ours(self, bob_daemon: Daemon) -> None:
        with chisocket.socket() as sock, pytest.raises(OSError) as caught:
            sock.bind((bob_daemon.address, 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL


class TestAccept:
    @every_way
    def test_a_listener_is_readable_when_a_connection_waits(self, ready: Wait, listener: chisocket.socket) -> None:
        assert not ready(listener, READ, 0)
        with chisocket.create_connection(listener.getsockname()) as near:
            assert ready(listener, READ, PATIENCE)
            accepted, address = listener.accept()
            assert address == near.getsockname()
            assert not ready(listener, READ, 0)
            accepted.close()

    def test_without_blocking(self, listener: chisocket.socket) -> None:
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()

    def test_a_time_out(self, listener: chisocket.socket) -> None:
        listener.settimeout(0.01)
        with pytest.raises(TimeoutError):
            listener.accept()

    def test_the_accepted_one_blocks_whatever_its_listener_does(self, ends: Ends, listener: chisocket.socket) -> None:
        assert listener.gettimeout() == PATIENCE
        with chisocket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.gettimeout() is None

    def test_what_has_come_before_accept_is_there(self, listener: chisocket.socket) -> None:
        with chisocket.create_connection(listener.getsockname()) as near:
            near.sendall(b"early")
        with listener.accept()[0] as accepted, accepted.makefile("rb") as file:
            assert file.read() == b"early"

    def test_a_port_that_is_in_use(self, listener: chisocket.socket, bob_daemon: Daemon) -> None:
        os.environ["CHITCPD_SOCK"] = bob_daemon.socket  # the fixture's monkeypatch puts it back
        with pytest.raises(OSError) as caught:
            chisocket.create_server(listener.getsockname())
        assert caught.value.errno == errno.EADDRINUSE

    def test_a_port_is_free_as_soon_as_its_listener_is_closed(self, alice: Daemon) -> None:
        for _ in range(3):
            with chisocket.create_server((alice.address, 7777)) as sock:
                assert sock.getsockname() == (alice.address, 7777)
                chisocket.create_connection((alice.address, 7777)).close()
                sock.accept()[0].close()

    def test_from_what_does_not_listen(self, ends: Ends) -> None:
        with chisocket.socket() as fresh, pytest.raises(OSError) as caught:
            fresh.accept()
        assert caught.value.errno == errno.EINVAL
        ends.near.sendall(bytes(200))
        assert by_poll(ends.far, READ, PATIENCE)
        with pytest.raises(OSError) as caught:
            ends.far.accept()
        assert caught.value.errno == errno.EINVAL
        assert len(ends.far.recv(500)) == 200  # which accept has not taken for a connection

    def test_without_a_free_number_what_waits_goes_on_waiting(self, listener: chisocket.socket) -> None:
        with chisocket.create_connection(listener.getsockname()) as near:
            near.sendall(b"patient")
            with no_free_number(), pytest.raises(OSError) as caught:
                listener.accept()
            assert caught.value.errno == errno.EMFILE
            with listener.accept()[0] as accepted:
                assert accepted.recv(100) == b"patient"

    def test_shutdown_wakes_who_waits(self, listener: chisocket.socket, background: ThreadPoolExecutor) -> None:
        listener.settimeout(None)
        accepting = background.submit(listener.accept)
        listener.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError) as caught:
            accepting.result(PATIENCE)
        assert caught.value.errno == errno.EINVAL


class TestData:
    def test_each_way_to_receive(self, ends: Ends) -> None:
        buffer = bytearray(4)
        ends.far.sendall(b"abcdefghijklmnopqrst")
        assert ends.near.recv(4, socket.MSG_WAITALL) == b"abcd"
        assert ends.near.recv(2, socket.MSG_PEEK) == b"ef"
        assert ends.near.recv_into(buffer, 2) == 2
        assert buffer == b"ef\0\0"
        assert ends.near.recvmsg(4) == (b"ghij", [], 0, None)
        assert ends.near.recvmsg_into([buffer])[0] == 4
        assert buffer == b"klmn"
        assert ends.near.recvfrom(2) == (b"op", None)
        assert ends.near.recvfrom_into(buffer) == (4, None)
        assert buffer == b"qrst"

    def test_each_way_to_send(self, ends: Ends) -> None:
        assert ends.near.send(b"a") == 1
        ends.near.sendall(memoryview(b"b"))
        assert ends.near.sendmsg([b"c", b"d"]) == 2
        assert ends.near.sendto(b"e", ends.far.getsockname()) == 1
        assert ends.near.sendto(b"f", 0, ends.far.getsockname()) == 1
        ends.near.sendfile(io.BytesIO(b"gh"))
        ends.near.shutdown(socket.SHUT_WR)
        with ends.far.makefile("rb") as file:
            assert file.read() == b"abcdefgh"

    @pytest.mark.parametrize(
        "send",
        [
            lambda sock, data: sock.send(data, socket.MSG_OOB),
            lambda sock, data: sock.sendall(data, socket.MSG_OOB),
            lambda sock, data: sock.sendmsg([data], [], socket.MSG_OOB),
            lambda sock, data: sock.sendto(data, socket.MSG_OOB, ("127.0.0.1", 1)),
        ],
    )
    def test_urgent_data_comes_in_line(self, ends: Ends, send: Callable[[chisocket.socket, bytes], object]) -> None:
        ends.near.sendall(b"abc")
        send(ends.near, b"XYZ")
        ends.near.sendall(b"def")
        with ends.far.makefile("rb") as file:
            assert file.read(9) == b"abcXYZdef"

    def test_a_file(self, ends: Ends, tmp_path_factory: pytest.TempPathFactory, background: ThreadPoolExecutor) -> None:
        content = os.urandom(3 << 20)
        path = tmp_path_factory.mktemp("sent") / "file"
        path.write_bytes(content)
        with path.open("rb") as file, ends.far.makefile("rb") as incoming:
            sending = background.submit(ends.near.sendfile, file)
            assert incoming.read(len(content)) == content
            assert sending.result(PATIENCE) == len(content)

    def test_lines_of_text(self, ends: Ends) -> None:
        with ends.near.makefile("rw", encoding="utf-8", newline="\n") as near:
            near.write("grüße\n")
            near.flush()
            with ends.far.makefile("r", encoding="utf-8") as far:
                assert far.readline() == "grüße\n"

    def test_megabytes_both_ways_at_once(self, ends: Ends, background: ThreadPoolExecutor) -> None:
        data = os.urandom(4 << 20)
        for sock in (ends.near, ends.far):
            background.submit(sock.sendall, data)
        files = [sock.makefile("rb") for sock in (ends.near, ends.far)]
        received = [background.submit(file.read, len(data)) for file in files]
        assert all(future.result(30) == data for future in received)
        for file in files:
            file.close()

    def test_without_blocking_and_with_a_time_out(self, ends: Ends) -> None:
        ends.near.setblocking(False)
        with pytest.raises(BlockingIOError):
            ends.near.recv(1)
        ends.near.settimeout(0.01)
        with pytest.raises(TimeoutError):
            ends.near.recv(1)
        with pytest.raises(TimeoutError):
            ends.near.sendall(bytes(32 << 20))

    def test_the_default_time_out(self, listener: chisocket.socket) -> None:
        socket.setdefaulttimeout(0.01)
        try:
            with chisocket.socket() as sock:
                assert sock.gettimeout() == 0.01
                sock.connect(listener.getsockname())
                with pytest.raises(TimeoutError):
                    sock.recv(1)
        finally:
            socket.setdefaulttimeout(None)


class TestTheEnd:
    def test_a_half_closed_connection_goes_on_the_other_way(self, ends: Ends) -> None:
        ends.near.sendall(b"question")
        ends.near.shutdown(socket.SHUT_WR)
        with ends.far.makefile("rb") as file:
            assert file.read() == b"question"
        ends.far.sendall(b"answer")
        assert ends.near.recv(100) == b"answer"
        with pytest.raises(BrokenPipeError):
            ends.near.send(b"more")

    def test_shut_rd_reads_no_more_and_sends_on(self, ends: Ends) -> None:
        ends.near.shutdown(socket.SHUT_RD)
        assert ends.near.recv(1) == b""
        ends.near.sendall(b"still here")
        assert ends.far.recv(100) == b"still here"

    def test_shutdown_of_what_is_not_connected(self) -> None:
        with chisocket.socket() as sock, pytest.raises(OSError) as caught:
            sock.shutdown(socket.SHUT_RDWR)
        assert caught.value.errno == errno.ENOTCONN

    def test_data_sent_before_close_arrives(self, ends: Ends) -> None:
        ends.near.sendall(bytes(500_000))
        ends.near.close()
        with ends.far.makefile("rb") as file:
            assert len(file.read()) == 500_000
        assert ends.far.recv(1) == b""

    @pytest.mark.parametrize("call", [lambda s: s.recv(1), lambda s: s.recv_into(bytearray(1)), lambda s: s.recvmsg(1)])
    def test_a_reset_is_told_once(self, ends: Ends, call: Callable[[chisocket.socket], object]) -> None:
        reset(ends.far)
        with pytest.raises(ConnectionResetError):
            call(ends.near)
        assert ends.near.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            ends.near.send(b"x")

    def test_so_error_tells_of_a_reset_once(self, ends: Ends) -> None:
        reset(ends.far)
        assert by_poll(ends.near, READ, PATIENCE)
        assert [ends.near.getsockopt(SOL, socket.SO_ERROR) for _ in range(2)] == [errno.ECONNRESET, 0]

    def test_who_sends_into_a_reset_is_told(self, ends: Ends) -> None:
        reset(ends.far)
        assert by_poll(ends.near, READ, PATIENCE)
        with pytest.raises(ConnectionResetError):
            ends.near.send(b"x")

    def test_closing_with_something_unread_is_a_reset(self, ends: Ends) -> None:
        ends.near.sendall(b"nobody reads this")
        assert by_poll(ends.far, READ, PATIENCE)
        ends.far.close()
        with pytest.raises(ConnectionResetError):
            ends.near.recv(1)

    def test_a_peer_that_answers_no_more(self, ends: Ends, cut: Callable[[bool], None]) -> None:
        ends.near.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 300)
        cut(True)
        ends.near.sendall(b"is anybody there?")
        with pytest.raises(TimeoutError) as caught:
            ends.near.recv(1)
        assert caught.value.errno == errno.ETIMEDOUT

    def test_a_socket_that_was_never_closed_is_told(self) -> None:
        with pytest.warns(ResourceWarning) as told:
            chisocket.socket()
        assert [str(one.message)[:19] for one in told] == ["unclosed <chisocket"]


class TestLinger:
    def test_of_no_time_is_a_reset(self, ends: Ends) -> None:
        reset(ends.near)
        with pytest.raises(ConnectionResetError):
            ends.far.recv(1)

    def test_of_no_time_is_a_reset_whatever_waits(self, ends: Ends) -> None:
        fill(ends.near)
        reset(ends.near)
        chisocket.wait_for_state(ends.far, chisocket.TcpState.CLOSED, PATIENCE)

    def test_waits_for_the_peer(self, ends: Ends, alice: Daemon) -> None:
        """Until it has acknowledged all of it, the FIN too."""
        ends.near.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, int(PATIENCE)))
        port = ends.near.getsockname()[1]
        ends.near.sendall(bytes(100_000))
        ends.near.close()
        mine = [s["state"] for s in alice.sockets() if s["local"].endswith(f":{port}")]
        assert mine in ([], ["FIN_WAIT_2"], ["TIME_WAIT"])

    def test_waits_no_longer_than_was_said(self, ends: Ends, cut: Callable[[bool], None]) -> None:
        cut(True)
        ends.near.sendall(b"never arrives")
        ends.near.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 1))
        ends.near.close()
        cut(False)
        assert ends.far.recv(100) == b"never arrives"  # after all: it was left to the daemon

    def test_is_the_sockets_and_not_its_numbers(
        self, listener: chisocket.socket, cut: Callable[[bool], None], background: ThreadPoolExecutor
    ) -> None:
        former, ends = Ends(listener), Ends(listener)
        former.near.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 60))
        number = former.near.detach()
        with ends.near:
            os.dup2(ends.near.fileno(), number, inheritable=False)
        cut(True)
        with chisocket.socket(fileno=number) as again:
            again.sendall(b"late")
            background.submit(again.close).result(PATIENCE)
        former.far.close()
        ends.far.close()

    def test_is_there_also_under_another_number(
        self, ends: Ends, cut: Callable[[bool], None], background: ThreadPoolExecutor
    ) -> None:
        ends.near.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 60))
        with chisocket.socket(fileno=ends.near.detach()) as again:
            copy = again.dup()
        cut(True)
        copy.sendall(b"late")
        closing = background.submit(copy.close)
        with pytest.raises(TimeoutError):
            closing.result(0.3)
        cut(False)
        closing.result(PATIENCE)
        assert ends.far.recv(100) == b"late"


class TestDescriptors:
    def test_detach(self, ends: Ends) -> None:
        with chisocket.socket(fileno=ends.near.detach()) as again:
            assert ends.near.fileno() == -1
            assert (again.family, again.type) == (socket.AF_INET, socket.SOCK_STREAM)
            assert again.getpeername() == ends.far.getsockname()
            again.sendall(b"x")
            assert ends.far.recv(1) == b"x"

    def test_dup(self, ends: Ends) -> None:
        copy = ends.near.dup()
        ends.near.close()
        copy.sendall(b"by the copy")
        assert ends.far.recv(100) == b"by the copy"
        copy.close()
        assert ends.far.recv(100) == b""

    def test_a_child_of_a_fork_uses_its_parents(self, ends: Ends) -> None:
        child = os.fork()
        if child == 0:
            try:
                ends.near.sendall(ends.near.getpeername()[0].encode())
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        host = ends.far.getsockname()[0].encode()
        assert ends.far.recv(100) == host
        ends.near.sendall(b"and I")
        assert ends.far.recv(100) == b"and I"

    def test_a_program_that_inherits_it(self, ends: Ends, alice: Daemon) -> None:
        code = (
            "import chisocket, sys\n"
            "sock = chisocket.socket(fileno=int(sys.argv[1]))\n"
            "sock.sendall(repr(sock.getpeername()).encode())"
        )
        number = ends.near.fileno()
        subprocess.run(
            [sys.executable, "-c", code, str(number)],
            pass_fds=[number],
            env={**environment(), "CHITCPD_SOCK": alice.socket},
            check=True,
            timeout=PATIENCE,
        )
        assert ends.far.recv(100).decode() == repr(ends.far.getsockname())

    def test_others_do_not_inherit_it(self, ends: Ends, listener: chisocket.socket) -> None:
        assert not any(map(os.get_inheritable, (listener.fileno(), ends.near.fileno(), ends.far.fileno())))

    def test_of_a_process_that_is_killed(self, listener: chisocket.socket, alice: Daemon) -> None:
        code = f"import chisocket, signal; c = chisocket.create_connection({listener.getsockname()!r}); signal.pause()"
        process = subprocess.Popen([sys.executable, "-c", code], env={**environment(), "CHITCPD_SOCK": alice.socket})
        with listener.accept()[0] as far:
            far.settimeout(PATIENCE)
            process.kill()
            process.wait()
            assert far.recv(1) == b""

    def test_many_threads(self, listener: chisocket.socket, background: ThreadPoolExecutor) -> None:
        def talk(number: int) -> bytes:
            with chisocket.create_connection(listener.getsockname(), timeout=PATIENCE) as sock:
                sock.sendall(b"%d" % number)
                sock.shutdown(socket.SHUT_WR)
                return sock.recv(100)

        answers = [background.submit(talk, number) for number in range(60)]
        for _ in answers:
            sock, _ = listener.accept()
            with sock, sock.makefile("rb") as file:
                sock.sendall(file.read())
        assert [future.result(PATIENCE) for future in answers] == [b"%d" % number for number in range(60)]

    def test_none_is_to_be_had_without_a_free_number(self, alice: Daemon, listener: chisocket.socket) -> None:
        with chisocket.socket() as sock:
            with pytest.raises(ConnectionRefusedError):
                sock.connect(refusing(alice))
            for call in (chisocket.socket, lambda: sock.connect(listener.getsockname())):  # which needs a new one
                with no_free_number(), pytest.raises(OSError) as caught:
                    call()
                assert caught.value.errno == errno.EMFILE

    def test_names_in_the_standard_library_are_as_before(self) -> None:
        assert implementation.init_native is socket.socket.__init__


class TestOptions:
    @pytest.mark.parametrize(
        ("level", "name", "value"),
        [
            (SOL, socket.SO_REUSEADDR, 1),
            (SOL, socket.SO_KEEPALIVE, 1),
            (SOL, socket.SO_SNDBUF, 50_000),
            (SOL, socket.SO_RCVBUF, 50_000),
            (TCP, socket.TCP_NODELAY, 1),
            (TCP, socket.TCP_MAXSEG, 700),
            (TCP, socket.TCP_KEEPIDLE, 10),
            (TCP, socket.TCP_KEEPINTVL, 5),
            (TCP, socket.TCP_KEEPCNT, 3),
            (TCP, socket.TCP_SYNCNT, 2),
            (TCP, socket.TCP_USER_TIMEOUT, 1234),
            (socket.IPPROTO_IP, socket.IP_TOS, 16),
        ],
    )
    def test_what_is_set_is_given_back(self, level: int, name: int, value: int) -> None:
        with chisocket.socket() as sock:
            sock.setsockopt(level, name, value)
            assert sock.getsockopt(level, name) == value

    def test_congestion_control(self, ends: Ends) -> None:
        for sock in (ends.near, ends.far):
            sock.setsockopt(TCP, socket.TCP_CONGESTION, b"reno")
            assert sock.getsockopt(TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"newreno"
            with pytest.raises(FileNotFoundError):
                sock.setsockopt(TCP, socket.TCP_CONGESTION, b"nobody has written this")

    def test_linger(self) -> None:
        with chisocket.socket() as sock:
            assert struct.unpack("ii", sock.getsockopt(SOL, socket.SO_LINGER, 8)) == (0, 0)
            sock.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 5))
            assert struct.unpack("ii", sock.getsockopt(SOL, socket.SO_LINGER, 8)) == (1, 5)

    def test_what_kind_it_is(self, listener: chisocket.socket, ends: Ends) -> None:
        for sock, listens in ((listener, 1), (ends.near, 0)):
            assert sock.getsockopt(SOL, socket.SO_TYPE) == socket.SOCK_STREAM
            assert sock.getsockopt(SOL, socket.SO_DOMAIN) == socket.AF_INET
            assert sock.getsockopt(SOL, socket.SO_PROTOCOL) == TCP
            assert sock.getsockopt(SOL, socket.SO_ACCEPTCONN) == listens

    def test_unknown_ones(self) -> None:
        with chisocket.socket() as sock:
            for level, name in ((SOL, 4000), (TCP, 4000), (4000, 1)):
                with pytest.raises(OSError) as read:
                    sock.getsockopt(level, name)
                with pytest.raises(OSError) as written:
                    sock.setsockopt(level, name, 1)
                assert (read.value.errno, written.value.errno) == (errno.ENOPROTOOPT, errno.ENOPROTOOPT)

    def test_a_listener_hands_its_own_down(self, listener: chisocket.socket) -> None:
        listener.setsockopt(TCP, socket.TCP_NODELAY, 1)
        ends = Ends(listener)
        assert ends.far.getsockopt(TCP, socket.TCP_NODELAY) == 1
        ends.near.close()
        ends.far.close()

    def test_tcp_info_is_linuxs_structure(self, ends: Ends) -> None:
        ends.near.sendall(bytes(10_000))
        ends.near.shutdown(socket.SHUT_WR)
        with ends.far.makefile("rb") as file:
            file.read()
        chisocket.wait_for_state(ends.near, chisocket.TcpState.FIN_WAIT_2, PATIENCE)  # all is acknowledged
        raw = ends.near.getsockopt(TCP, socket.TCP_INFO, 256)
        state, _, _, _, _, options, _, _ = struct.unpack_from("8B", raw)
        rto, _, snd_mss, _ = struct.unpack_from("=4I", raw, 8)
        rtt, rttvar, _, snd_cwnd, advmss = struct.unpack_from("=5I", raw, 68)
        bytes_acked, bytes_received = struct.unpack_from("=2Q", raw, 120)
        assert state in (4, 5)  # FIN_WAIT1, FIN_WAIT2
        assert options & 7 == 7  # timestamps, SACK, window scaling
        assert (snd_mss, advmss) == (1448, 1460)
        assert 0 < rtt < 1_000_000
        assert rttvar < 1_000_000
        assert rto >= 200_000
        assert snd_cwnd >= 10
        assert 10_000 <= bytes_acked <= 10_001
        assert bytes_received == 0


class TestIPv6:
    @pytest.fixture(autouse=True)
    def _at_home(self, ipv6_daemon: Daemon, alice: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHITCPD_SOCK", ipv6_daemon.socket)

    def test_addresses_have_four_parts(self) -> None:
        with chisocket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
            assert listener.getsockname() == ("::1", listener.getsockname()[1], 0, 0)
            with chisocket.create_connection(("::1", listener.getsockname()[1])) as near, listener.accept()[0] as far:
                assert near.family == far.family == socket.AF_INET6
                assert near.getpeername() == listener.getsockname()
                near.sendall(b"x")
                assert far.recv(1) == b"x"

    def test_an_address_of_the_other_family(self) -> None:
        with chisocket.socket(socket.AF_INET6) as sock, pytest.raises(socket.gaierror):
            sock.connect(("127.0.0.1", 80))
        with chisocket.socket() as sock, pytest.raises(socket.gaierror):
            sock.connect(("::1", 80))


class TestDualStack:
    def test_it_takes_ipv4_with_mapped_addresses(self, alice: Daemon) -> None:
        with chisocket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
            port = listener.getsockname()[1]
            with chisocket.create_connection((alice.address, port)) as near, listener.accept()[0] as far:
                assert far.getpeername() == (f"::ffff:{alice.address}", near.getsockname()[1], 0, 0)
                assert far.getsockname() == (f"::ffff:{alice.address}", port, 0, 0)

    def test_one_for_ipv6_only_does_not(self, alice: Daemon) -> None:
        with chisocket.create_server(("", 0), family=socket.AF_INET6) as listener, chisocket.socket() as sock:
            assert sock.connect_ex((alice.address, listener.getsockname()[1])) == errno.ECONNREFUSED

    def test_a_mapped_address_is_connected_to_as_ipv4(self, listener: chisocket.socket) -> None:
        host, port = listener.getsockname()[:2]
        with chisocket.socket(socket.AF_INET6) as near:
            near.connect((f"::ffff:{host}", port))
            assert near.getpeername() == (f"::ffff:{host}", port, 0, 0)
            with listener.accept()[0] as far:
                assert far.getpeername()[1] == near.getsockname()[1]
