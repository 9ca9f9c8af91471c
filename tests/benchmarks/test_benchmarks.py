"""The benchmarks run, and say what has changed. How fast anything is, no test asks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import baseline, report
from benchmarks.__main__ import main
from benchmarks.measures import BENCHMARKS, QUICK, Bar, Better, Figure, Findings, Series, Session, figure


def a_figure(ratio: float, *, better: Better = "more", bar: Bar | None = None) -> Figure:
    return Figure("goodput", "MB/s", better, ratio * 50, "relay", 50.0, ratio, bar)


def found(ratio: float, *, better: Better = "more") -> dict[str, Findings]:
    return {"bulk": Findings([a_figure(ratio, better=better)])}


# ---- they run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ping-pong", "many", "memory"])
def test_a_benchmark_measures_ours_and_its_references(name: str) -> None:
    """Traffic, and how it is ended; the other benchmarks are of the same parts."""
    effort = replace(QUICK, seconds=0.05, connections=3)
    figures = BENCHMARKS[name].run(Session(effort)).figures
    assert figures
    assert all(one.value >= 0 and one.reference_value >= 0 for one in figures)


def test_the_command_leaves_a_report_and_says_it_as_json(tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        main, ["--quick", "--only", "bulk-1500", "--format", "json", "--output", str(tmp_path)], catch_exceptions=False
    )
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert json.loads((tmp_path / "report.json").read_text()) == said
    assert {one["reference"] for one in said["figures"]} == {"relay, 1460 B", "kernel TCP"}
    assert said["machine"]["cores"] > 0


def test_an_unknown_name_is_told_the_known_ones() -> None:
    ran = CliRunner().invoke(main, ["--only", "pingpong"])
    assert ran.exit_code == 2
    assert "ping-pong" in ran.output


def test_what_means_nothing_is_not_kept() -> None:
    ran = CliRunner().invoke(main, ["--quick", "--save"])
    assert ran.exit_code == 2
    assert "--save" in ran.output


# ---- figures ---------------------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """What disturbs the machine in one round disturbs both."""
    samples = {"ours": {"goodput": [10.0, 50.0, 12.0]}, "relay": {"goodput": [20.0, 100.0, 20.0]}}
    one = figure(samples, "goodput", "MB/s", "more", of="ours", beside="relay")
    assert (one.value, one.reference_value, one.ratio) == (12.0, 20.0, 0.5)


def test_beside_nothing_there_is_no_ratio() -> None:
    samples = {"ours": {"wake-ups": [0.0]}, "Python": {"wake-ups": [0.0]}}
    one = figure(samples, "wake-ups", "/s", "less", of="ours", beside="Python", bar=Bar(0, "figure"))
    assert one.ratio is None
    assert one.reached


@pytest.mark.parametrize(
    ("better", "bar", "reached"),
    [
        ("more", Bar(0.5), True),
        ("more", Bar(0.7), False),
        ("less", Bar(0.7), True),
        ("less", Bar(0.5), False),
        ("more", Bar(30, "figure"), True),
        ("more", Bar(31, "figure"), False),
        ("more", None, None),
    ],
)
def test_a_bar_is_for_the_ratio_or_for_the_figure_itself(better: Better, bar: Bar | None, reached: bool | None) -> None:
    assert a_figure(0.6, better=better, bar=bar).reached is reached


# ---- the baseline ----------------------------------------------------------------------------------------------


def test_what_is_worse_by_more_than_15_percent_is_said(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline.save(found(0.5), path)
    kept = baseline.load(path)
    assert kept == {"bulk: goodput / relay": 0.5}
    assert baseline.worse(found(0.43), kept) == []
    assert baseline.worse(found(0.9), kept) == []
    assert baseline.worse(found(0.4), kept) == ["bulk: goodput / relay is 0.4, and was 0.5: worse by 20%"]
    assert baseline.worse(found(0.6, better="less"), kept) == [
        "bulk: goodput / relay is 0.6, and was 0.5: worse by 20%"
    ]


def test_what_was_not_measured_stays_in_the_baseline(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline.save({"connects": Findings([a_figure(0.1)])}, path)
    baseline.save(found(0.5), path)
    assert baseline.load(path) == {"connects: goodput / relay": 0.1, "bulk: goodput / relay": 0.5}


def test_without_a_baseline_nothing_is_worse(tmp_path: Path) -> None:
    assert baseline.worse(found(0.1), baseline.load(tmp_path / "none.json")) == []


# ---- plots -----------------------------------------------------------------------------------------------------


def test_a_series_is_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    series = Series(
        "goodput by size", "bytes", "MB/s", {"ours": [(536.0, 2.0), (1460.0, 5.0)], "relay": [(536.0, 90.0)]}
    )
    report.plot([Findings(series=[series])], tmp_path)
    assert "<svg" in (tmp_path / "goodput-by-size.svg").read_text()
