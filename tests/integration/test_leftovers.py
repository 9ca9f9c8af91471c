"""What is on the engine afterwards: nothing, however a run ends."""

from __future__ import annotations

import signal
import time

import pytest

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


@pytest.mark.parametrize("moment", ["making the networks", "starting chitcpd", WAITS])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal(bench: Bench, number: signal.Signals, moment: str) -> None:
    with bench.running(bench.topology(SLEEPER)) as running:
        running.wait_for(moment)
        running.process.send_signal(number)
        command = running.end()
    assert command.status == 128 + number, command.output
    assert bench.left() == []


@pytest.mark.parametrize("moment", ["starting chitcpd", WAITS])
def test_down_after_the_controller_was_killed(bench: Bench, moment: str) -> None:
    with bench.running(bench.topology(SLEEPER)) as running:
        running.wait_for(moment)
        running.process.kill()
        running.process.wait()
    assert bench.left() != []
    command = bench.command("down", bench.lab)
    assert command.status == 0, command.output
    assert bench.left() == []


def test_a_daemon_that_dies_ends_the_run_with_its_last_lines(bench: Bench) -> None:
    with bench.running(bench.topology(SLEEPER)) as running:
        running.wait_for(WAITS)
        began = time.monotonic()
        bench.client.containers.get(f"chitcp-{bench.lab}-host-bob").kill()
        command = running.end()
    assert time.monotonic() - began < 20
    assert command.status == 1
    assert "chitcpd of bob ended with status 137" in command.output
    last = (bench.latest / "hosts" / "bob" / "chitcpd.log").read_text().strip().splitlines()[-1]
    assert last in command.output
    assert bench.left() == []
