"""Topologies with routers and with events, on Docker."""

from __future__ import annotations

import pytest

from tests.integration.conftest import PROJECT, Bench

pytestmark = pytest.mark.docker


@pytest.mark.parametrize(("name", "verdict"), [("dumbbell", "pass fairness"), ("handover", "film.bin arrived whole")])
def test_it_passes(bench: Bench, name: str, verdict: str) -> None:
    command = bench.run(str(PROJECT / "topologies" / f"{name}.yaml"))
    assert command.status == 0, command.output
    assert verdict in command.output
