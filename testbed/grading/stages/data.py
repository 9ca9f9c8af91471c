"""Data in order: sending, receiving, acknowledging."""

from __future__ import annotations

from chitcpd.tcp.api import ACK, PSH, Options, State
from testbed.grading.catalog import graded
from testbed.grading.network import transfer
from testbed.grading.script import BUFFER, MSS, Bench, check, peer, settings, stream, told

STAGE = "data"


@graded(STAGE, 2, "RFC 9293 §3.10.7.4, seventh check")
def data_is_acknowledged(bench: Bench) -> None:
    """What comes in order is acknowledged and handed out."""
    tcp = bench.connection()
    tcp.arrives(peer(b"abc"))
    tcp.acknowledges(4)
    check(tcp.connection.readable == 3, "readable to be 3", tcp.connection.readable)
    tcp.hands_out(b"abc")
    check(tcp.connection.readable == 0, "readable to be 0 when all was received", tcp.connection.readable)
    tcp.hands_out(b"", 'receive to return b"" when there is nothing')


@graded(STAGE, 1, "RFC 9293 §3.10.3")
def pieces_of_any_size(bench: Bench) -> None:
    """The application may read the stream in pieces of any size."""
    tcp = bench.connection()
    for at in range(1, 3001, 300):
        tcp.arrives(peer(stream(300, at=at), seq=at))
    pieces = [tcp.receive(size) for size in (1, 299, 301, 1000, 5000)]
    lengths = [len(piece) for piece in pieces]
    check(lengths == [1, 299, 301, 1000, 1399], "pieces of 1, 299, 301, 1000 and 1399 bytes", lengths)
    check(b"".join(pieces) == stream(3000), "the stream as it was sent", "other bytes")


@graded(STAGE, 2, "RFC 9293 §3.7.1, §3.10.2")
def data_is_sent(bench: Bench) -> None:
    """What the application sends goes out at once, in segments that are not too large."""
    tcp = bench.connection()
    taken = tcp.send(stream(3500))
    check(taken == 3500, "send to take 3500 bytes", taken)
    check(any(seg.data for seg in tcp.sent), "data to be sent at once", told(tcp.sent))
    for seg in tcp.pulls(3501):
        check(len(seg.data) <= MSS, f"segments of at most {MSS} bytes", told([seg]))
        check(bool(seg.flags & ACK) and seg.ack == 1, "each segment to have ACK, with ack 1", told([seg]))


@graded(STAGE, 1, "RFC 9293 §3.7.1 (SHLD-5)")
def segments_are_full(bench: Bench) -> None:
    """A stream goes in segments as large as they may be, not in crumbs."""
    tcp = bench.connection()
    tcp.send(stream(10_000))
    lengths = [len(seg.data) for seg in tcp.pulls(10_001) if seg.data]
    check(lengths == [MSS] * 10, f"10 segments of {MSS} bytes", f"{len(lengths)} of {min(lengths)} to {max(lengths)}")


@graded(STAGE, 1, "RFC 9293 §3.7.1 (MUST-15, MUST-16)")
def peers_mss(bench: Bench) -> None:
    """No segment is larger than the peer's MSS, which is 536 if it names none."""
    for offers, config, most in (
        (Options(mss=300), settings(), 300),
        (Options(), settings(), 536),
        (None, settings(), 536),
        (Options(mss=1400), settings(send_mss=700), 700),
    ):
        tcp = bench.connection(offers=offers, config=config)
        tcp.send(stream(2000))
        largest = max(len(seg.data) for seg in tcp.pulls(2001))
        check(largest <= most, f"segments of at most {most} bytes", f"one of {largest}")


@graded(STAGE, 1, "RFC 9293 §3.9.1.2 (MUST-61)")
def last_segment_is_pushed(bench: Bench) -> None:
    """The last segment of what there is to send has PSH."""
    tcp = bench.connection()
    tcp.send(stream(2500))
    last = [seg for seg in tcp.pulls(2501) if seg.data][-1]
    check(bool(last.flags & PSH), "PSH in the last segment", told([last]))


@graded(STAGE, 1, "RFC 9293 §3.10.2")
def full_send_buffer(bench: Bench) -> None:
    """send takes what fits into the send buffer, and more when something was acknowledged."""
    tcp = bench.connection()
    check(
        tcp.connection.writable == 16_000, "writable to be 16000, which is config.send_buffer", tcp.connection.writable
    )
    taken = tcp.send(stream(20_000))
    check(taken == 16_000, "send to take 16000 of 20000 bytes", taken)
    check(tcp.connection.writable == 0, "writable to be 0", tcp.connection.writable)
    taken = tcp.send(b"x")
    check(taken == 0, "send to take nothing while the buffer is full", taken)
    tcp.arrives(peer(ack=1001), at=0.1)
    check(tcp.connection.writable == 1000, "writable to be 1000 after the ACK of 1000 bytes", tcp.connection.writable)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check")
def repeated_data(bench: Bench) -> None:
    """Data that comes twice is acknowledged twice, and handed out once."""
    tcp = bench.connection()
    tcp.arrives(peer(b"abc"))
    tcp.acknowledges(4)
    tcp.arrives(peer(b"abc"), at=2.0)
    tcp.acknowledges(4, within=0)
    tcp.hands_out(b"abc")


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check")
def partly_new_data(bench: Bench) -> None:
    """Of a segment that begins before what is expected, the new part is taken."""
    tcp = bench.connection()
    tcp.arrives(peer(b"abc"), peer(b"bcde", seq=2), peer(b"ef", seq=5))
    tcp.acknowledges(7)
    tcp.hands_out(b"abcdef")


@graded(STAGE, 1, "RFC 9293 §3.4")
def received_numbers_wrap(bench: Bench) -> None:
    """Receiving goes on where the peer's sequence numbers wrap around."""
    tcp = bench.connection(irs=2**32 - 1500)
    for at in range(1, 4001, 1000):
        tcp.arrives(peer(stream(1000, at=at), seq=at))
        tcp.acknowledges(at + 1000)
    tcp.hands_out(stream(4000))


@graded(STAGE, 1, "RFC 9293 §3.4")
def sent_numbers_wrap(bench: Bench) -> None:
    """Sending goes on where our sequence numbers wrap around."""
    tcp = bench.connection(iss=2**32 - 1500)
    tcp.send(stream(6000))
    tcp.pulls(6001)
    tcp.waits(60.0)
    again = [seg for seg in tcp.take() if seg.data]
    check(not again, "nothing to be sent again, for all was acknowledged", told(again))


@graded(STAGE, 1, "RFC 9293 §3.10.7.4")
def acks_are_not_acknowledged(bench: Bench) -> None:
    """An ACK without data is not answered: else two TCPs would never fall silent."""
    tcp = bench.connection()
    tcp.arrives(peer(), peer(), peer())
    tcp.waits(30.0)
    tcp.sends_nothing("no answer to an ACK")


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, fifth check")
def old_acks_change_nothing(bench: Bench) -> None:
    """An ACK of what was acknowledged already changes nothing."""
    tcp = bench.connection()
    tcp.send(stream(3000))
    tcp.pulls(3001)
    una = tcp.connection.snd_una
    tcp.arrives(peer(ack=1001))
    check(tcp.connection.snd_una == una, "SND.UNA to stay where it is", "another one")
    tcp.send(stream(1000, at=3001))
    tcp.pulls(4001, begin=3001)


@graded(STAGE, 1, "RFC 9293 §3.1")
def both_directions(bench: Bench) -> None:
    """Data goes both ways at once, and each segment has the ACK that holds then."""
    tcp = bench.connection()
    tcp.arrives(peer(stream(500)))
    tcp.take()
    tcp.send(stream(700))
    sent = [seg for seg in tcp.take() if seg.data]
    check(bool(sent) and all(seg.ack == 501 for seg in sent), "data with ack 501", told(sent))
    tcp.arrives(peer(stream(300, at=501), seq=501, ack=701))
    tcp.acknowledges(801)
    tcp.hands_out(stream(800))


@graded(STAGE, 1, "RFC 9293 §3.8.6.3 (SHLD-19, MUST-40)")
def delayed_acks(bench: Bench) -> None:
    """With delayed ACKs on, one segment's waits less than half a second, and two full segments get one at once."""
    tcp = bench.connection(config=settings(delayed_ack=0.2))
    tcp.arrives(peer(b"abc"), at=1.0)
    tcp.acknowledges(4, within=0.499)
    at = 4
    for _ in range(3):
        tcp.waits(tcp.now + 1.0)
        tcp.take()
        tcp.arrives(peer(stream(MSS, at=at), seq=at), peer(stream(MSS, at=at + MSS), seq=at + MSS))
        at += 2 * MSS
        tcp.acknowledges(at, within=0)
        tcp.receive()


@graded(STAGE, 1, "RFC 9293 §3.8.6.3 (SHLD-18)")
def acks_are_delayed(bench: Bench) -> None:
    """With delayed ACKs on, the ACK of a single segment waits for data to ride on."""
    tcp = bench.connection(config=settings(delayed_ack=0.2))
    tcp.arrives(peer(b"abc"), at=1.0)
    tcp.sends_nothing("no ACK at once, for config.delayed_ack is 0.2 s")
    tcp.send(b"xyz")
    sent = tcp.take()
    check([seg.ack for seg in sent] == [4], "one segment, data with ack 4", told(sent))


@graded(STAGE, 1, "RFC 9293 §3.7.4 (SHLD-7, MUST-17)")
def nagle(bench: Bench) -> None:
    """With Nagle's algorithm on, small segments wait while data is unacknowledged; with it off, they don't."""
    tcp = bench.connection()
    for at in range(1, 4):
        tcp.send(stream(1, at=at))
        sent = tcp.take()
        check([seg.seq for seg in sent] == [at], f"seq {at} with 1 byte at once, for config.nagle is off", told(sent))
    tcp = bench.connection(config=settings(nagle=True))
    for at in range(1, 4):
        tcp.send(stream(1, at=at))
    sent = tcp.take()
    check(len(sent) == 1, "one small segment, for config.nagle is on", told(sent))
    tcp.arrives(peer(ack=2), at=0.1)
    sent = [seg for seg in tcp.take() if seg.data]
    check([seg.seq for seg in sent] == [2] and len(sent[0].data) == 2, "the other 2 bytes in one segment", told(sent))


@graded(STAGE, 3, "RFC 9293 §3.8")
def whole_transfer(bench: Bench) -> None:
    """100 kB go each way over a clean link, as client and as server, and come whole."""
    for client in (True, False):
        transfer(bench, client=client, there=100_000, back=100_000, closes=False)


@graded(STAGE, 1, "RFC 9293 §3.8.6")
def long_stream_through_a_small_buffer(bench: Bench) -> None:
    """A stream of 60 kB comes whole through a receive buffer of 8 kB."""
    tcp = bench.connection()
    at, received = 1, b""
    while at <= 60_000:
        readable = tcp.connection.readable
        check(0 <= readable < BUFFER, f"readable to be below {BUFFER}, for half of it is always read", readable)
        length = min(1 + at * 7 % 997, BUFFER - readable)
        tcp.arrives(peer(stream(length, at=at), seq=at), at=tcp.now + 0.001)
        at += length
        if tcp.connection.readable > BUFFER // 2:
            received += tcp.receive(3000)
    received += tcp.receive()
    check(received == stream(at - 1), f"{at - 1} bytes as they were sent", f"{len(received)} bytes, or others")


@graded(STAGE, 1, "RFC 9293 §3.10.2")
def writable_when_established(bench: Bench) -> None:
    """writable is 0 before ESTABLISHED, and the room in the send buffer then."""
    for state in (State.LISTEN, State.SYN_SENT, State.SYN_RCVD):
        tcp = bench.connection(state)
        check(tcp.connection.writable == 0, f"writable to be 0 in {state.name}", tcp.connection.writable)
    tcp = bench.connection()
    check(tcp.connection.writable == 16_000, "writable to be 16000 in ESTABLISHED", tcp.connection.writable)
