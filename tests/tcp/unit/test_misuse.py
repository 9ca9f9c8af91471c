"""What an application that calls out of turn is told, and what its calls leave behind."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from chitcpd.tcp.api import ACK, FIN, RST, SYN, Options, Segment, State
from chitcpd.tcp.connection import Connection
from tests.tcp.harness import IRS, ISS, MSS, SYN_FROM_PEER, Script, config, maker, peer, stream

a_connection = maker(Connection)


def failure(call: Callable[[], object]) -> tuple[int | None, str | None]:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno, caught.value.strerror


def test_sending_after_close() -> None:
    tcp = a_connection(in_state=State.FIN_WAIT_2)
    assert failure(lambda: tcp.send(b"x")) == (errno.EPIPE, "the connection is closed for sending")


def test_using_what_was_never_opened() -> None:
    tcp = a_connection(in_state=State.CLOSED)
    assert failure(lambda: tcp.send(b"x")) == (errno.ENOTCONN, "the connection is not open")


@pytest.mark.parametrize("state", [State.LISTEN, State.SYN_SENT, State.ESTABLISHED])
def test_opening_twice(state: State) -> None:
    tcp = a_connection(in_state=state)
    assert failure(lambda: tcp.open(active=True)) == (errno.EISCONN, "the connection is open already")
    assert tcp.state == state


def test_using_what_has_failed() -> None:
    """What came before can be read; then every call tells of the failure."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc"), peer(seq=4, flags=RST))
    assert tcp.receive() == b"abc"
    assert failure(tcp.receive) == (errno.ECONNRESET, "the connection has failed")
    assert failure(lambda: tcp.send(b"x")) == (errno.ECONNRESET, "the connection has failed")


def test_a_reset_in_answer_to_abort_acknowledges_too() -> None:
    """RFC 9293 §3.5.2, and so a peer that checks both believes it."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc"))
    tcp.send(b"de")
    tcp.take()
    tcp.abort()
    assert tcp.sends_one() == Segment(ISS + 3, IRS + 4, RST | ACK)


def test_what_waits_to_be_sent_outlives_a_handshake_that_was_reset() -> None:
    """SYN-RECEIVED to LISTEN (§3.10.7.4): the data that the application had handed over goes to the next peer."""
    tcp = a_connection(in_state=State.SYN_RCVD, settings=config(send_buffer=5000))
    tcp.send(stream(3000))
    tcp.arrives(peer(flags=RST, ack=None))
    assert tcp.states == [State.LISTEN]
    tcp.arrives(SYN_FROM_PEER, peer(wnd=9000))
    assert tcp.states == [State.LISTEN, State.SYN_RCVD, State.ESTABLISHED]
    assert tcp.connection.writable == 2000
    assert b"".join(seg.data for seg in tcp.take()) == stream(3000)


def test_close_ends_a_connection_whose_handshake_was_reset() -> None:
    """Data waited, so the FIN did; nobody is left to send either to."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.send(b"abc")
    tcp.close()
    tcp.arrives(peer(flags=RST, ack=None))
    assert tcp.states == [State.CLOSED]


def test_nothing_of_one_peer_stays_for_the_next() -> None:
    """SYN-RECEIVED to LISTEN: what the first SYN has agreed to does not hold for the second."""
    everything = Options(mss=MSS, window_scale=7, sack_permitted=True, timestamp=(1, 0))
    settings = config(window_scaling=True, sack=True, timestamps=True, receive_buffer=1 << 20, congestion="newreno")
    tcp = a_connection(in_state=State.SYN_RCVD, settings=settings, offers=everything)
    tcp.arrives(peer(flags=RST, ack=None))
    tcp.offers = Options(mss=MSS)
    tcp.arrives(SYN_FROM_PEER)
    assert tcp.take()[-1].options == Options(mss=MSS)
    tcp.arrives(peer(wnd=3000))
    assert (tcp.connection.snd_wnd, tcp.connection.rcv_wnd) == (3000, 0xFFFF)
    tcp.send(stream(5000), at=1.0)
    assert [seg.options for seg in tcp.take()] == [None] * 3
    tcp.arrives(*[peer(wnd=3000)] * 3)
    tcp.sends_stream((1, MSS))  # three duplicate ACKs are news without SACK


@pytest.mark.parametrize("flags", [SYN | ACK, SYN | RST, SYN | FIN | ACK, FIN])
def test_only_a_plain_syn_ends_time_wait(flags: int) -> None:
    """MAY-2 (§3.6.1), from a sequence number beyond all that the old connection had."""
    tcp = a_connection(in_state=State.TIME_WAIT)
    tcp.arrives(peer(seq=100_000, ack=2 if flags & ACK else None, flags=flags))
    assert tcp.state == State.TIME_WAIT


def test_the_user_time_out_needs_no_data() -> None:
    """A FIN that is never acknowledged is data too."""
    tcp = Script(Connection(iss=ISS, config=config(user_timeout=5.0)))
    tcp.open(active=True)
    tcp.arrives(Segment(IRS, ISS + 1, SYN | ACK, 1000), at=0.5)
    tcp.close(at=1.0)
    tcp.waits_until(5.9)
    assert tcp.state == State.FIN_WAIT_1
    tcp.waits_until(6.1)
    assert (tcp.state, tcp.error) == (State.CLOSED, errno.ETIMEDOUT)


@pytest.mark.parametrize("at", [4, 10, 900, 990])
def test_nothing_is_kept_that_lies_behind_a_fin(at: int) -> None:
    """§3.10.7.4, eighth: the FIN came ahead of a gap; a peer that sends more behind it gains no memory by that."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(receive_buffer=1000))
    tcp.arrives(peer(b"c", seq=3, flags=FIN), peer(stream(2000, at=at), seq=at))
    assert isinstance(tcp.connection, Connection)
    assert sum(len(data) for _, data in tcp.connection._receive._ahead) == 1
    tcp.arrives(peer(b"ab"))
    assert (tcp.receive(), tcp.state) == (b"abc", State.CLOSE_WAIT)
