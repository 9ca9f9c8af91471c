"""Mutation testing: how many small faults in the TCP would its tests not notice?

    python -m tests.mutants                      a sample of 400 mutants; more than 10 % alive is a failure
    python -m tests.mutants --sample 40 --seed 7

mutmut makes the mutants of the modules that pyproject.toml names, and runs against each the tests named there that
reach it. All of that happens in a copy of the project, which goes afterwards. What survives is shown as a diff.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random

PROJECT = Path(__file__).parents[1]
PARTS = ("chitcpd", "chisocket", "testbed", "tests", "examples", "pyproject.toml", "README.md")
MOST_ALIVE = 0.1
FIRST = "chitcpd.tcp.send.*__init__*"  # to be tried when there is no sample yet, so that all are made
LINES = 10.0  # seconds between two lines of progress

# mutmut's exit codes: of pytest, or its own.
SURVIVED, NO_TESTS = 0, 33
TIMEOUTS = (24, 36, 152, 255, -24, -9)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=400, help="mutants to try; 0: all of them")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants tried at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copy = Path(directory)
        _copy_project(copy)
        print("making the mutants, and looking which test reaches which function", flush=True)
        _mutmut(copy, "run", "--max-children", str(options.jobs), FIRST)
        names = sorted(_results(copy))
        sample = Random(options.seed).sample(names, options.sample) if 0 < options.sample < len(names) else names
        print(f"trying {len(sample)} of {len(names)} mutants, drawn from seed {options.seed}", flush=True)
        _mutmut(copy, "run", "--max-children", str(options.jobs), *sample)
        return _report(copy, sample)


def _copy_project(copy: Path) -> None:
    for part in PARTS:
        source = PROJECT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / part)


def _mutmut(copy: Path, *arguments: str) -> None:
    """Run it, and show its counters now and then; if it fails, all that it said."""
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "mutmut", *arguments]
    said, due = [], time.monotonic() + LINES
    with subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # a carriage return ends a line too
            said.append(line)
            counters = re.search(r"\d+/\d+ .*", line)
            if counters and time.monotonic() >= due:
                due = time.monotonic() + LINES
                print(f"  {counters[0].rstrip()}", flush=True)
    if process.returncode:
        sys.exit("".join(said[-100:]) + f"mutmut ended with status {process.returncode}")


def _results(copy: Path) -> dict[str, int | None]:
    """The exit code of each mutant, or None if it was not tried."""
    results: dict[str, int | None] = {}
    for path in copy.glob("mutants/**/*.meta"):
        results |= json.loads(path.read_text())["exit_code_by_key"]
    return results


def _report(copy: Path, sample: Iterable[str]) -> int:
    """Show what survived; the exit status."""
    results = {name: code for name, code in _results(copy).items() if name in set(sample)}
    alive = sorted(name for name, code in results.items() if code in (SURVIVED, NO_TESTS, None))
    for name in alive:
        shown = subprocess.run(
            [sys.executable, "-m", "mutmut", "show", name], cwd=copy, capture_output=True, text=True, check=False
        )
        changed = [line for line in shown.stdout.splitlines() if re.match(r"@@|[-+](?![-+])", line)]
        print(f"\nalive: {name}", *changed, sep="\n  ")
    timeouts = sum(code in TIMEOUTS for code in results.values())
    share = len(alive) / len(results)
    print(
        f"\n{len(results)} mutants: {len(results) - len(alive)} killed ({timeouts} of them by a time-out), "
        f"{len(alive)} alive ({share:.1%}; at most {MOST_ALIVE:.0%})"
    )
    return 1 if share > MOST_ALIVE else 0


if __name__ == "__main__":
    sys.exit(main())
