"""The reference TCP, behaviour by behaviour, as packet scripts."""

from __future__ import annotations

import errno

import pytest

from chitcpd.tcp.api import ACK, FIN, RST, SYN, Segment, State
from tests.tcp.harness import (
    BUFFER,
    IRS,
    ISS,
    MSS,
    SYN_ACK_FROM_PEER,
    SYN_FROM_PEER,
    WINDOW,
    a_connection,
    config,
    peer,
    us,
)

SYNCHRONIZED = [
    State.ESTABLISHED,
    State.FIN_WAIT_1,
    State.FIN_WAIT_2,
    State.CLOSE_WAIT,
    State.CLOSING,
    State.LAST_ACK,
    State.TIME_WAIT,
]


class TestOpening:
    def test_active_open_is_a_three_way_handshake(self) -> None:
        tcp = a_connection(in_state=State.CLOSED)
        tcp.connection.open(0.0, active=True)
        tcp._collect()
        tcp.sends(us(seq=0, ack=None, flags=SYN))
        tcp.arrives(SYN_ACK_FROM_PEER, at=0.1)
        tcp.sends(us())
        assert tcp.states == [State.SYN_SENT, State.ESTABLISHED]

    def test_passive_open_is_a_three_way_handshake(self) -> None:
        tcp = a_connection(in_state=State.LISTEN)
        tcp.arrives(SYN_FROM_PEER)
        tcp.sends(us(seq=0, flags=SYN))
        tcp.arrives(peer(), at=0.1)
        tcp.sends_nothing()
        assert tcp.states == [State.SYN_RCVD, State.ESTABLISHED]

    def test_both_open_at_once(self) -> None:
        tcp = a_connection(in_state=State.SYN_SENT)
        tcp.arrives(SYN_FROM_PEER)
        tcp.sends(us(seq=0, flags=SYN))
        tcp.arrives(SYN_ACK_FROM_PEER)
        assert tcp.state == State.SYN_RCVD  # its SYN is old; the ACK in our answer lets both go on
        tcp.sends(us())
        tcp.arrives(peer())
        assert tcp.states == [State.SYN_RCVD, State.ESTABLISHED]

    def test_syn_carries_the_mss(self) -> None:
        tcp = a_connection(in_state=State.CLOSED)
        tcp.connection.open(0.0, active=True)
        tcp._collect()
        assert tcp.sent[0].options is not None
        assert tcp.sent[0].options.mss == MSS

    def test_a_peer_without_mss_option_gets_segments_of_536_bytes(self) -> None:
        tcp = a_connection(in_state=State.SYN_SENT)
        tcp.arrives(Segment(IRS, ISS + 1, SYN | ACK, WINDOW))
        tcp.sent.clear()
        tcp.send(bytes(600))
        assert [len(seg.data) for seg in tcp.sent] == [536, 64]

    def test_syn_is_sent_again_with_doubled_time_outs_and_then_given_up(self) -> None:
        tcp = a_connection(in_state=State.SYN_SENT, settings=config(syn_retries=3))
        tcp.waits_until(1.0)
        tcp.sends(us(seq=0, ack=None, flags=SYN))
        tcp.waits_until(2.9)
        tcp.sends_nothing()
        tcp.waits_until(3.0)
        tcp.sends(us(seq=0, ack=None, flags=SYN))
        tcp.waits_until(60.0)
        assert tcp.state == State.CLOSED
        assert tcp.connection.error == errno.ETIMEDOUT
        assert tcp.expired == ["RETRANSMISSION"] * 4

    def test_refused(self) -> None:
        tcp = a_connection(in_state=State.SYN_SENT)
        tcp.arrives(Segment(0, ISS + 1, RST | ACK))
        assert tcp.state == State.CLOSED
        assert tcp.connection.error == errno.ECONNREFUSED

    def test_a_reset_that_acknowledges_nothing_of_ours_is_ignored(self) -> None:
        tcp = a_connection(in_state=State.SYN_SENT)
        tcp.arrives(Segment(0, ISS + 7, RST | ACK))
        tcp.sends_nothing()
        assert tcp.state == State.SYN_SENT

    def test_an_old_syn_ack_is_answered_with_a_reset(self) -> None:
        tcp = a_connection(in_state=State.SYN_SENT)
        tcp.arrives(Segment(IRS, ISS - 7, SYN | ACK, WINDOW))
        tcp.sends((ISS - 7, 0, RST, b""))
        assert tcp.state == State.SYN_SENT

    def test_a_reset_handshake_returns_to_listen(self) -> None:
        tcp = a_connection(in_state=State.SYN_RCVD)
        tcp.arrives(peer(flags=RST, ack=None))
        assert tcp.state == State.LISTEN
        tcp.arrives(SYN_FROM_PEER)
        tcp.sends(us(seq=0, flags=SYN))

    def test_a_bad_acknowledgement_of_our_syn_is_answered_with_a_reset(self) -> None:
        tcp = a_connection(in_state=State.SYN_RCVD)
        tcp.arrives(peer(ack=9))
        tcp.sends((ISS + 9, 0, RST, b""))
        assert tcp.state == State.SYN_RCVD


class TestNoConnection:
    def test_a_segment_with_ack_is_reset_at_its_acknowledgement(self) -> None:
        tcp = a_connection(in_state=State.CLOSED)
        tcp.arrives(Segment(7, 99, ACK))
        tcp.sends((99, 0, RST, b""))

    def test_a_segment_without_ack_is_reset_behind_its_end(self) -> None:
        tcp = a_connection(in_state=State.CLOSED)
        tcp.arrives(Segment(7, flags=SYN, data=b"abc"))
        tcp.sends((0, 11, RST | ACK, b""))

    def test_a_reset_is_never_answered(self) -> None:
        for state in (State.CLOSED, State.LISTEN):
            tcp = a_connection(in_state=state)
            tcp.arrives(Segment(7, 99, RST | ACK))
            tcp.sends_nothing()


class TestData:
    def test_what_comes_in_order_is_handed_out_and_acknowledged(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(b"abc"))
        tcp.sends(us(ack=4))
        assert tcp.receive() == b"abc"

    def test_what_comes_ahead_waits_for_the_gap(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(b"def", seq=4))
        tcp.sends(us(ack=1))
        assert tcp.receive() == b""
        tcp.arrives(peer(b"abc"))
        tcp.sends(us(ack=7))
        assert tcp.receive() == b"abcdef"

    def test_overlap_is_cut_off(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(b"abc"))
        tcp.arrives(peer(b"bcde", seq=2))
        assert tcp.receive() == b"abcde"

    def test_a_repeated_segment_is_acknowledged_again(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(b"abc"))
        tcp.arrives(peer(b"abc"))
        tcp.sends(us(ack=4), us(ack=4))
        assert tcp.receive() == b"abc"

    def test_what_is_sent_is_cut_into_segments_up_to_the_window(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        assert tcp.send(b"a" * 6000) == 6000
        assert [(seg.seq - ISS, len(seg.data)) for seg in tcp.sent] == [(1, MSS), (1001, MSS), (2001, MSS), (3001, MSS)]
        tcp.sent.clear()
        tcp.arrives(peer(ack=2001))
        assert [(seg.seq - ISS, len(seg.data)) for seg in tcp.sent] == [(4001, MSS), (5001, MSS)]

    def test_a_full_buffer_takes_no_more(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        assert tcp.send(bytes(20_000)) == 16_000
        assert tcp.send(b"x") == 0
        assert tcp.connection.writable == 0

    def test_acknowledgements_are_delayed_for_one_segment_but_not_for_two(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=0.2))
        tcp.arrives(peer(b"abc"), at=1.0)
        tcp.sends_nothing()
        tcp.waits_until(1.2)
        tcp.sends(us(ack=4))
        tcp.arrives(peer(b"def", seq=4))
        tcp.arrives(peer(b"ghi", seq=7))
        tcp.sends(us(ack=10))

    def test_an_acknowledgement_rides_on_data(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=0.2))
        tcp.arrives(peer(b"abc"), at=1.0)
        tcp.send(b"xyz")
        tcp.sends(us(b"xyz", ack=4))
        tcp.waits_until(2.0)
        assert "DELAYED_ACK" not in tcp.expired

    def test_nagle_holds_small_segments_while_data_is_in_flight(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED, settings=config(nagle=True))
        tcp.send(b"a")
        tcp.send(b"b")
        tcp.send(b"c")
        tcp.sends(us(b"a"))
        tcp.arrives(peer(ack=2))
        tcp.sends(us(b"bc", seq=2))

    def test_the_window_never_shrinks_and_opens_by_whole_segments(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(bytes(1000)))
        assert tcp.sent.pop().wnd == BUFFER - 1000
        tcp.receive(999)
        tcp.sends_nothing()
        tcp.receive(1)
        assert tcp.sent.pop().wnd == BUFFER

    def test_what_lies_beyond_the_window_is_not_taken(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(bytes(BUFFER + 500)))
        assert tcp.connection.readable == BUFFER
        assert tcp.sent.pop().wnd == 0


class TestRetransmission:
    def test_rto_doubles_and_the_oldest_segment_is_sent_again(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.send(b"abc", at=10.0)
        tcp.sends(us(b"abc"))
        tcp.waits_until(10.9)
        tcp.sends_nothing()
        for at in (11.0, 13.0, 17.0):
            tcp.waits_until(at)
            tcp.sends(us(b"abc"))

    def test_a_connection_without_answer_is_given_up(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=3))
        tcp.send(b"abc", at=0.0)
        tcp.waits_until(100.0)
        assert tcp.state == State.CLOSED
        assert tcp.connection.error == errno.ETIMEDOUT
        with pytest.raises(OSError) as caught:
            tcp.receive()
        assert caught.value.errno == errno.ETIMEDOUT

    def test_an_acknowledgement_stops_the_timer(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.send(b"abc", at=0.0)
        tcp.arrives(peer(ack=4), at=0.1)
        assert tcp.connection.next_deadline() is None

    def test_a_segment_sent_twice_gives_no_round_trip(self) -> None:
        """Karn: otherwise the late ACK of the first copy would look like a fast one of the second."""
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.send(b"abc", at=0.0)
        tcp.waits_until(1.0)
        tcp.arrives(peer(ack=4), at=1.001)
        tcp.sent.clear()
        tcp.send(b"def", at=2.0)
        assert tcp.connection.next_deadline() == 4.0  # the doubled time-out still holds

    def test_three_duplicate_acks_bring_the_lost_segment_at_once(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED, settings=config(congestion="newreno"))
        tcp.send(bytes(4000), at=0.0)
        tcp.sent.clear()
        for _ in range(3):
            tcp.sends_nothing()
            tcp.arrives(peer(), at=0.1)
        tcp.sends(us(bytes(1000)))

    def test_a_partial_ack_brings_the_next_lost_segment(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED, settings=config(congestion="newreno"))
        tcp.send(bytes(4000), at=0.0)
        for _ in range(3):
            tcp.arrives(peer(), at=0.1)
        tcp.sent.clear()
        tcp.arrives(peer(ack=2001), at=0.2)
        tcp.sends(us(bytes(1000), seq=2001))


class TestZeroWindow:
    def test_a_closed_window_is_probed_with_backoff_and_never_given_up(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=2))
        tcp.arrives(peer(wnd=0), at=0.0)
        tcp.send(b"abc")
        tcp.sends_nothing()
        for at in (1.0, 2.0 + 1.0, 4.0 + 3.0, 8.0 + 7.0, 16.0 + 15.0):
            tcp.waits_until(at - 0.1)
            tcp.sends_nothing()
            tcp.waits_until(at)
            tcp.sends(us(b"a"))
            tcp.arrives(peer(wnd=0), at=at)
        assert tcp.state == State.ESTABLISHED

    def test_when_the_window_opens_data_flows_at_once(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(wnd=0), at=0.0)
        tcp.send(b"abc")
        tcp.waits_until(1.0)
        tcp.sends(us(b"a"))
        tcp.arrives(peer(wnd=WINDOW), at=1.1)
        tcp.sends(us(b"a"), us(b"bc", seq=2))

    def test_a_probe_that_was_taken_is_not_sent_again(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(wnd=0), at=0.0)
        tcp.send(b"abc")
        tcp.waits_until(1.0)
        tcp.sent.clear()
        tcp.arrives(peer(ack=2, wnd=0), at=1.1)
        tcp.sends_nothing()
        tcp.arrives(peer(ack=2, wnd=WINDOW), at=1.2)
        tcp.sends(us(b"bc", seq=2))

    def test_a_fin_waits_for_the_window_too(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(wnd=0), at=0.0)
        tcp.close()
        tcp.sends_nothing()
        tcp.waits_until(1.0)
        tcp.sends(us(flags=FIN))

    def test_acks_and_resets_are_heeded_while_our_own_window_is_closed(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(bytes(BUFFER)))
        tcp.send(b"abc")
        tcp.arrives(peer(b"more", seq=BUFFER + 1, ack=4))
        assert tcp.connection.snd_una == ISS + 4
        tcp.arrives(peer(flags=RST, seq=BUFFER + 1, ack=4))
        assert tcp.connection.error == errno.ECONNRESET


class TestClosing:
    def test_we_close_first(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.close(at=0.0)
        tcp.sends(us(flags=FIN))
        tcp.arrives(peer(ack=2), at=0.1)
        tcp.arrives(peer(ack=2, flags=FIN), at=0.2)
        tcp.sends(us(seq=2, ack=2))
        tcp.waits_until(60.3)
        assert tcp.states == [State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT, State.CLOSED]
        assert tcp.connection.error is None

    def test_the_peer_closes_first(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(flags=FIN))
        tcp.sends(us(ack=2))
        assert tcp.connection.at_eof
        tcp.close()
        tcp.sends(us(ack=2, flags=FIN))
        tcp.arrives(peer(seq=2, ack=2))
        assert tcp.states == [State.CLOSE_WAIT, State.LAST_ACK, State.CLOSED]

    def test_both_close_at_once(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.close()
        tcp.arrives(peer(flags=FIN))
        tcp.arrives(peer(seq=2, ack=2))
        assert tcp.states == [State.FIN_WAIT_1, State.CLOSING, State.TIME_WAIT]

    def test_fin_and_its_acknowledgement_in_one_segment(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.close()
        tcp.arrives(peer(ack=2, flags=FIN))
        assert tcp.states == [State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT]

    def test_half_close_data_still_comes(self) -> None:
        tcp = a_connection(in_state=State.FIN_WAIT_2)
        tcp.arrives(peer(b"late", ack=2))
        assert tcp.receive() == b"late"

    def test_half_close_data_still_goes(self) -> None:
        tcp = a_connection(in_state=State.CLOSE_WAIT)
        tcp.send(b"late")
        tcp.sends(us(b"late", ack=2))

    def test_the_fin_follows_the_data_that_waits(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.send(bytes(5000))
        tcp.close()
        assert [seg.flags & FIN for seg in tcp.sent] == [0, 0, 0, 0]
        tcp.sent.clear()
        tcp.arrives(peer(ack=4001))
        tcp.sends(us(bytes(1000), seq=4001, flags=FIN))

    def test_a_fin_that_comes_ahead_of_data_waits_for_it(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(b"def", seq=4, flags=FIN))
        assert tcp.state == State.ESTABLISHED
        tcp.arrives(peer(b"abc"))
        assert tcp.state == State.CLOSE_WAIT
        assert tcp.receive() == b"abcdef"
        assert tcp.connection.at_eof

    def test_the_last_ack_is_sent_again_for_a_repeated_fin(self) -> None:
        tcp = a_connection(in_state=State.TIME_WAIT)
        tcp.arrives(peer(ack=2, flags=FIN), at=50.0)
        tcp.sends(us(seq=2, ack=2))
        assert tcp.connection.next_deadline() == 110.0

    def test_sending_after_close_is_an_error(self) -> None:
        tcp = a_connection(in_state=State.FIN_WAIT_1)
        with pytest.raises(OSError) as caught:
            tcp.send(b"x")
        assert caught.value.errno == errno.EPIPE

    def test_close_during_the_handshake(self) -> None:
        tcp = a_connection(in_state=State.SYN_RCVD)
        tcp.close()
        tcp.sends(us(flags=FIN))
        tcp.arrives(peer(ack=2))
        assert tcp.states == [State.FIN_WAIT_1, State.FIN_WAIT_2]


class TestReset:
    @pytest.mark.parametrize("state", SYNCHRONIZED)
    def test_a_reset_with_the_exact_sequence_number_ends_the_connection(self, state: State) -> None:
        tcp = a_connection(in_state=state)
        tcp.arrives(Segment(tcp.connection.rcv_nxt, flags=RST))
        assert tcp.state == State.CLOSED
        tcp.sends_nothing()
        expected = None if state in (State.CLOSING, State.LAST_ACK, State.TIME_WAIT) else errno.ECONNRESET
        assert tcp.connection.error == expected

    @pytest.mark.parametrize("state", SYNCHRONIZED)
    def test_a_reset_elsewhere_in_the_window_is_challenged(self, state: State) -> None:
        """RFC 5961 §3.2: whoever guesses a number in the window must not be able to end the connection."""
        tcp = a_connection(in_state=state)
        tcp.arrives(Segment(tcp.connection.rcv_nxt + 1, flags=RST))
        assert tcp.state == state
        assert [seg.flags for seg in tcp.sent] == [ACK]

    @pytest.mark.parametrize("state", SYNCHRONIZED)
    def test_a_syn_is_challenged(self, state: State) -> None:
        tcp = a_connection(in_state=state)
        tcp.arrives(Segment(tcp.connection.rcv_nxt, flags=SYN, wnd=WINDOW))
        assert tcp.state == state
        assert [seg.flags for seg in tcp.sent] == [ACK]

    def test_abort_resets_the_peer(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.abort()
        tcp.sends(us(flags=RST))
        assert tcp.state == State.CLOSED

    def test_what_came_before_a_reset_can_be_read(self) -> None:
        tcp = a_connection(in_state=State.ESTABLISHED)
        tcp.arrives(peer(b"abc"))
        tcp.arrives(peer(seq=4, flags=RST))
        assert tcp.receive() == b"abc"
        with pytest.raises(OSError) as caught:
            tcp.receive()
        assert caught.value.errno == errno.ECONNRESET
