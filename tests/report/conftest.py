"""A real run on loopback, of which all tests here look at the report; and a browser, where there is one.

Without chromium the tests in a browser are skipped, with the reason; with REQUIRE_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from testbed.report import Report
from tests.testbed.conftest import PROJECT, _free_port, own_state

__all__ = ["own_state"]  # a fixture
SCREENSHOTS = PROJECT / "build" / "report"
# What alice sends is lost on the first link now and then, and waits before the second, in a queue that is too short.
BOTTLENECK = """
name: bottleneck
seed: 5
hosts: {alice: {}, bob: {}}
routers: {r1: {}}
links:
  - {endpoints: [alice, r1], "alice->r1": {loss: 3%}}
  - {endpoints: [r1, bob], name: narrow, delay: 5ms, rate: 10mbit, queue: 5pkt}
apps:
  server:
    host: alice
    run: [python, -m, chisocket.apps.file, serve, --port, "7000"]
    files: {payload.bin: {random: 600kB}}
    ready: {listening: 7000}
  client:
    host: bob
    run: [python, -m, chisocket.apps.file, fetch, "alice:7000", payload.bin]
    needs: [server]
    expect: {exit: 0}
events:
  - {at: 600ms, link: narrow, down: 100ms}
checks:
  - integrity: client
"""


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run of BOTTLENECK."""
    here = tmp_path_factory.mktemp("bottleneck")
    (here / "bottleneck.yaml").write_text(BOTTLENECK)
    runtime = Path(tempfile.mkdtemp(prefix="ct-"))  # a UNIX socket's path must be short
    environment = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(runtime),
        "CHITCPD_PORT": str(_free_port()),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
    }
    command = [sys.executable, "-m", "testbed", "run", "bottleneck.yaml", "--backend", "local"]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nreport: runs/bottleneck/" in done.stdout
    yield (here / "runs" / "bottleneck" / "latest").resolve()
    shutil.rmtree(runtime)


@pytest.fixture(scope="session")
def report(run_folder: Path) -> Report:
    """Its report."""
    return Report(run_folder)


@pytest.fixture(scope="session")
def events(run_folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The events of each node, read by no code of ours."""
    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in run_folder.glob("hosts/*/trace.jsonl")
    }


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a screen."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        why = "there is no chromium (Debian and Ubuntu: apt-get install chromium)"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(f"{why} (REQUIRE_BROWSER is set)", pytrace=False)
        pytest.skip(why)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@dataclass
class Opened:
    """A report in the browser, and what it complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def shows(self, selector: str) -> str:
        """The text of an element."""
        return self.page.locator(selector).inner_text()

    def go_through(self) -> None:
        """Scroll from the top to the end, so that everything is drawn."""
        self.page.evaluate("""async () => {
            for (let y = 0; y < document.body.scrollHeight; y += 500) {
                scrollTo(0, y);
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            }
            scrollTo(0, 0);
            await new Promise((done) => requestAnimationFrame(done));
        }""")

    def zoom(self) -> list[float]:
        """What all plots show, from the first to the last second."""
        found: list[float] = self.page.evaluate("[report.zoom.min, report.zoom.max]")
        return found

    def scales(self) -> list[list[float]]:
        """The same, as each plot has it."""
        found: list[list[float]] = self.page.evaluate(
            "[...report.plots].map(({plot}) => [plot.scales.x.min, plot.scales.x.max])"
        )
        return found


@pytest.fixture
def opener(browser: Browser) -> Iterator[Any]:
    """Opens a report: a function of its path, and of what a page of playwright is made with."""
    opened: list[Opened] = []

    def opens(path: Path, **context: Any) -> Opened:
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **context})
        one = Opened(page)
        page.on("console", lambda message: one.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: one.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: one.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: _expect_file(request.url, one))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]", timeout=30_000)
        opened.append(one)
        return one

    yield opens
    for one in opened:
        one.page.close()
        assert one.complaints == []


def _expect_file(url: str, opened: Opened) -> None:
    if not url.startswith(("file:", "data:")):
        opened.complaints.append(f"wants {url}")
