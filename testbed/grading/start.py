"""What `testbed new` writes: a TCP to be written, and a topology that runs it."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path


class CannotStart(Exception):
    """The files can't be written; the text says why. Nothing was changed."""


def new(file: Path) -> Path:
    """Write a skeleton to `file`, and a topology beside it, whose path this returns. Raises CannotStart."""
    if file.suffix != ".py":
        raise CannotStart(f"{file} is no name of a Python file: end it with .py")
    lab = re.sub(r"[^a-z0-9-]+", "-", file.stem.lower()).strip("-") or "my-lab"
    topology = file.with_name(f"{file.stem.replace('_', '-')}.yaml")
    here = files("testbed.grading")
    start = here.joinpath("start.yaml").read_text(encoding="utf-8")
    texts = {
        file: here.joinpath("skeleton.py").read_text(encoding="utf-8"),
        topology: start.replace("IMPLEMENTATION", file.name).replace("NAME", lab),
    }
    for path in texts:
        if path.exists() or path.is_symlink():
            raise CannotStart(f"{path} is there already")
    for path, text in texts.items():
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise CannotStart(f"{path} can't be written: {error.strerror}") from error
    return topology
