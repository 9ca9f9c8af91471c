"""Packet scripts: what comes to a connection, at which time, and what must go out.

    tcp = bench.connection(ESTABLISHED)
    tcp.arrives(peer(b"abc"))
    tcp.acknowledges(4)

Numbers count from the initial sequence numbers of each side (a SYN is 0, the first byte 1), whichever these are. A
script asks for what RFC 9293 demands, and leaves free what it leaves free: an ACK may wait for half a second, may be
sent twice, may ride on data; segments may be smaller than they could be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from chitcpd.tcp.api import (
    ACK,
    FIN,
    RST,
    SYN,
    Config,
    Expiry,
    Options,
    Segment,
    State,
    TcpConnection,
    Timer,
    Transition,
)

MSS, WINDOW, BUFFER = 1000, 4000, 8000  # bytes: of segments, of the peer's window, of our receive buffer
ACK_DELAY = 0.5  # seconds that an ACK may wait (§3.8.6.3)
EARLY, LATE = 0.02, 0.06  # seconds: how far a timer may be off
_STREAM = bytes(position % 251 for position in range(1 << 18))
_MOMENT = 1e-6  # seconds: what a timer may be late, for the rounding of floats
_MOST_EXPIRIES = 2000  # in one wait
_TOLD = 6  # segments in a message
_CLOSED, _LISTEN, _SYN_SENT, _SYN_RCVD, _ESTABLISHED, *_ = (
    State.CLOSED,
    State.LISTEN,
    State.SYN_SENT,
    State.SYN_RCVD,
    State.ESTABLISHED,
)


class Failed(Exception):
    """The TCP did not do what a test asks for; the text says what was expected, and what came."""


class NotThere(Failed):
    """It has not even come to the state in which the test begins."""


def check(good: bool, expected: str, got: object) -> None:
    """Raises Failed, with one sentence."""
    if not good:
        raise Failed(f"expected {expected}; got {got}")


def settings(**changes: Any) -> Config:
    """Plain settings, so that a script shows one thing at a time: no delayed ACK, no Nagle, no congestion control."""
    plain: dict[str, Any] = {
        "mss": MSS,
        "send_mss": MSS,
        "receive_buffer": BUFFER,
        "send_buffer": 16_000,
        "delayed_ack": 0.0,
        "nagle": False,
        "congestion": "none",
        "window_scaling": False,
        "timestamps": False,
        "sack": False,
        "rack": False,
        "rto_min": 1.0,
        "msl": 30.0,
    }
    return Config(**(plain | changes))


def stream(length: int, *, at: int = 1) -> bytes:
    """Bytes that tell where they belong, so that misplaced ones show; `at` counts from the sender's SYN."""
    return _STREAM[at : at + length]


OFFERS = Options(mss=MSS)


def peer(
    data: bytes = b"",
    *,
    seq: int = 1,
    ack: int | None = 1,
    flags: int = 0,
    wnd: int = WINDOW,
    options: Options | None = None,
) -> Segment:
    """A segment from the peer (ack=None: without ACK)."""
    return Segment(seq, ack or 0, flags | (0 if ack is None else ACK), wnd, data, options)


def a_syn(*, seq: int = 0, wnd: int = WINDOW, options: Options | None = OFFERS) -> Segment:
    """The peer's SYN."""
    return Segment(seq, flags=SYN, wnd=wnd, options=options)


def a_syn_ack(*, wnd: int = WINDOW, options: Options | None = OFFERS) -> Segment:
    """The peer's answer to our SYN."""
    return Segment(0, 1, SYN | ACK, wnd, options=options)


def state_name(state: State) -> str:
    """As the RFC spells it."""
    return state.name.replace("RCVD", "RECEIVED").replace("_", "-")


def flag_names(flags: int) -> str:
    """As the RFC writes them: SYN,ACK."""
    names = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (ACK, "ACK")]
    return ",".join(name for bit, name in names if flags & bit) or "no flag"


def told(segments: Iterable[Segment]) -> str:
    """Segments as a person reads them."""
    texts = []
    for seg in segments:
        acknowledges = f" ack {seg.ack}" if seg.flags & ACK else ""
        data = f" with {len(seg.data)} bytes" if seg.data else ""
        texts.append(f"{flag_names(seg.flags)} seq {seg.seq}{acknowledges}{data}")
    more = f" and {len(texts) - _TOLD} more" if len(texts) > _TOLD else ""
    return "; ".join(texts[:_TOLD]) + more if texts else "nothing"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a test, for the ladder diagram. Numbers are relative, as in scripts."""

    at: float  # seconds
    kind: str  # "sent" (by the TCP under test), "received", "lost" (what was sent last), "call", "timer", "state",
    # "note", "begin" (of another connection)
    text: str = ""  # of all kinds but segments
    segment: Segment | None = None


@dataclass(slots=True)
class Bench:
    """What a test works on: the TCP under test, dice, and a record of what happened."""

    tcp: type[TcpConnection]
    random: Random
    events: list[Event] = field(default_factory=list)

    def connection(
        self,
        state: State = _ESTABLISHED,
        config: Config | None = None,
        *,
        offers: Options | None = OFFERS,
        iss: int | None = None,
        irs: int | None = None,
    ) -> Script:
        """A connection that has come to `state` on an ordinary way; what it sent there is forgotten."""
        if self.events:
            self.events.append(Event(0.0, "begin"))
        real_iss = self.random.getrandbits(32) if iss is None else iss
        real_irs = self.random.getrandbits(32) if irs is None else irs
        config = config or settings()
        script = Script(self, self.tcp(iss=real_iss, config=config), config, offers, real_iss, real_irs)
        ROUTES[state](script)
        if script.state != state:
            found = state_name(script.state)
            raise NotThere(f"expected that it comes to {state_name(state)}, by the ordinary way; it is in {found}")
        script.take()
        script.states.clear()
        return script

    def note(self, text: str, at: float = 0.0) -> None:
        """Something for the diagram."""
        self.events.append(Event(at, "note", text))


class Script:
    """A connection, and a memory of what it has sent and not been asked for."""

    def __init__(
        self, bench: Bench, connection: TcpConnection, config: Config, offers: Options | None, iss: int, irs: int
    ) -> None:
        self.connection = connection
        self.config = config
        self.offers = offers
        self.now = 0.0
        self.sent: list[Segment] = []
        self.times: list[float] = []  # of each in `sent`
        self.states: list[State] = []
        self._bench = bench
        self._iss, self._irs = iss, irs

    # ---- the events ----------------------------------------------------------------------------------------

    def open(self, *, active: bool, at: float | None = None) -> None:
        """The application opens."""
        self._until(at)
        self._log("call", f"open ({'active' if active else 'passive'})")
        self.connection.open(self.now, active=active)
        self._collect()

    def arrives(self, *segments: Segment, at: float | None = None) -> None:
        """Segments come, one after the other."""
        self._until(at)
        for seg in segments:
            self._bench.events.append(Event(self.now, "received", segment=seg))
            real_ack = (seg.ack + self._iss) & 0xFFFFFFFF if seg.flags & ACK else 0
            self.connection.segment_arrives(
                replace(seg, seq=(seg.seq + self._irs) & 0xFFFFFFFF, ack=real_ack), self.now
            )
            self._collect()

    def send(self, data: bytes, *, at: float | None = None) -> int:
        """The application sends; how much was taken."""
        self._until(at)
        self._log("call", f"send ({len(data)} bytes)")
        taken = self.connection.send(data, self.now)
        self._collect()
        return taken

    def receive(self, limit: int = 1 << 20, *, at: float | None = None) -> bytes:
        """The application receives."""
        self._until(at)
        data = self.connection.receive(limit, self.now)
        self._log("call", f"receive: {len(data)} bytes")
        self._collect()
        return data

    def close(self, *, at: float | None = None) -> None:
        """The application closes."""
        self._until(at)
        self._log("call", "close")
        self.connection.close(self.now)
        self._collect()

    def abort(self) -> None:
        """The application aborts."""
        self._log("call", "abort")
        self.connection.abort(self.now)
        self._collect()

    def waits(self, until: float) -> None:
        """Time passes; timers expire at their times."""
        expiries = 0
        while (deadline := self.connection.next_deadline()) is not None and deadline <= until + _MOMENT:
            self.now = max(self.now, deadline)
            expiries += 1
            if expiries > _MOST_EXPIRIES:
                raise Failed(
                    f"expected timers that end; after {_MOST_EXPIRIES} expiries at {self.now:.3f} s there are more"
                )
            self.connection.expire(self.now)
            self._collect()
        self.now = max(self.now, until)

    # ---- what must go out ----------------------------------------------------------------------------------

    def take(self) -> list[Segment]:
        """All that went out since the last look."""
        sent, self.sent = self.sent, []
        self.times.clear()
        return sent

    def sends_nothing(self, why: str = "nothing to be sent") -> None:
        """Nothing went out since the last look."""
        sent = self.take()
        check(not sent, why, told(sent))

    def sends(self, flags: int, seq: int, ack: int | None, data: bytes = b"", *, within: float = 0.0) -> Segment:
        """Just this went out since the last look, apart from repeated ACKs; with `within`, by then at the latest."""
        wanted = Segment(seq, ack or 0, flags | (0 if ack is None else ACK), data=data)
        self._wait_for(lambda seg: same(seg, wanted), within)
        sent = self.take()
        found = [seg for seg in sent if same(seg, wanted)]
        others = [seg for seg in sent if not same(seg, wanted) and (len(seg) or seg.flags & RST)]
        check(bool(found) and not others, told([wanted]), told(sent))
        return found[0]

    def acknowledges(self, ack: int, *, within: float = ACK_DELAY) -> Segment:
        """An ACK of all before `ack` goes out, alone or on data, at once or in the time that it may wait."""
        self._wait_for(lambda seg: bool(seg.flags & ACK) and seg.ack == ack, within)
        sent = self.take()
        found = [seg for seg in sent if seg.flags & ACK and not seg.flags & RST and seg.ack == ack]
        check(bool(found), f"an ACK with ack {ack}" + (f" within {within:g} s" if within else " at once"), told(sent))
        beyond = [seg for seg in sent if seg.flags & ACK and 0 < (seg.ack - ack) & 0xFFFFFFFF < 1 << 31]
        check(not beyond, f"no ACK of more than {ack}", told(beyond))
        return found[-1]

    def resets(self, seq: int | None = None) -> None:
        """A reset goes out, and nothing else; with `seq`, at this sequence number."""
        sent = self.take()
        good = len(sent) == 1 and bool(sent[0].flags & RST) and not sent[0].flags & (SYN | FIN)
        check(good, "one RST", told(sent))
        check(seq is None or sent[0].seq == seq, f"a RST with seq {seq}", told(sent))

    def resent(self, seq: int, *, within: float = 70.0) -> float:
        """Wait until something that begins at `seq`, or before and covers it, is sent; the seconds that it took."""
        began = self.now
        self._wait_for(lambda seg: covers(seg, seq), within)
        for seg, at in zip(self.sent, self.times, strict=True):
            if covers(seg, seq):
                self.take()
                return at - began
        raise Failed(f"expected seq {seq} to be sent again within {within:g} s; got {told(self.take())}")

    def flight(self) -> int:
        """How far the data reaches that went out since the last look, in bytes; each byte in its place."""
        reach = 0
        for seg in self.take():
            if seg.data:
                in_place(seg)
                reach = max(reach, seg.seq - 1 + len(seg.data))
        return reach

    def pulls(
        self,
        until: int,
        *,
        begin: int = 1,
        ack: int | None = None,
        wnd: int = WINDOW,
        seq: int = 1,
        patience: float = 8.0,
    ) -> list[Segment]:
        """A peer takes the stream from `begin` up to but not `until`, acknowledging each segment after 10 ms.

        What it took, in order. Raises Failed if something is in the wrong place, or nothing comes for `patience`.
        """
        following, taken, quiet_since = begin, [], self.now
        while following < until:
            self._wait_for(lambda seg: len(seg) > 0, patience)
            sent = self.take()
            if self.now - quiet_since > 4 * patience or not sent:
                raise Failed(
                    f"expected the stream up to byte {until - 1}; it went on to byte {following - 1}, and then "
                    f"{told(sent)} in {self.now - quiet_since:.1f} s"
                )
            for piece in sent:
                in_place(piece)
                taken.append(piece)
                if piece.seq <= following < piece.seq + len(piece.data):
                    following, quiet_since = piece.seq + len(piece.data), self.now
            if any(seg.data for seg in sent):
                self.arrives(peer(seq=seq, ack=following, wnd=wnd), at=self.now + 0.01)
        return taken

    # ---- the variables -------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state."""
        return self.connection.state

    def is_in(self, *states: State) -> None:
        """It is in one of these states."""
        expected = " or ".join(map(state_name, states))
        check(self.state in states, f"the state {expected}", state_name(self.state))

    def passed(self, *states: State) -> None:
        """It has passed through just these states since the last look."""
        seen, self.states = self.states, []
        expected = ", ".join(map(state_name, states))
        check(seen == list(states), f"the states {expected}", ", ".join(map(state_name, seen)) or "no change of state")

    def failed_with(self, error: int, name: str) -> None:
        """It is closed, and tells the application this."""
        check(self.connection.error == error, f"error {name}", f"error {self.connection.error}")
        self.is_in(_CLOSED)

    def hands_out(self, data: bytes, what: str = "") -> None:
        """The application gets this, and no more."""
        got = self.receive()
        if got == data:
            return
        at = next((i for i, (a, b) in enumerate(zip(got, data, strict=False)) if a != b), min(len(got), len(data)))
        expected = what or f"{len(data)} bytes to be handed out"
        check(False, expected, f"{len(got)} bytes, which are right up to the byte {at}")

    # ---- inside --------------------------------------------------------------------------------------------

    def _until(self, at: float | None) -> None:
        if at is not None:
            self.waits(at)

    def _wait_for(self, wanted: Callable[[Segment], bool], within: float) -> None:
        """Let timers expire until such a segment was sent, or the time is over."""
        end, expiries, seen = self.now + within, 0, 0
        while not any(map(wanted, self.sent[seen:])):
            seen = len(self.sent)
            deadline = self.connection.next_deadline()
            if deadline is None or deadline > end + _MOMENT or within == 0:
                self.now = max(self.now, end)
                return
            expiries += 1
            if expiries > _MOST_EXPIRIES:
                raise Failed(
                    f"expected timers that end; after {_MOST_EXPIRIES} expiries at {self.now:.3f} s there are more"
                )
            self.now = max(self.now, deadline)
            self.connection.expire(self.now)
            self._collect()

    def _log(self, kind: str, text: str) -> None:
        self._bench.events.append(Event(self.now, kind, text))

    def _collect(self) -> None:
        for output in self.connection.take_output():
            if isinstance(output, Transition):
                self.states.append(output.new)
                self._log("state", state_name(output.new))
            elif isinstance(output, Expiry):
                self._log("timer", Timer(output.timer).name)
            elif isinstance(output, Segment):
                ack = signed(output.ack - self._irs) if output.flags & ACK else 0
                seg = replace(output, seq=self._relative(output), ack=ack)
                self._bench.events.append(Event(self.now, "sent", segment=seg))
                self.sent.append(seg)
                self.times.append(self.now)

    def _relative(self, seg: Segment) -> int:
        """From our ISS; but a reset that acknowledges has the number 0, whatever that is (§3.10.7.1)."""
        if seg.flags & RST and seg.flags & ACK and seg.seq == 0:
            return 0
        return signed(seg.seq - self._iss)


def in_place(seg: Segment) -> None:
    """The bytes of a segment are those of `stream`. Raises Failed."""
    good = 0 <= seg.seq <= len(_STREAM) and seg.data == stream(len(seg.data), at=seg.seq)
    check(good or not seg.data, f"the bytes of the stream from {seg.seq} on", f"others, in {told([seg])}")


def signed(number: int) -> int:
    """A difference of sequence numbers, which may be negative."""
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >= 1 << 31 else number


def same(seg: Segment, wanted: Segment) -> bool:
    """Whether it says what was wanted; of a segment without ACK, its acknowledgement says nothing."""
    mask = SYN | ACK | FIN | RST
    alike = (seg.seq, seg.flags & mask, seg.data) == (wanted.seq, wanted.flags & mask, wanted.data)
    return alike and (not wanted.flags & ACK or seg.ack == wanted.ack)


def covers(seg: Segment, seq: int) -> bool:
    """Whether it has this sequence number."""
    return seg.seq <= seq < seg.seq + len(seg)


# ---- the ways to each state --------------------------------------------------------------------------------


def _closed(script: Script) -> None:
    pass


def _listen(script: Script) -> None:
    script.open(active=False)


def _syn_sent(script: Script) -> None:
    script.open(active=True)


def _syn_rcvd(script: Script) -> None:
    _listen(script)
    script.arrives(a_syn(options=script.offers))


def _established(script: Script) -> None:
    _syn_sent(script)
    script.arrives(a_syn_ack(options=script.offers))


def _fin_wait_1(script: Script) -> None:
    _established(script)
    script.close()


def _fin_wait_2(script: Script) -> None:
    _fin_wait_1(script)
    script.arrives(peer(ack=2))


def _close_wait(script: Script) -> None:
    _established(script)
    script.arrives(peer(flags=FIN))


def _last_ack(script: Script) -> None:
    _close_wait(script)
    script.close()


def _closing(script: Script) -> None:
    _fin_wait_1(script)
    script.arrives(peer(flags=FIN))


def _time_wait(script: Script) -> None:
    _fin_wait_2(script)
    script.arrives(peer(ack=2, flags=FIN))


ROUTES: dict[State, Callable[[Script], None]] = {
    State.CLOSED: _closed,
    State.LISTEN: _listen,
    State.SYN_SENT: _syn_sent,
    State.SYN_RCVD: _syn_rcvd,
    State.ESTABLISHED: _established,
    State.FIN_WAIT_1: _fin_wait_1,
    State.FIN_WAIT_2: _fin_wait_2,
    State.CLOSE_WAIT: _close_wait,
    State.LAST_ACK: _last_ack,
    State.CLOSING: _closing,
    State.TIME_WAIT: _time_wait,
}
