"""Closing a connection."""

from __future__ import annotations

import errno

from chitcpd.tcp.api import FIN, RST, State
from testbed.grading.catalog import graded
from testbed.grading.script import EARLY, LATE, Bench, Script, check, peer, settings, stream, told

STAGE = "close"
FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT = State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT
CLOSING, TIME_WAIT, LAST_ACK, CLOSED = State.CLOSING, State.TIME_WAIT, State.LAST_ACK, State.CLOSED


@graded(STAGE, 2, "RFC 9293 §3.6, figure 12, TCP Peer A")
def we_close_first(bench: Bench) -> None:
    """We close first: FIN, its ACK, the peer's FIN, our ACK of that."""
    tcp = bench.connection()
    tcp.close(at=1.0)
    tcp.sends(FIN, 1, 1)
    tcp.passed(FIN_WAIT_1)
    tcp.arrives(peer(ack=2), at=1.1)
    tcp.passed(FIN_WAIT_2)
    tcp.arrives(peer(ack=2, flags=FIN), at=1.2)
    tcp.sends(0, 2, 2)
    tcp.passed(TIME_WAIT)
    check(tcp.connection.at_eof, "at_eof after the peer's FIN", "not")


@graded(STAGE, 2, "RFC 9293 §3.6, figure 12, TCP Peer B")
def peer_closes_first(bench: Bench) -> None:
    """The peer closes first: its FIN is acknowledged, ours follows when the application closes."""
    tcp = bench.connection()
    tcp.arrives(peer(flags=FIN), at=1.0)
    tcp.acknowledges(2)
    tcp.passed(CLOSE_WAIT)
    tcp.waits(10.0)
    tcp.is_in(CLOSE_WAIT)
    check(tcp.connection.at_eof, "at_eof after the peer's FIN", "not")
    tcp.close(at=11.0)
    tcp.sends(FIN, 1, 2)
    tcp.passed(LAST_ACK)
    tcp.arrives(peer(seq=2, ack=2), at=11.1)
    tcp.passed(CLOSED)
    tcp.sends_nothing("nothing to be sent after the last ACK")
    check(tcp.connection.error is None, "no error", f"error {tcp.connection.error}")


@graded(STAGE, 1, "RFC 9293 §3.6, figure 13")
def both_close_at_once(bench: Bench) -> None:
    """Both close at once: the FINs cross, each is acknowledged."""
    tcp = bench.connection()
    tcp.close()
    tcp.sends(FIN, 1, 1)
    tcp.arrives(peer(flags=FIN), at=0.1)
    tcp.acknowledges(2)
    tcp.passed(FIN_WAIT_1, CLOSING)
    tcp.arrives(peer(seq=2, ack=2), at=0.2)
    tcp.passed(TIME_WAIT)


@graded(STAGE, 1, "RFC 9293 §3.3.2, note 2")
def fin_with_ack_of_ours(bench: Bench) -> None:
    """A FIN that acknowledges ours too leads to TIME-WAIT at once."""
    tcp = bench.connection(FIN_WAIT_1)
    tcp.arrives(peer(ack=2, flags=FIN), at=0.1)
    tcp.sends(0, 2, 2)
    tcp.is_in(TIME_WAIT)


@graded(STAGE, 1, "RFC 9293 §3.10.4")
def fin_follows_the_data(bench: Bench) -> None:
    """close sends what waits first, and the FIN after the last byte."""
    tcp = bench.connection()
    tcp.send(stream(6000))
    tcp.close()
    early = [seg for seg in tcp.sent if seg.flags & FIN and seg.seq + len(seg.data) != 6001]
    check(not early, "no FIN before the last byte", told(early))
    sent = tcp.pulls(6001)
    if not sent[-1].flags & FIN:
        tcp.sends(FIN, 6001, 1)
    tcp.is_in(FIN_WAIT_1)
    tcp.arrives(peer(ack=6002), at=tcp.now + 0.1)
    tcp.is_in(FIN_WAIT_2)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, fifth check")
def ack_of_data_is_none_of_the_fin(bench: Bench) -> None:
    """An ACK of the data before the FIN does not acknowledge the FIN."""
    for first, states in ((False, (FIN_WAIT_1, FIN_WAIT_2)), (True, (LAST_ACK, CLOSED))):
        tcp = bench.connection(CLOSE_WAIT if first else State.ESTABLISHED)
        tcp.send(stream(500))
        tcp.close()
        seq = 2 if first else 1
        tcp.arrives(peer(seq=seq, ack=501), at=0.1)
        tcp.is_in(states[0])
        tcp.arrives(peer(seq=seq, ack=502), at=0.2)
        tcp.is_in(states[1])


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, seventh and eighth check")
def data_with_the_fin(bench: Bench) -> None:
    """What comes with the FIN is handed out before the end of the stream."""
    tcp = bench.connection()
    tcp.arrives(peer(b"abc", flags=FIN))
    tcp.acknowledges(5)
    tcp.is_in(CLOSE_WAIT)
    check(not tcp.connection.at_eof, "at_eof only when all was received", "at_eof before")
    tcp.hands_out(b"abc")
    check(tcp.connection.at_eof, "at_eof when all was received", "not")


@graded(STAGE, 1, "RFC 9293 §3.6, case 1")
def half_close_receives(bench: Bench) -> None:
    """After our close we still receive, acknowledge and hand out."""
    for state, ack in ((FIN_WAIT_1, 1), (FIN_WAIT_2, 2)):
        tcp = bench.connection(state)
        tcp.arrives(peer(stream(500), ack=ack), at=0.1)
        tcp.acknowledges(501)
        tcp.arrives(peer(stream(500, at=501), seq=501, ack=ack, flags=FIN), at=0.9)
        tcp.acknowledges(1002)
        tcp.hands_out(stream(1000))
        check(tcp.connection.at_eof, "at_eof after the FIN", "not")


@graded(STAGE, 1, "RFC 9293 §3.6, case 2")
def half_close_sends(bench: Bench) -> None:
    """After the peer's FIN we may still send."""
    tcp = bench.connection(CLOSE_WAIT)
    tcp.send(stream(3000), at=10.0)
    tcp.pulls(3001, seq=2)
    tcp.send(stream(10, at=3001), at=100.0)
    tcp.close()
    sent = tcp.pulls(3011, begin=3001, seq=2)
    if not sent[-1].flags & FIN:
        tcp.sends(FIN, 3011, 2)
    tcp.arrives(peer(seq=2, ack=3012), at=tcp.now + 0.1)
    tcp.is_in(CLOSED)


@graded(STAGE, 2, "RFC 9293 §3.6.1 (MUST-13)")
def time_wait(bench: Bench) -> None:
    """TIME-WAIT lasts two maximum segment lifetimes, then the connection is closed."""
    for msl in (0.5, 30.0):
        tcp = bench.connection(FIN_WAIT_2, settings(msl=msl))
        tcp.arrives(peer(ack=2, flags=FIN), at=10.0)
        tcp.is_in(TIME_WAIT)
        tcp.waits(10.0 + 2 * msl - EARLY)
        tcp.is_in(TIME_WAIT)
        tcp.waits(10.0 + 2 * msl + LATE)
        tcp.is_in(CLOSED)
        check(tcp.connection.error is None, "no error", f"error {tcp.connection.error}")


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, eighth check")
def repeated_fin(bench: Bench) -> None:
    """A FIN that comes again is acknowledged again, and starts TIME-WAIT anew."""
    for state, seq, ack in ((CLOSE_WAIT, 1, 1), (CLOSING, 2, 1), (LAST_ACK, 2, 1), (TIME_WAIT, 2, 2)):
        tcp = bench.connection(state)
        tcp.arrives(peer(ack=ack, flags=FIN), at=0.5 if state != TIME_WAIT else 50.0)
        tcp.sends(0, seq, 2)
        tcp.is_in(state)
    tcp.waits(110.0 - EARLY)
    tcp.is_in(TIME_WAIT)
    tcp.waits(110.0 + LATE)
    tcp.is_in(CLOSED)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, fifth check")
def acks_after_both_fins(bench: Bench) -> None:
    """In CLOSING only the ACK of our FIN leads on, not one of data before it."""
    tcp = bench.connection()
    tcp.send(stream(100))
    tcp.close()
    tcp.arrives(peer(flags=FIN), at=0.1)
    tcp.is_in(CLOSING)
    tcp.arrives(peer(seq=2, ack=101), at=0.2)
    tcp.is_in(CLOSING)
    tcp.arrives(peer(seq=2, ack=102), at=0.3)
    tcp.is_in(TIME_WAIT)


@graded(STAGE, 1, "RFC 9293 §3.4")
def fins_at_the_wrap(bench: Bench) -> None:
    """Closing works where the FINs have the sequence number 2^32 - 1."""
    tcp = bench.connection(iss=2**32 - 2, irs=2**32 - 2)
    tcp.close()
    tcp.sends(FIN, 1, 1)
    tcp.arrives(peer(ack=2), at=0.1)
    tcp.is_in(FIN_WAIT_2)
    tcp.arrives(peer(ack=2, flags=FIN), at=0.2)
    tcp.sends(0, 2, 2)
    tcp.is_in(TIME_WAIT)


@graded(STAGE, 1, "RFC 9293 §3.10.2, §3.10.4")
def send_after_close(bench: Bench) -> None:
    """After close, send raises EPIPE and a second close is harmless."""
    for state in (FIN_WAIT_1, FIN_WAIT_2, LAST_ACK):
        tcp = bench.connection(state)
        try:
            taken: object = tcp.send(b"x")
        except OSError as error:
            taken = errno.errorcode.get(error.errno or 0, error.errno)
        check(taken == "EPIPE", "send after close to raise OSError(EPIPE)", taken)
        tcp.close()
        tcp.sends_nothing("nothing to be sent by the second close")
        tcp.is_in(state)


@graded(STAGE, 1, "RFC 9293 §3.10.4")
def close_before_anything(bench: Bench) -> None:
    """close in LISTEN or SYN-SENT leaves nothing behind."""
    for state in (State.LISTEN, State.SYN_SENT):
        tcp = bench.connection(state)
        tcp.close(at=0.1)
        tcp.is_in(CLOSED)
        tcp.waits(60.0)
        sent = [seg for seg in tcp.take() if not seg.flags & RST]
        check(not sent, "nothing to be sent afterwards", told(sent))


@graded(STAGE, 1, "RFC 9293 §3.10.4")
def close_during_the_handshake(bench: Bench) -> None:
    """close in SYN-RECEIVED sends the data that waits and the FIN, at the latest after the handshake."""
    for data in (b"", stream(3)):
        tcp = bench.connection(State.SYN_RCVD)
        if data:
            tcp.send(data)
        tcp.close()
        if not tcp.sent or data:
            tcp.arrives(peer(), at=0.1)
        _ends(tcp, 1 + len(data))


def _ends(tcp: Script, fin: int) -> None:
    """All is pulled up to the FIN, which has this number, and the FIN acknowledged."""
    sent = tcp.pulls(fin) if fin > 1 else []
    if not any(seg.flags & FIN for seg in sent):
        tcp.sends(FIN, fin, 1)
    tcp.arrives(peer(ack=fin + 1), at=tcp.now + 0.1)
    tcp.is_in(FIN_WAIT_2)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, seventh check")
def text_after_the_fin(bench: Bench) -> None:
    """Data behind the peer's FIN is not handed out."""
    tcp = bench.connection(CLOSE_WAIT)
    tcp.arrives(peer(b"more", seq=2), at=0.1)
    tcp.hands_out(b"", "nothing to be handed out behind a FIN")
    got = (tcp.connection.rcv_nxt - tcp.connection.irs) & 0xFFFFFFFF
    check(got == 2, "RCV.NXT to stay behind the FIN", f"IRS + {got}")
