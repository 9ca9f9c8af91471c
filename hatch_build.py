"""Compiles what is optional when the project is installed; where that can't be, it is installed without.

The checksum in C is compiled wherever there is a C compiler with Python's headers (Debian: gcc, python3-dev), unless
CHITCP_PURE=1. With CHITCP_MYPYC=1 the TCP itself and what carries its segments are compiled too, by mypyc, from the
same source; not in an editable installation, where a change of the source would have no effect any more.

    python hatch_build.py DIRECTORY     compile both in a copy of the sources
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

CHECKSUM = "chitcpd.tcp._checksum"
# By measurement: where the time goes.
COMPILED = (
    *("chitcpd/tcp/api.py", "chitcpd/tcp/bursts.py", "chitcpd/tcp/congestion.py", "chitcpd/tcp/connection.py"),
    *("chitcpd/tcp/receive.py", "chitcpd/tcp/recovery.py", "chitcpd/tcp/rto.py", "chitcpd/tcp/send.py"),
    *("chitcpd/tcp/seq.py", "chitcpd/tcp/wire.py"),
    *("chitcpd/carrier.py", "chitcpd/demux.py", "chitcpd/driver.py", "chitcpd/faults.py", "chitcpd/links.py"),
    *("chitcpd/options.py", "chitcpd/pairs.py", "chitcpd/peer.py", "chitcpd/peers.py", "chitcpd/sim.py"),
    *("chitcpd/simlab.py", "chitcpd/sockets.py", "chitcpd/turns.py"),
)

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # called as a program
    BuildHookInterface = object


class Compile(BuildHookInterface):  # type: ignore[misc]
    """Compiles into the source tree, from where both wheel and editable installation take it."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the build needs besides."""
        return ["mypy[mypyc]>=1.15"] if _wants_mypyc() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, or say why not."""
        if self.target_name != "wheel" or os.environ.get("CHITCP_PURE"):
            return
        root, modules = Path(self.root), []
        for part in (compile_checksum, *([compile_sources] if _wants_mypyc() and version == "standard" else [])):
            try:
                modules += part(root)
            except Exception as error:  # of any compiler
                print(f"{part.__name__} has failed, and is left out: {error}", file=sys.stderr)
        if modules:
            build_data["artifacts"] += [str(module.relative_to(root)) for module in modules]
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def _wants_mypyc() -> bool:
    return bool(os.environ.get("CHITCP_MYPYC"))


def compile_checksum(root: Path) -> list[Path]:
    """Compile the checksum below `root`; the path of the module. Raises what the compiler raises."""
    from setuptools import Extension

    source = f"{CHECKSUM.replace('.', '/')}.c"
    return _build(root, [Extension(CHECKSUM, [source], extra_compile_args=["-O3"], py_limited_api=True)])


def compile_sources(root: Path) -> list[Path]:
    """Compile COMPILED below `root`; the paths of the modules. Raises what the compiler raises."""
    from mypyc.build import mypycify

    with chdir(root), tempfile.TemporaryDirectory() as scratch:
        return _build(root, mypycify([*COMPILED], target_dir=scratch, group_name="chitcpd"))


def _build(root: Path, extensions: list[Any]) -> list[Path]:
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    with chdir(root), tempfile.TemporaryDirectory() as scratch:
        command = build_ext(Distribution({"name": "chitcpd", "ext_modules": extensions}))
        command.inplace, command.build_temp, command.build_lib = True, scratch, scratch
        command.ensure_finalized()
        command.run()
        return [root / command.get_ext_fullpath(extension.name) for extension in extensions]


if __name__ == "__main__":
    directory = Path(sys.argv[1]).resolve()
    for module in compile_checksum(directory) + compile_sources(directory):
        print(module)
