"""What of the docker backend needs no engine."""

from __future__ import annotations

import json
from threading import Barrier
from typing import Any

import pytest

from testbed.backends import engine, setup
from testbed.backends.docker import DockerBackend
from testbed.backends.docker_labels import name_of
from testbed.backends.docker_reach import Reach
from tests.testbed.plans import TWO, plan_of


def test_no_two_things_of_any_labs_have_one_name() -> None:
    assert name_of("x", "host", "host-y") != name_of("x-host", "host", "y")


def test_hosts_whose_links_will_change_are_attended_to_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Barrier(2, timeout=10)

    class Session:
        def __init__(self, *_: object, **__: object) -> None:
            both.wait()  # breaks if one comes after the other

        def ask(self, text: str, _ends: str = "") -> str:
            if text == setup.ADDRESSES:
                return json.dumps([{"ifname": "eth0", "addr_info": [{"local": end.address}]} for end in ends])
            return '{"answer": {}}' if text.startswith("{") else "[]"

    api: Any = object()
    backend = DockerBackend()
    reach = Reach(api)
    nodes = plan_of(TWO).nodes
    ends = [end for node in nodes for end in node.interfaces]
    monkeypatch.setattr(engine, "Session", Session)
    monkeypatch.setattr(backend, "nodes", lambda _lab: nodes)
    monkeypatch.setitem(vars(backend), "_reach", reach)
    backend.attend("lab", ["alice", "bob"])
    assert len(reach._sessions["lab"]) == 6  # a shell, a tc and a ctl of each
