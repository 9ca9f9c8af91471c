"""How fast the TCP is: endless transfers over simulated links, and what of them arrives in how much virtual time.

    python -m tests.tcp.goodput            every table, with more seeds and longer than the tests have them
    python -m tests.tcp.goodput --help     fewer seeds, other segments

Goodput counts what the receiving application has read, in bytes per second, from the connect call on: handshake and
slow start included, headers and what was sent again not.
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import mean

from rich.console import Console
from rich.progress import track
from rich.table import Table

from chitcpd.sim import Application, Host, Shape, Simulation
from chitcpd.tcp.api import Config
from chitcpd.tcp.connection import Connection

CHUNK = bytes(1 << 16)  # what the sender hands over at once
PORT = 7000
SAMPLE = 0.01  # seconds between two looks at the congestion window

# ---- transfers that do not end -----------------------------------------------------------------------------


@dataclass(slots=True)
class Flow:
    """A connection whose sender always has more."""

    start: float = 0.0  # seconds; the connect call
    received: list[tuple[float, int]] = field(default_factory=lambda: [(0.0, 0)])  # when, and bytes in all by then
    cwnd: list[tuple[float, float]] = field(default_factory=list)  # each SAMPLE: when, and segments

    def bytes_until(self, when: float) -> int:
        """What the receiving application had read by then."""
        return self.received[bisect_right(self.received, (when, sys.maxsize)) - 1][1]

    def goodput(self, begin: float, end: float) -> float:
        """Bytes per second between two times."""
        return (self.bytes_until(end) - self.bytes_until(begin)) / (end - begin)


def run(shape: Shape, config: Config, flows: Sequence[Flow], seed: int, seconds: float) -> Simulation:
    """Let the flows share a link, which is the same in both directions, for `seconds` of virtual time."""
    simulation = Simulation(seed, longest=seconds)
    alice = simulation.host("10.0.0.2", config=config)
    bob = simulation.host("10.0.0.3", config=config)
    simulation.link(alice, bob, shape)
    for port, flow in enumerate(flows, PORT):
        bob.start(_receive(bob, port, flow))
        alice.start(_send(alice, bob.address, port, flow))
    simulation.run(until=seconds)
    return simulation


def _send(host: Host, address: str, port: int, flow: Flow) -> Application:
    yield flow.start
    socket = yield from host.connect(address, port)
    connection = socket.endpoint.connection
    assert isinstance(connection, Connection)
    host.start(_watch(host, connection, flow))
    while True:
        yield from socket.send(CHUNK)


def _receive(host: Host, port: int, flow: Flow) -> Application:
    socket = yield from host.listen(port).accept()
    total = 0
    while data := (yield from socket.recv()):
        total += len(data)
        flow.received.append((host.simulation.now, total))


def _watch(host: Host, connection: Connection, flow: Flow) -> Application:
    while True:
        flow.cwnd.append((host.simulation.now, connection._congestion.cwnd / connection.mss))
        yield SAMPLE


# ---- a small window and random loss: smoltcp's table -------------------------------------------------------

# bytes per second of smoltcp's own simulation (its tests/netsim.rs): round trip 100 ms, buffers of 32 KiB, no
# congestion control, each segment lost with this probability in either direction
SMOLTCP = {0.0: 322_945, 0.01: 219_671, 0.05: 76_626, 0.1: 37_775, 0.2: 6_079, 0.3: 1_156}
ROUND_TRIP = 0.1  # seconds
BUFFER = 32 * 1024  # bytes, to send and to receive
SECONDS = {0.0: 20.0, 0.01: 20.0, 0.05: 25.0, 0.1: 35.0, 0.2: 60.0, 0.3: 120.0}  # of each transfer, by loss
# smoltcp sends no timestamps unless told to. And the window is no whole number of segments: without Nagle, the part of
# a segment that still fits is sent too.
AS_SMOLTCP: dict[str, object] = {"timestamps": False, "nagle": False}


def small_window(congestion: str, loss: float, seed: int, seconds: float, **settings: object) -> float:
    """The goodput in bytes per second, with `settings` beside the window's."""
    flow = Flow()
    config = Config(send_buffer=BUFFER, receive_buffer=BUFFER, congestion=congestion, **settings)  # type: ignore[arg-type]
    run(Shape(delay=ROUND_TRIP / 2, loss=loss), config, [flow], seed, seconds)
    return flow.goodput(0.0, seconds)


# ---- a bottleneck ------------------------------------------------------------------------------------------

RATE = 10e6  # bits per second
DELAY = 0.02  # seconds, each way
BDP = int(RATE * 2 * DELAY / 8)  # bytes
BOTTLENECK = Shape(delay=DELAY, rate=RATE, queue_bytes=BDP)
LONG = Shape(delay=0.2, rate=2e6, queue_bytes=100_000)  # round trip 400 ms, queue of one BDP: where CUBIC is not Reno


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 if all have the same, 1/n if one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def one_flow(congestion: str, shape: Shape, seed: int, seconds: float) -> Flow:
    """A flow that has the link for itself."""
    flow = Flow()
    run(shape, Config(congestion=congestion), [flow], seed, seconds)
    return flow


def two_flows(congestion: str, shape: Shape, seed: int, seconds: float, second: float) -> list[float]:
    """The goodput of two flows, over the `seconds` from the start of the second one on."""
    flows = [Flow(), Flow(start=second)]
    run(shape, Config(congestion=congestion), flows, seed, second + seconds)
    return [flow.goodput(second, second + seconds) for flow in flows]


def share_of_link(bytes_per_second: float, shape: Shape) -> float:
    """Goodput as a share of the link's rate. Headers are in the rate, not in the goodput: 0.965 is the most."""
    assert shape.rate is not None
    return bytes_per_second * 8 / shape.rate


# ---- the tables --------------------------------------------------------------------------------------------


def main() -> int:
    """Print the tables; 0 if every bar is reached, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.tcp.goodput", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="transfers to average over, each with the next seed")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    console = Console()
    reached = [_small_windows(console, seeds), _bottleneck(console, seeds)]
    return 0 if all(reached) else 1


# What the small window's table shows: settings beside the setting's own.
_SETTINGS: dict[str, dict[str, object]] = {
    "none": AS_SMOLTCP,
    "none, default settings": {},
    "none, MSS 1036": {"mss": 1036, "send_mss": 1036},  # 1024 beside a timestamp: a 32nd of the window
    "newreno": AS_SMOLTCP,
    "cubic": AS_SMOLTCP,
}


def _small_windows(console: Console, seeds: Sequence[int]) -> bool:
    table = Table("loss", "smoltcp", *_SETTINGS, title="bytes per second, round trip 100 ms, buffers of 32 KiB")
    reached = True
    for loss, bar in track(list(SMOLTCP.items()), "small windows", console=console, transient=True):
        row = []
        for name, settings in _SETTINGS.items():
            congestion = name.partition(",")[0]
            row.append(mean(small_window(congestion, loss, seed, SECONDS[loss], **settings) for seed in seeds))
        reached &= row[0] > bar
        table.add_row(f"{loss:.0%}", f"{bar:,}", *(f"{goodput:,.0f}" for goodput in row))
    console.print(table)
    return reached


def _bottleneck(console: Console, seeds: Sequence[int]) -> bool:
    table = Table("", "alone", "after 10 s", "two: the worst Jain index", "and their share", title=_TITLE)
    reached = True
    for congestion in track(("newreno", "cubic"), "bottleneck", console=console, transient=True):
        flow = one_flow(congestion, BOTTLENECK, 1, 60.0)
        alone = share_of_link(flow.goodput(0.0, 60.0), BOTTLENECK)
        later = share_of_link(flow.goodput(10.0, 60.0), BOTTLENECK)
        pairs = [two_flows(congestion, BOTTLENECK, seed, 60.0, _second(seed)) for seed in seeds]
        worst = min(pairs, key=jain)
        reached &= alone >= 0.9 and jain(worst) >= 0.9
        shares = ", ".join(f"{share_of_link(goodput, BOTTLENECK):.3f}" for goodput in worst)
        table.add_row(congestion, f"{alone:.3f}", f"{later:.3f}", f"{jain(worst):.4f}", shares)
    console.print(table)
    return reached


_TITLE = "share of a link of 10 Mbit/s, round trip 40 ms, queue of one BDP, over 60 s"


def _second(seed: int) -> float:
    """When the second flow starts: 1 to 5 s after the first."""
    return Random(seed).uniform(1.0, 5.0)


if __name__ == "__main__":
    sys.exit(main())
