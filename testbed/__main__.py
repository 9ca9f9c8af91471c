"""`testbed`, and `python -m testbed`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; Ctrl-C ends it quietly even while it is still being imported."""
    try:
        from testbed.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
