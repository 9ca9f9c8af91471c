"""`testbed`, and `python -m testbed`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; Ctrl-C ends it without a traceback even while it is still being imported."""
    try:
        from testbed.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("testbed: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
