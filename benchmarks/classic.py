"""The C chiTCP's way: its constants (profile `classic`), and a program in C whose sends and receives are requests."""

from __future__ import annotations

from functools import partial

from benchmarks import paths
from benchmarks.measures import MB, Bar, Findings, Quantities, Session, Unavailable, benchmark, figure
from benchmarks.paths import Way
from benchmarks.processes import ROOT, running
from benchmarks.traffic import RELAY, bulk
from chitcpd import ctl

_PROGRAM = ROOT / "build/c/chisocket-bulk"
_PORT = "7000"
_SEGMENT = 536  # bytes
_C_CHITCP = 0.8  # MB/s, of the C chiTCP, on 2 cores
_LEAST = 8.0  # MB/s, at which the transfer takes as long as the others


@benchmark(
    "bulk-classic", "one connection as of the C chiTCP: segments of 536 bytes, buffers of 4,096, requests from C"
)
def bulk_classic(session: Session) -> Findings:
    """What requests cost, beside descriptors, and small segments beside a relay."""
    if not _PROGRAM.exists():
        raise Unavailable("the C library is not built; `make c` does that, and says what it needs")
    relay = f"{RELAY}, {_SEGMENT} B"
    with session.daemons("--profile", "classic") as ours, paths.relay(_SEGMENT) as theirs:
        samples = session.in_turns(
            {
                "requests": partial(_bulk_from_c, ours, session, {"CHISOCKET_REQUESTS": "1"}),
                "descriptors": partial(_bulk_from_c, ours, session, {}),
                relay: partial(bulk, theirs, session),
            }
        )
    bar = Bar(10 * _C_CHITCP, "figure")
    return Findings(
        [
            figure(samples, "goodput", "MB/s", "more", of="requests", beside=relay, bar=bar),
            figure(samples, "goodput", "MB/s", "more", of="requests", beside="descriptors"),
        ]
    )


def _bulk_from_c(way: Way, session: Session, how: dict[str, str]) -> Quantities:
    count = int(_LEAST * MB * session.effort.seconds)
    host = way.listen.split(":")[1]
    with running([str(_PROGRAM), "receive", _PORT], {**way.at_server, **how}) as receiver:
        ctl.request(way.at_server["CHITCPD_SOCK"], "wait_listening", {"port": int(_PORT)}, timeout=10)
        with running([str(_PROGRAM), "send", host, _PORT, str(count)], {**way.at_client, **how}):
            receiver.line()  # connection from ...
            _, received, *_, rate, _ = receiver.line().split()  # received N bytes in S s, R MB/s
    assert int(received) == count
    return {"goodput": float(rate)}
