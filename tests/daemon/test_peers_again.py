"""The same trouble over and over, and with many peers: nothing is lost, nothing is left behind.

CROSSINGS, RESTARTS and KILLS in the environment say how often; with daemons of their own a few times are the default.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from random import Random

import pytest

from chisocket.protocol import chitcpd_pb2 as pb
from tests.daemon.application import Application, Conversation
from tests.daemon.conftest import PATIENCE, Daemon, StartDaemon, directory, free_address, running_daemon
from tests.daemon.nodes import Node, dialled, frame, held, low_and_high, node, raw_listener, segment, until, within

CROSSINGS = int(os.environ.get("CROSSINGS", "1000"))
RESTARTS = int(os.environ.get("RESTARTS", "100"))
KILLS = int(os.environ.get("KILLS", "3"))
SEED = 1

__all__ = ["directory"]


class TestCrossingDials:
    @within(60)
    async def test_each_time_one_connection_stays_and_nothing_is_lost(self) -> None:
        random, crossed = Random(SEED), 0
        low_address, high_address = low_and_high()
        async with node(low_address) as low, node(high_address) as high:
            before = held()
            for _ in range(CROSSINGS):
                crossed += await self._cross(low, high, random)
                assert low.drops == high.drops == []
                low.hang_up()
                await until(lambda: not (low.peers.carriers or high.peers.carriers))
            assert held() == before
            assert low.peers._peers == high.peers._peers == {}
        print(f"{crossed} of {CROSSINGS} dials crossed")
        assert crossed >= CROSSINGS // 4

    async def _cross(self, low: Node, high: Node, random: Random) -> bool:
        """Both send at once, more or less. Whether there were two connections for a while."""
        sent, most = 20, 0

        async def talk(one: Node, other: Node) -> None:
            for _ in range(random.randrange(6)):
                await asyncio.sleep(0)
            for number in range(sent):
                one.send(other, segment(number))
                if number % 5 == 0:
                    await asyncio.sleep(0)

        def settled() -> bool:
            nonlocal most
            most = max(most, len(low.peers.carriers))
            whole = low.delivered.qsize() == high.delivered.qsize() == sent
            return whole and len(low.peers.carriers) == len(high.peers.carriers) == 1

        await asyncio.gather(talk(low, high), talk(high, low))
        await until(settled)
        assert await low.numbers(sent) == await high.numbers(sent) == set(range(sent))
        return most > 1


class TestRestarts:
    @within(60)
    async def test_under_load(self) -> None:
        """Each time both are heard again, and what the old one leaves is gone."""
        address = free_address()
        async with node() as alice:
            before = held()
            for _ in range(RESTARTS):
                async with node(address) as bob:
                    await self._until_both_are_heard(alice, bob)
                    bob.hang_up()
            await until(lambda: not alice.peers.carriers)
            assert held() == before
            assert len(alice.peers._peers) <= 1
            assert set(alice.drops) <= {"unreachable", "queue"}

    async def _until_both_are_heard(self, alice: Node, bob: Node) -> None:
        for one in (alice, bob):
            while not one.delivered.empty():
                one.delivered.get_nowait()
        while alice.delivered.empty() or bob.delivered.empty():
            for number in range(10):
                alice.send(bob, segment(number, 1480))
                bob.send(alice, segment(number, 1480))
            await asyncio.sleep(0)


class TestManyPeers:
    @within(30)
    async def test_two_hundred_at_once(self) -> None:
        """All dial the one, which dials all, at the same moment."""
        count, each = 200, 20
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(node())
            others = [await stack.enter_async_context(node()) for _ in range(count)]
            for number in range(each):
                for other in others:
                    other.send(hub, segment(number))
                    hub.send(other, segment(number))
            for other in others:
                assert await other.numbers(each) == set(range(each))
            await hub.numbers(each * count)
            assert sorted(hub.ways) == sorted((hub.address, other.address) for other in others for _ in range(each))
            await until(lambda: len(hub.peers.carriers) == count)
            assert hub.drops == []

    @pytest.mark.alone
    @within(30)
    async def test_those_that_do_not_read_slow_nobody_else(self) -> None:
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(node())
            good = await stack.enter_async_context(node())
            slow = [free_address() for _ in range(20)]
            for address in slow:
                await stack.enter_async_context(raw_listener(address))
            while len(hub.drops) < 1000:  # all are full
                for address in slow:
                    for _ in range(10):
                        hub.send(address, segment(0, 60_000))
                await asyncio.sleep(0)
            hub.drops.clear()
            start = asyncio.get_running_loop().time()
            for number in range(100):
                for address in slow:
                    hub.send(address, segment(0, 60_000))
                hub.send(good, segment(number))
                assert await good.numbers(1) == {number}
            assert asyncio.get_running_loop().time() - start < 2
            assert set(hub.drops) == {"queue"}

    @within(30)
    async def test_one_that_floods_us_leaves_the_others_their_turn(self) -> None:
        async with node() as bob, dialled(bob, free_address()) as flood, dialled(bob, free_address()) as other:
            flood.writer.write(frame(segment(1, 20)) * 200_000)
            await until(lambda: bool(bob.ways))
            other.writer.write(frame(segment(2, 20)))
            other_address = other.writer.get_extra_info("sockname")[0]
            await until(lambda: (bob.address, other_address) in bob.ways)
            assert bob.ways.index((bob.address, other_address)) < 100_000


# ---- daemons of their own ----------------------------------------------------------------------------------


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def memory(daemon: Daemon) -> int:
    """What it has in memory, in KiB."""
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def soon(condition: Callable[[], bool]) -> None:
    """Return once it is so."""
    until_then = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until_then
        time.sleep(0.01)


class TestKilledDaemons:
    @pytest.mark.timeout(120 + 3 * KILLS)
    def test_a_peer_is_killed_and_comes_back_under_load(self, daemon: StartDaemon, directory: Path) -> None:
        """Its address stays. What was open to it ends with ECONNRESET, what is opened then works, nothing is left."""
        alice, address, figures = daemon(), free_address(), list[int]()
        before = descriptors(alice)
        for _ in range(KILLS):
            with ExitStack() as stack:
                client = stack.enter_context(Application(alice.socket))
                bob = stack.enter_context(running_daemon(directory, address=address))
                server = stack.enter_context(Application(bob.socket))
                talk = Conversation(client, server, address)
                load = stack.enter_context(ThreadPoolExecutor()).submit(self._send_until_it_fails, client, talk.near)
                server.recv_exactly(talk.far, 1 << 20)
                bob.process.kill()
                bob.process.wait()
                bob = stack.enter_context(running_daemon(directory, address=address))
                assert load.result(PATIENCE) == errno.ECONNRESET
                again = Conversation(client, stack.enter_context(Application(bob.socket)), address)
                client.send(again.near, b"again")
                assert again.server.recv_exactly(again.far, 5) == b"again"
            soon(lambda: not alice.sockets())
            soon(lambda: descriptors(alice) <= before)
            figures.append(memory(alice))
        print(f"descriptors: {before} before, {descriptors(alice)} after; KiB after each time: {figures}")

    def _send_until_it_fails(self, client: Application, fd: int) -> int:
        while (resp := client.call(pb.SEND, sockfd=fd, flags=0, buf=bytes(1 << 16))).error_code == 0:
            pass
        return resp.error_code

    def test_a_peer_that_stops_reads_again(self, daemon: StartDaemon) -> None:
        """SIGSTOP: its kernel goes on to acknowledge."""
        alice, bob = daemon(), daemon()
        with Application(alice.socket) as client, Application(bob.socket) as server:
            talk = Conversation(client, server, bob.address)
            bob.process.send_signal(signal.SIGSTOP)
            client.send(talk.near, b"x" * 100_000)
            bob.process.send_signal(signal.SIGCONT)
            assert server.recv_exactly(talk.far, 100_000) == b"x" * 100_000
