"""The two profiles, and which timers the reference runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chitcpd.tcp.api import PROFILES, Config, Expiry, Options, State, Timer
from chitcpd.tcp.connection import Connection
from tests.tcp.harness import MSS, SYN_FROM_PEER, Script, config, maker, peer, sacks, stream

a_connection = maker(Connection)


def test_classic_is_what_the_c_chitcp_has() -> None:
    classic = PROFILES["classic"]()
    assert (classic.mss, classic.send_buffer, classic.receive_buffer) == (536, 4096, 4096)
    assert (classic.rto_initial, classic.rto_min, classic.rto_max, classic.clock_granularity) == (1.0, 0.2, 60.0, 0.05)
    assert not any((classic.window_scaling, classic.timestamps, classic.sack, classic.nagle))
    assert (classic.congestion, classic.delayed_ack, classic.msl) == ("none", 0.0, 0.0)


def test_modern_has_everything_on() -> None:
    modern = PROFILES["modern"]()
    assert modern == Config()
    assert all((modern.window_scaling, modern.timestamps, modern.sack, modern.rack, modern.nagle))
    assert (modern.congestion, modern.initial_window) == ("cubic", 10)


@pytest.mark.rfc9293("MUST-25", "MUST-28")
def test_keep_alive_has_no_interval_until_someone_names_one() -> None:
    assert Config().keep_alive is None


# ---- timers ------------------------------------------------------------------------------------------------


def armed(tcp: Script) -> set[str]:
    """The names of the timers that expire if time passes; the peer says nothing more."""
    names: set[str] = set()
    connection = tcp.connection
    while (deadline := connection.next_deadline()) is not None and deadline < tcp.now + 10_000 and len(names) < 9:
        connection.expire(deadline)
        new = {output.timer.name for output in connection.take_output() if isinstance(output, Expiry)}
        if new <= names:
            break
        names |= new
    return names


def idle(tcp: Script) -> None:
    pass


def in_flight(tcp: Script) -> None:
    tcp.send(b"abc")


def closed_window(tcp: Script) -> None:
    tcp.arrives(peer(wnd=0))
    tcp.send(b"abc")


def received(tcp: Script) -> None:
    tcp.arrives(peer(b"abc"))


@pytest.mark.parametrize(
    ("state", "event", "settings", "timers"),
    [
        (State.LISTEN, idle, {}, set()),
        (State.SYN_SENT, idle, {}, {"RETRANSMISSION"}),
        (State.SYN_RCVD, idle, {}, {"RETRANSMISSION"}),
        (State.ESTABLISHED, idle, {}, set()),
        (State.ESTABLISHED, in_flight, {}, {"RETRANSMISSION"}),
        (State.ESTABLISHED, in_flight, {"user_timeout": 0.5}, {"USER_TIMEOUT"}),
        (State.ESTABLISHED, closed_window, {}, {"PERSIST"}),
        (State.ESTABLISHED, received, {}, set()),
        (State.ESTABLISHED, received, {"delayed_ack": 0.1}, {"DELAYED_ACK"}),
        (State.ESTABLISHED, received, {"keep_alive": 100.0}, {"KEEP_ALIVE"}),
        (State.FIN_WAIT_1, idle, {}, {"RETRANSMISSION"}),
        (State.FIN_WAIT_2, idle, {}, set()),
        (State.CLOSE_WAIT, idle, {}, set()),
        (State.CLOSING, idle, {}, {"RETRANSMISSION"}),
        (State.LAST_ACK, idle, {}, {"RETRANSMISSION"}),
        (State.TIME_WAIT, idle, {}, {"TIME_WAIT"}),
    ],
)
def test_no_timer_runs_without_a_reason(
    state: State, event: Callable[[Script], None], settings: dict[str, float], timers: set[str]
) -> None:
    tcp = a_connection(in_state=state, settings=config(**settings))
    event(tcp)
    assert armed(tcp) == timers


def test_a_timer_that_is_not_the_connections_own_does_nothing_in_closed() -> None:
    """A driver may be late: the connection has failed meanwhile."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc")
    tcp.abort()
    assert tcp.connection.next_deadline() is None
    tcp.connection.expire(1000.0)
    assert tcp.connection.take_output() == []


# ---- what is the reference's own choice --------------------------------------------------------------------


@pytest.mark.rfc9293("MAY-2")
def test_a_new_syn_ends_time_wait() -> None:
    """RFC 9293 §3.6.1: the new connection is a new object, so this one is CLOSED and says nothing."""
    tcp = a_connection(in_state=State.TIME_WAIT)
    tcp.arrives(replace(SYN_FROM_PEER, seq=105_000))
    assert tcp.states == [State.CLOSED]
    tcp.sends_nothing()


def test_what_waits_can_be_looked_at() -> None:
    """For the debugger."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(6000))
    tcp.arrives(peer(b"abc", ack=1001))
    assert tcp.connection.unsent == stream(5000, at=1001)
    assert tcp.connection.unread == b"abc"
    assert tcp.receive() == b"abc"


def test_after_a_time_out_what_was_sacked_is_not_sent_again() -> None:
    """RFC 6675 §5.1: the scoreboard is kept."""
    tcp = a_connection(
        in_state=State.ESTABLISHED,
        settings=config(sack=True, rack=False),
        offers=Options(mss=MSS, sack_permitted=True),
    )
    tcp.send(stream(4000), at=1.0)
    tcp.take()
    tcp.arrives(peer(options=sacks((2001, 3001))), at=1.1)
    tcp.sends_stream((1, MSS), at=2.0)
    tcp.arrives(peer(ack=1001, options=sacks((2001, 3001))), at=2.1)
    tcp.sends_stream((1001, MSS), (3001, MSS))


def test_the_timers_have_the_names_of_the_rfcs() -> None:
    """The trace shows them: docs/trace.md."""
    assert [timer.name for timer in Timer] == [
        "RETRANSMISSION",
        "PERSIST",
        "DELAYED_ACK",
        "TIME_WAIT",
        "REORDERING",
        "PROBE",
        "KEEP_ALIVE",
        "USER_TIMEOUT",
    ]
