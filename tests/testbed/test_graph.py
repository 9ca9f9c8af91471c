"""Pictures of topologies: for a terminal, Markdown, Graphviz."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import graph
from testbed.cli import main
from testbed.topology import Topology, load

TOPOLOGIES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


def topology(**changes: object) -> Topology:
    return Topology.model_validate(
        {
            "name": "lab",
            "hosts": {"alice": {}, "bob": {}, "the-end": {}},
            "links": [
                {"endpoints": ["alice", "bob"], "delay": "25ms", "jitter": "2ms", "rate": "10mbit", "queue": "2bdp"},
                {"endpoints": ["bob", "the-end"], "link": "dsl", "the-end->bob": {"rate": "512kbit", "loss": "0.5%"}},
            ],
            "apps": {"server": {"host": "bob", "run": ["x"]}, "client": {"host": "alice", "run": ["y"]}},
            **changes,
        }
    )


def test_for_a_terminal() -> None:
    assert graph.ascii(topology()).splitlines() == [
        "lab, seed 0",
        "",
        "  alice    client",
        "  bob      server",
        "  the-end",
        "",
        "  alice ── bob  25ms±2ms, 10mbit, queue 125kB",
        "    bob ── the-end  dsl, bob->the-end: 12ms 16mbit queue 200kB, "
        "the-end->bob: 12ms 512kbit queue 6.4kB loss 0.5%",
    ]


def test_for_markdown() -> None:
    plain = [{"endpoints": ["alice", "bob"]}, {"endpoints": ["bob", "the-end"], "delay": "1.5s"}]
    assert graph.mermaid(topology(links=plain)).splitlines() == [
        "graph LR",
        '  host_alice["<b>alice</b><br/>client"]',
        '  host_bob["<b>bob</b><br/>server"]',
        '  host_the_end["<b>the-end</b>"]',
        "  host_alice --- host_bob",
        '  host_bob ---|"1.5s"| host_the_end',
    ]


def test_for_graphviz() -> None:
    drop = [{"from": "alice", "match": "SYN", "nth": "1"}, {"from": "bob", "nth": "3-5"}]
    links = [{"endpoints": ["alice", "bob"], "rate": "1kbit", "queue": "64kB", "drop": drop}]
    assert graph.dot(topology(links=links, apps={})).splitlines() == [
        'graph "lab" {',
        "  node [shape=box];",
        '  "alice" [label="alice"];',
        '  "bob" [label="bob"];',
        '  "the-end" [label="the-end"];',
        '  "alice" -- "bob" [label="alice->bob: 1kbit queue 64kB drop SYN 1, '
        'bob->alice: 1kbit queue 64kB drop any 3-5"];',
        "}",
    ]


@pytest.mark.parametrize("file", TOPOLOGIES, ids=lambda file: file.name)
@pytest.mark.parametrize("output_format", ["ascii", "mermaid", "dot"])
def test_each_topology_can_be_drawn(file: Path, output_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", str(file), "--format", output_format]) == 0
    drawn = capsys.readouterr().out
    read = load(file)
    assert all(name in drawn for name in (*read.hosts, *read.apps) if output_format != "mermaid" or "-" not in name)


def test_a_broken_topology_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("name: lab\n")
    assert main(["graph", str(tmp_path / "lab.yaml")]) == 2
    assert "found no key 'hosts'" in capsys.readouterr().err
