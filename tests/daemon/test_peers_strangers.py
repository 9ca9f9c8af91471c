"""What a stranger who can reach port 23300 is able to take: nothing that is not bounded."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from chitcpd import peers
from tests.daemon.conftest import PATIENCE, PORT, free_address
from tests.daemon.nodes import (
    Node,
    dialled,
    frame,
    held,
    in_event_loop,
    node,
    raw_listener,
    segment,
    until,
)

_numbers = itertools.count(1)


@asynccontextmanager
async def strangers(target: Node, count: int, *, address: str | None = None, says: bytes = b"") -> AsyncIterator[None]:
    """So many connections to `target`, each from an address of its own or all from one, that say something and wait."""
    with ExitStack() as stack:
        for _ in range(count):
            number = next(_numbers)
            own = address or f"127.80.{number >> 8 & 0xFF}.{number & 0xFF}"
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.bind((own, 0))
            await asyncio.get_running_loop().sock_connect(sock, (target.address, PORT))
            sock.sendall(says)
        yield


class TestTime:
    """A segment that has begun must come whole, and the first one must come. One that has come buys silence."""

    @pytest.mark.parametrize(
        "says",
        [b"", frame(segment(1))[:9], frame(segment(1))[:30], frame(segment(1)) + frame(segment(2))[:17]],
        ids=["nothing", "half a header", "half a segment", "one and a half"],
    )
    @in_event_loop
    async def test_who_stalls_is_sent_away(self, says: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chitcpd.carrier._FRAME_TIMEOUT", 0.2)
        async with node() as bob, dialled(bob, free_address()) as silent, dialled(bob, free_address()) as stalled:
            silent.writer.write(frame(segment(1)))
            assert await bob.numbers(1) == {1}
            stalled.writer.write(says)
            start = asyncio.get_running_loop().time()
            assert await stalled.closed()
            assert asyncio.get_running_loop().time() - start < 2
            silent.writer.write(frame(segment(2)))
            assert 2 in await bob.numbers(bob.delivered.qsize() + 1)

    @in_event_loop
    async def test_a_slow_drip_is_a_stall(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chitcpd.carrier._FRAME_TIMEOUT", 0.2)
        async with node() as bob, dialled(bob, free_address()) as slow:
            closed = asyncio.create_task(slow.closed())
            stream = frame(segment(1, 0xFFFF))
            start = asyncio.get_running_loop().time()
            for at in range(len(stream)):
                slow.writer.write(stream[at : at + 1])
                await asyncio.wait([closed], timeout=0.001)
                if closed.done():
                    break
            assert closed.done()
            assert asyncio.get_running_loop().time() - start < 2

    @in_event_loop
    async def test_whole_segments_may_come_slowly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each begins before the one before it is read: there is always a part of one."""
        monkeypatch.setattr("chitcpd.carrier._FRAME_TIMEOUT", 0.4)
        async with node() as bob, dialled(bob, free_address()) as slow:
            stream = b"".join(frame(segment(number)) for number in range(40))
            for at in range(0, len(stream), 28):
                slow.writer.write(stream[at : at + 28])
                await asyncio.wait([asyncio.create_task(slow.writer.drain())])
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.01)
            assert await bob.numbers(40) == set(range(40))

    @in_event_loop
    async def test_an_idle_daemon_has_no_timer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chitcpd.carrier._FRAME_TIMEOUT", 0.05)
        async with node() as alice, node() as bob:
            alice.send(bob, segment(1))
            bob.send(alice, segment(2))
            await alice.numbers(1)
            await bob.numbers(1)
            carriers = [*alice.peers.carriers, *bob.peers.carriers]
            await until(lambda: all(carrier._watch is None for carrier in carriers))
            alice.send(bob, segment(3))
            assert await bob.numbers(1) == {3}
            assert all(carrier._watch is None for carrier in carriers)


class TestNumbers:
    @in_event_loop
    async def test_connections_of_one_address(self) -> None:
        address = free_address()
        async with node() as bob, dialled(bob, address) as good:
            good.writer.write(frame(segment(1)))
            assert await bob.numbers(1) == {1}
            async with strangers(bob, 50, address=address), dialled(bob, free_address()) as other:
                other.writer.write(frame(segment(2)))
                assert await bob.numbers(1) == {2}
                await until(lambda: len(bob.peers.carriers) <= 5)
                bob.send(address, segment(3))
                assert await good.segment() == segment(3)  # the one that serves is not given up for strangers

    @in_event_loop
    async def test_connections_in_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(peers, "_MOST_ACCEPTED", 20)
        async with node() as bob, node() as carol, dialled(bob, free_address()) as good:
            good.writer.write(frame(segment(1)))
            assert await bob.numbers(1) == {1}
            async with strangers(bob, 60):
                async with dialled(bob, free_address()) as late:  # it comes last, and is served: it speaks
                    late.writer.write(frame(segment(2)))
                    assert await bob.numbers(1) == {2}
                await until(lambda: len(bob.peers.carriers) <= 20)
                bob.send(carol, segment(3))  # and there is room for what we dial
                assert await carol.numbers(1) == {3}
                good.writer.write(frame(segment(4)))
                assert await bob.numbers(1) == {4}

    @in_event_loop
    async def test_who_has_spoken_just_now_is_not_sent_away_for_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(peers, "_MOST_ACCEPTED", 5)
        monkeypatch.setattr(peers, "_IDLE", PATIENCE * 1000)
        async with node() as bob, strangers(bob, 5, says=frame(segment(1))):
            await bob.numbers(5)
            async with dialled(bob, free_address()) as late:
                assert await late.closed()
            assert len(bob.peers.carriers) == 5

    @in_event_loop
    async def test_who_has_been_silent_for_longest_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(peers, "_MOST_ACCEPTED", 5)
        monkeypatch.setattr(peers, "_IDLE", 20)
        async with node() as bob, dialled(bob, free_address()) as good, strangers(bob, 4, says=frame(segment(1))):
            good.writer.write(frame(segment(1)))
            await bob.numbers(5)
            await until(lambda: all(carrier.silence() >= 20 for carrier in bob.peers.carriers))
            good.writer.write(frame(segment(2)))
            assert await bob.numbers(1) == {2}
            async with dialled(bob, free_address()) as late:
                late.writer.write(frame(segment(3)))
                assert await bob.numbers(1) == {3}
                good.writer.write(frame(segment(4)))
                assert await bob.numbers(1) == {4}
                assert len(bob.peers.carriers) == 5

    @in_event_loop
    async def test_what_we_dial(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(peers, "_MOST_CARRIERS", 2)
        async with node() as alice, raw_listener(one := free_address()), raw_listener(other := free_address()):
            alice.send(one, segment(1))
            alice.send(other, segment(1))
            await until(lambda: len(alice.peers.carriers) == 2)
            for _ in range(3):
                alice.send("127.0.0.1", segment(1))
                assert await alice.unreachable.get() == (alice.address, "127.0.0.1")
            assert caplog.messages == ["127.0.0.1 can't be reached: too many connections are open"]

    @in_event_loop
    async def test_peers_that_are_gone_are_forgotten(self) -> None:
        async with node() as bob:
            before = held()
            for _ in range(5):
                async with strangers(bob, 40, says=frame(segment(1))):
                    await bob.numbers(40)
                    assert len(bob.peers._peers) == 40
                await until(lambda: not bob.peers.carriers)
                assert not bob.peers._peers
            assert held() == before

    @in_event_loop
    async def test_what_went_wrong_is_remembered_of_so_many_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(peers, "_MOST_PEERS", 10)
        async with node() as bob:
            for _ in range(5):
                async with strangers(bob, 10, says=bytes(16)):
                    await until(lambda: not bob.peers.carriers and len(bob.peers._peers) == 10)
            for n in range(50):
                bob.send(f"127.81.0.{n}", segment(1))
                await bob.unreachable.get()
            assert len(bob.peers._peers) == 10

    @in_event_loop
    async def test_lines_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        address = free_address()
        async with node() as bob:
            for _ in range(10):
                async with dialled(bob, address) as raw:
                    raw.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert await raw.closed()
            async with strangers(bob, 3):
                pass  # says nothing, and nothing is said of it
            await until(lambda: not bob.peers.carriers)
            assert caplog.messages == [
                f"{address} sent a chiTCP header with protocol 84 and length 18245; connection closed"
            ]

    @in_event_loop
    async def test_memory_of_a_silent_connection(self) -> None:
        count = 300
        async with node() as bob:
            async with strangers(bob, 1, says=frame(segment(1))):
                await bob.numbers(1)
            gc.collect()
            tracemalloc.start()
            try:
                async with strangers(bob, count, says=frame(segment(1)) + frame(segment(2))[:20]):
                    await bob.numbers(count)
                    gc.collect()
                    each = tracemalloc.get_traced_memory()[0] / count
            finally:
                tracemalloc.stop()
            print(f"{each:.0f} bytes each, the other end's socket too")
            assert each < 8192
