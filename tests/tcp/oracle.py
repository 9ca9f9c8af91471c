"""What RFC 9293 section 3.10.7, SEGMENT ARRIVES, asks for: a slow, obvious program to learn from and to judge by.

Give `segment_arrives` the variables of a connection and a segment. It changes nothing; it returns every outcome that
conforms, the plainest first:

    >>> [outcome] = segment_arrives(tcb, seg)
    >>> outcome.state, outcome.answers, outcome.section

It was written from the text alone, apart from our TCP, and shares no code with it: not even the arithmetic. Read it
with the RFC in the other hand; the checks stand in the RFC's order.

How the text was read:

* A MUST, a plain "should" and a SHOULD are asked for alike. RFC 5681 §4.2 adds one: acknowledge out-of-order data at
  once. Acknowledgments are not delayed.
* RFC 5961 (exact-sequence RST, challenge ACK, range of SEG.ACK) is asked for too. RFC 9293 leaves it to implementers;
  we have decided. MAX.SND.WND is the largest window seen, not a constant.
* A MAY, and places where the text contradicts itself or is silent, give several outcomes, each with its reason in
  `why`.
* There is no security compartment, and no option that changes the checks (timestamps: RFC 7323 §5).
* Throttling of challenge ACKs (RFC 5961 §7) does not show, because one segment is looked at.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from itertools import pairwise

from chitcpd.tcp.api import ACK, FIN, RST, SYN, Segment, State

# ---- sequence numbers (3.4) ------------------------------------------------------------------------------------


def plus(number: int, count: int) -> int:
    """`count` further on the circle of 2^32 sequence numbers."""
    return (number + count) % 2**32


def distance(start: int, end: int) -> int:
    """How many steps it is from `start` on to `end`; negative if `end` lies before."""
    steps = (end - start) % 2**32
    return steps if steps < 2**31 else steps - 2**32


def in_order(*numbers: int) -> bool:
    """The RFC's `a =< b =< c`."""
    return all(distance(a, b) >= 0 for a, b in pairwise(numbers))


# ---- the words of the RFC --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """The variables that the text asks about (3.3.1)."""

    state: State
    passive: bool  # came from LISTEN: "initiated with a passive OPEN" (MUST-11)
    iss: int
    snd_una: int
    snd_nxt: int
    snd_wnd: int
    snd_wl1: int
    snd_wl2: int
    max_snd_wnd: int  # MAX.SND.WND, RFC 5961 §5.2
    rcv_nxt: int
    rcv_wnd: int
    fin_sent: bool  # our FIN is in flight: then it is the last number before SND.NXT


@dataclass(frozen=True, slots=True)
class Answer:
    """A segment without text, as the RFC writes it: <SEQ=seq><ACK=ack><CTL=control>."""

    seq: int
    ack: int | None  # None: no ACK bit
    control: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One way to conform. None in the last three: the text does not say, or there is no connection any more."""

    section: str  # where it is written
    why: str = ""  # the reason, if this is one outcome of several
    state: State  # the next state
    answers: tuple[Answer, ...] = ()
    error: int | None = None  # errno, as the application sees it
    snd_una: int | None = None
    snd_wnd: int | None = None
    rcv_nxt: int | None = None


RECEIVING = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)  # the peer's FIN has not come yet


def acknowledgment(tcb: Tcb) -> Answer:
    """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>."""
    return Answer(tcb.snd_nxt, tcb.rcv_nxt, ACK)


def reset(seg: Segment) -> Answer:
    """<SEQ=SEG.ACK><CTL=RST>, or <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK> (3.5.2)."""
    return Answer(seg.ack, None, RST) if seg.flags & ACK else Answer(0, plus(seg.seq, len(seg)), RST | ACK)


def stays(tcb: Tcb, section: str, *answers: Answer, why: str = "") -> Outcome:
    """Nothing changes; perhaps an answer."""
    return _connected(tcb, section, answers, why)


def dies(section: str, error: int | None = None, why: str = "") -> Outcome:
    """Enter CLOSED, delete the TCB."""
    return Outcome(section=section, why=why, state=State.CLOSED, error=error)


def _connected(tcb: Tcb, section: str, answers: tuple[Answer, ...] = (), why: str = "") -> Outcome:
    if tcb.state in (State.CLOSED, State.LISTEN):
        return Outcome(section=section, why=why, state=tcb.state, answers=answers)
    return Outcome(
        section=section,
        why=why,
        state=tcb.state,
        answers=answers,
        snd_una=tcb.snd_una,
        snd_wnd=tcb.snd_wnd,
        rcv_nxt=tcb.rcv_nxt,
    )


# ---- 3.10.7 ----------------------------------------------------------------------------------------------------


def segment_arrives(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """All outcomes that conform if `seg` arrives at a connection with these variables."""
    match tcb.state:
        case State.CLOSED:
            return closed(tcb, seg)
        case State.LISTEN:
            return listen(tcb, seg)
        case State.SYN_SENT:
            return syn_sent(tcb, seg)
        case _:
            return other_states(tcb, seg)


def closed(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """3.10.7.1."""
    if seg.flags & RST:
        return [stays(tcb, "9293 3.10.7.1: a segment containing a RST is discarded")]
    return [stays(tcb, "9293 3.10.7.1: no RST, so a RST is sent in response", reset(seg))]


def listen(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """3.10.7.2."""
    if seg.flags & RST:
        return [stays(tcb, "9293 3.10.7.2 first: a RST is ignored")]
    if seg.flags & ACK:
        return [stays(tcb, "9293 3.10.7.2 second: any acknowledgment is bad, send RST", reset(seg))]
    if seg.flags & SYN:
        # Text and FIN beside the SYN are "queued for processing later": RCV.NXT is SEG.SEQ+1 at first.
        rcv_nxt = plus(seg.seq, 1)
        return [
            Outcome(
                section="9293 3.10.7.2 third: SYN-RECEIVED, send SYN,ACK",
                state=State.SYN_RCVD,
                answers=(Answer(tcb.iss, rcv_nxt, SYN | ACK),),
                snd_una=tcb.iss,
                rcv_nxt=rcv_nxt,
            )
        ]
    return [stays(tcb, "9293 3.10.7.2 fourth: drop the segment")]


def syn_sent(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """3.10.7.3. Here RCV.NXT has no value yet, so SEG.SEQ can't be judged; SEG.ACK must show that the peer means us."""
    if seg.flags & ACK and not (distance(tcb.iss, seg.ack) > 0 and in_order(seg.ack, tcb.snd_nxt)):
        if seg.flags & RST:
            return [_unknown_peer(tcb, "9293 3.10.7.3 first: unacceptable ACK with RST, drop")]
        return [_unknown_peer(tcb, "9293 3.10.7.3 first: SEG.ACK =< ISS or > SND.NXT, send RST", reset(seg))]

    if seg.flags & RST:
        # RFC 9293's "SHOULD first check that the sequence number exactly matches RCV.NXT" can't be done without a
        # RCV.NXT; RFC 5961 §3.2 itself exempts SYN-SENT.
        if seg.flags & ACK:
            where = "9293 3.10.7.3 second: RST with an acceptable ACK, connection reset"
            posix = "POSIX connect() calls the same thing ECONNREFUSED"
            return [dies(where, errno.ECONNREFUSED, posix), dies(where, errno.ECONNRESET, "the RFC's word")]
        return [_unknown_peer(tcb, "9293 3.10.7.3 second: RST without ACK, drop")]

    if seg.flags & SYN:
        if seg.flags & ACK:
            return _our_syn_is_acknowledged(tcb, seg)
        rcv_nxt = plus(seg.seq, 1)
        return [
            Outcome(
                section="9293 3.10.7.3 fourth: SYN without ACK, SYN-RECEIVED, send SYN,ACK (MUST-10)",
                state=State.SYN_RCVD,
                answers=(Answer(tcb.iss, rcv_nxt, SYN | ACK),),
                snd_una=tcb.iss,
                snd_wnd=seg.wnd,
                rcv_nxt=rcv_nxt,  # text and FIN are queued until ESTABLISHED
            )
        ]
    return [_unknown_peer(tcb, "9293 3.10.7.3 fifth: neither SYN nor RST, drop")]


def _unknown_peer(tcb: Tcb, section: str, *answers: Answer) -> Outcome:
    """Still in SYN-SENT: of the peer's variables none has a value."""
    return replace(stays(tcb, section, *answers), snd_wnd=None, rcv_nxt=None)


def _our_syn_is_acknowledged(tcb: Tcb, seg: Segment) -> list[Outcome]:
    section = "9293 3.10.7.3 fourth: SYN,ACK, ESTABLISHED, send ACK"
    rcv_nxt = plus(seg.seq, 1)
    # The text never says that this SYN's window becomes SND.WND, but nothing else could.
    tcb = replace(tcb, state=State.ESTABLISHED, snd_una=seg.ack, snd_wnd=seg.wnd, rcv_nxt=rcv_nxt)
    if not seg.data and not seg.flags & FIN:
        return [stays(tcb, section, acknowledgment(tcb))]
    [whole] = text_and_fin(tcb, without_syn(seg), section + "; text and FIN go on at the sixth step")
    outcomes = [
        replace(whole, why="one acknowledgment for all: the extra one for the SYN may be suppressed"),
        replace(whole, answers=(acknowledgment(tcb), *whole.answers), why="one for the SYN, one for the rest"),
    ]
    if seg.data:
        why = "first: a TCP peer may not accept and acknowledge all of the data on the SYN"
        outcomes.append(stays(tcb, section, acknowledgment(tcb), why=why))
    return outcomes


# ---- 3.10.7.4 --------------------------------------------------------------------------------------------------


def other_states(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """3.10.7.4: eight checks that all other states share."""
    if not acceptable(tcb, seg):
        return unacceptable(tcb, seg)  # first
    if seg.flags & RST:
        return rst_bit(tcb, seg)  # second
    # The third check is of the security compartment.
    if seg.flags & SYN:
        return syn_bit(tcb, seg)  # fourth
    if not seg.flags & ACK:
        return [stays(tcb, "9293 3.10.7.4 fifth: the ACK bit is off, drop the segment")]
    if distance(tcb.rcv_nxt, seg.seq) > 0:
        return ahead_of_its_turn(tcb, seg)
    return from_the_fifth_check_on(tcb, seg)


def acceptable(tcb: Tcb, seg: Segment) -> bool:
    """Table 6. The first byte or the last is in the window."""
    if len(seg) == 0 and tcb.rcv_wnd == 0:
        return seg.seq == tcb.rcv_nxt
    if len(seg) == 0:
        return in_window(tcb, seg.seq)
    if tcb.rcv_wnd == 0:
        return False
    return in_window(tcb, seg.seq) or in_window(tcb, plus(seg.seq, len(seg) - 1))


def in_window(tcb: Tcb, number: int) -> bool:
    """RCV.NXT =< number < RCV.NXT+RCV.WND."""
    return 0 <= distance(tcb.rcv_nxt, number) < tcb.rcv_wnd


def unacceptable(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """First check, not passed."""
    if tcb.rcv_wnd == 0 and seg.seq == tcb.rcv_nxt:
        return zero_window(tcb, seg)
    if seg.flags & RST:
        return [stays(tcb, "9293 3.10.7.4 first: not acceptable, with RST: drop")]
    section = "9293 3.10.7.4 first: not acceptable, send ACK and drop"
    return [stays(tcb, section, acknowledgment(tcb)), *simultaneous_open(tcb, seg)]


def zero_window(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """First check: "special allowance should be made to accept valid ACKs, URGs, and RSTs" (MUST-66). Text is not."""
    if seg.flags & RST:
        return rst_bit(tcb, seg)
    if seg.flags & SYN or not seg.flags & ACK:
        return [stays(tcb, "9293 3.10.7.4 first: not acceptable, send ACK and drop", acknowledgment(tcb))]
    now = ack_field(tcb, seg)
    if isinstance(now, list):
        return now
    section = "9293 3.10.7.4 first: RCV.WND is 0, accept the ACK; 3.8.6.1: it must still send an acknowledgment"
    return [stays(now, section, acknowledgment(now))]


def rst_bit(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """Second check, with RFC 5961 §3.2. Text beside a RST changes nothing (SHLD-2)."""
    if seg.seq != tcb.rcv_nxt and not in_window(tcb, seg.seq):
        return [stays(tcb, "5961 3.2 1): RST outside the window, silently drop")]
    if seg.seq != tcb.rcv_nxt:
        return [stays(tcb, "5961 3.2 3): RST in the window, not at RCV.NXT: challenge ACK", acknowledgment(tcb))]

    if tcb.state == State.SYN_RCVD and tcb.passive:
        section = "9293 3.10.7.4 second: RST after a passive OPEN, return to LISTEN"
        return [Outcome(section=section, state=State.LISTEN)]
    if tcb.state == State.SYN_RCVD:
        return [dies("9293 3.10.7.4 second: RST after an active OPEN, connection refused", errno.ECONNREFUSED)]
    if tcb.state in (*RECEIVING, State.CLOSE_WAIT):
        return [dies("9293 3.10.7.4 second: RST, connection reset", errno.ECONNRESET)]
    section = "9293 3.10.7.4 second: RST, enter CLOSED"
    return [
        dies(section, None, "CLOSING, LAST-ACK, TIME-WAIT: no signal to the user is mentioned"),
        dies(section, errno.ECONNRESET, "3.5.3: in any other state, advise the user; and MUST-12"),
    ]


def syn_bit(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """Fourth check, with RFC 5961 §4.2. The segment is acceptable; its SYN alone may lie before the window."""
    challenge = stays(tcb, "5961 4.2: SYN, irrespective of SEG.SEQ: challenge ACK", acknowledgment(tcb))
    if tcb.state != State.SYN_RCVD or not tcb.passive:
        return [challenge, *simultaneous_open(tcb, seg)]
    section = "9293 3.10.7.4 fourth: SYN after a passive OPEN, return to LISTEN"
    if in_window(tcb, seg.seq):
        return [Outcome(section=section, state=State.LISTEN)]
    not_in_window = "9293 3.10.7.4 fourth, end: if the SYN is not in the window, an ACK would have been sent"
    return [
        stays(tcb, not_in_window, acknowledgment(tcb), why="of a segment, only what is in the window counts"),
        Outcome(section=section, state=State.LISTEN, why="the letter: the segment is acceptable and has a SYN"),
    ]


def simultaneous_open(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """Both ends in SYN-RECEIVED get the other's SYN,ACK, one before RCV.NXT (Figure 7, MUST-10).

    The letter of the checks refuses it, as a duplicate, with an ACK; which in turn brings the peer to ESTABLISHED.
    Figure 7 shows it accepted. Appendix A.2 leaves the choice to implementers.
    """
    wanted = SYN | ACK
    if tcb.state != State.SYN_RCVD or tcb.passive or seg.flags & wanted != wanted or seg.flags & RST:
        return []
    if seg.seq != plus(tcb.rcv_nxt, -1) or not _acknowledges_something_new(tcb, seg):
        return []
    why = "9293 figure 7 and A.2: the peer's SYN,ACK in a simultaneous open"
    outcomes = [replace(o, why=why) for o in from_the_fifth_check_on(tcb, without_syn(seg))]
    # Whoever has just had a duplicate SYN may well acknowledge it.
    outcomes += [replace(o, answers=(acknowledgment(tcb),)) for o in outcomes if not o.answers]
    return outcomes


def without_syn(seg: Segment) -> Segment:
    """What comes behind the SYN."""
    return Segment(plus(seg.seq, 1), seg.ack, seg.flags & ~SYN, seg.wnd, seg.data)


def from_the_fifth_check_on(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """Fifth to eighth check of an acceptable segment that covers RCV.NXT and has ACK, but neither RST nor SYN."""
    now = ack_field(tcb, seg)
    if isinstance(now, list):
        return now
    outcomes = text_and_fin(now, seg, f"9293 3.10.7.4 fifth, {_name(tcb.state)}")
    if distance(seg.seq, tcb.rcv_nxt) > 0:
        # "Adjust the header fields to be consistent" (3.10): is SND.WL1 held against SEG.SEQ before or after that?
        outcomes = [replace(outcome, snd_wnd=None) for outcome in outcomes]
    return outcomes


def ack_field(tcb: Tcb, seg: Segment) -> list[Outcome] | Tcb:
    """Fifth check: the outcomes, if it ends here; else the variables with which to go on."""
    challenge = stays(tcb, "5961 5.2: SEG.ACK out of range: send ACK and drop", acknowledgment(tcb))

    if tcb.state == State.SYN_RCVD:
        section = "9293 3.10.7.4 fifth, SYN-RECEIVED: SEG.ACK is not acceptable, send RST"
        if not in_range(tcb, seg.ack):
            not_synchronized = "3.5.2, group 2: not synchronized, so an unacceptable ACK is answered with a reset"
            before = "the check of RFC 5961 5.2 stands before that of the state"
            return [stays(tcb, section, reset(seg), why=not_synchronized), replace(challenge, why=before)]
        if not _acknowledges_something_new(tcb, seg):
            return [stays(tcb, section, reset(seg))]
        # SND.UNA: "continue processing" in ESTABLISHED.
        return replace(tcb, state=State.ESTABLISHED, snd_una=seg.ack, snd_wnd=seg.wnd)

    if not in_range(tcb, seg.ack):
        return [challenge]

    all_is_acknowledged = tcb.fin_sent and seg.ack == tcb.snd_nxt
    if tcb.state == State.LAST_ACK and all_is_acknowledged:
        return [dies("9293 3.10.7.4 fifth, LAST-ACK: our FIN is acknowledged, enter CLOSED")]
    # For LAST-ACK and TIME-WAIT the text tells only what "can arrive"; the variables are kept as in the other states.
    tcb = _as_in_established(tcb, seg)
    if tcb.state == State.FIN_WAIT_1 and all_is_acknowledged:
        return replace(tcb, state=State.FIN_WAIT_2)
    if tcb.state == State.CLOSING and all_is_acknowledged:
        return replace(tcb, state=State.TIME_WAIT)
    if tcb.state == State.CLOSING:
        section = "9293 3.10.7.4 fifth, CLOSING: our FIN is not acknowledged, ignore the segment"
        ignored = [stays(tcb, section, why="" if not seg.flags & FIN else "the fifth check")]
        if seg.flags & FIN:
            ignored.append(stays(tcb, section, acknowledgment(tcb), why="the eighth check: acknowledge the FIN"))
        return ignored
    return tcb


def in_range(tcb: Tcb, ack: int) -> bool:
    """(SND.UNA - MAX.SND.WND) =< SEG.ACK =< SND.NXT (RFC 5961 §5.2, MAY-12)."""
    return in_order(plus(tcb.snd_una, -tcb.max_snd_wnd), ack, tcb.snd_nxt)


def _acknowledges_something_new(tcb: Tcb, seg: Segment) -> bool:
    """SND.UNA < SEG.ACK =< SND.NXT."""
    return distance(tcb.snd_una, seg.ack) > 0 and in_order(seg.ack, tcb.snd_nxt)


def _as_in_established(tcb: Tcb, seg: Segment) -> Tcb:
    """Fifth check, ESTABLISHED STATE. An older ACK is ignored; the segment's text is not."""
    if distance(tcb.snd_una, seg.ack) < 0:
        return tcb
    tcb = replace(tcb, snd_una=seg.ack)
    newer = distance(tcb.snd_wl1, seg.seq) > 0
    same = tcb.snd_wl1 == seg.seq and in_order(tcb.snd_wl2, seg.ack)
    return replace(tcb, snd_wnd=seg.wnd) if newer or same else tcb


def text_and_fin(tcb: Tcb, seg: Segment, fifth: str) -> list[Outcome]:
    """Sixth to eighth check. URG has no answer. `fifth`: what to cite if there is neither text nor FIN."""
    if tcb.state not in RECEIVING:
        return _behind_the_fin(tcb, seg, fifth)
    # The idealized segment, which begins at RCV.NXT and does not exceed the window (first check, end).
    fin_at = distance(tcb.rcv_nxt, plus(seg.seq, len(seg.data)))
    text = min(fin_at, tcb.rcv_wnd)
    fin = bool(seg.flags & FIN) and 0 <= fin_at < tcb.rcv_wnd
    if text <= 0 and not fin:
        return [stays(tcb, fifth)]
    state = tcb.state
    section = f"9293 3.10.7.4 seventh, {_name(state)}: deliver the text, send ACK"
    if fin:
        state = {
            State.ESTABLISHED: State.CLOSE_WAIT,
            State.FIN_WAIT_1: State.CLOSING,  # had our FIN been acknowledged, it would be FIN-WAIT-2 by now
            State.FIN_WAIT_2: State.TIME_WAIT,
        }[state]
        section = f"9293 3.10.7.4 eighth, {_name(tcb.state)}: enter {_name(state)}, send ACK"
    tcb = replace(tcb, state=state, rcv_nxt=plus(tcb.rcv_nxt, text + fin))
    return [stays(tcb, section, acknowledgment(tcb))]


def _behind_the_fin(tcb: Tcb, seg: Segment, fifth: str) -> list[Outcome]:
    """CLOSE-WAIT, CLOSING, LAST-ACK, TIME-WAIT: nothing can come behind the peer's FIN. RCV.NXT is over it already."""
    if seg.flags & FIN:
        section = f"9293 3.10.7.4 eighth, {_name(tcb.state)}: acknowledge the FIN, remain"
        over = replace(tcb, rcv_nxt=plus(seg.seq, len(seg)))
        return [
            stays(tcb, section, acknowledgment(tcb), why="there is one FIN in a stream, and RCV.NXT is over it"),
            stays(over, section, acknowledgment(over), why="the letter: advance RCV.NXT over the FIN"),
        ]
    if seg.data:
        section = f"9293 3.10.7.4 seventh, {_name(tcb.state)}: ignore the segment text"
        return [
            stays(tcb, section, why="the letter"),
            stays(tcb, section, acknowledgment(tcb), why="3.4: whoever repeats it must learn what was received"),
        ]
    return [stays(tcb, fifth)]


def ahead_of_its_turn(tcb: Tcb, seg: Segment) -> list[Outcome]:
    """First check, end: a segment in the window, not at its left edge, SHOULD be held for later processing (SHLD-31).

    By the letter all of it waits, so also its ACK. Implementations look at the ACK at once: 3.10 lets them differ in
    detail.
    """
    now = ack_field(tcb, seg)
    if not in_range(tcb, seg.ack):
        assert isinstance(now, list)
        return now  # RFC 5961 §5.2 asks it of all incoming segments
    at_once = now if isinstance(now, list) else _hold(now, seg, "its ACK is processed at once")
    return at_once + _hold(tcb, seg, "by the letter its ACK too is held")


def _hold(tcb: Tcb, seg: Segment, why: str) -> list[Outcome]:
    may = "9293 3.10.7.4 seventh: in the window, not at its left edge, MAY send ACK (MAY-13)"
    should = "5681 4.2: out-of-order data SHOULD be acknowledged immediately"
    acknowledged = acknowledgment(tcb)
    if seg.data and tcb.state in (*RECEIVING, State.SYN_RCVD):
        return [stays(tcb, should, acknowledged, why=why)]
    return [stays(tcb, may, why=why), stays(tcb, may, acknowledged, why=why)]


def _name(state: State) -> str:
    """As the RFC spells it."""
    return state.name.replace("RCVD", "RECEIVED").replace("_", "-")
