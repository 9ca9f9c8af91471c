"""Debug connections as a C program has them: interop.md section 3, rule by rule."""

from __future__ import annotations

import asyncio
import errno
import re
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from chisocket.protocol import chitcpd_pb2 as pb
from chitcpd.debug import (
    ACCEPT_MONITOR,
    DRAW_WITHHELD,
    DROP,
    DUPLICATE,
    INCOMING_PACKET,
    NONE,
    OUTGOING_PACKET,
    PENDING_CONNECTION,
    STATE_CHANGE,
    STOP,
    WITHHOLD,
    Debugger,
    Event,
    Watch,
)
from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, Segment, State
from tests.daemon.application import Application, Conversation, sockaddr_in
from tests.daemon.conftest import Daemon, StartDaemon, running_daemon
from tests.daemon.test_driver import connected, two_hosts

EVERYTHING = STATE_CHANGE | INCOMING_PACKET | OUTGOING_PACKET | PENDING_CONNECTION


class DebugConnection(Application):
    """A debug connection; it holds what happens until `answer_with`."""

    def __init__(self, path: str, fd: int, flags: int) -> None:
        super().__init__(path, greet=False)
        init = pb.InitArgs(connection_type=1, debug=pb.DebugInitArgs(sockfd=fd, event_flags=flags))
        self.send_message(pb.ChitcpdMsg(code=pb.INIT, init_args=init))
        self.greeting = self.answer()

    def event(self) -> pb.DebugEventArgs:
        """The next event."""
        (length,) = struct.unpack("=Q", self._read(8))
        message = pb.ChitcpdMsg.FromString(self._read(length))
        assert message.code == pb.DEBUG_EVENT
        return message.debug_event_args

    def expect(self, flag: int) -> pb.DebugEventArgs:
        """The next event, which is of this kind."""
        event = self.event()
        assert event.event_flag == flag
        return event

    def answer_with(self, response: int) -> None:
        """Let go of what happened."""
        self.send_message(pb.ChitcpdMsg(code=pb.RESP, resp=pb.Resp(ret=response, error_code=0)))

    def pass_on(self, flag: int, response: int = NONE) -> pb.DebugEventArgs:
        """The next event, which is of this kind, and is answered."""
        event = self.expect(flag)
        self.answer_with(response)
        return event

    def is_silent(self) -> bool:
        """Whether no event has come."""
        return not select.select([self.raw], [], [], 0)[0]


@pytest.fixture(scope="module")
def chitcpd(directory: Path) -> Iterator[Daemon]:
    """The daemon of most tests here: with the C chiTCP's constants, so that segments can be counted."""
    with running_daemon(directory, "-vv", "--profile", "classic") as daemon:
        yield daemon


class Bench:
    """Applications and debuggers of one daemon, which end with the test."""

    def __init__(self, daemon: Daemon, stack: ExitStack) -> None:
        self.daemon = daemon
        self._stack = stack

    def application(self) -> Application:
        return self._stack.enter_context(Application(self.daemon.socket))

    def talk(self) -> Conversation:
        return Conversation(self.application(), self.application(), self.daemon.address)

    def debug(self, fd: int, flags: int) -> DebugConnection:
        """One that the daemon has accepted."""
        debugger = self.refused(fd, flags)
        assert (debugger.greeting.ret, debugger.greeting.error_code) == (0, 0)
        return debugger

    def refused(self, fd: int, flags: int) -> DebugConnection:
        debugger = DebugConnection(self.daemon.socket, fd, flags)
        self._stack.callback(debugger.close)
        return debugger

    def state(self, fd: int) -> pb.SocketState:
        return self.application().good(pb.GET_SOCKET_STATE, sockfd=fd).socket_state

    def buffers(self, fd: int) -> pb.SocketBufferContents:
        return self.application().good(pb.GET_SOCKET_BUFFER_CONTENTS, sockfd=fd).socket_buffer_contents


@pytest.fixture
def bench(chitcpd: Daemon) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(chitcpd, stack)


def states(debugger: DebugConnection, bench: Bench, count: int) -> list[str]:
    """The next states that are reported, each as GET_SOCKET_STATE shows it meanwhile."""
    seen = []
    for _ in range(count):
        seen.append(State(bench.state(debugger.expect(STATE_CHANGE).sockfd).tcp_state).name)
        debugger.answer_with(NONE)
    return seen


def is_answered(application: Application) -> bool:
    return bool(select.select([application.raw], [], [], 0)[0])


class TestInit:
    def test_no_such_socket(self, bench: Bench) -> None:
        greeting = bench.refused(999, EVERYTHING).greeting
        assert (greeting.ret, greeting.error_code) == (-5, errno.EBADF)

    def test_already_watched(self, bench: Bench) -> None:
        fd = bench.application().socket()
        bench.debug(fd, STATE_CHANGE)
        greeting = bench.refused(fd, STATE_CHANGE).greeting
        assert (greeting.ret, greeting.error_code) == (-5, errno.EAGAIN) == (-5, 11)

    def test_which_socket_is_missing(self, bench: Bench) -> None:
        with Application(bench.daemon.socket, greet=False) as raw:
            raw.send_message(pb.ChitcpdMsg(code=pb.INIT, init_args=pb.InitArgs(connection_type=1)))
            assert raw.answer().ret == -5

    def test_an_answer_to_no_question_ends_it(self, bench: Bench) -> None:
        debugger = bench.debug(bench.application().socket(), EVERYTHING)
        debugger.answer_with(NONE)
        assert debugger.is_closed()

    def test_a_request_on_it_ends_it(self, bench: Bench) -> None:
        debugger = bench.debug(bench.application().socket(), EVERYTHING)
        debugger.ask(pb.SOCKET, domain=socket.AF_INET, type=socket.SOCK_STREAM, protocol=0)
        assert debugger.is_closed()

    def test_it_ends_with_its_socket(self, bench: Bench) -> None:
        application = bench.application()
        fd = application.socket()
        debugger = bench.debug(fd, EVERYTHING)
        application.call(pb.CLOSE, sockfd=fd)
        assert debugger.is_closed()


class TestStates:
    def test_each_is_reported_and_holds_connect(self, bench: Bench) -> None:
        client, server = bench.application(), bench.application()
        _, port = server.listening(bench.daemon.address)
        fd = client.socket()
        debugger = bench.debug(fd, STATE_CHANGE)
        client.ask(pb.CONNECT, sockfd=fd, addr=sockaddr_in(bench.daemon.address, port))
        assert states(debugger, bench, 1) == ["SYN_SENT"]
        event = debugger.expect(STATE_CHANGE)
        assert (event.sockfd, event.new_sockfd, event.is_active) == (fd, -1, True)
        state = bench.state(fd)
        assert state.tcp_state == State.ESTABLISHED
        assert state.snd_una == state.snd_nxt  # of SYN_SENT -> ESTABLISHED
        assert not is_answered(client)
        debugger.answer_with(NONE)
        assert client.answer().error_code == 0

    def test_of_an_accepted_one(self, bench: Bench) -> None:
        """ACCEPT_MONITOR: watched before it runs; and accept waits for the answer."""
        client, server = bench.application(), bench.application()
        listener, port = server.listening(bench.daemon.address)
        debugger = bench.debug(listener, PENDING_CONNECTION | STATE_CHANGE)
        server.ask(pb.ACCEPT, sockfd=listener)
        client.ask(pb.CONNECT, sockfd=client.socket(), addr=sockaddr_in(bench.daemon.address, port))
        event = debugger.pass_on(PENDING_CONNECTION, ACCEPT_MONITOR)
        assert (event.sockfd, event.is_active) == (listener, False)
        new = event.new_sockfd
        assert states(debugger, bench, 2) == ["LISTEN", "SYN_RCVD"]
        assert debugger.expect(STATE_CHANGE).sockfd == new
        state = bench.state(new)
        assert state.tcp_state == State.ESTABLISHED
        assert (state.snd_nxt - state.snd_una) & 0xFFFFFFFF == 1  # of SYN_RCVD -> ESTABLISHED
        assert not is_answered(server)
        debugger.answer_with(NONE)
        assert server.answer().ret == new
        assert client.answer().error_code == 0

    def test_only_stop_is_heeded(self, bench: Bench) -> None:
        talk = bench.talk()
        debugger = bench.debug(talk.far, STATE_CHANGE)
        talk.client.ask(pb.CLOSE, sockfd=talk.near)
        debugger.pass_on(STATE_CHANGE, DROP)
        assert talk.client.answer().error_code == 0
        assert talk.server.recv(talk.far) == b""
        talk.server.ask(pb.CLOSE, sockfd=talk.far)
        debugger.pass_on(STATE_CHANGE, STOP)
        assert talk.server.answer().error_code == 0
        assert debugger.is_closed()

    def test_those_passed_through_at_once(self, bench: Bench) -> None:
        """CLOSED too, for which the descriptor has been freed long ago: it is known until then."""
        talk = bench.talk()
        debugger = bench.debug(talk.near, STATE_CHANGE)
        talk.server.ask(pb.CLOSE, sockfd=talk.far)
        assert states(debugger, bench, 1) == ["CLOSE_WAIT"]
        assert talk.server.answer().error_code == 0
        talk.client.ask(pb.CLOSE, sockfd=talk.near)
        assert states(debugger, bench, 2) == ["LAST_ACK", "CLOSED"]
        assert talk.client.answer().error_code == 0
        assert debugger.is_closed()

    def test_close_returns_after_the_answer(self, bench: Bench) -> None:
        talk = bench.talk()
        debugger = bench.debug(talk.near, STATE_CHANGE)
        talk.client.ask(pb.CLOSE, sockfd=talk.near)
        assert states(debugger, bench, 1) == ["FIN_WAIT_1"]
        debugger.expect(STATE_CHANGE)
        assert bench.state(talk.near).tcp_state == State.FIN_WAIT_2
        assert not is_answered(talk.client)
        debugger.answer_with(NONE)
        assert talk.client.answer().error_code == 0

    def test_its_number_is_not_given_to_another_before_the_last_event(self, bench: Bench) -> None:
        talk = bench.talk()
        debugger = bench.debug(talk.near, STATE_CHANGE)
        talk.client.ask(pb.CLOSE, sockfd=talk.near)
        debugger.pass_on(STATE_CHANGE)
        debugger.pass_on(STATE_CHANGE)
        talk.client.answer()
        assert bench.application().socket() != talk.near
        talk.server.ask(pb.CLOSE, sockfd=talk.far)
        while bench.state(debugger.expect(STATE_CHANGE).sockfd).tcp_state != State.CLOSED:
            debugger.answer_with(NONE)
        debugger.answer_with(NONE)
        assert debugger.is_closed()
        assert talk.near in [bench.application().socket() for _ in range(8)]

    def test_a_connection_that_is_refused(self, bench: Bench) -> None:
        client = bench.application()
        fd = client.socket()
        debugger = bench.debug(fd, STATE_CHANGE)
        client.ask(pb.CONNECT, sockfd=fd, addr=sockaddr_in(bench.daemon.address, 1))
        assert states(debugger, bench, 2) == ["SYN_SENT", "CLOSED"]
        assert client.answer().error_code == errno.ECONNREFUSED
        assert bench.application().call(pb.GET_SOCKET_STATE, sockfd=fd).error_code == errno.EBADF


class TestIncoming:
    def test_it_holds_the_packet(self, bench: Bench) -> None:
        talk = bench.talk()
        debugger = bench.debug(talk.far, INCOMING_PACKET)
        before = bench.state(talk.far)
        talk.client.send(talk.near, b"hello")
        event = debugger.expect(INCOMING_PACKET)
        assert (event.sockfd, event.new_sockfd, event.is_active) == (talk.far, -1, True)
        assert bench.state(talk.far) == before
        assert bench.buffers(talk.far).rcv == b""
        debugger.answer_with(NONE)
        assert talk.server.recv(talk.far) == b"hello"

    def test_calls_wait_too(self, bench: Bench) -> None:
        talk = bench.talk()
        talk.client.send(talk.near, b"before")
        assert talk.server.good(pb.RECV, sockfd=talk.far, flags=socket.MSG_PEEK, len=9).buf == b"before"
        debugger = bench.debug(talk.far, INCOMING_PACKET)
        talk.client.send(talk.near, b"behind")
        debugger.expect(INCOMING_PACKET)
        talk.server.ask(pb.RECV, sockfd=talk.far, flags=0, len=100)
        bench.application().socket()  # the daemon has seen the call, and is alive
        assert not is_answered(talk.server)
        debugger.answer_with(NONE)
        assert talk.server.answer().buf.startswith(b"before")

    def test_drop(self, bench: Bench) -> None:
        """It comes again; and the peer has sent it twice."""
        talk = bench.talk()
        debugger = bench.debug(talk.far, INCOMING_PACKET)
        talk.client.send(talk.near, b"hello")
        debugger.pass_on(INCOMING_PACKET, DROP)
        debugger.pass_on(INCOMING_PACKET)
        assert talk.server.recv(talk.far) == b"hello"

    def test_duplicate(self, bench: Bench) -> None:
        """The second is no event of its own, and has an acknowledgement of its own."""
        talk = bench.talk()
        debugger = bench.debug(talk.far, INCOMING_PACKET | OUTGOING_PACKET)
        talk.client.send(talk.near, b"hello")
        debugger.pass_on(INCOMING_PACKET, DUPLICATE)
        debugger.pass_on(OUTGOING_PACKET)
        debugger.pass_on(OUTGOING_PACKET)
        assert talk.server.recv(talk.far) == b"hello"
        assert "RCVD_DUPLICATE" in bench.daemon.log.read_text()  # of this test alone

    def test_withhold_and_draw(self, bench: Bench) -> None:
        """The packet that draws comes first, then the oldest that was withheld."""
        talk = bench.talk()
        debugger = bench.debug(talk.far, INCOMING_PACKET)
        talk.client.send(talk.near, bytes(536))
        debugger.pass_on(INCOMING_PACKET, WITHHOLD)
        talk.client.send(talk.near, b"second")
        debugger.pass_on(INCOMING_PACKET, DRAW_WITHHELD)
        assert talk.server.recv_exactly(talk.far, 542) == bytes(536) + b"second"
        assert "RCVD_DELAYED" in bench.daemon.log.read_text()  # of this test alone

    def test_draw_with_nothing_withheld(self, bench: Bench) -> None:
        talk = bench.talk()
        debugger = bench.debug(talk.far, INCOMING_PACKET)
        talk.client.send(talk.near, b"hello")
        debugger.pass_on(INCOMING_PACKET, DRAW_WITHHELD)
        assert talk.server.recv(talk.far) == b"hello"

    def test_stop(self, bench: Bench) -> None:
        talk = bench.talk()
        debugger = bench.debug(talk.far, INCOMING_PACKET)
        talk.client.send(talk.near, b"hello")
        debugger.pass_on(INCOMING_PACKET, STOP)
        assert talk.server.recv(talk.far) == b"hello"
        assert debugger.is_closed()
        bench.debug(talk.far, INCOMING_PACKET)  # and another may watch it

    def test_a_close_goes_before_packets_that_wait(self, bench: Bench) -> None:
        """An ACK is held, the peer's FIN waits behind it, and then the application closes."""
        talk = bench.talk()
        debugger = bench.debug(talk.far, INCOMING_PACKET | STATE_CHANGE)
        talk.server.send(talk.far, b"hello")
        debugger.expect(INCOMING_PACKET)
        assert talk.client.recv(talk.near) == b"hello"
        talk.client.ask(pb.CLOSE, sockfd=talk.near)
        bench.application().good(pb.WAIT_FOR_STATE, sockfd=talk.near, tcp_state=State.FIN_WAIT_1)
        talk.server.ask(pb.CLOSE, sockfd=talk.far)
        bench.state(talk.far)
        debugger.answer_with(NONE)
        assert states(debugger, bench, 1) == ["FIN_WAIT_1"]  # and not CLOSE_WAIT
        debugger.pass_on(INCOMING_PACKET)


class TestOutgoing:
    def test_each_shows_how_it_was(self, bench: Bench) -> None:
        """Two segments of one send: at the first, the second is not sent yet."""
        talk = bench.talk()
        debugger = bench.debug(talk.near, OUTGOING_PACKET)
        start = bench.state(talk.near).snd_nxt
        talk.client.ask(pb.SEND, sockfd=talk.near, flags=0, buf=bytes(1072))
        for sent in (536, 1072):
            debugger.expect(OUTGOING_PACKET)
            assert (bench.state(talk.near).snd_nxt - start) & 0xFFFFFFFF == sent
            assert bench.buffers(talk.near).snd == bytes(1072)
            debugger.answer_with(NONE)
        assert talk.client.answer().ret == 1072
        assert talk.server.recv_exactly(talk.far, 1072) == bytes(1072)

    def test_drop(self, bench: Bench) -> None:
        talk = bench.talk()
        debugger = bench.debug(talk.near, OUTGOING_PACKET)
        before = len(bench.daemon.log.read_text())
        talk.client.ask(pb.SEND, sockfd=talk.near, flags=0, buf=b"hello")
        debugger.pass_on(OUTGOING_PACKET, DROP)
        assert talk.client.answer().ret == 5
        debugger.pass_on(OUTGOING_PACKET)
        assert talk.server.recv(talk.far) == b"hello"
        log = bench.daemon.log.read_text()[before:]
        assert re.search(r"DROP_SENT .* length 5 \(debugger\)", log)
        assert re.search(r"RETRANSMISSION TIMEOUT|TAIL LOSS PROBE", log)

    @pytest.mark.parametrize("response", [DUPLICATE, WITHHOLD, DRAW_WITHHELD, ACCEPT_MONITOR, 99, -1])
    def test_only_drop_is_heeded(self, bench: Bench, response: int) -> None:
        talk = bench.talk()
        debugger = bench.debug(talk.near, OUTGOING_PACKET)
        talk.client.ask(pb.SEND, sockfd=talk.near, flags=0, buf=b"hello")
        debugger.pass_on(OUTGOING_PACKET, response)
        assert talk.server.recv(talk.far) == b"hello"


class TestPending:
    @pytest.mark.parametrize("response", [NONE, STOP, DROP])
    def test_not_monitored(self, bench: Bench, response: int) -> None:
        """The number is the one that accept returns."""
        client, server = bench.application(), bench.application()
        listener, port = server.listening(bench.daemon.address)
        debugger = bench.debug(listener, EVERYTHING)
        server.ask(pb.ACCEPT, sockfd=listener)
        client.ask(pb.CONNECT, sockfd=client.socket(), addr=sockaddr_in(bench.daemon.address, port))
        new = debugger.pass_on(PENDING_CONNECTION, response).new_sockfd
        assert server.answer().ret == new
        assert client.answer().error_code == 0
        assert debugger.is_closed() if response == STOP else debugger.is_silent()

    def test_two_at_once_are_asked_about_one_after_the_other(self, bench: Bench) -> None:
        server, clients = bench.application(), [bench.application() for _ in range(2)]
        listener, port = server.listening(bench.daemon.address)
        debugger = bench.debug(listener, PENDING_CONNECTION)
        for client in clients:
            client.ask(pb.CONNECT, sockfd=client.socket(), addr=sockaddr_in(bench.daemon.address, port))
        first = debugger.expect(PENDING_CONNECTION)
        assert debugger.is_silent()
        debugger.answer_with(NONE)
        assert debugger.pass_on(PENDING_CONNECTION).new_sockfd != first.new_sockfd
        assert [client.answer().error_code for client in clients] == [0, 0]

    def test_its_number_is_no_applications_before_accept(self, bench: Bench) -> None:
        client, server = bench.application(), bench.application()
        listener, port = server.listening(bench.daemon.address)
        debugger = bench.debug(listener, PENDING_CONNECTION)
        client.ask(pb.CONNECT, sockfd=client.socket(), addr=sockaddr_in(bench.daemon.address, port))
        new = debugger.expect(PENDING_CONNECTION).new_sockfd
        assert server.call(pb.CLOSE, sockfd=new).error_code == errno.EBADF
        assert bench.state(new).tcp_state == State.CLOSED

    def test_the_client_goes_while_one_is_pending(self, bench: Bench) -> None:
        """Its RST comes in SYN_RCVD: back to LISTEN, and nobody needs the number any more."""
        client, server = bench.application(), bench.application()
        listener, port = server.listening(bench.daemon.address)
        debugger = bench.debug(listener, PENDING_CONNECTION | STATE_CHANGE)
        fd = client.socket()
        client.ask(pb.CONNECT, sockfd=fd, addr=sockaddr_in(bench.daemon.address, port))
        new = debugger.pass_on(PENDING_CONNECTION, ACCEPT_MONITOR).new_sockfd
        assert states(debugger, bench, 1) == ["LISTEN"]
        debugger.expect(STATE_CHANGE)
        client.close()
        with bench.application() as other:
            while other.call(pb.GET_SOCKET_STATE, sockfd=fd).error_code == 0:
                pass
        debugger.answer_with(NONE)
        states(debugger, bench, 1)
        debugger.close()
        assert new in [bench.application().socket() for _ in range(8)]

    def test_the_listener_goes_while_one_is_pending(self, bench: Bench) -> None:
        client, server = bench.application(), bench.application()
        listener, port = server.listening(bench.daemon.address)
        debugger = bench.debug(listener, PENDING_CONNECTION)
        client.ask(pb.CONNECT, sockfd=client.socket(), addr=sockaddr_in(bench.daemon.address, port))
        new = debugger.expect(PENDING_CONNECTION).new_sockfd
        server.good(pb.CLOSE, sockfd=listener)
        assert client.answer().error_code in (0, errno.ECONNREFUSED, errno.ECONNRESET)
        assert debugger.is_closed()
        assert new in [bench.application().socket() for _ in range(8)]


class TestHold:
    def test_the_end_of_the_debugger_lets_all_go_on(self, bench: Bench) -> None:
        """In place of an answer: NONE, and detach."""
        talk = bench.talk()
        debugger = bench.debug(talk.far, EVERYTHING)
        talk.client.send(talk.near, b"hello")
        debugger.expect(INCOMING_PACKET)
        debugger.close()
        assert talk.server.recv(talk.far) == b"hello"

    def test_it_stops_that_connection_only(self, bench: Bench) -> None:
        talk, other = bench.talk(), bench.talk()
        debugger = bench.debug(talk.far, EVERYTHING)
        talk.client.send(talk.near, b"hello")
        debugger.expect(INCOMING_PACKET)
        other.client.send(other.near, b"hello")
        assert other.server.recv(other.far) == b"hello"

    def test_an_application_may_die(self, bench: Bench) -> None:
        """Its connection is reset as soon as the debugger is done with it."""
        talk = bench.talk()
        debugger = bench.debug(talk.far, EVERYTHING)
        talk.client.send(talk.near, b"hello")
        debugger.expect(INCOMING_PACKET)
        talk.server.close()
        bench.application().socket()
        debugger.close()
        assert talk.client.call(pb.RECV, sockfd=talk.near, flags=0, len=1).error_code == errno.ECONNRESET

    def test_more_packets_than_may_wait(self) -> None:
        """What is beyond is dropped, and recorded; TCP repairs that."""
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        asked: list[Event] = []
        debugger = Debugger(INCOMING_PACKET, asked.append, lambda: None)
        with closing(asyncio.new_event_loop()) as loop:
            watch = Watch(bob.driver, his, debugger, loop)
            watch.flags = INCOMING_PACKET
            seg = Segment(hers.connection.snd_nxt, hers.connection.rcv_nxt, ACK, 1000)
            four = hers.four
            raw = wire.encode(seg, four.local_port, four.peer_port, wire.pseudo_header(four.local, four.peer))
            for _ in range(1 + 1000 + 3):
                bob.driver.segments_arrive(four.peer, four.local, [raw], lab.now)
            assert len(asked) == 1
            assert bob.notes.drops == ["debugger"] * 3
            watch.stop(lab.now)
        assert not his.held

    def test_the_daemon_ends_in_time(self, daemon: StartDaemon) -> None:
        running = daemon("--profile", "classic")
        with ExitStack() as stack:
            bench = Bench(running, stack)
            talk = bench.talk()
            debugger = bench.debug(talk.near, EVERYTHING)
            talk.client.ask(pb.CLOSE, sockfd=talk.near)
            debugger.expect(STATE_CHANGE)
            assert running.end() == 0
            assert debugger.is_closed()

    def test_a_segment_of_one_socket_waits_for_an_event_of_the_other(self, bench: Bench) -> None:
        """Both are of one debug connection: one event at a time, in the order in which they happened."""
        client, server = bench.application(), bench.application()
        listener, port = server.listening(bench.daemon.address)
        debugger = bench.debug(listener, PENDING_CONNECTION | INCOMING_PACKET)
        fds = []
        for _ in range(2):
            fd = client.socket()
            client.ask(pb.CONNECT, sockfd=fd, addr=sockaddr_in(bench.daemon.address, port))
            new = debugger.pass_on(PENDING_CONNECTION, ACCEPT_MONITOR).new_sockfd
            assert debugger.pass_on(INCOMING_PACKET).sockfd == new  # the ACK
            assert client.answer().error_code == 0
            fds.append((fd, new))
        (a, far_a), (b, far_b) = fds
        client.send(b, b"first")
        assert debugger.expect(INCOMING_PACKET).sockfd == far_b
        client.send(a, b"second")
        assert bench.state(far_a).tcp_state == State.ESTABLISHED
        assert debugger.is_silent()
        debugger.answer_with(NONE)
        assert debugger.pass_on(INCOMING_PACKET).sockfd == far_a


class TestLooking:
    @pytest.mark.parametrize("code", [pb.GET_SOCKET_STATE, pb.GET_SOCKET_BUFFER_CONTENTS])
    def test_connected_sockets_only(self, bench: Bench, code: pb.MsgCode) -> None:
        application = bench.application()
        fresh = application.socket()
        listener, _ = application.listening(bench.daemon.address)
        for fd in (fresh, listener, 999, -1):
            assert application.call(code, sockfd=fd).error_code == errno.EBADF

    def test_variables_agree_with_the_peers(self, bench: Bench) -> None:
        """All of them, also beyond 2^31: a uint32 travels as an int32."""
        talk = bench.talk()
        talk.client.send(talk.near, b"hello")
        assert talk.server.good(pb.RECV, sockfd=talk.far, flags=socket.MSG_PEEK, len=9).buf == b"hello"
        near, far = bench.state(talk.near), bench.state(talk.far)
        assert (near.iss, near.irs) == (far.irs, far.iss)
        assert near.snd_nxt == far.rcv_nxt
        assert (far.rcv_wnd, near.rcv_wnd, far.snd_wnd) == (4091, 4096, 4096)
        assert bench.buffers(talk.far).rcv == b"hello"

    def test_wait_for_a_state(self, bench: Bench) -> None:
        talk, waiting = bench.talk(), bench.application()
        waiting.good(pb.WAIT_FOR_STATE, sockfd=talk.far, tcp_state=State.ESTABLISHED)
        waiting.ask(pb.WAIT_FOR_STATE, sockfd=talk.far, tcp_state=State.CLOSE_WAIT)
        assert bench.state(talk.far).tcp_state == State.ESTABLISHED
        assert not is_answered(waiting)
        talk.client.good(pb.CLOSE, sockfd=talk.near)
        assert waiting.answer().error_code == 0

    def test_a_state_that_is_held_is_waited_for(self, bench: Bench) -> None:
        talk, waiting = bench.talk(), bench.application()
        debugger = bench.debug(talk.far, STATE_CHANGE)
        waiting.ask(pb.WAIT_FOR_STATE, sockfd=talk.far, tcp_state=State.CLOSE_WAIT)
        talk.client.ask(pb.CLOSE, sockfd=talk.near)
        debugger.expect(STATE_CHANGE)
        assert bench.state(talk.far).tcp_state == State.CLOSE_WAIT
        assert not is_answered(waiting)
        debugger.answer_with(NONE)
        assert waiting.answer().error_code == 0

    def test_a_state_that_lasts_no_time(self, bench: Bench) -> None:
        """LAST_ACK may be over before anybody looks; what can't come any more is not waited for."""
        talk, waiting, in_vain = bench.talk(), bench.application(), bench.application()
        waiting.ask(pb.WAIT_FOR_STATE, sockfd=talk.near, tcp_state=State.LAST_ACK)
        in_vain.ask(pb.WAIT_FOR_STATE, sockfd=talk.near, tcp_state=State.FIN_WAIT_1)
        bench.state(talk.near)
        talk.server.good(pb.SHUTDOWN, sockfd=talk.far, how=1)
        assert talk.client.recv(talk.near) == b""
        talk.client.good(pb.SHUTDOWN, sockfd=talk.near, how=1)
        assert waiting.answer().error_code == 0
        assert in_vain.answer().error_code == errno.EBADF

    def test_wait_for_what_there_is_not(self, bench: Bench) -> None:
        application = bench.application()
        listener, _ = application.listening(bench.daemon.address)
        fresh = application.socket()
        for fd in (listener, fresh):
            assert application.call(pb.WAIT_FOR_STATE, sockfd=fd, tcp_state=State.CLOSED).error_code == errno.EBADF
        for number in (11, -1):
            assert application.call(pb.WAIT_FOR_STATE, sockfd=fresh, tcp_state=number).error_code == errno.EINVAL
        assert application.call(pb.WAIT_FOR_STATE, sockfd=999, tcp_state=State.CLOSED).error_code == 0
        assert application.call(pb.WAIT_FOR_STATE, sockfd=999, tcp_state=4).error_code == errno.EBADF
        assert application.call(pb.WAIT_FOR_STATE, sockfd=-1, tcp_state=State.CLOSED).error_code == errno.EBADF

    def test_wait_for_the_end_after_close(self, bench: Bench) -> None:
        talk, waiting = bench.talk(), bench.application()
        talk.client.good(pb.CLOSE, sockfd=talk.near)
        waiting.ask(pb.WAIT_FOR_STATE, sockfd=talk.near, tcp_state=State.CLOSED)
        assert bench.state(talk.near).tcp_state == State.FIN_WAIT_2
        assert not is_answered(waiting)
        talk.server.good(pb.CLOSE, sockfd=talk.far)
        assert waiting.answer().error_code == 0
