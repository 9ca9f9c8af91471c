"""The chitcpd of each node of a lab, in virtual time: the daemon's own parts, over wires that lose nothing.

What routes, loses, delays and queues segments is `peers`, `links` and `faults`, what records them is `trace` and
`pcap`, as in the daemon: so a lab in virtual time does to the n-th segment on a link what a lab of processes does to
it. Only the real connections between daemons, the event loop and the sockets of applications are others.

    lab = Lab(seed=1)
    alice = lab.node("alice", Settings(addresses=("10.0.0.2",)), files)
    alice.shape(["10.0.0.3"], "10.0.0.2", Shape(delay=0.02), seed=7, mtu=1500)
"""

from __future__ import annotations

import asyncio
import errno
import io
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import chitcpd
from chitcpd import loader
from chitcpd.carrier import HEADER, PROTO_TCP, ROUTED
from chitcpd.driver import Endpoint
from chitcpd.faults import Impairment, Shape
from chitcpd.pcap import Capture
from chitcpd.peer import Peer
from chitcpd.peers import Peers
from chitcpd.sim import Host, Signal, Simulation
from chitcpd.tcp.api import Config, State, TcpConnection
from chitcpd.trace import Recorder
from chitcpd.watchdog import EndlessLoop as EndlessLoop  # what ends a call that does not end by itself

_LONGEST = math.inf  # seconds of virtual time: who runs the lab ends it
_TIME_TO_FINISH = 2.0  # seconds at the end for connections to send what they have, as in the daemon
_LOOK_AGAIN = 0.02  # seconds
_LAST_WORDS = 0.5  # seconds for resets at the end to arrive
_WRITE = 1 << 20  # bytes of a file that wait to be written
_PROGRAM = Path(__file__).parents[1]


class File:
    """A file that is written in large pieces, and is open only meanwhile: labs have more of them than descriptors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: list[bytes] = []
        self._size = 0
        path.touch()

    def write(self, data: bytes, /) -> None:
        """Take bytes."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _WRITE:
            self.write_out()

    def flush(self) -> None:
        """Nobody reads it before the end."""

    def write_out(self) -> None:
        """All that was taken is in the file."""
        if self._pieces:
            with self._path.open("ab") as file:
                file.write(b"".join(self._pieces))
            self._pieces, self._size = [], 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says to a daemon."""

    addresses: tuple[str, ...]
    tcp: Path | None = None  # the file of somebody's own TCP; None: the reference
    profile: str = "modern"
    changes: dict[str, str] = field(default_factory=dict)  # settings over the profile, as they were written
    config: Config = field(default_factory=Config)  # both together
    seed: int = 0
    forwards: bool = False  # a router


@dataclass(frozen=True, slots=True)
class Files:
    """Where a daemon writes."""

    log: File
    trace: File
    segments: File | None

    def write_out(self) -> None:
        """All that was taken is in the files."""
        for file in (self.log, self.trace, self.segments):
            if file is not None:
                file.write_out()


class Lab:
    """All nodes, and the virtual time that they have in common."""

    def __init__(self, seed: int) -> None:
        self.simulation = Simulation(seed, longest=_LONGEST)
        self.nodes: dict[str, Node] = {}
        self.of_address: dict[str, Node] = {}
        self.testbed = self.simulation.host("testbed")  # to whom what is no daemon's is ascribed
        self.speaking: Node | None = None  # whose log has what is logged now

    def node(self, name: str, settings: Settings, files: Files) -> Node:
        """A host or a router, with its daemon started. Raises ValueError for a TCP that can't be loaded."""
        self.nodes[name] = node = Node(self, name, settings, files)
        for address in settings.addresses:
            self.of_address[address] = node
        node.start()
        return node

    def call(self) -> tuple[str, int] | None:
        """The call of a TCP that goes on at this moment: of which node, and its number. For another thread."""
        busy = (node for node in list(self.nodes.values()) if node.runs and node.host.driver.calling)
        return next(((node.name, node.host.driver.calls) for node in busy), None)

    def finish(self) -> None:
        """End all daemons, as SIGTERM would: connections send what they have, and those that can't are reset.

        Raises sim.LimitExceeded if they never come to an end.
        """
        simulation, nodes = self.simulation, [node for node in self.nodes.values() if node.runs]
        until = simulation.now + _TIME_TO_FINISH
        try:
            while simulation.now < until and any(node.unfinished() for node in nodes):
                simulation.run(simulation.now + _LOOK_AGAIN)
            for node in nodes:
                node.say(f"ending: {len(node.unfinished())} connections are reset")
            for node in nodes:
                node.reset_all()
            simulation.run(simulation.now + _LAST_WORDS)
        finally:
            self.write_out()

    def write_out(self) -> None:
        """All that was recorded is in the files."""
        for node in self.nodes.values():
            node.write_out()


class Node:
    """A host or a router: one daemon, which may be killed, started anew, or stand still."""

    host: Host  # the daemon's connections; those of the last one, if it was killed
    peers: Peers

    def __init__(self, lab: Lab, name: str, settings: Settings, files: Files) -> None:
        self.lab = lab
        self.name = name
        self.runs = False
        self.paused = False
        self.waiting: dict[Signal, None] = {}  # what applications wait for: told when the daemon goes on, or is gone
        self.settings = settings
        self._files = files
        self._held: list[Callable[[], None]] = []  # what has happened while it stood still
        # One capture for all of its lives: a file has one beginning.
        self._capture = None if files.segments is None else Capture(files.segments)

    # ---- its life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon; it knows no links yet. Raises ValueError for a TCP that can't be loaded."""
        lab, settings = self.lab, self.settings
        tcp, tcp_name = _load(settings, self._print)
        simulation = lab.simulation
        recorder = Recorder(lambda: round(simulation.now * 1e9), self._files.trace, self._capture, _nothing)
        peers = _Peers(self, recorder)
        host = _Host(self, tcp, settings.config, recorder, peers, str(settings.seed).encode())
        recorder.connections = host.driver.demux.connections
        self.host, self.peers, self.runs = host, peers, True
        self.say(
            f"chitcpd {chitcpd.__version__}, TCP {tcp_name}, profile "
            f"{' '.join([settings.profile, *map('='.join, settings.changes.items())])}: "
            f"on {', '.join(settings.addresses)}, in virtual time"
        )

    def kill(self) -> None:
        """The daemon is gone, and with it all connections."""
        self.runs = False
        self.resume()  # what it stood still for is lost, and those who sent it see that

    def pause(self) -> None:
        """Stand still: what happens from now on happens when it goes on."""
        self.paused = self.runs

    def resume(self) -> None:
        """Go on."""
        self.paused = False
        held, self._held = self._held, []
        for action in held:
            self.later(action)
        self.tell_all()

    def tell_all(self) -> None:
        """Whoever waits for something of this daemon looks again."""
        for signal in list(self.waiting):
            signal.changed()

    def later(self, action: Callable[[], None]) -> None:
        """Do something of this daemon's at this moment, after what is being done."""
        simulation = self.lab.simulation
        simulation.schedule(simulation.now, self.host, self._act, action)

    def _act(self, action: Callable[[], None]) -> None:
        if self.paused:
            self._held.append(action)
        else:
            self.lab.speaking = self
            action()

    def hold(self, action: Callable[[], None]) -> bool:
        """Whether the daemon stands still: then it does this when it goes on."""
        if self.paused:
            self._held.append(action)
        return self.paused

    def listens(self, port: int) -> bool:
        """Whether it says that it has a listener there."""
        return self.runs and not self.paused and any(one == port for _, one in self.host.driver.demux.listeners)

    def unfinished(self) -> list[Endpoint]:
        """Connections that a reset would harm, as the daemon sees it."""
        return [
            endpoint
            for endpoint in self.host.driver.demux.connections.values()
            if endpoint.connection.state != State.TIME_WAIT
            and not (endpoint.orphan and endpoint.connection.state == State.FIN_WAIT_2)
        ]

    def reset_all(self) -> None:
        """Reset every connection."""
        self.lab.speaking = self
        for endpoint in list(self.host.driver.demux.connections.values()):
            self.host.driver.abort(endpoint, self.lab.simulation.now, errno.ECONNABORTED)

    # ---- its links -----------------------------------------------------------------------------------------

    def shape(self, neighbours: Sequence[str], own: str, shape: Shape, *, seed: int | None, mtu: int) -> None:
        """What leaves for these over a link of ours, on which we are `own`, meets this from now on.

        `seed`: of its random choices; None: these go on.
        """
        self.peers.links.set_shape(neighbours, shape, seed, {"own": own, "mtu": mtu})

    def route(self, behind: Sequence[str], via: str, *, own: str, mtu: int) -> None:
        """These addresses are past the router `via`."""
        self.peers.links.set_route(behind, via, {"own": own, "mtu": mtu})

    def block(self, addresses: Sequence[str]) -> None:
        """Nothing passes between us and these, and only these."""
        self.peers.links.block(addresses)

    def impairment(self, neighbour: str) -> Impairment | None:
        """What the link to this neighbour does, and has done."""
        link = self.peers.links.get(neighbour)
        return None if link is None else link.impairment

    # ---- what it tells -------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line of the log."""
        at = self.lab.simulation.now
        hours, seconds = divmod(at, 3600)
        clock = f"{int(hours):02}:{int(seconds // 60):02}:{seconds % 60:012.9f}"
        self._files.log.write(f"[{clock}] {'chitcpd':>16} {text}\n".encode(errors="backslashreplace"))

    def _print(self, *values: object, **options: Any) -> None:
        """What the TCP prints is in the log, as that of a process is."""
        text = io.StringIO()
        print(*values, **{"file": text, **options})
        self._files.log.write(text.getvalue().encode(errors="backslashreplace"))

    def write_out(self) -> None:
        """All that was recorded is in the files."""
        if self._capture is not None:
            self._capture.flush()
        self._files.write_out()


def _load(settings: Settings, own_print: Callable[..., None]) -> tuple[type[TcpConnection], str]:
    """The TCP, and its name for a person; for each daemon anew, as each has its own process. Raises ValueError.

    `own_print`: what `print` is there.
    """
    path = settings.tcp
    if path is None:
        return loader.load(loader.REFERENCE), loader.REFERENCE
    try:
        tcp = loader.load(str(path), {"print": own_print})
        loader.try_out(tcp, path.name, settings.config)
    except loader.LoadError as error:
        raise ValueError(str(error)) from error
    return tcp, path.name


def without_places(text: str, *places: Path) -> str:
    """What a traceback says, with paths that begin below this program, or these directories: the same everywhere."""
    for place in (_PROGRAM, *places):
        text = text.replace(f"{place}/", "")
    return text


def _nothing() -> None:
    """Files are written when they are long enough."""


class _Host(Host):
    """The driver of a node, and its timer, which does not ring while the daemon stands still, or once it is gone."""

    def __init__(
        self,
        node: Node,
        tcp: type[TcpConnection],
        config: Config,
        recorder: Recorder,
        network: Peers,
        seed: bytes,
    ) -> None:
        simulation = node.lab.simulation
        super().__init__(simulation, node.name, tcp, config, recorder, network=network, seed=seed)
        self._node = node

    def _ring(self, deadline: float) -> None:
        node = self._node
        if node.host is not self or not node.runs or node.hold(lambda: self._ring(deadline)):
            return
        node.lab.speaking = node
        super()._ring(deadline)


class _Peers(Peers):
    """The network layer of a node; the connections to its neighbours are there from the beginning."""

    def __init__(self, node: Node, recorder: Recorder) -> None:
        simulation = node.lab.simulation
        super().__init__(
            port=0,
            addresses=list(node.settings.addresses),
            deliver=self._deliver,
            unreachable=lambda own, peer: node.host.driver.unreachable(own, peer, simulation.now),
            dropped=recorder.lost,
            refused=recorder.dropped,
            forwards=node.settings.forwards,
            loop=cast(asyncio.AbstractEventLoop, _Loop(node)),
        )
        self.passed = recorder.passed
        self.node = node
        self._neighbours: dict[tuple[str, str], _Neighbour] = {}

    def peer(self, own: str, address: str) -> Peer:
        """The node that has this address."""
        neighbour = self._neighbours.get((own, address))
        if neighbour is None:
            neighbour = self._neighbours[own, address] = _Neighbour(self, own, address)
        return neighbour

    @property
    def is_alive(self) -> bool:
        """Whether it is that of the daemon that runs."""
        return self.node.runs and self.node.peers is self

    def _deliver(self, own: str, peer: str, raws: Sequence[bytes]) -> None:
        if self.is_alive:
            self.node.host.driver.segments_arrive(own, peer, raws, self.loop.time())

    def is_own(self, address: str) -> bool:
        """Whether it is one of this node's; no other host of this machine is asked."""
        return address in self._own


class _Neighbour(Peer):
    """Hands segments to the daemon at the other end of a link, all that leave at one moment together."""

    def __init__(self, peers: _Peers, own: str, address: str) -> None:
        super().__init__(peers, own, address)
        self._ours = peers
        self._node = peers.node
        self._sent: deque[tuple[bytes, bytes]] = deque()  # (route, segment)

    def send(self, raws: Sequence[bytes], route: bytes = b"", proto: int = PROTO_TCP) -> None:
        """Let them arrive, after what is being done now."""
        if not self._sent:
            there = self._node.lab.of_address.get(self.address)
            # What befalls one that is gone is the sender's to see.
            (there if there is not None and there.runs else self._node).later(self._arrive)
        self._sent.extend((route, raw) for raw in raws)
        self._node.lab.simulation.segments += len(raws)

    def _arrive(self) -> None:
        sent = list(self._sent)
        self._sent.clear()
        there = self._node.lab.of_address.get(self.address)
        if there is None or not there.runs:
            self._fail(sent)
            return
        for route, row in groupby(sent, key=lambda one: one[0]):
            there.peers.take(self.address, self.own, PROTO_TCP, route, [raw for _, raw in row])

    def _fail(self, sent: list[tuple[bytes, bytes]]) -> None:
        if self._ours.is_alive:
            for route, raw in sent:
                header = HEADER.pack(len(raw), PROTO_TCP, ROUTED if route else 0, route)
                self._lose("unreachable", (header, raw))
            self._ours.unreachable(self.own, self.address)


class _Loop:
    """As much of an event loop as `peers` and `links` need, in virtual time."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._simulation = node.lab.simulation

    def time(self) -> float:
        """Virtual seconds."""
        return self._simulation.now

    def call_soon(self, callback: Callable[[], object]) -> _Timer:
        """At this moment, after what is being done."""
        return self.call_at(self._simulation.now, callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> _Timer:
        """At a moment. What is on a link then arrives, however its sender fares."""
        timer = _Timer(callback)
        self._simulation.schedule(when, self._node.host, _Timer.ring, timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What goes wrong is for whoever runs the simulation."""
        error: Exception = context["exception"]
        raise error


class _Timer:
    """Something that is to happen: as much of an asyncio.TimerHandle as is needed."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """It is not to happen."""
        self._callback = None

    def ring(self) -> None:
        """The moment has come."""
        if self._callback is not None:
            self._callback()
