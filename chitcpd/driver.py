"""Drives the TCP connections of one host: events in, segments out, one deadline for all of them.

No I/O and no clock here: the daemon gives it real time and a real network, the simulator others. After each call
whose effects may need a later wake-up, `wake` is told the earliest deadline.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import math
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar, TypeVarTuple

from chitcpd.demux import ANY, ANY_IPV4, ANY_IPV6, Demux, FourTuple, Listener
from chitcpd.tcp import bursts, wire
from chitcpd.tcp.api import ACK, RST, SYN, Config, Expiry, Output, Segment, State, TcpConnection, Transition

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")
# Looked up for every segment, and slowly by way of the class before Python 3.12.
_SYN_RCVD, _ESTABLISHED, _TIME_WAIT = State.SYN_RCVD, State.ESTABLISHED, State.TIME_WAIT
_NOT_KEPT = frozenset({State.CLOSED, State.LISTEN})  # no connection yet, or no more
_SYN_ACK_RST = SYN | ACK | RST
_MOSTLY_CLOSED = 8  # times as many deadlines as connections
_HEADERS = {4: 40, 6: 60}  # bytes of an IP and a TCP header without options, between MTU and MSS


class Network(Protocol):
    """Where segments go."""

    def send(self, local: str, peer: str, raws: Sequence[bytes]) -> None:
        """Carry segments, in this order; each may be lost, but this never raises."""

    def source(self, peer: str) -> str:
        """Our address towards `peer`. Raises OSError if there is no way."""

    def mtu(self, peer: str) -> int | None:
        """The largest packet that the link towards `peer` takes, in bytes, if it is known."""

    def may_join(self, peer: str) -> bool:
        """Whether segments from `peer` may be joined: it gets fewer ACKs then, and may count them."""


class Recorder(Protocol):
    """Who is told what happens: log, trace, capture."""

    def seen(self, event: str, endpoint: Endpoint | None, four: FourTuple, seg: Segment, raws: Sequence[bytes]) -> None:
        """Segments were `sent` or `received`: all that `seg` stands for, and the bytes of each.

        `four` is as we see it, `endpoint` None if they are for nobody.
        """

    def transition(self, endpoint: Endpoint, transition: Transition) -> None:
        """A connection has changed its state."""

    def expiry(self, endpoint: Endpoint, expiry: Expiry) -> None:
        """A timer of a connection has expired."""

    def dropped(self, why: str, local: str, peer: str, raw: bytes) -> None:
        """A segment that has come went no further."""

    def lost(self, why: str, local: str, peer: str, raw: bytes) -> None:
        """A segment of ours went no further; the network says so."""

    def settled(self, endpoint: Endpoint) -> None:
        """An event of a connection, and all that it led to, was told."""


class Watch(Protocol):
    """A debugger's hand on one connection (chitcpd/debug.py)."""

    @property
    def held(self) -> bool:
        """Something that has happened waits for the debugger's answer; until then nothing else may happen."""

    def happened(self, outputs: list[Output], now: float) -> None:
        """The TCP has given these: carry them out, each as soon as the debugger has let it pass."""

    def segment_arrives(self, seg: Segment, raw: bytes, now: float) -> None:
        """A segment has come: deliver it, as soon as the debugger lets it pass."""

    def put(self, event: Callable[[float], None], now: float) -> None:
        """Let `event` happen, after all that waits; it is called with the time."""

    def put_first(self, event: Callable[[float], None]) -> None:
        """The same for a connection that is held, before all that waits."""


class Levels(NamedTuple):
    """How much an application could read and write now, and whether it has read all."""

    readable: int
    writable: int
    at_eof: bool


_NOTHING = Levels(0, 0, False)


@dataclass(slots=True)
class Counters:
    """What has happened on one connection so far: segments, bytes of data, seconds of the driver's clock."""

    segs_out: int = 0
    segs_in: int = 0
    data_segs_out: int = 0
    data_segs_in: int = 0
    bytes_sent: int = 0  # retransmitted ones too
    bytes_received: int = 0  # likewise
    retransmissions: int = 0  # segments
    last_sent: float = 0.0  # when data was last sent
    last_received: float = 0.0
    snd_max: int | None = None  # the sequence number behind the last one that was sent

    def sent(self, seg: Segment, count: int, now: float) -> None:
        """A segment goes out, or `count` of them as a burst."""
        self.segs_out += count
        length = len(seg)
        end = (seg.seq + length) & 0xFFFFFFFF
        if self.snd_max is None or 0 < (end - self.snd_max) & 0xFFFFFFFF < 1 << 31:
            self.snd_max = end
        elif length:
            self.retransmissions += count
        if seg.data:
            self.data_segs_out += count
            self.bytes_sent += len(seg.data)
            self.last_sent = now

    def received(self, seg: Segment, count: int, now: float) -> None:
        """A segment has come, or `count` of them joined to a burst."""
        self.segs_in += count
        if seg.data:
            self.data_segs_in += count
            self.bytes_received += len(seg.data)
            self.last_received = now


@dataclass(slots=True, eq=False)
class Endpoint:
    """A connection in the driver's care."""

    number: int
    four: FourTuple
    connection: TcpConnection
    changed: Callable[[], None]  # called after whatever may have changed readable, writable, state or error
    listener: Listener | None = None  # until it is established
    established: bool = False  # it is or has been
    error: int | None = None  # what the driver knows of a failure beyond what the connection knows
    orphan: bool = False  # no application will read from it any more
    checksums: bool = False  # the peer computes them: one of zero is no longer one that was left out
    watch: Watch | None = None
    states: list[State] = field(default_factory=list)  # all that it has passed through, for who waits for one
    wake_ups: list[float] = field(default_factory=list)  # the times at which it stands in the heap, the earliest last
    counters: Counters = field(default_factory=Counters)

    @property
    def held(self) -> bool:
        """A debugger holds it: what its TCP tells of itself has not happened yet, for the application."""
        return self.watch is not None and self.watch.held

    @property
    def over(self) -> bool:
        """It is closed, or in LISTEN again after a reset, and nothing more will happen to it."""
        return self.connection.state in _NOT_KEPT and not self.held


class Driver:
    """All connections and listeners of one host."""

    def __init__(
        self,
        *,
        tcp: type[TcpConnection],
        config: Config,
        network: Network,
        recorder: Recorder,
        seed: bytes,
        wake: Callable[[float], None],
    ) -> None:
        self._tcp = tcp
        self._takes_bursts = vars(tcp).get("takes_bursts", False)  # its own word: what inherits sees each segment
        self.config = config
        self._network = network
        self._recorder = recorder
        self._wake = wake
        self._numbers = itertools.count(1)
        self._heap: list[tuple[float, int, Endpoint]] = []
        self._ties = itertools.count()
        self.demux = Demux(seed)
        # For the watchdog. Whatever a TCP raises while it is called is caught.
        self.calls = 0  # of TCPs, so far
        self.calling = False  # the last of them goes on

    # ---- the application's side ----------------------------------------------------------------------------

    def listen(
        self, local: str, port: int, backlog: int, changed: Callable[[], None], config: Config | None = None
    ) -> Listener:
        """Take connections to (local, port); `local` may be demux.ANY or its like. Raises OSError(EADDRINUSE)."""
        self.demux.check_bind(local, port)
        listener = Listener(local, port, max(backlog, 1), config or self.config, changed)
        self.demux.listeners[local, port] = listener
        return listener

    def unlisten(self, listener: Listener, now: float) -> None:
        """Take no more connections, and reset those that nobody has accepted."""
        del self.demux.listeners[listener.local, listener.port]
        waiting = [e for e in self.demux.connections.values() if e.listener is listener]
        for endpoint in [*waiting, *listener.ready]:
            self.abort(endpoint, now)

    def connect(
        self,
        local: tuple[str, int],
        peer: tuple[str, int],
        changed: Callable[[], None],
        now: float,
        config: Config | None = None,
        made: Callable[[Endpoint], None] | None = None,
    ) -> Endpoint:
        """Open a connection from `local` (address ANY or its like, or port 0: we choose) to `peer`.

        `made` is called with it before it is opened.
        Raises OSError: EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH.
        """
        if peer[0] in (ANY_IPV4, ANY_IPV6):  # no host's address: this host, says every stack
            peer = (self._network.source(peer[0]), peer[1])
        address = self._network.source(peer[0]) if local[0] in (ANY, ANY_IPV4, ANY_IPV6) else local[0]
        four = FourTuple(address, local[1] or self.demux.ephemeral_port(address), *peer)
        if four in self.demux.connections:
            raise OSError(errno.EADDRINUSE, f"there is a connection from port {four.local_port} already")
        endpoint = self._new(four, config or self.config, changed, now)
        self.demux.add(endpoint)
        if made is not None:
            made(endpoint)
        self._ask(endpoint, now, partial(endpoint.connection.open, active=True), now)
        return endpoint

    def send(self, endpoint: Endpoint, data: bytes | memoryview, now: float) -> int:
        """Give the connection bytes to send; how many it took: none while it is held. Raises OSError."""
        if endpoint.held:
            return 0
        return self._ask(endpoint, now, _send, endpoint.connection, data, now)

    def receive(self, endpoint: Endpoint, limit: int, now: float) -> bytes:
        """Take what the connection has received: nothing while it is held. Raises OSError."""
        if endpoint.held:
            return b""
        return self._ask(endpoint, now, _receive, endpoint.connection, limit, now)

    def levels(self, endpoint: Endpoint) -> Levels:
        """What of the application to wake; one that is held, or fails at this and so is CLOSED, has nothing."""
        if endpoint.held:
            return _NOTHING
        connection = endpoint.connection
        self._begin_call()
        try:
            readable, writable = connection.readable, connection.writable
            if not isinstance(readable, int) or not isinstance(writable, int):
                raise TypeError(f"readable is {readable!r:.100} and writable {writable!r:.100}, expected two int")
            return Levels(readable, writable, connection.at_eof)
        except Exception:
            now = endpoint.counters.last_received
            self._fault(endpoint, now)
            self._settle(endpoint, now)
            return _NOTHING
        finally:
            self.calling = False

    def reconfigure(self, endpoint: Endpoint, config: Config, now: float) -> None:
        """Other settings from now on. Raises OSError."""
        self._ask(endpoint, now, endpoint.connection.reconfigure, config, now)

    def close(self, endpoint: Endpoint, now: float) -> None:
        """No more sending. Of a connection that is held, the first that happens afterwards."""
        if endpoint.watch is not None and endpoint.watch.held:
            endpoint.watch.put_first(partial(self._close_later, endpoint))
            return
        self._ask(endpoint, now, endpoint.connection.close, now)

    def _close_later(self, endpoint: Endpoint, now: float) -> None:
        with suppress(OSError):  # it has failed since
            self.close(endpoint, now)

    def release(self, endpoint: Endpoint, now: float) -> None:
        """The application is done with it: close.

        The peer is reset if something is unread (RFC 9293 §3.6.1, SHLD-3), or if it sends later.
        """
        if endpoint.watch is not None and endpoint.watch.held:
            endpoint.watch.put_first(partial(self._release_later, endpoint))
            return
        endpoint.orphan = True
        if self.levels(endpoint).readable:
            self.abort(endpoint, now)
        else:
            self.close(endpoint, now)

    def _release_later(self, endpoint: Endpoint, now: float) -> None:
        with suppress(OSError):
            self.release(endpoint, now)

    def abort(self, endpoint: Endpoint, now: float, error: int | None = None) -> None:
        """Reset the connection; the application sees `error`. Never raises."""
        endpoint.error = endpoint.error or error
        if endpoint.watch is not None and endpoint.watch.held:
            endpoint.watch.put_first(partial(self.abort, endpoint))
            return
        self._tell(endpoint, now, endpoint.connection.abort, now)

    # ---- the network's side --------------------------------------------------------------------------------

    def segments_arrive(self, local: str, peer: str, raws: Sequence[bytes], now: float) -> None:
        """Segments for our address `local` have come from `peer`, in this order. Never raises."""
        pseudo, at = wire.pseudo_header(local, peer), 0
        while at < len(raws):
            at += self._arrive(local, peer, pseudo, raws, at, now)

    def _arrive(self, local: str, peer: str, pseudo: int, raws: Sequence[bytes], at: int, now: float) -> int:
        """raws[at] has come, and perhaps those behind it are one burst with it; how many were heeded."""
        raw = raws[at]
        try:
            peer_port, local_port, seg = wire.decode(raw, pseudo)
        except wire.MalformedSegment as fault:
            self._recorder.dropped(str(fault), local, peer, raw)
            return 1
        four = FourTuple(local, local_port, peer, peer_port)
        endpoint = self.demux.connections.get(four)
        if endpoint is not None and _is_damaged(endpoint, raw):
            self._recorder.dropped("wrong checksum", local, peer, raw)
        elif endpoint is None:
            self._recorder.seen("received", None, four, seg, (raw,))
            self._to_nobody(four, seg, raw, now)
        elif endpoint.watch is not None:
            endpoint.watch.segment_arrives(seg, raw, now)
        elif self._may_join(endpoint, seg) and (count := bursts.join(seg, raws, at, pseudo)) > 1:
            self._deliver_burst(endpoint, seg, raws[at : at + count], now)
            return count
        else:
            self.deliver(endpoint, seg, raw, now)
        return 1

    def _may_join(self, endpoint: Endpoint, seg: Segment) -> bool:
        """Nothing behind a gap: each such segment has an ACK of its own (RFC 5681 §4.2)."""
        in_order = self._takes_bursts and seg.seq == endpoint.connection.rcv_nxt
        return in_order and self._network.may_join(endpoint.four.peer)

    def _deliver_burst(self, endpoint: Endpoint, seg: Segment, raws: Sequence[bytes], now: float) -> None:
        self._recorder.seen("received", endpoint, endpoint.four, seg, raws)
        endpoint.counters.received(seg, len(raws), now)
        self._tell(endpoint, now, endpoint.connection.segment_arrives, seg, now)

    def deliver(self, endpoint: Endpoint, seg: Segment, raw: bytes, now: float, event: str = "received") -> None:
        """Give a connection a segment; `event` is what the records call it. Never raises."""
        four = endpoint.four
        self._recorder.seen(event, endpoint, four, seg, (raw,))
        endpoint.counters.received(seg, 1, now)
        may_reopen = endpoint.connection.state == _TIME_WAIT and seg.flags & _SYN_ACK_RST == SYN
        self._tell(endpoint, now, endpoint.connection.segment_arrives, seg, now)
        if may_reopen and endpoint.error is None and four not in self.demux.connections:
            # The SYN has ended TIME-WAIT (RFC 9293 §3.6.1, MAY-2): now it is one for no connection.
            self._to_nobody(four, seg, raw, now, endpoint.connection.snd_nxt)

    def _to_nobody(self, four: FourTuple, seg: Segment, raw: bytes, now: float, beyond: int | None = None) -> None:
        """A segment for no connection, perhaps for a listener."""
        listener = self.demux.listener(four.local, four.local_port)
        if listener is not None and listener.full and seg.flags & _SYN_ACK_RST == SYN:
            self._recorder.dropped("backlog full", four.local, four.peer, raw)
            return
        try:
            self._to_new(listener, four, seg, now, beyond)
        except OSError:
            self._recorder.dropped("fault in the TCP", four.local, four.peer, raw)

    def unreachable(self, local: str, peer: str, now: float) -> None:
        """The daemon of `peer` can't be reached: connections that are being opened there fail."""
        for endpoint in list(self.demux.connections.values()):
            opening = endpoint.connection.state == State.SYN_SENT
            if opening and endpoint.four.local == local and endpoint.four.peer == peer:
                self.abort(endpoint, now, errno.EHOSTUNREACH)

    # ---- time ----------------------------------------------------------------------------------------------

    def expire(self, now: float) -> float | None:
        """Run the timers that are due; return the next deadline.

        An entry in the heap may be early: its connection has moved its timer since, and is looked at again later.
        What is due again at once has its turn at the next call, so that no TCP can keep us here.
        """
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
            due[-1].wake_ups.pop()
        for endpoint in due:
            if endpoint.watch is None:
                self._expire(endpoint, now)
            else:
                endpoint.watch.put(partial(self._expire, endpoint), now)
        return self._heap[0][0] if self._heap else None

    def _expire(self, endpoint: Endpoint, now: float) -> None:
        deadline = endpoint.connection.next_deadline()
        if deadline is not None and deadline <= now:
            self._tell(endpoint, now, endpoint.connection.expire, now)
        else:
            self._schedule(endpoint)

    def _schedule(self, endpoint: Endpoint) -> None:
        deadline = endpoint.connection.next_deadline()
        if deadline is None or (endpoint.wake_ups and endpoint.wake_ups[-1] <= deadline):
            return
        if math.isnan(deadline):  # or TypeError: what has no order would spoil the heap for all
            raise ValueError("a timer of the TCP is armed for a time that is not a number")
        endpoint.wake_ups.append(deadline)
        heapq.heappush(self._heap, (deadline, next(self._ties), endpoint))
        if self._heap[0][2] is endpoint:
            self._wake(deadline)

    # ---- connections ---------------------------------------------------------------------------------------

    def _new(
        self, four: FourTuple, config: Config, changed: Callable[[], None], now: float, beyond: int | None = None
    ) -> Endpoint:
        """A connection in CLOSED, its ISN not before `beyond`. Raises OSError(EIO) if the loaded TCP can't make one."""
        mtu = self._network.mtu(four.peer)
        if mtu is not None:
            largest = mtu - _HEADERS[6 if ":" in four.peer else 4]
            config = replace(config, mss=min(config.mss, largest), send_mss=min(config.send_mss, largest))
        iss = self.demux.initial_sequence_number(four, now, beyond)
        self._begin_call()
        try:
            connection = self._tcp(iss=iss, config=config)
            connection.variables()  # an __init__ that leaves out its base class's shows here
        except Exception:
            log.error("fault in the TCP, no connection made:\n%s", traceback.format_exc())
            raise _tcp_has_failed() from None
        finally:
            self.calling = False
        return Endpoint(next(self._numbers), four, connection, changed)

    def _to_new(self, listener: Listener | None, four: FourTuple, seg: Segment, now: float, beyond: int | None) -> None:
        """A segment for no connection yet. Raises OSError(EIO) if the loaded TCP can't make one.

        Without a listener, a fresh CLOSED one knows the answer (RFC 9293 §3.10.7.1). Else one in LISTEN takes it, and
        is kept if that was a SYN.
        """
        endpoint = self._new(four, self.config if listener is None else listener.config, _nobody, now, beyond)
        endpoint.counters.received(seg, 1, now)
        if listener is None:
            self._tell(endpoint, now, endpoint.connection.segment_arrives, seg, now)
            return
        endpoint.listener = listener
        listener.opening += 1
        self.demux.add(endpoint)
        if listener.offered is not None and seg.flags & _SYN_ACK_RST == SYN:
            listener.offered(endpoint)
        if endpoint.watch is None:
            self._accept(endpoint, seg, now)
        else:
            endpoint.watch.put(partial(self._accept, endpoint, seg), now)

    def _accept(self, endpoint: Endpoint, seg: Segment, now: float) -> None:
        if self.demux.connections.get(endpoint.four) is endpoint:  # else its listener went while a debugger held it
            self._tell(endpoint, now, _open_passively, endpoint.connection, seg, now)

    def _begin_call(self) -> None:
        self.calls += 1
        self.calling = True

    def _ask(self, endpoint: Endpoint, now: float, call: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
        """A call of the application's: misuse raises OSError, a fault of the TCP becomes EIO."""
        self._begin_call()
        try:
            return call(*arguments)
        except OSError:
            raise
        except Exception:
            self._fault(endpoint, now)
            raise _tcp_has_failed() from None
        finally:
            self._settle(endpoint, now)

    def _tell(
        self, endpoint: Endpoint, now: float, event: Callable[[*_Arguments], None], *arguments: *_Arguments
    ) -> None:
        """An event of the network or of time: nothing is raised."""
        self._begin_call()
        try:
            event(*arguments)
        except Exception:
            self._fault(endpoint, now)
        self._settle(endpoint, now)

    def _settle(self, endpoint: Endpoint, now: float) -> None:
        """Carry out what an event led to, and tell those who wait for the connection's state.

        If a debugger holds some of it, that is as far as it goes; the debugger's answer leads here again.
        """
        connection = endpoint.connection
        self._begin_call()
        try:
            self._emit_all(endpoint, now)
            if endpoint.orphan and connection.readable and not endpoint.held:
                connection.abort(now)
                self._emit_all(endpoint, now)
            if endpoint.watch is not None and endpoint.watch.held:
                return
            self._recorder.settled(endpoint)
            if connection.state not in _NOT_KEPT:
                self._schedule(endpoint)
        except Exception:
            self._fault(endpoint, now)
            if endpoint.held:
                return
        finally:
            self.calling = False
        if endpoint.listener is not None and connection.state != _SYN_RCVD:
            self._opened(endpoint, endpoint.listener)
        closed = connection.state in _NOT_KEPT
        if closed and self.demux.connections.get(endpoint.four) is endpoint:  # not a later one in its place
            self.demux.remove(endpoint)
            self._forget_closed()
        endpoint.changed()

    def _forget_closed(self) -> None:
        """Most of the heap may be closed connections, each until its last deadline, perhaps hours: let them go."""
        if len(self._heap) > _MOSTLY_CLOSED * (len(self.demux.connections) + _MOSTLY_CLOSED):
            self._heap = [entry for entry in self._heap if entry[2].connection.state not in _NOT_KEPT]
            heapq.heapify(self._heap)

    def go_on(self, endpoint: Endpoint, now: float) -> None:
        """A debugger has let something pass: carry out what is behind it."""
        self._settle(endpoint, now)

    def _emit_all(self, endpoint: Endpoint, now: float) -> None:
        outputs = endpoint.connection.take_output(cut=False)
        if endpoint.watch is None:
            self.carry_out(endpoint, outputs, now)
        else:
            endpoint.watch.happened(outputs, now)

    def carry_out(self, endpoint: Endpoint, outputs: Iterable[Output], now: float) -> None:
        """What the TCP has given now happens. Raises ValueError if that is no segment."""
        for output in outputs:
            if isinstance(output, Segment):
                self._emit(endpoint, output, now)
            elif isinstance(output, Transition):
                endpoint.established |= output.new == _ESTABLISHED
                endpoint.states.append(output.new)
                self._recorder.transition(endpoint, output)
            elif isinstance(output, Expiry):
                self._recorder.expiry(endpoint, output)

    def lose(self, endpoint: Endpoint, seg: Segment, now: float) -> None:
        """A debugger has the network lose this segment. Raises ValueError if it is none."""
        self._emit(endpoint, seg, now, self._lose)

    def _lose(self, local: str, peer: str, raws: Sequence[bytes]) -> None:
        for raw in raws:
            self._recorder.lost("debugger", local, peer, raw)

    def refuse(self, endpoint: Endpoint, raw: bytes) -> None:
        """A debugger does not let this segment come."""
        self._recorder.dropped("debugger", endpoint.four.local, endpoint.four.peer, raw)

    def _emit(
        self, endpoint: Endpoint, seg: Segment, now: float, send: Callable[[str, str, list[bytes]], None] | None = None
    ) -> None:
        four = endpoint.four
        try:
            raws = bursts.encode(seg, four.local_port, four.peer_port, wire.pseudo_header(four.local, four.peer))
        except Exception as error:
            raise ValueError(f"the TCP has sent what is no segment: {seg!r:.500}") from error
        endpoint.counters.sent(seg, len(raws), now)
        self._recorder.seen("sent", endpoint, four, seg, raws)
        (send or self._network.send)(four.local, four.peer, raws)

    def _opened(self, endpoint: Endpoint, listener: Listener) -> None:
        """The handshake of a passive connection is over: it waits for accept, or has failed."""
        endpoint.listener = None
        listener.opening -= 1
        if endpoint.established:
            listener.ready.append(endpoint)
            listener.changed()

    def _fault(self, endpoint: Endpoint, now: float) -> None:
        """The loaded TCP has raised: say where, reset the peer, and serve the others."""
        connection = endpoint.connection
        log.error("[S%d] fault in the TCP, connection reset:\n%s", endpoint.number, traceback.format_exc())
        endpoint.error = errno.EIO
        with suppress(Exception):  # its variables may be damaged too
            connection.take_output()
            if connection.state not in _NOT_KEPT:  # else it may be a reset that it fails on, and ours the peer's next
                self._emit(endpoint, Segment(connection.snd_nxt, connection.rcv_nxt, RST | ACK), now)
        with suppress(Exception):
            connection._fail(errno.EIO)
            self._emit_all(endpoint, now)
        connection.state = State.CLOSED  # whatever it says itself


def _open_passively(connection: TcpConnection, seg: Segment, now: float) -> None:
    connection.open(now, active=False)
    connection.segment_arrives(seg, now)


def _is_damaged(endpoint: Endpoint, raw: bytes) -> bool:
    """A checksum of zero is taken for one that was left out, until the peer has computed another."""
    if not wire.has_no_checksum(raw):
        endpoint.checksums = True  # and wire.decode has found it to be right
        return False
    four = endpoint.four
    return endpoint.checksums and wire.checksum(raw, wire.pseudo_header(four.local, four.peer)) != 0


def _send(connection: TcpConnection, data: bytes | memoryview, now: float) -> int:
    taken = connection.send(data, now)
    if not isinstance(taken, int) or not 0 <= taken <= len(data):
        raise TypeError(f"send has returned {taken!r:.100}, expected how many of the {len(data)} bytes it has taken")
    return taken


def _receive(connection: TcpConnection, limit: int, now: float) -> bytes:
    data = connection.receive(limit, now)
    if not isinstance(data, bytes) or len(data) > limit:
        raise TypeError(f"receive has returned {data!r:.100}, expected at most {limit} bytes")
    return data


def _tcp_has_failed() -> OSError:
    return OSError(errno.EIO, "the TCP has failed; the daemon's log says where")


def _nobody() -> None:
    """Nobody waits for this connection."""
