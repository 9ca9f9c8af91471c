"""One echo over each way to use a daemon, at either end: the chisocket_ functions, or descriptors."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.chisocket.ends import KINDS, Descriptor, Number, family_of, send_all
from tests.daemon.conftest import PATIENCE, Daemon, environment

PAYLOAD = bytes(range(256)) * 2048  # 512 KiB


@pytest.fixture(params=["IPv4", "IPv6", "own address"])
def daemons(request: pytest.FixtureRequest) -> tuple[Daemon, Daemon]:
    """The client's, and the server's. Of IPv6 addresses a loopback has only one."""
    names = {
        "IPv4": ("alice_daemon", "bob_daemon"),
        "IPv6": ("ipv6_daemon", "ipv6_daemon"),
        "own address": ("bob_daemon", "bob_daemon"),
    }[request.param]
    client, server = (request.getfixturevalue(name) for name in names)
    return client, server


@pytest.mark.parametrize("server", KINDS)
@pytest.mark.parametrize("client", KINDS)
def test_what_is_sent_comes_back(
    daemons: tuple[Daemon, Daemon],
    client: str,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    background: ThreadPoolExecutor,
) -> None:
    host = daemons[1].address
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chisocket.ends", server, host],
        env={**environment(), "CHITCPD_SOCK": daemons[1].socket},
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        monkeypatch.setenv("CHITCPD_SOCK", daemons[0].socket)
        end = KINDS[client](family_of(host))
        end.connect(host, port)
        sending = background.submit(send_all_and_end, end)
        received = bytearray()
        while data := end.recv(1 << 16):
            received += data
        sending.result(PATIENCE)
        end.close()
        assert process.wait(PATIENCE) == 0
    assert received == PAYLOAD


def send_all_and_end(end: Number | Descriptor) -> None:
    send_all(end, PAYLOAD)
    end.send_end()
