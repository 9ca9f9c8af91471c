"""A UNIX socket where a test plays chitcpd: it receives each request and answers when and what it likes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import pytest

from chisocket.protocol.chitcpd_pb2 import INIT, RESP, ChitcpdMsg, Resp
from chisocket.protocol.framing import LENGTH, body_length, decode, encode

PATIENCE = 10.0  # seconds until a test gives up waiting for what must come


@dataclass(slots=True)
class Request:
    """A message that came on the connection of this number, counted from 0."""

    connection: int
    message: ChitcpdMsg
    raw: bytes  # all of it, with the length before it
    _socket: socket.socket

    def answer(self, ret: int = 0, error_code: int = 0, addr: bytes = b"", buf: bytes = b"") -> None:
        resp = Resp(ret=ret, error_code=error_code, addr=addr, buf=buf)
        self.answer_bytes(encode(ChitcpdMsg(code=RESP, resp=resp)))

    def answer_bytes(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def hang_up(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)


class ScriptedDaemon:
    """Answers INIT by itself; every other message waits in `next()`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0
        self.inits: list[bytes] = []  # as they came
        self._requests: Queue[Request] = Queue()
        self._ends: Queue[int] = Queue()
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def next(self) -> Request:
        """The next request, waiting for it."""
        return self._requests.get(timeout=PATIENCE)

    def next_end(self) -> int:
        """The number of the next connection that its client closed, waiting for it."""
        return self._ends.get(timeout=PATIENCE)

    def stop(self) -> None:
        """Close everything, as a daemon that ends."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            number = self.connections
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            while header := _read(connection, LENGTH.size):
                body = _read(connection, body_length(header))
                request = Request(number, decode(body), header + body, connection)
                if request.message.code == INIT:
                    self.inits.append(request.raw)
                    request.answer()
                else:
                    self._requests.put(request)
        self._ends.put(number)


def _read(connection: socket.socket, length: int) -> bytes:
    try:
        return connection.recv(length, socket.MSG_WAITALL)
    except OSError:
        return b""


@contextlib.contextmanager
def scripted_daemon(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    """A ScriptedDaemon for the block, which CHITCPD_SOCK names."""
    daemon = ScriptedDaemon(directory / "sock")
    monkeypatch.setenv("CHITCPD_SOCK", str(daemon.path))
    try:
        yield daemon
    finally:
        daemon.stop()
