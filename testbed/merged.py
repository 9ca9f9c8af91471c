"""All captures of a run as one pcapng: an interface for each host, in time order, with comments from the traces.

What has passed on the wire between two hosts is in the captures of both: here it is once, on an interface `wire`.
Everything is read once and side by side, and only what is near in time is held, so a run may be of any length.
"""

from __future__ import annotations

import hashlib
import heapq
import ipaddress
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

from chitcpd.pcap import packet_block, section
from testbed import finished
from testbed.passages import flag_bits
from testbed.report.read import Unreadable, manifest
from testbed.traces import Event, Seen
from testbed.unavailable import Unavailable
from testbed.whole import whole

NAME = "merged.pcapng"
_NANOSECONDS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # magic -> what a fraction of a second counts
_MOST = 1 << 18  # bytes of a packet; more, and it is no capture
_ROUNDING = 2000  # nanoseconds by which the times of a trace, as numbers of JSON, may be off
_NEAR = 1_000_000  # nanoseconds: what happened at a packet's moment
_LATER = 20_000_000  # nanoseconds after a packet in which its host may say that it was dropped ...
_HELD = 4096  # ... or so many packets
_MOST_COMMENTS = 20  # of one packet; how many more there were is said
_MOST_WAYS = 1 << 12  # directions of connections of which a host is known to have sent something
_TCP_BEGIN = struct.Struct("!HHI")  # ports, sequence number
_WIRE, _WIRE_FILE = "wire", "wire.pcap"
_IP_AT = {1: 14, 101: 0, 113: 16, 276: 20}  # link type (Ethernet, raw, Linux' "any") -> where the IP header begins
_TWICE_WITHIN = 1_000_000_000  # nanoseconds in which the other end of a link has captured a packet, too ...
_MOST_LATELY = 1 << 14  # ... and of so many


@dataclass(slots=True)
class Merged:
    """What was merged."""

    packets: int = 0
    comments: int = 0
    interfaces: list[str] = field(default_factory=list)
    twice: int = 0  # packets of the wire that both ends have captured, and that are here once


def merge_into(folder: Path, path: Path) -> Merged:
    """Write all captures of a run as one file, whole or not at all.

    Raises NoSuchRun if it has none, BadTrace if a trace or a capture is not what it should be, and Unavailable if the
    file can't be written.
    """
    try:
        with whole(path) as fresh, fresh.open("wb") as output:
            return merge(folder, output)
    except OSError as error:
        raise Unavailable(f"{path} can't be written: {error.strerror}.", "Give another file: -o FILE.") from error


def merge(folder: Path, output: IO[bytes]) -> Merged:
    """The same to a file that is open."""
    paths = sorted([*folder.glob("hosts/*/segments.pcap"), *folder.glob("hosts/*/wire.pcap")], key=_place)
    paths = [path for path in paths if not path.is_file() or path.stat().st_size]  # who was killed leaves empty ones
    if not paths:
        raise finished.NoSuchRun(f"{folder} has no captures: there is no hosts/HOST/segments.pcap in it")
    done, once = Merged(), _Once()
    with ExitStack() as stack:
        captures = [_Capture(stack.enter_context(_open(path)), path) for path in paths]
        interfaces = dict.fromkeys((_name(capture.path), capture.link_type) for capture in captures)
        places = {interface: place for place, interface in enumerate(interfaces)}
        done.interfaces = list(dict.fromkeys(name for name, _ in interfaces))
        output.write(section(*interfaces))
        streams = [_numbered(index, _packets(capture)) for index, capture in enumerate(captures)]
        for _, index, packet in heapq.merge(*streams, key=lambda one: one[:2]):
            capture = captures[index]
            if _is_wire(capture.path) and once.was_seen(index, packet, capture.link_type):
                done.twice += 1
                continue
            place, comments = places[_name(capture.path), capture.link_type], packet.told()
            output.write(packet_block(place, packet.time, packet.raw, packet.length, packet.sent, comments))
            done.packets += 1
            done.comments += len(comments)
    return done


def why_no_wire(folder: Path) -> str | None:
    """Why a run has no capture of the wire, as far as its folder tells; None if it has one."""
    if any(path.stat().st_size for path in folder.glob(f"hosts/*/{_WIRE_FILE}") if path.is_file()):
        return None
    try:
        notes = manifest(folder)["notes"]
        told = next(str(note) for note in notes if str(note).startswith("no capture of the wire"))
    except (Unreadable, LookupError, TypeError, StopIteration):
        return f"no capture of the wire: there is no hosts/HOST/{_WIRE_FILE}; `capture: {{wire: false}}` asks for none"
    return told


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise finished.BadTrace(f"{path} can't be read: {error.strerror}") from error


def _is_wire(path: Path) -> bool:
    return path.name == _WIRE_FILE


def _place(path: Path) -> tuple[bool, str]:
    return _is_wire(path), path.parent.name


def _name(path: Path) -> str:
    return _WIRE if _is_wire(path) else path.parent.name


def _numbered(index: int, packets: Iterable[_Packet]) -> Iterator[tuple[int, int, _Packet]]:
    for packet in packets:
        yield packet.time, index, packet


class _Once:
    """Tells what the other end of a link has captured as well: the same bytes, from the IP header on."""

    def __init__(self) -> None:
        self._lately: dict[bytes, tuple[int, int]] = {}  # digest of the bytes -> which capture, and when

    def was_seen(self, capture: int, packet: _Packet, link_type: int) -> bool:
        """Whether another capture has had this packet just before."""
        begin = _IP_AT.get(link_type)
        if begin is None:
            return False
        digest = hashlib.blake2b(packet.raw[begin:], digest_size=16).digest()
        earlier = self._lately.pop(digest, None)  # so that the newest stand at the end
        if earlier is not None and earlier[0] != capture and packet.time - earlier[1] < _TWICE_WITHIN:
            return True
        if len(self._lately) >= _MOST_LATELY:
            del self._lately[next(iter(self._lately))]
        self._lately[digest] = capture, packet.time
        return False


def _packets(capture: _Capture) -> Iterator[_Packet]:
    trace = capture.path.parent / "trace.jsonl"
    if _is_wire(capture.path) or not trace.is_file():
        return capture.packets()
    return _Annotated(capture.packets(), finished.events(trace)).packets()


# ---- reading -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Packet:
    """A packet, and what is to be said of it."""

    time: int  # nanoseconds since the epoch
    raw: bytes
    length: int
    sent: bool | None = None  # by the host whose capture it is; None: not known
    is_told: bool = False  # why it was dropped
    comments: dict[str, None] = field(default_factory=dict)  # in their order, none twice
    left_out: int = 0  # of further comments

    def say(self, comment: str) -> None:
        """One more comment, unless there are very many."""
        if len(self.comments) < _MOST_COMMENTS:
            self.comments[comment] = None
        elif comment not in self.comments:
            self.left_out += 1

    def told(self) -> list[str]:
        """All of them."""
        return [*self.comments, *([f"... and {self.left_out} more"] if self.left_out else [])]


class _Capture:
    """A pcap, which others of its kind may follow in the same file."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.path = path
        self._file = file
        self._header = file.read(24).ljust(24, b"\0")
        self._order = "<" if struct.unpack_from("<I", self._header)[0] in _NANOSECONDS else ">"
        magic, *_, link_type = struct.unpack(f"{self._order}IHHiIII", self._header)
        if magic not in _NANOSECONDS:
            raise finished.BadTrace(f"{path} is no pcap")
        self.link_type = link_type & 0xFFFF
        self._unit = _NANOSECONDS[magic]

    def packets(self) -> Iterator[_Packet]:
        """All whole packets."""
        record, read = struct.Struct(f"{self._order}IIII"), self._file.read
        while len(head := read(16)) == 16:
            if head == self._header[:16]:  # another capture begins
                read(8)
                continue
            seconds, fraction, kept, length = record.unpack(head)
            if kept > _MOST:
                raise finished.BadTrace(f"{self.path} is damaged before byte {self._file.tell()}")
            raw = read(kept)
            if len(raw) < kept:
                return
            yield _Packet(seconds * 1_000_000_000 + fraction * self._unit, raw, length)


# ---- comments ----------------------------------------------------------------------------------------------

_What = tuple[bytes, bytes, int, int, int, int]  # addresses, ports, sequence number, flags: enough to find it again


class _Annotated:
    """The packets of a host, with what its trace says about them."""

    def __init__(self, packets: Iterator[_Packet], events: Iterator[Event]) -> None:
        self._packets = packets
        self._events = events
        self._held: deque[tuple[_Packet, _What | None]] = deque()
        self._waiting: list[tuple[int, str]] = []  # times and comments that may belong to the next packet
        self._unsaid = 0  # of further ones
        self._sent: dict[tuple[str, str], tuple[int, Seen]] = {}  # of each way: its first sequence number, and all

    def packets(self) -> Iterator[_Packet]:
        """All of them, in their order."""
        ahead = next(self._events, None)
        for packet in self._packets:
            while ahead is not None and _time(ahead) + _ROUNDING < packet.time:
                self._take(ahead)
                ahead = next(self._events, None)
            self._give_waiting(packet)
            self._held.append((packet, _what(packet.raw)))
            while len(self._held) > _HELD or self._held[0][0].time < packet.time - _LATER:
                yield self._held.popleft()[0]
        while ahead is not None:
            self._take(ahead)
            ahead = next(self._events, None)
        self._give_waiting(None)
        for packet, _ in self._held:
            yield packet

    def _take(self, event: Event) -> None:
        kind = event["event"]
        if kind in ("sent", "received"):
            packet = self._find(_what_of(event, sent=kind == "sent"), lambda packet: packet.sent is None)
            if packet is not None:
                packet.sent = kind == "sent"
                if packet.sent and self._was_sent_before(event):
                    packet.say("retransmission")
        elif kind == "dropped":
            what = _what_of(event, sent=event["direction"] == "sent") if "flags" in event else None
            packet = self._find(what, lambda packet: _has_no_hop(packet) and not packet.is_told)
            if packet is not None:
                packet.is_told = True
                packet.say(f"dropped: {event['why']}")
        elif kind == "state":
            self._happened(_time(event), f"{event['from']} -> {event['to']}", leads_on=False)
        elif kind == "timer":
            self._happened(_time(event), f"{event['timer']} timer", leads_on=True)

    def _find(self, what: _What | None, fits: Callable[[_Packet], bool]) -> _Packet | None:
        """The last such packet; any that fits, if it is not known what it says."""
        for packet, its in reversed(self._held):
            if (what is None or what == its) and fits(packet):
                return packet
        return None

    def _was_sent_before(self, event: Event) -> bool:
        way, is_syn = (event["local"], event["peer"]), "S" in event["flags"]
        takes: int = event["len"] + is_syn + ("F" in event["flags"])
        first, seen = self._sent.get(way, (None, None))
        if seen is None or (is_syn and first != event["seq"]):
            first, seen = event["seq"], Seen()
            self._sent.pop(way, None)
            if len(self._sent) >= _MOST_WAYS:
                del self._sent[next(iter(self._sent))]
            self._sent[way] = first, seen
        return takes > 0 and seen.add(event["seq"], takes) < takes

    def _happened(self, t: int, text: str, *, leads_on: bool) -> None:
        """Something that is no packet; if it `leads_on`, rather the next packet's than that of the last."""
        if not leads_on and self._held and t - self._held[-1][0].time <= _NEAR:
            self._held[-1][0].say(text)
        elif len(self._waiting) <= _MOST_COMMENTS:
            self._waiting.append((t, text))
        else:
            self._unsaid += 1

    def _give_waiting(self, following: _Packet | None) -> None:
        packet = following
        for t, text in self._waiting:
            if following is not None and (not self._held or following.time - t <= _NEAR):
                packet = following
                packet.say(text)
            elif self._held:
                packet = self._held[-1][0]
                packet.say(f"{text}, {(t - packet.time) / 1e9:.6f} s later")
        if packet is not None:
            packet.left_out += self._unsaid
        self._waiting.clear()
        self._unsaid = 0


def _time(event: Event) -> int:
    t: float = event["t"]
    return round(t * 1e9)


def _has_no_hop(packet: _Packet) -> bool:
    """What was dropped (docs/trace.md)."""
    at = 8 if packet.raw[:1] < b"\x50" else 7  # IPv4 or IPv6
    return packet.raw[at : at + 1] == b"\0"


def _what(raw: bytes) -> _What | None:
    """What a packet is: TCP behind an IP header of a fixed size, as chitcpd makes them."""
    if len(raw) < 40:
        return None
    begin, source, end = (20, 12, 20) if raw[0] < 0x50 else (40, 8, 40)
    if len(raw) < begin + 20:
        return None
    half = (source + end) // 2
    source_port, destination_port, seq = _TCP_BEGIN.unpack_from(raw, begin)
    return raw[source:half], raw[half:end], source_port, destination_port, seq, raw[begin + 13] & 0x3F


def _what_of(event: Event, *, sent: bool) -> _What:
    ends = event["local"], event["peer"]
    (source, source_port), (destination, destination_port) = map(_end, ends if sent else reversed(ends))
    return source, destination, source_port, destination_port, event["seq"], flag_bits(event["flags"])


@lru_cache(maxsize=4096)
def _end(address: str) -> tuple[bytes, int]:
    host, _, port = address.rpartition(":")
    try:
        return ipaddress.ip_address(host.strip("[]")).packed, int(port)
    except ValueError:
        return b"", int(port)
