"""What `chitcpd ctl sockets` tells of connections: for programs as JSON, for eyes as `ss -ti` writes it."""

from __future__ import annotations

import textwrap
from dataclasses import fields
from typing import Any

from chitcpd.driver import Endpoint
from chitcpd.tcp.api import Info, Variables

Json = dict[str, Any]

_HEADINGS = ("State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port")
_COUNTERS = (
    "bytes_sent",
    "bytes_received",
    "segs_out",
    "segs_in",
    "data_segs_out",
    "data_segs_in",
    "retransmissions",
)
_INDENT = "\t "
_TAB = 8  # columns
_LEAST_WIDTH = 40


def _names(values: Variables | Info) -> list[str]:
    return [field.name for field in fields(values)]


def describe(endpoint: Endpoint, now: float) -> Json:
    """A connection: its variables, its buffers, `info` (what its TCP tells of itself) and `counters`.

    Bytes and seconds; `last_sent` and `last_received` are how long ago data went and came, if any did.
    """
    connection, counters = endpoint.connection, endpoint.counters
    variables, info = connection.variables(), connection.info()
    described: Json = {name: getattr(variables, name) for name in _names(variables) if name != "state"}
    described |= {"readable": connection.readable, "writable": connection.writable}
    told = {name: getattr(info, name) for name in _names(info)}
    described["info"] = {name: value for name, value in told.items() if value is not None}
    counted: Json = {name: getattr(counters, name) for name in _COUNTERS}
    if counters.bytes_sent < 1 << 32:  # else the numbers have gone round
        counted["bytes_acked"] = min(max((variables.snd_una - variables.iss) % 2**32 - 1, 0), counters.bytes_sent)
    if counters.data_segs_out:
        counted["last_sent"] = now - counters.last_sent
    if counters.data_segs_in:
        counted["last_received"] = now - counters.last_received
    described["counters"] = counted
    return described


def table(answer: Json, columns: int) -> str:
    """The answer to `sockets`, for a terminal that is so wide.

    Of a listener, Recv-Q is how many wait for accept, and Send-Q how many may; of a connection, the bytes that are
    not read and those that are not acknowledged.
    """
    rows = [(_row(sock), _details(sock)) for sock in answer["sockets"]]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *(row for row, _ in rows), strict=True)]
    lines = [_line(_HEADINGS, widths)]
    for row, details in rows:
        lines.append(_line(row, widths))
        lines += [_INDENT + line for line in textwrap.wrap(details, max(columns - _TAB - 1, _LEAST_WIDTH))]
    for peer, counts in answer["impairments"].items():
        lines.append(f"link to {peer}: " + (", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no losses"))
    return "\n".join(lines)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _row(sock: Json) -> tuple[str, ...]:
    if "backlog" in sock:
        queues = (sock["waiting"], sock["backlog"])
    else:
        queues = (sock.get("readable", 0), (sock.get("snd_nxt", 0) - sock.get("snd_una", 0)) % 2**32)
    return (sock["state"], str(queues[0]), str(queues[1]), sock["local"], sock.get("peer", "*:*"))


def _details(sock: Json) -> str:
    """Words as ss has them: windows in segments, times in milliseconds; empty if there is no connection."""
    if "info" not in sock:
        return ""
    info, counters = sock["info"], sock["counters"]
    unacknowledged = (sock["snd_nxt"] - sock["snd_una"]) % 2**32
    mss = info.get("mss")
    words = ["ts" if info.get("timestamps") else "", "sack" if info.get("sack") else "", info.get("congestion", "")]
    if info.get("snd_wscale") or info.get("rcv_wscale"):
        words.append(f"wscale:{info.get('snd_wscale', 0)},{info.get('rcv_wscale', 0)}")
    words.append(_milliseconds("rto", info.get("rto")))
    if "srtt" in info:
        words.append(f"{_milliseconds('rtt', info['srtt'])}/{_number(info.get('rttvar', 0.0))}")
    words += [_milliseconds("minrtt", info.get("min_rtt")), f"mss:{mss}" if mss else ""]
    if mss:
        words += [f"{name}:{info[name] // mss}" for name in ("cwnd", "ssthresh") if name in info]
    words += [_count(name, counters.get(name)) for name in ("bytes_sent", "bytes_acked", "bytes_received")]
    words += [_count(name, counters.get(name)) for name in ("segs_out", "segs_in", "data_segs_out", "data_segs_in")]
    words.append(_milliseconds("lastsnd", counters.get("last_sent")))
    words.append(_milliseconds("lastrcv", counters.get("last_received")))
    words.append(_count("unacked", -(-unacknowledged // mss) if mss else None))
    words.append(_count("retrans", counters.get("retransmissions")))
    words += [_count(name, info.get(name)) for name in ("lost", "sacked", "backoff")]
    if info.get("recovery", "open") != "open":
        words.append(info["recovery"])
    return " ".join(filter(None, words))


def _count(name: str, value: int | None) -> str:
    return f"{name}:{value}" if value else ""


def _milliseconds(name: str, seconds: float | None) -> str:
    return f"{name}:{_number(seconds)}" if seconds is not None else ""


def _number(seconds: float) -> str:
    """Milliseconds, to the microsecond."""
    return f"{round(seconds * 1000, 3):g}" if seconds < 100 else f"{seconds * 1000:.0f}"
