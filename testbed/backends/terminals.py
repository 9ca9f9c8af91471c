"""Our own standard streams, given to a container for as long as it runs."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty as ttys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from docker import APIClient
from docker.errors import APIError
from docker.utils.socket import frames_iter


def run(api: APIClient, container: str, *, tty: bool) -> int:
    """Start a container, with our streams as its own, and return its status; `tty`: it was made with a terminal."""
    stream: Any = api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    sock = getattr(stream, "_sock", stream)
    try:
        with _raw() if tty else _not_raw():
            api.start(container)
            if tty:
                _follow_size(api, container)
            Thread(target=_send, args=(sock,), daemon=True).start()
            for kind, piece in frames_iter(stream, tty=tty):  # type: ignore[no-untyped-call]
                out = sys.stderr if kind == 2 else sys.stdout
                out.buffer.write(piece)
                out.flush()
            return int(api.wait(container)["StatusCode"])
    finally:
        stream._response.close()  # with its connection; the SDK hands it out nowhere else


def _send(sock: Any) -> None:
    """What is typed, or piped, to its end."""
    with suppress(OSError):  # the container has ended
        while data := os.read(0, 1 << 16):
            sock.sendall(data)
        sock.shutdown(1)  # SHUT_WR


@contextmanager
def _raw() -> Iterator[None]:
    """Every key goes to the container, Ctrl-C too."""
    before = termios.tcgetattr(0)
    ttys.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _not_raw() -> Iterator[None]:
    yield


def _follow_size(api: APIClient, container: str) -> None:
    def tell(*_: object) -> None:
        size = os.get_terminal_size()
        with suppress(APIError):  # it has ended
            api.resize(container, height=size.lines, width=size.columns)

    tell()
    signal.signal(signal.SIGWINCH, tell)
