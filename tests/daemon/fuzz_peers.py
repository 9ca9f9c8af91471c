"""Bad input at random on port 23300: any bytes, cut anywhere, from many connections that come, stall and go.

    python -m tests.daemon.fuzz_peers --executions 1_000_000 --seed 1     inputs; one in a hundred to a real daemon
    python -m tests.daemon.fuzz_peers --replay 1:17                       one case of the seed, its steps shown

An input is what one read of a real connection yields. Most go to a network layer with transports and a clock of the
test's own, where every step is judged: what is delivered is what a second, simple reader finds in the stream, who
sends anything else is cut off and nobody else is, who stalls is cut off in time, and nothing outlives its connection.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from chitcpd import peers
from chitcpd.carrier import _FRAME_TIMEOUT, READ, Carrier
from chitcpd.peer import _HANDLE, _MOST_OF_A_PEER, BACKLOG_UNTOLD
from chitcpd.peers import Peers
from chitcpd.tcp import wire
from chitcpd.tcp.api import RST, SYN, Segment
from tests.daemon.conftest import PORT, Daemon, free_address, running_daemon

OWN = "10.0.0.5"
_ADDRESSES = tuple(f"10.0.0.{n}" for n in range(1, 10))  # lower ones and higher ones; our own is among them
_STEPS = 120  # of a case
_LINES = 10.0  # seconds between two lines of progress
_MOST_ACCEPTED, _MOST_PEERS = 12, 6  # in a case, so that the limits are met
_LARGEST_REST = 16 + 0xFFFF
_TO_A_DAEMON = 100  # one input in so many


class Handle:
    """A call of the loop that is to come."""

    def __init__(self, due: float, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.due, self.call, self.arguments, self.cancelled = due, call, arguments, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """What Peers needs of an event loop, in literal time. Dials never come to an end."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Handle] = []
        self._soon: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self._soon.append(Handle(0.0, call, arguments))

    def call_at(self, due: float, call: Callable[..., object], *arguments: Any) -> Handle:
        self.timers.append(Handle(due, call, arguments))
        return self.timers[-1]

    def create_task(self, coroutine: Any) -> Handle:
        coroutine.close()
        return Handle(0.0, lambda: None, ())

    def settle(self) -> None:
        """Until nothing is left to do now."""
        while self._soon:
            handles, self._soon = self._soon, []
            for handle in handles:
                handle.call(*handle.arguments)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(1000):
            self.timers = [timer for timer in self.timers if not timer.cancelled]
            due = min(self.timers, key=lambda timer: timer.due, default=None)
            if due is None or due.due > self.now:
                return
            self.timers.remove(due)
            due.call(*due.arguments)
            self.settle()
        raise AssertionError("timers expire for ever")


class Stranger:
    """The other end of an accepted connection, its transport, and what of its stream should have been delivered."""

    def __init__(self, fuzz: Case, address: str) -> None:
        self.fuzz, self.address = fuzz, address
        self.closing = self.lost = self.said_eof = False
        self.carrier = Carrier(fuzz.peers)
        self.expected: list[bytes] = []
        self.bad = False  # what it has sent can't be chiTCP
        self._rest = b""
        self.since = fuzz.loop.now  # when what is unfinished began
        self.waits = True  # for its first whole segment, or for the end of one
        self._buffered = 0
        self._spoke = fuzz.loop.now  # last
        self.carrier.connection_made(self)  # type: ignore[arg-type]

    def says(self, data: bytes) -> None:
        """One read."""
        self._spoke = self.fuzz.loop.now
        self._read_too(data)
        buffer = self.carrier.get_buffer(-1)
        assert len(buffer) >= len(data)
        buffer[: len(data)] = data
        self.carrier.buffer_updated(len(data))

    def _read_too(self, data: bytes) -> None:
        """The second reader."""
        empty = not self._rest
        self._rest += data
        whole = False
        while len(self._rest) >= 16 and not self.bad:
            length, proto = int.from_bytes(self._rest[:2]), self._rest[2]
            self.bad = proto != 1 or length < 20
            if self.bad or len(self._rest) < 16 + length:
                break
            self.expected.append(self._rest[16 : 16 + length])
            self._rest = self._rest[16 + length :]
            whole = True
        if whole or (empty and not self.waits):
            self.since = self.fuzz.loop.now
        self.waits = bool(self._rest) or (self.waits and not whole)

    # ---- asyncio.Transport and its socket, as far as a Carrier knows them

    def get_extra_info(self, name: str) -> Any:
        return (self.address, 40000) if name == "peername" else self

    def setsockopt(self, *_: int) -> None:
        pass

    def getsockopt(self, *_: int) -> bytes:
        return struct.pack("=52xI", round((self.fuzz.loop.now - self._spoke) * 1000))

    def getsockname(self) -> tuple[str, int]:
        return OWN, PORT

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        assert not self.said_eof
        assert not self.closing
        self._buffered += len(data)
        if self._buffered > 1 << 16 and not self.carrier.paused:
            self.carrier.pause_writing()

    def resume(self) -> None:
        self._buffered = 0
        if self.carrier.paused:
            self.carrier.resume_writing()

    def write_eof(self) -> None:
        self.said_eof = True

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            self.fuzz.loop.call_soon(self.lose)

    def lose(self, error: Exception | None = None) -> None:
        if not self.lost:
            self.closing = self.lost = True
            self.carrier.connection_lost(error)


class Case:
    """A network layer, some strangers, and steps at random."""

    def __init__(self, seed: str, log: list[str] | None = None) -> None:
        self.random = Random(seed)
        self.loop = Loop()
        self.inputs = 0
        self.delivered: list[tuple[str, bytes]] = []
        self.strangers: list[Stranger] = []
        self._log = log
        with patch.object(asyncio, "get_running_loop", lambda: self.loop):
            self.peers = Peers(
                port=PORT,
                addresses=[OWN],
                deliver=lambda _, peer, raws: self.delivered.extend((peer, raw) for raw in raws),
                unreachable=lambda *_: None,
                dropped=lambda *_: None,
                refused=lambda *_: None,
            )

    def run(self) -> int:
        """Returns the inputs. Raises AssertionError, or whatever goes wrong."""
        steps = (self._come, *[self._say] * 12, self._go, self._send, self._wait, self._read)
        for _ in range(self.random.randrange(_MOST_ACCEPTED)):
            self._come()
        for _ in range(_STEPS):
            self.random.choice(steps)()
            self.loop.settle()
            self._judge()
        self._judge_good_peer()
        self._end()
        return self.inputs

    def _come(self) -> None:
        stranger = Stranger(self, self.random.choice(_ADDRESSES))
        self._note(f"{stranger.address} connects")
        self.strangers.append(stranger)

    def _say(self) -> None:
        alive = [stranger for stranger in self.strangers if not stranger.closing]
        if not alive:
            self._come()
            return
        stranger = self.random.choice(alive)
        stream = b"".join(self._draw() for _ in range(self.random.choice((1, 1, 1, 2, 5))))
        at = 0
        while at < len(stream) and not stranger.closing:
            size = min(self.random.choice((1, 7, 16, 17, 100, 1500, READ)), READ)
            part = stream[at : at + size]
            if size == 1 and len(stream) > 100:
                part = stream[at:][:READ]
            self._note(f"{stranger.address} says {part[:40].hex()} ({len(part)} bytes)")
            self.delivered.clear()
            expected = len(stranger.expected)
            stranger.says(part)
            self.inputs += 1
            at += len(part)
            assert self.delivered == [(stranger.address, raw) for raw in stranger.expected[expected:]]
            assert stranger.closing == stranger.bad
            if self.random.random() < 0.05:
                return  # it stalls there

    def _draw(self) -> bytes:
        """A good frame, most often; or one that is nearly good; or anything."""
        random, kind = self.random, self.random.random()
        length = random.choice((20, 21, 40, 60, 1480, random.randrange(20, 3000)))
        if kind < 0.02:
            length = 0xFFFF
        if kind < 0.80:
            return struct.pack("!HBB12s", length, 1, random.randrange(256), bytes(12)) + random.randbytes(length)
        if kind < 0.90:
            return random.randbytes(random.randrange(1, 64))
        proto, length = random.choice(((0, 40), (2, 40), (1, 0), (1, 19), (255, 0xFFFF)))
        return struct.pack("!HBB12x", length, proto, 0) + random.randbytes(random.randrange(40))

    def _go(self) -> None:
        if not self.strangers:
            return
        stranger = self.random.choice(self.strangers)
        self._note(f"{stranger.address} goes")
        if not stranger.closing:
            if self.random.random() < 0.5:
                stranger.carrier.eof_received()
            stranger.lose(self.random.choice((None, ConnectionResetError())))

    def _send(self) -> None:
        address = self.random.choice(_ADDRESSES)
        size, count = self.random.choice((20, 1480, 60_000)), self.random.choice((1, 10, 1100))
        self._note(f"we send {count} segments of {size} bytes to {address}")
        raw = bytes(size)
        for _ in range(count):
            self.peers.send(OWN, address, [raw])
            if self.random.random() < 0.001:
                self.loop.settle()

    def _read(self) -> None:
        for stranger in self.strangers:
            if not stranger.closing:
                stranger.resume()

    def _wait(self) -> None:
        seconds = self.random.choice((0.0, 0.1, 1.0, 10.0, 29.0, 31.0, 61.0))
        self._note(f"{seconds} s pass")
        self.loop.advance(seconds)

    # ---- judging

    def _judge(self) -> None:
        self.strangers = [stranger for stranger in self.strangers if not stranger.lost]
        alive = {stranger.carrier for stranger in self.strangers}
        assert set(self.peers.carriers) == alive
        assert len(alive) <= _MOST_ACCEPTED
        for stranger in self.strangers:
            assert len(stranger.carrier._rest) <= _LARGEST_REST
            stalled = stranger.waits and self.loop.now - stranger.since >= _FRAME_TIMEOUT
            assert not stalled, f"{stranger.address} stalls since {stranger.since}; now {self.loop.now}"
        timers = [timer for timer in self.loop.timers if not timer.cancelled]
        assert len(timers) <= len(alive)
        for peer in self.peers._peers.values():
            assert len(peer.carriers) <= _MOST_OF_A_PEER
            assert set(peer.carriers) <= alive
            assert peer._carrier is None or peer._carrier in alive
            most, most_bytes = BACKLOG_UNTOLD
            assert len(peer._queue) <= most
            assert peer._queued == sum(len(raw) + _HANDLE for _, raw in peer._queue) <= most_bytes
            assert not (peer._dial and peer._carrier)

    def _judge_good_peer(self) -> None:
        """One that speaks chiTCP is served, whatever was before."""
        good = Stranger(self, "10.0.1.1")
        if good.closing:  # there is no room among those who have spoken just now
            assert len(self.peers.carriers) == _MOST_ACCEPTED
            assert all(carrier.proven and carrier.silence() < peers._IDLE for carrier in self.peers.carriers)
        else:
            self.delivered.clear()
            good.says(struct.pack("!HBB12x", 40, 1, 0) + bytes(40))
            assert self.delivered == [("10.0.1.1", bytes(40))]
            self.peers.send(OWN, "10.0.1.1", [bytes(20)])
            self.loop.settle()
            assert good._buffered == 36
        self.strangers.append(good)

    def _end(self) -> None:
        """All go: nothing is left but what went wrong, and that is forgotten for others."""
        for stranger in self.strangers:
            stranger.lose()
        self.loop.settle()
        assert not self.peers.carriers
        assert not [timer for timer in self.loop.timers if not timer.cancelled]
        for peer in self.peers._peers.values():
            assert not peer.carriers
            assert peer._dial is not None or not peer._queue
        for address in _ADDRESSES:
            self.peers.peer("10.0.0.6", address)
        assert sum(not peer.busy for peer in self.peers._peers.values()) <= _MOST_PEERS

    def _note(self, line: str) -> None:
        if self._log is not None:
            self._log.append(line)


def execute(seed: str, log: list[str] | None = None) -> int:
    """Run the case of this seed; returns its inputs."""
    logging.disable()
    try:
        return _execute(seed, log)
    finally:
        logging.disable(logging.NOTSET)


def _execute(seed: str, log: list[str] | None) -> int:
    with patch.object(peers, "_MOST_ACCEPTED", _MOST_ACCEPTED), patch.object(peers, "_MOST_PEERS", _MOST_PEERS):
        return Case(seed, log).run()


# ---- a real daemon -----------------------------------------------------------------------------------------


class Good:
    """A peer of a real daemon that sends SYNs to a closed port, and is answered with RST."""

    def __init__(self, daemon: Daemon) -> None:
        self._address, self._daemon, self._port = free_address(), daemon, 1024
        self._socket = socket.create_connection((daemon.address, PORT), timeout=10, source_address=(self._address, 0))

    def is_served(self) -> bool:
        self._port = self._port % 60_000 + 1
        pseudo = wire.pseudo_header(self._address, self._daemon.address)
        raw = wire.encode(Segment(seq=1, flags=SYN), self._port, 9, pseudo)
        self._socket.sendall(struct.pack("!HBB12x", len(raw), 1, 0) + raw)
        answer = b""
        while len(answer) < 16 or len(answer) < 16 + int.from_bytes(answer[:2]):
            chunk = self._socket.recv(4096)
            if not chunk:
                return False
            answer += chunk
        source, destination, seg = wire.decode(answer[16:], pseudo)
        return (source, destination) == (9, self._port) and bool(seg.flags & RST)

    def close(self) -> None:
        self._socket.close()


def harass(daemon: Daemon, inputs: int, random: Random) -> None:
    """Real connections, up to fifty at once, that send and go in each way there is."""
    good, open_now = Good(daemon), list[socket.socket]()
    for number in range(inputs):
        if not open_now or (len(open_now) < 50 and random.random() < 0.3):
            address = f"127.82.{random.randrange(4)}.{random.randrange(1, 50)}"
            with suppress(OSError):
                open_now.append(socket.create_connection((daemon.address, PORT), 10, source_address=(address, 0)))
            continue
        at = random.randrange(len(open_now))
        with suppress(OSError):  # the daemon has closed it
            open_now[at].setblocking(False)
            open_now[at].send(_bytes_for_a_daemon(random))
        if random.random() < 0.3:
            sock = open_now.pop(at)
            if random.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close resets
            sock.close()
        if number % 100 == 0:
            assert good.is_served()
    for sock in open_now:
        sock.close()
    assert good.is_served()
    good.close()


def _bytes_for_a_daemon(random: Random) -> bytes:
    """Frames around segments of which some are TCP's, cut at random."""
    kind = random.random()
    if kind < 0.2:
        return random.randbytes(random.randrange(1, 3000))
    raw = random.randbytes(random.choice((20, 24, 40, 1480)))
    if kind < 0.6:
        raw = raw[:12] + bytes((len(raw[:20]) // 4 << 4,)) + raw[13:16] + bytes(2) + raw[18:]  # no checksum: taken
    stream = struct.pack("!HBB12x", len(raw), 1, 0) + raw
    return stream * random.randrange(1, 20) if kind < 0.9 else stream[: random.randrange(1, len(stream))]


def held_by(daemon: Daemon) -> tuple[int, int]:
    """(descriptors, KiB) of a daemon's process."""
    pid = daemon.process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return len(os.listdir(f"/proc/{pid}/fd")), pages * os.sysconf("SC_PAGE_SIZE") // 1024


def harass_a_daemon(inputs: int, seed: int) -> str:
    """Run a daemon and harass it; what it has held, before and after, in words. Raises AssertionError."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))  # the daemon's log
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fp-"))
        daemon = stack.enter_context(running_daemon(Path(directory)))
        descriptors = held_by(daemon)[0]
        harass(daemon, 200, Random(seed))
        before = held_by(daemon)[1]
        harass(daemon, inputs, Random(seed + 1))
        until = time.monotonic() + 10
        while held_by(daemon)[0] > descriptors:
            assert time.monotonic() < until, f"descriptors: {descriptors} before, {held_by(daemon)[0]} after"
            time.sleep(0.01)
        after = held_by(daemon)[1]
        assert after < before + 16_384, f"KiB: {before} before, {after} after"
        assert "Traceback" not in daemon.log.read_text()
        return f"{descriptors} descriptors as before; {before} KiB before, {after} after"


# ---- the command -------------------------------------------------------------------------------------------


def fuzz(executions: int, seed: int) -> None:
    """Cases until there are enough inputs. Raises what goes wrong, with the case named."""
    done, number, start = 0, 0, time.monotonic()
    due = start + _LINES
    while done < executions:
        number += 1
        try:
            done += execute(f"{seed}:{number}")
        except Exception as error:
            error.add_note(f"to see it again: python -m tests.daemon.fuzz_peers --replay {seed}:{number}")
            raise
        if time.monotonic() >= due or done >= executions:
            due += _LINES
            took = time.monotonic() - start
            print(
                f"{done:,} of {executions:,} inputs in {number:,} cases, {took:,.0f} s ({done / took:,.0f}/s)",
                flush=True,
            )


def main() -> int:
    options = _options()
    if options.replay is not None:
        log: list[str] = []
        try:
            execute(options.replay, log)
        finally:
            print("\n".join(log))
        return 0
    fuzz(options.executions, options.seed)
    few = max(options.executions // _TO_A_DAEMON, 1)
    print(f"{few:,} to a real daemon: {harass_a_daemon(few, options.seed)}")
    return 0


def _options() -> SimpleNamespace:
    parser = argparse.ArgumentParser(prog="python -m tests.daemon.fuzz_peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--executions", type=int, default=100_000, help="inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", metavar="SEED:CASE", help="run one case, and show it")
    return SimpleNamespace(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
