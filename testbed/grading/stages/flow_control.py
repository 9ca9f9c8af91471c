"""Windows: the peer's, ours, closed ones and silly ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from chitcpd.tcp.api import ACK, FIN, RST, Segment, State
from testbed.grading.catalog import graded
from testbed.grading.network import transfer
from testbed.grading.script import BUFFER, EARLY, LATE, MSS, WINDOW, Bench, Script, check, peer, settings, stream, told

STAGE = "flow control"


@graded(STAGE, 2, "RFC 9293 §3.8.6")
def peers_window(bench: Bench) -> None:
    """No more is in flight than the peer has room for."""
    tcp = bench.connection()
    tcp.send(stream(10_000), at=0.0)
    reach = tcp.flight()
    check(0 < reach <= WINDOW, f"at most {WINDOW} bytes in flight", f"{reach} bytes")
    tcp.arrives(peer(ack=reach + 1, wnd=1500), at=0.1)
    more = tcp.flight()
    check(more <= reach + 1500, "at most 1500 bytes in flight, which is the window now", f"{more - reach} bytes")


@graded(STAGE, 1, "RFC 9293 §3.8.6")
def whole_window_is_used(bench: Bench) -> None:
    """All of the peer's window is used: more than a segment is in flight."""
    tcp = bench.connection()
    tcp.send(stream(10_000), at=0.0)
    reach = tcp.flight()
    check(reach == WINDOW, f"{WINDOW} bytes in flight, which is the window", f"{reach} bytes")
    tcp.arrives(peer(ack=2001), at=0.1)
    reach = tcp.flight()
    check(reach == 6000, "data up to byte 6000, when 2000 were acknowledged", f"up to {reach}")


@graded(STAGE, 2, "RFC 9293 §3.10.7.4, fifth check")
def window_update(bench: Bench) -> None:
    """A window update alone lets data flow: the same ACK number, a larger window."""
    tcp = bench.connection()
    tcp.send(stream(10_000), at=0.0)
    sent = tcp.take()
    reach = max((seg.seq + len(seg.data) for seg in sent), default=1)
    check(reach > 1, "data to be sent", told(sent))
    tcp.arrives(peer(ack=reach, wnd=0), at=0.1)
    tcp.sends_nothing("nothing to be sent into a closed window at once")
    tcp.arrives(peer(ack=reach, wnd=3000), at=0.4)
    sent = [seg for seg in tcp.take() if seg.data]
    check(bool(sent) and sent[0].seq == reach, f"data from {reach} on, at once", told(sent))


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, fifth check")
def old_window_is_ignored(bench: Bench) -> None:
    """A segment older than the last does not set the window: SND.WL1 and SND.WL2."""
    tcp = bench.connection()
    tcp.arrives(peer(b"abc", wnd=2000), at=0.1)
    tcp.arrives(peer(b"ef", seq=2, wnd=9000), at=0.2)
    check(
        tcp.connection.snd_wnd == 2000,
        "SND.WND to stay 2000 after a segment with an older SEG.SEQ",
        tcp.connection.snd_wnd,
    )
    tcp.take()
    tcp.send(stream(1000))
    tcp.arrives(peer(seq=4, ack=1001, wnd=2000), at=0.3)
    tcp.arrives(peer(seq=4, ack=501, wnd=9000), at=0.4)
    check(
        tcp.connection.snd_wnd == 2000,
        "SND.WND to stay 2000 after a segment with an older SEG.ACK",
        tcp.connection.snd_wnd,
    )


@graded(STAGE, 1, "RFC 9293 §3.1 (MUST-1)")
def window_without_sign(bench: Bench) -> None:
    """A window of 65535 is much, not -1."""
    tcp = bench.connection(config=settings(send_buffer=100_000))
    tcp.arrives(peer(wnd=0xFFFF), at=0.1)
    check(tcp.connection.snd_wnd == 0xFFFF, "SND.WND to be 65535", tcp.connection.snd_wnd)
    tcp.send(stream(60_000))
    tcp.pulls(60_001, wnd=0xFFFF)


@graded(STAGE, 1, "RFC 9293 §3.8.6 (MUST-34)")
def shrinking_window(bench: Bench) -> None:
    """A window that shrinks stops new data, and does no harm."""
    tcp = bench.connection()
    tcp.send(stream(4000), at=0.0)
    sent = tcp.flight()
    tcp.arrives(peer(wnd=1000), at=0.1)
    tcp.send(stream(1000, at=4001))
    check(tcp.flight() <= max(sent, 1000), "no new data beyond the window", "more data")
    tcp.pulls(5001)


@graded(STAGE, 2, "RFC 9293 §3.8.6.1 (MUST-36)")
def closed_window_is_probed(bench: Bench) -> None:
    """A closed window is probed with at least a byte, again and again, and never given up while the peer answers."""
    probed(bench.connection(config=settings(retries=2)), times=8, within=70.0)


def probed(tcp: Script, *, times: int, within: float) -> None:
    """A closed window is probed so often, each time within so many seconds; then it opens."""
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(stream(300))
    tcp.sends_nothing("no data into a closed window at once")
    for _ in range(times):
        tcp.resent(1, within=within)
        tcp.arrives(peer(wnd=0), at=tcp.now + 0.01)
        tcp.is_in(State.ESTABLISHED)
    tcp.arrives(peer(wnd=WINDOW), at=tcp.now + 0.01)
    tcp.pulls(301)


@graded(STAGE, 1, "RFC 9293 §3.8.6.1 (SHLD-29, SHLD-30)")
def probes_back_off(bench: Bench) -> None:
    """The first probe comes after the retransmission time-out, each next after twice the time."""
    tcp = bench.connection()
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(stream(300))
    tcp.take()
    for expected in (1.0, 2.0, 4.0, 8.0):
        begun = tcp.now
        tcp.resent(1, within=70.0)
        took = tcp.now - begun
        check(expected - EARLY <= took <= expected + LATE, f"a probe after {expected:g} s", f"one after {took:.2f} s")
        tcp.arrives(peer(wnd=0))


@graded(STAGE, 1, "RFC 9293 §3.8.6.1")
def open_window_lets_flow_at_once(bench: Bench) -> None:
    """When a closed window opens, data flows at once, and all of it comes."""
    for opens in (0.5, 1.1):
        tcp = bench.connection()
        tcp.arrives(peer(wnd=0), at=0.0)
        tcp.send(stream(3000))
        tcp.waits(opens)
        tcp.take()
        tcp.arrives(peer(wnd=WINDOW))
        check(any(len(seg.data) > 1 for seg in tcp.sent), "data at once", told(tcp.sent))
        tcp.pulls(3001)


@graded(STAGE, 1, "RFC 9293 §3.8.6.1")
def probe_may_be_taken(bench: Bench) -> None:
    """A probe is data: if the peer takes it, what follows begins behind it."""
    tcp = bench.connection()
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.send(stream(300))
    tcp.take()
    tcp.waits(1.1)
    sent = [seg for seg in tcp.take() if seg.data]
    check(bool(sent), "a probe", "none")
    taken = sent[0].seq + len(sent[0].data)
    tcp.arrives(peer(ack=taken, wnd=0), at=1.2)
    tcp.arrives(peer(ack=taken, wnd=WINDOW), at=1.3)
    tcp.pulls(301, begin=taken)


@graded(STAGE, 1, "RFC 9293 §3.4, §3.8.6.1")
def fin_into_a_closed_window(bench: Bench) -> None:
    """A FIN waits for a closed window too, and comes at last."""
    tcp = bench.connection()
    tcp.arrives(peer(wnd=0), at=0.0)
    tcp.close()
    tcp.sends_nothing("no FIN into a closed window at once")
    tcp.sends(FIN, 1, 1, within=5.0)


@graded(STAGE, 2, "RFC 9293 §3.8.6")
def our_window(bench: Bench) -> None:
    """Our window is the room that is left in the receive buffer."""
    tcp = bench.connection()
    for at, wnd in ((1, 7000), (1001, 6000), (2001, 5000)):
        tcp.arrives(peer(stream(1000, at=at), seq=at), at=tcp.now + 1.0)
        seg = tcp.acknowledges(at + 1000)
        check(seg.wnd == wnd, f"the window {wnd}", seg.wnd)


@graded(STAGE, 2, "RFC 9293 §3.8.6, §3.8.6.2.2")
def our_window_opens(bench: Bench) -> None:
    """When the application reads after our window was closed, the peer is told that it is open."""
    tcp = bench.connection()
    _fill(tcp)
    seg = tcp.acknowledges(BUFFER + 1)
    check(seg.wnd == 0, "the window 0 when the buffer is full", seg.wnd)
    tcp.receive(at=2.0)
    sent = [seg for seg in tcp.take() if seg.flags & ACK]
    check(bool(sent) and sent[-1].wnd == BUFFER, f"an ACK with the window {BUFFER}, at once", _windows(sent))


@graded(STAGE, 1, "RFC 9293 §3.8.6 (SHLD-14)")
def right_edge_never_moves_left(bench: Bench) -> None:
    """The right edge of our window never moves left."""
    tcp = bench.connection(config=settings(receive_buffer=7777))
    edges = [1 + tcp.connection.rcv_wnd]
    for k in range(60):
        following = (tcp.connection.rcv_nxt - tcp.connection.irs) & 0xFFFFFFFF
        length = max(min(1 + k * 97 % 1000, tcp.connection.rcv_wnd), 0)
        tcp.arrives(peer(stream(length, at=following), seq=following), at=tcp.now + 1.0)
        if k % 3 == 0:
            tcp.receive(1 + k * 53 % 2000)
        edges += [seg.ack + seg.wnd for seg in tcp.take() if seg.flags & ACK and not seg.flags & RST]
    drop = next(((a, b) for a, b in pairwise(edges) if b < a), None)
    check(drop is None, "ack + window never to become less", f"{drop}")
    check(edges[-1] > 7777, "the window to move along as the application reads", f"the edge at {edges[-1]}")


@graded(STAGE, 1, "RFC 9293 §3.8.6.2.2 (MUST-39)")
def no_silly_windows(bench: Bench) -> None:
    """Our window opens by a whole segment or half the buffer, not by a few bytes."""
    tcp = bench.connection()
    _fill(tcp)
    tcp.take()
    for _ in range(9):
        tcp.receive(100, at=tcp.now + 1.0)
    small = [seg for seg in tcp.take() if seg.flags & ACK and 0 < seg.wnd < MSS]
    check(not small, f"no window below {MSS} bytes to be told", _windows(small))
    tcp.receive(at=tcp.now + 1.0)
    sent = tcp.take()
    check(any(seg.wnd >= MSS for seg in sent), "the window to be told when there is room for a segment", _windows(sent))


@graded(STAGE, 1, "RFC 9293 §3.10.7.4")
def beyond_our_window(bench: Bench) -> None:
    """Of what reaches beyond our window, only what lies within is taken."""
    tcp = bench.connection()
    for at, length in ((1, 500), *((at, MSS) for at in range(501, BUFFER, MSS))):
        tcp.arrives(peer(stream(length, at=at), seq=at))
    check(tcp.connection.readable <= BUFFER, f"at most {BUFFER} bytes to be taken", tcp.connection.readable)
    tcp.acknowledges(1 + tcp.connection.readable)
    tcp.hands_out(stream(BUFFER))


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check (MAY-8)")
def probes_of_our_window_are_answered(bench: Bench) -> None:
    """A probe into our closed window is answered, and not taken."""
    tcp = bench.connection()
    _fill(tcp)
    tcp.take()
    for at in range(100, 1000, 100):
        tcp.arrives(peer(stream(1, at=BUFFER + 1), seq=BUFFER + 1), at=float(at))
        seg = tcp.acknowledges(BUFFER + 1, within=0)
        check(seg.wnd == 0, "the window 0", seg.wnd)
    check(tcp.connection.readable == BUFFER, f"{BUFFER} bytes to read", tcp.connection.readable)


@graded(STAGE, 1, "RFC 9293 §3.10.7.4, first check (MUST-66)")
def acks_while_our_window_is_closed(bench: Bench) -> None:
    """While our window is closed, ACKs and RSTs are heeded."""
    tcp = bench.connection()
    _fill(tcp)
    tcp.send(stream(3))
    tcp.arrives(peer(seq=BUFFER + 1, ack=4), at=0.1)
    got = (tcp.connection.snd_una - tcp.connection.iss) & 0xFFFFFFFF
    check(got == 4, "SND.UNA to be ISS + 4", f"ISS + {got}")
    tcp.arrives(peer(flags=RST, seq=BUFFER + 1, ack=4), at=0.2)
    tcp.is_in(State.CLOSED)


@graded(STAGE, 1, "RFC 9293 §3.8.6.2.1 (MUST-38)")
def silly_windows_are_not_filled(bench: Bench) -> None:
    """A window that opens by little is not filled with a small segment at once."""
    tcp = bench.connection()
    tcp.send(stream(10_000), at=0.0)
    tcp.pulls(4001)
    tcp.waits(tcp.now + 0.01)
    tcp.take()
    una = (tcp.connection.snd_una - tcp.connection.iss) & 0xFFFFFFFF
    nxt = (tcp.connection.snd_nxt - tcp.connection.iss) & 0xFFFFFFFF
    tcp.arrives(peer(ack=nxt, wnd=100), at=tcp.now + 0.01)
    check(una <= nxt, "SND.UNA not to be beyond SND.NXT", (una, nxt))
    sent = [seg for seg in tcp.take() if seg.data]
    check(not sent, "no segment of 100 bytes at once, for 1000 wait and half of the largest window is 2000", told(sent))
    tcp.resent(nxt, within=10.0)


@graded(STAGE, 2, "RFC 9293 §3.8.6")
def slow_reader(bench: Bench) -> None:
    """Between a fast sender and a slow reader 60 kB come whole, in both roles."""
    for client in (True, False):
        transfer(bench, client=client, there=30_000, back=30_000, slow=True)


def _fill(tcp: Script) -> None:
    """The receive buffer, to the last byte."""
    for at in range(1, BUFFER, 1000):
        tcp.arrives(peer(stream(1000, at=at), seq=at))


def _windows(sent: Sequence[Segment]) -> str:
    return ", ".join(f"window {seg.wnd}" for seg in sent[:6]) or "no ACK"
