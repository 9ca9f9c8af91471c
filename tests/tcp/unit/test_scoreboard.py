"""What SACK, timestamps and probes tell the reference, where only a small detail makes the difference."""

from __future__ import annotations

import math

import pytest

from chitcpd.tcp.api import Options, Segment, State, Timer
from chitcpd.tcp.congestion import controller
from chitcpd.tcp.connection import Connection
from chitcpd.tcp.recovery import LossDetection
from chitcpd.tcp.send import Record, SendBuffer
from tests.tcp.harness import ISS, MSS, Script, config, maker, peer, sacks, stream

a_connection = maker(Connection)
WND = 60_000


def in_flight(count: int, length: int = 10) -> SendBuffer:
    buffer = SendBuffer(99, 100_000)
    buffer.write(bytes(count * length))
    for k in range(count):
        first = 100 + length * k
        buffer.sent(Record(first, first + length, 0, 1.0, 1.0))
    return buffer


def ends(records: list[Record]) -> list[int]:
    return [record.end for record in records]


# ---- which records a block covers (RFC 6675 §4, Update) ------------------------------------------------------


def test_a_block_that_ended_within_a_segment_and_grows_covers_it() -> None:
    buffer = in_flight(4)
    assert ends(buffer.mark_sacked(((110, 115),), 100, 140)) == []
    assert ends(buffer.mark_sacked(((110, 130),), 100, 140)) == [120, 130]
    assert ends(buffer.mark_sacked(((110, 140),), 100, 140)) == [140]


def test_that_holds_for_the_oldest_segment_too() -> None:
    buffer = in_flight(2)
    assert ends(buffer.mark_sacked(((100, 105),), 100, 120)) == []
    assert ends(buffer.mark_sacked(((100, 120),), 100, 120)) == [110, 120]


def test_a_block_that_was_not_believed_is_news_when_it_may_be() -> None:
    buffer = in_flight(4)
    assert ends(buffer.mark_sacked(((110, 150),), 100, 140)) == []
    buffer.write(bytes(10))
    buffer.sent(Record(140, 150, 0, 1.0, 1.0))
    assert ends(buffer.mark_sacked(((110, 150),), 100, 150)) == [120, 130, 140, 150]


def test_each_block_of_one_sack_counts() -> None:
    buffer = in_flight(6)
    assert ends(buffer.mark_sacked(((150, 160), (110, 120), (130, 140)), 100, 160)) == [160, 120, 140]


def test_sacks_are_forgotten_if_even_the_oldest_has_one() -> None:
    """RFC 2018 §8: the peer has taken them back; then they are in flight again, and may be SACKed anew."""
    buffer = in_flight(4)
    buffer.mark_sacked(((100, 110), (120, 140)), 100, 140)
    buffer.mark_lost(buffer.records[1])
    assert (buffer.in_flight, buffer.sacked) == (0, 3)
    buffer.forget_sacks_if_broken()
    assert (buffer.in_flight, buffer.sacked) == (30, 0)
    assert ends(list(buffer.lost())) == [120]
    assert ends(buffer.mark_sacked(((120, 140),), 100, 140)) == [130, 140]


def test_sacks_of_which_the_oldest_has_none_are_kept() -> None:
    buffer = in_flight(2)
    buffer.mark_sacked(((110, 120),), 100, 120)
    buffer.forget_sacks_if_broken()
    assert (buffer.in_flight, buffer.sacked) == (10, 1)


def test_what_is_sacked_is_not_lost_any_more_and_the_rest_still_is() -> None:
    buffer = in_flight(5)
    for record in buffer.records[:3]:
        buffer.mark_lost(record)
    buffer.mark_sacked(((140, 150),), 100, 150)  # was not lost
    assert ends(list(buffer.lost())) == [110, 120, 130]
    buffer.mark_sacked(((110, 130),), 100, 150)
    assert ends(list(buffer.lost())) == [110]
    buffer.acknowledge(110)
    assert (list(buffer.lost()), buffer.lost_records) == ([], 0)


# ---- a connection, ten segments in flight since 2.0, over a round trip of 0.1 s --------------------------------


def flight(count: int = 10, *, timestamps: bool = False, **settings: object) -> Script:
    offers = Options(mss=MSS, sack_permitted=True, timestamp=(0, 0) if timestamps else None)
    all_settings = config(sack=True, timestamps=timestamps, send_mss=MSS, send_buffer=100_000, **settings)
    tcp = a_connection(in_state=State.SYN_SENT, settings=all_settings, offers=offers)
    if timestamps:
        tcp.offers = Options(mss=MSS + 12, sack_permitted=True, timestamp=(0, 0))
        tcp.connection.config.send_mss = MSS + 12  # so that MSS bytes are left
    tcp.arrives(Segment(5000, ISS + 1, 0x12, WND, options=tcp.offers), at=0.1)
    tcp.send(stream(MSS), at=1.0)
    tcp.arrives(peer(ack=1001, wnd=WND), at=1.1)
    tcp.send(stream(count * MSS, at=1001), at=2.0)
    tcp.take()
    assert tcp.snd_nxt == 1001 + count * MSS
    return tcp


def told(tcp: Script, *blocks: tuple[int, int], ack: int = 1001, at: float, echo: int | None = None) -> None:
    """An ACK with these blocks; `echo`: milliseconds of our clock."""
    stamp = (int(at * 1000), ISS + echo) if echo is not None else None
    options = Options(sack=sacks(*blocks).sack, timestamp=stamp)
    tcp.arrives(peer(ack=ack, wnd=WND, options=options), at=at)


def cwnd(tcp: Script) -> int:
    assert isinstance(tcp.connection, Connection)
    return tcp.connection._congestion.cwnd


def test_a_duplicate_is_no_news_of_the_blocks_behind_it() -> None:
    """RFC 2883 §4: the first block tells of the duplicate, all others of what is there."""
    tcp = flight(rack=False)
    told(tcp, (501, 1001), (9001, 10_001), (5001, 6001), (3001, 4001), at=2.1)
    tcp.sends_stream((1001, MSS), (2001, MSS))  # three are SACKed above these, and that is enough


@pytest.mark.parametrize("duplicate", [(501, 1001), (5001, 6001)])
def test_a_duplicate_below_the_ack_or_within_the_next_block_widens_the_reordering_window(
    duplicate: tuple[int, int],
) -> None:
    """RFC 2883 §4, RFC 8985 §6.2 step 4: half of the round trip in place of a quarter."""
    tcp = flight()
    told(tcp, (5001, 6001), at=2.1)
    assert tcp.connection.next_deadline() == pytest.approx(2.125)
    told(tcp, duplicate, (5001, 6001), at=2.105)
    told(tcp, (6001, 7001), (5001, 6001), at=2.106)
    assert tcp.connection.next_deadline() == pytest.approx(2.0 + 0.106 + 0.05)


def test_a_block_next_to_another_is_no_duplicate_and_no_sign_of_reordering() -> None:
    """The ACK between them was lost; the newest block comes first (RFC 2018 §4)."""
    tcp = flight()
    told(tcp, (6001, 7001), (4001, 6001), at=2.1)
    tcp.sends_stream((1001, MSS), (2001, MSS), (3001, MSS))  # three are SACKed: what is below is lost at once


def test_there_is_no_probe_while_sacks_tell_more() -> None:
    """RFC 8985 §7.2: only if no SACKed segment is there."""
    tcp = flight()
    assert Timer.PROBE in tcp.connection._deadlines
    told(tcp, (2001, 3001), at=2.1)
    assert Timer.PROBE not in tcp.connection._deadlines
    assert Timer.REORDERING in tcp.connection._deadlines


def test_nothing_is_late_once_all_of_it_has_come() -> None:
    tcp = flight(2)
    told(tcp, (2001, 3001), at=2.1)
    told(tcp, ack=3001, at=2.11)
    assert tcp.connection.next_deadline() is None


@pytest.mark.parametrize(("echo", "repairs"), [(2000, False), (2100, True)])
def test_a_timestamp_tells_whether_the_retransmission_has_arrived(echo: int, repairs: bool) -> None:
    """RFC 8985 §6.2 step 2: if it has, what was sent before it is overdue; if its first copy was late, nothing is."""
    tcp = flight(timestamps=True)
    told(tcp, (2001, 5001), at=2.1, echo=2000)
    tcp.sends_stream((1001, MSS))
    told(tcp, ack=5001, at=2.25, echo=echo)
    tcp.waits_until(2.29)
    assert [seg.seq - ISS for seg in tcp.take()][:1] == ([5001] if repairs else [])


def test_recovery_begins_with_a_retransmission_even_if_the_window_is_full() -> None:
    """RFC 6675 §5 step 4.3: the pipe is larger than the new window, and the lost segment goes all the same."""
    tcp = flight(rack=False, congestion="newreno")
    told(tcp, (2001, 5001), at=2.1)
    assert cwnd(tcp) == 5 * MSS
    tcp.sends_stream((1001, MSS))


# ---- the tail loss probe (RFC 8985 §7.4) -----------------------------------------------------------------------


def probed() -> Script:
    """All ten segments wait; at 2.2 a probe has gone: the last of them once more."""
    tcp = flight(congestion="newreno")
    tcp.sends_stream((10_001, MSS), at=2.2)
    return tcp


def test_a_probe_that_repaired_a_loss_slows_down() -> None:
    """§7.4.2, case 3: the ACK of more than the probe comes, and nothing has told of two copies."""
    tcp = probed()
    before = cwnd(tcp)
    told(tcp, ack=11_001, at=2.3)
    tcp.send(stream(MSS, at=11_001), at=2.4)
    told(tcp, ack=12_001, at=2.5)
    assert cwnd(tcp) < before


def test_a_probe_of_which_both_copies_have_come_does_not() -> None:
    """§7.4.2, case 1: D-SACK."""
    tcp = probed()
    before = cwnd(tcp)
    told(tcp, ack=11_001, at=2.21)
    told(tcp, (10_001, 11_001), ack=11_001, at=2.3)
    tcp.send(stream(MSS, at=11_001), at=2.4)
    told(tcp, ack=12_001, at=2.5)
    assert cwnd(tcp) >= before


def test_d_sack_of_something_else_says_nothing_of_the_probe() -> None:
    tcp = probed()
    before = cwnd(tcp)
    told(tcp, (5001, 6001), ack=11_001, at=2.3)
    tcp.send(stream(MSS, at=11_001), at=2.4)
    told(tcp, ack=12_001, at=2.5)
    assert cwnd(tcp) < before


@pytest.mark.parametrize("length", [1, 500])
def test_a_probe_with_new_data_repairs_nothing(length: int) -> None:
    """§7.4.2 is about retransmissions: new data can't have repaired anything, however little it is."""
    tcp = flight(4, congestion="newreno", nagle=True)
    tcp.send(stream(1, at=5001))
    tcp.sends_stream((5001, 1))
    tcp.send(stream(length, at=5002))  # Nagle keeps it back
    tcp.sends_stream((5002, length), at=2.2)
    before = cwnd(tcp)
    tcp.send(stream(MSS, at=5002 + length), at=2.21)
    told(tcp, ack=5002 + length + MSS, at=2.3)
    assert tcp.snd_una == tcp.snd_nxt
    tcp.send(stream(MSS, at=5002 + length + MSS), at=2.4)
    told(tcp, ack=tcp.snd_nxt, at=2.5)
    assert tcp.snd_una == tcp.snd_nxt
    assert cwnd(tcp) >= before


def test_the_time_out_begins_anew_with_the_probe() -> None:
    """§7.3: a whole RTO from then."""
    tcp = probed()
    tcp.sends_stream((1001, MSS), at=3.2)
    assert cwnd(tcp) == MSS


def test_a_probe_keeps_within_the_peers_window() -> None:
    """§7.3: new data only if the receive window allows; else the last segment once more."""
    tcp = flight(congestion="none")
    tcp.arrives(peer(ack=1001, wnd=10 * MSS), at=2.05)
    tcp.send(stream(MSS, at=11_001), at=2.06)
    tcp.sends_stream((10_001, MSS), at=2.2)


# ---- the reordering timer (RFC 8985 §6.3) ----------------------------------------------------------------------


def test_all_that_is_overdue_goes_when_the_reordering_timer_expires() -> None:
    tcp = flight()
    told(tcp, (4001, 5001), at=2.1)
    tcp.sends_stream((1001, MSS), (2001, MSS), (3001, MSS), at=2.125)
    told(tcp, ack=5001, at=2.25)
    assert tcp.snd_una == 5001


def test_a_widened_reordering_window_stays_for_sixteen_recoveries() -> None:
    """RFC 8985 §6.2 step 4."""
    buffer = SendBuffer(99, 100_000)
    loss = LossDetection(config(sack=True), buffer, 99)
    loss.sack = True
    congestion = controller("none", MSS, 10)
    loss.on_duplicate_data(100, 100)
    widths = []
    for k in range(17):
        una, nxt = 100 + 20 * k, 120 + 20 * k
        buffer.write(bytes(20))
        for first in (una, una + 10):
            buffer.sent(Record(first, first + 10, 0, float(k), float(k)))
        loss.on_delivered(buffer.mark_sacked(((una + 10, nxt),), una, nxt), math.inf, k + 0.4)
        look_again = loss.detect(MSS, 1.0, k + 0.4)
        assert look_again is not None
        widths.append(round(look_again - k - 0.4, 6))
        loss.enter_recovery(congestion, una, nxt, k + 0.5)
        buffer.acknowledge(nxt)
        loss.on_new_ack(una, nxt)
    assert widths == [0.2] * 16 + [0.1]


def test_the_tail_of_a_request_does_not_wait_for_what_is_full() -> None:
    """3.7.4 would hold it until all is acknowledged, and the peer may delay that: Minshall's variant does not."""
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(nagle=True))
    tcp.send(stream(MSS + 500))
    tcp.sends_stream((1, MSS), (1 + MSS, 500))
    tcp.send(stream(300, at=1501))
    tcp.sends()
    tcp.arrives(peer(ack=1501))
    tcp.sends_stream((1501, 300))
    assert tcp.snd_nxt == 1801


def test_what_was_small_holds_nothing_back_once_it_is_acknowledged() -> None:
    tcp = a_connection(in_state=State.ESTABLISHED, settings=config(nagle=True))
    tcp.send(stream(1))
    tcp.sends_stream((1, 1))
    tcp.arrives(peer(ack=2))
    tcp.send(stream(MSS, at=2))
    tcp.send(stream(1, at=2 + MSS))
    tcp.sends_stream((2, MSS), (2 + MSS, 1))
    assert tcp.snd_nxt == 3 + MSS
