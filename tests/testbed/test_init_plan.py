"""A topology to begin with, and what a run would make of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed import backends
from testbed.backends.fake import FakeBackend
from testbed.cli import main
from testbed.topology import load
from testbed.topology.model import Check
from tests.testbed.conftest import PROJECT

Captured = pytest.CaptureFixture[str]
UNDERLAY = """
name: lab
hosts: {alice: {}, bob: {}}
links: [{endpoints: [alice, bob], delay: 1ms, underlay: {loss: 1%}}]
"""
pytestmark = pytest.mark.usefixtures("own_state")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class TestInit:
    def test_what_it_writes_can_be_run(self, capsys: Captured) -> None:
        assert main(["init"]) == 0
        assert capsys.readouterr().out == "my-lab.yaml is written. Read it, change it, then: testbed run my-lab.yaml\n"
        assert load("my-lab.yaml").name == "my-lab"
        assert main(["run", "my-lab.yaml", "--backend", "local"]) == 0
        assert capsys.readouterr().out.endswith("\npassed\n")

    @pytest.mark.parametrize(
        "start",
        [
            "carol: {",
            "link: satellite",
            '"bob->alice": {',
            "drop: [",
            "events: [",
            *(f"- {kind}:" for kind in Check.model_fields if kind not in ("integrity", "resets")),
        ],
    )
    def test_what_is_commented_out_could_stand(self, start: str) -> None:
        assert main(["init"]) == 0
        lines = Path("my-lab.yaml").read_text().splitlines()
        at = next(number for number, line in enumerate(lines) if line.strip().startswith(f"# {start}"))
        lines[at] = lines[at].replace("# ", "", 1)
        Path("my_tcp.py").write_text("class Mine(TcpConnection): ...")
        Path("my-lab.yaml").write_text("\n".join(lines))
        load("my-lab.yaml")

    def test_a_file_that_is_there_stays(self, capsys: Captured) -> None:
        Path("mine.yaml").write_text("mine")
        assert main(["init", "mine.yaml"]) == 2
        assert "mine.yaml can't be written: it is there already" in capsys.readouterr().err
        assert Path("mine.yaml").read_text() == "mine"

    def test_a_folder_that_is_not_there(self, capsys: Captured) -> None:
        assert main(["init", "nowhere/mine.yaml"]) == 2
        assert "nowhere/mine.yaml can't be written: No such file or directory" in capsys.readouterr().err


class TestPlan:
    SATELLITE = str(PROJECT / "topologies" / "satellite.yaml")

    def test_for_people(self, capsys: Captured) -> None:
        assert main(["plan", self.SATELLITE, "--backend", "local", "--name", "other", "--seed", "9"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "lab other, seed 9, backend local: asked for"
        assert said[1].startswith("link ship-shore: 127.")
        assert any(": 280ms, 2mbit, queue 140kB, loss 0.1%; MTU 1500, seed " in line for line in said)
        assert "app client on ship: python -m chisocket.apps.file fetch shore:7000 weather.bin" in said
        assert said[-1] == "  must end with 0 within 120 s, after server"

    def test_for_programs_and_always_the_same(self, capsys: Captured) -> None:
        printed = []
        for _ in range(2):
            assert main(["plan", self.SATELLITE, "--backend", "local", "--format", "json"]) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]
        plan = json.loads(printed[0])
        assert plan["backend"] == "local"
        assert [host["name"] for host in plan["hosts"]] == ["ship", "shore"]
        assert plan["apps"][0]["files"]["weather.bin"]["bytes"] == 500_000

    def test_what_befalls_the_underlay_is_shown(self, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        monkeypatch.setattr(backends, "FACTORIES", {"fake": FakeBackend})
        Path("lab.yaml").write_text(UNDERLAY)
        assert main(["plan", "lab.yaml"]) == 0
        assert "to bob 127.128.0.3: 1ms, underlay loss 1%; MTU 1500" in capsys.readouterr().out

    @pytest.mark.parametrize("backend", ["local", "sim"])
    def test_what_a_run_would_be_refused_for_is_refused(self, backend: str, capsys: Captured) -> None:
        Path("lab.yaml").write_text(UNDERLAY)
        assert main(["plan", "lab.yaml", "--backend", backend]) == 3
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("testbed: `underlay:` is for netem on real links")

    def test_a_broken_topology(self, capsys: Captured) -> None:
        Path("lab.yaml").write_text("name: lab\n")
        assert main(["plan", "lab.yaml"]) == 2
        assert "found no key 'hosts'" in capsys.readouterr().err
