"""Which connection a segment is for, and what a new one gets: listeners, ports, initial sequence numbers."""

from __future__ import annotations

import errno

import pytest

from chitcpd.demux import ANY, Demux, FourTuple, Listener
from chitcpd.driver import Endpoint
from chitcpd.tcp.api import Config
from chitcpd.tcp.connection import Connection

OURS, OTHER, PEER = "10.0.0.2", "10.1.0.2", "10.0.0.3"


def nothing() -> None:
    pass


def listen(demux: Demux, local: str, port: int) -> Listener:
    demux.check_bind(local, port)
    listener = demux.listeners[local, port] = Listener(local, port, 5, Config(), nothing)
    return listener


CONNECTION = Connection(iss=0, config=Config())


def connect(demux: Demux, local: str, port: int) -> None:
    four = FourTuple(local, port, PEER, 7)
    demux.add(Endpoint(1, four, CONNECTION, nothing))


class TestListeners:
    def test_the_specific_one_before_the_wildcard(self) -> None:
        demux = Demux(b"seed")
        demux.listeners[ANY, 7] = wildcard = Listener(ANY, 7, 5, Config(), nothing)
        demux.listeners[OURS, 7] = specific = Listener(OURS, 7, 5, Config(), nothing)
        assert demux.listener(OURS, 7) is specific
        assert demux.listener(OTHER, 7) is wildcard
        assert demux.listener(OURS, 8) is None

    @pytest.mark.parametrize(("first", "second"), [(OURS, OURS), (ANY, ANY), (ANY, OURS), (OURS, ANY)])
    def test_one_port_cannot_be_bound_twice(self, first: str, second: str) -> None:
        demux = Demux(b"seed")
        listen(demux, first, 7)
        with pytest.raises(OSError) as refusal:
            demux.check_bind(second, 7)
        assert refusal.value.errno == errno.EADDRINUSE

    def test_one_port_on_two_addresses(self) -> None:
        demux = Demux(b"seed")
        listen(demux, OURS, 7)
        listen(demux, OTHER, 7)
        assert set(demux.listeners) == {(OURS, 7), (OTHER, 7)}


class TestEphemeralPorts:
    def test_they_are_those_of_rfc_6335(self) -> None:
        demux = Demux(b"seed")
        assert all(49152 <= demux.ephemeral_port(OURS) <= 65535 for _ in range(1000))

    def test_they_are_scattered(self) -> None:
        demux = Demux(b"seed")
        assert len({demux.ephemeral_port(OURS) for _ in range(100)}) > 90

    def test_the_seed_repeats_them(self) -> None:
        one, same, other = Demux(b"seed"), Demux(b"seed"), Demux(b"another")
        ports = [one.ephemeral_port(OURS) for _ in range(5)]
        assert [same.ephemeral_port(OURS) for _ in range(5)] == ports
        assert [other.ephemeral_port(OURS) for _ in range(5)] != ports

    def test_one_in_use_is_not_given_again(self) -> None:
        demux = Demux(b"seed")
        for port in range(49152, 65536):
            if port not in (50_000, 50_001, 50_002):
                connect(demux, OURS, port)
        listen(demux, ANY, 50_000)
        assert demux.ephemeral_port(OURS, taken={50_001}) == 50_002
        assert demux.ephemeral_port(ANY, taken={50_001}) == 50_002
        connect(demux, OURS, 50_002)
        with pytest.raises(OSError) as refusal:
            demux.ephemeral_port(OURS, taken={50_001})
        assert refusal.value.errno == errno.EADDRNOTAVAIL
        assert 49152 <= demux.ephemeral_port(OTHER) <= 65535  # another address has ports of its own


class TestInitialSequenceNumbers:
    FOUR = FourTuple(OURS, 50_000, PEER, 7)

    def test_they_differ_from_four_tuple_to_four_tuple(self) -> None:
        demux = Demux(b"seed")
        neighbours = [
            self.FOUR,
            self.FOUR._replace(local=OTHER),
            self.FOUR._replace(local_port=50_001),
            self.FOUR._replace(peer="10.0.0.4"),
            self.FOUR._replace(peer_port=8),
        ]
        assert len({demux.initial_sequence_number(four, 0.0) for four in neighbours}) == len(neighbours)

    def test_they_grow_with_time(self) -> None:
        """4 microseconds each (RFC 9293 §3.4.1): 250,000 in a second, around in 4.77 hours."""
        demux = Demux(b"seed")
        start = demux.initial_sequence_number(self.FOUR, 100.0)
        for seconds in (0.5, 1.0, 60.0):
            later = demux.initial_sequence_number(self.FOUR, 100.0 + seconds)
            assert (later - start) % 2**32 == seconds * 250_000

    def test_they_are_numbers_of_32_bits(self) -> None:
        demux = Demux(b"seed")
        assert all(0 <= demux.initial_sequence_number(self.FOUR, hour * 3600.0) < 2**32 for hour in range(48))

    def test_they_depend_on_the_secret(self) -> None:
        one, same, other = (Demux(seed).initial_sequence_number(self.FOUR, 1.0) for seed in (b"a", b"a", b"b"))
        assert one == same != other
