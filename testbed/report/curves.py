"""A number that changes in time, as columns; of very many changes as many as a screen can show."""

from __future__ import annotations

from array import array
from bisect import bisect_left

MOST = 60_000  # changes of one curve: ten times as many as a wide screen has pixels


class Curve:
    """A value from each of its times to the next one; NaN: there is none."""

    __slots__ = ("t", "v")

    def __init__(self) -> None:
        self.t = array("q")  # microseconds
        self.v = array("d")

    def add(self, t: int, value: float) -> None:
        """From t, not before the time of the last call, it has this value."""
        if not self.v or self.v[-1] != value:
            self.t.append(t)
            self.v.append(value)

    def thinned(self, most: int = MOST) -> Curve:
        """The same for the eye: of each stretch of time the first, the least, the greatest and the last."""
        if len(self.t) <= most:
            return self
        thin = Curve()
        first, width = self.t[0], max(1, (self.t[-1] - self.t[0]) * 4 // most)
        begin = 0
        while begin < len(self.t):
            end = max(begin + 1, bisect_left(self.t, first + ((self.t[begin] - first) // width + 1) * width))
            stretch = range(begin, end)
            least, greatest = min(stretch, key=self.v.__getitem__), max(stretch, key=self.v.__getitem__)
            for index in sorted({begin, least, greatest, end - 1}):
                thin.t.append(self.t[index])
                thin.v.append(self.v[index])
            begin = end
        return thin


_ROUND = [10_000 * digit * 10**power for power in range(16) for digit in (1, 2, 5)]  # microseconds


class Bins:
    """Amounts, each at its time: how much in each stretch."""

    __slots__ = ("_sums",)

    FINEST = 10_000  # microseconds
    MOST = 120

    def __init__(self) -> None:
        self._sums: dict[int, int] = {}

    def add(self, t: int, amount: int) -> None:
        """At the time t, in microseconds, so much more."""
        at = t // self.FINEST
        self._sums[at] = self._sums.get(at, 0) + amount

    def rate(self) -> tuple[int, Curve]:
        """How long a stretch is, in microseconds; and the amount per second in each, 0 where there was nothing."""
        curve = Curve()
        if not self._sums:
            return self.FINEST, curve
        span = (max(self._sums) - min(self._sums) + 1) * self.FINEST
        width = next(wide for wide in _ROUND if span <= wide * self.MOST)
        sums: dict[int, int] = {}
        for at, amount in self._sums.items():
            own = at * self.FINEST // width
            sums[own] = sums.get(own, 0) + amount
        after: int | None = None
        for own in sorted(sums):
            if after is not None and own != after:
                curve.add(after * width, 0.0)
            curve.add(own * width, sums[own] * 1e6 / width)
            after = own + 1
        curve.add((after or 0) * width, 0.0)
        return width, curve


class Level:
    """How much is somewhere, of what goes in and comes out at times that are told in any order.

    Of very many times those that lie near each other are one, so that a long run takes no more memory than a short one.
    """

    __slots__ = ("_changes", "_width")

    MOST = 1 << 18  # moments: more than a curve is drawn with

    def __init__(self) -> None:
        self._changes: dict[int, int] = {}  # how much more there is from each moment on
        self._width = 1  # microseconds from a moment to the next one

    def add(self, enters: int, leaves: int, amount: int) -> None:
        """So much is there from one time to another, in microseconds."""
        if leaves > enters:
            self._change(enters, amount)
            self._change(leaves, -amount)

    def _change(self, t: int, by: int) -> None:
        at = t // self._width
        self._changes[at] = self._changes.get(at, 0) + by
        if len(self._changes) > self.MOST:
            self._width *= 2
            before, self._changes = self._changes, {}
            for one, amount in before.items():
                self._changes[one // 2] = self._changes.get(one // 2, 0) + amount

    def curve(self) -> Curve:
        """The amount that is there."""
        curve, level = Curve(), 0
        for at in sorted(self._changes):
            level += self._changes[at]
            curve.add(at * self._width, level)
        return curve
