"""Is the grader worth anything? Mistakes that students make, put into the reference one at a time: who loses points?

    python -m tests.grading.mutants              all of tests/grading/mutants; more than 5 % unnoticed is a failure
    python -m tests.grading.mutants no-karn      those whose name has this

Each is a patch of chitcpd/tcp with its description and the stage that it belongs to. The patched TCP is packed into one
file, a submission like any other, and graded by the tests of that stage.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from testbed.grading.catalog import STAGES, catalog
from testbed.grading.cells import cells
from testbed.grading.runner import grade
from testbed.grading.sandbox import Source

FOLDER = Path(__file__).with_name("mutants")
CHOICES = Path(__file__).with_name("choices")  # patches that are no mistakes
PROJECT = Path(__file__).parents[2]
MODULES = ("seq", "rto", "send", "receive", "congestion", "recovery", "connection")  # each before those that import it
MOST_UNNOTICED = 0.05


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake."""

    name: str
    mistake: str
    stage: str
    patch: Path

    def source(self) -> Source:
        """The reference with this mistake, as one file."""
        return pack(f"{self.name}.py", self.patch)


def mutants() -> list[Mutant]:
    """All of them."""
    found = []
    for path in sorted(FOLDER.glob("*.patch")):
        header = path.read_text().partition("\n\n")[0]
        match = re.fullmatch(r"Mistake: (.+)\nStage: (.+)", header)
        assert match, f"{path.name} has no header"
        assert match[2] in STAGES, f"{path.name} is of no stage"
        found.append(Mutant(path.stem, match[1], match[2], path))
    return found


def pack(name: str, patch: Path | None = None) -> Source:
    """The reference, patched or as it is, as a submission of one file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "chitcpd" / "tcp"
        copy.mkdir(parents=True)
        for module in MODULES:
            text = (PROJECT / "chitcpd" / "tcp" / f"{module}.py").read_text()
            (copy / f"{module}.py").write_text(text)
        if patch is not None:
            subprocess.run(["git", "apply", "-p1", str(patch)], cwd=folder, check=True, capture_output=True)
        texts = {module: (copy / f"{module}.py").read_text() for module in MODULES}
    parts = re.compile(r"\bchitcpd\.tcp\.(?!api\b)")
    sources = {f"packed_{module}": parts.sub("packed_", text) for module, text in texts.items()}
    return Source(
        name,
        "import sys, types\n"
        f"for name, text in {sources!r}.items():\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    exec(compile(text, name, 'exec'), module.__dict__)\n"
        "from packed_connection import Connection\n"
        "class Mutant(Connection):\n"
        "    pass\n",
    )


def noticed(mutant: Mutant) -> list[str]:
    """The tests of its stage in which it loses points."""
    tests = [(test, test.points) for test in catalog() if test.stage == mutant.stage]
    with cells("process") as new_cell:
        result = grade(mutant.source(), tests, new_cell=new_cell)
    assert not result.trouble or "hung" in result.trouble or "taken" in result.trouble, result.trouble
    return [verdict.test.id for verdict in result.verdicts if not verdict.passed]


def main() -> int:
    """Grade them; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.grading.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", default="", help="of a name: only these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants graded at once")
    options = parser.parse_args()
    chosen = [mutant for mutant in mutants() if options.part in mutant.name]
    unnoticed = list(_report(chosen, options.jobs))
    for mutant in unnoticed:
        print(f"unnoticed: {mutant.name} ({mutant.stage}): {mutant.mistake}")
    share = len(unnoticed) / max(len(chosen), 1)
    print(f"{len(chosen)} mutants, {len(unnoticed)} lose no points in their stage ({share:.1%}; at most 5 %)")
    return 1 if share > MOST_UNNOTICED else 0


def _report(chosen: list[Mutant], jobs: int) -> Iterator[Mutant]:
    """Tell of each; those that nobody noticed."""
    with ProcessPoolExecutor(jobs) as pool:
        for mutant, failed in zip(chosen, pool.map(noticed, chosen), strict=True):
            shown = ", ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
            print(f"{mutant.name}: {shown or 'UNNOTICED'}", flush=True)
            if not failed:
                yield mutant


if __name__ == "__main__":
    sys.exit(main())
