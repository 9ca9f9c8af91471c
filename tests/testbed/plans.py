"""Plans for tests, made as a run makes them: from what a topology file says, as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from testbed.plan import AppPlan, Plan, plan
from testbed.topology import Topology

POOL = "10.213.0.0/16"
Written = dict[str, Any]  # a topology as YAML gives it

TWO: Written = {
    "name": "two",
    "seed": "7",
    "hosts": {"alice": {}, "bob": {}},
    "links": [{"endpoints": ["alice", "bob"]}],
}


def plan_of(
    written: Written,
    *,
    lab: str = "lab",
    run_id: str = "run-1",
    pool: str = POOL,
    in_use: Mapping[str, str] | None = None,
    keep: Mapping[str, str] | None = None,
) -> Plan:
    """The plan of a topology that names no files."""
    topology = Topology.model_validate(written)
    return plan(topology, run_id=run_id, lab=lab, pool=pool, in_use=in_use or {}, keep=keep)


def an_app(name: str, **changes: object) -> AppPlan:
    """An application on alice that has nothing and needs nothing."""
    written = TWO | {"apps": {name: {"host": "alice", "run": ["true"], "expect": {"exit": "0"}}}}
    return dataclasses.replace(plan_of(written).apps[0], **changes)  # type: ignore[arg-type]
