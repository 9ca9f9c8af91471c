"""What every backend must do: one suite, which each backend's tests run by a subclass with a `backend` fixture.

    from tests.testbed.backend_contract import BackendContract

    class TestDocker(BackendContract):
        @pytest.fixture
        def backend(self): ...
        def kill_host(self, backend, plan, name): ...

The applications are real commands. A backend that can't run commands (the fake) finds in `PROGRAMS`, under the same
names, functions that do the same.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty

import pytest

from chitcpd.faults import Shape
from testbed.backends.base import Backend, Built, Exit, Item, Unavailable
from testbed.backends.fake import Process
from testbed.plan import AppPlan, HostPlan, Interface, LinkPlan, Plan

_numbers = itertools.count(1)

# name -> (command, the same as a program of the fake)
_COMMANDS: dict[str, tuple[str, ...]] = {
    "ends": ("python", "-c", "import sys; print('to out'); print('to err', file=sys.stderr); sys.exit(3)"),
    "serves": ("python", "-m", "chisocket.apps.echo", "serve", "--port", "7000"),
    "waits": ("python", "-c", "import signal; print('waiting', flush=True); signal.pause()"),
    "copies": (
        "python",
        "-c",
        "import os, shutil; shutil.copy('given.bin', 'copy.bin'); "
        "print(os.environ['COLOUR'], os.environ['CHITCP_HOSTS'])",
    ),
    "missing": ("no-such-command",),
}


def _ends(process: Process) -> int:
    process.print("to out")
    process.error("to err")
    return 3


def _serves(process: Process) -> int:
    process.listen(7000)
    process.wait_for_stop()
    return 0


def _waits(process: Process) -> int:
    process.print("waiting")
    process.wait_for_stop()
    return 143


def _copies(process: Process) -> int:
    process.files["copy.bin"] = process.files["given.bin"]
    hosts = next(host for host in process.lab.plan.hosts if host.name == process.app.host)
    names = " ".join(f"{name}={address}" for name, address in hosts.names.items())
    process.print(f"{process.app.env['COLOUR']} {names}")
    return 0


PROGRAMS: dict[str, Callable[[Process], int]] = {
    "ends": _ends,
    "serves": _serves,
    "waits": _waits,
    "copies": _copies,
}


def app(name: str, **changes: object) -> AppPlan:
    """One of the applications above, on alice."""
    plain = AppPlan(
        name=name,
        host="alice",
        run=_COMMANDS[name],
        env={},
        files={},
        executables=frozenset(),
        needs=(),
        listening=7000 if name == "serves" else None,
        expect_exit=None,
        timeout=30.0,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def two_hosts(backend: Backend, *apps: AppPlan, implementation: bytes | None = None) -> Plan:
    """alice and bob on one link, as a lab whose name nobody else has."""
    number = next(_numbers)
    in_use = [ipaddress.ip_network(text) for text in backend.subnets_in_use()]
    subnets = ipaddress.IPv4Network(backend.pool).subnets(new_prefix=29)
    subnet = next(one for one in subnets if not any(one.version == o.version and one.overlaps(o) for o in in_use))
    ends = {"alice": str(subnet[2]), "bob": str(subnet[3])}
    shape = Shape(delay=0.001, loss=0.01)

    def host(name: str, peer: str) -> HostPlan:
        interface = Interface("alice-bob", ends[name], peer, ends[peer], shape, mtu=1500, seed=1)
        own = implementation if name == "bob" else None
        return HostPlan(name, (interface,), ends, "modern", {"delayed_ack": "20ms"}, seed=1, implementation=own)

    return Plan(
        lab=f"contract-{os.getpid()}-{number}",
        run_id=f"20260101T000000Z-{number}",
        seed=1,
        links=(LinkPlan("alice-bob", str(subnet), ("alice", "bob")),),
        hosts=(host("alice", "bob"), host("bob", "alice")),
        apps=apps,
        capture_segments=True,
        capture_wire=True,
    )


def ignore(_step: str) -> None:
    """A report that nobody reads."""


def items(backend: Backend, plan: Plan, kind: str) -> dict[str, Item]:
    """What `ps` shows of one kind, by name."""
    return {item.name: item for item in backend.ps(plan.lab) if item.kind == kind}


def next_exit(backend: Backend, plan: Plan) -> Exit:
    """The next end that the backend tells of, which must come."""
    return backend.exits(plan).get(timeout=30)


@contextmanager
def up(backend: Backend, plan: Plan) -> Iterator[Built]:
    """The lab, for as long as the block lasts."""
    built = backend.up(plan, ignore)
    try:
        yield built
    finally:
        backend.down(plan.lab, ignore)


class BackendContract:
    """Subclass it as a test class; give it `backend` and `kill_host`."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        raise NotImplementedError

    def kill_host(self, backend: Backend, plan: Plan, name: str) -> None:
        """End this host's chitcpd as nothing orderly would: by SIGKILL, status 137."""
        raise NotImplementedError

    def test_it_can_work_here(self, backend: Backend) -> None:
        backend.check()

    def test_up_says_how_each_direction_is_shaped_and_which_chitcpd_answers(self, backend: Backend) -> None:
        with up(backend, two_hosts(backend)) as built:
            assert sorted(m.direction for m in built.mechanisms) == ["alice->bob", "bob->alice"]
            assert {m.link for m in built.mechanisms} == {"alice-bob"}
            assert built.versions["chitcpd"]

    def test_a_lab_that_is_up_is_seen_and_its_subnet_is_taken(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        with up(backend, plan):
            assert plan.lab in backend.labs()
            assert plan.links[0].subnet in backend.subnets_in_use()
            hosts = items(backend, plan, "host")
            assert {name: host.state for name, host in hosts.items()} == {"alice": "running", "bob": "running"}
            assert plan.hosts[0].interfaces[0].address in hosts["alice"].detail
            assert plan.links[0].subnet in items(backend, plan, "link")["alice-bob"].detail
            assert {item.run_id for item in backend.ps(plan.lab)} == {plan.run_id}
            assert {item.lab for item in backend.ps(None)} >= {plan.lab}

    def test_down_removes_everything_and_says_how_much_that_was(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("waits"))
        backend.up(plan, ignore)
        backend.start(plan, plan.apps[0])
        assert backend.down(plan.lab, ignore) > 0
        assert plan.lab not in backend.labs()
        assert backend.ps(plan.lab) == []
        assert plan.links[0].subnet not in backend.subnets_in_use()
        assert backend.down(plan.lab, ignore) == 0

    def test_two_labs_can_be_up_at_once(self, backend: Backend) -> None:
        first = two_hosts(backend)
        with up(backend, first):
            second = two_hosts(backend)
            with up(backend, second):
                assert {first.lab, second.lab} <= set(backend.labs())
            assert first.lab in backend.labs()
            assert second.lab not in backend.labs()

    def test_a_lab_that_is_up_is_not_brought_up_again_and_takes_no_harm(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        with up(backend, plan):
            with pytest.raises(Unavailable):
                backend.up(plan, ignore)
            assert [host.state for host in items(backend, plan, "host").values()] == ["running", "running"]

    def test_a_daemon_that_does_not_start_leaves_nothing(self, backend: Backend) -> None:
        plan = two_hosts(backend, implementation=b"def (")
        with pytest.raises(Unavailable, match="bob") as refused:
            backend.up(plan, ignore)
        assert refused.value.remedy
        assert plan.lab not in backend.labs()
        assert backend.ps(plan.lab) == []

    def test_the_end_of_an_application_is_told_once_with_its_status(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("ends"))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            assert next_exit(backend, plan) == Exit("app", "ends", 3)
            assert items(backend, plan, "app")["ends"].state == "exited 3"
            with pytest.raises(Empty):
                backend.exits(plan).get_nowait()

    def test_a_command_that_is_not_there_ends_with_127(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("missing"))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            assert next_exit(backend, plan) == Exit("app", "missing", 127)

    def test_ready_is_when_the_daemon_has_the_listener(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("serves"))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            assert backend.wait_ready(plan, plan.apps[0])
            assert items(backend, plan, "app")["serves"].state == "running"

    def test_what_ends_before_it_listens_is_never_ready(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("ends", listening=7000))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            assert not backend.wait_ready(plan, plan.apps[0])

    def test_what_never_listens_is_late(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("waits", listening=7000, timeout=0.3))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            assert not backend.wait_ready(plan, plan.apps[0])

    def test_stop_ends_an_application_and_does_nothing_to_one_that_has_ended(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("serves"))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            assert backend.wait_ready(plan, plan.apps[0])
            backend.stop(plan, plan.apps[0])
            assert next_exit(backend, plan) == Exit("app", "serves", 0)
            backend.stop(plan, plan.apps[0])

    def test_the_end_of_a_daemon_is_told_and_nothing_gets_ready_on_its_host_any_more(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("waits", listening=7000))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            self.kill_host(backend, plan, "alice")
            assert not backend.wait_ready(plan, plan.apps[0])
            assert next_exit(backend, plan) == Exit("host", "alice", 137)
            assert items(backend, plan, "host")["alice"].state == "exited 137"

    def test_collect_writes_what_hosts_and_applications_left(self, backend: Backend, tmp_path: Path) -> None:
        copies = app("copies", files={"given.bin": bytes(range(256))}, env={"COLOUR": "green"})
        plan = two_hosts(backend, copies, app("ends"))
        with up(backend, plan) as built:
            for one in plan.apps:
                backend.start(plan, one)
                next_exit(backend, plan)
            backend.collect(plan, tmp_path)
        for host in ("alice", "bob"):
            written = {path.name for path in (tmp_path / "hosts" / host).iterdir()}
            assert written >= {"chitcpd.log", "trace.jsonl", "segments.pcap"}
            assert "wire.pcap" in written or any("wire" in note for note in built.notes)
        assert (tmp_path / "apps" / "copies" / "files" / "copy.bin").read_bytes() == bytes(range(256))
        names = plan.hosts[0].names
        assert (tmp_path / "apps" / "copies" / "stdout").read_text() == (
            f"green alice={names['alice']} bob={names['bob']}\n"
        )
        assert (tmp_path / "apps" / "ends" / "stdout").read_text() == "to out\n"
        assert (tmp_path / "apps" / "ends" / "stderr").read_text() == "to err\n"

    def test_a_program_of_the_user_s_can_be_executed(self, backend: Backend, tmp_path: Path) -> None:
        script = {"script": b"#!/bin/sh\necho to out\nexit 3\n"}
        own = app("ends", run=("./script",), files=script, executables=frozenset(script))
        plan = two_hosts(backend, own)
        with up(backend, plan):
            backend.start(plan, own)
            assert next_exit(backend, plan) == Exit("app", "ends", 3)
            backend.collect(plan, tmp_path)
        assert (tmp_path / "apps" / "ends" / "stdout").read_text() == "to out\n"

    def test_logs_are_the_lines_of_those_that_were_named(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("ends"))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            next_exit(backend, plan)
            said = list(backend.logs(plan.lab, ("ends",), follow=True))  # it has ended, so this ends
            assert sorted(said) == [("ends", "to err"), ("ends", "to out")]
            assert {name for name, _ in backend.logs(plan.lab, (), follow=False)} >= {"alice", "bob", "ends"}

    def test_following_logs_gives_lines_as_they_come(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("waits"))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            lines = backend.logs(plan.lab, ("waits",), follow=True)
            assert next(iter(lines)) == ("waits", "waiting")
