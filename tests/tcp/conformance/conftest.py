"""The fixture of the conformance suite, connections of the TCP that `--tcp` names."""

from __future__ import annotations

import pytest

from chitcpd.tcp.api import TcpConnection
from tests.tcp.harness import Maker, maker


@pytest.fixture
def a_connection(tcp: type[TcpConnection]) -> Maker:
    """Makes connections of the TCP under test, in whichever state."""
    return maker(tcp)
