"""`testbed replay` of a run on Docker: what does not depend on the times is the same again, and what is not is told."""

from __future__ import annotations

import json

import pytest

from tests.integration.conftest import Bench

pytestmark = pytest.mark.docker

MINE = "from chitcpd.tcp.connection import Connection\n\n\nclass Mine(Connection): ...\n"
LOSSY = """
name: lossy
seed: 7
hosts: {alice: {tcp: {implementation: ./mine.py}}, bob: {}}
links: [{endpoints: [alice, bob], delay: 5ms, loss: 5%}]
apps:
  server:
    host: bob
    run: [python, -m, chisocket.apps.file, serve, --port, "7000"]
    files: {payload.bin: {random: 300kB}, note.txt: ./note.txt}
    ready: {listening: 7000}
  client:
    host: alice
    run: [python, -m, chisocket.apps.file, fetch, "bob:7000", payload.bin]
    needs: [server]
    expect: {exit: 0}
checks: [{integrity: client}]
"""


def test_a_run_is_the_same_again_though_its_topology_is_gone(bench: Bench) -> None:
    (bench.directory / "mine.py").write_text(
        "from chitcpd.tcp.connection import Connection\n\nclass Mine(Connection): ...\n"
    )
    (bench.directory / "note.txt").write_text("a file of the topology\n")
    ran = bench.run(bench.topology(LOSSY))
    assert ran.status == 0, ran.output
    for name in ("lab.yaml", "mine.py", "note.txt"):
        (bench.directory / name).unlink()
    first = bench.latest.resolve()

    replayed = bench.command("replay", bench.lab)
    assert replayed.status == 0, replayed.output
    assert "segments were lost, by the seed" in replayed.output
    assert replayed.output.endswith("\nthe same\n")
    assert bench.left() == []
    again = bench.latest.resolve()
    assert again != first
    assert json.loads((again / "manifest.json").read_text())["backend"]["name"] == "docker"
    assert (again / "apps" / "server" / "files" / "note.txt").read_text() == "a file of the topology\n"

    trace = first / "hosts" / "bob" / "trace.jsonl"
    lines = trace.read_text().splitlines(keepends=True)
    trace.write_text("".join(line for line in lines if '"why": "loss"' not in line))
    other = bench.command("replay", str(first))
    assert other.status == 1, other.output
    assert "first difference: host bob, segment " in other.output
    assert "  then: not lost\n  now:  lost\n" in other.output
