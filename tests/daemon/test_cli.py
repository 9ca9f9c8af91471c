"""The command line: how chitcpd starts, refuses to start and ends, and what `chitcpd ctl` says."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.utils import RawPcapReader

import chitcpd
from chisocket.protocol import chitcpd_pb2 as pb
from chitcpd import cli, ctl
from tests.daemon.application import Application, Conversation, sockaddr_in
from tests.daemon.conftest import PATIENCE, PORT, Daemon, StartDaemon, environment, free_address, running_daemon


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`chitcpd ...`, until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "chitcpd", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment() | variables,
        check=False,
    )


def refusal(*arguments: str, **variables: str) -> tuple[int, str]:
    """(exit status, the last line on stderr) of a chitcpd that does not start; usage may stand before it."""
    done = run(*arguments, **variables)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


Parse = Callable[..., tuple[int | str | None, str]]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Parse:
    """What `refusal` says, of a command line that argparse refuses: no process is needed for that."""

    def parsed(*arguments: str) -> tuple[int | str | None, str]:
        monkeypatch.setattr(sys, "argv", ["chitcpd", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr().err.splitlines()[-1]

    return parsed


class TestStarting:
    def test_it_is_ready_when_it_answers(self, daemon: StartDaemon) -> None:
        one = daemon("--profile", "classic")
        assert one.ask("ping") == {
            "version": chitcpd.__version__,
            "pid": one.process.pid,
            "tcp": "reference",
            "profile": "classic",
            "addresses": [one.address],
            "port": PORT,
        }
        with socket.create_connection((one.address, PORT)):
            pass

    def test_its_socket_is_for_its_user_only(self, daemon: StartDaemon) -> None:
        mode = os.stat(daemon().socket).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600

    def test_a_stale_socket_is_replaced(self, daemon: StartDaemon) -> None:
        address = free_address()
        killed = daemon(address=address)
        killed.process.kill()
        killed.process.wait()
        assert Path(killed.socket).is_socket()
        assert daemon(address=address).ask("ping")["addresses"] == [address]

    def test_several_addresses(self, daemon: StartDaemon) -> None:
        second = free_address()
        one = daemon("--bind", second)
        assert one.ask("ping")["addresses"] == [one.address, second]
        for address in (one.address, second):
            with socket.create_connection((address, PORT)):
                pass

    @pytest.mark.parametrize("how", ["variable", "option", "option over variable"])
    def test_its_port(self, directory: Path, how: str) -> None:
        address, path = free_address(), str(directory / "port.sock")
        option = [] if how == "variable" else ["-p", "23399"]
        variables = {"option": {}, "variable": {"CHITCPD_PORT": "23399"}}.get(how, {"CHITCPD_PORT": "1"})
        command = [sys.executable, "-m", "chitcpd", "--bind", address, *option]
        with subprocess.Popen(command, env=environment() | variables | {"CHITCPD_SOCK": path}) as process:
            try:
                assert ctl.request(path, "ping", {}, wait=PATIENCE)["port"] == 23399
                with socket.create_connection((address, 23399)):
                    pass
            finally:
                process.terminate()
        assert process.returncode == 0

    def test_the_same_seed_gives_the_same_ports(self, daemon: StartDaemon) -> None:
        def ports(one: Daemon) -> list[int]:
            with Application(one.socket) as app:
                return [app.listening(one.address)[1] for _ in range(3)]

        assert ports(daemon("--seed", "7")) == ports(daemon("--seed", "7")) != ports(daemon("--seed", "8"))

    def test_its_version(self) -> None:
        assert run("--version").stdout == f"chitcpd {chitcpd.__version__}\n"


class TestRefusingToStart:
    """One clear sentence. Status 3: something is in the way here; status 2: the command line is wrong."""

    def test_the_port_is_in_use(self, daemon: StartDaemon, directory: Path) -> None:
        one = daemon()
        path = directory / "second.sock"
        assert refusal("--bind", one.address, "-s", str(path)) == (
            3,
            f"chitcpd: {one.address} port {PORT} is in use: is another chitcpd running? End it, or choose -p or --bind",
        )
        assert not path.exists()

    def test_a_daemon_lives_at_the_socket(self, daemon: StartDaemon) -> None:
        one = daemon()
        assert refusal("--bind", free_address(), "-s", one.socket) == (
            3,
            f"chitcpd: another chitcpd answers at {one.socket}; end it, or choose another path with -s",
        )
        assert one.ask("ping")["pid"] == one.process.pid

    def test_a_file_is_at_the_socket(self, directory: Path) -> None:
        path = directory / "file"
        path.write_text("mine")
        assert refusal("--bind", free_address(), "-s", str(path)) == (
            3,
            f"chitcpd: {path} is there and is no socket; choose another with -s",
        )
        assert path.read_text() == "mine"

    def test_no_such_folder_for_the_socket(self, directory: Path) -> None:
        path = directory / "nowhere" / "chitcpd.sock"
        assert refusal("--bind", free_address(), "-s", str(path)) == (
            3,
            f"chitcpd: can't make {path}: No such file or directory; choose another path with -s",
        )

    def test_a_path_that_is_too_long_for_a_socket(self, directory: Path) -> None:
        path = str(directory / ("x" * 120))
        assert refusal("--bind", free_address(), "-s", path) == (
            3,
            f"chitcpd: can't make {path}: AF_UNIX path too long; choose another path with -s",
        )

    def test_an_address_that_is_not_ours(self, directory: Path) -> None:
        assert refusal("--bind", "192.0.2.1", "-s", str(directory / "s")) == (
            3,
            f"chitcpd: can't listen on 192.0.2.1 port {PORT}: Cannot assign requested address; "
            "--bind takes an address of this host",
        )

    @pytest.mark.parametrize("option", ["-c", "--trace"])
    def test_a_file_that_cannot_be_written(self, directory: Path, option: str) -> None:
        path = str(directory / "nowhere" / "file")
        assert refusal("--bind", free_address(), "-s", str(directory / "s"), option, path) == (
            3,
            f"chitcpd: can't write {path}: No such file or directory",
        )

    def test_a_running_daemon_s_files_are_left_alone(self, daemon: StartDaemon, directory: Path) -> None:
        """The same command line a second time: refused, and nothing of the first one's is lost."""
        trace, capture = directory / "kept.jsonl", directory / "kept.pcap"
        files = ["--trace", str(trace), "-c", str(capture)]
        one = daemon(*files)
        with Application(one.socket) as client, Application(one.socket) as server:
            Conversation(client, server, one.address)
            before = trace.read_bytes(), capture.read_bytes()
            assert len(before[0].splitlines()) > 5
            assert refusal("--bind", one.address, "-s", one.socket, *files)[0] == 3
            assert (trace.read_bytes()[: len(before[0])], capture.read_bytes()[: len(before[1])]) == before

    def test_an_address_that_is_none(self, parse: Parse) -> None:
        sentence = "chitcpd: error: argument --bind: 'localhost' is no IP address, like 10.0.0.2"
        assert parse("--bind", "localhost") == (2, sentence)

    @pytest.mark.parametrize("port", ["0", "65536", "-1", "http", ""])
    def test_a_port_that_is_none(self, port: str, parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
        sentence = f"chitcpd: error: argument -p/--port: {port!r} is no port: 1 to 65535"
        assert parse(f"--port={port}") == (2, sentence)
        monkeypatch.setenv("CHITCPD_PORT", port)
        assert parse() == (2, sentence)

    def test_a_profile_that_is_none(self, parse: Parse) -> None:
        status, line = parse("--profile", "ancient")
        assert (status, "choose from" in line) == (2, True)

    def test_a_tcp_that_is_none(self) -> None:
        assert refusal("--tcp", "my_tcp.py") == (2, "chitcpd: --tcp: my_tcp.py: no such file")


class TestSettings:
    def test_they_reach_the_tcp(self, daemon: StartDaemon, directory: Path) -> None:
        trace = directory / "settings.jsonl"
        one = daemon("--trace", str(trace), "--set", "mss=500B", "--set", "sack=off", "--set", "receive_buffer=32KiB")
        with Application(one.socket) as client, Application(one.socket) as server:
            Conversation(client, server, one.address)
        syn = next(line for line in map(json.loads, trace.read_text().splitlines()) if line.get("flags") == "S")
        assert (syn["mss"], syn["wnd"]) == (500, 32768)
        assert "sack_permitted" not in syn
        assert "profile modern mss=500B sack=off receive_buffer=32KiB:" in one.log.read_text()

    def test_they_are_over_those_of_the_profile_and_the_last_one_counts(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--profile", "classic", "--set", "msl=1s", "--set", "msl=2s", "--settings"]
        monkeypatch.setattr(sys, "argv", ["chitcpd", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        cli.main()
        lines = capsys.readouterr().out.splitlines()
        values = {line.split()[0]: line.split()[1] for line in lines[2:]}
        assert (values["msl"], values["mss"], values["congestion"]) == ("2s", "536B", "none")
        assert lines[0] == "Profile classic; --set NAME=VALUE changes a setting:"

    def test_a_narrow_terminal_is_enough(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["chitcpd", "--settings"])
        monkeypatch.setenv("COLUMNS", "60")
        cli.main()
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 60

    def test_the_help_leads_to_them(self) -> None:
        said = " ".join(run("--help").stdout.split())
        assert "--set NAME=VALUE a setting of the TCP over the profile's, like rto_min=1s" in said
        assert "--settings list all settings" in said

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("rto_min", "rto_min: expected NAME=VALUE, like rto_min=200ms; --settings lists them"),
            ("rto-min=1s", "rto-min=1s: unknown setting; did you mean 'rto_min'? `chitcpd --settings` lists them all"),
            ("rto_min=200", "rto_min=200: expected a time in ms, s or min, from 1ms to 1440min, like 200ms"),
            ("rto_min=2min", "found rto_min 120s above rto_max, expected at most 60s, or a larger rto_max"),
            ("=", "=: unknown setting; `chitcpd --settings` lists them all"),
        ],
    )
    def test_what_is_wrong_and_what_to_do(self, text: str, reason: str, parse: Parse) -> None:
        assert parse("--set", text) == (2, f"chitcpd: error: argument --set: {reason}")

    def test_a_tcp_that_makes_no_connection(self, directory: Path) -> None:
        """It is said at the start, not when the first connection is opened."""
        file = directory / "my_tcp.py"
        file.write_text(
            "from chitcpd.tcp.connection import Connection\n\n\n"
            "class Mine(Connection):\n    def __init__(self, *, iss, config):\n        self.iss = iss\n"
        )
        status, line = refusal("--tcp", str(file), "-s", str(directory / "mine.sock"), "--bind", free_address())
        assert status == 2
        assert line.startswith(f"chitcpd: --tcp: {file} can't make a connection: line 5: AttributeError: ")
        assert line.endswith("; begin __init__ with `super().__init__(iss=iss, config=config)`")


class TestEnding:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_in_order(self, daemon: StartDaemon, number: signal.Signals) -> None:
        one = daemon()
        with Application(one.socket) as client, Application(one.socket) as server:
            Conversation(client, server, one.address)
            one.process.send_signal(number)
            assert one.process.wait(PATIENCE) == 0
            assert client.is_closed()
            assert server.is_closed()
        assert not Path(one.socket).exists()

    def test_impatience_changes_nothing(self, daemon: StartDaemon) -> None:
        one = daemon()
        while one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
        assert one.process.returncode == 0
        assert not Path(one.socket).exists()

    def test_with_a_peer_that_does_not_read(self, daemon: StartDaemon) -> None:
        """Its last words have half a second; then it ends all the same."""
        one = daemon()
        with socket.create_connection((one.address, PORT)):
            assert one.end() == 0


class TestFiles:
    def test_a_killed_daemon_loses_nothing_it_had_answered(self, daemon: StartDaemon, directory: Path) -> None:
        trace, capture = directory / "trace.jsonl", directory / "segments.pcap"
        one = daemon("--trace", str(trace), "--capture", str(capture))
        with Application(one.socket) as client, Application(one.socket) as server:
            Conversation(client, server, one.address)
            one.process.kill()
            one.process.wait()
        states = [line["to"] for line in map(json.loads, trace.read_text().splitlines()) if line["event"] == "state"]
        assert sorted(states) == ["ESTABLISHED", "ESTABLISHED", "LISTEN", "SYN_RCVD", "SYN_SENT"]
        with RawPcapReader(str(capture)) as reader:
            segments = [TCP(packet[20:]) for packet, _ in reader]
        assert [str(segment.flags) for segment in segments] == [
            "S",
            "S",
            "SA",
            "SA",
            "A",
            "A",
        ]  # each sent and received
        headers = sum(16 + 20 + 4 * segment.dataofs for segment in segments)  # of a record, of IP, of TCP with options
        assert capture.stat().st_size == 24 + headers  # and nothing is cut off


def on_a_terminal(*arguments: str) -> str:
    """What a command of chitcpd's says to a terminal."""
    ours, its = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        command = [sys.executable, "-m", "chitcpd", *arguments]
        with subprocess.Popen(command, stdout=its, stderr=its, stdin=its, env=environment()) as process:
            os.close(its)
            said = b""
            with suppress(OSError):  # EIO: nobody has the other end any more
                while chunk := terminal.read(4096):
                    said += chunk
            assert process.wait(PATIENCE) == 0, said
    return said.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def asked(directory: Path) -> Iterator[Daemon]:
    """The daemon that refuses requests."""
    with running_daemon(directory) as daemon:
        yield daemon


class TestCtl:
    @pytest.fixture
    def one(self, daemon: StartDaemon) -> Daemon:
        return daemon()

    def ctl(self, one: Daemon, *arguments: str) -> dict[str, object]:
        done = run("ctl", "-s", one.socket, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def test_ping(self, one: Daemon) -> None:
        assert self.ctl(one, "ping")["pid"] == one.process.pid

    def test_sockets(self, one: Daemon) -> None:
        with Application(one.socket) as client, Application(one.socket) as server:
            fresh = client.socket()
            talk = Conversation(client, server, one.address)
            client.send(talk.near, b"hello")
            assert server.recv(talk.far, 1) == b"h"
            answer = self.ctl(one, "sockets")
        assert answer["impairments"] == {}
        described = {sock["sockfd"]: sock for sock in answer["sockets"]}  # type: ignore[attr-defined]
        assert described[fresh] == {"sockfd": fresh, "state": "CLOSED", "local": "*:*"}
        local = f"{one.address}:{talk.port}"
        listener = {"sockfd": talk.listener, "state": "LISTEN", "local": local, "backlog": 5, "waiting": 0}
        assert described[talk.listener] == listener
        near, far = described[talk.near], described[talk.far]
        assert (near["state"], far["state"]) == ("ESTABLISHED", "ESTABLISHED")
        assert (near["peer"], far["peer"]) == (far["local"], near["local"])
        assert (near["snd_nxt"], far["snd_nxt"]) == (far["rcv_nxt"], near["rcv_nxt"])
        assert (near["readable"], far["readable"]) == (0, 4)
        assert (near["counters"]["bytes_sent"], far["counters"]["bytes_received"]) == (5, 5)
        assert near["info"]["congestion"] == "cubic"

    def test_sockets_on_a_terminal(self, one: Daemon) -> None:
        with Application(one.socket) as client, Application(one.socket) as server:
            talk = Conversation(client, server, one.address)
            name = client.good(pb.GETSOCKNAME, sockfd=talk.near).addr
            near = f"{one.address}:{int.from_bytes(name[2:4], 'big')}"
            shown = on_a_terminal("ctl", "-s", one.socket, "sockets")
            as_json = on_a_terminal("ctl", "-s", one.socket, "sockets", "--json")
        heading, *rows = shown.splitlines()
        assert heading.split()[:3] == ["State", "Recv-Q", "Send-Q"]
        assert ["LISTEN", "0", "5", f"{one.address}:{talk.port}", "*:*"] in [row.split() for row in rows]
        [at] = [at for at, row in enumerate(rows) if row.split()[3:] == [near, f"{one.address}:{talk.port}"]]
        assert re.match(r"\t ts sack cubic wscale:5,5 rto:[\d.]+ rtt:[\d.]+/[\d.]+ ", rows[at + 1])
        assert {sock["state"] for sock in json.loads(as_json)["sockets"]} == {"LISTEN", "ESTABLISHED"}

    def test_link(self, one: Daemon) -> None:
        said = self.ctl(one, "link", one.address, "loss=100%", "delay=5ms", "rate=1mbit", "queue=50ms")
        assert (said["loss"], said["delay"], said["rate"]) == (1, 0.005, 1e6)
        with Application(one.socket) as app:
            app.ask(pb.CONNECT, sockfd=app.socket(), addr=sockaddr_in(one.address, 7))
            assert one.ask("sockets")["impairments"] == {one.address: {"loss": 1}}
        shown = self.ctl(one, "link", one.address)
        assert shown.pop("queue_bytes", 0)
        assert shown == {"loss": 1, "delay": 0.005, "rate": 1e6, "counts": {"loss": 1}}
        assert self.ctl(one, "link", one.address, "reset") == {"counts": {"loss": 1}}
        assert one.ask("sockets")["impairments"] == {one.address: {"loss": 1}}  # what was done stays done

    def test_a_link_that_nothing_was_said_of(self, one: Daemon) -> None:
        assert self.ctl(one, "link", "10.0.0.3") == {}

    def test_a_link_to_a_name(
        self, one: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("CHITCP_HOSTS", "alice=10.0.0.2 bob=10.0.0.3")
        assert ctl.main(["-s", one.socket, "link", "bob", "mtu=576", "own=10.0.0.9"]) == 0
        assert ctl.main(["-s", one.socket, "link", "bob"]) == 0
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
            {"mtu": 576, "own": "10.0.0.9"},
            {"mtu": 576, "own": "10.0.0.9"},
        ]
        assert one.ask("link", peer="10.0.0.3") == {"mtu": 576, "own": "10.0.0.9"}

    def test_listening_waits_for_a_listener(self, one: Daemon) -> None:
        with Application(one.socket) as app:
            _, port = app.listening(one.address)
            assert self.ctl(one, "listening", str(port)) == {}
            command = [sys.executable, "-m", "chitcpd", "ctl", "-s", one.socket, "--wait", "10", "listening", "7"]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment()) as waiting:
                fd = app.socket()
                app.good(pb.BIND, sockfd=fd, addr=sockaddr_in(one.address, 7))
                app.good(pb.LISTEN, sockfd=fd, backlog=1)
                assert waiting.wait(PATIENCE) == 0

    def test_listening_gives_up(self, one: Daemon) -> None:
        assert refusal("ctl", "-s", one.socket, "listening", "7") == (
            1,
            "chitcpd ctl: no application listens on port 7",
        )

    @pytest.mark.parametrize("command", ["ping", "serve"])
    def test_ctrl_c(self, directory: Path, command: str) -> None:
        path = str(directory / f"silent-{command}.sock")
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(path)
            silent.listen()
            silent.settimeout(PATIENCE)
            arguments = [sys.executable, "-m", "chitcpd", "ctl", "-s", path, command]
            pipe = subprocess.PIPE
            with subprocess.Popen(arguments, stdin=pipe, stderr=pipe, text=True, env=environment()) as waiting:
                assert waiting.stdin is not None
                waiting.stdin.write('{"command": "ping", "arguments": {}}\n')
                waiting.stdin.flush()
                with silent.accept()[0]:
                    waiting.send_signal(signal.SIGINT)
                    assert waiting.communicate(timeout=PATIENCE)[1] == ""
        assert waiting.returncode == 130

    def test_any_request(self, one: Daemon) -> None:
        assert self.ctl(one, "request", "links", '{"links": []}') == {}
        assert self.ctl(one, "request", "ping", "{}")["pid"] == one.process.pid

    def test_wait_for_a_daemon_that_is_starting(self, directory: Path) -> None:
        path, address = str(directory / "late.sock"), free_address()
        command = [sys.executable, "-m", "chitcpd"]
        with (
            subprocess.Popen([*command, "ctl", "-s", path, "--wait", "10", "ping"], env=environment()) as waiting,
            subprocess.Popen([*command, "-s", path, "--bind", address], env=environment()) as starting,
        ):
            assert waiting.wait(PATIENCE) == 0
            starting.terminate()

    def test_no_daemon(self, directory: Path) -> None:
        path = str(directory / "nobody.sock")
        assert refusal("ctl", "-s", path, "ping") == (
            1,
            f"chitcpd ctl: no chitcpd answers at {path}: is it running?",
        )

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["link", "nobody.invalid"], "no host is known by the name 'nobody.invalid' (CHITCP_HOSTS names none)"),
            (["link", "10.0.0.3", "reset", "loss=1%"], "reset: unknown setting 'reset', expected one of "),
            (["request", "link", '{"peer": "bob"}'], "`peer` must be an IP address"),
            (["link", "10.0.0.3", "loss=5"], "loss=5: expected a share in percent, like 1% or 0.1%"),
            (["link", "10.0.0.3", "loss"], "loss: expected a share in percent, like 1% or 0.1%"),
            (["link", "10.0.0.3", "delay=20"], "delay=20: expected a time with its unit, like 25ms or 1.5s"),
            (["link", "10.0.0.3", "own=here"], "`own` must be an IP address"),
            (["link", "10.0.0.3", "mtu=20"], "`mtu` must be 68 to 65535 bytes"),
            (["link", "10.0.0.3", "mtu=big"], "mtu=big: expected a whole number"),
            (
                ["link", "10.0.0.3", "queue=50ms"],
                "a queue in ms or bdp needs the link's rate; give it in pkt or kB, or add a rate",
            ),
            (
                ["link", "10.0.0.3", "speed=1mbit"],
                "speed=1mbit: unknown setting 'speed', expected one of corrupt, delay, duplicate, jitter, loss, mtu, "
                "own, queue, rate, reorder, seed",
            ),
            (["listening", "0"], "`port` must be a number from 1 to 65535"),
            (["request", "wait_listening", '{"port": true}'], "`port` must be a number from 1 to 65535"),
            (["request", "links", "{}"], "`links` must be a list of objects"),
            (["request", "links", '{"links": [{"peers": ["10.0.0.3"], "los": 1}]}'], "unknown los; expected corrupt, "),
            (
                ["request", "links", '{"links": [{"peers": ["10.0.0.3"], "loss": 1.5}]}'],
                "`loss` must be a share from 0 to 1",
            ),
            (["request", "links", '{"links": [{"peers": ["10.0.0.3"], "delay": NaN}]}'], "`delay` must be a number"),
            (["request", "links", '{"links": [{"peers": ["10.0.0.3"], "rate": 0}]}'], "`rate` must be a number"),
            (
                ["request", "links", '{"links": [{"peers": ["10.0.0.3"], "drops": 1}]}'],
                "`drops` must be a list of at most 64",
            ),
            *(
                (
                    ["request", "links", '{"links": [{"peers": ["10.0.0.3"], "drops": [' + rule + "]}]}"],
                    "a rule of `drops` has a kind (any, SYN, SYN-ACK, FIN, RST, ACK, data), and first and last",
                )
                for rule in (
                    "1",
                    '{"kind": "SYN"}',
                    '{"kind": ["SYN"], "first": 1, "last": 1}',
                    '{"kind": "SYN", "first": 0, "last": 1}',
                    '{"kind": "SYN", "first": 2, "last": 1}',
                    '{"kind": "SYN", "first": true, "last": 1}',
                )
            ),
            (
                ["request", "links", '{"links": [{"peers": ["10.0.0.3"], "delay": 1' + "0" * 400 + "}]}"],
                "`delay` must be a number",
            ),
            (
                ["request", "stop", "{}"],
                "unknown command 'stop', expected one of ping, links, link, block, probe, sockets, wait_listening",
            ),
            (["request", "ping", "[]"], "the arguments are no JSON object"),
            (["request", "ping", "{"], "the arguments are no JSON: Expecting property name enclosed in double quotes"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_is_refused(
        self, asked: Daemon, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert ctl.main(["-s", asked.socket, *arguments]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"chitcpd ctl: {sentence}")
        assert said.err.count("\n") == 1


def test_a_full_disk_ends_the_trace_and_not_the_segments(daemon: StartDaemon) -> None:
    full = daemon("--trace", "/dev/full", "-c", "/dev/full")
    with Application(full.socket) as application:
        _, port = application.listening(full.address)
        application.connected(full.address, port)
    assert full.end() == 0
    assert full.log.read_text().count("/dev/full ends here: No space left on device") >= 1


def test_an_application_that_reads_no_answers_is_not_served_further(daemon: StartDaemon) -> None:
    """Each answer is larger than its request: without a limit the daemon's memory would be theirs."""
    host = daemon()
    with Application(host.socket) as greedy:
        for _ in range(200):
            greedy.socket()
        for _ in range(4000):  # some 80 MB of answers
            greedy.ask(pb.CONTROL, command="sockets", json=b"{}")
        assert host.ask("ping")["pid"] == host.process.pid
        resident = int(Path(f"/proc/{host.process.pid}/statm").read_text().split()[1]) * 4096
    assert resident < 80_000_000
