"""manifest.json: everything that somebody needs to understand a run, or to make it again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict
from functools import cache
from pathlib import Path

import chitcpd
from testbed import inputs
from testbed.backends.base import Mechanism
from testbed.events import Reshape
from testbed.outcome import Ending, Outcome
from testbed.plan import HostPlan, Plan
from testbed.topology import Topology


def write(outcome: Outcome, *, topology: Topology, backend: str, why: str) -> None:
    """Write it into the run folder, whole or not at all; and each application's exit.json."""
    for name, ending in outcome.endings.items():
        directory = outcome.directory / "apps" / name
        if directory.is_dir():
            (directory / "exit.json").write_text(_json(_ending(ending)))
    fresh = outcome.directory / "manifest.json.new"
    fresh.write_text(_json(_manifest(outcome, topology, backend, why)))
    os.replace(fresh, outcome.directory / "manifest.json")


@cache
def code() -> str:
    """SHA-256 of the source of chitcpd and of the applications, as it is here: one version has many while it grows."""
    root = Path(chitcpd.__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*root.glob("chitcpd/**/*.py"), *root.glob("chisocket/**/*.py")]):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _manifest(outcome: Outcome, topology: Topology, backend: str, why: str) -> dict[str, object]:
    plan = outcome.plan
    return {
        "topology": topology.name,
        "variables": topology.variables,
        "inputs": inputs.describe(topology.inputs),
        "lab": plan.lab,
        "run_id": plan.run_id,
        "seed": plan.seed,
        "verdict": outcome.verdict,
        "status": outcome.status,
        "failure": outcome.failure,
        "error": outcome.error,
        "began": _rounded(outcome.began),
        "seconds": {"up": round(outcome.up_seconds, 3), "run": round(outcome.run_seconds, 3)},
        "versions": {
            "testbed": chitcpd.__version__,  # one distribution, one version
            "python": platform.python_version(),
            "kernel": platform.release(),
            "code": code(),
            **outcome.built.versions,  # an engine elsewhere has a kernel of its own
        },
        "backend": {"name": backend, "why": why},
        "hosts": {host.name: _host(host) for host in plan.hosts},
        "routers": {router.name: _addresses(router) for router in plan.routers},
        "links": [_link(plan, mechanism) for mechanism in outcome.built.mechanisms],
        "apps": {name: _ending(ending) for name, ending in outcome.endings.items()},
        "probes": [{**asdict(probed), "good": probed.good} for probed in outcome.built.probed],
        "events": [
            {
                "at": happened.step.at,
                "event": happened.step.title,
                "done": _rounded(happened.at),
                "links": [_reshaped(reshape) for reshape in happened.step.reshapes],
            }
            for happened in outcome.events
        ],
        "checks": [asdict(result) for result in outcome.checks],
        "notes": outcome.notes,
    }


def _host(host: HostPlan) -> dict[str, object]:
    own = host.implementation
    return {
        "addresses": _addresses(host),
        "image": host.image,
        "tcp": {"profile": host.profile, **host.settings},
        "implementation_sha256": None if own is None else hashlib.sha256(own).hexdigest(),
        "seed": host.seed,
    }


def _addresses(node: HostPlan) -> dict[str, str]:
    return {interface.link: interface.address for interface in node.interfaces}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _link(plan: Plan, mechanism: Mechanism) -> dict[str, object]:
    """One direction: what was asked for, in SI units, and what does it."""
    asked = next(
        (
            {
                "mtu": interface.mtu,
                "seed": interface.seed,
                "underlay": asdict(interface.underlay),
                **asdict(interface.shape),
            }
            for host in plan.nodes
            for interface in host.interfaces
            if interface.link == mechanism.link and mechanism.direction == f"{host.name}->{interface.towards}"
        ),
        {},
    )
    subnet = next((link.subnet for link in plan.links if link.name == mechanism.link), None)
    return {
        "link": mechanism.link,
        "direction": mechanism.direction,
        "subnet": subnet,
        "asked": asked,
        "mechanism": {"delay_jitter_rate": mechanism.delay_jitter_rate, "all_else": mechanism.all_else},
        "why": mechanism.why,
    }


def _reshaped(reshape: Reshape) -> dict[str, object]:
    """What one direction of a link was asked to do from then on."""
    interface = reshape.interface
    return {
        "link": interface.link,
        "direction": f"{reshape.node}->{interface.towards}",
        "asked": {"underlay": asdict(reshape.underlay), **asdict(reshape.shape)},
    }


def _ending(ending: Ending) -> dict[str, object]:
    return {
        "host": ending.app.host,
        "command": ending.app.run,
        "ended": ending.how,
        "status": ending.status,
        "expected": ending.app.expect_exit,
        "seconds": round(ending.seconds, 3),
        "restarts": ending.restarts,
    }
