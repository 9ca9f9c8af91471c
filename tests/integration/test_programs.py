"""Applications in C, and programs that nobody has recompiled, in containers that have no network but our TCP."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from tests.integration.conftest import PROJECT, Bench

pytestmark = pytest.mark.docker

TOPOLOGIES = PROJECT / "topologies"
SIZE = 10 << 20


def test_c_and_python_applications_talk(bench: Bench) -> None:
    command = bench.run(str(TOPOLOGIES / "c-apps.yaml"))
    assert command.status == 0, command.output
    said = {app: (bench.latest / "apps" / app / "stdout").read_text() for app in ("echo-client", "receiver")}
    assert said["echo-client"] == "Hello from Python to C\n"
    assert "received 200000 bytes in " in said["receiver"]
    assert "python-server: echoed 6 bytes" in command.output


@pytest.mark.timeout(180)
@pytest.mark.parametrize("loss", ["0%", "5%"])
def test_unmodified_programs(bench: Bench, loss: str) -> None:
    text = (TOPOLOGIES / "programs.yaml").read_text()
    command = bench.run(bench.topology(text.replace("loss: 5%", f"loss: {loss}").replace("1MiB", f"{SIZE >> 20}MiB")))
    assert command.status == 0, command.output
    apps = bench.latest / "apps"

    sent, received = (apps / app / "files" / "payload.bin" for app in ("web", "curl"))
    assert received.stat().st_size == SIZE
    assert hashlib.sha256(sent.read_bytes()).digest() == hashlib.sha256(received.read_bytes()).digest()
    assert (apps / "chat-alice" / "stdout").read_text() == "Hello, Alice.\n"
    assert (apps / "chat-bob" / "stdout").read_text() == "Hello, Bob.\n"
    bandwidth = re.search(r"([\d.]+) [KM]bits/sec +receiver", (apps / "iperf" / "stdout").read_text())
    assert bandwidth is not None
    assert float(bandwidth[1]) > 0
    assert re.findall(r'^"(SET|GET)","[\d.]+"', (apps / "benchmark" / "stdout").read_text(), re.MULTILINE) == [
        "SET",
        "GET",
    ]

    lost = [
        line
        for host in ("alice", "bob")
        for line in (bench.latest / "hosts" / host / "trace.jsonl").read_text().splitlines()
        if json.loads(line).get("why") == "loss"
    ]
    assert bool(lost) == (loss == "5%")


SHOW = """
import os, socket, sys, urllib.request
sock = socket.create_connection(("bob", 8000))
print(os.readlink(f"/proc/self/fd/{sock.fileno()}")[:6], sock.getpeername()[1])
print(open("/proc/net/tcp").read().count("\\n"), open("/proc/net/tcp6").read().count("\\n"))
print(urllib.request.urlopen("http://bob:8000/").status)
"""


def test_they_have_no_tcp_of_the_kernels(bench: Bench) -> None:
    """A program under chirun holds a connection; the kernel of its container knows of none."""
    text = f"""
name: lab
hosts: {{alice: {{}}, bob: {{}}}}
links: [{{endpoints: [alice, bob]}}]
apps:
  web: {{host: bob, via: chirun, run: [python3, -m, http.server, "8000"], ready: {{listening: 8000}}}}
  show: {{host: alice, via: chirun, run: [python3, -c, {json.dumps(SHOW)}], needs: [web], expect: {{exit: 0}}}}
  past-it: {{host: alice, run: [python3, -c, {json.dumps(SHOW)}], needs: [web], expect: {{exit: 1}}}}
"""
    command = bench.run(bench.topology(text))
    assert command.status == 0, command.output
    shown = (bench.latest / "apps" / "show" / "stdout").read_text()
    assert shown == "socket 8000\n1 1\n200\n"  # the tables have their headings, and nothing else
    assert "name resolution" in (bench.latest / "apps" / "past-it" / "stderr").read_text()
