"""Run folders that are cut short, or somebody's own work; single plots; the command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed import report as reports
from testbed.cli import main
from testbed.report import PLOTS, Report, Unreadable, read
from testbed.report.collect import Collector
from testbed.signals import Interrupted
from testbed.unavailable import Unavailable
from tests.testbed.schemas import faults

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder, to spoil."""
    shutil.copytree(run_folder, tmp_path / "runs" / "bottleneck" / run_folder.name)
    return tmp_path / "runs" / "bottleneck" / run_folder.name


def change(folder: Path, **keys: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | keys))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"lab": 1}', '{"hosts": [], "routers": [], "links": [1]}', "\x00\xff"]
)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(Unreadable, match=r"manifest\.json"):
        Report(folder)


def test_any_part_of_a_manifest_may_be_strange(folder: Path) -> None:
    whole = json.loads((folder / "manifest.json").read_text())
    for trace in folder.glob("hosts/*/trace.jsonl"):
        trace.unlink()  # so that it takes a second, not twenty
    strange: list[Any] = [None, 7, "x", [], [[]], {"x": {}}, {"x": None}]
    for key in whole:
        for value in strange:
            change(folder, **{**whole, key: value})
            try:
                page = Report(folder).html()
            except Unreadable as why:
                assert "manifest.json" in str(why)
            else:
                assert page.startswith("<!DOCTYPE html>")


def test_lines_that_are_no_events_are_counted(folder: Path) -> None:
    trace = folder / "hosts" / "alice" / "trace.jsonl"
    lines = trace.read_bytes()
    nonsense = [b"", b"{", b"1", b"null", b'{"t": NaN}', b'{"t": "now"}', b'{"t": 1e300}', b"\xff\xfe", b"[" * 70_000]
    trace.write_bytes(lines + b"\n".join(nonsense) + b'\n{"t": 1795736178.0, "eve')  # the last was cut off
    before = Report(folder)
    assert before._traces.unreadable >= len(nonsense)
    assert before.summary()["segments"] > 0


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999"])
def test_a_number_that_is_none_of_json_is_refused(folder: Path, capsys: Captured, number: str) -> None:
    trace = folder / "hosts" / "alice" / "trace.jsonl"
    line = next(text for text in trace.read_text().splitlines() if '"min_rtt"' in text)
    strange = re.sub(r'"(min_rtt|srtt)": *[^,}]+', rf'"\1": {number}', line)
    assert strange != line
    with trace.open("a") as file:
        file.write(f"{strange}\n")
    assert main(["report", str(folder), "--format", "json"]) == 0
    assert not re.search(r"Infinity|NaN", capsys.readouterr().out)
    assert main(["report", str(folder)]) == 0
    read_again = Report(folder)
    assert read_again.collected.unreadable == 1
    (folder / "manifest.json").write_text(
        re.sub(r'"began": *[^,}]+', f'"began": {number}', (folder / "manifest.json").read_text())
    )
    with pytest.raises(Unreadable, match=r"manifest\.json"):
        Report(folder)


def test_a_fault_of_ours_is_not_blamed_on_the_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("seq")

    monkeypatch.setattr(Collector, "add", fail)
    with pytest.raises(KeyError):
        Report(folder)


def test_nothing_outside_of_the_folder_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the instructor's own\n")
    log = folder / "hosts" / "alice" / "chitcpd.log"
    log.unlink()
    log.symlink_to(tmp_path / "secret")
    manifest = json.loads((folder / "manifest.json").read_text())
    client = manifest["apps"]["client"]
    (folder / "apps" / "client" / "stdout").unlink()
    os.symlink(tmp_path / "secret", folder / "apps" / "client" / "stdout")
    change(folder, apps={"client": client, "../../../../secret/..": client})
    assert "instructor" not in Report(folder).html()


def test_a_folder_without_a_manifest_has_a_report_of_its_traces(folder: Path, report: Report, capsys: Captured) -> None:
    """As `testbed collect` writes one of a lab that is up."""
    (folder / "manifest.json").unlink()
    read_again = Report(folder)
    (whole,), (connection,) = report.collected.connections, read_again.collected.connections
    assert [end.node for end in connection.ends] == [end.node for end in whole.ends] == ["bob", "alice"]
    assert list(connection.segments)[-1].kind == list(whole.segments)[-1].kind
    assert main(["report", str(folder), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert faults("report", told) == []
    assert (told["lab"], told["status"]) == ("bottleneck", None)
    for trace in folder.glob("hosts/*/trace.jsonl"):
        trace.unlink()
    with pytest.raises(Unreadable, match=r"neither a file manifest\.json nor traces"):
        Report(folder)


def test_a_clock_that_was_set_back_makes_nothing_earlier(folder: Path) -> None:
    trace = folder / "hosts" / "alice" / "trace.jsonl"
    lines = trace.read_text().splitlines(keepends=True)
    middle = len(lines) // 2
    late = [re.sub(r'"t": *[0-9.]+', f'"t": {json.loads(line)["t"] - 0.1}', line) for line in lines[middle:]]
    trace.write_text("".join([*lines[:middle], *late]))
    read_again = Report(folder)
    assert read_again.collected.unreadable == 0
    (connection,) = read_again.collected.connections
    times = [row.at for row in connection.segments]
    assert times == sorted(times)


def test_a_long_log_is_cut_in_the_middle(tmp_path: Path) -> None:
    log = tmp_path / "chitcpd.log"
    log.write_text("".join(f"[10:00:{second:02d}.5] line {second}\n" for second in range(60)) * 1000)
    lines = read.log(log, read.moment("20261126T095900Z"))
    assert len(lines) == 5001
    assert lines[0].text == "line 0"
    assert lines[1000].text == "... 55000 lines are left out here"
    assert lines[-1].text == "line 59"


def test_the_clock_of_a_log_is_that_of_its_zone(tmp_path: Path) -> None:
    log = tmp_path / "chitcpd.log"
    log.write_text("[01:59:58.500000000] one\n[02:00:03.250000000] two\nand more\n")
    began = 1795737598.0
    assert read.moment("20261126T235958Z-2") == began
    lines = read.log(log, began + 3)  # the host is two hours ahead, and its midnight has passed
    assert [line.t for line in lines] == [began + 0.5, began + 5.25, None]
    assert [line.text for line in lines] == ["one", "two", "and more"]


# ---- plots ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_the_same_picture_each_time(name: str, report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for file in ("one.svg", "two.svg"):
        report.plot(name, tmp_path / file, "svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert "bottleneck: what alice sends to bob" in text
    report.plot(name, tmp_path / "plot.png", "png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["queue", "goodput"])
def test_the_name_of_a_link_is_no_formula(name: str, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    links = json.loads((folder / "manifest.json").read_text())["links"]
    change(folder, links=[link | {"direction": link["direction"] + r"$\bad{$"} for link in links])
    Report(folder).plot(name, tmp_path / "plot.svg", "svg")
    assert r"bob$\bad{$" in (tmp_path / "plot.svg").read_text()


def test_without_matplotlib_a_plot_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(folder), "--plot", "windows", "--format", "svg"]) == 3
    assert "pip install matplotlib" in capsys.readouterr().err


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_finds_the_run_and_writes_the_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / reports.NAME).unlink()
    assert main(["report"]) == 0
    assert capsys.readouterr().out == f"report: runs/bottleneck/{folder.name}/report.html\n"
    assert (folder / reports.NAME).is_file()
    assert main(["report", "bottleneck", "-o", "here.html"]) == 0
    assert Path("here.html").read_bytes() == (folder / reports.NAME).read_bytes()
    capsys.readouterr()
    assert main(["report", "bottleneck", "--format", "json"]) == 0
    assert faults("report", json.loads(capsys.readouterr().out)) == []


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        ([], b"<!DOCTYPE html>"),
        (["--plot", "windows", "--format", "svg"], b"<?xml"),
        (["--plot", "windows", "--format", "png"], b"\x89PNG"),
    ],
)
def test_the_standard_output_has_nothing_but_the_report(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes], arguments: list[str], begin: bytes
) -> None:
    assert main(["report", str(folder), "-o", "-", *arguments]) == 0
    printed = capfdbinary.readouterr().out
    assert printed.startswith(begin)
    assert not printed.endswith(b"report.html\n")
    if not arguments:
        assert printed == (folder / reports.NAME).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "there is no run nosuch"),
        (["--format", "svg"], "which plot?"),
        (["--plot", "windows"], "--plot needs --format svg"),
        (["--connection", "2"], "--connection goes with --plot"),
        (["--plot", "windows", "--format", "png", "--connection", "9"], "the run has no connection 9, it has 1"),
        (["--format", "json", "--open"], "--open shows the page"),
        (["-o", "-", "--open"], "--open shows the page"),
        (["--format", "json", "-o", "x"], "goes to the standard output"),
    ],
)
def test_wrong_usage_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: list[str], says: str
) -> None:
    del folder
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("what", [(), ("--plot", "windows", "--format", "svg")])
def test_a_file_that_can_not_be_written_is_told(folder: Path, capsys: Captured, what: tuple[str, ...]) -> None:
    assert main(["report", str(folder), *what, "-o", str(folder / "nowhere" / "x")]) == 3
    said = capsys.readouterr().err
    assert f"{folder / 'nowhere' / 'x'} can't be written: No such file or directory" in said
    assert "-o FILE" in said


def test_a_page_that_can_not_be_put_in_place_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full" / "inside").mkdir(parents=True)
    with pytest.raises(Unavailable, match=r"full can't be written"):
        Report(folder).write(tmp_path / "full")
    assert not list(tmp_path.glob(".*.new"))


@pytest.mark.parametrize(
    ("error", "says"),
    [(OSError("the disk is full"), "OSError: the disk is full"), (Interrupted(2), "interrupted by SIGINT")],
)
def test_a_run_whose_report_fails_is_as_it_was(
    error: BaseException, says: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured, own_state: Path, tmp_path: Path
) -> None:
    from testbed import backends
    from testbed.backends.fake import FakeBackend
    from tests.testbed.test_cli import TOPOLOGY, client, server

    del own_state
    backend = FakeBackend({"server": server, "client": client})
    monkeypatch.setattr(backends, "FACTORIES", {"fake": lambda: backend})
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(TOPOLOGY)

    def fail(_report: Report, _path: Path) -> None:
        raise error

    monkeypatch.setattr(Report, "write", fail)
    assert main(["run", "lab.yaml"]) == 0
    assert f"note: there is no report ({says}); try: testbed report runs/fake-lab/2" in capsys.readouterr().out


def test_the_package_has_what_the_page_is_made_of() -> None:
    """An installation has it, with the licence of what is not ours."""
    names = {path.name for path in (Path(reports.__file__).parent / "assets").iterdir()}
    assert {"uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE", "main.js", "report.css"} <= names
    command = [sys.executable, "-X", "importtime", "-c", "import testbed.report"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "matplotlib" not in loaded  # only a plot needs it, and it takes long
