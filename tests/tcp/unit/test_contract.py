"""What chitcpd/tcp/api.py promises to whoever writes a TCP and says no more than it must."""

from __future__ import annotations

import errno

import pytest

from chitcpd.tcp.api import ACK, FIN, REQUIRED, SYN, Config, Expiry, Segment, State, TcpConnection, Timer, Transition


class Least(TcpConnection):
    """A TCP that does nothing, but remember its timers."""

    readable = writable = 0
    at_eof = False

    def __init__(self) -> None:
        super().__init__(iss=7, config=Config())
        self.expired: list[tuple[Timer, float]] = []

    def open(self, now: float, *, active: bool) -> None: ...

    def send(self, data: bytes | memoryview, now: float) -> int:
        return 0

    def receive(self, limit: int, now: float) -> bytes:
        return b""

    def close(self, now: float) -> None: ...

    def abort(self, now: float) -> None: ...

    def segment_arrives(self, seg: Segment, now: float) -> None: ...

    def timeout(self, timer: Timer, now: float) -> None:
        self.expired.append((timer, now))
        if timer == Timer.PERSIST:
            self._arm(timer, now)  # again, for the same moment
            self._disarm(Timer.KEEP_ALIVE)


@pytest.mark.parametrize(
    ("flags", "data", "length"), [(0, b"", 0), (ACK, b"", 0), (SYN | FIN, b"ab", 4), (FIN, b"", 1)]
)
def test_the_length_of_a_segment(flags: int, data: bytes, length: int) -> None:
    """SEG.LEN (3.4); and a segment without length is something all the same."""
    seg = Segment(1, flags=flags, data=data)
    assert len(seg) == length
    assert seg


def test_a_tcp_need_not_show_what_it_holds() -> None:
    tcp = Least()
    assert (tcp.unacknowledged, tcp.unread) == (b"", b"")


def test_the_variables_are_those_of_the_moment() -> None:
    tcp = Least()
    tcp._enter(State.SYN_SENT)
    tcp.snd_nxt = 8
    tcp._enter(State.ESTABLISHED)
    first, second = tcp.take_output()
    assert isinstance(first, Transition)
    assert isinstance(second, Transition)
    assert (first.old, first.new, first.variables.snd_nxt) == (State.CLOSED, State.SYN_SENT, 7)
    assert (second.old, second.new, second.variables.snd_nxt) == (State.SYN_SENT, State.ESTABLISHED, 8)
    assert tcp.take_output() == []


def test_timers_expire_in_their_order_each_once() -> None:
    """One that stops another, or arms itself for the same moment, does not disturb the rest."""
    tcp = Least()
    tcp._arm(Timer.KEEP_ALIVE, 3.0)
    tcp._arm(Timer.PERSIST, 2.0)
    tcp._arm(Timer.DELAYED_ACK, 1.0)
    tcp._arm(Timer.TIME_WAIT, 9.0)
    assert tcp.next_deadline() == 1.0
    tcp.expire(0.5)
    assert tcp.take_output() == []
    tcp.expire(4.0)
    assert tcp.expired == [(Timer.DELAYED_ACK, 4.0), (Timer.PERSIST, 4.0)]
    assert tcp.take_output() == [Expiry(Timer.DELAYED_ACK), Expiry(Timer.PERSIST)]
    assert tcp.next_deadline() == 4.0


def test_a_failure_drops_all_timers_and_tells_of_one_change() -> None:
    tcp = Least()
    tcp._enter(State.ESTABLISHED)
    tcp._arm(Timer.PERSIST, 2.0)
    tcp.take_output()
    tcp._fail(errno.ECONNRESET)
    tcp._fail(errno.ETIMEDOUT)  # in CLOSED already
    assert (tcp.state, tcp.error, tcp.next_deadline()) == (State.CLOSED, errno.ETIMEDOUT, None)
    assert len(tcp.take_output()) == 1


def test_what_an_author_must_write_is_what_is_abstract() -> None:
    assert sorted(TcpConnection.__abstractmethods__) == list(REQUIRED)
