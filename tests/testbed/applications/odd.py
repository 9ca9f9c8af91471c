"""Does what its first word says, and ends as the next one does."""

from __future__ import annotations

import os
import sys
import threading
from queue import SimpleQueue

import chisocket


def main(arguments: list[str] | None = None) -> object:
    what, *rest = arguments or []
    if what == "environment":
        print(sorted(os.environ.items()), os.environ.get("HOME"))
    elif what == "bytes":
        sys.stdout.buffer.write(os.fsencode(rest[0]))
    elif what == "raises":
        raise LookupError(rest[0])
    elif what == "exits":
        sys.exit(rest[0])
    elif what == "returns":
        return {"None": None, "True": True, "-1": -1, "256": 256, "3": 3, "text": "text"}[rest[0]]
    elif what == "thread":
        thread = threading.Thread(target=_fail, daemon=True)
        thread.start()
        thread.join()
    elif what == "many":
        _many(int(rest[0]))
    elif what == "waits":
        never: SimpleQueue[None] = SimpleQueue()
        never.get()
    elif what == "leaves":
        chisocket.create_server(("", 9))
    return 0


def _fail() -> None:
    raise LookupError("in a thread")


def _many(count: int) -> None:
    for _ in range(count):
        thread = threading.Thread(target=lambda: None, daemon=True)
        thread.start()
        thread.join()
    print(threading.current_thread())
