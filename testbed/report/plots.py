"""A single plot of a connection as SVG or PNG, for a paper or a slide; matplotlib draws it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from testbed.report.collect import Connection, End
from testbed.report.curves import Curve
from testbed.report.segments import AGAIN, ARRIVED, DROPPED, FROM_B, SYN_FIN_AGAIN, UNSENT, Row
from testbed.unavailable import Unavailable
from testbed.wrong import Wrong

if TYPE_CHECKING:
    from testbed.report import Report

_DATA, _AGAIN, _ACK, _WINDOW, _SACK = "#0072b2", "#d55e00", "#00805f", "#c98a00", "#b0558f"  # as in report.css
_LIMIT = "#5c6575"
_COLUMNS = 2000  # that can be told from each other: of what is in one of them only the reach is drawn
_STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "figure.figsize": (9, 5),
    "font.size": 10,
    "grid.color": "#dfe3ea",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "testbed",  # the same run gives the same file
}


class NoSuchPlot(Wrong):
    """The run has no such connection, or not what the plot shows; the message says what there is."""


def draw(
    report: Report,
    name: str,
    output: Path | IO[bytes],
    format: str,  # noqa: A002  # as the option
    number: int | None,
) -> None:
    """Draw the plot of this name, one of PLOTS, for a connection; None: for that with the most data.

    Raises NoSuchPlot, and Unavailable without matplotlib or if it can't be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Unavailable("plots need matplotlib, which is not installed.", "pip install matplotlib") from error
    connection, sender, receiver = _choose(report, number)
    with rc_context(_STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        axes.set_title(
            f"{report.manifest['lab']}: what {sender.node} sends to {receiver.node}", loc="left", parse_math=False
        )
        axes.set_xlabel("seconds")
        PLOTS[name](axes, report, connection, sender)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
        metadata = {"Date": None} if format == "svg" else {"Software": None}
        try:
            figure.savefig(output, format=format, metadata=metadata)
        except OSError as error:
            if isinstance(output, Path):
                raise cannot_write(output, error) from error
            raise


def cannot_write(path: Path, error: OSError) -> Unavailable:
    """What to tell of a file that can't be written."""
    return Unavailable(f"{path} can't be written: {error.strerror}.", "-o FILE writes it elsewhere.")


def _choose(report: Report, number: int | None) -> tuple[Connection, End, End]:
    connections = report.collected.connections
    if not connections:
        raise NoSuchPlot("the run has no connection to plot")
    if number is None:
        connection = max(connections, key=lambda one: max(end.bytes_arrived for end in one.ends))
    elif number <= len(connections):
        connection = connections[number - 1]
    else:
        raise NoSuchPlot(f"the run has no connection {number}, it has {len(connections)}")
    first, second = connection.ends
    return (connection, second, first) if second.bytes_arrived > first.bytes_arrived else (connection, first, second)


# ---- what is drawn ---------------------------------------------------------------------------------------------


def _time_sequence(axes: Any, _report: Report, connection: Connection, sender: End) -> None:
    own = FROM_B if sender is connection.ends[1] else 0
    rows = [row for row in connection.segments if row.kind & FROM_B == own and (row.len or row.flags & 3)]
    again = AGAIN | SYN_FIN_AGAIN
    for chosen, colour, label in (
        ([row for row in rows if not row.kind & again], _DATA, "segments"),
        ([row for row in rows if row.kind & again], _AGAIN, "sent again"),
    ):
        bars = _reaches((row.at, row.seq, row.seq + max(row.len, 1)) for row in chosen)
        _bars(axes, bars, colour, label, width=1.2 if colour == _DATA else 2.4)
    _bars(axes, _reaches(_newest_blocks(connection, own)), _SACK, "SACK", width=1.6)
    dropped = [(row.at / 1e6, row.seq + row.len / 2) for row in rows if row.kind & DROPPED]
    _crosses(axes, dropped)
    low, high = axes.get_ylim()
    _steps(axes, sender.acked, _ACK, "acknowledged")
    if max(sender.edge.v, default=0) <= high + 0.6 * (high - low):  # further up it would leave no room
        _steps(axes, sender.edge, _WINDOW, "window")
    axes.set_ylabel("sequence number")
    _unit(axes, _count)


def _newest_blocks(connection: Connection, own: int) -> Iterable[tuple[int, int, int]]:
    place = 0
    for row in connection.segments:
        if row.sacks and row.kind & FROM_B != own and row.kind & ARRIVED:
            arrived = row.at + (0 if row.kind & UNSENT else row.way)
            yield arrived, connection.segments.blocks[2 * place], connection.segments.blocks[2 * place + 1]
        place += row.sacks


def _windows(axes: Any, _report: Report, connection: Connection, sender: End) -> None:
    _steps(axes, sender.curves.get("in_flight"), _DATA, "in flight", width=0.8)
    _steps(axes, sender.curves.get("ssthresh"), _WINDOW, "ssthresh", style="--")
    _steps(axes, sender.curves.get("cwnd"), _ACK, "cwnd", width=2)
    _crosses(axes, [(row.at / 1e6, 0) for row in _dropped(connection, sender)])
    axes.set_ylabel("bytes")
    _unit(axes, _count)


def _round_trip(axes: Any, _report: Report, connection: Connection, sender: End) -> None:
    axes.set_yscale("log")
    until = connection.segments[-1].at if len(connection.segments) else 0
    _steps(axes, sender.curves.get("rto"), _AGAIN, "RTO", until=until, style="--")
    _steps(axes, sender.curves.get("srtt"), _DATA, "smoothed round trip", until=until)
    _steps(axes, sender.curves.get("min_rtt"), _ACK, "least", until=until, style=":")
    axes.set_ylabel("seconds")


def _goodput(axes: Any, report: Report, connection: Connection, sender: End) -> None:
    width, curve = sender.goodput.rate()
    bits = Curve()
    for t, value in zip(curve.t, curve.v, strict=True):
        bits.add(t, value * 8)
    _steps(axes, bits, _ACK, f"goodput, over {width / 1000:g} ms")
    if sender.wait is not None:
        direction = sender.wait.direction
        _steps(
            axes,
            direction.rates(),
            _LIMIT,
            f"rate of {_plain(direction.name)}",
            until=report.collected.last,
            style="--",
        )
    _crosses(axes, [(row.at / 1e6, 0) for row in _dropped(connection, sender)])
    axes.set_ylabel("bit/s")
    _unit(axes, _count)


def _queue(axes: Any, report: Report, connection: Connection, sender: End) -> None:
    wait = sender.wait
    if wait is None:
        raise NoSuchPlot(f"no link on the way of what {sender.node} sends has a rate, so there is no queue to plot")
    direction = wait.direction
    _steps(
        axes,
        report.collected.queues[direction.index].curve(),
        _DATA,
        f"queue before {_plain(direction.name)}",
        width=0.8,
    )
    limits = direction.limits()
    _steps(axes, limits, _LIMIT, "limit", until=report.collected.last, style="--")
    _crosses(axes, [(row.at / 1e6, _value(limits, row.at)) for row in _dropped(connection, sender)])
    axes.set_ylabel("packets" if direction.in_packets else "bytes")
    _unit(axes, _count)


def _one_way(axes: Any, _report: Report, connection: Connection, sender: End) -> None:
    own = FROM_B if sender is connection.ends[1] else 0
    ways = _reaches(
        (row.at, row.way, row.way)
        for row in connection.segments
        if row.kind & (FROM_B | ARRIVED | UNSENT) == own | ARRIVED
    )
    axes.plot([t / 1e6 for t, *_ in ways], [high / 1e6 for *_, high in ways], ".", ms=2, color=_DATA, label="segments")
    _crosses(axes, [(row.at / 1e6, 0) for row in _dropped(connection, sender)])
    axes.set_ylabel("seconds from sender to receiver")


PLOTS: dict[str, Callable[[Any, Report, Connection, End], None]] = {
    "time-sequence": _time_sequence,
    "windows": _windows,
    "round-trip": _round_trip,
    "goodput": _goodput,
    "queue": _queue,
    "one-way": _one_way,
}


# ---- marks -----------------------------------------------------------------------------------------------------


def _dropped(connection: Connection, sender: End) -> list[Row]:
    own = FROM_B if sender is connection.ends[1] else 0
    return [row for row in connection.segments if row.kind & (FROM_B | DROPPED) == own | DROPPED]


def _reaches(bars: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """(time, least, greatest): those that touch or overlap in one of many columns are one."""
    found = sorted(bars)
    if len(found) <= _COLUMNS:
        return found
    width = max(1, (found[-1][0] - found[0][0]) // _COLUMNS)
    wide: list[tuple[int, int, int]] = []
    for t, low, high in sorted((t // width * width, low, high) for t, low, high in found):
        if wide and wide[-1][0] == t and low <= wide[-1][2]:
            wide[-1] = t, wide[-1][1], max(high, wide[-1][2])
        else:
            wide.append((t, low, high))
    return wide


def _bars(axes: Any, bars: list[tuple[int, int, int]], colour: str, label: str, width: float) -> None:
    if bars:
        times = [t / 1e6 for t, *_ in bars]
        axes.vlines(times, [low for _, low, _ in bars], [high for *_, high in bars], colour, lw=width, label=label)


def _crosses(axes: Any, places: list[tuple[float, float]]) -> None:
    if places:
        axes.plot(*zip(*places, strict=True), "x", color="black", ms=5, label="dropped", clip_on=False)


def _steps(
    axes: Any, curve: Curve | None, colour: str, label: str, *, until: int = 0, width: float = 1.4, style: str = "-"
) -> None:
    """A curve of steps, its last value up to `until`."""
    if curve is not None and curve.t:
        thin = curve.thinned(4 * _COLUMNS)
        times = [t / 1e6 for t in [*thin.t, max(thin.t[-1], until)]]
        axes.step(times, [*thin.v, thin.v[-1]], where="post", color=colour, lw=width, ls=style, label=label)


def _value(curve: Curve, t: int) -> float:
    """What a curve is at a time; 0 where it is nothing."""
    value = curve.v[max(0, bisect_right(curve.t, t) - 1)]
    return 0.0 if math.isnan(value) else value


def _plain(name: str) -> str:
    """A name that matplotlib does not take for a formula."""
    return name.replace("$", r"\$")


def _unit(axes: Any, text: Callable[[float], str]) -> None:
    axes.yaxis.set_major_formatter(lambda value, _place: text(value))


def _count(value: float) -> str:
    """With k, M or G."""
    if value == 0 or not math.isfinite(value):
        return "0"
    power = min(3, max(0, int(math.log10(abs(value)) // 3)))
    return f"{value / 1000**power:g}{('', 'k', 'M', 'G')[power]}"
