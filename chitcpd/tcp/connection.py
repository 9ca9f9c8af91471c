"""The reference TCP: RFC 9293 section 3.10 in one hand, this file in the other, in the same order.

Section numbers are RFC 9293's where no other RFC is named. The methods come as the section has them: the user calls
(3.10.1 to 3.10.5), SEGMENT ARRIVES (3.10.7), the time-outs (3.10.8), and then what they share: sending (3.8).
"""

from __future__ import annotations

import errno
import math

from chitcpd.tcp.api import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Config,
    Info,
    Options,
    Segment,
    State,
    TcpConnection,
    Timer,
    mypyc_attr,
    not_connected,
)
from chitcpd.tcp.congestion import UNLIMITED, Controller, controller
from chitcpd.tcp.receive import ReceiveBuffer
from chitcpd.tcp.recovery import LossDetection
from chitcpd.tcp.rto import RetransmissionTimeout
from chitcpd.tcp.send import Record, SendBuffer
from chitcpd.tcp.seq import Block, add, diff, le, lt, newer

CLOSED, LISTEN, SYN_RCVD, SYN_SENT = State.CLOSED, State.LISTEN, State.SYN_RCVD, State.SYN_SENT
ESTABLISHED, CLOSE_WAIT, LAST_ACK = State.ESTABLISHED, State.CLOSE_WAIT, State.LAST_ACK
FIN_WAIT_1, FIN_WAIT_2, CLOSING, TIME_WAIT = (
    State.FIN_WAIT_1,
    State.FIN_WAIT_2,
    State.CLOSING,
    State.TIME_WAIT,
)

_RECEIVING = frozenset({ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2})  # the peer may still send data
_SENDING = frozenset({ESTABLISHED, CLOSE_WAIT, FIN_WAIT_1, CLOSING, LAST_ACK})  # data or our FIN may wait
_DEFAULT_MSS = 536  # what a peer takes that announces nothing (3.7.1, MUST-15)
_LEAST_MSS = 64  # a peer that announces less would have us send a storm of tiny segments
_MAX_UNSCALED = 0xFFFF  # the largest window without window scaling
_TIMESTAMP_BYTES = 12  # of each segment's header, if timestamps are on
_WORTH_AN_ACK = 32  # the part of the receive buffer that reading must have freed
_MAX_BLOCKS = 4  # of SACK that a header holds; 3 beside a timestamp
_LEAST_OVERRIDE, _MOST_OVERRIDE = 0.1, 1.0  # seconds, until a silly window is used after all (3.8.6.2.1)
_CHALLENGES, _CHALLENGE_PERIOD = 10, 5.0  # at most so many challenge ACKs in so many seconds (RFC 5961 §7)
_MAX_ACK_DELAY = 0.2  # seconds for which the peer may hold an ACK back (RFC 8985 §7.2, WCDelAckT)
_BURST = 1 << 18  # bytes of data that leave as one segment, and are cut late
_IDLE_FOR_PAWS = 24 * 86400.0  # seconds after which TS.Recent is too old to judge by (RFC 7323 §5.5)


@mypyc_attr(allow_interpreted_subclasses=True)
class Connection(TcpConnection):
    """One TCP connection, complete in itself."""

    takes_bursts = True

    def __init__(self, *, iss: int, config: Config) -> None:
        super().__init__(iss=iss, config=config)
        self._passive = False
        self._bursts = vars(type(self)).get("takes_bursts", False)  # what inherits from this sees each segment
        self._create_tcb()

    def _create_tcb(self) -> None:
        """All variables, as a connection begins with them; a passive one may begin more than once."""
        self.snd_una = self.snd_nxt = self.iss
        self._send = SendBuffer(self.iss, self.config.send_buffer)
        self._receive = ReceiveBuffer()
        self._rto = RetransmissionTimeout(self.config)
        self._loss = LossDetection(self.config, self._send, self.iss)

        # What the SYNs agree on.
        self._own_shift = _shift_for(self.config.receive_buffer)  # what ours offers
        self._announced: int | None = None  # the peer's MSS
        self.snd_wscale = self.rcv_wscale = 0  # RFC 7323 §2.2, Snd.Wind.Shift and Rcv.Wind.Shift
        self._timestamps = False
        self.mss = self._effective_mss(self.config)
        self._congestion = controller(self.config.congestion, self.mss, self.config.initial_window)

        self.snd_wl1 = self.snd_wl2 = 0  # SEG.SEQ and SEG.ACK of the last window update
        self.max_snd_wnd = 0  # the largest window the peer has offered
        self._closing = False  # the application has called CLOSE
        self._fin: int | None = None  # the sequence number of our FIN, once sent
        self._probing = False  # what is in flight is a probe of a closed window
        self._probe_interval = 0.0  # seconds from one such probe to the next
        self._unanswered = 0  # expiries since the peer acknowledged something, or said that its window is closed
        self._sent_at = 0.0  # when something that takes sequence numbers was last sent
        self._cwnd_limits = False  # the congestion window held data back
        self._small_end = self.iss  # the sequence number behind the last segment that was not full
        self._tail_probe: int | None = None  # SND.NXT when a tail loss probe was sent (RFC 8985, TLP.end_seq)
        self._tail_probe_is_new = False  # it carried new data (not TLP.is_retrans)
        self._measured = False  # a round trip, since the last tail loss probe

        self.rcv_wnd = min(self.config.receive_buffer, _MAX_UNSCALED)  # until the SYNs have agreed on more
        self._peer_fin: int | None = None  # the sequence number of the peer's FIN, once seen
        self._ack_due = 0  # segments with data received and not acknowledged
        self._ack_now = False
        self._duplicate: Block | None = None  # what came twice, to be told once (RFC 2883)
        self._ts_recent = 0  # RFC 7323 §4.3: the newest TSval in sequence, and when it came
        self._ts_recent_at = 0.0
        self._last_ack_sent = 0  # Last.ACK.sent
        self._challenges: list[float] = []  # when the last challenge ACKs were sent
        self._keep_alives = 0  # probes of an idle connection that were not answered

    # ---- 3.10.1 OPEN call ----------------------------------------------------------------------------------

    def open(self, now: float, *, active: bool) -> None:
        """OPEN (3.10.1)."""
        if self.state != CLOSED:
            raise OSError(errno.EISCONN, "the connection is open already")
        self._passive = not active
        if self._passive:
            self._enter(LISTEN)
            return
        self._send_syn(now)
        self._enter(SYN_SENT)

    # ---- 3.10.2 SEND call ----------------------------------------------------------------------------------

    def send(self, data: bytes | memoryview, now: float) -> int:
        """SEND (3.10.2): before ESTABLISHED, data is queued."""
        self._raise_error()
        if self._closing:
            raise OSError(errno.EPIPE, "the connection is closed for sending")
        if self.state in (CLOSED, LISTEN):
            raise not_connected()
        taken = self._send.write(data)
        self._output(now)
        return taken

    # ---- 3.10.3 RECEIVE call -------------------------------------------------------------------------------

    def receive(self, limit: int, now: float) -> bytes:
        """RECEIVE (3.10.3): what came before a reset can still be read."""
        if not self.readable:
            self._raise_error()
        data = self._receive.read(limit)
        if data and self.state in _RECEIVING and self._window_update_is_due():
            self._send_ack(now)
        return data

    # ---- 3.10.4 CLOSE call ---------------------------------------------------------------------------------

    def close(self, now: float) -> None:
        """CLOSE (3.10.4): the FIN follows the data that waits."""
        if self._closing or self.state == CLOSED:
            return
        self._closing = True
        if self.state in (LISTEN, SYN_SENT):
            self._enter(CLOSED)
        elif self.state == ESTABLISHED or (self.state == SYN_RCVD and not self._send.unsent(self.snd_nxt)):
            self._enter(FIN_WAIT_1)
            self._output(now)
        elif self.state == CLOSE_WAIT:
            self._output(now)

    # ---- 3.10.5 ABORT call ---------------------------------------------------------------------------------

    def abort(self, now: float) -> None:
        """ABORT (3.10.5)."""
        if self.state in (SYN_RCVD, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT):
            # A closed window has refused our probe: what the peer expects, and believes, is the octet in it.
            seq = self.snd_una if self._probing else self.snd_nxt
            self._emit(Segment(seq=seq, ack=self.rcv_nxt, flags=RST | ACK))
        if self.state != CLOSED:
            self._enter(CLOSED)

    # ---- 3.10.6 STATUS call --------------------------------------------------------------------------------

    @property
    def readable(self) -> int:
        """Bytes in order that the application has not read."""
        return self._receive.readable

    @property
    def writable(self) -> int:
        """Room in the send buffer, while the application may send."""
        return self._send.room if self.state in (ESTABLISHED, CLOSE_WAIT) and not self._closing else 0

    @property
    def at_eof(self) -> bool:
        """The peer's FIN is next."""
        return self._fin_received() and not self.readable

    @property
    def unacknowledged(self) -> bytes:
        """All that is not acknowledged, sent or not."""
        return self._send.peek()

    @property
    def unread(self) -> bytes:
        """All that can be read."""
        return self._receive.peek()

    def info(self) -> Info:
        """All of it; congestion "none" has no window."""
        rto, cwnd, ssthresh = self._rto, self._congestion.cwnd, self._congestion.ssthresh
        return Info(
            mss=self.mss,
            cwnd=cwnd if cwnd < UNLIMITED else None,
            ssthresh=ssthresh if ssthresh < UNLIMITED else None,
            srtt=rto.srtt,
            rttvar=rto.rttvar if rto.srtt is not None else None,
            rto=rto.rto,
            min_rtt=self._loss.min_rtt,
            in_flight=self._send.in_flight - self._loss.left_network,
            lost=self._send.lost_records,
            sacked=self._send.sacked,
            backoff=self._unanswered,
            snd_wscale=self.snd_wscale,
            rcv_wscale=self.rcv_wscale,
            sack=self._loss.sack,
            timestamps=self._timestamps,
            congestion=self.config.congestion,
            recovery=self._loss.phase,
        )

    # ---- socket options ------------------------------------------------------------------------------------

    def reconfigure(self, config: Config, now: float) -> None:
        """A smaller receive buffer takes back nothing that was offered (3.8.6, SHLD-14): the window closes by use."""
        mss = self._effective_mss(config)
        if (mss, config.congestion) != (self.mss, self.config.congestion):
            self._congestion = self._successor(config, mss)
        old, self.config, self.mss = self.config, config, mss
        self._rto.config = self._loss.config = config
        self._send.capacity = config.send_buffer
        if config.keep_alive != old.keep_alive and self.state not in (CLOSED, LISTEN, SYN_SENT):
            self._disarm(Timer.KEEP_ALIVE)
            self._stay_alive(now)
        if config.user_timeout != old.user_timeout and self.state not in (CLOSED, LISTEN):
            self._disarm(Timer.USER_TIMEOUT)
            if config.user_timeout is not None:
                self._arm_user_timeout(config.user_timeout, now)
        self._output(now)
        if self.state in _RECEIVING and self._window_update_is_due():
            self._send_ack(now)

    def _successor(self, config: Config, mss: int) -> Controller:
        """The congestion control of new settings, that goes on where the present one is."""
        try:
            new = controller(config.congestion, mss, config.initial_window)
        except ValueError as error:
            raise OSError(errno.ENOENT, str(error)) from None
        if self._congestion.cwnd < UNLIMITED:
            new.resume(self._congestion.cwnd, self._congestion.ssthresh)
        return new

    # ---- 3.10.7 SEGMENT ARRIVES ----------------------------------------------------------------------------

    def segment_arrives(self, seg: Segment, now: float) -> None:
        """SEGMENT ARRIVES (3.10.7)."""
        if self.state == CLOSED:
            self._reset_in_answer_to(seg)
        elif self.state == LISTEN:
            self._arrives_in_listen(seg, now)
        elif self.state == SYN_SENT:
            self._arrives_in_syn_sent(seg, now)
        else:
            self._arrives_otherwise(seg, now)

    def _reset_in_answer_to(self, seg: Segment) -> None:
        """3.10.7.1: a reset that the sender of `seg` will believe."""
        if seg.flags & RST:
            return
        if seg.flags & ACK:
            self._emit(Segment(seq=seg.ack, flags=RST))
        else:
            self._emit(Segment(seq=0, ack=add(seg.seq, len(seg)), flags=RST | ACK))

    def _arrives_in_listen(self, seg: Segment, now: float) -> None:
        """3.10.7.2. Data on a SYN is not taken: it is not acknowledged, so it comes again."""
        if seg.flags & RST:
            return
        if seg.flags & ACK:
            self._reset_in_answer_to(seg)
            return
        if not seg.flags & SYN:
            return
        self._synchronize(seg, now)
        self._set_window(seg)
        self._enter(SYN_RCVD)
        self._send_syn(now)

    def _arrives_in_syn_sent(self, seg: Segment, now: float) -> None:
        """3.10.7.3."""
        # First, check the ACK bit.
        if seg.flags & ACK and (le(seg.ack, self.iss) or lt(self.snd_nxt, seg.ack)):
            self._reset_in_answer_to(seg)
            return
        # Second, check the RST bit.
        if seg.flags & RST:
            if seg.flags & ACK:
                self._fail(errno.ECONNREFUSED)
            return
        # Third, check security: there is none. Fourth, check the SYN bit; fifth, drop what has neither SYN nor RST.
        if not seg.flags & SYN:
            return
        self._synchronize(seg, now)
        if not seg.flags & ACK:  # both open at once
            self._set_window(seg)
            self._enter(SYN_RCVD)
            self._retransmit(self._send.records[0], now)
            return
        self._advance_snd_una(seg, now)
        self._set_window(seg)
        self._enter(ESTABLISHED)
        self._stay_alive(now)
        self._ack_now = True
        self._take_text_and_fin(add(seg.seq, 1), seg, now)
        self._output(now)
        self._acknowledge(now)

    def _arrives_otherwise(self, seg: Segment, now: float) -> None:
        """3.10.7.4: the checks that all other states share."""
        if self.state == TIME_WAIT and self._reopens(seg):
            self._enter(CLOSED)  # and the driver offers the SYN to the listener
            return
        # First, check the sequence number; before it, the timestamp (RFC 7323 §5.3).
        if not self._timestamp_holds(seg, now):
            return
        rest = seg if self._acceptable(seg) else self._rest_of_unacceptable(seg, now)
        if rest is None:
            return
        seg = rest
        self._stay_alive(now)
        # Second, check the RST bit.
        if seg.flags & RST:
            self._reset_arrives(seg, now)
            return
        # Third, check security: there is none. Fourth, check the SYN bit.
        if seg.flags & SYN:
            if self.state == SYN_RCVD and self._passive:
                self._return_to_listen()
            else:
                self._challenge(now)  # RFC 5961 §4.2
            return
        # Fifth, check the ACK field.
        if not seg.flags & ACK or not self._ack_arrives(seg, now):
            return
        # Sixth, check the URG bit: urgent data is delivered in line, without notice.
        # Seventh, process the segment text. Eighth, check the FIN bit.
        self._take_text_and_fin(seg.seq, seg, now)
        self._output(now)
        self._acknowledge(now)

    def _reopens(self, seg: Segment) -> bool:
        """3.6.1, MAY-2: a new SYN beyond all that the old connection had seen (RFC 7323 §5.8, RFC 6191)."""
        if seg.flags & (SYN | ACK | RST) != SYN:
            return False
        stamps = self._stamps(seg)
        if stamps is not None:
            return lt(self._ts_recent, stamps[0])
        return lt(self.rcv_nxt, seg.seq)

    def _timestamp_holds(self, seg: Segment, now: float) -> bool:
        """PAWS (RFC 7323 §5.3, R1): an old duplicate shows by its timestamp."""
        if not self._timestamps or seg.flags & RST:
            return True
        stamps = self._stamps(seg)
        if stamps is None:
            return False  # §3.2: dropped silently
        if lt(stamps[0], self._ts_recent) and now - self._ts_recent_at < _IDLE_FOR_PAWS:
            self._answer_unacceptable(seg, now)
            return False
        return True

    def _remember_timestamp(self, seg: Segment, now: float) -> None:
        """TS.Recent (RFC 7323 §4.3 (2)), once SEG.ACK is checked too: a forged one could lock the peer out."""
        stamps = self._stamps(seg)
        if stamps is not None and le(seg.seq, self._last_ack_sent):
            self._ts_recent, self._ts_recent_at = stamps[0], now

    def _stamps(self, seg: Segment) -> tuple[int, int] | None:
        """TSval and TSecr, if both ends use them."""
        return seg.options.timestamp if self._timestamps and seg.options is not None else None

    def _rest_of_unacceptable(self, seg: Segment, now: float) -> Segment | None:
        """No part of it lies in the window: acknowledge and drop it, but for what a closed window must let pass."""
        if self._says_something_at_the_edge(seg):
            return seg
        closed = not self.rcv_wnd and seg.seq == self.rcv_nxt and self.state != TIME_WAIT
        if closed and seg.flags & (RST | SYN):
            return seg  # MUST-66; and a SYN is challenged in its turn
        if seg.flags & RST:
            return None
        if seg.data and le(add(seg.seq, len(seg)), self.rcv_nxt):
            self._has_come_twice(seg.seq, add(seg.seq, len(seg)))
        if closed and seg.flags & ACK:
            self._ack_now = True  # once its ACK has been heeded
            return Segment(seg.seq, seg.ack, seg.flags & ACK, seg.wnd, options=seg.options)  # MUST-66
        self._answer_unacceptable(seg, now)
        if self.state == TIME_WAIT and seg.flags & FIN:  # the peer has missed our ACK of its FIN
            self._arm(Timer.TIME_WAIT, now + 2 * self.config.msl)
        return None

    def _says_something_at_the_edge(self, seg: Segment) -> bool:
        """A mere ACK at the first number behind the window, from a peer that has filled it; or behind its probe.

        3.10.7.4 would drop it. But when both ends have filled each other's window, all that they have left to say
        stands there: if neither listened, they would repeat themselves for ever. And while a peer's probe (3.8.6.1) of
        one octet is on its way to a window that stays closed, all its ACKs of our data stand behind that octet.
        """
        mere_ack = not len(seg) and seg.flags & (ACK | RST) == ACK
        behind = diff(seg.seq, add(self.rcv_nxt, self.rcv_wnd))
        return mere_ack and self.state in _SENDING and (behind == 0 or (behind == 1 and not self.rcv_wnd))

    def _answer_unacceptable(self, seg: Segment, now: float) -> None:
        """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>; throttled for a mere ACK, or two ends could go on for ever."""
        if len(seg):
            self._send_ack(now)
        else:
            self._challenge(now)

    def _acceptable(self, seg: Segment) -> bool:
        """The four cases of table 6 (3.4): some of the segment lies in the receive window."""
        length = len(seg)
        if length == 0:
            return seg.seq == self.rcv_nxt or self._in_window(seg.seq)
        return self._in_window(seg.seq) or self._in_window(add(seg.seq, length - 1))

    def _in_window(self, seq: int) -> bool:
        return le(self.rcv_nxt, seq) and diff(seq, self.rcv_nxt) < self.rcv_wnd

    def _reset_arrives(self, seg: Segment, now: float) -> None:
        """Second, check the RST bit; RFC 5961 §3.2: only one with the exact sequence number is believed."""
        if seg.seq != self.rcv_nxt:
            if self._in_window(seg.seq):  # its end alone may lie there: §3.2, 1)
                self._challenge(now)
        elif self.state == SYN_RCVD and self._passive:
            self._return_to_listen()
        elif self.state == SYN_RCVD:
            self._fail(errno.ECONNREFUSED)
        elif self.state in (CLOSING, LAST_ACK, TIME_WAIT):
            self._enter(CLOSED)
        else:
            self._fail(errno.ECONNRESET)

    def _ack_arrives(self, seg: Segment, now: float) -> bool:
        """Fifth, check the ACK field: False if the segment is to be dropped here."""
        if self.state == SYN_RCVD:
            if not (lt(self.snd_una, seg.ack) and le(seg.ack, self.snd_nxt)):
                self._reset_in_answer_to(seg)
                return False
            self._enter(ESTABLISHED)
            self._set_window(seg)
            if self._closing:
                self._enter(FIN_WAIT_1)
        if lt(self.snd_nxt, seg.ack) or lt(seg.ack, add(self.snd_una, -self.max_snd_wnd)):
            self._challenge(now)  # RFC 5961 §5.2
            return False
        self._remember_timestamp(seg, now)
        advanced = lt(self.snd_una, seg.ack)  # a retransmission with a newer ACK has a newer window too
        self._take_acknowledgement(seg, now)
        if not seg.wnd:
            self._unanswered = 0  # a peer that says so is there, and not to be given up (3.8.6, 3.8.6.1 MUST-37)
        newer_segment = advanced or lt(self.snd_wl1, seg.seq) or (self.snd_wl1 == seg.seq and le(self.snd_wl2, seg.ack))
        if le(self.snd_una, seg.ack) and newer_segment:
            self._set_window(seg)
        if self._fin_acknowledged():
            if self.state == FIN_WAIT_1:
                self._enter(FIN_WAIT_2)
            elif self.state == CLOSING:
                self._enter_time_wait(now)
            elif self.state == LAST_ACK:
                self._enter(CLOSED)
                return False
        return True

    def _take_text_and_fin(self, seq: int, seg: Segment, now: float) -> None:
        """Seventh, process the segment text; eighth, check the FIN bit: as much as lies in the window.

        `seq` is where the text begins, behind a SYN.
        """
        if self.state not in _RECEIVING:
            self._ack_now |= bool(seg.flags & FIN)
            return
        data, fin = seg.data, bool(seg.flags & FIN)
        before = diff(self.rcv_nxt, seq)
        if before > 0 and data:
            self._ack_now = True  # some of it has come before: our ACK may be lost
            self._has_come_twice(seq, add(seq, min(before, len(data))))
        if before > 0:
            seq, data = self.rcv_nxt, data[before:]
        beyond = diff(add(seq, len(data)), add(self.rcv_nxt, self.rcv_wnd))
        if self._peer_fin is not None:
            beyond = max(beyond, diff(add(seq, len(data)), self._peer_fin))  # nothing comes after a FIN
        if beyond > 0:
            data, fin = data[: max(len(data) - beyond, 0)], False
        end = add(seq, len(data))
        if fin and self._peer_fin in (None, end) and le(self._receive.end(self.rcv_nxt), end):
            self._peer_fin = end
            self._receive.fin_is_ahead(end)
        if data:
            self._take_text(seq, data)
            self._ack_due += -(-len(data) // seg.size) if seg.size else 1
        if self._peer_fin is not None and self._peer_fin == self.rcv_nxt:
            self._fin_arrives(now)
        elif fin:
            self._ack_now = True

    def _take_text(self, seq: int, data: bytes) -> None:
        """Data that lies in the window: what comes out of order is acknowledged at once (RFC 5681 §4.2)."""
        self._ack_now |= seq != self.rcv_nxt or self._receive.has_gap
        if seq != self.rcv_nxt and self._receive.has(seq, add(seq, len(data))):
            self._has_come_twice(seq, add(seq, len(data)))
        self._advance_rcv_nxt(self._receive.insert(seq, data, self.rcv_nxt))

    def _has_come_twice(self, first: int, behind: int) -> None:
        """The next ACK tells the peer so, if both use SACK (RFC 2883 §4)."""
        if self._loss.sack:
            self._duplicate = (first, behind)

    def _fin_arrives(self, now: float) -> None:
        self._advance_rcv_nxt(add(self.rcv_nxt, 1))
        self._receive.clear_ahead()
        self._ack_now = True
        if self.state == ESTABLISHED:
            self._enter(CLOSE_WAIT)
        elif self.state == FIN_WAIT_1:
            self._enter(CLOSING)
        elif self.state == FIN_WAIT_2:
            self._enter_time_wait(now)

    # ---- 3.10.8 Time-outs ----------------------------------------------------------------------------------

    def timeout(self, timer: Timer, now: float) -> None:
        """A timer has expired (3.10.8)."""
        if timer == Timer.RETRANSMISSION:
            self._retransmission_timeout(now)
        elif timer == Timer.PERSIST:
            self._persist_timeout(now)
        elif timer == Timer.DELAYED_ACK:
            self._send_ack(now)
        elif timer == Timer.TIME_WAIT:
            self._enter(CLOSED)
        elif timer == Timer.REORDERING:
            self._detect_loss(now)
            self._output(now)
        elif timer == Timer.PROBE:
            self._tail_probe_timeout(now)
        elif timer == Timer.KEEP_ALIVE:
            self._keep_alive_timeout(now)
        elif timer == Timer.USER_TIMEOUT:
            self._fail(errno.ETIMEDOUT)

    def _retransmission_timeout(self, now: float) -> None:
        """RFC 6298 §5.4 to §5.7, RFC 5681 §3.1: back off, and send again from the oldest on."""
        if Timer.PROBE in self._deadlines:
            return  # it is due too, and goes first (RFC 8985 §7.2)
        opening = self.state in (SYN_SENT, SYN_RCVD)
        if self._has_given_up(self.config.syn_retries if opening else self.config.retries):
            return
        if not opening:
            self._congestion.on_timeout(diff(self.snd_nxt, self.snd_una), now, again=self._unanswered > 1)
        self._cwnd_limits = True
        self._rto.double()
        self._loss.on_timeout(self.snd_nxt, self._rto.srtt, now)
        self._end_tail_probing()
        self._disarm(Timer.REORDERING)
        self._retransmit(self._send.records[0], now)

    def _has_given_up(self, retries: int) -> bool:
        """3.8.3: count what stays unanswered; after R2 the connection is lost."""
        if self._unanswered >= retries:
            self._fail(errno.ETIMEDOUT)
            return True
        self._unanswered += 1
        return False

    def _tail_probe_timeout(self, now: float) -> None:
        """RFC 8985 §7.3: the end of what was sent may be lost, and nobody tells: send what is answered."""
        length = min(self._send.unsent(self.snd_nxt), self._usable_window(), self.mss)
        self._tail_probe_is_new = length > 0
        if length > 0:
            self._transmit_new(length, now)
        else:
            self._send.take_apart()
            self._retransmit(self._send.records[-1], now)
        self._tail_probe = self.snd_nxt
        self._measured = False
        self._arm(Timer.RETRANSMISSION, now + self._rto.rto)

    def _keep_alive_timeout(self, now: float) -> None:
        """3.8.4: a segment that the peer must answer, if it is still there."""
        if self._keep_alives >= self.config.keep_alive_probes:
            self._fail(errno.ETIMEDOUT)
            return
        if not self._send.records:  # else retransmission finds out
            self._keep_alives += 1
            self._emit_with_ack(add(self.snd_nxt, -1), 0, b"", now)
        self._arm(Timer.KEEP_ALIVE, now + self.config.keep_alive_interval)

    def _persist_timeout(self, now: float) -> None:
        """3.8.6.1: a byte into a closed window, again and again, so that its opening can't be missed (MUST-36)."""
        if (usable := self._usable_window()) > 0 and not self._probing:
            # Too little for _sendable: the override of 3.8.6.2.1.
            self._transmit_new(min(self._send.unsent(self.snd_nxt), usable, self.mss), now)
            self._output(now)
            return
        if self._has_given_up(self.config.retries):
            return
        if self._probing:
            self._retransmit(self._send.records[0], now)
        else:
            self._probing, self._probe_interval = True, self._rto.rto
            self._transmit_new(min(self._send.unsent(self.snd_nxt), 1), now)
        self._probe_interval = min(2 * self._probe_interval, self.config.rto_max)
        self._arm(Timer.PERSIST, now + self._probe_interval)

    # ---- states --------------------------------------------------------------------------------------------

    def _synchronize(self, seg: Segment, now: float) -> None:
        """Take the peer's initial sequence number from its SYN, and what its options agree to."""
        options = seg.options if seg.options is not None else Options()
        self.irs = seg.seq
        self.rcv_nxt = self._last_ack_sent = add(seg.seq, 1)
        self._loss.sack = self.config.sack and options.sack_permitted
        if self.config.window_scaling and options.window_scale is not None:
            self.snd_wscale, self.rcv_wscale = options.window_scale, self._own_shift
        if self.config.timestamps and options.timestamp is not None:
            self._timestamps = True
            self._ts_recent, self._ts_recent_at = options.timestamp[0], now
        self._announced = options.mss
        self.mss = self._effective_mss(self.config)
        self._congestion = controller(self.config.congestion, self.mss, self.config.initial_window)

    def _enter_time_wait(self, now: float) -> None:
        self._enter(TIME_WAIT)
        self._deadlines.clear()
        self._arm(Timer.TIME_WAIT, now + 2 * self.config.msl)

    def _return_to_listen(self) -> None:
        """A passive connection whose handshake failed waits for the next SYN."""
        if self._closing:
            self._enter(CLOSED)
            return
        self._deadlines.clear()
        unsent = self._send.peek()
        self._create_tcb()
        self._send.write(unsent)
        self._enter(LISTEN)

    def _raise_error(self) -> None:
        if self.error is not None:
            raise OSError(self.error, "the connection has failed")

    def _fin_received(self) -> bool:
        return self._peer_fin is not None and lt(self._peer_fin, self.rcv_nxt)

    def _fin_acknowledged(self) -> bool:
        return self._fin is not None and lt(self._fin, self.snd_una)

    # ---- acknowledgements that come ------------------------------------------------------------------------

    def _take_acknowledgement(self, seg: Segment, now: float) -> None:
        """SND.UNA and what is in flight, as SEG.ACK and SACK tell; then what that says about losses."""
        duplicate = self._is_duplicate(seg)
        delivered = self._take_sack(seg) if self._loss.sack else []
        if self._tail_probe is not None:
            self._judge_tail_probe(seg, now)
        if lt(self.snd_una, seg.ack):
            delivered += self._advance_snd_una(seg, now)
        elif delivered or duplicate:
            self._loss.on_gap(self.snd_nxt)
        if self._loss.sack and delivered:
            self._disarm(Timer.PROBE)  # _output arms it again if all is well (RFC 8985 §7.2)
            self._loss.on_delivered(delivered, self._echoed_at(seg, now), now)
            self._detect_loss(now)
        elif duplicate and not self._loss.sack and self._loss.on_duplicate_ack(seg.ack, self.mss):
            self._enter_recovery(now)

    def _echoed_at(self, seg: Segment, now: float) -> float:
        """The end of the tick of our clock in which that was stamped which `seg` answers; infinity if nothing says."""
        stamps = self._stamps(seg)
        return (int(now * 1000) - diff(self._clock(now), stamps[1]) + 1) / 1000 if stamps is not None else math.inf

    def _advance_snd_una(self, seg: Segment, now: float) -> list[Record]:
        """SND.UNA < SEG.ACK =< SND.NXT: advance SND.UNA; return the records that it tells of for the first time."""
        acked = diff(seg.ack, self.snd_una)
        in_recovery, after_timeout = self._loss.recover is not None, self._loss.is_recovering()
        covered = self._send.acknowledge(seg.ack)
        self._loss.on_new_ack(self.snd_una, seg.ack)
        self.snd_una = seg.ack
        self._small_end = newer(self._small_end, seg.ack)  # it must stay near, for the comparisons
        self._take_round_trip(seg, covered, now)
        if covered and covered[0].flags & SYN:
            self._syn_acknowledged()
        self._unanswered = 0
        self._disarm(Timer.RETRANSMISSION)  # RFC 6298 §5.2; _output arms it again if data is in flight (§5.3)
        self._disarm(Timer.PROBE)
        self._disarm(Timer.USER_TIMEOUT)
        news = [record for record in covered if not record.sacked]
        if self._probing:
            self._probing = False
            self._disarm(Timer.PERSIST)
        elif self._loss.recover is not None and not self._loss.sack:
            self._loss.on_partial_ack(acked, self.mss)
            self._retransmit(self._send.records[0], now)  # whatever cwnd says
        elif not in_recovery and self._cwnd_limits:
            if after_timeout:  # what it covers may have arrived before (RFC 3465 §2.3), unless SACK has told
                acked = sum(record.length for record in news) if self._loss.sack else min(acked, self.mss)
            self._congestion.on_ack(acked, self._rto.srtt or 0.0, now)
        return news

    def _take_round_trip(self, seg: Segment, covered: list[Record], now: float) -> None:
        """RFC 6298 §3: no sample of what was sent twice (Karn), unless the timestamp tells which copy it was."""
        rtt, stamps = None, self._stamps(seg)
        if covered and not any(record.retransmissions for record in covered):
            fresh = [record for record in covered if not record.sacked]
            if fresh:
                rtt = now - fresh[-1].sent_at
                if not self._loss.sack:  # else told by on_delivered
                    self._loss.take_min_rtt(rtt, now)
        elif stamps is not None:
            elapsed = diff(self._clock(now), stamps[1]) / 1000
            if 0 <= elapsed <= self.config.rto_max:
                rtt = elapsed
        if rtt is not None:
            self._rto.sample(rtt)
            self._measured = True

    def _syn_acknowledged(self) -> None:
        """After a handshake that needed time-outs we begin carefully (RFC 6298 §5.7, RFC 6928 §2)."""
        if self._unanswered:
            self._rto.reset_after_syn()
        if self._unanswered > 1:
            self._congestion = controller(self.config.congestion, self.mss, 1)

    def _is_duplicate(self, seg: Segment) -> bool:
        """RFC 5681 §2: says nothing new while data is in flight."""
        return self.snd_una != self.snd_nxt and not self._probing and self._says_nothing_new(seg)

    def _says_nothing_new(self, seg: Segment) -> bool:
        same = seg.ack == self.snd_una and seg.wnd << self.snd_wscale == self.snd_wnd
        return same and not seg.data and not seg.flags & FIN

    def _take_sack(self, seg: Segment) -> list[Record]:
        """The blocks of a SACK; the first may tell of what came twice (RFC 2883 §4)."""
        blocks = seg.options.sack if seg.options is not None else ()
        if not blocks:
            return []
        first, behind = blocks[0]
        twice = le(behind, seg.ack) or (len(blocks) > 1 and le(blocks[1][0], first) and le(behind, blocks[1][1]))
        if twice:
            self._loss.on_duplicate_data(self.snd_una, self.snd_nxt)
            if self._tail_probe is not None and behind == self._tail_probe:
                self._tail_probe = None  # both copies have come: nothing was lost (RFC 8985 §7.4.2, case 1)
            blocks = blocks[1:]
        return self._send.mark_sacked(blocks, self.snd_una, self.snd_nxt)

    def _judge_tail_probe(self, seg: Segment, now: float) -> None:
        """RFC 8985 §7.4.2: a probe that has repaired a loss leaves no other trace of it."""
        assert self._tail_probe is not None
        if lt(seg.ack, self._tail_probe):
            return
        if self._tail_probe_is_new:
            self._tail_probe = None
        elif lt(self._tail_probe, seg.ack):
            self._tail_probe = None
            self._congestion.on_loss(diff(self.snd_nxt, self.snd_una), now)
        elif self._says_nothing_new(seg) and (seg.options is None or not seg.options.sack):
            self._tail_probe = None  # case 2: a peer without D-SACK says that both copies have come

    def _end_tail_probing(self) -> None:
        """When recovery begins (RFC 8985 §7.1)."""
        self._tail_probe = None
        self._disarm(Timer.PROBE)

    def _detect_loss(self, now: float) -> None:
        """Let SACK and time say what is lost (RFC 8985 §6.2 step 5)."""
        look_again = self._loss.detect(self.mss, self._rto.srtt, now)
        if look_again is not None:
            self._arm(Timer.REORDERING, look_again)
        else:
            self._disarm(Timer.REORDERING)
        lost = next(self._send.lost(), None)
        if lost is not None and self._loss.is_news(lost):
            self._enter_recovery(now)

    def _enter_recovery(self, now: float) -> None:
        """The congestion control slows down; the first segment that is lost goes out at once (RFC 6675 §5 step 4.3)."""
        self._loss.enter_recovery(self._congestion, self.snd_una, self.snd_nxt, now)
        self._end_tail_probing()
        lost = next(self._send.lost(), None)
        if lost is not None:
            self._retransmit(lost, now)

    def _set_window(self, seg: Segment) -> None:
        """Update SND.WND, SND.WL1 and SND.WL2; an opened window ends the probing."""
        wnd = seg.wnd if seg.flags & SYN else seg.wnd << self.snd_wscale  # RFC 7323 §2.2: never scaled in a SYN
        self.snd_wnd, self.snd_wl1, self.snd_wl2 = wnd, seg.seq, seg.ack
        self.max_snd_wnd = max(self.max_snd_wnd, wnd)
        if self._probing and self.snd_wnd:
            self._probing = False
            self._disarm(Timer.PERSIST)
            self._send.mark_lost(self._send.records[0])

    def _effective_mss(self, config: Config) -> int:
        """The effective send MSS (3.7.1): what the peer takes and what the link carries, whichever is less."""
        largest = min(max(self._announced or _DEFAULT_MSS, _LEAST_MSS), config.send_mss)
        return max(largest - (_TIMESTAMP_BYTES if self._timestamps else 0), 1)  # RFC 6691: options come off it

    def _clock(self, now: float) -> int:
        """The timestamp clock in milliseconds, for each connection from a point of its own (RFC 7323 §5.4)."""
        return add(self.iss, int(now * 1000))

    # ---- 3.8 Data communication: what is sent, and when ----------------------------------------------------

    def _output(self, now: float) -> None:
        """Send all that may be sent now: first what is lost, then new data, then our FIN."""
        if self.state not in _SENDING:
            return
        if not self._probing:
            self._send_what_may_be_sent(now)
        if self.config.user_timeout is not None and Timer.USER_TIMEOUT not in self._deadlines:
            self._arm_user_timeout(self.config.user_timeout, now)

    def _send_what_may_be_sent(self, now: float) -> None:
        if not self._send.records and now - self._sent_at > self._rto.rto:
            self._congestion.on_idle()
        for record in self._send.lost():
            if self._congestion_room() < min(record.length, self.mss):  # a FIN may be one more
                self._cwnd_limits = True
                break
            self._retransmit(record, now)
        else:
            while (length := self._sendable()) is not None:
                self._transmit_new(length, now)
        if self._send.records:
            self._disarm(Timer.PERSIST)
            self._arm_for_what_is_in_flight(now)
        elif self._send.unsent(self.snd_nxt) or self._fin_waits():
            self._arm_persist(now)

    def _arm_for_what_is_in_flight(self, now: float) -> None:
        if Timer.RETRANSMISSION not in self._deadlines:
            self._arm(Timer.RETRANSMISSION, now + self._rto.rto)  # RFC 6298 §5.1
        if self._loss.sack and self.config.rack and Timer.PROBE not in self._deadlines:
            self._arm_tail_probe(now)

    def _arm_persist(self, now: float) -> None:
        """3.8.6.1: a closed window is probed after an RTO (SHLD-29); 3.8.6.2.1: a small one is used sooner."""
        wait = self._rto.rto
        if self._usable_window() > 0:
            wait = min(max(wait, _LEAST_OVERRIDE), _MOST_OVERRIDE)
        due = now + wait
        if due < self._deadlines.get(Timer.PERSIST, math.inf):
            self._arm(Timer.PERSIST, due)

    def _arm_user_timeout(self, longest: float, now: float) -> None:
        """3.9.1.1: for the oldest data in flight, and for data that a closed window keeps back."""
        if self._send.records:
            self._arm(Timer.USER_TIMEOUT, self._send.records[0].first_sent_at + longest)
        elif self._send.unsent(self.snd_nxt) or self._fin_waits():
            self._arm(Timer.USER_TIMEOUT, now + longest)

    def _arm_tail_probe(self, now: float) -> None:
        """RFC 8985 §7.2: two round trips; for a single segment the peer may delay its ACK besides.

        §7.3 forbids a second probe before the first was answered and a round trip was measured: then it is not armed.
        """
        if self._loss.is_recovering() or self._send.sacked or self._tail_probe is not None or not self._measured:
            return
        assert self._rto.srtt is not None
        single = diff(self.snd_nxt, self.snd_una) <= self.mss
        at = now + 2 * self._rto.srtt + (_MAX_ACK_DELAY if single else 0.0)
        self._arm(Timer.PROBE, min(at, self._deadlines[Timer.RETRANSMISSION]))

    def _sendable(self) -> int | None:
        """Bytes of new data to send now (0: a FIN alone), or None.

        3.8.6.2.1: full segments, as a burst while all goes well; or all there is, if Nagle allows (3.7.4) or a FIN goes
        with it; or at least half of the largest window that the peer has had.
        """
        unsent, usable = self._send.unsent(self.snd_nxt), self._usable_window()
        if not unsent and self._fin_waits() and usable > 0:
            return 0
        room = self._congestion_room()
        self._cwnd_limits = room < min(unsent, usable, self.mss)
        most = min(unsent, usable, room)
        if most >= 2 * self.mss and self._bursts and self._loss.phase == "open" and not self.watched:
            return min(most, _BURST) // self.mss * self.mss
        length = min(most, self.mss)
        if length <= 0:
            return None
        small_in_flight = lt(self.snd_una, self._small_end)  # as Minshall has it: what is full holds nothing back
        all_of_it = length == unsent and (not small_in_flight or not self.config.nagle or self._closing)
        if length == self.mss or all_of_it or (length == usable and length >= self.max_snd_wnd // 2):
            return length
        return None

    def _fin_waits(self) -> bool:
        return self._closing and self._fin is None

    def _usable_window(self) -> int:
        """SND.UNA + SND.WND - SND.NXT, in bytes; negative if the window has shrunk."""
        return self.snd_wnd - diff(self.snd_nxt, self.snd_una)

    def _congestion_room(self) -> int:
        """Bytes that the congestion window still allows; what duplicate ACKs tell of is not in flight any more.

        That lets new segments out on the first two duplicates (RFC 3042). At least one segment when nothing is in
        flight: loss must not stop the connection.
        """
        in_flight = self._send.in_flight - self._loss.left_network
        return max(self._congestion.cwnd - in_flight, self.mss if in_flight <= 0 else 0)

    def _send_syn(self, now: float) -> None:
        self.snd_nxt = add(self.iss, 1)
        record = Record(self.iss, self.snd_nxt, SYN, now, now)
        self._send.sent(record)
        self._transmit(record, now)
        self._arm(Timer.RETRANSMISSION, now + self._rto.rto)
        if self.config.user_timeout is not None:
            self._arm_user_timeout(self.config.user_timeout, now)

    def _transmit_new(self, length: int, now: float) -> None:
        """The next `length` bytes, in one segment or a burst, with our FIN if nothing comes after them."""
        last = length == self._send.unsent(self.snd_nxt)
        fits = length < self._usable_window() or (self._probing and not length)  # a probe is one octet, be it the FIN
        fin = last and self._fin_waits() and fits
        record = Record(self.snd_nxt, add(self.snd_nxt, length + fin), FIN if fin else 0, now, now)
        record.size = self.mss if length > self.mss else 0
        self._send.sent(record)
        self.snd_nxt = record.end
        if length % self.mss:
            self._small_end = record.end
        if fin:
            self._fin = add(record.end, -1)
        self._disarm(Timer.PROBE)
        self._transmit(record, now)
        if fin and self.state == CLOSE_WAIT:
            self._enter(LAST_ACK)

    def _retransmit(self, record: Record, now: float) -> None:
        self._send.sent_again(record, now)
        self._transmit(record, now)
        in_recovery = self._loss.recover is not None  # the timer begins anew then, for no ACK advances (RFC 6675 §6)
        if in_recovery or not (self._probing or Timer.RETRANSMISSION in self._deadlines):
            self._arm(Timer.RETRANSMISSION, now + self._rto.rto)

    def _transmit(self, record: Record, now: float) -> None:
        """Put a record on the wire, with the newest acknowledgement and window; PSH with the last data that we have."""
        self._sent_at = now
        if record.flags & SYN:
            self._emit_syn(now)
            return
        length = record.length - (1 if record.flags & FIN else 0)
        push = PSH if length and not self._send.unsent(record.end) else 0
        self._emit_with_ack(record.seq, record.flags | push, self._send.payload(record.seq, length), now, record.size)

    def _emit_syn(self, now: float) -> None:
        """<SEQ=ISS><CTL=SYN> with all that we offer, or the answer, with what both agree on."""
        options = Options(mss=self.config.mss)
        if self.state in (CLOSED, SYN_SENT):
            options.window_scale = self._own_shift if self.config.window_scaling else None
            options.sack_permitted = self.config.sack
            options.timestamp = (self._clock(now), 0) if self.config.timestamps else None
            self._emit(Segment(self.iss, 0, SYN, self.rcv_wnd, options=options))
            return
        scaled = self.snd_wscale or self.rcv_wscale
        options.window_scale = self.rcv_wscale if scaled else None
        options.sack_permitted = self._loss.sack
        options.timestamp = (self._clock(now), self._ts_recent) if self._timestamps else None
        self._emit(Segment(self.iss, self.rcv_nxt, SYN | ACK, min(self.rcv_wnd, _MAX_UNSCALED), options=options))

    # ---- acknowledgements that go --------------------------------------------------------------------------

    def _acknowledge(self, now: float) -> None:
        """After a segment: ACK at once, or soon (3.8.6.3); nothing if _output has carried it already."""
        if self._ack_now or self._ack_due >= 2 or (self._ack_due and not self.config.delayed_ack):
            self._send_ack(now)
        elif self._ack_due and Timer.DELAYED_ACK not in self._deadlines:
            self._arm(Timer.DELAYED_ACK, now + self.config.delayed_ack)

    def _challenge(self, now: float) -> None:
        """An ACK that lets an honest peer correct itself, and gives an attacker little (RFC 5961 §7: throttled)."""
        self._challenges = [at for at in self._challenges if now - at < _CHALLENGE_PERIOD]
        if len(self._challenges) < _CHALLENGES:
            self._challenges.append(now)
            self._send_ack(now)

    def _send_ack(self, now: float) -> None:
        """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>."""
        self._emit_with_ack(self.snd_nxt, 0, b"", now)

    def _emit_with_ack(self, seq: int, flags: int, data: bytes, now: float, size: int = 0) -> None:
        """A segment, or a burst, with the acknowledgement and the window that hold now."""
        self.rcv_wnd += self._window_gain()
        # Rounded down to what the field can say; what was offered once is still taken (RFC 7323 §2.4).
        wnd = min(self.rcv_wnd >> self.rcv_wscale, _MAX_UNSCALED)
        self._ack_due = 0
        told = not data or not (self._receive.has_gap or self._duplicate)  # SACK goes without data
        self._ack_now = self._ack_now and not told
        self._disarm(Timer.DELAYED_ACK)
        self._last_ack_sent = self.rcv_nxt
        self._emit(Segment(seq, self.rcv_nxt, flags | ACK, wnd, data, self._options(data, now), size=size))

    def _options(self, data: bytes, now: float) -> Options | None:
        """A timestamp, and in an ACK without data the blocks ahead of the gap (RFC 2018 §4, RFC 2883 §4)."""
        blocks: tuple[Block, ...] = ()
        if self._loss.sack and not data and (self._receive.has_gap or self._duplicate is not None):
            most = _MAX_BLOCKS - self._timestamps
            twice = (self._duplicate,) if self._duplicate is not None else ()
            blocks = (*twice, *self._receive.blocks(most - len(twice)))
            self._duplicate = None
        if not self._timestamps and not blocks:
            return None
        return Options(sack=blocks, timestamp=(self._clock(now), self._ts_recent) if self._timestamps else None)

    def _advance_rcv_nxt(self, rcv_nxt: int) -> None:
        """Move RCV.NXT; the window's right edge stays."""
        count = diff(rcv_nxt, self.rcv_nxt)
        self.rcv_nxt = newer(self.rcv_nxt, rcv_nxt)
        self.rcv_wnd = max(self.rcv_wnd - count, 0)

    def _window_gain(self) -> int:
        """By how much the window may open now: 0, or enough to be worth it (3.8.6.2.2, MUST-39)."""
        largest = min(self.config.receive_buffer, _MAX_UNSCALED << self.rcv_wscale)
        gain = largest - self.readable - self.rcv_wnd
        return gain if gain >= min(largest // 2, self.mss) else 0

    def _window_update_is_due(self) -> bool:
        """Worth an ACK of its own: a good part of the buffer, or as much again as the peer has."""
        gain = self._window_gain()
        return gain > 0 and (gain >= self.rcv_wnd or gain >= self.config.receive_buffer // _WORTH_AN_ACK)

    def _stay_alive(self, now: float) -> None:
        """The peer is there: the keep-alive timer begins anew (3.8.4)."""
        if self.config.keep_alive is not None and self.state != TIME_WAIT:
            self._keep_alives = 0
            self._arm(Timer.KEEP_ALIVE, now + self.config.keep_alive)


def _shift_for(buffer: int) -> int:
    """The least Rcv.Wind.Shift that can say the whole of a receive buffer (RFC 7323 §2.3)."""
    return min(max(buffer.bit_length() - 16, 0), 14)
