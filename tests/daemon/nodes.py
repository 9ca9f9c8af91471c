"""The network layer of daemons in the test's own process, on real loopback addresses, and peers played byte by byte.

"Raw" is a peer that the test plays itself.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import ipaddress
import os
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from chitcpd.peers import Peers
from tests.daemon.conftest import PATIENCE, PORT, free_address

HEADER = struct.Struct("!HBB12s")


Test = Callable[..., Coroutine[Any, Any, None]]


def in_event_loop(test: Test) -> Callable[..., None]:
    """Run the test in an event loop of its own; whatever goes wrong in it behind the test's back fails the test."""
    return within(PATIENCE)(test)


def within(seconds: float) -> Callable[[Test], Callable[..., None]]:
    """The same, for a test that may take so long."""

    def decorate(test: Test) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*arguments: object, **options: object) -> None:
            async def watched() -> None:
                faults: list[dict[str, Any]] = []
                asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
                async with asyncio.timeout(seconds):
                    await test(*arguments, **options)
                assert faults == []

            asyncio.run(watched())

        return run

    return decorate


def segment(number: int, length: int = 40) -> bytes:
    """Bytes that a carrier takes for a segment, told apart by their number."""
    return number.to_bytes(4) + bytes(length - 4)


def number_of(raw: bytes) -> int:
    return int.from_bytes(raw[:4])


def frame(raw: bytes) -> bytes:
    return HEADER.pack(len(raw), 1, 0, bytes(12)) + raw


def low_and_high() -> tuple[str, str]:
    """Two addresses, the lower one first: that is what decides when both dial."""
    low, high = sorted(map(ipaddress.ip_address, (free_address(), free_address())))
    return str(low), str(high)


class Node:
    """The network layer of one daemon, with one address or more."""

    def __init__(self, *addresses: str, forwards: bool = False) -> None:
        self.address = addresses[0]
        self.delivered: asyncio.Queue[bytes] = asyncio.Queue()
        self.ways: list[tuple[str, str]] = []  # (our address, the peer's) of each delivered one
        self.unreachable: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.drops: list[str] = []
        self.refusals: list[str] = []
        self.peers = Peers(
            port=PORT,
            addresses=list(addresses),
            deliver=self._deliver,
            unreachable=lambda own, peer: self.unreachable.put_nowait((own, peer)),
            dropped=self._dropped,
            refused=self._refused,
            forwards=forwards,
        )

    def _deliver(self, own: str, peer: str, raws: Sequence[bytes]) -> None:
        for raw in raws:
            self.ways.append((own, peer))
            self.delivered.put_nowait(raw)

    def _refused(self, why: str, own: str, peer: str, raw: bytes) -> None:
        self.refusals.append(why)

    def _dropped(self, why: str, own: str, peer: str, raw: bytes) -> None:
        self.drops.append(why)

    def send(self, peer: Node | str, raw: bytes) -> None:
        self.peers.send(self.address, peer if isinstance(peer, str) else peer.address, [raw])

    def hang_up(self) -> None:
        """Its real connections break, as those of a process that is killed."""
        for carrier in list(self.peers.carriers):
            carrier.abort()

    async def numbers(self, count: int) -> set[int]:
        """The numbers of the next `count` segments."""
        return {number_of(await self.delivered.get()) for _ in range(count)}


def held() -> tuple[int, int]:
    """(descriptors, tasks) of this process: what a fault may leave behind."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go on until it is so."""
    while not condition():
        await asyncio.sleep(0)


@asynccontextmanager
async def node(*addresses: str, listening: bool = True, forwards: bool = False) -> AsyncIterator[Node]:
    one = Node(*(addresses or (free_address(),)), forwards=forwards)
    if listening:
        await one.peers.listen()
    try:
        yield one
    finally:
        await one.peers.close(PATIENCE)


class Raw:
    """One real connection to or from a node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def closed(self) -> bool:
        """Read to the end; whether nothing came before it."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True

    async def segment(self) -> bytes:
        """The next segment from the node, its header checked."""
        length, proto, flags, zeros = HEADER.unpack(await self.reader.readexactly(16))
        assert (proto, flags, zeros) == (1, 0, bytes(12))
        return await self.reader.readexactly(length)

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def dialled(peer: Node, address: str) -> AsyncIterator[Raw]:
    """A raw peer at `address` that dials the node."""
    raw = Raw(*await asyncio.open_connection(peer.address, PORT, local_addr=(address, 0)))
    try:
        yield raw
    finally:
        raw.close()


@asynccontextmanager
async def raw_listener(address: str) -> AsyncIterator[asyncio.Queue[Raw]]:
    """A raw peer at `address` that is dialled: its real connections, as they come."""
    connections: asyncio.Queue[Raw] = asyncio.Queue()
    everyone: list[Raw] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        everyone.append(Raw(reader, writer))
        connections.put_nowait(everyone[-1])

    server = await asyncio.start_server(connected, address, PORT)
    try:
        yield connections
    finally:
        server.close()
        for raw in everyone:
            raw.close()
