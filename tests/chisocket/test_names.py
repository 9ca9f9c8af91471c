"""Names to addresses: the lab's, then the system's."""

from __future__ import annotations

import os
import pwd
import socket

import pytest

import chisocket
from chisocket import chitcp_addr_construct
from chisocket.names import resolve
from chisocket.protocol import location


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHITCP_HOSTS", "alice=10.213.0.2 bob=10.213.0.3 carol=2001:db8::3")


@pytest.mark.usefixtures("lab")
def test_a_host_of_the_lab_is_known_by_its_name() -> None:
    assert chitcp_addr_construct("bob", 7000) == ("10.213.0.3", 7000)
    assert resolve("carol") == ["2001:db8::3"]


@pytest.mark.usefixtures("lab")
def test_the_lab_comes_before_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHITCP_HOSTS", "localhost=10.213.0.9")
    assert resolve("localhost") == ["10.213.0.9"]


@pytest.mark.parametrize("ip", ["10.1.2.3", "::1", "2001:db8::7"])
def test_an_address_is_its_own_name(ip: str) -> None:
    assert resolve(ip) == [ip]


def test_other_names_are_the_systems_with_ipv4_first() -> None:
    found = resolve("localhost")
    assert found[0] == "127.0.0.1"
    assert len(found) == len(set(found))


def test_the_empty_name_is_every_address_of_the_host() -> None:
    assert resolve("") == ["0.0.0.0", "::"]


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("name", ["dave.invalid", "a..b", "x" * 300])
def test_an_unknown_name_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(socket.gaierror, match=r"no host is known by the name .* names alice, bob, carol"):
        resolve(name)


def test_a_list_of_hosts_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHITCP_HOSTS", "alice=10.213.0.2 bob:10.213.0.3")
    with pytest.raises(OSError, match=r"'bob:10.213.0.3', expected NAME=ADDRESS"):
        resolve("alice")


def test_the_environment_names_the_unix_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHITCPD_SOCK", "/run/lab/alice.sock")
    assert location.socket_path() == "/run/lab/alice.sock"
    monkeypatch.delenv("CHITCPD_SOCK")
    assert location.socket_path() == f"/tmp/chitcpd.socket.{pwd.getpwuid(os.getuid()).pw_name}"


def test_the_module_stands_for_the_standard_librarys() -> None:
    """`import chisocket as socket`: its constants and errors are there, and nothing that would make a kernel's TCP."""
    assert chisocket.SOL_SOCKET == socket.SOL_SOCKET
    assert chisocket.gaierror is socket.gaierror
    assert not hasattr(chisocket, "fromfd")
    assert not hasattr(chisocket, "no_such_thing")
