"""What the reference writes into the fields of the segments that are not about data: windows, shifts, timestamps."""

from __future__ import annotations

import pytest

from chitcpd.tcp.api import Config, Options, Segment, State
from chitcpd.tcp.connection import Connection
from tests.tcp.harness import ISS, MSS, Script, config, maker, peer, stream, us

a_connection = maker(Connection)
STAMPED = Options(mss=MSS, timestamp=(700, 0))


def opened(settings: Config) -> Segment:
    script = Script(Connection(iss=ISS, config=settings))
    script.open(active=True)
    return script.sends_one()


@pytest.mark.parametrize(
    ("buffer", "shift"),
    [(64, 0), (65_535, 0), (65_536, 1), (131_071, 1), (131_072, 2), (1 << 20, 5), (1 << 29, 14), (1 << 32, 14)],
)
def test_the_shift_is_the_least_that_says_the_whole_buffer(buffer: int, shift: int) -> None:
    """RFC 7323 §2.3: at most 14."""
    syn = opened(config(window_scaling=True, receive_buffer=buffer))
    assert syn.options == Options(mss=MSS, window_scale=shift)
    assert syn.wnd == min(buffer, 0xFFFF)


def test_a_window_is_rounded_down_to_its_unit_and_what_was_offered_is_taken() -> None:
    """RFC 7323 §2.4. Memory stays bounded so, however small the segments are."""
    settings = config(window_scaling=True, receive_buffer=1 << 20)
    tcp = a_connection(in_state=State.ESTABLISHED, settings=settings, offers=Options(mss=MSS, window_scale=0))
    tcp.arrives(peer(b"x"))
    assert tcp.sends_one().wnd == (1 << 20) - 1 >> 5
    for _ in range(40):
        tcp.arrives(peer(bytes(31), seq=tcp.rcv_nxt))
        held, wnd = tcp.connection.readable, tcp.take()[-1].wnd
        assert held + (wnd << 5) <= 1 << 20 < held + (wnd + 1 << 5)
        assert held + tcp.connection.rcv_wnd == 1 << 20


# ---- timestamps: on every segment, with the time of its sending (RFC 7323 §3.2) ------------------------------


def stamped(**settings: object) -> Script:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(timestamps=True, **settings), offers=STAMPED)
    assert isinstance(tcp.connection, Connection)
    assert tcp.connection.mss == MSS - 12
    return tcp


def stamps(tcp: Script) -> list[tuple[int, int] | None]:
    """(TSval, TSecr) of what was sent; our clock is in milliseconds from our ISS."""
    return [
        (seg.options.timestamp[0] - ISS, seg.options.timestamp[1]) if seg.options and seg.options.timestamp else None
        for seg in tcp.take()
    ]


def test_a_keep_alive_probe_is_stamped() -> None:
    tcp = stamped(keep_alive=60.0)
    tcp.arrives(peer(), at=1.5)
    tcp.waits_until(61.5)
    assert stamps(tcp) == [(61_500, 2200)]


def test_a_probe_of_a_closed_window_is_stamped_each_time() -> None:
    tcp = stamped()
    tcp.arrives(peer(wnd=0), at=1.0)
    tcp.send(stream(10))
    assert stamps(tcp) == []
    tcp.waits_until(4.0)
    assert stamps(tcp) == [(2000, 1700), (4000, 1700)]


def test_retransmissions_and_acks_are_stamped() -> None:
    tcp = stamped(delayed_ack=0.1)
    tcp.send(b"abc", at=1.0)
    tcp.waits_until(2.0)
    tcp.arrives(peer(b"x", ack=4), at=2.5)
    tcp.waits_until(3.0)
    assert stamps(tcp) == [(1000, 700), (2000, 700), (2600, 3200)]


def test_a_timestamp_tells_which_copy_was_answered() -> None:
    """RFC 7323 §4: a round trip of 0.5 s, though the segment was sent twice; so the RTO does not stay doubled."""
    tcp = stamped()
    tcp.send(b"abc", at=10.0)
    tcp.waits_until(11.0)
    assert stamps(tcp) == [(10_000, 700), (11_000, 700)]
    tcp.arrives(peer(ack=4, options=Options(timestamp=(9000, ISS + 11_000))), at=11.5)
    tcp.send(b"def", at=12.0)
    deadline = tcp.connection.next_deadline()
    assert deadline is not None
    assert deadline - 12.0 < 2.0
    tcp.take()


# ---- when an acknowledgement goes ------------------------------------------------------------------------------


def test_data_of_which_a_part_has_come_before_is_acknowledged_at_once() -> None:
    """Our ACK of that part may be lost, so the peer waits for one."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=0.2))
    tcp.arrives(peer(b"abc"))
    tcp.sends_nothing()
    tcp.sends(us(ack=4), at=0.2)
    tcp.arrives(peer(b"abcdef"))
    tcp.sends(us(ack=7))
    assert tcp.receive() == b"abcdef"


def test_an_unsolicited_ack_is_dropped_in_silence_when_nothing_is_new() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(), peer())
    tcp.sends_nothing()
    assert tcp.rcv_nxt == 1
