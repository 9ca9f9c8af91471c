"""chisocket_* and the class `socket`: which requests they make, and what they make of the answers."""

from __future__ import annotations

import errno
import os
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


def test_a_client(script: Script) -> None:
    requests = script({"ret": 3}, {}, {"ret": 3}, {"ret": 2}, {"buf": b"world"}, {})
    with chisocket.create_connection(("bob", 7000)) as connection:
        assert (connection.family, connection.type, connection.proto) == (socket.AF_INET, socket.SOCK_STREAM, 0)
        connection.sendall(b"hello")  # of which 3 bytes are taken, then 2
        assert connection.recv(100) == b"world"
    messages = requests.result(PATIENCE)
    assert [message.code for message in messages] == [SOCKET, CONNECT, SEND, SEND, RECV, CLOSE]
    assert messages[1].connect_args.addr == pack(BOB)
    assert [message.send_args.buf for message in messages[2:4]] == [b"hello", b"lo"]


def test_a_server(script: Script) -> None:
    requests = script({"ret": 3}, {}, {}, {"ret": 4, "addr": pack(ALICE)}, {"ret": 4}, {}, {})
    with chisocket.create_server(("", 7000), backlog=5) as listener:
        connection, address = listener.accept()
        assert address == ALICE
        with connection:
            assert connection.send(b"data") == 4
    messages = requests.result(PATIENCE)
    assert [message.code for message in messages] == [SOCKET, BIND, LISTEN, ACCEPT, SEND, CLOSE, CLOSE]
    assert messages[1].bind_args.addr == pack(("0.0.0.0", 7000))
    assert messages[2].listen_args.backlog == 5
    assert [message.close_args.sockfd for message in messages[5:]] == [4, 3]


def test_ipv6_addresses_are_tuples_of_four(script: Script) -> None:
    script({"ret": 3}, {}, {"addr": pack(("2001:db8::2", 9))}, {})
    with chisocket.socket(chisocket.AF_INET6) as sock:
        sock.connect(("2001:db8::2", 9, 0, 0))
        assert sock.getpeername() == ("2001:db8::2", 9, 0, 0)


def test_a_name_without_an_address_of_the_family_is_refused(script: Script) -> None:
    script({"ret": 3}, {})
    with (
        chisocket.socket(chisocket.AF_INET6) as sock,
        pytest.raises(socket.gaierror, match="bob has no address of the family AF_INET6"),
    ):
        sock.connect(("bob", 7000))


def test_connect_ex_returns_the_errno(script: Script) -> None:
    script({"ret": 3}, {"ret": -1, "error_code": errno.ECONNREFUSED}, {})
    with chisocket.socket() as sock:
        assert sock.connect_ex(("bob", 7000)) == errno.ECONNREFUSED


def test_create_connection_closes_what_does_not_connect(script: Script) -> None:
    requests = script({"ret": 3}, {"ret": -1, "error_code": errno.ECONNREFUSED}, {})
    with pytest.raises(ConnectionRefusedError):
        chisocket.create_connection(("bob", 7000))
    assert [message.code for message in requests.result(PATIENCE)] == [SOCKET, CONNECT, CLOSE]


def test_create_connection_binds_the_source_address(script: Script) -> None:
    requests = script({"ret": 3}, {}, {}, {})
    chisocket.create_connection(("bob", 7000), source_address=("alice", 0)).close()
    assert requests.result(PATIENCE)[1].bind_args.addr == pack(("10.213.0.2", 0))


def test_create_server_closes_what_cannot_listen(script: Script) -> None:
    requests = script({"ret": 3}, {"ret": -1, "error_code": errno.EADDRINUSE}, {})
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        chisocket.create_server(("", 7000))
    assert [message.code for message in requests.result(PATIENCE)] == [SOCKET, BIND, CLOSE]


@pytest.fixture
def connected(script: Script) -> Iterator[chisocket.socket]:
    """A connected socket; the test scripts what comes, and the fixture its CLOSE."""
    script({"ret": 3}, {})
    sock = chisocket.create_connection(("bob", 7000))
    yield sock
    if sock._sockfd >= 0:
        script({})
        sock.close()


def test_no_bytes_need_no_request(connected: chisocket.socket) -> None:
    assert connected.send(b"") == 0
    connected.sendall(b"")
    assert connected.recv(0) == b""
    assert connected.recv_into(bytearray()) == 0


def test_recv_into(connected: chisocket.socket, script: Script) -> None:
    requests = script({"buf": b"abc"}, {"buf": b"d"})
    buffer = bytearray(5)
    assert connected.recv_into(buffer) == 3
    assert connected.recv_into(memoryview(buffer)[3:], 1) == 1
    assert buffer == b"abcd\0"
    assert [message.recv_args.len for message in requests.result(PATIENCE)] == [5, 1]


def test_impossible_lengths_are_refused_as_python_does(connected: chisocket.socket) -> None:
    with pytest.raises(ValueError, match="negative buffersize"):
        connected.recv(-1)
    with pytest.raises(ValueError, match="negative buffersize"):
        connected.recv_into(bytearray(5), -1)
    with pytest.raises(ValueError, match="buffer too small"):
        connected.recv_into(bytearray(5), 6)


def test_closing_twice_is_closing_once(connected: chisocket.socket, script: Script) -> None:
    script({})
    connected.close()
    connected.close()
    assert repr(connected) == "<chisocket.socket [closed]>"


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ECONNRESET])
def test_closing_what_is_over_is_no_error(connected: chisocket.socket, script: Script, code: int) -> None:
    script({"ret": -1, "error_code": code})
    connected.close()


def test_a_close_that_could_not_deliver_is_an_error(connected: chisocket.socket, script: Script) -> None:
    script({"ret": -1, "error_code": errno.ETIMEDOUT})
    with pytest.raises(TimeoutError):
        connected.close()


def test_a_text_file(connected: chisocket.socket, script: Script) -> None:
    script({"buf": "grüße\nzwei".encode()}, {"buf": b""})
    with connected.makefile(encoding="utf-8") as lines:
        assert lines.readline() == "grüße\n"
        assert lines.read() == "zwei"


def test_a_file_that_writes_sends_when_flushed(connected: chisocket.socket, script: Script) -> None:
    requests = script({"ret": 5})
    with connected.makefile("wb") as file:
        file.write(b"ab")
        file.write(b"cde")
        file.flush()
    assert requests.result(PATIENCE)[0].send_args.buf == b"abcde"


def test_a_file_that_reads_and_writes(connected: chisocket.socket, script: Script) -> None:
    script({"ret": 2}, {"buf": b"yo\n"})
    with connected.makefile("rwb") as file:
        file.write(b"hi")
        file.flush()
        assert file.readline() == b"yo\n"


def test_an_unbuffered_file(connected: chisocket.socket, script: Script) -> None:
    script({"ret": 2}, {"buf": b"yo"})
    with connected.makefile("rwb", buffering=0) as file:
        assert file.write(b"hi") == 2
        assert file.read(2) == b"yo"


@pytest.mark.parametrize(("mode", "buffering"), [("a", None), ("", None), ("r", 0)])
def test_impossible_files_are_refused(connected: chisocket.socket, mode: str, buffering: int | None) -> None:
    with pytest.raises(ValueError, match=r"invalid mode|must be binary"):
        connected.makefile(mode, buffering)


def test_the_socket_outlives_its_files_and_ends_with_the_last(connected: chisocket.socket, script: Script) -> None:
    file = connected.makefile("rb")
    connected.close()  # the daemon is not asked yet: the file can still be read
    script({"buf": b"last words"}, {"buf": b""})
    assert file.read() == b"last words"
    script({})
    file.close()
    assert repr(connected) == "<chisocket.socket [closed]>"


def test_a_socket_that_was_never_closed_is_told(script: Script) -> None:
    script({"ret": 3})
    with pytest.warns(ResourceWarning, match="unclosed <chisocket.socket sockfd=3, family=AF_INET"):
        chisocket.socket()
