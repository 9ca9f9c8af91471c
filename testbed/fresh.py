"""Files to begin with, which take nobody's place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class CannotStart(Exception):
    """The files can't be written; the text says why. Nothing was changed."""


def write(texts: Mapping[Path, str]) -> None:
    """Write files that are not there yet: all of them, or none. Raises CannotStart."""
    written: list[Path] = []
    for path, text in texts.items():
        try:
            with path.open("x", encoding="utf-8") as stream:
                written.append(path)
                stream.write(text)
        except OSError as error:
            for begun in written:
                begun.unlink(missing_ok=True)
            why = "it is there already" if isinstance(error, FileExistsError) else error.strerror
            raise CannotStart(f"{path} can't be written: {why}") from error
