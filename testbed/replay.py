"""A run again: same topology, files, seed and backend, as its folder has them, into a new folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from testbed import backends, inputs
from testbed import run as runs
from testbed import topology as topologies
from testbed.backends.base import Report
from testbed.compared import Comparison, compare
from testbed.report import read
from testbed.report.read import Unreadable, inside
from testbed.signals import Interrupted
from testbed.topology import Topology
from testbed.topology.model import LabName

_Seed = Annotated[int, Field(strict=True, ge=0, lt=1 << 32)]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run that is over, as its folder tells."""

    folder: Path
    manifest: dict[str, Any]
    topology: Topology
    lab: str
    backend: str


def recorded(folder: Path) -> Recorded:
    """Read a run's folder. Raises Unreadable, TopologyError, and Unavailable if a file was not kept."""
    if inside(folder, "manifest.json") is None:
        raise Unreadable(
            f"{folder} has no file manifest.json: nobody knows what to run again. "
            f"`testbed collect` makes such folders; name a run's, as {folder.parent.name}/RUN_ID"
        )
    manifest = read.manifest(folder)
    try:
        lab = TypeAdapter(LabName).validate_python(manifest["lab"])
        seed = TypeAdapter(_Seed).validate_python(manifest["seed"])
        named = TypeAdapter(dict[str, dict[str, Any]]).validate_python(manifest.get("inputs", {}))
        variables = TypeAdapter(dict[str, str]).validate_python(manifest["variables"])
        backend = TypeAdapter(str).validate_python(manifest["backend"]["name"])
        verdict = str(manifest["verdict"])
        kept = inputs.kept(folder, named)
    except (LookupError, TypeError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise Unreadable(f"{folder}/manifest.json is not what a run writes: {why:.200}") from error
    if verdict in ("interrupted", "error"):
        raise Unreadable(
            f"{folder} is of a run that did not come to its end ({verdict}): there is nothing to compare with"
        )
    source = inside(folder, "topology.yaml")
    if source is None:
        raise Unreadable(f"{folder} has no file topology.yaml: there is nothing to run again")
    loaded = topologies.load(source, {}, inputs=kept)
    loaded.variables.update(variables)
    return Recorded(folder, manifest, loaded.model_copy(update={"seed": seed}), lab, backend)


def again(run: Recorded, runs_directory: Path, report: Report) -> Comparison:
    """Run it again, into a new folder, and compare. Raises Unavailable, Interrupted, UnknownBackend.

    An interrupted run's folder stays, as any interrupted run's does, and there is nothing to compare with.
    """
    choice = backends.choose(run.backend)
    source = run.folder / "topology.yaml"
    outcome = runs.run(run.topology, source, choice, name=run.lab, runs=runs_directory, report=report)
    if outcome.interrupted is not None:
        raise Interrupted(outcome.interrupted - 128)
    return compare(run.folder, outcome.directory, exact=choice.backend.repeatable)
