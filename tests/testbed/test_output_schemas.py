"""What commands print for programs, held against docs/schemas: on the fake backend and on local."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from testbed import backends, doctor, state
from testbed.backends.fake import FakeBackend, Process, Program
from testbed.cli import main
from testbed.cli.output import print_json, print_json_line
from testbed.unavailable import Unavailable
from tests.testbed.conftest import PROJECT
from tests.testbed.plans import TWO, plan_of
from tests.testbed.schemas import SCHEMAS, faults
from tests.testbed.test_cli import TOPOLOGY, client, server
from tests.testbed.test_local import run_testbed

OWN = "from chitcpd.tcp.connection import Connection\n\nclass Mine(Connection): ...\n"
ROUTED = """
name: routed
hosts: {alice: {}, bob: {}}
routers: {r1: {}}
links:
  - {endpoints: [alice, r1]}
  - {endpoints: [r1, bob], name: office, mtu: 1400}
apps:
  server: {host: bob, run: [serve], files: {payload.bin: {random: 64kB}}, ready: {listening: 7000}}
  client: {host: alice, run: [fetch], needs: [server], expect: {exit: 0}, restart: 1}
events:
  - {at: 0s, link: office, set: {loss: 1%}}
  - {at: 10min, link: alice-r1, down: 1s}
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory has lab.yaml, for the fake backend."""
    del own_state
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(TOPOLOGY)
    return tmp_path


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Program]:
    """The only backend is a fake, in which these programs run."""
    programs: dict[str, Program] = {"server": server, "client": client}
    backend = FakeBackend(programs)
    monkeypatch.setattr(backends, "FACTORIES", {"fake": lambda: backend})
    return programs


def said(capsys: Captured, *arguments: str, status: int = 0) -> str:
    """What a command writes to its standard output."""
    capsys.readouterr()
    assert main(arguments) == status
    return capsys.readouterr().out


def objects(schema: object, where: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of every object in a schema."""
    if isinstance(schema, dict):
        yield where, schema
        for key, value in schema.items():
            yield from objects(value, f"{where}.{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from objects(value, f"{where}[{index}]")


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_strict_and_says_what_numbers_mean(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    text = (PROJECT / "docs" / "output.md").read_text()
    assert f"schemas/{name}.schema.json" in text
    for where, part in objects(SCHEMAS[name]):
        if part.get("type") == "object":
            assert "additionalProperties" in part, where
        if "number" in part.get("type", ()):
            assert re.search("seconds|bits per second|of the segments|until|from|points", part["description"]), where


def test_a_good_run(programs: dict[str, Program], capsys: Captured) -> None:
    del programs
    assert main(["run", "lab.yaml", "--format", "json"]) == 0
    printed = capsys.readouterr()
    manifest = json.loads(printed.out)
    assert faults("manifest", manifest) == []
    folder = Path("runs", manifest["lab"], manifest["run_id"])
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert faults("exit", json.loads((folder / "apps" / "client" / "exit.json").read_text())) == []
    assert printed.err.endswith("\npassed\n")  # what is for people


def test_a_run_that_fails(programs: dict[str, Program], capsys: Captured) -> None:
    programs["client"] = lambda _process: 5
    manifest = json.loads(said(capsys, "run", "lab.yaml", "--format", "json", status=1))
    assert faults("manifest", manifest) == []
    assert manifest["apps"]["client"]["status"] == 5


def test_a_run_that_is_cut_short(programs: dict[str, Program], capsys: Captured) -> None:
    def killing(process: Process) -> int:
        process.lab.kill_host("bob", 1, "boom")
        process.wait_for_stop()
        return 0

    programs["server"] = killing
    manifest = json.loads(said(capsys, "run", "lab.yaml", "--format", "json", status=1))
    assert faults("manifest", manifest) == []
    assert manifest["apps"]["client"]["ended"] == "not started"
    assert manifest["checks"] == []


def test_a_run_that_we_spoil(programs: dict[str, Program], monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    del programs

    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(FakeBackend, "collect", fail)
    manifest = json.loads(said(capsys, "run", "lab.yaml", "--format", "json", status=4))
    assert faults("manifest", manifest) == []
    assert manifest["error"] == "ZeroDivisionError: by zero"


def test_a_lab_that_can_not_be_brought_up_prints_nothing(programs: dict[str, Program], capsys: Captured) -> None:
    del programs
    with state.lab_lock("fake-lab"):
        assert said(capsys, "run", "lab.yaml", "--format", "json", status=3) == ""


def test_labs_that_stay(programs: dict[str, Program], capsys: Captured) -> None:
    del programs
    assert faults("ps", json.loads(said(capsys, "ps", "--format", "json"))) == []
    assert main(["up", "lab.yaml"]) == 0
    assert main(["up", "lab.yaml", "--name", "other"]) == 0
    assert faults("ps", json.loads(said(capsys, "ps", "--format", "json"))) == []

    lines = [json.loads(line) for line in said(capsys, "logs", "fake-lab", "--format", "json").splitlines()]
    assert [faults("logs", line) for line in lines] == [[], []]
    assert lines[0] == {"name": "alice", "line": "chitcpd is ready"}

    with state.lab_lock("other"):
        down = json.loads(said(capsys, "down", "--all", "--format", "json", status=3))
    assert down == {"labs": [{"lab": "fake-lab", "removed": 3}]}
    assert faults("down", down) == []
    assert json.loads(said(capsys, "down", "other", "--format", "json")) == {"labs": [{"lab": "other", "removed": 3}]}
    assert json.loads(said(capsys, "down", "--all", "--format", "json")) == {"labs": []}


def test_plans_of_all_topologies(programs: dict[str, Program], capsys: Captured) -> None:
    del programs
    for topology in sorted((PROJECT / "topologies").glob("*.yaml")):
        assert faults("plan", json.loads(said(capsys, "plan", str(topology), "--format", "json"))) == [], topology
    Path("own.py").write_text(OWN)
    Path("lab.yaml").write_text(TOPOLOGY.replace("alice: {}", "alice: {tcp: {implementation: ./own.py, sack: off}}"))
    plan = json.loads(said(capsys, "plan", "lab.yaml", "--format", "json"))
    assert faults("plan", plan) == []
    assert plan["hosts"][0]["implementation"]["bytes"] == len(OWN)


@pytest.mark.parametrize("backend", ["local", "sim"])
def test_a_plan_names_its_backend(backend: str, capsys: Captured) -> None:
    topology = str(PROJECT / "topologies" / "two-hosts.yaml")
    plan = json.loads(said(capsys, "plan", topology, "--backend", backend, "--format", "json"))
    assert plan["backend"] == backend
    assert faults("plan", plan) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_has_no_number_for_is_never_printed(value: float) -> None:
    for prints in (print_json, print_json_line):
        with pytest.raises(ValueError, match="not JSON compliant"):
            prints({"rtt": value})


def test_a_plan_has_routers_ways_and_events(programs: dict[str, Program], capsys: Captured) -> None:
    del programs
    Path("lab.yaml").write_text(ROUTED)
    plan = json.loads(said(capsys, "plan", "lab.yaml", "--format", "json"))
    assert faults("plan", plan) == []
    assert [router["name"] for router in plan["routers"]] == ["r1"]
    assert plan["hosts"][0]["ways"][0]["mtu"] == 1400
    assert plan["events"] == [
        {"at": 0.0, "event": "link office: loss 1%"},
        {"at": 600.0, "event": "link alice-r1: down"},
        {"at": 601.0, "event": "the end of link alice-r1: down"},
    ]


def test_a_run_with_routers_variables_and_events(
    programs: dict[str, Program], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    left = [1]

    def failing(process: Process) -> int:
        return left.pop() if left else client(process)

    programs["client"] = failing
    monkeypatch.setenv("DELAY", "5ms")
    Path("lab.yaml").write_text(ROUTED.replace("mtu: 1400", 'mtu: 1400, delay: "${DELAY}", rate: 1mbit'))
    manifest = json.loads(said(capsys, "run", "lab.yaml", "--format", "json"))
    assert faults("manifest", manifest) == []
    assert manifest["variables"] == {"DELAY": "5ms"}
    assert manifest["routers"]["r1"].keys() == {"alice-r1", "office"}
    assert manifest["apps"]["client"]["restarts"] == 1
    assert [event["done"] is None for event in manifest["events"]] == [False, True, True]
    rates = {probe["direction"]: probe["measured_rate"] for probe in manifest["probes"]}
    assert rates == {"alice->r1": None, "bob->r1": 1e6, "r1->bob": 1e6}
    asked = {link["direction"]: link["asked"] for link in manifest["links"]}
    assert asked["bob->r1"]["underlay"]["loss"] == 0


def test_links_of_a_lab_that_is_up(programs: dict[str, Program], capsys: Captured) -> None:
    del programs
    assert main(["up", "lab.yaml"]) == 0
    assert main(["link", "set", "fake-lab", "alice-bob", "loss=2%", "--from", "alice"]) == 0
    shown = json.loads(said(capsys, "link", "show", "fake-lab", "--format", "json"))
    assert faults("link", shown) == []
    assert [(end["direction"], end["now"]["loss"]) for end in shown] == [("alice->bob", 0.02), ("bob->alice", 0)]


def test_what_was_left_behind(programs: dict[str, Program], capsys: Captured) -> None:
    del programs
    assert json.loads(said(capsys, "gc", "--format", "json"))["labs"] == []
    backend = backends.get("fake")
    backend.up(plan_of(TWO, lab="left", pool=backend.pool), print, stays=False)
    for arguments in (["--dry-run"], []):
        left = json.loads(said(capsys, "gc", "--format", "json", *arguments))
        assert faults("gc", left) == []
        assert left["labs"] == [{"lab": "left", "removed": 3}]


def test_topologies_that_are_good_and_some_that_are_not(capsys: Captured) -> None:
    broken = map(str, sorted((PROJECT / "tests" / "testbed" / "broken").glob("*.yaml")))
    validated = json.loads(said(capsys, "validate", "lab.yaml", "no-file", *broken, "--format", "json", status=2))
    assert faults("validate", validated) == []
    assert [entry["good"] for entry in validated[:2]] == [True, False]


def test_what_doctor_finds(programs: dict[str, Program], monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    del programs

    def lame(*_: object) -> str:
        raise Unavailable("tcpdump is not installed.", "Install it.")

    monkeypatch.setattr(doctor, "ATTEMPTS", {"Python": lambda: "3.11", "tcpdump": lame})
    assert faults("doctor", json.loads(said(capsys, "doctor", "--format", "json"))) == []
    monkeypatch.setattr(FakeBackend, "check", lame)
    assert faults("doctor", json.loads(said(capsys, "doctor", "--format", "json", status=3))) == []


def test_labs_of_real_processes() -> None:
    ran = run_testbed(
        "run", str(PROJECT / "topologies" / "precise-loss.yaml"), "--backend", "local", "--format", "json"
    )
    manifest = json.loads(ran.stdout)
    assert faults("manifest", manifest) == []
    assert [link["mechanism"]["delay_jitter_rate"] for link in manifest["links"]] == ["chitcpd", "chitcpd"]
    for file in Path("runs", "precise-loss", manifest["run_id"], "apps").glob("*/exit.json"):
        assert faults("exit", json.loads(file.read_text())) == []

    assert run_testbed("up", "lab.yaml", "--backend", "local").returncode == 0
    listed = json.loads(run_testbed("ps", "fake-lab", "--format", "json").stdout)
    assert faults("ps", listed) == []
    assert {item["kind"] for item in listed} == {"host", "link"}
    assert faults("link", json.loads(run_testbed("link", "show", "fake-lab", "--format", "json").stdout)) == []
    lines = run_testbed("logs", "fake-lab", "--format", "json").stdout.splitlines()
    assert {json.loads(line)["name"] for line in lines} == {"alice", "bob"}
    assert faults("down", json.loads(run_testbed("down", "fake-lab", "--format", "json").stdout)) == []


def test_what_nobody_has_described_is_found() -> None:
    """So that a new key comes with its description."""
    assert faults("logs", {"name": "alice", "line": "", "new": 1}) != []
    assert faults("ps", [{"lab": "one"}]) != []
