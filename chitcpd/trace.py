"""Records what happens: the log lines that chiTCP's users know, a JSON line per event, and a capture.

All of them stand on one clock, nanoseconds since the epoch. What is off costs one test per event.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import IO

from chitcpd.demux import FourTuple
from chitcpd.driver import Endpoint
from chitcpd.pcap import Capture, Packets, Sink
from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, URG, Expiry, Info, Options, Segment, State, Timer, Transition

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
_LOG_EVENTS = {"sent": "SENT", "received": "RCVD", "duplicate": "RCVD_DUPLICATE", "delayed": "RCVD_DELAYED"}
_NO_CONNECTION = (State.CLOSED, State.LISTEN)
_NOTHING_TOLD = Info()
_INFO_FIELDS = [field.name for field in fields(Info)]
_to_json = json.JSONEncoder(allow_nan=False).encode


def flag_letters(flags: int) -> str:
    """The control bits as tcpdump writes them: `S.` is SYN and ACK."""
    return "".join(letter for bit, letter in _FLAG_LETTERS if flags & bit)


def whole_lines(file: IO[bytes]) -> int:
    """How many bytes of a trace are whole lines."""
    at = file.seek(0, 2)
    while at > 0:
        step = min(at, 1 << 16)
        file.seek(at - step)
        newline = file.read(step).rfind(b"\n")
        if newline >= 0:
            return at - step + newline + 1
        at -= step
    return 0


class Recorder:
    """Tells each event to those of the log, the trace and the capture that are on."""

    def __init__(
        self,
        clock: Callable[[], int],
        trace: Sink | None,
        capture: Capture | None,
        written: Callable[[], None],
    ) -> None:
        """`clock`: nanoseconds since the epoch; `written` is called when a file has something to flush."""
        self._clock = clock
        self._trace = trace
        self._capture = capture
        self._written = written
        self.connections: Mapping[FourTuple, Endpoint] = {}  # the driver's, to find whose segment was dropped
        self._told: dict[int, Info] = {}  # by the number of the endpoint: what the trace knows

    def seen(self, event: str, endpoint: Endpoint | None, four: FourTuple, seg: Segment, raws: Sequence[bytes]) -> None:
        """All that `seg` stands for was `sent` or `received`; `raws`: the bytes of each.

        Or a debugger delivers it again (`duplicate`) or late (`delayed`).
        """
        at = self._clock() if self._capture is not None or self._trace is not None else 0
        if self._capture is not None:
            self._capture.take(_packets(at, event == "sent", four.local, four.peer, raws))
            self._written()
        if self._trace is not None:
            for one in seg.cut():
                self._trace_segment(at, event, endpoint, four, one)
        if log.isEnabledFor(VERBOSE):
            for one in seg.cut():
                line = _packet_line(event == "sent", four, one)
                log.log(VERBOSE, "%s %s %s", _name(endpoint), _LOG_EVENTS[event], line)

    def _trace_segment(self, at: int, event: str, endpoint: Endpoint | None, four: FourTuple, seg: Segment) -> None:
        fields = _segment_fields(seg)
        if event in ("duplicate", "delayed"):
            event, fields["debugger"] = "received", event
        self._write(at, event, endpoint, four, fields)

    def transition(self, endpoint: Endpoint, transition: Transition) -> None:
        """A connection has changed its state."""
        if self._trace is not None:
            states: dict[str, object] = {"from": transition.old.name, "to": transition.new.name}
            self._write(self._clock(), "state", endpoint, endpoint.four, states)
        if log.isEnabledFor(VERBOSE):
            log.log(VERBOSE, "%s %s -> %s", _name(endpoint), transition.old.name, transition.new.name)

    def expiry(self, endpoint: Endpoint, expiry: Expiry) -> None:
        """A timer of a connection has expired."""
        if self._trace is not None:
            self._write(self._clock(), "timer", endpoint, endpoint.four, {"timer": expiry.timer.name})
        if expiry.timer in _TIMER_LINES:
            log.log(VERBOSE, "%s %s", _name(endpoint), _TIMER_LINES[expiry.timer])

    def settled(self, endpoint: Endpoint) -> None:
        """An event of a connection is over, and all that it led to was told: what does the TCP say of itself now?"""
        if self._trace is None:
            return
        if endpoint.connection.state in _NO_CONNECTION:
            self._told.pop(endpoint.number, None)
            return
        info = endpoint.connection.info()
        before = self._told.get(endpoint.number, _NOTHING_TOLD)
        if info != before:
            self._told[endpoint.number] = info
            self._write(self._clock(), "tcp", endpoint, endpoint.four, _changes(before, info))

    def passed(self, source: str, destination: str, raw: bytes) -> None:
        """A router carries a segment on: for the capture, as what it sends. Nothing more happens to it here."""
        if self._capture is not None:
            self._capture.take(_packets(self._clock(), True, source, destination, (raw,)))
            self._written()

    def lost(self, why: str, local: str, peer: str, raw: bytes) -> None:
        """A segment of ours went no further."""
        self._tell_drop(True, why, local, peer, raw)

    def dropped(self, why: str, local: str, peer: str, raw: bytes) -> None:
        """A segment that has come went no further: it was damaged, or refused."""
        self._tell_drop(False, why, local, peer, raw)

    def _tell_drop(self, sent: bool, why: str, local: str, peer: str, raw: bytes) -> None:
        at = self._clock()
        if self._capture is not None:
            self._capture.drop(_packets(at, sent, local, peer, (raw,)), why)
            self._written()
        if self._trace is None and not log.isEnabledFor(VERBOSE):
            return
        about: dict[str, object] = {"why": why, "direction": "sent" if sent else "received", "bytes": len(raw)}
        event = "DROP_SENT" if sent else "DROP_RCVD"
        four, seg = _parse(sent, local, peer, raw)
        if four is None or seg is None:
            if self._trace is not None:
                self._write(at, "dropped", None, None, {"local": local, "peer": peer} | about)
            route = f"{local} > {peer}" if sent else f"{peer} > {local}"
            log.log(VERBOSE, "[-] %s %s: length %d (%s)", event, route, len(raw), why)
            return
        endpoint = self.connections.get(four)
        if self._trace is not None:
            self._write(at, "dropped", endpoint, four, about | _segment_fields(seg))
        log.log(VERBOSE, "%s %s %s (%s)", _name(endpoint), event, _packet_line(sent, four, seg), why)

    def _write(
        self, at: int, event: str, endpoint: Endpoint | None, four: FourTuple | None, fields: dict[str, object]
    ) -> None:
        assert self._trace is not None
        line: dict[str, object] = {"t": at / 1e9, "event": event}
        if endpoint is not None:
            line["connection"] = endpoint.number
        if four is not None:
            line["local"] = _address(four.local, four.local_port)
            line["peer"] = _address(four.peer, four.peer_port)
        self._trace.write(_to_json(line | fields).encode() + b"\n")
        self._written()


def _packets(at: int, sent: bool, local: str, peer: str, raws: Sequence[bytes]) -> Packets:
    source, destination = (local, peer) if sent else (peer, local)
    return Packets(at, source, destination, raws, sent)


def _name(endpoint: Endpoint | None) -> str:
    return f"[S{endpoint.number}]" if endpoint is not None else "[-]"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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


def _changes(before: Info, now: Info) -> dict[str, object]:
    """The fields that differ, times rounded to microseconds."""
    changed: dict[str, object] = {}
    for name in _INFO_FIELDS:
        value = getattr(now, name)
        if value != getattr(before, name):
            changed[name] = round(value, 6) if isinstance(value, float) else value
    return changed


def _parse(sent: bool, local: str, peer: str, raw: bytes) -> tuple[FourTuple, Segment] | tuple[None, None]:
    """Whose it is and what, as far as it is a segment; its checksum may be wrong."""
    try:
        source, destination, seg = wire.parse(raw)
    except wire.MalformedSegment:
        return None, None
    ports = (source, destination) if sent else (destination, source)
    return FourTuple(local, ports[0], peer, ports[1]), seg


def _packet_line(sent: bool, four: FourTuple, seg: Segment) -> str:
    local, peer = f"{four.local}.{four.local_port}", f"{four.peer}.{four.peer_port}"
    source, destination = (local, peer) if sent else (peer, local)
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
