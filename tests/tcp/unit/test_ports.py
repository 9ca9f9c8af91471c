"""What is around a connection: initial sequence numbers, ports, addresses. RFC 9293 sections 3.4.1, 3.6.1 and 3.9.1."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest

from chitcpd.demux import Demux, FourTuple
from chitcpd.sim import Application, Host, Shape, Simulation, Socket
from chitcpd.tcp.api import State

HERE, THERE = "10.0.0.2", "10.0.0.3"
FOUR = FourTuple(HERE, 50_000, THERE, 7)


def two_hosts(mtu: int = 1500) -> tuple[Simulation, Host, Host]:
    simulation = Simulation(seed=1)
    alice, bob = simulation.host(HERE), simulation.host(THERE)
    simulation.link(alice, bob, Shape(delay=0.01), mtu=mtu)
    return simulation, alice, bob


def nobody() -> None:
    """Nobody waits."""


# ---- initial sequence numbers (§3.4.1) ---------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-8")
def test_the_initial_sequence_number_runs_with_a_clock_of_four_microseconds() -> None:
    demux = Demux(b"secret")
    first = demux.initial_sequence_number(FOUR, 10.0)
    assert (demux.initial_sequence_number(FOUR, 10.000004) - first) % 2**32 == 1
    assert (demux.initial_sequence_number(FOUR, 11.0) - first) % 2**32 == 250_000


@pytest.mark.rfc9293("SHLD-1")
def test_each_connection_counts_from_a_place_of_its_own() -> None:
    """RFC 6528: a pseudo-random function of the four-tuple."""
    demux = Demux(b"secret")
    others = [FOUR._replace(local=f"10.0.1.{k}") for k in range(50)]
    others += [FOUR._replace(local_port=k) for k in range(50)]
    others += [FOUR._replace(peer=f"10.0.2.{k}") for k in range(50)]
    others += [FOUR._replace(peer_port=k) for k in range(50)]
    numbers = sorted(demux.initial_sequence_number(four, 10.0) for four in others)
    gaps = [b - a for a, b in pairwise(numbers)]
    assert len(set(numbers)) == 200
    assert max(gaps) < 2**32 / 10


@pytest.mark.rfc9293("MUST-9")
def test_nobody_without_the_secret_can_compute_it() -> None:
    """The seed of the daemon's secret is drawn anew at each start, unless `--seed` fixes it."""
    numbers = {Demux(bytes((k,))).initial_sequence_number(FOUR, 10.0) for k in range(50)}
    assert len(numbers) == 50


# ---- OPEN (§3.9.1.1) ---------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MUST-41")
def test_a_second_listener_for_a_port_is_an_error_and_changes_nothing() -> None:
    simulation, alice, bob = two_hosts()
    listener = bob.listen(7)
    with pytest.raises(OSError) as caught:
        bob.listen(7)
    assert caught.value.errno == errno.EADDRINUSE

    def client(host: Host) -> Application:
        yield from host.connect(THERE, 7)

    def server(_: Host) -> Application:
        socket = yield from listener.accept()
        return socket.endpoint.connection.state

    alice.start(client(alice))
    served = bob.start(server(bob))
    simulation.run(until=1.0)
    assert served.result == State.ESTABLISHED


@pytest.mark.rfc9293("MUST-42")
def test_a_port_can_be_listened_on_while_a_connection_from_it_is_being_opened() -> None:
    simulation, alice, bob = two_hosts()
    endpoint = alice.driver.connect(("", 5000), (THERE, 7), nobody, 0.0)
    assert endpoint.connection.state == State.SYN_SENT
    listener = alice.listen(5000)

    def client(host: Host) -> Application:
        yield from host.connect(HERE, 5000)

    bob.start(client(bob))
    served = alice.start(listener.accept())
    simulation.run(until=1.0)
    assert served.ended


@pytest.mark.rfc9293("MUST-43", "MUST-45")
def test_the_application_can_choose_its_address() -> None:
    _, alice, _ = two_hosts()
    endpoint = alice.driver.connect((HERE, 5000), (THERE, 7), nobody, 0.0)
    assert endpoint.four == (HERE, 5000, THERE, 7)


@pytest.mark.rfc9293("MUST-44")
def test_else_the_network_chooses_it_before_the_first_syn() -> None:
    _, alice, _ = two_hosts()
    endpoint = alice.driver.connect(("", 0), (THERE, 7), nobody, 0.0)
    assert endpoint.four.local == HERE
    assert endpoint.connection.state == State.SYN_SENT


@pytest.mark.rfc9293("MUST-46")
@pytest.mark.parametrize("address", ["255.255.255.255", "224.0.0.1", "0.0.0.0", "10.0.0.255"])
def test_a_connection_to_nobody_in_particular_is_refused(address: str) -> None:
    """There is a link to each peer, and to nothing else."""
    simulation, alice, _ = two_hosts()
    with pytest.raises(OSError) as caught:
        alice.driver.connect(("", 0), (address, 7), nobody, 0.0)
    assert caught.value.errno == errno.ENETUNREACH
    assert simulation.segments == 0


@pytest.mark.rfc9293("MUST-67")
def test_the_mss_follows_the_mtu_of_the_link() -> None:
    """§3.7.1: less 20 bytes each for the headers of IP and TCP."""
    _, alice, _ = two_hosts(mtu=576)
    endpoint = alice.driver.connect(("", 0), (THERE, 7), nobody, 0.0)
    assert endpoint.connection.config.mss == endpoint.connection.config.send_mss == 536


# ---- the end (§3.6.1) --------------------------------------------------------------------------------------


@pytest.mark.rfc9293("MAY-1", "SHLD-3")
def test_data_for_an_application_that_has_gone_is_answered_with_a_reset() -> None:
    """§3.6.1: close, not shutdown: nobody will read it, and the peer shall know."""
    simulation, alice, bob = two_hosts()

    def client(host: Host) -> Application:
        socket = yield from host.connect(THERE, 7)
        socket.close()

    def server(host: Host) -> Application:
        socket: Socket = yield from host.listen(7).accept()
        while (yield from socket.recv()):
            pass
        yield from socket.send(b"are you there?")
        yield 1.0
        return socket.error

    served = bob.start(server(bob))
    alice.start(client(alice))
    simulation.run()
    assert served.result == errno.ECONNRESET
