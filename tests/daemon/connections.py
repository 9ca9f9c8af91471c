"""Connections through daemons, both ends of them ours."""

from __future__ import annotations

import select
from contextlib import suppress
from types import TracebackType
from typing import Self

import pytest

import chisocket
from tests.daemon.conftest import PATIENCE, Daemon

CHUNK = bytes(1 << 16)


class Connection:
    """From an application of `client` to one of `server`, which may be the same daemon."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: Daemon, server: Daemon) -> None:
        monkeypatch.setenv("CHITCPD_SOCK", server.socket)
        with chisocket.create_server((server.address, 0)) as listener:
            monkeypatch.setenv("CHITCPD_SOCK", client.socket)
            self.near = chisocket.create_connection(listener.getsockname(), timeout=PATIENCE)
            self.far, _ = listener.accept()
        self.far.settimeout(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.near.close()
        self.far.close()


def fill(sock: chisocket.socket) -> int:
    """Send until nothing more is taken; how much was."""
    sock.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += sock.send(CHUNK)
            select.select([], [sock], [], 0.2)
    sock.settimeout(PATIENCE)
    return sent
