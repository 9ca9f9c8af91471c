"""Robustness: resets, blind attacks, and whatever else may come. RFC 9293 sections 3.5.2, 3.5.3, 3.10.5; RFC 5961."""

from __future__ import annotations

import errno
from itertools import pairwise
from random import Random

import pytest

from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, URG, Options, Segment, State
from tests.tcp.harness import BUFFER, IRS, ISS, MSS, OFFERS, WINDOW, Maker, config, peer, stream, us

pytestmark = pytest.mark.stage("robustness")

SYNCHRONIZED = [
    State.ESTABLISHED,
    State.FIN_WAIT_1,
    State.FIN_WAIT_2,
    State.CLOSE_WAIT,
    State.CLOSING,
    State.LAST_ACK,
    State.TIME_WAIT,
]
BOTH_CLOSED = (State.CLOSING, State.LAST_ACK, State.TIME_WAIT)


# ---- no connection -----------------------------------------------------------------------------------------


def test_without_a_connection_a_segment_with_ack_is_reset_at_its_acknowledgement(a_connection: Maker) -> None:
    """§3.10.7.1: <SEQ=SEG.ACK><CTL=RST>."""
    tcp = a_connection(in_state=State.CLOSED)
    tcp.arrives(Segment(7, 99, ACK))
    tcp.sends((99, 0, RST, b""))
    assert tcp.state == State.CLOSED


def test_without_a_connection_a_segment_without_ack_is_reset_behind_its_end(a_connection: Maker) -> None:
    """§3.10.7.1: <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>; SYN and FIN count."""
    for flags, length in ((SYN, 1), (FIN, 1), (SYN | FIN, 2), (0, 0)):
        for data in (b"", b"abc"):
            tcp = a_connection(in_state=State.CLOSED)
            tcp.arrives(Segment(7, flags=flags, data=data))
            tcp.sends((0, 7 + length + len(data), RST | ACK, b""))


def test_the_end_of_a_segment_may_lie_behind_the_wrap(a_connection: Maker) -> None:
    """§3.4: modulo 2^32."""
    tcp = a_connection(in_state=State.CLOSED)
    tcp.arrives(Segment(2**32 - 1, flags=SYN))
    tcp.sends((0, 0, RST | ACK, b""))


def test_a_reset_is_never_answered(a_connection: Maker) -> None:
    """§3.5.2: else two TCPs could reset each other for ever."""
    for state in (State.CLOSED, State.LISTEN):
        for flags in (RST, RST | ACK, RST | SYN, RST | FIN):
            tcp = a_connection(in_state=state)
            tcp.arrives(Segment(7, 99, flags))
            tcp.sends_nothing()
            assert tcp.state == state


# ---- a reset comes (§3.5.3, RFC 5961 §3) -------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-12")
@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_a_reset_with_the_exact_sequence_number_ends_the_connection(a_connection: Maker, state: State) -> None:
    """§3.10.7.4, second; if all that was to be said was said, it is no error."""
    tcp = a_connection(in_state=state)
    tcp.arrives(peer(seq=tcp.rcv_nxt, ack=None, flags=RST))
    assert tcp.state == State.CLOSED
    tcp.sends_nothing()
    assert tcp.error == (None if state in BOTH_CLOSED else errno.ECONNRESET)
    assert tcp.connection.next_deadline() is None


@pytest.mark.rfc9293("MAY-12")
@pytest.mark.parametrize("state", [State.SYN_RCVD, *SYNCHRONIZED])
def test_a_reset_elsewhere_in_the_window_is_challenged(a_connection: Maker, state: State) -> None:
    """RFC 5961 §3.2: whoever guesses a number in the window must not be able to end the connection."""
    tcp = a_connection(in_state=state)
    tcp.arrives(peer(seq=tcp.rcv_nxt + 1, ack=None, flags=RST))
    assert tcp.state == state
    assert [seg.flags for seg in tcp.take()] == [ACK]


@pytest.mark.parametrize("state", [State.SYN_RCVD, *SYNCHRONIZED])
def test_a_reset_outside_the_window_is_ignored(a_connection: Maker, state: State) -> None:
    """§3.10.7.4, first."""
    for seq in (-1, BUFFER + 100, 1_000_000, -1_000_000):
        tcp = a_connection(in_state=state)
        tcp.arrives(peer(seq=tcp.rcv_nxt + seq, ack=None, flags=RST))
        assert tcp.state == state
        tcp.sends_nothing()


@pytest.mark.rfc9293("SHLD-2")
def test_a_reset_may_contain_data(a_connection: Maker) -> None:
    """§3.5.3: text that says why."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(Segment(IRS + 1, 0, RST, 0, b"out of memory"))
    assert tcp.error == errno.ECONNRESET


@pytest.mark.rfc9293("MUST-12")
def test_what_came_before_a_reset_can_be_read_and_then_the_reset_is_told(a_connection: Maker) -> None:
    """§3.6: the application learns whether it was an end or an abort."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc"))
    tcp.arrives(peer(seq=4, flags=RST))
    assert tcp.receive() == b"abc"
    assert not tcp.connection.at_eof
    for call in (tcp.receive, lambda: tcp.send(b"x")):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ECONNRESET


# ---- a SYN comes (RFC 5961 §4) -----------------------------------------------------------------------------


@pytest.mark.rfc9293("MAY-12")
@pytest.mark.parametrize("state", SYNCHRONIZED[:-1])
def test_a_syn_is_challenged(a_connection: Maker, state: State) -> None:
    """RFC 5961 §4.2: whatever its sequence number; a peer that has restarted answers the ACK with a reset."""
    for seq in (0, 1, 100, -100, 100_000):
        tcp = a_connection(in_state=state)
        tcp.arrives(peer(seq=tcp.rcv_nxt + seq, ack=None, flags=SYN))
        assert tcp.state == state
        seg = tcp.sends_one()
        assert (seg.seq - ISS, seg.ack - IRS, seg.flags) == (tcp.snd_nxt, tcp.rcv_nxt, ACK)


def test_a_peer_that_has_restarted_gets_through(a_connection: Maker) -> None:
    """§3.5.1, figure 10: SYN, our ACK, its RST; then both are free."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(Segment(900_000, flags=SYN, wnd=WINDOW, options=Options(mss=MSS)))
    ack = tcp.sends_one()
    tcp.arrives(Segment(ack.ack, flags=RST))
    assert tcp.state == State.CLOSED
    assert tcp.error == errno.ECONNRESET


# ---- an ACK comes (RFC 5961 §5) ----------------------------------------------------------------------------


@pytest.mark.rfc9293("MAY-12")
@pytest.mark.parametrize("state", [State.ESTABLISHED, State.FIN_WAIT_2, State.CLOSE_WAIT])
def test_an_acknowledgement_of_what_was_never_sent_is_answered_and_its_data_dropped(
    a_connection: Maker, state: State
) -> None:
    """§3.10.7.4, fifth."""
    tcp = a_connection(in_state=state)
    before = tcp.snd_una, tcp.rcv_nxt
    tcp.arrives(peer(b"evil", seq=tcp.rcv_nxt, ack=tcp.snd_nxt + 1))
    assert [seg.flags for seg in tcp.take()] == [ACK]
    assert (tcp.snd_una, tcp.rcv_nxt) == before
    assert tcp.receive() == b""


@pytest.mark.rfc9293("MAY-12")
def test_data_with_an_acknowledgement_that_is_much_too_old_is_dropped(a_connection: Maker) -> None:
    """RFC 5961 §5.2: SEG.ACK before SND.UNA - MAX.SND.WND."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"evil", ack=1 - WINDOW - 1))
    assert [seg.flags for seg in tcp.take()] == [ACK]
    assert tcp.receive() == b""
    tcp.arrives(peer(b"good", ack=1 - WINDOW))
    assert tcp.receive() == b"good"


def test_a_segment_without_ack_is_dropped(a_connection: Maker) -> None:
    """§3.10.7.4, fifth: "if the ACK bit is off, drop the segment"."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"abc", ack=None), peer(ack=None, flags=FIN))
    assert tcp.receive() == b""
    assert tcp.state == State.ESTABLISHED


@pytest.mark.rfc9293("MAY-12")
def test_challenges_are_throttled(a_connection: Maker) -> None:
    """RFC 5961 §7: no more than 10 in any 5 seconds."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    for k in range(100):
        tcp.arrives(peer(seq=2, ack=None, flags=RST), at=1.0 + k / 100)
    assert len(tcp.take()) == 10
    tcp.arrives(peer(seq=1, ack=None, flags=SYN), at=5.9)
    tcp.sends_nothing()
    tcp.arrives(peer(seq=2, ack=None, flags=RST), at=6.01)
    assert len(tcp.take()) == 1


# ---- we abort (§3.10.5) ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", [State.SYN_RCVD, State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT]
)
def test_abort_resets_a_peer_that_may_still_expect_something(a_connection: Maker, state: State) -> None:
    """§3.10.5: <SEQ=SND.NXT><CTL=RST>."""
    tcp = a_connection(in_state=state)
    snd_nxt = tcp.snd_nxt
    tcp.abort()
    tcp.sends_reset(snd_nxt)
    assert tcp.state == State.CLOSED
    tcp.waits_until(1000.0)
    tcp.sends_nothing()


@pytest.mark.parametrize(
    "state", [State.CLOSED, State.LISTEN, State.SYN_SENT, State.CLOSING, State.LAST_ACK, State.TIME_WAIT]
)
def test_abort_says_nothing_where_nobody_expects_anything(a_connection: Maker, state: State) -> None:
    """§3.10.5."""
    tcp = a_connection(in_state=state)
    tcp.abort()
    tcp.sends_nothing()
    assert tcp.state == State.CLOSED
    assert tcp.connection.next_deadline() is None


def test_abort_throws_away_what_waits(a_connection: Maker) -> None:
    """§3.10.5: "all queued SENDs and RECEIVEs"; the reset comes behind all that was sent."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(stream(9000))
    [*_, last] = tcp.take()
    tcp.abort()
    tcp.sends_reset(last.seq - ISS + len(last.data))
    tcp.waits_until(100.0)
    tcp.sends_nothing()


# ---- whatever comes ----------------------------------------------------------------------------------------


def test_urgent_data_is_delivered_in_line(a_connection: Maker) -> None:
    """§3.8.5: the pointer is an advice, the bytes are a part of the stream (RFC 6093)."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(Segment(IRS + 1, ISS + 1, ACK | URG, WINDOW, b"abc", up=2))
    tcp.sends(us(ack=4))
    assert tcp.receive() == b"abc"


def test_text_and_fin_and_push_in_one_segment(a_connection: Maker) -> None:
    """§3.10.7.4: all checks apply to it, in their order."""
    tcp = a_connection(in_state=State.SYN_RCVD)
    tcp.arrives(Segment(IRS + 1, ISS + 1, ACK | PSH | URG | FIN, WINDOW, b"abc", up=3))
    assert tcp.states == [State.ESTABLISHED, State.CLOSE_WAIT]
    assert tcp.receive() == b"abc"


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("modern", [False, True], ids=["plain", "with options"])
def test_any_segments_at_all_are_survived(a_connection: Maker, state: State, modern: bool) -> None:
    """The contract: a segment never raises; only legal changes of state; no more is kept than the window holds."""
    random = Random(f"{state} {modern}")
    settings = config(window_scaling=modern, timestamps=modern, sack=modern, congestion="newreno")
    offers = OFFERS if not modern else Options(MSS, 7, True, (), (1000, 0))
    for _ in range(60):
        tcp = a_connection(in_state=state, settings=settings, offers=offers)
        if state in (State.ESTABLISHED, State.CLOSE_WAIT):
            tcp.send(stream(2500))
        for _ in range(30):
            tcp.arrives(any_segment(random, tcp.snd_una, tcp.rcv_nxt, modern), at=tcp.now + random.random())
            assert tcp.connection.readable <= BUFFER + 127
            assert (tcp.snd_nxt - tcp.snd_una) % 2**32 < 2**31
            if tcp.state == State.CLOSED and state != State.CLOSED:
                break
            if random.random() < 0.2 and tcp.connection.readable:
                tcp.receive()


def any_segment(random: Random, una: int, nxt: int, modern: bool) -> Segment:
    """Numbers at random, more often than not such as have a meaning."""
    seq = random.choice([nxt, nxt - 1, nxt + 1, nxt + random.randrange(-9000, 9000), random.randrange(2**32)])
    ack = random.choice([una, una + 1, una + random.randrange(-5000, 5000), random.randrange(2**32)])
    options = None
    if modern and random.random() < 0.5:
        numbers = [random.choice([ISS + una + random.randrange(3000), random.randrange(2**32)]) for _ in range(8)]
        pairs = tuple((a % 2**32, b % 2**32) for a, b in pairwise(numbers))[::2]
        options = Options(
            random.choice([None, 0, 1, 1460, 65535]),
            random.choice([None, 0, 14]),
            random.random() < 0.5,
            pairs,
            random.choice([None, (1000 + random.randrange(5000), 0), pairs[0]]),
        )
    return Segment(
        (IRS + seq) % 2**32,
        (ISS + ack) % 2**32,
        random.choice([ACK, ACK, ACK, random.randrange(64)]),
        random.choice([0, 1, WINDOW, 65535]),
        bytes(random.choice([0, 0, 1, 1000, 3000])),
        options,
        random.randrange(65536),
    )


def test_two_ends_that_disagree_do_not_answer_each_other_for_ever(a_connection: Maker) -> None:
    """§3.10.7.4 answers an ACK outside of the window with an ACK, which may lie outside of the peer's."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    for k in range(1000):
        tcp.arrives(peer(seq=100_000), at=1.0 + k / 1000)
    assert 1 <= len(tcp.take()) <= 50
