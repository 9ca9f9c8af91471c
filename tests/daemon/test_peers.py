"""The network layer, on real loopback addresses: the bytes on the wire, and all that may happen to a real connection.

"Raw" is a peer that the test plays itself, byte by byte.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from functools import partial

import pytest

from chitcpd import links
from chitcpd.carrier import Carrier
from chitcpd.faults import Shape
from chitcpd.peer import _HANDLE, BACKLOG_UNTOLD
from tests.daemon.conftest import PATIENCE, PORT, free_address
from tests.daemon.nodes import (
    HEADER,
    Node,
    dialled,
    frame,
    in_event_loop,
    low_and_high,
    node,
    number_of,
    raw_listener,
    segment,
    until,
)


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


class TestOneConnection:
    """A C peer dies of a second connection while one is up."""

    @pytest.mark.parametrize("order", [1, -1], ids=["we are the lower", "we are the higher"])
    @in_event_loop
    async def test_one_that_we_have_dialled(self, order: int) -> None:
        ours, theirs = low_and_high()[::order]
        async with node(ours) as alice, raw_listener(theirs) as connections:
            for number in range(100):
                alice.send(theirs, segment(number))
                await asyncio.sleep(0)
            raw = await connections.get()
            for number in range(100):
                assert number_of(await raw.segment()) == number
            raw.writer.write(frame(segment(1)) + frame(segment(2))[:9])  # half of one more does not matter
            await alice.numbers(1)
            alice.send(theirs, segment(100))
            assert number_of(await raw.segment()) == 100
            assert connections.empty()
            assert len(alice.peers.carriers) == 1

    @pytest.mark.parametrize("order", [1, -1], ids=["we are the lower", "we are the higher"])
    @in_event_loop
    async def test_one_that_it_has_dialled(self, order: int) -> None:
        """We have something to send before its first segment has come."""
        ours, theirs = low_and_high()[::order]
        async with node(ours) as alice, raw_listener(theirs) as connections, dialled(alice, theirs) as raw:
            await until(lambda: bool(alice.peers.carriers))
            for number in range(100):
                alice.send(theirs, segment(number))
                await asyncio.sleep(0)
            for number in range(100):
                assert number_of(await raw.segment()) == number
            assert connections.empty()

    @in_event_loop
    async def test_while_it_reads_nothing(self) -> None:
        async with node() as alice, raw_listener(address := free_address()) as connections:
            while len(alice.drops) < 100:
                alice.send(address, segment(0, 1500))
                await asyncio.sleep(0)
            assert connections.qsize() == 1
            assert len(alice.peers.carriers) == 1

    @in_event_loop
    async def test_what_replaces_a_connection_must_first_speak(self) -> None:
        """A port scan from the peer's own address does not disturb its connection."""
        async with node() as bob, dialled(bob, address := free_address()) as good:
            good.writer.write(frame(segment(1)))
            assert await bob.numbers(1) == {1}
            async with dialled(bob, address) as scan:
                await until(lambda: len(bob.peers.carriers) == 2)
                bob.send(address, segment(2))
                assert await good.segment() == segment(2)
                scan.writer.write(frame(segment(3)))  # but if it is the peer, restarted, it is answered there
                assert await bob.numbers(1) == {3}
                bob.send(address, segment(4))
                assert await scan.segment() == segment(4)


class TestInterruptions:
    @in_event_loop
    async def test_a_peer_that_restarts_is_dialled_again(self) -> None:
        async with node() as alice:
            address = free_address()
            for number in range(3):
                async with node(address) as bob:
                    alice.send(bob, segment(number))
                    assert await bob.numbers(1) == {number}
                    bob.send(alice, segment(number))
                    assert await alice.numbers(1) == {number}
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
                kept.writer.write(frame(segment(0)))
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
        monkeypatch.setattr("chitcpd.peer._RETRY_FIRST", 3600.0)
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
            alice.peers.send("192.0.2.1", bob.address, [segment(1)])
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
            assert sent < 80_000  # the kernel's buffers, and 32,768 segments of ours
            raw = await connections.get()
            for number in range(sent - len(alice.drops)):
                assert number_of(await raw.segment()) == number  # whole frames, in order
            alice.send(address, segment(sent))
            assert number_of(await raw.segment()) == sent

    @in_event_loop
    async def test_the_queue_is_bounded_in_bytes_too(self) -> None:
        async with node(listening=False) as alice:
            for _ in range(600):
                alice.send("127.0.0.1", segment(1, 60_000))
            assert alice.drops == ["queue"] * (600 - (1 << 25) // (60_000 + _HANDLE))

    @in_event_loop
    async def test_who_finds_much_waiting_goes_on_when_it_is_less_and_in_turn(self) -> None:
        async with node() as alice, raw_listener(address := free_address()) as connections:
            went_on: list[int] = []

            def application(number: int) -> None:
                if alice.peers.has_room(alice.address, address, again_of[number]):
                    went_on.append(number)
                    alice.send(address, segment(number, 60_000))

            again_of = [partial(application, number) for number in range(2000)]
            for again in again_of:
                again()
            assert went_on[:5] == [0, 1, 2, 3, 4]
            assert len(went_on) < 10  # 256 KiB; nothing has been written yet
            raw = await connections.get()
            for number in range(2000):
                assert number_of(await raw.segment()) == number
            assert went_on == list(range(2000))
            assert alice.drops == []

    @in_event_loop
    async def test_who_waits_goes_on_when_the_peer_can_t_be_reached(self) -> None:
        async with node(listening=False) as alice:
            address, again = free_address(), asyncio.Event()
            while alice.peers.has_room(alice.address, address, again.set):
                alice.send(address, segment(1, 60_000))
            async with asyncio.timeout(PATIENCE):
                assert await again.wait()
            assert set(alice.drops) == {"unreachable"}  # what had waited

    @in_event_loop
    async def test_on_a_link_of_a_lab_nobody_waits(self) -> None:
        """What is too much there is lost, as on a real one."""
        async with node(listening=False) as alice:
            alice.peers.links.set_shape(["127.0.0.1"], Shape(), 1, {})
            for number in range(1100):
                alice.send("127.0.0.1", segment(number))
            assert alice.peers.has_room(alice.address, "127.0.0.1", lambda: None)

    @in_event_loop
    async def test_a_link_of_a_lab_has_a_short_one(self) -> None:
        """As long as a Linux txqueuelen: it may be the bottleneck's, if tc shapes the real link."""
        async with node(listening=False) as alice:
            alice.peers.links.set_shape(["127.0.0.1"], Shape(), 1, {})
            for number in range(1100):
                alice.send("127.0.0.1", segment(number))
            assert alice.drops == ["queue"] * 100

    @in_event_loop
    async def test_what_waits_in_all_is_bounded(self) -> None:
        """The queue, asyncio's buffer behind it and no more, while the peer reads nothing."""
        async with node() as alice, raw_listener(address := free_address()) as connections:
            while len(alice.drops) < 10_000:
                alice.send(address, segment(0, 60_000))
                await asyncio.sleep(0)
            raw, (carrier,) = await connections.get(), alice.peers.carriers
            assert carrier.transport is not None
            assert carrier.transport.get_write_buffer_size() <= (1 << 16) + (1 << 18) + 60_016
            del raw

    @in_event_loop
    async def test_a_segment_that_the_header_can_t_tell_of(self) -> None:
        async with node() as alice, node() as bob:
            alice.send(bob, bytes(0x10000))
            alice.send(alice, bytes(0x10000))
            assert alice.drops == ["length", "length"]
            alice.send(bob, segment(1, 0xFFFF))
            assert await bob.numbers(1) == {1}

    @in_event_loop
    async def test_a_peer_that_hangs_up_at_once_is_not_dialled_for_each_segment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chitcpd.peer._RETRY_FIRST", 3600.0)
        async with node() as alice, raw_listener(address := free_address()) as connections:
            alice.send(address, segment(1))
            (await connections.get()).close()
            await until(lambda: not alice.peers.carriers)
            for _ in range(10):
                alice.send(address, segment(2))
                await until(lambda: alice.drops != [])
                alice.drops.clear()
            assert connections.empty()
            assert alice.unreachable.empty()  # for it is not: TCP sees a loss

    @in_event_loop
    async def test_one_line_in_the_log_for_a_peer_that_is_away(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("chitcpd.peer._RETRY_FIRST", 0.0)
        monkeypatch.setattr("chitcpd.peer._RETRY_MAX", 0.0)
        caplog.set_level("INFO")
        async with node() as alice:
            address = free_address()
            for _ in range(20):
                alice.send(address, segment(1))
                await alice.unreachable.get()
            assert caplog.messages == [f"{address} can't be reached: Connection refused"]

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
    async def test_they_stay_in_order_and_the_queue_is_bounded(self) -> None:
        async with node(listening=False) as alice:
            most, _ = BACKLOG_UNTOLD
            for number in range(most + 100):
                alice.send(alice, segment(number))
            assert alice.drops == ["queue"] * 100
            assert [number_of(await alice.delivered.get()) for _ in range(most)] == list(range(most))
            alice.send(alice, segment(7))
            assert await alice.numbers(1) == {7}

    @in_event_loop
    async def test_what_is_sent_while_one_is_delivered_has_its_turn_later(self) -> None:
        host = Node(free_address())
        seen: list[int] = []

        def deliver(_own: str, _peer: str, raws: Sequence[bytes]) -> None:
            for raw in raws:
                seen.append(number_of(raw))
                if number_of(raw) < 100:
                    host.send(host, segment(number_of(raw) + 100))

        host.peers.deliver = deliver
        for number in range(3):
            host.send(host, segment(number))
        await until(lambda: len(seen) == 6)
        assert seen == [0, 1, 2, 100, 101, 102]

    @in_event_loop
    async def test_of_several_one_of_ours_is_taken(self) -> None:
        """The kernel would choose 127.0.0.1, which may be another daemon's."""
        one, other = free_address(), free_address()
        assert Node(one, other).peers.source(free_address()) == one

    @in_event_loop
    async def test_our_address_towards_a_peer(self) -> None:
        async with node() as alice:
            assert alice.peers.source("127.0.0.9") == alice.address  # the one that we listen on
            assert alice.peers.source(alice.address) == alice.address
            alice.peers.links.set_shape(["127.0.0.9"], Shape(), 0, {"own": "127.0.0.8", "mtu": None})
            assert alice.peers.source("127.0.0.9") == "127.0.0.8"  # the link's


class TestLinks:
    @in_event_loop
    async def test_what_a_link_loses_is_told(self) -> None:
        async with node() as alice, node() as bob:
            alice.peers.links.set_shape([bob.address], Shape(loss=1.0), 1, {})
            alice.send(bob, segment(1))
            assert alice.drops == ["loss"]
            assert alice.peers.links.counts() == {bob.address: {"loss": 1}}

    @in_event_loop
    async def test_delay(self) -> None:
        loop = asyncio.get_running_loop()
        async with node() as alice, node() as bob:
            alice.peers.links.set_shape([bob.address], Shape(delay=0.05), 1, {})
            start = loop.time()
            alice.send(bob, segment(1))
            await bob.numbers(1)
            assert loop.time() - start >= 0.05

    @in_event_loop
    async def test_what_a_delay_holds_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(links, "_UNDER_WAY_BYTES", 10_000)
        async with node() as alice, node() as bob:
            alice.peers.links.set_shape([bob.address], Shape(delay=0.05), 1, {})
            for number in range(100):
                alice.send(bob, segment(number, 100))
            assert alice.drops == ["queue"] * 79
            assert await bob.numbers(21) == set(range(21))
            alice.send(bob, segment(7))
            assert await bob.numbers(1) == {7}

    @in_event_loop
    async def test_a_new_setting_replaces_the_old_one(self) -> None:
        async with node() as alice, node() as bob:
            alice.peers.links.set_shape([bob.address], Shape(loss=1.0), 1, {"own": None, "mtu": 576})
            assert alice.peers.mtu(bob.address) == 576
            alice.peers.links.set_shape([bob.address], Shape(), 1, {"mtu": None})
            assert alice.peers.mtu(bob.address) is None
            alice.send(bob, segment(1))
            assert await bob.numbers(1) == {1}
