"""The driver of all connections of a host, in virtual time."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chitcpd.demux import FourTuple
from chitcpd.driver import Endpoint
from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, FIN, RST, SYN, Config, Options, Segment, State, Timer
from chitcpd.tcp.connection import Connection
from tests.daemon.lab import DELAY, Host, Lab

ALICE, BOB, NOBODY = "10.0.0.2", "10.0.0.3", "10.0.0.9"
PORT = 7


def two_hosts(**bobs: object) -> tuple[Lab, Host, Host]:
    lab = Lab()
    return lab, lab.host(ALICE), lab.host(BOB, **bobs)  # type: ignore[arg-type]


def connected(lab: Lab, alice: Host, bob: Host) -> tuple[Endpoint, Endpoint]:
    """A connection that alice has opened and bob has accepted: (her end, his end)."""
    listener = bob.driver.demux.listener(BOB, PORT) or bob.listen(PORT)
    hers = alice.connect(bob, PORT)
    lab.run(until=lab.now + 4 * DELAY)
    return hers, listener.ready.popleft()


@contextmanager
def raises_errno(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as refusal:
        yield
    assert refusal.value.errno == number


class TestConnections:
    def test_data_and_end_of_stream(self) -> None:
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        assert alice.write(hers, b"hello") == 5
        alice.driver.close(hers, lab.now)
        lab.run(until=1.0)
        assert bob.read(his) == b"hello"
        assert his.connection.at_eof
        bob.driver.close(his, lab.now)
        lab.run(until=10.0)
        assert hers.connection.state == his.connection.state == State.CLOSED
        assert not alice.driver.demux.connections
        assert not bob.driver.demux.connections

    def test_two_connections_do_not_mix(self) -> None:
        lab, alice, bob = two_hosts()
        pairs = [connected(lab, alice, bob) for _ in range(2)]
        for number, (hers, _) in enumerate(pairs):
            alice.write(hers, b"%d" % number)
        lab.run(until=1.0)
        assert [bob.read(his) for _, his in pairs] == [b"0", b"1"]

    def test_the_mtu_of_the_link_limits_segments_both_ways(self) -> None:
        lab, alice, bob = two_hosts()
        alice.link_mtu = 576
        hers, his = connected(lab, alice, bob)
        assert (hers.connection.config.mss, hers.connection.config.send_mss) == (536, 536)
        bob.write(his, bytes(1072))
        alice.write(hers, bytes(1072))
        for host in (alice, bob):
            host.notes.sent()
        lab.run(until=1.0)
        assert len(alice.read(hers)) == len(bob.read(his)) == 1072

    def test_the_same_four_tuple_twice(self) -> None:
        _, alice, _ = two_hosts()
        alice.connect(BOB, PORT, local_port=5000)
        with raises_errno(errno.EADDRINUSE):
            alice.connect(BOB, PORT, local_port=5000)

    def test_a_damaged_segment_is_dropped(self) -> None:
        lab, _, bob = two_hosts()
        raw = wire.encode(Segment(1, flags=SYN), 5000, PORT, wire.pseudo_header(ALICE, BOB))
        bob.driver.segments_arrive(BOB, ALICE, [raw[:-1] + b"\x01"], lab.now)
        bob.driver.segments_arrive(BOB, ALICE, [raw[:10]], lab.now)
        assert bob.notes.drops == ["wrong checksum", "10 bytes are less than a TCP header"]
        assert bob.notes.sent() == []

    def test_an_old_endpoint_does_not_take_the_place_of_a_new_one(self) -> None:
        """Same four-tuple: the old connection was reset, its application still holds it and reads what came before."""
        lab, alice, bob = two_hosts()
        listener = bob.listen(PORT)
        old = alice.connect(bob, PORT, local_port=5000)
        lab.run(until=0.1)
        his_old = listener.ready.popleft()
        alice.write(old, b"last words")
        lab.run(until=0.2)
        alice.driver.abort(old, lab.now)
        lab.run(until=0.3)
        new = alice.connect(bob, PORT, local_port=5000)
        lab.run(until=0.4)
        assert bob.read(his_old) == b"last words"
        bob.driver.abort(his_old, lab.now)
        alice.write(new, b"hello")
        lab.run(until=0.5)
        assert bob.read(listener.ready.popleft()) == b"hello"


class TestNoConnection:
    @pytest.mark.parametrize(
        ("segment", "answer"),
        [
            (Segment(100, flags=SYN), (0, 101, RST | ACK)),
            (Segment(100, 200, ACK, data=b"abc"), (200, 0, RST)),
            (Segment(100, flags=FIN, data=b"abc"), (0, 104, RST | ACK)),
        ],
    )
    def test_is_answered_with_a_reset(self, segment: Segment, answer: tuple[int, int, int]) -> None:
        lab = Lab()
        bob = lab.host(BOB)
        lab.inject(bob, (ALICE, 5000), PORT, segment)
        [(local, peer, raw)] = lab.carried
        assert (local, peer) == (BOB, ALICE)
        source, destination, reset = wire.decode(raw, wire.pseudo_header(BOB, ALICE))
        assert (source, destination) == (PORT, 5000)
        assert (reset.seq, reset.ack, reset.flags) == answer
        assert not bob.driver.demux.connections

    def test_a_reset_is_not_answered(self) -> None:
        lab, _, bob = two_hosts()
        lab.inject(bob, (ALICE, 5000), PORT, Segment(100, 200, RST | ACK))
        assert bob.notes.sent() == []

    def test_connect_to_a_closed_port_is_refused(self) -> None:
        lab, alice, bob = two_hosts()
        hers = alice.connect(bob, PORT)
        lab.run(until=1.0)
        assert (hers.connection.state, hers.connection.error) == (State.CLOSED, errno.ECONNREFUSED)
        assert not hers.established

    def test_an_unreachable_peer_fails_what_is_being_opened_there(self) -> None:
        lab, alice, bob = two_hosts()
        there = alice.connect(NOBODY, PORT)
        elsewhere, _ = connected(lab, alice, bob)
        alice.driver.unreachable(ALICE, NOBODY, lab.now)
        assert (there.connection.state, there.error) == (State.CLOSED, errno.EHOSTUNREACH)
        assert (elsewhere.connection.state, elsewhere.error) == (State.ESTABLISHED, None)

    def test_an_unreachable_peer_does_not_end_what_is_open(self) -> None:
        """TCP bridges an interruption; its own time-out decides (RFC 9293 §3.8.3)."""
        lab, alice, bob = two_hosts()
        hers, _ = connected(lab, alice, bob)
        alice.driver.unreachable(ALICE, BOB, lab.now)
        assert hers.connection.state == State.ESTABLISHED


class TestListening:
    def test_connections_wait_to_be_accepted_in_order(self) -> None:
        lab, alice, bob = two_hosts()
        listener = bob.listen(PORT)
        hers = [alice.connect(bob, PORT) for _ in range(3)]
        lab.run(until=1.0)
        assert [his.four.peer_port for his in listener.ready] == [each.four.local_port for each in hers]

    def test_who_waits_is_told(self) -> None:
        lab, alice, bob = two_hosts()
        told: list[float] = []
        bob.driver.listen("", PORT, 5, lambda: told.append(lab.now))
        alice.connect(bob, PORT)
        lab.run(until=1.0)
        assert told == [pytest.approx(3 * DELAY)]

    def test_the_backlog_bounds_syns(self) -> None:
        """SYN-RECEIVED and waiting ones together; a SYN too many is dropped, and comes again a second later."""
        lab, alice, bob = two_hosts()
        listener = bob.listen(PORT, backlog=3)
        for port in range(5):
            lab.inject(bob, (NOBODY, 5000 + port), PORT, Segment(0, flags=SYN, wnd=1000))
        assert (listener.opening, len(listener.ready)) == (3, 0)
        assert bob.notes.drops == ["backlog full"] * 2
        assert bob.notes.sent() == ["S."] * 3
        lab.inject(bob, (NOBODY, 5000), PORT, Segment(1, flags=RST))
        hers = [alice.connect(bob, PORT) for _ in range(2)]
        lab.run(until=0.5)
        assert [each.established for each in hers] == [True, False]
        assert (listener.opening, len(listener.ready)) == (2, 1)
        listener.ready.popleft()
        lab.run(until=1.5)
        assert hers[1].established

    def test_a_full_backlog_still_completes_what_is_being_opened(self) -> None:
        lab, alice, bob = two_hosts()
        listener = bob.listen(PORT, backlog=1)
        hers = alice.connect(bob, PORT)
        lab.run(until=1.0)
        assert hers.established
        assert len(listener.ready) == 1
        assert bob.notes.drops == []

    @pytest.mark.parametrize("backlog", [0, -1])
    def test_a_backlog_below_one_is_one(self, backlog: int) -> None:
        _, _, bob = two_hosts()
        assert bob.listen(PORT, backlog).backlog == 1

    def test_a_stray_acknowledgement_is_reset_and_leaves_nothing(self) -> None:
        lab, _, bob = two_hosts()
        listener = bob.listen(PORT)
        lab.inject(bob, (NOBODY, 5000), PORT, Segment(1, 2, ACK))
        assert bob.notes.sent() == ["R"]
        assert listener.opening == 0
        assert not bob.driver.demux.connections

    def test_closing_resets_those_that_nobody_has_accepted(self) -> None:
        lab, alice, bob = two_hosts()
        listener = bob.listen(PORT)
        waiting = alice.connect(bob, PORT)
        lab.run(until=1.0)
        lab.inject(bob, (NOBODY, 5000), PORT, Segment(0, flags=SYN, wnd=1000))
        bob.notes.sent()
        bob.driver.unlisten(listener, lab.now)
        assert bob.notes.sent() == ["R.", "R."]
        assert not bob.driver.demux.connections
        lab.run(until=2.0)
        assert waiting.connection.error == errno.ECONNRESET

    def test_closing_leaves_what_was_accepted(self) -> None:
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        bob.driver.unlisten(bob.driver.demux.listeners["", PORT], lab.now)
        alice.write(hers, b"hello")
        lab.run(until=1.0)
        assert bob.read(his) == b"hello"


class TestReleased:
    """The application has closed its end and will read no more."""

    def test_it_closes_in_order(self) -> None:
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        alice.driver.release(hers, lab.now)
        bob.driver.release(his, lab.now)
        lab.run(until=10.0)
        assert hers.connection.error is his.connection.error is None
        assert not alice.driver.demux.connections
        assert not bob.driver.demux.connections

    def test_a_peer_that_still_sends_is_reset(self) -> None:
        """RFC 9293 §3.6.1: nobody would ever read it."""
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        alice.driver.release(hers, lab.now)
        lab.run(until=1.0)
        assert his.connection.state == State.CLOSE_WAIT
        bob.write(his, b"are you there?")
        lab.run(until=2.0)
        assert (his.connection.state, his.connection.error) == (State.CLOSED, errno.ECONNRESET)
        assert not alice.driver.demux.connections

    def test_what_was_sent_before_still_arrives(self) -> None:
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        alice.write(hers, bytes(100_000))
        alice.driver.release(hers, lab.now)
        lab.run(until=5.0)
        received = 0
        while data := bob.read(his):
            received += len(data)
            lab.run(until=lab.now + 5.0)
        assert received == 100_000
        assert his.connection.at_eof

    def test_data_that_nobody_has_read_is_reported_as_lost(self) -> None:
        """RFC 9293 §3.6.1, SHLD-3: by a reset at once, though the peer sends no more."""
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        bob.write(his, b"unread")
        lab.run(until=1.0)
        alice.driver.release(hers, lab.now)
        lab.run(until=2.0)
        assert (his.connection.state, his.connection.error) == (State.CLOSED, errno.ECONNRESET)
        assert not alice.driver.demux.connections


class TestTimeWait:
    """RFC 9293 §3.6.1, MAY-2: a new SYN may reopen a connection that is in TIME-WAIT."""

    def in_time_wait(self) -> tuple[Lab, Host, Endpoint, FourTuple]:
        """Bob, who has closed first, and his connection; alice's end has gone."""
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        bob.write(his, bytes(50_000))
        bob.driver.close(his, lab.now)
        lab.run(until=0.5)
        alice.read(hers)
        alice.driver.close(hers, lab.now)
        lab.run(until=1.0)
        assert his.connection.state == State.TIME_WAIT
        del lab.hosts[ALICE]
        return lab, bob, his, his.four

    def syn(self, his: Endpoint) -> Segment:
        """With a newer timestamp it opens, whatever its sequence number (RFC 6191)."""
        stamp = his.connection._ts_recent  # type: ignore[attr-defined]
        return Segment(his.connection.rcv_nxt, flags=SYN, wnd=1000, options=Options(timestamp=(stamp + 1, 0)))

    def test_it_is_offered_to_the_listener(self) -> None:
        lab, bob, his, four = self.in_time_wait()
        lab.inject(bob, (four.peer, four.peer_port), four.local_port, self.syn(his))
        again = bob.driver.demux.connections[four]
        assert again is not his
        assert again.connection.state == State.SYN_RCVD

    def test_it_begins_beyond_the_old_sequence_numbers(self) -> None:
        """Faster than 250 kB/s a connection uses them up before the clock of RFC 6528 §3 gets there."""
        lab, bob, his, four = self.in_time_wait()
        his.connection.snd_nxt = (his.connection.snd_nxt + (1 << 24)) & 0xFFFFFFFF  # as if it had sent 16 MiB
        lab.inject(bob, (four.peer, four.peer_port), four.local_port, self.syn(his))
        assert bob.driver.demux.connections[four].connection.iss == his.connection.snd_nxt

    def test_without_a_listener_it_is_refused(self) -> None:
        lab, bob, his, four = self.in_time_wait()
        bob.driver.unlisten(bob.driver.demux.listeners["", PORT], lab.now)
        bob.notes.sent()
        lab.inject(bob, (four.peer, four.peer_port), four.local_port, self.syn(his))
        assert bob.notes.sent() == ["R."]
        assert not bob.driver.demux.connections


class TestChecksum:
    """The C chiTCP leaves it out, and then the field is zero; once in 65,535 segments it is zero when computed."""

    def deliver(self, lab: Lab, his: Endpoint, host: Host, data: bytes, *, zero: bool, damaged: bool) -> None:
        """The next segment for `his`; `zero`: as if its checksum had been computed to be that."""
        four, seg = his.four, Segment(his.connection.rcv_nxt, his.connection.snd_nxt, ACK, 1000, data)
        raw = wire.encode(seg, four.peer_port, four.local_port, wire.pseudo_header(four.peer, four.local))
        if zero:  # the urgent pointer, of no meaning here, takes what the checksum would be
            raw = raw[:16] + b"\0\0" + raw[16:18] + raw[20:]
        if damaged:
            raw = raw[:-1] + bytes([raw[-1] ^ 1])
        host.driver.segments_arrive(four.local, four.peer, [raw], lab.now)

    def established(self, *, computes: bool) -> tuple[Lab, Host, Endpoint]:
        lab, alice, bob = two_hosts(config=Config(timestamps=False))
        _, his = connected(lab, alice, bob)
        his.checksums = computes
        return lab, bob, his

    def test_zero_is_taken_from_a_peer_that_computes_none(self) -> None:
        lab, bob, his = self.established(computes=False)
        self.deliver(lab, his, bob, b"abc", zero=True, damaged=True)
        assert bob.read(his) == b"abb"

    def test_zero_is_checked_if_the_peer_has_computed_others(self) -> None:
        """Else damage in such a segment would reach the application."""
        lab, bob, his = self.established(computes=False)
        self.deliver(lab, his, bob, b"abc", zero=False, damaged=False)
        self.deliver(lab, his, bob, b"def", zero=True, damaged=True)
        assert bob.read(his) == b"abc"
        assert bob.notes.drops == ["wrong checksum"]
        self.deliver(lab, his, bob, b"def", zero=True, damaged=False)
        assert bob.read(his) == b"def"


class Faulty(Connection):
    """A TCP that works until it is told to fail."""

    def segment_arrives(self, seg: Segment, now: float) -> None:
        if seg.data == b"raise":
            raise KeyError("a mistake in segment_arrives")
        if seg.data == b"garbage":
            self._emit(Segment(seq=-1, flags=ACK))
        if seg.data == b"ruin" and self.state == State.ESTABLISHED:
            self.snd_nxt = None  # type: ignore[assignment]
            raise KeyError("a mistake that leaves damaged variables")
        if seg.data == b"timer":
            self._arm(Timer.PERSIST, "soon")  # type: ignore[arg-type]
            self._arm(Timer.DELAYED_ACK, now)
        if seg.data == b"state":
            self.state = "open"  # type: ignore[assignment]
            raise KeyError("a mistake that leaves a state that is none")
        super().segment_arrives(seg, now)

    def send(self, data: bytes | memoryview, now: float) -> int:
        if data == b"raise":
            raise KeyError("a mistake in send")
        if data == b"garbage":
            self._emit(Segment(seq=2**32, flags=ACK))
        if data == b"nothing":
            return None  # type: ignore[return-value]
        return super().send(data, now)

    def receive(self, limit: int, now: float) -> bytes:
        data = super().receive(limit, now)
        return "text" if data == b"text" else data  # type: ignore[return-value]

    @property
    def writable(self) -> int:
        return super().writable / 2 if self.unread == b"half" else super().writable  # type: ignore[return-value]

    @property
    def readable(self) -> int:
        return None if self.unread == b"no number" else super().readable  # type: ignore[return-value]

    def timeout(self, timer: Timer, now: float) -> None:
        raise KeyError("a mistake in timeout")

    def abort(self, now: float) -> None:
        raise KeyError("a mistake in abort")


class FaultyFromTheStart(Connection):
    """A TCP that can't even be made."""

    def __init__(self, *, iss: int, config: Config) -> None:
        raise KeyError("a mistake in __init__")


class Forgetful(Connection):
    """A TCP whose author has forgotten what every subclass must do."""

    def __init__(self, *, iss: int, config: Config) -> None:
        self.count = 0


class TestFaultsOfTheLoadedTcp:
    """One connection pays for them: its application sees EIO, its peer a reset, the log says where."""

    @pytest.fixture
    def lab(self) -> Lab:
        return Lab()

    @pytest.fixture
    def alice(self, lab: Lab) -> Host:
        return lab.host(ALICE)

    @pytest.fixture
    def bob(self, lab: Lab) -> Host:
        return lab.host(BOB, tcp=Faulty)

    def others_still_work(self, lab: Lab, alice: Host, bob: Host) -> None:
        hers, his = connected(lab, alice, bob)
        alice.write(hers, b"hello")
        lab.run(until=lab.now + 0.03)
        assert bob.read(his) == b"hello"

    @pytest.mark.parametrize("poison", [b"raise", b"garbage", b"timer", b"state"])
    def test_on_a_segment(
        self, lab: Lab, alice: Host, bob: Host, poison: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        hers, his = connected(lab, alice, bob)
        alice.write(hers, poison)
        lab.run(until=lab.now + 0.03)
        assert (his.error, his.connection.state) == (errno.EIO, State.CLOSED)
        with raises_errno(errno.EIO):
            bob.write(his, b"more")
        assert (hers.connection.error, hers.connection.state) == (errno.ECONNRESET, State.CLOSED)
        assert "fault in the TCP" in caplog.text
        assert f"{__file__}" in caplog.text or "wire.py" in caplog.text or "driver.py" in caplog.text
        self.others_still_work(lab, alice, bob)

    def test_in_what_it_returns(self, lab: Lab, alice: Host, bob: Host, caplog: pytest.LogCaptureFixture) -> None:
        hers, his = connected(lab, alice, bob)
        with raises_errno(errno.EIO):
            bob.write(his, b"nothing")
        assert "send has returned None, expected how many of the 7 bytes it has taken" in caplog.text
        hers, his = connected(lab, alice, bob)
        alice.write(hers, b"text")
        lab.run(until=lab.now + 0.03)
        with raises_errno(errno.EIO):
            bob.read(his)
        assert "receive has returned 'text', expected at most 1048576 bytes" in caplog.text
        self.others_still_work(lab, alice, bob)

    @pytest.mark.parametrize(
        ("text", "said"), [(b"half", r"readable is 4 and writable \d+\.\d,"), (b"no number", "readable is None and")]
    )
    def test_in_what_can_be_read_and_written(
        self, lab: Lab, alice: Host, bob: Host, text: bytes, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        hers, his = connected(lab, alice, bob)
        alice.write(hers, text)
        lab.run(until=lab.now + 0.03)
        assert bob.driver.levels(his) == (0, 0, False)
        lab.run(until=lab.now + 0.03)
        assert (his.error, his.connection.state) == (errno.EIO, State.CLOSED)
        assert hers.connection.error == errno.ECONNRESET
        assert re.search(said, caplog.text)
        self.others_still_work(lab, alice, bob)

    def test_a_segment_that_is_none_is_shown(
        self, lab: Lab, alice: Host, bob: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, his = connected(lab, alice, bob)
        bob.write(his, b"garbage")
        assert his.error == errno.EIO
        assert "the TCP has sent what is no segment: Segment(seq=4294967296" in caplog.text

    def test_that_leaves_damaged_variables(self, lab: Lab, alice: Host, bob: Host) -> None:
        """No reset can be made of them; the peer learns of it when it sends again."""
        hers, his = connected(lab, alice, bob)
        alice.write(hers, b"ruin")
        lab.run(until=lab.now + 0.03)
        assert (his.error, his.connection.state) == (errno.EIO, State.CLOSED)
        self.others_still_work(lab, alice, bob)
        lab.run(until=lab.now + 5.0)
        assert hers.connection.error == errno.ECONNRESET

    @pytest.mark.parametrize("poison", [b"raise", b"garbage"])
    def test_on_a_call_of_the_application(self, lab: Lab, alice: Host, bob: Host, poison: bytes) -> None:
        hers, his = connected(lab, alice, bob)
        if poison == b"raise":
            with raises_errno(errno.EIO):
                bob.write(his, poison)
        else:
            bob.write(his, poison)  # the call itself was good; the next one says it
        with raises_errno(errno.EIO):
            bob.write(his, b"more")
        lab.run(until=lab.now + 0.03)
        assert hers.connection.error == errno.ECONNRESET
        self.others_still_work(lab, alice, bob)

    def test_on_a_timer(self, lab: Lab, alice: Host, bob: Host) -> None:
        hers, his = connected(lab, alice, bob)
        lab.cut = True
        bob.write(his, b"into the void")
        lab.run(until=lab.now + 0.1)
        lab.cut = False
        lab.run(until=lab.now + 0.5)
        assert (his.error, hers.connection.error) == (errno.EIO, errno.ECONNRESET)
        self.others_still_work(lab, alice, bob)

    def test_on_abort(self, lab: Lab, alice: Host, bob: Host) -> None:
        """Nobody waits for the answer to an abort, so nothing is raised: those that are next get theirs too."""
        pairs = [connected(lab, alice, bob) for _ in range(2)]
        for _, his in pairs:
            bob.driver.abort(his, lab.now)
        lab.run(until=lab.now + 0.03)
        assert [hers.connection.error for hers, _ in pairs] == [errno.ECONNRESET] * 2

    @pytest.mark.parametrize("tcp", [FaultyFromTheStart, Forgetful])
    def test_on_making_it(self, lab: Lab, tcp: type[Connection], caplog: pytest.LogCaptureFixture) -> None:
        """There is no connection that could pay: segments are dropped, and connect fails."""
        bob = lab.host(BOB, tcp=tcp)
        listener = bob.listen(PORT)
        lab.inject(bob, (ALICE, 5000), PORT, Segment(0, flags=SYN))
        lab.inject(bob, (ALICE, 5000), PORT + 1, Segment(0, flags=SYN))
        assert bob.notes.drops == ["fault in the TCP"] * 2
        assert listener.opening == 0
        with raises_errno(errno.EIO):
            bob.connect(ALICE, PORT)
        assert not bob.driver.demux.connections
        assert caplog.text.count("fault in the TCP") == 3

    def test_two_hosts_with_the_same_fault_do_not_reset_each_other_for_ever(self, lab: Lab, alice: Host) -> None:
        class Unwritten(Connection):
            def segment_arrives(self, seg: Segment, now: float) -> None:
                raise NotImplementedError

        one, other = (lab.host(address, tcp=Unwritten) for address in (ALICE, BOB))
        other.listen(PORT)
        one.connect(other, PORT)
        one.connect(other, PORT + 1)
        lab.run(until=10.0)
        assert set(one.notes.sent()) == {"S"}
        assert other.notes.sent() == []

    def test_misuse_is_no_fault(self, lab: Lab, alice: Host, bob: Host, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        hers, _ = connected(lab, alice, bob)
        alice.driver.close(hers, lab.now)
        with raises_errno(errno.EPIPE):
            alice.write(hers, b"too late")
        assert caplog.text == ""


class TestTime:
    def test_one_wake_up_for_all_timers(self) -> None:
        """The driver tells of a deadline only if it is before all others."""
        lab = Lab()
        alice = lab.host(ALICE)
        for lab.now in (0.0, 0.1, 0.2):
            alice.connect(NOBODY, PORT)
        assert alice.wakes == [1.0]
        assert alice.driver.expire(0.5) == 1.0  # too early: nothing happens
        assert alice.notes.sent() == ["S"] * 3
        assert alice.driver.expire(1.0) == pytest.approx(1.1)
        assert alice.notes.sent() == ["S"]
        assert alice.driver.expire(1.25) == pytest.approx(3.0)  # the first one's second retransmission is next
        assert alice.notes.sent() == ["S"] * 2

    def test_an_earlier_deadline_is_told(self) -> None:
        lab, alice, bob = two_hosts()
        alice.connect(NOBODY, PORT)
        hers, _ = connected(lab, alice, bob)
        alice.wakes.clear()
        alice.write(hers, b"x")
        assert alice.wakes == [pytest.approx(lab.now + 0.2)]  # the RTO of a path of 20 ms is its minimum

    def test_a_timer_that_was_moved_costs_no_second_entry(self) -> None:
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        for _ in range(100):
            alice.write(hers, b"x")
            lab.run(until=lab.now + 0.005)
        assert len(alice.driver._heap) <= 3
        assert len(bob.driver._heap) <= 3
        lab.run(until=lab.now + 1.0)
        assert bob.read(his) == b"x" * 100

    def test_nothing_is_due_when_all_is_quiet(self) -> None:
        lab, alice, bob = two_hosts()
        connected(lab, alice, bob)
        lab.run(until=100.0)
        assert alice.driver.expire(100.0) is None
        assert bob.driver.expire(100.0) is None


class Restless(Connection):
    """Arms a timer again for the very time at which it expires."""

    def timeout(self, timer: Timer, now: float) -> None:
        self._arm(timer, now)


def test_a_timer_that_is_always_due_does_not_keep_the_driver() -> None:
    lab = Lab()
    alice = lab.host(ALICE, tcp=Restless)
    alice.connect(NOBODY, PORT)
    deadline = alice.driver.expire(5.0)
    assert deadline == 5.0  # once, and again at the next call


class TestSeed:
    def openings(self, seed: bytes, count: int = 3) -> list[tuple[FourTuple, int]]:
        alice = Lab().host(ALICE, seed=seed)
        endpoints = [alice.connect(BOB, PORT) for _ in range(count)]
        return [(endpoint.four, endpoint.connection.iss) for endpoint in endpoints]

    def test_the_same_one_gives_the_same_ports_and_sequence_numbers(self) -> None:
        assert self.openings(b"seed") == self.openings(b"seed")

    def test_another_one_gives_others(self) -> None:
        one, other = self.openings(b"seed"), self.openings(b"another")
        assert not {four for four, _ in one} & {four for four, _ in other}
        assert not {iss for _, iss in one} & {iss for _, iss in other}


class OneByOne(Connection):
    """A TCP that has said nothing of bursts itself, as somebody's own; it notes what comes."""

    arrived: list[Segment]

    def segment_arrives(self, seg: Segment, now: float) -> None:
        self.arrived = [*getattr(self, "arrived", ()), seg]
        super().segment_arrives(seg, now)


class Noting(OneByOne):
    takes_bursts = True


class TestBursts:
    """What came in a row arrives as one where the TCP wants that; in the records each segment is its own."""

    def arrive(self, tcp: type[OneByOne], parts: int) -> tuple[Host, Endpoint, OneByOne]:
        lab, alice, bob = two_hosts(tcp=tcp)
        hers, his = connected(lab, alice, bob)
        lab.cut = True
        alice.write(hers, b"".join(bytes([number]) * 1448 for number in range(parts)))
        raws = [raw for _, peer, raw in lab.carried if peer == BOB][-parts:]
        bob.notes.segments.clear()
        assert isinstance(his.connection, tcp)
        his.connection.arrived = []
        bob.driver.segments_arrive(BOB, ALICE, raws, lab.now)
        return bob, his, his.connection

    def test_as_one(self) -> None:
        bob, his, tcp = self.arrive(Noting, 5)
        [burst] = tcp.arrived
        assert (len(burst.data), burst.size) == (5 * 1448, 1448)
        assert [event for event, _ in bob.notes.segments] == ["received"] * 5 + ["sent"]  # and one ACK
        assert (his.counters.data_segs_in, his.counters.bytes_received) == (5, 5 * 1448)

    def test_one_by_one(self) -> None:
        bob, his, tcp = self.arrive(OneByOne, 5)
        assert [len(seg.data) for seg in tcp.arrived] == [1448] * 5
        assert {seg.size for seg in tcp.arrived} == {0}
        assert his.counters.data_segs_in == 5
        assert bob.read(his) == b"".join(bytes([number]) * 1448 for number in range(5))

    def test_one_by_one_behind_a_gap(self) -> None:
        """RFC 5681 §4.2: a duplicate ACK for each, of which a peer without SACK needs three."""
        lab, alice, bob = two_hosts(config=Config(sack=False))
        hers, _ = connected(lab, alice, bob)
        lab.cut = True
        alice.write(hers, bytes(5 * 1448))
        raws = [raw for _, peer, raw in lab.carried if peer == BOB][-5:]
        bob.notes.segments.clear()
        bob.driver.segments_arrive(BOB, ALICE, raws[1:], lab.now)
        assert bob.notes.sent() == ["."] * 4

    def test_a_damaged_one_is_dropped_and_what_follows_is_kept(self) -> None:
        lab, alice, bob = two_hosts()
        hers, his = connected(lab, alice, bob)
        lab.cut = True
        alice.write(hers, bytes(4 * 1448))
        raws = [raw for _, peer, raw in lab.carried if peer == BOB][-4:]
        bob.driver.segments_arrive(BOB, ALICE, [raws[0], raws[1][:-1] + b"!", *raws[2:]], lab.now)
        assert bob.notes.drops == ["wrong checksum"]
        assert his.connection.readable == 1448
        bob.driver.segments_arrive(BOB, ALICE, raws[1:2], lab.now)
        assert his.connection.readable == 4 * 1448
