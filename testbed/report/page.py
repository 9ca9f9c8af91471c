"""A report as one HTML file that needs nothing else: data, style and programs are in it.

All that comes from the run (names, logs, output) is data: JSON, of which the program makes text nodes, never HTML. And
the page's content security policy knows the page's own two scripts by their hashes and forbids all else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from array import array
from pathlib import Path
from typing import Any

_ASSETS = Path(__file__).parent / "assets"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; script-src {scripts}; \
style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>This report is drawn by a program in this page: allow JavaScript for it. It needs no network.</noscript>
<main id="report"></main>
<script type="application/json" id="data">{data}</script>
<script type="text/plain" id="columns">{columns}</script>
<script>{library}</script>
<script>{program}</script>
</body>
</html>
"""
_PROGRAM = ("base.js", "zoom.js", "model.js", "plots.js", "ladder.js", "topology.js", "timeline.js", "main.js")
_LEVEL = 6  # of zlib


class Columns:
    """Numbers beside the JSON: columns, compressed together; JSON says [where, how many, of which type]."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def planes(self, letter: str, size: int, planes: bytes) -> list[object]:
        """Add a column that has all first bytes, then all second bytes, and so on."""
        place = self._size
        self._parts.append(planes)
        self._size += len(planes)
        return [place, len(planes) // size, letter]

    def array(self, values: array[int] | array[float]) -> list[object]:
        """Add a column."""
        raw = values.tobytes()
        size = values.itemsize
        return self.planes(values.typecode, size, b"".join(raw[byte::size] for byte in range(size)))

    def encoded(self) -> str:
        """All of them as text."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), _LEVEL)).decode()


def html(title: str, data: dict[str, Any], columns: Columns) -> str:
    """The file's text; the same for the same run."""
    library, program = _asset("uPlot.iife.min.js"), _program()
    return _PAGE.format(
        title=title.translate(_ESCAPES),
        scripts=" ".join(map(_hash, (library, program))),
        style=_asset("uPlot.min.css") + _asset("report.css"),
        data=_embedded(data),
        columns=columns.encoded(),
        library=library,
        program=program,
    )


_ESCAPES = {ord(letter): f"&#{ord(letter)};" for letter in "&<>\"'"}


def _embedded(data: object) -> str:
    """JSON that no HTML parser takes for the end of its element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII alone: no U+2028 either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _program() -> str:
    return "\n".join(['(() => {\n"use strict";', *map(_asset, _PROGRAM), "})();"])


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
