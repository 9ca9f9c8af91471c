"""The network layer, on real loopback addresses: the bytes on the wire, and all that may happen to a real connection.

"Raw" is a peer that the test plays itself, byte by byte.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chitcpd import peers
from chitcpd.faults import Shape
from chitcpd.peers import Carrier, Peers
from tests.daemon.conftest import PATIENCE, PORT, free_address

HEADER = struct.Struct("!HBB12s")


def in_event_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test in an event loop of its own; whatever goes wrong in it behind the test's back fails the test."""

    @functools.wraps(test)
    def run(*arguments: object, **options: object) -> None:
        async def watched() -> None:
            faults: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
            async with asyncio.timeout(PATIENCE):
                await test(*arguments, **options)
            assert faults == []

        asyncio.run(watched())

    return run


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

    def __init__(self, *addresses: str) -> None:
        self.address = addresses[0]
        self.delivered: asyncio.Queue[bytes] = asyncio.Queue()
        self.ways: list[tuple[str, str]] = []  # (our address, the peer's) of each delivered one
        self.unreachable: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.drops: list[str] = []
        self.peers = Peers(
            port=PORT,
            addresses=list(addresses),
            deliver=self._deliver,
            unreachable=lambda own, peer: self.unreachable.put_nowait((own, peer)),
            dropped=self._dropped,
        )

    def _deliver(self, own: str, peer: str, raw: bytes) -> None:
        self.ways.append((own, peer))
        self.delivered.put_nowait(raw)

    def _dropped(self, why: str, own: str, peer: str, raw: bytes) -> None:
        self.drops.append(why)

    def send(self, peer: Node | str, raw: bytes) -> None:
        self.peers.send(self.address, peer if isinstance(peer, str) else peer.address, raw)

    async def numbers(self, count: int) -> set[int]:
        """The numbers of the next `count` segments."""
        return {number_of(await self.delivered.get()) for _ in range(count)}


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go on until it is so."""
    while not condition():
        await asyncio.sleep(0)


@asynccontextmanager
async def node(address: str | None = None, *, listening: bool = True) -> AsyncIterator[Node]:
    one = Node(address or free_address())
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


class TestOnTheWire:
    @in_event_loop
    async def test_sixteen_bytes_before_each_segment(self) -> None:
        async with node() as alice, raw_listener(free := free_address()) as connections:
            alice.send(free, b"\x01" * 20)
            alice.send(free, b"\x02" * 300)
            raw = await connections.get()
            first = bytes.fromhex("0014 01 00 000000000000000000000000") + b"\x01" * 20
            second = bytes.fromhex("012c 01 00 000000000000000000000000") + b"\x02" * 300
            assert await raw.reader.readexactly(len(first + second)) == first + second
            assert raw.writer.get_extra_info("peername")[0] == alice.address

    @in_event_loop
    async def test_one_real_connection_serves_both_ways(self) -> None:
        async with node() as alice, node() as bob:
            alice.send(bob, segment(1))
            assert await bob.delivered.get() == segment(1)
            bob.send(alice, segment(2))
            assert await alice.delivered.get() == segment(2)
            assert (alice.ways, bob.ways) == ([(alice.address, bob.address)], [(bob.address, alice.address)])
            assert len(alice.peers.carriers) == len(bob.peers.carriers) == 1

    @in_event_loop
    async def test_many_segments_stay_in_order(self) -> None:
        async with node() as alice, node() as bob:
            for number in range(900):
                alice.send(bob, segment(number, 20 + number % 1400))
            for number in range(900):
                assert await bob.delivered.get() == segment(number, 20 + number % 1400)

    @in_event_loop
    async def test_the_stream_may_be_cut_anywhere(self) -> None:
        """Three segments in every division of their bytes into three reads."""
        async with node(listening=False) as bob:
            segments = [segment(1, 20), segment(2, 21), segment(3, 33)]
            stream = b"".join(frame(raw) for raw in segments)
            for i in range(len(stream)):
                for j in range(i, len(stream), 7):
                    carrier = Carrier(bob.peers)
                    carrier.peer = bob.peers.peer(bob.address, "127.0.0.1")
                    for part in (stream[:i], stream[i:j], stream[j:]):
                        carrier.get_buffer(-1)[: len(part)] = part
                        carrier.buffer_updated(len(part))
                    assert [bob.delivered.get_nowait() for _ in segments] == segments
                    assert bob.delivered.empty()

    @in_event_loop
    async def test_the_longest_segment(self) -> None:
        async with node() as bob, dialled(bob, free_address()) as raw:
            raw.writer.write(frame(segment(1, 0xFFFF)) * 20)
            for _ in range(20):
                assert await bob.delivered.get() == segment(1, 0xFFFF)

    @in_event_loop
    async def test_the_header_s_flags_and_zeros_do_not_matter(self) -> None:
        async with node() as bob, dialled(bob, free_address()) as raw:
            raw.writer.write(HEADER.pack(20, 1, 0xFF, b"\xff" * 12) + segment(1, 20))
            assert await bob.delivered.get() == segment(1, 20)


class TestGarbage:
    @pytest.mark.parametrize(
        "garbage",
        [
            HEADER.pack(40, 2, 0, bytes(12)) + bytes(40),
            HEADER.pack(40, 0, 0, bytes(12)),
            HEADER.pack(19, 1, 0, bytes(12)) + bytes(19),
            HEADER.pack(0, 1, 0, bytes(12)),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            bytes(16),
            b"\xff" * 100_000,
        ],
        ids=["RAW", "proto 0", "length 19", "length 0", "HTTP", "zeros", "ones"],
    )
    @in_event_loop
    async def test_closes_the_real_connection_and_nothing_else(self, garbage: bytes) -> None:
        async with node() as bob, dialled(bob, free_address()) as good, dialled(bob, free_address()) as bad:
            bad.writer.write(frame(segment(1)) + garbage)
            assert await bad.closed()
            good.writer.write(frame(segment(2)))
            assert await bob.numbers(2) == {1, 2}

    @in_event_loop
    async def test_the_peer_may_come_back(self) -> None:
        async with node() as bob:
            address = free_address()
            async with dialled(bob, address) as raw:
                raw.writer.write(bytes(16))
                assert await raw.closed()
            async with dialled(bob, address) as raw:
                raw.writer.write(frame(segment(1)))
                assert await bob.numbers(1) == {1}

    @in_event_loop
    async def test_half_a_header_holds_up_nobody_else(self) -> None:
        async with node() as bob, dialled(bob, free_address()) as slow, dialled(bob, free_address()) as other:
            slow.writer.write(frame(segment(1))[:9])
            other.writer.write(frame(segment(2)))
            assert await bob.numbers(1) == {2}
            slow.writer.write(frame(segment(1))[9:])
            assert await bob.numbers(1) == {1}

    @pytest.mark.parametrize("cut", [1, 15, 16, 17, 55])
    @in_event_loop
    async def test_half_a_frame_before_the_end_is_dropped(self, cut: int) -> None:
        async with node() as bob:
            async with dialled(bob, free_address()) as raw:
                raw.writer.write(frame(segment(1)) + frame(segment(2))[:cut])
                raw.writer.write_eof()
                assert await raw.closed()
            await until(lambda: not bob.peers.carriers)
            assert bob.delivered.qsize() == 1

    @in_event_loop
    async def test_a_connection_that_is_reset_at_once_leaves_nothing(self) -> None:
        async with node() as bob:
            for _ in range(20):
                with socket.create_connection((bob.address, PORT)) as hasty:
                    hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close resets
            async with dialled(bob, free_address()) as raw:
                raw.writer.write(frame(segment(1)))
                assert await bob.numbers(1) == {1}
                await until(lambda: len(bob.peers.carriers) == 1)


class TestCrossingDials:
    """Both sides dial at once: the lower address keeps its connection, the other is drained; nothing is lost."""

    @pytest.mark.parametrize("lead", range(-25, 25))
    @in_event_loop
    async def test_one_connection_stays_and_nothing_is_lost(self, lead: int) -> None:
        """One side begins so many rounds of the event loop before the other, and both go on sending."""
        low_address, high_address = low_and_high()
        async with node(low_address) as low, node(high_address) as high:
            sent = 200

            async def talk(one: Node, other: Node, start: int) -> None:
                for _ in range(start):
                    await asyncio.sleep(0)
                for number in range(sent):
                    one.send(other, segment(number))
                    if number % 5 == 0:
                        await asyncio.sleep(0)

            await asyncio.gather(talk(low, high, max(-lead, 0)), talk(high, low, max(lead, 0)))
            assert await high.numbers(sent) == set(range(sent))
            assert await low.numbers(sent) == set(range(sent))
            assert low.drops == high.drops == []
            await until(lambda: len(low.peers.carriers) == len(high.peers.carriers) == 1)
            low.send(high, segment(1000))
            high.send(low, segment(1001))
            assert (await high.numbers(1), await low.numbers(1)) == ({1000}, {1001})

    @in_event_loop
    async def test_the_lower_address_keeps_its_own(self) -> None:
        low_address, high_address = "127.0.0.1", free_address()
        async with node(low_address, listening=False) as low, node(high_address) as high:
            low.send(high, segment(1))
            assert await high.numbers(1) == {1}
            async with dialled(high, low_address) as late:  # its own second dial, which another daemon may have begun
                late.writer.write(frame(segment(2)))
                assert await high.numbers(1) == {2}
                high.send(low, segment(3))
                assert await late.segment() == segment(3)

    @in_event_loop
    async def test_a_dial_that_the_peer_has_given_up_is_not_taken(self) -> None:
        """The higher address has dialled, then taken ours and used it, and we learn of both in the wrong order."""
        low_address, high_address = low_and_high()
        async with raw_listener(high_address) as connections, node(low_address) as low:
            low.send(high_address, segment(1))
            kept = await connections.get()
            assert await kept.segment() == segment(1)
            kept.writer.write(frame(segment(2)))
            assert await low.numbers(1) == {2}
            async with dialled(low, high_address) as given_up:
                await until(lambda: len(low.peers.carriers) == 2)
                low.send(high_address, segment(3))
                assert await kept.segment() == segment(3)
                del given_up
            await until(lambda: len(low.peers.carriers) == 1)
            low.send(high_address, segment(4))
            assert await kept.segment() == segment(4)


class TestInterruptions:
    @in_event_loop
    async def test_a_peer_that_restarts_is_dialled_again(self) -> None:
        async with node() as alice:
            address = free_address()
            for number in range(3):
                async with node(address) as bob:
                    alice.send(bob, segment(number))
                    assert await bob.numbers(1) == {number}
                await until(lambda: not alice.peers.carriers)

    @pytest.mark.parametrize("order", [1, -1], ids=["we are the lower", "we are the higher"])
    @in_event_loop
    async def test_a_peer_that_restarts_and_dials_is_heard_and_answered(self, order: int) -> None:
        ours, theirs = low_and_high()[::order]
        async with node(ours) as alice:
            async with node(theirs) as bob:
                alice.send(bob, segment(1))
                assert await bob.numbers(1) == {1}
            async with node(theirs) as bob:
                bob.send(alice, segment(2))
                assert await alice.numbers(1) == {2}
                alice.send(bob, segment(3))
                assert await bob.numbers(1) == {3}

    @in_event_loop
    async def test_the_other_connection_serves_when_ours_is_gone(self) -> None:
        """The peer has dialled too, and ours breaks: what it has dialled is there."""
        low_address, high_address = low_and_high()
        async with raw_listener(high_address) as connections, node(low_address) as low:
            low.send(high_address, segment(1))
            ours = await connections.get()
            assert await ours.segment() == segment(1)
            async with dialled(low, high_address) as theirs:
                await until(lambda: len(low.peers.carriers) == 2)
                ours.close()
                await until(lambda: len(low.peers.carriers) == 1)
                low.send(high_address, segment(2))
                assert await theirs.segment() == segment(2)

    @in_event_loop
    async def test_a_drained_connection_is_not_used_again(self) -> None:
        """The higher address has stopped sending on its own, which is still open, when the other breaks."""
        low_address, high_address = low_and_high()
        async with raw_listener(low_address) as connections, node(high_address) as high:
            high.send(low_address, segment(1))
            drained = await connections.get()
            assert await drained.segment() == segment(1)
            async with dialled(high, low_address) as kept:
                assert await drained.reader.read() == b""  # its end
                high.send(low_address, segment(2))
                assert await kept.segment() == segment(2)
            await until(lambda: len(high.peers.carriers) == 1)
            high.send(low_address, segment(3))
            dialled_again = await connections.get()
            assert await dialled_again.segment() == segment(3)

    @in_event_loop
    async def test_an_unreachable_peer(self) -> None:
        async with node() as alice:
            address = free_address()
            for _ in range(3):
                alice.send(address, segment(1))
                assert await alice.unreachable.get() == (alice.address, address)
            assert alice.drops == ["unreachable"] * 3

    @in_event_loop
    async def test_it_is_not_dialled_again_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(peers, "_RETRY_FIRST", 3600.0)
        async with node() as alice:
            address = free_address()
            alice.send(address, segment(1))
            await alice.unreachable.get()
            async with node(address) as bob:
                alice.send(bob, segment(2))
                await alice.unreachable.get()
                assert bob.delivered.empty()
                bob.send(alice, segment(3))  # but if it dials us, all is well
                assert await alice.numbers(1) == {3}
                alice.send(bob, segment(4))
                assert await bob.numbers(1) == {4}

    @in_event_loop
    async def test_a_later_dial_works(self) -> None:
        async with node() as alice:
            address = free_address()
            alice.send(address, segment(1))
            await alice.unreachable.get()
            async with node(address) as bob:
                while bob.delivered.empty():  # as a TCP does
                    alice.send(bob, segment(2))
                    await asyncio.sleep(0)
                assert await bob.numbers(1) == {2}

    @in_event_loop
    async def test_an_address_that_is_not_ours_to_dial_from(self) -> None:
        async with node(listening=False) as alice, node() as bob:
            alice.peers.send("192.0.2.1", bob.address, segment(1))
            assert await alice.unreachable.get() == ("192.0.2.1", bob.address)

    @in_event_loop
    async def test_one_unreachable_peer_does_not_hold_up_another(self) -> None:
        async with node() as alice, node() as bob:
            alice.send(free_address(), segment(1))
            alice.send(bob, segment(2))
            assert await bob.numbers(1) == {2}

    @in_event_loop
    async def test_the_queue_is_bounded_when_the_peer_does_not_read(self) -> None:
        async with node() as alice, raw_listener(address := free_address()) as connections:
            sent = 0
            while not alice.drops:
                for _ in range(100):
                    alice.send(address, segment(sent, 1500))
                    sent += 1
                await asyncio.sleep(0)
            assert set(alice.drops) == {"queue"}
            assert sent < 50_000  # the kernel's buffers, and a thousand segments of ours
            raw = await connections.get()
            for number in range(sent - len(alice.drops)):
                assert number_of(await raw.segment()) == number  # whole frames, in order
            alice.send(address, segment(sent))
            assert number_of(await raw.segment()) == sent

    @in_event_loop
    async def test_at_the_end_what_waits_is_written(self) -> None:
        async with node() as bob:
            async with node() as alice:
                alice.send(bob, segment(0))
                await bob.numbers(1)
                for number in range(500):
                    alice.send(bob, segment(number))
            assert await bob.numbers(500) == set(range(500))


class TestOwnAddresses:
    @in_event_loop
    async def test_no_real_connection_is_needed(self) -> None:
        async with node(listening=False) as alice:
            alice.send(alice, segment(1))
            assert await alice.numbers(1) == {1}
            assert not alice.peers.carriers

    @in_event_loop
    async def test_nor_between_two_of_them(self) -> None:
        one, other = free_address(), free_address()
        host = Node(one, other)
        host.send(other, segment(1))
        assert await host.numbers(1) == {1}
        assert host.ways == [(other, one)]
        assert not host.peers.carriers

    @in_event_loop
    async def test_our_address_towards_a_peer(self) -> None:
        async with node() as alice:
            assert alice.peers.source("127.0.0.9") == alice.address  # the one that we listen on
            assert alice.peers.source(alice.address) == alice.address
            alice.peers.set_link("127.0.0.9", own="127.0.0.8", mtu=None, shape=Shape(), seed=0)
            assert alice.peers.source("127.0.0.9") == "127.0.0.8"  # the link's


class TestLinks:
    @in_event_loop
    async def test_what_a_link_loses_is_told(self) -> None:
        async with node() as alice, node() as bob:
            alice.peers.set_link(bob.address, own=None, mtu=None, shape=Shape(loss=1.0), seed=1)
            alice.send(bob, segment(1))
            assert alice.drops == ["loss"]
            assert alice.peers.impairment_counts() == {bob.address: {"loss": 1}}

    @in_event_loop
    async def test_delay(self) -> None:
        loop = asyncio.get_running_loop()
        async with node() as alice, node() as bob:
            alice.peers.set_link(bob.address, own=None, mtu=None, shape=Shape(delay=0.05), seed=1)
            start = loop.time()
            alice.send(bob, segment(1))
            await bob.numbers(1)
            assert loop.time() - start >= 0.05

    @in_event_loop
    async def test_a_new_setting_replaces_the_old_one(self) -> None:
        async with node() as alice, node() as bob:
            alice.peers.set_link(bob.address, own=None, mtu=576, shape=Shape(loss=1.0), seed=1)
            assert alice.peers.mtu(bob.address) == 576
            alice.peers.set_link(bob.address, own=None, mtu=None, shape=Shape(), seed=1)
            assert alice.peers.mtu(bob.address) is None
            alice.send(bob, segment(1))
            assert await bob.numbers(1) == {1}
