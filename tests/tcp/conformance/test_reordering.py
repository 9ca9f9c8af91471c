"""Data out of order: kept, put in its place, bounded. RFC 9293 section 3.10.7.4, RFC 5681 section 4.2."""

from __future__ import annotations

from random import Random

import pytest

from chitcpd.tcp.api import FIN, State
from tests.tcp.harness import BUFFER, Maker, config, peer, stream, us

pytestmark = pytest.mark.stage("reordering")


@pytest.mark.rfc9293("SHLD-31", "MAY-13", "MUST-59")
def test_what_comes_ahead_waits_for_the_gap_and_one_ack_tells_of_all(a_connection: Maker) -> None:
    """§3.10.7.4, seventh."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"def", seq=4))
    tcp.sends(us(ack=1))
    assert tcp.receive() == b""
    tcp.arrives(peer(b"abc"))
    tcp.sends(us(ack=7))
    assert tcp.receive() == b"abcdef"


@pytest.mark.rfc9293("MAY-13")
def test_out_of_order_data_is_acknowledged_at_once_also_where_acks_are_delayed(a_connection: Maker) -> None:
    """RFC 5681 §4.2: the sender counts these duplicates."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=0.2))
    for at in (1001, 2001, 3001):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        tcp.sends(us(ack=1))


def test_a_segment_that_fills_a_gap_is_acknowledged_at_once(a_connection: Maker) -> None:
    """RFC 5681 §4.2: "fills in all or part of a gap"."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(delayed_ack=0.2))
    tcp.arrives(peer(stream(1000, at=2001), seq=2001))
    tcp.take()
    tcp.arrives(peer(stream(1000)))
    tcp.sends(us(ack=1001))
    tcp.arrives(peer(stream(1000, at=1001), seq=1001))
    tcp.sends(us(ack=3001))


def test_several_gaps_are_filled_one_after_the_other(a_connection: Maker) -> None:
    """§3.10.7.4, seventh."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    for at in (6001, 2001, 4001):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
    tcp.take()
    for at, ack in ((1, 1001), (1001, 3001), (3001, 5001), (5001, 7001)):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        tcp.sends(us(ack=ack))
    assert tcp.receive() == stream(7000)


def test_a_large_segment_may_cover_what_came_before(a_connection: Maker) -> None:
    """§3.10.7.4: the peer may cut its data anew when it sends it again."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(500, at=1001), seq=1001), peer(stream(500, at=2001), seq=2001))
    tcp.arrives(peer(stream(3000)))
    assert tcp.take()[-1].ack == us(ack=3001)[1]
    assert tcp.receive() == stream(3000)


def test_overlapping_pieces_ahead_of_a_gap_are_joined(a_connection: Maker) -> None:
    """§3.10.7.4: each byte is in its place, whichever copy it comes from."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    for at, length in ((1001, 1000), (1501, 1000), (901, 300), (901, 2000)):
        tcp.arrives(peer(stream(length, at=at), seq=at))
    tcp.arrives(peer(stream(900)))
    assert tcp.take()[-1].ack == us(ack=2901)[1]
    assert tcp.receive() == stream(2900)


def test_a_repeated_segment_ahead_of_a_gap_counts_once(a_connection: Maker) -> None:
    """§3.10.7.4."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    for _ in range(3):
        tcp.arrives(peer(b"def", seq=4))
    tcp.sends(us(ack=1), us(ack=1), us(ack=1))
    tcp.arrives(peer(b"abc"))
    assert tcp.receive() == b"abcdef"


def test_a_fin_that_comes_ahead_of_data_waits_for_it(a_connection: Maker) -> None:
    """§3.10.7.4, eighth: the FIN has a sequence number, and its turn."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"def", seq=4, flags=FIN))
    assert tcp.states == []
    tcp.sends(us(ack=1))
    tcp.arrives(peer(b"abc"))
    tcp.sends(us(ack=8))
    assert tcp.states == [State.CLOSE_WAIT]
    assert tcp.receive() == b"abcdef"
    assert tcp.connection.at_eof


def test_a_fin_alone_that_comes_ahead_of_data_is_not_the_end(a_connection: Maker) -> None:
    """§3.10.7.4, eighth."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(seq=4, flags=FIN))
    tcp.sends(us(ack=1))
    assert not tcp.connection.at_eof
    tcp.arrives(peer(b"abc"), peer(seq=4, flags=FIN))
    assert tcp.state == State.CLOSE_WAIT
    assert tcp.receive() == b"abc"


@pytest.mark.parametrize("data_first", [True, False])
def test_nothing_comes_after_a_fin(a_connection: Maker, data_first: bool) -> None:
    """§3.4: it is the last of the stream. A peer that says otherwise is not believed the second time."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    beyond, fin = peer(stream(20, at=5), seq=5), peer(seq=11, flags=FIN)
    for seg in (beyond, fin) if data_first else (fin, beyond):
        tcp.arrives(seg)
    tcp.arrives(peer(stream(4)))
    read = tcp.receive()
    assert read == stream(len(read))
    assert tcp.connection.at_eof == (tcp.state == State.CLOSE_WAIT) == (len(read) == 10)
    assert len(read) == (24 if data_first else 10)


def test_nothing_beyond_the_window_is_kept(a_connection: Maker) -> None:
    """§3.10.7.4, seventh: memory is bounded by the buffer that was announced."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(stream(2000, at=BUFFER - 999), seq=BUFFER - 999))  # half of it is outside
    tcp.arrives(peer(stream(1000, at=BUFFER + 1), seq=BUFFER + 1))  # all of it is
    tcp.arrives(peer(stream(1000, at=3 * BUFFER), seq=3 * BUFFER))
    tcp.take()
    for at in range(1, BUFFER, 1000):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
    assert tcp.rcv_nxt == BUFFER + 1
    assert tcp.receive() == stream(BUFFER)


def test_sequence_numbers_wrap_in_a_gap(a_connection: Maker) -> None:
    """§3.4: modulo 2^32."""
    tcp = a_connection(in_state=State.ESTABLISHED, irs=2**32 - 1500)
    for at in (3001, 1001, 2001):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        tcp.sends(us(ack=1))
    tcp.arrives(peer(stream(1000)))
    tcp.sends(us(ack=4001))
    assert tcp.receive() == stream(4000)


@pytest.mark.parametrize("seed", range(10))
def test_any_order_gives_the_same_stream(a_connection: Maker, seed: int) -> None:
    """§3.8: shuffled, repeated, cut anew; across the wrap."""
    random = Random(seed)
    print(f"seed={seed}")
    tcp = a_connection(in_state=State.ESTABLISHED, irs=2**32 - 4000)
    pieces = [(at, random.randrange(1, 900)) for at in range(1, BUFFER, 200) for _ in range(3)]
    pieces += [(at, 200) for at in range(1, BUFFER, 200)]
    random.shuffle(pieces)
    for at, length in pieces:
        length = min(length, BUFFER + 1 - at)
        tcp.arrives(peer(stream(length, at=at), seq=at))
    assert tcp.receive() == stream(BUFFER)
    assert tcp.rcv_nxt == BUFFER + 1


@pytest.mark.parametrize("seed", range(5))
def test_what_was_dropped_is_taken_when_it_comes_again(a_connection: Maker, seed: int) -> None:
    """§3.10.7.4: keeping what comes ahead is a SHOULD; a peer that sends again until it is acknowledged gets it all
    through.
    """
    random = Random(seed)
    print(f"seed={seed}")
    tcp = a_connection(in_state=State.ESTABLISHED, irs=2**32 - 4000)
    pieces = list(range(1, BUFFER, 1000))
    rounds = 0
    while tcp.rcv_nxt < BUFFER + 1:
        random.shuffle(pieces)
        for at in pieces:
            if at >= tcp.rcv_nxt:
                tcp.arrives(peer(stream(1000, at=at), seq=at))
        rounds += 1
        assert rounds <= len(pieces)
    assert tcp.receive() == stream(BUFFER)
