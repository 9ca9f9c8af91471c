"""Many hosts in one process, in virtual time: the daemon's driver over links that delay, lose and reorder segments.

Nothing asks a clock, and all that is random comes from one seed: the same program has the same run, to the last bit.
An application is a generator. It yields where it would block: `yield from` before each call that may wait, and
`yield 0.5` to sleep for half a second.

    from chitcpd.sim import Host, Shape, Simulation

    def server(host):
        socket = yield from host.listen(7).accept()
        while data := (yield from socket.recv()):
            yield from socket.send(data.upper())
        socket.close()

    def client(host):
        socket = yield from host.connect("10.0.0.3", 7)
        yield from socket.send(b"hello")
        socket.shutdown()
        return (yield from socket.recv())

    simulation = Simulation(seed=1)
    alice, bob = simulation.host("10.0.0.2"), simulation.host("10.0.0.3")
    simulation.link(alice, bob, Shape(delay=0.02, loss=0.05))
    bob.start(server(bob))
    answer = alice.start(client(alice))
    simulation.run()
    assert answer.result == b"HELLO"
"""

from __future__ import annotations

import errno
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from random import Random
from typing import Any

from chitcpd import demux, loader
from chitcpd.driver import Driver, Endpoint, Network, Recorder
from chitcpd.faults import Impairment, Shape
from chitcpd.tcp.api import Config, Expiry, Segment, State, TcpConnection, Transition

__all__ = ["Host", "LimitExceeded", "Listener", "Process", "Shape", "Signal", "Simulation", "Socket"]

_MOST_AT_ONCE = 1_000_000  # events at the same time: more, and time stands still
_SENDING = frozenset({State.ESTABLISHED, State.CLOSE_WAIT})
_NO_MORE_TO_READ = frozenset({State.CLOSING, State.LAST_ACK, State.TIME_WAIT, State.CLOSED})


class LimitExceeded(Exception):
    """A simulation went on for longer than it may; the text says which limit, and the seed."""


class Simulation:
    """Virtual time, and the events that are to happen in it: by their time, and those of one time by their order."""

    def __init__(self, seed: int, *, longest: float = 3600.0, most_events: int = 100_000_000) -> None:
        """`longest`: seconds of virtual time; both limits are there to end what would never end."""
        self.seed = seed
        self.longest = longest
        self.most_events = most_events
        self.now = 0.0  # seconds
        self.events = 0
        self.segments = 0  # that were sent
        self.step: Callable[[Host], None] | None = None  # called after each event, with the host it befell
        self.hosts: dict[str, Host] = {}
        self._events: list[tuple[float, int, Host, Callable[[Any], None], object]] = []
        self._ties = itertools.count()
        self._ready: deque[Process] = deque()
        self._halted = False

    def host(
        self,
        address: str,
        *,
        tcp: type[TcpConnection] | None = None,
        config: Config | None = None,
        recorder: Recorder | None = None,
    ) -> Host:
        """A new host with this IP address; `tcp` is the reference if it is not given."""
        if address in self.hosts:
            raise ValueError(f"there is a host {address} already; give each its own address")
        tcp = tcp or loader.load(loader.REFERENCE)
        self.hosts[address] = host = Host(self, address, tcp, config or Config(), recorder or _Nobody())
        return host

    def link(
        self, a: Host, b: Host, there: Shape, back: Shape | None = None, *, mtu: int = 1500
    ) -> tuple[Impairment, Impairment]:
        """Join two hosts: `there` is the way from `a` to `b`, `back` the other one, like `there` if it is not given.

        What each direction did is in `counts` of what is returned, and a new `shape` there changes the link at once.
        """
        return a.attach(b, there, mtu), b.attach(a, there if back is None else back, mtu)

    def run(self, until: float | None = None) -> None:
        """Let all happen that happens before or at `until`; without it, until nothing is left to happen.

        Raises LimitExceeded, and what an application raises.
        """
        end = self.longest if until is None else min(until, self.longest)
        try:
            self._run(end)
        except Exception as error:
            error.add_note(f"in the simulation with seed {self.seed}, at {self.now:.6f} s, event {self.events}")
            raise
        if self._halted:
            self._halted = False
        elif until is not None and until <= self.longest:
            self.now = max(self.now, until)
        elif self._events:
            raise self._exceeded(f"{self.longest:g} s of virtual time")

    def halt(self) -> None:
        """Let `run` return after the event that happens now, whatever else is to happen; another `run` goes on."""
        self._halted = True

    def schedule(self, when: float, host: Host, action: Callable[[Any], None], argument: object) -> None:
        """Call `action(argument)` at the time `when`; it is an event of `host`."""
        heapq.heappush(self._events, (when, next(self._ties), host, action, argument))

    def wake(self, processes: list[Process]) -> None:
        """Let these go on, now, in this order."""
        self._ready.extend(processes)

    def _run(self, end: float) -> None:
        events, ready, pop, most = self._events, self._ready, heapq.heappop, self.most_events
        before, at_once = self.now, 0
        while (ready or (events and events[0][0] <= end)) and not self._halted:
            if ready:
                process = ready.popleft()
                host = process.host
                process.resume()
            else:
                self.now, _, host, action, argument = pop(events)
                action(argument)
            self.events += 1
            at_once = at_once + 1 if self.now == before else 0
            before = self.now
            if at_once > _MOST_AT_ONCE:
                raise self._exceeded(f"{_MOST_AT_ONCE} events without any time between them")
            if self.step is not None:
                self.step(host)
            if self.events >= most:
                raise self._exceeded(f"{most} events")

    def _exceeded(self, limit: str) -> LimitExceeded:
        done = f"at {self.now:.3f} s, {self.segments} segments were sent"
        return LimitExceeded(f"seed {self.seed} is not over after {limit} ({done})")


class Signal:
    """Something that may change, and the processes that wait for it to be as they want."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._waiting: list[Process] = []

    def changed(self) -> None:
        """Whoever waits looks again."""
        if self._waiting:
            self._simulation.wake(self._waiting)
            self._waiting.clear()

    def wakes(self, process: Process) -> None:
        """`process` waits for a change."""
        self._waiting.append(process)


Wait = float | Signal  # what an application yields: seconds to sleep, or what must change before it goes on
Application = Generator[Wait, None, Any]


class Process:
    """An application that runs on a host."""

    def __init__(self, host: Host, application: Application) -> None:
        self.host = host
        self.ended = False
        self.result: Any = None  # what the application returned
        self._application = application

    def resume(self, _: object = None) -> None:
        """Go on up to the next wait."""
        try:
            wait = self._application.send(None)
        except StopIteration as end:
            self.ended, self.result = True, end.value
            return
        if isinstance(wait, Signal):
            wait.wakes(self)
        else:
            simulation = self.host.simulation
            simulation.schedule(simulation.now + wait, self.host, self.resume, None)


class Host:
    """A host: the daemon's driver with a network, a timer and applications in virtual time."""

    def __init__(
        self,
        simulation: Simulation,
        address: str,
        tcp: type[TcpConnection],
        config: Config,
        recorder: Recorder,
        *,
        network: Network | None = None,
        seed: bytes | None = None,
    ) -> None:
        """`network`: another one than the links that `attach` makes; `seed`: of ports and first sequence numbers."""
        self.simulation = simulation
        self.address = address
        self.counts_bytes = tcp is loader.load(loader.REFERENCE)
        self._recorder = recorder
        self._links: dict[str, tuple[Host, Impairment, int]] = {}
        self._rows: dict[str, tuple[float, list[bytes]]] = {}  # to each peer: when the last ones arrive, all together
        self._alarm: float | None = None  # when the driver is to be woken
        self.driver = Driver(
            tcp=tcp,
            config=config,
            network=network or self,
            recorder=recorder,
            seed=seed or f"{simulation.seed} {address}".encode(),
            wake=self._wake,
        )

    # ---- for applications ----------------------------------------------------------------------------------

    def start(self, application: Application) -> Process:
        """Run an application from now on."""
        process = Process(self, application)
        self.simulation.wake([process])
        return process

    def listen(self, port: int, backlog: int = 128) -> Listener:
        """Take connections to `port`, or to one that is free, if it is 0. Raises OSError(EADDRINUSE)."""
        port = port or self.driver.demux.ephemeral_port(demux.ANY)
        return Listener(self, port, backlog)

    def connect(self, address: str, port: int) -> Generator[Wait, None, Socket]:
        """Open a connection and wait until it is established. Raises OSError."""
        socket = Socket(self)
        here = (demux.ANY, 0)
        endpoint = self.driver.connect(here, (address, port), socket.changed, self.simulation.now)
        socket.endpoint = endpoint
        try:
            while not (endpoint.established or endpoint.connection.state == State.CLOSED):
                yield socket
        except GeneratorExit:  # nobody waits any more
            socket.abort()
            raise
        if not endpoint.established:
            raise OSError(socket.error or errno.ECONNABORTED, "the connection could not be opened")
        return socket

    # ---- the network, for the driver -----------------------------------------------------------------------

    def attach(self, peer: Host, shape: Shape, mtu: int) -> Impairment:
        """The way to `peer`; everything random on it comes from the seed and the two addresses."""
        seed = Random(f"{self.simulation.seed} {self.address} {peer.address}").getrandbits(64)
        impairment = Impairment(shape, seed)
        self._links[peer.address] = (peer, impairment, mtu)
        return impairment

    def send(self, local: str, peer: str, raws: Sequence[bytes]) -> None:
        """Carry segments as far as their link does."""
        simulation = self.simulation
        simulation.segments += len(raws)
        link = self._links.get(peer)
        if link is None:
            for raw in raws:
                self._recorder.lost("no link", local, peer, raw)
            return
        host, impairment, _ = link
        now, (latest, together) = simulation.now, self._rows.get(peer, (-1.0, []))
        for raw in raws:
            arrivals, why = impairment.push(raw, now)
            for due, copy in arrivals:
                if due != latest or due == now:  # what is due now may have been delivered
                    latest, together = self._rows[peer] = due, []
                    simulation.schedule(due, host, host._deliver, (local, together))
                together.append(copy)
            if why is not None:
                self._recorder.lost(why, local, peer, raw)

    def source(self, peer: str) -> str:
        """Our address. Raises OSError(ENETUNREACH) if there is no link to `peer`."""
        if peer not in self._links:
            raise OSError(errno.ENETUNREACH, f"{self.address} has no link to {peer}")
        return self.address

    def may_join(self, peer: str) -> bool:
        """Whether not each segment is to have an ACK, and the TCP of `peer` counts bytes: the reference does."""
        return self.driver.config.delayed_ack > 0 and self.simulation.hosts[peer].counts_bytes

    def mtu(self, peer: str) -> int | None:
        """The MTU of the link to `peer`."""
        return self._links[peer][2] if peer in self._links else None

    def _deliver(self, segments: tuple[str, list[bytes]]) -> None:
        peer, raws = segments
        self.driver.segments_arrive(self.address, peer, raws, self.simulation.now)

    # ---- the timer, for the driver -------------------------------------------------------------------------

    def _wake(self, deadline: float) -> None:
        if self._alarm is None or deadline < self._alarm:
            self._alarm = deadline
            self.simulation.schedule(max(deadline, self.simulation.now), self, self._ring, deadline)

    def _ring(self, deadline: float) -> None:
        if deadline != self._alarm:
            return  # it was moved to an earlier time, and has rung then
        self._alarm = None
        following = self.driver.expire(self.simulation.now)
        if following is not None:
            self._wake(following)


class Listener(Signal):
    """A port that takes connections."""

    def __init__(self, host: Host, port: int, backlog: int) -> None:
        super().__init__(host.simulation)
        self.host = host
        self.port = port
        self._listener = host.driver.listen(demux.ANY, port, backlog, self.changed)

    def accept(self) -> Generator[Wait, None, Socket]:
        """Wait for the next connection."""
        while not self._listener.ready:
            yield self
        return Socket(self.host, self._listener.ready.popleft())

    def close(self) -> None:
        """Take no more, and reset those that nobody has accepted."""
        self.host.driver.unlisten(self._listener, self.host.simulation.now)


class Socket(Signal):
    """An application's end of a connection; `endpoint.connection` is the TCP behind it."""

    endpoint: Endpoint

    def __init__(self, host: Host, endpoint: Endpoint | None = None) -> None:
        super().__init__(host.simulation)
        self.host = host
        if endpoint is not None:
            self.endpoint = endpoint
            endpoint.changed = self.changed

    @property
    def error(self) -> int | None:
        """The errno with which the connection has failed."""
        return self.endpoint.error or self.endpoint.connection.error

    def send(self, data: bytes) -> Generator[Wait, None, None]:
        """Hand over all of `data`, waiting for room in the send buffer. Raises OSError."""
        view, endpoint, driver = memoryview(data), self.endpoint, self.host.driver
        while True:
            self._raise_error()
            taken = driver.send(endpoint, view, self._simulation.now)
            view = view[taken:]
            if not view:
                return
            if not taken:
                yield self
            while endpoint.connection.state in _SENDING and not driver.levels(endpoint).writable:
                yield self

    def recv(self, limit: int = 1 << 20) -> Generator[Wait, None, bytes]:
        """Wait for data: at most `limit` bytes, b"" at the end of the stream. Raises OSError."""
        endpoint, driver = self.endpoint, self.host.driver
        while not (levels := driver.levels(endpoint)).readable:
            if levels.at_eof:
                return b""
            if endpoint.connection.state in _NO_MORE_TO_READ:
                self._raise_error()
                return b""
            yield self
        return driver.receive(endpoint, limit, self._simulation.now)

    def shutdown(self) -> None:
        """No more sending; what the peer sends can still be received."""
        self.host.driver.close(self.endpoint, self._simulation.now)

    def close(self) -> None:
        """No more sending, nor receiving: data that comes after this is answered with a reset."""
        self.host.driver.release(self.endpoint, self._simulation.now)

    def abort(self) -> None:
        """Reset the connection."""
        self.host.driver.abort(self.endpoint, self._simulation.now)

    def _raise_error(self) -> None:
        if self.error is not None:
            raise OSError(self.error, "the connection has failed")


class _Nobody:
    """The recorder of a host that none is given for: nobody is told anything."""

    def seen(
        self, event: str, endpoint: Endpoint | None, four: demux.FourTuple, seg: Segment, raws: Sequence[bytes]
    ) -> None: ...

    def transition(self, endpoint: Endpoint, transition: Transition) -> None: ...

    def expiry(self, endpoint: Endpoint, expiry: Expiry) -> None: ...

    def dropped(self, why: str, local: str, peer: str, raw: bytes) -> None: ...

    def lost(self, why: str, local: str, peer: str, raw: bytes) -> None: ...

    def settled(self, endpoint: Endpoint) -> None: ...
