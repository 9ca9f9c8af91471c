"""Repairing losses before the time-out: RFC 5681 section 3.2, RFC 6582, RFC 6675, RFC 8985."""

from __future__ import annotations

import pytest

from chitcpd.tcp.api import Options, Segment, State
from tests.tcp.harness import MSS, Maker, Script, config, peer, sacks, stream

pytestmark = pytest.mark.stage("recovery")

SACK_OFFERED = Options(mss=MSS, sack_permitted=True)


def plain(a_connection: Maker, **settings: object) -> Script:
    """Without SACK; ten segments are in flight since 1.0."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(congestion="newreno", **settings))
    tcp.arrives(peer(wnd=60_000))
    tcp.send(stream(10_000), at=1.0)
    assert len(tcp.take()) == 10
    return tcp


# ---- fast retransmit (RFC 5681 §3.2) -----------------------------------------------------------------------


def duplicates(tcp: Script, count: int, *, ack: int = 1, at: float | None = None) -> None:
    tcp.arrives(*[peer(ack=ack, wnd=60_000)] * count, at=at)


def test_three_duplicate_acks_bring_the_lost_segment_at_once(a_connection: Maker) -> None:
    """RFC 5681 §3.2."""
    tcp = plain(a_connection)
    duplicates(tcp, 2, at=1.1)
    tcp.sends_nothing()
    duplicates(tcp, 1, at=1.1)
    tcp.sends_stream((1, MSS))


def test_the_lost_segment_is_sent_again_once(a_connection: Maker) -> None:
    """RFC 5681 §3.2: more duplicates tell of the segments behind it."""
    tcp = plain(a_connection)
    duplicates(tcp, 9, at=1.1)
    tcp.sends_stream((1, MSS))
    tcp.arrives(peer(ack=10_001, wnd=60_000), at=1.2)
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_what_is_no_duplicate_does_not_count(a_connection: Maker) -> None:
    """RFC 5681 §2: data, another window, or nothing in flight."""
    tcp = plain(a_connection)
    for k in range(5):
        tcp.arrives(peer(b"x", seq=1 + k, wnd=60_000), at=1.1)
    for k in range(5):
        tcp.arrives(peer(seq=6, wnd=50_000 - k), at=1.1)
    assert not any(seg.data for seg in tcp.take())

    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(congestion="newreno"))
    duplicates(tcp, 5)
    tcp.sends_nothing()


def test_duplicates_are_counted_anew_after_progress(a_connection: Maker) -> None:
    """RFC 5681 §3.2."""
    tcp = plain(a_connection)
    duplicates(tcp, 2, at=1.1)
    tcp.arrives(peer(ack=1001, wnd=60_000), at=1.1)
    duplicates(tcp, 2, ack=1001, at=1.1)
    tcp.sends_nothing()
    duplicates(tcp, 1, ack=1001, at=1.1)
    tcp.sends_stream((1001, MSS))


# ---- NewReno (RFC 6582) ------------------------------------------------------------------------------------


def test_a_partial_ack_brings_the_next_lost_segment(a_connection: Maker) -> None:
    """RFC 6582 §3.2, step 3: without waiting for duplicates."""
    tcp = plain(a_connection)
    duplicates(tcp, 7, at=1.1)
    tcp.take()
    for at in (3001, 7001):
        tcp.arrives(peer(ack=at, wnd=60_000), at=tcp.now + 0.1)
        tcp.sends_stream((at, MSS))
    tcp.arrives(peer(ack=10_001, wnd=60_000), at=1.5)
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_a_partial_ack_brings_it_however_few_duplicates_came(a_connection: Maker) -> None:
    """RFC 6582 §3.2 step 5: at once, though more is in flight than the halved window allows."""
    tcp = plain(a_connection)
    duplicates(tcp, 3, at=1.1)
    tcp.sends_stream((1, MSS))
    tcp.arrives(peer(ack=4001, wnd=60_000), at=1.2)
    tcp.sends_stream((4001, MSS))


def test_after_a_time_out_old_duplicates_do_not_bring_a_segment_once_more(a_connection: Maker) -> None:
    """RFC 6582 §3.2, step 1, §4: the peer answers what was sent twice with duplicates."""
    tcp = plain(a_connection)
    tcp.waits_until(2.0)
    tcp.sends_stream((1, MSS))
    tcp.arrives(peer(ack=10_001, wnd=60_000), at=2.1)  # only the first was lost
    tcp.send(stream(4000, at=10_001))
    tcp.take()
    duplicates(tcp, 3, ack=10_001, at=2.2)
    assert tcp.snd_una == 10_001
    assert (10_001, MSS) not in [(seg.seq - 1000, len(seg.data)) for seg in tcp.take()]


# ---- SACK (RFC 6675) ---------------------------------------------------------------------------------------


def sacked(a_connection: Maker, *, rack: bool, rtt: float = 0.1, flight: int = 10, **settings: object) -> Script:
    """With SACK. One segment was acknowledged after `rtt`; `flight` more are in flight since 2.0."""
    tcp = a_connection(in_state=State.SYN_SENT, settings=config(sack=True, rack=rack, **settings), offers=SACK_OFFERED)
    tcp.arrives(peer(seq=0, flags=2, options=SACK_OFFERED, wnd=60_000), at=rtt)
    tcp.send(stream(MSS), at=1.0)
    tcp.arrives(peer(ack=1001, wnd=60_000), at=1.0 + rtt)
    tcp.send(stream(flight * MSS, at=1001), at=2.0)
    tcp.take()
    assert tcp.snd_nxt == 1001 + flight * MSS
    return tcp


def told(tcp: Script, *blocks: tuple[int, int], ack: int = 1001, at: float | None = None) -> None:
    """An ACK with these blocks comes."""
    tcp.arrives(peer(ack=ack, wnd=60_000, options=sacks(*blocks)), at=at)


def test_a_segment_below_three_sacked_ones_is_lost(a_connection: Maker) -> None:
    """RFC 6675 §4, IsLost: DupThresh."""
    tcp = sacked(a_connection, rack=False)
    told(tcp, (2001, 3001), at=2.1)
    told(tcp, (2001, 4001), at=2.1)
    tcp.sends_nothing()
    told(tcp, (2001, 5001), at=2.1)
    tcp.sends_stream((1001, MSS))


def test_three_sacked_segments_are_enough_however_small_they_are(a_connection: Maker) -> None:
    """RFC 6675 §4, IsLost: by their number, or by their bytes."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(sack=True, rack=False), offers=SACK_OFFERED)
    for at in range(1, 601, 100):
        tcp.send(stream(100, at=at), at=1.0)
    tcp.take()
    told(tcp, (101, 301), ack=1, at=1.1)
    tcp.sends_nothing()
    told(tcp, (101, 401), ack=1, at=1.1)
    tcp.sends_stream((1, 100))


def test_only_what_is_missing_is_sent_again_and_that_once(a_connection: Maker) -> None:
    """RFC 6675 §5: the gaps, not what lies between them."""
    tcp = sacked(a_connection, rack=False)
    told(tcp, (2001, 4001), at=2.1)
    told(tcp, (5001, 6001), (2001, 4001), at=2.1)
    told(tcp, (5001, 7001), (2001, 4001), at=2.1)
    told(tcp, (5001, 8001), (2001, 4001), at=2.1)
    told(tcp, (5001, 11_001), (2001, 4001), at=2.1)
    tcp.sends_stream((1001, MSS), (4001, MSS))
    tcp.arrives(peer(ack=11_001, wnd=60_000), at=2.2)
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_blocks_that_make_no_sense_are_not_believed(a_connection: Maker) -> None:
    """RFC 2018 §8, RFC 6675 §4: outside of what is in flight, turned round, empty."""
    tcp = sacked(a_connection, rack=False)
    for block in ((100_000, 200_000), (5001, 3001), (4001, 4001), (-9000, -8000), (10_001, 20_001)):
        told(tcp, block, at=2.1)
    tcp.sends_nothing()
    tcp.arrives(peer(ack=11_001, wnd=60_000), at=2.2)
    assert tcp.snd_una == 11_001


def test_what_a_peer_has_taken_back_is_sent_again(a_connection: Maker) -> None:
    """RFC 2018 §8: it may drop what it has SACKed; only the acknowledgement counts."""
    tcp = sacked(a_connection, rack=False, flight=4)
    told(tcp, (2001, 5001), at=2.1)
    tcp.take()
    come: set[int] = set()
    ack = 1001
    while ack < 5001:
        tcp.waits_until(tcp.now + 1.0)
        assert tcp.now < 100
        come |= {seg.seq - 1000 for seg in tcp.take() if seg.data}
        while ack in come:
            ack += MSS
        tcp.arrives(peer(ack=ack, wnd=60_000))


def test_sack_wraps(a_connection: Maker) -> None:
    """§3.4: modulo 2^32."""
    tcp = a_connection(
        in_state=State.ESTABLISHED,
        settings=config(sack=True, rack=False),
        offers=SACK_OFFERED,
        iss=2**32 - 1500,
    )
    tcp.send(stream(4000), at=1.0)
    tcp.take()
    told(tcp, (1001, 4001), ack=1, at=1.1)
    tcp.sends_stream((1, MSS))


# ---- RACK (RFC 8985 §6) ------------------------------------------------------------------------------------


def test_what_was_sent_before_something_that_arrived_is_lost_after_the_reordering_window(
    a_connection: Maker,
) -> None:
    """RFC 8985 §6.2: one SACKed segment is enough; a quarter of the round trip, 25 ms, is left for reordering."""
    tcp = sacked(a_connection, rack=True)
    told(tcp, (2001, 3001), at=2.1)
    tcp.sends_nothing()
    tcp.sends_stream((1001, MSS), at=2.125)


def test_reordering_is_tolerated(a_connection: Maker) -> None:
    """RFC 8985 §3.2: what comes a little late was not lost."""
    tcp = sacked(a_connection, rack=True, flight=2)
    told(tcp, (2001, 3001), at=2.1)
    tcp.arrives(peer(ack=3001, wnd=60_000), at=2.11)
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_three_sacked_segments_need_no_reordering_window(a_connection: Maker) -> None:
    """RFC 8985 §6.2, step 4: as long as no reordering was seen."""
    tcp = sacked(a_connection, rack=True)
    told(tcp, (2001, 5001), at=2.1)
    tcp.sends_stream((1001, MSS))


def test_once_reordering_was_seen_three_sacked_segments_are_not_enough(a_connection: Maker) -> None:
    """RFC 8985 §6.2, step 4."""
    tcp = sacked(a_connection, rack=True)
    told(tcp, (2001, 3001), at=2.1)
    tcp.arrives(peer(ack=3001, wnd=60_000), at=2.11)  # 1001 was late, not lost
    told(tcp, (4001, 7001), ack=3001, at=2.12)
    tcp.sends_nothing()
    tcp.waits_until(2.2)
    tcp.sends_stream((3001, MSS))


def test_a_lost_retransmission_is_found(a_connection: Maker) -> None:
    """RFC 8985 §6: what was sent after it arrives, it doesn't; RFC 6675 would need the time-out."""
    tcp = sacked(a_connection, rack=True, flight=4)
    told(tcp, (2001, 5001), at=2.1)
    tcp.sends_stream((1001, MSS))
    tcp.send(stream(MSS, at=5001), at=2.11)
    tcp.sends_stream((5001, MSS))
    told(tcp, (2001, 6001), at=2.21)
    tcp.waits_until(2.4)
    tcp.sends_stream((1001, MSS))


def test_what_lies_behind_the_last_that_arrived_is_not_lost(a_connection: Maker) -> None:
    """RFC 8985 §6.2: it was sent later."""
    tcp = sacked(a_connection, rack=True, flight=10)
    told(tcp, (2001, 3001), at=2.1)
    tcp.waits_until(2.15)
    tcp.sends_stream((1001, MSS))


def test_what_left_before_a_retransmission_at_the_same_moment_says_nothing_of_it(a_connection: Maker) -> None:
    """RFC 8985 §6.2, step 5: new data that left before the copy arrives; the copy itself is still on its way."""
    tcp = sacked(a_connection, rack=True, flight=4)
    tcp.send(stream(3 * MSS, at=5001), at=2.1)
    told(tcp, (2001, 5001), at=2.1)
    tcp.sends_stream((5001, MSS), (6001, MSS), (7001, MSS), (1001, MSS))
    told(tcp, (2001, 6001), at=2.2)  # that of 5001 comes first, for it has left first
    told(tcp, (2001, 7001), at=2.2)
    tcp.sends_nothing()
    told(tcp, (2001, 8001), at=2.2)
    tcp.arrives(peer(ack=8001, wnd=60_000), at=2.2)
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_what_left_after_a_retransmission_at_the_same_moment_tells_of_its_loss(a_connection: Maker) -> None:
    """RFC 8985 §6.2, step 5: as if it had left later."""
    tcp = sacked(a_connection, rack=True, flight=4)
    told(tcp, (2001, 5001), at=2.1)
    tcp.send(stream(MSS, at=5001), at=2.1)
    tcp.sends_stream((1001, MSS), (5001, MSS))
    told(tcp, (2001, 6001), at=2.2)
    tcp.sends_stream((1001, MSS))


# ---- the tail loss probe (RFC 8985 §7) ---------------------------------------------------------------------


def test_a_lost_tail_is_probed_before_the_time_out(a_connection: Maker) -> None:
    """RFC 8985 §7.3: after two round trips the last segment goes again; its SACK tells what else is missing."""
    tcp = sacked(a_connection, rack=True, flight=3)
    tcp.sends_stream((3001, MSS), at=2.2)
    told(tcp, (3001, 4001), at=2.31)
    tcp.waits_until(2.35)
    tcp.sends_stream((1001, MSS), (2001, MSS))


def test_a_probe_is_new_data_where_there_is_some(a_connection: Maker) -> None:
    """RFC 8985 §7.3: "a previously unsent data segment, if one exists and the receive window allows"."""
    tcp = sacked(a_connection, rack=True, flight=2, congestion="newreno", initial_window=2)
    tcp.send(stream(3 * MSS, at=3001))
    before = tcp.take()
    at = 3001 + sum(len(seg.data) for seg in before)
    tcp.waits_until(2.2)
    tcp.sends_stream((at, MSS))


def test_a_single_segment_is_probed_before_the_time_out_too(a_connection: Maker) -> None:
    """RFC 8985 §7.2: perhaps a little later, for the peer may delay its acknowledgement."""
    tcp = sacked(a_connection, rack=True, flight=1)
    tcp.waits_until(2.199)
    tcp.sends_nothing()
    tcp.waits_until(2.9)
    tcp.sends_stream((1001, MSS))


def test_one_probe_then_the_time_out(a_connection: Maker) -> None:
    """RFC 8985 §7.3: "the sender MUST re-arm the RTO timer"."""
    tcp = sacked(a_connection, rack=True, flight=3)
    tcp.waits_until(2.2)
    tcp.sends_stream((3001, MSS))
    tcp.waits_until(3.19)
    tcp.sends_nothing()
    tcp.sends_stream((1001, MSS), at=3.2)


def test_a_probe_that_was_not_needed_does_no_harm(a_connection: Maker) -> None:
    """RFC 8985 §7.4.2: the peer says so by D-SACK."""
    tcp = sacked(a_connection, rack=True, flight=3)
    tcp.waits_until(2.2)
    tcp.take()
    tcp.arrives(peer(ack=4001, wnd=60_000), at=2.21)
    told(tcp, (3001, 4001), ack=4001, at=2.3)
    tcp.waits_until(100.0)
    tcp.sends_nothing()
    assert tcp.snd_una == 4001


def test_without_rack_there_is_no_probe(a_connection: Maker) -> None:
    """The setting `rack`."""
    tcp = sacked(a_connection, rack=False, flight=3)
    tcp.waits_until(2.9)
    tcp.sends_nothing()


def test_the_probe_is_never_later_than_the_time_out_and_goes_in_its_place(a_connection: Maker) -> None:
    """RFC 8985 §7.2: over a long path without variation two round trips are more than the RTO."""
    tcp = sacked(a_connection, rack=True, rtt=1.0, flight=2)
    for k in range(40):
        tcp.arrives(peer(ack=3001 + k * MSS, wnd=60_000), at=3.0 + k)
        tcp.send(stream(MSS, at=3001 + k * MSS), at=3.0 + k)
    tcp.send(stream(MSS, at=43_001), at=42.0)
    tcp.take()
    tcp.waits_until(43.1)
    tcp.sends_stream((43_001, MSS))  # the last, not the first


def test_a_peer_without_d_sack_tells_by_a_duplicate_ack_that_a_probe_was_not_needed(a_connection: Maker) -> None:
    """RFC 8985 §7.4.2, case 2: so the congestion window stays."""
    tcp = sacked(a_connection, rack=True, congestion="newreno")
    tcp.waits_until(2.2)
    tcp.sends_stream((10_001, MSS))
    tcp.arrives(peer(ack=11_001, wnd=60_000), at=2.21)
    tcp.arrives(peer(ack=11_001, wnd=60_000), at=2.3)
    tcp.send(stream(40_000, at=11_001), at=2.4)
    tcp.arrives(peer(ack=12_001, wnd=60_000), at=2.5)
    assert tcp.snd_nxt - tcp.snd_una >= 10 * MSS


def test_a_second_probe_needs_a_round_trip_to_be_measured_first(a_connection: Maker) -> None:
    """RFC 8985 §7.3: else probes, sent twice, would keep the path from being measured; then the time-out repairs."""
    tcp = sacked(a_connection, rack=True, flight=1)
    tcp.waits_until(2.9)
    tcp.sends_stream((1001, MSS))
    tcp.arrives(peer(ack=2001, wnd=60_000), at=2.95)  # of which copy?
    tcp.send(stream(MSS, at=2001), at=10.0)
    tcp.take()
    tcp.sends_stream((2001, MSS), at=11.0)


def test_after_a_time_out_what_was_sent_just_now_is_not_lost(a_connection: Maker) -> None:
    """RFC 8985 §6.3."""
    tcp = sacked(a_connection, rack=True, flight=1)
    tcp.waits_until(2.9)
    tcp.sends_stream((1001, MSS))  # the probe
    tcp.send(stream(MSS, at=2001), at=3.38)
    tcp.sends_stream((2001, MSS))
    tcp.waits_until(3.41)
    tcp.sends_stream((1001, MSS))
    tcp.arrives(peer(ack=2001, wnd=60_000), at=3.45)
    tcp.sends_nothing()
    tcp.arrives(peer(ack=3001, wnd=60_000), at=3.50)
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_each_round_trip_with_d_sack_widens_the_reordering_window_by_a_quarter(a_connection: Maker) -> None:
    """RFC 8985 §6.2, step 4: two in the same round trip are one step."""
    tcp = sacked(a_connection, rack=True)
    told(tcp, (1, 501), at=2.05)
    told(tcp, (501, 1001), at=2.05)
    told(tcp, (2001, 3001), at=2.1)
    tcp.waits_until(2.149)
    tcp.sends_nothing()
    tcp.sends_stream((1001, MSS), at=2.15)


def test_the_ack_of_the_first_copy_tells_nothing_of_the_second(a_connection: Maker) -> None:
    """RFC 8985 §6.2, step 2: the timestamp says which one has arrived."""
    offers = Options(mss=MSS, sack_permitted=True, timestamp=(0, 0))
    tcp = a_connection(
        in_state=State.SYN_SENT, settings=config(sack=True, rack=True, timestamps=True, rto_min=0.2), offers=offers
    )
    tcp.arrives(peer(seq=0, flags=2, options=offers, wnd=60_000), at=0.01)
    length = MSS - 12
    tcp.send(stream(4 * length), at=1.0)
    stamp = _stamp_of(tcp.take()[-1])
    tcp.waits_until(1.3)  # the probe, then the time-out: the first segment goes again
    assert tcp.take()[-1].seq - 1000 == 1
    first_copy = Options(sack=sacks((1 + length, 1 + 2 * length)).sack, timestamp=(2000, stamp))
    sent_before = tcp.now
    tcp.arrives(peer(ack=1 + length, wnd=60_000, options=first_copy), at=sent_before + 0.03)
    assert all(seg.seq - 1000 > length for seg in tcp.take())


def _stamp_of(seg: Segment) -> int:
    assert seg.options is not None
    assert seg.options.timestamp is not None
    return seg.options.timestamp[0]


@pytest.mark.parametrize("rack", [True, False])
def test_limited_transmit_with_sack_does_not_count_either(a_connection: Maker, rack: bool) -> None:
    """RFC 6675 §5, step 4.2: ten segments were in flight, so five are left."""
    tcp = sacked(a_connection, rack=rack, congestion="newreno", initial_window=10, send_buffer=100_000)
    tcp.send(stream(30_000, at=11_001), at=2.05)
    before = tcp.snd_nxt - tcp.snd_una
    for k in range(3):
        told(tcp, (2001, 3001 + k * MSS), at=2.1)
    tcp.arrives(peer(ack=tcp.snd_nxt, wnd=60_000), at=2.2)
    assert tcp.snd_nxt - tcp.snd_una in (before // 2 // MSS * MSS, (before // 2 // MSS + 1) * MSS)
