"""Resets, segments that make no sense, and whatever else may come."""

from __future__ import annotations

import errno

from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, URG, Options, Segment, State
from testbed.grading.catalog import graded
from testbed.grading.script import BUFFER, MSS, WINDOW, Bench, check, peer, state_name, stream, told

STAGE = "robustness"
SYNCHRONIZED = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT)


@graded(STAGE, 1, "RFC 9293 §3.10.7.1")
def closed_answers_with_a_reset(bench: Bench) -> None:
    """Without a connection, each segment is answered with a RST that its sender believes."""
    tcp = bench.connection(State.CLOSED, iss=1, irs=0)
    tcp.arrives(Segment(7, 99, ACK))
    tcp.resets(99)
    for flags, length in ((SYN, 1), (FIN, 1), (0, 0)):
        for data in (b"", b"abc"):
            tcp = bench.connection(State.CLOSED, irs=0)
            tcp.arrives(Segment(7, flags=flags, data=data))
            tcp.sends(RST, 0, 7 + length + len(data))
            tcp.is_in(State.CLOSED)


@graded(STAGE, 1, "RFC 9293 §3.5.2")
def resets_are_not_answered(bench: Bench) -> None:
    """A RST is never answered with a RST: else two TCPs could go on for ever."""
    for state in (State.CLOSED, State.LISTEN):
        for flags in (RST, RST | ACK):
            tcp = bench.connection(state)
            tcp.arrives(Segment(7, 99, flags))
            tcp.sends_nothing("no answer to a RST")
            tcp.is_in(state)


@graded(STAGE, 2, "RFC 9293 §3.10.7.4, second check")
def reset_ends_the_connection(bench: Bench) -> None:
    """A RST with the very number that is expected ends the connection, with an error if anything was left to say."""
    for state in (*SYNCHRONIZED, State.CLOSING, State.LAST_ACK, State.TIME_WAIT):
        tcp = bench.connection(state)
        following = (tcp.connection.rcv_nxt - tcp.connection.irs) & 0xFFFFFFFF
        tcp.arrives(peer(seq=following, ack=None, flags=RST), at=0.1)
        tcp.is_in(State.CLOSED)
        tcp.sends_nothing("no answer to a RST")
        if state in SYNCHRONIZED:
            tcp.failed_with(errno.ECONNRESET, "ECONNRESET")
        tcp.waits(200.0)
        tcp.sends_nothing("nothing to be sent any more")


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check")
def resets_outside_the_window(bench: Bench) -> None:
    """A RST outside the window is ignored."""
    for seq in (0, BUFFER + 100, 1_000_000, -1_000_000):
        tcp = bench.connection()
        tcp.arrives(peer(seq=seq, ack=None, flags=RST), at=0.1)
        tcp.is_in(State.ESTABLISHED)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, second check (RFC 5961 §3.2)")
def resets_elsewhere_in_the_window(bench: Bench) -> None:
    """A RST in the window, but not the number that is expected, is challenged with an ACK."""
    for state in SYNCHRONIZED:
        tcp = bench.connection(state)
        following = (tcp.connection.rcv_nxt - tcp.connection.irs) & 0xFFFFFFFF
        tcp.arrives(peer(seq=following + 1, ack=None, flags=RST), at=0.1)
        tcp.is_in(state)
        tcp.acknowledges(following, within=0)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, fourth check (RFC 5961 §4.2)")
def syn_in_a_connection(bench: Bench) -> None:
    """A SYN in a connection is challenged with an ACK: whoever sends it may be a liar."""
    for seq in (1, 100, 100_000):
        tcp = bench.connection()
        tcp.arrives(peer(seq=seq, ack=None, flags=SYN), at=0.1)
        tcp.is_in(State.ESTABLISHED)
        tcp.acknowledges(1, within=0)


@graded(STAGE, 1, "RFC 9293 §3.5.1, figure 10")
def peer_that_has_restarted(bench: Bench) -> None:
    """A peer that has restarted gets through: its SYN, our ACK, its RST."""
    tcp = bench.connection()
    tcp.arrives(Segment(900_000, flags=SYN, wnd=WINDOW, options=Options(mss=MSS)), at=0.1)
    ack = tcp.acknowledges(1, within=0)
    tcp.arrives(Segment(ack.ack, flags=RST), at=0.2)
    tcp.failed_with(errno.ECONNRESET, "ECONNRESET")


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, fifth check")
def ack_of_what_was_never_sent(bench: Bench) -> None:
    """An ACK of what was never sent is answered with an ACK, and its data dropped."""
    for state in (State.ESTABLISHED, State.CLOSE_WAIT):
        tcp = bench.connection(state)
        tcp.send(stream(10))
        tcp.take()
        following = (tcp.connection.rcv_nxt - tcp.connection.irs) & 0xFFFFFFFF
        una = tcp.connection.snd_una
        tcp.arrives(peer(b"evil", seq=following, ack=12), at=0.1)
        tcp.acknowledges(following, within=0)
        check(tcp.connection.snd_una == una, "SND.UNA to stay where it is", "another one")
        tcp.hands_out(b"", "its data to be dropped")


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, fifth check")
def segments_without_ack(bench: Bench) -> None:
    """A segment without ACK is dropped in a connection."""
    tcp = bench.connection()
    tcp.arrives(peer(b"abc", ack=None), peer(ack=None, flags=FIN), at=0.1)
    tcp.hands_out(b"", "data without ACK to be dropped")
    tcp.is_in(State.ESTABLISHED)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check")
def old_data_is_answered(bench: Bench) -> None:
    """What lies outside the window is answered with an ACK that says what is expected, and changes nothing."""
    for seq in (-500, BUFFER + 1000, 500_000):
        tcp = bench.connection()
        tcp.arrives(peer(b"evil", seq=seq), at=0.1)
        tcp.sends(0, 1, 1)
        tcp.hands_out(b"", "nothing of it to be handed out")


@graded(STAGE, 1, "RFC 9293 §3.10.5")
def abort_resets(bench: Bench) -> None:
    """abort sends a RST that the peer believes, and closes."""
    for state in (State.SYN_RCVD, State.ESTABLISHED, State.FIN_WAIT_2, State.CLOSE_WAIT):
        tcp = bench.connection(state)
        seq = (tcp.connection.snd_nxt - tcp.connection.iss) & 0xFFFFFFFF
        tcp.abort()
        tcp.resets(seq)
        tcp.is_in(State.CLOSED)
        tcp.waits(200.0)
        tcp.sends_nothing("nothing to be sent any more")
    for state in (State.LISTEN, State.SYN_SENT):
        tcp = bench.connection(state)
        tcp.abort()
        tcp.is_in(State.CLOSED)


@graded(STAGE, 1, "RFC 9293 §3.6")
def data_before_a_reset(bench: Bench) -> None:
    """What came before a RST can still be read; then the application is told of the RST."""
    tcp = bench.connection()
    tcp.arrives(peer(b"abc"), at=0.1)
    tcp.arrives(peer(seq=4, flags=RST), at=0.2)
    tcp.hands_out(b"abc")
    try:
        got: object = f"{len(tcp.receive())} bytes"
    except OSError as error:
        got = errno.errorcode.get(error.errno or 0, error.errno)
    check(got == "ECONNRESET", "receive to raise OSError(ECONNRESET)", got)
    check(not tcp.connection.at_eof, "not at_eof, for a RST is no end", "at_eof")


@graded(STAGE, 1, "RFC 9293 §3.7.1")
def strange_options(bench: Bench) -> None:
    """A SYN with an MSS of 0 or 1, or with all options there are, leads to a connection that carries data."""
    every = Options(mss=MSS, window_scale=14, sack_permitted=True, timestamp=(1, 0))
    for options in (Options(mss=0), Options(mss=1), every):
        tcp = bench.connection(offers=options)
        tcp.send(stream(300))
        tcp.pulls(301)
        tcp.arrives(peer(b"abc", ack=301), at=tcp.now + 0.1)
        tcp.acknowledges(4)


@graded(STAGE, 2, "RFC 9293 §3.10.7")
def nonsense(bench: Bench) -> None:
    """Whatever segments come, in whichever state: nothing raises, and each connection ends when it is aborted."""
    flags = (0, ACK, ACK, ACK | PSH, SYN, SYN | ACK, FIN, FIN | ACK, RST, RST | ACK, URG | ACK, SYN | FIN, 0x3F)
    near = (-1, 0, 1, 2, 3, 100, 1000, BUFFER, BUFFER + 1, 1 << 31, -(1 << 31))
    random = bench.random
    for state in State:
        tcp = bench.connection(state)
        for k in range(30):
            seg = Segment(
                random.choice(near),
                random.choice(near),
                random.choice(flags),
                random.choice((0, 1, WINDOW, 0xFFFF)),
                stream(random.choice((0, 0, 1, 10, 1500))),
                random.choice((None, Options(mss=1), Options(sack=((5, 4), (0, 0))), Options(timestamp=(0, 0)))),
            )
            tcp.arrives(seg, at=k * 0.3)
            check(tcp.state in State, "a state", tcp.state)
        tcp.abort()
        check(tcp.state == State.CLOSED, "the state CLOSED after abort", state_name(tcp.state))
        tcp.take()
        tcp.waits(300.0)
        sent = tcp.take()
        check(not sent, "nothing to be sent any more", told(sent))


@graded(STAGE, 1, "RFC 9293 §3.4")
def survives_and_serves(bench: Bench) -> None:
    """After a flood of segments that it must ignore, a connection still carries data."""
    tcp = bench.connection()
    for k in range(200):
        far = 100_000 + bench.random.getrandbits(29)
        tcp.arrives(peer(stream(10), seq=far, ack=bench.random.choice((1, None))), at=k * 0.01)
        tcp.arrives(peer(seq=far, ack=None, flags=RST))
    tcp.take()
    tcp.arrives(peer(b"abc"), at=10.0)
    tcp.acknowledges(4)
    tcp.hands_out(b"abc")
    tcp.send(stream(300))
    tcp.pulls(301, seq=4)
