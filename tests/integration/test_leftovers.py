"""What is on the engine afterwards: nothing, however a run ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.backends.docker_labels import LAB, image
from tests.integration.conftest import PROJECT, Bench

pytestmark = pytest.mark.docker

SLEEPER = """
name: sleeper
hosts: {alice: {}, bob: {}}
links: [{endpoints: [alice, bob]}]
apps:
  sleeper: {host: alice, run: [sleep, "600"], expect: {exit: 0}, timeout: 10min}
"""
WAITS = "waiting for sleeper"


def test_success(bench: Bench) -> None:
    assert bench.run(str(PROJECT / "topologies" / "two-hosts.yaml")).status == 0
    assert bench.left() == []


def test_failure(bench: Bench) -> None:
    file = bench.topology(SLEEPER.replace('[sleep, "600"]', '[sh, -c, "echo no luck >&2; exit 7"]'))
    command = bench.run(file)
    assert command.status == 1
    assert "no luck" in command.output
    assert bench.left() == []


@pytest.mark.parametrize("moment", ["starting chitcpd", "probing the links", WAITS])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal(bench: Bench, number: signal.Signals, moment: str) -> None:
    with bench.running(bench.topology(SLEEPER)) as running:
        running.wait_for(moment)
        running.process.send_signal(number)
        command = running.end()
    assert command.status == 128 + number, command.output
    assert bench.left() == []


@pytest.mark.parametrize("moment", ["probing the links", WAITS])
def test_down_after_the_controller_was_killed(bench: Bench, moment: str) -> None:
    with bench.running(bench.topology(SLEEPER)) as running:
        running.wait_for(moment)
        running.process.kill()
        running.process.wait()
    assert bench.left() != []
    command = bench.command("down", bench.lab)
    assert command.status == 0, command.output
    assert bench.left() == []


def test_who_else_is_on_a_network_of_a_lab_is_named(bench: Bench) -> None:
    file = bench.topology(SLEEPER)
    assert bench.command("up", file, "--backend", "docker", "--name", bench.lab).status == 0
    (network,) = bench.client.networks.list(filters={"label": f"{LAB}={bench.lab}"})
    stranger = bench.client.containers.create(image(), ["sleep", "600"], name=f"stranger-{bench.lab}", network="none")
    try:
        bench.client.networks.get("none").disconnect(stranger)
        network.connect(stranger)
        stranger.start()
        command = bench.command("down", bench.lab)
        assert command.status == 3, command.output
        assert f"docker network disconnect {network.name} {stranger.name}" in " ".join(command.output.split())
        network.disconnect(stranger)
        assert bench.command("down", bench.lab).status == 0
    finally:
        stranger.remove(force=True)
    assert bench.left() == []


def test_a_daemon_that_dies_ends_the_run_with_its_last_lines(bench: Bench) -> None:
    with bench.running(bench.topology(SLEEPER)) as running:
        running.wait_for(WAITS)
        began = time.monotonic()
        bench.client.containers.get(f"chitcp-{bench.lab}.host-bob").kill()
        command = running.end()
    assert time.monotonic() - began < 20
    assert command.status == 1
    assert "chitcpd of bob ended with status 137" in command.output
    last = (bench.latest / "hosts" / "bob" / "chitcpd.log").read_text().strip().splitlines()[-1]
    assert last in command.output
    assert bench.left() == []


def test_a_lab_that_somebody_takes_down_meanwhile_ends_the_run_which_says_so(bench: Bench, tmp_path: Path) -> None:
    elsewhere = {"XDG_RUNTIME_DIR": str(tmp_path)}  # another user's: no lock of theirs is ours
    with bench.running(bench.topology(SLEEPER)) as running:
        running.wait_for(WAITS)
        assert bench.command("down", bench.lab, **elsewhere).status == 0
        command = running.end()
    assert command.status == 3, command.output
    assert f"somebody has taken lab {bench.lab} down while it ran" in command.output
    assert bench.left() == []


def test_gc_after_the_controller_was_killed_at_random_moments(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as KILLS says (3), between its first line and a while after its last application began."""
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(state))
    monkeypatch.setenv("LOGNAME", bench.lab)  # gc removes what is the user's: other tests have left something, too
    seed = int(os.environ.get("KILLS_SEED", time.time_ns() % 10**6))
    print(f"KILLS_SEED={seed}")
    moments = random.Random(seed)
    file = bench.topology(SLEEPER.replace('"600"', '"0.3"'))
    left = 0
    for _ in range(int(os.environ.get("KILLS", "3"))):
        with bench.running(file) as running:
            running.wait_for("backend docker")
            with suppress(subprocess.TimeoutExpired):  # it had the time to end by itself
                running.process.wait(moments.uniform(0, 5))
            running.process.kill()
            running.process.wait()
        left += len(bench.left())
        command = bench.command("gc")
        assert command.status == 0, command.output
        assert bench.left() == []
        assert [path for path in state.rglob("*") if path.is_file() and path.name != "allocation.lock"] == []
    print(f"{left} things were left, and removed")
