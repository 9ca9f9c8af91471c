"""Runs on the fake backend: what the core makes of everything that can happen."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chitcpd.faults import Shape
from testbed import lab as labs
from testbed import run as core
from testbed import topology
from testbed.backends import Choice
from testbed.backends.base import Built, Report
from testbed.backends.fake import FakeBackend, Process, Program
from testbed.clock import WallClock
from testbed.conductor import Conductor
from testbed.events import Reshape
from testbed.outcome import Outcome
from testbed.plan import Plan
from testbed.signals import Interrupted
from testbed.unavailable import Unavailable

TOPOLOGY = """
name: fake-lab
seed: 7
hosts: {alice: {}, bob: {}}
links:
  - {endpoints: [alice, bob], delay: 25ms}
apps:
  server: {host: bob, run: [serve], files: {payload.bin: {random: 64kB}}, ready: {listening: 7000}, timeout: 5s}
  client: {host: alice, run: [fetch], needs: [server], expect: {exit: 0}, timeout: 5s}
checks:
  - integrity: client
"""


def server(process: Process) -> int:
    process.listen(7000)
    process.wait_for_stop()
    process.print("served payload.bin")
    return 0


def client(process: Process) -> int:
    process.files["payload.bin"] = process.lab.process("server").files["payload.bin"]
    process.print("fetched payload.bin")
    return 0


@dataclass
class Lab:
    """A topology file, a fake backend with programs for it, and a directory for runs."""

    directory: Path
    programs: dict[str, Program] = field(default_factory=lambda: {"server": server, "client": client})
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.backend = FakeBackend(self.programs)
        self.file = self.directory / "fake-lab.yaml"
        self.file.write_text(TOPOLOGY)

    @property
    def runs(self) -> Path:
        return self.directory / "runs"

    def run(self, report: Report | None = None) -> Outcome:
        choice = Choice(self.backend, "asked for")
        loaded = topology.load(self.file)
        outcome = core.run(
            loaded, self.file, choice, name="fake-lab", runs=self.runs, report=report or self.steps.append
        )
        assert self.backend.labs() == []  # whatever happened
        return outcome

    def manifest(self) -> dict[str, object]:
        read: dict[str, object] = json.loads((self.runs / "fake-lab" / "latest" / "manifest.json").read_text())
        return read


@pytest.fixture
def lab(tmp_path: Path, own_state: Path) -> Lab:
    del own_state
    return Lab(tmp_path)


def test_a_good_run(lab: Lab) -> None:
    outcome = lab.run()
    assert outcome.status == 0
    assert outcome.verdict == "passed"
    assert [(result.check, result.ok) for result in outcome.checks] == [
        ("exit client", True),
        ("integrity client", True),
    ]
    assert outcome.said == [("server", "served payload.bin"), ("client", "fetched payload.bin")]
    assert [lab.steps.index(step) for step in ("starting server on bob", "starting client on alice", "collecting")] == (
        sorted(lab.steps.index(s) for s in ("starting server on bob", "starting client on alice", "collecting"))
    )


def test_the_run_folder_tells_all(lab: Lab) -> None:
    outcome = lab.run()
    folder = outcome.directory
    assert folder == lab.runs / "fake-lab" / outcome.plan.run_id
    assert (lab.runs / "fake-lab" / "latest").resolve() == folder.resolve()
    assert (folder / "topology.yaml").read_text() == TOPOLOGY
    assert {p.name for p in (folder / "hosts" / "bob").iterdir()} == {
        "chitcpd.log",
        "trace.jsonl",
        "segments.pcap",
        "wire.pcap",
    }
    assert (folder / "apps" / "client" / "stdout").read_text() == "fetched payload.bin\n"
    assert json.loads((folder / "apps" / "client" / "exit.json").read_text())["status"] == 0
    assert json.loads((folder / "apps" / "server" / "exit.json").read_text())["ended"] == "stopped"
    payload = outcome.plan.apps[0].files["payload.bin"]
    assert (folder / "apps" / "client" / "files" / "payload.bin").read_bytes() == payload


def test_the_manifest_is_enough_to_make_the_run_again(lab: Lab) -> None:
    outcome = lab.run()
    manifest = lab.manifest()
    assert (manifest["topology"], manifest["seed"], manifest["run_id"]) == ("fake-lab", 7, outcome.plan.run_id)
    assert manifest["status"] == 0
    assert manifest["backend"] == {"name": "fake", "why": "asked for"}
    versions = manifest["versions"]
    assert isinstance(versions, dict)
    assert set(versions) >= {"chitcpd", "testbed", "python", "kernel"}
    hosts, links, apps, checks = (manifest[key] for key in ("hosts", "links", "apps", "checks"))
    assert isinstance(hosts, dict)
    assert isinstance(links, list)
    assert isinstance(apps, dict)
    assert isinstance(checks, list)
    assert hosts["alice"]["addresses"] == {"alice-bob": outcome.plan.hosts[0].interfaces[0].address}
    assert [(link["direction"], link["asked"]["delay"]) for link in links] == [
        ("alice->bob", 0.025),
        ("bob->alice", 0.025),
    ]
    assert (apps["client"]["ended"], apps["client"]["status"], apps["client"]["expected"]) == ("by itself", 0, 0)
    comparison = checks[1]["comparisons"][0]
    assert comparison["sent"] == comparison["received"]
    assert len(comparison["sent"]) == 64


def test_two_runs_have_two_folders(lab: Lab) -> None:
    first, second = lab.run(), lab.run()
    assert first.directory != second.directory
    assert (lab.runs / "fake-lab" / "latest").resolve() == second.directory.resolve()


def test_an_application_that_fails_fails_the_run_and_its_complaint_is_told(lab: Lab) -> None:
    def failing(process: Process) -> int:
        process.error("no route to bob")
        return 5

    lab.programs["client"] = failing
    outcome = lab.run()
    assert outcome.status == 1
    assert outcome.checks[0].message == "client ended with status 5, expected 0"
    assert ("client", "no route to bob") in outcome.said
    assert lab.manifest()["status"] == 1


def test_an_application_that_does_not_end_in_time_fails_the_run(lab: Lab) -> None:
    def hanging(process: Process) -> int:
        process.wait_for_stop()
        return 0

    lab.programs["client"] = hanging
    lab.file.write_text(TOPOLOGY.replace("expect: {exit: 0}, timeout: 5s", "expect: {exit: 0}, timeout: 100ms"))
    outcome = lab.run()
    assert outcome.status == 1
    assert outcome.checks[0].message == "client did not end within 0.1 s"


def test_an_application_that_is_late_is_stopped_also_while_another_one_gets_ready(lab: Lab) -> None:
    early = "  early: {host: alice, run: [early], expect: {exit: 0}, timeout: 100ms}\n"
    lab.file.write_text(TOPOLOGY.replace("apps:\n", f"apps:\n{early}"))

    def waiting(process: Process) -> int:
        process.wait_for_stop()
        return 0

    def serving(process: Process) -> int:
        here = process.lab
        with here.changed:
            here.changed.wait_for(lambda: here.processes["early"].status is not None)
        return server(process)

    lab.programs.update(early=waiting, server=serving)
    outcome = lab.run()
    assert outcome.verdict == "failed: exit early"
    assert outcome.endings["early"].how == "timed out"


def test_an_application_is_late_by_when_it_ended_and_not_by_when_that_was_noticed(lab: Lab) -> None:
    early = "  early: {host: alice, run: [early], expect: {exit: 0}, timeout: 5s}\n"
    lab.file.write_text(TOPOLOGY.replace("apps:\n", f"apps:\n{early}"))

    class Jumping(WallClock):
        ahead = 0.0

        def now(self) -> float:
            return super().now() + self.ahead

    def jump(step: str) -> None:
        if step.startswith("starting server"):  # early has been started: the next start takes a minute
            (thread,) = [thread for thread in threading.enumerate() if thread.name == "early"]
            lab.backend.lab("fake-lab").process("early").stop()
            thread.join(5)
            clock.ahead = 60.0

    def ending(process: Process) -> int:
        process.wait_for_stop()
        return 0

    clock = lab.backend.clock = Jumping()
    lab.programs["early"] = ending
    outcome = lab.run(jump)
    assert outcome.endings["early"].how == "by itself"
    assert outcome.endings["early"].seconds < 5
    assert outcome.verdict == "passed"


def test_a_file_that_arrives_changed_fails_the_run(lab: Lab) -> None:
    def mangling(process: Process) -> int:
        process.files["payload.bin"] = process.lab.process("server").files["payload.bin"][1:] + b"x"
        return 0

    lab.programs["client"] = mangling
    outcome = lab.run()
    assert outcome.status == 1
    assert outcome.verdict == "failed: integrity client"
    comparison = outcome.checks[1].comparisons[0]
    assert comparison.sent != comparison.received


def test_a_daemon_that_dies_ends_the_run_at_once_with_its_last_lines(lab: Lab) -> None:
    def killing(process: Process) -> int:
        process.lab.kill_host("bob", 1, "Traceback: my_tcp.py, line 7")
        process.wait_for_stop()  # would be for ever
        return 0

    lab.programs["client"] = killing
    outcome = lab.run()
    assert outcome.status == 1
    assert outcome.failure is not None
    assert outcome.failure.startswith("chitcpd of bob ended with status 1 during the run")
    assert "Traceback: my_tcp.py, line 7" in outcome.failure
    assert outcome.checks == []  # nothing to judge
    assert (outcome.directory / "hosts" / "bob" / "chitcpd.log").exists()


def test_a_lab_that_somebody_takes_down_meanwhile_is_neither_the_application_s_fault_nor_ours(lab: Lab) -> None:
    def bereft(_process: Process) -> int:
        lab.backend.down("fake-lab", lab.steps.append)
        return 1

    lab.programs["client"] = bereft
    outcome = lab.run()
    assert outcome.status == 3
    assert outcome.error == "somebody has taken lab fake-lab down while it ran. Run it again."
    assert lab.manifest()["error"] == outcome.error


@pytest.mark.parametrize("name", ["server", "client"])
def test_an_application_that_fails_because_its_daemon_died_is_not_blamed(lab: Lab, name: str) -> None:
    def failing(process: Process) -> int:
        here = process.lab

        def die_afterwards() -> None:
            with here.changed:
                here.changed.wait_for(lambda: process.status is not None)
            here.kill_host(process.app.host, 139, "Segmentation fault")

        threading.Thread(target=die_afterwards).start()
        process.error("the daemon has gone away")
        return 1

    lab.programs[name] = failing
    outcome = lab.run()
    assert outcome.failure is not None
    assert outcome.failure.startswith(f"chitcpd of {'bob' if name == 'server' else 'alice'} ended with status 139")
    assert "Segmentation fault" in outcome.failure


def test_a_server_that_dies_ends_the_run_at_once(lab: Lab) -> None:
    def dying(process: Process) -> int:
        process.listen(7000)
        process.error("disk full")
        return 9

    def hanging(process: Process) -> int:
        process.wait_for_stop()
        return 0

    lab.programs.update(server=dying, client=hanging)
    outcome = lab.run()
    assert outcome.status == 1
    assert outcome.failure is not None
    assert "status 9" in outcome.failure
    assert "disk full" in outcome.failure


def test_a_server_that_ends_before_it_listens_is_named(lab: Lab) -> None:
    def failing(process: Process) -> int:
        process.error("no such directory")
        return 2

    lab.programs["server"] = failing
    outcome = lab.run()
    assert outcome.status == 1
    assert outcome.failure is not None
    assert outcome.failure.startswith("server ended with status 2 before it listened on port 7000")
    assert "no such directory" in outcome.failure
    assert outcome.endings["client"].how == "not started"


def test_a_server_that_never_listens_is_named(lab: Lab) -> None:
    def deaf(process: Process) -> int:
        process.wait_for_stop()
        return 0

    lab.programs["server"] = deaf
    lab.file.write_text(
        TOPOLOGY.replace("ready: {listening: 7000}, timeout: 5s", "ready: {listening: 7000}, timeout: 100ms")
    )
    outcome = lab.run()
    assert outcome.failure == (
        "server did not listen on port 7000 of bob within 0.1 s"
        " (one that knows nothing of chisocket needs `via: chirun`)"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_collects_and_takes_the_lab_down(lab: Lab, number: signal.Signals) -> None:
    def interrupting(process: Process) -> int:
        process.print("on my way")
        os.kill(os.getpid(), number)
        process.wait_for_stop()
        return 0

    lab.programs["client"] = interrupting
    before = signal.getsignal(number)
    outcome = lab.run()
    assert signal.getsignal(number) is before
    assert outcome.status == 128 + number
    assert outcome.failure == f"interrupted by {number.name}"
    assert (outcome.directory / "apps" / "client" / "stdout").read_text() == "on my way\n"
    assert lab.manifest()["verdict"] == "interrupted"


def test_a_signal_while_a_server_gets_ready_ends_the_run(lab: Lab) -> None:
    def interrupting(process: Process) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        process.wait_for_stop()
        return 0

    lab.programs["server"] = interrupting
    assert lab.run().status == 130


def test_a_daemon_that_dies_while_an_application_of_another_host_gets_ready_ends_the_run_at_once(lab: Lab) -> None:
    def killing(process: Process) -> int:
        process.lab.kill_host("alice", 139)
        process.wait_for_stop()
        return 0

    lab.programs["server"] = killing  # on bob
    failure = lab.run().failure
    assert failure is not None
    assert failure.startswith("chitcpd of alice ended with status 139 during the run")


def during(text: str, action: Callable[[], object]) -> Report:
    """A report that does something when it hears of this step."""

    def report(step: str) -> None:
        if text in step:
            action()

    return report


def test_a_signal_during_up_leaves_nothing(lab: Lab) -> None:
    with pytest.raises(Interrupted):
        lab.run(during("chitcpd on alice", lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert lab.backend.labs() == []
    assert not lab.runs.exists()


@pytest.mark.parametrize("step", ["collecting", "taking down"])
def test_a_signal_during_cleanup_does_not_break_it(lab: Lab, step: str) -> None:
    outcome = lab.run(during(step, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert outcome.status == 0  # it came when all was done
    assert (outcome.directory / "manifest.json").exists()


def test_impatient_ctrl_c_does_not_break_the_cleanup(lab: Lab) -> None:
    def interrupting(process: Process) -> int:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        process.wait_for_stop()
        return 0

    lab.programs["client"] = interrupting
    outcome = lab.run(during("collecting", lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert outcome.status == 130
    assert (outcome.directory / "hosts" / "bob" / "chitcpd.log").exists()


def test_a_terminal_that_goes_away_does_not_leave_the_lab_up(lab: Lab) -> None:
    def hang_up() -> None:
        raise BrokenPipeError

    outcome = lab.run(during("waiting for client", hang_up))
    assert outcome.status == 4
    assert (outcome.directory / "apps" / "server" / "stdout").exists()


def test_a_fault_of_ours_is_one_sentence_and_a_traceback_in_the_run_folder(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_plan: Plan, _directory: Path) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(lab.backend, "collect", fail)
    outcome = lab.run()
    assert outcome.status == 4
    assert outcome.error == "ZeroDivisionError: by zero"
    assert "Traceback" in (outcome.directory / "error.txt").read_text()


def test_a_lab_that_can_not_be_built_leaves_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Built:
        raise Unavailable("port 23300 is in use.", "End what listens there.")

    monkeypatch.setattr(lab.backend, "up", fail)
    with pytest.raises(Unavailable):
        lab.run()
    assert not lab.runs.exists()


def test_a_lab_that_is_up_is_not_touched(lab: Lab) -> None:
    loaded = topology.load(lab.file)
    labs.up(loaded, lab.backend, lab="fake-lab", report=lab.steps.append)
    with pytest.raises(Unavailable, match="fake-lab is already up"):
        core.run(loaded, lab.file, Choice(lab.backend, ""), name="fake-lab", runs=lab.runs, report=lab.steps.append)
    assert lab.backend.labs() == ["fake-lab"]
    assert not lab.runs.exists()


def test_runs_that_can_not_be_written_are_refused_before_anything_starts(lab: Lab) -> None:
    lab.runs.write_text("not a directory")
    with pytest.raises(Unavailable, match="the run folder") as refused:
        lab.run()
    assert "--runs" in refused.value.remedy
    assert lab.steps == []


def test_a_signal_at_the_end_of_up_takes_the_lab_down_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_up = lab.backend.up

    def up(plan: Plan, report: Report, *, stays: bool) -> Built:
        built = whole_up(plan, report, stays=stays)
        os.kill(os.getpid(), signal.SIGTERM)
        return built

    monkeypatch.setattr(lab.backend, "up", up)
    with pytest.raises(Interrupted):
        labs.up(topology.load(lab.file), lab.backend, lab="fake-lab", report=lab.steps.append)
    assert lab.backend.labs() == []


def test_a_signal_while_a_lab_is_changed_leaves_it_whole(lab: Lab) -> None:
    loaded = topology.load(lab.file)
    labs.up(loaded, lab.backend, lab="fake-lab", report=lab.steps.append)
    lab.file.write_text(TOPOLOGY.replace("bob", "carol"))
    interrupt = during("chitcpd on carol", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        labs.up(topology.load(lab.file), lab.backend, lab="fake-lab", report=interrupt)
    assert [item.name for item in lab.backend.ps("fake-lab")] == ["alice", "carol", "alice-carol"]
    lab.backend.down("fake-lab", lab.steps.append)


# Applications that are started anew

RESTARTING = TOPOLOGY.replace("needs: [server], expect: {exit: 0}", "needs: [server], expect: {exit: 0}, restart: 2")


def fails(times: int) -> Program:
    """A client that fails so often before it succeeds."""
    left = [1] * times

    def program(process: Process) -> int:
        process.print(f"{len(left)} more failures")
        return left.pop() if left else client(process)

    return program


@pytest.mark.parametrize(("failures", "status", "restarts"), [(0, 0, 0), (2, 0, 2), (3, 1, 2)])
def test_an_application_that_fails_is_started_anew_so_often(
    lab: Lab, failures: int, status: int, restarts: int
) -> None:
    lab.file.write_text(RESTARTING)
    lab.programs["client"] = fails(failures)
    outcome = lab.run()
    assert (outcome.status, outcome.endings["client"].restarts) == (status, restarts)
    assert outcome.endings["client"].app.restarts == 2
    apps = lab.manifest()["apps"]
    assert isinstance(apps, dict)
    assert apps["client"]["restarts"] == restarts
    said = (outcome.directory / "apps" / "client" / "stdout").read_text()
    assert said.count("more failures") == 1 + restarts  # it goes on with what it has
    assert [step for step in lab.steps if "anew" in step] == [
        f"starting client anew ({number} of 2): status 1" for number in range(1, restarts + 1)
    ]


def test_an_application_is_started_anew_also_just_after_another_one_has_failed(lab: Lab) -> None:
    """Then we look for a daemon that died; what else ends meanwhile is not forgotten."""
    lab.file.write_text(
        RESTARTING.replace("checks:", "  other: {host: alice, run: [fail], expect: {exit: 0}}\nchecks:")
    )
    left = [1]

    def after_the_other(process: Process) -> int:
        here = process.lab
        with here.changed:
            here.changed.wait_for(lambda: "other" in here.processes and here.processes["other"].status is not None)
        return left.pop() if left else client(process)

    lab.programs.update(client=after_the_other, other=lambda _process: 1)
    outcome = lab.run()
    assert (outcome.endings["client"].restarts, outcome.endings["client"].status) == (1, 0)
    assert outcome.endings["other"].status == 1


def test_a_server_that_is_started_anew_is_waited_for(lab: Lab) -> None:
    lab.file.write_text(TOPOLOGY.replace("ready: {listening: 7000}", "ready: {listening: 7000}, restart: 1"))
    left = [1]

    def program(process: Process) -> int:
        return left.pop() if left else server(process)

    lab.programs["server"] = program
    outcome = lab.run()
    assert outcome.verdict == "passed"
    assert outcome.endings["server"].restarts == 1


def test_ready_is_what_an_application_writes(lab: Lab) -> None:
    def talking(process: Process) -> int:
        process.print("hello")
        process.error("serving now")
        process.wait_for_stop()
        return 0

    lab.file.write_text(TOPOLOGY.replace("{listening: 7000}", "{output: ^serving}"))
    lab.programs["server"] = talking
    assert lab.run().verdict == "passed"


def test_what_an_application_should_have_written_is_named(lab: Lab) -> None:
    lab.file.write_text(TOPOLOGY.replace("{listening: 7000}, timeout: 5s", "{output: ^serving}, timeout: 100ms"))
    assert lab.run().failure == "server wrote nothing that matches '^serving' within 0.1 s"


# Events

AT_ONCE = (
    TOPOLOGY
    + """
events:
  - {at: 0s, link: alice-bob, set: {delay: 70ms, loss: 3%}}
  - {at: 10ms, link: alice-bob, down: 20ms}
  - {at: 40ms, partition: [[alice], [bob]], for: 10ms}
  - {at: 60ms, host: alice, restart: chitcpd}
  - {at: 70ms, host: alice, pause: 10ms}
  - {at: 500ms, app: client, kill: SIGTERM}
"""
)


def patient(process: Process) -> int:
    """A client that goes on until an event stops it."""
    process.wait_for_stop()
    return client(process)


def test_events_happen_in_order_and_are_in_the_manifest(lab: Lab) -> None:
    lab.file.write_text(AT_ONCE)
    lab.programs["client"] = patient
    seen: dict[str, Shape] = {}

    def look(step: str) -> None:
        lab.steps.append(step)
        if "fake-lab" in lab.backend.labs():
            seen[step] = lab.backend.lab("fake-lab").links["alice", "alice-bob"].shape

    outcome = lab.run(look)
    assert outcome.verdict == "passed"
    titles = [
        "link alice-bob: delay 70ms, loss 3%",
        "link alice-bob: down",
        "the end of link alice-bob: down",
        "partition alice | bob",
        "the end of partition alice | bob",
        "restart of chitcpd of alice",
        "chitcpd of alice stands still",
        "chitcpd of alice goes on",
        "SIGTERM to client",
    ]
    assert [step for step in lab.steps if step in titles] == titles
    # What is reported is about to happen: so each step sees what those before it have done.
    assert [(seen[title].delay, seen[title].loss, seen[title].down) for title in titles[:4]] == [
        (0.025, 0.0, False),
        (0.07, 0.03, False),
        (0.07, 0.03, True),
        (0.07, 0.03, False),
    ]
    events = lab.manifest()["events"]
    assert isinstance(events, list)
    assert [event["event"] for event in events] == titles
    assert all(event["at"] <= event["done"] < event["at"] + 2 for event in events)


def test_a_daemon_that_is_started_anew_is_told_again_what_events_have_changed(lab: Lab) -> None:
    lab.file.write_text(
        TOPOLOGY
        + """
events:
  - {at: 0s, link: alice-bob, set: {loss: 3%}}
  - {at: 0s, partition: [[alice], [bob]]}
  - {at: 10ms, host: alice, restart: chitcpd}
  - {at: 500ms, app: client, kill: SIGTERM}
"""
    )

    def looking(process: Process) -> int:
        process.wait_for_stop()
        here = process.lab
        assert here.deeds == [("alice", "restart")]
        assert here.links["alice", "alice-bob"].shape.loss == 0.03
        assert here.blocked["alice"] == (here.plan.node("bob").interfaces[0].address,)
        return client(process)

    lab.programs["client"] = looking
    assert lab.run().verdict == "passed"


def test_a_partition_that_ends_while_a_host_stands_still_ends_there_too(lab: Lab) -> None:
    lab.file.write_text(
        TOPOLOGY
        + """
events:
  - {at: 0s, partition: [[alice], [bob]], for: 20ms}
  - {at: 10ms, host: alice, pause: 20ms}
  - {at: 500ms, app: client, kill: SIGTERM}
"""
    )

    def looking(process: Process) -> int:
        process.wait_for_stop()
        assert process.lab.deeds == [("alice", "pause"), ("alice", "resume")]
        assert process.lab.blocked == {"alice": (), "bob": ()}
        return client(process)

    lab.programs["client"] = looking
    assert lab.run().verdict == "passed"


def test_a_daemon_that_is_killed_while_it_stands_still_is_told_nothing_until_it_is_started_anew(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.file.write_text(
        TOPOLOGY
        + """
events:
  - {at: 0s, link: alice-bob, set: {loss: 3%}}
  - {at: 0s, partition: [[alice], [bob]]}
  - {at: 10ms, host: alice, pause: 20ms}
  - {at: 20ms, host: alice, kill: chitcpd}
  - {at: 40ms, link: alice-bob, set: {loss: 5%}}
  - {at: 50ms, host: alice, restart: chitcpd}
  - {at: 500ms, app: client, kill: SIGTERM}
"""
    )
    reshape, block = lab.backend.reshape, lab.backend.block

    def require_alive(host: str) -> None:
        if lab.backend.lab("fake-lab").hosts[host] is not None:
            raise Unavailable(f"chitcpd of {host} does not answer.", "It is dead.")

    def reshape_who_lives(name: str, changes: Sequence[Reshape]) -> None:
        for change in changes:
            require_alive(change.node)
        reshape(name, changes)

    def block_who_lives(name: str, host: str, addresses: Sequence[str]) -> None:
        require_alive(host)
        block(name, host, addresses)

    def looking(process: Process) -> int:
        process.wait_for_stop()
        assert process.lab.links["alice", "alice-bob"].shape.loss == 0.05
        assert len(process.lab.blocked["alice"]) == 1
        return client(process)

    monkeypatch.setattr(lab.backend, "reshape", reshape_who_lives)
    monkeypatch.setattr(lab.backend, "block", block_who_lives)
    lab.programs["client"] = looking
    outcome = lab.run()
    assert (outcome.verdict, outcome.error) == ("passed", None)


def test_an_application_is_no_host_of_the_same_name(lab: Lab) -> None:
    def serving(process: Process) -> int:
        process.listen(7000)
        process.wait_for_stop()
        process.lab.kill_host("bob", 139)  # which no event wants
        return 143

    lab.file.write_text(
        TOPOLOGY.replace("  server:", "  bob:").replace("[server]", "[bob]")
        + "events: [{at: 300ms, app: bob, kill: SIGTERM}]"
    )
    lab.programs.update(bob=serving, client=patient)
    failure = lab.run().failure
    assert failure is not None
    assert failure.startswith("chitcpd of bob ended with status 139 during the run")


def test_a_daemon_that_an_event_kills_does_not_end_the_run(lab: Lab) -> None:
    lab.file.write_text(
        TOPOLOGY + "events: [{at: 0s, host: alice, kill: chitcpd}, {at: 500ms, app: client, kill: SIGTERM}]"
    )
    lab.programs["client"] = patient
    outcome = lab.run()
    assert outcome.failure is None
    assert (outcome.directory / "hosts" / "alice" / "chitcpd.log").exists()


def test_a_daemon_that_dies_after_an_event_has_started_it_anew_ends_the_run(lab: Lab) -> None:
    def killing(process: Process) -> int:
        here = process.lab
        with here.changed:
            here.changed.wait_for(lambda: here.deeds == [("alice", "restart")])
        here.kill_host("alice", 139)
        process.wait_for_stop()
        return 0

    lab.file.write_text(TOPOLOGY + "events: [{at: 0s, host: alice, restart: chitcpd}]")
    lab.programs["client"] = killing
    failure = lab.run().failure
    assert failure is not None
    assert failure.startswith("chitcpd of alice ended with status 139 during the run")


def test_a_daemon_that_an_event_has_killed_and_started_anew_may_not_die_by_itself(lab: Lab) -> None:
    def killing(process: Process) -> int:
        here = process.lab
        with here.changed:
            here.changed.wait_for(lambda: ("alice", "pause") in here.deeds)  # all is done that came before
        here.kill_host("alice", 139)
        process.wait_for_stop()
        return 0

    alice = "host: alice"
    lab.file.write_text(
        TOPOLOGY
        + f"events: [{{at: 0s, {alice}, kill: chitcpd}}, {{at: 10ms, {alice}, restart: chitcpd}}, "
        + f"{{at: 20ms, {alice}, pause: 10s}}]"
    )
    lab.programs["client"] = killing
    failure = lab.run().failure
    assert failure is not None
    assert failure.startswith("chitcpd of alice ended with status 139 during the run")


def test_a_daemon_may_be_killed_and_started_anew_again_and_again(lab: Lab) -> None:
    deeds = [f"{{at: {at}ms, host: alice, {deed}: chitcpd}}" for at, deed in enumerate(["kill", "restart", "kill"])]
    lab.file.write_text(TOPOLOGY + f"events: [{', '.join(deeds)}, {{at: 300ms, app: client, kill: SIGTERM}}]")
    lab.programs["client"] = patient
    assert lab.run().failure is None


def test_a_server_that_an_event_has_killed_and_that_was_started_anew_may_not_die_by_itself(lab: Lab) -> None:
    statuses = [5, 137]

    def serving(process: Process) -> int:
        process.listen(7000)
        if len(statuses) == 2:
            process.wait_for_stop()
        return statuses.pop()

    lab.file.write_text(
        TOPOLOGY.replace("ready: {listening: 7000}", "ready: {listening: 7000}, restart: 1")
        + "events: [{at: 100ms, app: server, kill: SIGKILL}]"
    )
    lab.programs.update(server=serving, client=patient)
    outcome = lab.run()
    assert outcome.endings["server"].restarts == 1
    assert outcome.failure is not None
    assert outcome.failure.startswith("server, which serves the others, ended with status 5")


def test_an_application_that_an_event_kills_is_judged_by_what_it_should_do(lab: Lab) -> None:
    without_checks = TOPOLOGY[: TOPOLOGY.index("checks:")].replace("expect: {exit: 0}", "expect: {exit: 143}")
    lab.file.write_text(
        without_checks + "events: [{at: 300ms, app: server, kill: SIGKILL}, {at: 500ms, app: client, kill: SIGTERM}]"
    )

    def killed(process: Process) -> int:
        process.listen(7000)
        process.wait_for_stop()
        return 128 + 15

    lab.programs.update(server=killed, client=killed)
    outcome = lab.run()
    assert outcome.failure is None  # though the server serves the others
    assert outcome.verdict == "passed"


def test_a_signal_to_an_application_that_has_not_begun_is_told_and_excuses_nothing(lab: Lab) -> None:
    def serving(process: Process) -> int:
        here = process.lab
        with here.changed:
            here.changed.wait_for(lambda: ("alice", "pause") in here.deeds)  # all is done that came before
        return server(process)

    lab.file.write_text(
        TOPOLOGY.replace("  client:", "  late: {host: bob, run: [late], needs: [server]}\n  client:")
        + "events: [{at: 0s, app: late, kill: SIGKILL}, {at: 10ms, host: alice, pause: 10s}]"
    )
    lab.programs.update(server=serving, late=lambda _process: 3, client=patient)
    outcome = lab.run()
    assert outcome.failure is not None
    assert outcome.failure.startswith("late, which serves the others, ended with status 3")
    assert outcome.notes[0] == "late did not run at 0 s: SIGKILL to late"
    events = lab.manifest()["events"]
    assert isinstance(events, list)
    assert events[0]["done"] is None


def test_a_second_signal_to_an_application_that_has_ended_is_told_and_the_first_one_counts(lab: Lab) -> None:
    moments = ((1000, "server"), (1500, "server"), (1510, "client"))  # ms: the first one once both run
    kills = [f"{{at: {at}ms, app: {app}, kill: SIGKILL}}" for at, app in moments]
    lab.file.write_text(TOPOLOGY + f"events: [{', '.join(kills)}]")
    lab.programs.update(server=lambda process: server(process) or 137, client=patient)
    outcome = lab.run()
    assert outcome.verdict == "passed"
    assert outcome.notes == ["server did not run at 1.5 s: SIGKILL to server"]


def test_events_that_did_not_come_are_in_the_manifest_too(lab: Lab) -> None:
    lab.file.write_text(TOPOLOGY + "events: [{at: 10min, link: alice-bob, down: 1s}]")
    outcome = lab.run()
    assert outcome.verdict == "passed"
    events = lab.manifest()["events"]
    assert isinstance(events, list)
    assert [(event["at"], event["event"], event["done"]) for event in events] == [
        (600.0, "link alice-bob: down", None),
        (601.0, "the end of link alice-bob: down", None),
    ]
    assert [[(link["direction"], link["asked"]["down"]) for link in event["links"]] for event in events] == [
        [("alice->bob", True), ("bob->alice", True)],
        [("alice->bob", False), ("bob->alice", False)],
    ]


def test_an_event_that_can_not_be_done_ends_the_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("chitcpd of bob does not answer.", "See its log.")

    lab.file.write_text(
        TOPOLOGY + "events: [{at: 0s, link: alice-bob, down: 1s}, {at: 500ms, app: client, kill: SIGTERM}]"
    )
    monkeypatch.setattr(lab.backend, "reshape", fail)
    lab.programs["client"] = patient
    outcome = lab.run()
    assert (outcome.status, outcome.error) == (3, "chitcpd of bob does not answer. See its log.")
    assert [happened.at for happened in outcome.events] == [None, None, None]  # and no other followed
    assert outcome.notes == [
        "what was to happen at 0 s could not be done (chitcpd of bob does not answer): link alice-bob: down",
        "the run ended before 0.5 s: SIGTERM to client",
        "the run ended before 1 s: the end of link alice-bob: down",
    ]


def test_an_event_that_can_not_be_done_as_the_last_application_ends_is_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def fail_late(*_: object) -> None:
        begun.set()
        assert ended.wait(5)
        raise Unavailable("chitcpd of bob does not answer.", "See its log.")

    def until_it_begins(process: Process) -> int:
        assert begun.wait(5)
        return client(process)

    def end(conductor: Conductor) -> None:
        ended.set()
        stop(conductor)

    stop = Conductor.end
    lab.file.write_text(TOPOLOGY + "events: [{at: 0s, link: alice-bob, down: 1s}]")
    monkeypatch.setattr(lab.backend, "reshape", fail_late)
    monkeypatch.setattr(Conductor, "end", end)
    lab.programs["client"] = until_it_begins
    outcome = lab.run()
    assert (outcome.status, outcome.error) == (3, "chitcpd of bob does not answer. See its log.")
    assert outcome.endings["server"].how == "stopped"


def test_a_timeline_that_can_not_be_made_leaves_no_lab_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no timeline")

    monkeypatch.setattr(core, "timeline", fail)
    assert lab.run().error == "ValueError: no timeline"


def test_a_signal_ends_events_too(lab: Lab) -> None:
    lab.file.write_text(TOPOLOGY + "events: [{at: 0s, host: alice, pause: 10min}]")

    def interrupting(process: Process) -> int:
        here = process.lab
        with here.changed:
            here.changed.wait_for(lambda: here.deeds)
        os.kill(os.getpid(), signal.SIGINT)
        process.wait_for_stop()
        return 0

    lab.programs["client"] = interrupting
    outcome = lab.run()
    assert outcome.status == 130
    assert [happened.at is not None for happened in outcome.events] == [True, False]
