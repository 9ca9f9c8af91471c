"""The cases of fuzz.py from atheris: it mutates those that have reached new code. `pip install atheris`, on Linux.

python -m tests.tcp.fuzz_guided codec --executions 1_000_000
python -m tests.tcp.fuzz_guided sequence --executions 1_000_000
"""

from __future__ import annotations

import argparse
import os
import sys

import atheris

with atheris.instrument_imports(include=["chitcpd.tcp"]):
    from tests.tcp import fuzz

LONGEST = {"codec": 100, "sequence": 1000}  # bytes of a case


def main() -> None:
    """Does not return: atheris has the main loop, and its process ends with the last case."""
    parser = argparse.ArgumentParser(prog="python -m tests.tcp.fuzz_guided", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=fuzz.RUN)
    parser.add_argument("--executions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally = fuzz.Tally(options.executions)

    def one(case: bytes) -> None:
        try:
            tally.add(fuzz.execute(options.what, case))
        except fuzz.Found as found:
            _end(f"found from seed {options.seed}, after {tally.executions:,} executions:\n{found}", 1)
        if tally.executions >= tally.goal:
            tally.show()
            _end("done", 0)

    tally.begin(options.what)
    flags = [f"-seed={options.seed + 1}", f"-max_len={LONGEST[options.what]}", "-len_control=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags], one)
    atheris.Fuzz()


def _end(message: str, status: int) -> None:
    print(message, flush=True)
    os._exit(status)


if __name__ == "__main__":
    main()
