"""Two ends and a bad network between them, in virtual time: what arrives is what was sent."""

from __future__ import annotations

import heapq
import itertools

import pytest

from chitcpd.faults import Impairment, Shape
from chitcpd.tcp import wire
from chitcpd.tcp.api import Config, Segment, State, Transition
from chitcpd.tcp.connection import Connection

PSEUDO = wire.pseudo_header("10.0.0.2", "10.0.0.3")
LONGEST = 3600.0  # seconds of virtual time


def payload(length: int) -> bytes:
    """Bytes that tell where they belong, so that misplaced ones show."""
    return b"".join(i.to_bytes(4) for i in range(length // 4 + 1))[:length]


class Pair:
    """A client and a server; each sends its data and closes. Runs until both are CLOSED or in TIME-WAIT."""

    def __init__(
        self, shape: Shape, seed: int, iss: tuple[int, int], data: tuple[bytes, bytes], config: Config
    ) -> None:
        self.ends = [Connection(iss=iss[0], config=config), Connection(iss=iss[1], config=config)]
        self.links = [Impairment(shape, seed), Impairment(shape, seed + 1)]
        self.to_send = [memoryview(data[0]), memoryview(data[1])]
        self.received = [bytearray(), bytearray()]
        self.states: list[list[State]] = [[], []]
        self.segments = 0
        self._events: list[tuple[float, int, int, bytes]] = []
        self._ties = itertools.count()
        self.now = 0.0

    def run(self) -> None:
        self.ends[1].open(0.0, active=False)
        self.ends[0].open(0.0, active=True)
        self._after(1)
        self._after(0)
        while not all(end.state in (State.CLOSED, State.TIME_WAIT) for end in self.ends):
            deadlines = [(end.next_deadline(), who) for who, end in enumerate(self.ends)]
            timers = [(at, who) for at, who in deadlines if at is not None]
            assert timers or self._events, f"stuck in {[end.state.name for end in self.ends]}"
            timer = min(timers, default=(LONGEST, 0))
            if self._events and self._events[0][0] <= timer[0]:
                self.now, _, who, raw = heapq.heappop(self._events)
                try:
                    self.ends[who].segment_arrives(wire.decode(raw, PSEUDO)[2], self.now)
                except wire.MalformedSegment:
                    continue
            else:
                self.now, who = timer
                self.ends[who].expire(self.now)
            assert self.now < LONGEST
            self._after(who)

    def _after(self, who: int) -> None:
        end = self.ends[who]
        if end.state in (State.ESTABLISHED, State.CLOSE_WAIT) and self.to_send[who]:
            self.to_send[who] = self.to_send[who][end.send(self.to_send[who], self.now) :]
        if not self.to_send[who] and end.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            end.close(self.now)
        while end.readable:
            self.received[who] += end.receive(5000, self.now)
        for output in end.take_output():
            if isinstance(output, Segment):
                self.segments += 1
                arrivals, _ = self.links[who].push(wire.encode(output, 1, 2, PSEUDO), self.now)
                for due, raw in arrivals:
                    heapq.heappush(self._events, (due, next(self._ties), 1 - who, raw))
            elif isinstance(output, Transition):
                self.states[who].append(output.new)


NETWORKS = {
    "perfect": Shape(delay=0.01),
    "lossy": Shape(delay=0.01, loss=0.05),
    "very lossy": Shape(delay=0.01, loss=0.3),
    "reordering": Shape(delay=0.01, jitter=0.005, reorder=0.2),
    "duplicating": Shape(delay=0.01, duplicate=0.2),
    "corrupting": Shape(delay=0.01, corrupt=0.1),
    "narrow": Shape(delay=0.02, rate=5e6, queue_packets=10),
    "everything": Shape(0.01, 0.005, 5e6, 30, None, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("iss", [(0, 0), (2**32 - 5000, 2**31 - 5000)], ids=["plain", "wrapping"])
def test_what_arrives_is_what_was_sent(network: str, iss: tuple[int, int], seed: int) -> None:
    print(f"network={network!r} iss={iss} seed={seed}")
    data = payload(120_000), payload(50_001)
    pair = Pair(NETWORKS[network], seed, iss, data, Config(retries=100))
    pair.run()
    assert pair.received[1] == data[0]
    assert pair.received[0] == data[1]
    assert [end.error for end in pair.ends] == [None, None]


def test_small_buffers_and_windows() -> None:
    """4096 bytes each way: the window closes all the time."""
    data = payload(100_000), payload(100_000)
    config = Config(receive_buffer=4096, send_buffer=4096, mss=536, congestion="none", nagle=False, delayed_ack=0)
    pair = Pair(Shape(delay=0.01, loss=0.05), 1, (7, 2**32 - 7), data, config)
    pair.run()
    assert (bytes(pair.received[1]), bytes(pair.received[0])) == data


def test_a_bottleneck_is_used_well() -> None:
    """10 Mbit/s, 40 ms of round trip, a queue of one BDP: most of the link carries data, and losses come in bursts."""
    data = payload(2_000_000), b""
    pair = Pair(Shape(delay=0.02, rate=10e6, queue_bytes=50_000), 1, (0, 0), data, Config())
    pair.run()
    assert bytes(pair.received[1]) == data[0]
    assert len(data[0]) * 8 / pair.now > 7e6
