"""Opening a connection."""

from __future__ import annotations

import errno

from chitcpd.tcp.api import ACK, RST, SYN, Options, Segment, State
from testbed.grading.catalog import graded
from testbed.grading.script import MSS, WINDOW, Bench, a_syn, a_syn_ack, check, peer, stream, told

STAGE = "connection"


@graded(STAGE, 2, "RFC 9293 §3.5, figure 6")
def active_open(bench: Bench) -> None:
    """An active open sends SYN, and acknowledges the SYN,ACK that answers it."""
    tcp = bench.connection(State.CLOSED)
    tcp.open(active=True)
    tcp.sends(SYN, 0, None)
    tcp.is_in(State.SYN_SENT)
    tcp.arrives(a_syn_ack(), at=0.1)
    tcp.sends(0, 1, 1)
    tcp.passed(State.SYN_SENT, State.ESTABLISHED)


@graded(STAGE, 2, "RFC 9293 §3.5, figure 6")
def passive_open(bench: Bench) -> None:
    """A passive open waits in LISTEN, and answers a SYN with SYN,ACK."""
    tcp = bench.connection(State.CLOSED)
    tcp.open(active=False)
    tcp.sends_nothing("nothing to be sent in LISTEN")
    tcp.is_in(State.LISTEN)
    tcp.arrives(a_syn(), at=0.1)
    tcp.sends(SYN, 0, 1)
    tcp.arrives(peer(), at=0.2)
    tcp.sends_nothing("no answer to the ACK that ends the handshake")
    tcp.passed(State.LISTEN, State.SYN_RCVD, State.ESTABLISHED)


@graded(STAGE, 1, "RFC 9293 §3.4")
def handshake_wraps(bench: Bench) -> None:
    """The handshake works where the sequence numbers wrap around."""
    for state in (State.SYN_SENT, State.LISTEN):
        tcp = bench.connection(state, iss=2**32 - 1, irs=2**32 - 1)
        if state == State.SYN_SENT:
            tcp.arrives(a_syn_ack())
            tcp.sends(0, 1, 1)
        else:
            tcp.arrives(a_syn())
            tcp.sends(SYN, 0, 1)
            tcp.arrives(peer())
        tcp.is_in(State.ESTABLISHED)
        got = tcp.connection.rcv_nxt, tcp.connection.snd_nxt
        check(got == (0, 0), "RCV.NXT and SND.NXT 0 after the SYNs with 2^32 - 1", got)


@graded(STAGE, 1, "RFC 9293 §3.4.1")
def given_iss(bench: Bench) -> None:
    """The SYN has the initial sequence number that the constructor was given."""
    for iss in (0, bench.random.getrandbits(32)):
        tcp = bench.connection(State.CLOSED, iss=iss)
        tcp.open(active=True)
        tcp.sends(SYN, 0, None)


@graded(STAGE, 1, "RFC 9293 §3.5, figure 7")
def simultaneous_open(bench: Bench) -> None:
    """Both may open at once: the SYNs cross, and each is answered with SYN,ACK."""
    tcp = bench.connection(State.SYN_SENT)
    tcp.arrives(a_syn(), at=0.1)
    tcp.is_in(State.SYN_RCVD)
    tcp.sends(SYN, 0, 1)
    tcp.arrives(Segment(0, 1, SYN | ACK, WINDOW, options=Options(mss=MSS)), at=0.2)
    tcp.arrives(peer(), at=0.21)
    tcp.is_in(State.ESTABLISHED)


@graded(STAGE, 1, "RFC 9293 §3.10.7.3, second check")
def connection_refused(bench: Bench) -> None:
    """A RST that acknowledges our SYN ends the attempt: connection refused."""
    tcp = bench.connection(State.SYN_SENT)
    tcp.arrives(Segment(0, 1, RST | ACK))
    tcp.failed_with(errno.ECONNREFUSED, "ECONNREFUSED")
    tcp.sends_nothing("no answer to a RST")


@graded(STAGE, 1, "RFC 9293 §3.10.7.3, first and second check")
def foreign_reset_in_syn_sent(bench: Bench) -> None:
    """A RST that does not acknowledge our SYN is ignored in SYN-SENT."""
    for seg in (Segment(0, 7, RST | ACK), Segment(0, 0, RST | ACK), Segment(0, flags=RST)):
        tcp = bench.connection(State.SYN_SENT)
        tcp.arrives(seg)
        tcp.is_in(State.SYN_SENT)
        tcp.sends_nothing("no answer to a RST")


@graded(STAGE, 1, "RFC 9293 §3.10.7.3, first check")
def bad_ack_in_syn_sent(bench: Bench) -> None:
    """An ACK of something else than our SYN is answered with a RST, and does not open."""
    for flags in (SYN | ACK, ACK):
        for ack in (0, 2, -7):
            tcp = bench.connection(State.SYN_SENT)
            tcp.arrives(Segment(0, ack, flags, WINDOW))
            tcp.resets(ack)
            tcp.is_in(State.SYN_SENT)


@graded(STAGE, 1, "RFC 9293 §3.10.7.3, fifth check")
def ack_without_syn_does_not_open(bench: Bench) -> None:
    """In SYN-SENT an ACK of our SYN without a SYN is dropped."""
    tcp = bench.connection(State.SYN_SENT)
    tcp.arrives(peer(seq=0))
    tcp.sends_nothing("it to be dropped")
    tcp.is_in(State.SYN_SENT)


@graded(STAGE, 1, "RFC 9293 §3.10.7.2")
def listener_wants_a_syn(bench: Bench) -> None:
    """In LISTEN an ACK is reset, and what has neither SYN, ACK nor RST is dropped."""
    tcp = bench.connection(State.LISTEN)
    tcp.arrives(peer(ack=77))
    tcp.resets(77)
    tcp.arrives(Segment(0, data=b"abc"))
    tcp.sends_nothing("it to be dropped")
    tcp.is_in(State.LISTEN)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check")
def repeated_syn(bench: Bench) -> None:
    """A SYN that comes again in SYN-RECEIVED does no harm."""
    tcp = bench.connection(State.SYN_RCVD)
    tcp.arrives(a_syn(), at=0.5)
    sent = tcp.take()
    check(all(seg.flags & ACK and not seg.flags & RST for seg in sent), "an ACK or SYN,ACK", told(sent))
    tcp.arrives(peer(), at=0.6)
    tcp.is_in(State.ESTABLISHED)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check")
def repeated_syn_ack(bench: Bench) -> None:
    """A SYN,ACK that comes again is acknowledged again: our ACK was lost."""
    tcp = bench.connection()
    tcp.arrives(a_syn_ack(), at=1.0)
    tcp.acknowledges(1, within=0)
    tcp.is_in(State.ESTABLISHED)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, fifth check")
def bad_ack_in_syn_received(bench: Bench) -> None:
    """In SYN-RECEIVED an ACK of something else than our SYN is answered with a RST."""
    for ack in (0, 9):
        tcp = bench.connection(State.SYN_RCVD)
        tcp.arrives(peer(ack=ack))
        tcp.resets(ack)
        tcp.is_in(State.SYN_RCVD)


@graded(STAGE, 1, "RFC 9293 §3.5, figure 8; §3.10.7.4, second check")
def reset_returns_to_listen(bench: Bench) -> None:
    """A RST in SYN-RECEIVED brings a passive open back to LISTEN, and it serves the next one."""
    tcp = bench.connection(State.SYN_RCVD)
    tcp.arrives(peer(flags=RST, ack=None), at=0.1)
    tcp.is_in(State.LISTEN)
    check(tcp.connection.error is None, "no error", f"error {tcp.connection.error}")
    tcp.arrives(a_syn(seq=5000), at=1.0)
    tcp.sends(SYN, 0, 5001)
    tcp.arrives(peer(seq=5001), at=1.1)
    tcp.is_in(State.ESTABLISHED)


@graded(STAGE, 1, "RFC 9293 §3.10.2")
def data_before_established(bench: Bench) -> None:
    """What the application sends during the handshake follows after it."""
    for state, answer in ((State.SYN_SENT, a_syn_ack()), (State.SYN_RCVD, peer())):
        tcp = bench.connection(state)
        taken = tcp.send(stream(300))
        check(taken == 300, "send to take 300 bytes", taken)
        sent = tcp.take()
        check(not any(seg.data for seg in sent), "no data before ESTABLISHED", told(sent))
        tcp.arrives(answer, at=0.1)
        tcp.pulls(301)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, seventh check")
def data_with_the_last_ack(bench: Bench) -> None:
    """The ACK that ends the handshake may carry data already."""
    tcp = bench.connection(State.SYN_RCVD)
    tcp.arrives(peer(b"abc"))
    tcp.is_in(State.ESTABLISHED)
    tcp.acknowledges(4)
    tcp.hands_out(b"abc")


@graded(STAGE, 1, "RFC 9293 §3.7.1 (MUST-14)")
def mss_in_the_syn(bench: Bench) -> None:
    """SYN and SYN,ACK tell the largest segment that we take; other segments don't."""
    for state in (State.SYN_SENT, State.SYN_RCVD):
        tcp = bench.connection(State.CLOSED)
        tcp.open(active=state == State.SYN_SENT)
        if state == State.SYN_RCVD:
            tcp.arrives(a_syn())
        sent = tcp.take()
        offers = [seg.options.mss if seg.options else None for seg in sent]
        check(
            offers == [MSS],
            f"one SYN with the MSS option {MSS}, which is config.mss",
            f"{told(sent)}: {offers}" if sent else told(sent),
        )
        tcp.arrives(a_syn_ack() if state == State.SYN_SENT else peer(), peer(b"abc"))
        later = [seg for seg in tcp.take() if seg.options and seg.options.mss is not None]
        check(not later, "no MSS option after the SYN", told(later))


@graded(STAGE, 1, "RFC 9293 §3.10.1, §3.10.2")
def misuse_is_told(bench: Bench) -> None:
    """Opening twice and sending without a connection are errors, told to the application."""
    tcp = bench.connection()
    _raises(lambda: tcp.open(active=True), errno.EISCONN, "the second open to raise OSError(EISCONN)")
    closed = bench.connection(State.CLOSED)
    _raises(lambda: closed.send(b"abc"), errno.ENOTCONN, "send without open to raise OSError(ENOTCONN)")


def _raises(call: object, number: int, expected: str) -> None:
    assert callable(call)
    try:
        call()
    except OSError as error:
        check(error.errno == number, expected, errno.errorcode.get(error.errno or 0, str(error.errno)))
    else:
        check(False, expected, "no error")
