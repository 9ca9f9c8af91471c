"""testbed replay: the same again, byte for byte in a simulation; where it first differs; what it takes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed import compared
from testbed.cli import main
from tests.testbed.schemas import faults
from tests.testbed.test_local import TESTBED, run_testbed
from tests.testbed.test_sim import EVERYTHING, MINE, differing, files, here, manifest, pair, simulate

__all__ = ["here"]  # a fixture

Captured = pytest.CaptureFixture[str]


def replay(capsys: Captured, *arguments: str, status: int = 0) -> dict[str, Any]:
    """What `testbed replay --format json` prints."""
    capsys.readouterr()
    assert main(["replay", *arguments, "--format", "json"]) == status
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert faults("replay", told) == []
    assert told["same"] == (status == 0)
    return told


def test_a_simulation_is_the_same_again_though_its_files_are_gone(here: Path, capsys: Captured) -> None:
    """The run folder has all that it takes: somebody's own TCP, included files, values of variables."""
    Path("mine.py").write_text(MINE)
    Path("given.bin").write_bytes(b"given")
    Path("more.yaml").write_text("name: everything\ncapture: {wire: false}\n")
    text = EVERYTHING.replace("seed: 3", "seed: ${SEED}\ninclude: [more.yaml]")
    text = text.replace("files: {payload.bin: {random: 500kB}}", "files: {payload.bin: {random: 500kB}, a: given.bin}")
    text = text.replace("hi, there", "'$${HOME}'")
    first = simulate(text, "--var", "SEED=3", "--name", "named")
    first = Path("runs/named/latest").resolve()
    elsewhere = here / "elsewhere"
    shutil.copytree(first, elsewhere)
    for path in ("mine.py", "given.bin", "more.yaml", "lab.yaml"):
        Path(path).unlink()
    shutil.rmtree("runs")
    told = replay(capsys, str(elsewhere))
    assert (told["exact"], told["files"], told["versions"]) == (True, [], [])
    assert differing(elsewhere, Path(told["again"])) == []
    assert told["compared"] == [f"{len(files(elsewhere) - {'report.html'})} files, byte for byte"]
    assert "${HOME}" in (elsewhere / "apps/hello/stdout").read_text()


def test_the_latest_run_and_the_name_of_a_lab(capsys: Captured) -> None:
    folder = simulate(pair())
    assert Path(replay(capsys)["run"]).resolve() == folder
    assert Path(replay(capsys, "pair")["run"]).resolve() != folder  # the replay is the latest by now


def edit(path: Path, found: str, put: str) -> None:
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, put, 1))


def test_it_says_where_a_simulation_first_differs(capsys: Captured) -> None:
    """In time, on whatever host; and what was there in place of it."""
    folder = simulate(pair())
    for host, number in (("alice", 40), ("bob", 30)):
        trace = folder / "hosts" / host / "trace.jsonl"
        lines = trace.read_text().splitlines()
        event = json.loads(lines[number]) | {"event": "sent", "len": 77}
        trace.write_text("\n".join([*lines[:number], json.dumps(event), *lines[number + 1 :], ""]))
        if host == "bob":
            earlier = event["t"]
    told = replay(capsys, str(folder), status=1)
    first = told["differences"][0]
    assert (first["where"], first["what"], first["at"]) == ("host bob", "event 31", earlier)
    assert "len 77" in first["then"]
    assert "len 77" not in first["now"]
    assert told["files"] == ["hosts/alice/trace.jsonl", "hosts/bob/trace.jsonl"]


def test_it_says_it_to_people_too(capsys: Captured) -> None:
    folder = simulate(pair())
    edit(folder / "apps/client/stdout", "fetched", "swallowed")
    (folder / "hosts/bob/chitcpd.log").unlink()
    edit(folder / "manifest.json", '"python": "', '"python": "2.')
    capsys.readouterr()
    assert main(["replay", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "note: python was 2.3." in said
    assert "first difference: app client, stdout, line 1\n  then: swallowed payload.bin" in said
    assert "\n  now:  fetched payload.bin" in said
    assert "files that differ: apps/client/stdout, hosts/bob/chitcpd.log\n" in said
    assert said.endswith("\nnot the same\n")


def test_another_version_is_told_and_is_no_difference(capsys: Captured) -> None:
    folder = simulate(pair())
    edit(folder / "manifest.json", '"code": "', '"code": "f')
    told = replay(capsys, str(folder))
    assert [version["name"] for version in told["versions"]] == ["code"]


LOCAL = pair(lossy=("rate: 8mbit, queue: 50pkt", "loss: 4%"))


@contextmanager
def another_lab() -> Iterator[None]:
    """One that is up, and has the addresses which the run before had."""
    Path("other.yaml").write_text("name: other\nhosts: {bob: {}, carol: {}}\nlinks: [{endpoints: [bob, carol]}]\n")
    try:
        assert run_testbed("up", "other.yaml", "--backend", "local").returncode == 0
        yield
    finally:
        assert run_testbed("down", "other").returncode == 0


def test_what_lasts_is_compared_where_times_vary(capsys: Captured) -> None:
    """On local: verdicts, ends, outputs, files, and which segments are lost by their number."""
    Path("lab.yaml").write_text(LOCAL)
    ran = subprocess.run(
        [*TESTBED, "run", "lab.yaml", "--backend", "local"], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    folder = Path("runs/pair/latest").resolve()
    with another_lab():
        told = replay(capsys, str(folder))
    first, again = (manifest(Path(told[one]))["hosts"]["bob"]["addresses"] for one in ("run", "again"))
    assert first != again
    assert not told["exact"]
    assert any("times vary" in what for what in told["not_compared"])
    assert told["compared"][-1].startswith("which of the first ")

    edit(folder / "apps/client/stdout", "fetched", "swallowed")
    edit(folder / "manifest.json", '"status": 0,\n      "expected": 0', '"status": 5,\n      "expected": 0')
    (folder / "apps/client/files/payload.bin").write_bytes(b"less")
    trace = folder / "hosts/bob/trace.jsonl"
    kept = [line for line in trace.read_text().splitlines() if '"why": "loss"' not in line]
    trace.write_text("\n".join([*kept, ""]))
    told = replay(capsys, str(folder), status=1)
    assert [(one["where"], one["what"]) for one in told["differences"][:3]] == [
        ("app client", "end"),
        ("app client", "stdout"),
        ("file client/files/payload.bin", "content"),
    ]
    last = told["differences"][3]
    assert (last["where"], last["then"], last["now"]) == ("host bob", "not lost", "lost")


# ---- what can't be replayed


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"lab": "../x", "seed": 1}', '{"lab": "x", "seed": "1"}', "\x00"],
)
def test_a_manifest_that_is_none(text: str, capsys: Captured) -> None:
    folder = simulate(pair())
    (folder / "manifest.json").write_text(text)
    assert main(["replay", str(folder)]) == 2
    assert "manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "put", "status", "said"),
    [
        ('"lab": "pair"', '"lab": "../pair"', 2, "is not what a run writes"),
        ('"versions": {', '"versions": [0], "v": {', 2, "is not what a run writes"),
        ('"hosts": {', '"hosts": [[1]], "h": {', 2, "is not what a run writes"),
        ('"name": "sim"', '"name": "simulator"', 2, "there is no backend 'simulator'"),
        ('"verdict": "passed"', '"verdict": "interrupted"', 2, "did not come to its end (interrupted)"),
    ],
)
def test_a_manifest_with_something_else(found: str, put: str, status: int, said: str, capsys: Captured) -> None:
    folder = simulate(pair())
    edit(folder / "manifest.json", found, put)
    assert main(["replay", str(folder)]) == status
    assert said in capsys.readouterr().err


def test_a_file_that_was_not_kept_or_is_another_one(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr("testbed.inputs.KEPT", 10)
    Path("given.bin").write_bytes(b"more than that")
    folder = simulate(pair(given=("{random: 500kB}", "given.bin")))
    described = manifest(folder)["inputs"]["given.bin"]
    assert (described["bytes"], described["kept"]) == (14, False)
    assert main(["replay", str(folder)]) == 3
    kept = folder / "inputs" / described["sha256"]
    assert f"Copy it to {kept}" in capsys.readouterr().err
    kept.parent.mkdir()
    kept.write_bytes(b"something else")
    assert main(["replay", str(folder)]) == 3
    assert "is not what the run had as given.bin" in capsys.readouterr().err
    kept.write_bytes(b"more than that")
    assert main(["replay", str(folder)]) == 1  # the copy itself is what differs


def test_no_run_at_all(capsys: Captured) -> None:
    assert main(["replay", "nothing"]) == 2
    assert "there is no run nothing" in capsys.readouterr().err


# ---- run folders that are no good


def hostile(folder: Path, name: str, kind: str) -> None:
    """A file of the folder is another thing now."""
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "outside":
        path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("name", ["manifest.json", "topology.yaml"])
@pytest.mark.parametrize("kind", ["pipe", "endless", "outside", "gone"])
def test_what_it_takes_must_be_a_file_of_the_folder(name: str, kind: str, capsys: Captured) -> None:
    """Nothing is read that never ends, and nothing that is somewhere else."""
    folder = simulate(pair())
    hostile(folder, name, kind)
    assert main(["replay", str(folder)]) == 2
    assert f"no file {name}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "endless", "outside"])
def test_what_is_compared_must_be_a_file_of_the_folder_too(kind: str, capsys: Captured) -> None:
    folder = simulate(pair())
    hostile(folder, "apps/client/stdout", kind)
    told = replay(capsys, str(folder), status=1)
    assert (told["differences"][0]["then"], told["files"]) == ("no such file", ["apps/client/stdout"])
    told = compared.as_json(compared.compare(folder, Path(told["again"]), exact=False))
    assert [one["where"] for one in told["differences"]] == ["app client"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("t", ["NaN", "1e999", "9" * 400, '"1"', "true", "[1]"])
def test_a_time_that_is_none(t: str, capsys: Captured) -> None:
    folder = simulate(pair())
    trace = folder / "hosts" / "alice" / "trace.jsonl"
    edit(trace, '"t": 0.0', f'"t": {t}')
    told = replay(capsys, str(folder), status=1)
    assert (told["differences"][0]["what"], told["differences"][0]["then"]) == ("event 1", "nothing more")


def test_a_line_without_an_end(capsys: Captured) -> None:
    """Two GiB of zeros are not taken for one line."""
    folder = simulate(pair())
    os.truncate(folder / "hosts" / "alice" / "chitcpd.log", 2 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = replay(capsys, str(folder), status=1)
    assert told["files"] == ["hosts/alice/chitcpd.log"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, 10**3000])
def test_a_seed_that_no_run_has(seed: float, capsys: Captured) -> None:
    folder = simulate(pair())
    edit(folder / "manifest.json", '"seed": 5', f'"seed": {seed}')
    assert main(["replay", str(folder)]) == 2
    assert "is not what a run writes: Input should be" in capsys.readouterr().err


def test_a_replay_that_is_interrupted() -> None:
    """It is no run that came out otherwise."""
    Path("lab.yaml").write_text(pair(slow=("rate: 8mbit", "rate: 2mbit")))
    ran = run_testbed("run", "lab.yaml", "--backend", "local")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with subprocess.Popen([*TESTBED, "replay"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line == "waiting for client\n":
                break
        running.send_signal(signal.SIGINT)
        said = running.stdout.read()
        assert running.wait(30) == 130, said
    assert "interrupted by SIGINT" in said
    assert "the same" not in said
