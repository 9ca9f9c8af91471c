"""What this machine can't do: one sentence, what to do about it, exit status 3, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from testbed import topology
from testbed.backends.docker import DockerBackend
from testbed.plan import plan
from testbed.unavailable import Unavailable
from tests.conftest import own_number
from tests.integration.conftest import PROJECT, Bench

pytestmark = pytest.mark.docker

TAKEN = f"10.215.{own_number()}.0/29"
WANTS_TAKEN = f"""
name: taken
hosts: {{alice: {{}}, bob: {{}}}}
links: [{{endpoints: [alice, bob], subnet: {TAKEN}}}]
"""


@pytest.fixture
def somebodys_network(client: docker.DockerClient) -> Iterator[Network]:
    """A network that has nothing to do with us, on a subnet that we would like."""
    network = client.networks.create(
        f"somebodys-{os.getpid()}", internal=True, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=TAKEN)])
    )
    yield network
    network.remove()


def test_no_engine(bench: Bench) -> None:
    command = bench.run(str(PROJECT / "topologies" / "two-hosts.yaml"), DOCKER_HOST="unix:///nonexistent.sock")
    assert command.status == 3
    assert "no Docker engine answers" in command.output
    assert "--backend local" in command.output


def test_no_permission() -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to become a user who is not in the socket's group")
    script = """
import os
from testbed.unavailable import Unavailable
from testbed.backends.docker import DockerBackend
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    DockerBackend().check()
except Unavailable as why:
    print(why, why.remedy)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60
    )
    assert "may not open the Docker engine's socket" in done.stdout
    assert "usermod -aG docker" in done.stdout


def test_no_image(bench: Bench) -> None:
    command = bench.run(str(PROJECT / "topologies" / "two-hosts.yaml"), CHITCP_IMAGE="chitcp:nonesuch")
    assert command.status == 3
    assert "does not have the image chitcp:nonesuch" in command.output
    assert "make image" in command.output
    assert bench.left() == []


def test_a_subnet_in_use(bench: Bench, somebodys_network: Network) -> None:
    command = bench.run(bench.topology(WANTS_TAKEN))
    assert command.status == 3
    assert f"{TAKEN} of link alice-bob is in use by Docker network {somebodys_network.name}" in command.output
    assert bench.left() == []


def test_a_subnet_that_was_taken_in_the_last_moment(bench: Bench, somebodys_network: Network) -> None:
    file = bench.directory / bench.topology(WANTS_TAKEN)
    backend = DockerBackend()
    planned = plan(topology.load(file), run_id="1", lab=bench.lab, pool=backend.pool, in_use={})
    with pytest.raises(Unavailable, match=f"{TAKEN} of link alice-bob is in use by .*{somebodys_network.name}"):
        backend.up(planned, print, stays=False)
    assert bench.left() == []


def test_a_tcp_that_can_not_be_loaded(bench: Bench) -> None:
    (bench.directory / "broken_tcp.py").write_text("import this_module_is_not_there\n")
    file = bench.topology(WANTS_TAKEN.replace("bob: {}", "bob: {tcp: {implementation: ./broken_tcp.py}}"))
    command = bench.run(file)
    assert command.status == 3
    assert "chitcpd of bob ended" in command.output
    assert "this_module_is_not_there" in command.output
    assert bench.left() == []


def test_a_lab_that_is_up(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(WANTS_TAKEN)
    assert bench.command("up", "lab.yaml", "--backend", "docker", "--name", bench.lab).status == 0
    before = bench.left()
    command = bench.run("lab.yaml")
    assert command.status == 3
    assert f"testbed down {bench.lab}" in command.output
    assert bench.left() == before
