"""The JSON schema of topology files, held by a validator: what is right passes, what is wrong in its form does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from chitcpd import settings
from testbed.cli import main
from testbed.topology.schema import schema

HERE = Path(__file__).parent
TOPOLOGIES = sorted((HERE.parents[1] / "topologies").glob("*.yaml"))
# Those whose faults are all in their form: not in what refers to what, nor in YAML itself.
BROKEN = (
    "bad-app",
    "bad-drops",
    "bad-events",
    "bad-limits",
    "bad-names",
    "bad-tcp",
    "bare-numbers",
    "hosts-as-list",
    "missing-keys",
    "unknown-key",
)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


@pytest.mark.parametrize("file", TOPOLOGIES, ids=lambda file: file.name)
def test_every_topology_of_the_project_passes(validator: Draft202012Validator, file: Path) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(file.read_text()))] == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_does_not(validator: Draft202012Validator, name: str) -> None:
    assert not validator.is_valid(yaml.safe_load((HERE / "broken" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize(
    ("link", "good"),
    [
        ({}, True),
        ({"delay": "25ms", "rate": "10mbit", "queue": "2bdp", "loss": "1%"}, True),
        ({"delay": 25}, False),
        ({"delay": "25 parsecs"}, False),
        ({"rate": None}, False),
        ({"link": "satellite", "bob->alice": {"rate": "1mbit"}}, True),
        ({"link": "satelite"}, False),
        ({"bob->alice": {"rates": "1mbit"}}, False),
        ({"A->B": {}}, False),
        ({"drop": [{"from": "alice", "match": "SYN", "nth": 1}, {"from": "bob", "nth": "3-5"}]}, True),
        ({"drop": [{"from": "alice", "nth": 0}]}, False),
        ({"underlay": {"loss": "1%"}}, True),
        ({"underlay": {"los": "1%"}}, False),
        ({"delay": "${DELAY:-25ms}", "link": "${PRESET}", "mtu": "${MTU}"}, True),
    ],
)
def test_links(validator: Draft202012Validator, link: dict[str, object], good: bool) -> None:
    topology = {"name": "lab", "hosts": {"alice": None, "bob": {}}, "links": [{"endpoints": ["alice", "bob"], **link}]}
    assert validator.is_valid(topology) == good


@pytest.mark.parametrize(
    ("event", "good"),
    [
        ({"at": "5s", "link": "l", "set": {"rate": "1mbit"}, "for": "2s", "from": "alice"}, True),
        ({"at": "5s", "link": "l", "set": {"mtu": 576}}, False),
        ({"at": "5s", "link": "l", "down": True}, True),
        ({"at": "5s", "link": "l", "down": False}, False),
        ({"at": "5s", "partition": [["alice"], ["bob"]]}, True),
        ({"at": "5s", "partition": [["alice"]]}, False),
        ({"at": 5, "app": "a", "kill": "SIGTERM"}, False),
        ({"link": "l", "up": True}, False),
    ],
)
def test_events(validator: Draft202012Validator, event: dict[str, object], good: bool) -> None:
    assert validator.is_valid({"name": "lab", "hosts": {"alice": None}, "events": [event]}) == good


def test_a_file_that_includes_another_may_have_its_name_from_there(validator: Draft202012Validator) -> None:
    assert validator.is_valid({"include": ["common.yaml"]})
    assert not validator.is_valid({"hosts": {"alice": None}})


def test_every_key_has_a_meaning() -> None:
    made = schema()
    parts = {"Topology": made, **made["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, field in part.get("properties", {}).items()
        if "description" not in field
    ]
    assert silent == []


def test_it_tells_what_settings_mean() -> None:
    tcp = schema()["$defs"]["Tcp"]["properties"]
    assert tcp.keys() == {"profile", "implementation", *settings.TABLE}
    assert tcp["rto_min"]["description"] == "the RTO is never less (RFC 6298 §2.4)"


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
