"""What a topology file may say, and what is said to a person whose file says something else."""

from __future__ import annotations

import math
from ipaddress import IPv4Network
from pathlib import Path
from typing import get_args

import pytest

from chitcpd import units
from chitcpd.faults import KINDS
from testbed.topology import Fault, Topology, TopologyError, load, resolved
from testbed.topology.model import DropRule, Link, OwnFile, RandomFile
from testbed.topology.presets import PRESETS
from testbed.topology.source import FILE_SIZE

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
    (tmp_path / "my_tcp.py").write_bytes(b"class Mine(TcpConnection): ...")
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
    assert topology.tcp("alice").implementation == b"class Mine(TcpConnection): ..."


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


def test_routers_and_lans(tmp_path: Path) -> None:
    topology = load_text(
        tmp_path,
        """
        name: lab
        hosts: {alice: {}, bob: {}, carol: {}}
        routers:
          r1:
        links:
          - endpoints: [alice, bob, r1]
            name: lan
            loss: 1%
            "alice->lan": {loss: 5%}
            subnet: 10.9.0.0/29
          - {endpoints: [r1, carol], "carol->r1": {rate: 1mbit}}
        """,
    )
    lan, last = topology.links

    assert (lan.title, last.title) == ("lan", "r1-carol")
    assert [topology.settings(lan, end).loss for end in lan.endpoints] == [0.05, 0.01, 0.01]
    assert [topology.settings(last, end).rate for end in last.endpoints] == [None, 1e6]
    assert list(topology.routers) == ["r1"]


def test_what_the_underlay_loses_is_the_link_s_the_direction_s_or_nobody_s(tmp_path: Path) -> None:
    link = '{endpoints: [alice, bob], underlay: {loss: 1%}, "bob->alice": {underlay: {corrupt: 2%}}}'
    topology = load_text(tmp_path, LAB + f"links: [{link}]")
    there, back = (topology.settings(topology.links[0], host).underlay for host in ("alice", "bob"))

    assert there is not None
    assert back is not None
    assert (there.loss, there.corrupt) == (0.01, 0.0)
    assert (back.loss, back.corrupt) == (0.0, 0.02)


def test_a_host_may_run_another_chitcpd(tmp_path: Path) -> None:
    images = ["my-chitcpd", "my-chitcpd:1.0", "registry.example:5000/labs/my_chitcpd:latest", "c@sha256:" + "a" * 64]
    for image in images:
        topology = load_text(tmp_path, f'name: lab\nhosts: {{alice: {{image: "{image}", command: [run, -v]}}}}')
        assert (topology.hosts["alice"].image, topology.hosts["alice"].command) == (image, ("run", "-v"))


def test_an_app_s_limits_and_how_it_is_ready(tmp_path: Path) -> None:
    app = "{host: bob, run: [x], restart: 3, limits: {memory: 1GiB}, ready: {output: 'ready to .*'}}"
    topology = load_text(tmp_path, LAB + f"apps: {{one: {app}, two: {{host: bob, run: [x]}}}}")
    one, two = topology.apps.values()

    assert (one.restart, one.limits.memory, one.limits.processes) == (3, 2**30, 256)
    assert one.ready is not None
    assert (one.ready.output, one.ready.listening) == ("ready to .*", None)
    assert (two.restart, two.limits.memory, two.ready) == (0, 2**29, None)


def test_events(tmp_path: Path) -> None:
    topology = load_text(
        tmp_path,
        LAB
        + """
links: [{endpoints: [alice, bob], delay: 10ms}]
apps: {server: {host: bob, run: [x]}}
events:
  - {at: 5s, link: alice-bob, set: {rate: 1mbit, jitter: 5ms}, for: 2s, from: alice}
  - {at: 8s, link: alice-bob, down: 2s}
  - {at: 8s, link: alice-bob, down: true}
  - {at: 9s, link: alice-bob, up: true}
  - {at: 9s, partition: [[alice], [bob]]}
  - {at: 0s, host: bob, restart: chitcpd}
  - {at: 1min, host: bob, kill: chitcpd}
  - {at: 1min, host: bob, pause: 2s}
  - {at: 3s, app: server, kill: SIGTERM}
""",
    )
    change, short, long, up, partition, restart, kill, pause, signal = topology.events

    assert change.set_ is not None
    changed = change.set_.over(topology.settings(topology.links[0], "alice"))
    assert (changed.rate, changed.jitter, changed.delay) == (1e6, 0.005, 0.01)
    assert (change.at, change.duration, change.sender) == (5.0, 2.0, "alice")
    assert (short.down, long.down, up.down, up.up) == (2.0, math.inf, None, True)
    assert partition.partition == (("alice",), ("bob",))
    assert (restart.host, restart.restart, restart.at) == ("bob", "chitcpd", 0.0)
    assert (kill.host, kill.kill, kill.at) == ("bob", "chitcpd", 60.0)
    assert (pause.pause, signal.app, signal.kill) == (2.0, "server", "SIGTERM")


# Includes and variables


def test_what_a_file_includes_is_below_what_it_says_itself(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "common.yaml").write_text(
        """
        include: [more.yaml]
        name: common
        defaults: {host: {tcp: {profile: classic}}, link: {delay: 1ms}}
        hosts: {alice: {tcp: {profile: modern}}, bob: {}}
        links: [{endpoints: [alice, bob]}]
        """
    )
    (tmp_path / "parts" / "more.yaml").write_text("seed: 7\nlinks: [{endpoints: [bob, carol]}]\n")
    text = """
include: [parts/common.yaml, parts/more.yaml] # the second is there already
hosts: {alice: {}, carol: {}}
defaults: {link: {loss: 1%}}
links: [{endpoints: [alice, carol]}]
"""
    topology = load_text(tmp_path, text)

    assert (topology.name, topology.seed) == ("common", 7)
    assert sorted(topology.hosts) == ["alice", "bob", "carol"]
    assert [link.title for link in topology.links] == ["bob-carol", "alice-bob", "alice-carol"]
    assert topology.tcp("alice").profile == "classic"
    assert (topology.defaults.link.delay, topology.defaults.link.loss) == (0.0, 0.01)


def test_variables_are_given_or_in_the_environment_or_have_a_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB", "from-the-environment")
    monkeypatch.setenv("EMPTY", "")
    file = tmp_path / "lab.yaml"
    file.write_text(
        """
        name: ${LAB}-${NUMBER}
        hosts: {alice: {}, bob: {}}
        links: [{endpoints: [alice, bob], delay: "${DELAY:-25ms}", rate: "${EMPTY:-1mbit}"}]
        apps: {a: {host: bob, run: [sh, -c, "echo $${LAB} $LAB $$"]}}
        """
    )
    topology = load(file, {"NUMBER": "7"})

    assert topology.name == "from-the-environment-7"
    assert (topology.links[0].delay, topology.links[0].rate) == (0.025, 1e6)
    assert topology.apps["a"].run[2] == "echo ${LAB} $LAB $$"
    assert topology.variables == {
        "LAB": "from-the-environment",
        "NUMBER": "7",
        "DELAY": "25ms",
        "EMPTY": "1mbit",
    }
    assert load(file, {"NUMBER": "7", "LAB": "given"}).name == "given-7"


def test_an_unknown_variable_is_compared_with_those_that_were_given(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("name: ${LAB_NMAE}\nhosts: {alice: {}}\n")
    with pytest.raises(TopologyError, match=r"found \$\{LAB_NMAE\}, .*; did you mean 'LAB_NAME'\?"):
        load(tmp_path / "lab.yaml", {"LAB_NAME": "lab"})


def test_files_are_counted(tmp_path: Path) -> None:
    for number in range(16):
        (tmp_path / f"{number}.yaml").write_text("hosts: {alice: {}}\n")
    names = ", ".join(f"{number}.yaml" for number in range(16))
    (fault,) = faults_of(tmp_path, f"name: lab\ninclude: [{names}]\n")

    assert (fault.path, fault.message) == ("include[15]", "found 15.yaml, expected at most 16 files in all")


def test_variables_in_all_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(
            f"include: []\nhosts: {{{name}: {{tcp: {{profile: '${{PROFILE}}'}}}}}}\n"
        )
    (tmp_path / "lab.yaml").write_text("name: lab\ninclude: ['${ONE}.yaml', two.yaml]\n")
    topology = load(tmp_path / "lab.yaml", {"ONE": "one", "PROFILE": "classic"})

    assert {name: topology.tcp(name).profile for name in topology.hosts} == {"one": "classic", "two": "classic"}


def test_variables_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("name: lab\nhosts: {alice: {}}\nchecks: " + "${LONG}" * 100)
    with pytest.raises(TopologyError, match="expected variables of at most 4MiB in all"):
        load(tmp_path / "lab.yaml", {"LONG": "x" * 100_000})


def test_the_resolved_text_is_one_file_that_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("hosts: {alice: {}, bob: {}}\nlinks: [{endpoints: [alice, bob]}]\n")
    file = tmp_path / "lab.yaml"
    file.write_text(
        """
        include: [common.yaml]
        name: ${LAB}
        links: [{endpoints: [alice, bob], name: second, delay: "${DELAY}"}]
        apps: {a: {host: bob, run: [sh, -c, "echo $${HOME}", "${ANSWER}", "no"]}}
        """
    )
    variables = {"LAB": "lab", "DELAY": "25ms", "ANSWER": "4:2"}
    text = resolved(file, variables)
    (tmp_path / "elsewhere.yaml").write_text(text)
    read, again = load(file, variables), load(tmp_path / "elsewhere.yaml")

    assert "include" not in text
    assert again.model_dump(exclude={"include"}) == read.model_dump(exclude={"include"})
    assert again.variables == {}


def test_a_plain_file_is_resolved_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(LAB + "# a comment\n")
    assert resolved(tmp_path / "lab.yaml") == LAB + "# a comment\n"


def test_what_can_not_be_resolved_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("include: [missing.yaml]\n")
    with pytest.raises(TopologyError, match=r"found missing\.yaml, expected a file that can be read"):
        resolved(tmp_path / "lab.yaml")


@pytest.mark.parametrize(
    "source",
    [
        "import api\nclass Mine(api.TcpConnection): ...",
        "from chitcpd.tcp.api import *\nclass Mine(TcpConnection): ...",
        "from my_tcps import Mine",
    ],
)
def test_a_tcp_may_come_in_many_ways(source: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    topology = load_text(tmp_path, "name: lab\nhosts: {alice: {tcp: {implementation: mine.py}}}")
    assert topology.tcp("alice").implementation == source.encode()


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


def test_a_key_that_an_included_file_has_twice_is_a_fault_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("hosts: {alice: {}}\nhosts: {bob: {}, bob: {}}\n")
    again, bob = faults_of(tmp_path, "include: [base.yaml]\nname: lab\nhosts: {bob: {}, carol: {}}\n")

    assert (again.file, again.line, again.path) == (str(tmp_path / "base.yaml"), 2, "hosts")
    assert again.message == "found the key hosts again, expected it once: it is on line 1 already"
    assert (bob.line, bob.path) == (2, "hosts.bob")


def test_a_malformed_item_does_not_make_its_list_look_too_short(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, LAB + "links: [{endpoints: [alice, {}]}]\napps: {a: {host: bob, run: [[]]}}")

    assert [fault.path for fault in faults] == ["links[0].endpoints[1]", "apps.a.run[0]"]


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
    with pytest.raises(TopologyError, match="found a file of more than 1024KiB"):
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
