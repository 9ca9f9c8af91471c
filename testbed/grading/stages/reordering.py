"""Segments come out of order, twice, and cut anew."""

from __future__ import annotations

from chitcpd.sim import Shape
from chitcpd.tcp.api import FIN, State
from testbed.grading.catalog import graded
from testbed.grading.network import transfer
from testbed.grading.script import BUFFER, Bench, Script, check, peer, settings, stream, told

STAGE = "reordering"


@graded(STAGE, 2, "RFC 9293 §3.10.7.4, seventh check (SHLD-31)")
def kept_until_the_gap_is_filled(bench: Bench) -> None:
    """What comes ahead is kept, and acknowledged when the gap is filled."""
    tcp = bench.connection()
    tcp.arrives(peer(b"def", seq=4))
    tcp.acknowledges(1, within=0)
    tcp.hands_out(b"", "nothing to be handed out before the gap is filled")
    tcp.arrives(peer(b"abc"), at=0.1)
    tcp.acknowledges(7)
    tcp.hands_out(b"abcdef")


@graded(STAGE, 1, "RFC 5681 §4.2")
def duplicate_acks_at_once(bench: Bench) -> None:
    """What comes ahead is answered with a duplicate ACK at once, also where ACKs are delayed."""
    tcp = bench.connection(config=settings(delayed_ack=0.2))
    for at in (1001, 2001, 3001):
        tcp.arrives(peer(stream(1000, at=at), seq=at), at=1.0)
        tcp.sends(0, 1, 1)


@graded(STAGE, 1, "RFC 5681 §4.2")
def filled_gap_at_once(bench: Bench) -> None:
    """A segment that fills a gap is acknowledged at once, also where ACKs are delayed."""
    tcp = bench.connection(config=settings(delayed_ack=0.2))
    tcp.arrives(peer(stream(1000, at=2001), seq=2001), at=1.0)
    tcp.take()
    tcp.arrives(peer(stream(1000)), at=1.1)
    tcp.acknowledges(1001, within=0)
    tcp.arrives(peer(stream(1000, at=1001), seq=1001), at=1.2)
    tcp.acknowledges(3001, within=0)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, seventh check")
def several_gaps(bench: Bench) -> None:
    """Several gaps are filled one after the other."""
    tcp = bench.connection()
    for at in (6001, 2001, 4001):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
    tcp.take()
    for at, ack in ((1, 1001), (1001, 3001), (3001, 5001), (5001, 7001)):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        tcp.acknowledges(ack)
    tcp.hands_out(stream(7000))


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, seventh check")
def overlapping_pieces(bench: Bench) -> None:
    """Pieces that overlap are joined: each byte is in its place, once."""
    tcp = bench.connection()
    for at, length in ((1001, 600), (1301, 700), (901, 300), (951, 1000)):
        tcp.arrives(peer(stream(length, at=at), seq=at))
    tcp.take()
    tcp.arrives(peer(stream(900)))
    tcp.acknowledges(2001)
    tcp.hands_out(stream(2000))
    tcp = bench.connection()
    tcp.arrives(peer(stream(200, at=301), seq=301), peer(stream(200, at=701), seq=701), peer(stream(1000)))
    tcp.acknowledges(1001)
    tcp.hands_out(stream(1000))


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, seventh check")
def repeated_ahead_of_a_gap(bench: Bench) -> None:
    """The same piece ahead of a gap, three times, counts once."""
    tcp = bench.connection()
    for _ in range(3):
        tcp.arrives(peer(b"def", seq=4))
    tcp.take()
    tcp.arrives(peer(b"abc"))
    tcp.acknowledges(7)
    tcp.hands_out(b"abcdef")


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, eighth check")
def fin_ahead_waits(bench: Bench) -> None:
    """A FIN that comes ahead of data is not the end: it waits for its turn, or comes again."""
    tcp = bench.connection()
    tcp.arrives(peer(b"def", seq=4, flags=FIN))
    tcp.acknowledges(1, within=0)
    tcp.is_in(State.ESTABLISHED)
    check(not tcp.connection.at_eof, "no end of the stream before the gap is filled", "at_eof")
    tcp.arrives(peer(b"abc"), at=0.1)
    tcp.arrives(peer(b"def", seq=4, flags=FIN), at=0.2)
    tcp.acknowledges(8)
    tcp.is_in(State.CLOSE_WAIT)
    tcp.hands_out(b"abcdef")


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, eighth check")
def fin_ahead_is_kept(bench: Bench) -> None:
    """A FIN that came ahead with data is acted on when the gap is filled."""
    tcp = bench.connection()
    tcp.arrives(peer(b"def", seq=4, flags=FIN), at=0.1)
    tcp.take()
    tcp.arrives(peer(b"abc"), at=0.2)
    tcp.acknowledges(8)
    tcp.is_in(State.CLOSE_WAIT)
    tcp.hands_out(b"abcdef")
    check(tcp.connection.at_eof, "at_eof", "not")


@graded(STAGE, 1, "RFC 9293 §3.4")
def gap_at_the_wrap(bench: Bench) -> None:
    """A gap is filled where the sequence numbers wrap around."""
    tcp = bench.connection(irs=2**32 - 1500)
    for at in (3001, 1001, 2001):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        tcp.acknowledges(1)
    tcp.arrives(peer(stream(1000)))
    tcp.acknowledges(4001)
    tcp.hands_out(stream(4000))


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check")
def beyond_the_window(bench: Bench) -> None:
    """What lies beyond the window is not kept: memory is bounded."""
    tcp = bench.connection()
    tcp.arrives(peer(stream(1000, at=BUFFER + 1), seq=BUFFER + 1), peer(stream(1000, at=30_001), seq=30_001))
    tcp.take()
    for at in range(1, BUFFER, 1000):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
    tcp.acknowledges(BUFFER + 1)
    tcp.hands_out(stream(BUFFER))


@graded(STAGE, 1, "RFC 9293 §3.8")
def any_order(bench: Bench) -> None:
    """Whatever the order, the repetitions and the cuts, the stream comes out as it was sent."""
    for _ in range(5):
        shuffled(bench, bench.connection(irs=2**32 - 4000), BUFFER, 200)


def shuffled(bench: Bench, tcp: Script, size: int, step: int) -> None:
    """A stream of so many bytes comes in pieces of `step`, and twice over in pieces that overlap, in any order."""
    pieces = [(at, bench.random.randrange(1, step * 9 // 2)) for at in range(1, size, step) for _ in range(2)]
    pieces += [(at, step) for at in range(1, size, step)]
    bench.random.shuffle(pieces)
    for at, length in pieces:
        length = min(length, size + 1 - at)
        tcp.arrives(peer(stream(length, at=at), seq=at))
    tcp.hands_out(stream(size))


@graded(STAGE, 1, "RFC 9293 §3.10.7.4")
def dropped_data_comes_again(bench: Bench) -> None:
    """Even if what comes ahead is dropped: a peer that sends again gets all of it through, in its order."""
    sent_until_it_is_there(bench, BUFFER, 1000)


def sent_until_it_is_there(bench: Bench, size: int, step: int) -> None:
    """A stream of so many bytes is sent in pieces, in any order, and what is missing once more, until nothing is."""
    tcp = bench.connection()
    pieces = list(range(1, size, step))
    rounds = 0
    while (following := (tcp.connection.rcv_nxt - tcp.connection.irs) & 0xFFFFFFFF) < size + 1:
        rounds += 1
        check(rounds <= len(pieces), f"{size} bytes after {len(pieces)} rounds", f"{following - 1} bytes")
        bench.random.shuffle(pieces)
        for at in pieces:
            if at >= following:
                tcp.arrives(peer(stream(step, at=at), seq=at))
    tcp.hands_out(stream(size))
    late = [seg for seg in tcp.take() if len(seg)]
    check(not late, "nothing but ACKs", told(late))


@graded(STAGE, 3, "RFC 9293 §3.8")
def reordering_transfer(bench: Bench) -> None:
    """Over a link that swaps and doubles segments, 60 kB each way come whole."""
    shape = Shape(delay=0.02, jitter=0.02, reorder=0.2, duplicate=0.1)
    for client in (True, False):
        transfer(bench, client=client, there=60_000, back=60_000, shape=shape)
