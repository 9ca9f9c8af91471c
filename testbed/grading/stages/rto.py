"""The retransmission time-out: RFC 6298, in its numbers."""

from __future__ import annotations

from chitcpd.tcp.api import ACK, SYN, State
from testbed.grading.catalog import graded
from testbed.grading.script import EARLY, LATE, Bench, Script, a_syn_ack, check, peer, settings, stream, told

STAGE = "RTO"


def _measured(bench: Bench, *rtts: float) -> Script:
    """A connection that has had just these round trips. Its SYN was sent twice, so that gave none (Karn)."""
    tcp = bench.connection(State.SYN_SENT, settings(rto_min=0.01))
    tcp.arrives(a_syn_ack(), at=1.5)
    at = 1
    for number, rtt in enumerate(rtts, start=10):
        tcp.send(stream(1, at=at), at=number * 10.0)
        at += 1
        tcp.arrives(peer(ack=at), at=number * 10 + rtt)
    tcp.take()
    return tcp


def _times_out_after(tcp: Script, expected: float, why: str) -> None:
    """A segment that is sent now is sent again after this time."""
    seq = (tcp.connection.snd_nxt - tcp.connection.iss) & 0xFFFFFFFF
    tcp.send(stream(1, at=seq), at=tcp.now + 1)
    tcp.take()
    took = tcp.resent(seq, within=130.0)
    good = expected * 0.99 - EARLY <= took <= expected * 1.01 + LATE
    check(good, f"a retransmission after {expected:.3f} s ({why})", f"one after {took:.3f} s")


@graded(STAGE, 1, "RFC 6298 §2.1")
def initial_time_out(bench: Bench) -> None:
    """Before anything was measured, the time-out is one second."""
    tcp = bench.connection(State.CLOSED)
    tcp.open(active=True, at=0.0)
    tcp.take()
    tcp.waits(1.0 - EARLY)
    tcp.sends_nothing("no second SYN before 1 s")
    tcp.sends(SYN, 0, None, within=EARLY + LATE)


@graded(STAGE, 2, "RFC 6298 §5.4 to §5.6 (MUST-19)")
def back_off(bench: Bench) -> None:
    """Each expiry doubles the time-out, up to a minute."""
    tcp = bench.connection()
    tcp.send(stream(3), at=10.0)
    tcp.take()
    for expected in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        took = tcp.resent(1, within=130.0)
        good = expected - EARLY <= took <= expected + LATE
        check(good, f"the next retransmission {expected:g} s after the one before", f"after {took:.2f} s")


@graded(STAGE, 1, "RFC 6298 §2.2")
def first_measurement(bench: Bench) -> None:
    """The first round trip R makes SRTT = R, RTTVAR = R/2, RTO = 3 R."""
    _times_out_after(_measured(bench, 0.5), 1.5, "one round trip of 0.5 s")


@graded(STAGE, 1, "RFC 6298 §2.3")
def second_measurement(bench: Bench) -> None:
    """The next ones are averaged with 1/8 and 1/4, RTTVAR before SRTT."""
    _times_out_after(_measured(bench, 0.5, 0.7), 1.475, "round trips of 0.5 and 0.7 s: SRTT 0.525, RTTVAR 0.2375")
    _times_out_after(_measured(bench, 0.5, 0.7, 0.1), 1.609375, "0.5, 0.7 and 0.1 s: SRTT 0.471875, RTTVAR 0.284375")
    _times_out_after(_measured(bench, 0.8, 2.0), 3.35, "0.8 and 2 s: RTTVAR 0.6 from the old SRTT, then SRTT 0.95")


@graded(STAGE, 1, "RFC 6298 §2.3")
def steady_round_trips(bench: Bench) -> None:
    """A steady round trip leads to a time-out just above it."""
    _times_out_after(_measured(bench, *[0.4] * 15), 0.4 + 4 * 0.2 * 0.75**14, "15 round trips of 0.4 s")


@graded(STAGE, 1, "RFC 6298 §2.4")
def floor(bench: Bench) -> None:
    """The time-out is never below config.rto_min."""
    for least in (1.0, 0.3):
        tcp = bench.connection(config=settings(rto_min=least))
        tcp.send(stream(1), at=1.0)
        tcp.arrives(peer(ack=2), at=1.01)
        _times_out_after(tcp, least, f"round trips of 0 and 0.01 s, and a floor of {least:g} s")


@graded(STAGE, 2, "RFC 6298 §3 (MUST-18)")
def karn(bench: Bench) -> None:
    """A segment that was sent twice gives no round trip, and the doubled time-out holds."""
    tcp = bench.connection(config=settings())
    tcp.send(stream(1), at=10.0)
    tcp.take()
    tcp.resent(1, within=5.0)
    tcp.arrives(peer(ack=2), at=tcp.now + 0.001)
    _times_out_after(tcp, 2.0, "the ACK of a segment that was sent twice measures nothing")
    tcp = _measured(bench, 0.5)
    tcp.send(stream(1, at=2), at=200.0)
    tcp.take()
    tcp.resent(2, within=5.0)
    tcp.arrives(peer(ack=3), at=204.0)
    _times_out_after(tcp, 3.0, "a late ACK of a segment that was sent twice measures nothing either")


@graded(STAGE, 1, "RFC 6298 §5, last paragraph")
def measurement_ends_back_off(bench: Bench) -> None:
    """A new measurement ends the back-off."""
    tcp = _measured(bench, 0.5)
    tcp.send(stream(1, at=2), at=200.0)
    tcp.waits(204.6)
    tcp.arrives(peer(ack=3), at=204.7)
    tcp.send(stream(1, at=3), at=205.0)
    tcp.arrives(peer(ack=4), at=205.5)
    _times_out_after(tcp, 0.5 + 4 * 0.25 * 0.75, "0.5 s were measured again")


@graded(STAGE, 1, "RFC 6298 §5.2")
def timer_stops(bench: Bench) -> None:
    """When all was acknowledged, no timer runs and nothing is sent again."""
    tcp = bench.connection()
    tcp.send(stream(1000), at=0.0)
    tcp.arrives(peer(ack=1001), at=0.1)
    tcp.take()
    tcp.waits(300.0)
    tcp.sends_nothing("nothing to be sent again")


@graded(STAGE, 1, "RFC 6298 §5.3")
def ack_restarts_the_timer(bench: Bench) -> None:
    """An ACK of new data starts the timer anew for what is still in flight."""
    tcp = bench.connection(config=settings(rto_min=1.0))
    tcp.send(stream(2000), at=10.0)
    tcp.take()
    tcp.arrives(peer(ack=1001), at=10.9)
    tcp.take()
    took = tcp.resent(1001, within=10.0)
    check(took >= 1.0 - EARLY, "the other segment again not before 1 s after the ACK", f"{took:.2f} s after it")


@graded(STAGE, 1, "RFC 6298 §5.1")
def data_does_not_restart_the_timer(bench: Bench) -> None:
    """Sending more does not put off the retransmission of what is in flight."""
    tcp = bench.connection()
    tcp.send(stream(1000), at=10.0)
    tcp.take()
    for k in range(1, 4):
        tcp.send(stream(100, at=901 + k * 100), at=10.0 + k * 0.25)
    tcp.take()
    took = tcp.resent(1, within=5.0)
    check(took <= 0.25 + LATE, "the first segment again 1 s after it was sent", f"{0.75 + took:.2f} s after")


@graded(STAGE, 1, "RFC 6298 §5.3")
def repeated_acks_do_not_restart_the_timer(bench: Bench) -> None:
    """A segment that acknowledges nothing new does not put off the retransmission."""
    tcp = bench.connection()
    tcp.send(stream(1000), at=10.0)
    tcp.take()
    tcp.arrives(peer(b"x"), at=10.8)
    tcp.take()
    took = tcp.resent(1, within=5.0)
    check(took <= 0.2 + LATE, "the segment again 1 s after it was sent", f"{0.8 + took:.2f} s after")


@graded(STAGE, 1, "RFC 6298 §3")
def measured_from_its_own_segment(bench: Bench) -> None:
    """A round trip is measured from a segment to its own ACK, not from the last thing sent."""
    tcp = _measured(bench)
    tcp.send(stream(1), at=10.0)
    tcp.send(stream(1, at=2), at=10.3)
    tcp.arrives(peer(ack=2), at=10.5)
    tcp.arrives(peer(ack=3), at=10.8)
    sent = tcp.take()
    check(all(seg.flags & ACK for seg in sent), "ACKs only", told(sent))
    seq = (tcp.connection.snd_nxt - tcp.connection.iss) & 0xFFFFFFFF
    tcp.send(stream(1, at=seq), at=20.0)
    tcp.take()
    took = tcp.resent(seq, within=10.0)
    good = abs(took - 1.25) < 0.07 or abs(took - 1.5) < 0.07  # both measured, or one of a window (RFC 6298 §3)
    check(good, "a retransmission after 1.25 s or 1.5 s (round trips of 0.5 s)", f"one after {took:.3f} s")
