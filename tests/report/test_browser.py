"""The report in a real browser without a screen: what a person sees and can do. Screenshots stay in build/report/."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from testbed.report import Report
from testbed.report.segments import DROPPED
from tests.report.conftest import SCREENSHOTS, Opened

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
Opener = Callable[..., Opened]


@pytest.fixture(scope="module", autouse=True)
def _screenshots() -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)


@pytest.fixture
def page_of(run_folder: Path) -> Path:
    """The report that `testbed run` has written."""
    return run_folder / "report.html"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_it_draws_all_it_has_and_complains_of_nothing(opener: Opener, page_of: Path, theme: str, width: int) -> None:
    opened = opener(page_of, color_scheme=theme, viewport={"width": width, "height": 900})
    opened.go_through()
    titles = opened.page.locator("figure.plot figcaption b").all_inner_texts()
    assert titles == [
        *("Time and sequence", "Congestion window", "Round trip and time-out", "Goodput"),
        *("Queue before r1 → bob", "On the way"),
    ]
    assert len(opened.scales()) == len(titles)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    opened.page.screenshot(path=SCREENSHOTS / f"{theme}-{width}.png", full_page=True)


def test_the_numbers_in_the_page_are_those_of_the_report(opener: Opener, page_of: Path, report: Report) -> None:
    opened, told = opener(page_of), report.summary()

    def number(selector: str) -> int:
        return int(re.sub(r"\D", "", opened.shows(selector)))

    assert number("#tile-segments b") == told["segments"]
    assert number("#tile-retransmissions b") == told["retransmissions"]
    assert number("#tile-dropped b") == sum(told["dropped"].values())
    for why, times in told["dropped"].items():
        assert f"{times} {why}" in opened.shows("#tile-dropped small")
    assert opened.shows("#tile-bytes b") == "600 kB"
    rows = [
        row.all_inner_texts()
        for row in (opened.page.locator("#connections table tr").nth(i).locator("td") for i in (1, 2))
    ]
    (connection,) = told["connections"]
    assert [row[1:3] + row[5:7] for row in rows] == [
        [way["from"]["node"], way["to"]["node"], str(way["segments"]), str(way["retransmissions"])]
        for way in connection["directions"]
    ]
    assert "✓ passed" in opened.shows("h1")
    assert "payload.bin arrived whole" in opened.shows("#summary table")


def test_the_topology_shows_what_links_do_and_have_dropped(opener: Opener, page_of: Path, report: Report) -> None:
    text = opener(page_of).page.locator("svg.topology").text_content() or ""
    narrow = next(one for one in report.network.directions if one.name == "r1->bob")
    for part in ("alice", "bob", "r1", "server", "client", "10 Mbit/s", "queue 5 packets", "loss 3 %"):
        assert part in text
    assert f"{report.collected.drops[narrow.index]} dropped r1 → bob" in text


def test_zoom_is_that_of_all_plots_and_of_the_ladder(opener: Opener, page_of: Path, report: Report) -> None:
    opened = opener(page_of)
    opened.go_through()
    whole = opened.zoom()
    over = opened.page.locator("figure.plot .u-over").nth(1)
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    opened.page.mouse.move(box["x"] + box["width"] * 0.25, y)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] * 0.5, y, steps=5)
    opened.page.mouse.up()
    quarter = (whole[1] - whole[0]) / 4
    assert opened.zoom() == pytest.approx([whole[0] + quarter, whole[0] + 2 * quarter], abs=quarter / 20)
    assert all(scale == pytest.approx(opened.zoom()) for scale in opened.scales())
    begins = re.search(r"from ([\d.]+) s", opened.shows(".ladder-box .buttons"))
    assert begins is not None
    (connection,) = report.collected.connections
    first = next(row.at / 1e6 for row in connection.segments if row.at / 1e6 >= opened.zoom()[0])
    assert float(begins[1]) == pytest.approx(first, abs=1e-4)

    over.dblclick()
    assert opened.zoom() == whole
    assert all(scale == pytest.approx(whole) for scale in opened.scales())


def test_plots_begin_shortly_before_the_first_segment(opener: Opener, run_folder: Path, tmp_path: Path) -> None:
    """However long the applications took to start; before, there is nothing to see."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["began"] -= 10.0
    manifest["events"] = []
    (folder / "manifest.json").write_text(json.dumps(manifest))
    report = Report(folder)
    report.write(tmp_path / "late.html")
    told = report.summary()
    begins, seconds = told["connections"][0]["begins"], told["seconds"]
    assert begins > 10
    first, last = opener(tmp_path / "late.html").zoom()
    assert begins - (seconds - begins) / 10 < first < begins
    assert last == pytest.approx(seconds)


def test_the_keyboard_zooms_and_pans(opener: Opener, page_of: Path) -> None:
    opened = opener(page_of)
    opened.go_through()
    first, last = opened.zoom()
    opened.page.locator("figure.plot").first.focus()
    opened.page.keyboard.press("+")
    middle = opened.zoom()
    assert middle[1] - middle[0] == pytest.approx((last - first) / 2)
    opened.page.keyboard.press("ArrowRight")
    assert opened.zoom()[0] > middle[0]
    opened.page.keyboard.press("0")
    assert opened.zoom() == [first, last]


def test_however_far_one_zooms_in_no_two_labels_of_an_axis_are_alike(opener: Opener, page_of: Path) -> None:
    opened = opener(page_of)
    opened.go_through()
    opened.page.evaluate("report.zoom.around(report.opened(report.data.connections[0]).at[300], 0)")
    first, last = opened.zoom()
    assert last - first == pytest.approx(20e-6)
    for width in (0.02, 1e-3, 20e-6):
        opened.page.evaluate(f"report.zoom.around((report.zoom.min + report.zoom.max) / 2, {width})")
        labels = opened.page.evaluate(
            "[...report.plots].flatMap(({plot}) => plot.axes.map((axis) => axis._values.filter((text) => text)))"
        )
        assert len(labels) == 12
        assert all(len(set(own)) == len(own) for own in labels), labels
    assert re.search(r"\d\.\d{6} . \d+\.\d{6} s", opened.shows(".range"))


def test_a_server_listens_before_the_syn_comes(opener: Opener, page_of: Path) -> None:
    opened = opener(page_of)
    states = opened.page.locator(".ladder .state").all_text_contents()
    assert states[:2] == ["CLOSED", "LISTEN"]
    assert states.count("LISTEN") == 1


def test_a_plot_says_what_is_under_the_pointer(opener: Opener, page_of: Path, report: Report) -> None:
    opened = opener(page_of)
    figure = opened.page.locator("figure.plot").nth(1)
    figure.scroll_into_view_if_needed()
    over = figure.locator(".u-over")
    (connection,) = report.collected.connections
    middle = connection.segments[len(connection.segments) // 2].at / 1e6
    box = over.bounding_box()
    assert box is not None
    first, last = opened.zoom()
    over.hover(position={"x": box["width"] * (middle - first) / (last - first), "y": 20})
    expect(figure.locator(".legend .at")).to_contain_text("at ")
    expect(figure.locator(".legend button", has_text="cwnd")).to_contain_text("kB")


def test_the_ladder_crosses_out_what_was_dropped_and_tells_all_fields(
    opener: Opener, page_of: Path, report: Report
) -> None:
    opened = opener(page_of)
    (connection,) = report.collected.connections
    first = [row for row, _ in zip(connection.segments, range(120), strict=False)]
    ladder = opened.page.locator(".ladder")
    ladder.scroll_into_view_if_needed()
    assert ladder.locator(".segment").count() == len(first)
    assert ladder.locator(".segment.dropped .cross").count() == sum(row.kind & DROPPED > 0 for row in first)
    for state in ("SYN-SENT", "SYN-RECEIVED", "ESTABLISHED"):
        assert ladder.get_by_text(state, exact=True).count() >= 1
    ladder.locator(".segment").first.locator(".hit").hover(force=True)
    tip = opened.page.locator("#tip")
    expect(tip).to_be_visible()
    for field in ("SYN", "seq", "window scale", "MSS", "1460", "permitted"):
        expect(tip).to_contain_text(field)

    opened.page.get_by_role("button", name="next drop").click()
    marked = ladder.locator(".segment.marked")
    expect(marked).to_have_class(re.compile("dropped"))
    expect(marked.locator(".why")).to_contain_text(re.compile("loss, at alice|queue, at r1|down, at"))
    opened.page.keyboard.press("ArrowDown")
    row = int(marked.get_attribute("data-row") or 0)
    expect(ladder.locator(f'.segment[data-row="{row + 1}"]')).to_be_focused()


def test_a_click_on_a_segment_shows_it_in_the_ladder(opener: Opener, page_of: Path) -> None:
    opened = opener(page_of)
    opened.go_through()
    place = opened.page.evaluate("""() => {
        const {plot} = document.querySelector("figure.plot"), rows = report.opened(report.data.connections[0]);
        const i = rows.lists[1].again.find((i) => rows.len[i]);  // no SYN, which a slow machine may send again
        report.zoom.around(rows.at[i], 0.02);
        document.querySelector("figure.plot").scrollIntoView();
        const {left, top} = plot.over.getBoundingClientRect();
        return [i, left + plot.valToPos(rows.at[i], "x"), top + plot.valToPos(rows.seq[i] + rows.len[i] / 2, "y")];
    }""")
    opened.page.mouse.click(place[1], place[2])
    marked = opened.page.locator(".segment.marked")
    expect(marked).to_be_visible()
    assert int(marked.get_attribute("data-row") or 0) == place[0]


def test_all_events_are_on_one_clock(opener: Opener, page_of: Path, events: dict[str, list[dict[str, Any]]]) -> None:
    opened = opener(page_of)
    opened.page.locator("#events").scroll_into_view_if_needed()
    drops = sum(event["event"] == "dropped" for own in events.values() for event in own)
    for kind in ("events of the lab", "logs", "states", "timers"):
        opened.page.get_by_label(kind, exact=True).uncheck()
    expect(opened.page.locator("#events .buttons .note")).to_contain_text(f"{drops} events")
    opened.page.get_by_label("events of the lab", exact=True).check()
    opened.page.get_by_label("logs", exact=True).check()
    times = [float(text) for text in opened.page.locator(".timeline .time").all_inner_texts()]
    assert len(times) > 10
    assert times == sorted(times)
    opened.page.get_by_label("find in events").fill("link narrow")
    expect(opened.page.locator(".timeline .line.lab .what").first).to_have_text("link narrow: down")
    began = float(opened.page.locator(".timeline .line.lab .time").first.inner_text())
    assert began == pytest.approx(0.6, abs=0.2)
    opened.page.get_by_label("find in events").fill("connection to 127.")
    expect(opened.page.locator(".timeline .line.log").first).to_be_visible()


def test_the_theme_can_be_chosen(opener: Opener, page_of: Path) -> None:
    opened = opener(page_of)
    colours = []
    for _ in range(3):
        opened.page.locator("#theme").click()
        colours.append(opened.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == [
        "rgb(255, 255, 255)",
        "rgb(20, 23, 29)",
        "rgb(255, 255, 255)",
    ]  # light, dark, as the system has it


def test_it_can_be_printed(opener: Opener, page_of: Path) -> None:
    opened = opener(page_of, color_scheme="dark")
    opened.page.pdf(path=SCREENSHOTS / "printed.pdf", format="A4")
    assert (SCREENSHOTS / "printed.pdf").read_bytes().startswith(b"%PDF")
    assert opened.page.locator("figure.plot canvas").count() == 6  # also those that nobody has scrolled to


NASTY = "</script><img src=x onerror=alert(1)><script>alert(2)</script>&amp;\u2028\"'`${alert(3)}"


def test_names_and_logs_are_text_whatever_is_in_them(opener: Opener, run_folder: Path, tmp_path: Path) -> None:
    """A run folder may be somebody else's: what is in it must not become a program in the page."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {
        "lab": NASTY,
        "verdict": f"failed: {NASTY}",
        "status": 1,
        "failure": NASTY,
        "notes": [NASTY],
        "error": NASTY,
    }
    manifest["checks"] = [{"check": NASTY, "ok": False, "message": NASTY, "comparisons": []}]
    manifest["events"] = [{"at": 0.1, "event": NASTY, "done": 0.1}]
    manifest["versions"] = {NASTY: NASTY}
    manifest["backend"] = {"name": NASTY, "why": NASTY}
    manifest["apps"] = {NASTY: {**manifest["apps"]["client"], "command": [NASTY], "host": "bob", "ended": NASTY}}
    manifest["links"][0]["asked"]["drops"] = [{"kind": NASTY, "first": 1, "last": 2}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "hosts" / "alice" / "chitcpd.log").write_text(f"[00:00:00.1] {NASTY}\n{NASTY}\n")
    trace = folder / "hosts" / "alice" / "trace.jsonl"
    trace.write_text(trace.read_text().replace('"why": "loss"', f'"why": {json.dumps(NASTY)}'))
    Report(folder).write(folder / "report.html")

    opened = opener(folder / "report.html")
    opened.go_through()
    assert "alert(1)" in opened.page.title()
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("script").count() == 4
    assert NASTY.split("\u2028")[0] in (opened.page.locator("h1").text_content() or "")
    opened.page.get_by_label("find in events").fill("onerror")
    expect(opened.page.locator(".timeline .line.log").first).to_contain_text("onerror")


def test_a_run_without_any_segment_has_a_report(opener: Opener, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text((run_folder / "manifest.json").read_text())
    Report(tmp_path).write(tmp_path / "report.html")
    opened = opener(tmp_path / "report.html")
    opened.go_through()
    assert "No connection was seen." in opened.shows("#connections")


def test_of_very_many_connections_those_with_the_most_data_are_shown(
    opener: Opener, run_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text((run_folder / "manifest.json").read_text())
    report = Report(tmp_path)
    for number in range(300):
        ends = {"local": "127.64.0.2:7000", "peer": f"127.64.0.11:{5000 + number}"}
        back = {"local": ends["peer"], "peer": ends["local"]}
        data = {"flags": ".", "seq": 1, "len": number, "wnd": 512, "ack": 1}
        report.collected.add(report.collected.zero + number, 0, {"event": "sent", **ends, **data})
        report.collected.add(report.collected.zero + number, 2, {"event": "received", **back, **data})
    report.write(tmp_path / "report.html")
    opened = opener(tmp_path / "report.html")
    assert opened.page.locator("details.connection").count() == 100
    assert opened.page.locator("#connection-300").count() == 1
    opened.page.get_by_role("button", name="show all").click()
    assert opened.page.locator("details.connection").count() == 300


# ---- as much as anybody has --------------------------------------------------------------------------------------

SEGMENTS = 1_000_000


def many(segments: int) -> Iterator[tuple[float, int, dict[str, Any]]]:
    """Events of a long transfer from alice to bob: of 50 segments one is lost, and sent again."""
    alice = {"local": "127.64.0.2:7000", "peer": "127.64.0.11:5000"}
    bob = {"local": "127.64.0.11:5000", "peer": "127.64.0.2:7000"}
    seq, number, t = 1, 0, 0.0
    state = 1
    while number < segments:
        state = state * 1103515245 + 12345 & 0x7FFFFFFF  # so that times do not compress better than real ones
        t += 20e-6 + (state >> 8) % 60 * 1e-6
        data = {"flags": ".", "seq": seq % 2**32, "len": 1448, "wnd": 512, "ack": 1, "timestamp": [number, 0]}
        yield t, 0, {"event": "sent", **alice, **data}
        if number % 50 == 7:
            yield t, 0, {"event": "dropped", "why": "loss", "direction": "sent", "bytes": 1480, **alice, **data}
            yield t, 0, {"event": "sent", **alice, **data}
            number += 1
        yield t + 9e-6, 1, {"event": "received", **bob, **data}
        seq += 1448
        number += 1
        if number % 3 == 0:
            ack = {"flags": ".", "seq": 1, "len": 0, "wnd": 512, "ack": seq % 2**32, "timestamp": [number, 0]}
            yield t + 10e-6, 1, {"event": "sent", **bob, **ack}
            yield t + 19e-6, 0, {"event": "received", **alice, **ack}
            yield (
                t + 19e-6,
                0,
                {"event": "tcp", "connection": 1, **alice, "cwnd": 14480 + (state >> 4) % 90000, "srtt": 0.02},
            )
            number += 1


@pytest.mark.alone
def test_a_million_segments_open_in_three_seconds(opener: Opener, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(
        json.dumps(json.loads((run_folder / "manifest.json").read_text()) | {"began": None})
    )
    report = Report(tmp_path)
    for event in many(SEGMENTS):
        report.collected.add(*event)
    assert report.summary()["segments"] >= SEGMENTS
    report.write(tmp_path / "report.html")

    opened = opener(tmp_path / "report.html")
    took = opened.page.evaluate("""async () => {
        document.querySelector("figure.plot").scrollIntoView();
        while (!report.plots.size) await new Promise((done) => setTimeout(done, 5));
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        return performance.now() / 1000;
    }""")
    assert took < 3, f"{took:.2f} s from the start of the page to the first plot"
    size = (tmp_path / "report.html").stat().st_size
    print(f"{took:.2f} s, {size / 1e6:.1f} MB")
    (connection,) = report.collected.connections
    kept = opened.page.evaluate(
        "report.opened(report.data.connections[0]).lists.map(({again, dropped}) => [again.length, dropped.length])"
    )
    assert kept[0] == [connection.ends[0].retransmissions, connection.ends[0].dropped["loss"]]
    opened.page.screenshot(path=SCREENSHOTS / "million.png")


def test_the_next_drop_may_be_the_very_first_segment(opener: Opener, page_of: Path) -> None:
    opened = opener(page_of)
    opened.page.evaluate(f"""() => {{
        const rows = report.opened(report.data.connections[0]);
        for (let i = 0; i < rows.n; i++) rows.kind[i] &= ~{DROPPED};
        for (const i of [0, 2]) rows.kind[i] |= {DROPPED};
    }}""")
    opened.page.get_by_role("button", name="first", exact=True).click()
    for row in ("0", "2"):
        opened.page.get_by_role("button", name="next drop").click()
        expect(opened.page.locator(".ladder .segment.marked")).to_have_attribute("data-row", row)


def test_nothing_follows_the_zoom_that_is_no_longer_shown(opener: Opener, page_of: Path) -> None:
    opened = opener(page_of)
    opened.go_through()
    before = opened.page.evaluate("report.zoom.followers.size")
    for side in (0, 1):
        opened.page.locator("input[name=side-1]").nth(side).check()
        opened.go_through()
    assert opened.page.evaluate("report.zoom.followers.size") == before
