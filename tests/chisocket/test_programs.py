"""Programs that know nothing of chiTCP, unmodified over it: what the standard library has, and what people use."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import os
import selectors
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import xmlrpc.client
import xmlrpc.server
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import chisocket
import chisocket.asyncio
from tests.daemon.conftest import PATIENCE, Daemon, environment

CLIENTS = 200


@pytest.fixture(autouse=True)
def host(alice_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of this process's daemon: whatever goes there over the kernel's TCP finds nobody."""
    monkeypatch.setenv("CHITCPD_SOCK", alice_daemon.socket)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return alice_daemon.address


@pytest.fixture
def patched() -> Iterator[None]:
    with chisocket.patched():
        yield


@pytest.fixture
def home(alice_daemon: Daemon) -> dict[str, str]:
    """The environment of the daemon's applications."""
    return {**environment(), "CHITCPD_SOCK": alice_daemon.socket, "PYTHONUNBUFFERED": "1"}


def run(home: dict[str, str], *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chisocket.run", *words],
        env=home,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def free_port(host: str) -> int:
    """A port of the daemon's on which nobody listens."""
    with chisocket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


class TestRun:
    """`python -m chisocket.run` is what `python` is."""

    SHOW = "import sys, socket; print(sys.argv, __name__, socket.socket().family, type(socket.socket.connect).__name__)"

    def test_code(self, home: dict[str, str]) -> None:
        done = run(home, "-c", self.SHOW, "--a", "b")
        assert (done.stdout, done.stderr, done.returncode) == ("['-c', '--a', 'b'] __main__ 2 function\n", "", 0)

    def test_a_file(self, home: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "helper.py").write_text("WORD = 'beside it'")
        program = tmp_path / "program.py"
        program.write_text(f"import helper; print(helper.WORD, __file__)\n{self.SHOW}")
        done = run(home, str(program), "-m", "x")
        assert done.stdout == f"beside it {program}\n[{str(program)!r}, '-m', 'x'] __main__ 2 function\n"
        assert (done.stderr, done.returncode) == ("", 0)

    def test_a_module(self, home: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(self.SHOW)
        done = run(home, "-m", "program", "y", cwd=tmp_path)
        assert done.stdout == f"[{str(tmp_path / 'program.py')!r}, 'y'] __main__ 2 function\n"
        assert (done.stderr, done.returncode) == ("", 0)

    @pytest.mark.parametrize(
        ("code", "status", "said"),
        [
            ("import sys; sys.exit(7)", 7, ""),
            ("import sys; sys.exit('no more')", 1, "no more\n"),
            ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
            ("import", 1, "SyntaxError: invalid syntax\n"),
        ],
    )
    def test_how_it_ends(self, home: dict[str, str], code: str, status: int, said: str) -> None:
        done = run(home, "-c", code)
        assert done.returncode == status
        assert done.stderr.endswith(said)
        assert "chisocket" not in done.stderr  # a traceback shows the program's own frames

    def test_a_file_that_is_not_there(self, home: dict[str, str], tmp_path: Path) -> None:
        done = run(home, str(tmp_path / "nothing.py"))
        assert done.returncode == 2
        assert "can't open file" in done.stderr

    def test_a_module_that_is_not_there(self, home: dict[str, str]) -> None:
        done = run(home, "-m", "nobody_has_written_this")
        assert done.returncode == 1
        assert done.stderr.endswith("No module named nobody_has_written_this\n")
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("words", [(), ("-m",), ("-c",), ("-x", "y")])
    def test_wrong_usage(self, home: dict[str, str], words: tuple[str, ...]) -> None:
        done = run(home, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: python -m chisocket.run")

    def test_help(self, home: dict[str, str]) -> None:
        done = run(home, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert "-m http.server" in done.stdout


class TestHttp:
    @pytest.mark.usefixtures("patched")
    def test_http_server_and_urllib(
        self, home: dict[str, str], host: str, alice_daemon: Daemon, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(os.urandom(300_000))
        port = free_port(host)
        command = [sys.executable, "-m", "chisocket.run", "-m", "http.server", str(port), "--bind", host]
        with subprocess.Popen(
            command, env=home, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            try:
                alice_daemon.ask("wait_listening", port=port)
                with urllib.request.urlopen(f"http://{host}:{port}/file", timeout=PATIENCE) as answer:
                    assert answer.read() == (tmp_path / "file").read_bytes()
                with urllib.request.urlopen(f"http://{host}:{port}/", timeout=PATIENCE) as answer:
                    assert b'<a href="file">' in answer.read()
                with pytest.raises(urllib.error.HTTPError) as missing:
                    urllib.request.urlopen(f"http://{host}:{port}/nothing", timeout=PATIENCE)
                missing.value.close()
                assert missing.value.code == 404
            finally:
                server.terminate()

    class Handler(BaseHTTPRequestHandler):
        """Answers a POST with its own body, and a GET with the range of bytes that it asks for."""

        protocol_version = "HTTP/1.1"
        content = bytes(range(256)) * 1000

        def do_POST(self) -> None:
            self._answer(200, self.rfile.read(int(self.headers["Content-Length"])))

        def do_GET(self) -> None:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            self._answer(206, self.content[first : last + 1])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    @pytest.mark.usefixtures("patched")
    def test_post_and_range(self, host: str) -> None:
        with ThreadingHTTPServer((host, 0), self.Handler) as server, served(server):
            url = f"http://{host}:{server.server_port}/"
            body = os.urandom(1 << 20)
            with urllib.request.urlopen(url, data=body, timeout=PATIENCE) as answer:
                assert answer.read() == body
            request = urllib.request.Request(url, headers={"Range": "bytes=1000-200999"})
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                assert answer.status == 206
                assert answer.read() == self.Handler.content[1000:201_000]

    @pytest.mark.usefixtures("patched")
    def test_many_requests_on_one_connection(self, host: str) -> None:
        with ThreadingHTTPServer((host, 0), self.Handler) as server, served(server):
            connection = http.client.HTTPConnection(host, server.server_port, timeout=PATIENCE)
            for number in range(100):
                connection.request("POST", "/", body=b"%d" % number)
                assert connection.getresponse().read() == b"%d" % number
            connection.close()


class served:  # noqa: N801
    """A server of the standard library's, in a thread, during the block."""

    def __init__(self, server: socketserver.BaseServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE)


@pytest.fixture(scope="module")
def contexts(alice_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ...]:
    """The client's and the server's."""
    folder = tmp_path_factory.mktemp("tls")
    address = str(ipaddress.ip_address(alice_daemon.address))
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN={address}"
    subprocess.run(
        [*command.split(), "-addext", f"subjectAltName=IP:{address}"], cwd=folder, check=True, capture_output=True
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert", folder / "key")
    return ssl.create_default_context(cafile=str(folder / "cert")), server


class TestTls:
    @pytest.mark.usefixtures("patched")
    def test_https(self, host: str, contexts: tuple[ssl.SSLContext, ...]) -> None:
        with ThreadingHTTPServer((host, 0), TestHttp.Handler) as server:
            server.socket = contexts[1].wrap_socket(server.socket, server_side=True)
            with served(server):
                url, body = f"https://{host}:{server.server_port}/", os.urandom(1 << 20)
                with urllib.request.urlopen(url, data=body, timeout=PATIENCE, context=contexts[0]) as answer:
                    assert answer.read() == body

    @pytest.mark.usefixtures("patched")
    def test_a_certificate_of_somebody_else(
        self, host: str, contexts: tuple[ssl.SSLContext, ...], background: ThreadPoolExecutor
    ) -> None:
        with socket.create_server((host, 0)) as listener:
            background.submit(lambda: contexts[1].wrap_socket(listener.accept()[0], server_side=True))
            with (
                socket.create_connection(listener.getsockname(), timeout=PATIENCE) as sock,
                pytest.raises(ssl.SSLCertVerificationError),
            ):
                ssl.create_default_context().wrap_socket(sock, server_hostname=host)

    @pytest.mark.usefixtures("patched")
    def test_asyncio(self, host: str, contexts: tuple[ssl.SSLContext, ...]) -> None:
        async def talk() -> None:
            server = await asyncio.start_server(echo_stream, host, 0, ssl=contexts[1])
            async with server:
                port = server.sockets[0].getsockname()[1]
                assert await echoed(*await asyncio.open_connection(host, port, ssl=contexts[0])) == MESSAGE

        asyncio.run(asyncio.wait_for(talk(), 30))

    def test_chisocket_asyncio(self, host: str, contexts: tuple[ssl.SSLContext, ...]) -> None:
        async def talk() -> None:
            async with await chisocket.asyncio.start_server(echo_stream, host, 0, ssl=contexts[1]) as server:
                port = server.sockets[0].getsockname()[1]
                ends = await chisocket.asyncio.open_connection(host, port, ssl=contexts[0])
                assert await echoed(*ends) == MESSAGE

        asyncio.run(asyncio.wait_for(talk(), 30))


MESSAGE = bytes(range(256)) * 4096  # 1 MiB


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes = MESSAGE) -> bytes:
    writer.write(message)
    received = await reader.readexactly(len(message))
    if writer.can_write_eof():
        writer.write_eof()
        received += await reader.read()  # until the server has closed its end
    writer.close()
    await writer.wait_closed()
    return received


class TestAsyncio:
    @pytest.mark.usefixtures("patched")
    def test_streams(self, host: str) -> None:
        async def talk() -> None:
            async with await asyncio.start_server(echo_stream, host, 0) as server:
                address = server.sockets[0].getsockname()
                assert await echoed(*await asyncio.open_connection(*address)) == MESSAGE

        asyncio.run(asyncio.wait_for(talk(), 30))

    def test_many_streams_at_once(self, host: str) -> None:
        async def talk() -> None:
            async with await chisocket.asyncio.start_server(echo_stream, host, 0) as server:
                address = server.sockets[0].getsockname()

                async def one(number: int) -> bytes:
                    return await echoed(*await chisocket.asyncio.open_connection(*address), b"%d" % number)

                answers = await asyncio.gather(*map(one, range(CLIENTS)))
                assert answers == [b"%d" % number for number in range(CLIENTS)]

        asyncio.run(asyncio.wait_for(talk(), 60))

    def test_nagles_algorithm_is_off(self, host: str) -> None:
        """As with asyncio's own: it sees to that where a socket says that it is TCP's."""

        async def talk() -> None:
            served: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

            async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                served.put_nowait(writer)

            async with await chisocket.asyncio.start_server(serve, host, 0) as server:
                address = server.sockets[0].getsockname()
                writers = [(await chisocket.asyncio.open_connection(*address))[1], await served.get()]
                sock = chisocket.create_connection(address)
                writers += [(await asyncio.open_connection(sock=sock))[1], await served.get()]
                for writer in writers:
                    sock = writer.get_extra_info("socket")
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                    writer.close()

        asyncio.run(asyncio.wait_for(talk(), 30))

    def test_refused(self, host: str) -> None:
        async def connect() -> None:
            with pytest.raises(ConnectionRefusedError):
                await chisocket.asyncio.open_connection(host, 9)

        asyncio.run(asyncio.wait_for(connect(), 30))


@pytest.mark.usefixtures("patched")
def test_socketserver(host: str) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    with (
        socketserver.ThreadingTCPServer((host, 0), Handler) as server,
        served(server),
        socket.create_connection((host, server.server_address[1]), timeout=PATIENCE) as sock,
        sock.makefile("rw") as file,
    ):
        file.write("one\ntwo\n")
        file.flush()
        assert (file.readline(), file.readline()) == ("ONE\n", "TWO\n")


@pytest.mark.usefixtures("patched")
def test_xmlrpc(host: str) -> None:
    with xmlrpc.server.SimpleXMLRPCServer((host, 0), logRequests=False) as server:
        server.register_function(lambda a, b: a + b, "add")
        with served(server), xmlrpc.client.ServerProxy(f"http://{host}:{server.server_address[1]}") as proxy:
            assert proxy.add(2, 3) == 5
            assert proxy.add("x" * 100_000, "y") == "x" * 100_000 + "y"


class SelectorsEcho:
    """An echo server with one selector, as the documentation of `selectors` has it."""

    def __init__(self, host: str) -> None:
        self.listener = socket.create_server((host, 0), backlog=CLIENTS)
        self.listener.setblocking(False)
        self.ended = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def serve(self, clients: int) -> None:
        """Until so many have ended."""
        while self.ended < clients:
            for key, _ in self._selector.select(PATIENCE):
                key.data(key.fileobj)
        self._selector.close()
        self.listener.close()

    def _accept(self, listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        self._selector.register(accepted, selectors.EVENT_READ, self._echo)

    def _echo(self, accepted: socket.socket) -> None:
        data = accepted.recv(1000)
        if data:
            accepted.sendall(data)
            return
        self._selector.unregister(accepted)
        accepted.close()
        self.ended += 1


@pytest.mark.usefixtures("patched")
def test_selectors_with_200_clients(host: str, background: ThreadPoolExecutor) -> None:
    server = SelectorsEcho(host)
    address = server.listener.getsockname()
    serving = background.submit(server.serve, CLIENTS)
    clients = [socket.create_connection(address, timeout=PATIENCE) for _ in range(CLIENTS)]
    for turn in (b"one", b"two"):
        for number, client in enumerate(clients):
            client.sendall(turn + b"%d" % number)
        for number, client in enumerate(clients):
            assert client.recv(100) == turn + b"%d" % number
    for client in clients:
        client.close()
    serving.result(30)


APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["path"].encode())]})
    await send({"type": "http.response.body", "body": body[::-1]})
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("patched")
def test_uvicorn_with_httpx_and_requests(home: dict[str, str], host: str, alice_daemon: Daemon, tmp_path: Path) -> None:
    httpx, requests = pytest.importorskip("httpx"), pytest.importorskip("requests")
    pytest.importorskip("uvicorn")
    (tmp_path / "served.py").write_text(APP)
    port = free_port(host)
    command = ["-m", "chisocket.run", "-m", "uvicorn", "served:app", "--host", host, "--port", str(port)]
    with subprocess.Popen([sys.executable, *command, "--lifespan", "off"], env=home, cwd=tmp_path) as server:
        try:
            alice_daemon.ask("wait_listening", port=port)
            body = os.urandom(200_000)
            with httpx.Client(timeout=PATIENCE) as client:
                for path in ("/a", "/b"):
                    answer = client.post(f"http://{host}:{port}{path}", content=body)
                    assert (answer.headers["x-path"], answer.content) == (path, body[::-1])
            with requests.Session() as session:
                answer = session.post(f"http://{host}:{port}/c", data=body, timeout=PATIENCE)
                assert (answer.headers["x-path"], answer.content) == ("/c", body[::-1])
        finally:
            server.terminate()
        assert server.wait(PATIENCE) in (0, -15)


def test_outside_of_the_block_sockets_are_the_kernels(host: str) -> None:
    with chisocket.patched(), chisocket.patched(), socket.create_server((host, 0)) as listener:
        with socket.create_connection(listener.getsockname()) as inside:
            assert inside.getpeername() == listener.getsockname()
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET
        assert "socket:" in os.readlink(f"/proc/self/fd/{sock.fileno()}")
