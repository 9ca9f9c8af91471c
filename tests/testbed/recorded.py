"""Two hosts in virtual time, all that they record, and what their link really did to each segment."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from chitcpd.pcap import Capture
from chitcpd.sim import Application, Host, Shape, Simulation
from chitcpd.tcp.api import Config
from chitcpd.trace import Recorder

ALICE, BOB, PORT = "10.0.0.2", "10.0.0.3", 7


@dataclass(frozen=True, slots=True)
class Passage:
    """What the link did to a segment."""

    sent: float
    raw: bytes
    arrivals: list[tuple[float, bytes]]
    why: str | None  # it was dropped

    @property
    def whole(self) -> list[float]:
        """When it came as it was sent."""
        return [due for due, raw in self.arrivals if raw == self.raw]

    @property
    def damaged(self) -> list[float]:
        """When it came otherwise."""
        return [due for due, raw in self.arrivals if raw != self.raw]


@dataclass(slots=True)
class Recorded:
    """What is left of a run."""

    traces: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    captures: dict[str, bytes] = field(default_factory=dict)
    truth: tuple[list[Passage], list[Passage]] = ([], [])  # of what alice has sent, of what bob has

    def write(self, folder: Path) -> Path:
        """As a run folder."""
        for name, events in self.traces.items():
            host = folder / "hosts" / name
            host.mkdir(parents=True)
            (host / "trace.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
            (host / "segments.pcap").write_bytes(self.captures[name])
        return folder


def record(
    seed: int, shape: Shape, *, config: Config | None = None, size: int = 20_000, answer: int = 0, epoch: int = 0
) -> Recorded:
    """Alice sends `size` bytes to bob, who sends `answer` bytes back. `epoch`: nanoseconds at which time begins."""
    simulation = Simulation(seed, longest=1e6)
    recorded = Recorded(truth=([], []))
    files: dict[str, tuple[io.BytesIO, io.BytesIO, Capture]] = {}
    hosts: list[Host] = []
    for name, address in (("alice", ALICE), ("bob", BOB)):
        trace, capture_file = io.BytesIO(), io.BytesIO()
        capture = Capture(capture_file)
        recorder = Recorder(lambda: epoch + round(simulation.now * 1e9), trace, capture, lambda: None)
        host = simulation.host(address, config=config or Config(), recorder=recorder)
        recorder.connections = host.driver.demux.connections
        files[name] = trace, capture_file, capture
        hosts.append(host)
    alice, bob = hosts
    for impairment, passages in zip(simulation.link(alice, bob, shape), recorded.truth, strict=True):
        _watch(impairment, passages)
    bob.start(_serve(bob, Random(seed).randbytes(answer)))
    alice.start(_ask(alice, Random(seed).randbytes(size)))
    simulation.run()
    for name, (trace, capture_file, capture) in files.items():
        capture.flush()
        recorded.traces[name] = [json.loads(line) for line in trace.getvalue().splitlines()]
        recorded.captures[name] = capture_file.getvalue()
    return recorded


def _watch(impairment: Any, passages: list[Passage]) -> None:
    push = impairment.push

    def watched(raw: bytes, now: float) -> tuple[list[tuple[float, bytes]], str | None]:
        arrivals, why = push(raw, now)
        passages.append(Passage(now, raw, arrivals, why))
        return arrivals, why

    impairment.push = watched


def _serve(host: Host, answer: bytes) -> Application:
    socket = yield from host.listen(PORT).accept()
    while (yield from socket.recv()):
        pass
    yield from socket.send(answer)
    socket.close()


def _ask(host: Host, data: bytes) -> Application:
    socket = yield from host.connect(BOB, PORT)
    yield from socket.send(data)
    socket.shutdown()
    while (yield from socket.recv()):
        pass
    socket.close()
