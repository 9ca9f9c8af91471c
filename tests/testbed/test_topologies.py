"""The files in topologies/: all can be planned, and all are run, here or elsewhere, and pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed.backends.local import LocalBackend
from testbed.events import timeline
from testbed.plan import plan
from testbed.topology import load
from tests.testbed.conftest import PROJECT

FILES = {file.stem: file for file in sorted((PROJECT / "topologies").glob("*.yaml"))}
RUN_HERE = ["chain", "classic-lab", "dumbbell", "handover", "lan", "star"]  # half a minute in all
RUN_ELSEWHERE = {
    "c-apps": "tests/c/test_topologies.py",
    "lossy": "tests/testbed/test_local.py",
    "precise-loss": "tests/testbed/test_local.py",
    "programs": "tests/c/test_topologies.py",
    "satellite": "tests/testbed/test_local.py",
    "two-hosts": "tests/testbed/test_local.py",
}


def run(name: str) -> Path:
    """Its run folder, after it has passed on the local backend."""
    ran = subprocess.run(
        [sys.executable, "-m", "testbed", "run", FILES[name], "--backend", "local"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("\npassed\n")
    return Path("runs") / name / "latest"


def trace(folder: Path, host: str) -> list[dict[str, Any]]:
    """The events of a host's trace, or a router's."""
    return [json.loads(line) for line in (folder / "hosts" / host / "trace.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def bench(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory of its own, and an empty working directory."""
    del own_state
    monkeypatch.chdir(tmp_path)


def test_each_is_run_somewhere() -> None:
    assert {*RUN_HERE, *RUN_ELSEWHERE} == FILES.keys()
    for name, where in RUN_ELSEWHERE.items():
        assert name in (PROJECT / where).read_text()


@pytest.mark.parametrize("name", FILES)
def test_each_can_be_planned(name: str) -> None:
    topology = load(FILES[name])
    planned = plan(topology, run_id="now", lab=name, pool=LocalBackend.pool, in_use={})

    assert [host.name for host in planned.hosts] == list(topology.hosts)
    assert {app.name for app in planned.apps} == topology.apps.keys()
    for app in planned.apps:
        asked = {word.partition(":")[0] for word in app.run} & topology.hosts.keys()
        assert asked <= planned.node(app.host).names.keys()
    assert len(timeline(topology, planned)) >= len({event.at for event in topology.events})


@pytest.mark.parametrize("name", [name for name in RUN_HERE if name not in ("chain", "handover")])
def test_it_passes(name: str) -> None:
    run(name)


def test_a_chain_has_the_delay_of_all_its_links_and_the_mtu_of_the_smallest() -> None:
    events = trace(run("chain"), "bob")

    assert max(event["len"] for event in events if event["event"] == "sent") == 600 - 40 - 12
    assert min(event["srtt"] for event in events if event.get("srtt")) >= 2 * (0.002 + 0.010 + 0.020 + 0.005)


def test_a_handover_comes_while_the_file_is_on_its_way() -> None:
    folder = run("handover")
    reasons = {event["why"] for event in trace(folder, "r1") if event["event"] == "dropped"}
    rtt = [event["srtt"] for event in trace(folder, "server") if event.get("srtt")]

    assert "down" in reasons
    assert min(rtt) < 0.05  # 26 ms, and what waits in the queue
    assert max(rtt) > 0.1  # 100 ms without it
