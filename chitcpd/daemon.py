"""One chitcpd: the parts put together, from start to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import chitcpd
from chisocket.protocol.descriptors import new_instance
from chitcpd.control import Control
from chitcpd.driver import Driver
from chitcpd.pcap import Capture
from chitcpd.peers import Peers
from chitcpd.rpc import Server
from chitcpd.sockets import Sockets
from chitcpd.tcp.api import Config, TcpConnection
from chitcpd.trace import Recorder

log = logging.getLogger(__name__)

_BACKLOG = 256  # applications that may be connecting at once
_LAST_WORDS = 0.5  # seconds for connections that were reset at the end to reach their peers


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    port: int
    socket: str
    addresses: list[str]
    tcp_name: str
    tcp: type[TcpConnection]
    profile: str
    changes: dict[str, str]  # settings over the profile, as they were written
    config: Config  # both together
    seed: bytes
    capture: str | None
    trace: str | None


class StartError(Exception):
    """The daemon can't start; the text says why and what to do."""


async def serve(settings: Settings) -> None:
    """Run a daemon until SIGTERM or SIGINT. Raises StartError."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    _stop_on_signals(loop, stop)
    with contextlib.ExitStack() as files:
        listening = files.enter_context(_unix_socket(settings.socket))  # first: else we'd empty a live daemon's files
        trace = _open(settings.trace, files)
        capture = _open_capture(settings.capture, files)
        flusher = _Flusher(loop, [file for file in (trace, capture) if file is not None])
        recorder = Recorder(_clock(loop), trace, capture, flusher)
        peers, driver, server = _build(settings, loop, recorder)
        await _listen(settings, peers)
        unix = await loop.create_unix_server(server.new_client, sock=listening, backlog=_BACKLOG)
        log.info(
            "chitcpd %s, TCP %s, profile %s: listening on %s port %d, applications at %s",
            chitcpd.__version__,
            settings.tcp_name,
            " ".join([settings.profile, *map("=".join, settings.changes.items())]),
            ", ".join(settings.addresses),
            settings.port,
            settings.socket,
        )
        await stop.wait()
        log.info("ending: %d connections are reset", len(driver.demux.connections))
        unix.close()
        for endpoint in list(driver.demux.connections.values()):
            driver.abort(endpoint, loop.time(), errno.ECONNABORTED)
        server.sockets.stop()
        for client in list(server.clients):
            client.close()
        await peers.close(_LAST_WORDS)


def _stop_on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT ends the daemon; later ones, until the process is gone, change nothing."""

    def ring(*_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # a handler of ours would not outlive the interpreter's last moments
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ring)


def _build(settings: Settings, loop: asyncio.AbstractEventLoop, recorder: Recorder) -> tuple[Peers, Driver, Server]:
    alarm = _Alarm(loop, lambda now: driver.expire(now))
    peers = Peers(
        port=settings.port,
        addresses=settings.addresses,
        deliver=lambda own, peer, raw: driver.segment_arrives(own, peer, raw, loop.time()),
        unreachable=lambda own, peer: driver.unreachable(own, peer, loop.time()),
        dropped=recorder.lost,
    )
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
    sockets = Sockets(driver, lambda address: _is_own(address, settings.addresses), loop, instance)
    about = {
        "version": chitcpd.__version__,
        "pid": os.getpid(),
        "tcp": settings.tcp_name,
        "profile": settings.profile,
        "addresses": settings.addresses,
        "port": settings.port,
    }
    return peers, driver, Server(sockets, Control(about, peers, sockets), instance)


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
def _unix_socket(path: str) -> Iterator[socket.socket]:
    """The applications' socket, for this user only; a stale one is replaced, a live one is not."""
    if os.path.exists(path):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise StartError(f"{path} is there and is no socket; choose another with -s")
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            if probe.connect_ex(path) == 0:
                raise StartError(f"another chitcpd answers at {path}; end it, or choose another path with -s")
        try:
            os.unlink(path)
        except OSError as error:
            raise StartError(f"can't replace {path}: {error.strerror}; choose another path with -s") from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise StartError(f"can't make {path}: {error.strerror or error}; choose another path with -s") from None
    finally:
        os.umask(before)
    try:
        yield sock
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _open(path: str | None, files: contextlib.ExitStack) -> _Output | None:
    if path is None:
        return None
    try:
        output = _Output(open(path, "wb"))  # noqa: SIM115  # the stack closes it
    except OSError as error:
        raise StartError(f"can't write {path}: {error.strerror}") from None
    files.callback(output.close)
    return output


def _open_capture(path: str | None, files: contextlib.ExitStack) -> Capture | None:
    output = _open(path, files)
    if path is None or output is None:
        return None
    capture = Capture(output, pcapng=path.endswith(".pcapng"))
    files.callback(capture.flush)
    return capture


def _clock(loop: asyncio.AbstractEventLoop) -> Callable[[], int]:
    """Nanoseconds since the epoch, as steady as the loop's own time."""
    start = time.time_ns() - int(loop.time() * 1e9)
    return lambda: start + int(loop.time() * 1e9)


def _is_own(address: str, addresses: list[str]) -> bool:
    """One of the addresses that we listen on, or with 0.0.0.0 and :: one that this host has."""
    if address in addresses:
        return True
    if not any(ipaddress.ip_address(a).is_unspecified for a in addresses):
        return False
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


class _Alarm:
    """One timer of the event loop for all connections: moved only when something is due earlier."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[float], float | None]) -> None:
        self._loop = loop
        self._expire = expire
        self._handle: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        """Wake up at `deadline`, or before."""
        if self._handle is None or deadline < self._handle.when():
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._handle = None
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
