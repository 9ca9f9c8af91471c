"""Which TCP the tests judge: `pytest tests/tcp --tcp my_tcp.py`; by default the reference."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from chitcpd.loader import REFERENCE, LoadError, load
from chitcpd.tcp.api import TcpConnection

pytest.register_assert_rewrite("tests.tcp.harness")  # so that a failure shows what was sent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tcp",
        metavar="TCP",
        default=REFERENCE,
        help="the TCP under test: path/to/file.py, path/to/file.py:Class or module:Class (default: the reference)",
    )


@pytest.fixture(scope="session", autouse=True)
def _little_garbage_collection() -> Iterator[None]:
    """Millions of objects come and go here, hardly any in cycles: looking for those costs a fifth of the time."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture(scope="session")
def tcp_name(pytestconfig: pytest.Config) -> str:
    """What --tcp says. It is unknown to pytest if only a folder further up was asked for: then it is the reference."""
    return str(pytestconfig.getoption("--tcp", default=REFERENCE))


@pytest.fixture(scope="session")
def tcp(tcp_name: str) -> type[TcpConnection]:
    """The TCP under test."""
    try:
        return load(tcp_name)
    except LoadError as error:
        pytest.exit(f"--tcp: {error}", returncode=2)
