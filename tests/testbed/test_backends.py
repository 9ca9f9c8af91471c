"""The contract of backends, held against those that need no engine; and the registry."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from testbed import backends
from testbed.backends import UnknownBackend, local
from testbed.backends.base import Backend
from testbed.backends.fake import FakeBackend
from testbed.backends.local import LocalBackend
from testbed.plan import Plan
from testbed.unavailable import Unavailable
from tests.testbed.backend_contract import PROGRAMS, BackendContract, ignore, two_hosts, up


@pytest.mark.usefixtures("own_state")
class TestFake(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return FakeBackend(PROGRAMS)

    def kill_host(self, backend: Backend, plan: Plan, name: str) -> None:
        assert isinstance(backend, FakeBackend)
        backend.lab(plan.lab).kill_host(name, 137)

    def daemon(self, backend: Backend, plan: Plan, name: str) -> object:
        assert isinstance(backend, FakeBackend)
        return backend.lab(plan.lab).daemons[name]

    def leave(self, backend: Backend, plan: Plan) -> None:
        backend.up(plan, ignore, stays=False)

    def test_a_daemon_that_dies_while_links_are_probed_is_named_at_once(self, backend: Backend) -> None:
        pytest.skip("it probes nothing, so it has nothing to wait for")

    def test_a_command_runs_as_an_application_of_a_host(
        self, backend: Backend, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """It has none."""
        del capfd
        plan = two_hosts(backend)
        with up(backend, plan), pytest.raises(Unavailable, match="true can't be executed"):
            backend.execute(plan.lab, "alice", ["true"], terminal=False)


@pytest.mark.usefixtures("own_state")
class TestLocal(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return LocalBackend()

    def kill_host(self, backend: Backend, plan: Plan, name: str) -> None:
        assert isinstance(backend, LocalBackend)
        os.kill(next(e.pid for e in backend.lab(plan.lab).of("host") if e.name == name), signal.SIGKILL)

    def daemon(self, backend: Backend, plan: Plan, name: str) -> object:
        assert isinstance(backend, LocalBackend)
        return next(entry.known for entry in backend.lab(plan.lab).of("host") if entry.name == name)


class Broken(FakeBackend):
    """A backend that this machine can't offer."""

    def check(self) -> None:
        raise Unavailable("no engine answers.", "Start one.")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "FACTORIES", {"best": Broken, "second": FakeBackend})


@pytest.mark.usefixtures("registry")
class TestChoice:
    def test_the_first_that_works_is_taken_and_why(self) -> None:
        choice = backends.choose()
        assert isinstance(choice.backend, FakeBackend)
        assert choice.why == "best can't be used: no engine answers."

    def test_one_that_was_asked_for_and_does_not_work_is_not_replaced(self) -> None:
        with pytest.raises(Unavailable, match="no engine answers"):
            backends.choose("best")

    def test_none_that_works_is_said_with_all_reasons(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(backends.FACTORIES, "second", Broken)
        with pytest.raises(Unavailable, match=r"best can't be used.*second can't be used"):
            backends.choose()

    def test_an_unknown_name_lists_the_known_ones_and_the_nearest(self) -> None:
        with pytest.raises(UnknownBackend, match=r"there are best, second; did you mean second\?"):
            backends.choose("secnd")


@pytest.mark.usefixtures("own_state")
def test_an_address_that_another_process_listens_on_is_in_use() -> None:
    with socket.socket() as listener:
        listener.bind(("127.64.9.9", local.port()))
        listener.listen()
        assert "127.64.9.9/32" in LocalBackend().subnets_in_use()
