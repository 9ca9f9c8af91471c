"""The network layer where the test may change addresses: in a network namespace of its own, where only loopback is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.conftest import PROJECT, environment

TESTS = Path(__file__).parent / "peers_namespace.py"
_ENTER = ["unshare", "--user", "--map-root-user", "--net"]


def _why_not() -> str | None:
    """Why there can't be a namespace here."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return "unshare and ip are needed"
    done = subprocess.run([*_ENTER, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no network namespace: {done.stderr.strip()}"


def test_in_a_namespace() -> None:
    why_not = _why_not()
    if why_not is not None:
        pytest.skip(why_not)
    inner = f'ip link set lo up && exec "{sys.executable}" -m pytest -q -p no:cacheprovider --timeout 60 "{TESTS}"'
    done = subprocess.run(
        [*_ENTER, "sh", "-c", inner],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environment(),
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
