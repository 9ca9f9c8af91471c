"""What others can't do to a daemon, and how it ends: control, users, limits, SIGTERM, a TCP that hangs."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import chisocket
from chisocket.protocol import chitcpd_pb2 as pb
from chitcpd import ctl
from chitcpd.peers import Peers
from chitcpd.sockets import Signal
from tests.daemon.application import ARGUMENTS, Application, Conversation, sockaddr_in
from tests.daemon.conftest import PATIENCE, PORT, Daemon, StartDaemon, environment, free_address
from tests.daemon.nodes import in_event_loop, until

NOBODY = 65534  # the number of a user and of a group who own nothing
LONG = 60.0  # seconds for what takes some seconds of CPU time

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Daemon], None]:
    """Sockets made from now on are that daemon's."""
    return lambda daemon: monkeypatch.setenv("CHITCPD_SOCK", daemon.socket)


@contextmanager
def nobody() -> Iterator[None]:
    """Be that user for the block: what connects in it is that user's."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class TestControl:
    """Links are changed through a socket of their own, which an application may be kept away from."""

    @pytest.mark.parametrize(
        ("command", "arguments"),
        [
            ("links", b'{"links": [{"peers": ["10.0.0.3"], "loss": 1}]}'),
            ("link", b'{"peer": "10.0.0.3"}'),
            ("sockets", b"{}"),
        ],
    )
    def test_applications_have_none(self, daemon: StartDaemon, command: str, arguments: bytes) -> None:
        one = daemon()
        with Application(one.socket) as app:
            resp = app.call(pb.CONTROL, command=command, json=arguments)
        assert (resp.ret, resp.error_code) == (-1, errno.EPERM)
        assert resp.buf.decode() == (
            f"`{command}` is for the control socket, {one.socket}.control; this one is the applications'"
        )
        assert one.ask("link", peer="10.0.0.3") == {}

    def test_they_may_see_whether_it_runs_and_who_listens(self, daemon: StartDaemon) -> None:
        one = daemon()
        with Application(one.socket) as app:
            _, port = app.listening(one.address)
            assert app.good(pb.CONTROL, command="wait_listening", json=b'{"port": %d}' % port).buf == b"{}"
            assert b'"pid"' in app.good(pb.CONTROL, command="ping", json=b"{}").buf

    def test_the_socket_for_control_is_for_its_user_only(self, daemon: StartDaemon) -> None:
        one = daemon("--group", str(os.getegid()))
        assert stat.S_IMODE(os.stat(f"{one.socket}.control").st_mode) == 0o600

    def test_it_may_be_elsewhere(self, daemon: StartDaemon, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        elsewhere = str(directory / "elsewhere")
        one = daemon("--control", elsewhere)
        with pytest.raises(FileNotFoundError):
            one.ask("sockets")
        monkeypatch.setenv("CHITCPD_SOCK", one.socket)
        monkeypatch.setenv("CHITCPD_CONTROL", elsewhere)
        assert one.ask("sockets") == {"sockets": [], "impairments": {}}

    def test_the_variable_is_for_the_daemon_of_the_other_variable_only(
        self, daemon: StartDaemon, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CHITCPD_SOCK", str(directory / "another"))
        monkeypatch.setenv("CHITCPD_CONTROL", str(directory / "another.control"))
        assert daemon().ask("sockets") == {"sockets": [], "impairments": {}}

    def test_a_stale_one_is_replaced_and_a_live_one_is_not(self, daemon: StartDaemon, directory: Path) -> None:
        control = str(directory / "control")
        killed = daemon("--control", control)
        killed.process.kill()
        killed.process.wait()
        assert Path(control).is_socket()
        one = daemon("--control", control)
        path = directory / "second"
        done = subprocess.run(
            [sys.executable, "-m", "chitcpd", "--bind", free_address(), "-s", str(path), "--control", control],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (
            3,
            f"chitcpd: another chitcpd answers at {control}; end it, or choose another path with --control\n",
        )
        assert not path.exists()
        assert one.ask("ping")["pid"] == one.process.pid


class TestUsers:
    @pytest.fixture
    def shared(self, daemon: StartDaemon, directory: Path) -> Daemon:
        """A daemon of root's that members of a group may use."""
        directory.chmod(0o755)
        return daemon("--group", str(NOBODY))

    @as_root
    def test_the_socket_is_for_the_group(self, shared: Daemon) -> None:
        status = os.stat(shared.socket)
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o660, 0, NOBODY)
        with nobody(), Application(shared.socket) as app:
            app.socket()

    @as_root
    def test_without_a_group_it_is_nobody_else_s(self, daemon: StartDaemon, directory: Path) -> None:
        directory.chmod(0o755)
        one = daemon()
        with nobody(), pytest.raises(PermissionError):
            one.ask("ping")

    @as_root
    def test_control_is_not_the_group_s(self, shared: Daemon) -> None:
        with nobody(), pytest.raises(PermissionError, match=f"{shared.socket}.control belongs to another user"):
            shared.ask("sockets")

    @as_root
    def test_nobody_touches_another_user_s_sockets(self, shared: Daemon) -> None:
        with Application(shared.socket) as mine, Application(shared.socket) as server:
            talk = Conversation(mine, server, shared.address)
            with nobody():
                stranger = Application(shared.socket)
            with stranger:
                for code in codes_with_a_socket(shared) - {pb.LINGER}:  # which never says anything of others'
                    for fd in (talk.near, talk.listener):
                        resp = stranger.call(code, sockfd=fd, **REQUIRED.get(code, {}))
                        assert (resp.ret, resp.error_code) == (-1, errno.EBADF), pb.MsgCode.Name(code)
            mine.send(talk.near, b"unharmed")
            assert server.recv(talk.far) == b"unharmed"

    def test_no_such_group(self) -> None:
        command = [sys.executable, "-m", "chitcpd", "--group", "no such group"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 2
        assert done.stderr.endswith("error: argument --group: there is no group 'no such group'\n")


REQUIRED: dict[pb.MsgCode, dict[str, object]] = {
    pb.BIND: {"addr": sockaddr_in("127.0.0.1", 1)},
    pb.LISTEN: {"backlog": 1},
    pb.CONNECT: {"addr": sockaddr_in("127.0.0.1", 1)},
    pb.START_CONNECT: {"addr": sockaddr_in("127.0.0.1", 1)},
    pb.WAIT_FOR_STATE: {"tcp_state": 0},
    pb.SEND: {"flags": 0, "buf": b"x"},
    pb.RECV: {"flags": 0, "len": 1},
    pb.SHUTDOWN: {"how": 2},
    pb.LINGER: {"serial": 0},
    pb.GETSOCKOPT: {"level": socket.SOL_SOCKET, "name": socket.SO_ERROR},
    pb.SETSOCKOPT: {"level": socket.SOL_SOCKET, "name": socket.SO_KEEPALIVE, "value": bytes(4)},
}


def codes_with_a_socket(daemon: Daemon) -> set[pb.MsgCode]:
    """All requests that name a socket and that the daemon knows."""
    named = [c for c, name in ARGUMENTS.items() if hasattr(getattr(pb.ChitcpdMsg(), name), "sockfd")]
    with Application(daemon.socket) as app:
        known = {c for c in named if app.call(c, sockfd=999, **REQUIRED.get(c, {})).error_code != errno.EINVAL}
    assert len(known) >= 13
    return known


@contextmanager
def limited_daemon(directory: Path, descriptors: int) -> Iterator[Daemon]:
    """A daemon that may have so many descriptors."""
    address = free_address()
    path, log = str(directory / f"{address}.sock"), directory / f"{address}.log"
    limits = f"import resource as r, runpy; r.setrlimit(r.RLIMIT_NOFILE, ({descriptors // 2}, {descriptors}))"
    program = f"{limits}; runpy.run_module('chitcpd', run_name='__main__', alter_sys=True)"
    with log.open("wb") as stderr:
        command = [sys.executable, "-c", program, "--bind", address, "-s", path]
        process = subprocess.Popen(command, stderr=stderr, stdin=subprocess.DEVNULL, env=environment())
    daemon = Daemon(address, path, log, process)
    try:
        daemon.wait_until_it_answers()
        yield daemon
    finally:
        assert daemon.end() == 0
        print(log.read_text())
    assert "out of system resource" not in log.read_text()


class TestLimits:
    DESCRIPTORS = 240

    @pytest.fixture
    def small(self, directory: Path) -> Iterator[Daemon]:
        with limited_daemon(directory, self.DESCRIPTORS) as daemon:
            yield daemon

    def test_it_takes_all_descriptors_that_it_may_have(self, small: Daemon) -> None:
        limits = resource.prlimit(small.process.pid, resource.RLIMIT_NOFILE)
        assert limits == (self.DESCRIPTORS, self.DESCRIPTORS)

    def test_pairs_leave_some_for_the_rest(self, small: Daemon, use: Callable[[Daemon], None]) -> None:
        use(small)
        with ExitStack() as stack:
            while (error := self.one_more(stack)) is None:
                pass
            assert error == errno.EMFILE
            assert self.DESCRIPTORS // 3 < len(small.sockets()) <= self.DESCRIPTORS // 2
            with Application(small.socket) as app, Application(small.socket) as server:
                Conversation(app, server, small.address)
            stack.close()
            assert self.one_more(stack) is None

    def one_more(self, stack: ExitStack) -> int | None:
        """Make a socket; the error."""
        try:
            stack.enter_context(chisocket.socket())
        except OSError as error:
            return error.errno
        return None

    def test_applications_beyond_the_most_are_refused(self, small: Daemon) -> None:
        most = self.DESCRIPTORS // 8
        with ExitStack() as stack:
            apps = [stack.enter_context(Application(small.socket)) for _ in range(most)]
            with Application(small.socket, greet=False) as late:
                late.send_message(hello())
                assert late.answer().error_code == errno.EMFILE
                assert late.is_closed()
            silent = [stack.enter_context(Application(small.socket, greet=False)) for _ in range(100)]
            assert sum(app.is_closed() for app in silent[70:]) == 30
            assert small.ask("sockets") == {"sockets": [], "impairments": {}}
            assert apps[-1].socket() == 0

    def test_one_that_goes_makes_room_for_another(self, small: Daemon) -> None:
        for _ in range(self.DESCRIPTORS):
            with Application(small.socket) as app:
                assert app.socket() >= 0

    @in_event_loop
    async def test_waiting_that_is_given_up_leaves_nothing(self) -> None:
        some = Signal()
        first, second = (asyncio.create_task(some.until(lambda: False)) for _ in range(2))
        await until(lambda: len(some._waiters) == 2)
        first.cancel()
        await asyncio.wait([first])
        assert len(some._waiters) == 1
        some.changed()
        second.cancel()  # that is called and given up at once
        await asyncio.wait([second])
        assert second.cancelled()
        assert some._waiters == []

    def test_half_a_message_of_many_applications(self, daemon: StartDaemon) -> None:
        """Each may be as long as a message may be; but all together not, and what is not taken is refused."""
        one, count, room = daemon(), 14, (1 << 27) // (16 << 20)
        body = pb.ChitcpdMsg(code=pb.SEND, send_args=pb.SendArgs(sockfd=999, flags=0, buf=bytes((16 << 20) - 100)))
        raw = body.SerializeToString()
        message = struct.pack("=Q", len(raw)) + raw
        with ExitStack() as stack:
            apps = [stack.enter_context(Application(one.socket)) for _ in range(count)]
            before = resident(one)
            for app in apps:
                app.send_bytes(message[:-1])
            one.ask("ping")
            assert resident(one) - before < 1.5 * (1 << 27)
            errors = []
            for app in apps:
                app.send_bytes(message[-1:])
                errors.append(app.answer().error_code)
            assert sorted(set(errors)) == [errno.EBADF, errno.ENOBUFS]
            assert room - 1 <= errors.count(errno.EBADF) <= room + 1
            assert [app.socket() for app in apps] == list(range(count))
            for app in apps:  # there is room again
                app.send_bytes(message)
                assert app.answer().error_code == errno.EBADF


def hello() -> pb.ChitcpdMsg:
    return pb.ChitcpdMsg(code=pb.INIT, init_args=pb.InitArgs(connection_type=pb.COMMAND_CONNECTION))


def resident(daemon: Daemon) -> int:
    """Bytes of memory that it has."""
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


@pytest.mark.alone  # the kernel's tables of sockets are no snapshots: what others open and close moves a row past us
def test_it_listens_on_its_address_and_on_nothing_else(daemon: StartDaemon) -> None:
    one = daemon()
    folder = Path(f"/proc/{one.process.pid}")
    inodes = {os.readlink(fd).removeprefix("socket:[").removesuffix("]") for fd in (folder / "fd").iterdir()}
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        rows = [line.split() for line in (folder / "net" / table).read_text().splitlines()[1:]]
        found += [(table, row[1]) for row in rows if row[9] in inodes]
    assert found == [("tcp", f"{int.from_bytes(socket.inet_aton(one.address), 'little'):08X}:{PORT:04X}")]


class Pair:
    """A connection from an application of one daemon to one of another."""

    def __init__(self, use: Callable[[Daemon], None], near: Daemon, far: Daemon) -> None:
        use(far)
        with chisocket.create_server((far.address, 0)) as listener:
            use(near)
            self.near = chisocket.create_connection(listener.getsockname(), timeout=PATIENCE)
            self.far, _ = listener.accept()
        self.far.settimeout(PATIENCE)


class TestEnding:
    """SIGTERM: listeners are closed, connections have two seconds, then they are reset."""

    @pytest.fixture
    def hosts(self, daemon: StartDaemon) -> tuple[Daemon, Daemon]:
        return daemon(), daemon()

    @pytest.fixture
    def pair(self, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]) -> Iterator[Pair]:
        connected = Pair(use, *hosts)
        with connected.near, connected.far:
            yield connected

    def test_what_was_written_arrives_with_an_end_behind_it(self, pair: Pair, hosts: tuple[Daemon, Daemon]) -> None:
        """The link is slow, so most of it has not left yet when the signal comes."""
        hosts[0].ask("links", links=[{"peers": [hosts[1].address], "rate": 4e6}])
        data = os.urandom(1 << 18)
        pair.near.sendall(data)
        hosts[0].process.terminate()
        assert received(pair.far) == data
        pair.far.close()
        assert hosts[0].process.wait(PATIENCE) == 0

    def test_the_application_can_read_on_but_not_write(self, pair: Pair, hosts: tuple[Daemon, Daemon]) -> None:
        hosts[0].process.terminate()
        assert pair.far.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            pair.near.send(b"too late")
        pair.far.sendall(b"the last word")
        assert pair.near.recv(100) == b"the last word"
        pair.far.close()
        assert pair.near.recv(100) == b""
        assert hosts[0].process.wait(PATIENCE) == 0

    def test_who_does_not_end_is_reset(self, pair: Pair, hosts: tuple[Daemon, Daemon]) -> None:
        hosts[0].process.terminate()
        assert pair.far.recv(1) == b""
        assert hosts[0].process.wait(PATIENCE) == 0
        with pytest.raises(ConnectionResetError):
            pair.far.sendall(b"is anybody there?")

    def test_another_may_have_its_sockets_meanwhile(self, pair: Pair, hosts: tuple[Daemon, Daemon]) -> None:
        path = hosts[0].socket
        hosts[0].process.terminate()
        assert pair.far.recv(1) == b""  # it waits for us
        command = [sys.executable, "-m", "chitcpd", "--bind", free_address(), "-s", path]
        with subprocess.Popen(command, env=environment()) as successor:
            try:
                assert ctl.request(path, "ping", {}, wait=PATIENCE)["pid"] == successor.pid
                pair.far.close()
                assert hosts[0].process.wait(PATIENCE) == 0
                assert ctl.request(path, "ping", {})["pid"] == successor.pid
                assert ctl.request(path, "sockets", {})["sockets"] == []  # by the socket for control
            finally:
                successor.terminate()

    @pytest.mark.alone
    def test_a_second_signal_ends_it_at_once(self, pair: Pair, hosts: tuple[Daemon, Daemon]) -> None:
        hosts[0].process.terminate()
        assert pair.far.recv(1) == b""
        began = time.monotonic()
        hosts[0].process.terminate()
        assert hosts[0].process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 1.5
        with pytest.raises(ConnectionResetError):
            pair.far.sendall(b"is anybody there?")

    @pytest.mark.alone
    def test_an_idle_one_ends_at_once(self, daemon: StartDaemon) -> None:
        """A listener, and a connection in TIME-WAIT, are nothing to wait for."""
        one = daemon()
        with Application(one.socket) as client, Application(one.socket) as server:
            talk = Conversation(client, server, one.address)
            client.ask(pb.CLOSE, sockfd=talk.near)
            assert server.recv(talk.far) == b""
            server.good(pb.CLOSE, sockfd=talk.far)
            client.answer()
            began = time.monotonic()
            assert one.end() == 0
        assert time.monotonic() - began < 1.5
        assert not Path(one.socket).exists()
        assert not Path(f"{one.socket}.control").exists()

    def test_listeners_are_closed_first(
        self, pair: Pair, use: Callable[[Daemon], None], hosts: tuple[Daemon, Daemon]
    ) -> None:
        use(hosts[0])
        with chisocket.create_server((hosts[0].address, 0)) as listener:
            address = listener.getsockname()
            hosts[0].process.terminate()
            assert pair.far.recv(1) == b""  # it waits for us
            with pytest.raises(OSError, match="the socket was shut down"):
                listener.accept()
            use(hosts[1])
            with pytest.raises(ConnectionRefusedError):
                chisocket.create_connection(address)
            pair.far.close()
        assert hosts[0].process.wait(PATIENCE) == 0


def received(sock: chisocket.socket) -> bytes:
    """All that comes until the end."""
    data = b""
    while chunk := sock.recv(1 << 16):
        data += chunk
    return data


class TestATcpThatHangs:
    """A call of a loaded TCP that never ends costs its connection, and some seconds; the daemon goes on."""

    SOURCE = """
import time
from chitcpd.tcp.connection import Connection


class Hanging(Connection):
    def spin(self):
        while True: pass

    def segment_arrives(self, seg, now):
        if bytes(seg.data) == b"hang":
            open(FIFO, "w").close()
            HANG
        super().segment_arrives(seg, now)
"""
    LOOP = "while True: pass"
    SLEEP = "time.sleep(1000)"
    STUBBORN = """while True:
                try: self.spin()
                except Exception: pass"""

    @pytest.fixture
    def fifo(self, directory: Path) -> Iterator[Path]:
        """The TCP opens it just before it hangs."""
        path = directory / "fifo"
        os.mkfifo(path)
        yield path
        path.unlink()

    def hanging(self, daemon: StartDaemon, fifo: Path, how: str) -> tuple[Daemon, Conversation]:
        """A connection on which `hang` does that, and was sent."""
        file = fifo.with_name("hanging.py")
        file.write_text(self.SOURCE.replace("FIFO", repr(str(fifo))).replace("HANG", how))
        one = daemon("--tcp", str(file))
        client, server = Application(one.socket), Application(one.socket)
        client.raw.settimeout(LONG)
        server.raw.settimeout(LONG)
        return one, Conversation(client, server, one.address)

    def test_an_endless_loop(self, daemon: StartDaemon, fifo: Path) -> None:
        one, talk = self.hanging(daemon, fifo, self.LOOP)
        with talk.client, talk.server:
            talk.server.ask(pb.ACCEPT, sockfd=talk.listener)
            second = talk.client.connected(one.address, talk.port)
            other = talk.server.answer().ret
            talk.client.send(talk.near, b"hang")
            fifo.read_bytes()
            assert talk.server.call(pb.RECV, sockfd=talk.far, flags=0, len=1).error_code == errno.EIO
            assert talk.client.call(pb.RECV, sockfd=talk.near, flags=0, len=1).error_code == errno.ECONNRESET
            talk.client.send(second, b"fine")
            assert talk.server.recv(other) == b"fine"
        log = one.log.read_text()
        assert "fault in the TCP, connection reset" in log
        assert 'hanging.py", line 13, in segment_arrives\n' in log
        assert "EndlessLoop: a call of the TCP does not come to an end" in log

    @pytest.mark.parametrize("how", [LOOP, SLEEP], ids=["loop", "sleep"])
    def test_sigterm_meanwhile(self, daemon: StartDaemon, fifo: Path, how: str) -> None:
        one, talk = self.hanging(daemon, fifo, how)
        with talk.client, talk.server:
            talk.client.send(talk.near, b"hang")
            fifo.read_bytes()
            one.process.terminate()
            assert one.process.wait(LONG) == 0
        assert 'hanging.py", line 13, in segment_arrives\n' in one.log.read_text()

    def test_one_that_does_not_let_go_ends_with_the_process(self, daemon: StartDaemon, fifo: Path) -> None:
        one, talk = self.hanging(daemon, fifo, self.STUBBORN)
        with talk.client, talk.server:
            talk.client.send(talk.near, b"hang")
            fifo.read_bytes()
            one.process.terminate()
            assert one.process.wait(LONG) == 70
        log = one.log.read_text()
        assert "the daemon does not end, and is ended here:\n" in log
        assert 'hanging.py", line 8, in spin\n' in log


class TestOwnAddresses:
    """Where a daemon's applications reach each other."""

    @pytest.mark.parametrize(
        ("addresses", "own", "others"),
        [
            (["10.0.0.5"], ["10.0.0.5", "127.0.0.1", "::1"], ["10.0.0.6", "127.0.0.2", "0.0.0.0", "fe80::1"]),
            (["fd00::5"], ["fd00::5", "127.0.0.1", "::1"], ["fd00::6", "10.0.0.5"]),
            (["127.1.2.3"], ["127.1.2.3"], ["127.0.0.1", "::1", "0.0.0.0"]),
            (["127.0.0.1"], ["127.0.0.1"], ["::1", "127.1.2.3"]),
            (["127.1.2.3", "10.0.0.5"], ["127.1.2.3", "10.0.0.5", "127.0.0.1", "::1"], ["127.1.2.4"]),
            (["0.0.0.0"], ["127.0.0.1", "127.1.2.3", "::1"], ["192.0.2.1", "0.0.0.0", "::"]),
        ],
        ids=lambda value: " ".join(value),
    )
    def test_which_they_are(self, addresses: list[str], own: list[str], others: list[str]) -> None:
        @in_event_loop
        async def ask() -> None:
            peers = Peers(
                port=PORT,
                addresses=addresses,
                deliver=nothing,
                unreachable=nothing,
                dropped=nothing,
                refused=nothing,
            )
            assert [address for address in [*own, *others] if peers.is_own(address)] == own
            assert [peers.source(address) for address in own] == own

        ask()

    @pytest.fixture
    def everywhere(self, directory: Path) -> Iterator[Daemon]:
        """A daemon on all addresses of this host, at a port of its own."""
        with socket.create_server(("0.0.0.0", 0)) as probe:
            port = probe.getsockname()[1]
        path, log = str(directory / "all.sock"), directory / "all.log"
        with log.open("wb") as stderr:
            command = [sys.executable, "-m", "chitcpd", "-p", str(port), "-s", path]
            process = subprocess.Popen(command, stderr=stderr, stdin=subprocess.DEVNULL, env=environment())
        daemon = Daemon("127.0.0.1", path, log, process)
        try:
            daemon.wait_until_it_answers()
            yield daemon
        finally:
            assert daemon.end() == 0
            print(log.read_text())

    @pytest.mark.parametrize(
        ("target", "found"),
        [
            ("127.0.0.1", "127.0.0.1"),
            ("127.1.2.3", "127.1.2.3"),
            ("0.0.0.0", "127.0.0.1"),
            ("::1", "::1"),
            ("::", "::1"),
        ],
    )
    def test_of_a_daemon_on_all_addresses(
        self, everywhere: Daemon, use: Callable[[Daemon], None], target: str, found: str
    ) -> None:
        use(everywhere)
        family, wildcard = (socket.AF_INET6, "::") if ":" in target else (socket.AF_INET, "0.0.0.0")
        with chisocket.create_server((wildcard, 0), family=family) as listener:
            port = listener.getsockname()[1]
            with chisocket.create_connection((target, port)) as near, listener.accept()[0] as far:
                assert near.getpeername()[:2] == far.getsockname()[:2] == (found, port)
                assert far.getpeername()[0] == found
                near.sendall(b"to myself")
                assert far.recv(100) == b"to myself"

    @pytest.mark.parametrize("wildcard", [False, True])
    def test_of_a_host_of_a_local_lab(self, daemon: StartDaemon, use: Callable[[Daemon], None], wildcard: bool) -> None:
        one = daemon()
        use(one)
        with chisocket.create_server((one.address, 0)) as listener:
            port = listener.getsockname()[1]
            with chisocket.create_connection(("0.0.0.0" if wildcard else one.address, port)) as near:
                assert near.getpeername() == (one.address, port)

    def test_nobody_else_has_one(self, everywhere: Daemon) -> None:
        """A process of this host that dials the daemon from an address of this host is not taken for a peer."""
        port = ctl.request(everywhere.socket, "ping", {})["port"]
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as other, suppress(ConnectionResetError):
            assert other.recv(1) == b""


def nothing(*_: object) -> None:
    """Nobody is told."""
