"""How many points each test is worth: as the catalog has it, or as an instructor's YAML file says.

stages:                  # what a stage is worth in all; its tests share it as before
  connection: 30
  congestion control: 0  # not graded
tests:                   # what a test is worth beside the others of its stage
  fast-retransmit: 5
  nagle: 0
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from testbed.grading.catalog import STAGES, Test, catalog
from testbed.topology import TopologyError
from testbed.topology.faults import Fault, fault_at, one_of, shown
from testbed.topology.source import read

MOST = 10_000.0  # points


@dataclass(slots=True)
class Weights:
    """What differs from the catalog."""

    stages: dict[str, float] = field(default_factory=dict)
    tests: dict[str, float] = field(default_factory=dict)
    only: tuple[str, ...] = ()  # tests and stages; if there are any, no others are graded

    def points(self, tests: Iterable[Test]) -> list[tuple[Test, float]]:
        """Each test with its points, in the order of the catalog, without those that are worth nothing."""
        own = [(test, self.tests.get(test.id, test.points)) for test in tests]
        sums = {stage: sum(points for test, points in own if test.stage == stage) for stage in STAGES}
        weighed = [(test, self._share(test.stage, points, sums[test.stage])) for test, points in own]
        return [(test, points) for test, points in weighed if points > 0 and self._is_wanted(test)]

    def _is_wanted(self, test: Test) -> bool:
        return not self.only or test.id in self.only or test.stage in self.only

    def _share(self, stage: str, points: float, together: float) -> float:
        if stage not in self.stages or not together:
            return points
        return self.stages[stage] * points / together


class BadWeights(TopologyError):
    """A file of weights can't be used: `faults` says all that is wrong with it, and where."""


def load(path: Path) -> Weights:
    """Read a file of weights. Raises BadWeights."""
    try:
        root = yaml.compose(read(path), Loader=yaml.SafeLoader)
    except TopologyError as error:
        what = "found no file of weights that can be read, expected YAML with stages: and tests:"
        raise BadWeights([Fault(str(path), 0, 0, "", what)]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        why = f" ({problem})" if (problem := getattr(error, "problem", None)) else ""
        what = f"found no YAML{why}, expected stages: and tests:"
        raise BadWeights([Fault(str(path), line, column, "", what)]) from error
    faults: list[Fault] = []
    weights = Weights()
    stages: dict[str, yaml.Node] = {}
    for key, node in _pairs(root, (), path, faults):
        if key == "stages":
            weights.stages = _numbers(node, key, {stage: stage for stage in STAGES}, path, faults)
            stages = dict(_pairs(node, (key,), path, []))
        elif key == "tests":
            weights.tests = _numbers(node, key, {test.id: test.id for test in catalog()}, path, faults)
        else:
            faults.append(_at(node, (key,), one_of(key, ("stages", "tests"), "one of the keys"), path))
    worth = {test.stage for test in catalog() if weights.tests.get(test.id, test.points)}
    for stage, points in weights.stages.items():
        if points and stage not in worth:
            what = f"found {points:g} points that no test shares, expected one of the stage worth more than 0"
            faults.append(_at(stages[stage], ("stages", stage), what, path))
    if faults:
        raise BadWeights(faults)
    return weights


def _pairs(
    node: yaml.Node | None, steps: tuple[str, ...], path: Path, faults: list[Fault]
) -> list[tuple[str, yaml.Node]]:
    if node is None or not isinstance(node, yaml.MappingNode):
        message = "found no mapping, expected names with points, like connection: 30"
        faults.append(Fault(str(path), 1, 1, "", message) if node is None else _at(node, steps, message, path))
        return []
    pairs = [(str(key.value), value) for key, value in node.value]
    for at, (name, value) in enumerate(pairs):
        if name in [earlier for earlier, _ in pairs[:at]]:
            faults.append(_at(value, (*steps, name), "found for the second time, expected once", path))
    return pairs


def _numbers(node: yaml.Node, key: str, known: Mapping[str, str], path: Path, faults: list[Fault]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in _pairs(node, (key,), path, faults):
        if name not in known:
            what = "the name of a stage" if key == "stages" else "the id of a test (testbed grade --list)"
            faults.append(_at(value, (key, name), one_of(name, known, what), path))
            continue
        try:
            number = float(value.value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number <= MOST:
            seen = shown(value.value) if isinstance(value, yaml.ScalarNode) else "no number"
            faults.append(_at(value, (key, name), f"found {seen}, expected points: 0 to {MOST:g}", path))
            continue
        found[name] = number
    return found


def _at(node: yaml.Node, steps: tuple[str, ...], message: str, path: Path) -> Fault:
    fault = fault_at(node, steps, message)
    return Fault(str(path), fault.line, fault.column, fault.path, fault.message)
