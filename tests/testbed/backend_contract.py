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
import json
import os
import pickle
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from chitcpd.faults import Shape
from testbed.backends.base import Backend, Built, Exit, Item
from testbed.backends.fake import Process
from testbed.events import Reshape
from testbed.plan import AppPlan, Plan, Underlay
from testbed.unavailable import Unavailable
from tests.conftest import own_number
from tests.testbed.conftest import PROJECT
from tests.testbed.plans import Written, an_app, plan_of

_numbers = itertools.count(1)
_PATIENCE = 30.0  # seconds for what must come
FIRST_PACKET = slice(24 + 16, 24 + 16 + 40)  # of a pcap, behind its header and that of the record: IP and TCP header

# name -> the command; PROGRAMS has the same for the fake
_COMMANDS: dict[str, tuple[str, ...]] = {
    "ends": ("python", "-c", "import sys; print('to out'); print('to err', file=sys.stderr); sys.exit(3)"),
    "serves": ("python", "-m", "chisocket.apps.echo", "serve", "--port", "7000"),
    "asks": ("python", "-m", "chisocket.apps.echo", "send", "bob:7000", "hello"),
    "waits": ("python", "-c", "import signal; print('waiting', flush=True); signal.pause()"),
    "copies": (
        "python",
        "-c",
        "import os, shutil; shutil.copy('given.bin', 'copy.bin'); "
        "print(os.environ['COLOUR'], os.environ['CHITCP_HOSTS'])",
    ),
    "once": (
        "python",
        "-c",
        "import os, signal, sys\n"
        "if not os.path.exists('been'):\n"
        "    open('been', 'w')\n"
        "    sys.exit(print('once'))\n"
        "print('twice', flush=True)\n"
        "signal.pause()",
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


def _asks(process: Process) -> int:
    until(lambda: process.lab.reaches(process.app.host, "bob"))
    process.print("hello")
    return 0


def _waits(process: Process) -> int:
    process.print("waiting")
    process.wait_for_stop()
    return 128 + (9 if process.signals == ["SIGKILL"] else 15)


def _copies(process: Process) -> int:
    process.files["copy.bin"] = process.files["given.bin"]
    hosts = next(host for host in process.lab.plan.hosts if host.name == process.app.host)
    names = " ".join(f"{name}={address}" for name, address in hosts.names.items())
    process.print(f"{process.app.env['COLOUR']} {names}")
    return 0


def _once(process: Process) -> int:
    if "been" not in process.files:
        process.files["been"] = b""
        process.print("once")
        return 0
    process.print("twice")
    process.wait_for_stop()
    return 143


PROGRAMS: dict[str, Callable[[Process], int]] = {
    "ends": _ends,
    "serves": _serves,
    "asks": _asks,
    "waits": _waits,
    "once": _once,
    "copies": _copies,
}


def app(name: str, **changes: object) -> AppPlan:
    """One of the applications above, on alice."""
    plain = an_app(
        name, run=_COMMANDS[name], listening=7000 if name == "serves" else None, expect_exit=None, timeout=_PATIENCE
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


LINK: Written = {"endpoints": ["alice", "bob"], "delay": "1ms", "loss": "1%"}
TWO_HOSTS: Written = {
    "name": "contract",
    "hosts": {"alice": {"tcp": {"delayed_ack": "20ms"}}, "bob": {}},
    "links": [LINK],
}
ROUTED: Written = {
    "name": "contract",
    "hosts": {"alice": {}, "bob": {}, "carol": {}},
    "routers": {"r1": {}},
    "links": [
        {"endpoints": ["alice", "r1"], "delay": "1ms"},
        {"endpoints": ["bob", "carol", "r1"], "name": "office", "rate": "10mbit"},
    ],
}


def lab_of(backend: Backend, written: Written, *apps: AppPlan) -> Plan:
    """The plan of a topology as a lab whose name nobody else has."""
    number = next(_numbers)
    # Between the plan and `up` nobody else may take the subnets: so each process of tests has a part of its own, and
    # not the first, where those of `testbed run` begin.
    parts = list(ipaddress.IPv4Network(backend.pool).subnets(new_prefix=22))
    plan = plan_of(
        written,
        lab=f"contract-{os.getpid()}-{number}",
        run_id=f"20260101T000000Z-{number}",
        pool=str(parts[own_number()]),
        in_use=backend.subnets_in_use(),
    )
    return dataclasses.replace(plan, apps=apps)


def two_hosts(backend: Backend, *apps: AppPlan, implementation: bytes | None = None) -> Plan:
    """alice and bob on one link."""
    plan = lab_of(backend, TWO_HOSTS, *apps)
    alice, bob = plan.hosts
    return dataclasses.replace(plan, hosts=(alice, dataclasses.replace(bob, implementation=implementation)))


def changed(backend: Backend, plan: Plan, written: Written) -> Plan:
    """The same lab as another topology wants it."""
    own = {link.name: link.subnet for link in plan.links}
    others = {
        subnet: owner
        for subnet, owner in backend.subnets_in_use().items()
        if not any(_overlap(subnet, one) for one in own.values())
    }
    pool = ipaddress.IPv4Network(plan.links[0].subnet).supernet(new_prefix=22)
    return plan_of(written, lab=plan.lab, run_id=plan.run_id, pool=str(pool), in_use=others, keep=own)


def _overlap(one: str, other: str) -> bool:
    networks = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return networks[0].version == networks[1].version and networks[0].overlaps(networks[1])


def reshape(backend: Backend, plan: Plan, shape: Shape, *nodes: str) -> None:
    """Let what these nodes send over their first link meet this."""
    changes = [Reshape(name, plan.node(name).interfaces[0], shape, Underlay()) for name in nodes]
    backend.reshape(plan.lab, changes)


def until(condition: Callable[[], object]) -> None:
    """Wait for what nobody tells us of; it must come."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def ignore(_step: str) -> None:
    """A report that nobody reads."""


def items(backend: Backend, plan: Plan, kind: str) -> dict[str, Item]:
    """What `ps` shows of one kind, by name."""
    return {item.name: item for item in backend.ps(plan.lab) if item.kind == kind}


def next_exit(backend: Backend, plan: Plan) -> Exit:
    """The next end that the backend tells of, which must come."""
    return backend.exits(plan).get(timeout=_PATIENCE)


def assert_no_exit(backend: Backend, plan: Plan) -> None:
    """Nothing has been told that nobody has taken."""
    with pytest.raises(Empty):
        backend.exits(plan).get(timeout=0)


@contextmanager
def up(backend: Backend, plan: Plan, *, stays: bool = False) -> Iterator[Built]:
    """The lab, for as long as the block lasts."""
    built = backend.up(plan, ignore, stays=stays)
    try:
        yield built
    finally:
        backend.down(plan.lab, ignore)


class BackendContract(ABC):
    """Subclass it as a test class; give it a fixture `backend`, and these two."""

    @abstractmethod
    def kill_host(self, backend: Backend, plan: Plan, name: str) -> None:
        """End this host's chitcpd as nothing orderly would: by SIGKILL, status 137."""

    @abstractmethod
    def daemon(self, backend: Backend, plan: Plan, name: str) -> object:
        """What tells this host's chitcpd from another one that has its place later."""

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
        backend.up(plan, ignore, stays=False)
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
                backend.up(plan, ignore, stays=False)
            assert [host.state for host in items(backend, plan, "host").values()] == ["running", "running"]

    def test_a_daemon_that_does_not_start_leaves_nothing(self, backend: Backend) -> None:
        plan = two_hosts(backend, implementation=b"def (")
        with pytest.raises(Unavailable, match="bob") as refused:
            backend.up(plan, ignore, stays=False)
        assert refused.value.remedy
        assert plan.lab not in backend.labs()
        assert backend.ps(plan.lab) == []

    def test_the_end_of_an_application_is_told_once_with_its_status(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("ends"))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            assert next_exit(backend, plan) == Exit("app", "ends", 3)
            assert items(backend, plan, "app")["ends"].state == "exited 3"
            assert_no_exit(backend, plan)

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
            assert {host.state for host in items(backend, plan, "host").values()} == {"exited 0"}  # in order
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

    def test_ready_is_also_what_an_application_says(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("waits", says="^wait"), app("ends", says="never"))
        with up(backend, plan):
            for one, ready in zip(plan.apps, (True, False), strict=True):
                backend.start(plan, one)
                assert backend.wait_ready(plan, one) is ready

    def test_an_application_can_be_started_anew_with_what_it_has(self, backend: Backend, tmp_path: Path) -> None:
        plan = two_hosts(backend, app("ends"))
        with up(backend, plan):
            for _ in range(2):
                began = backend.clock.now()
                backend.start(plan, plan.apps[0])
                exit_ = next_exit(backend, plan)
                assert exit_ == Exit("app", "ends", 3)
                assert began <= exit_.at <= backend.clock.now()
            assert list(items(backend, plan, "app")) == ["ends"]
            backend.collect(plan, tmp_path)
        assert (tmp_path / "apps" / "ends" / "stdout").read_text() == "to out\nto out\n"

    def test_what_an_application_has_said_before_it_was_started_anew_does_not_count(self, backend: Backend) -> None:
        said = app("once", says="once", timeout=1.0)
        plan = two_hosts(backend, said)
        with up(backend, plan):
            backend.start(plan, said)
            assert next_exit(backend, plan) == Exit("app", "once", 0)
            backend.start(plan, said)
            assert not backend.wait_ready(plan, said)
            assert backend.wait_ready(plan, dataclasses.replace(said, says="^twice", timeout=_PATIENCE))

    @pytest.mark.parametrize(("signal", "status"), [("SIGTERM", 143), ("SIGKILL", 137)])
    def test_an_application_can_be_sent_a_signal(self, backend: Backend, signal: str, status: int) -> None:
        plan = two_hosts(backend, app("waits", says="waiting"))
        with up(backend, plan):
            assert not backend.kill(plan.lab, "waits", signal)  # it has not begun
            backend.start(plan, plan.apps[0])
            assert backend.wait_ready(plan, plan.apps[0])
            assert backend.kill(plan.lab, "waits", signal)
            assert next_exit(backend, plan) == Exit("app", "waits", status)
            assert not backend.kill(plan.lab, "waits", signal)  # it has ended: nothing happens
            assert_no_exit(backend, plan)

    # Routers and LANs

    def test_segments_cross_a_router_into_a_lan(self, backend: Backend, tmp_path: Path) -> None:
        plan = lab_of(backend, ROUTED, app("serves", host="bob"), app("asks"))
        with up(backend, plan) as built:
            assert {m.direction for m in built.mechanisms if m.link == "office"} == {
                "bob->office",
                "carol->office",
                "r1->office",
            }
            assert list(items(backend, plan, "router")) == ["r1"]
            assert backend.nodes(plan.lab) == plan.nodes
            self.ask(backend, plan)
            backend.collect(plan, tmp_path)
        assert (tmp_path / "apps" / "asks" / "stdout").read_text() == "hello\n"
        assert {path.name for path in (tmp_path / "hosts").iterdir()} == {"alice", "bob", "carol", "r1"}
        alice, r1 = ((tmp_path / "hosts" / name / "segments.pcap").read_bytes() for name in ("alice", "r1"))
        assert alice[FIRST_PACKET] in r1

    def ask(self, backend: Backend, plan: Plan) -> None:
        """Start the server and the client of a plan; the client gets its answer."""
        server, client = plan.apps
        backend.start(plan, server)
        assert backend.wait_ready(plan, server)
        backend.start(plan, client)
        assert next_exit(backend, plan) == Exit("app", client.name, 0)

    def test_a_daemon_that_dies_while_links_are_probed_is_named_at_once(self, backend: Backend) -> None:
        plan = lab_of(backend, TWO_HOSTS | {"links": [{"endpoints": ["alice", "bob"], "delay": "5s"}]})

        def kill(step: str) -> None:
            if step == "probing the links":
                self.kill_host(backend, plan, "bob")

        began = time.monotonic()
        with pytest.raises(Unavailable, match="chitcpd of bob ended with status 137"):
            backend.up(plan, kill, stays=False)
        assert time.monotonic() - began < 60  # an answer would have been waited for 100 s
        assert plan.lab not in backend.labs()

    def test_each_link_was_probed(self, backend: Backend) -> None:
        plan = lab_of(backend, ROUTED)
        with up(backend, plan) as built:
            found = {probed.direction: probed for probed in built.probed}
            assert found.keys() == {"alice->r1", "bob->carol", "bob->r1", "carol->bob", "r1->bob"}
            assert found["alice->r1"].asked_rtt == pytest.approx(0.002)
            assert found["alice->r1"].asked_rate is None
            assert found["bob->r1"].asked_rate == 10e6
            for probed in found.values():  # within bounds that any machine keeps; `good` is for quiet ones
                assert probed.asked_rtt - 0.0001 <= probed.measured_rtt <= probed.asked_rtt + 0.1
                assert probed.asked_rate is None or probed.measured_rate == pytest.approx(probed.asked_rate, rel=0.2)

    # Links that change

    def test_what_a_link_was_told_is_what_it_does(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        alice = plan.hosts[0]
        with up(backend, plan):
            backend.attend(plan.lab, ["alice"])
            assert backend.now(plan.lab, alice, alice.interfaces[0]).shape == alice.interfaces[0].shape
            shape = Shape(delay=0.03, jitter=0.01, rate=1e6, queue_packets=10, loss=0.25, corrupt=0.1)
            reshape(backend, plan, shape, "alice")
            now = backend.now(plan.lab, alice, alice.interfaces[0])
            assert (now.shape, now.underlay) == (shape, Underlay())
            bob = plan.hosts[1]
            assert backend.now(plan.lab, bob, bob.interfaces[0]).shape == bob.interfaces[0].shape
            reshape(backend, plan, Shape(), "alice")
            assert backend.now(plan.lab, alice, alice.interfaces[0]).shape == Shape()

    def test_nothing_passes_a_link_that_is_down_until_it_is_up(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("serves", host="bob"), app("asks"))
        server, client = plan.apps
        alice = plan.hosts[0]
        with up(backend, plan):
            backend.start(plan, server)
            assert backend.wait_ready(plan, server)
            reshape(backend, plan, Shape(down=True), "alice", "bob")
            backend.start(plan, client)
            until(lambda: backend.now(plan.lab, alice, alice.interfaces[0]).counts["down"])
            assert_no_exit(backend, plan)
            reshape(backend, plan, Shape(), "alice", "bob")
            assert next_exit(backend, plan) == Exit("app", "asks", 0)

    def test_nothing_passes_between_hosts_that_are_apart(self, backend: Backend, tmp_path: Path) -> None:
        plan = two_hosts(backend, app("serves", host="bob"), app("asks"))
        server, client = plan.apps
        with up(backend, plan):
            backend.start(plan, server)
            assert backend.wait_ready(plan, server)
            backend.block(plan.lab, "alice", [end.address for end in plan.node("bob").interfaces])
            backend.start(plan, client)
            folders = (tmp_path / str(number) for number in itertools.count())
            until(lambda: self.drops(backend, plan, "alice", next(folders))["partition"])
            assert_no_exit(backend, plan)
            backend.block(plan.lab, "alice", [])
            assert next_exit(backend, plan) == Exit("app", "asks", 0)

    def drops(self, backend: Backend, plan: Plan, host: str, directory: Path) -> Counter[str]:
        """Why segments were dropped, as the trace says so far."""
        directory.mkdir()
        backend.snapshot(plan.lab, directory)
        *lines, _ = (directory / "hosts" / host / "trace.jsonl").read_text().split("\n")  # the last may be cut
        events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return Counter(event["why"] for event in events if event["event"] == "dropped")

    # Deeds

    def test_a_daemon_that_was_killed_is_gone(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        with up(backend, plan):
            backend.deed(plan.lab, "alice", "kill")
            assert next_exit(backend, plan) == Exit("host", "alice", 137)
            assert items(backend, plan, "host")["alice"].state == "exited 137"

    def test_a_daemon_that_was_started_anew_answers_and_its_end_is_told(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("serves", host="bob"), app("asks"))
        with up(backend, plan):
            reshape(backend, plan, Shape(loss=1.0), "alice")
            backend.deed(plan.lab, "alice", "restart")
            alice = plan.hosts[0]
            assert backend.now(plan.lab, alice, alice.interfaces[0]).shape == alice.interfaces[0].shape
            self.ask(backend, plan)  # nor was there an end that nobody expects
            assert items(backend, plan, "host")["alice"].state == "running"
            self.kill_host(backend, plan, "alice")
            assert next_exit(backend, plan) == Exit("host", "alice", 137)

    def test_an_application_may_get_ready_while_its_daemon_is_started_anew(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("waits", listening=7000), app("serves"))
        waits, serves = plan.apps
        with up(backend, plan), ThreadPoolExecutor() as pool:
            backend.start(plan, waits)
            ready = pool.submit(backend.wait_ready, plan, waits)
            backend.deed(plan.lab, "alice", "restart")
            backend.start(plan, serves)  # which listens at the port
            assert ready.result()

    def test_a_daemon_that_stands_still_answers_nobody_until_it_goes_on(self, backend: Backend) -> None:
        plan = two_hosts(backend, app("serves"))
        server = plan.apps[0]
        with up(backend, plan):
            backend.deed(plan.lab, "alice", "pause")
            backend.start(plan, server)
            assert not backend.wait_ready(plan, dataclasses.replace(server, timeout=0.3))
            backend.deed(plan.lab, "alice", "resume")
            assert backend.wait_ready(plan, server)
            assert_no_exit(backend, plan)

    def test_a_daemon_that_stands_still_does_not_keep_the_lab_up(self, backend: Backend, tmp_path: Path) -> None:
        plan = two_hosts(backend)
        with up(backend, plan):
            backend.deed(plan.lab, "alice", "pause")
            backend.collect(plan, tmp_path)
        assert (tmp_path / "hosts" / "alice" / "chitcpd.log").exists()
        assert plan.lab not in backend.labs()

    # Labs that change

    def test_a_lab_that_is_as_it_should_be_is_left_alone(self, backend: Backend) -> None:
        plan = lab_of(backend, ROUTED)
        with up(backend, plan, stays=True):
            before = {name: self.daemon(backend, plan, name) for name in ("alice", "bob", "carol")}
            assert backend.change(changed(backend, plan, ROUTED), ignore) is None
            assert {name: self.daemon(backend, plan, name) for name in before} == before

    def test_nor_is_one_touched_with_somebody_s_own_tcp(self, backend: Backend) -> None:
        plan = two_hosts(backend, implementation=(PROJECT / "examples" / "stop_and_wait.py").read_bytes())
        with up(backend, plan, stays=True):
            assert backend.change(plan, ignore) is None

    def test_a_lab_that_a_run_has_left_stays_once_it_was_changed(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        self.leave(backend, plan)
        try:
            other = changed(backend, plan, TWO_HOSTS | {"links": [LINK | {"delay": "2ms"}]})
            assert backend.change(other, ignore) is not None
            assert plan.lab not in backend.garbage()
        finally:
            backend.down(plan.lab, ignore)

    def test_a_host_more_and_a_host_less(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        more: Written = TWO_HOSTS | {
            "hosts": TWO_HOSTS["hosts"] | {"carol": {}},
            "links": [LINK, {"endpoints": ["alice", "carol"]}],
        }
        with up(backend, plan, stays=True):
            bob = self.daemon(backend, plan, "bob")
            built = backend.change(changed(backend, plan, more), ignore)
            assert built is not None
            assert {probed.direction for probed in built.probed} >= {"alice->carol"}
            assert items(backend, plan, "host").keys() == {"alice", "bob", "carol"}
            assert items(backend, plan, "link").keys() == {"alice-bob", "alice-carol"}
            assert self.daemon(backend, plan, "bob") == bob

            assert backend.change(changed(backend, plan, TWO_HOSTS), ignore) is not None
            assert items(backend, plan, "host").keys() == {"alice", "bob"}
            assert items(backend, plan, "link").keys() == {"alice-bob"}
            assert self.daemon(backend, plan, "bob") == bob
            assert {host.state for host in items(backend, plan, "host").values()} == {"running"}

    def test_a_link_that_changes_leaves_all_daemons_as_they_are(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        slower = changed(backend, plan, TWO_HOSTS | {"links": [LINK | {"delay": "30ms"}]})
        with up(backend, plan, stays=True):
            before = [self.daemon(backend, plan, host.name) for host in plan.hosts]
            assert backend.change(slower, ignore) is not None
            assert [self.daemon(backend, plan, host.name) for host in plan.hosts] == before
            for host in slower.hosts:
                assert backend.now(plan.lab, host, host.interfaces[0]).shape.delay == 0.03
            assert backend.nodes(plan.lab) == slower.nodes
            assert backend.change(slower, ignore) is None

    def test_a_link_is_measured_as_it_is_now(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        other: Written = TWO_HOSTS | {"hosts": {"alice": {}, "bob": {}}, "links": [LINK | {"delay": "30ms"}]}
        with up(backend, plan, stays=True):
            built = backend.change(changed(backend, plan, other), ignore)  # alice's chitcpd is another now, and probes
            assert built is not None
            (probed,) = built.probed
            assert probed.measured_rtt >= 0.06 - 0.0001

    def test_a_daemon_that_has_ended_is_started_anew(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        with up(backend, plan, stays=True):
            self.kill_host(backend, plan, "alice")
            next_exit(backend, plan)
            assert backend.change(changed(backend, plan, TWO_HOSTS), ignore) is not None
            assert {host.state for host in items(backend, plan, "host").values()} == {"running"}

    def test_a_lab_can_be_up_again_after_it_was_down(self, backend: Backend) -> None:
        plan = two_hosts(backend)
        for _ in range(2):
            with up(backend, plan):
                assert {host.state for host in items(backend, plan, "host").values()} == {"running"}

    # Looking at it

    def test_a_snapshot_leaves_the_lab_as_it_is(self, backend: Backend, tmp_path: Path) -> None:
        plan = two_hosts(backend, app("waits", says="waiting"))
        with up(backend, plan):
            backend.start(plan, plan.apps[0])
            assert backend.wait_ready(plan, plan.apps[0])
            backend.snapshot(plan.lab, tmp_path)
            assert {path.name for path in (tmp_path / "hosts" / "bob").iterdir()} >= {"chitcpd.log", "trace.jsonl"}
            assert (tmp_path / "apps" / "waits" / "stdout").read_text() == "waiting\n"
            assert {item.state for item in backend.ps(plan.lab)} == {"running", "up"}
            assert_no_exit(backend, plan)

    @pytest.mark.parametrize("kind", ["segments", "wire"])
    def test_a_capture_can_be_read_while_it_grows(self, backend: Backend, kind: Any) -> None:
        plan = two_hosts(backend, app("serves", host="bob"), app("asks"))
        with up(backend, plan) as built:
            if kind == "wire" and any("wire" in note for note in built.notes):
                pytest.skip(built.notes[0])
            assert len(b"".join(backend.recording(plan.lab, "alice", kind, follow=False))) >= 24  # the header, at once
            self.ask(backend, plan)
            whole = b"".join(backend.recording(plan.lab, "alice", kind, follow=False))
            assert whole[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1")  # pcap, of micro- or nanoseconds
            pieces = backend.recording(plan.lab, "alice", kind, follow=True)
            assert next(pieces)[:4] == whole[:4]  # at once, and not when there is enough of it
            backend.down(plan.lab, ignore)
            for _ in pieces:  # until the lab is down, and no longer
                pass

    def test_a_router_s_capture_can_be_read_too(self, backend: Backend) -> None:
        plan = lab_of(backend, ROUTED, app("serves", host="bob"), app("asks"))
        with up(backend, plan):
            self.ask(backend, plan)
            alice, r1 = (
                b"".join(backend.recording(plan.lab, name, "segments", follow=False)) for name in ("alice", "r1")
            )
            assert alice[FIRST_PACKET] in r1

    def test_a_capture_that_is_not_there_is_refused(self, backend: Backend) -> None:
        plan = dataclasses.replace(two_hosts(backend), capture_segments=False, capture_wire=False)
        with up(backend, plan):
            for kind in ("segments", "wire"):
                with pytest.raises(Unavailable, match=f"no capture of {kind}"):
                    list(backend.recording(plan.lab, "alice", kind, follow=False))

    def test_a_command_runs_as_an_application_of_a_host(
        self, backend: Backend, capfd: pytest.CaptureFixture[str]
    ) -> None:
        plan = two_hosts(backend)
        with up(backend, plan):
            command = ["sh", "-c", "echo $CHITCP_HOSTS; exit 3"]
            assert backend.execute(plan.lab, "alice", command, terminal=False) == 3
            assert items(backend, plan, "app") == {}
        assert capfd.readouterr().out.split() == [f"{name}={at}" for name, at in plan.hosts[0].names.items()]

    def test_garbage_is_what_a_command_has_left_that_is_gone(self, backend: Backend) -> None:
        stays, left = two_hosts(backend), two_hosts(backend)
        with up(backend, stays, stays=True):
            assert stays.lab not in backend.garbage()
        self.leave(backend, left)
        try:
            assert left.lab in backend.garbage()
            assert backend.change(changed(backend, left, TWO_HOSTS), ignore) is None
            assert left.lab not in backend.garbage()  # since somebody wants it up
        finally:
            backend.down(left.lab, ignore)
        assert left.lab not in backend.garbage()

    def leave(self, backend: Backend, plan: Plan) -> None:
        """Bring a lab up as a command does it that ends before it has taken it down."""
        program = "import pickle, sys; make, plan = pickle.load(sys.stdin.buffer); make().up(plan, print, stays=False)"
        given = pickle.dumps((type(backend), plan))
        subprocess.run([sys.executable, "-c", program], input=given, check=True, cwd=PROJECT)
