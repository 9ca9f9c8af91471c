"""What a topology file may say, and what is said to a person whose file says something else."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chitcpd import units
from chitcpd.faults import KINDS
from testbed.topology import Fault, Topology, TopologyError, load
from testbed.topology.load import FILE_SIZE
from testbed.topology.model import DropRule, Link, OwnFile, RandomFile
from testbed.topology.presets import PRESETS

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
BROKEN = Path(__file__).parent / "broken"

LAB = """
name: lab
hosts: {alice: {}, bob: {}}
"""


def load_text(folder: Path, text: str) -> Topology:
    file = folder / "lab.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def faults_of(folder: Path, text: str) -> list[Fault]:
    with pytest.raises(TopologyError) as caught:
        load_text(folder, text)
    return caught.value.faults


# What is right


def test_the_first_topology_that_a_newcomer_reads() -> None:
    topology = load(TOPOLOGIES / "two-hosts.yaml")

    assert topology.name == "two-hosts"
    assert list(topology.hosts) == ["alice", "bob"]
    assert topology.links[0].endpoints == ("alice", "bob")
    assert topology.apps["server"].files == {"payload.bin": RandomFile.model_validate({"random": "5MiB"})}
    assert topology.checks[0].integrity == "client"


@pytest.mark.parametrize("file", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda file: file.name)
def test_every_topology_of_the_project_is_right_and_named_like_its_file(file: Path) -> None:
    assert load(file).name == file.stem


def test_quantities_are_read_to_si_units(tmp_path: Path) -> None:
    link = "{endpoints: [alice, bob], delay: 25ms, jitter: 2ms, rate: 10mbit, queue: 2bdp, loss: 1%, mtu: 576}"
    read = load_text(tmp_path, LAB + f"links: [{link}]").links[0]

    assert (read.delay, read.jitter, read.rate, read.loss, read.mtu) == (0.025, 0.002, 10e6, 0.01, 576)
    assert read.queue == units.Queue(bdp=2)


def test_text_stays_as_it_stands_in_the_file(tmp_path: Path) -> None:
    """YAML 1.1 makes false of `no`, 4096 of 010000, and 450 of 7:30."""
    text = "name: off\nhosts: {no: {}, yes: {}}\napps: {on: {host: no, run: [serve, 010000, 7:30, ~, '']}}"
    topology = load_text(tmp_path, text)

    assert topology.name == "off"
    assert list(topology.hosts) == ["no", "yes"]
    assert topology.apps["on"].run == ("serve", "010000", "7:30", "~", "")


def test_a_host_may_be_bare(tmp_path: Path) -> None:
    topology = load_text(tmp_path, "name: lab\nhosts:\n  alice:\n  bob:\n")

    assert list(topology.hosts) == ["alice", "bob"]


def test_defaults_hold_where_a_link_or_host_says_nothing_else(tmp_path: Path) -> None:
    topology = load_text(
        tmp_path,
        """
        name: lab
        defaults: {host: {tcp: {profile: classic}}, link: {delay: 10ms, loss: 1%}}
        hosts: {alice: {}, bob: {tcp: {profile: modern}}}
        links: [{endpoints: [alice, bob], loss: 0%}]
        """,
    )

    assert topology.settings(topology.links[0], "alice").delay == 0.01
    assert topology.settings(topology.links[0], "alice").loss == 0
    assert topology.tcp("alice").profile == "classic"
    assert topology.tcp("bob").profile == "modern"


def test_a_direction_stands_over_the_link_and_that_over_its_preset_and_that_over_the_defaults(tmp_path: Path) -> None:
    topology = load_text(
        tmp_path,
        """
        name: lab
        defaults: {link: {delay: 1ms, corrupt: 1%}}
        hosts: {alice: {}, bob: {}}
        links: [{endpoints: [alice, bob], link: dsl, loss: 2%, "bob->alice": {rate: 1mbit, loss: 0%}}]
        """,
    )
    up, down = (topology.settings(topology.links[0], host) for host in ("alice", "bob"))

    assert (up.rate, up.loss, up.delay, up.corrupt) == (16e6, 0.02, 0.012, 0.01)
    assert (down.rate, down.loss, down.delay, down.corrupt) == (1e6, 0.0, 0.012, 0.01)
    assert up.queue == down.queue == units.Queue(seconds=0.1)


def test_each_preset_is_a_link_that_can_be(tmp_path: Path) -> None:
    for preset in PRESETS:
        topology = load_text(tmp_path, LAB + f"links: [{{endpoints: [alice, bob], link: {preset}}}]")
        read = topology.settings(topology.links[0], "alice")
        assert list(read.impossible()) == []
        assert read.delay > 0
    assert set(get_args(get_args(Link.model_fields["link"].annotation)[0])) == set(PRESETS)


def test_a_drop_rule_may_match_what_chitcpd_knows() -> None:
    assert get_args(DropRule.model_fields["match"].annotation) == tuple(KINDS)


def test_files_are_read_from_beside_the_topology(tmp_path: Path) -> None:
    (tmp_path / "payload.bin").write_bytes(b"payload")
    (tmp_path / "my_tcp.py").write_bytes(b"# a TCP")
    (tmp_path / "program").write_bytes(b"#!/bin/sh")
    (tmp_path / "program").chmod(0o755)
    topology = load_text(
        tmp_path,
        """
        name: lab
        hosts: {alice: {tcp: {implementation: my_tcp.py}}}
        apps: {server: {host: alice, run: [serve], files: {renamed.bin: ./payload.bin, program: program}}}
        """,
    )

    assert topology.apps["server"].files == {
        "renamed.bin": OwnFile(b"payload", executable=False),
        "program": OwnFile(b"#!/bin/sh", executable=True),
    }
    assert topology.tcp("alice").implementation == b"# a TCP"


def test_a_subnet_and_an_alias(tmp_path: Path) -> None:
    text = (
        LAB
        + """
links: [{endpoints: [alice, bob], subnet: 10.9.0.0/24}]
apps: {one: &app {host: alice, run: [x]}, two: *app}
"""
    )
    topology = load_text(tmp_path, text)

    assert topology.links[0].subnet == IPv4Network("10.9.0.0/24")
    assert topology.apps["one"] == topology.apps["two"]


# What is wrong


@pytest.mark.parametrize("file", sorted(BROKEN.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_broken_topology_is_refused_with_all_its_faults(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """broken/X.txt has what a person is told about broken/X.yaml."""
    monkeypatch.chdir(BROKEN)
    with pytest.raises(TopologyError) as caught:
        load(file.name)

    assert str(caught.value) + "\n" == file.with_suffix(".txt").read_text()


def test_a_fault_knows_where_it_is(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path, "name: lab\nhosts: {alice: {}}\nseed: none\n")

    assert (fault.line, fault.column, fault.path) == (3, 7, "seed")
    assert fault.message == "found none, expected a whole number from 0 to 4294967295"


def test_a_malformed_delay_does_not_make_its_jitter_look_wrong(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, LAB + "links: [{endpoints: [alice, bob], delay: 25, jitter: 2ms}]")

    assert [fault.path for fault in faults] == ["links[0].delay"]


def test_malformed_hosts_do_not_make_each_link_look_wrong(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, "name: lab\nhosts: alice\nlinks: [{endpoints: [alice, bob]}]")

    assert [fault.path for fault in faults] == ["hosts"]


@pytest.mark.parametrize("path", ["missing.yaml", ".", "a\0b"])
def test_a_file_that_can_not_be_read(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TopologyError, match="found no file that can be read"):
        load(path)


def test_a_file_that_never_ends_is_not_read_to_its_end() -> None:
    with pytest.raises(TopologyError, match="found a file of more than 256KiB"):
        load("/dev/zero")


def test_a_device_is_no_payload(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, LAB + "apps: {a: {host: bob, run: [x], files: {zeros: /dev/zero}}}")

    assert [str(fault.message) for fault in faults] == ["found /dev/zero, expected an ordinary file"]


@pytest.mark.parametrize("text", ["[" * 200_000, "- " * 100_000, "{" * 100_000, "? " * 100_000])
def test_nesting_is_bounded(text: str, tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path, text)

    assert "found more than 16 levels of nesting" in fault.message


def test_a_file_as_large_as_may_be(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, LAB + "seed: " + "9" * (FILE_SIZE - 100))

    assert [fault.path for fault in faults] == ["seed"]
    assert len(str(faults[0])) < 400


@pytest.mark.parametrize("name", ["random file", "own file", "[key]"])
def test_a_name_that_the_checker_uses_itself(name: str, tmp_path: Path) -> None:
    app = "{host: bob, run: [x], files: {" + f'"{name}": ' + "{rnd: 1}}}"
    faults = faults_of(tmp_path, LAB + f'apps: {{"{name}": {app}}}')

    assert f"apps.{name}.files.{name}.rnd" in [fault.path for fault in faults]


# Whatever the file says: a Topology or a TopologyError, whose faults are within the file and can be printed

WORDS = st.sampled_from(
    """name seed defaults hosts links apps capture checks host link tcp profile implementation endpoints subnet delay
    jitter rate queue loss duplicate reorder corrupt mtu run env files needs ready listening expect exit timeout
    segments wire integrity random alice bob lab 25ms 1% 10mbit 2bdp 5 5B 10.0.0.0/29 true modern . ~ << *a &a !!x
    "\\ud800" "\\U99999999" %YAML""".split()  # noqa: SIM905
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
        "checks": st.lists(st.dictionaries(WORDS, ANYTHING, max_size=2), max_size=2),
    },
)
WHATEVER = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
