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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import rdpcap

from chitcpd import ctl
from chitcpd.faults import Shape
from testbed import backends, lab
from testbed.backends import local, processes
from testbed.backends.base import Exit
from testbed.backends.local import LocalBackend
from testbed.backends.local_lab import LABEL, Entry, LocalLab
from testbed.topology import Topology
from testbed.unavailable import Unavailable
from tests.testbed.backend_contract import (
    LINK,
    TWO_HOSTS,
    app,
    changed,
    ignore,
    items,
    next_exit,
    reshape,
    two_hosts,
    until,
    up,
)
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
    """The state directory of this test; the working directory is empty, and no engine shows labs of others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
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
    assert said.endswith(f"interrupted by {signal.Signals(number).name}; nothing is left behind but the run folder.\n")
    assert_nothing_is_left(state)
    assert Path("runs/waiting/latest/hosts/bob/segments.pcap").exists()


@contextmanager
def a_command(*command: str) -> Iterator[subprocess.Popen[str]]:
    """`testbed exec` of it on alice, in a process group of its own, once it has written a line."""
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan, stays=True):
        controller = subprocess.Popen(
            [*TESTBED, "exec", plan.lab, "alice", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with controller:
            yield controller


def test_ctrl_c_lets_a_command_in_a_lab_end_by_itself() -> None:
    program = """
try:
    print("runs", flush=True)
    input()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    print(input(), flush=True)
"""
    with a_command(sys.executable, "-c", program) as controller:
        assert controller.stdout is not None
        assert controller.stdin is not None
        assert controller.stdout.readline() == "runs\n"
        os.killpg(controller.pid, signal.SIGINT)
        assert controller.stdout.readline() == "interrupted\n"
        said, _ = controller.communicate("cleaned up\n", timeout=60)
    assert said == "cleaned up\ntestbed: interrupted by SIGINT.\n"
    assert controller.returncode == 130


def test_a_signal_ends_what_a_command_in_a_lab_has_started(state: Path) -> None:
    with a_command("sh", "-c", "sleep 600 & sleep 600 & echo runs; wait") as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "runs\n"
        labelled = processes.with_environment(LABEL, f"{state}/local/")
        controller.send_signal(signal.SIGTERM)
        said, _ = controller.communicate(timeout=60)
        left = [known for known in labelled if processes.is_running(known)]
        assert len(labelled) - len(left) == 3  # the shell and two that it has started; the daemons run on
    assert said == "testbed: interrupted by SIGTERM.\n"
    assert controller.returncode == 143


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


def test_a_lab_that_somebody_takes_down_meanwhile_ends_the_run_which_says_so(state: Path) -> None:
    with a_run_that_waits(state) as controller:
        LocalBackend().down("waiting", ignore)
        said, _ = controller.communicate(timeout=30)
    assert controller.returncode == 3
    assert "testbed: somebody has taken lab waiting down while it ran. Run it again.\n" in said
    assert "fault of testbed's" not in said
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


def test_an_event_that_can_not_take_place_is_refused_before_anything_starts() -> None:
    """`testbed up` plays no events, so there it is no reason."""
    event = "events: [{at: 1min, link: alice-bob, set: {underlay: {loss: 1%}}}]\n"
    Path("waiting.yaml").write_text(WAITING + event)
    ran = run_testbed("run", "waiting.yaml", "--backend", "local")
    assert ran.returncode == 3
    assert "the local backend has none" in ran.stderr
    assert not Path("runs").exists()


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


def test_a_lab_stays_up_and_a_program_can_use_it(state: Path) -> None:
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


def test_one_can_work_in_a_lab_that_is_up(state: Path) -> None:
    Path("waiting.yaml").write_text(WAITING)
    assert run_testbed("up", "waiting.yaml", "--backend", "local").returncode == 0
    echo = ["python", "-m", "chisocket.apps.echo"]
    with subprocess.Popen([*TESTBED, "exec", "waiting", "bob", *echo, "serve", "--port", "9"]) as server:
        asking = f"until {' '.join(echo)} send bob:9 hello; do sleep 0.1; done; cat; exit 3"
        command = [*TESTBED, "exec", "waiting", "alice", "sh", "-c", asking]
        asked = subprocess.run(command, input="typed", capture_output=True, text=True, timeout=60, check=False)
        server.terminate()
    assert (asked.returncode, asked.stdout) == (3, "hello\ntyped")
    assert server.returncode == 128 + signal.SIGTERM

    assert run_testbed("capture", "waiting", "alice", "-o", "alice.pcap").returncode == 0
    assert {"S", "SA"} <= {str(packet[TCP].flags) for packet in rdpcap("alice.pcap")}
    assert run_testbed("collect", "waiting").returncode == 0
    assert rdpcap("runs/waiting/latest/hosts/alice/segments.pcap")[0][TCP].dport == 9
    assert run_testbed("gc").stdout == "nothing was left behind\n"  # this lab is to stay
    assert run_testbed("down", "waiting").returncode == 0
    assert_nothing_is_left(state)


def test_gc_takes_down_what_a_killed_controller_has_left(state: Path) -> None:
    with a_run_that_waits(state) as controller:
        assert run_testbed("gc").stdout == "nothing was left behind\n"  # it is at work
        controller.kill()
    gone = run_testbed("gc")
    assert gone.returncode == 0
    assert gone.stdout.startswith("taking down waiting\nlab waiting: ")
    assert_nothing_is_left(state)


def test_a_lab_that_is_up_is_changed_by_another_command(state: Path) -> None:
    def states() -> dict[str, str]:
        items = json.loads(run_testbed("ps", "waiting", "--format", "json").stdout)
        return {item["name"]: item["state"] for item in items}

    def daemons() -> dict[str, int]:
        return {entry.name: entry.pid for entry in LocalBackend().lab("waiting").of("host")}

    Path("waiting.yaml").write_text(WAITING)
    assert run_testbed("up", "waiting.yaml", "--backend", "local").returncode == 0
    before = daemons()
    Path("waiting.yaml").write_text(WAITING.replace("[alice, bob]}", "[alice, bob], delay: 20ms}"))
    changed = run_testbed("up", "waiting.yaml", "--backend", "local")
    assert changed.returncode == 0, changed.stderr
    assert daemons() == before
    assert "20ms" in run_testbed("link", "show", "waiting").stdout

    more = WAITING.replace("bob: {}", "bob: {}, carol: {}").replace("[alice, bob]", "[alice, bob, carol], name: lan")
    Path("waiting.yaml").write_text(more)
    assert run_testbed("up", "waiting.yaml", "--backend", "local").returncode == 0
    assert states() == {"alice": "running", "bob": "running", "carol": "running", "lan": "up"}
    assert run_testbed("down", "waiting").returncode == 0
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


# Events

PINGED = """
name: pinged
hosts: {alice: {}, bob: {}}
links: [{endpoints: [alice, bob], delay: 2ms}]
apps:
  server: {host: bob, run: [python, -m, chisocket.apps.echo, serve, --port, "7"], ready: {listening: 7}, restart: 9}
  client: {host: alice, run: [python, client.py], files: {client.py: ./client.py}, needs: [server], expect: {exit: 0}}
"""
PING = """
import chisocket, time

connection = chisocket.create_connection(("bob", 7))

def ping():
    began = time.monotonic()
    connection.sendall(b"x")
    if connection.recv(1) != b"x":
        raise ConnectionResetError
    return time.monotonic() - began
"""


def run_pinged(client: str, *events: str, seed: int = 0, loss: str = "0%") -> Path:
    """Run PINGED with this client, which has PING, and these events; return the run folder."""
    Path("client.py").write_text(PING + client)
    text = PINGED.replace("delay: 2ms", f"delay: 2ms, loss: {loss}") + f"events: [{', '.join(events)}]\n"
    Path("pinged.yaml").write_text(text)
    ran = run_testbed("run", "pinged.yaml", "--backend", "local", "--seed", str(seed))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    run = Path("runs/pinged/latest").resolve()
    for event in json.loads((run / "manifest.json").read_text())["events"]:
        assert 0 <= event["done"] - event["at"] < 1, event
    return run


def trace(run: Path, host: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "hosts" / host / "trace.jsonl").read_text().splitlines()]


UNTIL_A_GAP = """
while ping() < 0.75:  # none takes so long otherwise, on a busy machine either
    pass
for _ in range(50):
    ping()
"""


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ("{at: 2500ms, link: alice-bob, down: 800ms}", "down"),
        ("{at: 2500ms, partition: [[alice], [bob]], for: 800ms}", "partition"),
    ],
)
def test_what_is_lost_while_hosts_are_apart_is_in_the_trace_and_sent_again(event: str, why: str) -> None:
    run = run_pinged(UNTIL_A_GAP, event)
    lost = [(host, line) for host in ("alice", "bob") for line in trace(run, host) if line["event"] == "dropped"]
    assert {line["why"] for _, line in lost} == {why}
    times = [line["t"] for _, line in lost]
    begin, end = (event["done"] for event in json.loads((run / "manifest.json").read_text())["events"])
    assert max(times) - min(times) < end - begin + 0.2
    host, data = next((host, line) for host, line in lost if line["len"] == 1)
    sender = host if data["direction"] == "sent" else {"alice": "bob", "bob": "alice"}[host]
    again = [line for line in trace(run, sender) if line["event"] == "sent" and line["seq"] == data["seq"]]
    assert len(again) >= 2
    assert any(line["event"] == "timer" and line["timer"] == "RETRANSMISSION" for line in trace(run, sender))
    assert max(line["t"] for line in trace(run, sender) if line["event"] == "received") > max(times)


RECONNECTING = """
def until_reset():
    while True:
        ping()

try:
    until_reset()
except OSError as error:
    print(type(error).__name__)
while True:
    try:
        connection = chisocket.create_connection(("bob", 7))
        print(ping() > 0)
        break
    except OSError:
        time.sleep(0.05)
"""


def test_a_daemon_that_is_started_anew_knows_no_connection_and_takes_new_ones() -> None:
    run = run_pinged(RECONNECTING, "{at: 2500ms, host: bob, restart: chitcpd}")
    assert (run / "apps" / "client" / "stdout").read_text() == "ConnectionResetError\nTrue\n"
    assert (run / "hosts" / "bob" / "chitcpd.log").read_text().count("listening on") == 2
    lines = trace(run, "bob")  # of both: the second went on with it
    assert [line["to"] for line in lines if line["event"] == "state"].count("ESTABLISHED") == 2
    assert json.loads((run / "manifest.json").read_text())["apps"]["server"]["restarts"] >= 1


def losses(run: Path, host: str, first: int) -> list[int]:
    """Which of the first segments that a host sent were lost, by number."""
    sent, lost = 0, []
    for line in trace(run, host):
        sent += line["event"] == "sent"
        if line["event"] == "dropped" and line["why"] == "loss":
            lost.append(sent)
    assert sent >= first
    return [number for number in lost if number <= first]


def test_a_seed_loses_the_same_segments_each_time_and_another_one_others() -> None:
    client = "for _ in range(60):\n    ping()\n"
    runs = [run_pinged(client, seed=seed, loss="10%") for seed in (7, 7, 8)]
    lost = [[losses(run, host, 60) for host in ("alice", "bob")] for run in runs]
    assert all(lost[0])
    assert lost[0] == lost[1]
    assert lost[0] != lost[2]


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


def test_an_expression_that_takes_for_ever_is_an_application_that_is_not_ready() -> None:
    backend = LocalBackend()
    many = ("python", "-c", "import signal; print('a' * 60, flush=True); signal.pause()")
    plan = two_hosts(backend, app("waits", run=many, says="^(a+)+b$", timeout=1.0))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        assert not backend.wait_ready(plan, plan.apps[0])


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


def test_up_makes_whole_what_a_killed_controller_has_left(state: Path) -> None:
    with a_run_that_waits(state) as controller:
        controller.kill()
    assert run_testbed("up", "waiting.yaml", "--backend", "local").returncode == 0
    assert run_testbed("gc").stdout == "nothing was left behind\n"
    assert run_testbed("down", "waiting").returncode == 0
    assert_nothing_is_left(state)


def test_up_begins_again_where_a_killed_controller_had_only_begun(state: Path) -> None:
    Path("waiting.yaml").write_text(WAITING)
    (state / "local" / "waiting").mkdir(parents=True)
    assert run_testbed("up", "waiting.yaml", "--backend", "local").returncode == 0
    assert run_testbed("down", "waiting").returncode == 0
    assert_nothing_is_left(state)


def test_up_ends_daemons_that_a_killed_controller_could_not_record(state: Path) -> None:
    Path("waiting.yaml").write_text(WAITING)
    assert run_testbed("up", "waiting.yaml", "--backend", "local").returncode == 0
    record = state / "local" / "waiting" / "lab.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"whole": False, "entries": []}))
    unrecorded = running(state)
    again = run_testbed("up", "waiting.yaml", "--backend", "local")
    assert again.returncode == 0, again.stderr
    assert not set(unrecorded).intersection(running(state))
    assert run_testbed("down", "waiting").returncode == 0
    assert_nothing_is_left(state)


def test_a_lab_whose_record_was_never_written_goes_too(state: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    backend.up(plan, ignore, stays=False)
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


def test_a_capture_of_the_wire_goes_on_when_the_lab_has_changed(tmp_path: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan, stays=True) as built:
        if built.notes:
            pytest.skip(built.notes[0])
        plan = changed(backend, plan, TWO_HOSTS | {"links": [LINK, LINK | {"name": "other"}]})
        for wanted in (plan, dataclasses.replace(plan, capture_wire=False)):
            change = backend.change(wanted, ignore)
            assert change is not None
            assert change.notes == []
            captures = list(backend.lab(plan.lab).of("capture"))
            assert [entry.state for entry in captures] == ["running"] * wanted.capture_wire
        shown = b"".join(backend.recording(plan.lab, "alice", "wire", follow=False))
        backend.collect(plan, tmp_path)
    collected = tmp_path / "hosts" / "alice" / "wire.pcap"
    captured = [packet[IP].dst for packet in rdpcap(str(collected))]
    first, other = plan.node("bob").interfaces
    assert captured.index(first.address) < captured.index(other.address)  # of the second link, after the change
    assert shown == collected.read_bytes()


LIMITED = """
name: limited
hosts: {alice: {}, bob: {}}
links: [{endpoints: [alice, bob]}]
apps:
  asks: {host: alice, run: [python, -c, "import resource as r; print(r.getrlimit(r.RLIMIT_DATA))"], expect: {exit: 0}}
"""


def test_an_application_has_no_more_memory_than_its_user_may_have() -> None:
    Path("limited.yaml").write_text(LIMITED)
    command = ["prlimit", f"--data={2**28}", *TESTBED, "run", "limited.yaml", "--backend", "local"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    asks = Path("runs/limited/latest/apps/asks")
    assert (asks / "stdout").read_text() == f"({2**28}, {2**28})\n"
    assert (asks / "stderr").read_text() == ""


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


def test_lines_are_told_whole_but_for_very_long_ones() -> None:
    backend = LocalBackend()
    plan = two_hosts(
        backend, app("ends", run=("python", "-c", "print(('x' * 99 + '\\n') * 1000 + 'y' * 100000, end='')"))
    )
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        next_exit(backend, plan)
        said = [line for _, line in backend.logs(plan.lab, ("ends",), follow=False)]
    assert said[:1000] == ["x" * 99] * 1000
    assert list(map(len, said[1000:])) == [1 << 16, 100_000 - (1 << 16)]


def test_special_files_of_an_application_do_not_stop_the_collecting(tmp_path: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend, app("ends", run=("sh", "-c", "mkfifo pipe; ln -s nowhere link; mkdir d; echo x >d/file")))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        next_exit(backend, plan)
        backend.collect(plan, tmp_path)
    files = tmp_path / "apps" / "ends" / "files"
    assert sorted(path.name for path in files.rglob("*")) == ["d", "file", "link"]


def test_a_file_that_can_not_be_read_is_told_and_all_else_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: os.PathLike[str], target: str, **_: object) -> None:
        if Path(source).name == "secret":
            raise PermissionError(13, "Permission denied", os.fspath(source))
        Path(target).write_bytes(Path(source).read_bytes())

    backend = LocalBackend()
    plan = two_hosts(backend, app("ends", run=("sh", "-c", "echo x >secret; echo y >told")))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        next_exit(backend, plan)
        monkeypatch.setattr(shutil, "copyfile", copy)
        (missing,) = backend.collect(plan, tmp_path)
    assert missing.startswith("apps/ends/files/secret could not be collected: [Errno 13] Permission denied")
    assert [path.name for path in (tmp_path / "apps" / "ends" / "files").iterdir()] == ["told"]
    assert (tmp_path / "hosts" / "bob" / "trace.jsonl").is_file()


def test_a_state_directory_with_too_long_a_path_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    backend = LocalBackend()
    with pytest.raises(Unavailable, match="longer path than the 107 bytes") as refused:
        backend.up(two_hosts(backend), ignore, stays=False)
    assert "XDG_RUNTIME_DIR" in refused.value.remedy
    assert backend.labs() == []


def test_a_subnet_that_is_not_loopback_is_refused() -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    plan = dataclasses.replace(plan, links=(dataclasses.replace(plan.links[0], subnet="10.9.0.0/29"),))
    with pytest.raises(Unavailable, match=r"10\.9\.0\.0/29") as refused:
        backend.up(plan, ignore, stays=False)
    assert "--backend docker" in refused.value.remedy


def test_another_process_sees_how_an_application_ended() -> None:
    backend = LocalBackend()
    plan = two_hosts(backend, app("ends"))
    with up(backend, plan):
        backend.start(plan, plan.apps[0])
        next_exit(backend, plan)
        assert items(LocalBackend(), plan, "app")["ends"].state == "exited 3"


def test_doctor_really_tries_this_machine() -> None:
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
        backend.up(two_hosts(backend, implementation=source), ignore, stays=False)
    assert refused.value.remedy == "Mend what the log complains of, then try again."


def test_a_lab_whose_spawner_was_killed_goes_on_and_can_be_taken_down(state: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan):
        daemons = {entry.known for entry in backend.lab(plan.lab).of("host")}
        (spawner,) = set(running(state)) - daemons - {entry.known for entry in backend.lab(plan.lab).of("capture")}
        processes.end([spawner], grace=0)
        assert {host.state for host in items(backend, plan, "host").values()} == {"running"}
        with pytest.raises(Unavailable, match="chitcpd of alice can't be started") as refused:
            backend.deed(plan.lab, "alice", "restart")
        assert refused.value.remedy
    assert running(state) == []


def test_a_change_of_a_daemon_that_does_not_answer_is_refused(state: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan, stays=True):
        (state / "local" / plan.lab / "alice.sock.control").unlink()
        slower = changed(backend, plan, TWO_HOSTS | {"links": [LINK | {"delay": "9ms"}]})
        with pytest.raises(Unavailable, match="chitcpd of alice does not answer"):
            backend.change(slower, ignore)


def test_a_capture_of_the_wire_has_one_beginning_whatever_changes(state: Path, tmp_path: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan, stays=True) as built:
        if built.notes:
            pytest.skip(built.notes[0])
        backend.change(changed(backend, plan, TWO_HOSTS | {"links": [LINK | {"delay": "30ms"}]}), ignore)
        more = {"hosts": TWO_HOSTS["hosts"] | {"carol": {}}, "links": [LINK, {"endpoints": ["bob", "carol"]}]}
        wanted = changed(backend, plan, TWO_HOSTS | more)
        backend.change(wanted, ignore)
        backend.collect(wanted, tmp_path)
    ends = {packet[IP].src for packet in rdpcap(str(tmp_path / "hosts" / "bob" / "wire.pcap"))}
    assert ends
    assert ends <= {end.address for node in wanted.nodes for end in node.interfaces}
    assert running(state) == []


def test_a_capture_of_the_wire_that_has_ended_is_started_again() -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan, stays=True) as built:
        if built.notes:
            pytest.skip(built.notes[0])
        processes.end([entry.known for entry in backend.lab(plan.lab).of("capture")], grace=0)
        alice = plan.node("alice")
        reshape(backend, plan, Shape(loss=0.5), "alice")
        again = backend.change(changed(backend, plan, TWO_HOSTS), ignore)
        assert again is not None
        assert backend.now(plan.lab, alice, alice.interfaces[0]).shape == alice.interfaces[0].shape
        assert not again.notes
        assert [entry.state for entry in backend.lab(plan.lab).of("capture")] == ["running"]
        assert backend.change(changed(backend, plan, TWO_HOSTS), ignore) is None


def test_a_lab_of_which_a_daemon_stands_still_is_not_said_to_be_up(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = LocalBackend()
    topology = Topology.model_validate(TWO_HOSTS)
    monkeypatch.setattr(backends, "FACTORIES", {"local": lambda: backend})
    monkeypatch.setattr(ctl, "request", partial(ctl.request, timeout=0.2))
    lab.up(topology, backend, lab="stands-still", report=ignore)
    try:
        backend.deed("stands-still", "bob", "pause")
        with pytest.raises(Unavailable, match="chitcpd of bob does not answer") as refused:
            lab.up(topology, backend, lab="stands-still", report=ignore)
        assert "testbed down stands-still" in refused.value.remedy
    finally:
        backend.down("stands-still", ignore)


def test_a_host_with_a_tcp_of_its_own_is_left_alone_too() -> None:
    backend = LocalBackend()
    source = b"from chitcpd.tcp.connection import Connection\n\nclass Mine(Connection): ...\n"
    plan = two_hosts(backend, implementation=source)
    with up(backend, plan, stays=True):
        assert backend.change(plan, ignore) is None
        other = dataclasses.replace(plan.node("bob"), implementation=source + b"# other\n")
        assert backend.change(dataclasses.replace(plan, hosts=(plan.node("alice"), other)), ignore) is not None


def test_a_change_that_fails_leaves_a_lab_that_can_be_taken_down(state: Path) -> None:
    backend = LocalBackend()
    plan = two_hosts(backend)
    with up(backend, plan, stays=True):
        bob = dataclasses.replace(plan.node("bob"), implementation=b"def (")
        with pytest.raises(Unavailable, match="chitcpd of bob ended"):
            backend.change(dataclasses.replace(plan, hosts=(plan.node("alice"), bob)), ignore)
        until(lambda: items(backend, plan, "host")["bob"].state == "exited 2")  # its end is told a moment later
        assert backend.change(plan, ignore) is not None  # and that can be made right again
        assert {host.state for host in items(backend, plan, "host").values()} == {"running"}
    assert running(state) == []


def test_of_what_threads_record_at_the_same_time_nothing_is_lost(tmp_path: Path) -> None:
    lab = LocalLab(tmp_path)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for number in range(4):
                for round_ in range(200):
                    pool.submit(lab.put, Entry("app", f"{number}-{round_}", []))
                    pool.submit(lab.put, Entry("host", f"{number}", []))
                    pool.submit(lab.drop, "capture")
    finally:
        sys.setswitchinterval(switch)
    assert len({entry.name for entry in lab.of("app")}) == 800
    assert sorted(entry.name for entry in lab.of("host")) == ["0", "1", "2", "3"]
