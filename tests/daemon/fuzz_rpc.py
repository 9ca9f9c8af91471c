"""Bad input at random on the UNIX socket of a daemon that runs: garbage, and messages that are almost right.

    python -m tests.daemon.fuzz_rpc --executions 1_000_000 --seed 1

An execution is one message. Batches of them go over a connection each, as fast as answers come. Meanwhile a good
application must be served, and at the end the daemon must have nothing left, and have said nothing of a fault.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from chisocket.protocol import addresses
from chisocket.protocol import chitcpd_pb2 as pb
from tests.daemon.application import ARGUMENTS, Application
from tests.daemon.conftest import Daemon, running_daemon

BATCH = 200  # messages of one connection, at most
_PATIENCE = 0.02  # seconds for an answer, then the last call is one that waits
_LINES = 10.0  # seconds between two lines of progress
_EVERY = 200  # batches between two looks at the good application
_MAY_WAIT = (pb.ACCEPT, pb.RECV, pb.CLOSE, pb.CONNECT, pb.WAIT_FOR_STATE)
_NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 10, 17, 41, 100, 1023, 8191, 8192, -1, (1 << 31) - 1, -(1 << 31))
_HOSTS = ("127.0.0.1", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1")


@dataclass
class Outcome:
    """What was seen in a run."""

    executions: int
    answers: int
    resident: tuple[int, int]  # KiB, after the first tenth and at the end
    descriptors: tuple[int, int]  # likewise


def run(daemon: Daemon, executions: int, seed: int, *, progress: bool = False) -> Outcome:
    """Send so many messages. Raises AssertionError if the daemon doesn't serve others, or leaves something."""
    random, done, answers, batches, said = Random(seed), 0, 0, 0, time.monotonic()
    early = None
    with Application(daemon.socket) as good:
        while done < executions:
            count, answered = _batch(daemon, random)
            done, answers, batches = done + count, answers + answered, batches + 1
            if early is None and done >= executions // 10:
                early = _state(daemon)
            if batches % _EVERY == 0:
                good.good(pb.CLOSE, sockfd=good.socket())
            if progress and time.monotonic() - said > _LINES:
                said = time.monotonic()
                print(f"{done:,} messages, {answers:,} answers, {_state(daemon)[0]} KiB", flush=True)
        fd, port = good.listening(daemon.address)
        good.ask(pb.ACCEPT, sockfd=fd)
        with Application(daemon.socket) as other:
            other.send(other.connected(daemon.address, port), b"still here")
            assert good.recv(good.answer().ret) == b"still here"
    _wait_until_empty(daemon)
    log = daemon.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    late = _state(daemon)
    assert early is not None
    return Outcome(done, answers, (early[0], late[0]), (early[1], late[1]))


def _batch(daemon: Daemon, random: Random) -> tuple[int, int]:
    """One connection: (messages sent, answers)."""
    if random.random() < 0.1:
        return 1, _exchange(daemon, _garbage(random), greet=random.random() < 0.5)
    count = random.randrange(1, BATCH)
    codes = [random.choice([code for code in ARGUMENTS if code not in _MAY_WAIT]) for _ in range(count)]
    if random.random() < 0.3:
        codes.append(random.choice(_MAY_WAIT))
    frames = b"".join(_frame(_message(random, daemon, code), random) for code in codes)
    return len(codes), _exchange(daemon, frames, greet=random.random() < 0.98)


def _exchange(daemon: Daemon, data: bytes, *, greet: bool) -> int:
    """Send it all, and count the answers until none comes any more, or the connection ends."""
    received = 0
    application = Application(daemon.socket, greet=greet)
    with application:
        sock = application.raw
        sock.settimeout(_PATIENCE)
        try:
            sock.sendall(data)
            while more := sock.recv(1 << 16):
                received += more.count(b"\x08\x0bj")  # each answer begins so: code RESP, field 13
        except OSError:  # a time-out, or the daemon has closed
            pass
    return received


def _garbage(random: Random) -> bytes:
    kind = random.randrange(3)
    if kind == 0:
        return random.randbytes(random.randrange(200))
    if kind == 1:
        return struct.pack("=Q", random.choice((0, 1, 1 << 20, 1 << 24, 1 << 40, 1 << 63))) + random.randbytes(50)
    length = random.randrange(1, 100)
    return struct.pack("=Q", length) + random.randbytes(length)


def _message(random: Random, daemon: Daemon, code: pb.MsgCode) -> pb.ChitcpdMsg:
    """A request, each field of its own kind but with any value."""
    message = pb.ChitcpdMsg(code=code if random.random() < 0.97 else random.randrange(-5, 200))
    arguments = getattr(message, ARGUMENTS[code])
    arguments.SetInParent()
    for field in arguments.DESCRIPTOR.fields:
        if random.random() < 0.001:
            continue  # it is missing
        if field.type == field.TYPE_BYTES:
            setattr(arguments, field.name, _bytes(random, daemon, field.name))
        elif field.type == field.TYPE_STRING:
            setattr(arguments, field.name, random.choice(("ping", "sockets", "links", "wait", "")))
        elif field.type == field.TYPE_INT32:
            setattr(arguments, field.name, _number(random, field.name))
    return message


def _number(random: Random, name: str) -> int:
    if name == "sockfd" and random.random() < 0.7:
        return random.randrange(6)
    if name == "domain" and random.random() < 0.8:
        return random.choice((socket.AF_INET, socket.AF_INET6))
    if name == "type" and random.random() < 0.8:
        return socket.SOCK_STREAM
    if name == "protocol" and random.random() < 0.8:
        return 0
    return random.choice(_NUMBERS)


def _bytes(random: Random, daemon: Daemon, name: str) -> bytes:
    if name != "addr" or random.random() < 0.1:
        return random.randbytes(random.choice((0, 1, 4, 8, 16, 28, 128, 2000)))
    host = random.choice((daemon.address, daemon.address, *_HOSTS))
    raw = bytearray(addresses.pack((host, random.choice((0, 7, 80, 50000, 65535)))))
    if random.random() < 0.1:
        raw[random.randrange(2)] ^= 1 << random.randrange(8)  # the family; never where it would lead
    return bytes(raw[: random.randrange(len(raw) + 1)] if random.random() < 0.05 else raw)


def _frame(message: pb.ChitcpdMsg, random: Random) -> bytes:
    body = bytearray(message.SerializePartialToString())
    if body and random.random() < 0.005:
        body[random.randrange(min(len(body), 8))] ^= 1 << random.randrange(8)
    return struct.pack("=Q", len(body)) + body


def _state(daemon: Daemon) -> tuple[int, int]:
    """KiB resident, and descriptors open."""
    process = f"/proc/{daemon.process.pid}"
    resident = next(line for line in Path(process, "status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]), len(os.listdir(f"{process}/fd"))


def _wait_until_empty(daemon: Daemon) -> None:
    until = time.monotonic() + 10.0
    while daemon.sockets():
        assert time.monotonic() < until, daemon.sockets()


def main() -> int:
    """Run from the command line; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.daemon.fuzz_rpc", description=__doc__.partition("\n")[0])
    parser.add_argument("--executions", type=int, default=50_000, help="messages, in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fz-") as directory, running_daemon(Path(directory)) as daemon:
        start = time.monotonic()
        outcome = run(daemon, options.executions, options.seed, progress=True)
        print(f"seed {options.seed}, {time.monotonic() - start:.0f} s: {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
