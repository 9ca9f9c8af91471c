"""Congestion control: RFC 5681, RFC 6582, RFC 6928, RFC 3042, RFC 9438. How much is in flight shows the window."""

from __future__ import annotations

import pytest

from chitcpd.tcp.api import SYN, Config, Options, State
from tests.tcp.harness import MSS, SYN_ACK_FROM_PEER, SYN_FROM_PEER, Maker, Script, config, peer, stream, us

pytestmark = pytest.mark.stage("congestion control")

WIDE = 60_000  # a window of the peer's that doesn't limit


def sending(a_connection: Maker, congestion: str = "newreno", data: int = 200_000, **settings: object) -> Script:
    """All of the initial window is in flight since 1.0; much more waits."""
    tcp = a_connection(
        in_state=State.ESTABLISHED, settings=config(congestion=congestion, send_buffer=1 << 18, **settings)
    )
    tcp.arrives(peer(wnd=WIDE))
    tcp.send(stream(data), at=1.0)
    return tcp


def in_flight(tcp: Script) -> int:
    """Segments, whole ones."""
    return (tcp.snd_nxt - tcp.snd_una) // MSS


def acknowledge(tcp: Script, segments: int, *, at: float | None = None) -> None:
    """ACKs of one segment each."""
    if at is not None:
        tcp.waits_until(at)
    for _ in range(segments):
        tcp.arrives(peer(ack=tcp.snd_una + MSS, wnd=WIDE))


def lose_the_first(tcp: Script, *, at: float) -> None:
    """The oldest segment in flight is lost, and found missing by duplicates; all is acknowledged afterwards."""
    tcp.arrives(*[peer(ack=tcp.snd_una, wnd=WIDE)] * 3, at=at)
    assert (tcp.snd_una, MSS) in [(seg.seq - 1000, len(seg.data)) for seg in tcp.take()]
    tcp.arrives(peer(ack=tcp.snd_nxt, wnd=WIDE), at=at + 0.1)


# ---- the initial window (RFC 6928) -------------------------------------------------------------------------


def test_ten_segments_to_begin_with(a_connection: Maker) -> None:
    """RFC 6928 §2: min(10 * MSS, max(2 * MSS, 14600)), as the TCP is by default."""
    tcp = sending(a_connection, initial_window=Config().initial_window)
    assert 1 <= in_flight(tcp) <= 10


def test_a_smaller_initial_window_can_be_set(a_connection: Maker) -> None:
    """RFC 6928 §2: "this increase is optional"; the setting `initial_window`."""
    for segments in (1, 2, 4):
        assert in_flight(sending(a_connection, initial_window=segments)) == segments


def test_large_segments_make_a_shorter_initial_window(a_connection: Maker) -> None:
    """RFC 6928 §2: with an MSS of 9000 it is 18000 bytes."""
    tcp = a_connection(
        in_state=State.ESTABLISHED,
        settings=config(congestion="newreno", mss=9000, send_mss=9000, send_buffer=1 << 18),
        offers=Options(mss=9000),
    )
    tcp.arrives(peer(wnd=WIDE))
    tcp.send(stream(60_000))
    assert tcp.snd_nxt - 1 <= 18_000


def test_a_handshake_that_needed_a_time_out_begins_with_one_segment(a_connection: Maker) -> None:
    """RFC 5681 §3.1, RFC 6928 §2: "MUST be one segment"; after more than one time-out, as RFC 6928 allows."""
    tcp = a_connection(in_state=State.SYN_SENT, settings=config(congestion="newreno"))
    tcp.waits_until(3.5)
    tcp.sends(*[us(seq=0, ack=None, flags=SYN)] * 2)
    tcp.arrives(SYN_ACK_FROM_PEER)
    tcp.send(stream(9000))
    assert in_flight(tcp) == 1


def test_one_lost_syn_is_forgiven(a_connection: Maker) -> None:
    """RFC 6928 §2: the RTO of 1 s may have been too short."""
    tcp = a_connection(in_state=State.SYN_SENT, settings=config(congestion="newreno", initial_window=4))
    tcp.arrives(SYN_ACK_FROM_PEER, at=1.5)
    tcp.send(stream(9000))
    assert in_flight(tcp) == 4


def test_the_handshake_does_not_enlarge_the_window(a_connection: Maker) -> None:
    """RFC 6928 §2."""
    tcp = a_connection(in_state=State.LISTEN, settings=config(congestion="newreno", initial_window=2))
    tcp.arrives(SYN_FROM_PEER, peer(wnd=WIDE), peer(wnd=WIDE))
    tcp.send(stream(9000))
    assert in_flight(tcp) == 2


# ---- slow start and congestion avoidance (RFC 5681 §3.1) ---------------------------------------------------


@pytest.mark.rfc9293("MUST-19")
def test_slow_start_doubles_with_each_round_trip(a_connection: Maker) -> None:
    """RFC 5681 §3.1: one segment more for each that is acknowledged."""
    tcp = sending(a_connection, initial_window=2)
    for k, expected in enumerate((4, 8, 16, 32)):
        acknowledge(tcp, in_flight(tcp), at=1.1 + k / 10)
        assert in_flight(tcp) == expected


@pytest.mark.rfc9293("MUST-19")
def test_congestion_avoidance_adds_a_segment_with_each_round_trip(a_connection: Maker) -> None:
    """RFC 5681 §3.1: above ssthresh."""
    tcp = sending(a_connection, data=10_000)
    lose_the_first(tcp, at=1.1)
    tcp.send(stream(200_000, at=10_001), at=2.0)
    assert in_flight(tcp) == 5
    for k in range(4):
        acknowledge(tcp, in_flight(tcp), at=2.1 + k / 10)
        assert in_flight(tcp) in (5 + k, 6 + k)
    assert in_flight(tcp) in (8, 9)


def test_duplicates_do_not_enlarge_the_window(a_connection: Maker) -> None:
    """RFC 5681 §3.1: only "an ACK that cumulatively acknowledges new data"."""
    tcp = sending(a_connection, data=10_000)
    tcp.arrives(peer(wnd=WIDE), peer(wnd=WIDE), at=1.1)
    tcp.arrives(peer(ack=10_001, wnd=WIDE), at=1.2)
    tcp.send(stream(100_000, at=10_001))
    assert in_flight(tcp) <= 12


# ---- losses ------------------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-19")
def test_a_loss_halves_the_window(a_connection: Maker) -> None:
    """RFC 5681 §3.2, RFC 6582 §3.2."""
    tcp = sending(a_connection, data=10_000)
    lose_the_first(tcp, at=1.1)
    tcp.send(stream(100_000, at=10_001), at=2.0)
    assert in_flight(tcp) == 5


def test_it_is_halved_from_what_was_in_flight_before_limited_transmit(a_connection: Maker) -> None:
    """RFC 5681 §3.2 (2): "additional data sent in limited transmit MUST NOT be included in this calculation"."""
    tcp = sending(a_connection)
    lose_the_first(tcp, at=1.1)
    assert in_flight(tcp) <= 5


def test_several_losses_in_one_window_halve_it_once(a_connection: Maker) -> None:
    """RFC 6582 §3.2: one reaction per window of data."""
    tcp = sending(a_connection, data=10_000)
    tcp.arrives(*[peer(wnd=WIDE)] * 7, at=1.1)
    for ack in (3001, 6001, 10_001):
        tcp.arrives(peer(ack=ack, wnd=WIDE), at=tcp.now + 0.1)
    tcp.send(stream(100_000, at=10_001), at=2.0)
    assert in_flight(tcp) == 5


def test_the_window_never_falls_below_two_segments_by_duplicates(a_connection: Maker) -> None:
    """RFC 5681 §3.1, equation 4."""
    tcp = sending(a_connection, data=4000, initial_window=4)
    lose_the_first(tcp, at=1.1)
    tcp.send(stream(10_000, at=4001), at=2.0)
    assert in_flight(tcp) == 2


@pytest.mark.rfc9293("MUST-19")
def test_a_time_out_leaves_one_segment_and_slow_start_goes_to_the_half(a_connection: Maker) -> None:
    """RFC 5681 §3.1: the loss window, and ssthresh = FlightSize / 2."""
    tcp = sending(a_connection, data=10_000)
    tcp.take()
    tcp.waits_until(2.0)
    tcp.sends_stream((1, MSS))
    tcp.arrives(peer(ack=10_001, wnd=WIDE), at=2.1)
    tcp.send(stream(100_000, at=10_001))
    assert in_flight(tcp) <= 3
    for k, most in enumerate((4, 5, 6, 7)):
        acknowledge(tcp, in_flight(tcp), at=2.2 + k / 10)
        assert in_flight(tcp) <= max(most, 6)


@pytest.mark.parametrize("congestion", ["newreno", "cubic"])
def test_slow_start_repairs_what_a_time_out_has_lost(a_connection: Maker, congestion: str) -> None:
    """RFC 5681 §3.1: also if the application has no more to send; one, two, four segments per round trip."""
    tcp = sending(a_connection, congestion, data=7000)
    tcp.take()
    flights = []
    for at in (2.01, 2.11, 2.21):
        tcp.waits_until(at)
        sent = tcp.take()
        flights.append(len(sent))
        for seg in sent:
            tcp.arrives(peer(ack=seg.seq - 1000 + MSS, wnd=WIDE), at=at + 0.1)
    assert flights == [1, 2, 4]


def test_a_time_out_leaves_one_segment_also_after_a_fast_retransmission(a_connection: Maker) -> None:
    """RFC 5681 §3.1: "upon a timeout cwnd MUST be set to no more than the loss window"; here that was lost too."""
    tcp = sending(a_connection, data=10_000)
    tcp.arrives(*[peer(wnd=WIDE)] * 3, at=1.1)
    tcp.take()
    tcp.waits_until(2.6)
    assert (1, MSS) in [(seg.seq - 1000, len(seg.data)) for seg in tcp.take()]
    tcp.arrives(peer(ack=10_001, wnd=WIDE), at=2.7)
    tcp.send(stream(100_000, at=10_001))
    assert in_flight(tcp) <= 3


def test_repeated_time_outs_of_one_segment_do_not_lower_the_threshold_again(a_connection: Maker) -> None:
    """RFC 5681 §3.1: "the value of ssthresh is held constant"."""
    tcp = sending(a_connection, data=10_000)
    tcp.waits_until(8.0)  # 2, 4, 8
    tcp.arrives(peer(ack=10_001, wnd=WIDE), at=8.1)
    tcp.take()
    tcp.send(stream(100_000, at=10_001))
    for k in range(2):
        acknowledge(tcp, in_flight(tcp), at=8.2 + k / 10)
    assert in_flight(tcp) >= 5


def test_limited_transmit(a_connection: Maker) -> None:
    """RFC 3042 §2: the first two duplicates bring a new segment each, so that a small window gets its third."""
    tcp = sending(a_connection, initial_window=3)
    tcp.sends_stream((1, MSS), (1001, MSS), (2001, MSS))
    tcp.arrives(peer(wnd=WIDE), at=1.1)
    tcp.sends_stream((3001, MSS))
    tcp.arrives(peer(wnd=WIDE), at=1.1)
    tcp.sends_stream((4001, MSS))
    tcp.arrives(peer(wnd=WIDE), at=1.1)
    assert tcp.take()[0].seq == 1001


def test_duplicates_in_recovery_keep_the_line_busy(a_connection: Maker) -> None:
    """RFC 5681 §3.2 (4), (5): each tells that a segment has left the network; half of them bring a new one."""
    tcp = sending(a_connection, data=20_000)
    tcp.arrives(*[peer(wnd=WIDE)] * 3, at=1.1)
    tcp.take()
    tcp.arrives(*[peer(wnd=WIDE)] * 9, at=1.1)
    assert 2 <= len(tcp.take()) <= 6


def test_an_idle_connection_begins_again_with_the_initial_window(a_connection: Maker) -> None:
    """RFC 5681 §4.1: after more than an RTO without sending, cwnd is at most the restart window."""
    tcp = sending(a_connection, initial_window=4, data=60_000)
    while tcp.snd_una < 60_001:
        acknowledge(tcp, 1, at=tcp.now + 0.01)
    tcp.take()
    tcp.send(stream(60_000, at=60_001), at=100.0)
    assert in_flight(tcp) <= 4


# ---- the others --------------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MAY-18")
def test_cubic_goes_back_to_seven_tenths(a_connection: Maker) -> None:
    """RFC 9438 §4.6."""
    tcp = sending(a_connection, "cubic", data=10_000)
    lose_the_first(tcp, at=1.1)
    tcp.send(stream(100_000, at=10_001), at=2.0)
    assert in_flight(tcp) == 7


@pytest.mark.rfc9293("MAY-18")
def test_cubic_grows_to_where_it_lost_and_stays_there_for_a_while(a_connection: Maker) -> None:
    """RFC 9438 §4.2: concave up to W_max, after K = cbrt(W_max * 0.3 / 0.4) seconds; for 40 segments 3.1 s."""
    tcp = sending(a_connection, "cubic", initial_window=40, data=40_000)
    lose_the_first(tcp, at=1.5)
    tcp.send(stream(160_000, at=40_001), at=2.0)
    at_first = in_flight(tcp)
    sent, sizes = 200_000, []
    for k in range(12):
        acknowledge(tcp, in_flight(tcp), at=2.5 + k / 2)
        tcp.take()
        while tcp.connection.writable and sent < 250_000 - MSS:
            sent += tcp.send(stream(MSS, at=sent + 1))
            tcp.take()
        sizes.append(in_flight(tcp))
        if sent >= 250_000 - MSS:
            break
    assert at_first == 28
    assert sizes[0] > 28
    assert all(28 <= size <= 45 for size in sizes)


@pytest.mark.rfc9293("MAY-18")
def test_cubic_too_begins_with_slow_start_and_falls_to_one_segment(a_connection: Maker) -> None:
    """RFC 9438 §4.8, §4.10."""
    tcp = sending(a_connection, "cubic", initial_window=2)
    for k, expected in enumerate((4, 8)):
        acknowledge(tcp, in_flight(tcp), at=1.1 + k / 10)
        assert in_flight(tcp) == expected
    tcp = sending(a_connection, "cubic", data=10_000)
    tcp.waits_until(2.0)
    tcp.arrives(peer(ack=10_001, wnd=WIDE), at=2.1)
    tcp.send(stream(100_000, at=10_001))
    assert in_flight(tcp) <= 3


def test_without_congestion_control_only_the_peer_limits(a_connection: Maker) -> None:
    """The setting `congestion: none`: for study."""
    tcp = sending(a_connection, "none")
    assert in_flight(tcp) == WIDE // MSS


@pytest.mark.parametrize("congestion", ["newreno", "cubic"])
def test_a_loss_that_a_probe_repaired_counts(a_connection: Maker, congestion: str) -> None:
    """RFC 8985 §7.4.2: the last segment was lost, its second copy arrived; nobody but the sender can know."""
    tcp = a_connection(
        in_state=State.SYN_SENT,
        settings=config(congestion=congestion, sack=True, send_buffer=1 << 18),
        offers=Options(mss=MSS, sack_permitted=True),
    )
    tcp.arrives(peer(seq=0, flags=SYN, wnd=WIDE, options=tcp.offers), at=0.1)
    tcp.send(stream(10_000), at=1.0)
    tcp.take()
    tcp.arrives(peer(ack=9001, wnd=WIDE), at=1.1)
    tcp.waits_until(1.7)
    tcp.sends_stream((9001, MSS))  # the probe
    tcp.arrives(peer(ack=10_001, wnd=WIDE), at=1.8)
    tcp.send(stream(1000, at=10_001), at=1.81)
    tcp.arrives(peer(ack=11_001, wnd=WIDE), at=1.91)  # and no D-SACK has come
    tcp.send(stream(100_000, at=11_001), at=1.92)
    assert in_flight(tcp) < 10
