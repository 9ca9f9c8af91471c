"""Which Docker engine is asked, and what is said if none is there. No engine is needed for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from docker import APIClient
from docker.context import ContextAPI
from docker.errors import APIError

from testbed.backends import engine
from testbed.backends.docker_apps import Applications
from testbed.backends.docker_things import Things
from testbed.unavailable import Unavailable


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of `docker` that says nothing."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_docker_host_is_asked_before_all_contexts(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://{nobody}")
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")
    with pytest.raises(Unavailable, match=f"at tcp://{nobody} \\(DOCKER_HOST\\): .*refused"):
        engine.connect(1)


@pytest.mark.parametrize("by_variable", [False, True])
def test_else_the_current_context_is(by_variable: bool, monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    ContextAPI.create_context("elsewhere", host=f"tcp://{nobody}")
    if by_variable:
        monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    else:
        ContextAPI.set_current_context("elsewhere")
    with pytest.raises(Unavailable, match=f"at \\S*{nobody} \\(Docker context elsewhere\\): .*refused") as refused:
        engine.connect(1)
    assert "DOCKER_HOST" in refused.value.remedy


def test_a_context_that_is_not_there_is_not_replaced_by_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")
    with pytest.raises(Unavailable, match="no Docker context no-such-context is found"):
        engine.connect(1)


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\r\ntw", b"o\n", b"thr", b"ee"], ["one", "two", "three"]),
        ([b"\n\none"], ["", "", "one"]),
        ([b"one\n"], ["one"]),
        ([], []),
    ],
)
def test_a_text_that_comes_in_pieces_is_lines(pieces: list[bytes], lines: list[str]) -> None:
    assert list(engine.lines(pieces)) == lines


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    most = 0
    for line in engine.lines(b"x" * (1 << 16) for _ in range(1 << 10)):
        most = max(most, len(line))
    assert most == 1 << 20


@contextmanager
def engine_that_answers(status: int) -> Iterator[APIClient]:
    """A client of an engine which answers every POST so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b'{"message": "so it is"}')

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with closing(APIClient(f"tcp://127.0.0.1:{server.server_port}", version="1.41")) as api:
            yield api
        server.shutdown()


@pytest.mark.parametrize(("status", "got_it"), [(204, True), (404, False), (409, False)])
def test_an_application_that_does_not_run_gets_no_signal(status: int, got_it: bool) -> None:
    with engine_that_answers(status) as api:
        assert Applications(api, Things(api)).kill("lab", "client", "SIGTERM") is got_it


@pytest.mark.parametrize(("status", "error"), [(400, APIError), (500, Unavailable)])
def test_a_signal_that_failed_is_not_one_that_nobody_got(status: int, error: type[Exception]) -> None:
    with engine_that_answers(status) as api, pytest.raises(error, match="so it is"):
        Applications(api, Things(api)).kill("lab", "client", "SIGTERM")
