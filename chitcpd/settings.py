"""The settings of a TCP as people write them: `rto_min=200ms`, `receive_buffer=64KiB`, `nagle=off`.

TABLE says what each is for, which values make sense, and who defines it; the command line, the topology file and
docs/tcp.md all read it. Names and defaults are those of chitcpd.tcp.api.Config.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chitcpd import units
from chitcpd.tcp.api import PROFILES, Config

CONGESTION = ("cubic", "newreno", "none")  # those of chitcpd/tcp/congestion.py: a test compares them


@dataclass(frozen=True, slots=True)
class Setting:
    """What a setting is for, which values make sense, and where it is defined."""

    meaning: str
    source: str
    lowest: str = ""  # as people write it; nothing for what is on or off, or a name
    highest: str = ""
    example: str = ""  # if the default is off


_SIZE = ("1B", "1GiB")  # RFC 7323 can say no larger window
_MSS = ("64B", "65495B")  # an IPv4 packet holds no more
_TIME = ("1ms", "1440min")
_PROBE_TIME = ("1s", "1440min")  # below, the peer's limit of challenge ACKs (RFC 5961 §7) would leave probes unanswered

TABLE = {
    "mss": Setting("the largest segment that we take, announced in our SYN", "RFC 9293 §3.7.1", *_MSS),
    "send_mss": Setting("the largest that we send, whatever the peer takes", "RFC 9293 §3.7.1", *_MSS),
    "send_buffer": Setting("holds what is not acknowledged yet", "RFC 9293 §3.10.2", *_SIZE),
    "receive_buffer": Setting("holds what is not read yet; the largest window", "RFC 9293 §3.8.6", *_SIZE),
    "window_scaling": Setting("windows above 64 KiB", "RFC 7323 §2"),
    "timestamps": Setting("a round trip from every ACK, and PAWS", "RFC 7323 §3"),
    "sack": Setting("tell, and heed, what has come beyond a gap", "RFC 2018, 2883, 6675"),
    "rack": Setting("tell losses by time, probe for those at the tail; needs sack", "RFC 8985"),
    "rto_initial": Setting(
        "the retransmission time-out (RTO), until a round trip was measured", "RFC 6298 §2.1", *_TIME
    ),
    "rto_min": Setting("the RTO is never less", "RFC 6298 §2.4", *_TIME),
    "rto_max": Setting("the RTO is never more, however often it doubled", "RFC 6298 §2.5", *_TIME),
    "clock_granularity": Setting("what the clock can tell apart: G in the RTO", "RFC 6298 §2", "0s", "1s"),
    "retries": Setting("retransmissions of a segment, until the connection is given up", "RFC 9293 §3.8.3", "0", "100"),
    "syn_retries": Setting("retransmissions of a SYN, likewise", "RFC 9293 §3.8.3", "0", "100"),
    "user_timeout": Setting("give up what is not acknowledged for so long", "RFC 9293 §3.9.1.1", *_TIME, "30s"),
    "keep_alive": Setting("probe a connection that was idle for so long", "RFC 9293 §3.8.4", *_PROBE_TIME, "120min"),
    "keep_alive_interval": Setting("from one unanswered probe to the next", "RFC 9293 §3.8.4", *_PROBE_TIME),
    "keep_alive_probes": Setting("unanswered probes, until the connection is given up", "RFC 9293 §3.8.4", "1", "100"),
    "msl": Setting("maximum segment lifetime: TIME-WAIT lasts two", "RFC 9293 §3.6.1", "0s", "10min"),
    "delayed_ack": Setting(
        "wait for a second segment, or data to send, for so long", "RFC 9293 §3.8.6.3", "0s", "499ms"
    ),
    "nagle": Setting("hold back a small segment while another one is in flight", "RFC 9293 §3.7.4"),
    "congestion": Setting("congestion control", "RFC 9438, 5681, 6582"),
    "initial_window": Setting("segments in flight, before the first ACK", "RFC 6928", "1", "1000"),
}

_KINDS = {
    "time": "a time in ms, s or min,",
    "time or off": "off, or a time in ms, s or min,",
    "size": "a size in B, KiB or MiB,",
    "number": "a whole number",
}


def _kind(name: str) -> str:
    """What a setting is, by its default, and the unit of the most that it may be."""
    default, highest = getattr(Config(), name), TABLE[name].highest
    if isinstance(default, bool):
        return "switch"
    if isinstance(default, str):
        return "name"
    if highest.isdecimal():
        return "number"
    if highest.endswith("B"):
        return "size"
    return "time or off" if default is None else "time"


def parse(name: str, text: str) -> Any:
    """The value of the setting `name` that `text` spells, in SI units.

    Raises ValueError, with the nearest name or with what was expected.
    """
    if name not in TABLE:
        near = _nearest(name, TABLE) or ";"
        raise ValueError(f"unknown setting{near} `chitcpd --settings` lists them all")
    if not isinstance(text, str):
        raise ValueError(f"expected text, like {spell(name, getattr(Config(), name))!r}")
    kind, setting = _kind(name), TABLE[name]
    if kind == "switch":
        return _on_off(text)
    if kind == "name":
        return _congestion(text)
    if kind == "time or off" and text == "off":
        return None
    try:
        value = _quantity(kind, text)
        fits = _quantity(kind, setting.lowest) <= value <= _quantity(kind, setting.highest)
    except ValueError:
        fits = False
    if not fits:
        example = setting.example or spell(name, getattr(Config(), name))
        raise ValueError(f"expected {_KINDS[kind]} from {setting.lowest} to {setting.highest}, like {example}")
    return value


def spell(name: str, value: object) -> str:
    """The text of a value: what `parse` reads."""
    kind = _kind(name)
    if value is None or isinstance(value, bool):
        return "on" if value else "off"
    if kind.startswith("time"):
        seconds = float(str(value))
        return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"
    if kind == "size":
        size = int(str(value))
        shift, unit = next(((s, u) for s, u in ((20, "MiB"), (10, "KiB")) if size and size % (1 << s) == 0), (0, "B"))
        return f"{size >> shift}{unit}"
    return str(value)


def configure(profile: str, changes: Mapping[str, str]) -> Config:
    """The profile with these settings changed, each as people write it.

    Raises ValueError for the first that can't be, or that another one forbids.
    """
    values = {}
    for name, text in changes.items():
        try:
            values[name] = parse(name, text)
        except ValueError as error:
            raise ValueError(f"{name}={text}: {error}") from None
    for _, _, message in contradictions(profile, changes):
        raise ValueError(message)
    return replace(PROFILES[profile](), **values)


def contradictions(profile: str, changes: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(setting, other setting, message) for each that the other forbids; what can't be read is passed over."""
    config, unreadable = PROFILES[profile](), set()
    for name, text in changes.items():
        try:
            setattr(config, name, parse(name, text))
        except ValueError:
            unreadable.add(name)
    for name in ("rto_initial", "rto_min"):
        value, limit = getattr(config, name), config.rto_max
        if value > limit and not unreadable & {name, "rto_max"}:
            found = f"found {name} {spell(name, value)} above rto_max"
            yield name, "rto_max", f"{found}, expected at most {spell('rto_max', limit)}, or a larger rto_max"


def listing(config: Config, columns: int) -> str:
    """All settings for a terminal of so many columns: name, value, what may stand there, and what it is for."""
    rows = [(name, spell(name, getattr(config, name)), allowed(name)) for name in TABLE]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row, setting in zip(rows, TABLE.values(), strict=True):
        facts = "  ".join(map(str.ljust, row, widths))
        meaning = f"{setting.meaning} ({setting.source})"
        if len(facts) + 2 + len(meaning) <= columns:
            lines.append(f"{facts}  {meaning}")
        else:
            lines += [facts.rstrip(), *textwrap.wrap(meaning, columns, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(lines)


def allowed(name: str) -> str:
    """The values that a setting may have, in few words."""
    kind = _kind(name)
    if kind in ("switch", "name"):
        return "on, off" if kind == "switch" else ", ".join(CONGESTION)
    either = "off, " if kind == "time or off" else ""
    return f"{either}{TABLE[name].lowest} to {TABLE[name].highest}"


def _quantity(kind: str, text: str) -> float:
    if kind == "number":
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            raise ValueError
        return int(text)
    return units.size(text) if kind == "size" else units.seconds(text)


def _on_off(text: str) -> bool:
    if text not in ("on", "off", "true", "false"):
        raise ValueError("expected on or off")
    return text in ("on", "true")


def _congestion(text: str) -> str:
    if text not in CONGESTION:
        raise ValueError(f"expected one of {', '.join(CONGESTION)}{_nearest(text, CONGESTION)}")
    return text


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word[:64], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
