"""The topology file: `load(path)` reads one, or says everything that is wrong with it."""

from __future__ import annotations

from testbed.topology.faults import Fault, TopologyError
from testbed.topology.load import load, resolved
from testbed.topology.model import Topology

__all__ = ["Fault", "Topology", "TopologyError", "load", "resolved"]
