"""Labs in virtual time: the same files each time, the same applications, events, checks; what they refuse."""

from __future__ import annotations

import filecmp
import gc
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import rdpcap

from testbed import topology, traces
from testbed.backends import sim_apps
from testbed.cli import main
from testbed.report import Report
from tests.testbed.conftest import PROJECT
from tests.testbed.schemas import faults
from tests.testbed.test_local import TESTBED, run_testbed

MINE = "from chitcpd.tcp.connection import Connection\n\nclass Mine(Connection): ...\n"

# Two hosts, and what they do.
PAIR = """
name: pair
seed: 5
hosts: {alice: {}, bob: {}}
links: [{endpoints: [alice, bob], delay: 10ms, rate: 8mbit, queue: 50pkt}]
apps:
  server:
    host: bob
    run: [python, -m, chisocket.apps.file, serve, --port, "7000"]
    files: {payload.bin: {random: 500kB}}
    ready: {listening: 7000}
    RESTART
  client:
    host: alice
    run: [python, -m, chisocket.apps.file, fetch, "bob:7000", payload.bin]
    needs: [server]
    expect: {exit: 0}
    timeout: 30s
EVENTS
"""

# All that has to do with chance, names, threads and times.
EVERYTHING = """
name: everything
seed: 3
hosts:
  alice: {tcp: {keep_alive: 1s, keep_alive_interval: 1s}}
  bob: {}
  carol: {tcp: {implementation: ./mine.py}}
  dave: {tcp: {profile: classic}}
routers: {r1: {}}
links:
  - {endpoints: [alice, r1], delay: 20ms, rate: 4mbit, queue: 20pkt, loss: 1%, jitter: 3ms}
  - {endpoints: [r1, bob], delay: 5ms, corrupt: 1%, duplicate: 1%, reorder: 1%, "bob->r1": {loss: 2%}}
  - {name: lan, endpoints: [r1, carol, dave], delay: 1ms}
apps:
  server:
    host: bob
    run: [python, -m, chisocket.apps.file, serve, --port, "7000"]
    files: {payload.bin: {random: 500kB}}
    ready: {listening: 7000}
    restart: 3
  echo: {host: carol, run: [python, -m, chisocket.apps.echo, serve], ready: {output: "^echo: echoing on port 7$"}}
  hello:
    host: dave
    run: [python, -m, chisocket.apps.echo, send, "carol:7", hi, there]
    needs: [echo]
    expect: {exit: 0}
  client:
    host: alice
    run: &fetch [python, -m, chisocket.apps.file, fetch, "bob:7000", payload.bin]
    needs: [server]
    expect: {exit: 0}
    restart: 5
    timeout: 2min
  other: {host: dave, run: *fetch, needs: [server], expect: {exit: 0}, restart: 5, timeout: 2min}
  ended: {host: carol, run: *fetch, needs: [server], expect: {exit: 143}}
events:
  - {at: 200ms, app: ended, kill: SIGTERM}
  - {at: 300ms, link: r1-bob, down: 200ms}
  - {at: 600ms, host: bob, restart: chitcpd}
  - {at: 1200ms, host: bob, pause: 300ms}
  - {at: 1700ms, link: alice-r1, set: {rate: 8mbit, loss: 0%}, for: 200ms}
  - {at: 2s, partition: [[alice], [bob]], for: 200ms}
checks: [{integrity: client}, {integrity: other}, {retransmissions: {app: client, max: 1000}}]
"""


INSTANT = """
name: instant
hosts: {alice: {}, bob: {}}
links: [{endpoints: [alice, bob]}]
apps:
  server:
    host: bob
    run: [python, -m, chisocket.apps.file, serve, --port, "7000"]
    files: {payload.bin: {random: 100kB}}
    ready: {listening: 7000}
  client:
    host: alice
    run: [python, -m, chisocket.apps.file, fetch, "bob:7000", payload.bin]
    needs: [server]
    expect: {exit: 0}
checks: [{integrity: client}, {goodput: {app: client, min: 1mbit}}]
"""


@pytest.fixture(autouse=True)
def here(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; the state directory is this test's."""
    del own_state
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    return tmp_path


def pair(events: str = "", restart: str = "", /, **changes: tuple[str, str]) -> str:
    """PAIR with these events and changes."""
    text = PAIR.replace("EVENTS", f"events:\n{events}" if events else "").replace("RESTART", restart)
    for found, put in changes.values():
        assert found in text
        text = text.replace(found, put)
    return text


def simulate(text: str, *arguments: str, status: int = 0) -> Path:
    """Run this topology in this process; the run folder."""
    Path("lab.yaml").write_text(text)
    name = re.search("^name: (.*)$", text, re.MULTILINE)
    assert name is not None
    assert main(["run", "lab.yaml", "--backend", "sim", *arguments]) == status
    return Path("runs", name[1], "latest").resolve()


def manifest(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return read


def events(folder: Path, host: str, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "hosts" / host / "trace.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def differing(one: Path, other: Path) -> list[str]:
    """Files that are not the same in both folders."""
    both = sorted(files(one) | files(other))
    return filecmp.cmpfiles(one, other, both, shallow=False)[1] + filecmp.cmpfiles(one, other, both)[2]


def test_the_same_seed_gives_the_same_bytes_in_every_file(here: Path) -> None:
    """In two processes, from two directories, whatever Python makes of hashes."""
    folders = []
    for number in ("1", "2"):
        there = here / f"of{number}"
        there.mkdir()
        (there / "everything.yaml").write_text(EVERYTHING)
        (there / "mine.py").write_text(MINE)
        command = [*TESTBED, "run", "everything.yaml", "--backend", "sim"]
        own = {**os.environ, "PYTHONHASHSEED": number, "TZ": f"UTC{number}", "COLUMNS": f"{number}00"}
        ran = subprocess.run(command, cwd=there, env=own, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        folders.append((there / "runs" / "everything" / "latest").resolve())
    one, other = folders
    assert differing(one, other) == []
    assert {"manifest.json", "topology.yaml", "hosts/r1/segments.pcap", "apps/server/stderr"} < files(one)
    assert all(each["done"] is not None for each in manifest(one)["events"])
    assert manifest(one)["apps"]["server"]["restarts"] == 1


def test_another_seed_gives_another_run() -> None:
    text = pair(lossy=("queue: 50pkt", "queue: 50pkt, loss: 3%"))
    one, again, other = (simulate(text, "--seed", seed) for seed in ("1", "1", "2"))
    assert differing(one, again) == []
    assert "hosts/bob/trace.jsonl" in differing(one, other)
    assert manifest(one)["run_id"] == "seed-1"


SIMULATED = [
    path
    for path in sorted((PROJECT / "topologies").glob("*.yaml"))
    if all(sim_apps.module_of(app.run) for app in topology.load(path).apps.values())
]


@pytest.mark.parametrize("path", SIMULATED, ids=lambda path: path.stem)
def test_a_topology_that_is_shipped(path: Path) -> None:
    """Those with no other applications than those of chisocket: the same file, the same verdict."""
    assert main(["run", str(path), "--backend", "sim"]) == 0
    written = manifest(Path("runs", path.stem, "latest"))
    assert faults("manifest", written) == []
    assert {link["mechanism"]["all_else"] for link in written["links"]} == {"sim"}
    assert written["backend"]["name"] == "sim"
    assert written["probes"] == []


def test_there_are_such_topologies() -> None:
    assert len(SIMULATED) >= 10


def test_the_run_folder_says_what_a_simulation_has_not() -> None:
    folder = simulate(pair())
    assert manifest(folder)["notes"] == ["no capture of the wire: a simulation has none"]
    assert not (folder / "hosts/alice/wire.pcap").exists()
    segments = rdpcap(str(folder / "hosts" / "alice" / "segments.pcap"))
    assert [str(one[TCP].flags) for one in segments[:3]] == ["S", "SA", "A"]
    assert segments[0][IP].dst == "10.213.0.3"
    assert float(segments[0].time) == 0.0
    assert float(segments[1].time) == pytest.approx(0.02, abs=0.001)  # the round trip
    assert "virtual time" in (folder / "hosts/alice/chitcpd.log").read_text()


def test_where_nothing_takes_time(capsys: pytest.CaptureFixture[str]) -> None:
    """All happens in one instant, and yet in an order; more data than that was never fast enough."""
    folder = simulate(INSTANT)
    said = capsys.readouterr().out
    assert "note: no link has a delay or a rate" in said
    assert "client: fetched payload.bin: 100000 bytes in no time, sha256 " in said
    assert re.search(r"^pass goodput client: \d+ bytes in no time, expected at least 1 mbit$", said, re.MULTILINE)
    report = Report(folder).summary()
    assert report["segments"] == sum(len(events(folder, host, "sent")) for host in ("alice", "bob"))
    assert report["bytes"] >= 100_000
    assert report["retransmissions"] == 0


def test_virtual_time_takes_none() -> None:
    """Minutes of a link that is down."""
    down = "  - {at: 100ms, link: alice-bob, down: 5min}"
    began = time.monotonic()
    folder = simulate(pair(down, patient=("timeout: 30s", "timeout: 60min")))
    assert time.monotonic() - began < 20
    assert manifest(folder)["apps"]["client"]["seconds"] > 300
    assert manifest(folder)["checks"][0]["ok"]


def test_an_application_that_is_late_is_stopped() -> None:
    folder = simulate(pair("  - {at: 100ms, link: alice-bob, down: true}"), status=1)
    client = manifest(folder)["apps"]["client"]
    assert (client["ended"], client["status"]) == ("timed out", 143)
    assert 30 <= client["seconds"] < 33


def test_what_applications_write_is_what_they_write_elsewhere() -> None:
    """But for times, rates and ports."""
    text = pair().replace("10ms, rate: 8mbit, queue: 50pkt", "1ms")
    text += """  asked: {host: alice, run: [python, -m, chisocket.apps.echo, send, "bob:9", hello], expect: {exit: 1}}
  usage: {host: alice, run: [python, -m, chisocket.apps.file, fetch], expect: {exit: 2}}
  lost: {host: alice, run: [python, -m, chisocket.apps.file, push, "carol:1", payload.bin], expect: {exit: 1},
         files: {payload.bin: {random: 1kB}}}
  pushed: {host: alice, run: [python, -m, chisocket.apps.file, push, "bob:7000", other.bin], expect: {exit: 0},
           files: {other.bin: {random: 100kB}}, needs: [server]}
"""
    simulated = simulate(text, "--runs", "simulated").parents[1] / "pair"
    simulated = Path("simulated/pair/latest")
    ran = run_testbed("run", "lab.yaml", "--backend", "local", "--runs", "real")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    real = Path("real/pair/latest")

    def said(folder: Path) -> dict[str, list[str]]:
        paths = sorted(folder.glob("apps/*/std*"))
        return {str(path.relative_to(folder)): sorted(masked(path.read_text())) for path in paths}

    def masked(text: str) -> list[str]:
        return re.sub(r"(?<=sha256 )\w+|[\d.]+(?= [sM(])|(?<=\()[\d.]+|127\.[\d.]+|10\.[\d.]+", "#", text).splitlines()

    assert said(simulated) == said(real)
    assert "is a server running there?" in said(simulated)["apps/asked/stderr"][0]


def test_what_a_link_does_to_the_nth_segment_it_does_everywhere() -> None:
    """The same seed loses the same segments, counted as they enter the link, on local and here."""
    text = pair(lossy=("rate: 8mbit, queue: 50pkt", "loss: 4%"))
    simulated = simulate(text)
    ran = run_testbed("run", "lab.yaml", "--backend", "local", "--runs", "real")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    real = Path("real/pair/latest")
    for host in ("alice", "bob"):
        lost = [fate(simulated, host), fate(real, host)]
        both = min(map(len, lost))
        assert both > 50
        assert lost[0][:both] == lost[1][:both]
        assert sum(lost[0][:both]) > 0


def fate(folder: Path, host: str) -> list[bool]:
    """Of each segment that a host has sent, whether it was lost."""
    sent: list[tuple[Any, ...]] = []
    lost: set[int] = set()
    for line in (folder / "hosts" / host / "trace.jsonl").read_text().splitlines():
        event = json.loads(line)
        key = tuple(event.get(name) for name in ("flags", "seq", "len", "ack"))
        if event["event"] == "sent":
            sent.append(key)
        elif event["event"] == "dropped" and event["why"] == "loss":  # behind all that were sent together
            lost.add(max(at for at, one in enumerate(sent) if one == key))
    return [at in lost for at in range(len(sent))]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_over_a_link_that_loses_nothing_but_data_each_retransmission_is_needed(seed: str) -> None:
    """Also where a retransmission and new data leave at one moment, and one SACK tells of both."""
    lossy = pair(lossy=("delay: 10ms, rate: 8mbit, queue: 50pkt", 'delay: 10ms, "bob->alice": {loss: 5%}'))
    folder = simulate(lossy, "--seed", seed)
    lost = [event for event in events(folder, "bob", "dropped") if event["len"]]
    assert traces.retransmissions(traces.read(folder / "hosts/bob/trace.jsonl")) == len(lost) > 5


# ---- events


def test_a_daemon_that_is_killed() -> None:
    """Who has a connection with it learns that it is gone, and so does who wants one."""
    folder = simulate(
        pair(
            "  - {at: 100ms, host: bob, kill: chitcpd}",
            "expect: {exit: 1}",
            alive=("alice: {}", "alice: {tcp: {keep_alive: 1s, keep_alive_interval: 1s}}"),
            again=("expect: {exit: 0}", "expect: {exit: 0}\n    restart: 1"),
        ),
        status=1,
    )
    assert manifest(folder)["apps"]["client"]["status"] == 1
    first, last = (folder / "apps/client/stderr").read_text().splitlines()
    assert "broke (Connection timed out)" in first
    assert "can't connect to bob:7000 (No route to host)" in last
    assert {event["why"] for event in events(folder, "alice", "dropped")} == {"unreachable"}
    assert "Invalid argument" in (folder / "apps/server/stderr").read_text()  # of accept


def test_a_daemon_that_stands_still() -> None:
    folder = simulate(pair("  - {at: 100ms, host: bob, pause: 2s}"))
    assert manifest(folder)["apps"]["client"]["seconds"] > 2
    times = [event["t"] for event in events(folder, "bob", "sent")]
    assert not [t for t in times if 0.1 < t < 2.1]
    assert [t for t in times if t >= 2.1]


def test_an_application_that_gets_a_signal() -> None:
    text = pair("  - {at: 100ms, app: client, kill: SIGKILL}\n  - {at: 200ms, app: server, kill: SIGINT}")
    folder = simulate(text, status=1)
    apps = manifest(folder)["apps"]
    assert (apps["client"]["status"], apps["client"]["seconds"]) == (137, 0.1)
    assert apps["server"]["status"] == 0  # it takes SIGINT for its end


def test_what_was_written_before_a_kill_is_kept() -> None:
    folder = simulate(pair("  - {at: 400ms, app: client, kill: SIGKILL}"), status=1)
    (part,) = (folder / "apps/client/files").iterdir()
    assert 0 < part.stat().st_size < 500_000
    sent = (folder / "apps/server/files/payload.bin").read_bytes()
    assert sent.startswith(part.read_bytes())


def test_one_that_is_killed_while_it_connects_sends_no_more() -> None:
    later = '  later: {host: alice, run: [python, -m, chisocket.apps.echo, send, "bob:1", hi], expect: {exit: 1}}\n'
    down = "  - {at: 0s, link: alice-bob, down: true}\n  - {at: 10s, app: client, kill: SIGKILL}"
    folder = simulate(pair(down, other=("timeout: 30s\n", f"timeout: 30s\n{later}")), status=1)
    times: dict[str, list[int]] = {port: [] for port in ("7000", "1")}
    for event in events(folder, "alice", "sent"):
        times[event["peer"].rpartition(":")[2]].append(round(event["t"]))
    assert times["7000"] == [0, 1, 3, 7]
    assert times["1"][:5] == [0, 1, 3, 7, 15]


def test_a_listener_is_waited_for_in_vain() -> None:
    folder = simulate(
        pair(other=("ready: {listening: 7000}", "ready: {listening: 7001}, timeout: 5s")).replace(
            ", timeout: 5s", "\n    timeout: 5s"
        ),
        status=1,
    )
    assert manifest(folder)["failure"].startswith("server did not listen on port 7001 of bob within 5 s")
    assert manifest(folder)["seconds"]["run"] >= 5


# ---- somebody's own TCP


def own_tcp(body: str, status: int = 0, **changes: tuple[str, str]) -> Path:
    Path("mine.py").write_text(f"{MINE.replace(': ...', ':')}{body}")
    return simulate(
        pair(own=("hosts: {alice: {}", "hosts: {alice: {tcp: {implementation: ./mine.py}}"), **changes), status=status
    )


def test_a_tcp_that_raises_is_told_of_in_its_hosts_log() -> None:
    folder = own_tcp("    def segment_arrives(self, seg, now):\n        raise LookupError('no')\n", status=1)
    log = (folder / "hosts/alice/chitcpd.log").read_text()
    assert "fault in the TCP" in log
    assert "LookupError: no" in log
    assert str(PROJECT) not in log  # where it is installed is nobody's business
    assert "fault" not in (folder / "hosts/bob/chitcpd.log").read_text()
    assert manifest(folder)["inputs"]["./mine.py"]["kept"]


def test_a_tcp_in_which_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that is always due: the run is cut short, and says why."""
    monkeypatch.setattr("chitcpd.sim._MOST_AT_ONCE", 10_000)
    folder = own_tcp("    def next_deadline(self):\n        return 0.0\n", status=1)
    assert "events without any time between them" in manifest(folder)["failure"]
    assert manifest(folder)["checks"] == []


def test_a_tcp_that_can_not_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("from chitcpd.tcp.connection import Connection\n\nimport nothing\n")
    Path("lab.yaml").write_text(pair(own=("hosts: {alice: {}", "hosts: {alice: {tcp: {implementation: ./mine.py}}")))
    assert main(["run", "lab.yaml", "--backend", "sim"]) == 3
    said = capsys.readouterr().err
    assert "chitcpd of alice did not start: implementation.py can't be loaded: line 3: ModuleNotFoundError" in said
    assert_nothing_is_left()


def test_two_hosts_have_two_modules() -> None:
    """A file with a variable of its own: in a lab of processes each host has it for itself."""
    text = pair(
        own=("hosts: {alice: {}, bob: {}}", "hosts: {alice: &own {tcp: {implementation: ./mine.py}}, bob: *own}")
    )
    Path("mine.py").write_text(
        "from chitcpd.tcp.connection import Connection\n\nMADE = []\n\n"
        "class Mine(Connection):\n    def open(self, now, *, active):\n        MADE.append(active)\n"
        "        assert len(set(MADE)) == 1\n        super().open(now, active=active)\n"
    )
    simulate(text)


# ---- what it refuses


def assert_nothing_is_left() -> None:
    assert not Path("runs").exists()
    state = Path(os.environ["XDG_RUNTIME_DIR"], "chitcp")
    assert list((state / "sim").iterdir()) == []
    assert list((state / "locks").iterdir()) == []


@pytest.mark.parametrize(
    ("found", "put", "said"),
    [
        ("[python, -m, chisocket.apps.file, fetch, ", "[curl, ", "no other program, but client runs curl bob:7000"),
        ("-m, chisocket.apps.file, fetch", "-m, http.server", "but client runs python -m http.server"),
        (
            "hosts: {alice: {}",
            "hosts: {alice: {image: mine}",
            "host alice has the image mine, and a simulation runs none",
        ),
        ("delay: 10ms", "delay: 10ms, underlay: {loss: 1%}", "a simulation has none"),
        (
            "apps:",
            "events: [{at: 1s, link: alice-bob, set: {underlay: {loss: 1%}}}]\napps:",
            "a simulation has none",
        ),
    ],
)
def test_what_it_has_not_is_refused(found: str, put: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lab.yaml").write_text(pair(other=(found, put)))
    assert main(["run", "lab.yaml", "--backend", "sim"]) == 3
    told = capsys.readouterr().err
    assert said in told
    assert "--backend" in told
    assert_nothing_is_left()


def test_a_lab_does_not_stay() -> None:
    Path("lab.yaml").write_text(pair())
    ran = run_testbed("up", "lab.yaml", "--backend", "sim")
    assert ran.returncode == 3
    assert "a simulation lives only while `testbed run` does" in ran.stderr
    assert_nothing_is_left()


def test_it_is_never_taken_without_being_asked_for() -> None:
    Path("lab.yaml").write_text(pair())
    ran = run_testbed("run", "lab.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "backend local" in ran.stdout


@pytest.mark.parametrize("method", ["open(self, now, *, active)", "send(self, data, now)"])
def test_a_tcp_that_never_returns_costs_a_connection(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the daemon; `send` is called in a thread of the application."""
    monkeypatch.setattr("testbed.backends.sim_watch._TICK", 0.2)
    monkeypatch.setattr("testbed.backends.sim_watch._BUSY", 0.1)
    folder = own_tcp(f"    def {method}:\n        while True: pass\n", status=1)
    log = (folder / "hosts/alice/chitcpd.log").read_text()
    assert "fault in the TCP" in log
    assert "EndlessLoop" in log
    assert 'File "implementation.py", line ' in log
    assert manifest(folder)["apps"]["client"]["status"] == 1
    assert any(note.startswith("the TCP of alice has a fault: line ") for note in manifest(folder)["notes"])


ENDLESS = "while True: pass"
STUBBORN = """while True:
            try:
                while True: os.getpid()
            except BaseException: pass"""


@pytest.mark.parametrize(
    ("method", "loop"),
    [
        ("open(self, now, *, active)", ENDLESS),
        ("send(self, data, now)", ENDLESS),
        ("segment_arrives(self, seg, now)", ENDLESS),
        ("open(self, now, *, active)", STUBBORN),
    ],
)
def test_an_interrupt_ends_a_tcp_that_never_returns(method: str, loop: str) -> None:
    """It comes in the midst of the endless call, as Ctrl-C does: the TCP sends the signal itself."""
    body = f"        import os, signal\n        os.kill(os.getpid(), signal.SIGINT)\n        {loop}\n"
    Path("mine.py").write_text(f"{MINE.replace(': ...', ':')}    def {method}:\n{body}")
    Path("lab.yaml").write_text(pair(own=("hosts: {alice: {}", "hosts: {alice: {tcp: {implementation: ./mine.py}}")))
    ran = run_testbed("run", "lab.yaml", "--backend", "sim")
    said = ran.stdout + ran.stderr
    assert ran.returncode == 130, said
    assert "interrupted by SIGINT" in said
    folder = Path("runs/pair/latest")
    assert manifest(folder)["verdict"] == "interrupted"
    assert (folder / "hosts/bob/trace.jsonl").exists()
    assert list(Path(os.environ["XDG_RUNTIME_DIR"], "chitcp", "sim").iterdir()) == []


def test_what_a_killed_run_has_left_is_garbage(capsys: pytest.CaptureFixture[str]) -> None:
    left = Path(os.environ["XDG_RUNTIME_DIR"], "chitcp", "sim", "pair", "hosts")
    left.mkdir(parents=True)
    Path("lab.yaml").write_text(pair())
    assert main(["run", "lab.yaml", "--backend", "sim"]) == 3  # and says what to do about it
    assert "testbed down pair" in capsys.readouterr().err
    assert run_testbed("gc").returncode == 0
    assert not left.parent.exists()


# ---- applications and threads


@pytest.mark.parametrize("name", sim_apps.names())
def test_every_application_of_chisocket_runs(name: str) -> None:
    folder = simulate(pair(other=('chisocket.apps.file, fetch, "bob:7000", payload.bin', f"{name}, --help")))
    assert (folder / "apps/client/stdout").read_text().startswith(f"usage: python -m {name}")


def test_no_thread_stays_behind() -> None:
    before = threading.active_count()
    simulate(pair("  - {at: 100ms, app: client, kill: SIGKILL}"), status=1)
    assert threading.active_count() == before
    assert Path.cwd() == Path(os.environ["PWD"]) or Path("lab.yaml").exists()


def star(leaves: int) -> str:
    """A hub that gives all leaves a file."""
    hosts = "".join(f"  leaf{n}: {{}}\n" for n in range(leaves))
    links = "".join(f"  - {{endpoints: [hub, leaf{n}], delay: 5ms, rate: 10mbit}}\n" for n in range(leaves))
    rest = "needs: [server], expect: {exit: 0}"
    fetch = "run: [python, -m, chisocket.apps.file, fetch, 'hub:7000', payload.bin]"
    apps = "".join(f"  client{n}: {{host: leaf{n}, {fetch}, {rest}}}\n" for n in range(leaves))
    return (
        f"name: star\nhosts:\n  hub: {{}}\n{hosts}links:\n{links}apps:\n"
        '  server: {host: hub, run: [python, -m, chisocket.apps.file, serve, --port, "7000"],\n'
        "    files: {payload.bin: {random: 5kB}}, ready: {listening: 7000}}\n"
        f"{apps}"
    )


def test_a_star_of_hundreds_of_hosts() -> None:
    began = time.monotonic()
    folder = simulate(star(250))
    print(f"250 hosts: {time.monotonic() - began:.1f} s")
    assert len(manifest(folder)["checks"]) == 250
    assert all(check["ok"] for check in manifest(folder)["checks"])


# ---- applications that are not shipped


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`python -m tests.testbed.applications.odd` can be run, in place of chisocket's."""
    monkeypatch.setattr(sim_apps, "PACKAGE", "tests.testbed.applications")
    sim_apps.names.cache_clear()
    yield
    sim_apps.names.cache_clear()


def run_odd(*words: str, exits: int = 0, status: int = 0, more: str = "") -> Path:
    """The folder of its one application, which ran it with these words."""
    command = ", ".join(["python", "-m", "tests.testbed.applications.odd", *(f'"{word}"' for word in words)])
    text = f"name: odd\nhosts: {{alice: {{}}}}\napps:\n  odd: {{host: alice, run: [{command}], "
    return simulate(f"{text}expect: {{exit: {exits}}}{more}}}\n", status=status) / "apps" / "odd"


@pytest.mark.usefixtures("odd")
def test_its_environment_is_what_the_topology_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of this machine's."""
    monkeypatch.setenv("HOME", "/home/somebody")
    folder = run_odd("environment", more=", env: {B: two, A: one}")
    assert (folder / "stdout").read_text() == "[('A', 'one'), ('B', 'two')] None\n"


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("exits", "7"), 1, "7\n"),  # a text, for sys.exit
        (("exits", "too bad"), 1, "too bad\n"),
        (("returns", "3"), 3, ""),
        (("returns", "None"), 0, ""),
        (("returns", "True"), 1, ""),
        (("returns", "-1"), 255, ""),
        (("returns", "256"), 0, ""),
        (("returns", "text"), 1, "text\n"),
    ],
)
def test_its_status_is_what_python_makes_of_it(words: tuple[str, ...], status: int, said: str) -> None:
    """As of `sys.exit(main())`, which is what `python -m` does."""
    folder = run_odd(*words, exits=status)
    assert (folder / "stderr").read_text() == said
    code = f"import sys; from tests.testbed.applications.odd import main; sys.exit(main({list(words)}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (status, said)


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize(("what", "exits", "head"), [("raises", 1, "Traceback"), ("thread", 0, "Exception in thread")])
def test_what_it_raises_is_on_its_standard_error(what: str, exits: int, head: str) -> None:
    said = (run_odd(what, "no", exits=exits) / "stderr").read_text()
    assert said.startswith(head)
    assert "LookupError: " in said
    assert str(PROJECT) not in said


@pytest.mark.usefixtures("odd")
def test_one_that_waits_for_ever_is_stopped() -> None:
    folder = run_odd("waits", status=1, more=", timeout: 60min")
    ended = json.loads((folder / "exit.json").read_text())
    assert (ended["ended"], ended["seconds"]) == ("timed out", 3600)


@pytest.mark.usefixtures("odd")
def test_what_has_ended_is_forgotten() -> None:
    """A server's threads are as many as its clients ever were."""
    gc.collect()
    run_odd("many", "500")
    gc.collect()
    assert sum(type(each).__name__ == "_AppThread" for each in gc.get_objects()) < 5


def test_a_run_says_that_limits_limit_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    simulate(pair(other=("    timeout: 30s", "    timeout: 30s\n    limits: {memory: 16MiB}")))
    assert "note: limits of client: a simulation limits nothing\n" in capsys.readouterr().out


def test_the_locale_changes_nothing(here: Path) -> None:
    """Neither what an application sends, nor what is written."""
    text = "name: pair\nhosts: {alice: {}, bob: {}}\nlinks: [{endpoints: [alice, bob]}]\napps:\n"
    text += "  echo: {host: bob, run: [python, -m, chisocket.apps.echo, serve], ready: {listening: 7}}\n"
    text += '  send: {host: alice, run: [python, -m, chisocket.apps.echo, send, "bob:7", h\u00e9], needs: [echo], '
    text += "expect: {exit: 0}}\n"
    (here / "lab.yaml").write_text(text, encoding="utf-8")
    folders = []
    for name, own in (("ascii", {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}), ("any", {})):
        command = [*TESTBED, "run", "lab.yaml", "--backend", "sim", "--runs", name]
        ran = subprocess.run(command, env={**os.environ, **own}, capture_output=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        folders.append((here / name / "pair" / "latest").resolve())
    assert differing(*folders) == []
    assert (folders[0] / "apps/send/stdout").read_bytes() == "h\u00e9\n".encode()


def test_a_tcp_in_which_time_stands_still_while_all_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the TCP's fault, not ours."""
    monkeypatch.setattr("chitcpd.sim._MOST_AT_ONCE", 10_000)
    fetch = '[python, -m, chisocket.apps.file, fetch, "bob:7000", payload.bin]'
    late = f"  late: {{host: alice, run: {fetch}, needs: [server]}}\n"
    short = "  short: {host: bob, run: [python, -m, chisocket.apps.echo, serve], expect: {exit: 0}}\n"
    end = "events: [{at: 200ms, app: short, kill: SIGTERM}]\n"
    client = PAIR[PAIR.index("  client:") : PAIR.index("EVENTS")]
    folder = own_tcp(
        "    def next_deadline(self):\n        closes = self.state.name in ('FIN_WAIT_1', 'FIN_WAIT_2', 'TIME_WAIT')\n"
        "        return 0.0 if closes else super().next_deadline()\n",
        status=1,
        other=(client, late + short + end),
    )
    assert "events without any time between them" in manifest(folder)["failure"]
    assert manifest(folder)["verdict"] == "failed: cut short"
