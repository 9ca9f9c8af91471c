"""Loss detection: which of the segments in flight are lost, told by what the peer acknowledges.

Three ways, from the poorest news to the best:

* without SACK, duplicate ACKs (RFC 5681 §3.2) and partial ACKs (RFC 6582);
* with SACK, what lies below three SACKed segments (RFC 6675, IsLost);
* with SACK and time, RACK: what was sent before something that has arrived, and a little more (RFC 8985).

It marks records in the SendBuffer, tells the congestion control, and holds the recovery point. Sending again is the
connection's.
"""

from __future__ import annotations

from chitcpd.tcp.api import Config
from chitcpd.tcp.congestion import Controller
from chitcpd.tcp.send import Record, SendBuffer
from chitcpd.tcp.seq import add, diff, le, lt, newer

DUPLICATE_ACKS = 3  # DupThresh
_MIN_RTT_HOLDS = 300.0  # seconds for which the least round trip is believed to be one of this path
_PERSIST = 16  # recoveries for which a widened reordering window stays (RFC 8985 §6.2 step 4)


class LossDetection:
    """The loss detection of one connection. Times are in seconds, sizes in bytes."""

    def __init__(self, config: Config, buffer: SendBuffer, iss: int) -> None:
        self.config = config
        self._buffer = buffer
        self.sack = False  # the peer tells by SACK
        self.recover: int | None = None  # in recovery until this is acknowledged (RFC 6582's RecoveryPoint)
        self._recovered = iss  # no second recovery for what was in flight at the last loss
        self._first_sign: int | None = None  # SND.NXT when the first ACK came that told of a gap
        self._duplicate_acks = 0
        self.left_network = 0  # bytes that duplicate ACKs say have arrived: without SACK, this is not in flight
        # RFC 8985 §5.2
        self._newest = 0  # for RACK.xmit_ts: the order of the most recently sent of all delivered segments
        self._end = iss  # RACK.end_seq
        self._rtt = 0.0  # RACK.rtt, of what was delivered last
        self.min_rtt: float | None = None
        self._min_rtt_at = 0.0
        self._fack = iss  # the highest sequence number that was delivered
        self._reordering_seen = False
        self._dsack_round: int | None = None
        self._window_factor = 1  # RACK.reo_wnd_mult, in quarters of the minimal round trip
        self._persist = _PERSIST

    def on_timeout(self, snd_nxt: int, srtt: float | None, now: float) -> None:
        """The retransmission timer expired: what is not SACKed is lost, with RACK what is overdue (RFC 8985 §6.3)."""
        self.recover = None
        self._recovered = snd_nxt
        self._first_sign = None
        self._duplicate_acks = self.left_network = 0
        self._buffer.take_apart()
        self._buffer.forget_sacks_if_broken()
        by_time = self.sack and self.config.rack
        latest = now - self._rtt - self._reordering_window(srtt) if by_time else now
        self._buffer.mark_lost(self._buffer.records[0])
        for record in self._buffer.records:
            if record.sent_at <= latest:
                self._buffer.mark_lost(record)

    # ---- without SACK --------------------------------------------------------------------------------------

    def on_duplicate_ack(self, ack: int, mss: int) -> bool:
        """RFC 5681 §3.2: True if this is the third, and means that the oldest segment is lost."""
        self._duplicate_acks += 1
        self.left_network = min(self.left_network + mss, self._buffer.in_flight)
        if self._duplicate_acks != DUPLICATE_ACKS or self.recover is not None or not lt(self._recovered, ack):
            return False
        self._buffer.take_apart()
        self._buffer.mark_lost(self._buffer.records[0])
        return True

    def on_partial_ack(self, acked: int, mss: int) -> None:
        """RFC 6582 §3.2 step 5: what follows the part that was acknowledged is lost too, and goes out at once."""
        self.left_network = max(self.left_network + mss - acked, 0)
        self._buffer.take_apart()

    # ---- recovery ------------------------------------------------------------------------------------------

    def is_news(self, lost: Record) -> bool:
        """It was sent after the last reaction to a loss."""
        return self.recover is None and le(self._recovered, lost.seq)

    def enter_recovery(self, congestion: Controller, snd_una: int, snd_nxt: int, now: float) -> None:
        """Something is lost: one reaction of the congestion control per window of data.

        It is told what was in flight before limited transmit added to it (RFC 5681 §3.2 step 2).
        """
        in_flight_up_to = snd_nxt if self._first_sign is None else self._first_sign
        congestion.on_loss(diff(in_flight_up_to, snd_una), now)
        self.recover = self._recovered = snd_nxt

    def on_gap(self, snd_nxt: int) -> None:
        """An ACK has told of a gap, and acknowledged nothing."""
        if self._first_sign is None:
            self._first_sign = snd_nxt

    def on_new_ack(self, snd_una: int, ack: int) -> None:
        """SND.UNA moves to `ack`; outside of recovery, or at its end, duplicates begin to count anew."""
        if lt(snd_una, self._recovered) and le(self._recovered, ack):
            self.recover = None
            self._persist -= 1
            if self._persist <= 0:
                self._window_factor = 1
        if self._dsack_round is not None and le(self._dsack_round, ack):
            self._dsack_round = None
        if self.recover is None:
            self._first_sign = None
            self._duplicate_acks = self.left_network = 0
        self._recovered = newer(self._recovered, add(ack, -1))  # it must stay near, for the comparisons

    # ---- with SACK -----------------------------------------------------------------------------------------

    def on_delivered(self, records: list[Record], echoed: float, now: float) -> None:
        """These have arrived, whether SACKed or acknowledged: RACK's steps 1 to 3 (RFC 8985 §6.2).

        `echoed`: no copy that was sent after this time can be the one that arrived, says the ACK's timestamp.
        """
        for record in sorted(records, key=lambda record: (record.order, diff(record.end, self._fack))):
            rtt = now - record.sent_at
            if not record.retransmissions:
                self.take_min_rtt(rtt, now)
                if lt(record.end, self._fack):
                    self._reordering_seen = True
            if lt(self._fack, record.end):
                self._fack = record.end
            too_early = record.sent_at > echoed or (self.min_rtt is not None and rtt < self.min_rtt)
            if record.retransmissions and too_early:
                continue  # an earlier copy has arrived, and this tells nothing of the last one's way
            self._rtt = rtt
            if _sent_after(record.order, record.end, self._newest, self._end):
                self._newest, self._end = record.order, record.end

    def take_min_rtt(self, rtt: float, now: float) -> None:
        """The path may have become longer: an old minimum does not hold for ever (§6.2 step 1)."""
        if self.min_rtt is None or rtt <= self.min_rtt or now - self._min_rtt_at > _MIN_RTT_HOLDS:
            self.min_rtt, self._min_rtt_at = rtt, now

    def on_duplicate_data(self, snd_una: int, snd_nxt: int) -> None:
        """D-SACK: the peer has got something twice. Wait longer for what is late, by a step per round trip (step 4)."""
        if self._dsack_round is None or le(self._dsack_round, snd_una):
            self._dsack_round = snd_nxt
            self._window_factor += 1
            self._persist = _PERSIST

    def detect(self, mss: int, srtt: float | None, now: float) -> float | None:
        """Mark what is lost; return when to look again, or None."""
        if self.config.rack and (self._buffer.sacked or self.is_recovering()):
            return self._detect_by_time(srtt, now)
        if not self.config.rack and self._buffer.sacked:
            self._detect_by_number(mss)
        return None

    def _detect_by_number(self, mss: int) -> None:
        """RFC 6675 §4, IsLost: below DupThresh SACKed segments, or below that many bytes."""
        above = segments = 0
        for record in reversed(self._buffer.records):
            if record.sacked:
                above += record.length
                segments += 1
            elif not record.retransmissions and (segments >= DUPLICATE_ACKS or above > (DUPLICATE_ACKS - 1) * mss):
                self._buffer.mark_lost(record)

    def _detect_by_time(self, srtt: float | None, now: float) -> float | None:
        """RFC 8985 §6.2 step 5: sent before what has arrived, by more than the reordering window."""
        window = self._reordering_window(srtt)
        latest = 0.0
        for record in self._buffer.records:
            if record.sacked or record.lost or not _sent_after(self._newest, self._end, record.order, record.end):
                continue
            remaining = record.sent_at + self._rtt + window - now
            if remaining <= 0:
                self._buffer.mark_lost(record)
            else:
                latest = max(latest, remaining)
        return now + latest if latest else None

    def _reordering_window(self, srtt: float | None) -> float:
        """RFC 8985 §6.2 step 4."""
        if not self._reordering_seen and (self.is_recovering() or self._buffer.sacked >= DUPLICATE_ACKS):
            return 0.0
        return min(self._window_factor * (self.min_rtt or 0.0) / 4, srtt if srtt is not None else 0.0)

    @property
    def phase(self) -> str:
        """What Info.recovery says."""
        if self.recover is not None:
            return "recovery"
        if self.is_recovering():
            return "loss"
        return "disorder" if self._buffer.sacked or self._duplicate_acks else "open"

    def is_recovering(self) -> bool:
        """What was in flight at the last loss is not all acknowledged: fast recovery, or the one after a time-out."""
        return bool(self._buffer.records) and lt(self._buffer.records[0].seq, self._recovered)


def _sent_after(order: int, end: int, other_order: int, other_end: int) -> bool:
    """RFC 8985 §6.2, RACK_sent_after: later, or in the same burst with a higher sequence number.

    The RFC compares times. Ours stands still while a batch of segments is handled, and a retransmission may leave at
    the same time as new data before it: that this has arrived says nothing of it.
    """
    return order > other_order or (order == other_order and lt(other_end, end))
