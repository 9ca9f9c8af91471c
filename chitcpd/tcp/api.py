"""The contract between a TCP and whoever drives it. Somebody's own TCP needs this file and no other.

A TCP is a subclass of TcpConnection: one object is one connection. It does no I/O and reads no clock. Its driver
(the daemon, the simulator, a test) calls it in this order:

    connection = YourTcp(iss=..., config=...)
    connection.open(now, active=True or False)           once; a passive one then waits in LISTEN for its SYN

    then, as things happen, any of
        segment_arrives(segment, now)                    from the network
        send(data, now)  receive(limit, now)             from the application
        close(now)  abort(now)  reconfigure(config, now)
        expire(now)                                      once next_deadline() is reached; it calls timeout

    and after each of these
        take_output()                                    the segments to send and the states passed through, in order
        next_deadline()                                  when to call expire, if nothing else happens before
        readable, writable, at_eof, error                whom of the application to wake

Inside, write as the RFC reads: "form a reset segment and send it" is `self._emit(...)`, "enter the CLOSED state" is
`self._enter(State.CLOSED)`, "start the timer" is `self._arm(...)`. Times are seconds as float from any fixed point.

Two rules keep one bad connection from hurting another:

* A segment never raises: it is answered or dropped. Whatever else a method raises is a fault of this TCP: the daemon
  logs where, resets the connection and serves on.
* Misuse by the application raises OSError with an errno of the POSIX call (ENOTCONN, EPIPE, EISCONN).

Section numbers are RFC 9293's.
"""

from __future__ import annotations

import errno
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

try:  # what a compiler is told of a class (hatch_build.py): need not be there
    from mypy_extensions import mypyc_attr as mypyc_attr
except ImportError:

    def mypyc_attr(*_, **__):  # type: ignore[misc, no-untyped-def]
        """Leave the class as it is."""
        return lambda cls: cls


# Control bits (3.1). Plain ints: testing a bit of an IntFlag takes 15 times as long.
FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


class State(IntEnum):
    """The connection states (3.3.2), numbered as the C chiTCP numbers them."""

    CLOSED = 0
    LISTEN = 1
    SYN_RCVD = 2
    SYN_SENT = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    TIME_WAIT = 9
    LAST_ACK = 10


class Timer(IntEnum):
    """The timers that a connection may arm; each has one deadline or none."""

    RETRANSMISSION = 0
    PERSIST = 1
    DELAYED_ACK = 2
    TIME_WAIT = 3
    REORDERING = 4  # RFC 8985 §6.2: how long to wait for what may only be late
    PROBE = 5  # RFC 8985 §7: the tail loss probe
    KEEP_ALIVE = 6
    USER_TIMEOUT = 7


@dataclass(slots=True)
class Options:
    """The options of a segment (3.2) that this project knows; None: absent."""

    mss: int | None = None  # bytes; only in a segment with SYN
    window_scale: int | None = None  # bits to shift (RFC 7323 §2); only with SYN
    sack_permitted: bool = False  # RFC 2018 §2; only with SYN
    sack: tuple[tuple[int, int], ...] = ()  # blocks (first, behind the last), newest first (RFC 2018 §3)
    timestamp: tuple[int, int] | None = None  # TSval, TSecr (RFC 7323 §3)


@dataclass(slots=True)
class Segment:
    """The SEG.* variables of the RFC. Ports and checksum belong to the daemon."""

    seq: int  # 0 to 2^32 - 1, as all sequence numbers
    ack: int = 0  # meaningful if flags has ACK
    flags: int = 0
    wnd: int = 0  # as it stands in the header: 0 to 65535
    data: bytes = b""
    options: Options | None = None
    up: int = 0  # urgent pointer, meaningful if flags has URG
    size: int = 0  # not 0: a burst, which stands for several segments, each of so many bytes of data but the last

    def __len__(self) -> int:
        """SEG.LEN: data, and one each for SYN and FIN (3.4)."""
        return len(self.data) + (1 if self.flags & SYN else 0) + (1 if self.flags & FIN else 0)

    def __bool__(self) -> bool:
        """True: a segment is something, also if it takes no sequence numbers."""
        return True

    def cut(self) -> list[Segment]:
        """The segments that it stands for, in order: PSH and FIN are the last one's."""
        if not self.size:
            return [self]
        last = max(len(self.data) - 1, 0) // self.size * self.size
        return [
            Segment(
                (self.seq + at) & 0xFFFFFFFF,
                self.ack,
                self.flags if at == last else self.flags & ~(PSH | FIN),
                self.wnd,
                self.data[at : at + self.size],
                self.options,
                self.up,
            )
            for at in range(0, last + 1, self.size)
        ]


@dataclass(slots=True)
class Variables:
    """The variables of 3.3.1, as the debugger and the trace show them."""

    state: State
    iss: int
    irs: int
    snd_una: int
    snd_nxt: int
    snd_wnd: int
    rcv_nxt: int
    rcv_wnd: int


@dataclass(slots=True)
class Info:
    """What a TCP knows of itself beyond Variables, for TCP_INFO, the trace and `chitcpd ctl sockets`.

    None: it does not tell, or there is none, as ssthresh before the first loss.
    """

    mss: int | None = None  # bytes of data that a segment may carry
    cwnd: int | None = None  # bytes
    ssthresh: int | None = None  # bytes
    srtt: float | None = None  # seconds, as all times here
    rttvar: float | None = None
    rto: float | None = None
    min_rtt: float | None = None
    in_flight: int | None = None  # bytes that are believed to be in the network: RFC 6675's pipe
    lost: int | None = None  # segments that are taken to be lost, and not sent again yet
    sacked: int | None = None  # segments
    backoff: int | None = None  # expiries of the retransmission timer since the peer last acknowledged something
    snd_wscale: int | None = None  # RFC 7323 §2.2, as agreed on
    rcv_wscale: int | None = None
    sack: bool | None = None  # agreed on
    timestamps: bool | None = None  # agreed on
    congestion: str | None = None  # the name of the congestion control
    recovery: str | None = None  # "open", "disorder", "recovery" (after news of a loss) or "loss" (after a time-out)


@dataclass(slots=True)
class Transition:
    """A change of state, with the variables as they were at that moment."""

    old: State
    new: State
    variables: Variables
    snd: bytes = b""  # unacknowledged and unread at that moment, if the connection is `watched`
    rcv: bytes = b""


@dataclass(slots=True)
class Moment:
    """How things stood when the segment behind it was sent; only if the connection is `watched`."""

    variables: Variables
    snd: bytes
    rcv: bytes


@dataclass(slots=True)
class Expiry:
    """A timer that has expired, for the trace."""

    timer: Timer


_MOST_OUTPUTS = 1_000_000  # of one event: the largest buffer, in segments of a kilobyte

Output = Segment | Transition | Expiry | Moment


Seconds = float
Bytes = int


@dataclass(slots=True, kw_only=True)
class Config:
    """The settings of a connection. The defaults are the profile `modern`.

    A field's type tells its unit.
    """

    mss: Bytes = 1460  # the largest segment we can take, announced with SYN (3.7.1)
    send_mss: Bytes = 1460  # the largest segment we may send, whatever the peer announces: the link's MTU less 40
    send_buffer: Bytes = 1 << 20
    receive_buffer: Bytes = 1 << 20  # also the largest window
    window_scaling: bool = True  # RFC 7323 §2
    timestamps: bool = True  # RFC 7323 §3
    sack: bool = True  # RFC 2018
    rack: bool = True  # RFC 8985, if SACK is on; else RFC 6675 alone says what is lost
    rto_initial: Seconds = 1.0  # RFC 6298 §2.1
    rto_min: Seconds = 0.2  # RFC 6298 §2.4 says 1 s; every modern stack has 200 ms
    rto_max: Seconds = 60.0  # RFC 6298 §2.5
    clock_granularity: Seconds = 0.001  # RFC 6298 §2, G
    retries: int = 15  # retransmissions of one segment until the connection is given up (R2, 3.8.3)
    syn_retries: int = 7  # the same for SYN: three minutes at least (MUST-23)
    user_timeout: Seconds | None = None  # give up when data was not acknowledged for so long (3.9.1.1)
    keep_alive: Seconds | None = None  # probe a connection that was idle for so long (3.8.4); None: never (MUST-25)
    keep_alive_interval: Seconds = 75.0  # between probes that are not answered
    keep_alive_probes: int = 9  # that are not answered, until the connection is given up
    msl: Seconds = 1.0  # maximum segment lifetime; TIME-WAIT lasts two. The RFC says 2 minutes
    delayed_ack: Seconds = 0.04  # 0: acknowledge each segment at once (3.8.6.3: at most 0.5)
    nagle: bool = True  # 3.7.4
    congestion: str = "cubic"  # a name in chitcpd/tcp/congestion.py
    initial_window: int = 10  # segments, RFC 6928


def classic() -> Config:
    """The constants of the C chiTCP."""
    return Config(
        mss=536,
        send_mss=536,
        send_buffer=4096,
        receive_buffer=4096,
        window_scaling=False,
        timestamps=False,
        sack=False,
        clock_granularity=0.05,
        msl=0.0,
        delayed_ack=0.0,
        nagle=False,
        congestion="none",
    )


PROFILES = {"modern": Config, "classic": classic}


# What the author of a TCP must write: the abstract methods and properties of TcpConnection.
REQUIRED = ("abort", "at_eof", "close", "open", "readable", "receive", "segment_arrives", "send", "timeout", "writable")


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpConnection(ABC):
    """One TCP connection. Subclass it; write the abstract methods; call the ones with an underscore."""

    state: State
    error: int | None  # errno, once the connection has failed: ECONNREFUSED, ECONNRESET, ETIMEDOUT
    watched: bool = False  # by a debugger, says the driver: outputs tell how things stood, and what the buffers held
    takes_bursts: ClassVar[bool] = False  # segments that come in a row may arrive as one, with Segment.size set

    def __init__(self, *, iss: int, config: Config) -> None:
        """`iss`: the initial send sequence number, chosen outside (RFC 6528)."""
        self.config = config
        self.state = State.CLOSED
        self.error = None
        # 3.3.1. Keep these up to date: the debugger and the trace read them.
        self.iss = iss
        self.irs = 0
        self.snd_una = iss
        self.snd_nxt = iss
        self.snd_wnd = 0
        self.rcv_nxt = 0
        self.rcv_wnd = min(config.receive_buffer, 0xFFFF)  # more needs window scaling
        self._outputs: list[Output] = []
        self._deadlines: dict[Timer, float] = {}

    # ---- the events, for the author of a TCP to write ------------------------------------------------------

    @abstractmethod
    def open(self, now: float, *, active: bool) -> None:
        """OPEN (3.10.1): send a SYN if active, else enter LISTEN. Raises OSError(EISCONN) the second time."""

    @abstractmethod
    def send(self, data: bytes | memoryview, now: float) -> int:
        """SEND (3.10.2): take bytes to be sent; return how many were taken, 0 if the buffer is full.

        Raises OSError: EPIPE after close, ENOTCONN before open, `error` once that is set.
        """

    @abstractmethod
    def receive(self, limit: int, now: float) -> bytes:
        """RECEIVE (3.10.3): hand out at most `limit` bytes in order; b"" if there are none now.

        Raises OSError: `error`, once that is set and all was handed out.
        """

    @abstractmethod
    def close(self, now: float) -> None:
        """CLOSE (3.10.4): the application will send no more; it may still receive. Twice is harmless."""

    @abstractmethod
    def abort(self, now: float) -> None:
        """ABORT (3.10.5): reset the peer where the RFC says so, and be CLOSED."""

    @abstractmethod
    def segment_arrives(self, seg: Segment, now: float) -> None:
        """SEGMENT ARRIVES (3.10.7): any segment at all, in any state, CLOSED included. Never raises."""

    @abstractmethod
    def timeout(self, timer: Timer, now: float) -> None:
        """A timer that was armed has expired (3.10.8); it is disarmed already."""

    # ---- levels, for the socket layer ----------------------------------------------------------------------

    @property
    @abstractmethod
    def readable(self) -> int:
        """Bytes that receive would hand out now."""

    @property
    @abstractmethod
    def writable(self) -> int:
        """Bytes that send would take now; 0 before ESTABLISHED, for who waits to write waits for that too."""

    @property
    @abstractmethod
    def at_eof(self) -> bool:
        """The peer has closed, and all that came before its FIN was received by the application."""

    @property
    def unacknowledged(self) -> bytes:
        """What was taken by send and not acknowledged yet, for the debugger; empty if this TCP doesn't tell."""
        return b""

    @property
    def unread(self) -> bytes:
        """What receive would hand out, for the debugger; empty if this TCP doesn't tell."""
        return b""

    # ---- more, for a TCP that can --------------------------------------------------------------------------

    def info(self) -> Info:
        """What this TCP tells of itself. Cheap: it may be asked after each segment."""
        return Info()

    def reconfigure(self, config: Config, now: float) -> None:
        """The application has changed its socket options: from now on, these settings hold.

        Called after open; what the SYNs have said stays. Raises OSError(ENOENT) if there is no such congestion control.
        """
        self.config = config

    # ---- effects, for the author of a TCP to call ----------------------------------------------------------

    def _emit(self, seg: Segment) -> None:
        """Send a segment, or a burst, which is cut late, as TSO does; no burst while `watched`: each has its moment.

        Raises RuntimeError when there is no end to them: else memory would be full first.
        """
        if len(self._outputs) >= _MOST_OUTPUTS:
            raise RuntimeError(f"one event has led to {_MOST_OUTPUTS:,} segments and more: does it never end?")
        if self.watched:
            self._outputs.append(Moment(self.variables(), self.unacknowledged, self.unread))
        self._outputs.append(seg)

    def _enter(self, state: State) -> None:
        """Change the state. CLOSED stops all timers.

        From TIME-WAIT, a SYN that leads to CLOSED is given to the listener afterwards: so it may reopen (MAY-2).
        """
        old, self.state = self.state, state
        if state == State.CLOSED:
            self._deadlines.clear()
        transition = Transition(old, state, self.variables())
        if self.watched:
            transition.snd, transition.rcv = self.unacknowledged, self.unread
        self._outputs.append(transition)

    def _fail(self, error: int) -> None:
        """The connection is lost: tell the application `error`, be CLOSED."""
        self.error = error
        if self.state != State.CLOSED:
            self._enter(State.CLOSED)

    def _arm(self, timer: Timer, deadline: float) -> None:
        """Start a timer, or move it if it runs."""
        self._deadlines[timer] = deadline

    def _disarm(self, timer: Timer) -> None:
        """Stop a timer, if it runs."""
        self._deadlines.pop(timer, None)

    # ---- final, for the driver -----------------------------------------------------------------------------

    def variables(self) -> Variables:
        """The variables of 3.3.1 as they are now."""
        return Variables(
            self.state,
            self.iss,
            self.irs,
            self.snd_una,
            self.snd_nxt,
            self.snd_wnd,
            self.rcv_nxt,
            self.rcv_wnd,
        )

    def take_output(self, *, cut: bool = True) -> list[Output]:
        """All outputs since the last call, in the order in which they happened; with `cut`, no bursts but segments."""
        outputs, self._outputs = self._outputs, []
        if cut and any(isinstance(output, Segment) and output.size for output in outputs):
            return [one for output in outputs for one in (output.cut() if isinstance(output, Segment) else (output,))]
        return outputs

    def next_deadline(self) -> float | None:
        """The time of the earliest timer, or None if no timer runs."""
        return min(self._deadlines.values()) if self._deadlines else None

    def expire(self, now: float) -> None:
        """Call timeout for every timer whose deadline has come, the earliest first; each once, even if armed again."""
        for timer in sorted(self._deadlines, key=self._deadlines.__getitem__):
            if self._deadlines.get(timer, math.inf) <= now:  # an earlier one may have stopped or moved it
                del self._deadlines[timer]
                self._outputs.append(Expiry(timer))
                self.timeout(timer, now)


def not_connected() -> OSError:
    """The error for an application that uses a connection that isn't one."""
    return OSError(errno.ENOTCONN, "the connection is not open")
