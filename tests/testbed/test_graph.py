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


CAMPUS: dict[str, object] = {
    "routers": {"r1": {}},
    "links": [
        {"endpoints": ["alice", "bob", "r1"], "name": "a-lan", "delay": "1ms", "underlay": {"loss": "1%"}},
        {"endpoints": ["r1", "the-end"], "rate": "1mbit"},
    ],
    "apps": {},
}


def test_routers_and_lans_for_a_terminal() -> None:
    assert graph.ascii(topology(**CAMPUS)).splitlines()[2:] == [
        "  alice",
        "  bob",
        "  the-end",
        "  (r1)",
        "",
        "  (r1) ── the-end  1mbit",
        "  a-lan: alice, bob, (r1)  1ms, underlay loss 1%",
    ]


def test_routers_and_lans_for_markdown() -> None:
    assert graph.mermaid(topology(**CAMPUS)).splitlines()[4:] == [
        '  host_r1(("r1"))',
        '  lan_a_lan(["a-lan<br/>1ms, underlay loss 1%"])',
        "  host_alice --- lan_a_lan",
        "  host_bob --- lan_a_lan",
        "  host_r1 --- lan_a_lan",
        '  host_r1 ---|"1mbit"| host_the_end',
    ]


def test_routers_and_lans_for_graphviz() -> None:
    assert graph.dot(topology(**CAMPUS)).splitlines()[5:-1] == [
        '  "r1" [shape=ellipse];',
        '  "lan a-lan" [shape=plaintext, label="a-lan\\n1ms, underlay loss 1%"];',
        '  "alice" -- "lan a-lan";',
        '  "bob" -- "lan a-lan";',
        '  "r1" -- "lan a-lan";',
        '  "r1" -- "the-end" [label="1mbit"];',
    ]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            {"at": "5s", "link": "l", "from": "r1", "set": {"rate": "1mbit", "delay": "0s", "loss": "5%"}, "for": "2s"},
            "at 5s: link l from r1: delay 0s, rate 1mbit, loss 5% for 2s",
        ),
        ({"at": "5s", "link": "l", "set": {"queue": "2bdp"}}, "at 5s: link l: queue 2bdp"),
        ({"at": "5s", "link": "l", "set": {"queue": "64kB"}}, "at 5s: link l: queue 64kB"),
        ({"at": "5s", "link": "l", "set": {"queue": "50ms"}}, "at 5s: link l: queue 50ms"),
        ({"at": "5s", "link": "l", "set": {"queue": "9pkt"}}, "at 5s: link l: queue 9pkt"),
        ({"at": "5s", "link": "l", "set": {"underlay": {"loss": "1%"}}}, "at 5s: link l: underlay loss 1%"),
        ({"at": "0s", "link": "l", "down": "500ms"}, "at 0s: link l down for 500ms"),
        ({"at": "0s", "link": "l", "down": "true"}, "at 0s: link l down"),
        ({"at": "0s", "link": "l", "up": "true"}, "at 0s: link l up"),
        ({"at": "0s", "partition": [["a"], ["b", "c"]], "for": "1s"}, "at 0s: partition a | b, c for 1s"),
        ({"at": "0s", "host": "bob", "restart": "chitcpd"}, "at 0s: host bob: restart chitcpd"),
        ({"at": "0s", "host": "bob", "kill": "chitcpd"}, "at 0s: host bob: kill chitcpd"),
        ({"at": "0s", "host": "bob", "pause": "2s"}, "at 0s: host bob: pause chitcpd for 2s"),
        ({"at": "0s", "app": "server", "kill": "SIGHUP"}, "at 0s: app server: SIGHUP"),
    ],
)
def test_events_for_a_terminal(event: dict[str, object], said: str) -> None:
    assert graph.ascii(topology(events=[event])).splitlines()[-2:] == ["", f"  {said}"]


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
