"""A TCP to be written. `testbed grade FILE` says what works, and what should happen where it does not.

One object of this class is one connection. It does no I/O and reads no clock: it is told what happens (a segment
arrives, the application sends, a timer expires), always with the time, and says what to send. All that it inherits is
in chitcpd/tcp/api.py: read that first. Numbers in parentheses are sections of RFC 9293.

The order in which it is best written, by the grader's stages:

  1 connection           open, segment_arrives in CLOSED, LISTEN, SYN-SENT and SYN-RECEIVED
  2 data                 send, receive, segment_arrives in ESTABLISHED: in order, without losses
  3 close                close, the states after ESTABLISHED, the timer TIME_WAIT
  4 loss                 the timer RETRANSMISSION: send again what was not acknowledged
  5 reordering           keep what comes ahead of a gap
  6 flow control         the peer's window, the timer PERSIST, our own window
  7 RTO                  measure the round trip (RFC 6298)
  8 congestion control   slow start, congestion avoidance, fast retransmit (RFC 5681)
  9 robustness           resets, and segments that make no sense

What you may call, from the base class:

  self._emit(Segment(seq=..., ack=..., flags=ACK, wnd=self.rcv_wnd, data=b"..."))     send a segment
  self._enter(State.ESTABLISHED)                        change the state; CLOSED stops all timers
  self._fail(errno.ECONNRESET)                          the connection is lost: tell the application, and be CLOSED
  self._arm(Timer.RETRANSMISSION, now + 1.0)            start a timer, or move it; `timeout` is called when it expires
  self._disarm(Timer.RETRANSMISSION)                    stop it
  print(...)                                            what you print, the grader shows beside a failed test

The variables of 3.3.1 are there already, keep them up to date: self.iss, self.irs, self.snd_una, self.snd_nxt,
self.snd_wnd, self.rcv_nxt, self.rcv_wnd, and self.state.
"""

import errno

from chitcpd.tcp.api import ACK, FIN, RST, SYN, Config, Options, Segment, State, TcpConnection, Timer


def add(seq: int, count: int) -> int:
    """The sequence number that comes `count` after `seq`: they go round at 2^32 (3.4)."""
    return (seq + count) % 2**32


def diff(a: int, b: int) -> int:
    """How far `a` is ahead of `b`; negative if it is behind. Never compare sequence numbers with < and > (3.4)."""
    return (a - b + 2**31) % 2**32 - 2**31


class MyTcp(TcpConnection):
    """One connection."""

    def __init__(self, *, iss: int, config: Config) -> None:
        """`iss`: the initial sequence number to use (3.4.1). `config`: sizes and times, see Config in the contract."""
        super().__init__(iss=iss, config=config)
        self._to_send = bytearray()  # what the application has sent and the peer has not acknowledged
        self._to_read = bytearray()  # what has come in order and the application has not received

    # ---- what the application calls ------------------------------------------------------------------------

    def open(self, now: float, *, active: bool) -> None:
        """OPEN (3.10.1). Stage: connection.

        Passive: enter LISTEN and wait. Active: send <SEQ=ISS><CTL=SYN> with the option Options(mss=self.config.mss)
        (3.7.1), then SND.UNA = ISS, SND.NXT = ISS + 1, enter SYN-SENT. A SYN may be lost (stage loss): arm
        Timer.RETRANSMISSION. Opened already: raise OSError(errno.EISCONN, "...").
        """

    def send(self, data: bytes | memoryview, now: float) -> int:
        """SEND (3.10.2). Stage: data.

        Take as much as fits into config.send_buffer and return how much that was; send what may be sent now, in
        segments of at most the effective send MSS (3.7.1), and with PSH on the last one. Before ESTABLISHED, only keep
        it. Later: no more than the peer's window (3.8.6, flow control), nor than the congestion window (RFC 5681).
        In CLOSED and LISTEN: raise OSError(errno.ENOTCONN, "..."); after close: EPIPE; after a failure: self.error.
        """
        return 0

    def receive(self, limit: int, now: float) -> bytes:
        """RECEIVE (3.10.3). Stage: data.

        Hand out at most `limit` bytes of what has come in order, b"" if there is nothing now. There is more room then:
        our window opens, and the peer must be told if that is worth a segment (3.8.6.2.2, flow control). If the
        connection has failed and all was handed out: raise OSError(self.error, "...").
        """
        return b""

    def close(self, now: float) -> None:
        """CLOSE (3.10.4). Stage: close.

        The application will send no more. The FIN goes after all that waits, takes a sequence number, and is sent again
        if it is lost. ESTABLISHED leads to FIN-WAIT-1, CLOSE-WAIT to LAST-ACK; LISTEN and SYN-SENT to CLOSED. In
        SYN-RECEIVED it waits for ESTABLISHED. A second call does nothing.
        """

    def abort(self, now: float) -> None:
        """ABORT (3.10.5). Stage: robustness.

        In SYN-RECEIVED, ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2 and CLOSE-WAIT send <SEQ=SND.NXT><CTL=RST>. Then be CLOSED.
        """
        if self.state != State.CLOSED:
            self._enter(State.CLOSED)

    @property
    def readable(self) -> int:
        """Bytes that receive would hand out now. Stage: data."""
        return len(self._to_read)

    @property
    def writable(self) -> int:
        """Bytes that send would take now; 0 but in ESTABLISHED and CLOSE-WAIT. Stage: data."""
        return 0

    @property
    def at_eof(self) -> bool:
        """The peer's FIN has come, and all before it was received by the application. Stage: close."""
        return False

    # ---- what the network brings ---------------------------------------------------------------------------

    def segment_arrives(self, seg: Segment, now: float) -> None:
        """SEGMENT ARRIVES (3.10.7): any segment, in any state. It never raises: a bad segment is answered, or dropped.

        `seg.flags & ACK` tests a control bit; len(seg) is SEG.LEN, where SYN and FIN count one each. `seg.options` may
        be None; `seg.options.mss` is what the peer takes, None if it names none: then it is 536.
        """
        if self.state == State.CLOSED:
            self._in_closed(seg)
        elif self.state == State.LISTEN:
            self._in_listen(seg, now)
        elif self.state == State.SYN_SENT:
            self._in_syn_sent(seg, now)
        else:
            self._in_other_states(seg, now)

    def _in_closed(self, seg: Segment) -> None:
        """3.10.7.1. Stage: robustness.

        A RST is dropped. All else is answered with a reset: <SEQ=SEG.ACK><CTL=RST> if it has ACK, else
        <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>.
        """

    def _in_listen(self, seg: Segment, now: float) -> None:
        """3.10.7.2. Stage: connection.

        RST: drop. ACK: a reset, as above. SYN: IRS = SEG.SEQ, RCV.NXT = SEG.SEQ + 1, answer with
        <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>, SND.NXT = ISS + 1, SND.UNA = ISS, enter SYN-RECEIVED.
        """

    def _in_syn_sent(self, seg: Segment, now: float) -> None:
        """3.10.7.3. Stage: connection.

        First the ACK: if it is not of our SYN, a reset. Second RST: with a good ACK the connection is refused, else
        drop. Fourth SYN: with an ACK of ours, enter ESTABLISHED and acknowledge; without, both have opened at once:
        enter SYN-RECEIVED and send SYN,ACK.
        """

    def _in_other_states(self, seg: Segment, now: float) -> None:
        """3.10.7.4: eight checks, in this order.

        1 the sequence number: does some of it lie in our window? If not: an ACK, and drop it   data, robustness
        2 RST: believe it only with SEG.SEQ = RCV.NXT; elsewhere in the window send an ACK      robustness
        4 SYN: an ACK (RFC 5961); in SYN-RECEIVED after a passive open, back to LISTEN          robustness
        5 ACK: none: drop. SYN-RECEIVED: it leads to ESTABLISHED. Advance SND.UNA, stop or      connection, data,
          restart the retransmission timer, take the window if the segment is not an old one,   loss, flow control
          count duplicates; if it covers our FIN: to FIN-WAIT-2, TIME-WAIT or CLOSED            close
        7 the text: what comes next is for the application, what comes ahead is kept            data, reordering
        8 FIN: RCV.NXT advances over it; to CLOSE-WAIT, CLOSING or TIME-WAIT                    close

        Then acknowledge what has come (3.8.6.3), and send what may be sent now.
        """

    # ---- what time brings ----------------------------------------------------------------------------------

    def timeout(self, timer: Timer, now: float) -> None:
        """A timer that was armed has expired (3.10.8); it is disarmed already.

        RETRANSMISSION: send the oldest segment again, twice the time-out (RFC 6298 §5.4 to §5.6); after config.retries
        of them self._fail(errno.ETIMEDOUT). Stages: loss, RTO.
        PERSIST: a byte into a closed window (3.8.6.1). Stage: flow control.
        DELAYED_ACK: send the ACK that has waited for config.delayed_ack (3.8.6.3). Stage: data.
        TIME_WAIT: 2 * config.msl have passed: be CLOSED. Stage: close.
        """


# What the methods above will need; `ruff` and your editor may call them unused until then.
__all__ = ["ACK", "FIN", "RST", "SYN", "MyTcp", "Options", "add", "diff", "errno"]
