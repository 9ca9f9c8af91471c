"""The reference TCP: RFC 9293 section 3.10 in one hand, this file in the other, in the same order.

Section numbers are RFC 9293's where no other RFC is named. The methods come as the section has them: the user calls
(3.10.1 to 3.10.5), SEGMENT ARRIVES (3.10.7), the time-outs (3.10.8), and then what they share: sending (3.8).
"""

from __future__ import annotations

import errno

from chitcpd.tcp.api import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Config,
    Options,
    Segment,
    State,
    TcpConnection,
    Timer,
    not_connected,
)
from chitcpd.tcp.congestion import controller
from chitcpd.tcp.receive import ReceiveBuffer
from chitcpd.tcp.rto import RetransmissionTimeout
from chitcpd.tcp.send import Record, SendBuffer
from chitcpd.tcp.seq import add, diff, le, lt, newer

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
_DUPLICATE_ACKS = 3  # that make a loss (RFC 5681 §3.2)


class Connection(TcpConnection):
    """One TCP connection, complete in itself."""

    def __init__(self, *, iss: int, config: Config) -> None:
        super().__init__(iss=iss, config=config)
        self._passive = False
        self._send = SendBuffer(iss, config.send_buffer)
        self._receive = ReceiveBuffer()
        self._rto = RetransmissionTimeout(config)
        self._set_mss(None)

        self.snd_wl1 = self.snd_wl2 = 0  # SEG.SEQ and SEG.ACK of the last window update
        self.max_snd_wnd = 0  # the largest window the peer has offered
        self._closing = False  # the application has called CLOSE
        self._fin: int | None = None  # the sequence number of our FIN, once sent
        self._probing = False  # what is in flight is a probe of a closed window

        self._peer_fin: int | None = None  # the sequence number of the peer's FIN, once seen
        self._ack_due = 0  # segments with data received and not acknowledged
        self._ack_now = False

        self._duplicate_acks = 0
        self._left_network = 0  # bytes that duplicate ACKs say have arrived
        self._recover: int | None = None  # in loss recovery until this is acknowledged (RFC 6582)
        self._recovered = iss  # no second recovery for what was in flight at the last loss

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
        if self.state in (CLOSED, LISTEN):
            raise not_connected()
        if self._closing:
            raise OSError(errno.EPIPE, "the connection is closed for sending")
        taken = self._send.write(data)
        self._output(now)
        return taken

    # ---- 3.10.3 RECEIVE call -------------------------------------------------------------------------------

    def receive(self, limit: int, now: float) -> bytes:
        """RECEIVE (3.10.3): what came before a reset can still be read."""
        if not self.readable:
            self._raise_error()
        data = self._receive.read(limit)
        if data and self.state in _RECEIVING and self._window_gain() > 0:
            self._send_ack()
        return data

    # ---- 3.10.4 CLOSE call ---------------------------------------------------------------------------------

    def close(self, now: float) -> None:
        """CLOSE (3.10.4): the FIN follows the data that waits."""
        if self._closing or self.state == CLOSED:
            return
        self._closing = True
        if self.state in (LISTEN, SYN_SENT):
            self._delete()
        elif self.state == ESTABLISHED or (self.state == SYN_RCVD and not self._send.unsent(self.snd_nxt)):
            self._enter(FIN_WAIT_1)
            self._output(now)
        elif self.state == CLOSE_WAIT:
            self._output(now)

    # ---- 3.10.5 ABORT call ---------------------------------------------------------------------------------

    def abort(self, now: float) -> None:
        """ABORT (3.10.5)."""
        if self.state in (SYN_RCVD, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT):
            self._emit(Segment(seq=self.snd_nxt, ack=self.rcv_nxt, flags=RST | ACK))
        if self.state != CLOSED:
            self._delete()

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
    def unsent(self) -> bytes:
        """All that is not acknowledged."""
        return self._send.peek()

    @property
    def unread(self) -> bytes:
        """All that can be read."""
        return self._receive.peek()

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
        self._synchronize(seg)
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
        # Fourth, check the SYN bit.
        if not seg.flags & SYN:
            return
        self._synchronize(seg)
        if not seg.flags & ACK:  # both open at once
            self._set_window(seg)
            self._enter(SYN_RCVD)
            self._retransmit(self._send.records[0], now)
            return
        self._acknowledged(seg, now)
        self._set_window(seg)
        self._enter(ESTABLISHED)
        self._ack_now = True
        self._take_text_and_fin(Segment(add(seg.seq, 1), seg.ack, seg.flags & ~SYN, seg.wnd, seg.data), now)
        self._output(now)
        self._acknowledge(now)

    def _arrives_otherwise(self, seg: Segment, now: float) -> None:
        """3.10.7.4: the checks that all other states share."""
        # First, check the sequence number.
        if not self._acceptable(seg):
            if not seg.flags & RST:
                self._send_ack()
                if self.state == TIME_WAIT and seg.flags & FIN:  # the peer has missed our ACK of its FIN
                    self._arm(Timer.TIME_WAIT, now + 2 * self.config.msl)
            if self.rcv_wnd or seg.seq != self.rcv_nxt or self.state == TIME_WAIT:
                return
            seg = Segment(seg.seq, seg.ack, seg.flags & (RST | ACK), seg.wnd)  # MUST-66: still heed RST and ACK
        # Second, check the RST bit.
        if seg.flags & RST:
            self._reset_arrives(seg)
            return
        # Fourth, check the SYN bit.
        if seg.flags & SYN:
            if self.state == SYN_RCVD and self._passive:
                self._return_to_listen()
            else:
                self._send_ack()  # a challenge (RFC 5961 §4.2)
            return
        # Fifth, check the ACK field.
        if not seg.flags & ACK or not self._ack_arrives(seg, now):
            return
        # Seventh, process the segment text. Eighth, check the FIN bit.
        self._take_text_and_fin(seg, now)
        self._output(now)
        self._acknowledge(now)

    def _acceptable(self, seg: Segment) -> bool:
        """The four cases of table 6 (3.4): some of the segment lies in the receive window."""
        length = len(seg)
        if length == 0:
            return seg.seq == self.rcv_nxt or self._in_window(seg.seq)
        return self._in_window(seg.seq) or self._in_window(add(seg.seq, length - 1))

    def _in_window(self, seq: int) -> bool:
        return le(self.rcv_nxt, seq) and diff(seq, self.rcv_nxt) < self.rcv_wnd

    def _reset_arrives(self, seg: Segment) -> None:
        """Second, check the RST bit; RFC 5961 §3.2: only one with the exact sequence number is believed."""
        if seg.seq != self.rcv_nxt:
            self._send_ack()
        elif self.state == SYN_RCVD and self._passive:
            self._return_to_listen()
        elif self.state == SYN_RCVD:
            self._fail(errno.ECONNREFUSED)
        elif self.state in (CLOSING, LAST_ACK, TIME_WAIT):
            self._delete()
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
            self._send_ack()  # a challenge (RFC 5961 §5.2)
            return False
        self._count_duplicate(seg)
        if lt(self.snd_una, seg.ack):
            self._acknowledged(seg, now)
        if lt(self.snd_wl1, seg.seq) or (self.snd_wl1 == seg.seq and le(self.snd_wl2, seg.ack)):
            self._set_window(seg)
        if self._fin_acknowledged():
            if self.state == FIN_WAIT_1:
                self._enter(FIN_WAIT_2)
            elif self.state == CLOSING:
                self._enter_time_wait(now)
            elif self.state == LAST_ACK:
                self._delete()
                return False
        return True

    def _take_text_and_fin(self, seg: Segment, now: float) -> None:
        """Seventh, process the segment text; eighth, check the FIN bit: as much as lies in the window."""
        if self.state not in _RECEIVING:
            return
        seq, data, fin = seg.seq, seg.data, bool(seg.flags & FIN)
        before = diff(self.rcv_nxt, seq)
        if before > 0:
            self._ack_now = True  # some of it has come before: our ACK may be lost
            seq, data = self.rcv_nxt, data[before:]
        beyond = diff(add(seq, len(data)), add(self.rcv_nxt, self.rcv_wnd))
        if beyond > 0:
            data, fin = data[: len(data) - beyond], False
        if fin:
            self._peer_fin = add(seq, len(data))
        if data:
            self._ack_now |= seq != self.rcv_nxt or self._receive.has_gap
            self._advance(self._receive.insert(seq, data, self.rcv_nxt))
            self._ack_due += 1
        if self._peer_fin is not None and self._peer_fin == self.rcv_nxt:
            self._fin_arrives(now)
        elif fin:
            self._ack_now = True

    def _fin_arrives(self, now: float) -> None:
        self._advance(add(self.rcv_nxt, 1))
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
            self._send_ack()
        elif timer == Timer.TIME_WAIT:
            self._delete()

    def _retransmission_timeout(self, now: float) -> None:
        """RFC 6298 §5.4 to §5.7, RFC 5681 §3.1: back off, and send again from the oldest on."""
        oldest = self._send.records[0]
        opening = self.state in (SYN_SENT, SYN_RCVD)
        if oldest.retransmissions >= (self.config.syn_retries if opening else self.config.retries):
            self._fail(errno.ETIMEDOUT)
            return
        if oldest.retransmissions == 0 and not opening:
            self._congestion.on_timeout(self._send.in_flight)
        self._rto.double()
        self._recover = None
        self._recovered = self.snd_nxt
        self._duplicate_acks = self._left_network = 0
        self._send.mark_all_lost()
        self._retransmit(oldest, now)

    def _persist_timeout(self, now: float) -> None:
        """3.8.6.1: a byte into a closed window, again and again, so that its opening can't be missed (MUST-36)."""
        if self._probing:
            self._retransmit(self._send.records[0], now)
        elif (usable := self._usable_window()) > 0:  # too little for _sendable: the override of 3.8.6.2.1
            self._transmit_new(min(self._send.unsent(self.snd_nxt), usable, self.mss), now)
            self._output(now)
            return
        else:
            self._probing = True
            self._transmit_new(min(self._send.unsent(self.snd_nxt), 1), now)
        self._rto.double()
        self._arm(Timer.PERSIST, now + self._rto.rto)

    # ---- states --------------------------------------------------------------------------------------------

    def _synchronize(self, seg: Segment) -> None:
        """Take the peer's initial sequence number and options from its SYN."""
        self.irs = seg.seq
        self.rcv_nxt = add(seg.seq, 1)
        self._set_mss(seg.options.mss if seg.options is not None else None)

    def _enter_time_wait(self, now: float) -> None:
        self._enter(TIME_WAIT)
        self._deadlines.clear()
        self._arm(Timer.TIME_WAIT, now + 2 * self.config.msl)

    def _return_to_listen(self) -> None:
        """A passive connection whose handshake failed waits for the next SYN."""
        self._deadlines.clear()
        self._send = SendBuffer(self.iss, self.config.send_buffer)
        self.snd_nxt = self.snd_una = self.iss
        self._enter(LISTEN)

    def _delete(self) -> None:
        """Delete the TCB, enter the CLOSED state."""
        self._deadlines.clear()
        self._enter(CLOSED)

    def _raise_error(self) -> None:
        if self.error is not None:
            raise OSError(self.error, "the connection has failed")

    def _fin_received(self) -> bool:
        return self._peer_fin is not None and lt(self._peer_fin, self.rcv_nxt)

    def _fin_acknowledged(self) -> bool:
        return self._fin is not None and lt(self._fin, self.snd_una)

    # ---- acknowledgements that come ------------------------------------------------------------------------

    def _acknowledged(self, seg: Segment, now: float) -> None:
        """SND.UNA < SEG.ACK =< SND.NXT: advance SND.UNA, with all that follows from it."""
        acked = diff(seg.ack, self.snd_una)
        covered = self._send.acknowledge(seg.ack)
        self.snd_una = seg.ack
        if covered and not any(record.retransmissions for record in covered):  # Karn (RFC 6298 §3)
            self._rto.sample(now - covered[-1].sent_at)
        elif covered and covered[0].flags & SYN:
            self._rto.reset_after_syn()
        self._disarm(Timer.RETRANSMISSION)  # RFC 6298 §5.2; _output arms it again if data is in flight (§5.3)
        if self._probing:
            self._probing = False
            self._disarm(Timer.PERSIST)
        elif self._recover is None:
            self._congestion.on_ack(acked)
            self._duplicate_acks = self._left_network = 0
        elif lt(seg.ack, self._recover):  # a partial ACK: the next hole is lost too (RFC 6582 §3.2 step 5)
            self._left_network = max(self._left_network + self.mss - acked, 0)
            self._send.mark_lost(self._send.records[0])
        else:
            self._recover = None
            self._duplicate_acks = self._left_network = 0

    def _count_duplicate(self, seg: Segment) -> None:
        """RFC 5681 §2 says what a duplicate ACK is, §3.2 what the third one means."""
        outstanding = self.snd_una != self.snd_nxt and not self._probing
        same = seg.ack == self.snd_una and seg.wnd == self.snd_wnd
        if not (outstanding and same) or seg.data or seg.flags & FIN:
            return
        self._duplicate_acks += 1
        self._left_network = min(self._left_network + self.mss, self._send.in_flight)
        if self._duplicate_acks == _DUPLICATE_ACKS and self._recover is None and lt(self._recovered, seg.ack):
            self._congestion.on_loss(self._send.in_flight)
            self._recover = self._recovered = self.snd_nxt
            self._send.mark_lost(self._send.records[0])

    def _set_window(self, seg: Segment) -> None:
        """Update SND.WND, SND.WL1 and SND.WL2; an opened window ends the probing."""
        self.snd_wnd, self.snd_wl1, self.snd_wl2 = seg.wnd, seg.seq, seg.ack
        self.max_snd_wnd = max(self.max_snd_wnd, seg.wnd)
        if self._probing and self.snd_wnd:
            self._probing = False
            self._disarm(Timer.PERSIST)
            self._send.mark_all_lost()

    def _set_mss(self, announced: int | None) -> None:
        """The effective send MSS (3.7.1): what the peer takes and what the link carries, whichever is less."""
        self.mss = min(max(announced or _DEFAULT_MSS, 1), self.config.send_mss)
        self._congestion = controller(self.config.congestion, self.mss, self.config.initial_window)

    # ---- 3.8 Data communication: what is sent, and when ----------------------------------------------------

    def _output(self, now: float) -> None:
        """Send all that may be sent now: first what is lost, then new data, then our FIN."""
        if self.state not in _SENDING or self._probing:
            return
        while (lost := self._send.first_lost()) is not None and self._congestion_room() >= lost.length:
            self._retransmit(lost, now)
        while lost is None and (length := self._sendable()) is not None:
            self._transmit_new(length, now)
        if self._send.records:
            self._disarm(Timer.PERSIST)
            if Timer.RETRANSMISSION not in self._deadlines:
                self._arm(Timer.RETRANSMISSION, now + self._rto.rto)  # RFC 6298 §5.1
        elif (self._send.unsent(self.snd_nxt) or self._fin_waits()) and Timer.PERSIST not in self._deadlines:
            self._arm(Timer.PERSIST, now + self._rto.rto)

    def _sendable(self) -> int | None:
        """Bytes of new data to send in one segment now (0: a FIN alone), or None.

        3.8.6.2.1: a full segment; or all there is, if Nagle allows (3.7.4) or a FIN goes with it; or at least half of
        the largest window that the peer has had.
        """
        unsent, usable = self._send.unsent(self.snd_nxt), self._usable_window()
        if not unsent and self._fin_waits() and usable > 0:
            return 0
        length = min(unsent, usable, self._congestion_room(), self.mss)
        if length <= 0:
            return None
        idle = self.snd_una == self.snd_nxt
        all_of_it = length == unsent and (idle or not self.config.nagle or self._closing)
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

        At least one segment when nothing is in flight: loss must not stop the connection.
        """
        in_flight = self._send.in_flight - self._left_network
        return max(self._congestion.cwnd - in_flight, self.mss if in_flight <= 0 else 0)

    def _send_syn(self, now: float) -> None:
        self.snd_nxt = add(self.iss, 1)
        record = Record(self.iss, self.snd_nxt, SYN, now)
        self._send.sent(record)
        self._transmit(record, now)

    def _transmit_new(self, length: int, now: float) -> None:
        """The next `length` bytes, with our FIN if nothing comes after them."""
        last = length == self._send.unsent(self.snd_nxt)
        fin = last and self._closing
        record = Record(self.snd_nxt, add(self.snd_nxt, length + fin), FIN if fin else 0, now)
        self._send.sent(record)
        self.snd_nxt = record.end
        if fin:
            self._fin = add(record.end, -1)
        self._transmit(record, now, PSH if last and length else 0)
        if fin and self.state == CLOSE_WAIT:
            self._enter(LAST_ACK)

    def _retransmit(self, record: Record, now: float) -> None:
        self._send.sent_again(record, now)
        self._transmit(record, now)
        if not self._probing:
            self._arm(Timer.RETRANSMISSION, now + self._rto.rto)

    def _transmit(self, record: Record, now: float, push: int = 0) -> None:
        """Put a record on the wire, with the newest acknowledgement and window."""
        if record.flags & SYN:
            self._emit_syn(now)
            return
        length = record.length - (1 if record.flags & FIN else 0)
        self._emit_with_ack(record.seq, record.flags | push, self._send.payload(record.seq, length))

    def _emit_syn(self, now: float) -> None:
        options = Options(mss=self.config.mss)
        wnd = min(self.rcv_wnd, 0xFFFF)
        if self.state in (CLOSED, SYN_SENT):
            self._emit(Segment(self.iss, 0, SYN, wnd, options=options))
        else:
            self._emit(Segment(self.iss, self.rcv_nxt, SYN | ACK, wnd, options=options))
        self._arm(Timer.RETRANSMISSION, now + self._rto.rto)

    # ---- acknowledgements that go --------------------------------------------------------------------------

    def _acknowledge(self, now: float) -> None:
        """After a segment: ACK at once, or soon (3.8.6.3); nothing if _output has carried it already."""
        if self._ack_now or self._ack_due >= 2 or (self._ack_due and not self.config.delayed_ack):
            self._send_ack()
        elif self._ack_due and Timer.DELAYED_ACK not in self._deadlines:
            self._arm(Timer.DELAYED_ACK, now + self.config.delayed_ack)

    def _send_ack(self) -> None:
        """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>."""
        self._emit_with_ack(self.snd_nxt, 0, b"")

    def _emit_with_ack(self, seq: int, flags: int, data: bytes) -> None:
        self.rcv_wnd += max(self._window_gain(), 0)
        self._ack_due = 0
        self._ack_now = False
        self._disarm(Timer.DELAYED_ACK)
        self._emit(Segment(seq, self.rcv_nxt, flags | ACK, min(self.rcv_wnd, 0xFFFF), data))

    def _advance(self, rcv_nxt: int) -> None:
        """Move RCV.NXT; the window's right edge stays."""
        count = diff(rcv_nxt, self.rcv_nxt)
        self.rcv_nxt = newer(self.rcv_nxt, rcv_nxt)
        self.rcv_wnd = max(self.rcv_wnd - count, 0)

    def _window_gain(self) -> int:
        """By how much the window may open now: 0, or enough to be worth it (3.8.6.2.2, MUST-39)."""
        gain = self.config.receive_buffer - self.readable - self.rcv_wnd
        return gain if gain >= min(self.config.receive_buffer // 2, self.config.mss) else 0
