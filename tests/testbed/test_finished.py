"""Runs that are over are found by name or folder; their traces are read strictly; the commands that show them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from chitcpd.sim import Shape
from testbed import finished, merged
from testbed.cli import main
from tests.testbed.recorded import record
from tests.testbed.schemas import faults

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/ has two runs of `lossy` and an older one of `star`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for lab, stamp in (("lossy", "20260101T000001Z"), ("lossy", "20260101T000003Z"), ("star", "20260101T000002Z")):
        record(2, Shape(delay=0.02, loss=0.2), epoch=10**18).write(Path("runs", lab, stamp))
    os.symlink("20260101T000003Z", "runs/lossy/latest")
    return Path("runs")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, "lossy/20260101T000003Z"),
        ("lossy", "lossy/20260101T000003Z"),
        ("star", "star/20260101T000002Z"),  # it has no `latest`
        ("topologies/star.yaml", "star/20260101T000002Z"),
        ("lossy/20260101T000001Z", "lossy/20260101T000001Z"),
        ("runs/lossy/20260101T000001Z", "lossy/20260101T000001Z"),
        ("runs/lossy", "lossy/20260101T000003Z"),
        ("runs/lossy/latest", "lossy/latest"),
    ],
)
def test_a_run_is_found(runs: Path, asked: str | None, found: str) -> None:
    assert finished.find(asked, runs) == runs / found


def test_a_link_to_elsewhere_is_no_run(runs: Path, tmp_path: Path) -> None:
    os.unlink("runs/lossy/latest")
    os.symlink(tmp_path / "runs" / "star" / "20260101T000002Z", "runs/lossy/latest")
    assert finished.find("lossy", runs) == runs / "lossy" / "20260101T000003Z"


def test_who_asks_for_no_run_is_told_what_there_is(runs: Path) -> None:
    with pytest.raises(finished.NoSuchRun, match="there is no run los; runs/ has runs of lossy, star"):
        finished.find("los", runs)
    with pytest.raises(finished.NoSuchRun, match="there is no run in nowhere/ yet"):
        finished.find(None, Path("nowhere"))


GOOD: dict[str, Any] = {
    "t": 1.5,
    "event": "sent",
    "local": "10.0.0.2:5",
    "peer": "[fd00::2]:7",
    "flags": "S",
    "seq": 1,
    "len": 0,
    "wnd": 1,
}


def read(path: Path, text: str) -> list[Any]:
    path.write_text(text)
    return list(finished.events(path))


def test_what_the_schema_allows_is_read(tmp_path: Path) -> None:
    for events in record(1, Shape(delay=0.01, loss=0.1, corrupt=0.3)).traces.values():
        assert read(tmp_path / "trace.jsonl", "".join(f"{json.dumps(event)}\n" for event in events)) == events
    assert read(tmp_path / "trace.jsonl", json.dumps(GOOD) + '\n{"t": 1') == [GOOD]  # the last line was cut off


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "eaten"},
        {"event": ["sent"]},
        {"t": "now"},
        {"t": float("nan")},
        {"t": True},
        {"local": "alice"},
        {"peer": "\x1b[2J:7"},
        {"flags": "\x1b"},
        {"flags": None},
        {"seq": -1},
        {"seq": 1.0},
        {"ack": 2**32},
        {"len": None},
        {"wnd": []},
        {"window_scale": 15},
        {"timestamp": [1]},
        {"sack": [[1, 2], [3]]},
        {"sack": "all"},
        {"sack": [[1, 2]] * 1000},
        {"event": "dropped", "why": "x" * 1000, "direction": "sent", "bytes": 1},
        {"event": "dropped", "why": "\ud800", "direction": "sent", "bytes": 1},
        {"event": "dropped", "why": "\x1b[2J", "direction": "sent", "bytes": 1},
        {"event": "dropped", "why": "loss", "direction": "up", "bytes": 1},
        {"event": "state", "from": "CLOSED", "to": "\x1b]0;"},
        {"event": "timer"},
        {"connection": "one"},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_what_it_does_not_is_refused_with_its_place(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(finished.BadTrace, match=r"trace\.jsonl:2 is no event"):
        read(tmp_path / "trace.jsonl", f"{json.dumps(GOOD)}\n{json.dumps(GOOD | wrong)}\n")


@pytest.mark.parametrize("line", ["{", "\x00", "[" * 100_000], ids=["half", "zero", "deep"])
def test_what_is_no_json_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(finished.BadTrace, match=r"trace\.jsonl:2 is no JSON"):
        read(tmp_path / "trace.jsonl", f"{json.dumps(GOOD)}\n{line}\n")


def test_what_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "hosts" / "bob" / "trace.jsonl").mkdir(parents=True)
    (tmp_path / "hosts" / "bob" / "segments.pcap").mkdir()
    with pytest.raises(finished.BadTrace, match=r"bob/trace.jsonl can't be read: Is a directory"):
        finished.ladder_of(tmp_path)
    with pytest.raises(finished.BadTrace, match=r"bob/segments.pcap can't be read: Is a directory"):
        merged.merge_into(tmp_path, tmp_path / "merged.pcapng")


class TestCommands:
    def test_ladder(self, runs: Path, capsys: Captured) -> None:
        assert main(["ladder", "lossy"]) == 0
        text = capsys.readouterr().out
        [first, *_] = finished.events(runs / "lossy" / "latest" / "hosts" / "alice" / "trace.jsonl")
        client = first["local"]
        assert text.splitlines()[0].split() == ["seconds", "alice", client, "bob", "10.0.0.3:7"]
        assert "X loss" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_a_ladder_is_as_wide_as_columns_says(
        self, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        del runs
        monkeypatch.setenv("COLUMNS", "110")
        assert main(["ladder", "lossy"]) == 0
        assert 100 < max(map(len, capsys.readouterr().out.splitlines())) <= 110

    @pytest.mark.parametrize(
        ("manifest", "first"),
        [('{"began": 999999998.5}', "1.500000"), ("{", "0.000000"), ('{"began": NaN}', "0.000000"), ("[]", "0.000000")],
    )
    def test_the_clock_of_a_ladder_is_that_of_the_report(
        self, runs: Path, capsys: Captured, manifest: str, first: str
    ) -> None:
        """It begins with the first application; if nobody knows when that was, with the first line."""
        (runs / "lossy" / "latest" / "manifest.json").write_text(manifest)
        assert main(["ladder", "lossy"]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[0] == first
        assert main(["ladder", "lossy", "--from", first, "--to", first]) == 0

    def test_ladder_lists_connections(self, runs: Path, capsys: Captured) -> None:
        del runs
        assert main(["ladder", "--list"]) == 0
        assert "alice 10.0.0.2:" in capsys.readouterr().out

    def test_ladder_for_programs(self, runs: Path, capsys: Captured) -> None:
        assert main(["ladder", "lossy", "--format", "json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert faults("ladder", printed) == []
        assert printed["run"] == str(runs / "lossy" / "20260101T000003Z")
        assert {row["kind"] for row in printed["rows"]} == {"segment", "state", "timer"}
        assert {row["fate"] for row in printed["rows"] if row["kind"] == "segment"} == {"arrived", "dropped"}

    def test_merge(self, runs: Path, capsys: Captured) -> None:
        assert main(["merge", "star", "--format", "json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert faults("merge", printed) == []
        assert Path(printed["file"]) == runs / "star" / "20260101T000002Z" / "merged.pcapng"
        assert main(["merge", "star", "-o", "star.pcapng"]) == 0
        assert "no capture of the wire: there is no hosts/HOST/wire.pcap" in capsys.readouterr().out
        assert Path("star.pcapng").read_bytes() == Path(printed["file"]).read_bytes()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["ladder", "nix"], "testbed: there is no run nix; runs/ has runs of lossy, star.\n"),
            (["merge", "nix"], "testbed: there is no run nix; runs/ has runs of lossy, star.\n"),
            (["ladder", "--port", "9"], "testbed: there is no such connection; there is 1, between alice and bob"),
            (["ladder", "--from", "1000"], "testbed: nothing happened in that time; it ends at "),
        ],
        ids=" ".join,
    )
    def test_wrong_usage(self, runs: Path, capsys: Captured, arguments: list[str], said: str) -> None:
        del runs
        assert main(arguments) == 2
        assert capsys.readouterr().err.startswith(said)

    def test_a_run_that_has_nothing(self, runs: Path, capsys: Captured) -> None:
        (runs / "empty" / "20260101T000009Z" / "hosts").mkdir(parents=True)
        assert main(["ladder", "empty"]) == 2
        assert "has no trace" in capsys.readouterr().err
        assert main(["merge", "empty"]) == 2
        assert "has no captures" in capsys.readouterr().err

    def test_a_run_in_which_no_segment_was_sent(self, runs: Path, capsys: Captured) -> None:
        host = runs / "silent" / "20260101T000009Z" / "hosts" / "alice"
        host.mkdir(parents=True)
        (host / "trace.jsonl").touch()
        assert main(["ladder", "silent"]) == 2
        assert capsys.readouterr().err == (
            "testbed: there is nothing to draw: no segment was sent, so the TCP of the client never sent a SYN.\n"
        )
