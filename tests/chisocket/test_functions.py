"""chisocket_*: which requests they make, and what they make of the answers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import chisocket
from chisocket.functions import MAX_DATA
from chisocket.protocol.addresses import STORAGE, pack
from chisocket.protocol.chitcpd_pb2 import (
    ACCEPT,
    BIND,
    CLOSE,
    CONNECT,
    GETPEERNAME,
    GETSOCKNAME,
    LISTEN,
    RECV,
    SEND,
    SHUTDOWN,
    SOCKET,
    AcceptArgs,
    BindArgs,
    ChitcpdMsg,
    CloseArgs,
    ConnectArgs,
    ListenArgs,
    NameArgs,
    RecvArgs,
    SendArgs,
    ShutdownArgs,
    SocketArgs,
)
from tests.chisocket.scripted_daemon import PATIENCE, ScriptedDaemon, scripted_daemon

ALICE = ("10.213.0.2", 49152)
BOB = ("10.213.0.3", 7000)
Script = Callable[..., "Future[list[ChitcpdMsg]]"]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    monkeypatch.setenv("CHITCP_HOSTS", "alice=10.213.0.2 bob=10.213.0.3")
    with scripted_daemon(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def script(daemon: ScriptedDaemon) -> Iterator[Script]:
    """script(answer, ...): give these answers to the next requests; its result() is the requests."""
    played: list[Future[list[ChitcpdMsg]]] = []

    def play(answers: tuple[dict[str, Any], ...]) -> list[ChitcpdMsg]:
        messages = []
        for answer in answers:
            request = daemon.next()
            request.answer(**answer)
            messages.append(request.message)
        return messages

    with ThreadPoolExecutor() as threads:

        def start(*answers: dict[str, Any]) -> Future[list[ChitcpdMsg]]:
            played.append(threads.submit(play, answers))
            return played[-1]

        yield start
        for future in played:
            future.result(PATIENCE)  # no more requests came than were expected, and no fewer


def test_each_function_is_one_message(script: Script) -> None:
    peer = pack(ALICE).ljust(STORAGE, b"\0")
    requests = script(
        {"ret": 3},
        {},
        {},
        {"ret": 4, "addr": peer},
        {"ret": 5},
        {"ret": 5, "buf": b"world"},
        {},
        {"addr": pack(BOB)},
        {"addr": pack(ALICE)},
        {},
    )
    assert chisocket.chisocket_socket(socket.AF_INET, socket.SOCK_STREAM, 0) == 3
    chisocket.chisocket_bind(3, BOB)
    chisocket.chisocket_listen(3, 16)
    assert chisocket.chisocket_accept(3) == (4, ALICE)
    assert chisocket.chisocket_send(4, b"hello") == 5
    assert chisocket.chisocket_recv(4, 100) == b"world"
    chisocket.chisocket_shutdown(4, chisocket.SHUT_WR)
    assert chisocket.chisocket_getsockname(4) == BOB
    assert chisocket.chisocket_getpeername(4) == ALICE
    chisocket.chisocket_close(4)
    assert requests.result(PATIENCE) == [
        ChitcpdMsg(code=SOCKET, socket_args=SocketArgs(domain=2, type=1, protocol=0)),
        ChitcpdMsg(code=BIND, bind_args=BindArgs(sockfd=3, addr=pack(BOB))),
        ChitcpdMsg(code=LISTEN, listen_args=ListenArgs(sockfd=3, backlog=16)),
        ChitcpdMsg(code=ACCEPT, accept_args=AcceptArgs(sockfd=3)),
        ChitcpdMsg(code=SEND, send_args=SendArgs(sockfd=4, flags=0, buf=b"hello")),
        ChitcpdMsg(code=RECV, recv_args=RecvArgs(sockfd=4, flags=0, len=100)),
        ChitcpdMsg(code=SHUTDOWN, shutdown_args=ShutdownArgs(sockfd=4, how=1)),
        ChitcpdMsg(code=GETSOCKNAME, name_args=NameArgs(sockfd=4)),
        ChitcpdMsg(code=GETPEERNAME, name_args=NameArgs(sockfd=4)),
        ChitcpdMsg(code=CLOSE, close_args=CloseArgs(sockfd=4)),
    ]


def test_connect_function(script: Script) -> None:
    requests = script({})
    chisocket.chisocket_connect(3, chisocket.chitcp_addr_construct("bob", 7000))
    [request] = requests.result(PATIENCE)
    assert request == ChitcpdMsg(code=CONNECT, connect_args=ConnectArgs(sockfd=3, addr=pack(BOB)))


def test_a_send_and_a_recv_carry_a_bounded_number_of_bytes(script: Script) -> None:
    requests = script({"ret": MAX_DATA}, {"buf": b"x"})
    assert chisocket.chisocket_send(3, bytes(MAX_DATA + 1)) == MAX_DATA
    chisocket.chisocket_recv(3, 1 << 30)
    sent, received = requests.result(PATIENCE)
    assert (len(sent.send_args.buf), received.recv_args.len) == (MAX_DATA, MAX_DATA)


def test_an_answer_with_no_address_is_told(script: Script) -> None:
    script({"addr": b"\xff" * 16})
    with pytest.raises(OSError, match="no IPv4 or IPv6 socket address") as caught:
        chisocket.chisocket_getpeername(3)
    assert caught.value.errno == errno.EPROTO
