"""Records what happens: the log lines that chiTCP's users know, a JSON line per event, and a capture.

All of them stand on one clock, nanoseconds since the epoch. What is off costs one test per event.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Protocol

from chitcpd import pcap
from chitcpd.demux import FourTuple
from chitcpd.driver import Endpoint
from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, URG, Expiry, Options, Segment, Timer, Transition

VERBOSE = 15  # `-v`: the packet log
log = logging.getLogger("chitcpd.segments")

_FLAG_LETTERS = ((URG, "U"), (PSH, "P"), (RST, "R"), (SYN, "S"), (FIN, "F"), (ACK, "."))
_TIMER_LINES = {  # those that mean trouble; the first two as the C chitcpd says them
    Timer.RETRANSMISSION: "RETRANSMISSION TIMEOUT",
    Timer.PERSIST: "PERSIST TIMEOUT",
    Timer.REORDERING: "REORDERING TIMEOUT",
    Timer.PROBE: "TAIL LOSS PROBE",
    Timer.KEEP_ALIVE: "KEEP-ALIVE TIMEOUT",
    Timer.USER_TIMEOUT: "USER TIMEOUT",
}
_LOG_EVENTS = {"sent": "SENT", "received": "RCVD"}


def flag_letters(flags: int) -> str:
    """The control bits as tcpdump writes them: `S.` is SYN and ACK."""
    return "".join(letter for bit, letter in _FLAG_LETTERS if flags & bit)


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take them."""


class Recorder:
    """Tells each event to those of the log, the trace and the capture that are on."""

    def __init__(
        self,
        clock: Callable[[], int],
        trace: Sink | None,
        capture: Sink | None,
        written: Callable[[], None],
    ) -> None:
        """`clock`: nanoseconds since the epoch; `written` is called when a file has something to flush."""
        self._clock = clock
        self._trace = trace
        self._capture = capture
        self._written = written
        if capture is not None:
            capture.write(pcap.FILE_HEADER)

    def segment(self, event: str, endpoint: Endpoint | None, four: FourTuple, seg: Segment, raw: bytes) -> None:
        """A segment was `sent` or `received`."""
        if self._capture is not None:
            source, destination = (four.local, four.peer) if event == "sent" else (four.peer, four.local)
            self._capture.write(pcap.record(self._clock(), source, destination, raw))
            self._written()
        if self._trace is not None:
            self._write(event, endpoint, four, _segment_fields(seg))
        if log.isEnabledFor(VERBOSE):
            log.log(VERBOSE, "%s %s %s", _name(endpoint), _LOG_EVENTS[event], _packet_line(event, four, seg))

    def transition(self, endpoint: Endpoint, transition: Transition) -> None:
        """A connection has changed its state."""
        if self._trace is not None:
            states: dict[str, object] = {"from": transition.old.name, "to": transition.new.name}
            self._write("state", endpoint, endpoint.four, states)
        log.log(VERBOSE, "%s %s -> %s", _name(endpoint), transition.old.name, transition.new.name)

    def expiry(self, endpoint: Endpoint, expiry: Expiry) -> None:
        """A timer of a connection has expired."""
        if self._trace is not None:
            self._write("timer", endpoint, endpoint.four, {"timer": expiry.timer.name})
        if expiry.timer in _TIMER_LINES:
            log.log(VERBOSE, "%s %s", _name(endpoint), _TIMER_LINES[expiry.timer])

    def dropped(self, why: str, local: str, peer: str, raw: bytes) -> None:
        """A segment went no further: lost by a link's impairment, damaged, or refused."""
        if self._trace is not None:
            self._write("dropped", None, None, {"why": why, "local": local, "peer": peer, "bytes": len(raw)})
        log.log(VERBOSE, "[-] DROP %s -- %s: %s, length %d", local, peer, why, len(raw))

    def _write(self, event: str, endpoint: Endpoint | None, four: FourTuple | None, fields: dict[str, object]) -> None:
        assert self._trace is not None
        line: dict[str, object] = {"t": self._clock() / 1e9, "event": event}
        if endpoint is not None:
            line["connection"] = endpoint.number
        if four is not None:
            line["local"], line["peer"] = f"{four.local}:{four.local_port}", f"{four.peer}:{four.peer_port}"
        self._trace.write(json.dumps(line | fields).encode() + b"\n")
        self._written()


def _name(endpoint: Endpoint | None) -> str:
    return f"[S{endpoint.number}]" if endpoint is not None else "[-]"


def _segment_fields(seg: Segment) -> dict[str, object]:
    fields: dict[str, object] = {"flags": flag_letters(seg.flags), "seq": seg.seq, "len": len(seg.data), "wnd": seg.wnd}
    if seg.flags & ACK:
        fields["ack"] = seg.ack
    if seg.options is not None:
        fields |= _option_fields(seg.options)
    return fields


def _option_fields(options: Options) -> dict[str, object]:
    """The options that are there, by the names of the contract."""
    fields: dict[str, object] = {}
    if options.mss is not None:
        fields["mss"] = options.mss
    if options.window_scale is not None:
        fields["window_scale"] = options.window_scale
    if options.sack_permitted:
        fields["sack_permitted"] = True
    if options.timestamp is not None:
        fields["timestamp"] = options.timestamp
    if options.sack:
        fields["sack"] = options.sack
    return fields


def _packet_line(event: str, four: FourTuple, seg: Segment) -> str:
    local, peer = f"{four.local}.{four.local_port}", f"{four.peer}.{four.peer_port}"
    source, destination = (local, peer) if event == "sent" else (peer, local)
    seq = f"{seg.seq}:{(seg.seq + len(seg.data)) & 0xFFFFFFFF}" if seg.data else f"{seg.seq}"
    ack = f", ack {seg.ack}" if seg.flags & ACK else ""
    flags = flag_letters(seg.flags)
    words = _option_words(seg.options) if seg.options is not None else ""
    options = f", options [{words}]" if words else ""
    return f"{source} > {destination}: Flags [{flags}], seq {seq}{ack}, win {seg.wnd}{options}, length {len(seg.data)}"


def _option_words(options: Options) -> str:
    """The options as tcpdump writes them, without the padding between them."""
    words = []
    if options.mss is not None:
        words.append(f"mss {options.mss}")
    if options.window_scale is not None:
        words.append(f"wscale {options.window_scale}")
    if options.sack_permitted:
        words.append("sackOK")
    if options.timestamp is not None:
        words.append("TS val {} ecr {}".format(*options.timestamp))
    if options.sack:
        blocks = "".join(f"{{{first}:{behind}}}" for first, behind in options.sack)
        words.append(f"sack {len(options.sack)} {blocks}")
    return ",".join(words)
