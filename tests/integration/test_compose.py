"""The lab by hand, compose.yaml: two hosts, and an echo between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator

import pytest

from tests.integration.conftest import PATIENCE, PROJECT

pytestmark = pytest.mark.docker

_V2 = ["docker", "compose"]


def _compose() -> list[str] | None:
    """The command there is: that of today, or the older one."""
    if shutil.which("docker") and subprocess.run([*_V2, "version"], capture_output=True, check=False).returncode == 0:
        return _V2
    return ["docker-compose"] if shutil.which("docker-compose") else None


class Lab:
    """The lab, under a name of its own."""

    def __init__(self, command: list[str]) -> None:
        self._command = [*command, "-p", f"chitcp-it-{os.getpid()}"]

    def command(self, *arguments: str) -> list[str]:
        """A command of compose's, for this lab."""
        return [*self._command, *arguments]

    def __call__(self, *arguments: str) -> str:
        """Run a command of compose's, and return what it prints."""
        done = subprocess.run(
            self.command(*arguments), cwd=PROJECT, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    command = _compose()
    if command is None:
        if os.environ.get("REQUIRE_DOCKER"):
            pytest.fail("there is neither `docker compose` nor docker-compose (REQUIRE_DOCKER is set)", pytrace=False)
        pytest.skip("there is neither `docker compose` nor docker-compose")
    lab = Lab(command)
    try:
        lab("up", "-d")
        for host in ("alice", "bob"):
            lab("exec", "-T", host, "chitcpd", "ctl", "--wait", "20", "ping")
        lab("exec", "-T", "-d", "bob", "python", "-m", "chisocket.apps.echo", "serve", "--port", "7")
        lab("exec", "-T", "bob", "chitcpd", "ctl", "--wait", "20", "listening", "7")
        yield lab
    finally:
        lab("down", "-v", "-t", "2")


def test_echo_by_name(lab: Lab) -> None:
    assert "Hello!" in lab("exec", "-T", "alice", "python", "-m", "chisocket.apps.echo", "send", "bob:7", "Hello!")


def test_what_the_file_says_to_try(lab: Lab) -> None:
    lab("exec", "-T", "alice", "chitcpd", "ctl", "link", "10.213.255.251", "loss=5%")
    assert "10.213.255.251" in lab("exec", "-T", "alice", "chitcpd", "ctl", "sockets")
    lab("exec", "-T", "alice", "chitcpd", "ctl", "link", "10.213.255.251")
    lab("exec", "-T", "alice", "test", "-s", "/var/lib/chitcp/segments.pcap")


def test_root_can_watch_the_wire(lab: Lab) -> None:
    watch = lab.command("exec", "-T", "-u", "root", "alice", "tcpdump", "-n", "-i", "any", "-c", "1", "tcp port 23300")
    with subprocess.Popen(watch, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as tcpdump:
        assert tcpdump.stdout is not None
        assert any("listening on" in line for line in tcpdump.stdout)
        test_echo_by_name(lab)
        assert ".23300: " in tcpdump.stdout.read()


def test_the_hosts_own_user_can_not(lab: Lab) -> None:
    watch = lab.command("exec", "-T", "alice", "tcpdump", "-i", "any", "-c", "1")
    done = subprocess.run(watch, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode != 0
    assert "permission" in done.stdout + done.stderr


def test_the_image_is_of_this_version() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert f"chitcp:{version}" in (PROJECT / "compose.yaml").read_text()
