"""The legal changes of state: RFC 9293 figure 5, its notes, and the text of section 3.10. It judges, and draws.

`assert_legal(transitions)` judges what a connection passed through. `python -m tests.tcp.transitions` prints the state
diagram of docs/tcp.md, in Mermaid, from the same table.

Left out, though the RFC mentions them:

* any state to TIME-WAIT on sending a RST (figure 5, note 3; 3.5.2): 3.10.5 says CLOSED, and so does `abort` in our
  contract.
* TIME-WAIT to SYN-RECEIVED on a new SYN (3.6.1, MAY-2): the old connection becomes CLOSED, the new one is a new object.
* SYN-RECEIVED to CLOSE-WAIT in one step (3.10.7.4, eighth): the fifth check has led to ESTABLISHED before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from chitcpd.tcp.api import State, Transition


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a connection changes its state: what happens, what is sent, and where RFC 9293 says so."""

    event: str
    section: str
    sends: str = ""


LEGAL: dict[tuple[State, State], Cause] = {
    (State.CLOSED, State.LISTEN): Cause("passive OPEN", "3.10.1"),
    (State.CLOSED, State.SYN_SENT): Cause("active OPEN", "3.10.1", "SYN"),
    (State.LISTEN, State.SYN_RCVD): Cause("rcv SYN", "3.10.7.2", "SYN,ACK"),
    (State.LISTEN, State.SYN_SENT): Cause("SEND or active OPEN", "3.10.1, 3.10.2", "SYN"),
    (State.LISTEN, State.CLOSED): Cause("CLOSE or ABORT", "3.10.4, 3.10.5"),
    (State.SYN_SENT, State.SYN_RCVD): Cause("rcv SYN (simultaneous open)", "3.10.7.3", "SYN,ACK"),
    (State.SYN_SENT, State.ESTABLISHED): Cause("rcv SYN,ACK", "3.10.7.3", "ACK"),
    (State.SYN_SENT, State.CLOSED): Cause("CLOSE, ABORT, rcv RST or time-out", "3.10.4, 3.10.5, 3.10.7.3, 3.10.8"),
    (State.SYN_RCVD, State.LISTEN): Cause("rcv RST or SYN, after a passive OPEN", "3.3.2 note 1, 3.10.7.4"),
    (State.SYN_RCVD, State.ESTABLISHED): Cause("rcv ACK of SYN", "3.10.7.4"),
    (State.SYN_RCVD, State.FIN_WAIT_1): Cause("CLOSE", "3.10.4", "FIN"),
    (State.SYN_RCVD, State.CLOSED): Cause(
        "ABORT, rcv RST after an active OPEN, or time-out", "3.10.5, 3.10.7.4, 3.10.8"
    ),
    (State.ESTABLISHED, State.FIN_WAIT_1): Cause("CLOSE", "3.10.4", "FIN"),
    (State.ESTABLISHED, State.CLOSE_WAIT): Cause("rcv FIN", "3.10.7.4", "ACK"),
    (State.ESTABLISHED, State.CLOSED): Cause("ABORT, rcv RST or time-out", "3.10.5, 3.10.7.4, 3.10.8"),
    (State.FIN_WAIT_1, State.FIN_WAIT_2): Cause("rcv ACK of FIN", "3.10.7.4"),
    (State.FIN_WAIT_1, State.CLOSING): Cause("rcv FIN", "3.10.7.4", "ACK"),
    (State.FIN_WAIT_1, State.TIME_WAIT): Cause("rcv FIN and ACK of FIN", "3.3.2 note 2, 3.10.7.4", "ACK"),
    (State.FIN_WAIT_1, State.CLOSED): Cause("ABORT, rcv RST or time-out", "3.10.5, 3.10.7.4, 3.10.8"),
    (State.FIN_WAIT_2, State.TIME_WAIT): Cause("rcv FIN", "3.10.7.4", "ACK"),
    (State.FIN_WAIT_2, State.CLOSED): Cause("ABORT, rcv RST or time-out", "3.10.5, 3.10.7.4, 3.10.8"),
    (State.CLOSE_WAIT, State.LAST_ACK): Cause("CLOSE", "3.10.4", "FIN"),
    (State.CLOSE_WAIT, State.CLOSED): Cause("ABORT, rcv RST or time-out", "3.10.5, 3.10.7.4, 3.10.8"),
    (State.CLOSING, State.TIME_WAIT): Cause("rcv ACK of FIN", "3.10.7.4"),
    (State.CLOSING, State.CLOSED): Cause("ABORT, rcv RST or time-out", "3.10.5, 3.10.7.4, 3.10.8"),
    (State.LAST_ACK, State.CLOSED): Cause("rcv ACK of FIN, ABORT, rcv RST or time-out", "3.10.5, 3.10.7.4, 3.10.8"),
    (State.TIME_WAIT, State.CLOSED): Cause(
        "2 MSL have passed, ABORT, rcv RST or a new SYN", "3.6.1 (MAY-2), 3.10.5, 3.10.7.4, 3.10.8"
    ),
}


def assert_legal(transitions: Iterable[Transition]) -> None:
    """Each change is in the table, and begins where the one before ended."""
    path = list(transitions)
    for change in path:
        assert (change.old, change.new) in LEGAL, f"{name(change.old)} to {name(change.new)} is not in RFC 9293"
    for first, second in pairwise(path):
        assert first.new == second.old, f"a change ended in {name(first.new)}, the next began in {name(second.old)}"


def name(state: State) -> str:
    """As the RFC spells it."""
    return state.name.replace("RCVD", "RECEIVED").replace("_", "-")


def diagram() -> str:
    """The table as a Mermaid state diagram; what goes out stands behind a slash."""
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{name(state)}" as {state.name}' for state in State]
    lines += ["    [*] --> CLOSED"]
    for (old, new), cause in LEGAL.items():
        label = f"{cause.event} / {cause.sends}" if cause.sends else cause.event
        lines.append(f"    {old.name} --> {new.name}: {label}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
