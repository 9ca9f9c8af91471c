"""`python -m chisocket.run`: run a Python program whose TCP sockets are chiTCP's. It takes what `python` takes.

python -m chisocket.run -m http.server 8000
python -m chisocket.run program.py arguments ...
python -m chisocket.run -c "import urllib.request; ..."
"""

from __future__ import annotations

import os
import runpy
import sys

from chisocket.patch import begin

_USAGE = "usage: python -m chisocket.run (-m MODULE | -c CODE | FILE) [ARGUMENT ...]"


def main() -> None:
    """Run what the arguments name, as `__main__`."""
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]):
        print(f"{_USAGE}\n\n{__doc__}")
        return
    takes_one = words[:1] in (["-m"], ["-c"])
    if not words or (takes_one and len(words) == 1) or (words[0].startswith("-") and not takes_one):
        sys.exit(_USAGE)
    begin()  # for good: threads of the program may go on after its last line
    if words[0] == "-m":
        _run_module(words[1], words[2:])
    elif words[0] == "-c":
        _run_code(words[1], words[2:])
    else:
        _run_file(words[0], words[1:])


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv = [name, *arguments]  # runpy puts the module's file in place of its name
    sys.path.insert(0, os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_code(code: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    sys.path.insert(0, "")
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(compile(code, "<string>", "exec"), namespace)


def _run_file(path: str, arguments: list[str]) -> None:
    if not os.path.exists(path):
        sys.exit(f"python -m chisocket.run: can't open file {path!r}: no such file")
    sys.argv = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main()
