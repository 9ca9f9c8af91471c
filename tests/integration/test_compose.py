"""The lab by hand, compose.yaml: the commands in its head and in the README, in their order, as they stand there."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from tests.conftest import own_number
from tests.integration.conftest import PATIENCE, PROJECT

pytestmark = pytest.mark.docker

COMPOSE = PROJECT / "compose.yaml"
V2 = "docker compose"


@pytest.fixture(scope="module")
def compose() -> str:
    """The command there is: that of today, or the older one."""
    if (
        shutil.which("docker")
        and subprocess.run([*V2.split(), "version"], capture_output=True, check=False).returncode == 0
    ):
        return V2
    if shutil.which("docker-compose"):
        return "docker-compose"
    if os.environ.get("REQUIRE_DOCKER"):
        pytest.fail("there is neither `docker compose` nor docker-compose (REQUIRE_DOCKER is set)", pytrace=False)
    pytest.skip("there is neither `docker compose` nor docker-compose")


class Desk:
    """Where a person sits: a folder with a copy of compose.yaml, and a terminal."""

    def __init__(self, compose: str, folder: Path) -> None:
        self.folder = folder
        self.project = f"chitcp-it-{os.getpid()}"
        left, right = (f"10.214.{own_number() * 2 + side}" for side in range(2))
        lab = {"COMPOSE_PROJECT_NAME": self.project, "CHITCP_LEFT": left, "CHITCP_RIGHT": right}
        self.environment = {**os.environ, **lab}
        self._compose = compose
        shutil.copy(COMPOSE, folder)

    def types(self, command: str, then: str = "") -> tuple[int, str]:
        """The status of a command line that is typed, and what it shows; `then` is typed while it runs."""
        keyboard, terminal = pty.openpty()
        with subprocess.Popen(
            command.replace(V2, self._compose),
            shell=True,
            cwd=self.folder,
            env=self.environment,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            os.close(terminal)
            os.write(keyboard, then.encode())
            shown, _ = process.communicate(timeout=PATIENCE)
        os.close(keyboard)
        return process.returncode, shown.decode(errors="replace")

    def walks_through(self, commands: list[str], then: str = "") -> dict[str, str]:
        """What each of these shows; all must work that can here: some machines have no netem, and no tshark."""
        shown: dict[str, str] = {}
        no_netem = False
        for command in commands:
            if command.startswith("tshark ") and shutil.which("tshark") is None:
                continue
            status, shown[command] = self.types(command, then if command.endswith(" bash") else "")
            no_netem = no_netem or "qdisc kind is unknown" in shown[command]
            assert status == 0 or (no_netem and " tc " in command), f"{command}\n{shown[command]}"
        return shown

    def left(self, client: docker.DockerClient) -> list[str]:
        """What there is of the lab on the engine."""
        label: dict[str, Any] = {"label": f"com.docker.compose.project={self.project}"}
        containers = client.containers.list(all=True, filters=label)
        things: list[Any] = [*containers, *client.networks.list(filters=label), *client.volumes.list(filters=label)]
        return [thing.name for thing in things]


@pytest.fixture
def desk(compose: str, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(compose, tmp_path)
    yield desk
    desk.types(f"{V2} down -v -t 2")


def test_the_walk_through_in_its_head(desk: Desk, client: docker.DockerClient) -> None:
    shown = desk.walks_through(re.findall(r"^#     (.+)$", COMPOSE.read_text(), re.MULTILINE))

    for command, said in shown.items():
        if text := re.search(r" echo send bob:7 (.+)", command):
            assert text[1] in said
    assert "ESTABLISHED" in shown[f"{V2} logs alice"]
    assert "LISTEN" in shown[f"{V2} exec bob chitcpd ctl sockets"]
    assert '"loss": 0.5' in shown[f"{V2} exec alice chitcpd ctl link router"]
    captures = {file.relative_to(desk.folder).as_posix(): file for file in desk.folder.glob("captures/*/*")}
    assert sorted(captures) == [
        f"captures/{host}/{name}.pcap" for host in ("alice", "bob") for name in ("segments", "wire")
    ]
    for name, file in captures.items():
        assert file.stat().st_mode & stat.S_IROTH
        assert file.parent.stat().st_uid == os.getuid()
        if (dissected := shown.get(f"tshark -r {name}")) is not None:
            assert "[SYN, ACK]" in dissected
            assert ("23300" in dissected) == (file.stem == "wire")
    assert desk.left(client) == []


def test_the_lines_of_the_readme(desk: Desk, client: docker.DockerClient) -> None:
    by_hand = (PROJECT / "README.md").read_text().partition("A lab by hand")[2].partition("###")[0]
    commands = re.findall(r"^    (.+)$", by_hand, re.MULTILINE)
    shown = desk.walks_through(commands, then="chitcpd ctl --wait 20 ping\nexit\n")

    assert any('"profile"' in said for said in shown.values())
    assert desk.left(client) == []


def test_chitcpd_has_no_rights(desk: Desk) -> None:
    desk.walks_through(["mkdir -p captures/alice captures/bob", f"{V2} up -d"])
    for host in ("alice", "router"):
        _, answer = desk.types(f"{V2} exec -T {host} chitcpd ctl --wait 20 ping")
        _, status = desk.types(f"{V2} exec -T {host} cat /proc/{json.loads(answer)['pid']}/status")
        assert re.findall(r"^Cap(?:Inh|Prm|Eff|Amb):\t(\w+)", status, re.MULTILINE) == ["0" * 16] * 4
        assert re.search(r"^Uid:\t23300\t23300", status, re.MULTILINE)


def test_its_networks_lead_nowhere_and_may_be_others(desk: Desk) -> None:
    for variables, subnets in (
        ({}, ["10.213.254.0/24", "10.213.255.0/24"]),
        ({"CHITCP_LEFT": "192.168.70", "CHITCP_RIGHT": "192.168.71"}, ["192.168.70.0/24", "192.168.71.0/24"]),
    ):
        desk.environment = {**os.environ, **variables}
        _, config = desk.types(f"{V2} config")
        networks = yaml.safe_load(config)["networks"].values()
        assert [network["internal"] for network in networks] == [True, True]
        assert sorted(network["ipam"]["config"][0]["subnet"] for network in networks) == subnets


def test_the_image_is_of_this_version() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert f"chitcp:{version}" in COMPOSE.read_text()
