"""What arrives is what was sent, over every kind of bad network; and the simulator itself keeps its promises."""

from __future__ import annotations

import errno
import logging
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from chitcpd.demux import FourTuple
from chitcpd.driver import Endpoint
from chitcpd.sim import Application, Host, LimitExceeded, Shape, Simulation
from chitcpd.tcp.api import ACK, RST, Config, Expiry, Segment, TcpConnection, Transition
from chitcpd.tcp.connection import Connection
from chitcpd.tcp.receive import ReceiveBuffer
from tests.tcp import simulation as scenarios

DATA_SEGMENTS = 25_500  # of each family; there are eight
ALICE, BOB = "10.0.0.2", "10.0.0.3"
PLAIN = Config(nagle=False, delayed_ack=0.0, timestamps=False, congestion="none", msl=0.0)


# ---- the TCP over bad networks -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", scenarios.FAMILIES)
def test_what_arrives_is_what_was_sent(family: str) -> None:
    """Bytes, an end, and after each step all that must hold: see simulation.Judge."""
    seed, data_segments = scenarios.FAMILIES.index(family), 0
    while data_segments < DATA_SEGMENTS:
        scenario = scenarios.draw(seed)
        assert scenario.family == family
        data_segments += scenarios.run(scenario).data_segments
        seed += len(scenarios.FAMILIES)


@pytest.mark.parametrize("seed", range(len(scenarios.FAMILIES)))
def test_a_seed_says_everything(seed: int) -> None:
    """The same segments at the same times; another seed has others."""
    first, again = (scenarios.run(scenarios.draw(seed)) for _ in range(2))
    assert first == again
    assert scenarios.run(scenarios.draw(seed + len(scenarios.FAMILIES))).fingerprint != first.fingerprint


def test_a_failure_tells_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReceiveBuffer, "read", lambda self, limit: bytes(min(self.readable, limit)))
    with pytest.raises(AssertionError, match="wrong bytes") as caught:
        scenarios.run(scenarios.draw(8))
    assert "to see it again: python -m tests.tcp.simulation --replay 8" in caught.value.__notes__


def test_a_fault_of_the_tcp_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon would log it and serve on."""

    monkeypatch.setattr(Connection, "segment_arrives", None)
    with pytest.raises(AssertionError, match="fault in the TCP"):
        scenarios.run(scenarios.draw(8))


def test_a_bottleneck_is_used_well() -> None:
    """10 Mbit/s, 40 ms of round trip, a queue of one BDP: most of the link carries data, though the queue overflows."""
    simulation, (alice, bob) = two_hosts(Shape(delay=0.02, rate=10e6, queue_bytes=50_000), config=Config())
    transfer = start_transfer(alice, bob, 2_000_000)
    simulation.run()
    assert 2_000_000 * 8 / transfer.result > 7e6


# ---- the simulator -----------------------------------------------------------------------------------------


class Log:
    """A recorder: what was sent and received, and when."""

    def __init__(self) -> None:
        self.simulation: Simulation | None = None
        self.segments: list[tuple[float, str, str, Segment]] = []
        self.drops: list[str] = []

    def seen(self, event: str, endpoint: Endpoint | None, four: FourTuple, seg: Segment, raws: Sequence[bytes]) -> None:
        assert self.simulation is not None
        self.segments += [(self.simulation.now, event, four.local, one) for one in seg.cut()]

    def transition(self, endpoint: Endpoint, transition: Transition) -> None: ...

    def expiry(self, endpoint: Endpoint, expiry: Expiry) -> None: ...

    def dropped(self, why: str, local: str, peer: str, raw: bytes) -> None:
        self.drops.append(why)

    lost = dropped

    def settled(self, endpoint: Endpoint) -> None: ...

    def times(self, event: str, address: str) -> list[float]:
        """When `address` has sent or received data."""
        return [at for at, what, where, seg in self.segments if (what, where) == (event, address) and seg.data]


def two_hosts(
    there: Shape, back: Shape | None = None, *, config: Config = PLAIN, log: Log | None = None, **limits: Any
) -> tuple[Simulation, tuple[Host, Host]]:
    simulation = Simulation(1, **limits)
    if log is not None:
        log.simulation = simulation
    alice, bob = (simulation.host(address, config=config, recorder=log) for address in (ALICE, BOB))
    simulation.link(alice, bob, there, back)
    return simulation, (alice, bob)


def start_transfer(alice: Host, bob: Host, count: int) -> Any:
    """Alice sends `count` bytes to Bob; the result of Bob's process is when the last came."""
    alice.start(send(alice, bytes(count)))
    return bob.start(receive(bob))


def send(host: Host, data: bytes) -> Application:
    socket = yield from host.connect(BOB, 7)
    yield from socket.send(data)
    socket.shutdown()
    while (yield from socket.recv()):
        pass


def receive(host: Host) -> Generator[Any, None, float]:
    socket = yield from host.listen(7).accept()
    last = 0.0
    while (yield from socket.recv()):
        last = host.simulation.now
    socket.close()
    return last


def test_delay_is_one_way() -> None:
    """A SYN, its answer, then data: three ways through the link. No time passes elsewhere."""
    simulation, hosts = two_hosts(Shape(delay=0.02), Shape(delay=0.3))
    transfer = start_transfer(*hosts, 1)
    simulation.run()
    assert transfer.result == pytest.approx(0.02 + 0.3 + 0.02)


def test_jitter_is_bounded_and_keeps_the_order() -> None:
    log = Log()
    simulation, hosts = two_hosts(Shape(delay=0.02, jitter=0.01), log=log)
    start_transfer(*hosts, 60_000)
    simulation.run()
    assert len(log.times("received", BOB)) == len(log.times("sent", ALICE)) == 42
    on_the_way = [b - a for a, b in zip(log.times("sent", ALICE), log.times("received", BOB), strict=True)]
    assert 0.01 <= min(on_the_way) < max(on_the_way) <= 0.03
    assert [seg.seq for _, what, where, seg in log.segments if (what, where) == ("received", BOB) and seg.data] == [
        seg.seq for _, what, where, seg in log.segments if (what, where) == ("sent", ALICE) and seg.data
    ]


def test_rate_counts_ip_packets() -> None:
    """1500 bytes at 1 Mbit/s: one full packet arrives every 12 ms."""
    log = Log()
    simulation, hosts = two_hosts(Shape(rate=1e6), log=log)
    start_transfer(*hosts, 10 * 1460)
    simulation.run()
    arrivals = log.times("received", BOB)
    assert [b - a for a, b in pairwise(arrivals)] == pytest.approx([0.012] * 9)


def test_a_full_queue_drops_the_newest() -> None:
    """An ACK, ten segments of data and a FIN come at once: one is being sent, five wait, six find no place."""
    log = Log()
    simulation, hosts = two_hosts(Shape(rate=1e6, queue_packets=5), Shape(delay=0.1), log=log)
    start_transfer(*hosts, 10 * 1460)
    simulation.run(until=0.11)
    assert (len(log.times("sent", ALICE)), log.drops) == (10, ["queue"] * 6)


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        (Shape(loss=0.2), "loss"),
        (Shape(duplicate=0.2), "duplicate"),
        (Shape(delay=0.001, reorder=0.2), "reorder"),
        (Shape(corrupt=0.2), "corrupt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_share_of_all_segments_meets_each_impairment(shape: Shape, what: str) -> None:
    log = Log()
    simulation = log.simulation = Simulation(1)
    alice, bob = simulation.host(ALICE, recorder=log), simulation.host(BOB)
    there, back = simulation.link(alice, bob, shape, Shape())
    start_transfer(alice, bob, 3_000_000)
    simulation.run()
    sent = sum(event == "sent" for _, event, _, _ in log.segments)
    assert there.counts[what] / sent == pytest.approx(0.2, rel=0.1)
    assert (set(there.counts), set(back.counts)) == ({what}, set())


def test_a_link_can_change_while_it_runs() -> None:
    """Down for two seconds: an application on any host can do that."""
    simulation = Simulation(1)
    alice, bob = simulation.host(ALICE), simulation.host(BOB)
    there, _ = simulation.link(alice, bob, Shape(delay=0.01))

    def outage() -> Application:
        yield 0.05
        before, there.shape = there.shape, Shape(loss=1.0)
        yield 2.0
        there.shape = before

    alice.start(outage())
    transfer = start_transfer(alice, bob, 1_000_000)
    simulation.run()
    assert 2.05 < transfer.result < 5.0
    assert there.counts["loss"] > 0


def test_run_until_stops_and_goes_on() -> None:
    simulation, hosts = two_hosts(Shape(delay=1.0))
    transfer = start_transfer(*hosts, 1)
    simulation.run(until=2.5)
    assert (simulation.now, transfer.ended) == (2.5, False)
    simulation.run()
    assert (transfer.ended, transfer.result) == (True, 3.0)


def test_many_hosts() -> None:
    """A star: each of twenty sends to the one in the middle."""
    simulation = Simulation(1)
    middle = simulation.host("10.0.1.1")
    listener = middle.listen(7)
    received = []

    def serve() -> Application:
        while True:
            socket = yield from listener.accept()
            middle.start(answer(socket))

    def answer(socket: Any) -> Application:
        received.append((yield from socket.recv()))
        socket.close()

    def client(host: Host) -> Application:
        socket = yield from host.connect("10.0.1.1", 7)
        yield from socket.send(host.address.encode())
        socket.close()

    middle.start(serve())
    hosts = [simulation.host(f"10.0.0.{i}") for i in range(20)]
    for host in hosts:
        simulation.link(host, middle, Shape(delay=0.01, loss=0.1))
        host.start(client(host))
    simulation.run()
    assert sorted(received) == sorted(host.address.encode() for host in hosts)


def test_nobody_listens() -> None:
    simulation, (alice, _) = two_hosts(Shape(delay=0.01))
    alice.start(send(alice, b""))
    with pytest.raises(OSError) as caught:
        simulation.run()
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.__notes__ == ["in the simulation with seed 1, at 0.020000 s, event 3"]


def test_no_link() -> None:
    simulation = Simulation(1)
    alice = simulation.host(ALICE)
    alice.start(send(alice, b""))
    with pytest.raises(OSError) as caught:
        simulation.run()
    assert caught.value.errno == errno.ENETUNREACH


def test_abort_is_seen_by_the_peer() -> None:
    log = Log()
    simulation, (alice, bob) = two_hosts(Shape(delay=0.01), log=log)

    def client() -> Application:
        socket = yield from alice.connect(BOB, 7)
        socket.abort()

    def server() -> Application:
        socket = yield from bob.listen(7).accept()
        try:
            yield from socket.recv()
        except OSError as error:
            return error.errno

    alice.start(client())
    process = bob.start(server())
    simulation.run()
    assert process.result == errno.ECONNRESET
    assert [seg.flags for _, what, _, seg in log.segments if what == "sent"][-1] == RST | ACK


def test_a_closed_listener_takes_no_more() -> None:
    simulation, (alice, bob) = two_hosts(Shape(delay=0.01))
    bob.listen(7).close()
    alice.start(send(alice, b""))
    with pytest.raises(ConnectionRefusedError):
        simulation.run()


def test_the_step_hook_sees_each_event() -> None:
    simulation, hosts = two_hosts(Shape(delay=0.01))
    seen: list[tuple[float, str]] = []
    simulation.step = lambda host: seen.append((simulation.now, host.address))
    start_transfer(*hosts, 1)
    simulation.run()
    assert len(seen) == simulation.events
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert {address for _, address in seen} == {ALICE, BOB}


def test_no_end_in_virtual_time() -> None:
    simulation, (alice, _) = two_hosts(Shape(), longest=10.0)

    def tick() -> Application:
        while True:
            yield 1.0

    alice.start(tick())
    with pytest.raises(LimitExceeded, match=r"seed 1 is not over after 10 s of virtual time .at 10.000 s, "):
        simulation.run()


def test_no_end_of_events() -> None:
    simulation, (alice, _) = two_hosts(Shape(), most_events=1000)

    def spin() -> Application:
        while True:
            yield 0.0

    alice.start(spin())
    with pytest.raises(LimitExceeded, match=r"seed 1 is not over after 1000 events"):
        simulation.run()


def test_two_hosts_need_two_addresses() -> None:
    simulation = Simulation(1)
    simulation.host(ALICE)
    with pytest.raises(ValueError, match=r"10\.0\.0\.2 already"):
        simulation.host(ALICE)


def test_the_example_of_the_documentation() -> None:
    import chitcpd.sim

    assert chitcpd.sim.__doc__ is not None
    lines = chitcpd.sim.__doc__.split("\n")
    example = [line[4:] for line in lines if line.startswith("    ") or not line]
    exec("\n".join(example), {})


def test_wake_ups_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    """Each delayed ACK is due before the keep-alive: that must not leave an entry of the far one behind each time."""
    caplog.set_level(logging.ERROR)
    simulation, hosts = two_hosts(Shape(delay=0.01), config=Config(keep_alive=7200.0, msl=0.0))
    start_transfer(*hosts, 5_000_000)
    longest = 0

    def look(host: Host) -> None:
        nonlocal longest
        longest = max(longest, len(host.driver._heap))

    simulation.step = look
    simulation.run()
    assert 0 < longest < 10
    assert not caplog.records


class Counting(Connection):
    """Somebody's own TCP, by way of ours."""


@pytest.mark.parametrize(
    ("sender", "settings", "acks"),
    [
        (Connection, {}, 3),  # of the initial window, of what is left, and of the last one with the FIN
        (Connection, {"delayed_ack": 0.0}, 14),
        (Counting, {}, 7),
    ],
)
def test_who_may_count_acks_gets_one_for_two_segments(
    sender: type[TcpConnection], settings: dict[str, Any], acks: int
) -> None:
    log = Log()
    log.simulation = simulation = Simulation(seed=1)
    alice = simulation.host("10.0.0.2", tcp=sender)
    bob = simulation.host("10.0.0.3", config=Config(**settings), recorder=log)
    simulation.link(alice, bob, Shape(delay=0.02))
    bob.start(receive(bob))
    alice.start(send(alice, bytes(14 * 1448)))
    simulation.run()
    data = [seg for _, event, _, seg in log.segments if event == "received" and seg.data]
    assert len(data) == 14
    mere = [seg for _, event, _, seg in log.segments if event == "sent" and seg.flags == ACK and not seg.data]
    assert len(mere) == acks
