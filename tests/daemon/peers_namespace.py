"""Run by test_peers_namespace.py, as root of a network namespace: loopback is up, and what follows is added to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import subprocess
from collections.abc import Iterator
from random import Random

import pytest

from chitcpd import carrier
from tests.daemon.conftest import PORT
from tests.daemon.nodes import Node, dialled, frame, in_event_loop, node, raw_listener, segment, until, within

LOW, HIGH, THIRD = "fd00::2", "fd00::10", "fd00::ab:1"  # as text, the second would be the lower one
OWN_4, OWN_6 = ("127.0.0.1", "127.7.7.7", "10.9.0.1", "10.9.0.2"), ("::1", LOW, HIGH, THIRD)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture(autouse=True, scope="module")
def _addresses() -> None:
    for address in (*OWN_6[1:], "fe80::1"):
        ip("-6", "addr", "replace", f"{address}/{64 if address == 'fe80::1' else 128}", "dev", "lo", "nodad")
    for address in OWN_4[2:]:
        ip("addr", "replace", f"{address}/32", "dev", "lo")


class TestIpv6:
    @in_event_loop
    async def test_one_real_connection_serves_both_ways(self) -> None:
        async with node(LOW) as alice, node(HIGH) as bob:
            alice.send(bob, segment(1))
            assert await bob.numbers(1) == {1}
            bob.send(alice, segment(2))
            assert await alice.numbers(1) == {2}
            assert (alice.ways, bob.ways) == ([(LOW, HIGH)], [(HIGH, LOW)])
            assert len(alice.peers.carriers) == len(bob.peers.carriers) == 1

    @within(30)
    async def test_dials_that_cross(self) -> None:
        random = Random(1)
        async with node(LOW) as low, node(HIGH) as high:
            for _ in range(100):
                for number in range(10):
                    for one, other in random.sample([(low, high), (high, low)], 2):
                        one.send(other, segment(number))
                        if random.random() < 0.2:
                            await asyncio.sleep(0)
                assert await low.numbers(10) == await high.numbers(10) == set(range(10))
                await until(lambda: len(low.peers.carriers) == len(high.peers.carriers) == 1)
                low.hang_up()
                await until(lambda: not (low.peers.carriers or high.peers.carriers))

    @in_event_loop
    async def test_garbage(self) -> None:
        async with node(LOW) as bob, dialled(bob, HIGH) as bad, dialled(bob, THIRD) as good:
            bad.writer.write(bytes(16))
            assert await bad.closed()
            good.writer.write(frame(segment(1)))
            assert await bob.numbers(1) == {1}
            assert bob.ways == [(LOW, THIRD)]

    @in_event_loop
    async def test_an_address_that_has_a_scope_is_refused(self) -> None:
        """fe80::1 without its link is not an address that could be answered."""
        async with node("::") as bob:
            with socket.socket(socket.AF_INET6) as linked:
                linked.setblocking(False)
                scope = socket.if_nametoindex("lo")
                await asyncio.get_running_loop().sock_connect(linked, ("fe80::1", PORT, 0, scope))
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(linked, 1) == b""
            assert not bob.peers._peers
            bob.peers.send("::1", "fe80::1", [segment(1)])  # nor can it be dialled
            assert await bob.unreachable.get() == ("::1", "fe80::1")


class TestOwnAddresses:
    @pytest.mark.parametrize("all_of", [OWN_4, OWN_6], ids=["IPv4", "IPv6"])
    @within(30)
    async def test_each_reaches_each_when_we_listen_on_all(self, all_of: tuple[str, ...]) -> None:
        host = Node("0.0.0.0", "::")
        await host.peers.listen()
        for one, other in itertools.product(all_of, all_of):
            host.ways.clear()
            host.peers.send(one, other, [segment(1)])
            assert await host.numbers(1) == {1}
            host.peers.send(other, one, [segment(2)])
            assert await host.numbers(1) == {2}
            assert host.ways == [(other, one), (one, other)]
        for address in all_of:
            own = host.peers.source(address)
            host.peers.send(own, address, [segment(3)])
            assert await host.numbers(1) == {3}
        assert host.drops == []
        await host.peers.close(1.0)

    @in_event_loop
    async def test_an_ipv4_peer_has_one_name(self) -> None:
        """Not ::ffff:127.7.7.7 too, whichever socket takes its connection."""
        both, only_6 = Node("0.0.0.0", "::"), Node("::")
        await both.peers.listen()
        async with dialled(Node("127.0.0.1"), "127.7.7.7") as raw:
            raw.writer.write(frame(segment(1)))
            assert await both.numbers(1) == {1}
            assert both.ways == [("127.0.0.1", "127.7.7.7")]
        both.peers.send("::1", "::ffff:127.0.0.1", [segment(1)])
        assert await both.unreachable.get() == ("::1", "::ffff:127.0.0.1")
        await both.peers.close(1.0)
        await only_6.peers.listen()
        with socket.socket() as ipv4:
            assert ipv4.connect_ex(("127.0.0.1", PORT)) != 0
        await only_6.peers.close(1.0)


class TestVanished:
    """The peer's machine is gone: no FIN, no RST, no answer."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(carrier, "_CARRIER_DEAD_AFTER", 500)
        monkeypatch.setattr(carrier, "_KEEP_IDLE", 1)
        monkeypatch.setattr(carrier, "_KEEP_INTERVAL", 1)
        yield
        ip("addr", "replace", "10.9.0.2/32", "dev", "lo")

    @pytest.mark.parametrize("sends", [True, False], ids=["we send", "we only wait"])
    @pytest.mark.parametrize("who", ["we", "they"])
    @in_event_loop
    async def test_is_found_out(self, sends: bool, who: str) -> None:
        async with node("10.9.0.1") as alice, raw_listener("10.9.0.2") as connections:
            if who == "we":
                alice.send("10.9.0.2", segment(1))
                await connections.get()
                await self._vanish(alice, sends)
            else:
                async with dialled(alice, "10.9.0.2") as raw:
                    raw.writer.write(frame(segment(1)))
                    await alice.numbers(1)
                    await self._vanish(alice, sends)

    async def _vanish(self, alice: Node, sends: bool) -> None:
        ip("addr", "del", "10.9.0.2/32", "dev", "lo")
        if sends:
            alice.send("10.9.0.2", segment(2))
        start = asyncio.get_running_loop().time()
        while alice.peers.carriers:
            alice.peers._carrier_lost.clear()
            await alice.peers._carrier_lost.wait()
        assert asyncio.get_running_loop().time() - start < 6
