"""Segments that are right in one respect and wrong in another; and what may stand in one header together."""

from __future__ import annotations

import pytest

from chitcpd.tcp.api import ACK, FIN, PSH, Options, State
from chitcpd.tcp.connection import Connection
from tests.tcp.harness import IRS, MSS, WINDOW, Script, config, maker, peer, sacks, stream, us

a_connection = maker(Connection)
SACKING = Options(mss=MSS, sack_permitted=True)


def sacking() -> Script:
    return a_connection(in_state=State.ESTABLISHED, settings=config(sack=True), offers=SACKING)


def test_the_peers_initial_number_is_remembered() -> None:
    """IRS (RFC 9293 §3.3.1): the debugger counts from it."""
    assert a_connection(in_state=State.ESTABLISHED).connection.variables().irs == IRS


def test_text_and_fin_with_a_wrong_ack_do_not_open_a_connection() -> None:
    """§3.10.7.4, fifth: a reset is the answer, and nothing of the segment is taken."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.arrives(peer(b"abc", ack=2, flags=FIN))
    tcp.sends_reset(2)
    assert (tcp.state, tcp.rcv_nxt, tcp.connection.readable) == (State.SYN_RCVD, 1, 0)


def test_an_older_segment_does_not_set_the_window_though_its_ack_is_not_older() -> None:
    """§3.10.7.4: SND.WL1 is before SND.WL2."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"d", seq=4, wnd=3000), peer(b"a", seq=1, wnd=2000))
    assert tcp.connection.snd_wnd == 3000
    tcp.arrives(peer(b"e", seq=5, wnd=1000))
    assert tcp.connection.snd_wnd == 1000


def test_a_fin_that_has_no_room_waits_outside() -> None:
    """MUST-66 (§3.10.7.4): into a closed window an ACK is heeded, and nothing else of the segment."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(receive_buffer=10))
    tcp.arrives(peer(bytes(10)))
    tcp.send(b"abc")
    tcp.take()
    tcp.arrives(peer(seq=11, ack=4, flags=FIN))
    tcp.sends(us(seq=4, ack=11))
    assert (tcp.state, tcp.snd_una) == (State.ESTABLISHED, 4)


@pytest.mark.parametrize("state", [State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING])
def test_a_second_fin_is_acknowledged(state: State) -> None:
    """§3.10.7.4, eighth: and changes nothing, though it lies in the window."""
    tcp = a_connection(in_state=state)
    tcp.arrives(peer(seq=2, flags=FIN))
    assert tcp.sends_one().ack == IRS + 2
    assert tcp.states == []


def test_a_fin_alone_pushes_nothing() -> None:
    """A FIN implies a push by itself."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc")
    tcp.close()
    assert [(seg.flags, seg.data) for seg in tcp.take()] == [(PSH | ACK, b"abc"), (FIN | ACK, b"")]


# ---- options together ------------------------------------------------------------------------------------------


def test_blocks_go_without_data() -> None:
    """They would make a full segment too long for the link (RFC 6691)."""
    tcp = sacking()
    tcp.arrives(peer(b"x", seq=10))
    assert tcp.sends_one().options == sacks_of_peer((10, 11))
    tcp.send(stream(MSS))
    assert tcp.sends_one().options is None


def test_a_header_holds_four_blocks_a_duplicate_among_them() -> None:
    """RFC 2018 §3."""
    tcp = sacking()
    for seq in (10, 20, 30, 40, 50):
        tcp.arrives(peer(b"x", seq=seq))
    tcp.take()
    tcp.arrives(peer(b"x", seq=30))
    assert tcp.sends_one().options == sacks_of_peer((30, 31), (30, 31), (50, 51), (40, 41))


def sacks_of_peer(*blocks: tuple[int, int]) -> Options:
    """Counted from the peer's ISS."""
    return Options(sack=tuple((IRS + first, IRS + behind) for first, behind in blocks))


def test_a_timestamp_that_nobody_agreed_to_says_nothing() -> None:
    """RFC 7323 §3.2: so it is no round trip; the segment was sent twice, and the RTO stays doubled (RFC 6298 §5.7)."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc", at=1.0)
    tcp.waits_until(2.0)
    echoed = tcp.connection.iss + 2000
    tcp.arrives(peer(ack=4, options=Options(timestamp=(1, echoed))), at=2.1)
    tcp.take()
    tcp.send(b"def", at=3.0)
    assert tcp.connection.next_deadline() == 5.0
    assert tcp.sends_one().options is None


def test_blocks_that_nobody_agreed_to_say_nothing() -> None:
    """RFC 2018 §2; they are three duplicate ACKs all the same."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(congestion="newreno"))
    tcp.send(stream(WINDOW), at=1.0)
    tcp.take()
    tcp.arrives(*[peer(options=sacks((1, 1001)))] * 3)
    tcp.sends_stream((1, MSS))
