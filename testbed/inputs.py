"""The files that a topology names, kept in the run folder: with these, `topology.yaml` can be run again as it was.

    inputs/SHA256       the content of one; the manifest's `inputs` say which path of the topology that is

What is too large is not kept, only known by its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.topology.files import FILES_IN_ALL, OwnFile
from testbed.unavailable import Unavailable

KEPT = 16 << 20  # bytes, of a file that is kept


def describe(inputs: Mapping[str, OwnFile]) -> dict[str, dict[str, object]]:
    """For the manifest: path as the topology has it -> hash, size, whether it may be executed, whether it is kept."""
    return {
        path: {
            "sha256": _sha256(file.content),
            "bytes": len(file.content),
            "executable": file.executable,
            "kept": len(file.content) <= KEPT,
        }
        for path, file in inputs.items()
    }


def keep(directory: Path, inputs: Mapping[str, OwnFile]) -> None:
    """Write them into a run folder."""
    for file in inputs.values():
        if len(file.content) <= KEPT:
            (directory / "inputs").mkdir(exist_ok=True)
            (directory / "inputs" / _sha256(file.content)).write_bytes(file.content)


def kept(directory: Path, described: Mapping[str, Any]) -> dict[str, OwnFile]:
    """What was kept, as the topology had it. Raises Unavailable for a file that is not there, or is another one now."""
    return {path: OwnFile(_content(directory, path, one), bool(one["executable"])) for path, one in described.items()}


def _content(directory: Path, path: str, described: Mapping[str, Any]) -> bytes:
    sha256 = str(described["sha256"])
    if len(sha256) != 64 or not sha256.isalnum():
        raise Unavailable(f"the manifest has a faulty hash of {path}.", "Run the topology itself.")
    kept = directory / "inputs" / sha256
    if not kept.is_file() or kept.stat().st_size > FILES_IN_ALL:
        raise Unavailable(
            f"the run folder has not kept {path}, a file of {described['bytes']} bytes.",
            f"Copy it to {kept}.",
        )
    content = kept.read_bytes()
    if _sha256(content) != sha256:
        raise Unavailable(f"{kept} is not what the run had as {path}.", "Put the file back that it was.")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
