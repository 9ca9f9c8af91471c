"""`python -m chisocket.run`: run a Python program whose TCP sockets are chiTCP's: a file, a module or code.

Python's own options go before: `python -u -m chisocket.run ...`.

python -m chisocket.run -m http.server 8000
python -m chisocket.run program.py arguments ...
python -m chisocket.run -c "import urllib.request; ..."
"""

from __future__ import annotations

import os
import runpy
import sys
import types
from types import TracebackType
from typing import NoReturn

from chisocket.patch import begin

_USAGE = "usage: python -m chisocket.run (-m MODULE | -c CODE | FILE) [ARGUMENT ...]"


def main() -> None:
    """Run what the arguments name, as `__main__`."""
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]):
        print(f"{_USAGE}\n\n{__doc__}")
        return
    takes_one = words[:1] in (["-m"], ["-c"])
    if not words or (takes_one and len(words) == 1):
        _fail(_USAGE)
    if words[0].startswith("-") and not takes_one:
        _fail(f"{_USAGE}\npython -m chisocket.run: unknown option {words[0]}")
    sys.excepthook = _tell
    begin()  # for good: threads of the program may go on after its last line
    if words[0] == "-m":
        _run_module(words[1], words[2:])
    elif words[0] == "-c":
        _run_code(words[1], words[2:])
    else:
        _run_file(words[0], words[1:])


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv = [name, *arguments]  # runpy puts the module's file in place of its name
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_code(code: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    sys.path[0] = ""
    main_module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(main_module))


def _run_file(path: str, arguments: list[str]) -> None:
    if not os.path.exists(path):
        _fail(f"python -m chisocket.run: can't open file {path!r}: no such file")
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    runpy.run_path(path, run_name="__main__")


def _fail(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    sys.exit(2)  # as python does


def _tell(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """Show the traceback of what the program did not catch, from its own first line on."""
    while at is not None and at.tb_frame.f_code.co_filename in (__file__, runpy.run_module.__code__.co_filename):
        at = at.tb_next
    sys.__excepthook__(kind, error.with_traceback(at), at)


if __name__ == "__main__":
    main()
