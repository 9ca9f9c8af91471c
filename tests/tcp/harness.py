"""Packet scripts: what arrives, what must go out, at which time. No clock, no network, any TCP.

We are the end under test, with ISS 1000; the peer's ISS is 5000, its window 4000, its MSS 1000.

    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc"), at=1.0)
    tcp.sends(us(ack=4))

Tests get `a_connection` as a fixture: it makes the TCP that `--tcp` names. A script touches nothing but the contract of
chitcpd/tcp/api.py and the variables of RFC 9293 section 3.3.1. Sequence numbers are written as if the connection had
the ISSs above, whichever it has; so each script can also be run where they wrap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

from chitcpd.tcp.api import ACK, FIN, RST, SYN, Config, Options, Output, Segment, State, TcpConnection, Transition
from chitcpd.trace import flag_letters
from tests.tcp.transitions import assert_legal

ISS, IRS = 1000, 5000
MSS, WINDOW, BUFFER = 1000, 4000, 8000
_STREAM = bytes(position % 251 for position in range(1 << 18))
_MOMENT = 1e-6  # seconds: what a timer may be late, for the rounding of floats
_EARLY = 1e-3  # seconds: nothing may happen as long before its time


def config(**changes: object) -> Config:
    """Plain settings, so that a script shows one thing at a time: no delayed ACK, no Nagle, no congestion control."""
    settings: dict[str, object] = {
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
        "rto_min": 1.0,
        "msl": 30.0,
    }
    return Config(**(settings | changes))  # type: ignore[arg-type]


def stream(length: int, *, at: int = 1) -> bytes:
    """Bytes that tell where they belong, so that misplaced ones show; `at` counts from the sender's ISS."""
    return _STREAM[at : at + length]


def peer(
    data: bytes = b"",
    *,
    seq: int = 1,
    ack: int | None = 1,
    flags: int = 0,
    wnd: int = WINDOW,
    options: Options | None = None,
) -> Segment:
    """A segment from the peer; `seq` counts from its ISS, `ack` from ours (None: no ACK)."""
    acked = _add(ISS, ack) if ack is not None else 0
    return Segment(_add(IRS, seq), acked, flags | (ACK if ack is not None else 0), wnd, data, options)


def us(data: bytes = b"", *, seq: int = 1, ack: int | None = 1, flags: int = 0) -> tuple[int, int, int, bytes]:
    """What we must send: (seq, ack, flags but PSH, data); `seq` counts from our ISS, `ack` from the peer's."""
    acked = _add(IRS, ack) if ack is not None else 0
    return _add(ISS, seq), acked, flags | (ACK if ack is not None else 0), data


def sacks(*blocks: tuple[int, int]) -> Options:
    """The SACK option with these blocks, the newest first: (first, behind the last), counted from our ISS."""
    return Options(sack=tuple((_add(ISS, first), _add(ISS, behind)) for first, behind in blocks))


OFFERS = Options(mss=MSS)  # what the peer's SYN offers, if a script says nothing else
SYN_FROM_PEER = Segment(IRS, flags=SYN, wnd=WINDOW, options=OFFERS)
SYN_ACK_FROM_PEER = Segment(IRS, ISS + 1, SYN | ACK, WINDOW, options=OFFERS)


class Script:
    """A connection, and a memory of what it has sent and not been asked for."""

    def __init__(self, connection: TcpConnection, offers: Options = OFFERS, *, iss: int = ISS, irs: int = IRS) -> None:
        """`offers`: the options of the peer's SYN; `iss`, `irs`: the initial sequence numbers that really hold."""
        self.connection = connection
        self.offers = offers
        self.now = 0.0
        self.sent: list[Segment] = []
        self.states: list[State] = []
        self._ours, self._theirs = iss - ISS, irs - IRS  # what the numbers of the script differ by
        self._stamped: int | None = None  # the TSval that came last, if the peer stamps too

    # ---- the events ----------------------------------------------------------------------------------------

    def open(self, *, active: bool, at: float | None = None) -> None:
        """The application opens."""
        self._until(at)
        self.connection.open(self.now, active=active)
        self._collect()

    def arrives(self, *segments: Segment, at: float | None = None) -> None:
        """Segments come, one after the other. The peer's clock stamps those that the script gives no options."""
        self._until(at)
        for seg in segments:
            self.connection.segment_arrives(self._to_real(self._stamp(seg)), self.now)
            self._collect()

    def send(self, data: bytes, *, at: float | None = None) -> int:
        """The application sends."""
        self._until(at)
        taken = self.connection.send(data, self.now)
        self._collect()
        return taken

    def receive(self, limit: int = 1 << 20, *, at: float | None = None) -> bytes:
        """The application receives."""
        self._until(at)
        data = self.connection.receive(limit, self.now)
        self._collect()
        return data

    def close(self, *, at: float | None = None) -> None:
        """The application closes."""
        self._until(at)
        self.connection.close(self.now)
        self._collect()

    def abort(self, *, at: float | None = None) -> None:
        """The application aborts."""
        self._until(at)
        self.connection.abort(self.now)
        self._collect()

    def waits_until(self, at: float) -> None:
        """Time passes; timers expire at their times."""
        while (deadline := self.connection.next_deadline()) is not None and deadline <= at + _MOMENT:
            self.now = max(self.now, deadline)
            self.connection.expire(self.now)
            self._collect()
        self.now = max(self.now, at)

    # ---- what must go out ----------------------------------------------------------------------------------

    def sends(self, *expected: tuple[int, int, int, bytes], at: float | None = None) -> None:
        """Exactly these went out since the last look; with `at`, at that time and not before."""
        if at is not None:
            self.waits_until(at - _EARLY)
            self.sends_nothing()
            self.waits_until(at)
        sent = [_seen(seg) for seg in self.take()]
        assert sent == list(expected), f"at {self.now:.3f} s it sent {_told(sent)}; expected was {_told(expected)}"

    def sends_nothing(self) -> None:
        """Nothing went out since the last look."""
        self.sends()

    def sends_stream(self, *spans: tuple[int, int], at: float | None = None) -> None:
        """Exactly these pieces of `stream` went out: (where, how much), one a segment."""
        if at is not None:
            self.waits_until(at - _EARLY)
            self.sends_nothing()
            self.waits_until(at)
        sent = self.take()
        assert [(seg.seq - ISS, len(seg.data)) for seg in sent] == list(spans), f"at {self.now:.3f} s (where, how much)"
        for seg in sent:
            assert seg.data == stream(len(seg.data), at=seg.seq - ISS)

    def sends_one(self) -> Segment:
        """The one segment that went out since the last look."""
        [seg] = self.take()
        return seg

    def sends_reset(self, seq: int) -> None:
        """A reset with this sequence number (counted from our ISS) went out, with an ACK or without, and no more."""
        seg = self.sends_one()
        assert seg.flags & RST
        assert not seg.flags & (SYN | FIN)
        assert seg.seq == _add(ISS, seq)

    def sends_to_the_end(self) -> list[Segment]:
        """All that is sent if the peer acknowledges all of it at once; none of it may be sent twice."""
        all_of_it: list[Segment] = []
        while news := self.take():
            all_of_it += news
            self.arrives(peer(seq=self.rcv_nxt, ack=_add(news[-1].seq, len(news[-1]) - ISS)))
        assert self.snd_una == self.snd_nxt
        return all_of_it

    def take(self) -> list[Segment]:
        """All that went out since the last look."""
        sent, self.sent = self.sent, []
        return sent

    # ---- the variables -------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state."""
        return self.connection.state

    @property
    def error(self) -> int | None:
        """The errno with which the connection has failed."""
        return self.connection.error

    @property
    def snd_una(self) -> int:
        """SND.UNA, counted from our ISS."""
        return _add(self.connection.snd_una, -self._ours - ISS)

    @property
    def snd_nxt(self) -> int:
        """SND.NXT, counted from our ISS."""
        return _add(self.connection.snd_nxt, -self._ours - ISS)

    @property
    def rcv_nxt(self) -> int:
        """RCV.NXT, counted from the peer's ISS."""
        return _add(self.connection.rcv_nxt, -self._theirs - IRS)

    # ---- inside --------------------------------------------------------------------------------------------

    def _until(self, at: float | None) -> None:
        if at is not None:
            self.waits_until(at)

    def _collect(self) -> None:
        outputs = self.connection.take_output()
        changes = [output for output in outputs if isinstance(output, Transition)]
        assert_legal(changes)
        self.states += [change.new for change in changes]
        for seg in outputs:
            assert isinstance(seg, Output), f"sent what is no segment: {seg!r}"
            if isinstance(seg, Segment):
                _assert_well_formed(seg)
                if seg.options is not None and seg.options.timestamp is not None:
                    self._stamped = seg.options.timestamp[0]
                self.sent.append(self._from_real(seg))

    def _stamp(self, seg: Segment) -> Segment:
        """With a timestamp, if both ends have offered that and the script has said nothing about options."""
        if self.offers.timestamp is None or self._stamped is None:
            return seg
        value = self.offers.timestamp[0] + int(self.now * 1000)
        if seg.options is None:
            return replace(seg, options=Options(timestamp=(value, self._stamped)))
        if seg.flags & SYN and seg.options.timestamp is not None and seg.flags & ACK:
            return replace(seg, options=replace(seg.options, timestamp=(value, self._stamped)))
        return seg

    def _to_real(self, seg: Segment) -> Segment:
        return _shifted(seg, self._theirs, self._ours, self._ours)

    def _from_real(self, seg: Segment) -> Segment:
        return _shifted(seg, -self._ours, -self._theirs, -self._theirs)


class Maker(Protocol):
    """The fixture `a_connection`."""

    def __call__(
        self,
        *,
        in_state: State,
        settings: Config | None = None,
        offers: Options = OFFERS,
        iss: int = ISS,
        irs: int = IRS,
    ) -> Script:
        """A connection that has come to `in_state` on an ordinary way; what it sent there is forgotten."""


def maker(tcp: type[TcpConnection]) -> Maker:
    """What makes connections of this TCP."""

    def a_connection(
        *,
        in_state: State,
        settings: Config | None = None,
        offers: Options = OFFERS,
        iss: int = ISS,
        irs: int = IRS,
    ) -> Script:
        script = Script(tcp(iss=iss, config=settings or config()), offers, iss=iss, irs=irs)
        _ROUTES[in_state](script)
        assert script.state == in_state
        script.sent.clear()
        script.states.clear()
        return script

    return a_connection


def _add(number: int, count: int) -> int:
    return (number + count) & 0xFFFFFFFF


def text_of(segments: list[Segment]) -> bytes:
    """The text of segments that follow each other without a gap."""
    for segment, following in pairwise(segments):
        assert following.seq == _add(segment.seq, len(segment))
    return b"".join(segment.data for segment in segments)


def _seen(seg: Segment) -> tuple[int, int, int, bytes]:
    return seg.seq, seg.ack if seg.flags & ACK else 0, seg.flags & (SYN | ACK | FIN | RST), seg.data


def _told(sent: Iterable[tuple[int, int, int, bytes]]) -> str:
    """Segments as a person reads them; numbers count from the ISSs."""
    told = []
    for seq, ack, flags, data in sent:
        acknowledges = f" ack {_add(ack, -IRS)}" if flags & ACK else ""
        told.append(f"[{flag_letters(flags)}] seq {_add(seq, -ISS)}{acknowledges} len {len(data)}")
    return ", ".join(told) or "nothing"


def _assert_well_formed(seg: Segment) -> None:
    """Each field fits into its place in the header (3.1)."""
    for name, most in (("seq", 0xFFFFFFFF), ("ack", 0xFFFFFFFF), ("flags", 0x3F), ("wnd", 0xFFFF), ("up", 0xFFFF)):
        value = getattr(seg, name)
        assert isinstance(value, int), f"{name} is no whole number in {seg}"
        assert 0 <= value <= most, f"{name} is {value}, which is not from 0 to {most}, in {seg}"
    assert isinstance(seg.data, bytes), f"data is no bytes in {seg}"


def _shifted(seg: Segment, seq: int, ack: int, blocks: int) -> Segment:
    """The same segment with other initial sequence numbers."""
    if not seq and not ack:
        return seg
    options = seg.options
    if options is not None and options.sack:
        options = replace(options, sack=tuple((_add(a, blocks), _add(b, blocks)) for a, b in options.sack))
    return replace(seg, seq=_add(seg.seq, seq), ack=_add(seg.ack, ack) if seg.flags & ACK else 0, options=options)


# ---- the ways to each state --------------------------------------------------------------------------------


def _closed(script: Script) -> None:
    pass


def _listen(script: Script) -> None:
    script.open(active=False)


def _syn_sent(script: Script) -> None:
    script.open(active=True)


def _syn_rcvd(script: Script) -> None:
    _listen(script)
    script.arrives(replace(SYN_FROM_PEER, options=script.offers))


def _established(script: Script) -> None:
    _syn_sent(script)
    script.arrives(replace(SYN_ACK_FROM_PEER, options=script.offers))


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


_ROUTES: dict[State, Callable[[Script], None]] = {
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
