"""Opening a connection: RFC 9293 sections 3.4.1, 3.5, 3.10.1 and 3.10.7.1 to 3.10.7.4."""

from __future__ import annotations

import errno

import pytest

from chitcpd.tcp.api import ACK, FIN, RST, SYN, Options, Segment, State
from tests.tcp.harness import IRS, ISS, MSS, SYN_ACK_FROM_PEER, SYN_FROM_PEER, WINDOW, Maker, peer, stream, us

pytestmark = pytest.mark.stage("connection")

SYN_WITH_DATA = Segment(IRS, flags=SYN, wnd=WINDOW, data=stream(100), options=Options(mss=MSS))


def test_active_open_is_a_three_way_handshake(a_connection: Maker) -> None:
    """§3.5, figure 6."""
    tcp = a_connection(in_state=State.CLOSED)
    tcp.open(active=True, at=0.0)
    tcp.sends(us(seq=0, ack=None, flags=SYN))
    tcp.arrives(SYN_ACK_FROM_PEER, at=0.1)
    tcp.sends(us())
    assert tcp.states == [State.SYN_SENT, State.ESTABLISHED]


def test_passive_open_is_a_three_way_handshake(a_connection: Maker) -> None:
    """§3.5, figure 6."""
    tcp = a_connection(in_state=State.CLOSED)
    tcp.open(active=False)
    tcp.sends_nothing()
    tcp.arrives(SYN_FROM_PEER)
    tcp.sends(us(seq=0, flags=SYN))
    tcp.arrives(peer(), at=0.1)
    tcp.sends_nothing()
    assert tcp.states == [State.LISTEN, State.SYN_RCVD, State.ESTABLISHED]


@pytest.mark.rfc9293("MUST-10")
def test_both_open_at_once(a_connection: Maker) -> None:
    """§3.5, figure 7: the SYNs cross, each is answered with SYN,ACK."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(SYN_FROM_PEER)
    tcp.sends(us(seq=0, flags=SYN))
    tcp.arrives(SYN_ACK_FROM_PEER)  # its SYN is old, its ACK is not
    tcp.arrives(peer())
    assert tcp.states == [State.SYN_RCVD, State.ESTABLISHED]


def test_data_flows_after_both_have_opened_at_once(a_connection: Maker) -> None:
    """§3.5, figure 7."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(SYN_FROM_PEER, peer())
    tcp.take()
    tcp.send(stream(10))
    tcp.sends_stream((1, 10))
    tcp.arrives(peer(stream(20), ack=11))
    assert tcp.receive() == stream(20)


def test_sequence_numbers_may_wrap_in_the_handshake(a_connection: Maker) -> None:
    """§3.4: all arithmetic is modulo 2^32."""
    tcp = a_connection(in_state=State.CLOSED, iss=2**32 - 1, irs=2**32 - 1)
    tcp.open(active=True)
    tcp.sends(us(seq=0, ack=None, flags=SYN))
    tcp.arrives(SYN_ACK_FROM_PEER)
    tcp.sends(us())
    assert tcp.connection.snd_una == 0
    assert tcp.connection.rcv_nxt == 0
    tcp.arrives(peer(b"abc"))
    tcp.sends(us(ack=4))


def test_the_first_sequence_number_is_the_one_that_was_given(a_connection: Maker) -> None:
    """§3.4.1: it was chosen outside, so that it can't be guessed."""
    tcp = a_connection(in_state=State.CLOSED, iss=0x12345678)
    tcp.connection.open(0.0, active=True)
    [seg] = [output for output in tcp.connection.take_output() if isinstance(output, Segment)]
    assert (seg.seq, seg.flags) == (0x12345678, SYN)


def test_data_that_is_sent_before_the_connection_stands_follows_the_handshake(a_connection: Maker) -> None:
    """§3.10.2: in SYN-SENT and SYN-RECEIVED it is queued."""
    for state, answer in ((State.SYN_SENT, SYN_ACK_FROM_PEER), (State.SYN_RCVD, peer())):
        tcp = a_connection(in_state=state)
        assert tcp.send(stream(300)) == 300
        assert not any(seg.data for seg in tcp.take())
        tcp.arrives(answer)
        assert b"".join(seg.data for seg in tcp.take()) == stream(300)


def test_the_segment_that_ends_the_handshake_may_carry_data(a_connection: Maker) -> None:
    """§3.10.7.4: the fifth check leads to ESTABLISHED, the seventh takes the text."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.arrives(peer(b"abc"))
    assert tcp.state == State.ESTABLISHED
    assert tcp.receive() == b"abc"
    tcp.sends(us(ack=4))


def test_data_that_comes_with_a_syn_is_not_lost(a_connection: Maker) -> None:
    """§3.4: a SYN may carry text; what of it is acknowledged must be handed out, the rest comes again."""
    tcp = a_connection(in_state=State.LISTEN)
    tcp.arrives(SYN_WITH_DATA)
    taken = (tcp.sends_one().ack - IRS - 1) % 2**32
    assert taken in (0, 100)
    tcp.arrives(*(peer(stream(50, at=at), seq=at) for at in range(1 + taken, 201, 50)))
    assert tcp.receive() == stream(200)


def test_data_that_comes_with_a_syn_ack_is_not_lost(a_connection: Maker) -> None:
    """§3.10.7.3: it may be processed at once, or later when it comes again."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(Segment(IRS, ISS + 1, SYN | ACK, WINDOW, stream(100), Options(mss=MSS)))
    taken = (tcp.take()[-1].ack - IRS - 1) % 2**32
    assert taken in (0, 100)
    tcp.arrives(*(peer(stream(50, at=at), seq=at) for at in range(1 + taken, 201, 50)))
    assert tcp.receive() == stream(200)


def test_a_repeated_syn_does_not_harm(a_connection: Maker) -> None:
    """§3.10.7.4: our SYN,ACK may be lost; the SYN that comes again begins before the window."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.arrives(SYN_FROM_PEER, at=0.5)
    assert all(seg.flags & ACK and not seg.flags & RST for seg in tcp.take())
    tcp.arrives(peer(), at=0.6)
    assert tcp.states == [State.ESTABLISHED]


def test_a_repeated_syn_ack_is_acknowledged_again(a_connection: Maker) -> None:
    """§3.10.7.4: our ACK of it was lost."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(SYN_ACK_FROM_PEER)
    tcp.sends(us())
    assert tcp.state == State.ESTABLISHED


# ---- what fails --------------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-12")
def test_refused(a_connection: Maker) -> None:
    """§3.10.7.3, second: a reset that acknowledges our SYN."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(Segment(0, ISS + 1, RST | ACK))
    assert tcp.state == State.CLOSED
    assert tcp.error == errno.ECONNREFUSED
    tcp.sends_nothing()


def test_a_reset_that_acknowledges_nothing_of_ours_is_ignored(a_connection: Maker) -> None:
    """§3.10.7.3, first."""
    for seg in (Segment(0, ISS + 7, RST | ACK), Segment(0, ISS, RST | ACK), Segment(0, flags=RST)):
        tcp = a_connection(in_state=State.SYN_SENT)
        tcp.arrives(seg)
        tcp.sends_nothing()
        assert tcp.state == State.SYN_SENT


def test_an_old_acknowledgement_is_answered_with_a_reset(a_connection: Maker) -> None:
    """§3.5.1, figure 9: half-open connections are found like this."""
    for flags in (SYN | ACK, ACK):
        for ack in (-7, 0, 2):
            tcp = a_connection(in_state=State.SYN_SENT)
            tcp.arrives(Segment(IRS, ISS + ack, flags, WINDOW))
            tcp.sends((ISS + ack, 0, RST, b""))
            assert tcp.state == State.SYN_SENT


def test_a_good_acknowledgement_without_syn_does_not_open(a_connection: Maker) -> None:
    """§3.10.7.3, fifth: neither SYN nor RST, drop."""
    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(peer(seq=0))
    tcp.sends_nothing()
    assert tcp.state == State.SYN_SENT


def test_an_old_syn_is_undone_by_a_reset(a_connection: Maker) -> None:
    """§3.5, figure 8: we can't know that it is old, but its sender does."""
    tcp = a_connection(in_state=State.LISTEN)
    tcp.arrives(Segment(IRS - 900, flags=SYN, wnd=WINDOW, options=Options(mss=MSS)))
    tcp.sends((ISS, IRS - 899, SYN | ACK, b""))
    tcp.arrives(Segment(IRS - 899, flags=RST))
    assert tcp.states == [State.SYN_RCVD, State.LISTEN]
    tcp.arrives(SYN_FROM_PEER)
    tcp.sends(us(seq=0, flags=SYN))
    tcp.arrives(peer())
    assert tcp.state == State.ESTABLISHED


@pytest.mark.rfc9293("MUST-11")
def test_a_reset_handshake_returns_to_where_it_began(a_connection: Maker) -> None:
    """§3.10.7.4, second: to LISTEN after a passive OPEN, else the connection was refused."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.arrives(peer(flags=RST, ack=None))
    assert tcp.state == State.LISTEN
    assert tcp.error is None

    tcp = a_connection(in_state=State.SYN_SENT)
    tcp.arrives(SYN_FROM_PEER)
    tcp.arrives(peer(flags=RST, ack=None))
    assert tcp.state == State.CLOSED
    assert tcp.error == errno.ECONNREFUSED


def test_another_syn_in_the_window_makes_a_listener_begin_anew(a_connection: Maker) -> None:
    """§3.10.7.4, fourth: in SYN-RECEIVED after a passive OPEN, "return this connection to the LISTEN state"."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.arrives(peer(seq=100, ack=None, flags=SYN))
    assert tcp.states == [State.LISTEN]
    tcp.arrives(SYN_FROM_PEER, peer())
    assert tcp.states == [State.LISTEN, State.SYN_RCVD, State.ESTABLISHED]


def test_a_bad_acknowledgement_of_our_syn_is_answered_with_a_reset(a_connection: Maker) -> None:
    """§3.10.7.4, fifth."""
    for ack in (0, 9):
        tcp = a_connection(in_state=State.SYN_RCVD)
        tcp.arrives(peer(ack=ack))
        tcp.sends((ISS + ack, 0, RST, b""))
        assert tcp.state == State.SYN_RCVD


def test_a_listener_wants_a_syn(a_connection: Maker) -> None:
    """§3.10.7.2: an ACK is reset; what is neither SYN, ACK nor RST is dropped."""
    tcp = a_connection(in_state=State.LISTEN)
    tcp.arrives(peer(ack=77))
    tcp.sends((ISS + 77, 0, RST, b""))
    tcp.arrives(Segment(IRS, flags=FIN), Segment(IRS, data=b"abc"))
    tcp.sends_nothing()
    assert tcp.state == State.LISTEN


def test_misuse_by_the_application_is_told(a_connection: Maker) -> None:
    """§3.10.1 "connection already exists", §3.10.2 "connection does not exist"."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    with pytest.raises(OSError) as caught:
        tcp.open(active=True)
    assert caught.value.errno == errno.EISCONN
    tcp = a_connection(in_state=State.CLOSED)
    with pytest.raises(OSError) as caught:
        tcp.send(b"abc")
    assert caught.value.errno == errno.ENOTCONN
