"""Whole labs of real processes on this machine: the command line, chitcpd, applications, captures, and their ends."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import rdpcap

from testbed.backends import local, processes
from testbed.backends.base import Exit, Unavailable
from testbed.backends.local import LocalBackend
from testbed.backends.local_lab import LABEL
from tests.testbed.backend_contract import app, ignore, items, next_exit, two_hosts, up
from tests.testbed.conftest import PROJECT

TESTBED = [sys.executable, "-c", "import sys; from testbed.cli import main; sys.exit(main())"]

WAITING = """
name: waiting
hosts: {alice: {}, bob: {}}
links: [{endpoints: [alice, bob]}]
apps:
  server: {host: bob, run: [python, -m, chisocket.apps.echo, serve, --port, "7"], ready: {listening: 7}}
  client: {host: alice, run: [sleep, "600"], needs: [server], expect: {exit: 0}, timeout: 10min}
"""


SETTINGS = """
name: settings
defaults: {host: {tcp: {rto_min: 300ms}}}
hosts:
  alice: {tcp: {congestion: newreno, mss: 700B, sack: off}}
  bob: {tcp: {profile: classic, mss: 500B}}
links: [{endpoints: [alice, bob]}]
apps:
  server: {host: bob, run: [python, -m, chisocket.apps.echo, serve, --port, "7"], ready: {listening: 7}}
  client: {host: alice, run: [python, -m, chisocket.apps.echo, send, "bob:7", hi], needs: [server], expect: {exit: 0}}
"""


@pytest.fixture(autouse=True)
def state(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of this test; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    return own_state


def run_testbed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TESTBED, *arguments], capture_output=True, text=True, timeout=100, check=False)


@contextmanager
def a_run_that_waits(state: Path) -> Iterator[subprocess.Popen[str]]:
    """`testbed run` of a client that does not end by itself, at the moment at which the run waits for it."""
    Path("waiting.yaml").write_text(WAITING)
    command = [*TESTBED, "run", "waiting.yaml", "--backend", "local"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as controller:
        assert controller.stdout is not None
        for line in controller.stdout:
            if line == "waiting for client\n":
                break
        assert {path.name for path in (state / "local").iterdir()} == {"waiting"}
        yield controller


def running(state: Path) -> list[processes.Known]:
    """All processes of labs of this test."""
    return processes.with_environment(LABEL, str(state))


def assert_nothing_is_left(state: Path) -> None:
    assert running(state) == []
    assert list((state / "local").iterdir()) == []
    assert list((state / "locks").iterdir()) == []


def test_a_file_crosses_two_hosts_and_the_captures_show_it(state: Path) -> None:
    ran = run_testbed("run", str(PROJECT / "topologies" / "two-hosts.yaml"), "--backend", "local")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("\npassed\n")
    assert_nothing_is_left(state)

    folder = Path("runs/two-hosts/latest")
    manifest = json.loads((folder / "manifest.json").read_text())
    addresses = {name: host["addresses"]["alice-bob"] for name, host in manifest["hosts"].items()}
    sent = (folder / "apps" / "server" / "files" / "payload.bin").read_bytes()
    assert (folder / "apps" / "client" / "files" / "payload.bin").read_bytes() == sent
    assert len(sent) == 5 * 2**20

    segments = rdpcap(str(folder / "hosts" / "alice" / "segments.pcap"))
    assert {p[IP].src for p in segments} == set(addresses.values())
    assert [str(p[TCP].flags) for p in segments[:3]] == ["S", "SA", "A"]
    assert segments[0][IP].src == addresses["alice"]
    assert segments[0][TCP].dport == 7000
    assert sum("F" in str(p[TCP].flags) for p in segments) >= 2

    if manifest["notes"]:  # an ordinary user can't capture the wire; the reason is told
        assert "no capture of the wire" in manifest["notes"][0]
        return
    port = int(os.environ["CHITCPD_PORT"])
    wire = rdpcap(str(folder / "hosts" / "bob" / "wire.pcap"))
    assert all(port in (p[TCP].sport, p[TCP].dport) for p in wire)
    assert {p[IP].src for p in wire} == set(addresses.values())


def test_a_file_arrives_whole_over_a_link_that_loses_segments() -> None:
    ran = run_testbed("run", str(PROJECT / "topologies" / "lossy.yaml"), "--backend", "local")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    manifest = json.loads(Path("runs/lossy/latest/manifest.json").read_text())
    assert [(link["asked"]["loss"], link["mechanism"]["delay_jitter_rate"]) for link in manifest["links"]] == [
        (0.05, "chitcpd"),
        (0.05, "chitcpd"),
    ]


def test_the_very_segments_that_a_topology_names_are_lost() -> None:
    ran = run_testbed("run", str(PROJECT / "topologies" / "precise-loss.yaml"), "--backend", "local")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    sent: dict[str, list[dict[str, Any]]] = {}
    lost: dict[str, list[dict[str, Any]]] = {}
    for host in ("alice", "bob"):
        lines = Path(f"runs/precise-loss/latest/hosts/{host}/trace.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        sent[host] = [event for event in events if event["event"] == "sent"]
        lost[host] = [event for event in events if event.get("why") == "drop rule"]
    assert [event["flags"][0] for event in lost["alice"]] == ["S", "F"]
    data = [event for event in sent["bob"] if event["len"]]
    assert [event["seq"] for event in lost["bob"]] == [event["seq"] for event in data[19:21]]


def test_one_direction_of_a_link_may_be_slower() -> None:
    ran = run_testbed("run", str(PROJECT / "topologies" / "satellite.yaml"), "--backend", "local")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    manifest = json.loads(Path("runs/satellite/latest/manifest.json").read_text())
    asked = {link["direction"]: link["asked"] for link in manifest["links"]}
    assert {direction: (shape["rate"], shape["delay"]) for direction, shape in asked.items()} == {
        "ship->shore": (2e6, 0.28),
        "shore->ship": (20e6, 0.28),
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_a_run_folder_and_nothing_else(state: Path, number: signal.Signals) -> None:
    with a_run_that_waits(state) as controller:
        controller.send_signal(number)
        said, _ = controller.communicate(timeout=60)
    assert controller.returncode == 128 + number
    assert said.endswith("\ninterrupted\n")
    assert_nothing_is_left(state)
    assert Path("runs/waiting/latest/hosts/bob/segments.pcap").exists()


def test_down_after_the_controller_was_killed_leaves_nothing(state: Path) -> None:
    with a_run_that_waits(state) as controller:
        controller.kill()
    assert len(running(state)) >= 4  # two daemons, two applications
    assert ["waiting", "host", "alice", "running"] in [
        line.split()[:4] for line in run_testbed("ps").stdout.splitlines()
    ]
    taken = run_testbed("down", "waiting.yaml")
    assert taken.returncode == 0, taken.stderr
    assert_nothing_is_left(state)


def test_a_daemon_that_dies_ends_the_run(state: Path) -> None:
    with a_run_that_waits(state) as controller:
        lab = LocalBackend().lab("waiting")
        os.kill(next(entry.pid for entry in lab.of("host") if entry.name == "bob"), signal.SIGSEGV)
        said, _ = controller.communicate(timeout=60)
    assert controller.returncode == 1
    assert (
        "testbed: chitcpd of bob ended with status 139 during the run; the last lines of hosts/bob/chitcpd.log:" in said
    )
    assert "listening on 127." in said
    assert_nothing_is_left(state)


def test_a_port_in_use_is_refused_and_leaves_nothing(state: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("", int(os.environ["CHITCPD_PORT"])))
        listener.listen()
        ran = run_testbed("run", str(PROJECT / "topologies" / "two-hosts.yaml"), "--backend", "local")
    assert ran.returncode == 3
    assert f"testbed: port {os.environ['CHITCPD_PORT']} is in use on" in ran.stderr
    assert "CHITCPD_PORT to another port" in ran.stderr
    assert not Path("runs").exists()
    assert running(state) == []


def test_two_labs_run_at_once(state: Path) -> None:
    with a_run_that_waits(state) as controller:
        ran = run_testbed("run", str(PROJECT / "topologies" / "two-hosts.yaml"), "--backend", "local")
        again = run_testbed("run", "waiting.yaml", "--backend", "local")
        controller.send_signal(signal.SIGINT)
        controller.communicate(timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert again.returncode == 3
    assert f"lab waiting is in use by process {controller.pid}" in again.stderr
    assert_nothing_is_left(state)


def test_a_lab_stays_up_and_a_program_can_use_it(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")  # `--all` must not find labs of others there
    Path("waiting.yaml").write_text(WAITING)
    assert run_testbed("up", "waiting.yaml", "--backend", "local").returncode == 0
    items = json.loads(run_testbed("ps", "waiting", "--format", "json").stdout)
    assert [(i["name"], i["state"]) for i in items] == [("alice", "running"), ("bob", "running"), ("alice-bob", "up")]
    assert "bob: " in run_testbed("logs", "waiting", "bob").stdout

    details = {i["name"]: i["detail"].split() for i in items if i["kind"] == "host"}
    path = details["alice"][1].removeprefix("CHITCPD_SOCK=")
    program = "import chisocket, sys; chisocket.socket().bind((sys.argv[1], 9))"
    command = [sys.executable, "-c", program, details["alice"][0]]
    subprocess.run(command, env={**os.environ, "CHITCPD_SOCK": path}, check=True, timeout=30)

    assert run_testbed("down", "--all").returncode == 0
    assert_nothing_is_left(state)


def test_it_works_in_a_terminal_of_40_columns() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    command = [*TESTBED, "run", str(PROJECT / "topologies" / "two-hosts.yaml"), "--backend", "local"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as controller:
        os.close(theirs)
        said = b"".join(_until_hung_up(ours))
    os.close(ours)
    assert controller.returncode == 0, said
    manifest = json.loads(Path("runs/two-hosts/latest/manifest.json").read_text())
    digest = manifest["checks"][1]["comparisons"][0]["sent"].encode()
    assert said.count(digest) >= 2  # whole: the terminal breaks the line, and a copy of it has no break


def _until_hung_up(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            return
        if not data:
            return
        yield data


# The backend by itself: what only it has


def test_an_application_that_ignores_sigterm_is_killed() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    backend = LocalBackend()
    plan = two_hosts(backend, app("waits", run=("python", "-c", deaf)))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        assert next(iter(backend.logs(plan.lab, ("waits",), follow=True))) == ("waits", "deaf")
        backend.stop(plan, plan.apps[0])
        assert next_exit(backend, plan) == Exit("app", "waits", 137)


def test_what_an_application_leaves_running_goes_with_it(state: Path) -> None:
    backend = LocalBackend()
    leaves = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); print('left', flush=True)"
    plan = two_hosts(backend, app("ends", run=("python", "-c", leaves)))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        assert next_exit(backend, plan) == Exit("app", "ends", 0)
        assert len(processes.with_environment(LABEL, f"{state}/local/{plan.lab}/apps/")) == 1
        backend.stop(plan, plan.apps[0])
        assert processes.with_environment(LABEL, f"{state}/local/{plan.lab}/apps/") == []


def test_down_never_ends_a_process_that_has_got_the_number_of_one_of_ours(state: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan), subprocess.Popen(["sleep", "600"]) as stranger:
        record = state / "local" / plan.lab / "lab.json"
        content = json.loads(record.read_text())
        content["entries"].append({"kind": "app", "name": "old", "command": ["x"], "pid": stranger.pid, "start": 1})
        record.write_text(json.dumps(content))
        LocalBackend().down(plan.lab, ignore)
        assert stranger.poll() is None
        stranger.kill()
    assert running(state) == []


def test_a_lab_whose_record_was_never_written_goes_too(state: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    backend.up(plan, ignore)
    (state / "local" / plan.lab / "lab.json").unlink()
    assert LocalBackend().down(plan.lab, ignore) > 0
    assert running(state) == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo 'tcpdump: lo: Operation not permitted' >&2; exit 1", "Operation not permitted"), (None, "not installed")],
)
def test_without_a_capture_of_the_wire_the_lab_works_and_says_why(
    script: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is None:
        monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
    else:
        (tmp_path / "tcpdump").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "tcpdump").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan) as built:
        backend.collect(plan, tmp_path / "run")
    assert len(built.notes) == 1  # not once for each host
    assert reason in built.notes[0]
    assert not (tmp_path / "run" / "hosts" / "alice" / "wire.pcap").exists()


def test_a_chirun_that_was_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "_C_BUILD", tmp_path / "nothing")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    backend = LocalBackend()
    plan = two_hosts(backend, app("ends", run=("chirun", "true")))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        assert next_exit(backend, plan) == Exit("app", "ends", 127)
        said = list(backend.logs(plan.lab, ("ends",), follow=False))
    assert said == [("ends", "chirun: No such file or directory (`make c` builds it)")]


def test_special_files_of_an_application_do_not_stop_the_collecting(tmp_path: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend, app("ends", run=("sh", "-c", "mkfifo pipe; ln -s nowhere link; mkdir d; echo x >d/file")))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        next_exit(backend, plan)
        backend.collect(plan, tmp_path)
    files = tmp_path / "apps" / "ends" / "files"
    assert sorted(path.name for path in files.rglob("*")) == ["d", "file", "link"]


def test_a_state_directory_with_too_long_a_path_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    backend = LocalBackend()
    with pytest.raises(Unavailable, match="longer path than the 107 bytes") as refused:
        backend.up(two_hosts(backend), ignore)
    assert "XDG_RUNTIME_DIR" in refused.value.remedy
    assert backend.labs() == []


def test_a_subnet_that_is_not_loopback_is_refused() -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    plan = dataclasses.replace(plan, links=(dataclasses.replace(plan.links[0], subnet="10.9.0.0/29"),))
    with pytest.raises(Unavailable, match=r"10\.9\.0\.0/29") as refused:
        backend.up(plan, ignore)
    assert "--backend docker" in refused.value.remedy


def test_another_process_sees_how_an_application_ended() -> None:
    backend = LocalBackend()
    plan = two_hosts(backend, app("ends"))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        next_exit(backend, plan)
        assert items(LocalBackend(), plan, "app")["ends"].state == "exited 3"


def test_doctor_really_tries_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    examined = run_testbed("doctor", "--format", "json")
    assert examined.returncode == 0, examined.stderr
    found = json.loads(examined.stdout)
    probes = {probe["name"]: probe for probe in found["probes"]}
    assert probes["Python"]["ok"]
    assert probes["loopback addresses"]["found"].startswith(f"port {os.environ['CHITCPD_PORT']} is free on 127.64.0.2")
    assert not probes["Docker engine"]["ok"]
    assert all(probe["remedy"] for probe in probes.values() if not probe["ok"])
    assert found["backend"] == "local"
    assert "no Docker engine answers" in found["why"]


def test_the_settings_of_a_topology_are_on_the_wire_in_the_log_and_in_the_manifest() -> None:
    Path("settings.yaml").write_text(SETTINGS)
    ended = run_testbed("run", "settings.yaml", "--backend", "local")
    assert ended.returncode == 0, ended.stdout + ended.stderr

    run = Path("runs/settings/latest")
    trace = [json.loads(line) for line in (run / "hosts/alice/trace.jsonl").read_text().splitlines()]
    syn, syn_ack = (next(line for line in trace if line.get("flags") == flags) for flags in ("S", "S."))
    assert (syn["mss"], syn_ack["mss"]) == (700, 500)
    assert "sack_permitted" not in syn
    assert "timestamp" not in syn_ack  # classic has none
    log = (run / "hosts/alice/chitcpd.log").read_text()
    assert "profile modern mss=700B sack=off rto_min=300ms congestion=newreno:" in log
    hosts = json.loads((run / "manifest.json").read_text())["hosts"]
    assert hosts["bob"]["tcp"] == {"profile": "classic", "mss": "500B", "rto_min": "300ms"}


def test_a_tcp_that_makes_no_connection_is_refused_before_an_application_starts() -> None:
    backend = LocalBackend()
    source = (
        b"from chitcpd.tcp.connection import Connection\n\nclass Mine(Connection):\n    __init__ = lambda self: 0\n"
    )
    with pytest.raises(Unavailable, match=r"implementation\.py can't make a connection: line 4: TypeError") as refused:
        backend.up(two_hosts(backend, implementation=source), ignore)
    assert refused.value.remedy == "Mend what the log complains of, then try again."
