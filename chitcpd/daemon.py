"""One chitcpd: the parts put together, from start to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import resource
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import chitcpd
from chisocket.protocol.descriptors import new_instance
from chitcpd.control import Control, ControlError
from chitcpd.driver import Driver, Endpoint
from chitcpd.pcap import Capture, whole_packets
from chitcpd.peers import Peers
from chitcpd.probe import Prober
from chitcpd.rpc import Server
from chitcpd.sockets import Sockets
from chitcpd.tcp.api import Config, State, TcpConnection
from chitcpd.trace import Recorder, whole_lines
from chitcpd.turns import Turn
from chitcpd.watchdog import Watchdog

log = logging.getLogger(__name__)

_BACKLOG = 256  # applications that may be connecting at once
_MOST_APPLICATIONS, _MOST_CONTROLLERS = 1024, 64  # connections to our UNIX sockets
_KEPT_DESCRIPTORS = 2400  # for those, for as many carriers, and for files: what is beyond is for applications' pairs
_TIME_TO_FINISH = 2.0  # seconds at the end for connections to send what they have
_LOOK_AGAIN = 0.02  # seconds
_LAST_WORDS = 0.5  # seconds for connections that were reset at the end to reach their peers


@dataclass(frozen=True, slots=True)
class Announcement:
    """Who is told that we are ready, and what our probes have found: under which name, by which descriptor."""

    name: str
    descriptor: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    port: int
    socket: str
    group: int | None  # whose members may use the socket too
    control: str
    addresses: list[str]
    tcp_name: str
    tcp: type[TcpConnection]
    profile: str
    changes: dict[str, str]  # settings over the profile, as they were written
    config: Config  # both together
    seed: bytes
    capture: str | None
    trace: str | None
    append: bool  # go on with the files that are there
    forwards: bool  # a router
    links: list[dict[str, Any]]  # as Control.set_links takes them; each may have a "probe" beside
    announcement: Announcement | None


class StartError(Exception):
    """The daemon can't start; the text says why and what to do."""


async def serve(settings: Settings) -> None:
    """Run a daemon until SIGTERM or SIGINT. Raises StartError."""
    loop = asyncio.get_running_loop()
    watchdog = Watchdog(loop)
    ending = _Ending(loop, watchdog)
    with contextlib.ExitStack() as files:
        files.callback(ending.is_over)
        # First, else we'd empty a live daemon's files.
        paths = files.enter_context(contextlib.ExitStack())
        applications = paths.enter_context(_unix_socket(settings.socket, "-s", settings.group))
        controllers = paths.enter_context(_unix_socket(settings.control, "--control"))
        trace = _open(settings.trace, files, append=settings.append, whole=whole_lines)
        capture = _open_capture(settings.capture, files, append=settings.append)
        flusher = _Flusher(loop, [file for file in (trace, capture) if file is not None])
        recorder = Recorder(_clock(loop), trace, capture, flusher)
        peers, driver, server, control = _build(settings, loop, recorder)
        watchdog.driver = driver
        _set_links(control.control, settings.links)
        await _listen(settings, peers)
        servers = [
            await loop.create_unix_server(control.new_client, sock=controllers, backlog=_BACKLOG),
            await loop.create_unix_server(server.new_client, sock=applications, backlog=_BACKLOG),
        ]
        files.enter_context(watchdog)
        log.info(
            "chitcpd %s, TCP %s, profile %s: listening on %s port %d, applications at %s",
            chitcpd.__version__,
            settings.tcp_name,
            " ".join([settings.profile, *map("=".join, settings.changes.items())]),
            ", ".join(settings.addresses),
            settings.port,
            settings.socket,
        )
        told = settings.announcement
        probes = _announce(told, settings.links, control.control) if told is not None else None
        await ending.begun.wait()
        if probes is not None:
            probes.cancel()
        paths.close()  # while ours still answer there: what is there later is another daemon's
        for unix in servers:
            unix.close()
        await _finish(server.sockets, driver, ending)
        log.info("ending: %d connections are reset", len(_unfinished(driver)))
        for client in [*server.clients, *control.clients]:
            client.close()
        await asyncio.sleep(0)  # they are gone: nothing waits for a debugger any more
        for endpoint in list(driver.demux.connections.values()):
            driver.abort(endpoint, loop.time(), errno.ECONNABORTED)
        server.sockets.stop()
        await peers.close(_LAST_WORDS)


def _set_links(control: Control, links: list[dict[str, Any]]) -> None:
    try:
        control.set_links([{name: link[name] for name in link if name != "probe"} for link in links])
    except ControlError as error:
        raise StartError(f"--links: {error}") from None


def _announce(told: Announcement, links: list[dict[str, Any]], control: Control) -> asyncio.Task[None]:
    """Say in a line of JSON that applications are served, and in one more for each link that was to be probed."""

    def say(**what: object) -> None:
        with contextlib.suppress(OSError):  # who wanted to know has gone
            # One short write: what other daemons write to the same pipe does not come between.
            os.write(told.descriptor, json.dumps({"name": told.name, **what}).encode() + b"\n")

    async def probe(peer: str, good: dict[str, Any]) -> None:
        found = await control.ask("probe", json.dumps({**good, "peer": peer}).encode())
        say(probed=peer, **json.loads(found))

    async def probe_all() -> None:
        asked = [link["probe"] for link in links if link.get("probe")]
        await asyncio.gather(
            *(probe(peer, {"good_rtt": one["good_rtt"], "rate": one["rate"]}) for one in asked for peer in one["peers"])
        )

    say(ready=chitcpd.__version__)
    return asyncio.get_running_loop().create_task(probe_all())


async def _finish(sockets: Sockets, driver: Driver, ending: _Ending) -> None:
    """Let connections send what they have, and a FIN behind it: for a while, or until a second signal comes."""
    sockets.finish()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_TIME_TO_FINISH):
            while _unfinished(driver) and not ending.hurried:
                await asyncio.sleep(_LOOK_AGAIN)


def _unfinished(driver: Driver) -> list[Endpoint]:
    """Connections that a reset would harm: what we send is not acknowledged, or what the peer sends has a reader."""
    return [
        endpoint
        for endpoint in driver.demux.connections.values()
        if endpoint.connection.state != State.TIME_WAIT
        and not (endpoint.orphan and endpoint.connection.state == State.FIN_WAIT_2)
    ]


class _Ending:
    """SIGTERM and SIGINT: the first ends the daemon in order, the second at once; later ones change nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, watchdog: Watchdog) -> None:
        self._loop = loop
        self._watchdog = watchdog
        self._rung = False
        self.begun = asyncio.Event()
        self.hurried = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ring)

    def is_over(self) -> None:
        """Heed no more signals: a handler of ours would not outlive the interpreter's last moments."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _ring(self, *_: object) -> None:
        if self._rung:
            self.hurried = True
            self.is_over()
        else:
            self._rung = True
            self._watchdog.hurry()
            self._loop.call_soon_threadsafe(self.begun.set)


def _build(
    settings: Settings, loop: asyncio.AbstractEventLoop, recorder: Recorder
) -> tuple[Peers, Driver, Server, Server]:
    """The parts; the last two are the servers for applications and for control."""
    peers = Peers(
        port=settings.port,
        addresses=settings.addresses,
        deliver=lambda own, peer, raws: driver.segments_arrive(own, peer, raws, loop.time()),
        unreachable=lambda own, peer: driver.unreachable(own, peer, loop.time()),
        dropped=recorder.lost,
        refused=recorder.dropped,
        forwards=settings.forwards,
    )
    peers.passed = recorder.passed
    alarm = _Alarm(loop, peers.turn, lambda now: driver.expire(now))
    driver = Driver(
        tcp=settings.tcp,
        config=settings.config,
        network=peers,
        recorder=recorder,
        seed=settings.seed,
        wake=alarm.set,
    )
    instance = new_instance()
    recorder.connections = driver.demux.connections
    limit = _raise_descriptor_limit()
    sockets = Sockets(driver, peers, instance, max(limit - _KEPT_DESCRIPTORS, limit // 2))
    about = {
        "version": chitcpd.__version__,
        "pid": os.getpid(),
        "tcp": settings.tcp_name,
        "profile": settings.profile,
        "addresses": settings.addresses,
        "port": settings.port,
    }
    control = Control(about, peers, Prober(peers), sockets)
    return (
        peers,
        driver,
        Server(sockets, control, instance, min(_MOST_APPLICATIONS, limit // 8), settings.control),
        Server(sockets, control, instance, _MOST_CONTROLLERS),
    )


def _raise_descriptor_limit() -> int:
    """As many descriptors as this process may have; how many that is."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most if most != resource.RLIM_INFINITY else sys.maxsize


async def _listen(settings: Settings, peers: Peers) -> None:
    try:
        await peers.listen()
    except OSError as error:
        where = f"{', '.join(settings.addresses)} port {settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"{where} is in use: is another chitcpd running? End it, or choose -p or --bind") from None
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StartError(f"can't listen on {where}: {why}; --bind takes an address of this host") from None


@contextlib.contextmanager
def _unix_socket(path: str, option: str, group: int | None = None) -> Iterator[socket.socket]:
    """A socket for this user only, or for a group too; a stale one is replaced, a live one is not."""
    if os.path.exists(path):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise StartError(f"{path} is there and is no socket; choose another with {option}")
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            if probe.connect_ex(path) == 0:
                raise StartError(f"another chitcpd answers at {path}; end it, or choose another path with {option}")
        try:
            os.unlink(path)
        except OSError as error:
            raise StartError(f"can't replace {path}: {error.strerror}; choose another path with {option}") from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise StartError(f"can't make {path}: {error.strerror or error}; choose another path with {option}") from None
    finally:
        os.umask(before)
    try:
        if group is not None:
            _share(path, group)
        yield sock
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _share(path: str, group: int) -> None:
    try:
        os.chown(path, -1, group)
        os.chmod(path, 0o660)
    except OSError as error:
        raise StartError(f"can't give {path} to the group: {error.strerror}; --group takes one of yours") from None


def _open(
    path: str | None, files: contextlib.ExitStack, *, append: bool, whole: Callable[[IO[bytes]], int]
) -> _Output | None:
    if path is None:
        return None
    try:
        if append:
            _cut_back(path, whole)
        output = _Output(open(path, "ab" if append else "wb"))  # noqa: SIM115  # the stack closes it
    except OSError as error:
        raise StartError(f"can't write {path}: {error.strerror}") from None
    files.callback(output.close)
    return output


def _cut_back(path: str, whole: Callable[[IO[bytes]], int]) -> None:
    """A daemon that was killed may have left half a line, or half a packet: what follows must not be read into it."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
        file.truncate(whole(file))


def _open_capture(path: str | None, files: contextlib.ExitStack, *, append: bool) -> Capture | None:
    output = _open(path, files, append=append, whole=whole_packets)
    if path is None or output is None:
        return None
    begun = append and os.path.getsize(path) > 0
    capture = Capture(output, pcapng=path.endswith(".pcapng"), begun=begun)
    files.callback(capture.flush)
    return capture


def _clock(loop: asyncio.AbstractEventLoop) -> Callable[[], int]:
    """Nanoseconds since the epoch, as steady as the loop's own time."""
    start = time.time_ns() - int(loop.time() * 1e9)
    return lambda: start + int(loop.time() * 1e9)


class _Alarm:
    """One timer of the event loop for all connections: moved only when something is due earlier."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn, expire: Callable[[float], float | None]) -> None:
        self._loop = loop
        self._turn = turn
        self._expire = expire
        self._handle: asyncio.TimerHandle | None = None
        self._set_for = 0.0  # when that rings

    def set(self, deadline: float) -> None:
        """Wake up at `deadline`, or before."""
        if self._handle is None or deadline < self._set_for:
            if self._handle is not None:
                self._handle.cancel()
            self._set_for = deadline
            self._handle = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._handle = None
        with self._turn:
            deadline = self._expire(self._loop.time())
        if deadline is not None:
            self.set(deadline)


class _Output:
    """A file of captures or traces. If it can take no more it is given up, with a word in the log: segments go on."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file: IO[bytes] | None = file

    def write(self, data: bytes, /) -> None:
        """Take bytes, to be written by the next flush at the latest."""
        self._attempt(lambda file: file.write(data))

    def flush(self) -> None:
        """Write out what was taken."""
        self._attempt(lambda file: file.flush())

    def close(self) -> None:
        """The end; what comes later is forgotten."""
        self.flush()
        self._end()

    def _attempt(self, step: Callable[[IO[bytes]], object]) -> None:
        if self._file is None:
            return
        try:
            step(self._file)
        except OSError as error:
            log.error("%s ends here: %s", self._file.name, error.strerror)
            self._end()

    def _end(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # said already
                self._file.close()
        self._file = None


class _Flusher:
    """Writes files out once per round of the event loop in which there was something: a killed daemon loses no line."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outputs: list[_Output | Capture]) -> None:
        self._loop = loop
        self._outputs = outputs
        self._scheduled = False

    def __call__(self) -> None:
        """Something was written."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        for output in self._outputs:
            output.flush()
