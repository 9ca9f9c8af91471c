"""The retransmission time-out (RFC 6298)."""

from __future__ import annotations

from chitcpd.tcp.api import Config

_K, _ALPHA, _BETA = 4, 1 / 8, 1 / 4  # §2
_AFTER_SYN = 3.0  # §5.7


class RetransmissionTimeout:
    """SRTT, RTTVAR and RTO of one connection, in seconds.

    Karn's algorithm (§3) is the caller's part: it gives no sample of a segment that was sent twice.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.srtt: float | None = None
        self.rttvar = 0.0
        self.rto = config.rto_initial  # §2.1

    def sample(self, rtt: float) -> None:
        """Take in a measured round trip (§2.2, §2.3); this also ends a back-off."""
        if self.srtt is None:
            self.srtt, self.rttvar = rtt, rtt / 2
        else:
            self.rttvar = (1 - _BETA) * self.rttvar + _BETA * abs(self.srtt - rtt)
            self.srtt = (1 - _ALPHA) * self.srtt + _ALPHA * rtt
        self._set(self.srtt + max(self.config.clock_granularity, _K * self.rttvar))

    def double(self) -> None:
        """Back off after an expiry (§5.5)."""
        self._set(self.rto * 2)

    def reset_after_syn(self) -> None:
        """The handshake needed a retransmission: begin with 3 seconds (§5.7)."""
        self._set(_AFTER_SYN)

    def _set(self, rto: float) -> None:
        self.rto = min(max(rto, self.config.rto_min), self.config.rto_max)  # §2.4, §2.5
