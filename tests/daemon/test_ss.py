"""How `chitcpd ctl sockets` tells of a connection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chitcpd.loader import load
from chitcpd.ss import describe, table
from tests.daemon.lab import DELAY, Lab

ALICE, BOB, PORT = "10.0.0.2", "10.0.0.3", 7
LISTENER = {"sockfd": 1, "state": "LISTEN", "local": "*:7", "backlog": 5, "waiting": 2}


def a_talk(tcp: str = "reference") -> dict[str, Any]:
    """What alice's daemon says of a connection in which she has sent 100,000 bytes and got 10, a second ago."""
    lab = Lab()
    alice, bob = lab.host(ALICE, tcp=load(tcp)), lab.host(BOB)
    listener = bob.listen(PORT)
    hers = alice.connect(bob, PORT)
    lab.run(until=1.0)
    alice.write(hers, bytes(100_000))
    bob.write(listener.ready[0], bytes(10))
    lab.run(until=3.0)
    alice.write(hers, bytes(2896))  # on the way
    return json.loads(json.dumps(describe(hers, 4.0)))  # type: ignore[no-any-return]


def test_what_is_told_of_a_connection() -> None:
    told = a_talk()
    assert (told["snd_nxt"] - told["snd_una"]) % 2**32 == told["info"]["in_flight"] == 2896
    assert told["readable"] == 10
    counters = told["counters"]
    assert (counters["bytes_acked"], counters["bytes_received"], counters["retransmissions"]) == (100_000, 10, 0)
    assert counters["last_sent"] == pytest.approx(1.0)
    assert counters["last_received"] == pytest.approx(3.0 - DELAY)
    assert told["info"]["srtt"] == pytest.approx(2 * DELAY, abs=0.01)  # some ACKs were delayed


def test_a_tcp_that_does_not_tell() -> None:
    told = a_talk("examples/stop_and_wait.py")
    assert told["info"] == {}
    assert told["counters"]["bytes_acked"] == (told["snd_una"] - told["iss"] - 1) % 2**32 > 0


def test_as_ss_writes_it() -> None:
    told = {"sockfd": 2, "state": "ESTABLISHED", "local": f"{ALICE}:5000", "peer": f"{BOB}:7", **a_talk()}
    heading, listener, row, *details = table({"sockets": [LISTENER, told], "impairments": {}}, 80).split("\n")
    assert heading == "State        Recv-Q  Send-Q  Local Address:Port  Peer Address:Port"
    assert listener == "LISTEN       2       5       *:7                 *:*"
    assert row == "ESTABLISHED  10      2896    10.0.0.2:5000       10.0.0.3:7"
    assert all(line.startswith("\t ") and len(line) <= 80 - 7 for line in details)
    words = " ".join(line.strip() for line in details).split()
    assert words[:4] == ["ts", "sack", "cubic", "wscale:5,5"]
    assert {"mss:1448", "bytes_acked:100000", "bytes_received:10", "lastsnd:1000", "unacked:2"} <= set(words)
    assert not any(word.startswith(("retrans", "lost", "ssthresh")) for word in words)


def test_losses_as_ss_writes_them() -> None:
    info = {"mss": 1000, "cwnd": 2900, "ssthresh": 5000, "rto": 0.8, "lost": 3, "sacked": 2, "backoff": 1}
    counters = {"retransmissions": 4}
    told = {"sockfd": 2, "state": "CLOSE_WAIT", "local": "a", "snd_una": 2**32 - 1, "snd_nxt": 2000}
    sock = {**told, "info": {**info, "recovery": "loss"}, "counters": counters}
    _, row, details = table({"sockets": [sock], "impairments": {}}, 200).split("\n")
    assert row.split() == ["CLOSE_WAIT", "0", "2001", "a", "*:*"]
    words = "rto:800 mss:1000 cwnd:2 ssthresh:5 unacked:3 retrans:4 lost:3 sacked:2 backoff:1 loss"
    assert details == f"\t {words}"


def test_links_are_below() -> None:
    impairments = {BOB: {"loss": 3, "queue": 1}, "10.0.0.4": {}}
    assert table({"sockets": [], "impairments": impairments}, 80).split("\n")[1:] == [
        "link to 10.0.0.3: 3 loss, 1 queue",
        "link to 10.0.0.4: no losses",
    ]
