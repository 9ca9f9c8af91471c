"""The language of packet scripts, spoken to a daemon that runs: real time, segments over the wire, calls to its socket.

What a script in virtual time knows at once shows here only after a while. So whatever is looked at (`sent`, `state`,
what was received) is looked at when the daemon has seen what it was sent: it has answered a ping on the same real
connection, and has been quiet for a moment since. What is expected may come later; what must not come is waited for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field, replace
from typing import cast

from chisocket.protocol import chitcpd_pb2 as pb
from chitcpd.tcp.api import ACK, RST, SYN, Config, Options, Segment, State, TcpConnection
from testbed.grading import script
from testbed.grading.outside.calls import Application, address
from testbed.grading.outside.wire import Wire
from testbed.grading.script import OFFERS, Bench, Event, Failed, Script, check, settings, state_name, told

QUIET, QUIET_WITHOUT_PINGS = 0.03, 0.2  # seconds in which nothing came: then all has come that comes at once
GRACE = 0.25  # seconds, beyond that, that what is asked for at once may take
SLACK = 0.15  # seconds, beyond the time that a script gives
ROUND_TRIP = 0.3  # seconds, of the handshake: so that the first time-out is about a second
_STATE_WITHIN, _OPEN_WITHIN, _MOST_QUIET = 1.5, 5.0, 5.0  # seconds
_BLOCKED, _BLOCKS_AFTER = 0.3, 0.15  # seconds without an answer: SEND blocks, RECV blocks
_DEFAULT_MSS = 536


@dataclass(slots=True)
class Place:
    """Where the daemon is."""

    wire: Wire
    path: str  # of its UNIX socket
    ports: itertools.count[int] = field(default_factory=lambda: itertools.count(10_000))  # of its listeners


@dataclass(slots=True)
class LiveBench(Bench):
    """What a test works on. To be closed at its end."""

    place: Place = field(kw_only=True)
    _scripts: list[LiveScript] = field(default_factory=list, init=False)

    def connection(
        self,
        state: State = State.ESTABLISHED,
        config: Config | None = None,
        *,
        offers: Options | None = OFFERS,
        iss: int | None = None,
        irs: int | None = None,
    ) -> Script:
        """A connection that has come to `state` on an ordinary way. It chooses its ISS and its settings itself."""
        del iss
        if self.events:
            self.events.append(Event(0.0, "begin"))
        real_irs = self.random.getrandbits(32) if irs is None else irs
        live = LiveScript(self, config or settings(), offers, self.random.getrandbits(32), real_irs)
        self._scripts.append(live)
        script.ROUTES[state](live)
        live.begin(state)
        return live

    def close(self) -> None:
        """Let go of all connections."""
        for live in self._scripts:
            live.end()


class LiveScript(Script):
    """A connection of a daemon's."""

    def __init__(self, bench: LiveBench, config: Config, offers: Options | None, iss: int, irs: int) -> None:
        self.place = bench.place
        self._sent: list[Segment] = []
        self._earlier: set[tuple[int, int]] = set()  # seq and length of what was sent, and taken
        self._dirty = False  # something has happened since the daemon was waited for
        super().__init__(bench, cast(TcpConnection, _Seen(self)), config, offers, iss, irs)
        self._began = self._ready = time.monotonic()
        self._on_its_way = True  # to the state that it was asked for in
        self.application = Application(self.place.path)
        self.our_port, self._box = self.place.wire.port()
        self.their_port = next(self.place.ports)
        self.mss = _DEFAULT_MSS  # of theirs
        self.opening: Future[pb.Resp] | None = None  # CONNECT, or ACCEPT
        self._listener: int | None = None
        self._socket: int | None = None
        self._closing: Future[pb.Resp] | None = None
        self._receiving: Future[pb.Resp] | None = None
        self._ahead = b""  # was received, and not asked for yet

    def begin(self, state: State) -> None:
        """It has come to this state: what it sent there is forgotten."""
        self.is_in(state)
        self.take()
        self._on_its_way = False
        self._ready = time.monotonic()
        self.now = 0.0

    def end(self) -> None:
        """Let it go."""
        self.application.close()
        self.place.wire.leave(self.our_port)

    # ---- the events

    def open(self, *, active: bool, at: float | None = None) -> None:
        """CONNECT, or LISTEN and ACCEPT."""
        self._happens("call", f"open ({'active' if active else 'passive'})", at)
        if active and self._socket is not None:
            answer = _answer(self._connect(self._socket), _OPEN_WITHIN)
            if answer is None:
                raise Failed(f"expected CONNECT to be answered; it was not for {_OPEN_WITHIN:g} s")
            _raise(answer)
            return
        made = _good(self._ask(pb.SOCKET, socket_args=pb.SocketArgs(domain=2, type=1, protocol=0)), "SOCKET")
        if active:
            self._socket = made.ret
            self.opening = self._connect(made.ret)
            self._wait_for(lambda seg: seg.flags & SYN != 0, _OPEN_WITHIN)
            return
        self._listener = made.ret
        bind = pb.BindArgs(sockfd=made.ret, addr=address(self.place.wire.theirs, self.their_port))
        _good(self._ask(pb.BIND, bind_args=bind), "BIND")
        _good(self._ask(pb.LISTEN, listen_args=pb.ListenArgs(sockfd=made.ret, backlog=5)), "LISTEN")
        accept = pb.ChitcpdMsg(code=pb.ACCEPT, accept_args=pb.AcceptArgs(sockfd=made.ret))
        self.opening = self.application.begin(accept)

    def arrives(self, *segments: Segment, at: float | None = None) -> None:
        """Segments come, cut to what the daemon takes."""
        if self._on_its_way and any(seg.flags & SYN for seg in segments):
            self.waits(self.now + ROUND_TRIP)
        self._until(at)
        self._collect()
        self._tick()
        for whole in segments:
            for seg in _cut(whole, self.mss):
                self._note(Event(self._real(), "received", segment=seg))
                ack = (seg.ack + self._iss) & 0xFFFFFFFF if seg.flags & ACK else 0
                real = replace(seg, seq=(seg.seq + self._irs) & 0xFFFFFFFF, ack=ack)
                self.place.wire.send(real, self.our_port, self.their_port)
        self._dirty = True

    def send(self, data: bytes, *, at: float | None = None) -> int:
        """SEND, as often as it takes; what can't go yet waits. Raises OSError."""
        self._happens("call", f"send ({len(data)} bytes)", at)
        sockfd = self._sockfd()
        sending = self.application.in_turn(lambda: self.application.send(sockfd, data))
        if sending_done := _answer(sending, _BLOCKED):
            _raise(sending_done)
        self._dirty = True
        return len(data)

    def receive(self, limit: int = 1 << 16, *, at: float | None = None) -> bytes:
        """RECV of what there is; nothing if it blocks, or at the end of the stream. Raises OSError."""
        self._until(at)
        data = b"" if self._closing is not None else self._receive(limit)
        self._happens("call", f"receive: {len(data)} bytes", None)
        return data

    def close(self, *, at: float | None = None) -> None:
        """CLOSE, when all that was to be sent before is sent."""
        self._happens("call", "close", at)
        sockfd = self._listener if self._listener is not None and not self._is_accepted() else self._sockfd()
        args = pb.CloseArgs(sockfd=sockfd)
        self._closing = self.application.in_turn(lambda: self._ask(pb.CLOSE, _within=90.0, close_args=args))
        _answer(self._closing, 0.02)
        self._dirty = True

    def waits(self, until: float) -> None:
        """Time passes."""
        while (left := self._ready + until - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
        self.now = max(self.now, until)

    # ---- what must go out

    @property
    def sent(self) -> list[Segment]:
        """What went out, when the daemon has seen what came to it."""
        self._settle()
        self._collect()
        return self._sent

    @sent.setter
    def sent(self, sent: list[Segment]) -> None:
        self._earlier.update((seg.seq, len(seg)) for seg in self._sent)
        self._sent = sent

    def sends(self, flags: int, seq: int, ack: int | None, data: bytes = b"", *, within: float = 0.0) -> Segment:
        """As in virtual time, but what was sent before may come again."""
        wanted = Segment(seq, ack or 0, flags | (0 if ack is None else ACK), data=data)
        self._wait_for(lambda seg: script.same(seg, wanted), within)
        earlier = set(self._earlier)
        sent = self.take()
        found = [seg for seg in sent if script.same(seg, wanted)]
        others = [
            seg
            for seg in sent
            if not script.same(seg, wanted) and (len(seg) or seg.flags & RST) and (seg.seq, len(seg)) not in earlier
        ]
        check(bool(found) and not others, told([wanted]), told(sent))
        return found[0]

    def resets(self, seq: int | None = None) -> None:
        """A reset goes out, and nothing else."""
        self._wait_for(lambda seg: seg.flags & RST != 0, 0.0)
        super().resets(seq)

    def resent(self, seq: int, *, within: float = 70.0) -> float:
        """The seconds until something that covers `seq` is sent; `now` is the moment when it came."""
        began = self.now
        self._wait_for(lambda seg: script.covers(seg, seq), within)
        found = next((at for at, seg in enumerate(self._sent) if script.covers(seg, seq)), None)
        if found is None:
            raise Failed(f"expected seq {seq} to be sent again within {within:g} s; got {told(self.take())}")
        self.now = max(began, self.times[found])
        self._sent, self.times = self._sent[found + 1 :], self.times[found + 1 :]
        return self.now - began

    # ---- the variables

    @property
    def state(self) -> State:
        """As GET_SOCKET_STATE says; before ACCEPT has answered, as what was sent shows."""
        self._settle()
        if self._socket is None and self._listener is not None and not self._is_accepted():
            self._collect()
            return self._half_open()
        return State.CLOSED if self._socket is None and self._listener is None else self.variables()[0]

    def is_in(self, *states: State) -> None:
        """It is in one of these states, or comes there at once."""
        if self._closing is not None:
            self._is_closing_in(states, self._closing)
            return
        end = time.monotonic() + (_OPEN_WITHIN if self._on_its_way else _STATE_WITHIN)
        while (found := self.state) not in states and time.monotonic() < end:
            time.sleep(0.02)
        expected = " or ".join(map(state_name, states))
        check(found in states, f"the state {expected}", state_name(found))

    def passed(self, *states: State) -> None:
        """It has come to the last of these; those between may be over before anybody can ask."""
        self.is_in(states[-1])

    def failed_with(self, error: int, name: str) -> None:
        """It is closed, and a call tells the application an error: which one, chitcpds don't agree on."""
        self.is_in(State.CLOSED)
        answer = _answer(self.opening, _STATE_WITHIN) if self.opening is not None else None
        if answer is None or not answer.error_code:
            answer = self._recv(1, _STATE_WITHIN)
        check(
            answer is not None and bool(answer.error_code),
            f"an error to be told to the application, like {name}",
            "none",
        )

    def hands_out(self, data: bytes, what: str = "") -> None:
        """The application gets this, and no more."""
        got, end = self.receive(), time.monotonic() + _STATE_WITHIN
        while len(got) < len(data) and time.monotonic() < end:
            time.sleep(0.02)
            got += self.receive()
        if got != data:
            same = (i for i, (a, b) in enumerate(zip(got, data, strict=False)) if a != b)
            at = next(same, min(len(got), len(data)))
            expected = what or f"{len(data)} bytes to be handed out"
            check(False, expected, f"{len(got)} bytes, which are right up to the byte {at}")

    def _is_closing_in(self, states: tuple[State, ...], closing: Future[pb.Resp]) -> None:
        """After CLOSE the descriptor may be another socket's. But when CLOSE is answered, and RSTs, tell the state."""
        expected = " or ".join(map(state_name, states))
        self._settle()
        if State.FIN_WAIT_1 in states:
            check(not closing.done(), f"the state {expected}: CLOSE not to be answered", "an answer to it")
        elif State.CLOSED not in states:
            answer = _answer(closing, _STATE_WITHIN)
            check(answer is not None, f"the state {expected}: CLOSE to be answered", "no answer to it")
        elif self.place.wire.pings:
            before = len(self.sent)
            self.arrives(Segment(2, 2, ACK))
            self._wait_for(lambda seg: seg.flags & RST != 0, 0.0, seen=before)
            rest = self._sent[before:]
            self._sent, self.times = self._sent[:before], self.times[:before]
            check(
                any(seg.flags & RST for seg in rest), "the state CLOSED: a RST to answer what still comes", told(rest)
            )

    def variables(self) -> tuple[State, pb.SocketState]:
        """GET_SOCKET_STATE. A descriptor that is no longer known is that of a closed connection."""
        self._settle()
        if self._closing is not None:
            return State.CLOSED, pb.SocketState()
        args = pb.GetSocketStateArgs(sockfd=self._sockfd())
        answer = self._ask(pb.GET_SOCKET_STATE, get_socket_state_args=args)
        if answer.error_code:
            return State.CLOSED, pb.SocketState()
        check(answer.HasField("socket_state"), "socket_state in the answer to GET_SOCKET_STATE", "none")
        number = answer.socket_state.tcp_state
        check(number in list(map(int, State)), "a state in the answer to GET_SOCKET_STATE", number)
        return State(number), answer.socket_state

    def at_eof(self) -> bool:
        """RECV answers 0 bytes. After CLOSE nobody can ask any more."""
        if self._closing is not None:
            return True
        if self._ahead:
            return False
        answer = self._recv(1 << 16)
        if answer is None or answer.error_code:
            return False
        self._ahead = answer.buf
        return not self._ahead

    # ---- inside

    def _sockfd(self) -> int:
        if self._socket is None and self.opening is not None and self._listener is not None:
            try:
                self._socket = _good(self.opening.result(_OPEN_WITHIN), "ACCEPT").ret
            except NotYet as error:
                raise Failed(f"expected ACCEPT to be answered; it was not for {_OPEN_WITHIN:g} s") from error
        if self._socket is None:
            made = self._ask(pb.SOCKET, socket_args=pb.SocketArgs(domain=2, type=1, protocol=0))
            self._socket = _good(made, "SOCKET").ret
        return self._socket

    def _is_accepted(self) -> bool:
        return self.opening is not None and self.opening.done()

    def _half_open(self) -> State:
        for event in reversed(self._bench.events):
            if event.kind == "begin":
                break
            if (seg := event.segment) is not None and event.kind == "sent" and seg.flags & SYN:
                return State.SYN_RCVD
            if seg is not None and event.kind == "received" and seg.flags & RST:
                break
        return State.LISTEN

    def _ask(self, code: pb.MsgCode, *, _within: float = 10.0, **args: object) -> pb.Resp:
        return self.application.ask(pb.ChitcpdMsg(code=code, **args), _within)  # type: ignore[arg-type]

    def _connect(self, sockfd: int) -> Future[pb.Resp]:
        args = pb.ConnectArgs(sockfd=sockfd, addr=address(self.place.wire.ours, self.our_port))
        return self.application.begin(pb.ChitcpdMsg(code=pb.CONNECT, connect_args=args))

    def _receive(self, limit: int) -> bytes:
        if not self._ahead and (answer := self._recv(limit)) is not None:
            _raise(answer)
            self._ahead = answer.buf
        data, self._ahead = self._ahead[:limit], self._ahead[limit:]
        return data

    def _recv(self, limit: int, within: float = _BLOCKS_AFTER) -> pb.Resp | None:
        """What RECV is answered; None if it blocks: then its answer is that to the next one."""
        self._settle()
        if self._receiving is None:
            args = pb.RecvArgs(sockfd=self._sockfd(), flags=0, len=limit)
            self._receiving = self.application.begin(pb.ChitcpdMsg(code=pb.RECV, recv_args=args))
        if (answer := _answer(self._receiving, within)) is not None:
            self._receiving, self._dirty = None, True
        return answer

    def _real(self) -> float:
        return time.monotonic() - self._began

    def _tick(self) -> None:
        self.now = max(self.now, time.monotonic() - self._ready)

    def _happens(self, kind: str, text: str, at: float | None) -> None:
        self._until(at)
        self._collect()
        self._tick()
        self._note(Event(self._real(), kind, text))

    def _note(self, event: Event) -> None:
        self._bench.events.append(event)

    def _wait_for(self, wanted: Callable[[Segment], bool], within: float, seen: int = 0) -> None:
        if not within:
            self._settle()
        self._dirty = False
        end = time.monotonic() + (within + SLACK if within else GRACE)
        while True:
            self._collect()
            if any(map(wanted, self._sent[seen:])) or (left := end - time.monotonic()) <= 0:
                break
            seen = len(self._sent)
            with self._box.come:
                self._box.come.wait(min(left, 0.02))
        self._tick()

    def _settle(self) -> None:
        """Wait until the daemon has seen what came to it, and answered what it answers at once."""
        if not self._dirty:
            return
        self._dirty = False
        wire = self.place.wire
        quiet = QUIET if wire.pings and wire.ping(next(self.place.ports)) else QUIET_WITHOUT_PINGS
        end = time.monotonic() + _MOST_QUIET
        while time.monotonic() < end:
            before = len(self._sent)
            time.sleep(quiet)
            self._collect()
            if len(self._sent) == before:
                return

    def _collect(self) -> None:
        for at, port, seg in self._box.empty():
            if seg.flags & SYN:
                self._iss, self.their_port = seg.seq, port
                self.mss = _DEFAULT_MSS if seg.options is None or not seg.options.mss else seg.options.mss
            elif port != self.their_port:
                continue
            ack = script.signed(seg.ack - self._irs) if seg.flags & ACK else 0
            seg = replace(seg, seq=self._relative(seg), ack=ack)
            self._note(Event(at - self._began, "sent", segment=seg))
            self._sent.append(seg)
            self.times.append(at - self._ready)
        if self._box.flooded:
            raise Failed("expected segments that a peer can look at; got 20,000, or 64 MiB, before it could")


class _Seen:
    """What a test asks a TCP's object for, as the daemon's calls show it."""

    error = None

    def __init__(self, live: LiveScript) -> None:
        self._live = live

    @property
    def state(self) -> State:
        return self._live.state

    @property
    def at_eof(self) -> bool:
        return self._live.at_eof()

    def __getattr__(self, name: str) -> int:
        """SND.UNA and the others."""
        return int(getattr(self._live.variables()[1], name)) & 0xFFFFFFFF


def _cut(seg: Segment, mss: int) -> list[Segment]:
    """Into pieces that the daemon takes: what comes with the last byte comes with the last piece."""
    if len(seg.data) <= mss or seg.flags & SYN:
        return [seg]
    pieces = [
        replace(seg, seq=(seg.seq + at) & 0xFFFFFFFF, data=seg.data[at : at + mss], flags=seg.flags & ACK)
        for at in range(0, len(seg.data), mss)
    ]
    pieces[-1].flags = seg.flags
    return pieces


def _answer(future: Future[pb.Resp], within: float) -> pb.Resp | None:
    """What a call was answered, if it was by then."""
    try:
        return future.result(within)
    except NotYet:
        return None


def _raise(answer: pb.Resp) -> None:
    if answer.error_code:
        raise OSError(answer.error_code, "a call was refused")


def _good(answer: pb.Resp, name: str) -> pb.Resp:
    check(not answer.error_code, f"{name} to be answered with error 0", f"error {answer.error_code}")
    return answer
