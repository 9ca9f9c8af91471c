"""Bad input at random: any bytes into the codec, any segments into connections in every state.

    python -m tests.tcp.fuzz --executions 10_000_000     half of them bytes to decode, half segments delivered
    python -m tests.tcp.fuzz --replay sequence:0a1b...   run one case, and show its steps

A case is a string of bytes, and they say everything. One of the codec is what is decoded. One of a sequence is a head,
that tells settings and state, and records of one size, each a step: a segment, near the edges of the windows or not, a
call of the application, a timer that expires. So a case made shorter is a case again, and that is how a failure is cut
down to the steps that it needs. tests/tcp/fuzz_guided.py takes its cases from atheris.
"""

from __future__ import annotations

import argparse
import math
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from chitcpd.tcp import congestion, wire
from chitcpd.tcp.api import ACK, FIN, PSH, SYN, URG, Config, Options, Segment, State, TcpConnection, Timer, Transition
from chitcpd.tcp.connection import Connection
from chitcpd.tcp.seq import add, diff, le, lt
from chitcpd.trace import flag_letters
from tests.tcp.harness import maker
from tests.tcp.simulation import MAY_RUN
from tests.tcp.transitions import LEGAL, name

PSEUDO = wire.pseudo_header("10.0.0.2", "10.0.0.3")
_PERIOD = 65521  # of the bytes of both streams, which tell where they belong; a prime
_STREAM = Random(0).randbytes(_PERIOD) * 3
_HEAD = struct.Struct("!8BIIII")
_STEP = struct.Struct("!BBBBhhHHBBIH")
_STEPS = 48  # of a random sequence, at most
_AFTER_THE_END = 3  # steps that a CLOSED connection still gets
_MOST_EXPIRIES = 20  # at one moment: more is a timer that is armed for the past for ever
_OPTION_SPACE = 40  # bytes in a header
_LINES = 10.0  # seconds between two lines of progress
_ATTEMPTS = 400  # to cut a failure down

_MSS = (None, 1460, 1460, 536, 64, 65535, 1, 0)
_BUFFERS = (1 << 20, 70_000, 16_000, 1000, 64)  # the two largest need window scaling
_STATES = (*State, State.ESTABLISHED, State.ESTABLISHED, State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1)
_MAX_CHALLENGES, _MAX_BLOCKS = 10, 1024  # what connection.py and receive.py promise

# Data or a FIN that a closed window keeps back is not acknowledged either, so the user time-out may run.
_MAY_RUN: dict[Timer, Callable[[TcpConnection], bool]] = {
    **MAY_RUN,
    Timer.USER_TIMEOUT: lambda tcp: tcp.snd_una != tcp.snd_nxt or MAY_RUN[Timer.PERSIST](tcp),
}


# ---- the codec ---------------------------------------------------------------------------------------------


def run_codec(case: bytes, _: list[str] | None = None) -> int:
    """Decode; what decodes is encoded and decodes to the same again. Returns the executions: 1."""
    try:
        source, destination, seg = wire.decode(case, PSEUDO)
    except wire.MalformedSegment:
        return 1
    if seg.options is not None and wire.options_length(seg.options) > _OPTION_SPACE:
        return 1  # without padding between them there was room for more
    if seg.options == Options():
        seg.options = None  # padding alone
    again = wire.decode(wire.encode(seg, source, destination, PSEUDO), PSEUDO)
    assert again == (source, destination, seg), f"{seg} has become {again[2]}"
    return 1


def draw_codec(random: Random) -> bytes:
    """Any bytes; more often a header with options that are nearly right, and a checksum that lets them in."""
    if random.random() < 0.1:
        return random.randbytes(random.randrange(100))
    options = b"".join(_draw_option(random) for _ in range(random.randrange(5)))[:_OPTION_SPACE]
    options += bytes(-len(options) % 4) if random.random() < 0.8 else b""
    raw = bytearray(random.randbytes(20) + options + random.randbytes(random.choice((0, 0, 1, 10))))
    if random.random() < 0.9:
        raw[12] = (20 + len(options)) << 2
    raw[16:18] = b"\0\0"
    if random.random() < 0.5:
        raw[16:18] = wire.checksum(bytes(raw), PSEUDO).to_bytes(2)
    return bytes(raw)


def _draw_option(random: Random) -> bytes:
    kind = random.choice((0, 1, 1, 2, 3, 4, 5, 5, 8, 8, random.randrange(256)))
    right = {2: 4, 3: 3, 4: 2, 5: random.choice((10, 18, 26, 34)), 8: 10}.get(kind, random.randrange(12))
    length = right if random.random() < 0.8 else random.randrange(256)
    return bytes((kind, length)) + random.randbytes(max(right - 2, 0)) if kind > 1 else bytes((kind,))


# ---- sequences ---------------------------------------------------------------------------------------------


def draw_sequence(random: Random) -> bytes:
    """A head, and some steps."""
    return random.randbytes(_HEAD.size + _STEP.size * random.randrange(1, _STEPS))


def run_sequence(case: bytes, log: list[str] | None = None) -> int:
    """Run a case and judge it after each step. Returns how many segments were delivered."""
    if len(case) < _HEAD.size:
        return 0
    sequence = Sequence(case[: _HEAD.size], log)
    left = _AFTER_THE_END
    for at in range(_HEAD.size, len(case) - _STEP.size + 1, _STEP.size):
        sequence.step(case[at : at + _STEP.size])
        left -= sequence.tcp.state == State.CLOSED
        if not left:
            break
    return sequence.delivered


@dataclass(slots=True)
class Draw:
    """The fields of a step, as they stand in its bytes; each kind of step uses those that it needs."""

    kind: int
    flags: int
    seq_from: int
    ack_from: int
    seq_off: int  # -32768 to 32767
    ack_off: int
    wnd: int
    length: int
    options: int
    shape: int
    raw: int  # 32 bits
    more: int  # 16 bits


class Sequence:
    """A connection that is fed with a case, and what its peer and its application know."""

    def __init__(self, head: bytes, log: list[str] | None) -> None:
        state, mss, own_mss, buffers, switches, timing, kind, scale, iss, irs, self._clock, _ = _HEAD.unpack(head)
        flag = [bool(switches >> bit & 1) for bit in range(8)]
        kinds = sorted(congestion._REGISTRY)
        self._config = Config(
            mss=_MSS[own_mss % 5] or 536,
            send_mss=_MSS[own_mss // 5 % 5] or 536,
            send_buffer=_BUFFERS[buffers % 5],
            receive_buffer=_BUFFERS[buffers // 5 % 5],
            window_scaling=flag[0],
            timestamps=flag[1],
            sack=flag[2],
            rack=flag[3],
            nagle=flag[4],
            keep_alive=30.0 if flag[5] else None,
            user_timeout=20.0 if flag[6] else None,
            keep_alive_probes=2,
            retries=3 + timing % 3,
            syn_retries=2,
            msl=(0.0, 1.0, 30.0)[timing // 4 % 3],
            delayed_ack=(0.0, 0.04)[timing // 16 % 2],
            congestion=kinds[kind % len(kinds)],
            initial_window=1 + kind // 16,
        )
        offers = Options(
            mss=_MSS[mss % 8],
            window_scale=scale % 15 if scale & 0x10 else None,
            sack_permitted=bool(scale & 0x20),
            timestamp=(self._clock, 0) if scale & 0x40 else None,
        )
        self._log = log
        self._note("in %s, iss %d, irs %d", State(_STATES[state % len(_STATES)]).name, iss, irs)
        self._note("%s", self._config)
        self._note("the peer's SYN offers %s", offers)
        script = maker(Connection)(
            in_state=_STATES[state % len(_STATES)], settings=self._config, offers=offers, iss=iss, irs=irs
        )
        self.tcp: Connection = script.connection  # type: ignore[assignment]
        self.now = script.now
        self.delivered = 0
        self._opened = self.tcp.state != State.CLOSED
        self._written = self._read = 0  # bytes
        self._stamp = 0  # the last TSval of ours
        self._edges: tuple[int, int, int] | None = None  # RCV.NXT, right edges of what we and the peer may send

    def step(self, record: bytes) -> None:
        """One step, and all that must hold after it."""
        draw = Draw(*_STEP.unpack(record))
        if draw.kind < 160:
            self._segment_step(draw)
            return
        records, unsent = len(self.tcp._send.records), self.tcp._send._length
        self._other_step(draw)
        self._judge_outputs(2 * records + (unsent + draw.length) // self.tcp.mss + 8)
        self._judge()

    # ---- segments ------------------------------------------------------------------------------------------

    def _segment_step(self, draw: Draw) -> None:
        """A segment, or some of the same kind one after the other; each where the connection then is."""
        for _ in range(1 if draw.kind < 130 else draw.kind - 128):
            records, unsent = len(self.tcp._send.records), self.tcp._send._length
            seg = self._segment(draw)
            if self._log is not None:
                self._note(
                    "segment [%s] seq %d ack %d wnd %d len %d %s",
                    *(flag_letters(seg.flags), self._from_rcv_nxt(seg.seq), self._from_snd_una(seg.ack), seg.wnd),
                    *(len(seg.data), seg.options or ""),
                )
            self.delivered += 1
            self.tcp.segment_arrives(seg, self.now)
            self._judge_outputs(2 * records + unsent // self.tcp.mss + 8)
            self._judge()
            if self.tcp.state == State.CLOSED:
                return

    def _segment(self, draw: Draw) -> Segment:
        """Raw fields, or fields near what the connection waits for."""
        tcp = self.tcp
        flags = ACK | draw.flags & (PSH if draw.kind & 15 else PSH | FIN | SYN | URG)
        if draw.flags & 0xC0 == 0 and draw.kind % 3 == 0:
            flags = draw.flags  # any of the 64 sets
        seq, ack = self._seq(draw), self._ack(draw)
        length = draw.length >> (draw.shape & 15)
        opens = tcp.state in (State.LISTEN, State.SYN_SENT) and flags & SYN
        start = 0 if opens else diff(seq, add(tcp.irs, 1)) % _PERIOD
        wnd = draw.wnd if draw.shape & 0x70 else (0, 1, tcp.mss, 0xFFFF)[draw.wnd & 3]
        options = self._options(draw) if draw.options else None
        return Segment(seq, ack, flags, wnd, _STREAM[start : start + length], options, draw.more)

    def _seq(self, draw: Draw) -> int:
        tcp, choice = self.tcp, draw.seq_from & 7
        near = draw.seq_off >> (draw.seq_from >> 3 & 15)
        if choice < 4:
            return add(tcp.rcv_nxt, near if choice < 2 else 0)
        if choice < 6:
            return add(tcp.rcv_nxt, tcp.rcv_wnd + near)
        return draw.raw if choice == 6 else add(tcp.rcv_nxt, draw.seq_off * max(tcp.mss, 1))

    def _ack(self, draw: Draw) -> int:
        tcp, choice = self.tcp, draw.ack_from & 7
        near = draw.ack_off >> (draw.ack_from >> 3 & 15)
        if choice < 3:
            return add(tcp.snd_una, near if choice else 0)
        if choice < 5:
            return add(tcp.snd_nxt, near if choice == 3 else 0)
        if choice == 5:
            return add(tcp.snd_una, draw.more % (diff(tcp.snd_nxt, tcp.snd_una) + 1))
        return draw.raw if choice == 6 else add(tcp.snd_una, near - tcp.max_snd_wnd)

    def _options(self, draw: Draw) -> Options:
        choice = draw.options
        options = Options()
        if choice & 0x07:
            # Mostly a clock that goes on; else it stands, leaps or goes back.
            self._clock = add(self._clock, (1, 0, 10, 10, draw.more, -draw.more, draw.raw)[(choice & 7) - 1])
            echo = (self._stamp, self._stamp, draw.raw, 0)[draw.shape >> 4 & 3]
            options.timestamp = self._clock, echo
        if choice & 0x18 and choice & 0x60:
            options.sack = tuple(self._blocks(draw, 1 + (choice >> 5) % (3 if options.timestamp else 4)))
        if choice & 0x80 and not options.sack:
            options.mss = _MSS[draw.more % 8]
            options.window_scale = draw.more % 15 if draw.more & 0x10 else None
            options.sack_permitted = bool(draw.more & 0x20)
        return options

    def _blocks(self, draw: Draw, count: int) -> Iterator[tuple[int, int]]:
        """In units of a segment, of a byte, or of far more; behind each other, reversed, empty, outside."""
        unit = (self.tcp.mss, self.tcp.mss, 1, 1 << 24)[draw.options >> 3 & 3]
        base = self.tcp.snd_una if draw.shape & 0x80 else add(self.tcp.snd_nxt, -8 * unit)
        for k in range(count):
            nibbles = draw.raw >> 8 * k
            first = add(base, (nibbles & 15) * unit)
            yield first, add(first, ((nibbles >> 4 & 7) - (1 if nibbles & 0x80 else 0)) * unit)

    # ---- the application and time --------------------------------------------------------------------------

    def _other_step(self, draw: Draw) -> None:
        choice = draw.kind - 160
        if choice < 30:
            self._call("send", self._send, draw.length >> (draw.shape & 7) if self.tcp.mss >= 64 else draw.length >> 6)
        elif choice < 55:
            self._call("receive", self._receive, draw.length << 1)
        elif choice < 60:
            self._call("close", lambda _: self.tcp.close(self.now), 0)
        elif choice == 60:
            self._call("abort", lambda _: self.tcp.abort(self.now), 0)
        elif choice == 61 and (self.tcp.state != State.CLOSED or not self._opened):
            self._call("open", lambda active: self.tcp.open(self.now, active=bool(active)), draw.length & 1)
        elif 61 < choice < 80:
            self.now += draw.raw / (1 << (draw.shape % 33))
            self._note("time passes; now %r", self.now)
        elif choice >= 80:
            self._expire(draw.wnd / 0xFFFF if draw.flags & 1 else 0.0)

    def _call(self, title: str, call: Callable[[int], None], argument: int) -> None:
        """Misuse raises OSError, and nothing else."""
        self._note("%s(%d)", title, argument)
        try:
            call(argument)
        except OSError as error:
            self._note("    %r", error)
            assert error.errno is not None

    def _send(self, length: int) -> None:
        start = self._written % _PERIOD
        taken = self.tcp.send(_STREAM[start : start + length], self.now)
        assert 0 <= taken <= length
        self._written += taken

    def _receive(self, limit: int) -> None:
        readable = self.tcp.readable
        data = self.tcp.receive(limit, self.now)
        assert len(data) == min(limit, readable)
        start = self._read % _PERIOD
        assert data == _STREAM[start : start + len(data)] or len(data) > 2 * _PERIOD, "wrong bytes are received"
        self._read += len(data)

    def _expire(self, late: float) -> None:
        """All timers that are due; there comes an end."""
        deadline = self.tcp.next_deadline()
        if deadline is None:
            return
        self.now = max(self.now, deadline) + late
        self._note("timers %s expire; now %r", [timer.name for timer in self.tcp._deadlines], self.now)
        for _ in range(_MOST_EXPIRIES):
            self.tcp.expire(self.now)
            deadline = self.tcp.next_deadline()
            if deadline is None or deadline > self.now:
                return
        raise AssertionError(f"timers expire for ever at {self.now}: {self.tcp._deadlines}")

    # ---- judging -------------------------------------------------------------------------------------------

    def _judge_outputs(self, most: int) -> None:
        tcp, segments = self.tcp, 0
        for output in tcp.take_output():
            if isinstance(output, Transition):
                self._note("    %s to %s", output.old.name, output.new.name)
                self._opened = True  # which happens once
                assert (output.old, output.new) in LEGAL, f"{name(output.old)} to {name(output.new)} is not in RFC 9293"
                if output.new in (State.LISTEN, State.SYN_RCVD):
                    self._edges = None
                if output.new == State.LISTEN:
                    self._written = tcp._send._length  # what was queued in SYN-RECEIVED may be gone
            elif isinstance(output, Segment):
                segments += 1
                self._judge_segment(output)
        assert segments <= most, f"{segments} segments at once, for one event"

    def _judge_segment(self, seg: Segment) -> None:
        if self._log is not None:
            self._note(
                "    sends [%s] seq %d ack %d wnd %d len %d %s",
                *(flag_letters(seg.flags), self._from_snd_una(seg.seq), self._from_rcv_nxt(seg.ack), seg.wnd),
                *(len(seg.data), seg.options or ""),
            )
        wire.encode(seg, 1, 2, PSEUDO)  # every field within its limits
        if seg.data:
            start = diff(seg.seq, add(self.tcp.iss, 1)) % _PERIOD
            assert seg.data == _STREAM[start : start + len(seg.data)], "wrong bytes are sent"
            assert len(seg.data) <= self._config.send_mss
        if seg.options is not None and seg.options.timestamp is not None:
            self._stamp = seg.options.timestamp[0]

    def _judge(self) -> None:
        """What must hold whenever the TCP is not at work; memory within its bounds."""
        tcp = self.tcp
        deadline = tcp.next_deadline()
        assert deadline is None or math.isfinite(deadline), f"a deadline of {deadline}"
        in_flight = diff(tcp.snd_nxt, tcp.snd_una)
        assert in_flight >= 0, f"SND.NXT is {-in_flight} before SND.UNA"
        for timer in tcp._deadlines:
            assert _MAY_RUN[timer](tcp), f"{timer.name} runs in {tcp.state.name} with {in_flight} in flight"
        self._judge_memory()
        if tcp.state == State.CLOSED:
            assert deadline is None, "a timer runs in CLOSED"
            return
        assert tcp._deadlines or not in_flight, f"{in_flight} in flight and no timer runs"
        self._judge_send_buffer()
        if tcp.state not in (State.LISTEN, State.SYN_SENT):
            self._judge_edges()
            self._judge_receive_buffer()

    def _judge_edges(self) -> None:
        tcp = self.tcp
        ours, theirs = add(tcp.rcv_nxt, tcp.rcv_wnd), add(tcp.snd_una, tcp.snd_wnd)
        if self._edges is not None:
            rcv_nxt, last, furthest = self._edges
            assert le(rcv_nxt, tcp.rcv_nxt), f"RCV.NXT went back by {diff(rcv_nxt, tcp.rcv_nxt)}"
            assert le(last, ours), f"the receive window's right edge went left by {diff(last, ours)}"
            theirs = furthest if lt(theirs, furthest) else theirs
        if tcp.state != State.SYN_RCVD:
            beyond = diff(tcp.snd_nxt, theirs)
            assert beyond <= 1, f"{beyond} bytes were sent beyond every window that was offered"
        self._edges = tcp.rcv_nxt, ours, theirs

    def _judge_memory(self) -> None:
        tcp, ahead = self.tcp, self.tcp._receive._ahead
        held = tcp.readable + sum(len(data) for _, data in ahead)
        most = self._config.receive_buffer + (1 << tcp.rcv_wscale) - 1  # the window's unit
        assert held <= most, f"{held} bytes received are held, in a buffer of {self._config.receive_buffer}"
        assert tcp._send._length <= self._config.send_buffer
        assert len(ahead) <= _MAX_BLOCKS
        assert len(tcp._receive._ranges) <= len(ahead) + 1  # a FIN
        assert len(tcp._send.records) <= self._config.send_buffer + 2
        assert len(tcp._challenges) <= _MAX_CHALLENGES

    def _judge_send_buffer(self) -> None:
        """The records are what is in flight, without a gap, and the scoreboard counts them right."""
        tcp, buffer = self.tcp, self.tcp._send
        records = buffer.records
        if not records:
            assert tcp.snd_una == tcp.snd_nxt or tcp.state == State.LISTEN
            assert (buffer.in_flight, buffer.sacked, buffer.lost_records) == (0, 0, 0)
            return
        assert (records[0].seq, records[-1].end) == (tcp.snd_una, tcp.snd_nxt)
        assert all(a.end == b.seq for a, b in pairwise(records))
        assert all(record.length > 0 for record in records)
        assert buffer.sacked == sum(record.sacked for record in records)
        assert buffer.lost_records == sum(record.lost for record in records)
        assert not any(record.lost and record.sacked for record in records)
        assert buffer.in_flight == sum(r.length for r in records if not (r.lost or r.sacked))
        assert 1 <= tcp._congestion.cwnd <= 1 << 40

    def _judge_receive_buffer(self) -> None:
        """What is ahead of the gap is in order, without overlaps, in the window; SACK tells of just that, and a FIN."""
        tcp, ahead = self.tcp, self.tcp._receive._ahead
        told = sum(diff(behind, first) for first, behind in tcp._receive._ranges)
        fin = tcp._peer_fin is not None and lt(tcp.rcv_nxt, tcp._peer_fin)
        assert told == sum(len(data) for _, data in ahead) + fin
        if not ahead:
            return
        assert lt(tcp.rcv_nxt, ahead[0][0])
        assert all(le(add(a, len(data)), b) for (a, data), (b, _) in pairwise(ahead))
        assert le(add(ahead[-1][0], len(ahead[-1][1])), add(tcp.rcv_nxt, tcp.rcv_wnd))

    # ---- telling -------------------------------------------------------------------------------------------

    def _note(self, line: str, *values: object) -> None:
        if self._log is not None:
            self._log.append(line % values)

    def _from_rcv_nxt(self, seq: int) -> int:
        return diff(seq, self.tcp.rcv_nxt)

    def _from_snd_una(self, seq: int) -> int:
        return diff(seq, self.tcp.snd_una)


# ---- failures ----------------------------------------------------------------------------------------------

RUN: dict[str, Callable[[bytes, list[str] | None], int]] = {"codec": run_codec, "sequence": run_sequence}
DRAW: dict[str, Callable[[Random], bytes]] = {"codec": draw_codec, "sequence": draw_sequence}


class Found(Exception):
    """A case that fails, cut down; the message tells its steps and how to run it again."""


def execute(what: str, case: bytes) -> int:
    """Run a case; returns its executions. Raises Found."""
    try:
        return RUN[what](case, None)
    except Exception as error:
        short = minimized(what, case, type(error))
        raise Found(report(what, short)) from error


def minimized(what: str, case: bytes, kind: type[Exception]) -> bytes:
    """A part of the case that fails in the same way: without the steps that can be spared."""
    head, size = (_HEAD.size, _STEP.size) if what == "sequence" else (0, 1)
    attempts, chunk = 0, max((len(case) - head) // size // 2, 1)
    while chunk and attempts < _ATTEMPTS:
        at = head
        while at < len(case) and attempts < _ATTEMPTS:
            attempts += 1
            shorter = case[:at] + case[at + chunk * size :]
            if _fails(what, shorter, kind):
                case = shorter
            else:
                at += chunk * size
        chunk //= 2
    return case


def _fails(what: str, case: bytes, kind: type[Exception]) -> bool:
    try:
        RUN[what](case, None)
    except Exception as error:
        return type(error) is kind
    return False


def report(what: str, case: bytes) -> str:
    """The steps of a case, how it ends, and how to run it again. Numbers count from RCV.NXT and SND.UNA."""
    log: list[str] = []
    try:
        RUN[what](case, log)
        log.append("it passes")
    except Exception as error:
        log.append(f"{type(error).__name__}: {error}")
    log.append(f"to see it again: python -m tests.tcp.fuzz --replay {what}:{case.hex()}")
    return "\n".join(log)


# ---- the command -------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was done so far; it is printed now and then."""

    goal: int
    what: str = ""
    executions: int = 0
    cases: int = 0
    start: float = 0.0
    due: float = 0.0

    def begin(self, what: str) -> None:
        self.what, self.executions, self.cases = what, 0, 0
        self.start = time.monotonic()
        self.due = self.start + _LINES

    def add(self, executions: int) -> None:
        self.executions += executions
        self.cases += 1
        if not self.cases & 0xFF and time.monotonic() >= self.due:
            self.due += _LINES
            self.show()

    def show(self) -> None:
        took = max(time.monotonic() - self.start, 1e-9)
        print(
            f"{self.what}: {self.executions:,} of {self.goal:,} executions in {self.cases:,} cases, "
            f"{took:,.0f} s ({self.executions / took:,.0f}/s)",
            flush=True,
        )


def fuzz(what: str, seed: int, tally: Tally) -> None:
    """Random cases until there are enough executions. Raises Found."""
    random = Random(seed)
    tally.begin(what)
    while tally.executions < tally.goal:
        tally.add(execute(what, DRAW[what](random)))


def main() -> int:
    options = _options()
    if options.replay is not None:
        what, _, case = options.replay.partition(":")
        print(report(what, bytes.fromhex(case)))
        return 0
    tally = Tally(max(options.executions // len(RUN), 1))
    try:
        for what in RUN:
            fuzz(what, options.seed, tally)
            tally.show()
    except Found as found:
        print(f"found from seed {options.seed}, after {tally.executions:,} executions:\n{found}")
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.tcp.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--executions", type=int, default=200_000, help="bytes decoded and segments delivered, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", metavar="CASE", help="run one case, and show it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
