"""Socket options that change while the connection lives, and what the reference tells of itself (TCP_INFO)."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from chitcpd.tcp.api import ACK, SYN, Info, Moment, Options, Segment, State, Timer, Transition
from chitcpd.tcp.connection import Connection
from tests.tcp.harness import IRS, ISS, MSS, OFFERS, Script, config, maker, peer, stream, us

a_connection = maker(Connection)
SCALES = Options(mss=MSS, window_scale=0)


def change(tcp: Script, **changes: object) -> None:
    tcp.connection.reconfigure(replace(tcp.connection.config, **changes), tcp.now)  # type: ignore[arg-type]
    tcp._collect()


def info(tcp: Script) -> Info:
    return tcp.connection.info()


# ---- reconfigure -------------------------------------------------------------------------------------------


def test_without_nagle_what_was_held_back_goes_at_once() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(nagle=True))
    tcp.send(b"abc")
    tcp.sends(us(b"abc"))
    tcp.send(b"de")
    tcp.sends_nothing()
    change(tcp, nagle=False)
    tcp.sends(us(b"de", seq=4))


def test_a_connection_is_kept_alive_from_now_on() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.waits_until(50.0)
    change(tcp, keep_alive=10.0)
    tcp.sends(us(seq=0), at=60.0)


def test_a_connection_is_kept_alive_no_more() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(keep_alive=10.0))
    tcp.arrives(peer(b"abc"), at=1.0)
    tcp.take()
    change(tcp, keep_alive=None)
    tcp.waits_until(1000.0)
    tcp.sends_nothing()


@pytest.mark.parametrize("state", [State.LISTEN, State.SYN_SENT, State.TIME_WAIT])
def test_there_is_nothing_to_keep_alive(state: State) -> None:
    tcp = a_connection(in_state=state)
    change(tcp, keep_alive=10.0)
    assert Timer.KEEP_ALIVE not in tcp.connection._deadlines


def test_keep_alive_is_asked_for_while_the_connection_is_opened() -> None:
    tcp = a_connection(in_state=State.SYN_SENT)
    change(tcp, keep_alive=10.0)
    tcp.arrives(Segment(IRS, ISS + 1, SYN | ACK, 4000, options=OFFERS), at=0.5)
    tcp.sends(us())
    tcp.sends(us(seq=0), at=10.5)


def test_an_option_of_something_else_leaves_the_keep_alive_timer() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    change(tcp, keep_alive=10.0)
    tcp.waits_until(6.0)
    change(tcp, nagle=True)
    tcp.sends(us(seq=0), at=10.0)


def test_a_larger_send_buffer_takes_more() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(send_buffer=5000))
    assert tcp.send(stream(9000)) == 5000
    assert tcp.connection.writable == 0
    change(tcp, send_buffer=8000)
    assert tcp.connection.writable == 3000
    assert tcp.send(stream(9000)) == 3000


def test_a_smaller_send_buffer_keeps_what_it_has() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(send_buffer=5000))
    tcp.send(stream(5000))
    change(tcp, send_buffer=1000)
    assert (tcp.connection.writable, tcp.send(b"more")) == (0, 0)
    tcp.take()
    tcp.arrives(peer(ack=4001))
    assert (tcp.connection.unacknowledged, tcp.connection.writable) == (stream(1000, at=4001), 0)
    tcp.arrives(peer(ack=5001))
    assert tcp.connection.writable == 1000


def test_a_larger_receive_buffer_opens_the_window() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    change(tcp, receive_buffer=40_000)
    assert tcp.sends_one().wnd == 40_000


@pytest.mark.parametrize(("offers", "window"), [(OFFERS, 65_535), (SCALES, 65_535 << 1)])
def test_the_window_opens_no_further_than_the_agreed_scale_can_say(offers: Options, window: int) -> None:
    settings = config(receive_buffer=100_000, window_scaling=True)  # a shift of 1
    tcp = a_connection(in_state=State.ESTABLISHED, settings=settings, offers=offers)
    change(tcp, receive_buffer=1 << 20)
    tcp.arrives(peer(b"abc"))
    assert tcp.take()[-1].wnd << info(tcp).rcv_wscale == window - (3 if offers is OFFERS else 4)  # type: ignore[operator]


def test_the_scale_that_our_syn_has_offered_holds() -> None:
    """A larger buffer after the SYN: its shift was said already."""
    tcp = Script(Connection(iss=ISS, config=config(receive_buffer=100_000, window_scaling=True)), SCALES)
    tcp.open(active=True)
    change(tcp, receive_buffer=1 << 20)
    tcp.arrives(Segment(IRS, ISS + 1, SYN | ACK, 4000, options=SCALES))
    offered = tcp.take()[0].options
    assert offered is not None
    assert (offered.window_scale, info(tcp).rcv_wscale) == (1, 1)


@pytest.mark.rfc9293("SHLD-14")
def test_a_smaller_receive_buffer_takes_nothing_back() -> None:
    """3.8.6: the right edge of the window does not move to the left."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.arrives(peer(b"a"))
    edge = tcp.rcv_nxt + tcp.take()[-1].wnd
    change(tcp, receive_buffer=2000)
    tcp.sends_nothing()
    for at in (2, 1002, 2002, 3002, 4002, 5002, 6002):
        tcp.arrives(peer(stream(1000), seq=at))
        assert tcp.rcv_nxt + tcp.take()[-1].wnd == edge
    tcp.receive()
    tcp.arrives(peer(b"b", seq=7002))
    assert tcp.take()[-1].wnd == 2000 - 1


@pytest.mark.parametrize("names", [("cubic", "newreno"), ("newreno", "cubic")])
def test_another_congestion_control_goes_on_with_the_window(names: tuple[str, str]) -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(congestion=names[0], send_buffer=1 << 20))
    tcp.send(stream(40_000), at=1.0)
    tcp.arrives(peer(ack=2001, wnd=60_000))
    for _ in range(3):
        tcp.arrives(peer(ack=2001, wnd=60_000))  # the first segment behind these is lost
    before = info(tcp)
    assert (before.recovery, before.ssthresh) == ("recovery", before.cwnd)
    change(tcp, congestion=names[1])
    after = info(tcp)
    assert (after.cwnd, after.ssthresh, after.congestion) == (before.cwnd, before.ssthresh, names[1])


def test_a_congestion_control_after_none_begins_with_the_initial_window() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    assert (info(tcp).cwnd, info(tcp).ssthresh) == (None, None)
    change(tcp, congestion="newreno")
    assert (info(tcp).cwnd, info(tcp).ssthresh) == (10 * MSS, None)
    change(tcp, congestion="none")
    assert info(tcp).cwnd is None


def test_a_congestion_control_that_there_is_not_changes_nothing() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(congestion="newreno"))
    with pytest.raises(OSError, match="expected one of cubic, newreno, none") as caught:
        change(tcp, congestion="vegas", nagle=True)
    assert caught.value.errno == errno.ENOENT
    assert (info(tcp).congestion, tcp.connection.config.nagle) == ("newreno", False)


def test_a_user_timeout_counts_from_when_the_data_was_first_sent() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.send(b"abc", at=10.0)
    tcp.waits_until(12.0)
    change(tcp, user_timeout=5.0)
    tcp.waits_until(14.999)
    assert tcp.state == State.ESTABLISHED
    tcp.waits_until(15.0)
    assert tcp.error == errno.ETIMEDOUT


def test_without_a_user_timeout_the_connection_stays() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(user_timeout=5.0))
    tcp.send(b"abc", at=10.0)
    change(tcp, user_timeout=None)
    tcp.waits_until(30.0)
    assert tcp.state == State.ESTABLISHED


def test_a_user_timeout_while_the_connection_is_opened() -> None:
    tcp = a_connection(in_state=State.SYN_SENT)
    change(tcp, user_timeout=5.0)
    tcp.waits_until(5.0)
    assert tcp.error == errno.ETIMEDOUT


def test_smaller_segments() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    change(tcp, send_mss=600)
    tcp.send(stream(1200))
    tcp.sends_stream((1, 600), (601, 600))


def test_segments_are_no_larger_than_the_peer_takes() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    change(tcp, send_mss=1400)
    tcp.send(stream(2000))
    tcp.sends_stream((1, MSS), (1001, MSS))


def test_the_time_out_keeps_to_its_new_bounds() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    change(tcp, rto_min=5.0)
    tcp.send(b"abc", at=10.0)
    tcp.arrives(peer(ack=4), at=10.1)
    assert info(tcp).rto == 5.0


@pytest.mark.parametrize("state", State)
def test_new_settings_are_taken_in_every_state(state: State) -> None:
    """And they send nothing where nothing waits."""
    tcp = a_connection(in_state=state) if state != State.CLOSED else Script(Connection(iss=ISS, config=config()))
    new = config(nagle=True, user_timeout=9.0, keep_alive=8.0, send_buffer=1, receive_buffer=1, congestion="cubic")
    tcp.connection.reconfigure(new, tcp.now)
    assert tcp.connection.config is new
    assert tcp.connection.take_output() == []
    assert tcp.state == state


# ---- info --------------------------------------------------------------------------------------------------


def test_a_new_connection_has_measured_nothing() -> None:
    told = Connection(iss=ISS, config=config(congestion="cubic")).info()
    assert (told.srtt, told.rttvar, told.min_rtt, told.ssthresh) == (None, None, None, None)
    assert (told.rto, told.cwnd, told.congestion, told.recovery) == (1.0, 10 * 536, "cubic", "open")
    assert (told.in_flight, told.lost, told.sacked, told.backoff) == (0, 0, 0, 0)
    assert (told.sack, told.timestamps, told.snd_wscale, told.rcv_wscale) == (False, False, 0, 0)


@pytest.mark.parametrize("sack", [False, True])
def test_measured_round_trips(sack: bool) -> None:
    """RFC 6298 §2: 80 ms, then 40 ms."""
    offers = Options(mss=MSS, sack_permitted=sack)
    tcp = Script(Connection(iss=ISS, config=config(sack=sack, rto_min=0.2)), offers)
    tcp.open(active=True)
    tcp.arrives(Segment(IRS, ISS + 1, SYN | ACK, 4000, options=offers), at=0.08)
    tcp.send(b"a", at=1.0)
    tcp.arrives(peer(ack=2), at=1.04)
    told = info(tcp)
    assert told.sack is sack
    assert [told.srtt, told.rttvar, told.rto, told.min_rtt] == pytest.approx([0.075, 0.04, 0.235, 0.04])


def test_what_the_syns_agreed_on() -> None:
    offers = Options(mss=MSS, window_scale=7, sack_permitted=True, timestamp=(1, 0))
    settings = config(window_scaling=True, sack=True, timestamps=True, receive_buffer=1 << 20)
    told = info(a_connection(in_state=State.ESTABLISHED, settings=settings, offers=offers))
    assert (told.snd_wscale, told.rcv_wscale, told.sack, told.timestamps) == (7, 5, True, True)
    assert told.mss == MSS - 12


def test_recovery_by_sack_and_its_end() -> None:
    settings = config(sack=True, rack=False, congestion="newreno")
    offers = Options(mss=MSS, sack_permitted=True)
    tcp = a_connection(in_state=State.ESTABLISHED, settings=settings, offers=offers)
    tcp.send(stream(4000), at=1.0)
    assert (info(tcp).in_flight, info(tcp).recovery) == (4000, "open")
    tcp.arrives(peer(options=sack_of(1001, 2001)), at=1.1)
    assert (info(tcp).in_flight, info(tcp).sacked, info(tcp).recovery) == (3000, 1, "disorder")
    tcp.arrives(peer(options=sack_of(1001, 4001)), at=1.2)
    assert (info(tcp).in_flight, info(tcp).sacked, info(tcp).lost, info(tcp).recovery) == (1000, 3, 0, "recovery")
    assert info(tcp).ssthresh == info(tcp).cwnd == 2000
    tcp.arrives(peer(ack=4001), at=1.3)
    assert (info(tcp).in_flight, info(tcp).sacked, info(tcp).recovery) == (0, 0, "open")


def test_what_a_time_out_changes() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(congestion="newreno"))
    tcp.send(stream(3000), at=1.0)
    tcp.waits_until(2.0)
    told = info(tcp)
    assert (told.recovery, told.backoff, told.lost, told.in_flight) == ("loss", 1, 2, 1000)
    assert (told.cwnd, told.ssthresh, told.rto) == (1000, 2000, 2.0)
    tcp.arrives(peer(ack=3001), at=2.1)
    assert (info(tcp).recovery, info(tcp).backoff, info(tcp).lost) == ("open", 0, 0)


def sack_of(first: int, behind: int) -> Options:
    return Options(sack=((ISS + first, ISS + behind),))


# ---- transitions that are watched --------------------------------------------------------------------------


def transitions(tcp: Script, *segments: Segment) -> list[Transition]:
    for seg in segments:
        tcp.connection.segment_arrives(seg, tcp.now)
    return [output for output in tcp.connection.take_output() if isinstance(output, Transition)]


def test_a_watched_transition_tells_what_the_buffers_held_at_that_moment() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.connection.watched = True
    tcp.send(b"unacknowledged")
    [change] = transitions(tcp, peer(b"unread"), replace(peer(b"last", seq=7), flags=ACK | 1))
    assert (change.new, change.snd, change.rcv) == (State.CLOSE_WAIT, b"unacknowledged", b"unreadlast")


def test_a_watched_segment_comes_behind_what_there_was_at_that_moment() -> None:
    """Of two segments, the first shows that the second is not sent yet."""
    tcp = a_connection(in_state=State.ESTABLISHED)
    tcp.connection.watched = True
    tcp.connection.send(bytes(2 * tcp.connection.config.send_mss), tcp.now)
    outputs = tcp.connection.take_output()
    assert [type(output) for output in outputs] == [Moment, Segment] * 2
    behind = [(output.seq + len(output)) & 0xFFFFFFFF for output in outputs if isinstance(output, Segment)]
    assert [output.variables.snd_nxt for output in outputs if isinstance(output, Moment)] == behind


def test_otherwise_no_buffer_is_copied() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED)
    [change] = transitions(tcp, replace(peer(b"last"), flags=ACK | 1))
    assert (change.snd, change.rcv) == (b"", b"")


def test_a_passive_connection_is_established_before_the_ack_of_its_syn_counts() -> None:
    """3.10.7.4, fifth: enter ESTABLISHED, and continue processing there; users of the debugger rely on it."""
    [change] = transitions(a_connection(in_state=State.SYN_RCVD), peer(b"abc"))
    assert (change.old, change.new) == (State.SYN_RCVD, State.ESTABLISHED)
    assert change.variables.snd_una == change.variables.snd_nxt - 1 == ISS


def test_an_active_connection_is_established_after_the_ack_of_its_syn() -> None:
    """3.10.7.3, fourth: SND.UNA is advanced first."""
    answer = Segment(IRS, ISS + 1, SYN | ACK, 4000, options=OFFERS)
    [change] = transitions(a_connection(in_state=State.SYN_SENT), answer)
    assert (change.old, change.new) == (State.SYN_SENT, State.ESTABLISHED)
    assert change.variables.snd_una == change.variables.snd_nxt == ISS + 1
