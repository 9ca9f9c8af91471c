"""Congestion control: how much may be in flight.

A controller is told what happened and keeps `cwnd` and `ssthresh`, in bytes. Which segment is lost and when it is
sent again is not its business (recovery.py). A new one: write a class with the methods of Controller, and add it to
the registry at the end.
"""

from __future__ import annotations

from typing import Protocol

UNLIMITED = 1 << 30  # bytes: ssthresh before the first loss, and a window that limits nothing
_USUAL_MSS = 1460  # bytes


class Controller(Protocol):
    """What a connection asks of a congestion control."""

    ssthresh: int

    @property
    def cwnd(self) -> int:
        """The congestion window."""

    def on_ack(self, acked: int, rtt: float, now: float) -> None:
        """So many bytes of new data were acknowledged outside of recovery, while cwnd was the limit.

        `rtt`: smoothed, in seconds. However many segments one ACK covers, all count: peers that join segments before
        they look at them acknowledge many at once, and for two per ACK (RFC 3465 §2.2) would have us creep.
        """

    def on_loss(self, in_flight: int, now: float) -> None:
        """Segments are lost; recovery begins. `in_flight`: bytes from SND.UNA to SND.NXT."""

    def on_timeout(self, in_flight: int, now: float, *, again: bool = False) -> None:
        """The retransmission timer expired; `again`: for the same segment as the last time."""

    def on_idle(self) -> None:
        """Nothing was sent for longer than the RTO, and now something is."""

    def resume(self, cwnd: int, ssthresh: int) -> None:
        """Go on in the middle of a connection, from the window that another one has left."""


def initial_window(segments: int, mss: int) -> int:
    """The bytes of an initial window of so many segments: fewer segments if they are large (RFC 6928 §2)."""
    return min(segments * mss, max(2 * mss, segments * _USUAL_MSS))


def _to_threshold(control: Controller, mss: int) -> int:
    """The bytes by which slow start may grow: no further than an ACK of one segment would carry it."""
    return -(min(control.cwnd - control.ssthresh, 0) // mss) * mss


class NewReno:
    """Slow start, congestion avoidance and the reaction to loss of RFC 5681; recovery as RFC 6582 has it."""

    def __init__(self, mss: int, segments: int) -> None:
        self._mss = mss
        self._initial = initial_window(segments, mss)
        self._acked = 0  # bytes since cwnd last grew, in congestion avoidance
        self.cwnd = self._initial
        self.ssthresh = UNLIMITED

    def on_ack(self, acked: int, rtt: float, now: float) -> None:
        """Grow: by what was acknowledged in slow start, by one segment per window after (RFC 5681 §3.1, RFC 3465)."""
        slowly = min(acked, _to_threshold(self, self._mss))
        self.cwnd += slowly
        self._acked += acked - slowly
        if self._acked >= self.cwnd:
            self._acked -= self.cwnd
            self.cwnd += self._mss

    def on_loss(self, in_flight: int, now: float) -> None:
        """Halve (RFC 5681 §3.2 step 2).

        Not more than cwnd counts: beyond that, `in_flight` is what the peer has beyond a gap.
        """
        self.ssthresh = max(min(in_flight, self.cwnd) // 2, 2 * self._mss)
        self.cwnd = self.ssthresh
        self._acked = 0

    def on_timeout(self, in_flight: int, now: float, *, again: bool = False) -> None:
        """Halve the threshold, but once, and start again from one segment (RFC 5681 §3.1, equation 4)."""
        if not again:
            self.on_loss(in_flight, now)
        self.cwnd = self._mss

    def on_idle(self) -> None:
        """Back to the restart window (RFC 5681 §4.1)."""
        self.cwnd = min(self.cwnd, self._initial)

    def resume(self, cwnd: int, ssthresh: int) -> None:
        """Take both as they are."""
        self.cwnd, self.ssthresh = cwnd, ssthresh


_C = 0.4  # RFC 9438 §5.1, segments per second cubed
_BETA = 0.7  # §4.6
_ALPHA = 3 * (1 - _BETA) / (1 + _BETA)  # §4.3: as much as Reno gets on the average


class Cubic:
    """CUBIC (RFC 9438): the window grows with the time since the loss.

    Windows are counted in segments here, as the RFC does.
    """

    def __init__(self, mss: int, segments: int) -> None:
        self._mss = mss
        self._initial = initial_window(segments, mss) / mss
        self._w_max = 0.0  # the window at the last loss
        self._w_est = 0.0  # what Reno would have
        self._prior = 0.0  # cwnd_prior: the window when ssthresh was last set
        self._k = 0.0  # seconds from the loss until the window is W_max again
        self._epoch: float | None = None  # when congestion avoidance began, later by all time that does not count
        self._acked_at = 0.0  # when cwnd was last the limit
        self._window = self._initial
        self.ssthresh = UNLIMITED

    @property
    def cwnd(self) -> int:
        """The congestion window in bytes."""
        return int(self._window * self._mss)

    def on_ack(self, acked: int, rtt: float, now: float) -> None:
        """Slow start as Reno has it; then along the cubic, or with Reno where that is faster (§4.2 to §4.5)."""
        since, self._acked_at = now - self._acked_at, now
        slowly = min(acked, _to_threshold(self, self._mss))
        self._window += slowly / self._mss
        if slowly == acked:
            return
        segments = (acked - slowly) / self._mss
        if self._epoch is None:
            self._begin_epoch(now)
        elif since > 2 * rtt:
            self._epoch += since - rtt  # something else was the limit meanwhile: no time to grow by (§4.2)
        assert self._epoch is not None
        alpha = _ALPHA if self._w_est < self._prior else 1.0  # §4.3
        self._w_est += alpha * segments / self._window
        target = _C * (now - self._epoch + rtt - self._k) ** 3 + self._w_max
        target = min(max(target, self._window), 1.5 * self._window)
        self._window = max(self._window + (target - self._window) / self._window * segments, self._w_est)

    def on_loss(self, in_flight: int, now: float) -> None:
        """Back to 0.7 of the window (§4.6); less than last time makes room for others (§4.7, fast convergence)."""
        flight = self._prior = min(in_flight / self._mss, self._window)
        self._w_max = flight * (1 + _BETA) / 2 if flight < self._w_max else flight
        self._window = max(flight * _BETA, 2.0)
        self.ssthresh = self.cwnd
        self._epoch = None

    def on_timeout(self, in_flight: int, now: float, *, again: bool = False) -> None:
        """As after a loss, but from one segment on; and the cubic begins where slow start ends (§4.8)."""
        if not again:
            self.on_loss(in_flight, now)
        self._w_max = 0.0
        self._window = 1.0

    def on_idle(self) -> None:
        """Back to the restart window (RFC 5681 §4.1); the time without sending is none to grow by (§4.2)."""
        self._window = min(self._window, self._initial)
        self._epoch = None

    def resume(self, cwnd: int, ssthresh: int) -> None:
        """Take both as they are; above the threshold, the cubic begins here."""
        self._window, self.ssthresh = cwnd / self._mss, ssthresh

    def _begin_epoch(self, now: float) -> None:
        self._epoch = now
        self._w_max = max(self._w_max, self._window)
        self._k = ((self._w_max - self._window) / _C) ** (1 / 3)
        self._w_est = self._window


class Unlimited:
    """No congestion control: only the peer's window limits. For study, and for the C chiTCP's profile."""

    def __init__(self, mss: int, segments: int) -> None:
        self.cwnd = self.ssthresh = UNLIMITED

    def on_ack(self, acked: int, rtt: float, now: float) -> None:
        """Nothing changes."""

    def on_loss(self, in_flight: int, now: float) -> None:
        """Nothing changes."""

    def on_timeout(self, in_flight: int, now: float, *, again: bool = False) -> None:
        """Nothing changes."""

    def on_idle(self) -> None:
        """Nothing changes."""

    def resume(self, cwnd: int, ssthresh: int) -> None:
        """Nothing changes."""


_REGISTRY: dict[str, type[NewReno] | type[Cubic] | type[Unlimited]] = {
    "newreno": NewReno,
    "cubic": Cubic,
    "none": Unlimited,
}


def controller(name: str, mss: int, segments: int) -> Controller:
    """The congestion control of this name, for segments of `mss` bytes, and so many of them to begin with.

    Raises ValueError, with the known names, if there is none.
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown congestion control {name!r}, expected one of {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name](mss, segments)
