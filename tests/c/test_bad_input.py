"""Wrong arguments, daemons that go away, answers that are none: errno, and never a crash, never a hang."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from chisocket.protocol.addresses import pack
from tests.c.conftest import CHISOCKET, Calls, Start, addr, connected, listening
from tests.chisocket.scripted_daemon import ScriptedDaemon, scripted_daemon
from tests.daemon.conftest import Daemon, StartDaemon, daemon

__all__ = ["daemon"]  # a fixture: daemons of a test's own, which it may kill

NO_SOCKETS = [-1, -5, 1, 3, 999, 2**31 - 1]


class TestArguments:
    @pytest.mark.parametrize("call", ["bind", "connect"])
    @pytest.mark.parametrize(
        ("address", "length", "error"),
        [
            (None, 16, errno.EFAULT),
            (None, 0, errno.EFAULT),
            (addr("127.0.0.1", 7), 0, errno.EINVAL),
            (addr("127.0.0.1", 7), 1, errno.EINVAL),
            (addr("127.0.0.1", 7), 15, errno.EINVAL),
            (addr("::1", 7), 16, errno.EINVAL),
            (addr("::1", 7), 28, errno.EAFNOSUPPORT),  # of an IPv4 socket
            (struct.pack("H14s", socket.AF_UNIX, b"/tmp/x"), 16, errno.EAFNOSUPPORT),
            (struct.pack("H14x", 99), 16, errno.EAFNOSUPPORT),
            (struct.pack("H14x", 0), 16, errno.EAFNOSUPPORT),
        ],
    )
    def test_addresses(self, client: Calls, call: str, address: bytes | None, length: int, error: int) -> None:
        sock = client.good("socket", 2, 1, 0).ret
        assert client(call, sock, address, length).errno == error
        assert client("bind", sock, addr("127.0.0.1", 7)).errno == errno.EADDRNOTAVAIL  # it is as before

    def test_a_longer_address_is_taken(self, client: Calls, alice_daemon: Daemon) -> None:
        sock = client.good("socket", 2, 1, 0).ret
        assert client("bind", sock, pack((alice_daemon.address, 0)).ljust(128, b"\0"), 128).ret == 0

    @pytest.mark.parametrize("sockfd", NO_SOCKETS)
    def test_bad_descriptors(self, client: Calls, way: str, sockfd: int) -> None:
        expected = {errno.EBADF} if way != "chirun" else {errno.EBADF, errno.ENOTSOCK}
        calls: list[tuple[str, *tuple[object, ...]]] = [
            ("bind", addr("127.0.0.1", 7)),
            ("connect", addr("127.0.0.1", 7)),
            ("listen", 1),
            ("accept", 128),
            ("send", b"data"),
            ("recv", 10),
            ("shutdown", 2),
            ("getsockname", 128),
            ("getpeername", 128),
            ("getsockopt", 1, 4, 4),
            ("setsockopt", 1, 9, b"\1\0\0\0"),
        ]
        for call, *arguments in calls:
            assert client(call, sockfd, *arguments).errno in expected, call
        if way != "chirun":  # the program's own standard output is nothing to close
            assert client("close", sockfd).errno == errno.EBADF

    @pytest.mark.parametrize("way", CHISOCKET)
    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ((99, 1, 0), errno.EAFNOSUPPORT),
            ((1, 1, 0), errno.EAFNOSUPPORT),
            ((2, 2, 0), errno.ESOCKTNOSUPPORT),
            ((2, 77, 0), errno.ESOCKTNOSUPPORT),
            ((2, 1, 132), errno.EPROTONOSUPPORT),
            ((-1, -1, -1), errno.EAFNOSUPPORT),
        ],
    )
    def test_sockets_that_are_not_to_be_had(self, client: Calls, arguments: tuple[int, int, int], error: int) -> None:
        assert client("socket", *arguments).errno == error

    def test_buffers(self, client: Calls, server: Calls, way: str, bob_daemon: Daemon) -> None:
        sock, accepted = connected(client, server, bob_daemon.address)
        assert client("send", sock, None).errno == errno.EFAULT
        assert client("getsockname", sock, None).errno == errno.EFAULT
        assert client("getpeername", sock, None).errno == errno.EFAULT
        nothing = client("send", sock, b"")
        assert nothing.errno == errno.EINVAL if way != "chirun" else nothing.ret == 0
        client.good("send", sock, b"data")
        nothing = server("recv", accepted, 0)
        assert nothing.errno == errno.EINVAL if way != "chirun" else nothing.ret == 0
        assert server("recv", accepted, 100).bytes == b"data"

    def test_options(self, client: Calls) -> None:
        sock = client.good("socket", 2, 1, 0).ret
        assert client("setsockopt", sock, 6, 1, None).errno == errno.EFAULT
        assert client("setsockopt", sock, 6, 1, b"\1").errno == errno.EINVAL
        assert client("setsockopt", sock, 1, 13, b"\1\0\0\0").errno == errno.EINVAL  # half a struct linger
        assert client("setsockopt", sock, 6, 13, bytes(2000)).errno == errno.EINVAL
        assert client("getsockopt", sock, 6, 1, -1).errno == errno.EINVAL
        assert client("getsockopt", sock, 6, 1, 0).ret == 0
        assert client("getsockopt", sock, 6, 1, 2).bytes == bytes(2)
        assert client("getsockopt", sock, 255, 255, 4).errno == errno.ENOPROTOOPT

    def test_lengths_below_zero(self, client: Calls, alice_daemon: Daemon) -> None:
        sock, _ = listening(client, alice_daemon.address)
        for call in ("getsockname", "getpeername", "accept"):
            assert client(call, sock, -1).errno in (errno.EINVAL, errno.ENOTCONN), call

    def test_a_shutdown_of_neither_direction(self, client: Calls) -> None:
        sock = client.good("socket", 2, 1, 0).ret
        assert client("shutdown", sock, 7).errno in (errno.EINVAL, errno.ENOTCONN)

    @pytest.mark.parametrize("way", CHISOCKET)
    def test_null_in_place_of_an_address(self, client: Calls) -> None:
        assert bytes.fromhex(client("str", None, 10).data) == b"?"
        assert (client("cmp", None, None).ret, client("cmp", addr("127.0.0.1", 7), None).ret) == (0, 1)

    def test_in_the_wrong_state(self, client: Calls, alice_daemon: Daemon) -> None:
        sock, _ = listening(client, alice_daemon.address)
        assert client("connect", sock, addr(alice_daemon.address, 9)).errno in (errno.EALREADY, errno.EOPNOTSUPP)
        assert client("getpeername", sock, 128).errno == errno.ENOTCONN
        assert client("bind", sock, addr(alice_daemon.address, 0)).errno in (errno.EBADF, errno.EINVAL)

    @pytest.mark.parametrize("way", CHISOCKET)
    def test_closing_twice(self, client: Calls) -> None:
        sock = client.good("socket", 2, 1, 0).ret
        client("close", sock)  # ENOTCONN by requests, as interop.md has it, and the number is free
        assert client("close", sock).errno in (errno.EBADF, errno.ENOTCONN)


class TestNoDaemon:
    def test_nobody_listens(self, start: Start, directory: Path) -> None:
        for way in CHISOCKET:
            assert start(str(directory / "nobody"), way)("socket", 2, 1, 0).errno == errno.ENETDOWN

    def test_it_is_no_socket(self, start: Start, directory: Path) -> None:
        path = directory / "file"
        path.write_text("")
        assert start(str(path), "descriptors")("socket", 2, 1, 0).errno == errno.ENETDOWN

    def test_a_path_that_no_socket_can_have(self, start: Start) -> None:
        assert start("/tmp/" + "x" * 300, "descriptors")("socket", 2, 1, 0).errno == errno.ENAMETOOLONG

    @pytest.mark.parametrize("call", ["recv", "accept", "connect", "listen", "getsockname", "getsockopt", "close"])
    def test_it_goes_away(self, start: Start, daemon: StartDaemon, bob_daemon: Daemon, way: str, call: str) -> None:
        """In the middle of a call that waits, or before one that asks."""
        own = daemon()
        calls, server = start(own, way), start(bob_daemon, way)
        sock, _ = connected(calls, server, bob_daemon.address)
        listener, _ = listening(calls, own.address)
        fresh = calls.good("socket", 2, 1, 0).ret
        own.ask("links", links=[{"peers": [bob_daemon.address], "own": own.address, "seed": 1, "loss": 1.0}])
        waits = {
            "recv": ("recv", sock, 10),
            "accept": ("accept", listener, 16),
            "connect": ("connect", fresh, addr(bob_daemon.address, 7)),  # SYN after SYN, all lost
        }
        if call in waits:
            calls.begin(*waits[call])
        own.process.kill()
        own.process.wait()
        if call not in waits:
            arguments = {"listen": (1,), "getsockname": (16,), "getsockopt": (1, 4, 4), "close": ()}[call]
            calls.begin(call, sock, *arguments)
        answer = calls.end()
        if call == "close" and way == "chirun":
            assert answer.ret == 0  # a kernel's close() does not tell either
        else:
            told = {"recv": errno.ECONNRESET, "connect": errno.ECONNRESET, "accept": errno.EINVAL}
            expected = {errno.ENETDOWN if way == "requests" else told.get(call, errno.ENETDOWN)}
            if call == "connect":
                expected.add(errno.ENETDOWN)  # it may not have been asked yet
            assert answer.errno in expected

    def test_another_one_takes_its_place(self, start: Start, daemon: StartDaemon) -> None:
        own = daemon()
        calls = start(own, "descriptors")
        sock = calls.good("socket", 2, 1, 0).ret
        own.process.kill()
        own.process.wait()
        assert daemon(address=own.address).socket == own.socket
        fresh = calls.good("socket", 2, 1, 0).ret
        assert calls("listen", sock, 1).errno == errno.ENETDOWN  # nobody takes it for a socket of the new one's
        assert calls("debug", sock, 1).errno == errno.ENETDOWN
        assert calls("listen", fresh, 1).ret == 0


class TestAnswers:
    """What answers is no chitcpd, or one that has gone mad."""

    @pytest.fixture
    def mad(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
        with scripted_daemon(directory, monkeypatch) as running:
            yield running

    @pytest.fixture
    def calls(self, start: Start, mad: ScriptedDaemon) -> Calls:
        calls = start(str(mad.path), "requests")
        calls.begin("socket", 2, 1, 0)
        mad.next().answer(ret=3)
        assert calls.end().ret == 3
        return calls

    @pytest.mark.parametrize(
        ("raw", "error"),
        [
            (struct.pack("=Q", 2**63) + b"x", errno.EPROTO),
            (struct.pack("=Q", 17 << 20), errno.EPROTO),
            (struct.pack("=Q", 3) + b"\xff\xff\xff", errno.EPROTO),
            (struct.pack("=Q", 0), errno.EPROTO),  # without its required fields
            (struct.pack("=Q", 2) + b"\x08\x0b", errno.EPROTO),  # RESP, and nothing in it
            (struct.pack("=Q", 4) + b"\x08\x0b\x6a\x00", errno.EPROTO),  # without ret and error_code
            (struct.pack("=Q", 8) + b"\x08\x05\x6a\x04\x08\x00\x10\x00", errno.EPROTO),  # CONNECT
            (struct.pack("=Q", 9) + b"\x08\x0b\x6a\x05\x08\x00\x10\xff\x7f", errno.EPROTO),  # errno 16383
        ],
    )
    def test_nonsense(self, calls: Calls, mad: ScriptedDaemon, raw: bytes, error: int) -> None:
        calls.begin("recv", 3, 10)
        request = mad.next()
        request.answer_bytes(raw)
        assert calls.end().errno == error
        calls.begin("recv", 3, 10)  # over another connection
        again = mad.next()
        assert again.connection != request.connection
        again.answer(ret=2, buf=b"ok")
        assert calls.end().bytes == b"ok"

    def test_half_an_answer(self, calls: Calls, mad: ScriptedDaemon) -> None:
        calls.begin("recv", 3, 10)
        request = mad.next()
        request.answer_bytes(struct.pack("=Q", 100) + b"\x08\x0b")
        request.hang_up()
        assert calls.end().errno == errno.ENETDOWN

    @pytest.mark.parametrize("answer", [{"ret": 20, "buf": bytes(20)}, {"ret": 2, "buf": b"abc"}, {"ret": -7}])
    def test_more_or_less_than_was_asked_for(
        self, calls: Calls, mad: ScriptedDaemon, answer: dict[str, int | bytes]
    ) -> None:
        calls.begin("recv", 3, 10)
        mad.next().answer(**answer)  # type: ignore[arg-type]
        assert calls.end().errno == errno.EPROTO

    @pytest.mark.parametrize("ret", [100, -3])
    def test_more_was_sent_than_there_was(self, calls: Calls, mad: ScriptedDaemon, ret: int) -> None:
        calls.begin("send", 3, b"12345")
        mad.next().answer(ret=ret)
        assert calls.end().errno == errno.EPROTO

    @pytest.mark.parametrize("raw", [b"", b"\2", b"\2\0\0\0", bytes(128)])
    def test_no_address(self, calls: Calls, mad: ScriptedDaemon, raw: bytes) -> None:
        calls.begin("getsockname", 3, 128)
        mad.next().answer(addr=raw)
        assert calls.end().errno == errno.EPROTO

    def test_a_socket_with_a_number_that_is_none(self, calls: Calls, mad: ScriptedDaemon) -> None:
        calls.begin("socket", 2, 1, 0)
        mad.next().answer(ret=-4)
        assert calls.end().errno == errno.EPROTO

    def test_accept_with_a_bad_address_closes_what_it_made(self, calls: Calls, mad: ScriptedDaemon) -> None:
        calls.begin("accept", 3, 128)
        mad.next().answer(ret=4, addr=b"\2")
        closing = mad.next()
        assert closing.message.close_args.sockfd == 4
        closing.answer()
        assert calls.end().errno == errno.EPROTO

    def test_no_state(self, calls: Calls, mad: ScriptedDaemon) -> None:
        for call in ("state", "buffers"):
            calls.begin(call, 3)
            mad.next().answer()
            assert calls.end().errno == errno.EPROTO
