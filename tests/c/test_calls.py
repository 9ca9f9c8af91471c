"""Each call from C, in each way: by descriptors, by requests, and the system's own functions under chirun."""

from __future__ import annotations

import errno
import select
import socket
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.c.conftest import BY_DESCRIPTOR, CHISOCKET, Calls, Start, addr, connected, home, listening
from tests.daemon.conftest import PATIENCE, Daemon


def test_a_conversation(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    sock, accepted = connected(client, server, bob_daemon.address)
    assert client("send", sock, b"Hello!").ret == 6
    assert server("recv", accepted, 100).bytes == b"Hello!"
    assert server("send", accepted, b"And good-bye.").ret == 13
    assert client("recv", sock, 4).bytes == b"And "
    assert client("recv", sock, 100).bytes == b"good-bye."
    client.good("shutdown", sock, socket.SHUT_WR)
    assert server("recv", accepted, 100) == (0, 0, "")
    server.begin("close", accepted)
    assert client("recv", sock, 100) == (0, 0, "")
    assert server.end().ret == 0
    assert client("close", sock).ret == 0


def test_names_of_both_ends(client: Calls, server: Calls, alice_daemon: Daemon, bob_daemon: Daemon) -> None:
    listener, port = listening(server, bob_daemon.address)
    sock = client.good("socket", 2, 1, 0).ret
    client.good("connect", sock, addr(bob_daemon.address, port))
    own = client.good("getsockname", sock, 128).bytes
    assert own[4:8] == socket.inet_aton(alice_daemon.address)
    assert client.good("getpeername", sock, 128).bytes == addr(bob_daemon.address, port)
    accepted = server.good("accept", listener, 128)
    assert accepted.bytes == own
    assert server.good("getpeername", accepted.ret, 128).bytes == own
    assert server.good("getpeername", accepted.ret, 4).bytes == own[:4]  # cut, as a system call does it


def test_ipv6(start: Start, ipv6_daemon: Daemon, way: str) -> None:
    client, server = start(ipv6_daemon, way), start(ipv6_daemon, way)
    sock, accepted = connected(client, server, "::1")
    client.good("send", sock, b"over IPv6")
    assert server("recv", accepted, 100).bytes == b"over IPv6"
    assert len(server.good("getpeername", accepted, 128).bytes) == 28


def test_accept_without_an_address(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    listener, port = listening(server, bob_daemon.address)
    client.good("connect", client.good("socket", 2, 1, 0).ret, addr(bob_daemon.address, port))
    assert server("accept", listener, None).ret >= 0


def test_a_refused_connect(client: Calls, bob_daemon: Daemon) -> None:
    sock = client.good("socket", 2, 1, 0).ret
    assert client("connect", sock, addr(bob_daemon.address, 9)) == (-1, errno.ECONNREFUSED, "")


def test_a_connect_that_is_tried_again(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    _, port = listening(server, bob_daemon.address)
    sock = client.good("socket", 2, 1, 0).ret
    assert client("connect", sock, addr(bob_daemon.address, 9)).errno == errno.ECONNREFUSED
    assert client("connect", sock, addr(bob_daemon.address, port)).ret == 0
    assert client("send", sock, b"!").ret == 1


def test_a_port_in_use(client: Calls, alice_daemon: Daemon) -> None:
    _, port = listening(client, alice_daemon.address)
    sock = client.good("socket", 2, 1, 0).ret
    assert client("bind", sock, addr(alice_daemon.address, port)).errno == errno.EADDRINUSE


def test_more_than_the_buffers_hold(client: Calls, server: Calls, bob_daemon: Daemon, way: str) -> None:
    sock, accepted = connected(client, server, bob_daemon.address)
    payload = bytes(range(256)) * (1 << 12)  # 1 MiB
    client.begin("send_all" if way != "chirun" else "send", sock, payload)
    received = bytearray()
    while len(received) < len(payload):
        received += server.good("recv", accepted, 1 << 20).bytes
    assert client.end().ret == len(payload)
    assert received == payload


def test_options(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    sock, _ = connected(client, server, bob_daemon.address)
    client.good("setsockopt", sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1))
    assert client.good("getsockopt", sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 4).bytes == struct.pack("i", 1)
    assert client.good("getsockopt", sock, socket.SOL_SOCKET, socket.SO_ERROR, 4).bytes == bytes(4)
    established = client.good("getsockopt", sock, socket.IPPROTO_TCP, socket.TCP_INFO, 104).bytes
    assert (established[0], len(established)) == (1, 104)
    assert client("getsockopt", sock, 77, 1, 4).errno == errno.ENOPROTOOPT


def test_a_reset(client: Calls, server: Calls, bob_daemon: Daemon, way: str) -> None:
    sock, accepted = connected(client, server, bob_daemon.address)
    client.good("send", sock, b"which the server does not read")
    if way != "requests":
        assert server("poll", accepted, select.POLLIN, 10_000).ret == select.POLLIN
    server.kill()
    assert client("recv", sock, 100).errno == errno.ECONNRESET
    # A descriptor's error is told once, as by a kernel's; interop.md has 104 for requests.
    assert client("send", sock, b"more").errno == (errno.ECONNRESET if way == "requests" else errno.EPIPE)


@pytest.mark.parametrize("way", CHISOCKET)  # under chirun these wait: docs/sockets.md
@pytest.mark.parametrize("call", ["recv", "send"])
def test_before_a_connection(client: Calls, call: str) -> None:
    sock = client.good("socket", 2, 1, 0).ret
    assert client(call, sock, 10 if call == "recv" else b"data").errno == errno.ENOTCONN


def test_accept_from_what_does_not_listen(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    fresh = client.good("socket", 2, 1, 0).ret
    assert client("accept", fresh, 128).errno == errno.EINVAL
    sock, accepted = connected(client, server, bob_daemon.address)
    server.good("send", accepted, bytes(200))
    assert client("accept", sock, 128).errno == errno.EINVAL
    assert len(client.good("recv", sock, 500).bytes) == 200  # which accept has not taken for a connection


@pytest.mark.parametrize("way", BY_DESCRIPTOR)
def test_a_listener_that_is_shut_down(server: Calls, client: Calls, bob_daemon: Daemon) -> None:
    listener, port = listening(server, bob_daemon.address)
    server.good("shutdown", listener, socket.SHUT_RDWR)
    assert server("accept", listener, 128).errno == errno.EINVAL
    sock = client.good("socket", 2, 1, 0).ret
    assert client("connect", sock, addr(bob_daemon.address, port)).errno == errno.ECONNREFUSED


@pytest.mark.parametrize("way", BY_DESCRIPTOR)
class TestDescriptors:
    """What only a descriptor can: poll, fork, dup, and not to wait."""

    def test_poll(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        assert client("poll", sock, select.POLLIN, 0).ret == 0
        server.good("send", accepted, b"!")
        assert client("poll", sock, select.POLLIN, 10_000).ret == select.POLLIN

    def test_a_connect_that_does_not_wait(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        listener, port = listening(server, bob_daemon.address)
        sock = client.good("socket", 2, 1, 0).ret
        client.good("nonblocking", sock)
        assert client("connect", sock, addr(bob_daemon.address, port)).errno == errno.EINPROGRESS
        assert client("poll", sock, select.POLLOUT, 10_000).ret == select.POLLOUT
        assert client.good("getsockopt", sock, socket.SOL_SOCKET, socket.SO_ERROR, 4).bytes == bytes(4)
        assert client("connect", sock, addr(bob_daemon.address, port)).errno == errno.EISCONN
        assert client("recv", sock, 10).errno == errno.EAGAIN
        server.good("accept", listener, 16)

    def test_one_that_does_not_wait_and_is_refused(self, client: Calls, bob_daemon: Daemon) -> None:
        sock = client.good("socket", 2, socket.SOCK_STREAM, 0).ret
        client.good("nonblocking", sock)
        assert client("connect", sock, addr(bob_daemon.address, 9)).errno == errno.EINPROGRESS
        assert client("poll", sock, select.POLLOUT, 10_000).ret & select.POLLHUP
        error = client.good("getsockopt", sock, socket.SOL_SOCKET, socket.SO_ERROR, 4).bytes
        assert error == struct.pack("i", errno.ECONNREFUSED)

    def test_one_that_is_refused_and_tried_again(self, client: Calls, bob_daemon: Daemon) -> None:
        """Who does not ask for SO_ERROR learns from the next connect how the last one has ended, as with a kernel."""
        sock = client.good("socket", 2, 1, 0).ret
        client.good("nonblocking", sock)
        nobody = addr(bob_daemon.address, 9)
        assert client("connect", sock, nobody).errno == errno.EINPROGRESS
        assert client("poll", sock, select.POLLOUT, 10_000).ret & select.POLLHUP
        assert client("connect", sock, nobody).errno == errno.ECONNREFUSED
        assert client("connect", sock, nobody).errno == errno.EINPROGRESS

    def test_a_program_without_a_free_number(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        """What waits to be accepted goes on waiting."""
        listener, port = listening(server, bob_daemon.address)
        sock = client.good("socket", 2, 1, 0).ret
        client.good("connect", sock, addr(bob_daemon.address, port))
        client.good("send", sock, b"patient")
        server.good("limit", listener + 1)
        assert server("accept", listener, 16).errno == errno.EMFILE
        server.good("limit", 1024)
        accepted = server.good("accept", listener, 16).ret
        assert server("recv", accepted, 100).bytes == b"patient"

    def test_a_connect_that_needs_another_end_and_has_no_free_number(
        self, client: Calls, server: Calls, bob_daemon: Daemon
    ) -> None:
        _, port = listening(server, bob_daemon.address)
        sock = client.good("socket", 2, 1, 0).ret
        assert client("connect", sock, addr(bob_daemon.address, 9)).errno == errno.ECONNREFUSED
        client.good("limit", sock + 1)
        assert client("connect", sock, addr(bob_daemon.address, port)).errno == errno.EMFILE
        assert client("socket", 2, 1, 0).errno == errno.EMFILE
        client.good("limit", 1024)  # sanitizers look around at the end

    def test_a_send_buffer_made_small_bounds_what_is_taken(
        self, client: Calls, server: Calls, bob_daemon: Daemon
    ) -> None:
        listener, port = listening(server, bob_daemon.address)
        small = struct.pack("i", 4096)
        server.good("setsockopt", listener, socket.SOL_SOCKET, socket.SO_RCVBUF, small)
        sock = client.good("socket", 2, 1, 0).ret
        client.good("connect", sock, addr(bob_daemon.address, port))
        client.good("setsockopt", sock, socket.SOL_SOCKET, socket.SO_SNDBUF, small)
        client.good("nonblocking", sock)
        sent = 0
        while client("poll", sock, select.POLLOUT, 200).ret & select.POLLOUT:
            sent += client.good("send", sock, bytes(1024)).ret
        assert 4096 <= sent <= 8 * 4096

    def test_urgent_data_comes_in_line(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        client.good("send", sock, b"abcX", socket.MSG_OOB)
        client.good("send", sock, b"def")
        client.good("shutdown", sock, socket.SHUT_WR)
        received = b""
        while piece := server.good("recv", accepted, 100).bytes:
            received += piece
        assert received == b"abcXdef"

    def test_accept_that_does_not_wait(self, server: Calls, bob_daemon: Daemon) -> None:
        listener, _ = listening(server, bob_daemon.address)
        server.good("nonblocking", listener)
        assert server("accept", listener, 128).errno == errno.EAGAIN

    def test_a_child_has_it_too(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        assert client("child", sock, b"from the child").ret == 0
        assert server("recv", accepted, 100).bytes == b"from the child"
        client.good("send", sock, b"from the parent")
        assert server("recv", accepted, 100).bytes == b"from the parent"

    def test_a_copy_is_as_good(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        client.good("duplicate", sock, 50)
        client.good("close", sock)
        client.good("send", 50, b"by the copy")
        assert server("recv", accepted, 100).bytes == b"by the copy"
        assert client.good("getpeername", 50, 128).bytes[4:8] == socket.inet_aton(bob_daemon.address)

    def test_a_program_that_closes_all_numbers(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        client.good("close_all", sock)
        client.good("setsockopt", sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1))
        client.good("send", sock, b"still here")
        assert server("recv", accepted, 100).bytes == b"still here"


def test_a_number_belongs_to_its_process(start: Start, alice_daemon: Daemon) -> None:
    """interop.md has them global to the daemon; ours refuse those that the process has not made."""
    owner, other = start(alice_daemon, "requests"), start(alice_daemon, "requests")
    sock = owner.good("socket", 2, 1, 0).ret
    assert other("bind", sock, addr(alice_daemon.address, 0)).errno == errno.EBADF
    assert owner("bind", sock, addr(alice_daemon.address, 0)).ret == 0


def test_a_process_that_ends_takes_its_numbers_along(start: Start, alice_daemon: Daemon, bob_daemon: Daemon) -> None:
    client, server = start(alice_daemon, "requests"), start(bob_daemon, "requests")
    _, accepted = connected(client, server, bob_daemon.address)
    client.kill()
    assert server("recv", accepted, 100).errno == errno.ECONNRESET


class TestSignals:
    """A signal handler interrupts what waits, and nothing is lost or doubled by that."""

    @pytest.mark.parametrize("call", ["recv", "accept"])
    def test_a_call_that_waits(self, start: Start, bob_daemon: Daemon, way: str, call: str) -> None:
        server = start(bob_daemon, way)
        listener, port = listening(server, bob_daemon.address)
        if call == "accept":
            server.good("alarm", 100)
            assert server("accept", listener, 128).errno == errno.EINTR
        client = start(bob_daemon, way)
        sock = client.good("socket", 2, 1, 0).ret
        client.good("connect", sock, addr(bob_daemon.address, port))
        accepted = server.good("accept", listener, 128).ret
        if call == "recv":
            server.good("alarm", 100)
            assert server("recv", accepted, 100).errno == errno.EINTR
        client.good("send", sock, b"after that")
        assert server("recv", accepted, 100).bytes == b"after that"

    @pytest.mark.parametrize("way", CHISOCKET)
    def test_a_send_that_waits(self, client: Calls, server: Calls, bob_daemon: Daemon) -> None:
        """It has been taken in part: that is what the call returns, so that nobody sends it again."""
        sock, accepted = connected(client, server, bob_daemon.address)
        piece, taken = bytes(1_000_000), 0
        client.good("alarm", 150, "again")
        while (answer := client("send", sock, piece)).errno != errno.EINTR:
            taken += answer.ret
        client.good("alarm", 0)
        client.good("shutdown", sock, socket.SHUT_WR)
        received = 0
        while count := server.good("recv", accepted, 1 << 20).ret:
            received += count
        assert received == taken > 1_000_000

    @pytest.mark.parametrize("way", ["requests"])
    def test_many_signals_lose_no_byte(
        self, client: Calls, server: Calls, bob_daemon: Daemon, background: ThreadPoolExecutor
    ) -> None:
        """A RECV may be answered in the very moment in which it is taken back."""
        sock, accepted = connected(client, server, bob_daemon.address)

        def send() -> None:
            for number in range(150):
                client.good("send", sock, struct.pack("!I", number))

        sending = background.submit(send)
        received = bytearray()
        while len(received) < 600:
            server.good("alarm", 1)
            answer = server("recv", accepted, 1000)
            assert answer.errno in (0, errno.EINTR)
            received += answer.bytes
        sending.result(PATIENCE)
        assert received == b"".join(struct.pack("!I", number) for number in range(150))

    @pytest.mark.parametrize("restart", [(), ("restart",)])
    @pytest.mark.parametrize("way", BY_DESCRIPTOR)
    def test_a_connect_that_waits(
        self, client: Calls, server: Calls, alice_daemon: Daemon, bob_daemon: Daemon, restart: tuple[str, ...]
    ) -> None:
        """Over a slow link. An interrupted one goes on by itself, and the next call waits for it."""
        link = {"peers": [bob_daemon.address], "own": alice_daemon.address, "seed": 1}
        alice_daemon.ask("links", links=[link | {"delay": 0.4}])
        _, port = listening(server, bob_daemon.address)
        sock = client.good("socket", 2, 1, 0).ret
        client.good("alarm", 50, *restart)
        answer = client("connect", sock, addr(bob_daemon.address, port))
        assert answer.errno == (0 if restart else errno.EINTR)
        if not restart:
            assert client("connect", sock, addr(bob_daemon.address, port)).ret == 0
        alice_daemon.ask("links", links=[link])
        assert client("connect", sock, addr(bob_daemon.address, port)).errno == errno.EISCONN

    def test_handlers_that_make_calls(self, build: Path, alice_daemon: Daemon) -> None:
        command = [str(build / "chirun"), str(build / "handlers")]
        env = home(alice_daemon.socket, "chirun")
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (0, "good, often, accept was cancelled\n")


@pytest.mark.parametrize("way", CHISOCKET)
def test_a_close_that_can_not_be_in_order(
    client: Calls, server: Calls, alice_daemon: Daemon, bob_daemon: Daemon
) -> None:
    """The peer gets all of it and the FIN, but its acknowledgement is lost, and then it is no more."""
    sock, accepted = connected(client, server, bob_daemon.address)
    back = {"peers": [alice_daemon.address], "own": bob_daemon.address, "seed": 1}
    client.good("send", sock, b"unread")
    bob_daemon.ask("links", links=[back | {"loss": 1.0}])
    client.begin("close", sock)
    server.good("wait_for_state", accepted, 7)  # CLOSE_WAIT
    server.kill()
    bob_daemon.ask("links", links=[back])
    assert client.end().errno == errno.ECONNRESET


@pytest.mark.parametrize("way", ["descriptors"])
def test_a_close_after_the_reset(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    """Its 0 would mean that all has arrived."""
    sock, accepted = connected(client, server, bob_daemon.address)
    client.good("send", sock, b"unread")
    assert server("poll", accepted, select.POLLIN, 10_000).ret == select.POLLIN
    server.kill()
    assert client("poll", sock, 0, 10_000).ret & select.POLLHUP
    assert client("close", sock).errno == errno.ECONNRESET


@pytest.mark.parametrize("way", ["requests"])
def test_a_number_whose_close_has_failed_is_gone(
    client: Calls, server: Calls, start: Start, alice_daemon: Daemon, bob_daemon: Daemon
) -> None:
    """Another process may have it by now."""
    sock, accepted = connected(client, server, bob_daemon.address)
    client.good("send", sock, b"unread")
    server.good("wait_for_state", accepted, 4)
    server.kill()
    assert client("recv", sock, 10).errno == errno.ECONNRESET
    assert client("close", sock).errno in (errno.ENOTCONN, errno.ECONNRESET)
    other = start(alice_daemon, "requests")
    others = [other.good("socket", 2, 1, 0).ret for _ in range(sock + 1)]
    assert sock in others
    assert client("close", sock).errno == errno.EBADF
    other.good("bind", sock, addr(alice_daemon.address, 0))


def test_numbers_beyond_what_a_program_expects(start: Start, alice_daemon: Daemon) -> None:
    """Our own connections keep out of the way: the first descriptor of a program is still 3."""
    calls = start(alice_daemon, "descriptors")
    assert [calls.good("socket", 2, 1, 0).ret for _ in range(3)] == [3, 4, 5]
