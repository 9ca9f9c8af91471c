"""What a stranger's daemon is asked: the tests of all stages, as far as the wire and the UNIX protocol show it.

Most are asked as they are. Some say here what they ask of a daemon that has its own numbers and settings, in real time;
each has the name of the test that it stands for, and holds of the reference in virtual time, too. The rest can't be
seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, URG, Options, Segment, State
from testbed.grading.catalog import Test, catalog
from testbed.grading.outside.transfers import TRANSFERS, transfers
from testbed.grading.script import (
    MSS,
    WINDOW,
    Bench,
    Script,
    a_syn,
    a_syn_ack,
    check,
    in_place,
    peer,
    settings,
    stream,
    told,
)
from testbed.grading.stages import flow_control, loss, reordering

_ISS = "it chooses its initial sequence numbers itself"
_CALLS = "the UNIX protocol has no call for it"
_SETTING = "it has settings of its own"
_LONG = "it would take minutes"
_FINE = "real time is too coarse for it"

UNSEEN = {  # test -> why it is not asked
    "given-iss": _ISS,
    "data-before-established": "calls wait for the handshake",
    "full-send-buffer": _CALLS,
    "sent-numbers-wrap": _ISS,
    "acks-are-delayed": _SETTING,
    "nagle": _SETTING,
    "writable-when-established": _CALLS,
    "half-close-receives": "CLOSE is the end of both directions",
    "time-wait": _LONG,
    "send-after-close": "CLOSE gives the descriptor back",
    "close-during-the-handshake": "calls wait for the handshake",
    "retransmission-at-the-wrap": _ISS,
    "gives-up": _LONG,
    "progress-keeps-it-alive": _LONG,
    "syn-gives-up": _LONG,
    "second-measurement": _FINE,
    "floor": _SETTING,
    "measured-from-its-own-segment": _FINE,
    "abort-resets": _CALLS,
}

MOST_BUFFER = 8 << 20  # bytes: a larger receive buffer is not filled
_SPAN = 3500  # bytes: what every receive buffer has room for, the C chiTCP's too
_WIDE = 60_000
_INITIAL = 10  # segments: no initial window is larger (RFC 6928)
_OTHER: dict[str, Callable[[Bench], None]] = {}


def asked(test: Test) -> Callable[[Bench], None]:
    """What a daemon is asked in this test, which must not be one of UNSEEN."""
    return _OTHER.get(test.id, test.run)


def reference_of(test: Test) -> Callable[[Bench], None]:
    """The same for the reference in virtual time."""
    return test.run if test.id in TRANSFERS else asked(test)


def _instead(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
    _OTHER[run.__name__.replace("_", "-")] = run
    return run


# ---- connection


@_instead
def handshake_wraps(bench: Bench) -> None:
    for state in (State.SYN_SENT, State.LISTEN):
        tcp = bench.connection(state, irs=2**32 - 1)
        if state == State.SYN_SENT:
            tcp.arrives(a_syn_ack())
            tcp.sends(0, 1, 1)
        else:
            tcp.arrives(a_syn())
            tcp.sends(SYN, 0, 1)
            tcp.arrives(peer())
        tcp.is_in(State.ESTABLISHED)
        check(tcp.connection.rcv_nxt == 0, "RCV.NXT 0 after the SYN with 2^32 - 1", tcp.connection.rcv_nxt)


@_instead
def mss_in_the_syn(bench: Bench) -> None:
    for state in (State.SYN_SENT, State.SYN_RCVD):
        tcp = bench.connection(State.CLOSED)
        tcp.open(active=state == State.SYN_SENT)
        if state == State.SYN_RCVD:
            tcp.arrives(a_syn())
        sent = tcp.take()
        offers = [seg.options.mss if seg.options else None for seg in sent]
        check(bool(offers) and all(offers), "a SYN with the MSS option", f"{told(sent)}: {offers}")
        tcp.arrives(a_syn_ack() if state == State.SYN_SENT else peer(), peer(b"abc"))
        later = [seg for seg in tcp.take() if seg.options and seg.options.mss is not None]
        check(not later, "no MSS option after the SYN", told(later))


@_instead
def misuse_is_told(bench: Bench) -> None:
    tcp = bench.connection()
    _fails(lambda: tcp.open(active=True), "the second CONNECT to be refused")
    closed = bench.connection(State.CLOSED)
    _fails(lambda: closed.send(b"abc"), "SEND without a connection to be refused")


def _fails(call: Callable[[], object], expected: str) -> None:
    try:
        call()
    except OSError:
        return
    check(False, expected, "no error")


# ---- data


@_instead
def data_is_acknowledged(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.arrives(peer(b"abc"))
    tcp.acknowledges(4)
    tcp.hands_out(b"abc")
    tcp.hands_out(b"", "nothing more to be handed out")


@_instead
def segments_are_full(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.arrives(peer(wnd=_WIDE), at=0.1)
    tcp.send(stream(10_000))
    lengths = [len(seg.data) for seg in tcp.pulls(10_001, wnd=_WIDE) if seg.data]
    largest = max(lengths)
    good = largest >= 500 and len(lengths) <= 1.5 * (10_000 / largest + 1)
    check(good, "10000 bytes in full segments", f"{len(lengths)} of {min(lengths)} to {largest}")


@_instead
def peers_mss(bench: Bench) -> None:
    for offers, most in ((Options(mss=300), 300), (Options(), 536), (None, 536)):
        tcp = bench.connection(offers=offers)
        tcp.send(stream(2000))
        largest = max(len(seg.data) for seg in tcp.pulls(2001))
        check(largest <= most, f"segments of at most {most} bytes", f"one of {largest}")


@_instead
def acks_are_not_acknowledged(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.arrives(peer(), peer(), peer())
    tcp.waits(3.0)
    tcp.sends_nothing("no answer to an ACK")


@_instead
def delayed_acks(bench: Bench) -> None:
    tcp = bench.connection()
    at = 1
    for length in (3, 1, 500):
        tcp.arrives(peer(stream(length, at=at), seq=at), at=tcp.now + 0.6)
        at += length
        tcp.acknowledges(at, within=0.5)


@_instead
def long_stream_through_a_small_buffer(bench: Bench) -> None:
    tcp = bench.connection()
    at, received, held = 1, b"", 0
    while at <= 60_000:
        length = 1 + at * 7 % 997
        if held + length > _SPAN:
            received += (piece := tcp.receive(3000))
            held -= len(piece)
            check(bool(piece), f"some of {held} bytes that wait to be handed out", "nothing")
            continue
        tcp.arrives(peer(stream(length, at=at), seq=at))
        at += length
        held += length
    while piece := tcp.receive():
        received += piece
    check(received == stream(at - 1), f"{at - 1} bytes as they were sent", f"{len(received)} bytes, or others")


# ---- close


@_instead
def half_close_sends(bench: Bench) -> None:
    tcp = bench.connection(State.CLOSE_WAIT)
    tcp.send(stream(3000), at=1.0)
    tcp.pulls(3001, seq=2)
    tcp.send(stream(10, at=3001), at=tcp.now + 1.0)
    tcp.close()
    sent = tcp.pulls(3011, begin=3001, seq=2)
    if not sent[-1].flags & FIN:
        tcp.sends(FIN, 3011, 2)
    tcp.arrives(peer(seq=2, ack=3012), at=tcp.now + 0.1)
    tcp.is_in(State.CLOSED)


@_instead
def repeated_fin(bench: Bench) -> None:
    for state, seq, ack in (
        (State.CLOSE_WAIT, 1, 1),
        (State.CLOSING, 2, 1),
        (State.LAST_ACK, 2, 1),
        (State.TIME_WAIT, 2, 2),
    ):
        tcp = bench.connection(state)
        tcp.arrives(peer(ack=ack, flags=FIN), at=0.3)
        tcp.sends(0, seq, 2)


@_instead
def acks_after_both_fins(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.send(stream(100))
    tcp.close()
    tcp.arrives(peer(flags=FIN), at=0.1)
    tcp.acknowledges(2)
    tcp.arrives(peer(seq=2, ack=101), at=0.2)
    tcp.take()
    tcp.sends(FIN, 101, 2, within=5.0)
    tcp.arrives(peer(seq=2, ack=102), at=tcp.now + 0.1)
    tcp.take()
    tcp.waits(tcp.now + 3.0)
    tcp.sends_nothing("no FIN again once it was acknowledged")


@_instead
def fins_at_the_wrap(bench: Bench) -> None:
    tcp = bench.connection(irs=2**32 - 2)
    tcp.close()
    tcp.sends(FIN, 1, 1)
    tcp.arrives(peer(ack=2), at=0.1)
    tcp.is_in(State.FIN_WAIT_2)
    tcp.arrives(peer(ack=2, flags=FIN), at=0.2)
    tcp.sends(0, 2, 2)
    tcp.is_in(State.TIME_WAIT)


@_instead
def close_before_anything(bench: Bench) -> None:
    for state in (State.LISTEN, State.SYN_SENT):
        tcp = bench.connection(state)
        tcp.close(at=0.1)
        tcp.is_in(State.CLOSED)
        tcp.take()
        tcp.waits(3.0)
        sent = [seg for seg in tcp.take() if not seg.flags & RST]
        check(not sent, "nothing to be sent afterwards", told(sent))


# ---- loss


@_instead
def lost_data_comes_again(bench: Bench) -> None:
    loss.sent_again_and_no_more(bench, 5.0)


@_instead
def lost_syn(bench: Bench) -> None:
    for state, ack in ((State.SYN_SENT, None), (State.SYN_RCVD, 1)):
        tcp = bench.connection(state)
        tcp.sends(SYN, 0, ack, within=5.0)
        tcp.arrives(a_syn_ack() if state == State.SYN_SENT else peer(), at=tcp.now + 0.1)
        tcp.is_in(State.ESTABLISHED)
        tcp.take()
        tcp.waits(tcp.now + 5.0)
        tcp.sends_nothing("the SYN not to be sent again once it was acknowledged")


@_instead
def lost_window(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.send(stream(4000), at=0.0)
    lost = tcp.take()
    check(any(seg.data for seg in lost), "data to be sent", told(lost))
    tcp.pulls(4001, patience=20.0)


@_instead
def retransmission_is_up_to_date(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.send(stream(300), at=0.0)
    tcp.arrives(peer(stream(1000)), at=0.1)
    tcp.acknowledges(1001)
    again = tcp.sends(0, 1, 1001, stream(300), within=5.0)
    check(again.ack == 1001, "the data again, with ack 1001", told([again]))


@_instead
def one_segment_at_a_time(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.send(stream(4000), at=0.0)
    tcp.take()
    tcp.resent(1, within=5.0)
    tcp.waits(tcp.now + 0.1)
    others = [seg for seg in tcp.take() if seg.data and seg.seq > 1]
    check(not others, "seq 1 again, and nothing else before an ACK", told(others))


# ---- reordering


@_instead
def several_gaps(bench: Bench) -> None:
    tcp = bench.connection()
    for at in (3001, 1001, 2001):
        tcp.arrives(peer(stream(500, at=at), seq=at))
    tcp.take()
    for at, ack in ((1, 501), (501, 1501), (1501, 2501), (2501, 3501)):
        tcp.arrives(peer(stream(500, at=at), seq=at))
        tcp.acknowledges(ack)
    tcp.hands_out(stream(_SPAN))


@_instead
def beyond_the_window(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.arrives(peer(b"x"))
    edge = _edge(tcp.acknowledges(2))
    tcp.arrives(peer(b"y" * 500, seq=edge), peer(b"y" * 500, seq=edge + 30_000))
    tcp.take()
    for at in range(2, edge, 500):
        tcp.arrives(peer(stream(min(500, edge - at), at=at), seq=at))
    tcp.acknowledges(edge)
    tcp.receive(1)
    tcp.hands_out(stream(edge - 2, at=2))


@_instead
def any_order(bench: Bench) -> None:
    for _ in range(3):
        reordering.shuffled(bench, bench.connection(irs=2**32 - 2000), _SPAN, 100)


@_instead
def dropped_data_comes_again(bench: Bench) -> None:
    reordering.sent_until_it_is_there(bench, _SPAN, 500)


# ---- flow control


@_instead
def whole_window_is_used(bench: Bench) -> None:
    tcp = bench.connection(config=settings(send_buffer=1 << 18))
    tcp.send(stream(20_000))
    tcp.pulls(20_001)
    tcp.take()
    tcp.send(stream(10_000, at=20_001))
    reach = tcp.flight() - 20_000
    check(WINDOW - MSS < reach <= WINDOW, f"{WINDOW} bytes in flight, which is the window", f"{reach} bytes")


@_instead
def closed_window_is_probed(bench: Bench) -> None:
    flow_control.probed(bench.connection(), times=4, within=20.0)


@_instead
def probes_back_off(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(stream(300))
    tcp.take()
    took = []
    for _ in range(3):
        took.append(tcp.resent(1, within=20.0))
        now = tcp.now
        tcp.arrives(peer(wnd=0))
        tcp.now = now
    good = all(1.5 < later / before < 2.6 for before, later in pairwise(took))
    check(good, "each probe after twice the time", ", ".join(f"{each:.2f} s" for each in took))


@_instead
def probe_may_be_taken(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(stream(300))
    tcp.take()
    tcp._wait_for(lambda seg: bool(seg.data), 5.0)
    sent = [seg for seg in tcp.take() if seg.data]
    check(bool(sent), "a probe", "none")
    taken = sent[0].seq + len(sent[0].data)
    tcp.arrives(peer(ack=taken, wnd=0), at=tcp.now + 0.1)
    tcp.arrives(peer(ack=taken, wnd=WINDOW), at=tcp.now + 0.1)
    if taken < 301:
        tcp.pulls(301, begin=taken)


@_instead
def our_window(bench: Bench) -> None:
    tcp = bench.connection()
    end = _fill(tcp)
    tcp.arrives(peer(b"z", seq=end))
    last = tcp.acknowledges(end)
    check(last.wnd == 0, "the window 0 when the buffer is full", last.wnd)


@_instead
def our_window_opens(bench: Bench) -> None:
    tcp = bench.connection()
    end = _fill(tcp)
    tcp.take()
    _read(tcp, end - 1)
    sent = [seg for seg in tcp.take() if seg.flags & ACK]
    good = bool(sent) and sent[-1].ack == end and sent[-1].wnd > 0
    check(good, "an ACK with an open window, at once", _windows(sent))


@_instead
def right_edge_never_moves_left(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.arrives(peer(b"x"))
    edges = [_edge(tcp.acknowledges(2))]
    following, held = 2, 1
    for k in range(60):
        length = min(1 + k * 97 % 500, edges[-1] - following)
        if length > 0:
            tcp.arrives(peer(stream(length, at=following), seq=following))
            following += length
            held += length
        if k % 3 == 0:
            held -= len(tcp.receive(min(held, 1 + k * 53 % 2000)))
        edges += [_edge(seg) for seg in tcp.take() if seg.flags & ACK and not seg.flags & RST]
    drop = next(((a, b) for a, b in pairwise(edges) if b < a), None)
    check(drop is None, "ack + window never to become less", f"{drop}")
    check(edges[-1] > edges[0], "the window to move along as the application reads", f"the edge at {edges[-1]}")


@_instead
def no_silly_windows(bench: Bench) -> None:
    tcp = bench.connection()
    size = _fill(tcp) - 1
    tcp.take()
    for _ in range(4):
        tcp.receive(20)
    small = [seg for seg in tcp.take() if seg.flags & ACK and 0 < seg.wnd < 500]
    check(not small, "no window of a few bytes to be told", _windows(small))
    _read(tcp, size - 80)
    sent = tcp.take()
    check(any(seg.wnd >= 500 for seg in sent), "the window to be told when there is room for a segment", _windows(sent))


@_instead
def beyond_our_window(bench: Bench) -> None:
    tcp = bench.connection()
    end = _fill(tcp, over=300)
    size = _read(tcp, end + 1000)
    check(size == end - 1, f"{end - 1} bytes to read, which is what was acknowledged", size)


@_instead
def probes_of_our_window_are_answered(bench: Bench) -> None:
    tcp = bench.connection()
    end = _fill(tcp)
    tcp.take()
    for _ in range(4):
        tcp.arrives(peer(b"z", seq=end), at=tcp.now + 0.5)
        seg = tcp.acknowledges(end, within=0)
        check(seg.wnd == 0, "the window 0", seg.wnd)


@_instead
def acks_while_our_window_is_closed(bench: Bench) -> None:
    tcp = bench.connection()
    end = _fill(tcp)
    tcp.send(stream(3))
    tcp.arrives(peer(seq=end, ack=4), at=tcp.now + 0.1)
    got = (tcp.connection.snd_una - tcp.connection.iss) & 0xFFFFFFFF
    check(got == 4, "SND.UNA to be ISS + 4", f"ISS + {got}")
    tcp.arrives(peer(flags=RST, seq=end, ack=4), at=tcp.now + 0.1)
    tcp.is_in(State.CLOSED)


def _fill(tcp: Script, *, over: int = 0) -> int:
    """Fill the receive buffer until the window is closed; the number after the last byte taken.

    `over`: what reaches into the closed window is sent, too, so many bytes.
    """
    tcp.arrives(peer(b"z"))
    ack = tcp.acknowledges(2)
    quiet = 0
    while ack.wnd and quiet < 20:
        at, edge = ack.ack, _edge(ack)
        check(at < MOST_BUFFER, f"a window that closes within {MOST_BUFFER >> 20} MiB", f"{at} bytes taken")
        for start in range(at, edge, 500):
            length = min(500, edge - start)
            tcp.arrives(peer(b"z" * (length + (over if start + length == edge else 0)), seq=start))
        tcp._wait_for(lambda seg, edge=edge: seg.ack >= edge, 0.5)  # type: ignore[misc]
        acks = [seg for seg in tcp.take() if seg.flags & ACK]
        quiet = 0 if acks and acks[-1].ack > ack.ack else quiet + 1
        ack = acks[-1] if acks else ack
        beyond = [seg for seg in acks if seg.ack > edge]
        check(not beyond, f"no ACK of more than {edge}, which was the edge of the window", told(beyond))
    check(ack.wnd == 0, "the window to close when nobody reads", f"ack {ack.ack} and window {ack.wnd} again and again")
    return ack.ack


def _read(tcp: Script, size: int) -> int:
    """The application reads so many bytes, or what there is; how many that were."""
    got = 0
    while got < size and (piece := tcp.receive()):
        got += len(piece)
    return got


def _edge(seg: Segment) -> int:
    return seg.ack + seg.wnd


def _windows(sent: list[Segment]) -> str:
    return ", ".join(f"ack {seg.ack} window {seg.wnd}" for seg in sent[:6]) or "no ACK"


# ---- RTO


def _measured(bench: Bench, *rtts: float) -> Script:
    """A connection that has had just these round trips. Its SYN was sent twice, so that gave none (Karn)."""
    tcp = bench.connection(State.SYN_SENT)
    tcp.sends(SYN, 0, None, within=5.0)
    tcp.arrives(a_syn_ack(), at=tcp.now + 0.1)
    tcp.is_in(State.ESTABLISHED)
    for at, rtt in enumerate(rtts, start=1):
        tcp.send(stream(1, at=at), at=tcp.now + 0.1)
        tcp.arrives(peer(ack=at + 1), at=tcp.now + rtt)
    tcp.take()
    return tcp


def _times_out_after(tcp: Script, seq: int, least: float, most: float, why: str) -> float:
    tcp.send(stream(1, at=seq), at=tcp.now + 0.1)
    tcp.take()
    took = tcp.resent(seq, within=20.0)
    check(least <= took <= most, f"a retransmission after {least:.2f} to {most:.2f} s ({why})", f"one after {took:.2f}")
    return took


@_instead
def initial_time_out(bench: Bench) -> None:
    tcp = bench.connection(State.CLOSED)
    tcp.open(active=True)
    tcp.take()
    began = tcp.now
    tcp.waits(began + 0.8)
    tcp.sends_nothing("no second SYN before 0.8 s")
    tcp.sends(SYN, 0, None, within=0.8)


@_instead
def back_off(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.send(stream(3), at=0.1)
    tcp.take()
    took = [tcp.resent(1, within=20.0) for _ in range(4)]
    good = all(1.7 < later / before < 2.4 for before, later in pairwise(took))
    check(good, "each retransmission after twice the time", ", ".join(f"{each:.2f} s" for each in took))


@_instead
def first_measurement(bench: Bench) -> None:
    _times_out_after(_measured(bench, 0.5), 2, 1.3, 2.1, "one round trip of 0.5 s: 1.5 s")


@_instead
def steady_round_trips(bench: Bench) -> None:
    _times_out_after(_measured(bench, *[0.4] * 15), 16, 0.35, 1.3, "15 round trips of 0.4 s, and a floor of 1 s")


@_instead
def karn(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.send(stream(1), at=0.1)
    tcp.take()
    first = tcp.resent(1, within=5.0)
    tcp.arrives(peer(ack=2), at=tcp.now + 0.001)
    least, most = 1.6 * first, 2.5 * first + 0.1
    _times_out_after(tcp, 2, least, most, "the ACK of a segment that was sent twice measures nothing")


@_instead
def measurement_ends_back_off(bench: Bench) -> None:
    tcp = _measured(bench, 0.5)
    tcp.send(stream(1, at=2), at=tcp.now + 0.1)
    tcp.take()
    tcp.resent(2, within=5.0)
    tcp.arrives(peer(ack=3), at=tcp.now + 0.1)
    tcp.send(stream(1, at=3))
    tcp.arrives(peer(ack=4), at=tcp.now + 0.5)
    _times_out_after(tcp, 4, 0.9, 2.0, "0.5 s were measured again: 1.25 s")


@_instead
def timer_stops(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.send(stream(1000), at=0.0)
    tcp.arrives(peer(ack=1001), at=0.1)
    tcp.take()
    tcp.waits(6.0)
    tcp.sends_nothing("nothing to be sent again")


@_instead
def ack_restarts_the_timer(bench: Bench) -> None:
    tcp = _measured(bench, 0.5)
    tcp.send(stream(2000, at=2), at=tcp.now + 0.1)
    tcp.take()
    tcp.arrives(peer(ack=1002), at=tcp.now + 1.0)
    tcp.take()
    took = tcp.resent(1002, within=10.0)
    check(took >= 0.9, "the other segment again not before a whole time-out after the ACK", f"{took:.2f} s after it")


@_instead
def data_does_not_restart_the_timer(bench: Bench) -> None:
    tcp = _measured(bench, 0.5)
    tcp.send(stream(1000, at=2), at=tcp.now + 0.1)
    began = tcp.now
    for k in range(1, 4):
        tcp.send(stream(1000, at=2 + k * 1000), at=began + k * 0.25)
    tcp.take()
    tcp.resent(2, within=5.0)
    took = tcp.now - began
    check(took <= 2.1, "the first segment again 1.5 s after it was sent", f"{took:.2f} s after")


@_instead
def repeated_acks_do_not_restart_the_timer(bench: Bench) -> None:
    tcp = _measured(bench, 0.5)
    tcp.send(stream(1000, at=2), at=tcp.now + 0.1)
    began = tcp.now
    tcp.take()
    tcp.arrives(peer(b"x", ack=2), at=began + 1.0)
    tcp.resent(2, within=5.0)
    took = tcp.now - began
    check(took <= 2.1, "the segment again 1.5 s after it was sent", f"{took:.2f} s after")


# ---- congestion control


def _sending(bench: Bench, *, data: int = 200_000) -> Script:
    reference = settings(congestion="newreno", initial_window=_INITIAL, send_buffer=1 << 18)
    tcp = bench.connection(config=reference)
    tcp.arrives(peer(wnd=_WIDE), at=0.0)
    tcp.send(stream(data), at=0.1)
    return tcp


def _reach(tcp: Script, before: int = 1) -> int:
    """The number behind the last byte that was sent."""
    return max([before, *(seg.seq + len(seg.data) for seg in tcp.take() if seg.data)])


def _acknowledges(tcp: Script, begin: int, end: int) -> int:
    """A round trip later, ACKs of a segment each; how many bytes are in flight then."""
    tcp.waits(tcp.now + 0.1)
    for ack in [*range(begin + MSS, end, MSS), end]:
        tcp.arrives(peer(ack=ack, wnd=_WIDE))
    return _reach(tcp, end) - end


def _in_flight_after_all(tcp: Script, reach: int) -> int:
    """All is acknowledged, and much more to be sent: how many segments go."""
    tcp.arrives(peer(ack=reach, wnd=_WIDE), at=tcp.now + 0.1)
    tcp.take()
    tcp.send(stream(100_000, at=reach))
    return -(-(_reach(tcp, reach) - reach) // MSS)


@_instead
def initial_window(bench: Bench) -> None:
    flight = _reach(_sending(bench)) - 1
    check(0 < flight <= _INITIAL * MSS, f"1 to {_INITIAL} segments in flight", f"{flight} bytes")


@_instead
def slow_start(bench: Bench) -> None:
    tcp = _sending(bench)
    acked, reach = 1, _reach(tcp)
    for k in range(2):
        before, flight = reach - acked, _acknowledges(tcp, acked, reach)
        good = 1.7 * before <= flight <= 2.2 * before or flight >= 0.9 * _WIDE
        check(good, f"twice the {before} bytes in flight after round trip {k + 1}", f"{flight} bytes")
        acked, reach = reach, reach + flight


@_instead
def congestion_avoidance(bench: Bench) -> None:
    tcp = _sending(bench, data=10_000)
    reach = _lost_the_first(tcp)
    before = _in_flight_after_all(tcp, reach) * MSS
    acked, reach = reach, reach + before
    for _ in range(3):
        flight = _acknowledges(tcp, acked, reach)
        acked, reach = reach, reach + flight
    grown = (flight - before) / MSS
    check(0 <= grown <= 6, "about 3 segments more after 3 round trips", f"{grown:g} more, from {before // MSS} on")


def _lost_the_first(tcp: Script) -> int:
    """The oldest of 10 segments is lost, and found missing by duplicates; the number behind the last."""
    reach = _reach(tcp)
    check(reach == 10_001, "10000 bytes in flight after their ACKs", f"{reach - 1}") if reach > 10_001 else None
    while reach < 10_001:  # a smaller initial window
        acked = reach
        tcp.arrives(peer(ack=acked, wnd=_WIDE), at=tcp.now + 0.1)
        reach = _reach(tcp, acked)
        check(reach > acked, "more data after an ACK", "none")
        if reach == 10_001:
            return _duplicates(tcp, acked, reach)
    return _duplicates(tcp, 1, reach)


def _duplicates(tcp: Script, lost: int, reach: int) -> int:
    for _ in range(3):
        tcp.arrives(peer(ack=lost, wnd=_WIDE))
    sent = [seg.seq for seg in tcp.take() if seg.data]
    check(lost in sent, f"a fast retransmission of seq {lost}", f"data at {sent[:6]}" if sent else "nothing")
    return reach


@_instead
def two_duplicates_are_not_enough(bench: Bench) -> None:
    tcp = _sending(bench, data=10_000)
    tcp.take()
    for count, expected in ((2, 0), (5, 1)):
        for _ in range(count):
            tcp.arrives(peer(wnd=_WIDE))
        sent = tcp.take()
        times = sum(bool(seg.data) and seg.seq == 1 for seg in sent)
        check(times == expected, "the lost segment, once, after the third duplicate, and not before", told(sent))


@_instead
def loss_halves_the_window(bench: Bench) -> None:
    tcp = _sending(bench, data=10_000)
    flight = _in_flight_after_all(tcp, _lost_the_first(tcp))
    check(3 <= flight <= 8, "5 to 7 segments in flight, of the 10 that were", flight)


@_instead
def never_below_two_segments(bench: Bench) -> None:
    tcp = _sending(bench, data=3000)
    reach = _reach(tcp)
    for _ in range(3):
        tcp.arrives(peer(wnd=_WIDE), at=tcp.now + 0.01)
    tcp.take()
    flight = _in_flight_after_all(tcp, max(reach, 3001))
    check(2 <= flight <= 4, "2 segments in flight, or a few more", flight)


@_instead
def partial_ack(bench: Bench) -> None:
    tcp = _sending(bench, data=10_000)
    reach = _reach(tcp)
    check(reach >= 8001, "8 segments in flight at least", f"{reach - 1} bytes")
    for _ in range(6):
        tcp.arrives(peer(wnd=_WIDE))
    tcp.take()
    for at in (3001, 7001):
        tcp.arrives(peer(ack=at, wnd=_WIDE), at=tcp.now + 0.02)
        sent = tcp.take()
        check(any(seg.data and seg.seq == at for seg in sent), f"the next lost segment, seq {at}", told(sent))
    flight = _in_flight_after_all(tcp, 10_001)
    check(3 <= flight <= 8, "5 to 7 segments in flight: several losses of a window lower it once", flight)


@_instead
def time_out_leaves_one_segment(bench: Bench) -> None:
    tcp = _sending(bench, data=10_000)
    tcp.take()
    tcp.resent(1, within=5.0)
    tcp.waits(tcp.now + 0.1)
    sent = [seg for seg in tcp.take() if seg.data and seg.seq > 1]
    check(not sent, "one segment, and no more before an ACK", told(sent))
    flight = _in_flight_after_all(tcp, 10_001)
    check(1 <= flight <= 3, "at most 3 segments in flight", flight)


@_instead
def repeated_time_outs(bench: Bench) -> None:
    tcp = _sending(bench, data=10_000)
    tcp.take()
    for _ in range(2):
        tcp.resent(1, within=10.0)
    acked = reach = 10_001
    flight = _in_flight_after_all(tcp, reach) * MSS
    for _ in range(2):
        acked, reach = reach, reach + flight
        flight = _acknowledges(tcp, acked, reach)
    check(flight >= 4 * MSS, "slow start up to 5 segments, half of the 10 that were in flight", f"{flight} bytes")


@_instead
def repairs_after_a_time_out(bench: Bench) -> None:
    tcp = _sending(bench, data=7000)
    tcp.take()
    tcp.resent(1, within=5.0)
    tcp.take()
    tcp.arrives(peer(ack=1001, wnd=_WIDE), at=tcp.now + 0.05)
    sent = tcp.take()
    check(any(seg.data and seg.seq == 1001 for seg in sent), "seq 1001 at once when 1 was acknowledged", told(sent))
    tcp.arrives(peer(ack=2001, wnd=_WIDE), at=tcp.now + 0.05)
    sent = [seg for seg in tcp.take() if seg.data]
    check(bool(sent), "more of what was lost at once", told(sent))
    in_place(sent[0])


# ---- robustness


@_instead
def reset_ends_the_connection(bench: Bench) -> None:
    for state in (State.ESTABLISHED, State.CLOSE_WAIT):
        tcp = bench.connection(state)
        following = (tcp.connection.rcv_nxt - tcp.connection.irs) & 0xFFFFFFFF
        tcp.arrives(peer(seq=following, ack=None, flags=RST), at=0.1)
        tcp.sends_nothing("no answer to a RST")
        tcp.is_in(State.CLOSED)
        tcp.waits(3.0)
        tcp.sends_nothing("nothing to be sent any more")
    for state, following in ((State.FIN_WAIT_1, 1), (State.FIN_WAIT_2, 1), (State.CLOSING, 2), (State.LAST_ACK, 2)):
        tcp = bench.connection(state)
        tcp.arrives(peer(seq=following, ack=None, flags=RST), at=0.1)
        tcp.is_in(State.CLOSED)


@_instead
def resets_elsewhere_in_the_window(bench: Bench) -> None:
    for state, following in (
        (State.ESTABLISHED, 1),
        (State.FIN_WAIT_1, 1),
        (State.FIN_WAIT_2, 1),
        (State.CLOSE_WAIT, 2),
    ):
        tcp = bench.connection(state)
        tcp.arrives(peer(seq=following + 1, ack=None, flags=RST), at=0.1)
        tcp.is_in(state)
        tcp.acknowledges(following, within=0)


@_instead
def data_before_a_reset(bench: Bench) -> None:
    tcp = bench.connection()
    tcp.arrives(peer(b"abc"), at=0.1)
    tcp.arrives(peer(seq=4, flags=RST), at=0.2)
    tcp.hands_out(b"abc")
    _fails(tcp.receive, "RECV to be refused after the RST, which is no end")


@_instead
def strange_options(bench: Bench) -> None:
    every = Options(mss=MSS, window_scale=14, sack_permitted=True)
    for options in (Options(mss=0), Options(mss=1), every):
        tcp = bench.connection(offers=options)
        tcp.send(stream(300))
        tcp.pulls(301)
        tcp.arrives(peer(b"abc", ack=301), at=tcp.now + 0.1)
        tcp.acknowledges(4)


@_instead
def nonsense(bench: Bench) -> None:
    flags = (0, ACK, ACK, ACK | PSH, SYN, SYN | ACK, FIN, FIN | ACK, RST, RST | ACK, URG | ACK, SYN | FIN, 0x3F)
    near = (-1, 0, 1, 2, 3, 100, 1000, 8000, 1 << 31, -(1 << 31))
    random = bench.random
    for state in (State.CLOSED, State.LISTEN, State.SYN_SENT, State.ESTABLISHED, State.CLOSE_WAIT, State.LAST_ACK):
        tcp = bench.connection(state)
        for _ in range(30):
            data = stream(random.choice((0, 0, 1, 10, 500)))
            options = random.choice((None, Options(mss=1), Options(sack=((5, 4), (0, 0))), Options(timestamp=(0, 0))))
            where = random.choice(near), random.choice(near), random.choice(flags), random.choice((0, 1, 0xFFFF))
            tcp.arrives(Segment(*where, data, options))
        tcp.take()
    tcp = bench.connection()
    tcp.arrives(peer(b"abc"), at=0.1)
    tcp.acknowledges(4)
    tcp.send(stream(300))
    tcp.pulls(301, seq=4)


_OTHER |= {test: transfers(test) for test in TRANSFERS}
assert {*UNSEEN, *_OTHER} <= {test.id for test in catalog()}
assert not UNSEEN.keys() & _OTHER.keys()
