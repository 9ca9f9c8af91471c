"""Retransmission after a time-out: RFC 9293 section 3.8.1, RFC 6298, in its numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chitcpd.tcp.api import FIN, SYN, Options, State
from tests.tcp.harness import MSS, SYN_ACK_FROM_PEER, SYN_FROM_PEER, Maker, Script, config, peer, stream, us

pytestmark = pytest.mark.stage("retransmission")

FINE = config(rto_min=0.01)  # so that the floor of RFC 6298 §2.4 doesn't hide the arithmetic


def measured(a_connection: Maker, *rtts: float) -> Script:
    """A connection that has had just these round trips. Its SYN was sent twice, so that gave none (Karn)."""
    tcp = a_connection(in_state=State.SYN_SENT, settings=FINE)
    tcp.arrives(SYN_ACK_FROM_PEER, at=1.5)
    at = 1
    for second, rtt in enumerate(rtts, start=10):
        tcp.send(stream(1, at=at), at=float(second * 10))
        at += 1
        tcp.arrives(peer(ack=at), at=second * 10 + rtt)
    tcp.take()
    return tcp


def time_out(tcp: Script) -> float:
    """Seconds until a segment that is sent now is sent again."""
    sent_at = tcp.now + 1
    tcp.send(b"x", at=sent_at)
    tcp.take()
    while not tcp.take():
        deadline = tcp.connection.next_deadline()
        assert deadline is not None, "no timer runs: this segment is never sent again"
        tcp.waits_until(deadline)
    return tcp.now - sent_at


# ---- the arithmetic ----------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-18")
def test_the_first_measurement(a_connection: Maker) -> None:
    """RFC 6298 §2.2: R = 0.5: SRTT = 0.5, RTTVAR = 0.25, RTO = 0.5 + 4 * 0.25 = 1.5."""
    assert time_out(measured(a_connection, 0.5)) == pytest.approx(1.5)


@pytest.mark.rfc9293("MUST-18")
def test_the_second_measurement(a_connection: Maker) -> None:
    """RFC 6298 §2.3: R' = 0.7.

    RTTVAR = 3/4 * 0.25 + 1/4 * |0.5 - 0.7| = 0.2375; SRTT = 7/8 * 0.5 + 1/8 * 0.7 = 0.525; RTO = 0.525 + 0.95 = 1.475.
    """
    assert time_out(measured(a_connection, 0.5, 0.7)) == pytest.approx(1.475)


def test_the_third_measurement(a_connection: Maker) -> None:
    """RFC 6298 §2.3: R' = 0.1.

    RTTVAR = 3/4 * 0.2375 + 1/4 * 0.425 = 0.284375; SRTT = 7/8 * 0.525 + 1/8 * 0.1 = 0.471875; RTO = 1.609375.
    """
    assert time_out(measured(a_connection, 0.5, 0.7, 0.1)) == pytest.approx(1.609375)


def test_the_deviation_is_taken_from_the_old_average(a_connection: Maker) -> None:
    """RFC 6298 §2.3: RTTVAR before SRTT, "MUST be computed in the above order".

    R = 1, R' = 2: RTTVAR = 0.375 + 0.25 = 0.625; SRTT = 1.125; RTO = 3.625. The other way round it would be 3.5.
    """
    assert time_out(measured(a_connection, 1.0, 2.0)) == pytest.approx(3.625)


def test_a_steady_round_trip_leads_to_a_time_out_just_above_it(a_connection: Maker) -> None:
    """RFC 6298 §2.3, §4: RTTVAR falls by 1/4 each time; the time-out stays above the round trip."""
    tcp = measured(a_connection, *[0.4] * 20)
    assert time_out(tcp) == pytest.approx(0.4 + max(4 * 0.2 * 0.75**19, tcp.connection.config.clock_granularity))


def test_a_round_trip_is_measured_from_each_segment_to_its_acknowledgement(a_connection: Maker) -> None:
    """RFC 6298 §3: not from the last thing that was sent."""
    tcp = measured(a_connection)
    tcp.send(stream(1), at=10.0)
    tcp.send(stream(1, at=2), at=10.3)
    tcp.arrives(peer(ack=2), at=10.5)
    tcp.arrives(peer(ack=3), at=10.8)
    tcp.take()
    assert time_out(tcp) == pytest.approx(0.5 + 4 * 0.25 * 0.75)


# ---- the timer ---------------------------------------------------------------------------------------------


def test_before_the_first_measurement_it_is_one_second(a_connection: Maker) -> None:
    """RFC 6298 §2.1."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.sends(us(seq=0, ack=None, flags=SYN), at=1.0)


def test_it_is_never_less_than_the_floor(a_connection: Maker) -> None:
    """RFC 6298 §2.4: the setting `rto_min`."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(rto_min=1.0))
    assert time_out(tcp) == pytest.approx(1.0)
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(rto_min=0.3))
    assert time_out(tcp) == pytest.approx(0.3)


@pytest.mark.rfc9293("MUST-19")
def test_it_doubles_with_each_expiry(a_connection: Maker) -> None:
    """RFC 6298 §5.4 to §5.6."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc", at=10.0)
    tcp.sends(us(b"abc"))
    for at in (11.0, 13.0, 17.0, 25.0, 41.0):
        tcp.sends(us(b"abc"), at=at)


def test_it_doubles_up_to_a_ceiling(a_connection: Maker) -> None:
    """RFC 6298 §2.5: 60 s at least."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc", at=0.0)
    tcp.waits_until(63.0)
    tcp.take()
    for at in (123.0, 183.0, 243.0):
        tcp.sends(us(b"abc"), at=at)


@pytest.mark.rfc9293("MUST-22")
def test_a_syn_is_sent_again_with_the_same_backoff(a_connection: Maker) -> None:
    """RFC 6298 §5.5, §3.8.3: SYN, and SYN,ACK."""
    for state, ack in ((State.SYN_SENT, None), (State.SYN_RCVD, 1)):
        tcp = a_connection(in_state=state)
        for at in (1.0, 3.0, 7.0, 15.0):
            tcp.sends(us(seq=0, ack=ack, flags=SYN), at=at)


def test_an_acknowledgement_of_all_stops_it(a_connection: Maker) -> None:
    """RFC 6298 §5.2."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc", at=0.0)
    tcp.arrives(peer(ack=4), at=0.1)
    tcp.take()
    assert tcp.connection.next_deadline() is None
    tcp.waits_until(1000.0)
    tcp.sends_nothing()


def test_an_acknowledgement_of_some_restarts_it(a_connection: Maker) -> None:
    """RFC 6298 §5.3."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(2000), at=0.0)
    tcp.arrives(peer(ack=1001), at=0.9)
    tcp.take()
    tcp.waits_until(1.8)
    tcp.sends_nothing()
    tcp.waits_until(0.9 + 0.9 + 4 * 0.45)  # the first round trip was 0.9: 2.7 s at the most
    assert tcp.take()[0].data == stream(1000, at=1001)


def test_more_data_does_not_restart_it(a_connection: Maker) -> None:
    """RFC 6298 §5.1: "if the timer is not running"."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(1000), at=0.0)
    tcp.send(stream(1000, at=1001), at=0.8)
    tcp.take()
    tcp.waits_until(1.0)
    assert tcp.take()[0].data == stream(1000)


def test_a_repeated_acknowledgement_does_not_restart_it(a_connection: Maker) -> None:
    """RFC 6298 §5.3: "an ACK that acknowledges new data"."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(1000), at=0.0)
    tcp.take()
    tcp.arrives(peer(b"x"), at=0.8)
    tcp.take()
    tcp.waits_until(1.0)
    assert tcp.take()[0].data == stream(1000)


def test_the_oldest_segment_alone_is_sent_again(a_connection: Maker) -> None:
    """RFC 6298 §5.4."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(4000), at=0.0)
    tcp.take()
    tcp.sends_stream((1, MSS), at=1.0)


def test_what_was_lost_with_it_follows_the_acknowledgements(a_connection: Maker) -> None:
    """§3.8.1: a whole window was lost; all of it comes at last, each byte in its place."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(4000), at=0.0)
    tcp.take()
    tcp.waits_until(1.0)
    come: dict[int, bytes] = {}
    while (una := tcp.snd_una) < 4001:
        come |= {seg.seq - 1000: seg.data for seg in tcp.take()}
        ack = una
        while ack in come:
            ack += len(come[ack])
        tcp.arrives(peer(ack=ack), at=tcp.now + 0.1)
        if ack == una:
            tcp.waits_until(tcp.now + 5.0)
        assert tcp.now < 60
    assert b"".join(come[at] for at in sorted(come)) == stream(4000)


def test_only_what_is_missing_is_sent_again_after_an_acknowledgement_within_a_segment(a_connection: Maker) -> None:
    """§3.8.1: from SND.UNA on; what comes before is acknowledged."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(1000), at=0.0)
    tcp.arrives(peer(ack=401), at=0.1)
    tcp.take()
    tcp.waits_until(3.0)
    seg = tcp.take()[0]
    assert seg.seq - 1000 <= 401
    assert seg.data == stream(len(seg.data), at=seg.seq - 1000)
    assert seg.seq - 1000 + len(seg.data) == 1001


def test_a_retransmission_carries_the_acknowledgement_and_window_of_now(a_connection: Maker) -> None:
    """§3.1: these are not a part of the text."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc", at=0.0)
    tcp.arrives(peer(stream(1000)), at=0.5)
    tcp.take()
    tcp.waits_until(1.0)
    seg = tcp.sends_one()
    assert (seg.data, seg.ack, seg.wnd) == (b"abc", 6001, 7000)


def test_sequence_numbers_wrap_in_a_retransmission(a_connection: Maker) -> None:
    """§3.4: modulo 2^32."""
    tcp = a_connection(in_state=State.ESTABLISHED, iss=2**32 - 500)
    tcp.send(stream(1000), at=0.0)
    tcp.take()
    tcp.sends_stream((1, MSS), at=1.0)
    tcp.arrives(peer(ack=1001), at=1.1)
    tcp.waits_until(100.0)
    tcp.sends_nothing()


# ---- Karn (RFC 6298 §3) ------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-18")
def test_a_segment_sent_twice_gives_no_round_trip(a_connection: Maker) -> None:
    """Else the late ACK of the first copy would look like a fast one of the second: the doubled time-out holds."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc", at=0.0)
    tcp.waits_until(1.0)
    tcp.arrives(peer(ack=4), at=1.001)
    tcp.take()
    assert time_out(tcp) == pytest.approx(2.0)


@pytest.mark.rfc9293("MUST-18")
def test_a_late_acknowledgement_of_a_segment_sent_twice_gives_no_round_trip_either(a_connection: Maker) -> None:
    """Nor may it be measured from the first copy: RFC 6298 §3."""
    tcp = measured(a_connection, 0.5)
    tcp.send(b"x", at=200.0)
    tcp.waits_until(201.5)
    tcp.arrives(peer(ack=3), at=204.0)
    tcp.take()
    assert time_out(tcp) == pytest.approx(3.0)


def test_a_new_measurement_ends_the_backoff(a_connection: Maker) -> None:
    """RFC 6298 §5, the note at the end: "collapsing" RTO."""
    tcp = measured(a_connection, 0.5)
    tcp.send(b"x", at=200.0)
    tcp.waits_until(204.5)  # 1.5 s, and 3 s
    tcp.arrives(peer(ack=3), at=204.6)
    tcp.send(b"y", at=205.0)
    tcp.arrives(peer(ack=4), at=205.5)
    tcp.take()
    assert time_out(tcp) == pytest.approx(0.5 + 4 * 0.25 * 0.75)


def test_a_handshake_that_needed_a_time_out_leads_to_three_seconds(a_connection: Maker) -> None:
    """RFC 6298 §5.7."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.waits_until(1.0)
    tcp.arrives(SYN_ACK_FROM_PEER, at=1.5)
    tcp.take()
    assert time_out(tcp) == pytest.approx(3.0)


def test_both_opens_at_once_are_no_time_out(a_connection: Maker) -> None:
    """RFC 6298 §5.7: the SYN goes twice there, because the peer's came, not because a timer expired."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(SYN_FROM_PEER, at=0.1)
    tcp.arrives(peer(), at=0.2)
    assert tcp.state == State.ESTABLISHED
    tcp.take()
    assert time_out(tcp) == pytest.approx(1.0)


@pytest.mark.rfc9293("MUST-18")
def test_with_timestamps_a_segment_sent_twice_gives_a_round_trip(a_connection: Maker) -> None:
    """RFC 6298 §3, RFC 7323 §4: TSecr says which copy is acknowledged. Here it is the second: 0.2 s."""
    offers = Options(mss=MSS, timestamp=(1000, 0))
    settings = config(rto_min=0.01, timestamps=True)
    tcp = a_connection(in_state=State.SYN_SENT, settings=settings, offers=offers)
    tcp.arrives(replace(SYN_ACK_FROM_PEER, options=offers), at=0.5)
    tcp.take()
    tcp.send(b"abc", at=10.0)  # the time-out is 0.5 + 4 * 0.25 = 1.5 s
    tcp.sends(us(b"abc"))
    tcp.sends(us(b"abc"), at=11.5)
    tcp.arrives(peer(ack=4), at=11.7)
    tcp.take()
    # R' = 0.2: RTTVAR = 0.1875 + 0.075 = 0.2625; SRTT = 0.4625; RTO = 1.5125
    assert time_out(tcp) == pytest.approx(1.5125, abs=0.01)


def test_a_fin_gives_a_round_trip_like_data(a_connection: Maker) -> None:
    """RFC 6298 §3: it is a segment; the time-out of a FIN is the measured one."""
    tcp = measured(a_connection, 0.5)
    tcp.close(at=300.0)
    tcp.take()
    tcp.sends(us(seq=2, flags=FIN), at=301.5)
