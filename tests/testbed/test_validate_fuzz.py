"""Whatever a topology file says: a Topology or a TopologyError, whose faults are within the file and can be printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.topology import Fault, TopologyError, load

WORDS = st.sampled_from(
    """name include seed defaults hosts routers links apps events capture checks host link tcp profile implementation
    endpoints subnet delay jitter rate queue loss duplicate reorder corrupt mtu run env files needs ready
    listening expect exit timeout segments wire integrity random underlay image command output restart limits
    memory processes at set for from down up partition kill pause app drop match nth backoff fairness min max
    within states 0.9 SIGTERM chitcpd alice bob lab 25ms 1% 10mbit 2bdp 5 5B 10.0.0.0/29 true modern . ~ << *a
    &a !!x "\\ud800" "\\U99999999" %YAML ${HOME} ${NO_SUCH:-1} ${ $${ ${1} any.yaml""".split()  # noqa: SIM905
)
SCALARS = WORDS | st.text(max_size=8) | st.integers() | st.floats() | st.none() | st.booleans() | st.dates()
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5),
    max_leaves=30,
)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "name": SCALARS,
        "hosts": st.dictionaries(WORDS, ANYTHING, max_size=3),
        "defaults": st.fixed_dictionaries({}, optional={"link": ANYTHING, "host": ANYTHING}),
        "links": st.lists(st.dictionaries(WORDS, ANYTHING, max_size=6), max_size=3),
        "apps": st.dictionaries(WORDS, st.dictionaries(WORDS, ANYTHING, max_size=6), max_size=3),
        "routers": st.dictionaries(WORDS, ANYTHING, max_size=2),
        "events": st.lists(st.dictionaries(WORDS, ANYTHING, max_size=4), max_size=3),
        "checks": st.lists(st.dictionaries(WORDS, ANYTHING, max_size=2), max_size=2),
        "include": st.lists(SCALARS, max_size=2),
    },
)
WHATEVER = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

GOOD = """
name: lab
seed: 7
defaults: {host: {tcp: {profile: classic}}, link: {delay: 10ms, jitter: 1ms}}
hosts: {alice: {}, bob: {tcp: {rto_min: 1s}}, carol: {image: "c:1", command: [run]}}
routers: {r1: {}}
links:
  - {endpoints: [alice, r1], rate: 10mbit, queue: 2bdp, underlay: {loss: 1%}, "alice->r1": {loss: 1%}}
  - {endpoints: [bob, carol, r1], name: lan, subnet: 10.9.0.0/28, drop: [{from: bob, match: SYN, nth: 1-2}]}
apps:
  server: {host: bob, run: [x], files: {f: {random: 1kB}}, ready: {listening: 7}, limits: {memory: 64MiB}}
  client: {host: alice, run: [x], needs: [server], env: {A: b}, expect: {exit: 0}, timeout: 5s, restart: 1}
events:
  - {at: 1s, link: alice-r1, from: r1, set: {rate: 1mbit}, for: 2s}
  - {at: 2s, link: lan, down: true}
  - {at: 3s, partition: [[alice], [bob, carol]]}
  - {at: 4s, host: bob, pause: 1s}
  - {at: 5s, app: server, kill: SIGTERM}
capture: {segments: true, wire: false}
checks:
  - {integrity: client}
  - {fairness: {apps: [server, client], min: 0.9}}
  - {states: {app: client, all: [ESTABLISHED]}}
"""


def assert_loads_or_is_refused(file: Path) -> None:
    text = file.read_bytes().decode(errors="replace")
    lines = 1 + sum(text.count(end) for end in "\n\r\x85\u2028\u2029")  # all of these end a line in YAML 1.1
    faults = []
    try:
        load(file)
    except TopologyError as error:
        faults = error.faults or [Fault("none was given", -1, -1, "", "")]
    for fault in faults:
        assert 0 <= fault.line <= lines
        assert str(fault).encode()


@WHATEVER
@given(data=ANYTHING | SHAPED)
def test_any_data_loads_or_is_refused(data: object, tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    assert_loads_or_is_refused(file)


@WHATEVER
@given(pieces=st.lists(WORDS | st.sampled_from(list("\n :-?[]{},&*!|>'\"%@`#\t\\")) | st.text(max_size=3), max_size=40))
def test_any_text_loads_or_is_refused(pieces: list[str], tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_text("".join(pieces), encoding="utf-8")
    assert_loads_or_is_refused(file)


@WHATEVER
@given(content=st.binary(max_size=60))
def test_any_bytes_load_or_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_bytes(content)
    assert_loads_or_is_refused(file)


def test_the_good_one_is_good(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    assert load(tmp_path / "good.yaml").name == yaml.safe_load(GOOD)["name"]


def mutated(node: object, draw: Callable[[st.SearchStrategy[Any]], Any]) -> object:
    """The same, but something in it is replaced, gone, there twice, or under another key."""
    if isinstance(node, dict) and node:
        key = draw(st.sampled_from(sorted(node, key=str)))
        match draw(st.sampled_from(["inside", "inside", "inside", "replace", "delete", "rename"])):
            case "inside":
                return node | {key: mutated(node[key], draw)}
            case "replace":
                return node | {key: draw(ANYTHING)}
            case "delete":
                return {other: value for other, value in node.items() if other != key}
            case _:
                return {draw(WORDS) if other == key else other: value for other, value in node.items()}
    if isinstance(node, list) and node:
        at = draw(st.integers(0, len(node) - 1))
        match draw(st.sampled_from(["inside", "inside", "twice", "delete"])):
            case "inside":
                return [*node[:at], mutated(node[at], draw), *node[at + 1 :]]
            case "twice":
                return [*node, node[at]]
            case _:
                return node[:at] + node[at + 1 :]
    return draw(ANYTHING)


@WHATEVER
@given(data=st.data(), times=st.integers(1, 3))
def test_a_good_topology_with_a_few_changes_loads_or_is_refused(
    data: st.DataObject, times: int, tmp_path: Path
) -> None:
    topology: object = yaml.load(GOOD, Loader=yaml.BaseLoader)
    for _ in range(times):
        topology = mutated(topology, data.draw)
    (tmp_path / "any.yaml").write_text(yaml.safe_dump(topology, allow_unicode=True), encoding="utf-8")
    assert_loads_or_is_refused(tmp_path / "any.yaml")


@WHATEVER
@given(data=st.data())
def test_a_good_text_with_lines_gone_or_twice_loads_or_is_refused(data: st.DataObject, tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    taken = data.draw(st.lists(st.sampled_from(range(len(lines))), min_size=1, max_size=len(lines) + 5))
    (tmp_path / "any.yaml").write_text("\n".join(lines[index] for index in taken), encoding="utf-8")
    assert_loads_or_is_refused(tmp_path / "any.yaml")
