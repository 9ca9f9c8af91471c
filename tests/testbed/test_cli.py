"""The command line, on the fake backend: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from testbed import backends, doctor, links, state
from testbed.backends.base import Now
from testbed.backends.fake import FakeBackend, Process, Program
from testbed.cli import main
from testbed.cli.output import table
from testbed.plan import HostPlan, Interface
from testbed.unavailable import Unavailable
from tests.testbed.plans import TWO, plan_of

TOPOLOGY = """
name: fake-lab
seed: 7
hosts: {alice: {}, bob: {}}
links: [{endpoints: [alice, bob]}]
apps:
  server: {host: bob, run: [serve], files: {payload.bin: {random: 64kB}}, ready: {listening: 7000}}
  client: {host: alice, run: [fetch], needs: [server], expect: {exit: 0}}
checks: [{integrity: client}]
"""


def server(process: Process) -> int:
    process.listen(7000)
    process.wait_for_stop()
    process.print("served payload.bin: 64000 bytes")
    return 0


def client(process: Process) -> int:
    process.files["payload.bin"] = process.lab.process("server").files["payload.bin"]
    process.print("fetched payload.bin: 64000 bytes, 1.0 MB/s")
    return 0


Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch, own_state: Path, tmp_path: Path) -> dict[str, Program]:
    """The only backend is a fake, in which these programs run; the working directory has lab.yaml."""
    del own_state
    programs: dict[str, Program] = {"server": server, "client": client}
    backend = FakeBackend(programs)
    monkeypatch.setattr(backends, "FACTORIES", {"fake": lambda: backend})
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(TOPOLOGY)
    return programs


def test_run_says_all_that_matters(capsys: Captured) -> None:
    assert main(["run", "lab.yaml"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["backend fake: the best there is, and it works here", "lab fake-lab, seed 7"]
    assert "server: served payload.bin: 64000 bytes" in said
    assert "client: fetched payload.bin: 64000 bytes, 1.0 MB/s" in said
    assert "pass exit client: client ended with status 0" in said
    checked = said.index("pass integrity client: payload.bin arrived whole")
    sent, received = (line.split() for line in said[checked + 2 : checked + 4])
    assert (sent[0], received[0]) == ("sent", "received")
    assert sent[1] == received[1]
    assert len(sent[1]) == 64
    folder = next(Path("runs/fake-lab").glob("2*"))
    assert said[-3:] == [f"run folder: {folder}", f"report: {folder}/report.html", "passed"]


def test_run_takes_seed_name_and_directory(capsys: Captured) -> None:
    assert main(["run", "lab.yaml", "--backend", "fake", "--seed", "9", "--name", "mine", "--runs", "kept"]) == 0
    manifest = json.loads(Path("kept/mine/latest/manifest.json").read_text())
    assert (manifest["seed"], manifest["lab"], manifest["topology"]) == (9, "mine", "fake-lab")
    assert capsys.readouterr().out.startswith("backend fake: asked for\nlab mine, seed 9\n")


def test_another_seed_makes_another_file() -> None:
    digests = set()
    for seed in ("7", "8", "7"):
        assert main(["run", "lab.yaml", "--seed", seed]) == 0
        manifest = json.loads(Path("runs/fake-lab/latest/manifest.json").read_text())
        digests.add((seed, manifest["checks"][1]["comparisons"][0]["sent"]))
    assert len(digests) == 2


def test_a_failed_application_is_status_1(programs: dict[str, Program], capsys: Captured) -> None:
    programs["client"] = lambda _process: 5
    assert main(["run", "lab.yaml"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "FAIL exit client: client ended with status 5, expected 0" in said
    assert said[-1] == "failed: exit client, integrity client"


def test_a_daemon_that_dies_is_status_1_with_its_last_lines(programs: dict[str, Program], capsys: Captured) -> None:
    def killing(process: Process) -> int:
        process.lab.kill_host("bob", 1, "my_tcp.py, line 7: boom")
        process.wait_for_stop()
        return 0

    programs["client"] = killing
    assert main(["run", "lab.yaml"]) == 1
    said = capsys.readouterr()
    assert "testbed: chitcpd of bob ended with status 1 during the run" in said.err
    assert "my_tcp.py, line 7: boom" in said.err
    assert said.out.splitlines()[-1] == "failed: cut short"


def test_ctrl_c_is_status_130_and_leaves_nothing_up(programs: dict[str, Program], capsys: Captured) -> None:
    def interrupting(process: Process) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        process.wait_for_stop()
        return 0

    programs["client"] = interrupting
    assert main(["run", "lab.yaml"]) == 130
    said = capsys.readouterr()
    assert said.err == "testbed: interrupted by SIGINT; nothing is left behind but the run folder.\n"
    assert "interrupted" not in said.out
    assert main(["ps"]) == 0
    assert capsys.readouterr().out == "no lab is up\n"


def test_ctrl_c_before_there_is_anything_is_said_too(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def choose(_name: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backends, "choose", choose)
    assert main(["run", "lab.yaml"]) == 130
    assert capsys.readouterr().err.strip() == "testbed: interrupted."


def test_a_fault_of_ours_is_status_4_with_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(FakeBackend, "up", fail)
    assert main(["run", "lab.yaml"]) == 4
    assert "Traceback" not in capsys.readouterr().err
    assert main(["run", "lab.yaml", "-v"]) == 4
    said = capsys.readouterr().err
    assert said.startswith("testbed: ZeroDivisionError: by zero")
    assert "Traceback" in said


def test_a_run_that_is_refused_leaves_the_directory_for_runs_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(*_: object, **__: object) -> None:
        raise Unavailable("a port is in use.", "End it.")

    monkeypatch.setattr(FakeBackend, "up", up)
    assert main(["run", "lab.yaml"]) == 3
    assert not Path("runs").exists()
    Path("runs").mkdir()
    assert main(["run", "lab.yaml"]) == 3
    assert list(Path("runs").iterdir()) == []


def test_a_full_disk_is_not_our_fault() -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "testbed", "schema"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (
        3,
        "testbed: what there is to write can't be written: No space left on device.",
    )


def test_what_the_output_s_encoding_has_not_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding="latin-1"))
    assert main(["graph", "lab.yaml"]) == 0
    assert b"alice ?? bob" in written.getvalue()


@pytest.mark.parametrize("columns", ["1", "2"])
def test_help_in_a_terminal_of_hardly_any_width(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["--help"]) == 0


def test_what_an_application_writes_can_not_steer_the_terminal(programs: dict[str, Program], capsys: Captured) -> None:
    def steering(process: Process) -> int:
        process.print("\x1b[2J\x07[bold]boo[/bold]")
        return client(process)

    programs["client"] = steering
    assert main(["run", "lab.yaml"]) == 0
    assert "client: ?[2J?[bold]boo[/bold]" in capsys.readouterr().out


def test_a_broken_topology_is_status_2_with_every_fault(capsys: Captured) -> None:
    Path("lab.yaml").write_text(TOPOLOGY.replace("endpoints: [alice, bob]", "endpoints: [alice, carol], dealy: 25ms"))
    assert main(["run", "lab.yaml"]) == 2
    complaints = capsys.readouterr().err.splitlines()
    assert all(line.startswith("testbed: lab.yaml:5:") for line in complaints)
    assert len(complaints) == 2
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "no-such-file.yaml"],
        ["run", "lab.yaml", "--seed", "x"],
        ["run", "lab.yaml", "--name", "Not A Name"],
        ["run", "lab.yaml", "--backend", "dokcer"],
        ["down"],
        ["down", "one", "--all"],
        ["down", "nowhere"],
        ["down", "../nowhere"],
        ["ps", "nowhere"],
        ["logs", "nowhere"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err
    assert "Traceback" not in said.err


def test_a_machine_that_can_not_is_status_3_with_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def check(_self: FakeBackend) -> None:
        raise Unavailable("no engine answers.", "Start one.")

    monkeypatch.setattr(FakeBackend, "check", check)
    assert main(["run", "lab.yaml", "--backend", "fake"]) == 3
    assert capsys.readouterr().err == "testbed: no engine answers.\nStart one.\n"
    assert not Path("runs").exists()


def test_a_lab_in_use_is_refused_and_its_user_named(capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    with state.lab_lock("fake-lab"):
        assert main(["run", "lab.yaml"]) == 3
        assert main(["down", "lab.yaml"]) == 3
    said = capsys.readouterr().err
    assert f"testbed: lab fake-lab is in use by process {os.getpid()}" in said
    assert "--name" in said


def test_up_ps_logs_down(capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    assert capsys.readouterr().out.endswith("lab fake-lab is up; testbed down fake-lab takes it down\n")
    with state.allocation_lock(lambda: None):  # another lab comes up: it does not concern one that is up
        assert main(["up", "lab.yaml"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "backend fake: lab fake-lab is up there"
    assert said[-1] == "lab fake-lab was up, just so: nothing was changed"
    assert not any("waiting" in line for line in said)
    assert main(["up", "lab.yaml", "--backend", "fake"]) == 0
    assert capsys.readouterr().out.startswith("backend fake: asked for\n")

    assert main(["ps", "--format", "json"]) == 0
    items = json.loads(capsys.readouterr().out)
    assert [(i["backend"], i["kind"], i["name"], i["state"]) for i in items] == [
        ("fake", "host", "alice", "running"),
        ("fake", "host", "bob", "running"),
        ("fake", "link", "alice-bob", "up"),
    ]
    assert main(["ps", "fake-lab"]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:]] == ["alice", "bob", "alice-bob"]

    assert main(["logs", "fake-lab", "alice"]) == 0
    assert capsys.readouterr().out == "alice: chitcpd is ready\n"
    assert main(["logs", "fake-lab", "carol"]) == 2
    assert "it has alice, bob" in capsys.readouterr().err

    assert main(["run", "lab.yaml"]) == 3  # its name is taken
    assert main(["down", "lab.yaml"]) == 0
    assert capsys.readouterr().out.endswith("lab fake-lab is down: 3 things removed\n")
    assert main(["down", "--all"]) == 0
    assert capsys.readouterr().out == "no lab is up\n"


def test_up_of_a_lab_that_is_up_in_another_shape_changes_what_differs(capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    Path("lab.yaml").write_text(TOPOLOGY.replace("bob", "carol"))
    assert main(["up", "lab.yaml"]) == 0
    said = capsys.readouterr().out
    assert "ending chitcpd of bob" in said
    assert "starting chitcpd on carol" in said
    assert main(["ps", "fake-lab"]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:]] == ["alice", "carol", "alice-carol"]


def test_links_are_shown_and_changed(capsys: Captured) -> None:
    def shown() -> dict[str, str]:
        capsys.readouterr()
        assert main(["link", "show", "fake-lab"]) == 0
        rows = (line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:])
        return {direction: " ".join(rest.split()) for _, direction, rest in rows}

    def link_in_ps() -> str:
        capsys.readouterr()
        assert main(["ps", "--format", "json"]) == 0
        return str(json.loads(capsys.readouterr().out)[-1]["state"])

    assert main(["up", "lab.yaml"]) == 0
    assert shown() == {"alice->bob": "as it is nothing", "bob->alice": "as it is nothing"}

    assert main(["link", "set", "fake-lab", "alice-bob", "delay=50ms", "loss=2%", "--from", "alice"]) == 0
    assert capsys.readouterr().out == "alice->bob: 50ms, loss 2%\nbob->alice: as it is\n"
    assert shown() == {"alice->bob": "50ms, loss 2% changed nothing", "bob->alice": "as it is nothing"}

    assert main(["link", "down", "fake-lab", "alice-bob"]) == 0
    assert shown() == {"alice->bob": "down, 50ms, loss 2% changed nothing", "bob->alice": "down changed nothing"}
    assert link_in_ps() == "down"
    assert main(["link", "up", "fake-lab", "alice-bob"]) == 0
    assert link_in_ps() == "up"
    assert shown()["alice->bob"] == "50ms, loss 2% changed nothing"

    assert main(["link", "reset", "fake-lab"]) == 0
    assert capsys.readouterr().out.endswith("every link of fake-lab is as the topology says\n")
    assert shown() == {"alice->bob": "as it is nothing", "bob->alice": "as it is nothing"}


def test_a_link_is_shown_with_what_befalls_its_underlay(capsys: Captured) -> None:
    Path("lab.yaml").write_text(TOPOLOGY.replace("[alice, bob]", "[alice, bob], underlay: {loss: 1%}"))
    assert main(["up", "lab.yaml"]) == 0
    capsys.readouterr()
    assert main(["link", "show", "fake-lab"]) == 0
    assert " ".join(capsys.readouterr().out.splitlines()[1].split()) == "alice-bob alice->bob underlay loss 1% nothing"
    assert main(["link", "set", "fake-lab", "alice-bob", "delay=50ms", "--from", "bob"]) == 0
    assert capsys.readouterr().out == "alice->bob: underlay loss 1%\nbob->alice: 50ms, underlay loss 1%\n"


@pytest.mark.parametrize(("silent", "state"), [(["alice"], "down"), (["bob"], "down"), (["alice", "bob"], "up")])
def test_of_a_link_that_is_down_the_other_end_knows_too(
    silent: list[str], state: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert main(["up", "lab.yaml"]) == 0
    assert main(["link", "down", "fake-lab", "alice-bob"]) == 0
    real = FakeBackend.now

    def now(backend: FakeBackend, lab: str, node: HostPlan, interface: Interface) -> Now:
        if node.name in silent:
            raise Unavailable(f"chitcpd of {node.name} does not answer.", "Wait.")
        return real(backend, lab, node, interface)

    monkeypatch.setattr(FakeBackend, "now", now)
    capsys.readouterr()
    assert main(["ps", "fake-lab", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["state"] == state


@pytest.mark.parametrize("command", [["set", "fake-lab", "alice-bob", "loss=2%"], ["down", "fake-lab", "alice-bob"]])
def test_a_link_is_as_it_was_after_a_while(command: list[str], capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    assert main(["link", *command, "--for", "10ms"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-4].startswith("alice->bob: ")
    assert said[-2] == "for 0.01 s"
    assert said[-1] == "alice-bob is as it was"
    assert main(["link", "show", "fake-lab"]) == 0
    assert "changed" not in capsys.readouterr().out


def test_a_lab_that_is_down_before_the_while_is_over_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert main(["up", "lab.yaml"]) == 0
    monkeypatch.setattr(time, "sleep", lambda _seconds: backends.get("fake").down("fake-lab", print))
    capsys.readouterr()
    assert main(["link", "down", "fake-lab", "alice-bob", "--for", "10min"]) == 0
    assert capsys.readouterr().out.endswith("\nlab fake-lab is down by now\n")


def test_a_link_that_can_not_be_shown_is_as_it_was_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["up", "lab.yaml"]) == 0

    def show(lab: str, names: list[str]) -> None:
        raise Unavailable(f"{lab} {names} can't be shown.", "Try again.")

    with monkeypatch.context() as patch:
        patch.setattr(links, "show", show)
        assert main(["link", "down", "fake-lab", "alice-bob", "--for", "10min"]) == 3
    backend = backends.get("fake")
    alice = backend.nodes("fake-lab")[0]
    assert not backend.now("fake-lab", alice, alice.interfaces[0]).shape.down


def test_ctrl_c_ends_the_while_at_once(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    real = FakeBackend.reshape

    def reshape(backend: FakeBackend, lab: str, changes: Any) -> None:
        real(backend, lab, changes)
        if any(change.shape.down for change in changes):
            os.kill(os.getpid(), signal.SIGINT)  # as early as can be

    monkeypatch.setattr(FakeBackend, "reshape", reshape)
    assert main(["link", "down", "fake-lab", "alice-bob", "--for", "10min"]) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "alice-bob is as it was"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "fake-lab", "alice-bob", "loss"], "found 'loss', expected NAME=VALUE"),
        (["set", "fake-lab", "alice-bob", "loss=2"], "loss: expected a share in percent"),
        (["set", "fake-lab", "alice-bob", "loss=2%", "--from", "carol"], "'carol' is at no end of alice-bob"),
        (["set", "fake-lab", "alice-bob", "loss=2%", "--for", "10"], "like 10s"),
        (["set", "fake-lab", "alice-bob"], "Missing argument"),
        (["down", "fake-lab", "x"], "lab fake-lab has no link 'x', it has alice-bob"),
        (["show", "nowhere"], "there is no lab nowhere here"),
    ],
)
def test_what_a_link_can_not_do_is_status_2(arguments: list[str], said: str, capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    assert main(["link", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_capture_is_written_as_it_is(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["up", "lab.yaml"]) == 0
    capfdbinary.readouterr()
    assert main(["capture", "fake-lab", "alice"]) == 0
    pcap = capfdbinary.readouterr().out
    assert pcap[:4] == bytes.fromhex("4d3cb2a1")
    assert main(["capture", "fake-lab", "alice", "--wire", "--follow", "-o", "wire.pcap"]) == 0
    assert (tmp_path / "wire.pcap").read_bytes() == pcap


def test_a_capture_that_is_not_there_leaves_no_file(capsys: Captured) -> None:
    Path("lab.yaml").write_text(TOPOLOGY + "capture: {wire: false}\n")
    assert main(["up", "lab.yaml"]) == 0
    assert main(["capture", "fake-lab", "alice", "--wire", "-o", "wire.pcap"]) == 3
    assert "lab fake-lab has no capture of wire" in capsys.readouterr().err
    assert main(["capture", "fake-lab", "carol"]) == 2
    assert "lab fake-lab has no host or router 'carol', it has alice, bob" in capsys.readouterr().err
    assert not Path("wire.pcap").exists()


def test_collect_writes_a_run_folder_and_the_lab_goes_on(capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    capsys.readouterr()
    assert main(["collect", "fake-lab", "--runs", "kept"]) == 0
    folder = next(Path("kept/fake-lab").glob("2*"))
    assert capsys.readouterr().out.splitlines()[-1] == f"run folder: {folder}"
    assert (Path("kept/fake-lab/latest") / "hosts" / "bob" / "chitcpd.log").exists()
    assert main(["ps", "fake-lab"]) == 0
    assert main(["collect", "nowhere"]) == 2
    assert not Path("runs").exists()


def test_gc_removes_what_was_left_behind_and_nothing_else(capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    backend = backends.get("fake")
    backend.up(plan_of(TWO, lab="left", pool="127.129.0.0/16"), print, stays=False)
    capsys.readouterr()
    assert main(["gc", "--dry-run"]) == 0
    assert capsys.readouterr().out == "lab left: 3 things would go\n"
    assert backend.labs() == ["fake-lab", "left"]
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "taking down left\nlab left: 3 things removed\n"
    assert backend.labs() == ["fake-lab"]
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "nothing was left behind\n"


def test_ps_says_what_was_left_behind(capsys: Captured) -> None:
    backend = backends.get("fake")
    backend.up(plan_of(TWO, lab="left", pool="127.129.0.0/16"), print, stays=False)
    with state.lab_lock("left"):  # a run goes on
        assert main(["ps"]) == 0
        assert not state.is_at_work("../locks/left")  # a label that anybody may have set
    assert capsys.readouterr().err == ""
    killed = state.directory() / "locks" / "left"
    killed.write_text(f"process {_ended()} (testbed run left.yaml)")
    for command in (["ps"], ["ps", "left", "--format", "json"]):
        assert main(command) == 0
        said = capsys.readouterr().err
        assert said == "note: left: left behind by a command that was killed; testbed gc removes what is.\n"
    assert main(["gc"]) == 0
    capsys.readouterr()
    assert main(["up", "lab.yaml"]) == 0
    assert main(["ps"]) == 0
    assert capsys.readouterr().err == ""


def _ended() -> int:
    """The number of a process that there was."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_gc_leaves_a_lab_alone_that_is_garbage_no_more_once_it_has_the_lock(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    backend = backends.get("fake")
    backend.up(plan_of(TWO, lab="left", pool="127.129.0.0/16"), print, stays=False)
    capsys.readouterr()

    @contextmanager
    def wait_for_the_lock(lab: str) -> Iterator[None]:
        """Another `up` has had it meanwhile."""
        backend.change(plan_of(TWO, lab=lab, pool="127.129.0.0/16"), print)
        yield

    monkeypatch.setattr(state, "lab_lock", wait_for_the_lock)
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "nothing was left behind\n"
    assert backend.labs() == ["left"]


def test_gc_leaves_a_lab_alone_that_a_command_is_at_work_on(capsys: Captured) -> None:
    backend = backends.get("fake")
    backend.up(plan_of(TWO, lab="left", pool="127.129.0.0/16"), print, stays=False)
    capsys.readouterr()
    with state.lab_lock("left"):
        assert main(["gc"]) == 0
    assert capsys.readouterr().out == "nothing was left behind\n"
    assert backend.labs() == ["left"]


@pytest.mark.parametrize("command", [["exec", "fake-lab", "alice", "ls", "-la"], ["shell", "fake-lab", "alice"]])
def test_a_command_in_a_lab_needs_a_backend_that_can(command: list[str], capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    assert main(command) == 3
    assert "can't be executed" in capsys.readouterr().err
    assert main([command[0], "fake-lab", "carol", *command[3:]]) == 2
    assert "lab fake-lab has no host 'carol'" in capsys.readouterr().err


def test_two_dashes_in_front_of_a_command_are_left_out(capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    assert main(["exec", "fake-lab", "alice", "--", "ls", "--", "-la"]) == 3
    assert "ls can't be executed" in capsys.readouterr().err
    assert main(["exec", "fake-lab", "alice", "--"]) == 2
    assert "Missing argument 'COMMAND...'" in capsys.readouterr().err


def test_down_needs_no_more_of_a_file_than_the_name(capsys: Captured) -> None:
    assert main(["up", "lab.yaml"]) == 0
    Path("lab.yaml").write_text("name: fake-lab\nhosts: gone\n")
    assert main(["down", "lab.yaml"]) == 0
    Path("lab.yaml").write_text("hosts: gone\n")
    assert main(["down", "lab.yaml"]) == 2
    assert "found no name that can be read" in capsys.readouterr().err


def test_down_finds_the_name_where_up_does(capsys: Captured) -> None:
    Path("top.yaml").write_text("include: [lab.yaml]\n")
    assert main(["up", "top.yaml"]) == 0
    assert main(["down", "top.yaml"]) == 0
    Path("lab.yaml").write_text("hosts: {")
    assert main(["down", "top.yaml"]) == 2
    assert "`testbed down LAB` needs no file" in capsys.readouterr().err


def test_a_backend_that_can_not_be_asked_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def labs(_self: FakeBackend) -> None:
        raise Unavailable("no engine answers.", "Start one.")

    monkeypatch.setattr(FakeBackend, "labs", labs)
    for command in (["ps"], ["down", "--all"]):
        assert main(command) == 0
        said = capsys.readouterr()
        assert (said.out, said.err) == ("no lab is up\n", "note: labs on fake are not seen: no engine answers.\n")


def test_validate_says_what_is_in_a_file_or_all_that_is_wrong(capsys: Captured) -> None:
    assert main(["validate", "lab.yaml"]) == 0
    assert capsys.readouterr().out == (
        "lab.yaml: good: fake-lab: hosts alice, bob; links alice-bob; apps server, client; checks integrity of client\n"
    )
    Path("empty.yaml").touch()
    Path("bad.yaml").write_text(TOPOLOGY.replace("[alice, bob]", "[alice, bob], delay: 25, loss: 3"))
    assert main(["validate", "empty.yaml", "bad.yaml", "lab.yaml"]) == 2
    said = capsys.readouterr()
    assert [line.split(": ")[1].split(":")[0] for line in said.err.splitlines()] == [
        "empty.yaml",
        "bad.yaml",
        "bad.yaml",
    ]
    assert said.out.startswith("lab.yaml: good")


def test_validate_for_programs(capsys: Captured) -> None:
    Path("bad.yaml").write_text(TOPOLOGY.replace("[alice, bob]", "[alice, bob], delay: 25"))
    assert main(["validate", "bad.yaml", "lab.yaml", "--format", "json"]) == 2
    bad, good = json.loads(capsys.readouterr().out)
    assert (bad["good"], bad["faults"][0]["line"], bad["faults"][0]["path"]) == (False, 5, "links[0].delay")
    assert (good["good"], good["hosts"], good["faults"]) == (True, ["alice", "bob"], [])


def test_a_table_for_a_narrow_terminal_has_its_widest_cells_below_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert main(["up", "lab.yaml"]) == 0
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "40"}.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert main(["ps"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == [
        "LAB  KIND  NAME  STATE  BACKEND",
        "  DETAIL",
        "fake-lab  host  alice  running  fake",
        "  127.128.0.2",
    ]
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["ps"]) == 0
    assert "fake-lab  host  alice" in capsys.readouterr().out.splitlines()[1]


def test_doctor_tries_everything_and_names_the_backend(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def lame() -> str:
        raise Unavailable("tcpdump is not installed.", "Install it.")

    monkeypatch.setattr(doctor, "ATTEMPTS", {"Python": lambda: "3.11", "tcpdump": lame, "capture": lame})
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "yes  Python   3.11" in said
    assert "NO   tcpdump  tcpdump is not installed." in said
    assert "NO   capture  see tcpdump" in said
    assert "tcpdump, capture: Install it." in said
    assert said.endswith("testbed run takes fake: the best there is, and it works here\n")

    monkeypatch.setattr(FakeBackend, "check", lambda _self: lame())
    assert main(["doctor", "--format", "json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["backend"] is None
    assert [probe["ok"] for probe in found["probes"]] == [True, False, False]


@pytest.mark.parametrize(
    "command",
    [
        *([], ["run"], ["up"], ["down"], ["ps"], ["logs"], ["validate"], ["doctor"], ["completion"]),
        *(["link"], ["link", "show"], ["link", "set"], ["link", "down"], ["link", "up"], ["link", "reset"]),
        *(["exec"], ["shell"], ["capture"], ["collect"], ["gc"]),
    ],
    ids=" ".join,
)
def test_help_fits_a_narrow_terminal_and_teaches(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main([*command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "testbed" in said
    assert "..." not in said.partition("\nCommands:\n")[2]  # no sentence is cut off
    examples = re.compile(r" {4,6}\S")  # a copy of them is to be whole
    assert max(len(line) for line in said.splitlines() if not examples.match(line)) <= 40
    if command != ["doctor"]:
        assert "testbed run" in said or f"  testbed {' '.join(command)}" in said


def test_a_command_loads_only_what_it_needs() -> None:
    """What others need takes long to load: an engine's API, plots, grading."""
    Path("two.yaml").write_text(TOPOLOGY)
    program = "import sys; from testbed.cli import main; main(['validate', 'two.yaml']); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    loaded = set(said.split())
    assert "testbed.cli.validate" in loaded
    assert not loaded & {"asyncio", "docker", "testbed.grading", "testbed.report", "testbed.run"}


def test_a_row_of_a_table_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its cells say, none adds a row."""
    table(("NAME", "POINTS"), [("a\nb  174", "0")])
    assert capsys.readouterr().out.splitlines() == ["NAME      POINTS", "a b  174  0"]
