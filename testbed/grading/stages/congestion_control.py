"""Congestion control: RFC 5681 and RFC 6582. How much is in flight shows the window."""

from __future__ import annotations

from typing import Any

from chitcpd.tcp.api import Segment
from testbed.grading.catalog import graded
from testbed.grading.script import EARLY, LATE, MSS, Bench, Script, check, peer, settings, stream, told

STAGE = "congestion control"
WIDE = 60_000  # a window of the peer's that does not limit
_MOST = 1 << 18  # bytes: the send buffer


def _sending(bench: Bench, *, data: int = 200_000, initial: int = 2, **changes: Any) -> Script:
    """The initial window is in flight since 1.0; much more waits."""
    config = settings(congestion="newreno", initial_window=initial, send_buffer=_MOST, **changes)
    tcp = bench.connection(config=config)
    tcp.arrives(peer(wnd=WIDE), at=0.1)
    tcp.send(stream(data), at=1.0)
    return tcp


def _in_flight(tcp: Script) -> int:
    """Whole segments. Raises Failed if they can't be, for what was sent."""
    between = (tcp.connection.snd_nxt - tcp.connection.snd_una) & 0xFFFFFFFF
    check(between <= _MOST, f"SND.NXT to be at most {_MOST} bytes ahead of SND.UNA", f"{between} bytes")
    return between // MSS


def _una(tcp: Script) -> int:
    return (tcp.connection.snd_una - tcp.connection.iss) & 0xFFFFFFFF


def _nxt(tcp: Script) -> int:
    return (tcp.connection.snd_nxt - tcp.connection.iss) & 0xFFFFFFFF


def _acknowledges(tcp: Script, segments: int, *, at: float) -> None:
    """ACKs of one segment each."""
    tcp.waits(at)
    for _ in range(segments):
        tcp.arrives(peer(ack=_una(tcp) + MSS, wnd=WIDE))


def _duplicates(tcp: Script, count: int, *, at: float) -> None:
    tcp.waits(at)
    for _ in range(count):
        tcp.arrives(peer(ack=_una(tcp), wnd=WIDE))


def _loses_the_first(tcp: Script, *, at: float) -> None:
    """The oldest segment is lost, found missing by duplicates, and all that was sent until then is acknowledged.

    So many more duplicates come that there is new data in flight then: the window is ssthresh afterwards whichever of
    its two ways to end a recovery a TCP has chosen (RFC 6582 §3.2, step 3), with limited transmit (RFC 3042) or not.
    """
    lost = _una(tcp)
    tcp.take()
    _duplicates(tcp, 3, at=at)
    sent = [seg.seq for seg in tcp.take() if seg.data]
    check(lost in sent, f"a fast retransmission of seq {lost}", f"data at {sent[:6]}" if sent else "nothing")
    recover = _nxt(tcp)
    _duplicates(tcp, 8, at=at)
    tcp.arrives(peer(ack=recover, wnd=WIDE), at=at + 0.1)


def _data(sent: list[Segment]) -> list[int]:
    return [seg.seq for seg in sent if seg.data]


@graded(STAGE, 1, "RFC 5681 §3.1, RFC 6928 §2")
def initial_window(bench: Bench) -> None:
    """At first no more is sent than the initial window, though the peer's is wide."""
    for segments in (1, 2, 4):
        tcp = _sending(bench, initial=segments)
        check(_in_flight(tcp) == segments, f"{segments} segments, config.initial_window, in flight", _in_flight(tcp))


@graded(STAGE, 2, "RFC 5681 §3.1")
def slow_start(bench: Bench) -> None:
    """Slow start doubles the window with each round trip."""
    tcp = _sending(bench)
    for k, expected in enumerate((4, 8, 16, 32)):
        _acknowledges(tcp, _in_flight(tcp), at=1.1 + k / 10)
        check(_in_flight(tcp) == expected, f"{expected} segments in flight after round trip {k + 1}", _in_flight(tcp))


@graded(STAGE, 2, "RFC 5681 §3.1")
def congestion_avoidance(bench: Bench) -> None:
    """Above ssthresh the window grows by about a segment with each round trip."""
    tcp = _sending(bench, initial=10)
    _loses_the_first(tcp, at=1.1)
    before = _in_flight(tcp)
    for k in range(4):
        _acknowledges(tcp, _in_flight(tcp), at=1.3 + k / 10)
    grown = _in_flight(tcp) - before
    check(grown in (3, 4, 5), "4 segments more after 4 round trips", f"{grown} more, from {before} on")


@graded(STAGE, 2, "RFC 5681 §3.2")
def fast_retransmit(bench: Bench) -> None:
    """Three duplicate ACKs bring the lost segment at once, before its time-out."""
    tcp = _sending(bench, data=10_000, initial=10)
    tcp.take()
    _duplicates(tcp, 3, at=1.1)
    sent = tcp.take()
    check(1 in _data(sent), "the lost segment, seq 1, after the third duplicate", told(sent))


@graded(STAGE, 1, "RFC 5681 §3.2")
def two_duplicates_are_not_enough(bench: Bench) -> None:
    """Two duplicate ACKs bring nothing again: they may come from reordering; the third brings the segment once."""
    tcp = _sending(bench, data=10_000, initial=10)
    tcp.take()
    _duplicates(tcp, 2, at=1.1)
    sent = tcp.take()
    check(not _data(sent), "nothing to be sent again after two duplicates", told(sent))
    _duplicates(tcp, 7, at=1.1)
    sent = tcp.take()
    check(_data(sent) == [1], "the lost segment, once", told(sent))


@graded(STAGE, 1, "RFC 5681 §2")
def what_is_no_duplicate(bench: Bench) -> None:
    """An ACK with data or another window is no duplicate, nor is one while nothing is in flight."""
    tcp = _sending(bench, data=10_000, initial=10)
    tcp.take()
    for k in range(4):
        tcp.arrives(peer(b"x", seq=1 + k, wnd=WIDE), at=1.1)
    for k in range(4):
        tcp.arrives(peer(seq=5, wnd=50_000 - k), at=1.15)
    sent = tcp.take()
    check(not _data(sent), "nothing to be sent again", told(sent))
    tcp = _sending(bench, data=1000)
    tcp.arrives(peer(ack=1001, wnd=WIDE), at=1.1)
    tcp.take()
    for _ in range(4):
        tcp.arrives(peer(ack=1001, wnd=WIDE), at=1.3)
    sent = tcp.take()
    check(not sent, "nothing to be sent while nothing is in flight", told(sent))
    tcp.send(stream(1000, at=1001), at=1.4)
    sent = tcp.take()
    check(_data(sent) == [1001], "new data at 1001, once", told(sent))


@graded(STAGE, 2, "RFC 5681 §3.2, RFC 6582 §3.2")
def loss_halves_the_window(bench: Bench) -> None:
    """A loss that duplicates tell of halves the window."""
    tcp = _sending(bench, initial=10)
    _loses_the_first(tcp, at=1.1)
    check(_in_flight(tcp) in (4, 5, 6), "5 segments in flight, half of the 10 that were", _in_flight(tcp))


@graded(STAGE, 1, "RFC 5681 §3.1, equation 4")
def never_below_two_segments(bench: Bench) -> None:
    """The threshold never falls below two segments."""
    tcp = _sending(bench, data=3000, initial=3)
    _loses_the_first(tcp, at=1.1)
    tcp.send(stream(10_000, at=3001), at=1.5)
    check(_in_flight(tcp) == 2, "2 segments in flight", _in_flight(tcp))


@graded(STAGE, 1, "RFC 6582 §3.2, step 3")
def partial_ack(bench: Bench) -> None:
    """In recovery, an ACK of a part brings the next lost segment without further duplicates."""
    tcp = _sending(bench, initial=10)
    tcp.take()
    _duplicates(tcp, 3, at=1.1)
    recover = _nxt(tcp)
    _duplicates(tcp, 5, at=1.1)
    tcp.take()
    for k, at in enumerate((3001, 7001)):
        tcp.arrives(peer(ack=at, wnd=WIDE), at=1.2 + k / 10)
        sent = tcp.take()
        check(at in _data(sent), f"the next lost segment, seq {at}", told(sent))
    tcp.arrives(peer(ack=recover, wnd=WIDE), at=1.5)
    check(
        _in_flight(tcp) in (4, 5, 6), "5 segments in flight: several losses of a window halve it once", _in_flight(tcp)
    )


@graded(STAGE, 2, "RFC 5681 §3.1")
def time_out_leaves_one_segment(bench: Bench) -> None:
    """After a time-out the window is one segment, and slow start goes on to half of what was in flight."""
    tcp = _sending(bench, data=10_000, initial=10)
    tcp.take()
    took = tcp.resent(1, within=5.0)
    check(1 - EARLY <= took <= 1 + LATE, "the time-out after 1 s", f"{took:.2f} s")
    sent = tcp.take()
    check(not _data(sent), "one segment, and no more before an ACK", told(sent))
    tcp.arrives(peer(ack=10_001, wnd=WIDE), at=2.1)
    tcp.send(stream(100_000, at=10_001), at=2.1)
    flights = [_in_flight(tcp)]
    for k in range(4):
        _acknowledges(tcp, _in_flight(tcp), at=2.2 + k / 10)
        flights.append(_in_flight(tcp))
    check(flights[0] <= 3, "at most 3 segments in flight", flights[0])
    check(5 <= flights[-1] <= 9, "slow start up to 5 segments, then one more with each round trip", flights)


@graded(STAGE, 1, "RFC 5681 §3.1")
def repeated_time_outs(bench: Bench) -> None:
    """More time-outs of the same segment do not lower the threshold again."""
    tcp = _sending(bench, data=10_000, initial=10)
    tcp.waits(8.01)
    tcp.take()
    tcp.arrives(peer(ack=10_001, wnd=WIDE), at=8.1)
    tcp.send(stream(100_000, at=10_001), at=8.15)
    for k in range(2):
        _acknowledges(tcp, _in_flight(tcp), at=8.2 + k / 10)
    check(_in_flight(tcp) >= 5, "slow start up to 5 segments, half of the 10 that were in flight", _in_flight(tcp))


@graded(STAGE, 1, "RFC 5681 §3.1")
def repairs_after_a_time_out(bench: Bench) -> None:
    """What a time-out has lost is repaired by slow start, not by a time-out for each segment."""
    tcp = _sending(bench, data=7000, initial=10)
    tcp.take()
    tcp.waits(2.0 + LATE)
    tcp.take()
    tcp.arrives(peer(ack=1001, wnd=WIDE), at=2.1)
    sent = tcp.take()
    check(_data(sent)[:1] == [1001], "seq 1001 at once when 1 was acknowledged", told(sent))
    tcp.arrives(peer(ack=2001, wnd=WIDE), at=2.2)
    sent = tcp.take()
    check(bool(_data(sent)), "more of what was lost at once", told(sent))
