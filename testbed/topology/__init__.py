"""The topology file: `load(path)` reads one, or says everything that is wrong with it."""

from __future__ import annotations

from testbed.topology.load import Fault, TopologyError, load
from testbed.topology.model import Topology

__all__ = ["Fault", "Topology", "TopologyError", "load"]
