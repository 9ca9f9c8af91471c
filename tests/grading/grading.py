"""What tests of the grader share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random

import docker
import pytest

from chitcpd.tcp.api import TcpConnection
from testbed.grading import runner
from testbed.grading.catalog import Test
from testbed.grading.cells import cells
from testbed.grading.sandbox import Source
from testbed.grading.script import Bench, Failed
from testbed.unavailable import Unavailable


def grade(source: Source, tests: Sequence[tuple[Test, float]]) -> runner.Grade:
    """Grade a submission in a process."""
    with cells("process") as new_cell:
        return runner.grade(source, tests, new_cell=new_cell)


def passes(test: Test, tcp: type[TcpConnection]) -> bool:
    """Whether a TCP passes a test, here in this process."""
    try:
        test.run(Bench(tcp, Random(f"1 {test.id}")))
    except Failed:
        return False
    return True


def require_containers() -> None:
    """Skip the test where no engine answers and has our image; fail with REQUIRE_DOCKER."""
    try:
        with cells("docker"):
            pass
    except Unavailable as why:
        if os.environ.get("REQUIRE_DOCKER"):
            pytest.fail(f"{why} {why.remedy} (REQUIRE_DOCKER is set)", pytrace=False)
        pytest.skip(f"{why} {why.remedy}")


def containers_of(pid: int, **state: str) -> list[str]:
    """Those that this process has made."""
    client = docker.from_env()
    try:
        found = client.api.containers(all=True, filters={"label": "org.chitcp.kind=grade", **state})
        return [one["Id"] for one in found if f" {pid} " in one["Labels"].get("org.chitcp.maker", "")]
    finally:
        client.close()
