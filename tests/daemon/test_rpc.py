"""The socket calls of applications, as a C client would send them, against a daemon that runs.

Each case says whether it is as the C chiTCP does ("match") or deliberately otherwise ("better"), as in the table of
interop.md. Most need one daemon only: its applications talk to each other at its own address.
"""

from __future__ import annotations

import errno
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from chisocket.protocol import chitcpd_pb2 as pb
from chisocket.protocol import framing
from chitcpd.sockets import MAX_SOCKETS
from tests.conftest import Host
from tests.daemon.application import Application, Conversation, sockaddr_in
from tests.daemon.conftest import Daemon, StartDaemon, free_address, running_daemon

match = pytest.mark.match
better = pytest.mark.better

NO_SUCH = 999
TCP4 = {"domain": socket.AF_INET, "type": socket.SOCK_STREAM, "protocol": 0}


@pytest.fixture(scope="module")
def chitcpd(directory: Path) -> Iterator[Daemon]:
    """The daemon of all tests here that need no fresh one."""
    with running_daemon(directory, "-vv") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def classic(directory: Path) -> Iterator[Daemon]:
    """One with the constants of the C chiTCP: buffers of 4096 bytes, so that calls block soon."""
    with running_daemon(directory, "-vv", "--profile", "classic") as daemon:
        yield daemon


@pytest.fixture
def app(chitcpd: Daemon) -> Iterator[Application]:
    with Application(chitcpd.socket) as application:
        yield application


@pytest.fixture
def other(chitcpd: Daemon) -> Iterator[Application]:
    with Application(chitcpd.socket) as application:
        yield application


@pytest.fixture
def talk(app: Application, other: Application, chitcpd: Daemon) -> Conversation:
    """`app` is connected to `other`."""
    return Conversation(app, other, chitcpd.address)


def state(daemon: Daemon, port: int) -> str:
    """The state of the connection whose local port is this."""
    [found] = [sock["state"] for sock in daemon.sockets() if sock["local"].endswith(f":{port}") and "peer" in sock]
    return str(found)


class TestFraming:
    def test_init_is_answered_with_zero_and_a_name(self, chitcpd: Daemon) -> None:
        """The name, which a C client passes over, is that of this run of the daemon."""
        with Application(chitcpd.socket, greet=False) as raw:
            raw.send_bytes(struct.pack("=Q", 6) + bytes.fromhex("0800 1202 0800"))  # as the C library spells it
            answer = raw.answer()
        with Application(chitcpd.socket) as another:
            assert answer == pb.Resp(ret=0, error_code=0, buf=another.instance.encode())

    @pytest.mark.parametrize(
        "first",
        [
            pb.ChitcpdMsg(code=pb.SOCKET, socket_args=pb.SocketArgs(**TCP4)),
            pb.ChitcpdMsg(code=pb.INIT),
            pb.ChitcpdMsg(code=pb.RESP, resp=pb.Resp(ret=0, error_code=0)),
            pb.ChitcpdMsg(),
        ],
        ids=["SOCKET", "INIT without arguments", "RESP", "empty"],
    )
    def test_anything_else_first_is_closed_without_an_answer(self, chitcpd: Daemon, first: pb.ChitcpdMsg) -> None:
        with Application(chitcpd.socket, greet=False) as raw:
            raw.send_message(first)
            assert raw.is_closed()

    def test_an_unknown_type_of_connection_is_refused(self, chitcpd: Daemon) -> None:
        """As section 3 of interop.md has it; test_debug.py has the other types."""
        init = pb.InitArgs(connection_type=2)
        with Application(chitcpd.socket, greet=False) as raw:
            raw.send_message(pb.ChitcpdMsg(code=pb.INIT, init_args=init))
            assert raw.answer().ret == -7

    @pytest.mark.parametrize("greet", [False, True])
    @pytest.mark.parametrize(
        "garbage",
        [
            b"\xff" * 8,
            struct.pack("=Q", 4) + b"\xff" * 4,
            struct.pack("=Q", 0),
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(64),
        ],
        ids=["huge", "no protobuf", "no code", "HTTP", "zeros"],
    )
    def test_garbage_closes_that_connection_only(
        self, chitcpd: Daemon, app: Application, garbage: bytes, greet: bool
    ) -> None:
        with Application(chitcpd.socket, greet=greet) as raw:
            raw.send_bytes(garbage)
            assert raw.is_closed()
        assert app.socket() >= 0

    def test_an_unknown_code_is_refused(self, app: Application) -> None:
        app.send_bytes(struct.pack("=Q", 2) + bytes.fromhex("087f"))
        assert app.answer() == pb.Resp(ret=-1, error_code=errno.EINVAL)
        assert app.socket() >= 0

    def test_a_message_that_is_too_long_is_read_to_its_end_and_refused(self, app: Application) -> None:
        length = framing.MAX_MESSAGE + 1
        app.send_bytes(struct.pack("=Q", length) + bytes(length))
        assert app.answer() == pb.Resp(ret=-1, error_code=errno.EMSGSIZE)
        assert app.socket() >= 0

    def test_a_message_may_come_byte_by_byte(self, app: Application) -> None:
        body = pb.ChitcpdMsg(code=pb.SOCKET, socket_args=pb.SocketArgs(**TCP4)).SerializeToString()
        for byte in struct.pack("=Q", len(body)) + body:
            app.send_bytes(bytes([byte]))
        assert app.answer().error_code == 0

    def test_half_a_message_holds_up_nobody_else(self, chitcpd: Daemon, app: Application) -> None:
        with Application(chitcpd.socket) as raw:
            raw.send_bytes(struct.pack("=Q", 100) + b"\x08")
            assert app.socket() >= 0

    def test_requests_are_answered_one_after_the_other(self, app: Application) -> None:
        app.ask(pb.SOCKET, **TCP4)
        app.ask(pb.CLOSE, sockfd=NO_SUCH)
        app.ask(pb.SOCKET, **TCP4)
        first, second, third = (app.answer() for _ in range(3))
        assert second.error_code == errno.EBADF
        assert first.ret != third.ret

    def test_one_that_never_reads_its_answers_is_disconnected(self, chitcpd: Daemon, talk: Conversation) -> None:
        """While its call waits, it sends more than a message may be long."""
        talk.client.ask(pb.RECV, sockfd=talk.near, flags=0, len=1)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            talk.client.send_bytes(bytes(1 << 25))
        assert talk.server.call(pb.RECV, sockfd=talk.far, flags=0, len=1).error_code == errno.ECONNRESET

    @pytest.mark.parametrize("code", [pb.INIT, pb.DEBUG, pb.RESP, pb.GET_SOCKET_STATE, pb.WAIT_FOR_STATE])
    def test_a_code_that_is_no_call_of_ours(self, app: Application, code: pb.MsgCode) -> None:
        app.send_message(pb.ChitcpdMsg(code=code))
        assert app.answer() == pb.Resp(ret=-1, error_code=errno.EINVAL)

    def test_a_call_without_its_arguments(self, app: Application) -> None:
        app.send_message(pb.ChitcpdMsg(code=pb.SOCKET, close_args=pb.CloseArgs(sockfd=1)))
        assert app.answer() == pb.Resp(ret=-1, error_code=errno.EINVAL)


class TestDescriptors:
    @match
    @pytest.mark.parametrize(
        ("code", "arguments"),
        [
            (pb.BIND, {"addr": sockaddr_in("127.0.0.1", 1)}),
            (pb.LISTEN, {"backlog": 1}),
            (pb.ACCEPT, {}),
            (pb.CONNECT, {"addr": sockaddr_in("127.0.0.1", 1)}),
            (pb.SEND, {"flags": 0, "buf": b"x"}),
            (pb.RECV, {"flags": 0, "len": 1}),
            (pb.CLOSE, {}),
            (pb.SHUTDOWN, {"how": 1}),
            (pb.GETSOCKNAME, {}),
            (pb.GETPEERNAME, {}),
        ],
    )
    @pytest.mark.parametrize("fd", [NO_SUCH, -1, 2**31 - 1])
    def test_an_unknown_one(self, app: Application, code: pb.MsgCode, arguments: dict[str, object], fd: int) -> None:
        resp = app.call(code, sockfd=fd, **arguments)
        assert (resp.ret, resp.error_code) == (-1, errno.EBADF)

    @match
    def test_the_lowest_that_is_free(self, app: Application) -> None:
        assert [app.socket() for _ in range(4)] == [0, 1, 2, 3]
        app.good(pb.CLOSE, sockfd=2)
        app.good(pb.CLOSE, sockfd=1)
        assert [app.socket() for _ in range(3)] == [1, 2, 4]

    @match
    def test_the_table_is_full(self, chitcpd: Daemon) -> None:
        with Application(chitcpd.socket) as client, Application(chitcpd.socket) as server:
            listener, port = server.listening(chitcpd.address)
            near = client.connected(chitcpd.address, port)
            for _ in range(MAX_SOCKETS - 2):
                last = client.socket()
            assert last == MAX_SOCKETS - 1
            assert client.call(pb.SOCKET, **TCP4).error_code == errno.ENOMEM
            assert server.call(pb.ACCEPT, sockfd=listener).error_code == errno.ENOMEM
            client.good(pb.CLOSE, sockfd=last)
            assert server.good(pb.ACCEPT, sockfd=listener).ret == last  # it has waited meanwhile
            client.send(near, b"x")
            assert server.recv(last) == b"x"

    @match
    def test_another_application_of_the_user_may_name_it(self, app: Application, other: Application) -> None:
        fd = app.socket()
        other.good(pb.CLOSE, sockfd=fd)
        assert app.call(pb.CLOSE, sockfd=fd).error_code == errno.EBADF


class TestSocket:
    @better
    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"domain": socket.AF_UNIX}, errno.EAFNOSUPPORT),
            ({"type": socket.SOCK_DGRAM}, errno.ESOCKTNOSUPPORT),
            ({"protocol": socket.IPPROTO_UDP}, errno.EPROTONOSUPPORT),
        ],
    )
    def test_what_this_is_not(self, app: Application, change: dict[str, int], error: int) -> None:
        assert app.call(pb.SOCKET, **TCP4 | change).error_code == error

    @pytest.mark.parametrize("change", [{"protocol": socket.IPPROTO_TCP}, {"domain": socket.AF_INET6}])
    def test_what_it_is_too(self, app: Application, change: dict[str, int]) -> None:
        app.good(pb.SOCKET, **TCP4 | change)


class TestBind:
    @better
    def test_port_0_picks_one(self, app: Application, chitcpd: Daemon) -> None:
        _, port = app.listening(chitcpd.address)
        assert 49152 <= port <= 65535

    @better
    def test_a_port_in_use(self, app: Application, chitcpd: Daemon) -> None:
        _, port = app.listening(chitcpd.address)
        for host in (chitcpd.address, "0.0.0.0"):
            resp = app.call(pb.BIND, sockfd=app.socket(), addr=sockaddr_in(host, port))
            assert resp.error_code == errno.EADDRINUSE

    @better
    def test_a_port_that_is_bound_only(self, app: Application, chitcpd: Daemon) -> None:
        first, second = app.socket(), app.socket()
        app.good(pb.BIND, sockfd=first, addr=sockaddr_in(chitcpd.address, 0))
        addr = app.good(pb.GETSOCKNAME, sockfd=first).addr
        assert app.call(pb.BIND, sockfd=second, addr=addr).error_code == errno.EADDRINUSE
        app.good(pb.CLOSE, sockfd=first)
        app.good(pb.BIND, sockfd=second, addr=addr)

    @better
    def test_an_address_that_is_not_ours(self, app: Application) -> None:
        resp = app.call(pb.BIND, sockfd=app.socket(), addr=sockaddr_in("192.0.2.1", 7))
        assert resp.error_code == errno.EADDRNOTAVAIL

    @match
    def test_a_socket_that_listens_or_is_connected(self, talk: Conversation, chitcpd: Daemon) -> None:
        addr = sockaddr_in(chitcpd.address, 7)
        assert talk.server.call(pb.BIND, sockfd=talk.listener, addr=addr).error_code == errno.EBADF
        assert talk.client.call(pb.BIND, sockfd=talk.near, addr=addr).error_code == errno.EBADF

    @pytest.mark.parametrize("addr", [b"", b"\x02", sockaddr_in("127.0.0.1", 7)[:15], b"\x00" * 16, b"\xff" * 200])
    def test_an_address_that_is_none(self, app: Application, addr: bytes) -> None:
        for code in (pb.BIND, pb.CONNECT):
            assert app.call(code, sockfd=app.socket(), addr=addr).error_code == errno.EINVAL


class TestListen:
    def test_without_bind_it_gets_a_port(self, app: Application) -> None:
        fd = app.socket()
        app.good(pb.LISTEN, sockfd=fd, backlog=1)
        addr = app.good(pb.GETSOCKNAME, sockfd=fd).addr
        assert 49152 <= int.from_bytes(addr[2:4]) <= 65535
        assert addr[4:8] == bytes(4)

    @match
    def test_a_socket_that_listens_or_is_connected(self, talk: Conversation) -> None:
        assert talk.server.call(pb.LISTEN, sockfd=talk.listener, backlog=1).error_code == errno.EBADF
        assert talk.client.call(pb.LISTEN, sockfd=talk.near, backlog=1).error_code == errno.EBADF

    @better
    def test_syns_are_answered_before_accept(self, app: Application, other: Application, chitcpd: Daemon) -> None:
        listener, port = other.listening(chitcpd.address)
        near = app.connected(chitcpd.address, port)
        app.send(near, b"early")
        far = other.good(pb.ACCEPT, sockfd=listener).ret
        assert other.recv(far) == b"early"

    @better
    def test_the_backlog_is_honoured(self, app: Application, other: Application, chitcpd: Daemon) -> None:
        listener, port = other.listening(chitcpd.address, backlog=1)
        app.connected(chitcpd.address, port)
        with Application(chitcpd.socket) as late:
            late.ask(pb.CONNECT, sockfd=late.socket(), addr=sockaddr_in(chitcpd.address, port))
            assert "SYN_SENT" in [sock["state"] for sock in chitcpd.sockets()]
            other.good(pb.ACCEPT, sockfd=listener)
            assert late.answer().error_code == 0  # its second SYN, a second later, finds room


class TestAccept:
    @match
    def test_a_socket_that_does_not_listen(self, talk: Conversation) -> None:
        assert talk.client.call(pb.ACCEPT, sockfd=talk.client.socket()).error_code == errno.EINVAL
        assert talk.client.call(pb.ACCEPT, sockfd=talk.near).error_code == errno.EINVAL

    @match
    def test_it_answers_with_the_peer_as_a_sockaddr_storage(
        self, app: Application, other: Application, chitcpd: Daemon
    ) -> None:
        listener, port = other.listening(chitcpd.address)
        near = app.connected(chitcpd.address, port)
        resp = other.good(pb.ACCEPT, sockfd=listener)
        ours = int.from_bytes(app.good(pb.GETSOCKNAME, sockfd=near).addr[2:4])
        assert resp.addr == sockaddr_in(chitcpd.address, ours) + bytes(112)
        assert other.good(pb.GETPEERNAME, sockfd=resp.ret).addr == sockaddr_in(chitcpd.address, ours)

    @match
    def test_a_connection_that_was_closed_meanwhile_is_accepted_all_the_same(
        self, app: Application, other: Application, chitcpd: Daemon
    ) -> None:
        listener, port = other.listening(chitcpd.address)
        near = app.connected(chitcpd.address, port)
        app.send(near, b"hello and goodbye")
        app.good(pb.CLOSE, sockfd=near)
        far = other.good(pb.ACCEPT, sockfd=listener).ret
        assert (other.recv(far), other.recv(far)) == (b"hello and goodbye", b"")

    def test_a_listener_that_is_closed_ends_it(self, app: Application, other: Application, chitcpd: Daemon) -> None:
        listener, _ = other.listening(chitcpd.address)
        other.ask(pb.ACCEPT, sockfd=listener)
        app.good(pb.CLOSE, sockfd=listener)
        assert other.answer().error_code == errno.EBADF


class TestConnect:
    @match
    def test_a_socket_that_is_connected_or_listens(self, talk: Conversation, chitcpd: Daemon) -> None:
        addr = sockaddr_in(chitcpd.address, talk.port)
        assert talk.client.call(pb.CONNECT, sockfd=talk.near, addr=addr).error_code == errno.EALREADY
        assert talk.server.call(pb.CONNECT, sockfd=talk.listener, addr=addr).error_code == errno.EALREADY

    @better
    def test_refused(self, app: Application, chitcpd: Daemon) -> None:
        fd = app.socket()
        assert app.call(pb.CONNECT, sockfd=fd, addr=sockaddr_in(chitcpd.address, 9)).error_code == errno.ECONNREFUSED

    def test_a_socket_that_was_refused_may_try_again(
        self, app: Application, other: Application, chitcpd: Daemon
    ) -> None:
        fd = app.socket()
        app.call(pb.CONNECT, sockfd=fd, addr=sockaddr_in(chitcpd.address, 9))
        _, port = other.listening(chitcpd.address)
        app.good(pb.CONNECT, sockfd=fd, addr=sockaddr_in(chitcpd.address, port))

    @better
    def test_unreachable(self, app: Application) -> None:
        addr = sockaddr_in(free_address(), 7)
        assert app.call(pb.CONNECT, sockfd=app.socket(), addr=addr).error_code == errno.EHOSTUNREACH

    @better
    def test_it_honours_an_earlier_bind(self, app: Application, other: Application, chitcpd: Daemon) -> None:
        listener, port = other.listening(chitcpd.address)
        fd = app.socket()
        app.good(pb.BIND, sockfd=fd, addr=sockaddr_in(chitcpd.address, 5000))
        app.good(pb.CONNECT, sockfd=fd, addr=sockaddr_in(chitcpd.address, port))
        addr = other.good(pb.ACCEPT, sockfd=listener).addr
        assert addr[:16] == sockaddr_in(chitcpd.address, 5000)

    @better
    def test_it_waits_and_another_may_end_that(self, directory: Path) -> None:
        """A time-out comes after seven SYNs in two minutes: that is for tests/tcp, in virtual time."""
        with running_daemon(directory) as one, Application(one.socket) as app, Application(one.socket) as other:
            one.ask("links", links=[{"peers": [one.address], "loss": 1.0}])
            app.ask(pb.CONNECT, sockfd=app.socket(), addr=sockaddr_in(one.address, 7))
            assert [sock["state"] for sock in one.sockets()] == ["SYN_SENT"]
            assert other.call(pb.CLOSE, sockfd=0).error_code == 0
            assert app.answer().error_code == errno.ECONNABORTED


class TestSend:
    @match
    def test_length_0_is_checked_first(self, talk: Conversation) -> None:
        for fd in (talk.near, talk.client.socket()):
            assert talk.client.call(pb.SEND, sockfd=fd, flags=0, buf=b"").error_code == errno.EINVAL

    @match
    def test_not_connected(self, app: Application) -> None:
        assert app.call(pb.SEND, sockfd=app.socket(), flags=0, buf=b"x").error_code == errno.ENOTCONN

    @match
    def test_listening(self, talk: Conversation) -> None:
        resp = talk.server.call(pb.SEND, sockfd=talk.listener, flags=0, buf=b"x")
        assert resp.error_code == errno.EOPNOTSUPP

    @better
    def test_after_our_own_end(self, talk: Conversation) -> None:
        talk.client.good(pb.SHUTDOWN, sockfd=talk.near, how=socket.SHUT_WR)
        assert talk.client.call(pb.SEND, sockfd=talk.near, flags=0, buf=b"x").error_code == errno.EPIPE
        assert talk.server.recv(talk.far) == b""
        assert talk.server.send(talk.far, b"still") == 5  # the other way is open
        assert talk.client.recv(talk.near) == b"still"

    @better
    def test_after_a_reset(self, talk: Conversation) -> None:
        talk.server.close()
        assert talk.client.call(pb.RECV, sockfd=talk.near, flags=0, len=1).error_code == errno.ECONNRESET
        assert talk.client.call(pb.SEND, sockfd=talk.near, flags=0, buf=b"x").error_code == errno.ECONNRESET

    @match
    def test_it_blocks_until_as_much_as_the_send_buffer_holds_is_queued(self, classic: Daemon) -> None:
        with Application(classic.socket) as client, Application(classic.socket) as server:
            talk = Conversation(client, server, classic.address)
            assert client.send(talk.near, bytes(10_000)) == 4096  # in the peer's window
            assert client.send(talk.near, bytes(4096)) == 4096  # in our buffer
            client.ask(pb.SEND, sockfd=talk.near, flags=0, buf=bytes(100))
            assert server.recv_exactly(talk.far, 4096) == bytes(4096)
            assert client.answer().ret == 100
            assert server.recv_exactly(talk.far, 4196) == bytes(4196)

    @better
    def test_one_that_waits_ends_with_the_connection(self, classic: Daemon) -> None:
        with Application(classic.socket) as client, Application(classic.socket) as server:
            talk = Conversation(client, server, classic.address)
            for _ in range(2):
                client.send(talk.near, bytes(4096))
            client.ask(pb.SEND, sockfd=talk.near, flags=0, buf=b"x")
            server.close()
            assert client.answer().error_code == errno.ECONNRESET


class TestRecv:
    @match
    @pytest.mark.parametrize("length", [0, -1])
    def test_length_0(self, talk: Conversation, length: int) -> None:
        assert talk.client.call(pb.RECV, sockfd=talk.near, flags=0, len=length).error_code == errno.EINVAL

    @match
    def test_not_connected_or_listening(self, talk: Conversation) -> None:
        for fd in (talk.server.socket(), talk.listener):
            assert talk.server.call(pb.RECV, sockfd=fd, flags=0, len=1).error_code == errno.ENOTCONN

    @match
    def test_it_returns_what_is_there_up_to_the_length(self, talk: Conversation) -> None:
        talk.client.send(talk.near, b"abcdef")
        assert talk.server.recv_exactly(talk.far, 6) == b"abcdef"
        talk.client.send(talk.near, b"abcdef")
        assert talk.server.recv(talk.far, 2) == b"ab"
        assert talk.server.recv(talk.far, 100) == b"cdef"

    @match
    def test_it_waits_for_a_byte(self, talk: Conversation) -> None:
        talk.server.ask(pb.RECV, sockfd=talk.far, flags=0, len=100)
        talk.client.send(talk.near, b"x")
        assert talk.server.answer().buf == b"x"

    @match
    def test_the_end_of_the_stream_again_and_again(self, talk: Conversation) -> None:
        talk.client.send(talk.near, b"last")
        talk.client.good(pb.SHUTDOWN, sockfd=talk.near, how=socket.SHUT_WR)
        assert [talk.server.recv(talk.far) for _ in range(3)] == [b"last", b"", b""]

    @match
    def test_last_ack_and_time_wait(self, talk: Conversation) -> None:
        """Both have closed: 0 at once on either side."""
        talk.client.good(pb.SHUTDOWN, sockfd=talk.near, how=socket.SHUT_WR)
        assert talk.server.recv(talk.far) == b""
        talk.server.good(pb.SHUTDOWN, sockfd=talk.far, how=socket.SHUT_WR)
        assert talk.client.recv(talk.near) == b""
        assert (talk.client.recv(talk.near), talk.server.recv(talk.far)) == (b"", b"")

    @better
    def test_after_a_reset(self, talk: Conversation) -> None:
        talk.client.ask(pb.RECV, sockfd=talk.near, flags=0, len=1)
        talk.server.close()
        assert talk.client.answer().error_code == errno.ECONNRESET

    @better
    def test_data_that_came_before_the_end_is_never_lost(self, talk: Conversation) -> None:
        data = bytes(range(256)) * 200
        assert talk.client.send(talk.near, data) == len(data)
        talk.client.ask(pb.CLOSE, sockfd=talk.near)
        assert talk.server.recv_exactly(talk.far, len(data)) == data
        assert talk.server.recv(talk.far) == b""
        assert talk.client.answer().error_code == 0


class TestClose:
    @match
    def test_a_listener(self, talk: Conversation, chitcpd: Daemon) -> None:
        talk.server.good(pb.CLOSE, sockfd=talk.listener)
        assert talk.server.call(pb.ACCEPT, sockfd=talk.listener).error_code == errno.EBADF
        addr = sockaddr_in(chitcpd.address, talk.port)
        resp = talk.client.call(pb.CONNECT, sockfd=talk.client.socket(), addr=addr)
        assert resp.error_code == errno.ECONNREFUSED
        talk.client.send(talk.near, b"x")  # what was accepted goes on
        assert talk.server.recv(talk.far) == b"x"

    @better
    def test_a_fresh_socket(self, app: Application) -> None:
        """107 in the C chiTCP: there, a socket that was never connected can't be freed."""
        app.good(pb.CLOSE, sockfd=app.socket())

    @match
    def test_a_connection_that_has_ended(self, talk: Conversation) -> None:
        talk.server.close()
        talk.client.call(pb.RECV, sockfd=talk.near, flags=0, len=1)
        assert talk.client.call(pb.CLOSE, sockfd=talk.near).error_code == errno.ENOTCONN
        assert talk.client.call(pb.CLOSE, sockfd=talk.near).error_code == errno.EBADF  # freed it is

    @match
    def test_from_established_it_returns_once_our_end_is_acknowledged(self, talk: Conversation) -> None:
        talk.client.good(pb.CLOSE, sockfd=talk.near)
        assert talk.client.call(pb.CLOSE, sockfd=talk.near).error_code == errno.EBADF
        assert talk.server.recv(talk.far) == b""

    @match
    def test_from_close_wait(self, talk: Conversation, chitcpd: Daemon) -> None:
        talk.client.good(pb.CLOSE, sockfd=talk.near)
        assert talk.server.recv(talk.far) == b""
        assert state(chitcpd, talk.port) == "CLOSE_WAIT"
        talk.server.good(pb.CLOSE, sockfd=talk.far)

    @better
    def test_a_peer_that_still_sends_is_reset(self, talk: Conversation) -> None:
        talk.client.good(pb.CLOSE, sockfd=talk.near)
        assert talk.server.recv(talk.far) == b""
        talk.server.send(talk.far, b"anybody there?")
        resp = talk.server.call(pb.RECV, sockfd=talk.far, flags=0, len=1)
        while resp.error_code == 0:  # the end of the stream, until the reset has come
            resp = talk.server.call(pb.SEND, sockfd=talk.far, flags=0, buf=b"x")
        assert resp.error_code == errno.ECONNRESET


class TestNames:
    def test_a_fresh_socket(self, app: Application) -> None:
        fd = app.socket()
        assert app.good(pb.GETSOCKNAME, sockfd=fd).addr == sockaddr_in("0.0.0.0", 0)
        assert app.call(pb.GETPEERNAME, sockfd=fd).error_code == errno.ENOTCONN

    def test_a_fresh_socket_of_ipv6(self, app: Application) -> None:
        fd = app.good(pb.SOCKET, **TCP4 | {"domain": socket.AF_INET6}).ret
        assert app.good(pb.GETSOCKNAME, sockfd=fd).addr == struct.pack("=H", socket.AF_INET6) + bytes(26)

    def test_both_ends_of_a_connection(self, talk: Conversation, chitcpd: Daemon) -> None:
        near = talk.client.good(pb.GETSOCKNAME, sockfd=talk.near).addr
        far = talk.server.good(pb.GETSOCKNAME, sockfd=talk.far).addr
        assert far == sockaddr_in(chitcpd.address, talk.port)
        assert talk.client.good(pb.GETPEERNAME, sockfd=talk.near).addr == far
        assert talk.server.good(pb.GETPEERNAME, sockfd=talk.far).addr == near


class TestShutdown:
    def test_what_is_no_way(self, talk: Conversation) -> None:
        assert talk.client.call(pb.SHUTDOWN, sockfd=talk.near, how=3).error_code == errno.EINVAL

    def test_not_connected(self, talk: Conversation) -> None:
        for fd in (talk.server.socket(), talk.listener):
            assert talk.server.call(pb.SHUTDOWN, sockfd=fd, how=1).error_code == errno.ENOTCONN

    def test_reading_only_changes_nothing_for_the_peer(self, talk: Conversation) -> None:
        talk.client.good(pb.SHUTDOWN, sockfd=talk.near, how=socket.SHUT_RD)
        talk.client.send(talk.near, b"x")
        assert talk.server.recv(talk.far) == b"x"


class TestApplicationsThatGoAway:
    """In the middle of a call: everything of theirs is freed, and their connections are reset."""

    @pytest.fixture(autouse=True)
    def _nothing_is_left_of_other_tests(self, chitcpd: Daemon) -> None:
        assert self.left(chitcpd) == []

    def left(self, daemon: Daemon) -> list[str]:
        return [sock["state"] for sock in daemon.sockets()]

    def test_in_accept(self, chitcpd: Daemon) -> None:
        with Application(chitcpd.socket) as client:
            server = Application(chitcpd.socket)
            listener, port = server.listening(chitcpd.address)
            server.ask(pb.ACCEPT, sockfd=listener)
            assert self.left(chitcpd) == ["LISTEN"]
            server.close()
            assert self.left(chitcpd) == []
            addr = sockaddr_in(chitcpd.address, port)
            assert client.call(pb.CONNECT, sockfd=client.socket(), addr=addr).error_code == errno.ECONNREFUSED

    def test_before_accept(self, chitcpd: Daemon) -> None:
        with Application(chitcpd.socket) as client:
            server = Application(chitcpd.socket)
            _, port = server.listening(chitcpd.address)
            near = client.connected(chitcpd.address, port)
            server.close()
            assert client.call(pb.RECV, sockfd=near, flags=0, len=1).error_code == errno.ECONNRESET

    def test_in_connect(self, chitcpd: Daemon) -> None:
        client = Application(chitcpd.socket)
        chitcpd.ask("links", links=[{"peers": [chitcpd.address], "loss": 1.0}])
        client.ask(pb.CONNECT, sockfd=client.socket(), addr=sockaddr_in(chitcpd.address, 7))
        assert self.left(chitcpd) == ["SYN_SENT"]
        chitcpd.ask("links", links=[{"peers": [chitcpd.address]}])
        client.close()
        assert self.left(chitcpd) == []

    @pytest.mark.parametrize("waiting", ["client", "server"])
    def test_in_recv(self, chitcpd: Daemon, waiting: str) -> None:
        client, server = Application(chitcpd.socket), Application(chitcpd.socket)
        talk = Conversation(client, server, chitcpd.address)
        goes, fd = (client, talk.near) if waiting == "client" else (server, talk.far)
        stays, end = (server, talk.far) if waiting == "client" else (client, talk.near)
        goes.ask(pb.RECV, sockfd=fd, flags=0, len=1)
        stays.ask(pb.RECV, sockfd=end, flags=0, len=1)
        goes.close()
        assert stays.answer().error_code == errno.ECONNRESET
        stays.close()
        assert self.left(chitcpd) == []

    def test_in_send(self, classic: Daemon) -> None:
        with Application(classic.socket) as server:
            client = Application(classic.socket)
            talk = Conversation(client, server, classic.address)
            for _ in range(3):
                client.ask(pb.SEND, sockfd=talk.near, flags=0, buf=bytes(4096))
            assert len(server.recv_exactly(talk.far, 1)) == 1
            client.close()
            received = 1
            while (resp := server.call(pb.RECV, sockfd=talk.far, flags=0, len=4096)).error_code == 0:
                received += resp.ret
            assert resp.error_code == errno.ECONNRESET
            assert received < 3 * 4096

    def test_in_close_the_stream_still_ends_well(self, classic: Daemon) -> None:
        """What was sent before close() is the daemon's to deliver; the application need not wait for it."""
        with Application(classic.socket) as server:
            client = Application(classic.socket)
            talk = Conversation(client, server, classic.address)
            client.send(talk.near, bytes(4096))
            client.send(talk.near, bytes(4096))
            client.ask(pb.CLOSE, sockfd=talk.near)
            client.close()
            assert server.recv_exactly(talk.far, 8192) == bytes(8192)
            assert server.recv(talk.far) == b""

    def test_its_descriptors_are_free_again(self, chitcpd: Daemon) -> None:
        first = Application(chitcpd.socket)
        assert [first.socket() for _ in range(3)] == [0, 1, 2]
        first.close()
        with Application(chitcpd.socket) as second:
            assert [second.socket() for _ in range(3)] == [0, 1, 2]


class TestTwoDaemons:
    """What one daemon can't show: a peer on another host, whose daemon ends."""

    @pytest.fixture
    def across(self, two_daemons: tuple[Host, Host]) -> Iterator[tuple[Conversation, Host, Host]]:
        alice, bob = two_daemons
        with Application(alice.socket) as client, Application(bob.socket) as server:
            yield Conversation(client, server, bob.address), alice, bob

    def test_a_conversation(self, across: tuple[Conversation, Host, Host]) -> None:
        talk, alice, _ = across
        data = bytes(range(256)) * 4000
        talk.client.ask(pb.SEND, sockfd=talk.near, flags=0, buf=data[: 1 << 18])
        assert talk.server.recv_exactly(talk.far, 1 << 18) == data[: 1 << 18]
        assert talk.client.answer().ret == 1 << 18
        assert talk.server.good(pb.GETPEERNAME, sockfd=talk.far).addr[4:8] == socket.inet_aton(alice.address)
        talk.server.good(pb.CLOSE, sockfd=talk.far)
        assert talk.client.recv(talk.near) == b""
        talk.client.good(pb.CLOSE, sockfd=talk.near)

    def test_an_application_that_goes_away_resets_the_peer_on_the_other_host(
        self, across: tuple[Conversation, Host, Host]
    ) -> None:
        talk, *_ = across
        talk.server.ask(pb.RECV, sockfd=talk.far, flags=0, len=1)
        talk.client.close()
        assert talk.server.answer().error_code == errno.ECONNRESET

    def test_refused_and_unreachable(self, two_daemons: tuple[Host, Host]) -> None:
        alice, bob = two_daemons
        with Application(alice.socket) as app:
            addr = sockaddr_in(bob.address, 9)
            assert app.call(pb.CONNECT, sockfd=app.socket(), addr=addr).error_code == errno.ECONNREFUSED
            bob.daemon.send_signal(signal.SIGTERM)
            assert bob.daemon.wait(10) == 0
            resp = app.call(pb.CONNECT, sockfd=app.socket(), addr=addr)
            assert resp.error_code == errno.EHOSTUNREACH

    def test_a_daemon_that_ends_closes_its_connections_and_resets_what_is_left(
        self, across: tuple[Conversation, Host, Host]
    ) -> None:
        talk, _, bob = across
        bob.daemon.send_signal(signal.SIGTERM)
        assert talk.client.recv(talk.near) == b""
        assert bob.daemon.wait(10) == 0
        assert talk.client.call(pb.SEND, sockfd=talk.near, flags=0, buf=b"x").error_code == errno.ECONNRESET


class TestAFaultyTcp:
    """Somebody's own TCP that raises: their application sees EIO, their log the line, everybody else nothing."""

    SOURCE = """
from chitcpd.tcp.connection import Connection


class Faulty(Connection):
    def send(self, data, now):
        if bytes(data) == b"raise":
            raise RuntimeError("what I did not think of")
        return super().send(data, now)
"""

    def test_it(self, daemon: StartDaemon, directory: Path) -> None:
        file = directory / "faulty.py"
        file.write_text(self.SOURCE)
        one = daemon("--tcp", str(file))
        with Application(one.socket) as client, Application(one.socket) as server:
            talk = Conversation(client, server, one.address)
            server.ask(pb.ACCEPT, sockfd=talk.listener)
            second = client.connected(one.address, talk.port)
            other = server.answer().ret
            assert client.call(pb.SEND, sockfd=talk.near, flags=0, buf=b"raise").error_code == errno.EIO
            assert client.call(pb.SEND, sockfd=talk.near, flags=0, buf=b"more").error_code == errno.EIO
            assert client.call(pb.RECV, sockfd=talk.near, flags=0, len=1).error_code == errno.EIO
            resp = server.call(pb.RECV, sockfd=talk.far, flags=0, len=1)
            assert resp.error_code == errno.ECONNRESET
            client.send(second, b"fine")
            assert server.recv(other) == b"fine"
        log = one.log.read_text()
        assert 'faulty.py", line 8, in send' in log
        assert "RuntimeError: what I did not think of" in log
