"""A grade for programs: JSON, JUnit's XML, Gradescope's results.json, and the CSV of a class."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from testbed.grading.catalog import Test
from testbed.grading.diagram import draw
from testbed.grading.runner import Grade, Verdict

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def replay(grade: Grade, verdict: Verdict, path: str | None = None) -> str:
    """The command that runs this test again."""
    seed = f" --seed {grade.seed}" if grade.seed != 1 else ""
    image = "--image " if grade.is_image else ""
    return f"testbed grade {image}{shlex.quote(path or grade.name)} --only {verdict.test.id}{seed}"


def diagrams(grade: Grade, verdict: Verdict, *, width: int = 80) -> tuple[str, str]:
    """What happened, and what should have: the reference in the same test. Empty where nothing did."""
    name = "chitcpd" if grade.is_image else grade.name
    return draw(verdict.happened, name, width=width), draw(verdict.expected, "reference", width=width)


def number(points: float) -> str:
    """Points as a person writes them: 2, 1.5, 0.33."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def of_test(test: Test, points: float) -> dict[str, Any]:
    """As docs/schemas/grade-list.schema.json says."""
    return {"id": test.id, "stage": test.stage, "title": test.title, "rfc": test.rfc, "points": _round(points)}


def to_json(grade: Grade, path: str | None = None) -> dict[str, Any]:
    """As docs/schemas/grade.schema.json says."""
    return {
        "submission": path or grade.name,
        "seed": grade.seed,
        "earned": _round(grade.earned),
        "points": _round(grade.points),
        "left_out": _round(grade.left_out),
        "trouble": grade.trouble,
        "notes": list(grade.notes),
        "stages": [
            {
                "stage": stage,
                "earned": _round(sum(verdict.earned for verdict in verdicts)),
                "points": _round(sum(verdict.points for verdict in verdicts)),
                "tests": [_test(grade, verdict, path) for verdict in verdicts],
            }
            for stage, verdicts in grade.stages()
        ],
    }


def _test(grade: Grade, verdict: Verdict, path: str | None) -> dict[str, Any]:
    happened, expected = diagrams(grade, verdict)
    return {
        "id": verdict.test.id,
        "title": verdict.test.title,
        "rfc": verdict.test.rfc,
        "points": _round(verdict.points),
        "earned": _round(verdict.earned),
        "passed": verdict.passed,
        "unseen": verdict.unseen,
        "message": verdict.message,
        "traceback": list(verdict.way),
        "printed": verdict.printed,
        "happened": happened,
        "expected": expected,
        "replay": replay(grade, verdict, path),
    }


def to_junit(grades: Sequence[Grade], paths: Sequence[str]) -> str:
    """JUnit's XML: a suite for each submission."""
    root = ElementTree.Element("testsuites")
    for grade, path in zip(grades, paths, strict=True):
        failed = sum(not verdict.passed and not verdict.unseen for verdict in grade.verdicts)
        suite = ElementTree.SubElement(
            root, "testsuite", name=_xml(grade.name), tests=str(len(grade.verdicts)), failures=str(failed), errors="0"
        )
        properties = ElementTree.SubElement(suite, "properties")
        ElementTree.SubElement(properties, "property", name="seed", value=str(grade.seed))
        for verdict in grade.verdicts:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{_xml(grade.name)}.{verdict.test.stage}", name=verdict.test.id
            )
            if verdict.unseen:
                ElementTree.SubElement(case, "skipped", message=_xml(verdict.unseen))
            elif not verdict.passed:
                failure = ElementTree.SubElement(case, "failure", message=_xml(verdict.message))
                failure.text = _xml(_text(grade, verdict, path))
            if verdict.printed:
                ElementTree.SubElement(case, "system-out").text = _xml(verdict.printed)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def to_gradescope(grade: Grade) -> str:
    """The results.json of a Gradescope autograder."""
    tests = [
        {
            "name": f"{verdict.test.title} ({verdict.test.id})",
            "number": f"{place}.{at}",
            "score": _round(verdict.earned),
            "max_score": _round(verdict.points),
            "status": "passed" if verdict.passed else "failed",
            "output": "" if verdict.passed else _text(grade, verdict),
            "output_format": "text",
            "tags": [stage],
        }
        for place, (stage, verdicts) in enumerate(grade.stages(), start=1)
        for at, verdict in enumerate(verdicts, start=1)
        if not verdict.unseen
    ]
    results = {
        "score": _round(grade.earned),
        "output": grade.trouble,
        "output_format": "text",
        "stdout_visibility": "hidden",
        "tests": tests,
    }
    return json.dumps(results, indent=2) + "\n"


def to_csv(grades: Sequence[Grade]) -> str:
    """A line for each submission: points in all, and by stage."""
    stages = list(dict.fromkeys(stage for grade in grades for stage, _ in grade.stages()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["submission", "earned", "points", *stages, "trouble", "seed"])
    for grade in grades:
        by_stage = {stage: number(sum(v.earned for v in verdicts)) for stage, verdicts in grade.stages()}
        row = [grade.name, number(grade.earned), number(grade.points), *(by_stage.get(stage, "0") for stage in stages)]
        writer.writerow([_cell(value) for value in (*row, grade.trouble, grade.seed)])
    return text.getvalue()


def _cell(value: object) -> object:
    """A spreadsheet must not take a name for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _text(grade: Grade, verdict: Verdict, path: str | None = None) -> str:
    """All that there is to say of a failed test, for people."""
    happened, expected = diagrams(grade, verdict)
    parts = [verdict.message, f"{verdict.test.rfc}; again: {replay(grade, verdict, path)}", *verdict.way]
    if happened:
        parts += ["", "What happened:", happened, "What should have happened:", expected]
    return "\n".join(parts)


def _xml(text: str) -> str:
    return _NOT_IN_XML.sub("?", text)


def _round(points: float) -> float:
    return round(points, 2)
