"""Congestion control: how much may be in flight.

A controller is told what happened and keeps `cwnd` and `ssthresh`, in bytes. Loss recovery itself, which segment to
send again and when, is the connection's.
"""

from __future__ import annotations

from typing import Protocol

_UNLIMITED = 1 << 30


class Controller(Protocol):
    """What a connection asks of a congestion control."""

    cwnd: int
    ssthresh: int

    def on_ack(self, acked: int) -> None:
        """New data was acknowledged, outside of loss recovery."""

    def on_loss(self, in_flight: int) -> None:
        """A segment is lost, told by duplicate ACKs; recovery begins."""

    def on_timeout(self, in_flight: int) -> None:
        """The retransmission timer expired, for the first time for this segment."""


class NewReno:
    """Slow start, congestion avoidance and the reaction to loss of RFC 5681; recovery as RFC 6582 has it."""

    def __init__(self, mss: int, initial_window: int) -> None:
        self._mss = mss
        self._acked = 0  # bytes since cwnd last grew, in congestion avoidance
        self.cwnd = initial_window * mss
        self.ssthresh = _UNLIMITED

    def on_ack(self, acked: int) -> None:
        """Grow: by what was acknowledged in slow start, by one segment per window after (§3.1)."""
        if self.cwnd < self.ssthresh:
            self.cwnd += min(acked, self._mss)
            return
        self._acked += acked
        if self._acked >= self.cwnd:
            self._acked -= self.cwnd
            self.cwnd += self._mss

    def on_loss(self, in_flight: int) -> None:
        """Halve (§3.2 step 2)."""
        self.ssthresh = max(in_flight // 2, 2 * self._mss)
        self.cwnd = self.ssthresh
        self._acked = 0

    def on_timeout(self, in_flight: int) -> None:
        """Halve the threshold and start again from one segment (§3.1, equation 4)."""
        self.ssthresh = max(in_flight // 2, 2 * self._mss)
        self.cwnd = self._mss
        self._acked = 0


class Unlimited:
    """No congestion control: only the peer's window limits. For study, and for the C chiTCP's profile."""

    def __init__(self, mss: int, initial_window: int) -> None:
        self.cwnd = self.ssthresh = _UNLIMITED

    def on_ack(self, acked: int) -> None:
        """Nothing changes."""

    def on_loss(self, in_flight: int) -> None:
        """Nothing changes."""

    def on_timeout(self, in_flight: int) -> None:
        """Nothing changes."""


_REGISTRY: dict[str, type[NewReno] | type[Unlimited]] = {"newreno": NewReno, "none": Unlimited}


def controller(name: str, mss: int, initial_window: int) -> Controller:
    """The congestion control of this name, for segments of `mss` bytes, `initial_window` segments to begin with.

    Raises ValueError, with the known names, if there is none.
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown congestion control {name!r}, expected one of {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name](mss, initial_window)
