"""The contract of backends, held against Docker."""

from __future__ import annotations

import io
from collections.abc import Generator

import docker
import pytest

from testbed.backends import docker_labels
from testbed.backends.base import Backend
from testbed.backends.docker import DockerBackend
from testbed.plan import Plan
from tests.testbed.backend_contract import BackendContract, ignore, two_hosts, until, up

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

    def test_a_host_is_started_anew_once_its_image_is_another(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = two_hosts(backend)
        ours, tag = docker_labels.image(), f"chitcp-test-{plan.lab}:latest"
        monkeypatch.setenv("CHITCP_IMAGE", tag)
        try:
            for label in ("first", "second"):
                file = io.BytesIO(f"FROM {ours}\nLABEL build={label}\n".encode())
                self.client.images.build(fileobj=file, tag=tag, network_mode="host", rm=True)
                if label == "first":
                    backend.up(plan, ignore, stays=True)
                    assert backend.change(plan, ignore) is None
            assert backend.change(plan, ignore) is not None
            assert backend.change(plan, ignore) is None
        finally:
            backend.down(plan.lab, ignore)
            self.client.images.remove(tag)

    def kill_host(self, backend: Backend, plan: Plan, name: str) -> None:
        del backend
        self.client.containers.get(f"chitcp-{plan.lab}.host-{name}").kill()

    def daemon(self, backend: Backend, plan: Plan, name: str) -> object:
        del backend
        return self.client.containers.get(f"chitcp-{plan.lab}.host-{name}").id
