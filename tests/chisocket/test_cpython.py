"""CPython's own tests of sockets pass under `patched()`, but for those that cpython.py knows, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chisocket import cpython


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with cpython.daemon() as environment:
        yield environment


@pytest.mark.timeout(cpython.LIMIT + 30)
@pytest.mark.parametrize("name", cpython.CLASSES)
def test_a_class(name: str, environment: dict[str, str]) -> None:
    if not cpython.has_class(name):
        pytest.skip(f"this Python's test package has no {cpython.CLASSES[name]}.{name}")
    result = cpython.judge(name, environment)
    unknown = [test for test in result.failures() if cpython.reason(name, test) is None]
    for test in unknown:
        print(f"--- {test}: {result.outcomes[test]}\n{result.details[test]}")
    assert result.count("passed") or result.count("skipped")
    assert not unknown
