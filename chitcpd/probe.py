"""What a link really does: measured between the daemons at its two ends, beside all segments.

A probe takes as long as a segment would on an idle link, and passes one that is down, too: it touches no seeded choice,
and waits for nothing. A train of probes, sent at once, arrives at the link's rate.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass

from chitcpd.faults import IP_HEADER, Impairment, Shape
from chitcpd.peers import Peers

_PROBE = struct.Struct("!B3xIIQ")  # kind, number, and two values that depend on the kind
_ECHO, _REPLY, _TRAIN, _REPORT = 1, 2, 3, 4  # (_, _), (_, _), (index, how many), (bytes, nanoseconds)
_SIZE = 1500  # bytes, as the link counts, of the probes of a train
_MOST_PROBES = 800  # of a train: what waits for a carrier is bounded
_TRIES = 5  # of a measurement, as long as the machine is too busy for a good one
_GOOD_RATE = 0.03  # of the rate by which it may be off
_TRAIN_TAKES = 0.2  # seconds, if that is not too many probes
_MOST_TRAINS = 8  # at a time: they are work, and would be in each other's way, and in that of echoes
_PATIENCE = 0.1  # seconds for an answer, beside what the link takes
_MOST_UNDER_WAY = 4 * _MOST_PROBES  # of ours and of our answers, on links with a delay

Answer = tuple[int, int, float]  # the two values of a probe that has come, and how long after the question


@dataclass(frozen=True, slots=True)
class Measured:
    """What a link does."""

    rtt: float  # seconds, of an idle link: the least of some
    rate: float | None  # bits per second, towards the neighbour; None: not asked for, or not heard of


class Prober:
    """Probes neighbours, and answers theirs."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._loop = peers.loop
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[float, asyncio.Future[Answer]]] = {}  # number -> when, and who waits
        # Neighbour -> number of its train that arrives, when what counts of that began, bytes since then
        self._trains: dict[str, tuple[int, float, int]] = {}
        self._under_way = 0
        self._may_send_a_train = asyncio.Semaphore(_MOST_TRAINS)
        peers.probed = self._take

    async def measure(self, neighbour: str, *, good_rtt: float, rate: float | None) -> Measured:
        """Measure the link to a neighbour; wait for it, if it is not there yet.

        `good_rtt`: seconds; a longer round trip may be this machine's and not the link's, and is measured again.
        `rate`: what is expected, in bits per second; None: don't measure it.
        """
        rtt = await self._least_rtt(neighbour, good_rtt)
        async with self._may_send_a_train:
            measured = None if rate is None else await self._nearest_rate(neighbour, rate, good_rtt)
            if rtt > good_rtt:
                rtt = min(rtt, await self._least_rtt(neighbour, good_rtt))
        return Measured(rtt, measured)

    async def _least_rtt(self, neighbour: str, good_rtt: float) -> float:
        rtt = await self._echo(neighbour, good_rtt)
        for _ in range(_TRIES - 1):
            if rtt <= good_rtt:
                break
            rtt = min(rtt, await self._echo(neighbour, good_rtt))
        return rtt

    async def _echo(self, neighbour: str, good_rtt: float) -> float:
        """Asked again as long as there is no answer; one that is late counts from its own question on."""
        answer: asyncio.Future[Answer] = self._loop.create_future()
        try:
            while not answer.done():
                self._ask(answer, lambda number: self._send(neighbour, _ECHO, number))
                await asyncio.wait({answer}, timeout=good_rtt + _PATIENCE)
                if not answer.done():
                    self._peers.hurry(neighbour)
            return answer.result()[2]
        finally:
            answer.cancel()

    async def _nearest_rate(self, neighbour: str, expected: float, good_rtt: float) -> float | None:
        """Of a few measurements the one nearest to what is expected: a busy machine is off to either side."""
        nearest = None
        for _ in range(_TRIES):
            rate = await self._rate(neighbour, expected, good_rtt)
            if rate is not None and (nearest is None or abs(rate - expected) < abs(nearest - expected)):
                nearest = rate
            if nearest is not None and abs(nearest / expected - 1) <= _GOOD_RATE:
                break
        return nearest

    async def _rate(self, neighbour: str, expected: float, good_rtt: float) -> float | None:
        """Of a train that is sent at once."""
        size = min(self._peers.mtu(neighbour) or _SIZE, _SIZE)
        count = max(8, min(_MOST_PROBES, round(expected * _TRAIN_TAKES / 8 / size)))
        link = self._idle(neighbour)

        def send(number: int) -> None:
            for index in range(count):
                self._send(neighbour, _TRAIN, number, index, count, size=size, link=link)

        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._ask(answer, send)
        try:
            arrived, nanoseconds, _ = await asyncio.wait_for(answer, 2 * good_rtt + 1 + count * size * 16 / expected)
        except TimeoutError:
            return None
        return arrived * 8e9 / nanoseconds if nanoseconds else None

    def _ask(self, answer: asyncio.Future[Answer], send: Callable[[int], None]) -> None:
        """Send a probe of a number of its own, until there is an answer to it, or to another one."""
        number = next(self._numbers)
        answer.add_done_callback(lambda _: self._asked.pop(number))
        self._asked[number] = self._loop.time(), answer
        send(number)

    def _idle(self, neighbour: str) -> Impairment:
        """The link as it would be if nothing waited there, and nothing were random."""
        known = self._peers.links.get(neighbour)
        shape = known.impairment.shape if known is not None and known.impairment is not None else Shape()
        return Impairment(Shape(delay=shape.delay, rate=shape.rate), 0)

    def _send(
        self,
        neighbour: str,
        kind: int,
        number: int,
        first: int = 0,
        second: int = 0,
        *,
        size: int = 0,
        link: Impairment | None = None,
    ) -> None:
        """`size`: in bytes, as the link counts; the probe is padded up to it."""
        raw = _PROBE.pack(kind, number, first, second).ljust(size - IP_HEADER, b"\0")
        ((due, _),), _ = (link or self._idle(neighbour)).push(raw, self._loop.time())
        if self._under_way < _MOST_UNDER_WAY:
            self._under_way += 1
            self._loop.call_at(due, self._carry, neighbour, raw)

    def _carry(self, neighbour: str, raw: bytes) -> None:
        self._under_way -= 1
        self._peers.carry_probe(neighbour, raw)

    def _take(self, neighbour: str, raw: bytes) -> None:
        """A probe has come from a neighbour."""
        kind, number, first, second = _PROBE.unpack_from(raw)
        if kind == _ECHO:
            self._send(neighbour, _REPLY, number)
        elif kind == _TRAIN:
            self._note(neighbour, number, first, second, len(raw) + IP_HEADER)
        elif number in self._asked and kind in (_REPLY, _REPORT):
            asked_at, answer = self._asked[number]
            if not answer.done():
                answer.set_result((first, second, self._loop.time() - asked_at))

    def _note(self, neighbour: str, number: int, index: int, count: int, size: int) -> None:
        """A probe of a train: what counts is its second half, when the carrier has found its pace."""
        now = self._loop.time()
        if index == count // 2:
            self._trains[neighbour] = number, now, 0
            return
        known, began, arrived = self._trains.get(neighbour, (0, 0.0, 0))
        if known != number:
            return
        self._trains[neighbour] = number, began, arrived + size
        if index == count - 1:
            del self._trains[neighbour]
            self._send(neighbour, _REPORT, number, arrived + size, int((now - began) * 1e9))
