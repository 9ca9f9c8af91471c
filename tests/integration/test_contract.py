"""The contract of backends, held against Docker."""

from __future__ import annotations

import docker
import pytest

from testbed.backends.base import Backend
from testbed.backends.docker import DockerBackend
from testbed.plan import Plan
from tests.testbed.backend_contract import BackendContract

pytestmark = pytest.mark.docker


class TestDocker(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return DockerBackend()

    @pytest.fixture(autouse=True)
    def _engine(self, client: docker.DockerClient) -> None:
        self.client = client

    def kill_host(self, backend: Backend, plan: Plan, name: str) -> None:
        del backend
        self.client.containers.get(f"chitcp-{plan.lab}-host-{name}").kill()

    def daemon(self, backend: Backend, plan: Plan, name: str) -> object:
        del backend
        return self.client.containers.get(f"chitcp-{plan.lab}-host-{name}").id
