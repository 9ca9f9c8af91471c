"""The walls of docs/architecture.md: who may import whom. Read from the source, so that nothing can hide a breach."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"chitcpd", "chisocket", "testbed", "benchmarks"}
# What would make the TCP impure: it could wait, ask a clock, throw dice.
IMPURE = {
    "asyncio",
    "socket",
    "time",
    "random",
    "secrets",
    "threading",
    "multiprocessing",
    "subprocess",
    "select",
    "os",
}
FOR_A_COMPILER = ("mypy_extensions",)  # what a compiler is told of a class; need not be there


def modules(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if not path.name.endswith("_pb2.py")]


def imports(path: Path) -> Iterator[str]:
    """The full dotted name of each thing that a file imports, also inside functions and for type checking only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def check(folder: str, allowed: tuple[str, ...], *, third_party: tuple[str, ...] = ()) -> None:
    """Every import of ours in `folder` is of `allowed`, every other is of the standard library or `third_party`."""
    paths = modules(folder) if (ROOT / folder).is_dir() else [ROOT / folder]
    assert paths, folder
    for path in paths:
        for name in imports(path):
            top = name.partition(".")[0]
            where = f"{path.relative_to(ROOT)} imports {name}"
            if top in OURS:
                assert name in allowed or is_in(name, *(a for a in allowed if a != "chitcpd")), where
            else:
                assert top in sys.stdlib_module_names or top in third_party, where


def test_the_contract_of_a_tcp_stands_alone() -> None:
    check("chitcpd/tcp/api.py", (), third_party=FOR_A_COMPILER)


def test_the_tcp_is_pure() -> None:
    check("chitcpd/tcp", ("chitcpd.tcp",), third_party=FOR_A_COMPILER)
    for path in modules("chitcpd/tcp"):
        impure = {name.partition(".")[0] for name in imports(path)} & IMPURE
        assert not impure, f"{path.name} imports {impure}"


@pytest.mark.parametrize("path", [p for p in modules("chitcpd") if p.parent.name != "tcp"], ids=lambda p: p.name)
def test_the_daemon_knows_a_tcp_by_its_contract_only(path: Path) -> None:
    """The reference has no privilege: whatever the daemon needs of it, somebody's own TCP can offer too."""
    allowed = ("chitcpd.tcp.api", "chitcpd.tcp.wire", "chitcpd.tcp.bursts", "chisocket.protocol", "chisocket.names")
    for name in imports(path):
        inside = is_in(name, "chitcpd") and not is_in(name, "chitcpd.tcp")
        if name.partition(".")[0] in OURS and not inside:
            expanded = name if name != "chitcpd.tcp" else "chitcpd.tcp.?"
            assert is_in(expanded, *allowed), f"{path.name} imports {name}"


def test_chisocket_is_light() -> None:
    """It goes into every application's container."""
    check("chisocket", ("chisocket",), third_party=("google",))


def test_testbed_uses_the_public_faces_of_the_others() -> None:
    faces: tuple[str, ...] = (
        "chitcpd",
        "chitcpd.__version__",
        "chitcpd.ctl",
        "chitcpd.pcap",
        "chitcpd.units",
        "chitcpd.faults",
        "chitcpd.settings",
        "chitcpd.sim",
        "chitcpd.simlab",
        "chisocket.protocol.location",
    )
    of_the_grader = ("chitcpd.driver", "chitcpd.loader", "chitcpd.tcp.api", "chitcpd.trace")
    of_the_judge = ("chitcpd.tcp.wire", "chisocket.protocol")  # it speaks both contracts with a foreign daemon
    faces += of_the_grader + of_the_judge  # the grader holds connections of any TCP
    libraries = ("click", "docker", "matplotlib", "pydantic", "pydantic_core", "pytest", "requests", "rich", "yaml")
    check("testbed", ("testbed", *faces), third_party=libraries)


def test_benchmarks_use_the_public_faces_of_the_others() -> None:
    faces = ("chisocket", "chitcpd", "chitcpd.__version__", "chitcpd.ctl", "chitcpd.sim")
    check("benchmarks", ("benchmarks", *faces), third_party=("click", "matplotlib", "pytcp", "rich"))


def test_only_the_plugin_needs_pytest() -> None:
    """Who runs labs does not have to have it."""
    assert {path.name for path in modules("testbed") for name in imports(path) if is_in(name, "pytest")} == {
        "pytest_plugin.py"
    }


def test_only_single_plots_need_matplotlib() -> None:
    assert {path.name for path in modules("testbed") for name in imports(path) if is_in(name, "matplotlib")} == {
        "plots.py"
    }


def test_the_commands_decide_nothing() -> None:
    """The command line could be thrown away and written anew: engine and processes are the core's business."""
    for path in modules("testbed/cli"):
        for name in imports(path):
            assert not is_in(name, "docker", "subprocess", "testbed.backends.docker"), f"{path.name} imports {name}"


def test_only_the_docker_backend_knows_docker() -> None:
    knows = {path.name for path in modules("testbed") for name in imports(path) if is_in(name, "docker", "requests")}
    assert all(name.startswith("docker") or name in ("engine.py", "terminals.py") for name in knows), knows
