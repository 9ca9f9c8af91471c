"""Transfers between the daemon and the reference, over links as bad as you like, in real time."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from threading import Thread

from chisocket.protocol import chitcpd_pb2 as pb
from chitcpd import loader
from chitcpd.sim import Shape
from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, SYN, Segment, State
from testbed.grading import script
from testbed.grading.network import _bytes
from testbed.grading.outside.calls import Application, address
from testbed.grading.outside.live import LiveBench
from testbed.grading.outside.wire import Gone
from testbed.grading.script import Bench, Event, Failed, check, settings

LONGEST = 40.0  # seconds for one transfer
_SLOW = 700, 0.02  # a slow reader takes so many bytes, and sleeps so many seconds

# test -> (bytes each way, link, slow readers)
TRANSFERS = {
    "whole-transfer": (100_000, Shape(delay=0.01), False),
    "lossy-transfer": (20_000, Shape(delay=0.02, loss=0.1), False),
    "corrupted-transfer": (10_000, Shape(delay=0.02, loss=0.05, corrupt=0.05, duplicate=0.1), False),
    "reordering-transfer": (20_000, Shape(delay=0.02, jitter=0.02, reorder=0.2, duplicate=0.1), False),
    "slow-reader": (30_000, Shape(delay=0.01), True),
}


def transfers(test: str) -> Callable[[Bench], None]:
    """The test of this name, as a daemon is asked it: as client, then as server."""
    length, shape, slow = TRANSFERS[test]

    def run(bench: Bench) -> None:
        assert isinstance(bench, LiveBench)
        for client in (True, False):
            _Transfer(bench, shape, client=client, length=length, slow=slow).run()

    return run


class _Transfer:
    """Bytes go from client to server, then as many back, and the server closes."""

    def __init__(self, bench: LiveBench, shape: Shape, *, client: bool, length: int, slow: bool) -> None:
        if bench.events:
            bench.events.append(Event(0.0, "begin"))
        bench.note(f"it is the {'client' if client else 'server'}")
        self._bench, self._shape, self._client, self._slow = bench, shape, client, slow
        self._wire = bench.place.wire
        self._data = _bytes(length)
        config = settings(rto_min=0.2, msl=0.1, congestion="newreno", initial_window=4, syn_retries=12)
        tcp = loader.load(loader.REFERENCE)
        self._peer = tcp(iss=bench.random.getrandbits(32), config=config)
        self._our_port, self._box = self._wire.port()
        self._their_port = next(bench.place.ports)
        self._under_way: list[tuple[float, int, bool, bytes]] = []  # (when it comes, number, to us, segment)
        self._numbers = itertools.count()
        self._iss = 0
        self._began = time.monotonic()
        self._got = bytearray()  # by the peer
        self._to_send = b"" if client else self._data
        self._answers = self._closed = False
        self._next_read = 0.0
        self._application = Application(bench.place.path)
        self._socket = -1

    def run(self) -> None:
        """Raises Failed if the bytes do not come whole."""
        if not self._client:
            self._listen()
        daemon: Future[bytes] = Future()
        Thread(target=self._daemon, args=(daemon,), daemon=True).start()
        try:
            self._peer.open(time.monotonic(), active=not self._client)
            while not self._is_over(daemon):
                self._step()
            got, name = daemon.result(), "there" if self._client else "back"
            self._compare(bytes(self._got), name)
            self._compare(got, "back" if self._client else "there")
        finally:
            self._application.close()
            self._wire.leave(self._our_port)

    def _is_over(self, daemon: Future[bytes]) -> bool:
        ended = daemon.done() and (len(self._got) >= len(self._data) or self._peer.error is not None)
        if daemon.done() and daemon.exception() is not None:
            return True
        taken = time.monotonic() - self._began
        check(taken < LONGEST, f"{2 * len(self._data)} bytes in {LONGEST:g} s", f"{len(self._got)} of the daemon's")
        return ended

    def _compare(self, got: bytes, way: str) -> None:
        pairs = enumerate(zip(got, self._data, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), min(len(got), len(self._data)))
        wanted = len(self._data)
        check(got == self._data, f"{wanted} bytes {way}, whole", f"{len(got)}, which are right up to the byte {at}")

    # ---- the daemon's side

    def _ask(self, code: pb.MsgCode, **args: object) -> pb.Resp:
        answer = self._application.ask(pb.ChitcpdMsg(code=code, **args), LONGEST)  # type: ignore[arg-type]
        if answer.error_code:
            name = pb.MsgCode.Name(code)
            raise Failed(f"expected {name} to be answered with error 0; got error {answer.error_code}")
        return answer

    def _listen(self) -> None:
        self._socket = self._ask(pb.SOCKET, socket_args=pb.SocketArgs(domain=2, type=1, protocol=0)).ret
        where = address(self._wire.theirs, self._their_port)
        self._ask(pb.BIND, bind_args=pb.BindArgs(sockfd=self._socket, addr=where))
        self._ask(pb.LISTEN, listen_args=pb.ListenArgs(sockfd=self._socket, backlog=5))

    def _daemon(self, result: Future[bytes]) -> None:
        try:
            if self._client:
                sockfd = self._ask(pb.SOCKET, socket_args=pb.SocketArgs(domain=2, type=1, protocol=0)).ret
                where = address(self._wire.ours, self._our_port)
                self._ask(pb.CONNECT, connect_args=pb.ConnectArgs(sockfd=sockfd, addr=where))
                self._send_all(sockfd)
                received = self._receive(sockfd, None)
            else:
                sockfd = self._ask(pb.ACCEPT, accept_args=pb.AcceptArgs(sockfd=self._socket)).ret
                received = self._receive(sockfd, len(self._data))
                self._send_all(sockfd)
            self._ask(pb.CLOSE, close_args=pb.CloseArgs(sockfd=sockfd))
            result.set_result(received)
        except (Failed, Gone, OSError) as error:
            result.set_exception(error)

    def _send_all(self, sockfd: int) -> None:
        answer = self._application.send(sockfd, self._data)
        check(not answer.error_code, "SEND to be answered with error 0", f"error {answer.error_code}")

    def _receive(self, sockfd: int, length: int | None) -> bytes:
        """So many bytes, or all up to the end of the stream; no more than a little too much."""
        received = bytearray()
        most = len(self._data) + 1000
        while len(received) < (most if length is None else length):
            limit = _SLOW[0] if self._slow else 1 << 16
            piece = self._ask(pb.RECV, recv_args=pb.RecvArgs(sockfd=sockfd, flags=0, len=limit)).buf
            if not piece:
                break
            received += piece
            if self._slow:
                time.sleep(_SLOW[1])
        return bytes(received)

    # ---- the peer's side, and the link

    def _step(self) -> None:
        now = time.monotonic()
        for at, port, seg in self._box.empty():
            self._hears(at, port, seg)
        while self._under_way and self._under_way[0][0] <= now:
            _, _, to_us, raw = heapq.heappop(self._under_way)
            if to_us:
                self._peer.segment_arrives(wire.parse(raw)[2], now)
            else:
                self._note_received(now, raw)
                self._wire.send_raw(raw)
        if (deadline := self._peer.next_deadline()) is not None and deadline <= now:
            self._peer.expire(now)
        self._use(now)
        for output in self._peer.take_output():
            if isinstance(output, Segment):
                self._carry(False, self._wire.encoded(output, self._our_port, self._their_port))
        with self._box.come:
            self._box.come.wait(0.005)

    def _hears(self, at: float, port: int, seg: Segment) -> None:
        if seg.flags & SYN:
            self._iss, self._their_port = seg.seq, port
        self._note("sent", at, seg, self._iss, self._peer.iss)
        self._carry(True, wire.encode(seg, port, self._our_port, 0))

    def _note_received(self, now: float, raw: bytes) -> None:
        try:
            _, _, seg = self._wire.decoded(raw)
        except wire.MalformedSegment:
            self._bench.note("a segment comes damaged", now - self._began)
        else:
            self._note("received", now, seg, self._peer.iss, self._iss)

    def _note(self, kind: str, at: float, seg: Segment, ours: int, theirs: int) -> None:
        ack = (seg.ack - theirs) & 0xFFFFFFFF if seg.flags & ACK else 0
        relative = replace(seg, seq=script.signed(seg.seq - ours), ack=ack)
        self._bench.events.append(Event(at - self._began, kind, segment=relative))

    def _carry(self, to_us: bool, raw: bytes) -> None:
        random, shape = self._bench.random, self._shape
        if random.random() < shape.loss or (to_us and random.random() < shape.corrupt):
            if to_us:
                self._bench.events.append(Event(time.monotonic() - self._began, "lost", "loss"))
            return
        if not to_us and random.random() < shape.corrupt:
            at = random.randrange(18, len(raw))
            raw = raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :]
        for _ in range(1 + (random.random() < shape.duplicate)):
            late = shape.delay * 2 if random.random() < shape.reorder else random.random() * shape.jitter
            when = time.monotonic() + shape.delay + late
            heapq.heappush(self._under_way, (when, next(self._numbers), to_us, raw))

    def _use(self, now: float) -> None:
        """The peer's application: as server it answers when it has all, and closes; as client it closes after that."""
        peer = self._peer
        if peer.readable and now >= self._next_read:
            self._got += peer.receive(_SLOW[0] if self._slow else 1 << 16, now)
            self._next_read = now + _SLOW[1] if self._slow else 0.0
        if self._closed or peer.state not in (State.ESTABLISHED, State.CLOSE_WAIT):
            return
        if self._client and not self._answers and len(self._got) >= len(self._data):
            self._answers, self._to_send = True, self._data
        if self._to_send:
            self._to_send = self._to_send[peer.send(self._to_send, now) :]
        elif self._answers or peer.at_eof:
            self._closed = True
            peer.close(now)
