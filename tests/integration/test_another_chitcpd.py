"""A host whose image has another chitcpd: all that the testbed knows of it is port 23300, and a UNIX socket."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import APIError
from scapy.utils import PcapReader

from testbed import lab, topology
from testbed.backends import docker_labels
from testbed.backends.docker import DockerBackend
from testbed.signals import Signals
from testbed.unavailable import Unavailable
from tests.integration.conftest import Bench

pytestmark = pytest.mark.docker

TAG = f"chitcp-test:another-{os.getpid()}"
# Ours under another name, without tc, without a socket for control that anybody else could find.
ANOTHER = """
FROM {image}
USER root
RUN mv /opt/chitcp/bin/chitcpd /usr/local/bin/another-daemon && rm -f /usr/sbin/tc /sbin/tc
CMD ["another-daemon", "--control", "/tmp/control"]
"""
LAB = f"""
name: another
hosts:
  alice:
  bob: {{image: "{TAG}"}}
links:
  - {{endpoints: [alice, bob], delay: 5ms}}
apps:
  server:
    host: bob
    run: [python, -m, chisocket.apps.echo, serve, --port, "7"]
    ready: {{output: echoing}}
  client:
    host: alice
    run: [python, -m, chisocket.apps.echo, send, "bob:7", Hello]
    needs: [server]
    expect: {{exit: 0}}
events:
  - {{at: 0s, link: alice-bob, set: {{delay: 10ms}}}}
checks:
  - output: {{app: client, matches: Hello}}
"""


@pytest.fixture(scope="module")
def another(client: docker.DockerClient) -> Iterator[str]:
    file = io.BytesIO(ANOTHER.format(image=docker_labels.image()).encode())
    client.images.build(fileobj=file, tag=TAG, network_mode="host", rm=True)
    yield TAG
    client.images.remove(TAG)  # and not its id, which may bear another process's tag, too


def test_it_takes_part_and_what_it_can_not_do_is_said(bench: Bench, another: str) -> None:
    command = bench.run(bench.topology(LAB))
    assert command.status == 0, command.output
    assert f"bob runs {another}: it has no trace" in command.output
    bob = bench.latest / "hosts" / "bob"
    assert "listening on" in (bob / "chitcpd.log").read_text()
    with PcapReader(str(bob / "wire.pcap")) as packets:
        assert any(packets)
    assert not (bob / "trace.jsonl").exists()
    manifest = json.loads((bench.latest / "manifest.json").read_text())
    assert manifest["hosts"]["bob"]["image"] == another
    (by_bob,) = (link for link in manifest["links"] if link["direction"] == "bob->alice")
    assert by_bob["mechanism"]["all_else"] == "none"
    assert by_bob["mechanism"]["delay_jitter_rate"] == ("none" if by_bob["why"] else "netem")
    assert bench.left() == []


@pytest.mark.usefixtures("another")
def test_a_check_that_needs_its_trace_fails_and_says_why(bench: Bench) -> None:
    command = bench.run(bench.topology(LAB + "  - states: {app: server, all: [ESTABLISHED]}\n"))
    assert command.status == 1
    assert "bob has no trace to judge by" in command.output, command.output


@pytest.mark.usefixtures("another")
def test_one_that_has_ended_is_started_anew_by_up(bench: Bench) -> None:
    up = ["up", bench.topology(LAB), "--backend", "docker", "--name", bench.lab]
    assert bench.command(*up).status == 0
    bench.client.containers.get(f"chitcp-{bench.lab}.host-bob").kill()
    again = bench.command(*up)
    assert again.status == 0, again.output
    assert "host bob: running" in again.output
    assert "just so" in bench.command(*up).output


def test_an_image_that_is_not_there(bench: Bench) -> None:
    command = bench.run(bench.topology(LAB.replace(TAG, "no-such-image:here")))
    assert command.status == 3
    assert "does not have the image no-such-image:here of host bob" in command.output
    assert bench.left() == []


def test_one_that_never_serves(bench: Bench, another: str) -> None:
    command = bench.run(bench.topology(LAB.replace(f'image: "{TAG}"', f'image: "{another}", command: ["false"]')))
    assert command.status == 3
    assert "chitcpd of bob ended with status 1 as it started" in command.output
    assert bench.left() == []


@pytest.mark.parametrize("status", [409, 400, 500])
def test_one_that_ends_while_the_engine_joins_its_network(
    bench: Bench, another: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that finds out late answers with what its runtime met, as 400 or 500: each was seen."""
    file = bench.directory / bench.topology(LAB.replace(f'image: "{TAG}"', f'image: "{another}", command: ["false"]'))
    backend = DockerBackend()
    start = docker.APIClient.start

    def start_after_its_end(api: docker.APIClient, container: str) -> None:
        joined, _, host = api.inspect_container(container)["HostConfig"]["NetworkMode"].partition(":")
        if joined == "container":
            api.wait(host, timeout=20)
        try:
            start(api, container)
        except APIError as error:
            assert error.response is not None
            error.response.status_code = status
            raise

    monkeypatch.setattr(docker.APIClient, "start", start_after_its_end)
    with Signals() as signals, pytest.raises(Unavailable, match="chitcpd of bob ended with status 1 as it started"):
        lab.build(topology.load(file), backend, lab=bench.lab, run_id="1", stays=False, signals=signals, report=print)
    assert bench.left() == []


@pytest.mark.usefixtures("another")
def test_a_link_that_changes_does_what_is_shown_and_what_can_not_be_is_refused(bench: Bench) -> None:
    assert bench.command("up", bench.topology(LAB), "--backend", "docker", "--name", bench.lab).status == 0

    def bob() -> dict[str, Any]:
        shown: list[dict[str, Any]] = json.loads(bench.command("link", "show", bench.lab, "--format", "json").output)
        return next(end["now"] for end in shown if end["direction"] == "bob->alice")

    has_netem = bob()["delay"] > 0
    assert bob()["delay"] == (0.005 if has_netem else 0)
    of_bob = ("link", "set", bench.lab, "alice-bob", "--from", "bob")
    command = bench.command(*of_bob, "loss=30%")
    assert (command.status, bob()["loss"]) == (3, 0)
    assert "its chitcpd is another" in command.output
    command = bench.command(*of_bob, "delay=20ms")
    assert (command.status, bob()["delay"]) == ((0, 0.02) if has_netem else (3, 0)), command.output

    command = bench.command("link", "down", bench.lab, "alice-bob")  # as far as it can be
    assert command.status == 0, command.output
    assert "alice->bob: down" in command.output
    assert not bob()["down"]
