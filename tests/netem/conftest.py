"""The gate of the tests that need netem, and what they share: a lab that is up, and measurements in its containers.

Where no container of the engine can have a netem these tests are skipped, with the reason; with REQUIRE_NETEM=1 they
fail instead. `make netem` runs them in a kernel that has it, wherever it is called.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from testbed import doctor
from testbed.backends import engine
from testbed.unavailable import Unavailable
from tests.integration.conftest import Bench, bench, client
from tests.netem import probes

__all__ = ["Bench", "bench", "client"]  # the fixtures of the tests with Docker, but for their gate

PROBES = Path(probes.__file__).read_text()


@pytest.fixture(scope="session", autouse=True)
def gate() -> None:
    """Let the tests through if an interface in a container can have a netem: one is added, and deleted."""
    try:
        doctor.ATTEMPTS["netem in the engine"]()
    except Unavailable as why:
        if os.environ.get("REQUIRE_NETEM"):
            pytest.fail(f"no netem: {why} (REQUIRE_NETEM is set)", pytrace=False)
        pytest.skip(f"no netem: {why} `make netem` runs these tests in a kernel that has it.")


class Lab:
    """A lab that is up, and what its containers are and say."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.name = bench.lab
        self.said = ""  # what `testbed up` has said

    def address(self, host: str, link: str) -> str:
        """A host's address on a link."""
        networks = self._bench.client.containers.get(self._container(host)).attrs["NetworkSettings"]["Networks"]
        return cast(str, networks[f"chitcp-{self._bench.lab}.link-{link}"]["IPAddress"])

    def device(self, host: str, link: str) -> str:
        """The interface that has this address."""
        found = self.json(host, "ip", "-json", "-4", "address", "show", "to", self.address(host, link))
        return cast(str, next(interface["ifname"] for interface in found if interface))

    def qdisc(self, host: str, link: str) -> dict[str, Any]:
        """What tc says of the root of this interface, statistics too."""
        [found] = self.json(host, "tc", "-s", "-json", "qdisc", "show", "dev", self.device(host, link), "root")
        return cast(dict[str, Any], found)

    def json(self, host: str, *command: str) -> Any:
        """What a command of root's says."""
        return json.loads(self.execute(host, *command, user="root"))

    def execute(self, host: str, *command: str, user: str = "chitcp") -> str:
        """What a command in a host's container says; it must end well."""
        ran = engine.run(self._bench.client.api, self._container(host), list(command), user=user)
        assert ran.status == 0, ran.stderr
        return ran.stdout

    def start(self, host: str, *command: str, until: str) -> None:
        """Start a command in a host's container that stays there, and return when it has said `until`."""
        said = b""
        both = ["sh", "-c", 'exec "$@" 2>&1', "sh", *command]  # what it says, on whichever output
        for piece in engine.output(self._bench.client.api, self._container(host), both, user="chitcp"):
            said += piece
            if until.encode() in said:
                return
        pytest.fail(f"it never said {until!r}, only {said!r}")

    def _container(self, host: str) -> str:
        return f"chitcp-{self._bench.lab}.host-{host}"

    def round_trip(self, link: str) -> float:
        """Seconds from alice to bob and back, as the kernel's own TCP sees them."""
        return cast(float, json.loads(self.execute("alice", *_probe("round_trip", self.address("bob", link)))))

    def round_trips(self, link: str, seconds: float) -> Iterator[str]:
        """Lines of [when it began, how long it took]: round trip after round trip, for so long."""
        command = _probe("round_trips", self.address("bob", link), str(seconds))
        return engine.lines(engine.output(self._bench.client.api, self._container("alice"), command, user="chitcp"))

    def rate(self, link: str, *, sender: str, receiver: str, seconds: float) -> float:
        """Bits per second that come to the receiver's interface while the kernel's own TCP sends all it can."""
        address = self.address(sender, link)
        self.start(sender, *_probe("send", address), until="listening")
        measured = self.execute(receiver, *_probe("receive", address, self.device(receiver, link), str(seconds)))
        return cast(float, json.loads(measured))


def _probe(function: str, *arguments: str) -> list[str]:
    return ["python3", "-c", PROBES, function, *arguments]


@contextmanager
def up(bench: Bench, topology: str) -> Iterator[Lab]:
    """`testbed up` and, at the end of the block, `testbed down`."""
    brought = bench.command("up", bench.topology(topology), "--backend", "docker", "--name", bench.lab)
    assert brought.status == 0, brought.output
    try:
        lab = Lab(bench)
        lab.said = brought.output
        yield lab
    finally:
        taken = bench.command("down", bench.lab)
        assert taken.status == 0, taken.output
        assert bench.left() == []
