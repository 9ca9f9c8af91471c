"""Options: window scaling, timestamps and PAWS (RFC 7323), SACK blocks (RFC 2018, 2883). MSS is in test_data.py."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from chitcpd.tcp.api import ACK, FIN, RST, SYN, Options, Segment, State
from tests.tcp.harness import (
    IRS,
    ISS,
    MSS,
    SYN_ACK_FROM_PEER,
    SYN_FROM_PEER,
    WINDOW,
    Maker,
    Script,
    config,
    peer,
    stream,
    us,
)

pytestmark = pytest.mark.stage("options")


def options_of(seg: Segment) -> Options:
    return seg.options if seg.options is not None else Options()


# ---- which are used ----------------------------------------------------------------------------------------

ALL = config(window_scaling=True, timestamps=True, sack=True, receive_buffer=1 << 20)
ALL_OFFERED = Options(mss=MSS, window_scale=3, sack_permitted=True, timestamp=(1000, 0))


@pytest.mark.rfc9293("MUST-4")
def test_a_syn_offers_what_is_set(a_connection: Maker) -> None:
    """RFC 7323 §2.2, §3.2, RFC 2018 §2."""
    for on in (True, False):
        tcp = a_connection(
            in_state=State.CLOSED, settings=config(window_scaling=on, timestamps=on, sack=on, receive_buffer=1 << 20)
        )
        tcp.open(active=True)
        offered = options_of(tcp.sends_one())
        assert (offered.window_scale is not None) == on
        assert offered.sack_permitted == on
        assert (offered.timestamp is not None) == on
        assert offered.sack == ()
        assert offered.timestamp is None or offered.timestamp[1] == 0  # RFC 7323 §3.2: there is nothing to echo yet


def test_an_answer_offers_only_what_was_offered(a_connection: Maker) -> None:
    """RFC 7323 §1.3: options in a SYN,ACK only if the SYN had them."""
    for offers in (Options(mss=MSS), ALL_OFFERED):
        tcp = a_connection(in_state=State.LISTEN, settings=ALL)
        tcp.arrives(replace(SYN_FROM_PEER, options=offers))
        answer = options_of(tcp.sends_one())
        assert (answer.window_scale is not None) == (offers.window_scale is not None)
        assert answer.sack_permitted == offers.sack_permitted
        assert (answer.timestamp is not None) == (offers.timestamp is not None)


@pytest.mark.rfc9293("MUST-5", "MUST-6")
def test_an_option_that_was_not_agreed_is_ignored(a_connection: Maker) -> None:
    """RFC 7323 §3.2: "the TSopt MUST be ignored and the packet processed normally"; so for the others."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(timestamps=True, sack=True, window_scaling=True))
    strange = Options(mss=1, window_scale=14, sack_permitted=True, sack=((ISS + 1, ISS + 500),), timestamp=(7, 7))
    tcp.arrives(peer(b"abc", options=strange))
    seg = tcp.sends_one()
    assert (seg.ack - IRS, options_of(seg).timestamp) == (4, None)
    assert tcp.connection.snd_wnd == WINDOW
    tcp.send(stream(1500))
    assert [len(seg.data) for seg in tcp.sends_to_the_end()] == [MSS, 500]


# ---- window scaling (RFC 7323 §2) --------------------------------------------------------------------------


def scaling(a_connection: Maker, receive_buffer: int, offers: int | None = 0) -> Script:
    settings = config(window_scaling=True, receive_buffer=receive_buffer, send_buffer=1 << 17)
    return a_connection(in_state=State.CLOSED, settings=settings, offers=Options(mss=MSS, window_scale=offers))


@pytest.mark.parametrize(
    ("receive_buffer", "shift"), [(0xFFFF, 0), (1 << 20, 5), (0xFFFF << 7, 7), (0xFFFF << 14, 14), (1 << 31, 14)]
)
def test_our_shift_is_large_enough_for_the_buffer_and_never_above_14(
    a_connection: Maker, receive_buffer: int, shift: int
) -> None:
    """RFC 7323 §2.3."""
    tcp = scaling(a_connection, receive_buffer)
    tcp.open(active=True)
    offered = options_of(tcp.sends_one()).window_scale or 0
    assert shift <= offered <= 14


def test_the_window_in_a_syn_is_never_scaled(a_connection: Maker) -> None:
    """RFC 7323 §2.2: neither ours nor the peer's."""
    tcp = scaling(a_connection, 1 << 20, offers=7)
    tcp.open(active=True)
    assert tcp.sends_one().wnd == 0xFFFF
    tcp.arrives(replace(SYN_ACK_FROM_PEER, options=tcp.offers))
    assert tcp.connection.snd_wnd == WINDOW

    tcp = scaling(a_connection, 1 << 20, offers=7)
    tcp.open(active=False)
    tcp.arrives(replace(SYN_FROM_PEER, options=tcp.offers))
    assert tcp.sends_one().wnd == 0xFFFF
    tcp.arrives(peer(wnd=100))
    assert tcp.connection.snd_wnd == 100 << 7


def test_all_other_windows_are_scaled(a_connection: Maker) -> None:
    """RFC 7323 §2.3."""
    tcp = scaling(a_connection, 1 << 20, offers=3)
    tcp.open(active=True)
    shift = options_of(tcp.sends_one()).window_scale
    assert shift
    tcp.arrives(replace(SYN_ACK_FROM_PEER, options=tcp.offers))
    assert tcp.sends_one().wnd << shift == 1 << 20
    tcp.arrives(peer(wnd=10_000))
    assert tcp.connection.snd_wnd == 80_000
    tcp.send(stream(100_000))
    assert sum(len(seg.data) for seg in tcp.take()) == 80_000


@pytest.mark.rfc9293("REC-1", "MUST-1")
def test_a_shift_of_14_makes_a_window_of_a_gigabyte(a_connection: Maker) -> None:
    """RFC 7323 §2.2: windows have 32 bits, without a sign."""
    tcp = scaling(a_connection, 0xFFFF << 14, offers=14)
    tcp.open(active=True)
    tcp.arrives(replace(SYN_ACK_FROM_PEER, options=tcp.offers))
    assert tcp.take()[-1].wnd == 0xFFFF
    tcp.arrives(peer(wnd=0xFFFF))
    assert tcp.connection.snd_wnd == 0xFFFF << 14
    assert tcp.connection.rcv_wnd == 0xFFFF << 14
    far = 1_000_000_000
    tcp.arrives(peer(b"far", seq=far))  # within that window
    tcp.sends(us())


def test_nothing_is_scaled_if_the_peer_does_not_offer_it(a_connection: Maker) -> None:
    """RFC 7323 §2.2: "both sides MUST send Window Scale options in their <SYN> segments"."""
    tcp = scaling(a_connection, 1 << 20, offers=None)
    tcp.open(active=True)
    tcp.take()
    tcp.arrives(replace(SYN_ACK_FROM_PEER, options=tcp.offers))
    assert tcp.sends_one().wnd == 0xFFFF
    assert tcp.connection.snd_wnd == WINDOW
    for at in range(1, 60_000, 1000):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        tcp.receive()
    assert tcp.take()[-1].wnd >= 0xFFFF - 1000


def test_a_tiny_mss_is_not_obeyed(a_connection: Maker) -> None:
    """Else it could have each byte in a segment of its own, at forty times its own cost."""
    tcp = a_connection(in_state=State.ESTABLISHED, offers=Options(mss=1))
    tcp.send(stream(400))
    assert len(tcp.sends_to_the_end()) <= 10


@pytest.mark.rfc9293("SHLD-14")
def test_a_scaled_right_edge_moves_left_by_less_than_the_field_can_say(a_connection: Maker) -> None:
    """RFC 7323 §2.4: rounding may seem to take back a little; what was promised once is taken all the same."""
    tcp = scaling(a_connection, 1_000_001, offers=0)
    tcp.open(active=True)
    shift = options_of(tcp.sends_one()).window_scale
    assert shift
    tcp.arrives(replace(SYN_ACK_FROM_PEER, options=tcp.offers))
    edges, at = [0], 1
    for k in range(200):
        length = 1 + k * 37 % 999
        tcp.arrives(peer(stream(length, at=at), seq=at))
        at += length
        if k % 7 == 0:
            tcp.receive(k * 13)
        for seg in tcp.take():
            edges.append(seg.ack - IRS + (seg.wnd << shift))
            assert edges[-1] > max(edges) - (1 << shift)
    tcp.arrives(peer(stream(1, at=0), seq=max(edges) - 1), peer(seq=max(edges)))
    assert not options_of(tcp.take()[0]).sack
    while at < max(edges) - 1:
        length = min(1000, max(edges) - 1 - at)
        tcp.arrives(peer(stream(length), seq=at))
        at += length
    assert tcp.rcv_nxt == max(edges)


def test_small_segments_do_not_push_the_window_beyond_the_buffer(a_connection: Maker) -> None:
    """RFC 7323 §2.4: rounding up with each ACK would promise more and more room that isn't there."""
    tcp = scaling(a_connection, 1 << 20, offers=0)
    tcp.open(active=True)
    tcp.arrives(replace(SYN_ACK_FROM_PEER, options=tcp.offers))
    for at in range(1, 1_000_000, 1000):
        tcp.arrives(peer(stream(1000), seq=at))
    for at in range(1_000_001, 1_100_000, 31):
        tcp.arrives(peer(stream(31), seq=at))
    assert tcp.connection.readable <= 1 << 20


# ---- SACK: what a receiver tells (RFC 2018 §4) -------------------------------------------------------------

SACK_OFFERED = Options(mss=MSS, sack_permitted=True)


def sacking(a_connection: Maker, **settings: object) -> Script:
    return a_connection(in_state=State.ESTABLISHED, settings=config(sack=True, **settings), offers=SACK_OFFERED)


def comes(tcp: Script, at: int, length: int = 1000) -> tuple[int, list[tuple[int, int]]]:
    """Text comes at `at`; the acknowledgement and the blocks that answer it, counted from the peer's ISS."""
    tcp.arrives(peer(stream(length, at=at), seq=at))
    seg = tcp.sends_one()
    return seg.ack - IRS, [(first - IRS, behind - IRS) for first, behind in options_of(seg).sack]


def test_the_block_with_the_newest_segment_comes_first(a_connection: Maker) -> None:
    """RFC 2018 §4: "the first SACK block MUST specify the contiguous block of data containing the segment"."""
    tcp = sacking(a_connection)
    assert comes(tcp, 1) == (1001, [])
    assert comes(tcp, 2001) == (1001, [(2001, 3001)])
    assert comes(tcp, 6001) == (1001, [(6001, 7001), (2001, 3001)])
    assert comes(tcp, 4001) == (1001, [(4001, 5001), (6001, 7001), (2001, 3001)])
    assert comes(tcp, 3001) == (1001, [(2001, 5001), (6001, 7001)])


def test_blocks_go_when_the_gap_is_filled(a_connection: Maker) -> None:
    """RFC 2018 §4: only what lies beyond the acknowledgement is told."""
    tcp = sacking(a_connection)
    comes(tcp, 1001)
    assert comes(tcp, 3001) == (1, [(3001, 4001), (1001, 2001)])
    assert comes(tcp, 1) == (2001, [(3001, 4001)])
    assert comes(tcp, 2001) == (4001, [])


def test_as_many_blocks_as_the_header_holds(a_connection: Maker) -> None:
    """RFC 2018 §3: four, or three beside a timestamp; the newest."""
    tcp = sacking(a_connection)
    for at in range(1001, 6000, 1000):
        ack, blocks = comes(tcp, at, 500)
    assert (ack, blocks) == (1, [(5001, 5501), (4001, 4501), (3001, 3501), (2001, 2501)])

    offers = replace(SACK_OFFERED, timestamp=(1000, 0))
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(sack=True, timestamps=True), offers=offers)
    for at in range(1001, 6000, 1000):
        ack, blocks = comes(tcp, at, 500)
    assert (ack, blocks) == (1, [(5001, 5501), (4001, 4501), (3001, 3501)])


@pytest.mark.parametrize("with_data", [True, False])
def test_a_fin_beyond_a_gap_is_told_of_too(a_connection: Maker, with_data: bool) -> None:
    """RFC 9293 §3.4: it has a sequence number, and a sender that hears of it need not wait for its time-out."""
    tcp = sacking(a_connection)
    text = stream(1000, at=1001) if with_data else b""
    tcp.arrives(peer(text, seq=1001, flags=FIN))
    assert options_of(tcp.sends_one()).sack == ((IRS + 1001, IRS + 1002 + len(text)),)
    tcp.arrives(peer(stream(1000)))
    answer = tcp.sends_one()
    assert (answer.ack - IRS, options_of(answer).sack) == (1002 + len(text), ())


def test_blocks_wrap(a_connection: Maker) -> None:
    """§3.4: modulo 2^32."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(sack=True), offers=SACK_OFFERED, irs=2**32 - 2000)
    tcp.arrives(peer(stream(1000, at=1501), seq=1501))
    tcp.take()
    tcp.arrives(peer(stream(1000, at=2501), seq=2501))
    assert options_of(tcp.sends_one()).sack == ((IRS + 1501, IRS + 3501),)


def test_no_blocks_without_agreement(a_connection: Maker) -> None:
    """RFC 2018 §2."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(sack=True))
    assert comes(tcp, 2001) == (1, [])


# ---- D-SACK (RFC 2883 §4) ----------------------------------------------------------------------------------


def test_what_was_acknowledged_already_is_told_as_a_duplicate_once(a_connection: Maker) -> None:
    """RFC 2883 §4.1.1, example 1."""
    tcp = sacking(a_connection)
    comes(tcp, 1)
    comes(tcp, 1001)
    assert comes(tcp, 1) == (2001, [(1, 1001)])
    assert comes(tcp, 2001) == (3001, [])


def test_a_duplicate_comes_before_what_is_ahead_of_the_gap(a_connection: Maker) -> None:
    """RFC 2883 §4.1.2, example 2."""
    tcp = sacking(a_connection)
    comes(tcp, 1)
    comes(tcp, 2001)
    assert comes(tcp, 1) == (1001, [(1, 1001), (2001, 3001)])


def test_a_duplicate_ahead_of_the_gap_comes_before_its_block(a_connection: Maker) -> None:
    """RFC 2883 §4.1.3, example 3."""
    tcp = sacking(a_connection)
    comes(tcp, 2001)
    comes(tcp, 3001)
    assert comes(tcp, 3001) == (1, [(3001, 4001), (2001, 4001)])


def test_the_block_around_a_duplicate_is_the_second_also_if_it_is_an_old_one(a_connection: Maker) -> None:
    """RFC 2883 §4 (4)."""
    tcp = sacking(a_connection)
    comes(tcp, 2001)
    comes(tcp, 5001)
    assert comes(tcp, 2001) == (1, [(2001, 3001), (2001, 3001), (5001, 6001)])


def test_a_duplicate_is_told_of_the_newest_segment_only(a_connection: Maker) -> None:
    """RFC 2883 §4 (1): "in the most recent packet"; not minutes later, if data of ours has carried the ACK."""
    tcp = sacking(a_connection)
    tcp.send(stream(5000))
    tcp.arrives(peer(stream(1000)))
    tcp.arrives(peer(stream(1000, at=501), seq=501, ack=1001))  # half of it came before; it lets our data flow
    tcp.arrives(peer(seq=1501, ack=5001))
    assert [options_of(seg).sack for seg in tcp.take() if options_of(seg).sack] == [((IRS + 501, IRS + 1001),)]
    tcp.arrives(peer(stream(1000, at=1501), seq=1501, ack=5001))
    assert options_of(tcp.sends_one()).sack == ()


def test_the_part_of_a_segment_that_came_twice_is_told(a_connection: Maker) -> None:
    """RFC 2883 §4.2.1, example 4."""
    tcp = sacking(a_connection)
    comes(tcp, 1)
    assert comes(tcp, 501, 1000) == (1501, [(501, 1001)])


# ---- timestamps (RFC 7323 §3) ------------------------------------------------------------------------------

TIMED = config(timestamps=True, send_buffer=64_000)
TIME_OFFERED = Options(mss=MSS, timestamp=(1000, 0))


def timed(a_connection: Maker, **settings: object) -> Script:
    return a_connection(in_state=State.ESTABLISHED, settings=config(timestamps=True, **settings), offers=TIME_OFFERED)


def stamped(data: bytes = b"", *, seq: int = 1, value: int, flags: int = 0, ack: int = 1) -> Segment:
    return peer(data, seq=seq, ack=ack, flags=flags, options=Options(timestamp=(value, 0)))


def echo(seg: Segment) -> int:
    timestamp = options_of(seg).timestamp
    assert timestamp is not None
    return timestamp[1]


def test_once_agreed_every_segment_has_a_timestamp(a_connection: Maker) -> None:
    """RFC 7323 §3.2: "MUST be sent in every non-<RST> segment"."""
    tcp = timed(a_connection)
    tcp.arrives(peer(stream(1000)), at=1.0)
    tcp.send(stream(2500))
    tcp.waits_until(5.0)
    tcp.arrives(peer(seq=1001, ack=2501, flags=FIN))
    tcp.close()
    sent = tcp.take()
    assert len(sent) >= 5
    assert all(options_of(seg).timestamp is not None for seg in sent)


def test_a_timestamp_takes_its_room_from_the_data(a_connection: Maker) -> None:
    """RFC 6691 §3: the MSS does not count options, so the sender must; 12 bytes, with padding."""
    tcp = timed(a_connection)
    tcp.send(stream(2000))
    tcp.sends_stream((1, MSS - 12), (1 + MSS - 12, MSS - 12), (1 + 2 * (MSS - 12), 24))


def test_the_timestamp_clock_runs_with_time(a_connection: Maker) -> None:
    """RFC 7323 §5.4: 1 ms to 1 s per tick, and never backwards."""
    tcp = timed(a_connection)
    values = []
    for k in range(20):
        tcp.arrives(peer(stream(10, at=1 + 10 * k), seq=1 + 10 * k), at=10.0 * k)
        timestamp = options_of(tcp.sends_one()).timestamp
        assert timestamp is not None
        values.append(timestamp[0])
    steps = [(b - a) % 2**32 for a, b in pairwise(values)]
    assert all(10 <= step <= 10_000 for step in steps)
    assert max(steps) - min(steps) <= 1


def test_the_timestamp_of_the_last_segment_in_sequence_is_echoed(a_connection: Maker) -> None:
    """RFC 7323 §4.3 (B): "the last segment that advanced the window"."""
    tcp = timed(a_connection)
    tcp.arrives(stamped(stream(1000), value=2000))
    assert echo(tcp.sends_one()) == 2000
    tcp.arrives(stamped(stream(1000, at=2001), seq=2001, value=2010))
    assert echo(tcp.sends_one()) == 2000
    tcp.arrives(stamped(stream(1000, at=1001), seq=1001, value=2020))
    assert echo(tcp.sends_one()) == 2020


def test_a_delayed_acknowledgement_echoes_the_earliest(a_connection: Maker) -> None:
    """RFC 7323 §4.3 (A): so that the measured round trip contains the delay."""
    tcp = timed(a_connection, delayed_ack=0.2)
    tcp.arrives(stamped(stream(1000), value=2000))
    tcp.arrives(stamped(stream(1000, at=1001), seq=1001, value=2050))
    assert echo(tcp.sends_one()) == 2000


def test_a_segment_without_its_timestamp_is_dropped_in_silence(a_connection: Maker) -> None:
    """RFC 7323 §3.2."""
    tcp = timed(a_connection)
    tcp.arrives(peer(b"abc", options=Options()))
    tcp.sends_nothing()
    assert tcp.receive() == b""
    assert tcp.state == State.ESTABLISHED


# ---- PAWS (RFC 7323 §5) ------------------------------------------------------------------------------------


def test_an_old_duplicate_is_acknowledged_and_dropped(a_connection: Maker) -> None:
    """RFC 7323 §5.3, R1: its sequence number fits again after 2^32 bytes; its timestamp doesn't."""
    tcp = timed(a_connection)
    tcp.arrives(stamped(b"new", value=2000))
    tcp.take()
    tcp.arrives(stamped(b"old", seq=4, value=1999))
    seg = tcp.sends_one()
    assert (seg.ack - IRS, seg.flags, echo(seg)) == (4, ACK, 2000)
    tcp.arrives(stamped(b"two", seq=4, value=2000))
    assert tcp.receive() == b"newtwo"


def test_an_old_fin_is_dropped_too(a_connection: Maker) -> None:
    """RFC 7323 §5.3, R1."""
    tcp = timed(a_connection)
    tcp.arrives(stamped(b"new", value=2000))
    tcp.arrives(stamped(seq=4, value=1500, flags=FIN))
    assert tcp.state == State.ESTABLISHED


def test_a_forged_segment_does_not_set_the_clock(a_connection: Maker) -> None:
    """RFC 5961 §5.2 drops what acknowledges too much; were its timestamp kept, PAWS would drop the honest peer's."""
    tcp = timed(a_connection)
    tcp.arrives(stamped(b"x" * 100, value=2_000_000_000, ack=1_000_000))
    tcp.take()
    tcp.arrives(stamped(b"abc", value=20_001))
    assert tcp.receive() == b"abc"


def test_timestamps_wrap(a_connection: Maker) -> None:
    """RFC 7323 §5.2: compared modulo 2^32."""
    offers = Options(mss=MSS, timestamp=(2**32 - 10, 0))
    tcp = a_connection(in_state=State.ESTABLISHED, settings=TIMED, offers=offers)
    tcp.arrives(stamped(b"abc", value=2**32 - 1), stamped(b"def", seq=4, value=5))
    assert tcp.receive() == b"abcdef"
    tcp.arrives(stamped(b"old", seq=7, value=2**32 - 5))
    assert tcp.receive() == b""


def test_a_segment_outside_the_window_does_not_set_the_clock(a_connection: Maker) -> None:
    """RFC 7323 §5.3, R2 before R3: else an attacker could shut the peer out."""
    tcp = timed(a_connection)
    tcp.arrives(stamped(b"abc", seq=100_000, value=900_000), stamped(b"abc", seq=-5000, value=900_000))
    tcp.arrives(stamped(b"abc", value=2000))
    assert tcp.receive() == b"abc"


def test_a_connection_that_was_idle_for_24_days_trusts_any_clock(a_connection: Maker) -> None:
    """RFC 7323 §5.5: the peer's clock may have wrapped its sign bit since."""
    for days, taken in ((23, b""), (25, b"abc")):
        tcp = timed(a_connection)
        tcp.arrives(stamped(b"xyz", value=2000), at=1.0)
        tcp.receive()
        tcp.arrives(stamped(b"abc", seq=4, value=1000), at=1.0 + days * 86_400)
        assert tcp.receive() == taken


def test_a_reset_needs_no_timestamp(a_connection: Maker) -> None:
    """RFC 7323 §5.2: "the RST segment is not subject to the PAWS check"."""
    for options in (None, Options(), Options(timestamp=(1, 0))):
        tcp = timed(a_connection)
        tcp.connection.segment_arrives(Segment(IRS + 1, 0, RST, options=options), 1.0)
        assert tcp.state == State.CLOSED


def test_an_acknowledgement_is_measured_by_its_echo(a_connection: Maker) -> None:
    """RFC 7323 §4.1: a connection with timestamps has a round trip for each ACK of new data; data still flows."""
    tcp = a_connection(in_state=State.SYN_SENT, settings=config(timestamps=True, rto_min=0.01), offers=TIME_OFFERED)
    tcp.arrives(replace(SYN_ACK_FROM_PEER, options=TIME_OFFERED), at=0.1)
    at = 1
    for k in range(20):
        tcp.send(stream(100, at=at), at=1.0 + k)
        at += 100
        tcp.arrives(peer(ack=at), at=1.1 + k)
    tcp.take()
    tcp.send(stream(100, at=at), at=50.0)
    tcp.take()
    tcp.waits_until(50.09)
    tcp.sends_nothing()
    tcp.waits_until(50.2)
    assert tcp.take()[0].data == stream(100, at=at)


@pytest.mark.parametrize("state", [State.SYN_RCVD, State.ESTABLISHED])
def test_a_handshake_with_all_options_leads_to_a_connection(a_connection: Maker, state: State) -> None:
    """All of it together, both ways."""
    tcp = a_connection(in_state=state, settings=ALL, offers=ALL_OFFERED)
    tcp.arrives(peer(stream(500)), at=1.0)
    tcp.arrives(peer(stream(500, at=1001), seq=1001), at=1.1)
    seg = tcp.take()[-1]
    assert (seg.ack - IRS, options_of(seg).sack) == (501, ((IRS + 1001, IRS + 1501),))
    assert options_of(seg).timestamp is not None
    assert tcp.connection.snd_wnd == WINDOW << 3
    assert not seg.flags & SYN
