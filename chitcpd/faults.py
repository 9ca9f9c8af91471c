"""Segment-level impairments of one direction of a link: seeded, and without I/O.

netem on the real link can't do this: the real TCP that carries the segments repairs what netem loses. Here the
segments themselves are lost, doubled, overtaken, damaged, queued and delayed, and the TCP under study sees it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from random import Random

_MIN_HOLD = 0.01  # seconds that a reordered segment is held back, where netem has the delay and we know of none
IP_HEADER = 20  # bytes; a link's rate and queue count IP packets


_SYN, _RST, _FIN, _ACK = 0x02, 0x04, 0x01, 0x10
_HEADER = 20  # bytes of a TCP header without options

MOST_DROPS = 64  # rules of one direction: each segment is held against all of them

# What a rule may match: of these flags, these are set; and whether it has data (None: whether or not).
KINDS: dict[str, tuple[int, int, bool | None]] = {
    "any": (0, 0, None),
    "SYN": (_SYN | _ACK, _SYN, None),
    "SYN-ACK": (_SYN | _ACK, _SYN | _ACK, None),
    "FIN": (_FIN, _FIN, None),
    "RST": (_RST, _RST, None),
    "ACK": (_SYN | _FIN | _RST | _ACK, _ACK, False),
    "data": (0, 0, True),
}


@dataclass(frozen=True, slots=True)
class Drop:
    """A rule: of the segments of this kind that enter the link, these are lost, counted from 1."""

    kind: str  # of KINDS
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What one direction of a link does to what passes: SI units, shares between 0 and 1."""

    delay: float = 0.0  # seconds, one way
    jitter: float = 0.0  # seconds, at most this much more or less; order is kept
    rate: float | None = None  # bits per second; None: unlimited
    queue_packets: int | None = None  # what may wait for the rate; None: no limit in this unit
    queue_bytes: int | None = None
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # share of segments that are held back for the delay once more: later ones overtake them
    corrupt: float = 0.0  # share of segments in which one bit is turned
    drops: tuple[Drop, ...] = ()
    down: bool = False  # nothing passes


class Impairment:
    """Applies a Shape to a stream of segments; all that is random comes from `seed`."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self.seed = seed
        self.passes_all = shape == Shape()  # and always did: then nobody need ask
        self.counts: Counter[str] = Counter()  # of "down", "drop rule", "loss", "queue", "duplicate", "reorder" ...
        self._random = Random(seed)
        self._waiting: deque[tuple[float, int]] = deque()  # (departure, bytes) of what waits for the rate
        self._waiting_bytes = 0
        self._free_at = 0.0  # when the link has sent all that waits
        self._last_due = 0.0
        self._matched = [0] * len(shape.drops)  # how many segments each rule has seen

    def change(self, shape: Shape, now: float) -> list[float]:
        """What passes from now on meets another shape; by how much later what still waits leaves, the oldest first.

        Rules that stay go on counting, and the random choices go on, too.
        """
        if shape.drops != self.shape.drops:
            self._matched = [0] * len(shape.drops)
        self._forget_departed(now)
        before = [departure for departure, _ in self._waiting]
        if shape.rate is None:
            after = [now] * len(before)
            self._waiting.clear()
            self._waiting_bytes = 0
        else:
            scale = (self.shape.rate or shape.rate) / shape.rate
            after = [now + (departure - now) * scale for departure in before]
            self._waiting = deque((departure, size) for departure, (_, size) in zip(after, self._waiting, strict=True))
        shifts = [later - earlier for earlier, later in zip(before, after, strict=True)]
        self._free_at = after[-1] if after else now
        self._last_due += shifts[-1] if shifts else 0.0
        self.passes_all = self.passes_all and shape == Shape()
        self.shape = shape
        return shifts

    def push(self, raw: bytes, now: float) -> tuple[list[tuple[float, bytes]], str | None]:
        """A segment enters: (when each copy arrives, and its bytes), and why it was dropped, if it was."""
        shape, chance = self.shape, self._random.random
        if shape.down:
            return self._dropped("down")
        if shape.drops and self._rules_drop(raw):
            return self._dropped("drop rule")
        if shape.loss and chance() < shape.loss:
            return self._dropped("loss")
        copies = 1
        if shape.duplicate and chance() < shape.duplicate:
            self.counts["duplicate"] += 1
            copies = 2
        if shape.corrupt and chance() < shape.corrupt:
            self.counts["corrupt"] += 1
            raw = self._turn_one_bit(raw)
        arrivals = []
        for _ in range(copies):
            departure = self._depart(len(raw) + IP_HEADER, now)
            if departure is not None:
                arrivals.append((self._arrive(departure), raw))
        return (arrivals, None) if arrivals else self._dropped("queue")

    def _rules_drop(self, raw: bytes) -> bool:
        """Whether a rule wants it lost; each rule that it matches counts it."""
        if len(raw) < _HEADER:
            return False
        flags, has_data = raw[13], len(raw) > (raw[12] >> 4) * 4
        dropped = False
        for index, rule in enumerate(self.shape.drops):
            looked_at, wanted, data = KINDS[rule.kind]
            if flags & looked_at == wanted and data in (None, has_data):
                self._matched[index] += 1
                dropped = dropped or rule.first <= self._matched[index] <= rule.last
        return dropped

    def _dropped(self, why: str) -> tuple[list[tuple[float, bytes]], str]:
        self.counts[why] += 1
        return [], why

    def _turn_one_bit(self, raw: bytes) -> bytes:
        at = self._random.randrange(len(raw) * 8)
        return raw[: at // 8] + bytes([raw[at // 8] ^ 1 << at % 8]) + raw[at // 8 + 1 :]

    def _depart(self, size: int, now: float) -> float | None:
        """When the link has sent it, or None if the queue is full."""
        shape = self.shape
        if shape.rate is None:
            return now
        self._forget_departed(now)
        if shape.queue_packets is not None and len(self._waiting) > shape.queue_packets:
            return None
        if shape.queue_bytes is not None and self._waiting_bytes + size > shape.queue_bytes and self._waiting:
            return None
        self._free_at = max(self._free_at, now) + size * 8 / shape.rate
        self._waiting.append((self._free_at, size))
        self._waiting_bytes += size
        return self._free_at

    def _forget_departed(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting_bytes -= self._waiting.popleft()[1]

    def _arrive(self, departure: float) -> float:
        shape = self.shape
        due = departure + shape.delay
        if shape.reorder and self._random.random() < shape.reorder:
            self.counts["reorder"] += 1
            return due + max(shape.delay, _MIN_HOLD)
        if shape.jitter:
            due += self._random.uniform(-shape.jitter, shape.jitter)
        self._last_due = max(due, departure, self._last_due)
        return self._last_due
