"""Giving up, and probing the idle: RFC 9293 sections 3.8.3, 3.8.4, 3.9.1.1 and 3.10.8."""

from __future__ import annotations

import errno

import pytest

from chitcpd.tcp.api import FIN, SYN, Config, State
from tests.tcp.harness import MSS, SYN_FROM_PEER, Maker, Script, config, peer, stream, us

pytestmark = pytest.mark.stage("time-outs")

R2, SYN_R2 = Config().retries, Config().syn_retries  # as they are if nobody says otherwise


def lives_until(tcp: Script, longest: float = 10_000.0) -> float:
    """When the connection is given up."""
    while tcp.state != State.CLOSED:
        deadline = tcp.connection.next_deadline()
        assert deadline is not None, "no timer runs: this connection is never given up"
        assert deadline < longest
        tcp.waits_until(deadline)
    return tcp.now


# ---- R1 and R2 (§3.8.3) ------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-20", "MUST-21", "MUST-12")
@pytest.mark.parametrize("retries", [0, 3, 6])
def test_a_segment_that_is_never_acknowledged_is_given_up_after_r2(a_connection: Maker, retries: int) -> None:
    """§3.8.3 (a), (c), (d): R2 is the setting `retries`; 1, 2, 4, ... seconds between them."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=retries))
    tcp.send(b"abc", at=0.0)
    assert lives_until(tcp) == pytest.approx(sum(min(2**k, 60) for k in range(retries + 1)))
    tcp.sends(*[us(b"abc")] * (1 + retries))
    assert tcp.error == errno.ETIMEDOUT
    for call in (tcp.receive, lambda: tcp.send(b"x")):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ETIMEDOUT
    assert tcp.connection.next_deadline() is None


@pytest.mark.rfc9293("SHLD-11", "SHLD-10")
def test_data_is_tried_for_at_least_100_seconds_and_more_than_three_times(a_connection: Maker) -> None:
    """§3.8.3: as the TCP is by default, over the fastest network there is."""
    settings = config(retries=R2, rto_min=Config().rto_min)
    tcp = a_connection(in_state=State.ESTABLISHED, settings=settings)
    tcp.send(b"abc", at=0.0)
    assert lives_until(tcp) >= 100
    assert len(tcp.take()) > 3


@pytest.mark.rfc9293("MUST-22", "MUST-23")
@pytest.mark.parametrize("state", [State.SYN_SENT, State.SYN_RCVD])
def test_a_syn_is_tried_for_at_least_three_minutes(a_connection: Maker, state: State) -> None:
    """§3.8.3: as the TCP is by default."""
    tcp = a_connection(in_state=state, settings=config(syn_retries=SYN_R2))
    assert lives_until(tcp) >= 180
    assert tcp.error == errno.ETIMEDOUT


@pytest.mark.rfc9293("MUST-22")
def test_a_syn_has_a_limit_of_its_own(a_connection: Maker) -> None:
    """§3.8.3: the setting `syn_retries`."""
    tcp = a_connection(in_state=State.SYN_SENT, settings=config(syn_retries=3, retries=99))
    assert lives_until(tcp) == pytest.approx(1 + 2 + 4 + 8)
    tcp.sends(*[us(seq=0, ack=None, flags=SYN)] * 3)


def test_a_fin_is_given_up_like_data(a_connection: Maker) -> None:
    """§3.8.3."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=2))
    tcp.close(at=0.0)
    tcp.sends(us(flags=FIN))
    assert lives_until(tcp) == pytest.approx(7.0)
    assert tcp.error == errno.ETIMEDOUT


def test_progress_begins_the_count_anew(a_connection: Maker) -> None:
    """§3.8.3: R2 is about "the same segment"."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=2))
    at = 0.0
    for k in range(6):
        tcp.send(stream(1, at=1 + k), at=at)
        while len(tcp.sent) < 3:  # the segment, and two retransmissions
            tcp.waits_until(tcp.now + 0.5)
        tcp.take()
        tcp.arrives(peer(ack=2 + k), at=tcp.now + 0.1)
        assert tcp.state == State.ESTABLISHED
        at = tcp.now + 0.1


def test_what_was_received_before_can_still_be_read(a_connection: Maker) -> None:
    """§3.9.1.3: the failure comes after the data."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(retries=1))
    tcp.arrives(peer(b"abc"))
    tcp.send(b"x", at=1.0)
    lives_until(tcp)
    assert tcp.receive() == b"abc"
    with pytest.raises(OSError):
        tcp.receive()


# ---- the user time-out (§3.9.1.1, §3.10.8) -----------------------------------------------------------------


@pytest.mark.rfc9293("MUST-21")
def test_the_user_time_out_ends_a_connection_whose_data_is_not_acknowledged(a_connection: Maker) -> None:
    """§3.10.8: the setting `user_timeout`, in seconds."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(user_timeout=12.5))
    tcp.send(b"abc", at=100.0)
    assert lives_until(tcp) == pytest.approx(112.5)
    assert tcp.error == errno.ETIMEDOUT


def test_the_user_time_out_counts_from_the_oldest_data(a_connection: Maker) -> None:
    """§3.9.1.1: "if data is not successfully delivered to the destination within the timeout period"."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(user_timeout=10.0))
    tcp.send(stream(1000), at=100.0)
    tcp.send(stream(1000, at=1001), at=105.0)
    tcp.arrives(peer(ack=1001), at=109.0)
    assert lives_until(tcp) == pytest.approx(115.0)


def test_the_user_time_out_leaves_an_idle_connection_alone(a_connection: Maker) -> None:
    """§3.9.1.1: nothing waits to be delivered."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(user_timeout=10.0))
    tcp.send(b"abc", at=100.0)
    tcp.arrives(peer(ack=4), at=101.0)
    tcp.waits_until(1000.0)
    assert tcp.state == State.ESTABLISHED


def test_the_user_time_out_holds_for_data_that_a_closed_window_keeps_back(a_connection: Maker) -> None:
    """§3.9.1.1: it is not delivered either."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(user_timeout=10.0))
    tcp.arrives(peer(wnd=0), at=1.0)
    tcp.send(b"abc", at=100.0)
    assert lives_until(tcp) == pytest.approx(110.0)
    assert tcp.error == errno.ETIMEDOUT


# ---- keep-alive (§3.8.4) -----------------------------------------------------------------------------------

KEEP_ALIVE = config(keep_alive=7200.0, keep_alive_interval=75.0, keep_alive_probes=3)


@pytest.mark.rfc9293("MUST-25")
def test_an_idle_connection_is_left_alone_by_default(a_connection: Maker) -> None:
    """§3.8.4."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(keep_alive=Config().keep_alive))
    tcp.arrives(peer(b"abc"), at=1.0)
    tcp.take()
    tcp.waits_until(1_000_000.0)
    tcp.sends_nothing()
    assert tcp.state == State.ESTABLISHED


@pytest.mark.rfc9293("MAY-5", "MUST-24", "MUST-26", "MUST-27", "SHLD-12")
def test_an_idle_connection_is_probed_if_the_application_wants_it(a_connection: Maker) -> None:
    """§3.8.4: <SEQ=SND.NXT-1>, without data, after the interval that was set."""
    for interval in (7200.0, 60.0):
        tcp = a_connection(in_state=State.ESTABLISHED, settings=config(keep_alive=interval))
        tcp.arrives(peer(b"abc"), at=1.0)
        tcp.take()
        tcp.sends(us(seq=0, ack=4), at=1.0 + interval)


def test_a_connection_on_which_nothing_was_ever_said_is_probed_too(a_connection: Maker) -> None:
    """§3.8.4: the handshake is the last that was heard of the peer."""
    for state in (State.SYN_SENT, State.SYN_RCVD):
        tcp = a_connection(in_state=state, settings=KEEP_ALIVE)
        tcp.arrives(peer(seq=0, flags=SYN) if state == State.SYN_SENT else peer())
        tcp.take()
        tcp.sends(us(seq=0), at=7200.0)


@pytest.mark.rfc9293("MUST-26")
def test_each_segment_from_the_peer_begins_the_interval_anew(a_connection: Maker) -> None:
    """§3.8.4: data or acknowledgement."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=KEEP_ALIVE)
    tcp.arrives(peer(), at=1000.0)
    tcp.arrives(peer(), at=8000.0)
    tcp.take()
    tcp.sends(us(seq=0), at=15_200.0)


@pytest.mark.rfc9293("MUST-26")
def test_no_probe_is_sent_while_data_is_in_flight(a_connection: Maker) -> None:
    """§3.8.4: retransmission finds out."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(keep_alive=5.0))
    tcp.arrives(peer(), at=1.0)
    tcp.send(b"abc", at=2.0)
    tcp.waits_until(30.0)
    assert all(seg.data == b"abc" for seg in tcp.take())


@pytest.mark.rfc9293("MUST-29")
def test_one_probe_without_answer_means_nothing(a_connection: Maker) -> None:
    """§3.8.4: ACKs may be lost; it is asked again, and an answer ends it."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=KEEP_ALIVE)
    tcp.arrives(peer(), at=0.0)
    for at in (7200.0, 7275.0):
        tcp.sends(us(seq=0), at=at)
    tcp.arrives(peer(), at=7276.0)
    for at in (14_476.0, 14_551.0, 14_626.0):
        tcp.sends(us(seq=0), at=at)
    assert tcp.state == State.ESTABLISHED


@pytest.mark.rfc9293("MUST-29")
def test_a_peer_that_answers_no_probe_is_given_up(a_connection: Maker) -> None:
    """§3.8.4: the settings `keep_alive_probes` and `keep_alive_interval`."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=KEEP_ALIVE)
    tcp.arrives(peer(), at=0.0)
    assert lives_until(tcp) == pytest.approx(7200 + 3 * 75)
    assert tcp.error == errno.ETIMEDOUT
    tcp.sends(*[us(seq=0)] * 3)


def test_a_probe_from_the_peer_is_answered(a_connection: Maker) -> None:
    """§3.8.4: its sequence number lies before the window; with a garbage octet or without."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(MSS)))
    tcp.take()
    tcp.arrives(peer(seq=MSS), at=100.0)
    tcp.sends(us(ack=MSS + 1))
    tcp.arrives(peer(b"?", seq=MSS), at=200.0)
    tcp.sends(us(ack=MSS + 1))
    assert tcp.receive() == stream(MSS)


def test_a_probe_does_not_move_a_sequence_number(a_connection: Maker) -> None:
    """§3.8.4: what is sent afterwards comes where it belongs."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=KEEP_ALIVE)
    tcp.arrives(peer(), at=0.0)
    tcp.waits_until(7200.0)
    tcp.take()
    tcp.send(b"abc")
    tcp.sends(us(b"abc"))


def test_a_listener_is_not_probed(a_connection: Maker) -> None:
    """§3.8.4: there is nobody yet."""
    tcp = a_connection(in_state=State.LISTEN, settings=KEEP_ALIVE)
    tcp.waits_until(100_000.0)
    tcp.sends_nothing()
    tcp.arrives(SYN_FROM_PEER)
    tcp.sends(us(seq=0, flags=SYN))
