"""Compiles what is optional in C when the project is installed; where that can't be, it is installed without.

`CHITCP_PURE=1` leaves it out. It needs a C compiler and Python's headers (Debian: gcc, python3-dev).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

MODULE = "chitcpd.tcp._checksum"


class Compile(BuildHookInterface[Any]):
    """Builds the module into the source tree, from where both wheel and editable installation take it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, or say why not."""
        root = Path(self.root)
        folder = root / "chitcpd" / "tcp"
        for old in folder.glob("_checksum.*.so"):
            old.unlink()
        if os.environ.get("CHITCP_PURE") or self.target_name != "wheel":
            return
        try:
            module = _compile(root)
        except Exception as error:  # of any compiler
            print(f"without the compiled checksum: {error}", file=sys.stderr)
            return
        build_data["artifacts"].append(str(module.relative_to(root)))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _compile(root: Path) -> Path:
    """The path of the compiled module."""
    source = MODULE.replace(".", "/") + ".c"
    extension = Extension(MODULE, [source], extra_compile_args=["-O3"], py_limited_api=True)
    before = os.getcwd()
    os.chdir(root)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            command = build_ext(Distribution({"name": MODULE, "ext_modules": [extension]}))
            command.inplace, command.build_temp = True, scratch
            command.ensure_finalized()
            command.run()
            return root / command.get_ext_filename(MODULE)
    finally:
        os.chdir(before)
