"""Packet scripts: what arrives, what must go out, at which time. No clock, no network.

We are the end under test, with ISS 1000; the peer's ISS is 5000, its window 4000, its MSS 1000.

    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc"), at=1.0)
    tcp.sends(us(ack=3))
"""

from __future__ import annotations

from collections.abc import Callable

from chitcpd.tcp.api import ACK, FIN, RST, SYN, Config, Expiry, Options, Segment, State, TcpConnection, Transition
from chitcpd.tcp.connection import Connection
from chitcpd.tcp.seq import add

ISS, IRS = 1000, 5000
MSS, WINDOW, BUFFER = 1000, 4000, 8000


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


def peer(data: bytes = b"", *, seq: int = 1, ack: int | None = 1, flags: int = 0, wnd: int = WINDOW) -> Segment:
    """A segment from the peer; `seq` counts from its ISS, `ack` from ours (None: no ACK)."""
    acked = add(ISS, ack) if ack is not None else 0
    return Segment(add(IRS, seq), acked, flags | (ACK if ack is not None else 0), wnd, data)


def us(data: bytes = b"", *, seq: int = 1, ack: int | None = 1, flags: int = 0) -> tuple[int, int, int, bytes]:
    """What we must send: (seq, ack, flags but PSH, data); `seq` counts from our ISS, `ack` from the peer's."""
    acked = add(IRS, ack) if ack is not None else 0
    return add(ISS, seq), acked, flags | (ACK if ack is not None else 0), data


SYN_FROM_PEER = Segment(IRS, flags=SYN, wnd=WINDOW, options=Options(mss=MSS))
SYN_ACK_FROM_PEER = Segment(IRS, add(ISS, 1), SYN | ACK, WINDOW, options=Options(mss=MSS))


class Script:
    """A connection, and a memory of what it has sent and not been asked for."""

    def __init__(self, connection: TcpConnection) -> None:
        self.connection = connection
        self.now = 0.0
        self.sent: list[Segment] = []
        self.states: list[State] = []
        self.expired: list[str] = []

    @property
    def state(self) -> State:
        return self.connection.state

    def arrives(self, seg: Segment, *, at: float | None = None) -> None:
        """A segment comes."""
        self._until(at)
        self.connection.segment_arrives(seg, self.now)
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
        while (deadline := self.connection.next_deadline()) is not None and deadline <= at:
            self.now = max(self.now, deadline)
            self.connection.expire(self.now)
            self._collect()
        self.now = at

    def sends(self, *expected: tuple[int, int, int, bytes]) -> None:
        """Exactly these went out since the last look."""
        sent = [(seg.seq, seg.ack, seg.flags & (SYN | ACK | FIN | RST), seg.data) for seg in self.sent]
        assert sent == list(expected)
        self.sent.clear()

    def sends_nothing(self) -> None:
        """Nothing went out since the last look."""
        self.sends()

    def _until(self, at: float | None) -> None:
        if at is not None:
            self.waits_until(at)

    def _collect(self) -> None:
        for output in self.connection.take_output():
            if isinstance(output, Segment):
                self.sent.append(output)
            elif isinstance(output, Transition):
                self.states.append(output.new)
            elif isinstance(output, Expiry):
                self.expired.append(output.timer.name)


def a_connection(*, in_state: State, settings: Config | None = None) -> Script:
    """A connection that has come to `in_state` on an ordinary way; what it sent there is forgotten."""
    script = Script(Connection(iss=ISS, config=settings or config()))
    _ROUTES[in_state](script)
    assert script.state == in_state
    script.sent.clear()
    script.states.clear()
    script.expired.clear()
    return script


def _closed(script: Script) -> None:
    pass


def _listen(script: Script) -> None:
    script.connection.open(0.0, active=False)
    script._collect()


def _syn_sent(script: Script) -> None:
    script.connection.open(0.0, active=True)
    script._collect()


def _syn_rcvd(script: Script) -> None:
    _listen(script)
    script.arrives(SYN_FROM_PEER)


def _established(script: Script) -> None:
    _syn_sent(script)
    script.arrives(SYN_ACK_FROM_PEER)


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
