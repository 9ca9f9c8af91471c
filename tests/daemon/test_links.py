"""Links that several peers are on, that are changed, measured, and that lead to a router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from chitcpd.carrier import HEADER, ROUTED
from chitcpd.faults import Drop, Impairment, Shape
from chitcpd.links import UnderWay
from chitcpd.probe import Prober
from chitcpd.turns import Turn
from tests.daemon.conftest import PORT, free_address
from tests.daemon.nodes import Node, in_event_loop, node, segment, until

MBIT = 1e6


@asynccontextmanager
async def alice_router_bob(shape: Shape | None = None) -> AsyncIterator[tuple[Node, Node, Node]]:
    """`shape`: of the link from the router to bob."""
    ends = [free_address() for _ in range(2)]
    async with node() as alice, node(*ends, forwards=True) as router, node() as bob:
        alice.peers.links.set_shape([ends[0]], Shape(), 1, {"own": alice.address})
        alice.peers.links.set_route([bob.address], ends[0], {"mtu": 1400})
        bob.peers.links.set_shape([ends[1]], Shape(), 1, {"own": bob.address})
        bob.peers.links.set_route([alice.address], ends[1], {})
        router.peers.links.set_shape([alice.address], Shape(), 1, {"own": ends[0]})
        router.peers.links.set_shape([bob.address], shape or Shape(), 1, {"own": ends[1]})
        yield alice, router, bob


class TestRoutes:
    @in_event_loop
    async def test_a_segment_and_its_answer_pass_a_router(self) -> None:
        async with alice_router_bob() as (alice, _, bob):
            alice.send(bob, segment(1))
            assert await bob.numbers(1) == {1}
            assert bob.ways == [(bob.address, alice.address)]
            bob.send(alice, segment(2))
            assert await alice.numbers(1) == {2}
            assert alice.peers.mtu(bob.address) == 1400
            assert alice.peers.source(bob.address) == alice.address

    @in_event_loop
    async def test_what_a_router_carries_on_is_told_once_and_before_it_may_be_lost(self) -> None:
        async with alice_router_bob(Shape(loss=1.0)) as (alice, router, bob):
            seen: list[object] = []
            router.peers.passed = lambda *told: seen.append((told, list(router.drops)))
            alice.send(bob, segment(1))
            await until(lambda: router.drops == ["loss"])
            assert seen == [((alice.address, bob.address, segment(1)), [])]

    @in_event_loop
    async def test_the_router_s_link_does_what_it_does_to_all(self) -> None:
        async with alice_router_bob(Shape(loss=1.0)) as (alice, router, bob):
            alice.send(bob, segment(1))
            await until(lambda: router.drops == ["loss"])
            assert router.peers.links.counts() == {bob.address: {"loss": 1}}

    @in_event_loop
    async def test_flows_share_the_queue_of_the_link_behind_the_router(self) -> None:
        async with alice_router_bob(Shape(rate=MBIT, queue_packets=5)) as (alice, router, bob):
            for number in range(10):
                alice.send(bob, segment(number, 1000))
            await until(lambda: len(router.drops) == 4)  # one is being sent, five wait
            assert router.drops == ["queue"] * 4
            assert len(await bob.numbers(6)) == 6

    @in_event_loop
    async def test_a_router_drops_what_it_knows_no_way_for(self) -> None:
        async with alice_router_bob() as (alice, router, _):
            alice.peers.links.set_route(["10.9.9.9"], router.address, {})
            alice.send("10.9.9.9", segment(1))
            await until(lambda: bool(router.drops))
            assert router.drops == ["no route"]

    @in_event_loop
    async def test_a_host_is_no_router(self) -> None:
        async with alice_router_bob() as (alice, router, bob):
            router.peers._forwards = False
            alice.send(bob, segment(1))
            await until(lambda: bool(router.drops))
            assert (router.drops, bob.ways) == (["no route"], [])

    @in_event_loop
    async def test_a_segment_that_goes_in_a_circle_is_dropped(self) -> None:
        ends = [free_address() for _ in range(2)]
        async with node(ends[0], forwards=True) as one, node(ends[1], forwards=True) as two:
            for here, there in ((one, two), (two, one)):
                here.peers.links.set_shape([there.address], Shape(), 1, {"own": here.address})
                here.peers.links.set_route(["10.9.9.9"], there.address, {})
            one.send("10.9.9.9", segment(1))
            await until(lambda: bool(one.drops + two.drops))
            assert one.drops + two.drops == ["no route"]

    @in_event_loop
    async def test_a_stranger_s_route_is_not_believed(self) -> None:
        """Its flags and what is behind them mean nothing: the segment is its own."""
        async with node() as bob:
            reader, writer = await asyncio.open_connection(bob.address, PORT, local_addr=(free_address(), 0))
            raw = segment(1)
            writer.write(HEADER.pack(len(raw), 1, ROUTED, bytes([10, 0, 0, 2, 10, 0, 0, 3, 9])) + raw)
            await bob.numbers(1)
            assert bob.ways == [(bob.address, writer.get_extra_info("sockname")[0])]
            writer.close()
            await reader.read()

    @in_event_loop
    async def test_no_route_without_a_link_to_the_router(self) -> None:
        async with node() as alice:
            with pytest.raises(LookupError, match="no link leads to the router"):
                alice.peers.links.set_route(["10.0.0.9"], "10.0.0.1", {})


class TestSharing:
    @in_event_loop
    async def test_all_peers_of_one_link_share_its_rate_and_its_queue(self) -> None:
        async with node() as alice, node() as bob, node() as carol:
            alice.peers.links.set_shape([bob.address, carol.address], Shape(rate=MBIT, queue_packets=1), 1, {})
            for peer in (bob, carol, bob, carol):
                alice.send(peer, segment(1, 500))
            assert alice.drops == ["queue", "queue"]
            assert await bob.numbers(1) == await carol.numbers(1) == {1}

    @in_event_loop
    async def test_a_change_reaches_what_waits(self) -> None:
        loop = asyncio.get_running_loop()
        async with node() as alice, node() as bob:
            alice.peers.links.set_shape([bob.address], Shape(rate=MBIT / 1000), 1, {})  # 10 s for each
            for number in range(3):
                alice.send(bob, segment(number, 1230))
            begun = loop.time()
            alice.peers.links.set_shape([bob.address], Shape(rate=MBIT), None, {})
            assert await bob.numbers(3) == {0, 1, 2}
            assert 0.02 < loop.time() - begun < 5

    @in_event_loop
    async def test_behind_a_changed_link_to_a_router_all_is_changed(self) -> None:
        async with alice_router_bob() as (alice, router, bob):
            end = router.peers.addresses[0]
            alice.peers.links.set_shape([end], Shape(down=True), None, {})
            alice.send(bob, segment(1))
            assert alice.drops == ["down"]


class TestPartition:
    @in_event_loop
    async def test_nothing_goes_and_nothing_is_heeded(self) -> None:
        async with node() as alice, node() as bob:
            alice.peers.links.block([bob.address])
            alice.send(bob, segment(1))
            assert alice.drops == ["partition"]
            bob.send(alice, segment(2))
            await until(lambda: alice.refusals == ["partition"])
            assert alice.drops == ["partition"]
            assert not alice.peers.links.is_neighbour(bob.address)  # nothing is known of a link to it
            alice.peers.links.block([])
            alice.send(bob, segment(3))
            assert await bob.numbers(1) == {3}


class TestProbes:
    @in_event_loop
    async def test_the_round_trip_and_the_rate(self) -> None:
        async with node() as alice, node() as bob:
            alice.peers.links.set_shape([bob.address], Shape(delay=0.02, rate=10 * MBIT, loss=0.5), 1, {})
            bob.peers.links.set_shape([alice.address], Shape(delay=0.01), 1, {})
            measuring, _ = Prober(alice.peers), Prober(bob.peers)
            found = await measuring.measure(bob.address, good_rtt=0.031, rate=10 * MBIT)
            assert 0.03 <= found.rtt < 0.05
            assert found.rate == pytest.approx(10 * MBIT, rel=0.03)

    @in_event_loop
    async def test_it_waits_for_one_that_is_not_there_yet(self) -> None:
        address = free_address()
        async with node() as alice:
            alice.peers.links.set_shape([address], Shape(), 1, {})
            measured = asyncio.ensure_future(Prober(alice.peers).measure(address, good_rtt=0.01, rate=None))
            await alice.unreachable.get()
            async with node(address) as bob:
                bob.peers.links.set_shape([alice.address], Shape(), 1, {})
                Prober(bob.peers)
                assert (await measured).rtt < 1

    @in_event_loop
    async def test_an_answer_that_comes_late_counts_from_its_own_question_on(self) -> None:
        async with node() as alice, node() as bob:
            alice.peers.links.set_shape([bob.address], Shape(delay=0.3), 1, {})
            bob.peers.links.set_shape([alice.address], Shape(), 1, {})
            measuring, _ = Prober(alice.peers), Prober(bob.peers)
            found = await asyncio.wait_for(measuring.measure(bob.address, good_rtt=0.01, rate=None), 60)
            assert 0.3 <= found.rtt < 0.4
            assert measuring._asked == {}

    @in_event_loop
    async def test_they_count_for_no_rule_and_touch_no_random_choice(self) -> None:
        shape = Shape(loss=0.5, drops=(Drop("any", 1, 1),))
        async with node() as alice, node() as bob:
            alice.peers.links.set_shape([bob.address], shape, 1, {})
            bob.peers.links.set_shape([alice.address], Shape(), 1, {})
            measuring, _ = Prober(alice.peers), Prober(bob.peers)
            await measuring.measure(bob.address, good_rtt=0.01, rate=None)
            assert alice.drops == []
            link = alice.peers.links.get(bob.address)
            assert link is not None
            assert link.impairment is not None
            unprobed = Impairment(shape, 1)
            for number in range(50):
                raw = segment(number)
                assert link.impairment.push(raw, 0.0) == unprobed.push(raw, 0.0)

    @in_event_loop
    async def test_a_stranger_s_probe_is_no_chitcp(self) -> None:
        async with node() as bob:
            Prober(bob.peers)
            reader, writer = await asyncio.open_connection(bob.address, PORT)
            writer.write(HEADER.pack(20, 254, 0, b"") + bytes(20))
            assert await reader.read() == b""
            writer.close()


class TestWhatIsShared:
    """A link's seed, and all that it does, are those of whatever leaves by it."""

    @in_event_loop
    async def test_a_link_that_was_perfect_keeps_its_seed(self) -> None:
        async with node() as alice:
            alice.peers.links.set_shape(["10.0.0.3"], Shape(), 4711, {})
            alice.peers.links.set_shape(["10.0.0.3"], Shape(loss=0.1), None, {})
            link = alice.peers.links.get("10.0.0.3")
            assert link is not None
            assert link.impairment is not None
            assert link.impairment.seed == 4711

    @in_event_loop
    async def test_a_change_for_one_peer_of_a_lan_is_the_link_s(self) -> None:
        async with node() as alice:
            alice.peers.links.set_shape(["10.0.0.3", "10.0.0.4"], Shape(), 1, {})
            alice.peers.links.set_shape(["10.0.0.3"], Shape(rate=MBIT), None, {})
            links = [alice.peers.links.get(peer) for peer in ("10.0.0.3", "10.0.0.4")]
            assert [link and link.impairment and link.impairment.shape.rate for link in links] == [MBIT, MBIT]

    @in_event_loop
    async def test_the_way_past_a_router_is_not_torn_out(self) -> None:
        async with alice_router_bob() as (alice, _, bob):
            with pytest.raises(LookupError, match="past the router"):
                alice.peers.links.set_shape([bob.address], Shape(loss=0.05), None, {})
            alice.send(bob, segment(1))
            assert await bob.numbers(1) == {1}

    @in_event_loop
    async def test_a_source_that_nobody_knows_is_not_heeded(self) -> None:
        async with alice_router_bob() as (alice, _, bob):
            bob.peers.links.keep([peer for peer, link in bob.peers.links._links.items() if link.via is None])
            alice.send(bob, segment(1))
            await until(lambda: bool(bob.drops))
            assert (bob.drops, bob.ways) == (["no route"], [])

    @in_event_loop
    async def test_of_a_link_on_which_nothing_is_any_more_nothing_comes_later(self) -> None:
        carried: list[bytes] = []
        loop = asyncio.get_running_loop()
        under_way = UnderWay(loop, Turn(loop), lambda *what: carried.append(what[2]))
        under_way.shift(Impairment(Shape(), 1), [0.1, 0.2])
        assert carried == []

    @in_event_loop
    async def test_what_waits_stays_in_order_with_jitter_too(self) -> None:
        for seed in range(5):
            async with node() as alice, node() as bob:
                shape = Shape(rate=MBIT, delay=0.02, jitter=0.02)
                alice.peers.links.set_shape([bob.address], shape, seed, {})
                for number in range(10):
                    alice.send(bob, segment(number, 500))
                alice.peers.links.set_shape([bob.address], replace(shape, rate=10 * MBIT), None, {})
                due = [entry[:2] for entry in alice.peers._under_way._heap]
                assert [number for _, number in sorted(due)] == sorted(number for _, number in due)
