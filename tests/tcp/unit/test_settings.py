"""The two profiles, how settings are written, and which timers the reference runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chitcpd import settings
from chitcpd.tcp import congestion
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


# ---- as people write them ----------------------------------------------------------------------------------


def test_every_setting_is_explained_in_the_order_of_the_contract() -> None:
    assert list(settings.TABLE) == [field.name for field in fields(Config)]


def test_the_congestion_controls_are_those_that_there_are() -> None:
    assert set(settings.CONGESTION) == set(congestion._REGISTRY)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", settings.TABLE)
def test_every_value_of_a_profile_can_be_written_and_is_allowed(name: str, profile: str) -> None:
    value = getattr(PROFILES[profile](), name)
    assert settings.parse(name, settings.spell(name, value)) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rto_min", "200ms", 0.2),
        ("receive_buffer", "64KiB", 65_536),
        ("mss", "64B", 64),
        ("delayed_ack", "499ms", 0.499),
        ("delayed_ack", "0s", 0.0),
        ("retries", "0", 0),
        ("nagle", "off", False),
        ("sack", "true", True),
        ("keep_alive", "off", None),
        ("keep_alive", "120min", 7200.0),
        ("congestion", "newreno", "newreno"),
    ],
)
def test_what_may_be_written(name: str, text: str, value: object) -> None:
    assert settings.parse(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("mss", "0B", "expected a size in B, KiB or MiB, from 64B to 65495B, like 1460B"),
        ("mss", "1460", "expected a size in B, KiB or MiB, from 64B to 65495B, like 1460B"),
        ("mss", "65496B", "expected a size in B, KiB or MiB, from 64B to 65495B, like 1460B"),
        ("receive_buffer", "2GiB", "expected a size in B, KiB or MiB, from 1B to 1GiB, like 1MiB"),
        ("delayed_ack", "500ms", "expected a time in ms, s or min, from 0s to 499ms, like 40ms"),
        ("keep_alive", "999ms", "expected off, or a time in ms, s or min, from 1s to 1440min, like 120min"),
        ("rto_min", "off", "expected a time in ms, s or min, from 1ms to 1440min, like 200ms"),
        ("rto_max", f"{'9' * 400}s", "expected a time in ms, s or min, from 1ms to 1440min, like 60s"),
        ("user_timeout", "0s", "expected off, or a time in ms, s or min, from 1ms to 1440min, like 30s"),
        ("retries", "-1", "expected a whole number from 0 to 100, like 15"),
        ("retries", "1.5", "expected a whole number from 0 to 100, like 15"),
        ("retries", "٣", "expected a whole number from 0 to 100, like 15"),
        ("initial_window", "0", "expected a whole number from 1 to 1000, like 10"),
        ("nagle", "yes", "expected on or off"),
        ("congestion", "newrneo", "expected one of cubic, newreno, none; did you mean 'newreno'?"),
        ("congestion", "vegas", "expected one of cubic, newreno, none"),
        ("rto_mim", "1s", "unknown setting; did you mean 'rto_min'? `chitcpd --settings` lists them all"),
        ("", "", "unknown setting; `chitcpd --settings` lists them all"),
    ],
)
def test_what_may_not_be_written_and_what_was_expected(name: str, text: str, expected: str) -> None:
    with pytest.raises(ValueError) as error:
        settings.parse(name, text)
    assert str(error.value) == expected


@given(name=st.sampled_from([*settings.TABLE, "mtu"]), text=st.text() | st.from_regex(r"\d+(\.\d+)?(ms|s|B|GiB)"))
def test_whatever_is_written_is_read_or_refused(name: str, text: str) -> None:
    try:
        value = settings.parse(name, text)
    except ValueError as error:
        assert "expected" in str(error) or "unknown" in str(error)
    else:
        settings.spell(name, value)


def test_settings_stand_over_those_of_the_profile() -> None:
    changed = settings.configure("classic", {"msl": "2s", "congestion": "newreno"})
    assert changed == replace(PROFILES["classic"](), msl=2.0, congestion="newreno")


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="found rto_initial 1s above rto_max, expected at most 500ms, or a larger"):
        settings.configure("modern", {"rto_max": "500ms"})
    settings.configure("modern", {"rto_max": "500ms", "rto_initial": "500ms"})


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
    assert tcp.connection.unacknowledged == stream(5000, at=1001)
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
