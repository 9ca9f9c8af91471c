"""The debug API of chisocket, over a daemon that runs."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest

import chisocket
from chisocket import (
    DBG_EVT_INCOMING_PACKET,
    DBG_EVT_OUTGOING_PACKET,
    DBG_EVT_PENDING_CONNECTION,
    DBG_EVT_STATE_CHANGE,
    DBG_RESP_ACCEPT_MONITOR,
    DBG_RESP_DROP,
    DBG_RESP_NONE,
    DBG_RESP_STOP,
    SocketState,
    TcpState,
    chitcpd_debug,
    get_socket_buffer_contents,
    get_socket_state,
    wait_for_state,
)
from chitcpd.tcp.api import State
from tests.conftest import PATIENCE, Host

Told = tuple[int, int, SocketState | None, int]


@pytest.fixture
def host(two_daemons: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> Host:
    """The one whose daemon this process uses."""
    alice, _ = two_daemons
    for name in ("CHITCPD_SOCK", "CHITCP_HOSTS"):
        monkeypatch.setenv(name, alice.environment[name])
    return alice


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture
def talk(host: Host) -> Iterator[tuple[chisocket.socket, chisocket.socket]]:
    """Two sockets that are connected with each other."""
    with chisocket.create_server((host.address, 0)) as server:
        near = chisocket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        yield near, far


class Handler:
    """Remembers what it was told, and answers as it is to."""

    def __init__(self, *responses: int) -> None:
        self.told: SimpleQueue[Told] = SimpleQueue()
        self._responses = iter(responses)

    def __call__(self, sockfd: int, event: int, state: SocketState | None, new_sockfd: int) -> int:
        self.told.put((sockfd, event, state, new_sockfd))
        return next(self._responses, DBG_RESP_NONE)

    def next(self) -> Told:
        return self.told.get(timeout=PATIENCE)


def state_of(told: Told) -> TcpState:
    assert told[2] is not None
    return told[2].tcp_state


def test_state_and_buffers_of_a_descriptor(talk: tuple[chisocket.socket, chisocket.socket]) -> None:
    near, far = talk
    near.sendall(b"hello")
    assert far.recv(1, 2) == b"h"  # MSG_PEEK: it has come
    wait_for_state(far, TcpState.ESTABLISHED, PATIENCE)
    a, b = get_socket_state(near), get_socket_state(far)
    assert (a.tcp_state, a.iss, a.irs) == (TcpState.ESTABLISHED, b.irs, b.iss)
    assert a.snd_nxt == b.rcv_nxt == (a.iss + 6) % (1 << 32)
    assert get_socket_buffer_contents(far).rcv == b""  # the descriptor has it


def test_one_segment_is_lost(talk: tuple[chisocket.socket, chisocket.socket]) -> None:
    near, far = talk
    handler = Handler(DBG_RESP_DROP)
    chitcpd_debug(far, DBG_EVT_INCOMING_PACKET, handler)
    near.sendall(b"hello")
    assert far.recv(10) == b"hello"
    first, second = handler.next(), handler.next()
    assert first[1] == second[1] == DBG_EVT_INCOMING_PACKET
    assert first[2] == second[2]  # the drop has changed nothing


def test_data_does_not_pass_a_handler_that_thinks(talk: tuple[chisocket.socket, chisocket.socket]) -> None:
    """And what the application has written before its close comes whole."""
    near, far = talk
    asked, think = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        asked.set()
        assert think.wait(PATIENCE)

    chitcpd_debug(near, DBG_EVT_OUTGOING_PACKET, slow)
    near.sendall(b"hello")
    assert asked.wait(PATIENCE)
    assert get_socket_buffer_contents(near).snd == b"hello"
    near.close()
    far.settimeout(0)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    think.set()
    far.settimeout(PATIENCE)
    assert b"".join(iter(lambda: far.recv(10), b"")) == b"hello"


def test_a_descriptor_that_is_accepted_is_watched_from_its_first_state_on(
    host: Host, threads: ThreadPoolExecutor
) -> None:
    handler = Handler(DBG_RESP_ACCEPT_MONITOR)
    with chisocket.create_server((host.address, 0)) as server:
        flags = DBG_EVT_PENDING_CONNECTION | DBG_EVT_STATE_CHANGE
        thread = chitcpd_debug(server, flags, handler)
        connecting = threads.submit(chisocket.create_connection, server.getsockname())
        far, _ = server.accept()
    _, event, state, new_sockfd = handler.next()
    assert (event, state) == (DBG_EVT_PENDING_CONNECTION, None)
    assert get_socket_state(new_sockfd) == get_socket_state(far)
    seen = [handler.next() for _ in range(3)]
    assert [state_of(told) for told in seen] == [TcpState.LISTEN, TcpState.SYN_RCVD, TcpState.ESTABLISHED]
    assert {told[0] for told in seen} == {new_sockfd}
    connecting.result(PATIENCE).close()
    assert far.recv(1) == b""
    far.close()
    assert [state_of(handler.next()) for _ in range(3)] == [TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.CLOSED]
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_c_functions_sockets(host: Host, threads: ThreadPoolExecutor) -> None:
    listening = chisocket.chisocket_socket(chisocket.AF_INET, chisocket.SOCK_STREAM, 0)
    chisocket.chisocket_bind(listening, (host.address, 0))
    chisocket.chisocket_listen(listening, 1)
    near = chisocket.chisocket_socket(chisocket.AF_INET, chisocket.SOCK_STREAM, 0)
    handler = Handler(DBG_RESP_NONE, DBG_RESP_STOP)
    thread = chitcpd_debug(near, DBG_EVT_STATE_CHANGE, handler)
    accepting = threads.submit(chisocket.chisocket_accept, listening)
    chisocket.chisocket_connect(near, chisocket.chisocket_getsockname(listening))
    assert [state_of(handler.next()) for _ in range(2)] == [TcpState.SYN_SENT, TcpState.ESTABLISHED]
    thread.join(PATIENCE)
    assert not thread.is_alive()
    far, _ = accepting.result(PATIENCE)
    waiting = threads.submit(wait_for_state, far, TcpState.CLOSED, PATIENCE)
    closing: Future[Any] = threads.submit(chisocket.chisocket_close, near)
    wait_for_state(far, TcpState.CLOSE_WAIT, PATIENCE)
    chisocket.chisocket_close(far)
    closing.result(PATIENCE)
    waiting.result(PATIENCE)
    chisocket.chisocket_close(listening)


def test_a_handler_that_raises_lets_all_go_on(
    talk: tuple[chisocket.socket, chisocket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = talk
    raised: SimpleQueue[type[BaseException]] = SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", lambda told: raised.put(told.exc_type))

    def bad(*_: object) -> None:
        raise ZeroDivisionError

    chitcpd_debug(far, DBG_EVT_INCOMING_PACKET, bad)
    near.sendall(b"hello")
    assert far.recv(10) == b"hello"
    assert raised.get(timeout=PATIENCE) is ZeroDivisionError


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    "call",
    [
        get_socket_state,
        get_socket_buffer_contents,
        lambda sock: wait_for_state(sock, TcpState.LISTEN),
        lambda sock: chitcpd_debug(sock, DBG_EVT_STATE_CHANGE, Handler()),
    ],
)
def test_no_such_socket(call: Callable[[Any], Any]) -> None:
    with pytest.raises(OSError) as refusal:
        call(999)
    assert refusal.value.errno == errno.EBADF


def test_watched_already(talk: tuple[chisocket.socket, chisocket.socket]) -> None:
    near, _ = talk
    chitcpd_debug(near, DBG_EVT_STATE_CHANGE, Handler())
    with pytest.raises(BlockingIOError):  # EAGAIN, in Python
        chitcpd_debug(near, DBG_EVT_STATE_CHANGE, Handler())


def test_waiting_has_an_end(talk: tuple[chisocket.socket, chisocket.socket]) -> None:
    with pytest.raises(TimeoutError):
        wait_for_state(talk[0], TcpState.CLOSED, timeout=0.01)


def test_the_states_have_the_daemons_numbers() -> None:
    assert {state.name: int(state) for state in TcpState} == {state.name: int(state) for state in State}
