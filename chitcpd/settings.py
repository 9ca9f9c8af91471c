"""The settings of a TCP as people write them: `rto_min=200ms`, `receive_buffer=64KiB`, `nagle=off`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from chitcpd import units
from chitcpd.tcp.api import Config


def parse(name: str, text: str) -> Any:
    """The value of the setting `name` that `text` spells, in SI units.

    Raises ValueError, with the nearest name or with what was expected.
    """
    if name not in _READERS:
        near = difflib.get_close_matches(name, _READERS, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown setting {name!r}, expected one of {', '.join(sorted(_READERS))}{meant}")
    return _READERS[name](text)


def _on_off(text: str) -> bool:
    if text not in ("on", "off", "true", "false"):
        raise ValueError("expected on or off")
    return text in ("on", "true")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ValueError("expected a whole number")
    return int(text)


def _size(text: str) -> int:
    size = units.size(text)
    if not 1 <= size <= 1 << 30:
        raise ValueError("expected a size from 1B to 1GiB")
    return size


def _seconds_or_off(text: str) -> float | None:
    return None if text == "off" else units.seconds(text)


_BY_TYPE: dict[str, Callable[[str], Any]] = {
    "Seconds": units.seconds,
    "Seconds | None": _seconds_or_off,
    "Bytes": _size,
    "int": _count,
    "bool": _on_off,
    "str": str,
}
_READERS = {field.name: _BY_TYPE[str(field.type)] for field in fields(Config)}
