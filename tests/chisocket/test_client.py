"""The pool of connections to chitcpd, against a socket where the test plays chitcpd."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from chisocket import client as client_module
from chisocket.client import Client
from chisocket.protocol.chitcpd_pb2 import (
    ACCEPT,
    CLOSE,
    LISTEN,
    RECV,
    SOCKET,
    AcceptArgs,
    ChitcpdMsg,
    CloseArgs,
    ListenArgs,
    RecvArgs,
    SocketArgs,
)
from chisocket.protocol.framing import encode
from tests.chisocket.scripted_daemon import PATIENCE, ScriptedDaemon, scripted_daemon

MAKE = ChitcpdMsg(code=SOCKET, socket_args=SocketArgs(domain=2, type=1, protocol=0))
ANOTHER = ChitcpdMsg(code=LISTEN, listen_args=ListenArgs(sockfd=3, backlog=1))


def accept(sockfd: int) -> ChitcpdMsg:
    return ChitcpdMsg(code=ACCEPT, accept_args=AcceptArgs(sockfd=sockfd))


def recv(sockfd: int) -> ChitcpdMsg:
    return ChitcpdMsg(code=RECV, recv_args=RecvArgs(sockfd=sockfd, flags=0, len=10))


def close(sockfd: int) -> ChitcpdMsg:
    return ChitcpdMsg(code=CLOSE, close_args=CloseArgs(sockfd=sockfd))


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    with scripted_daemon(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.forget()  # closes the connections


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def make_socket(client: Client, daemon: ScriptedDaemon, background: ThreadPoolExecutor, sockfd: int) -> int:
    """Let the client make the socket `sockfd`; returns the number of the connection that did."""
    made = background.submit(client.make, MAKE)
    request = daemon.next()
    request.answer(ret=sockfd)
    assert made.result(PATIENCE).ret == sockfd
    return request.connection


def test_one_request_after_another_takes_the_same_connection(
    daemon: ScriptedDaemon, client: Client, background: ThreadPoolExecutor
) -> None:
    for _ in range(3):
        call = background.submit(client.request, ANOTHER)
        request = daemon.next()
        assert request.message == ANOTHER
        request.answer(ret=0)
        call.result(PATIENCE)
    assert daemon.connections == 1


def test_requests_at_the_same_time_take_connections_of_their_own(
    daemon: ScriptedDaemon, client: Client, background: ThreadPoolExecutor
) -> None:
    calls = {sockfd: background.submit(client.request, recv(sockfd)) for sockfd in (3, 4, 5)}
    requests = [daemon.next() for _ in calls]
    assert {request.connection for request in requests} == {0, 1, 2}
    for request in reversed(requests):  # each gets its own answer, in whatever order they come
        request.answer(buf=str(request.message.recv_args.sockfd).encode())
    assert {sockfd: call.result(PATIENCE).buf for sockfd, call in calls.items()} == {3: b"3", 4: b"4", 5: b"5"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.ECONNRESET, ConnectionResetError),
        (errno.EPIPE, BrokenPipeError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EBADF, OSError),
    ],
)
def test_an_error_code_is_raised_as_python_raises_it(
    daemon: ScriptedDaemon, client: Client, background: ThreadPoolExecutor, code: int, kind: type[OSError]
) -> None:
    call = background.submit(client.request, recv(3))
    daemon.next().answer(ret=-1, error_code=code)
    with pytest.raises(kind, match=os.strerror(code)) as caught:
        call.result(PATIENCE)
    assert caught.value.errno == code
    assert daemon.connections == 1  # it is good for the next request
    call = background.submit(client.request, ANOTHER)
    daemon.next().answer()
    call.result(PATIENCE)
    assert daemon.connections == 1


def test_a_connection_that_made_a_socket_carries_nothing_but_its_close(
    daemon: ScriptedDaemon, client: Client, background: ThreadPoolExecutor
) -> None:
    maker = make_socket(client, daemon, background, sockfd=3)
    call = background.submit(client.request, recv(3))
    request = daemon.next()
    assert request.connection != maker
    request.answer(buf=b"data")
    call.result(PATIENCE)

    closing = background.submit(client.close, 3, close(3))
    request = daemon.next()
    assert (request.connection, request.message.code) == (maker, CLOSE)
    request.answer()
    closing.result(PATIENCE)

    make_socket(client, daemon, background, sockfd=3)
    assert daemon.connections == 2  # the maker, idle again or taken again, and the other one


def test_a_close_that_is_refused_leaves_the_socket_with_its_maker(
    daemon: ScriptedDaemon, client: Client, background: ThreadPoolExecutor
) -> None:
    maker = make_socket(client, daemon, background, sockfd=3)
    for error_code in (errno.ENOTCONN, 0):
        closing = background.submit(client.close, 3, close(3))
        request = daemon.next()
        assert request.connection == maker
        request.answer(error_code=error_code)
        assert (closing.exception(PATIENCE) is None) == (error_code == 0)


def test_a_socket_that_nobody_made_here_is_closed_on_any_connection(
    daemon: ScriptedDaemon, client: Client, background: ThreadPoolExecutor
) -> None:
    closing = background.submit(client.close, 99, close(99))
    daemon.next().answer(ret=-1, error_code=errno.EBADF)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        closing.result(PATIENCE)


class Interrupted(Exception):
    """Raised by a signal handler, as Ctrl-C raises KeyboardInterrupt."""


@pytest.fixture
def interrupt_on_request(daemon: ScriptedDaemon) -> Iterator[None]:
    """Interrupts the main thread as soon as the daemon has its request, which stays without an answer."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Interrupted

    def wait_and_interrupt() -> None:
        daemon.next()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    former = signal.signal(signal.SIGUSR1, interrupt)
    threading.Thread(target=wait_and_interrupt).start()
    yield
    signal.signal(signal.SIGUSR1, former)


def test_an_interrupted_request_closes_its_connection_and_no_other(
    daemon: ScriptedDaemon,
    client: Client,
    background: ThreadPoolExecutor,
    request: pytest.FixtureRequest,
) -> None:
    maker = make_socket(client, daemon, background, sockfd=3)
    request.getfixturevalue("interrupt_on_request")
    with pytest.raises(Interrupted):
        client.make(accept(3))
    assert daemon.next_end() != maker
    # The next request meets no late answer: it goes over a new connection. The socket is still there.
    call = background.submit(client.request, ANOTHER)
    fresh = daemon.next()
    assert fresh.connection == 2
    fresh.answer()
    call.result(PATIENCE)
    closing = background.submit(client.close, 3, close(3))
    last = daemon.next()
    assert last.connection == maker
    last.answer()
    closing.result(PATIENCE)


def test_no_daemon_is_told_with_its_path_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    monkeypatch.setenv("CHITCPD_SOCK", f"{tmp_path}/nobody")
    with pytest.raises(
        OSError, match=rf"no chitcpd answers at {tmp_path}/nobody .*`chitcpd -s .*CHITCPD_SOCK"
    ) as caught:
        client.request(ANOTHER)
    assert caught.value.errno == errno.ENETDOWN
    assert not isinstance(caught.value, ConnectionError)  # that would be the peer's doing


def test_a_path_that_is_too_long_is_told(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setenv("CHITCPD_SOCK", "/" + "x" * 200)
    with pytest.raises(OSError, match=r"no chitcpd answers at /xxx.* \(AF_UNIX path too long\)"):
        client.request(ANOTHER)


def test_a_daemon_that_ends_during_a_request_is_told(
    daemon: ScriptedDaemon, client: Client, background: ThreadPoolExecutor
) -> None:
    call = background.submit(client.request, recv(3))
    daemon.next().hang_up()
    with pytest.raises(OSError, match="has gone away") as caught:
        call.result(PATIENCE)
    assert caught.value.errno == errno.ENETDOWN


def test_after_a_restart_of_the_daemon_requests_go_to_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Client, background: ThreadPoolExecutor
) -> None:
    with scripted_daemon(tmp_path, monkeypatch) as old:
        make_socket(client, old, background, sockfd=3)
        call = background.submit(client.request, ANOTHER)
        old.next().answer()
        call.result(PATIENCE)
    with scripted_daemon(tmp_path, monkeypatch) as new:
        make_socket(client, new, background, sockfd=4)
        # The socket of the old one ended with it; the new daemon is not asked to close its own number 3.
        with pytest.raises(OSError, match="has gone away"):
            client.close(3, close(3))


@pytest.mark.parametrize("answer", [encode(ANOTHER), b"\xff" * 8, (3).to_bytes(8, sys.byteorder) + b"\xff\xff\xff"])
def test_what_is_no_chitcpd_is_told(
    daemon: ScriptedDaemon, client: Client, background: ThreadPoolExecutor, answer: bytes
) -> None:
    call = background.submit(client.request, recv(3))
    daemon.next().answer_bytes(answer)
    with pytest.raises(OSError, match=rf"what answers at {daemon.path} is no chitcpd"):
        call.result(PATIENCE)
    assert daemon.next_end() == 0


def test_connections_are_bounded_but_a_socket_can_still_be_closed(
    daemon: ScriptedDaemon,
    client: Client,
    background: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "MAX_CONNECTIONS", 2)
    for sockfd in (3, 4):
        make_socket(client, daemon, background, sockfd)
    with pytest.raises(OSError, match="2 sockets and waiting requests are all") as caught:
        client.request(recv(3))
    assert caught.value.errno == errno.EMFILE
    closing = background.submit(client.close, 3, close(3))
    daemon.next().answer()
    closing.result(PATIENCE)
    call = background.submit(client.request, recv(4))
    daemon.next().answer(buf=b"data")
    assert call.result(PATIENCE).buf == b"data"


FORKING = """
import os, chisocket
def open_sockets():
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the listing's own
            pass
    return sum(name.startswith("socket:") for name in names)
chisocket.chisocket_socket(2, 1, 0)
chisocket.chisocket_listen(3, 1)
child = os.fork()
if child == 0:
    assert open_sockets() == 0, "connections of the parent are still open"
    chisocket.chisocket_listen(4, 1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
chisocket.chisocket_listen(5, 1)
"""


def test_a_child_of_a_fork_forgets_its_parents_connections(daemon: ScriptedDaemon) -> None:
    process = subprocess.Popen([sys.executable, "-c", FORKING])
    made = daemon.next()
    made.answer(ret=3)
    before, in_child, after = (answered(daemon) for _ in range(3))
    assert process.wait(PATIENCE) == 0
    assert before == after
    assert in_child not in (before, made.connection)


def answered(daemon: ScriptedDaemon) -> int:
    request = daemon.next()
    request.answer()
    return request.connection
