"""The topologies whose applications are in C, or run under chirun, on the local backend."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.c.conftest import BUILD
from tests.daemon.conftest import PROJECT
from tests.testbed.conftest import own_state

__all__ = ["own_state"]

TESTBED = [sys.executable, "-m", "testbed"]


@pytest.mark.skipif(BUILD != PROJECT / "build" / "c", reason="the local backend takes the build of `make c`")
@pytest.mark.parametrize(("name", "programs"), [("c-apps", ()), ("programs", ("curl", "iperf3", "nc", "redis-server"))])
@pytest.mark.usefixtures("own_state")
def test_a_run(tmp_path: Path, name: str, programs: tuple[str, ...]) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; the same runs on Docker, in tests/integration")
    ran = subprocess.run(
        [*TESTBED, "run", str(PROJECT / "topologies" / f"{name}.yaml"), "--backend", "local"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("\npassed\n")
