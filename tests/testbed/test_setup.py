"""The script of a host's container: a shell takes it, whatever names and settings are in it; and what tc reads back."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chitcpd.faults import Shape
from testbed import daemon, shaping
from testbed.backends import setup
from testbed.plan import HostPlan, Interface, Plan, Underlay
from testbed.shaping import ON_THE_WIRE
from testbed.unavailable import Unavailable
from tests.testbed.plans import Written, plan_of

LAB: Written = {
    "name": "lab",
    "hosts": {"alice": {}, "bob": {}},
    "routers": {"r1": {}},
    "links": [
        {"endpoints": ["alice", "r1"], "delay": "25ms", "jitter": "2ms", "underlay": {"loss": "1%"}},
        {"endpoints": ["r1", "bob"], "loss": "1%"},
    ],
}
ODD = """it's "$HOME" `id` $(id) \\ ;&|<>*?~#% é"""


def script(lab: Plan, host: HostPlan, *, capture_wire: bool = True) -> str:
    paths = {"trace": setup.TRACE, "segments": setup.SEGMENTS, "implementation": f"{setup.DATA}/tcp.py"}
    return setup.script(host, daemon.options(lab, host, **paths), capture_wire=capture_wire)


def shell_takes(text: str) -> None:
    checked = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def alice_s() -> Interface:
    return plan_of(LAB).node("alice").interfaces[0]


# The script


@pytest.mark.parametrize("name", ["alice", "bob", "r1"])
@pytest.mark.parametrize("capture_wire", [True, False])
def test_a_shell_takes_the_script(name: str, capture_wire: bool) -> None:
    lab = plan_of(LAB)
    text = script(lab, lab.node(name), capture_wire=capture_wire)

    shell_takes(text)
    assert ("tcpdump" in text) == capture_wire
    assert ("tc qdisc replace" in text) == (name != "bob")  # of his link chitcpd does all
    assert ("route replace" in text) == (name != "r1")  # which is on every link


def test_a_shell_takes_it_beside_another_chitcpd_and_without_links() -> None:
    lab = plan_of({"name": "lab", "hosts": {"alice": {}, "bob": {"image": "other:1"}}})

    shell_takes(script(lab, lab.node("alice")))
    beside = setup.script(lab.node("bob"), None, capture_wire=True)
    shell_takes(beside)
    assert "chitcpd --" not in beside
    assert f"chmod 666 {setup.SOCKET}" in beside


_ADDRESS = "2: eth0    inet 10.213.0.2/29 brd 10.213.0.7 scope global eth0"
_PROGRAMS = {  # in the place of those that want rights, or a network
    "ip": f"case $1 in -json) echo '[]';; -o) echo '{_ADDRESS}';; esac",
    "tc": "case $1 in -json) echo '[]';; esac",
    "ethtool": "true",
    "setpriv": 'while [ "$1" != --no-new-privs ]; do shift; done; shift; exec "$@"',
    "chitcpd": 'for word; do printf "%s\\n" "$word"; done >words',
}


def ran(text: str, directory: Path, **programs: str) -> dict[str, Any]:
    """What the script tells; `words` in the directory are what chitcpd was told."""
    for name, content in {**_PROGRAMS, **programs}.items():
        (directory / name).write_text(f"#!/bin/sh\n{content}\n")
        (directory / name).chmod(0o755)
    links = {setup.OF_NETEM: f"[{ODD}]", setup.OF_CHITCPD: "[]"}
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", **links}
    command = ["sh", "-c", text.replace(setup.PID, "pid")]
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def test_settings_reach_the_daemon_as_they_are(tmp_path: Path) -> None:
    lab = plan_of(LAB)
    odd = {"rto_min": ODD, "sack": "%s {name} {options}"}
    told = ran(script(lab, dataclasses.replace(lab.node("alice"), settings=odd), capture_wire=False), tmp_path)

    assert told == {"name": "alice", "netem": "yes", "why": "", "devices": [], "qdiscs": []}
    words = (tmp_path / "words").read_text().splitlines()
    assert [words[index + 1] for index, word in enumerate(words) if word == "--set"] == [
        f"rto_min={ODD}",
        "sack=%s {name} {options}",
    ]
    assert words[words.index("--links") + 1] == f"[{ODD}]"


def test_what_tc_complains_of_is_json_whatever_it_is(tmp_path: Path) -> None:
    lab = plan_of(LAB)
    tc = """case $1 in -json) echo '[]';; *) printf 'Error: "no"\\\\\\n\\t{kind}\\n' >&2; exit 2;; esac"""
    told = ran(script(lab, lab.node("alice"), capture_wire=False), tmp_path, tc=tc)

    assert told["netem"] == "no"
    assert told["why"].startswith("Error: no")
    assert setup.shaped(lab.node("alice"), told) == setup.Shaped(False, told["why"].strip())
    words = (tmp_path / "words").read_text().splitlines()
    assert words[words.index("--links") + 1] == "[]"  # chitcpd does it all


# Changes


@pytest.mark.parametrize(
    ("shape", "underlay", "change"),
    [
        (Shape(delay=0.01), Underlay(), "replace dev eth0 root netem limit .* delay 10000us .*"),
        (Shape(), Underlay(loss=0.1), "replace dev eth0 root netem limit .* loss random 10% .*"),
        (Shape(), Underlay(), "del dev eth0 root"),
    ],
)
def test_a_change_is_read_back(shape: Shape, underlay: Underlay, change: str) -> None:
    lines = setup.reshape("eth0", alice_s(), shape, underlay)
    assert re.fullmatch(f"qdisc {change}\nqdisc show dev eth0", lines)


def test_what_tc_complains_of_comes_before_what_it_shows() -> None:
    shown = '[{"kind":"noqueue"}]'
    assert setup.answer(shown) == ([{"kind": "noqueue"}], "")
    assert setup.answer(f"Warning: so it is.\n{shown}") == ([{"kind": "noqueue"}], "")
    wrong = "Error: Specified qdisc kind is unknown."
    assert setup.answer(f"{wrong}\nCommand failed -:3\n{shown}") == ([{"kind": "noqueue"}], wrong)


def test_an_interface_is_known_by_its_address() -> None:
    eth1: dict[str, Any] = {"ifname": "eth1", "addr_info": [{"local": "10.213.0.2"}]}
    lo: dict[str, Any] = {"ifname": "lo", "addr_info": []}
    assert setup.devices([{}, eth1, lo]) == {"10.213.0.2": "eth1"}


# What tc reads back


def read_back(interface: Interface, **changes: Any) -> dict[str, Any]:
    """As a kernel that does what it is asked, but for these changes."""
    shape, underlay = interface.shape, interface.underlay
    options: dict[str, Any] = {
        "limit": shaping.netem_limit(shape, mtu=interface.mtu),
        "delay": {"delay": shape.delay, "jitter": shape.jitter, "correlation": 0},
        "loss-random": {"loss": underlay.loss, "correlation": 0},
        "rate": {"rate": round(shaping.ORDERING_RATE / 8)},
    }
    return {"kind": "netem", "dev": "eth0", "options": {**options, **changes}}


def agrees(interface: Interface, qdisc: dict[str, Any]) -> bool:
    try:
        setup.compare(interface, interface.shape, interface.underlay, qdisc)
    except Unavailable as refused:
        assert interface.link in str(refused)
        assert refused.remedy
        return False
    return True


def test_what_is_as_asked_is_good() -> None:
    assert agrees(alice_s(), read_back(alice_s()))
    kernel_s = {"delay": 0.025001, "jitter": 0.001999, "correlation": 0}  # it counts in ticks
    assert agrees(alice_s(), read_back(alice_s(), delay=kernel_s))


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 1000},
        {"delay": {"delay": 0.026, "jitter": 0.002}},
        {"delay": {"delay": 0.025, "jitter": 0.0}},
        {"delay": {}},
        {"loss-random": {"loss": 0.02}},
        {"loss-random": {}},
        {"duplicate": {"duplicate": 0.01}},
        {"reorder": {"reorder": 0.25}},
        {"corrupt": {"corrupt": 0.5}},
    ],
    ids=str,
)
def test_what_differs_is_refused(change: dict[str, Any]) -> None:
    assert not agrees(alice_s(), read_back(alice_s(), **change))


def test_no_qdisc_at_all_is_refused() -> None:
    assert not agrees(alice_s(), {})


@pytest.mark.parametrize(("rate", "good"), [(1e6, True), (1e6 + 4, True), (1.1e6, False), (0, False)])
def test_a_rate_is_read_back_in_whole_bytes(rate: float, good: bool) -> None:
    interface = dataclasses.replace(alice_s(), shape=Shape(rate=1e6), underlay=Underlay())

    assert agrees(interface, read_back(interface, rate={"rate": round(rate * ON_THE_WIRE / 8)})) == good


def test_a_rate_that_is_chitcpd_s_is_not_looked_for() -> None:
    interface = dataclasses.replace(alice_s(), shape=Shape(delay=0.01, rate=1e6, queue_packets=5))

    assert agrees(interface, read_back(interface, rate={}))


@pytest.mark.parametrize(
    ("shape", "underlay"),
    [
        (Shape(delay=0.025, jitter=0.002), Underlay(loss=0.01)),
        (Shape(rate=64e3), Underlay()),
        (Shape(delay=0.01, rate=1.234e6), Underlay()),
        (Shape(rate=1e9), Underlay()),
    ],
)
def test_what_netem_does_is_known_from_tc(shape: Shape, underlay: Underlay) -> None:
    interface = dataclasses.replace(alice_s(), shape=shape, underlay=underlay)
    rate = shaping.netem_rate(shape) or shaping.ORDERING_RATE
    qdiscs = [{"kind": "noqueue"}, read_back(interface, rate={"rate": round(rate) // 8})]

    assert setup.shown(qdiscs) == (shape, underlay)


@pytest.mark.parametrize("qdiscs", [[], [{"kind": "noqueue", "options": {}}]])
def test_where_there_is_no_netem_nothing_is_done(qdiscs: list[dict[str, Any]]) -> None:
    assert setup.shown(qdiscs) == (Shape(), Underlay())


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "Error: Specified qdisc kind is unknown.\n",
            "this kernel has no sch_netem (Error: Specified qdisc kind is un",
        ),
        ("RTNETLINK answers: No such file or directory", "this kernel has no sch_netem (RTNETLINK answers: No such"),
        ("RTNETLINK answers: Operation not permitted", "RTNETLINK answers: Operation not permitted"),
        ("", "tc failed without a word"),
    ],
)
def test_why_there_is_no_netem(said: str, why: str) -> None:
    assert setup.why_no_netem(said).startswith(why)


@pytest.mark.skipif(shutil.which("dash") is None, reason="there is no dash here")
def test_the_image_s_shell_takes_it_too() -> None:
    lab = plan_of(LAB)
    for node in lab.nodes:
        checked = subprocess.run(["dash", "-n"], input=script(lab, node), text=True, check=False)
        assert checked.returncode == 0
