"""How fast is virtual time? `python -m benchmarks.simulation tcp|queue COUNT` prints the CPU seconds it took, as JSON.

`tcp`: a transfer of about so many segments between two hosts of chitcpd.sim, acknowledgements included. `queue`: so
many events of a simulator that has nothing but its queue, each of which makes the next: what any in Python can reach.
"""

from __future__ import annotations

import heapq
import itertools
import json
import sys
import time
from collections.abc import Callable

from chitcpd.sim import Application, Host, Shape, Simulation

_PIECE = bytes(1 << 16)
_PORT = 7000
_SEGMENT = 1460  # bytes
_ACKS = 0.5  # for each segment with data
_IN_FLIGHT = 100  # events that wait


def tcp(count: int) -> int:
    """Carry data for about so many segments; how many they were."""
    simulation = Simulation(seed=1)
    alice, bob = simulation.host("10.0.0.2"), simulation.host("10.0.0.3")
    simulation.link(alice, bob, Shape(delay=0.001))
    bob.start(_receive(bob))
    alice.start(_send(alice, bob.address, int(count / (1 + _ACKS) * _SEGMENT)))
    simulation.run()
    return simulation.segments


def _send(host: Host, address: str, size: int) -> Application:
    socket = yield from host.connect(address, _PORT)
    for begin in range(0, size, len(_PIECE)):
        yield from socket.send(_PIECE[: size - begin])
    socket.close()


def _receive(host: Host) -> Application:
    socket = yield from host.listen(_PORT).accept()
    while (yield from socket.recv()):
        pass
    socket.close()


def queue(count: int) -> int:
    """Let so many events happen."""
    events: list[tuple[float, int, Callable[[float], None]]] = []
    ties = itertools.count()

    def happen(now: float) -> None:
        heapq.heappush(events, (now + 1.0, next(ties), happen))

    for number in range(_IN_FLIGHT):
        happen(number / _IN_FLIGHT)
    for _ in range(count):
        now, _, action = heapq.heappop(events)
        action(now)
    return count


def main() -> None:
    """Do what the command line says, and count the CPU time, which other programs do not change."""
    what, count = sys.argv[1:]
    begun = time.process_time()
    done = {"tcp": tcp, "queue": queue}[what](int(count))
    print(json.dumps({"count": done, "seconds": time.process_time() - begun}))


if __name__ == "__main__":
    main()
