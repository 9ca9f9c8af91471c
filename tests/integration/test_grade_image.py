"""`testbed grade --image`: ours as if it were a stranger's, strangers' mistakes, and nothing left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import docker
import pytest

from testbed.backends.docker_labels import FOREIGN, SOCKET_DIRECTORY, image
from tests.grading.mutants import mutants
from tests.integration.conftest import Bench

pytestmark = pytest.mark.docker

GARBAGE = """\
import os, socket
server = socket.socket(socket.AF_UNIX)
server.bind(os.environ["CHITCPD_SOCK"])
server.listen()
while True:
    connection, _ = server.accept()
    connection.sendall(b"HTTP/1.1 400 Bad Request" * 1000)
    print("x" * 1_000_000, flush=True)
"""

# Whoever has an address there answers, be it that nothing listens. And what may be written has a bound.
LOOKS_AROUND = """\
import ipaddress, socket
routes = [line.split() for line in open("/proc/net/route").readlines()[1:]]
network = max(int.from_bytes(bytes.fromhex(route[1]), "little") for route in routes)
gateway = str(ipaddress.ip_address(network + 1))
try:
    socket.create_connection((gateway, 9), 2)
    print("the gateway answers")
except OSError as error:
    print("the gateway answers" if isinstance(error, ConnectionRefusedError) else "no gateway answers")
written = 0
try:
    with open("/stays/in/file", "wb", buffering=0) as file:
        while written < 200:
            file.write(bytes(1 << 20))
            written += 1
except OSError:
    pass
print("the volume is", "bounded" if 0 < written < 200 else f"not: {written}")
raise SystemExit(7)
"""


@pytest.fixture(scope="module")
def build(client: docker.DockerClient) -> Iterator[Callable[..., str]]:
    """Makes an image from ours: its command, a file /it.py, and more of a Dockerfile. They are removed at the end."""
    tags: list[str] = []

    def build(command: list[str], text: str = "", more: str = "") -> str:
        tag = f"chitcp-test:foreign-{os.getpid()}-{len(tags)}"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            dockerfile = f"FROM {image()}\nCOPY it.py /it.py\n{more}CMD {json.dumps(command)}\n"
            for name, content in (("Dockerfile", dockerfile), ("it.py", text)):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content.encode()), 0o644
                archive.addfile(member, io.BytesIO(content.encode()))
        packed.seek(0)
        client.images.build(fileobj=packed, custom_context=True, tag=tag, rm=True)
        tags.append(tag)
        return tag

    yield build
    for tag in tags:
        client.images.remove(tag)


def left(client: docker.DockerClient, tag: str) -> list[str]:
    """What there is on the engine of the grading of this image."""
    label: dict[str, Any] = {"label": f"{FOREIGN}={tag}"}
    containers = client.containers.list(all=True, filters=label)
    things: list[Any] = [*containers, *client.networks.list(filters=label), *client.volumes.list(filters=label)]
    return sorted(thing.name for thing in things)


def test_ours_gets_all_points_that_can_be_judged(bench: Bench, build: Callable[..., str]) -> None:
    tag = build(["chitcpd"])
    command = bench.command("grade", "--image", tag, "--junit", "it.xml", "--html", "it.html", "--format", "json")
    grade = json.loads(command.output)
    wrong = {test["id"]: test["message"] for stage in grade["stages"] for test in stage["tests"] if test["message"]}
    assert wrong == {}
    assert command.status == 0
    assert (grade["trouble"], grade["notes"]) == ("", [])
    assert grade["earned"] == grade["points"] > 150
    assert 0 < grade["left_out"] < 25, "what can't be judged is neither given nor taken"
    skipped = ElementTree.parse(bench.directory / "it.xml").findall(".//skipped")
    unseen = [test for stage in grade["stages"] for test in stage["tests"] if test["unseen"]]
    assert len(skipped) == len(unseen) > 0
    assert "can't be judged from outside" in (bench.directory / "it.html").read_text()
    assert left(bench.client, tag) == []


def test_a_mistake_loses_points_in_its_stage_with_the_ladder_and_the_command(
    bench: Bench, build: Callable[..., str]
) -> None:
    mutant = next(mutant for mutant in mutants() if mutant.name.startswith("032"))  # the FIN is not acknowledged
    tag = build(["chitcpd", "--tcp", "/it.py"], mutant.source().text)
    only = ("--only", "connection", "--only", "peer-closes-first", "--only", "fin-with-ack-of-ours")
    command = bench.command("grade", "--image", tag, *only)
    assert command.status == 1, command.output
    assert f"again: testbed grade --image {tag} --only fin-with-ack-of-ours" in command.output
    assert "what happened:" in command.output
    assert "what should have happened:" in command.output
    rows = {
        line.split()[0]: line.split()[1:] for line in command.output.splitlines() if line.endswith(("16/16", "0/2"))
    }
    assert rows == {"connection": ["18", "18", "16/16"], "close": ["0", "3", "0/2"]}
    assert left(bench.client, tag) == []


@pytest.mark.parametrize(
    ("run", "text", "reason"),
    [
        (["python", "-c", "print('no licence'); raise SystemExit(7)"], "", "status 7); its last lines: no licence"),
        (["/no/such/program"], "", "its container ended"),
        (["python", "/it.py"], GARBAGE, "no application can talk to it"),
    ],
    ids=["ends", "nothing", "garbage"],
)
def test_what_is_no_chitcpd_gets_nothing_and_is_told_why(
    bench: Bench, build: Callable[..., str], run: list[str], text: str, reason: str
) -> None:
    tag = build(run, text)
    command = bench.command("grade", "--image", tag)
    assert command.status == 1, command.output
    assert reason in command.output
    assert f"{tag}: 0 of " in command.output
    assert left(bench.client, tag) == []


def test_it_reaches_nobody_but_the_judge_and_fills_no_disk(bench: Bench, build: Callable[..., str]) -> None:
    tag = build(["python", "/it.py"], LOOKS_AROUND, f"USER root\nVOLUME /stays/in/ {SOCKET_DIRECTORY} /tmp\n")
    command = bench.command("grade", "--image", tag)
    assert "its last lines: no gateway answers / the volume is bounded" in command.output
    assert left(bench.client, tag) == []


def test_an_image_that_is_not_there(bench: Bench) -> None:
    command = bench.command("grade", "--image", "no-such-image:here")
    assert command.status == 3
    assert "does not have the image no-such-image:here" in command.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_ends_it_early_leaves_nothing_that_gc_does_not_find(
    bench: Bench, build: Callable[..., str], number: signal.Signals
) -> None:
    tag = build(["chitcpd"])
    events = bench.client.events(decode=True, filters={"label": f"{FOREIGN}={tag}", "event": "exec_start"})
    with bench._start("grade", "--image", tag) as running:
        next(events)  # our own look at the judge's image, then the judge
        next(events)
        running.process.send_signal(number)
        command = running.end()
    events.close()
    if number == signal.SIGINT:
        assert command.status == 130, command.output
    else:
        assert left(bench.client, tag) != []
        assert bench.command("gc").status == 0
    assert left(bench.client, tag) == []
