"""testbed new, grade and matrix: what they print, write and refuse."""

from __future__ import annotations

import csv
import json
import os
import secrets
from pathlib import Path
from xml.etree import ElementTree

import pytest

from testbed.cli import main
from testbed.grading import forker
from testbed.grading.catalog import catalog
from testbed.grading.cells import cells, settled
from testbed.grading.runner import grade
from testbed.grading.sandbox import Source
from testbed.unavailable import Unavailable
from tests.grading.grading import containers_of, require_containers
from tests.testbed.schemas import faults

STOP_AND_WAIT = (Path(__file__).parents[2] / "examples" / "stop_and_wait.py").read_text()
TWO = ("--only", "active-open", "--only", "karn")  # it passes the first, and not the second

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def engine() -> None:
    """That has our image."""
    require_containers()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder with a submission; and no engine, but for the tests of it."""
    monkeypatch.chdir(tmp_path)
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
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
    assert said.index("what happened:") < said.index("what should have happened:")
    assert "alice.py: 2 of 4 points" in said


def test_the_first_grade_of_a_skeleton_says_what_to_do_next_and_cuts_long_ladders(capsys: Captured) -> None:
    assert main(["new", "her_tcp.py"]) == 0
    capsys.readouterr()
    transfer = ["--only", "active-open", "--only", "whole-transfer"]
    assert main(["grade", "her_tcp.py", *transfer, "--html", "grade.html"]) == 1
    in_full = capsys.readouterr().out
    assert in_full.endswith(": testbed grade her_tcp.py --only active-open\n")
    assert "next: An active open sends SYN" in in_full
    assert main(["grade", "her_tcp.py"]) == 1
    said = capsys.readouterr().out
    assert "lines, which --only and --html show ..." in said
    longest = max(len(part.splitlines()) for part in said.split("should have happened:")[1:])
    assert longest < 60 < len(in_full.splitlines())


def test_without_a_container_it_says_so_and_uses_a_process(capsys: Captured) -> None:
    assert main(["grade", "alice.py", "--only", "active-open"]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("It runs in a locked-up process, in no container: no Docker engine answers at ")
    assert main(["grade", "alice.py", "--only", "active-open", "--sandbox", "process"]) == 0
    assert "It runs in" not in capsys.readouterr().out
    assert main(["grade", "alice.py", "--only", "active-open", "--sandbox", "docker"]) == 3


def test_what_could_not_even_begin_is_told_in_a_line(capsys: Captured) -> None:
    """A skeleton fails all tests; a student wants to know what to write first."""
    assert main(["new"]) == 0
    assert main(["grade", "my_tcp.py", "--only", "data", "--sandbox", "process"]) == 1
    in_full = capsys.readouterr().out
    assert "again: testbed grade my_tcp.py --only pieces-of-any-size" in in_full  # asked for
    assert main(["grade", "my_tcp.py", "--sandbox", "process"]) == 1
    said = capsys.readouterr().out
    assert "expected SYN seq 0; got nothing" in said
    assert "✗ data: it does not come to the state in which 19 tests begin: data-is-acknowledged, " in said
    assert "again: testbed grade my_tcp.py --only pieces-of-any-size" not in said


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


def test_a_class_is_graded_twice_the_same(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same seed; it is drawn, for a submission may know what comes with seed 1."""
    folder = Path("class")
    folder.mkdir()
    (folder / "alice.py").write_text(STOP_AND_WAIT)
    (folder / "bob.py").write_text(STOP_AND_WAIT.replace("2 * self._time_out", "self._time_out"))
    (folder / "=carol.py").write_text("no Python at all")
    monkeypatch.setattr(secrets, "randbits", lambda _bits: 77)
    assert main(["grade", "class", "--only", "RTO", "-o", "one", "--jobs", "2", "--junit", "junit.xml"]) == 0
    said = capsys.readouterr().out
    assert "--seed 77 grades in the same way again" in said
    assert "POINTS" in said
    assert main(["grade", "class", "--only", "RTO", "-o", "two", "--jobs", "1", "--seed", "77"]) == 0
    assert "--seed" not in capsys.readouterr().out
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
    assert {row["seed"] for row in rows} == {"77"}
    assert "seed 77" in Path("one/index.html").read_text()
    again = "testbed grade class/alice.py --only karn --seed 77"
    assert again in Path("one/alice.py.html").read_text()
    assert again in Path("junit.xml").read_text()
    assert '<property name="seed" value="77" />' in Path("junit.xml").read_text()


def test_what_cannot_be_read_does_not_stop_a_class(capsys: Captured) -> None:
    """And a link is not followed: a student must not choose which of the instructor's files is read."""
    folder = Path("class")
    folder.mkdir()
    (folder / "alice.py").write_text(STOP_AND_WAIT)
    (folder / "bob.py").write_text("#" * (1 << 20) + "\n")
    secret = Path("secret.txt")
    secret.write_text("the solution")
    (folder / "carol.py").symlink_to(secret.resolve())
    (folder / "dave.py").symlink_to("nowhere")
    (folder / "erin.py").mkdir()
    name = "\udcff\x1b[31m.py"
    (folder / name).write_text(STOP_AND_WAIT)
    assert main(["grade", "class", *TWO, "-o", "grades", "--junit", "junit.xml"]) == 0
    said = capsys.readouterr().out
    assert "bob.py has more than 1 MiB" in said
    assert "carol.py is a link, which is not followed" in said
    rows = [row[:3] for row in csv.reader(Path("grades/grades.csv").read_text().splitlines())]
    assert rows[1:] == [
        ["alice.py", "2", "4"],
        ["bob.py", "0", "4"],
        ["carol.py", "0", "4"],
        ["dave.py", "0", "4"],
        ["??[31m.py", "2", "4"],
    ]
    pages = "".join(path.read_text() for path in Path("grades").iterdir())
    assert "the solution" not in pages
    assert 'href="5.html"' in Path("grades/index.html").read_text()
    assert "testbed grade &#x27;class/??[31m.py&#x27; --only karn" in Path("grades/5.html").read_text()
    assert len(ElementTree.parse("junit.xml").getroot()) == 5


def test_no_name_is_a_row_of_the_table(capsys: Captured) -> None:
    Path("class").mkdir()
    Path("class/a\nmallory.py  174  174.py").write_text(STOP_AND_WAIT)
    assert main(["grade", "class", "--only", "active-open"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("a mallory.py  174  174.py  2 ")


def test_for_gradescope_what_cannot_be_read_has_a_result(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a link is not followed; the seed is drawn, for submissions are strangers'."""
    del capsys
    monkeypatch.setattr(secrets, "randbits", lambda _bits: 77)
    Path("my_tcp.py").symlink_to("alice.py")
    Path("folder.py").mkdir()
    for name, why in (
        ("my_tcp.py", "is a link, which is not followed"),
        ("nothing.py", "can't be read: No such file"),
        ("folder.py", "can't be read: Is a directory"),
    ):
        assert main(["grade", name, *TWO, "--gradescope", "results.json"]) == 1
        results = json.loads(Path("results.json").read_text())
        assert results["score"] == 0
        assert f"{name} {why}" in results["output"]
        assert "--seed 77" in results["tests"][1]["output"]


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
        ["grade", "alice.py", "-o", "grades"],
        ["grade", "alice.py", "--only", "nagle", "--weights", "no-nagle.yaml"],
        ["grade", "alice.py", "--only", "active-open", "--html", "no/such/folder.html"],
        ["grade", "../" + "x" * 300],
        ["matrix"],
        ["matrix", "nothing.py"],
        ["matrix", "alice.py", "../" + "x" * 300],
    ],
)
def test_wrong_usage_is_told(arguments: list[str], capsys: Captured) -> None:
    Path("no-nagle.yaml").write_text("tests: {nagle: 0}")
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_grade_lists_its_tests(capsys: Captured) -> None:
    assert main(["grade", "--list"]) == 0
    assert "fast-retransmit" in capsys.readouterr().out
    assert main(["grade", "--list", "--format", "json", "--only", "RTO"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert faults("grade-list", told) == []
    assert {test["stage"] for test in told} == {"RTO"}


@pytest.mark.docker
def test_a_container_is_taken_where_there_is_one(engine: None, capsys: Captured) -> None:
    del engine
    assert main(["grade", "alice.py", "--only", "active-open"]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("It runs in a locked-up process in a container (")


@pytest.mark.docker
def test_an_image_of_another_version_is_not_taken(engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It might judge otherwise, or blame a submission for what the image does not know."""
    del engine
    monkeypatch.setattr(forker, "fingerprint", lambda: "another")
    with pytest.raises(Unavailable, match="another version"), cells("docker"):
        pass
    told: list[str] = []
    assert settled("auto", told.append) == "process"
    assert "of another version than this testbed" in told[0]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("while True: pass", "did not return within"),
        ("import os; os.fork()", "Operation not permitted"),
        ("import socket; socket.socket()", "Operation not permitted"),
        ("open('/tmp/here', 'w')", "Operation not permitted"),
        ("open('/etc/passwd')", "Permission denied"),
        ("import chitcpd.tcp.api as api; open(api.__file__.replace('api', 'connection'))", "Permission denied"),
        ("[bytearray(1 << 29), bytearray(1 << 29)]", "MemoryError"),
        ("import os; os._exit(3)", "ended itself with status 3"),
    ],
    ids=["loop", "fork", "network", "write", "read", "reference", "memory", "exit"],
)
def test_the_limits_hold_in_a_container_too(engine: None, handler: str, said: str) -> None:
    del engine
    line = "        self._passive = not active\n"
    source = Source("hostile.py", STOP_AND_WAIT.replace(line, f"        {handler}\n{line}"))
    assert source.text != STOP_AND_WAIT
    tests = [(test, test.points) for test in catalog() if test.id == "active-open"]
    with cells("docker") as new_cell:
        [verdict] = grade(source, tests, new_cell=new_cell).verdicts
    assert said in verdict.message


@pytest.mark.docker
def test_a_submission_in_a_container_gets_the_same(engine: None, capsys: Captured) -> None:
    """It has the image's Python, and is locked up there too; nothing is left of the container."""
    del engine
    assert main(["grade", "alice.py", *TWO, "--sandbox", "docker", "--format", "json"]) == 1
    in_container = json.loads(capsys.readouterr().out)
    assert main(["grade", "alice.py", *TWO, "--sandbox", "process", "--format", "json"]) == 1
    assert in_container == json.loads(capsys.readouterr().out)
    assert containers_of(os.getpid()) == []


@pytest.mark.parametrize("also", [["mine.py"], ["-o", "out"], ["--sandbox", "process"], ["--jobs", "2"]], ids=" ".join)
def test_what_an_image_has_no_use_for_is_refused(also: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "--image", "any", *also]) == 2
    assert "takes neither FILE.py nor -o, --sandbox and --jobs" in capsys.readouterr().err


def test_an_image_is_not_asked_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "--image", "any", "--only", "given-iss"]) == 2
    assert "none of these tests can be judged from outside" in capsys.readouterr().err


def test_no_ladder_folds_what_is_judged(capsys: Captured) -> None:
    """Fast retransmit is about the third duplicate: all three are seen, before what they lead to."""
    assert main(["grade", "alice.py", "--only", "fast-retransmit", "--sandbox", "process", "--format", "json"]) == 1
    [stage] = json.loads(capsys.readouterr().out)["stages"]
    *_, first, second, third, again = stage["tests"][0]["expected"].splitlines()
    assert all("--- . ack 1 wnd 60000 --" in line for line in (first, second, third))
    assert "<-- . seq 1:1001 ack 1" in again


def test_a_name_that_is_nearly_one_of_a_stage_is_understood(capsys: Captured) -> None:
    assert main(["grade", "alice.py", "--only", "los"]) == 2
    assert "did you mean 'loss'?" in capsys.readouterr().err


def test_a_file_that_cannot_be_loaded_is_shown_once_as_python_shows_it(capsys: Captured) -> None:
    Path("class").mkdir()
    Path("class/alice.py").write_text(STOP_AND_WAIT)
    Path("class/broken.py").write_text("def f(:\n    pass\n")
    shown = '  File "broken.py", line 1\n'
    assert main(["grade", "class/broken.py", "--sandbox", "process", "--html", "page.html"]) == 1
    said = capsys.readouterr().out
    assert said.count("SyntaxError") == said.count(shown) == 1
    assert "def f(:" in said
    assert "^" in said
    assert Path("page.html").read_text().count("SyntaxError") == 1
    assert main(["matrix", "class", "--sandbox", "process"]) == 1
    said = capsys.readouterr().out
    assert said.count("SyntaxError") == said.count(shown) == 1
