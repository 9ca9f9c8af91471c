"""A TCP in one file: it sends a segment, waits until that is acknowledged, and sends the next.

It is slow (a segment per round trip) and forgetful (what comes out of order is dropped, and comes again), but right.
Numbers in parentheses are sections of RFC 9293. To make it better: measure the round trip (RFC 6298), keep what comes
out of order (3.10.7.4), have more than one segment in flight (RFC 5681).
"""

import errno

from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, Config, Options, Segment, State, TcpConnection, Timer

CLOSED, LISTEN, SYN_RCVD, SYN_SENT = State.CLOSED, State.LISTEN, State.SYN_RCVD, State.SYN_SENT
ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2 = State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2
CLOSE_WAIT, CLOSING, TIME_WAIT, LAST_ACK = State.CLOSE_WAIT, State.CLOSING, State.TIME_WAIT, State.LAST_ACK
# How a connection ends (figure 5): when the peer's FIN comes, and when ours is acknowledged.
FIN_COMES = {ESTABLISHED: CLOSE_WAIT, FIN_WAIT_1: CLOSING, FIN_WAIT_2: TIME_WAIT}
FIN_ACKNOWLEDGED = {FIN_WAIT_1: FIN_WAIT_2, CLOSING: TIME_WAIT, LAST_ACK: CLOSED}
MAY_SEND = (ESTABLISHED, CLOSE_WAIT)


def diff(a: int, b: int) -> int:
    """How far `a` is ahead of `b` on the circle of 2^32 sequence numbers (3.4), where < and > mean nothing."""
    return (a - b + 2**31) % 2**32 - 2**31


class StopAndWait(TcpConnection):
    """One connection. What each public method is for, the contract says."""

    def __init__(self, *, iss: int, config: Config) -> None:
        super().__init__(iss=iss, config=config)
        self._waiting = bytearray()  # what the application has sent and the peer has not acknowledged
        self._ready = bytearray()  # what the peer has sent and the application has not received
        self._flight: tuple[int, int] | None = None  # the segment in flight: SYN, FIN or 0, and bytes of _waiting
        self._time_out, self._tries, self._mss = config.rto_initial, 0, 0
        self._passive = self._closing = self._fin_acknowledged = self._fin_received = False
        self._capacity = self.rcv_wnd = min(config.receive_buffer, 0xFFFF)  # more would need window scaling

    # ---- the application calls (3.10.1 to 3.10.6) ----------------------------------------------------------
    def open(self, now: float, *, active: bool) -> None:
        if self.state != CLOSED:
            raise OSError(errno.EISCONN, "the connection is open already")
        self._passive = not active
        self._enter(SYN_SENT if active else LISTEN)
        if active:
            self._launch(SYN, 0, now)

    def send(self, data: bytes | memoryview, now: float) -> int:
        if self.error or self._closing or self.state in (CLOSED, LISTEN):
            raise OSError(self.error or (errno.EPIPE if self._closing else errno.ENOTCONN), "can't send")
        taken = data[: self.config.send_buffer - len(self._waiting)]
        self._waiting += taken
        self._send_next(now)
        return len(taken)

    def receive(self, limit: int, now: float) -> bytes:
        if self.error and not self._ready:
            raise OSError(self.error, "the connection has failed")
        data = bytes(self._ready[:limit])
        del self._ready[:limit]
        room = self._capacity - len(self._ready)
        if self.state in FIN_COMES and room - self.rcv_wnd >= min(self.config.mss, self._capacity // 2):
            self.rcv_wnd = room  # told only when it is worth a segment (3.8.6.2.2)
            self._send_ack()
        return data

    def close(self, now: float) -> None:
        self._closing = self.state != CLOSED  # the FIN follows what is waiting
        if self.state in (LISTEN, SYN_SENT):
            self.abort(now)
        elif self.state in MAY_SEND:
            self._enter(FIN_WAIT_1 if self.state == ESTABLISHED else LAST_ACK)
            self._send_next(now)

    def abort(self, now: float) -> None:
        if self.state in (SYN_RCVD, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT):
            self._emit(Segment(self.snd_nxt, flags=RST))
        if self.state != CLOSED:
            self._enter(CLOSED)

    readable = property(lambda self: len(self._ready))
    at_eof = property(lambda self: self._fin_received and not self._ready)
    writable = property(lambda self: self.config.send_buffer - len(self._waiting) if self.state in MAY_SEND else 0)

    # ---- a segment arrives (3.10.7) ------------------------------------------------------------------------
    def segment_arrives(self, seg: Segment, now: float) -> None:
        syn, ack, rst = seg.flags & SYN, seg.flags & ACK, seg.flags & RST
        if self.state not in (CLOSED, LISTEN, SYN_SENT):
            self._arrives_in_connection(seg, now)
        elif self.state == CLOSED or (ack and (self.state == LISTEN or seg.ack != self.snd_nxt)):
            self._refuse(seg)
        elif rst and ack:
            self._fail(errno.ECONNREFUSED)
        elif syn and not rst:
            self.irs, self.rcv_nxt, self.snd_wnd = seg.seq, (seg.seq + 1) % 2**32, seg.wnd
            self._mss = min(max((seg.options and seg.options.mss) or 536, 64), self.config.send_mss)  # 3.7.1
            self._enter(ESTABLISHED if ack else SYN_RCVD)
            if ack:
                self._acknowledged(seg, now)
                self._send_ack()
            else:  # in answer; or once more, now with an ACK: both have opened at once
                self._launch(SYN, 0, now)

    def _arrives_in_connection(self, seg: Segment, now: float) -> None:
        # First of 3.10.7.4: does some of it lie in the window? A closed or filled one still has room for an ACK.
        first = diff(seg.seq, self.rcv_nxt)
        if first >= max(self.rcv_wnd, 1) + (not len(seg) and not seg.flags & RST) or first + max(len(seg), 1) <= 0:
            if not seg.flags & RST:
                self._send_ack()
        elif seg.flags & (RST | SYN):  # second and fourth
            self._reset_or_syn_arrives(seg.flags & SYN, first == 0, now)
        elif seg.flags & ACK and self.state == SYN_RCVD and seg.ack != self.snd_nxt:  # fifth: not of our SYN,
            self._refuse(seg)
        elif seg.flags & ACK and diff(seg.ack, self.snd_nxt) > 0:  # or of what was never sent
            self._send_ack()
        elif seg.flags & ACK:
            self._acknowledged(seg, now)
            if first <= 0 and self.state in FIN_COMES:  # seventh and eighth: only what comes next is taken
                text = seg.data[-first:][: self.rcv_wnd]
                self._ready += text
                self.rcv_wnd -= len(text)
                self._fin_received = seg.flags & FIN != 0 and len(text) - first == len(seg.data)
                self.rcv_nxt = (self.rcv_nxt + len(text) + self._fin_received) % 2**32
                if self._fin_received:
                    self._enter(FIN_COMES[self.state])
            if len(seg) and self.state != CLOSED:
                self._send_ack()
        if self.state == TIME_WAIT and (seg.flags & FIN or Timer.TIME_WAIT not in self._deadlines):
            self._arm(Timer.TIME_WAIT, now + 2 * self.config.msl)  # anew if the peer has missed our last ACK

    def _reset_or_syn_arrives(self, syn: int, exact: bool, now: float) -> None:
        if self.state == SYN_RCVD and self._passive and (syn or exact):  # back to where it began (MUST-11)
            self._flight, self.snd_nxt = None, self.iss
            self._disarm(Timer.RETRANSMISSION)
            self._enter(LISTEN)
        elif syn or not exact:
            self._send_ack()  # an attacker can't know the exact number; the peer answers this with one (RFC 5961)
        elif self.state in (CLOSING, LAST_ACK, TIME_WAIT):
            self.abort(now)  # all was said: no error
        else:
            self._fail(errno.ECONNREFUSED if self.state == SYN_RCVD else errno.ECONNRESET)

    def _acknowledged(self, seg: Segment, now: float) -> None:
        acked = diff(seg.ack, self.snd_una)
        if self._flight is not None and acked > 0:
            control, length = self._flight
            del self._waiting[: min(acked, length)]
            self._fin_acknowledged = control == FIN and acked > length
            self.snd_una, self._flight = seg.ack, None  # if just a part was taken, the rest goes as a new segment
            self._time_out, self._tries = self.config.rto_initial, 0
            self._disarm(Timer.RETRANSMISSION)
        elif self.snd_wnd == 0:
            self._tries = 0  # a closed window is probed for as long as the peer answers (3.8.6.1)
            self._flight = None if seg.wnd else self._flight  # it opens: all that fits goes in place of the probe
        self.snd_wnd = seg.wnd if acked >= 0 else self.snd_wnd  # not that of an old ACK
        if self.state == SYN_RCVD:
            self._enter(ESTABLISHED)
            if self._closing:
                self._enter(FIN_WAIT_1)
        elif self._fin_acknowledged and self.state in FIN_ACKNOWLEDGED:
            self._enter(FIN_ACKNOWLEDGED[self.state])
        self._send_next(now)

    def _refuse(self, seg: Segment) -> None:
        """A reset that the sender of `seg` will believe, but never in answer to a reset (3.5.2)."""
        end = (seg.seq + len(seg)) % 2**32
        if not seg.flags & RST:
            self._emit(Segment(seg.ack, flags=RST) if seg.flags & ACK else Segment(0, end, RST | ACK))

    # ---- sending (3.8), and what time does (3.10.8) --------------------------------------------------------
    def _send_next(self, now: float) -> None:
        """Send a segment, if none is in flight and there is something to send."""
        length = min(len(self._waiting), self._mss, self.snd_wnd)
        fin = self._closing and not self._fin_acknowledged and length == len(self._waiting)
        if self._flight is None and (length or (fin and self.snd_wnd)):
            self._launch(FIN if fin and length < self.snd_wnd else 0, length, now)
        elif (self._waiting or fin) and Timer.RETRANSMISSION not in self._deadlines:
            self._arm(Timer.RETRANSMISSION, now + self._time_out)  # to probe the closed window

    def _launch(self, control: int, length: int, now: float) -> None:
        self._flight = control, length
        self.snd_nxt = (self.snd_una + length + (control != 0)) % 2**32
        flags = control | (ACK if self.state != SYN_SENT else 0) | (PSH if 0 < length == len(self._waiting) else 0)
        options = Options(mss=self.config.mss) if control == SYN else None
        self._emit(Segment(self.snd_una, self.rcv_nxt, flags, self.rcv_wnd, bytes(self._waiting[:length]), options))
        self._arm(Timer.RETRANSMISSION, now + self._time_out)

    def _send_ack(self) -> None:
        self._emit(Segment(self.snd_nxt, self.rcv_nxt, ACK, self.rcv_wnd))

    def timeout(self, timer: Timer, now: float) -> None:
        self._tries += 1
        if timer == Timer.TIME_WAIT:
            self.abort(now)
        elif self._tries > (self.config.syn_retries if self.state in (SYN_SENT, SYN_RCVD) else self.config.retries):
            self._fail(errno.ETIMEDOUT)
        else:  # the same again, or a byte into the closed window; and longer to wait each time (RFC 6298 §5.5)
            self._time_out = min(2 * self._time_out, self.config.rto_max)
            probe = 0 if self._waiting else FIN, min(len(self._waiting), 1)
            self._launch(*(self._flight or probe), now)
