"""The simulator's speed, and whether it stays the same however long a simulation is."""

from __future__ import annotations

from functools import partial
from statistics import median

from benchmarks.measures import Bar, Findings, Quantities, Series, Session, benchmark, figure
from benchmarks.processes import python, running

_QUEUE = "a bare event queue"
_SMALLER = (100, 10, 3)  # parts of the largest


@benchmark(
    "simulator", "segments per second of chitcpd.sim, and what each costs in a long simulation beside a short one"
)
def simulator(session: Session) -> Findings:
    """One transfer over a perfect link, of growing size."""
    most = session.effort.segments
    counts = [most // part for part in _SMALLER] + [most]
    names = {count: f"{count:,} segments" for count in counts}
    sizes = {name: partial(_simulate, "tcp", count) for count, name in names.items()}
    samples = session.in_turns({_QUEUE: partial(_simulate, "queue", most), **sizes})
    line = [(float(count), median(samples[name]["cost"])) for count, name in names.items()]
    whole, tenth = names[most], names[most // 10]
    return Findings(
        [
            figure(samples, "speed", "/s", "more", of=whole, beside=_QUEUE, bar=Bar(100_000, "figure")),
            figure(samples, "cost", "µs", "less", of=whole, beside=tenth, bar=Bar(1.15)),
        ],
        [Series("cost of simulated segments", "segments", "µs each", {"chitcpd.sim": line})],
    )


def _simulate(what: str, count: int) -> Quantities:
    with running(python("benchmarks.simulation", what, count)) as program:
        found = program.result()
    return {"speed": found["count"] / found["seconds"], "cost": found["seconds"] / found["count"] * 1e6}
