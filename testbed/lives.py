"""Which connection an event of a trace is of: one has two ends and one life. Pure.

If the ends use their ports again, that is another connection: the number that their daemon gives it says so, or that it
begins in CLOSED again, or a SYN with another sequence number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from testbed.traces import Event

Of = TypeVar("Of")  # what the caller keeps of a connection
_MODULO = 1 << 32


@dataclass(slots=True, eq=False)
class Life(Generic[Of]):
    """A connection, and what tells it from others between the same two ends."""

    of: Of
    ends: tuple[str, str]  # addresses with ports; first who opened it
    number: int  # from 1, in the order in which they begin
    isns: list[int | None] = field(default_factory=lambda: [None, None])  # the initial sequence number of each end
    own_numbers: list[int | None] = field(default_factory=lambda: [None, None])  # that each end's daemon gives it
    changed: list[bool] = field(default_factory=lambda: [False, False])  # whether a change of state was seen
    traced: list[bool] = field(default_factory=lambda: [False, False])  # whether the end has told something itself

    def side(self, end: str) -> int:
        """Which of its ends this is."""
        return self.ends.index(end)


class Lives(Generic[Of]):
    """All connections of some traces."""

    def __init__(self, begin: Callable[[str, str, Event], Of]) -> None:
        """`begin`: makes what is kept of a connection, from its two ends and its first event."""
        self._begin = begin
        self._current: dict[tuple[str, str], Life[Of]] = {}  # by the two ends, in alphabetical order
        self._numbered: dict[tuple[object, int, str, str], Life[Of]] = {}
        self.all: list[Life[Of]] = []  # in the order in which they began

    def find(self, node: object, event: Event) -> Life[Of]:
        """The connection of an event of this node's trace: a segment that it has sent or received, or what it says."""
        local, number = event["local"], event.get("connection")
        life = self._newest(event) if number is None else self._numbered_life(node, number, event)
        side = life.side(local)
        life.traced[side] = True
        if event["event"] == "state":
            life.changed[side] = True
        elif event["event"] in ("sent", "received"):
            _learn(life, side if event["event"] == "sent" else 1 - side, event)
        return life

    def _newest(self, event: Event) -> Life[Of]:
        life = self._current.get(_pair(event))
        return self._new(event) if life is None or _is_another_syn(life, event) else life

    def _numbered_life(self, node: object, number: int, event: Event) -> Life[Of]:
        local, peer = event["local"], event["peer"]
        key = node, number, local, peer
        known = self._numbered.get(key)
        if known is not None and not _begins_anew(known, event):
            return known
        life = self._current.get(_pair(event))
        if life is not None and event["event"] == "sent" and event["flags"] in ("R", "R."):
            return life  # what came for a connection that is over is answered under a number of its own
        if life is None or life.own_numbers[life.side(local)] is not None:
            life = self._new(event)
        life.own_numbers[life.side(local)] = number
        self._numbered[key] = life
        return life

    def _new(self, event: Event) -> Life[Of]:
        local, peer = event["local"], event["peer"]
        came = event["event"] == "received" or event.get("direction") == "received"
        is_passive = came or event.get("to") in ("LISTEN", "SYN_RCVD")
        ends = (peer, local) if is_passive else (local, peer)
        life = self._current[_pair(event)] = Life(self._begin(*ends, event), ends, len(self.all) + 1)
        self.all.append(life)
        return life


def _pair(event: Event) -> tuple[str, str]:
    local, peer = event["local"], event["peer"]
    return (local, peer) if local < peer else (peer, local)


def _begins_anew(life: Life[Of], event: Event) -> bool:
    if event["event"] == "state":
        return bool(event["from"] == "CLOSED") and life.changed[life.side(event["local"])]
    return _is_another_syn(life, event)


def _is_another_syn(life: Life[Of], event: Event) -> bool:
    """One that only came may be a late copy of an old one, unless its sender has no trace."""
    if event.get("flags") != "S" or event["event"] not in ("sent", "received"):
        return False
    sender = life.side(event["local"] if event["event"] == "sent" else event["peer"])
    told = event["event"] == "sent" or not life.traced[sender]
    return told and life.isns[sender] not in (None, event["seq"])


def _learn(life: Life[Of], sender: int, event: Event) -> None:
    """The initial sequence numbers, by what a segment says."""
    is_syn = "S" in event["flags"]
    if life.isns[sender] is None:  # where there was no SYN: the first byte has number 1, as it would have
        life.isns[sender] = (event["seq"] - (not is_syn and "R" not in event["flags"])) % _MODULO
    if life.isns[1 - sender] is None and "ack" in event and not is_syn:
        life.isns[1 - sender] = (event["ack"] - 1) % _MODULO
