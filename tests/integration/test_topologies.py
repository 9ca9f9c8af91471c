"""Topologies with routers and with events, on Docker."""

from __future__ import annotations

import json

import pytest

from tests.integration.conftest import PROJECT, Bench

pytestmark = pytest.mark.docker


def test_two_flows_share_a_bottleneck_behind_a_router(bench: Bench) -> None:
    """As the topology's checks ask, and it is the router that drops what finds its queue full."""
    command = bench.run(str(PROJECT / "topologies" / "dumbbell.yaml"))
    assert command.status == 0, command.output
    assert "pass fairness" in command.output
    trace = (bench.latest / "hosts" / "r1" / "trace.jsonl").read_text().splitlines()
    assert any(event["event"] == "dropped" and event["why"] == "queue" for event in map(json.loads, trace))


def test_a_transfer_outlives_the_events_of_a_handover(bench: Bench) -> None:
    command = bench.run(str(PROJECT / "topologies" / "handover.yaml"))
    assert command.status == 0, command.output
    assert "film.bin arrived whole" in command.output
