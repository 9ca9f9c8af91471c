"""docs/rfc9293.md is up to date, and nothing is missing in it."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.tcp.ledger import REQUIREMENTS, ROOT, Requirement, document, marked_tests


def test_the_document_is_up_to_date() -> None:
    written = (ROOT / "docs" / "rfc9293.md").read_text()
    assert written == document(), "run `python -m tests.tcp.ledger > docs/rfc9293.md`"


def test_every_code_of_appendix_b_is_there_once() -> None:
    codes = [requirement.code for requirement in REQUIREMENTS]
    expected = [f"MUST-{n}" for n in range(1, 70)] + [f"SHLD-{n}" for n in range(1, 32)]
    expected += [f"MAY-{n}" for n in range(1, 19)] + ["REC-1"]
    assert Counter(codes) == Counter(expected)


def test_53_must_and_23_shld_apply_without_a_layer_below() -> None:
    applying = Counter(requirement.code.split("-")[0] for requirement in REQUIREMENTS if not requirement.lower)
    assert (applying["MUST"], applying["SHLD"]) == (53, 23)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.code)
def test_every_code_has_a_test_or_a_reason(requirement: Requirement) -> None:
    """What is implemented is shown by a test; what isn't has a reason."""
    shown = marked_tests()[requirement.code]
    if requirement.where:
        assert shown, "implemented, but shown by no test: mark one with @pytest.mark.rfc9293"
    else:
        assert requirement.reason, "say where it is implemented, or why it isn't"
        assert not shown, "shown by a test, but said to be nowhere"


def test_every_mark_names_a_code_of_appendix_b() -> None:
    assert set(marked_tests()) <= {requirement.code for requirement in REQUIREMENTS}


def test_every_place_exists() -> None:
    for requirement in REQUIREMENTS:
        for place in requirement.where.split():
            file, _, name = place.partition(":")
            assert name in _names(ROOT / "chitcpd" / file), f"{requirement.code}: there is no {place}"


def _names(path: Path) -> set[str]:
    """Functions, classes, and methods as Class.method."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
    return names
