"""debug_api.h: states, buffers, waiting, and events that are dropped, doubled, watched."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.c.conftest import CHISOCKET, Calls, addr, connected, listening
from tests.daemon.conftest import Daemon

STATE_CHANGE, INCOMING, OUTGOING, PENDING = 1, 2, 4, 8
STOP, ACCEPT_MONITOR, DROP = 1, 2, 3
FOREIGN = 1 << 30  # with this bit: a socket that no call has returned


@pytest.fixture(params=CHISOCKET)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def events(calls: Calls) -> list[tuple[int, int, str, int]]:
    """(sockfd, event, state, new_sockfd) of each call of the handler."""
    told = [entry.split(",") for entry in calls("events").data.split(";") if entry]
    return [(int(sockfd), int(event), state, int(new)) for sockfd, event, state, new in told]


def test_states_and_buffers(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    sock, accepted = connected(client, server, bob_daemon.address)
    client.good("send", sock, b"12345")
    server.good("wait_for_state", accepted, 4)
    state, iss, irs, snd_una, snd_nxt, rcv_nxt, snd_wnd, rcv_wnd = client.good("state", sock).data.split(",")
    assert state == "ESTABLISHED"
    assert (int(snd_nxt) - int(iss)) % 2**32 in (1, 6)
    assert (int(rcv_nxt) - int(irs)) % 2**32 == 1
    assert (int(snd_una) - int(iss)) % 2**32 in (1, 6)
    assert int(snd_wnd) > 0
    assert int(rcv_wnd) > 0
    assert client.good("buffers", sock).data in ("5,0", "0,0")


def test_a_socket_without_a_connection(client: Calls) -> None:
    sock = client.good("socket", 2, 1, 0).ret
    assert client("state", sock).errno == errno.EBADF
    assert client("buffers", sock).errno == errno.EBADF
    assert client("wait_for_state", sock, 99).errno in (errno.EBADF, errno.EINVAL)


def test_waiting_for_a_state(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    sock, accepted = connected(client, server, bob_daemon.address)
    server.begin("wait_for_state", accepted, 7)  # CLOSE_WAIT
    client.good("shutdown", sock, socket.SHUT_WR)
    assert server.end().ret == 0


def test_states_as_they_change(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    _, port = listening(server, bob_daemon.address)
    sock = client.good("socket", 2, 1, 0).ret
    client.good("debug", sock, STATE_CHANGE)
    client.good("connect", sock, addr(bob_daemon.address, port))
    assert events(client) == [(sock, STATE_CHANGE, "SYN_SENT", -1), (sock, STATE_CHANGE, "ESTABLISHED", -1)]


def test_a_packet_is_dropped_and_comes_again(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    sock, accepted = connected(client, server, bob_daemon.address)
    server.good("debug", accepted, INCOMING, DROP, STOP)
    client.good("send", sock, b"once, and again")
    assert server("recv", accepted, 100).bytes == b"once, and again"
    assert [event for _, event, _, _ in events(server)] == [INCOMING, INCOMING]


def test_a_pending_connection_is_watched_too(client: Calls, server: Calls, bob_daemon: Daemon, way: str) -> None:
    listener, port = listening(server, bob_daemon.address)
    server.good("debug", listener, PENDING | STATE_CHANGE, ACCEPT_MONITOR)
    client.good("connect", client.good("socket", 2, 1, 0).ret, addr(bob_daemon.address, port))
    accepted = server.good("accept", listener, 16).ret
    server.good("wait_for_state", accepted, 4)
    first, *others = events(server)
    new = first[3]
    assert first == (listener, PENDING, "-", new)
    assert [(number, state) for number, _, state, _ in others] == [
        (new, "LISTEN"),
        (new, "SYN_RCVD"),
        (new, "ESTABLISHED"),
    ]
    if way == "requests":
        assert new == accepted
    else:
        assert new >= FOREIGN
    assert server.good("state", new).data == server.good("state", accepted).data


@pytest.mark.parametrize(
    ("flags", "error"), [(0, errno.EINVAL), (-1, errno.EINVAL), (16, errno.EINVAL), (1, errno.EBADF)]
)
def test_wrong_arguments(client: Calls, flags: int, error: int) -> None:
    assert client("debug", 8000, flags).errno == error


def test_one_watcher_at_a_time(client: Calls) -> None:
    sock = client.good("socket", 2, 1, 0).ret
    client.good("debug", sock, STATE_CHANGE)
    assert client("debug", sock, STATE_CHANGE).errno == errno.EAGAIN


@pytest.mark.parametrize("way", ["descriptors"])
def test_a_child_does_not_hold_what_its_parent_watched(client: Calls, server: Calls, bob_daemon: Daemon) -> None:
    """The watcher is the parent's: when that ends, what it has held goes on."""
    sock, accepted = connected(client, server, bob_daemon.address)
    client.good("debug", sock, OUTGOING)
    client.good("leave")
    client.good("send", sock, b"from the child")
    assert server("recv", accepted, 100).bytes == b"from the child"
