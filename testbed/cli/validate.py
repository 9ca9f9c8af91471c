"""testbed validate."""

from __future__ import annotations

from pathlib import Path

import click

from testbed import topology
from testbed.cli.complete import topologies
from testbed.cli.options import variables_option
from testbed.cli.output import complain, format_option, print_json, say, verbose_option


@click.command()
@click.argument(
    "files", metavar="FILE...", type=click.Path(path_type=Path), nargs=-1, required=True, shell_complete=topologies
)
@variables_option
@format_option
@verbose_option
def validate(files: tuple[Path, ...], variables: dict[str, str], output_format: str) -> int:
    """Say what is in topology files, or everything that is wrong with them.

    \b
    Examples:
      testbed validate topologies/*.yaml
      testbed validate my-lab.yaml --format json

    Nothing is started. Each fault is named with file:line:column; the exit status is 2 if there is one.
    """
    found = [_read(file, variables) for file in files]
    if output_format == "json":
        print_json([_for_programs(file, read) for file, read in zip(files, found, strict=True)])
    else:
        for file, read in zip(files, found, strict=True):
            _for_people(file, read)
    return 2 if any(isinstance(read, topology.TopologyError) for read in found) else 0


def _read(file: Path, variables: dict[str, str]) -> topology.Topology | topology.TopologyError:
    try:
        return topology.load(file, variables)
    except topology.TopologyError as error:
        return error


def _for_programs(file: Path, read: topology.Topology | topology.TopologyError) -> dict[str, object]:
    if isinstance(read, topology.TopologyError):
        faults = [
            {"line": f.line, "column": f.column, "path": f.path, "message": f.message, "text": str(f)}
            for f in read.faults
        ]
        return {"file": str(file), "good": False, "faults": faults}
    return {"file": str(file), "good": True, "faults": [], "name": read.name, "seed": read.seed, **_content(read)}


def _for_people(file: Path, read: topology.Topology | topology.TopologyError) -> None:
    if isinstance(read, topology.TopologyError):
        for fault in read.faults:
            complain(str(fault))
        return
    parts = [f"{key} {', '.join(names)}" for key, names in _content(read).items() if names]
    say(f"{file}: good: {read.name}: {'; '.join(parts)}", "good")


def _content(read: topology.Topology) -> dict[str, list[str]]:
    return {
        "hosts": list(read.hosts),
        "links": [link.name or "-".join(link.endpoints) for link in read.links],
        "apps": list(read.apps),
        "checks": [check.title for check in read.checks],
    }
