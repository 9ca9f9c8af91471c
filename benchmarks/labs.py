"""How long `testbed up` and `testbed down` take."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import chitcpd
from benchmarks import paths
from benchmarks.measures import Findings, Quantities, Series, Session, Unavailable, benchmark, figure
from benchmarks.processes import finish, python, succeeds

_BY_HAND = "daemons by hand"
_LONGEST = 60  # seconds that a container of ours lives, whatever happens


@benchmark("up-down", "a lab on local, of 2 hosts and more, beside so many daemons that are started by hand")
def up_down(session: Session) -> Findings:
    """Commands as they are typed, the start of Python included."""
    hosts = session.effort.hosts
    subjects: dict[str, Callable[[], Quantities]] = {}
    for count in hosts:
        subjects[f"{count} hosts"] = partial(_up_and_down, count, "local")
        subjects[f"{count} {_BY_HAND}"] = partial(_by_hand, count)
    samples = session.in_turns(subjects)
    findings = Findings()
    for what in ("up", "down"):
        for count in hosts:
            ours, theirs = f"{count} hosts", f"{count} {_BY_HAND}"
            name = f"{what}, {ours}"
            findings.figures.append(figure(samples, what, "s", "less", of=ours, beside=theirs, name=name))
        kinds = {"testbed": "hosts", _BY_HAND: _BY_HAND}
        lines = {
            name: [(float(count), median(samples[f"{count} {kind}"][what])) for count in hosts]
            for name, kind in kinds.items()
        }
        findings.series.append(Series(f"testbed {what}", "hosts", "s", lines))
    return findings


@benchmark("up-down-docker", "a lab of 2 hosts on docker, beside two containers that are started by hand")
def up_down_docker(session: Session) -> Findings:
    """What the engine needs for two containers is the least that it can take."""
    image = os.environ.get("CHITCP_IMAGE") or f"chitcp:{chitcpd.__version__}"
    if not succeeds(["docker", "image", "inspect", image]):
        raise Unavailable(f"no Docker engine answers that has the image {image}; `make image` builds it")
    ours, theirs = "2 hosts", "2 containers"
    samples = session.in_turns({ours: partial(_up_and_down, 2, "docker"), theirs: partial(_containers, image)})
    return Findings([figure(samples, what, "s", "less", of=ours, beside=theirs) for what in ("up", "down")])


def _up_and_down(hosts: int, backend: str) -> Quantities:
    lab = f"bench-{os.getpid()}"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "lab.yaml"
        names = [f"h{number}" for number in range(1, hosts + 1)]
        file.write_text(
            f"name: {lab}\nhosts: {{{', '.join(f'{name}: {{}}' for name in names)}}}\n"
            f"links: [{{name: lan, endpoints: [{', '.join(names)}]}}]\n"
        )
        with ExitStack() as stack:
            stack.callback(succeeds, python("testbed", "down", lab))  # if we are interrupted
            up = _seconds(python("testbed", "up", file, "--backend", backend))
            down = _seconds(python("testbed", "down", lab))
            stack.pop_all()
    return {"up": up, "down": down}


def _by_hand(count: int) -> Quantities:
    """Start daemons all at once, and end them all."""
    begun = time.monotonic()
    with paths.daemons_at_once(count):
        ready = time.monotonic()
    return {"up": ready - begun, "down": time.monotonic() - ready}


def _containers(image: str) -> Quantities:
    """Start two containers with nothing in them, and remove them."""
    names = [f"chitcp-bench-{os.getpid()}-{number}" for number in (1, 2)]
    start = ["docker", "run", "--rm", "--detach", "--network", "none"]
    remove = ["docker", "rm", "--force", *names]
    with ExitStack() as stack:
        stack.callback(succeeds, remove)
        up = sum(_seconds([*start, "--name", name, image, "sleep", str(_LONGEST)]) for name in names)
        down = _seconds(remove)
        stack.pop_all()
    return {"up": up, "down": down}


def _seconds(command: Sequence[str]) -> float:
    """How long a command takes that has to succeed. Raises ProgramFailed."""
    begun = time.monotonic()
    finish(command)
    return time.monotonic() - begun
