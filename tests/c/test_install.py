"""What is installed: headers, libraries under both names, a pkg-config file; and what the libraries take and give."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import chitcpd
from tests.c.conftest import BUILD, home
from tests.c.test_samples import listening, receive_all
from tests.daemon.conftest import PATIENCE, PROJECT, Daemon

SAMPLE = PROJECT / "chisocket" / "c" / "samples" / "hello.c"
DOCUMENTED = """
    clientSocket = chisocket_socket(PF_INET, SOCK_STREAM, IPPROTO_TCP);
    chitcp_addr_construct(host, port, &serverAddr)
    chisocket_connect(clientSocket, (struct sockaddr *) &serverAddr, sizeof(struct sockaddr_in))
    chisocket_send(clientSocket, "Hello!", 6, 0)
    chisocket_close(clientSocket)
"""
HEADERS = ("addr", "debug_api", "export", "socket", "types", "utils")

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed."""
    root = tmp_path_factory.mktemp("root")
    command = ["meson", "install", "-C", str(BUILD), "--no-rebuild", "--quiet", "--destdir", str(root)]
    subprocess.run(command, check=True)
    return root / "usr" / "local"


def folder(prefix: Path, name: str) -> Path:
    """Where `name` is, below the libraries' folder, which Debian has for each kind of machine."""
    return next(prefix.rglob(name)).parent


def compiled(prefix: Path, target: Path, *flags: str) -> Path:
    command = ["cc", "-Wall", "-Wextra", "-Werror", f"-I{prefix}/include", "-o", str(target), str(SAMPLE), *flags]
    subprocess.run(command, check=True)
    return target


def says_hello(
    program: Path,
    libraries: Path,
    pair: tuple[Daemon, Daemon],
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
) -> bool:
    """Whether the documentation's program does what it should."""
    with listening(pair[1], monkeypatch) as (server, port):
        env = home(pair[0].socket, LD_LIBRARY_PATH=str(libraries))
        command = [str(program), pair[1].address, port]
        client = threads.submit(subprocess.run, command, env=env, timeout=PATIENCE, check=True)
        with server.accept()[0] as sock:
            received = receive_all(sock)
        client.result(PATIENCE)
    return received == b"Hello!"


@pytest.fixture
def pair(alice_daemon: Daemon, bob_daemon: Daemon) -> tuple[Daemon, Daemon]:
    return alice_daemon, bob_daemon


def test_the_sample_is_the_documentations_program() -> None:
    """Word for word; only what happens if a call fails is added."""
    code = SAMPLE.read_text()
    for line in DOCUMENTED.strip().splitlines():
        assert line.strip() in code


def test_it_has_the_projects_version() -> None:
    said = re.search(r"version: '(.*)'", (PROJECT / "chisocket" / "c" / "meson.build").read_text())
    assert said is not None
    assert said[1] == chitcpd.__version__


def test_what_is_there(prefix: Path) -> None:
    assert {path.name for path in (prefix / "include" / "chitcp").iterdir()} == {f"{name}.h" for name in HEADERS}
    names = {path.name for path in prefix.rglob("*") if path.is_file() or path.is_symlink()}
    for library in ("libchisocket", "libchitcp"):
        assert {f"{library}.so", f"{library}.so.0", f"{library}.a"} <= names
    assert {"libchisocket-preload.so", "chirun", "chisocket.pc", "chisocket-hello", "chisocket-bulk"} <= names
    assert {"chisocket-echo-server", "chisocket-echo-client"} <= names
    assert not {"calls", "system-calls", "threads"} & names


@pytest.mark.parametrize("name", ["chisocket", "chitcp"])
def test_old_build_lines(
    prefix: Path,
    pair: tuple[Daemon, Daemon],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    background: ThreadPoolExecutor,
    name: str,
) -> None:
    libraries = folder(prefix, f"lib{name}.so")
    program = compiled(prefix, tmp_path / "hello", f"-L{libraries}", f"-l{name}")
    assert says_hello(program, libraries, pair, monkeypatch, background)


def test_a_static_library(
    prefix: Path,
    pair: tuple[Daemon, Daemon],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    background: ThreadPoolExecutor,
) -> None:
    archive = next(prefix.rglob("libchisocket.a"))
    program = compiled(prefix, tmp_path / "hello", str(archive), "-lprotobuf-c")
    assert says_hello(program, tmp_path, pair, monkeypatch, background)
    needed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    assert "chisocket" not in needed


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config")
def test_pkg_config(
    prefix: Path,
    pair: tuple[Daemon, Daemon],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    background: ThreadPoolExecutor,
) -> None:
    env = {
        **os.environ,
        "PKG_CONFIG_PATH": str(folder(prefix, "chisocket.pc")),
        "PKG_CONFIG_SYSROOT_DIR": str(prefix.parents[1]),
    }
    command = ["pkg-config", "--cflags", "--libs", "chisocket"]
    flags = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    program = tmp_path / "hello"
    subprocess.run(["cc", "-o", str(program), str(SAMPLE), *flags], check=True)
    assert says_hello(program, folder(prefix, "libchisocket.so"), pair, monkeypatch, background)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("language", ["c", "c++"])
def test_each_header_stands_alone(prefix: Path, tmp_path: Path, header: str, language: str) -> None:
    if language == "c++" and shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    source = tmp_path / "main"
    source.write_text(f'#include "chitcp/{header}.h"\n#include "chitcp/{header}.h"\nint main(void) {{ return 0; }}\n')
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{prefix}/include", "-fsyntax-only"]
    subprocess.run(["c++" if language == "c++" else "cc", "-x", language, *flags, str(source)], check=True)


def symbols(library: Path, *flags: str) -> set[str]:
    done = subprocess.run(["nm", *flags, str(library)], capture_output=True, text=True, check=True)
    return {line.split()[-1].partition("@")[0] for line in done.stdout.splitlines() if " " in line}


def declared(prefix: Path) -> set[str]:
    text = "".join(path.read_text() for path in (prefix / "include" / "chitcp").iterdir())
    return set(re.findall(r"^CHITCP_API [^;(]*?(\w+)\(", text, re.MULTILINE))


@pytest.mark.parametrize("library", ["libchisocket.so", "libchitcp.so", "libchisocket.a", "libchitcp.a"])
def test_nothing_else_can_be_seen(prefix: Path, library: str) -> None:
    """No name of the inside is taken from the programs that are linked with it."""
    flags = ["-D"] if library.endswith(".so") else ["-g"]
    assert symbols(next(prefix.rglob(library)), *flags, "--defined-only") == declared(prefix)


@pytest.mark.parametrize("library", ["libchisocket.so", "libchisocket-preload.so"])
def test_it_neither_ends_nor_prints(prefix: Path, library: str) -> None:
    taken = symbols(next(prefix.rglob(library)), "-D", "--undefined-only")
    loud = {"exit", "_exit", "abort", "printf", "puts", "putchar", "perror", "fputs", "fwrite", "stderr", "stdout"}
    loud |= {"fprintf", "vfprintf", "__printf_chk", "__fprintf_chk", "syslog", "err", "warn"}
    assert not taken & loud
