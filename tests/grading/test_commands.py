"""testbed new, grade and matrix: what they print, write and refuse."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import docker
import pytest

from testbed.backends.docker import DockerBackend
from testbed.cli import main
from testbed.grading.cells import cells
from testbed.unavailable import Unavailable
from tests.testbed.schemas import faults

STOP_AND_WAIT = (Path(__file__).parents[2] / "examples" / "stop_and_wait.py").read_text()
TWO = ("--only", "active-open", "--only", "karn")  # it passes the first, and not the second

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("alice.py").write_text(STOP_AND_WAIT)
    return tmp_path


def test_new_writes_a_skeleton_and_a_topology_and_never_overwrites(capsys: Captured) -> None:
    assert main(["new", "her_tcp.py"]) == 0
    assert Path("her_tcp.py").exists()
    assert main(["validate", "her-tcp.yaml"]) == 0
    Path("her_tcp.py").unlink()
    assert main(["new", "her_tcp.py"]) == 2
    assert not Path("her_tcp.py").exists()
    assert "her-tcp.yaml can't be written: it is there already" in capsys.readouterr().err
    assert main(["new", "her_tcp"]) == 2
    assert main(["new", "no/such/folder.py"]) == 2


def test_grade_shows_what_failed_its_ladders_and_how_to_see_it_again(capsys: Captured) -> None:
    assert main(["grade", "alice.py", *TWO, "--seed", "7"]) == 1
    said = capsys.readouterr().out
    assert "✗ RTO: A segment that was sent twice gives no round trip" in said
    assert "again: testbed grade alice.py --only karn --seed 7" in said
    assert said.index("what happened:") < said.index("what should have:")
    assert "alice.py: 2 of 4 points" in said


def test_grade_of_what_passes_is_good(capsys: Captured) -> None:
    assert main(["grade", "alice.py", "--only", "active-open"]) == 0
    assert "alice.py: 2 of 2 points" in capsys.readouterr().out


def test_grade_writes_for_programs(capsys: Captured) -> None:
    files = ["--junit", "junit.xml", "--gradescope", "results.json", "--html", "page.html"]
    assert main(["grade", "alice.py", *TWO, "--format", "json", *files]) == 1
    told = json.loads(capsys.readouterr().out)
    assert faults("grade", told) == []
    assert (told["earned"], told["points"]) == (2, 4)
    suite = ElementTree.parse("junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    results = json.loads(Path("results.json").read_text())
    assert results["score"] == 2
    assert [(t["score"], t["max_score"], t["status"]) for t in results["tests"]] == [(2, 2, "passed"), (0, 2, "failed")]
    assert "What should have happened:" in results["tests"][1]["output"]
    page = Path("page.html").read_text()
    assert "2 of 4 points" in page
    assert "what should have" in page
    assert "http" not in page


def test_what_a_submission_says_does_not_become_html(capsys: Captured) -> None:
    del capsys
    evil = "<script>alert(1)</script>\x1b[31m"
    Path("evil.py").write_text(
        STOP_AND_WAIT.replace("        self._passive = not active\n", f"        raise ValueError({evil!r})\n")
    )
    assert main(["grade", "evil.py", "--only", "active-open", "--html", "page.html", "--junit", "junit.xml"]) == 1
    assert "<script>" not in Path("page.html").read_text()
    assert ElementTree.parse("junit.xml").getroot()[0].get("failures") == "1"


def test_a_class_is_graded_twice_the_same(capsys: Captured) -> None:
    folder = Path("class")
    folder.mkdir()
    (folder / "alice.py").write_text(STOP_AND_WAIT)
    (folder / "bob.py").write_text(STOP_AND_WAIT.replace("2 * self._time_out", "self._time_out"))
    (folder / "=carol.py").write_text("no Python at all")
    assert main(["grade", "class", "--only", "RTO", "-o", "one", "--jobs", "2"]) == 0
    assert "POINTS" in capsys.readouterr().out
    assert main(["grade", "class", "--only", "RTO", "-o", "two", "--jobs", "1"]) == 0
    files = sorted(path.name for path in Path("one").iterdir())
    assert files == ["=carol.py.html", "alice.py.html", "bob.py.html", "grades.csv", "index.html"]
    for name in files:
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    rows = list(csv.DictReader(Path("one/grades.csv").read_text().splitlines()))
    assert [(row["submission"], float(row["earned"])) for row in rows] == [
        ("'=carol.py", 0),
        ("alice.py", 7),
        ("bob.py", 5),
    ]
    assert "can't be loaded" in rows[0]["trouble"]


def test_a_matrix_tells_who_talks_to_whom(capsys: Captured) -> None:
    Path("mute.py").write_text(
        STOP_AND_WAIT.replace("self.readable", "0").replace("            self._ready += text\n", "")
    )
    assert main(["matrix", "alice.py", "mute.py", "--jobs", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    table = next(at for at, line in enumerate(lines) if line.startswith("CLIENT"))
    assert lines[table + 1].split() == ["alice.py", "good", "fails"]
    assert lines[table + 2].split() == ["mute.py", "fails", "fails"]
    assert main(["matrix", "alice.py", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert faults("matrix", told) == []
    assert [(m["link"], m["trouble"]) for m in told] == [("clean", None), ("lossy", None)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["grade"],
        ["grade", "nothing.py"],
        ["grade", "alice.py", "--only", "no-such-test"],
        ["grade", "alice.py", "--weights", "nothing.yaml"],
        ["grade", ".", "--html", "page.html"],
        ["grade", "alice.py", "--only", "active-open", "--html", "no/such/folder.html"],
        ["matrix"],
        ["matrix", "nothing.py"],
        ["matrix", "alice.py", "../" + "x" * 300],
    ],
)
def test_wrong_usage_is_told(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_grade_lists_its_tests(capsys: Captured) -> None:
    assert main(["grade", "--list"]) == 0
    assert "fast-retransmit" in capsys.readouterr().out


@pytest.mark.docker
def test_a_submission_in_a_container_gets_the_same(capsys: Captured) -> None:
    """It has the image's Python, and is locked up there too; nothing is left of the container."""
    try:
        DockerBackend().check()
        with cells("docker"):
            pass
    except Unavailable as why:
        if os.environ.get("REQUIRE_DOCKER"):
            pytest.fail(f"{why} {why.remedy} (REQUIRE_DOCKER is set)", pytrace=False)
        pytest.skip(f"{why} {why.remedy}")
    assert main(["grade", "alice.py", *TWO, "--sandbox", "docker", "--format", "json"]) == 1
    in_container = json.loads(capsys.readouterr().out)
    assert main(["grade", "alice.py", *TWO, "--format", "json"]) == 1
    assert in_container == json.loads(capsys.readouterr().out)
    client = docker.from_env()
    assert client.containers.list(all=True, filters={"label": "org.chitcp.kind=grade"}) == []
    client.close()
