"""Every kind of segment in every state: what a TCP does is what the oracle, RFC 9293 section 3.10.7, says.

The grid has 17,600 cells: 11 states, 64 sets of flags, 5 positions of SEG.SEQ, 5 of SEG.ACK. It is run with text in the
segment and without; three more situations and a sixth position of SEG.SEQ make it larger. In each cell a fresh
connection is brought to its state by real calls and segments, one segment arrives, and the answer, the next state, the
error and the variables are compared.

    pytest tests/tcp/test_oracle.py                        # the reference
    pytest tests/tcp/test_oracle.py --tcp my_tcp.py        # somebody's own
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from chitcpd.loader import REFERENCE
from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, URG, Segment, State, TcpConnection, Transition
from tests.tcp import oracle
from tests.tcp.harness import IRS, ISS, MSS, SYN_ACK_FROM_PEER, SYN_FROM_PEER, WINDOW, config, peer
from tests.tcp.oracle import Answer, Outcome, Tcb
from tests.tcp.transitions import assert_legal, name

SHOWN = 20  # differences
IN_FLIGHT = 20  # bytes of ours that the peer has not acknowledged
TEXT = bytes(range(10))
SEG_WND = 3000  # what the segment announces: not what the peer announced before

FLAGS = {"FIN": FIN, "SYN": SYN, "RST": RST, "PSH": PSH, "ACK": ACK, "URG": URG}
CONTROL = FIN | SYN | RST | ACK  # what is compared of an answer


# ---- situations: a state, and what matters beside it -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Situation:
    """A state, and how to get there."""

    title: str
    state: State
    route: Callable[[TcpConnection], None]
    sent: int = 0  # sequence numbers of ours that are in flight
    acknowledged: int = 0  # sequence numbers of ours that the peer has acknowledged
    received: int = 0  # sequence numbers of the peer's that we have
    passive: bool = False
    fin_sent: bool = False
    last_update: int = 0  # SEG.SEQ of the last segment from the peer that told its window, from IRS
    buffer: int = 8000
    seg_wnd: Callable[[int], int] = lambda _: SEG_WND  # what the segment announces, given SEG.ACK - SND.UNA

    def tcb(self, connection: TcpConnection) -> Tcb:
        """The variables that the RFC expects here. RCV.WND is the connection's choice."""
        snd_una = oracle.plus(ISS, self.acknowledged)
        return Tcb(
            state=self.state,
            passive=self.passive,
            iss=ISS,
            snd_una=snd_una,
            snd_nxt=oracle.plus(snd_una, self.sent),
            # The RFC sets it when the handshake ends; until then it is the connection's choice.
            snd_wnd=connection.snd_wnd if self.passive or not self.received else WINDOW,
            snd_wl1=oracle.plus(IRS, self.last_update),
            snd_wl2=snd_una,
            max_snd_wnd=WINDOW,
            rcv_nxt=oracle.plus(IRS, self.received) if self.received else connection.rcv_nxt,
            rcv_wnd=connection.rcv_wnd,
            fin_sent=self.fin_sent,
        )


def _nothing(c: TcpConnection) -> None:
    pass


def _listen(c: TcpConnection) -> None:
    c.open(0.0, active=False)


def _syn_sent(c: TcpConnection) -> None:
    c.open(0.0, active=True)


def _syn_rcvd_passive(c: TcpConnection) -> None:
    _listen(c)
    c.segment_arrives(SYN_FROM_PEER, 0.0)


def _syn_rcvd_active(c: TcpConnection) -> None:
    _syn_sent(c)
    c.segment_arrives(SYN_FROM_PEER, 0.0)


def _opened(c: TcpConnection) -> None:
    _syn_sent(c)
    c.segment_arrives(SYN_ACK_FROM_PEER, 0.0)


def _established(c: TcpConnection) -> None:
    _opened(c)
    c.send(bytes(IN_FLIGHT), 0.0)


def _established_zero_window(c: TcpConnection) -> None:
    _established(c)
    c.segment_arrives(peer(bytes(MSS)), 0.0)


def _fin_wait_1(c: TcpConnection) -> None:
    _established(c)
    c.close(0.0)


def _fin_wait_1_unsent(c: TcpConnection) -> None:
    _opened(c)
    c.send(bytes(WINDOW + IN_FLIGHT), 0.0)
    c.close(0.0)


def _fin_wait_2(c: TcpConnection) -> None:
    _fin_wait_1(c)
    c.segment_arrives(peer(ack=IN_FLIGHT + 2), 0.0)


def _close_wait(c: TcpConnection) -> None:
    _established(c)
    c.segment_arrives(peer(flags=FIN), 0.0)


def _last_ack(c: TcpConnection) -> None:
    _close_wait(c)
    c.close(0.0)


def _closing(c: TcpConnection) -> None:
    _fin_wait_1(c)
    c.segment_arrives(peer(flags=FIN), 0.0)


def _time_wait(c: TcpConnection) -> None:
    _fin_wait_2(c)
    c.segment_arrives(peer(ack=IN_FLIGHT + 2, flags=FIN), 0.0)


def _edge_stays(beyond_una: int) -> int:
    """Do not open the window: what waits would be sent, which is another subject."""
    return max(WINDOW - beyond_una, 0)


ALL = IN_FLIGHT + 1  # and the FIN
SITUATIONS = [
    Situation("CLOSED", State.CLOSED, _nothing),
    Situation("LISTEN", State.LISTEN, _listen, passive=True),
    Situation("SYN-SENT", State.SYN_SENT, _syn_sent, sent=1),
    Situation("SYN-RECEIVED", State.SYN_RCVD, _syn_rcvd_passive, sent=1, received=1, passive=True),
    Situation("SYN-RECEIVED after an active OPEN", State.SYN_RCVD, _syn_rcvd_active, sent=1, received=1),
    Situation("ESTABLISHED", State.ESTABLISHED, _established, IN_FLIGHT, 1, 1),
    Situation(
        "ESTABLISHED with RCV.WND 0",
        State.ESTABLISHED,
        _established_zero_window,
        IN_FLIGHT,
        1,
        1 + MSS,
        last_update=1,
        buffer=MSS,
    ),
    Situation("FIN-WAIT-1", State.FIN_WAIT_1, _fin_wait_1, ALL, 1, 1, fin_sent=True),
    Situation("FIN-WAIT-1, FIN not sent yet", State.FIN_WAIT_1, _fin_wait_1_unsent, WINDOW, 1, 1, seg_wnd=_edge_stays),
    Situation("FIN-WAIT-2", State.FIN_WAIT_2, _fin_wait_2, 0, ALL + 1, 1, fin_sent=True, last_update=1),
    Situation("CLOSE-WAIT", State.CLOSE_WAIT, _close_wait, IN_FLIGHT, 1, 2, last_update=1),
    Situation("CLOSING", State.CLOSING, _closing, ALL, 1, 2, fin_sent=True, last_update=1),
    Situation("LAST-ACK", State.LAST_ACK, _last_ack, ALL, 1, 2, fin_sent=True, last_update=1),
    Situation("TIME-WAIT", State.TIME_WAIT, _time_wait, 0, ALL + 1, 2, fin_sent=True, last_update=1),
]


# ---- cells: a situation and a segment --------------------------------------------------------------------------

SEQ: dict[str, Callable[[Tcb], int]] = {
    "long before RCV.NXT": lambda tcb: oracle.plus(tcb.rcv_nxt, -100),
    # A repeated SYN or FIN, a keep-alive (3.8.4); with text it straddles the left edge.
    "RCV.NXT-1": lambda tcb: oracle.plus(tcb.rcv_nxt, -1),
    "RCV.NXT": lambda tcb: tcb.rcv_nxt,
    "in the window": lambda tcb: oracle.plus(tcb.rcv_nxt, tcb.rcv_wnd // 2),
    "last in the window": lambda tcb: oracle.plus(tcb.rcv_nxt, tcb.rcv_wnd - 1),
    "first behind the window": lambda tcb: oracle.plus(tcb.rcv_nxt, tcb.rcv_wnd),
}


def _between(tcb: Tcb) -> int:
    """All that is in flight but the last, which may be our FIN; if nothing can be between, an old one."""
    outstanding = oracle.distance(tcb.snd_una, tcb.snd_nxt)
    return oracle.plus(tcb.snd_nxt, -1) if outstanding > 1 else oracle.plus(tcb.snd_una, -1)


SEG_ACK: dict[str, Callable[[Tcb], int]] = {
    "SND.UNA-MAX.SND.WND-1": lambda tcb: oracle.plus(tcb.snd_una, -tcb.max_snd_wnd - 1),
    "SND.UNA": lambda tcb: tcb.snd_una,
    "all but one": _between,
    "SND.NXT": lambda tcb: tcb.snd_nxt,
    "SND.NXT+1": lambda tcb: oracle.plus(tcb.snd_nxt, 1),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """Where we are in the grid."""

    situation: Situation
    flags: int
    seq: str
    ack: str
    text: bytes

    def segment(self, tcb: Tcb) -> Segment:
        ack = SEG_ACK[self.ack](tcb)
        wnd = self.situation.seg_wnd(oracle.distance(tcb.snd_una, ack))
        return Segment(SEQ[self.seq](tcb), ack, self.flags, wnd, self.text, up=len(self.text))

    def __str__(self) -> str:
        return (
            f"{self.situation.title}: {flags_of(self.flags)}, SEG.SEQ {self.seq}, SEG.ACK {self.ack}, "
            f"{len(self.text)} bytes of text"
        )


def cells(situation: Situation) -> Iterator[Cell]:
    for text in (TEXT, b""):
        for flags in range(64):
            for seq in SEQ:
                for ack in SEG_ACK:
                    yield Cell(situation, flags, seq, ack, text)


def test_the_grid_is_complete() -> None:
    assert {situation.state for situation in SITUATIONS} == set(State)
    assert sum(1 for _ in cells(SITUATIONS[0])) == 2 * 64 * 6 * 5


# ---- deviations: where a TCP may differ from the text, and why -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference that is meant."""

    section: str  # the RFC that speaks for it
    reason: str
    situations: frozenset[str]  # titles: in each of them the reference shows it
    applies: Callable[[Cell], bool]
    outcome: Callable[[Tcb, Segment], Outcome]  # what is seen instead


def _a_new_syn(cell: Cell) -> bool:
    beyond = ("in the window", "last in the window", "first behind the window")
    return cell.flags & (SYN | ACK | RST) == SYN and cell.seq in beyond


def _a_mere_ack_at_the_edge(cell: Cell) -> bool:
    mere_ack = not cell.text and cell.flags & (SYN | FIN | RST | ACK) == ACK
    return mere_ack and cell.seq == "first behind the window"


def _as_if_in_the_window(tcb: Tcb, seg: Segment) -> Outcome:
    return oracle.segment_arrives(tcb, replace(seg, seq=tcb.rcv_nxt))[0]


DEVIATIONS = [
    Deviation(
        section="9293 3.4, 3.10.7.4",
        reason="when both ends have filled each other's window, each one's next ACK stands at the first number behind "
        "the other's: table 6 would drop both, for ever. So a mere ACK there counts as one in the window",
        situations=frozenset(
            ("ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1", "FIN-WAIT-1, FIN not sent yet", "CLOSING", "LAST-ACK")
        ),
        applies=_a_mere_ack_at_the_edge,
        outcome=_as_if_in_the_window,
    ),
    Deviation(
        section="9293 3.6.1 (MAY-2), 6191 §2",
        reason="a SYN beyond all that the old connection has seen may reopen it from TIME-WAIT: ours ends, and its "
        "driver offers the SYN to the listener. So it can't return to TIME-WAIT if the SYN was an old duplicate",
        situations=frozenset({"TIME-WAIT"}),
        applies=_a_new_syn,
        outcome=lambda *_: oracle.dies("9293 3.6.1 (MAY-2)"),
    ),
]


# ---- the comparison --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What a connection did."""

    state: State
    answers: tuple[Answer, ...]
    text_sent: int  # bytes
    error: int | None
    snd_una: int
    snd_wnd: int
    rcv_nxt: int
    illegal: str = ""  # what was wrong in itself, if anything

    def conforms(self, to: Outcome) -> bool:
        return (
            not self.illegal
            and self.text_sent == 0
            and (self.state, self.answers, self.error) == (to.state, to.answers, to.error)
            and to.snd_una in (None, self.snd_una)
            and to.snd_wnd in (None, self.snd_wnd)
            and to.rcv_nxt in (None, self.rcv_nxt)
        )


def a_connection(tcp: type[TcpConnection], situation: Situation) -> TcpConnection:
    """A connection in this situation; what it sent on the way is forgotten."""
    connection = tcp(iss=ISS, config=config(receive_buffer=situation.buffer))
    situation.route(connection)
    connection.take_output()
    return connection


def see(connection: TcpConnection, seg: Segment) -> Seen:
    """What the connection does when `seg` arrives."""
    illegal = ""
    try:
        connection.segment_arrives(seg, 0.0)
    except Exception as error:
        illegal = f"raised {error!r}: a segment never raises"
    outputs = connection.take_output()
    sent = [output for output in outputs if isinstance(output, Segment)]
    try:
        assert_legal(output for output in outputs if isinstance(output, Transition))
    except AssertionError as error:
        illegal = illegal or str(error)
    return Seen(
        connection.state,
        tuple(Answer(s.seq, s.ack if s.flags & ACK else None, s.flags & CONTROL) for s in sent),
        sum(len(s.data) for s in sent),
        connection.error,
        connection.snd_una,
        connection.snd_wnd,
        connection.rcv_nxt,
        illegal,
    )


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.title)
def test_the_tcp_does_what_the_rfc_says(situation: Situation, tcp: type[TcpConnection], tcp_name: str) -> None:
    connection = a_connection(tcp, situation)
    tcb = situation.tcb(connection)
    here = (connection.state, connection.snd_una, connection.snd_nxt, connection.rcv_nxt)
    assert here == (tcb.state, tcb.snd_una, tcb.snd_nxt, tcb.rcv_nxt), f"this TCP does not get to {situation.title}"

    differences: list[str] = []
    unseen = [deviation for deviation in DEVIATIONS if situation.title in deviation.situations]
    for cell in cells(situation):
        connection = a_connection(tcp, situation)
        seg = cell.segment(tcb)
        expected = oracle.segment_arrives(tcb, seg)
        seen = see(connection, seg)
        if any(seen.conforms(outcome) for outcome in expected):
            continue
        deviation = _deviation(cell, tcb, seg, seen)
        if deviation is None:
            differences.append(_difference(cell, expected, seen))
        elif deviation in unseen:
            unseen.remove(deviation)

    if differences:
        more = f"\n\n... and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        pytest.fail("\n\n".join([f"{len(differences)} differences", *differences[:SHOWN]]) + more, pytrace=False)
    if tcp_name == REFERENCE:
        assert not unseen, f"in {situation.title} the reference does not deviate like this any more: delete the entry"


def _deviation(cell: Cell, tcb: Tcb, seg: Segment, seen: Seen) -> Deviation | None:
    for deviation in DEVIATIONS:
        here = cell.situation.title in deviation.situations and deviation.applies(cell)
        if here and seen.conforms(deviation.outcome(tcb, seg)):
            return deviation
    return None


# ---- the report ------------------------------------------------------------------------------------------------


def _difference(cell: Cell, expected: list[Outcome], seen: Seen) -> str:
    lines = [str(cell)]
    for prefix, outcome in zip(["expected", *["      or"] * (len(expected) - 1)], expected, strict=True):
        lines.append(f"  {prefix} {_facts(outcome)}")
        lines.append(f"           RFC {outcome.section}" + (f" [{outcome.why}]" if outcome.why else ""))
    lines.append(f"      seen {_facts(seen)}")
    if seen.text_sent:
        lines.append(f"           with {seen.text_sent} bytes of text")
    if seen.illegal:
        lines.append(f"           {seen.illegal}")
    return "\n".join(lines)


def _facts(of: Outcome | Seen) -> str:
    answers = ", ".join(_answer(answer) for answer in of.answers) or "no answer"
    error = f", {errno.errorcode[of.error]}" if of.error is not None else ""
    variables = {
        "SND.UNA": _number(of.snd_una) if of.snd_una is not None else None,
        "SND.WND": of.snd_wnd,
        "RCV.NXT": _number(of.rcv_nxt) if of.rcv_nxt is not None else None,
    }
    shown = " ".join(f"{variable}={value}" for variable, value in variables.items() if value is not None)
    return f"{name(of.state)}, {answers}{error}" + (f" ({shown})" if shown else "")


def _answer(answer: Answer) -> str:
    ack = f"<ACK={_number(answer.ack)}>" if answer.ack is not None else ""
    return f"<SEQ={_number(answer.seq)}>{ack}<CTL={flags_of(answer.control)}>"


def _number(value: int) -> str:
    """Relative to the initial sequence number that it seems to count from."""
    for base, title in ((IRS, "IRS"), (ISS, "ISS")):
        if 0 <= oracle.distance(base, value) < 4000:
            return f"{title}+{oracle.distance(base, value)}"
    return str(value)


def flags_of(flags: int) -> str:
    return ",".join(title for title, bit in FLAGS.items() if flags & bit) or "no flags"
