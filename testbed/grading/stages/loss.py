"""Segments get lost: what was not acknowledged is sent again."""

from __future__ import annotations

import errno

from chitcpd.sim import Shape
from chitcpd.tcp.api import FIN, SYN, State
from testbed.grading.catalog import graded
from testbed.grading.network import transfer
from testbed.grading.script import Bench, a_syn_ack, check, in_place, peer, settings, stream, told

STAGE = "loss"


@graded(STAGE, 2, "RFC 9293 §3.8.1")
def lost_data_comes_again(bench: Bench) -> None:
    """Data that is not acknowledged is sent again, as it was."""
    sent_again_and_no_more(bench, 100.0)


def sent_again_and_no_more(bench: Bench, quiet: float) -> None:
    """What is sent again and then acknowledged does not come in so many seconds."""
    tcp = bench.connection()
    tcp.send(stream(500), at=1.0)
    tcp.take()
    tcp.resent(1, within=5.0)
    tcp.arrives(peer(ack=501), at=tcp.now + 0.1)
    tcp.take()
    tcp.waits(tcp.now + quiet)
    tcp.sends_nothing("nothing to be sent again once it was acknowledged")


@graded(STAGE, 1, "RFC 9293 §3.8.3 (MUST-22)")
def lost_syn(bench: Bench) -> None:
    """A SYN, and a SYN,ACK, that is not answered is sent again."""
    for state, ack in ((State.SYN_SENT, None), (State.SYN_RCVD, 1)):
        tcp = bench.connection(state)
        for _ in range(2):
            tcp.sends(SYN, 0, ack, within=5.0)
        tcp.arrives(a_syn_ack() if state == State.SYN_SENT else peer(), at=tcp.now + 0.1)
        tcp.is_in(State.ESTABLISHED)
        tcp.take()
        tcp.waits(tcp.now + 60.0)
        tcp.sends_nothing("the SYN not to be sent again once it was acknowledged")


@graded(STAGE, 1, "RFC 9293 §3.8.1")
def lost_fin(bench: Bench) -> None:
    """A FIN that is not acknowledged is sent again."""
    for state, after, seq, ack in (
        (State.ESTABLISHED, State.FIN_WAIT_2, 1, 1),
        (State.CLOSE_WAIT, State.CLOSED, 2, 2),
    ):
        tcp = bench.connection(state)
        tcp.close(at=1.0)
        tcp.sends(FIN, 1, ack)
        tcp.sends(FIN, 1, ack, within=5.0)
        tcp.sends(FIN, 1, ack, within=10.0)
        tcp.arrives(peer(seq=seq, ack=2), at=tcp.now + 0.1)
        tcp.is_in(after)


@graded(STAGE, 1, "RFC 9293 §3.8.1")
def data_and_fin_lost(bench: Bench) -> None:
    """If the data and the FIN behind it are lost, both come again."""
    tcp = bench.connection()
    tcp.send(stream(300), at=1.0)
    tcp.close()
    tcp.take()
    tcp.resent(1, within=5.0)
    tcp.arrives(peer(ack=301), at=tcp.now + 0.1)
    tcp.take()
    tcp.sends(FIN, 301, 1, within=20.0)


@graded(STAGE, 2, "RFC 9293 §3.8.1")
def lost_window(bench: Bench) -> None:
    """A whole window is lost: all of it comes again, each byte in its place."""
    tcp = bench.connection()
    tcp.send(stream(4000), at=0.0)
    tcp.take()
    tcp.pulls(4001, patience=70.0)


@graded(STAGE, 1, "RFC 9293 §3.1")
def retransmission_is_up_to_date(bench: Bench) -> None:
    """A retransmission has the ACK and the window of now, not of then."""
    tcp = bench.connection()
    tcp.send(stream(300), at=0.0)
    tcp.arrives(peer(stream(1000)), at=0.5)
    tcp.waits(0.9)
    tcp.take()
    tcp.waits(1.5)
    again = [seg for seg in tcp.take() if seg.data]
    check(len(again) == 1 and again[0].ack == 1001, "the data again, with ack 1001", told(again))
    check(again[0].wnd == 7000, "the window 7000, for 1000 of 8000 bytes wait to be read", again[0].wnd)


@graded(STAGE, 1, "RFC 9293 §3.8.1")
def acknowledged_part_is_not_sent_again(bench: Bench) -> None:
    """After an ACK of a part, the rest is sent again."""
    tcp = bench.connection()
    tcp.send(stream(3000), at=0.0)
    tcp.arrives(peer(ack=1001), at=0.1)
    tcp.take()
    tcp.waits(5.0)
    again = [seg for seg in tcp.take() if seg.data]
    check(bool(again), "the data from 1001 on again", told(again))
    check(all(seg.seq >= 1001 for seg in again), "nothing that was acknowledged", told(again))
    check(again[0].seq == 1001, "the oldest that was not acknowledged first: seq 1001", told(again))
    in_place(again[0])


@graded(STAGE, 1, "RFC 9293 §3.8.1")
def ack_within_a_segment(bench: Bench) -> None:
    """After an ACK that ends within a segment, what is missing of it comes again."""
    tcp = bench.connection()
    tcp.send(stream(1000), at=0.0)
    tcp.arrives(peer(ack=401), at=0.1)
    tcp.take()
    tcp.resent(401, within=5.0)
    tcp.arrives(peer(ack=1001), at=tcp.now + 0.1)
    tcp.take()
    tcp.send(stream(500, at=1001))
    tcp.pulls(1501, begin=1001)


@graded(STAGE, 1, "RFC 9293 §3.4")
def retransmission_at_the_wrap(bench: Bench) -> None:
    """Retransmission works where the sequence numbers wrap around."""
    tcp = bench.connection(iss=2**32 - 500)
    tcp.send(stream(1000), at=0.0)
    tcp.take()
    tcp.resent(1, within=5.0)
    tcp.arrives(peer(ack=1001), at=tcp.now + 0.1)
    tcp.take()
    tcp.waits(tcp.now + 60.0)
    tcp.sends_nothing("nothing to be sent again once it was acknowledged")


@graded(STAGE, 1, "RFC 9293 §3.8.3 (MUST-20)")
def gives_up(bench: Bench) -> None:
    """After config.retries retransmissions the connection is given up: timed out."""
    tcp = bench.connection(config=settings(retries=3))
    tcp.send(stream(3), at=0.0)
    tcp.waits(300.0)
    sent = [seg for seg in tcp.take() if seg.data]
    check(len(sent) == 4, "the segment, and 3 retransmissions", f"{len(sent)} copies of it")
    tcp.failed_with(errno.ETIMEDOUT, "ETIMEDOUT")


@graded(STAGE, 1, "RFC 9293 §3.8.3 (MUST-20)")
def progress_keeps_it_alive(bench: Bench) -> None:
    """Retransmissions are counted for each segment anew: many losses are no reason to give up."""
    tcp = bench.connection(config=settings(retries=2))
    for at in range(1, 7):
        tcp.send(stream(1, at=at), at=tcp.now + 0.1)
        tcp.take()
        tcp.resent(at, within=130.0)
        tcp.resent(at, within=130.0)
        tcp.arrives(peer(ack=at + 1), at=tcp.now + 0.1)
        tcp.is_in(State.ESTABLISHED)


@graded(STAGE, 1, "RFC 9293 §3.8.3 (MUST-22, MUST-23)")
def syn_gives_up(bench: Bench) -> None:
    """After config.syn_retries retransmissions of the SYN the attempt is given up."""
    tcp = bench.connection(State.CLOSED, settings(syn_retries=2, retries=9))
    tcp.open(active=True, at=0.0)
    tcp.waits(100.0)
    sent = tcp.take()
    check(len(sent) == 3, "the SYN, and 2 retransmissions", told(sent))
    tcp.failed_with(errno.ETIMEDOUT, "ETIMEDOUT")


@graded(STAGE, 3, "RFC 9293 §3.8")
def lossy_transfer(bench: Bench) -> None:
    """Over a link that loses a segment of ten, 60 kB each way come whole."""
    for client in (True, False):
        transfer(bench, client=client, there=60_000, back=60_000, shape=Shape(delay=0.02, loss=0.1))


@graded(STAGE, 1, "RFC 9293 §3.8")
def corrupted_transfer(bench: Bench) -> None:
    """Over a link that loses, damages and doubles segments, 30 kB each way come whole."""
    shape = Shape(delay=0.02, loss=0.05, corrupt=0.05, duplicate=0.1)
    transfer(bench, client=True, there=30_000, back=30_000, shape=shape)


@graded(STAGE, 1, "RFC 6298 §5.4")
def one_segment_at_a_time(bench: Bench) -> None:
    """A time-out sends the oldest segment again, not all that is in flight."""
    tcp = bench.connection()
    tcp.send(stream(4000), at=0.0)
    tcp.take()
    tcp.waits(1.5)
    again = [seg for seg in tcp.take() if seg.data]
    check(len(again) == 1 and again[0].seq == 1, "seq 1 again, and nothing else before an ACK", told(again))
