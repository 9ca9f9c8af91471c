"""A host or router of a lab as text: what a backend keeps beside it, so that later commands need no topology file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from pydantic import TypeAdapter

from testbed.plan import HostPlan

_NODE = TypeAdapter(HostPlan)


def kept(nodes: Iterable[HostPlan]) -> tuple[HostPlan, ...]:
    """These as they are kept: somebody's own TCP is left out."""
    return tuple(replace(node, implementation=None) for node in nodes)


def dump(node: HostPlan) -> str:
    """As JSON; somebody's own TCP is left out."""
    return _NODE.dump_json(*kept([node])).decode()


def load(text: str) -> HostPlan:
    """What `dump` has made. Raises ValueError."""
    return _NODE.validate_json(text)


def fingerprint(node: HostPlan, *beside: object) -> str:
    """Equal for two plans of a host if its chitcpd, as it runs, can become what the other plan says.

    That is all but how it reaches the others, which it can be told; `beside`: what else it depends on.
    """
    ends = [(interface.link, interface.address) for interface in node.interfaces]
    parts = (node.name, ends, node.profile, node.settings, node.seed, node.image, node.command, node.forwards, beside)
    return hashlib.sha256(repr(parts).encode() + (node.implementation or b"")).hexdigest()[:32]
