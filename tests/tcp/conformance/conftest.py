"""The fixture of the conformance suite, connections of the TCP that `--tcp` names."""

from __future__ import annotations

from pathlib import Path

import pytest

from chitcpd.tcp.api import TcpConnection
from tests.tcp.harness import Maker, maker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A script takes milliseconds: a TCP that is still at it after half a minute never ends."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(30))


@pytest.fixture
def a_connection(tcp: type[TcpConnection]) -> Maker:
    """Makes connections of the TCP under test, in whichever state."""
    return maker(tcp)
