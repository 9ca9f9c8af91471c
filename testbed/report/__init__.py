"""The report of a run: its folder is read, and becomes one HTML file, or numbers, or a single plot (docs/report.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from testbed.report import page, read
from testbed.report.collect import STATES, TIMERS, Collector, Connection, End, Times
from testbed.report.curves import Curve
from testbed.report.paths import Network
from testbed.report.plots import PLOTS, NoSuchPlot, cannot_write, draw
from testbed.report.read import Unreadable
from testbed.report.summary import summary
from testbed.whole import whole

__all__ = ["NAME", "PLOTS", "NoSuchPlot", "Report", "Unreadable"]
NAME = "report.html"


class Report:
    """A run that was read."""

    def __init__(self, folder: Path) -> None:
        """Raises Unreadable."""
        self.folder = folder
        self.manifest = read.manifest(folder)
        try:
            self.network = Network(self.manifest)
            self._traces = read.Traces(folder, self.network.nodes)
            began = self.manifest.get("began")
            self.collected = Collector(self.network, read.finite(began) if began is not None else None)
            self.summary()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Unreadable(f"{folder / 'manifest.json'} is not as docs/output.md says: {error!r}") from error
        for event in self._traces.events(self.collected.too_early):
            self.collected.add(*event)
        self.collected.finish()

    def summary(self) -> dict[str, Any]:
        """Its numbers (docs/schemas/report.schema.json)."""
        collected = self.collected
        return summary(self.manifest, collected.connections, collected.strays_dropped, collected.last)

    def html(self) -> str:
        """The whole report. Raises Unreadable."""
        columns = page.Columns()
        try:
            data = self._data(columns)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unreadable(f"{self.folder / 'manifest.json'} is not as docs/output.md says: {error!r}") from error
        return page.html(f"{self.manifest['lab']}: {self.manifest['verdict']}", data, columns)

    def write(self, path: Path) -> None:
        """Write it whole, or not at all. Raises Unreadable, and Unavailable if it can't be written."""
        text = self.html()
        try:
            with whole(path) as fresh:
                fresh.write_text(text, encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, error) from error

    def plot(self, name: str, output: Path | IO[bytes], format: str, connection: int | None = None) -> None:  # noqa: A002
        """Write one plot. Raises NoSuchPlot, and Unavailable without matplotlib or if it can't be written."""
        draw(self, name, output, format, connection)

    # ---- as data for the page ------------------------------------------------------------------------------------

    def _data(self, columns: page.Columns) -> dict[str, Any]:
        manifest, collected, told = self.manifest, self.collected, self.summary()
        kept = ("topology", "seed", "failure", "error", "notes", "checks", "events", "versions", "backend", "probes")
        return {
            **told,
            **{key: manifest[key] for key in kept},
            "run_seconds": manifest["seconds"]["run"],
            "placed": manifest.get("began") is not None,  # whether the events' times are on the plots' clock
            "hosts": manifest["hosts"],
            "routers": manifest["routers"],
            "nodes": self.network.nodes,
            "links": [
                {
                    **link,
                    "dropped": collected.drops[index],
                    "ends": self.network.on_link.get(link["link"], []),
                    "rates": _curve(columns, self.network.directions[index].rates()),
                }
                for index, link in enumerate(manifest["links"])
            ],
            "apps": [self._app(name, app) for name, app in manifest["apps"].items()],
            "reasons": collected.reasons,
            "states": STATES,
            "timers": TIMERS,
            "connections": [
                {**numbers, **self._connection(columns, connection)}
                for numbers, connection in zip(told["connections"], collected.connections, strict=True)
            ],
            "queues": self._queues(columns),
            "logs": [self._log(node) for node in self.network.nodes],
            "strays": [[stray.t / 1e6, self.network.nodes[stray.node], stray.text] for stray in collected.strays],
            "unreadable": collected.unreadable + self._traces.unreadable,
            "left_out": collected.left_out,
        }

    def _connection(self, columns: page.Columns, connection: Connection) -> dict[str, Any]:
        rows = connection.segments
        return {
            "rows": {name: columns.planes(letter, size, planes) for name, letter, size, planes in rows.columns()},
            "blocks": columns.array(rows.blocks),
            "options": {
                row: [options.mss, options.window_scale, options.sack_permitted]
                for row, options in rows.options.items()
            },
            "scaled": connection.scales,
            "ends": [self._end(columns, end) for end in connection.ends],
        }

    def _end(self, columns: page.Columns, end: End) -> dict[str, Any]:
        width, goodput = end.goodput.rate()
        return {
            "isn": end.isn,
            "scale": end.scale,
            "traced": end.traced,
            "wait": None if end.wait is None else end.wait.direction.index,
            "curves": {name: _curve(columns, curve) for name, curve in end.curves.items()},
            "acked": _curve(columns, end.acked),
            "edge": _curve(columns, end.edge),
            "goodput": _curve(columns, goodput),
            "goodput_width": width / 1e6,
            "states": _times(columns, end.states),
            "timers": _times(columns, end.timers),
        }

    def _queues(self, columns: page.Columns) -> list[dict[str, Any]]:
        directions = {direction.index: direction for direction in self.network.directions}
        told = []
        for index, level in self.collected.queues.items():
            direction, curve = directions[index], level.curve()
            if curve.t:
                told.append(
                    {
                        "link": index,
                        "packets": direction.in_packets,
                        "limits": _curve(columns, direction.limits()),
                        **dict(zip(("t", "v"), _curve(columns, curve), strict=True)),
                    }
                )
        return told

    def _log(self, node: str) -> list[list[object]]:
        began = self.manifest.get("began")
        near = float(began) if began is not None else read.moment(str(self.manifest["run_id"]))
        lines = read.log(read.inside(self.folder, "hosts", node, "chitcpd.log"), near)
        zero = self.collected.zero
        return [[None if line.t is None else round(line.t - zero, 6), line.text] for line in lines]

    def _app(self, name: str, app: Mapping[str, Any]) -> dict[str, Any]:
        output = {stream: read.tail(read.inside(self.folder, "apps", name, stream)) for stream in ("stdout", "stderr")}
        return {"name": name, **app, **output}


def _curve(columns: page.Columns, curve: Curve) -> list[list[object]]:
    thin = curve.thinned()
    return [columns.array(thin.t), columns.array(thin.v)]


def _times(columns: page.Columns, times: Times) -> list[list[object]]:
    return [columns.array(times.t), columns.array(times.what)]
