"""Flow control: windows that close, open, shrink and are silly. RFC 9293 sections 3.8.6, 3.8.6.1 and 3.8.6.2."""

from __future__ import annotations

import errno

import pytest

from chitcpd.tcp.api import ACK, FIN, RST, Options, Segment, State
from tests.tcp.harness import BUFFER, IRS, MSS, SYN_ACK_FROM_PEER, WINDOW, Maker, Script, config, peer, stream, us

pytestmark = pytest.mark.stage("flow control")


# ---- the peer's window, and ours as a sender ---------------------------------------------------------------


def test_no_more_is_in_flight_than_the_peer_has_room_for(a_connection: Maker) -> None:
    """§3.8.6: up to SND.UNA + SND.WND."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(10_000))
    assert sum(len(seg.data) for seg in tcp.take()) == WINDOW
    tcp.arrives(peer(ack=1001, wnd=WINDOW - 1000))  # taken, and not read yet
    tcp.sends_nothing()
    tcp.arrives(peer(ack=1001, wnd=WINDOW))  # read
    tcp.sends_stream((4001, 1000))


def test_a_window_update_alone_lets_data_flow(a_connection: Maker) -> None:
    """§3.10.7.4, fifth: the same SEG.ACK with another window."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(6000))
    tcp.take()
    tcp.arrives(peer(wnd=6000))
    tcp.sends_stream((4001, 1000), (5001, 1000))


def test_an_old_segment_does_not_set_the_window(a_connection: Maker) -> None:
    """§3.10.7.4, fifth: SND.WL1 and SND.WL2 are there for this."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc", wnd=2000))
    tcp.arrives(peer(b"ef", seq=2, wnd=9000))  # an older SEG.SEQ
    assert tcp.connection.snd_wnd == 2000
    tcp.send(stream(1500))
    tcp.arrives(peer(seq=4, ack=1001, wnd=2000))
    tcp.arrives(peer(seq=4, ack=501, wnd=9000))  # an older SEG.ACK
    assert tcp.connection.snd_wnd == 2000


@pytest.mark.rfc9293("MUST-1", "REC-1")
def test_the_window_is_a_number_without_sign(a_connection: Maker) -> None:
    """§3.1: 65535 is much, not -1."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(send_buffer=100_000))
    tcp.arrives(peer(wnd=0xFFFF))
    tcp.send(stream(100_000))
    assert sum(len(seg.data) for seg in tcp.take()) in (65_000, 65_535)


@pytest.mark.rfc9293("MUST-34", "SHLD-15")
def test_a_window_that_shrinks_stops_new_data_and_does_no_harm(a_connection: Maker) -> None:
    """§3.8.6: the usable window becomes negative."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(6000))
    tcp.take()
    tcp.arrives(peer(wnd=1000), at=0.1)
    tcp.sends_nothing()
    tcp.send(stream(100, at=6001))
    tcp.sends_nothing()
    tcp.arrives(peer(ack=3001, wnd=1000), at=0.2)
    tcp.sends_nothing()
    tcp.arrives(peer(ack=4001, wnd=1000), at=0.3)
    tcp.sends_stream((4001, 1000))


@pytest.mark.rfc9293("SHLD-16", "MAY-7")
def test_what_was_sent_into_a_window_that_shrank_is_still_sent_again(a_connection: Maker) -> None:
    """§3.8.6: "normally", at least what lies within the window."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(4000), at=0.0)
    tcp.take()
    tcp.arrives(peer(wnd=1000), at=0.1)
    tcp.sends_stream((1, MSS), at=1.0)


@pytest.mark.rfc9293("SHLD-17", "MUST-35")
def test_a_peer_that_answers_from_a_window_shrunk_to_zero_is_not_given_up(a_connection: Maker) -> None:
    """§3.8.6: "SHOULD NOT time out the connection if data beyond the right window edge is not acknowledged"."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=3))
    tcp.send(stream(1000), at=0.0)
    tcp.take()
    tcp.arrives(peer(wnd=0), at=0.1)
    for at in range(1, 600):
        tcp.waits_until(float(at))
        if tcp.take():
            tcp.arrives(peer(wnd=0), at=at + 0.01)
    assert tcp.error is None
    tcp.arrives(peer(wnd=WINDOW), at=600.0)
    tcp.waits_until(700.0)
    assert tcp.take()[0].data == stream(1000)


# ---- the closed window (§3.8.6.1) --------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-36", "MUST-35", "MUST-37", "SHLD-29", "SHLD-30")
def test_a_closed_window_is_probed_with_backoff_and_never_given_up(a_connection: Maker) -> None:
    """§3.8.6.1: the first probe after the retransmission time-out, each interval twice the one before."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=2))
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(b"abc")
    tcp.sends_nothing()
    for at in (1.0, 3.0, 7.0, 15.0, 31.0):
        tcp.sends(us(b"a"), at=at)
        tcp.arrives(peer(wnd=0))
    for _ in range(20):
        tcp.waits_until(tcp.now + 60.0)
        tcp.arrives(peer(wnd=0))
    assert tcp.state == State.ESTABLISHED
    assert all(seg.data == b"a" for seg in tcp.take())


@pytest.mark.rfc9293("MUST-20")
def test_a_peer_that_answers_no_probe_is_given_up_as_one_that_acknowledges_nothing(a_connection: Maker) -> None:
    """§3.8.6.1, §3.8.3: only as long as it answers MUST the connection stay open."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=3))
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(b"abc")
    for at in (1.0, 3.0, 7.0):
        tcp.sends(us(b"a"), at=at)
    tcp.waits_until(14.9)
    assert tcp.error is None
    tcp.waits_until(15.0)
    assert tcp.error == errno.ETIMEDOUT


def test_the_interval_between_probes_is_not_the_retransmission_time_out(a_connection: Maker) -> None:
    """RFC 6298 §5: only the loss of a segment backs that off."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(stream(300))
    tcp.waits_until(40.0)
    tcp.take()
    tcp.arrives(peer(wnd=WINDOW), at=40.0)
    assert tcp.take()
    tcp.waits_until(41.0)
    assert tcp.take()


@pytest.mark.rfc9293("MUST-36")
def test_when_the_window_opens_data_flows_at_once(a_connection: Maker) -> None:
    """§3.8.6.1."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(stream(300))
    tcp.waits_until(1.0)
    tcp.take()
    tcp.arrives(peer(wnd=WINDOW), at=1.1)
    sent = tcp.take()
    come = {seg.seq - 1000 + i: byte for seg in sent for i, byte in enumerate(seg.data)}
    assert bytes(come[at] for at in range(1, 301)) == stream(300)


def test_a_window_that_opens_before_a_probe_needs_none(a_connection: Maker) -> None:
    """§3.8.6.1."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(stream(300))
    tcp.arrives(peer(wnd=WINDOW), at=0.5)
    tcp.sends_stream((1, 300))
    tcp.arrives(peer(ack=301), at=0.6)
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_a_reset_while_a_probe_is_unanswered_is_one_that_the_peer_believes(a_connection: Maker) -> None:
    """§3.10.7.4, MUST-66: a closed window takes a reset with the number of the octet that it has refused."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(b"abc")
    tcp.waits_until(1.0)
    tcp.take()
    tcp.abort()
    tcp.sends_reset(1)


def test_a_probe_that_was_taken_is_not_sent_again(a_connection: Maker) -> None:
    """§3.8.6.1: a probe is data; the peer may acknowledge it and stay closed."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(b"abc")
    tcp.waits_until(1.0)
    tcp.take()
    tcp.arrives(peer(ack=2, wnd=0), at=1.1)
    tcp.sends_nothing()
    tcp.arrives(peer(ack=2, wnd=WINDOW), at=1.2)
    tcp.sends(us(b"bc", seq=2))


def test_the_window_may_close_again_and_again(a_connection: Maker) -> None:
    """§3.8.6.1: a slow reader makes room for 1000 bytes at a time; all of the data comes at last."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(3000))
    tcp.sends_to_the_end()
    tcp.arrives(peer(ack=3001, wnd=0))
    tcp.send(stream(3000, at=3001))
    come = b""
    for edge in (4001, 5001, 6001):
        tcp.waits_until(tcp.now + 5.0)
        assert tcp.take()[0].data == stream(1, at=edge - 1000)  # a probe, and the answer makes room
        tcp.arrives(peer(ack=edge - 1000, wnd=1000))
        while tcp.snd_una < edge:
            if not tcp.sent:
                tcp.waits_until(tcp.now + 1.0)
            for seg in tcp.take():
                come += seg.data[len(come) + 3001 - (seg.seq - 1000) :]
            tcp.arrives(peer(ack=3001 + len(come), wnd=edge - 3001 - len(come)))
            assert tcp.now < 300
    assert come == stream(3000, at=3001)


def test_an_ack_at_the_edge_of_our_window_is_heeded(a_connection: Maker) -> None:
    """§3.4 would drop it; but a peer that has filled our window has no other place for it."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(1000))
    tcp.take()
    tcp.arrives(peer(seq=2 + BUFFER, ack=1001))
    assert tcp.snd_una == 1  # behind a window that is open, nothing is
    tcp.take()
    tcp.arrives(peer(seq=1 + BUFFER, ack=1001))
    tcp.sends_nothing()
    assert tcp.snd_una == 1001


def test_an_ack_behind_a_probe_of_our_closed_window_is_heeded(a_connection: Maker) -> None:
    """§3.10.7.4 makes "special allowance" for "valid ACKs": the peer counts the octet that we have refused."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(4000)), peer(stream(4000, at=4001), seq=4001))
    tcp.send(stream(1000))
    tcp.arrives(peer(b"?", seq=1 + BUFFER))
    tcp.take()
    tcp.arrives(peer(seq=2 + BUFFER, ack=1001))
    tcp.sends_nothing()
    assert tcp.snd_una == 1001


def test_a_fin_takes_a_place_in_the_window(a_connection: Maker) -> None:
    """§3.4: where the data alone fills it, and behind a probe too, the FIN comes later."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(wnd=3), at=0.0)
    tcp.send(b"abc")
    tcp.close()
    tcp.sends(us(b"abc"))
    tcp.arrives(peer(ack=4, wnd=0), at=0.1)
    tcp.waits_until(5.0)
    assert {seg.flags & FIN for seg in tcp.take()} == {FIN}

    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(b"a")
    tcp.close()
    tcp.sends(us(b"a"), at=1.0)


def test_a_fin_waits_for_the_window_too(a_connection: Maker) -> None:
    """§3.8.6.1: it takes a sequence number, and may serve as the probe."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.close()
    tcp.sends_nothing()
    tcp.sends(us(flags=FIN), at=1.0)


def test_a_window_closed_from_the_first_is_probed(a_connection: Maker) -> None:
    """§3.8.6.1: the SYN,ACK announces 0."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(Segment(IRS, 1001, SYN_ACK_FROM_PEER.flags, 0, options=Options(mss=MSS)))
    tcp.take()
    tcp.send(b"abc", at=0.0)
    tcp.sends(us(b"a"), at=1.0)


# ---- our window --------------------------------------------------------------------------------------------


def right_edges(tcp: Script) -> list[int]:
    return [seg.ack + seg.wnd - IRS for seg in tcp.take() if seg.flags & ACK and not seg.flags & RST]


def test_our_window_is_the_room_that_is_left(a_connection: Maker) -> None:
    """§3.8.6: what the application has not read takes room."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    for at, wnd in ((1, 7000), (1001, 6000), (2001, 5000)):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        assert tcp.sends_one().wnd == wnd


@pytest.mark.rfc9293("SHLD-14")
def test_the_right_edge_never_moves_left(a_connection: Maker) -> None:
    """§3.8.6: in order, out of order, read and not read."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(receive_buffer=7777))
    tcp.take()
    at, edges = 1, [tcp.rcv_nxt + tcp.connection.rcv_wnd]
    for k in range(60):
        length = min(1 + k * 97 % 1000, tcp.rcv_nxt + tcp.connection.rcv_wnd - at)
        if k % 5 == 0:
            tcp.arrives(peer(stream(50, at=at + length + 50), seq=at + length + 50))
        tcp.arrives(peer(stream(length, at=at), seq=at))
        at = tcp.rcv_nxt
        if k % 3 == 0:
            tcp.receive(1 + k * 53 % 2000)
        edges += right_edges(tcp)
    assert edges == sorted(edges)
    assert edges[-1] > 7777


@pytest.mark.rfc9293("MUST-39")
def test_the_window_opens_by_a_whole_segment_or_not_at_all(a_connection: Maker) -> None:
    """§3.8.6.2.2: by min(half of the buffer, Eff.snd.MSS)."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(BUFFER)))
    assert tcp.sends_one().wnd == 0
    tcp.receive(999)
    tcp.sends_nothing()
    tcp.receive(1)
    seg = tcp.sends_one()
    assert (seg.data, seg.wnd, seg.ack - IRS) == (b"", 1000, BUFFER + 1)


@pytest.mark.rfc9293("MUST-39")
def test_a_small_buffer_opens_by_half_of_it(a_connection: Maker) -> None:
    """§3.8.6.2.2."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(receive_buffer=800))
    tcp.arrives(peer(stream(800)))
    assert tcp.sends_one().wnd == 0
    tcp.receive(399)
    tcp.sends_nothing()
    tcp.receive(1)
    assert tcp.sends_one().wnd == 400


@pytest.mark.rfc9293("MUST-39")
def test_an_acknowledgement_does_not_tell_of_a_silly_window_either(a_connection: Maker) -> None:
    """§3.8.6.2.2: RCV.USER that is too small stays out of the window."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(BUFFER)))
    tcp.take()
    tcp.receive(500)
    tcp.arrives(peer(b"?", seq=BUFFER + 1), at=1.0)
    assert tcp.sends_one().wnd == 0


def test_what_lies_beyond_the_window_is_not_taken(a_connection: Maker) -> None:
    """§3.10.7.4: the part within is."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(BUFFER + 500)))
    assert tcp.connection.readable == BUFFER
    assert tcp.sends_one().wnd == 0
    assert tcp.receive(BUFFER + 500) == stream(BUFFER)


@pytest.mark.rfc9293("MAY-8")
def test_a_probe_into_our_closed_window_is_answered_and_not_taken(a_connection: Maker) -> None:
    """§3.10.7.4, first: "if RCV.WND is zero, no segments will be acceptable"; for as long as the reader sleeps."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(BUFFER)))
    tcp.take()
    for at in range(100, 10_000, 100):
        tcp.arrives(peer(stream(1, at=BUFFER + 1), seq=BUFFER + 1), at=float(at))
        assert (seg := tcp.sends_one()).ack == IRS + BUFFER + 1
        assert seg.wnd == 0
    assert tcp.connection.readable == BUFFER


@pytest.mark.rfc9293("MUST-66")
def test_acks_and_resets_are_heeded_while_our_own_window_is_closed(a_connection: Maker) -> None:
    """§3.10.7.4, first: "special allowance should be made to accept valid ACKs, URGs, and RSTs"."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(BUFFER)))
    tcp.send(b"abc")
    tcp.arrives(peer(b"more", seq=BUFFER + 1, ack=4))
    assert tcp.snd_una == 4
    tcp.arrives(peer(flags=RST, seq=BUFFER + 1, ack=4))
    assert tcp.state == State.CLOSED


# ---- silly windows, as a sender (§3.8.6.2.1) ---------------------------------------------------------------


@pytest.mark.rfc9293("MUST-38")
def test_a_window_that_opens_by_little_is_not_filled(a_connection: Maker) -> None:
    """§3.8.6.2.1: neither a full segment, nor all of the data, nor half of the largest window."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(10_000))
    tcp.take()
    for ack, wnd in ((1001, 3100), (2001, 2300), (3001, 1900)):
        tcp.arrives(peer(ack=ack, wnd=wnd))
        tcp.sends_nothing()
    tcp.arrives(peer(ack=4001, wnd=1000))
    tcp.sends_stream((4001, 1000))


@pytest.mark.rfc9293("MUST-38")
def test_half_of_a_small_window_is_worth_a_segment(a_connection: Maker) -> None:
    """§3.8.6.2.1 (3): a peer whose buffer is smaller than a segment."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(Segment(IRS, 1001, SYN_ACK_FROM_PEER.flags, 600, options=Options(mss=MSS)))
    tcp.take()
    tcp.send(stream(2000))
    tcp.sends_stream((1, 600))
    tcp.arrives(peer(ack=601, wnd=200))
    tcp.sends_nothing()
    tcp.arrives(peer(ack=601, wnd=300))
    tcp.sends_stream((601, 300))


@pytest.mark.rfc9293("MUST-38")
def test_after_a_while_a_silly_window_is_used_all_the_same(a_connection: Maker) -> None:
    """§3.8.6.2.1: the override time-out, else both could wait for ever."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(6000))
    tcp.take()
    tcp.arrives(peer(ack=4001, wnd=100), at=0.1)
    tcp.sends_nothing()
    tcp.waits_until(5.0)
    assert tcp.take()[0].data == stream(100, at=4001)
    tcp.waits_until(30.0)  # it was lost
    assert tcp.take()[0].data == stream(100, at=4001)


@pytest.mark.rfc9293("MUST-38")
def test_a_silly_window_is_used_within_a_second_however_long_the_time_out_is(a_connection: Maker) -> None:
    """§3.8.6.2.1: the override time-out should be from 0.1 to 1.0 seconds; also of one that was closed before."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(1000), at=0.0)
    tcp.waits_until(20.0)  # lost, and lost again: the time-out is 16 s by now
    tcp.take()
    tcp.arrives(peer(ack=1001, wnd=0), at=20.0)
    tcp.send(stream(1500, at=1001))
    tcp.sends_nothing()
    tcp.arrives(peer(ack=1001, wnd=300), at=21.0)
    tcp.sends_stream((1001, 300), at=22.0)


@pytest.mark.rfc9293("MUST-38", "MUST-60")
def test_the_last_of_the_data_is_sent_however_little_it_is(a_connection: Maker) -> None:
    """§3.8.6.2.1 (2)."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(1))
    tcp.sends_stream((1, 1))
