"""Files that are written whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what takes the place of `path` at the end, unless an exception ends the block. Raises OSError.

    What is there and is no file, as /dev/stdout, is written to itself: nothing may take its place.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()  # a link stays one
    fresh = path.with_name(f".{path.name}.new")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        with suppress(OSError):  # its folder may not be there
            fresh.unlink(missing_ok=True)
