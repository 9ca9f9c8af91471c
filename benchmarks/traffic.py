"""Two applications, two daemons: goodput, round trips, connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from statistics import median

from benchmarks import paths
from benchmarks.measures import GB, MB, US, Bar, Findings, Quantities, Samples, Series, Session, benchmark, figure
from benchmarks.paths import Way, carry

OURS, RELAY, KERNEL = "chitcpd", "relay", "kernel TCP"
Opener = Callable[[], AbstractContextManager[Way]]  # starts what is between the applications


def segment_size(size: int) -> tuple[str, ...]:
    """The options of a chitcpd whose segments carry at most so many bytes."""
    return "--set", f"mss={size}B", "--set", f"send_mss={size}B"


@benchmark("bulk-65535", "one connection that carries all it can, in segments of 65,495 bytes (MTU 65,535)")
def bulk_65535(session: Session) -> Findings:
    """What bytes cost: of segments there are few."""
    return _bulk(session, segment=65495, at_a_time=1 << 16, share_of_relay=0.5)


@benchmark("bulk-1500", "one connection that carries all it can, in segments of 1,460 bytes (MTU 1,500)")
def bulk_1500(session: Session) -> Findings:
    """What segments cost."""
    return _bulk(session, segment=1460, at_a_time=1460, share_of_relay=1 / 3, megabytes=60)


def _bulk(
    session: Session, *, segment: int, at_a_time: int, share_of_relay: float, megabytes: float | None = None
) -> Findings:
    relay = f"{RELAY}, {at_a_time} B"
    with session.daemons(*segment_size(segment)) as ours, paths.relay(at_a_time) as theirs, paths.kernel() as system:
        samples = in_turns(session, bulk, {OURS: ours, relay: theirs, KERNEL: system})
    absolute = None if megabytes is None else Bar(megabytes, "figure")
    return Findings(
        [
            figure(samples, "goodput", "MB/s", "more", of=OURS, beside=relay, bar=Bar(share_of_relay)),
            figure(samples, "goodput", "MB/s", "more", of=OURS, beside=KERNEL, bar=absolute),
            figure(samples, "CPU", "s/GB", "less", of=OURS, beside=relay),
            figure(samples, "CPU", "s/GB", "less", of=OURS, beside=KERNEL),
        ]
    )


@benchmark("ping-pong", "a byte there and back")
def ping_pong(session: Session) -> Findings:
    """What one segment costs that nobody waits behind."""
    with session.daemons() as ours, paths.relay() as theirs, paths.kernel() as system:
        samples = in_turns(session, round_trip, {OURS: ours, RELAY: theirs, KERNEL: system})
    return Findings(
        [
            figure(samples, "median", "µs", "less", of=OURS, beside=RELAY, bar=Bar(1.5)),
            figure(samples, "p99", "µs", "less", of=OURS, beside=RELAY),
            figure(samples, "median", "µs", "less", of=OURS, beside=KERNEL),
            figure(samples, "p99", "µs", "less", of=OURS, beside=KERNEL),
        ]
    )


@benchmark("connects", "connections that carry a byte: connect, send, close")
def connects(session: Session) -> Findings:
    """What a connection costs, one after the other, and with the number of threads that is best for each."""
    with session.daemons() as ours, paths.relay() as theirs, paths.kernel() as system:
        samples = in_turns(session, connections, {OURS: ours, RELAY: theirs, KERNEL: system})
    return Findings(
        [
            figure(samples, "best", "/s", "more", of=OURS, beside=RELAY, bar=Bar(2000, "figure")),
            figure(samples, "best", "/s", "more", of=OURS, beside=KERNEL),
            figure(samples, "1 thread", "/s", "more", of=OURS, beside=RELAY),
            figure(samples, "CPU", "ms", "less", of=OURS, beside=RELAY),
        ]
    )


@benchmark("many", "a thousand connections that all carry what they can, beside one")
def many(session: Session) -> Findings:
    """What it costs that connections share a daemon; fairness is Jain's: 1 if all get the same, 1/n if one gets all."""
    count = session.effort.connections
    ours_one, ours_many = f"{OURS}, 1 connection", f"{OURS}, {count}"
    theirs_many = f"{RELAY}, {count}"
    samples = session.in_turns(
        {
            ours_one: partial(many_at_once, session.daemons, session, 1),
            ours_many: partial(many_at_once, session.daemons, session, count),
            theirs_many: partial(many_at_once, paths.relay, session, count),
        }
    )
    return Findings(
        [
            figure(samples, "goodput", "MB/s", "more", of=ours_many, beside=ours_one, bar=Bar(0.8)),
            figure(samples, "goodput", "MB/s", "more", of=ours_many, beside=theirs_many),
            figure(samples, "fairness", "", "more", of=ours_many, beside=theirs_many),
        ]
    )


@benchmark("captures", "one connection, with every segment written to a capture, beside none")
def captures(session: Session) -> Findings:
    """What it costs to watch."""
    samples = session.in_turns(
        {
            "captured": partial(_bulk_of_new_daemons, session, capture=True),
            "not captured": partial(_bulk_of_new_daemons, session, capture=False),
        }
    )
    return Findings([figure(samples, "goodput", "MB/s", "more", of="captured", beside="not captured", bar=Bar(0.7))])


def _bulk_of_new_daemons(session: Session, *, capture: bool) -> Quantities:
    with session.daemons(capture=capture) as way:  # new ones each time: the captures go with them
        return bulk(way, session)


@benchmark("segment-size", "goodput over the size of segments")
def segment_sizes(session: Session) -> Findings:
    """A series: where bytes begin to cost more than segments."""
    lines: dict[str, list[tuple[float, float]]] = {OURS: [], RELAY: []}
    for size in (536, 1460, 9000, 65495):
        with session.daemons(*segment_size(size)) as ours, paths.relay(size) as theirs:
            samples = in_turns(session, bulk, {OURS: ours, RELAY: theirs})
        for name, line in lines.items():
            line.append((size, median(samples[name]["goodput"])))
    return Findings(series=[Series("goodput by segment size", "bytes in a segment", "MB/s", lines)])


@benchmark("connections", "goodput over the number of connections")
def numbers_of_connections(session: Session) -> Findings:
    """A series: what it costs that connections share a daemon."""
    lines: dict[str, list[tuple[float, float]]] = {OURS: [], RELAY: []}
    ways: dict[str, Opener] = {OURS: session.daemons, RELAY: paths.relay}
    for count in (1, 10, 100, 1000):
        if count <= session.effort.connections:
            measures = {name: partial(many_at_once, way, session, count) for name, way in ways.items()}
            samples = session.in_turns(measures)
            for name, line in lines.items():
                line.append((count, median(samples[name]["goodput"])))
    return Findings(series=[Series("goodput by connections", "connections", "MB/s", lines)])


# ---- one measurement of a way ----------------------------------------------------------------------------------


def in_turns(session: Session, measure: Callable[[Way, Session], Quantities], ways: Mapping[str, Way]) -> Samples:
    """Measure each way in each round."""
    return session.in_turns({name: partial(measure, way, session) for name, way in ways.items()})


def bulk(way: Way, session: Session) -> Quantities:
    """Goodput in MB/s, and CPU seconds of all processes for a gigabyte."""
    traffic = carry(way, "bulk", client=[f"seconds={session.effort.seconds}"])
    count = traffic.client["bytes"]
    return {"goodput": count / traffic.client["seconds"] / MB, "CPU": traffic.cpu / count * GB}


def round_trip(way: Way, session: Session) -> Quantities:
    """Round trips in microseconds."""
    client = carry(way, "echo", client=[f"seconds={session.effort.seconds}"]).client
    return {"median": client["median"] * US, "p99": client["p99"] * US}


def connections(way: Way, session: Session) -> Quantities:
    """Connections per second for each number of threads, and the best of these; CPU milliseconds of one connection."""
    rates: dict[str, float] = {}
    cpu: list[float] = []
    for threads in session.effort.at_once:
        traffic = carry(way, "connects", client=[f"seconds={session.effort.seconds}", f"at_once={threads}"])
        count = traffic.server["connections"]
        rates[f"{threads} thread" + "s" * (threads > 1)] = count / traffic.server["seconds"]
        cpu.append(traffic.cpu / count * 1000)
    return {**rates, "best": max(rates.values()), "CPU": min(cpu)}


def many_at_once(opener: Opener, session: Session, count: int) -> Quantities:
    """Goodput of all together in MB/s, and how equal their shares are.

    Over a new way each time: what a thousand connections have left behind would be measured with the next.
    """
    said = [f"connections={count}"]
    with opener() as way:
        server = carry(way, "many", client=said, server=[*said, f"seconds={session.effort.seconds}"]).server
    shares = server["bytes"]
    squares = sum(share**2 for share in shares)
    fairness = sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0
    return {"goodput": sum(shares) / server["seconds"] / MB, "fairness": fairness}
