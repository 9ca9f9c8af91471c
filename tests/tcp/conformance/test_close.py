"""Closing a connection: RFC 9293 sections 3.6, 3.10.4 and 3.10.7.4."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from chitcpd.tcp.api import ACK, FIN, SYN, Options, State
from tests.tcp.harness import MSS, OFFERS, SYN_FROM_PEER, Maker, config, peer, stream, text_of, us

pytestmark = pytest.mark.stage("close")

ONE_SIDE_CLOSED = [State.FIN_WAIT_1, State.FIN_WAIT_2]


# ---- who closes first --------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-12", "MUST-13")
def test_we_close_first(a_connection: Maker) -> None:
    """§3.6, figure 12, TCP Peer A."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.close(at=0.0)
    tcp.sends(us(flags=FIN))
    tcp.arrives(peer(ack=2), at=0.1)
    tcp.sends_nothing()
    tcp.arrives(peer(ack=2, flags=FIN), at=0.2)
    tcp.sends(us(seq=2, ack=2))
    assert tcp.connection.at_eof
    tcp.waits_until(60.1)
    assert tcp.state == State.TIME_WAIT
    tcp.waits_until(60.2)
    assert tcp.states == [State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT, State.CLOSED]
    assert tcp.error is None


@pytest.mark.rfc9293("MUST-12")
def test_the_peer_closes_first(a_connection: Maker) -> None:
    """§3.6, figure 12, TCP Peer B."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(flags=FIN))
    tcp.sends(us(ack=2))
    assert tcp.connection.at_eof
    tcp.close()
    tcp.sends(us(ack=2, flags=FIN))
    tcp.arrives(peer(seq=2, ack=2))
    assert tcp.states == [State.CLOSE_WAIT, State.LAST_ACK, State.CLOSED]
    assert tcp.error is None
    tcp.sends_nothing()


def test_both_close_at_once(a_connection: Maker) -> None:
    """§3.6, figure 13."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.close()
    tcp.sends(us(flags=FIN))
    tcp.arrives(peer(flags=FIN))
    tcp.sends(us(seq=2, ack=2))
    tcp.arrives(peer(seq=2, ack=2))
    tcp.waits_until(60.0)
    assert tcp.states == [State.FIN_WAIT_1, State.CLOSING, State.TIME_WAIT, State.CLOSED]


def test_fin_and_the_acknowledgement_of_ours_in_one_segment(a_connection: Maker) -> None:
    """§3.3.2, note 2."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.close()
    tcp.take()
    tcp.arrives(peer(ack=2, flags=FIN))
    tcp.sends(us(seq=2, ack=2))
    assert tcp.state == State.TIME_WAIT


def test_sequence_numbers_wrap_at_the_fins(a_connection: Maker) -> None:
    """§3.4: modulo 2^32."""
    tcp = a_connection(in_state=State.ESTABLISHED, iss=2**32 - 2, irs=2**32 - 2)
    tcp.close()
    tcp.sends(us(flags=FIN))
    tcp.arrives(peer(ack=2), peer(ack=2, flags=FIN))
    tcp.sends(us(seq=2, ack=2))
    assert tcp.connection.rcv_nxt == tcp.connection.snd_una == 0
    assert tcp.states == [State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT]


# ---- data and FIN ------------------------------------------------------------------------------------------


def test_the_fin_follows_the_data_that_waits(a_connection: Maker) -> None:
    """§3.10.4: "queue this until all preceding SENDs have been segmentized"."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(5000))
    tcp.close()
    assert not any(seg.flags & FIN for seg in tcp.sent)
    assert tcp.states == [State.FIN_WAIT_1]
    sent = tcp.sends_to_the_end()
    assert text_of(sent) == stream(5000)
    assert [seg.flags & FIN for seg in sent] == [0] * (len(sent) - 1) + [FIN]
    assert tcp.states == [State.FIN_WAIT_1, State.FIN_WAIT_2]


def test_an_acknowledgement_of_the_data_is_not_one_of_the_fin(a_connection: Maker) -> None:
    """§3.10.7.4, fifth: "if the FIN segment is now acknowledged"."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(500))
    tcp.close()
    tcp.arrives(peer(ack=501))
    assert tcp.states == [State.FIN_WAIT_1]
    tcp.arrives(peer(ack=502))
    assert tcp.states == [State.FIN_WAIT_1, State.FIN_WAIT_2]


def test_what_the_peer_sends_with_its_fin_is_handed_out(a_connection: Maker) -> None:
    """§3.10.7.4: the text comes before the FIN."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc", flags=FIN))
    tcp.sends(us(ack=5))
    assert tcp.state == State.CLOSE_WAIT
    assert not tcp.connection.at_eof
    assert tcp.receive() == b"abc"
    assert tcp.connection.at_eof
    assert tcp.receive() == b""


def test_half_close_data_still_comes(a_connection: Maker) -> None:
    """§3.6, case 1: we go on receiving until the peer closes too."""
    for state, ack in ((State.FIN_WAIT_1, 1), (State.FIN_WAIT_2, 2)):
        tcp = a_connection(in_state=state)
        tcp.arrives(peer(stream(500), ack=ack))
        tcp.sends(us(seq=2, ack=501))
        tcp.arrives(peer(stream(500, at=501), seq=501, ack=ack, flags=FIN))
        tcp.sends(us(seq=2, ack=1002))
        assert tcp.receive() == stream(1000)
        assert tcp.connection.at_eof


def test_half_close_data_still_goes(a_connection: Maker) -> None:
    """§3.6, case 2: after the peer's FIN we may send for as long as we like."""
    tcp = a_connection(in_state=State.CLOSE_WAIT)
    tcp.send(stream(3000), at=10.0)
    assert text_of(tcp.sends_to_the_end()) == stream(3000)
    tcp.send(stream(10, at=3001), at=500.0)
    tcp.close()
    sent = tcp.sends_to_the_end()
    assert text_of(sent) == stream(10, at=3001)
    assert sent[-1].flags & FIN
    assert tcp.states == [State.LAST_ACK, State.CLOSED]


def test_data_that_was_sent_before_the_peers_fin_is_still_acknowledged(a_connection: Maker) -> None:
    """§3.10.7.4, fifth: in CLOSING and LAST-ACK only the ACK of our FIN leads on."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(100))
    tcp.close()
    tcp.arrives(peer(flags=FIN))
    tcp.arrives(peer(seq=2, ack=101))
    assert tcp.states == [State.FIN_WAIT_1, State.CLOSING]
    tcp.arrives(peer(seq=2, ack=102))
    assert tcp.states == [State.FIN_WAIT_1, State.CLOSING, State.TIME_WAIT]


def test_text_after_the_peers_fin_is_ignored(a_connection: Maker) -> None:
    """§3.10.7.4, seventh: "this should not occur"."""
    tcp = a_connection(in_state=State.CLOSE_WAIT)
    tcp.arrives(peer(b"more", seq=2))
    assert tcp.receive() == b""
    assert tcp.rcv_nxt == 2


def test_a_repeated_fin_is_acknowledged_again(a_connection: Maker) -> None:
    """§3.10.7.4, first: our ACK of it was lost."""
    for state, seq in ((State.CLOSE_WAIT, 1), (State.CLOSING, 2), (State.LAST_ACK, 2)):
        tcp = a_connection(in_state=state)
        tcp.arrives(peer(flags=FIN))
        tcp.sends(us(seq=seq, ack=2))
        assert tcp.state == state


def test_our_fin_is_sent_again(a_connection: Maker) -> None:
    """§3.8.1: it takes a sequence number, so it is retransmitted as data is."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.close(at=10.0)
    tcp.sends(us(flags=FIN))
    tcp.sends(us(flags=FIN), at=11.0)
    tcp.sends(us(flags=FIN), at=13.0)
    tcp.arrives(peer(ack=2), at=13.1)
    assert tcp.state == State.FIN_WAIT_2


def test_data_and_fin_are_sent_again(a_connection: Maker) -> None:
    """§3.8.1."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc", at=10.0)
    tcp.close()
    tcp.take()
    tcp.waits_until(11.0)
    assert tcp.take()[0].data == b"abc"
    tcp.arrives(peer(ack=4), at=11.1)
    tcp.waits_until(20.0)
    assert tcp.take()[0].flags & FIN


# ---- TIME-WAIT (§3.6.1) ------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-13")
@pytest.mark.parametrize("msl", [0.5, 30.0, 120.0])
def test_time_wait_lasts_two_msl(a_connection: Maker, msl: float) -> None:
    """§3.6.1."""
    tcp = a_connection(in_state=State.FIN_WAIT_2, settings=config(msl=msl))
    tcp.arrives(peer(ack=2, flags=FIN), at=10.0)
    tcp.waits_until(10.0 + 2 * msl - 0.001)
    assert tcp.states == [State.TIME_WAIT]
    tcp.waits_until(10.0 + 2 * msl)
    assert tcp.states == [State.TIME_WAIT, State.CLOSED]


def test_time_wait_can_be_turned_off(a_connection: Maker) -> None:
    """The setting `msl` may be 0: then the state is passed through."""
    tcp = a_connection(in_state=State.FIN_WAIT_2, settings=config(msl=0.0))
    tcp.arrives(peer(ack=2, flags=FIN), at=10.0)
    tcp.sends(us(seq=2, ack=2))
    tcp.waits_until(10.0)
    assert tcp.states == [State.TIME_WAIT, State.CLOSED]


@pytest.mark.rfc9293("MUST-13")
def test_a_repeated_fin_restarts_time_wait(a_connection: Maker) -> None:
    """§3.10.7.4, eighth: the peer has missed our last ACK, and may miss the next."""
    tcp = a_connection(in_state=State.TIME_WAIT)
    tcp.arrives(peer(ack=2, flags=FIN), at=50.0)
    tcp.sends(us(seq=2, ack=2))
    tcp.waits_until(109.9)
    assert tcp.states == []
    tcp.waits_until(110.0)
    assert tcp.states == [State.CLOSED]


@pytest.mark.rfc9293("MAY-2")
def test_a_new_syn_may_end_time_wait(a_connection: Maker) -> None:
    """§3.6.1: the old connection makes room for the new one, or defends itself with an ACK."""
    tcp = a_connection(in_state=State.TIME_WAIT)
    tcp.arrives(replace(SYN_FROM_PEER, seq=5000 + 100_000), at=1.0)
    if tcp.state == State.CLOSED:
        tcp.sends_nothing()  # the new connection is a new object
    else:
        assert tcp.state == State.TIME_WAIT
        tcp.sends(us(seq=2, ack=2))


def test_an_old_syn_does_not_end_time_wait(a_connection: Maker) -> None:
    """§3.6.1: a duplicate of the old connection's SYN must not open another one."""
    tcp = a_connection(in_state=State.TIME_WAIT)
    tcp.arrives(SYN_FROM_PEER, at=1.0)
    tcp.sends(us(seq=2, ack=2))
    assert tcp.state == State.TIME_WAIT


@pytest.mark.rfc9293("SHLD-4")
def test_with_timestamps_a_newer_syn_ends_time_wait_whatever_its_sequence_number(a_connection: Maker) -> None:
    """§3.6.1, RFC 6191 §2."""
    offers = Options(mss=MSS, timestamp=(1000, 0))
    for value, ends in ((9_000_000, True), (900, False)):
        tcp = a_connection(in_state=State.TIME_WAIT, settings=config(timestamps=True), offers=offers)
        tcp.arrives(replace(SYN_FROM_PEER, seq=10, options=Options(mss=MSS, timestamp=(value, 0))), at=1.0)
        assert tcp.state == (State.CLOSED if ends else State.TIME_WAIT)


# ---- the application ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*ONE_SIDE_CLOSED, State.CLOSING, State.LAST_ACK, State.TIME_WAIT])
def test_sending_after_close_is_an_error(a_connection: Maker, state: State) -> None:
    """§3.10.2: "connection closing"."""
    tcp = a_connection(in_state=state)
    with pytest.raises(OSError) as caught:
        tcp.send(b"x")
    assert caught.value.errno == errno.EPIPE
    assert tcp.connection.writable == 0
    tcp.sends_nothing()


@pytest.mark.parametrize("state", [*ONE_SIDE_CLOSED, State.CLOSING, State.LAST_ACK, State.TIME_WAIT])
def test_closing_twice_is_harmless(a_connection: Maker, state: State) -> None:
    """The contract; §3.10.4 would have an error."""
    tcp = a_connection(in_state=state)
    tcp.close()
    tcp.sends_nothing()
    assert tcp.state == state


@pytest.mark.parametrize("state", [State.LISTEN, State.SYN_SENT])
def test_closing_before_anything_was_agreed_leaves_nothing(a_connection: Maker, state: State) -> None:
    """§3.10.4: delete the TCB."""
    tcp = a_connection(in_state=state)
    tcp.close()
    assert tcp.states == [State.CLOSED]
    tcp.waits_until(100.0)
    tcp.sends_nothing()
    assert tcp.error is None


def test_closing_during_the_handshake(a_connection: Maker) -> None:
    """§3.10.4: SYN-RECEIVED with nothing to send: the FIN goes at once."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.close()
    tcp.sends(us(flags=FIN))
    tcp.arrives(peer(ack=2))
    assert tcp.states == [State.FIN_WAIT_1, State.FIN_WAIT_2]


def test_closing_during_the_handshake_with_data_to_send(a_connection: Maker) -> None:
    """§3.10.4: else "queue for processing after entering ESTABLISHED state"."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.send(b"abc")
    tcp.close()
    tcp.take()
    tcp.arrives(peer())
    sent = tcp.sends_to_the_end()
    assert text_of(sent) == b"abc"
    assert sent[-1].flags & FIN
    assert tcp.states[-2:] == [State.FIN_WAIT_1, State.FIN_WAIT_2]


def test_closing_during_the_handshake_says_so_after_it(a_connection: Maker) -> None:
    """§3.10.4: whether the FIN has waited for ESTABLISHED or not, it comes."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.close()
    if not tcp.sent:
        tcp.arrives(peer())
    assert [seg.flags & FIN for seg in tcp.sends_to_the_end()] == [FIN]
    assert tcp.states[-2:] == [State.FIN_WAIT_1, State.FIN_WAIT_2]


def test_a_connection_with_timestamps_closes_too(a_connection: Maker) -> None:
    """RFC 7323 §3.2: every segment has them, the last ones too."""
    offers = replace(OFFERS, timestamp=(1000, 0))
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(timestamps=True), offers=offers)
    tcp.close(at=1.0)
    tcp.arrives(peer(ack=2), at=1.1)
    tcp.arrives(peer(ack=2, flags=FIN), at=1.2)
    sent = tcp.take()
    assert [seg.flags & (FIN | ACK | SYN) for seg in sent] == [FIN | ACK, ACK]
    assert all(seg.options is not None and seg.options.timestamp is not None for seg in sent)
    assert tcp.state == State.TIME_WAIT
