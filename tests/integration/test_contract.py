"""The contract of backends, held against Docker."""

from __future__ import annotations

from collections.abc import Generator

import docker
import pytest

from testbed.backends.base import Backend
from testbed.backends.docker import DockerBackend
from testbed.plan import Plan
from tests.testbed.backend_contract import BackendContract, two_hosts, until, up

pytestmark = pytest.mark.docker


class TestDocker(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return DockerBackend()

    @pytest.fixture(autouse=True)
    def _engine(self, client: docker.DockerClient) -> None:
        self.client = client

    def test_a_capture_that_is_no_longer_followed_leaves_nothing_running(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        with up(backend, plan):
            alice = self.client.containers.get(f"chitcp-{plan.lab}.host-alice")

            def follows() -> bool:
                return any("tail" in word for process in alice.top()["Processes"] for word in process)

            pieces = backend.recording(plan.lab, "alice", "segments", follow=True)
            assert isinstance(pieces, Generator)
            next(pieces)
            assert follows()
            pieces.close()
            until(lambda: not follows())

    def kill_host(self, backend: Backend, plan: Plan, name: str) -> None:
        del backend
        self.client.containers.get(f"chitcp-{plan.lab}.host-{name}").kill()

    def daemon(self, backend: Backend, plan: Plan, name: str) -> object:
        del backend
        return self.client.containers.get(f"chitcp-{plan.lab}.host-{name}").id
