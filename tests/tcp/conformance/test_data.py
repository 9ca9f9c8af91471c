"""Data in order: sending, receiving, acknowledging. RFC 9293 sections 3.7, 3.8.6.3, 3.9.1, 3.10.2 and 3.10.3."""

from __future__ import annotations

import pytest

from chitcpd.tcp.api import FIN, PSH, Config, Options, Segment, State
from tests.tcp.harness import BUFFER, ISS, MSS, SYN_ACK_FROM_PEER, Maker, config, peer, stream, text_of, us

pytestmark = pytest.mark.stage("data")


# ---- receiving ---------------------------------------------------------------------------------------------


def test_what_comes_in_order_is_handed_out_and_acknowledged(a_connection: Maker) -> None:
    """§3.10.7.4, seventh."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc"))
    tcp.sends(us(ack=4))
    assert tcp.connection.readable == 3
    assert tcp.receive() == b"abc"
    assert tcp.connection.readable == 0
    assert tcp.receive() == b""


def test_data_is_handed_out_in_pieces_of_any_size(a_connection: Maker) -> None:
    """§3.9.1.3: boundaries of segments mean nothing to the application."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    for at in range(1, 3001, 300):
        tcp.arrives(peer(stream(300, at=at), seq=at))
    pieces = [tcp.receive(size) for size in (1, 299, 301, 0, 1000, 5000)]
    assert [len(piece) for piece in pieces] == [1, 299, 301, 0, 1000, 1399]
    assert b"".join(pieces) == stream(3000)


def test_a_repeated_segment_is_acknowledged_again_and_not_handed_out_twice(a_connection: Maker) -> None:
    """§3.10.7.4, first: our ACK was lost."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc"), peer(b"abc"))
    tcp.sends(us(ack=4), us(ack=4))
    assert tcp.receive() == b"abc"


def test_the_new_part_of_a_segment_that_begins_before_is_taken(a_connection: Maker) -> None:
    """§3.10.7.4, first: trimming off what lies outside the window."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc"), peer(b"bcde", seq=2), peer(b"ef", seq=5))
    tcp.sends(us(ack=4), us(ack=6), us(ack=7))
    assert tcp.receive() == b"abcdef"


def test_an_acknowledgement_is_never_acknowledged(a_connection: Maker) -> None:
    """§3.10.7.4: else two TCPs would never fall silent."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(), peer(), peer())
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_received_sequence_numbers_wrap(a_connection: Maker) -> None:
    """§3.4: modulo 2^32."""
    tcp = a_connection(in_state=State.ESTABLISHED, irs=2**32 - 1500)
    for at in range(1, 4001, 1000):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        tcp.sends(us(ack=at + 1000))
    assert tcp.receive() == stream(4000)
    assert tcp.connection.rcv_nxt == 2501


# ---- sending -----------------------------------------------------------------------------------------------


@pytest.mark.rfc9293("SHLD-28", "MUST-60")
def test_what_is_sent_is_cut_into_the_largest_segments_at_once(a_connection: Maker) -> None:
    """§3.9.1.2."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    assert tcp.send(stream(3500)) == 3500
    tcp.sends_stream((1, MSS), (1001, MSS), (2001, MSS), (3001, 500))
    assert tcp.snd_nxt == 3501


@pytest.mark.rfc9293("MUST-61")
def test_the_last_segment_of_what_waits_is_pushed(a_connection: Maker) -> None:
    """§3.9.1.2: the peer needs not wait for more."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(2500))
    assert tcp.sends_to_the_end()[-1].flags & PSH


@pytest.mark.rfc9293("MUST-61")
def test_the_last_segment_is_pushed_when_it_is_sent_again_too(a_connection: Maker) -> None:
    """§3.9.1.2: it is still the last."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(10), at=0.0)
    tcp.take()
    tcp.waits_until(1.0)
    assert tcp.sends_one().flags & PSH


@pytest.mark.rfc9293("SHLD-27", "MAY-16")
def test_what_waits_from_several_sends_goes_in_one_segment(a_connection: Maker) -> None:
    """§3.9.1.2: PSH is no mark of a record."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    for at in range(1, 6001, 300):
        tcp.send(stream(300, at=at))
    sent = tcp.sends_to_the_end()
    assert text_of(sent) == stream(6000)
    assert max(len(seg.data) for seg in sent) == MSS


def test_a_full_buffer_takes_no_more_until_something_is_acknowledged(a_connection: Maker) -> None:
    """§3.10.2, and the contract: send says how much it has taken."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    assert tcp.connection.writable == 16_000
    assert tcp.send(stream(20_000)) == 16_000
    assert tcp.send(b"x") == 0
    assert tcp.connection.writable == 0
    tcp.arrives(peer(ack=1001))
    assert tcp.connection.writable == 1000


def test_a_long_stream_goes_whole(a_connection: Maker) -> None:
    """§3.8: much more than a window, in one call; each byte in its place."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    assert tcp.send(stream(16_000)) == 16_000
    assert text_of(tcp.sends_to_the_end()) == stream(16_000)
    assert tcp.send(stream(16_000, at=16_001)) == 16_000
    assert text_of(tcp.sends_to_the_end()) == stream(16_000, at=16_001)


def test_acknowledgements_move_the_window_along(a_connection: Maker) -> None:
    """§3.10.7.4, fifth: SND.UNA advances, and what follows is sent."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(6000))
    tcp.sends_stream((1, MSS), (1001, MSS), (2001, MSS), (3001, MSS))
    tcp.arrives(peer(ack=2001))
    assert tcp.snd_una == 2001
    tcp.sends_stream((4001, MSS), (5001, MSS))
    tcp.arrives(peer(ack=6001))
    assert tcp.snd_una == tcp.snd_nxt == 6001


def test_an_old_acknowledgement_changes_nothing(a_connection: Maker) -> None:
    """§3.10.7.4, fifth: SEG.ACK =< SND.UNA is a duplicate and can be ignored."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(3000))
    tcp.sends_to_the_end()
    tcp.arrives(peer(ack=1001))
    assert tcp.snd_una == 3001
    tcp.sends_nothing()


def test_sent_sequence_numbers_wrap(a_connection: Maker) -> None:
    """§3.4: modulo 2^32."""
    tcp = a_connection(in_state=State.ESTABLISHED, iss=2**32 - 1500)
    tcp.send(stream(6000))
    assert text_of(tcp.sends_to_the_end()) == stream(6000)
    assert tcp.connection.snd_una == 4501
    tcp.waits_until(100.0)
    tcp.sends_nothing()


def test_both_directions_at_once(a_connection: Maker) -> None:
    """§3.1: each segment carries the acknowledgement that holds when it is sent."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(500)))
    tcp.take()
    tcp.send(stream(700))
    tcp.sends(us(stream(700), ack=501))
    tcp.arrives(peer(stream(300, at=501), seq=501, ack=701))
    assert tcp.receive() == stream(800)
    assert tcp.snd_una == 701


# ---- the size of segments ----------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-14", "SHLD-5", "MAY-3")
def test_our_syn_says_how_large_a_segment_we_take(a_connection: Maker) -> None:
    """§3.7.1: in SYN and in SYN,ACK."""
    for active in (True, False):
        tcp = a_connection(in_state=State.CLOSED)
        tcp.open(active=active)
        if not active:
            tcp.arrives(Segment(5000, flags=2, wnd=4000))
        options = tcp.sends_one().options
        assert options is not None
        assert options.mss == MSS


@pytest.mark.rfc9293("MUST-65")
def test_the_mss_is_told_in_a_syn_only(a_connection: Maker) -> None:
    """§3.1, MSS option."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(SYN_ACK_FROM_PEER, peer(b"abc"))
    tcp.send(stream(100))
    tcp.close()
    sent = tcp.take()
    assert sent
    assert all(seg.options is None or seg.options.mss is None for seg in sent)


@pytest.mark.rfc9293("MUST-15")
def test_a_peer_that_names_no_mss_gets_segments_of_536_bytes(a_connection: Maker) -> None:
    """§3.7.1."""
    tcp = a_connection(in_state=State.ESTABLISHED, offers=Options())
    tcp.send(stream(600))
    assert [len(seg.data) for seg in tcp.sends_to_the_end()] == [536, 64]


@pytest.mark.rfc9293("MUST-16", "MUST-14")
def test_the_smaller_of_what_the_peer_takes_and_the_link_carries_is_sent(a_connection: Maker) -> None:
    """§3.7.1: Eff.snd.MSS."""
    tcp = a_connection(in_state=State.ESTABLISHED, offers=Options(mss=300))
    tcp.send(stream(900))
    assert [len(seg.data) for seg in tcp.sends_to_the_end()] == [300, 300, 300]
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(send_mss=700), offers=Options(mss=1400))
    tcp.send(stream(1400))
    assert [len(seg.data) for seg in tcp.sends_to_the_end()] == [700, 700]


# ---- when acknowledgements go (§3.8.6.3) -------------------------------------------------------------------


@pytest.mark.rfc9293("SHLD-18", "SHLD-19", "MUST-58")
def test_the_acknowledgement_of_one_segment_waits_but_not_that_of_two(a_connection: Maker) -> None:
    """§3.8.6.3."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=0.2))
    tcp.arrives(peer(stream(MSS)), at=1.0)
    tcp.sends(us(ack=1001), at=1.2)
    tcp.arrives(peer(stream(MSS, at=1001), seq=1001))
    tcp.sends_nothing()
    tcp.arrives(peer(stream(MSS, at=2001), seq=2001))
    tcp.sends(us(ack=3001))
    tcp.waits_until(2.0)
    tcp.sends_nothing()


@pytest.mark.rfc9293("MUST-40")
def test_no_acknowledgement_waits_for_half_a_second(a_connection: Maker) -> None:
    """§3.8.6.3, as the TCP is by default."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=Config().delayed_ack))
    tcp.arrives(peer(b"abc"), at=1.0)
    tcp.waits_until(1.499)
    tcp.sends(us(ack=4))


@pytest.mark.rfc9293("SHLD-19")
def test_every_second_segment_of_a_long_transfer_is_acknowledged(a_connection: Maker) -> None:
    """§3.8.6.3."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=0.2))
    for at in range(1, 6001, 1000):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
    tcp.sends(us(ack=2001), us(ack=4001), us(ack=6001))


@pytest.mark.rfc9293("MUST-58")
def test_an_acknowledgement_rides_on_data(a_connection: Maker) -> None:
    """§3.8.6.3."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=0.2))
    tcp.arrives(peer(b"abc"), at=1.0)
    tcp.send(b"xyz")
    tcp.sends(us(b"xyz", ack=4))
    tcp.arrives(peer(ack=4, seq=4), at=1.1)
    tcp.waits_until(3.0)
    tcp.sends_nothing()


# ---- small segments (§3.7.4) -------------------------------------------------------------------------------


@pytest.mark.rfc9293("SHLD-7")
def test_nagle_holds_small_segments_while_data_is_in_flight(a_connection: Maker) -> None:
    """§3.7.4."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(nagle=True))
    for letter in (b"a", b"b", b"c"):
        tcp.send(letter)
    tcp.sends(us(b"a"))
    tcp.arrives(peer(ack=2))
    tcp.sends(us(b"bc", seq=2))


def test_nagle_does_not_hold_full_segments(a_connection: Maker) -> None:
    """§3.7.4: "or until the TCP endpoint can send a full-sized segment"."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(nagle=True))
    tcp.send(stream(1))
    tcp.send(stream(1500, at=2))
    tcp.sends_stream((1, 1), (2, MSS))
    tcp.send(stream(500, at=1502))
    tcp.sends_stream((1002, MSS))


@pytest.mark.rfc9293("MUST-17")
def test_nagle_can_be_turned_off(a_connection: Maker) -> None:
    """§3.7.4: it is a setting of the connection."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(nagle=False))
    for letter in (b"a", b"b", b"c"):
        tcp.send(letter)
    tcp.sends(us(b"a"), us(b"b", seq=2), us(b"c", seq=3))


def test_nagle_lets_the_last_data_go_with_the_fin(a_connection: Maker) -> None:
    """§3.8.6.2.1 (2): "pushed"; an application that closes wants no delay."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(nagle=True))
    tcp.send(b"a")
    tcp.send(b"b")
    tcp.close()
    sent = tcp.sends_to_the_end()
    assert text_of(sent) == b"ab"
    assert sent[-1].flags & FIN


def test_a_long_stream_comes_whole_through_a_small_window(a_connection: Maker) -> None:
    """§3.8: bytes keep their order and place, however they are cut."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    received, at = b"", 1
    while at <= 60_000:
        length = 1 + at * 7 % 997
        tcp.arrives(peer(stream(length, at=at), seq=at))
        at += length
        if tcp.connection.readable > BUFFER // 2:
            received += tcp.receive(1 + at % 3000)
    received += tcp.receive()
    assert received == stream(at - 1)
    assert tcp.take()[-1].ack - ISS == at + 4000  # the peer's numbers begin 4000 after ours


def test_an_application_that_reads_at_once_costs_no_more_acknowledgements(a_connection: Maker) -> None:
    """§3.8.6.3: one for two segments; an ACK for each bit of window that reading opens would be none delayed."""
    settings = config(delayed_ack=0.2, receive_buffer=1 << 20, window_scaling=True)
    tcp = a_connection(in_state=State.ESTABLISHED, settings=settings, offers=Options(mss=MSS, window_scale=7))
    for k in range(20):
        tcp.arrives(peer(stream(MSS, at=1 + k * MSS), seq=1 + k * MSS), at=1.0 + k / 1000)
        tcp.receive()
    assert len(tcp.take()) == 10
