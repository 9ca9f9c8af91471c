"""The C library on the UNIX socket, byte by byte, against interop.md section 2, with a daemon that answers as a C one.

Each message is written out here: the length, 8 bytes in native order; then protobuf: a tag (field number * 8 + wire
type), and a number, or a length with so many bytes.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.c.conftest import Calls, Start, addr
from tests.chisocket.scripted_daemon import Request, ScriptedDaemon, scripted_daemon

ADDRESS = "0200 1b58 0a000003 0000000000000000"  # sockaddr_in of 10.0.0.3:7000
STORAGE = ADDRESS + "00" * 112
REQUESTS = {  # call -> (arguments, what goes out)
    "bind": ((3, addr("10.0.0.3", 7000)), f"08 02 22 14 08 03 12 10 {ADDRESS}"),
    "listen": ((3, 5), "08 03 2a 04 08 03 10 05"),
    "connect": ((3, addr("10.0.0.3", 7000)), f"08 05 3a 14 08 03 12 10 {ADDRESS}"),
    "send": ((3, b"Hello!", 0), "08 06 4a 0c 08 03 10 00 1a 06 48 65 6c 6c 6f 21"),
    "recv": ((3, 300, 0), "08 07 42 07 08 03 10 00 18 ac 02"),
    "state": ((3,), "08 09 5a 02 08 03"),
    "buffers": ((3,), "08 0a 62 02 08 03"),
    "wait_for_state": ((3, 4), "08 0e 7a 04 08 03 10 04"),
    "close": ((3,), "08 08 52 02 08 03"),
}


def frame(body: str) -> bytes:
    raw = bytes.fromhex(body)
    return struct.pack("=Q", len(raw)) + raw


@pytest.fixture
def daemon(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    with scripted_daemon(directory, monkeypatch) as running:
        yield running


@pytest.fixture
def calls(start: Start, daemon: ScriptedDaemon) -> Calls:
    """No variable asks for requests: a C chitcpd, whose answer to INIT names no instance, knows nothing else."""
    return start(str(daemon.path), "descriptors")


def make(calls: Calls, daemon: ScriptedDaemon) -> Request:
    """Let the program make socket 3."""
    calls.begin("socket", 2, 1, 6)
    request = daemon.next()
    request.answer_bytes(frame("08 0b 6a 04 08 03 10 00"))
    assert calls.end() == (3, 0, "")
    return request


def test_the_first_two_messages(calls: Calls, daemon: ScriptedDaemon) -> None:
    request = make(calls, daemon)
    assert daemon.inits == [frame("08 00 12 02 08 00")]
    assert request.raw == frame("08 01 1a 06 08 02 10 01 18 06")


@pytest.mark.parametrize("call", REQUESTS)
def test_each_request(calls: Calls, daemon: ScriptedDaemon, call: str) -> None:
    make(calls, daemon)
    arguments, expected = REQUESTS[call]
    calls.begin(call, *arguments)
    request = daemon.next()
    assert request.raw == frame(expected)
    request.answer_bytes(frame("08 0b 6a 0d 08 ff ff ff ff ff ff ff ff ff 01 10 6b"))  # ret -1, error 107
    assert calls.end()[:2] == (-1, errno.ENOTCONN)


def test_an_address_shows_nothing_of_the_program(calls: Calls, daemon: ScriptedDaemon) -> None:
    """The eight bytes behind a sockaddr_in are zero on the wire, whatever the program has left there."""
    make(calls, daemon)
    calls.begin("connect", 3, addr("10.0.0.3", 7000)[:8] + b"leftover")
    request = daemon.next()
    assert request.raw == frame(f"08 05 3a 14 08 03 12 10 {ADDRESS}")
    request.answer()
    assert calls.end().ret == 0


def test_accept(calls: Calls, daemon: ScriptedDaemon) -> None:
    make(calls, daemon)
    calls.begin("accept", 3, 128)
    request = daemon.next()
    assert request.raw == frame("08 04 32 02 08 03")
    request.answer_bytes(frame(f"08 0b 6a 87 01 08 04 10 00 1a 80 01 {STORAGE}"))
    assert calls.end() == (4, 0, addr("10.0.0.3", 7000).hex())


def test_recv_brings_bytes(calls: Calls, daemon: ScriptedDaemon) -> None:
    make(calls, daemon)
    calls.begin("recv", 3, 300)
    daemon.next().answer_bytes(frame("08 0b 6a 0c 08 06 10 00 22 06 48 65 6c 6c 6f 21"))
    assert calls.end().bytes == b"Hello!"


def test_recv_at_the_end_of_the_stream(calls: Calls, daemon: ScriptedDaemon) -> None:
    make(calls, daemon)
    calls.begin("recv", 3, 300)
    daemon.next().answer_bytes(frame("08 0b 6a 04 08 00 10 00"))
    assert calls.end() == (0, 0, "")


def test_the_state_of_a_socket(calls: Calls, daemon: ScriptedDaemon) -> None:
    """uint32 values come as int32: -1 is 4294967295."""
    make(calls, daemon)
    calls.begin("state", 3)
    minus_one = "ff ff ff ff ff ff ff ff ff 01"
    body = f"08 04 10 {minus_one} 18 02 20 03 28 04 30 05 38 06 40 07"
    length = len(bytes.fromhex(body))
    daemon.next().answer_bytes(frame(f"08 0b 6a {length + 6:02x} 08 00 10 00 2a {length:02x} {body}"))
    assert calls.end().data == "ESTABLISHED,4294967295,2,3,5,4,7,6"


def test_the_buffers_of_a_socket(calls: Calls, daemon: ScriptedDaemon) -> None:
    make(calls, daemon)
    calls.begin("buffers", 3)
    daemon.next().answer_bytes(frame("08 0b 6a 0d 08 00 10 00 32 07 0a 02 61 62 12 01 63"))
    assert calls.end().data == "2,1"


def test_a_debug_connection(calls: Calls, daemon: ScriptedDaemon) -> None:
    make(calls, daemon)
    assert calls("debug", 3, 1, 1).ret == 0
    assert daemon.inits[-1] == frame("08 00 12 08 08 01 12 04 08 03 10 01")


def test_each_connection_carries_one_request_at_a_time(calls: Calls, daemon: ScriptedDaemon) -> None:
    maker = make(calls, daemon).connection
    calls.begin("listen", 3, 1)
    first = daemon.next()
    first.answer()
    calls.end()
    calls.begin("recv", 3, 10)
    second = daemon.next()
    second.answer()
    calls.end()
    assert first.connection == second.connection != maker  # the maker waits for CLOSE: no socket dies of a signal
    calls.begin("close", 3)
    closing = daemon.next()
    assert closing.connection == maker
    closing.answer()
    assert calls.end().ret == 0
