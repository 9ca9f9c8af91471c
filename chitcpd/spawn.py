"""Many daemons on one machine, fast: what each of them needs is imported once, and then there is a fork for each.

`python -m chitcpd.spawn` reads a line of JSON for each daemon that is wanted:

    {"name": "alice", "arguments": ["--bind", ...], "directory": "...", "log": "chitcpd.log", "environment": {...}}

and tells, in lines of JSON on its standard output, of each process that has started ({"name", "pid"}) and of each that
has ended ({"name", "pid", "status"}). The daemons write to the same standard output what `--announce` has them say. It
ends at the end of its input; the daemons go on.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import sys
from typing import Any, NoReturn

from chitcpd import cli
from chitcpd.loader import REFERENCE, load


def main() -> None:
    """Fork a daemon for each line, until there are no more."""
    load(REFERENCE)
    gc.freeze()  # what is here already is shared, and looked through by nobody
    children: dict[int, str] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for who started us
    with selectors.DefaultSelector() as selector:
        selector.register(woken, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        rest = b""
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if woken in ready:
                os.read(woken, 4096)
                _reap(children)
            if 0 in ready:
                data = os.read(0, 1 << 16)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    _start(json.loads(line), children)


def _start(wanted: dict[str, Any], children: dict[int, str]) -> None:
    pid = os.fork()
    if pid == 0:
        _become(wanted)
    children[pid] = wanted["name"]
    _tell(name=wanted["name"], pid=pid)


def _become(wanted: dict[str, Any]) -> NoReturn:
    """Go on as that daemon, as if it had been started by itself."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    status = 1
    try:
        os.setsid()
        os.chdir(wanted["directory"])
        log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 2)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        sys.argv = ["chitcpd", *wanted["arguments"]]
        cli.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)  # not through the interpreter's end: what is ours there is the parent's


def _reap(children: dict[int, str]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _tell(name=children.pop(pid), pid=pid, status=os.waitstatus_to_exitcode(status))


def _tell(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
