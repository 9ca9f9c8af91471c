"""What `testbed new` writes: a TCP to be written, and a topology that runs it."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from testbed import fresh
from testbed.fresh import CannotStart


def new(file: Path) -> Path:
    """Write a skeleton to `file`, and a topology beside it, whose path this returns. Raises CannotStart."""
    if file.suffix != ".py":
        raise CannotStart(f"{file} is no name of a Python file: end it with .py")
    lab = re.sub(r"[^a-z0-9-]+", "-", file.stem.lower()).strip("-") or "my-lab"
    topology = file.with_name(f"{file.stem.replace('_', '-')}.yaml")
    here = files("testbed.grading")
    start = here.joinpath("start.yaml").read_text(encoding="utf-8")
    skeleton = here.joinpath("skeleton.py").read_text(encoding="utf-8")
    fresh.write({file: skeleton, topology: start.replace("IMPLEMENTATION", file.name).replace("NAME", lab)})
    return topology
