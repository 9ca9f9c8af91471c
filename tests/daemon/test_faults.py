"""What a link does to segments, in literal times: no clock, no network."""

from __future__ import annotations

import pytest

from chitcpd.faults import IP_HEADER, Drop, Impairment, Shape

PACKET = 1250  # bytes on the link: 10 ms at 1 Mbit/s
SEGMENT = bytes(PACKET - IP_HEADER)
MBIT = 1e6


def arrivals(link: Impairment, *times: float, raw: bytes = SEGMENT) -> list[float | None]:
    """A segment enters at each of these times: when it arrives, or None if it is dropped."""
    pushed = [link.push(raw, at)[0] for at in times]
    assert all(len(copies) <= 1 for copies in pushed)
    return [copies[0][0] if copies else None for copies in pushed]


def history(link: Impairment, count: int) -> list[object]:
    """What happens to `count` segments, one each millisecond."""
    return [link.push(number.to_bytes(40), number / 1000) for number in range(count)]


def test_a_plain_link_passes_everything_at_once() -> None:
    link = Impairment(Shape(), seed=1)
    assert link.push(b"abc", 5.0) == ([(5.0, b"abc")], None)
    assert not link.counts


def test_delay() -> None:
    assert arrivals(Impairment(Shape(delay=0.025), seed=1), 0.0, 0.5) == [0.025, 0.525]


def tcp(flags: int, *, data: bytes = b"", options: bytes = b"") -> bytes:
    """A TCP header with these flags (RFC 9293 §3.1), and what is behind it."""
    return bytes(12) + bytes([(20 + len(options)) // 4 << 4, flags]) + bytes(6) + options + data


SYN, FIN, RST, PSH, ACK = 0x02, 0x01, 0x04, 0x08, 0x10
SEGMENTS = {
    "a SYN": tcp(SYN, options=bytes(4)),
    "a SYN-ACK": tcp(SYN | ACK),
    "an ACK": tcp(ACK, options=bytes(12)),
    "data": tcp(PSH | ACK, data=b"x", options=bytes(12)),
    "data and a FIN": tcp(FIN | ACK, data=b"x"),
    "a FIN": tcp(FIN | ACK),
    "a RST": tcp(RST | ACK),
    "no TCP": bytes(19),
}


class TestDrop:
    @pytest.mark.parametrize(
        ("kind", "matched"),
        [
            ("any", list(SEGMENTS)[:-1]),
            ("SYN", ["a SYN"]),
            ("SYN-ACK", ["a SYN-ACK"]),
            ("ACK", ["an ACK"]),
            ("data", ["data", "data and a FIN"]),
            ("FIN", ["data and a FIN", "a FIN"]),
            ("RST", ["a RST"]),
        ],
    )
    def test_kinds(self, kind: str, matched: list[str]) -> None:
        for name, raw in SEGMENTS.items():
            link = Impairment(Shape(drops=(Drop(kind, 1, 1),)), seed=1)
            assert (link.push(raw, 0.0) == ([], "drop rule")) == (name in matched), name

    def test_by_number(self) -> None:
        link = Impairment(Shape(drops=(Drop("data", 2, 3), Drop("data", 5, 5))), seed=1)
        passed = []
        for _ in range(7):
            link.push(SEGMENTS["an ACK"], 0.0)  # which counts for no rule
            passed.append(link.push(SEGMENTS["data"], 0.0)[1] is None)
        assert passed == [True, False, False, True, False, True, True]
        assert link.counts == {"drop rule": 3}

    def test_it_changes_nothing_of_what_is_random(self) -> None:
        """The segments behind it meet the same chances as without it."""
        plain, ruled = (
            Impairment(Shape(loss=0.5), seed=7),
            Impairment(Shape(loss=0.5, drops=(Drop("SYN", 1, 1),)), seed=7),
        )
        ruled.push(SEGMENTS["a SYN"], 0.0)
        assert [plain.push(SEGMENTS["data"], 0.0) for _ in range(50)] == [
            ruled.push(SEGMENTS["data"], 0.0) for _ in range(50)
        ]


class TestLoss:
    def test_its_share(self) -> None:
        link = Impairment(Shape(loss=0.05), seed=1)
        lost = sum(link.push(SEGMENT, 0.0) == ([], "loss") for _ in range(20_000))
        assert lost == link.counts["loss"]
        assert 0.045 < lost / 20_000 < 0.055

    def test_all_of_it(self) -> None:
        assert arrivals(Impairment(Shape(loss=1.0), seed=1), 0.0, 0.1, 0.2) == [None, None, None]

    def test_what_is_lost_takes_no_time_of_the_link(self) -> None:
        link = Impairment(Shape(loss=0.5, rate=MBIT), seed=1)
        arrived = [at for at in arrivals(link, *[0.0] * 20) if at is not None]
        assert arrived == pytest.approx([0.01 * (n + 1) for n in range(20 - link.counts["loss"])])


class TestSeed:
    SHAPE = Shape(delay=0.02, jitter=0.01, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1)

    def test_the_same_seed_repeats_everything(self) -> None:
        assert history(Impairment(self.SHAPE, seed=7), 500) == history(Impairment(self.SHAPE, seed=7), 500)

    def test_another_seed_does_otherwise(self) -> None:
        assert history(Impairment(self.SHAPE, seed=7), 500) != history(Impairment(self.SHAPE, seed=8), 500)


class TestRate:
    def test_packets_leave_one_after_the_other(self) -> None:
        link = Impairment(Shape(rate=MBIT), seed=1)
        assert arrivals(link, 0.0, 0.0, 0.015) == pytest.approx([0.01, 0.02, 0.03])

    def test_an_idle_link_saves_nothing_up(self) -> None:
        link = Impairment(Shape(rate=MBIT), seed=1)
        assert arrivals(link, 0.0, 1.0, 1.0) == pytest.approx([0.01, 1.01, 1.02])

    def test_the_ip_header_counts(self) -> None:
        link = Impairment(Shape(rate=MBIT), seed=1)
        assert arrivals(link, 0.0, raw=bytes(20)) == pytest.approx([40 * 8 / MBIT])

    def test_the_delay_comes_on_top(self) -> None:
        link = Impairment(Shape(rate=MBIT, delay=0.1), seed=1)
        assert arrivals(link, 0.0, 0.0) == pytest.approx([0.11, 0.12])


class TestQueue:
    def test_in_packets_beside_the_one_that_is_being_sent(self) -> None:
        link = Impairment(Shape(rate=MBIT, queue_packets=2), seed=1)
        assert arrivals(link, 0.0, 0.0, 0.0, 0.0) == pytest.approx([0.01, 0.02, 0.03, None])
        assert link.push(SEGMENT, 0.005) == ([], "queue")
        assert arrivals(link, 0.0101) == pytest.approx([0.04])  # one has left: there is room for one
        assert arrivals(link, 0.0102) == [None]
        assert link.counts["queue"] == 3

    def test_in_bytes_with_the_one_that_is_being_sent(self) -> None:
        link = Impairment(Shape(rate=MBIT, queue_bytes=2 * PACKET + 60), seed=1)
        assert arrivals(link, 0.0, 0.0, 0.0) == pytest.approx([0.01, 0.02, None])
        assert arrivals(link, 0.0, raw=bytes(40)) == pytest.approx([0.02 + 60 * 8 / MBIT])  # a small one fits in
        assert arrivals(link, 0.0, raw=bytes(0)) == [None]

    def test_a_packet_larger_than_the_queue_passes_an_idle_link(self) -> None:
        link = Impairment(Shape(rate=MBIT, queue_bytes=100), seed=1)
        assert arrivals(link, 0.0, 0.0, 0.02) == [pytest.approx(0.01), None, pytest.approx(0.03)]

    def test_without_a_rate_nothing_waits(self) -> None:
        link = Impairment(Shape(queue_packets=1), seed=1)
        assert arrivals(link, 0.0, 0.0, 0.0) == [0.0, 0.0, 0.0]


class TestOrder:
    def test_jitter_keeps_it(self) -> None:
        link = Impairment(Shape(delay=0.02, jitter=0.01), seed=1)
        times = [n / 1000 for n in range(500)]
        arrived = [at for at in arrivals(link, *times) if at is not None]
        assert arrived == sorted(arrived)
        late = [at - sent for at, sent in zip(arrived, times, strict=True)]
        assert all(0.01 <= by <= 0.03 for by in late)
        assert max(late) - min(late) > 0.01

    def test_jitter_above_the_delay_does_not_turn_time_back(self) -> None:
        link = Impairment(Shape(jitter=0.01), seed=1)
        assert all(at >= n for n, (at,) in enumerate([arrivals(link, float(n)) for n in range(50)]) if at is not None)

    def test_reorder_holds_some_back_for_another_delay(self) -> None:
        link = Impairment(Shape(delay=0.02, reorder=0.1), seed=1)
        arrived = arrivals(link, *[n / 1000 for n in range(1000)])
        by = [round(at - n / 1000, 9) for n, at in enumerate(arrived) if at is not None]
        assert set(by) == {0.02, 0.04}
        assert by.count(0.04) == link.counts["reorder"]
        assert 70 < by.count(0.04) < 130

    def test_reorder_without_a_delay_holds_them_back_for_ten_milliseconds(self) -> None:
        assert arrivals(Impairment(Shape(reorder=1.0), seed=1), 1.0) == [1.01]


class TestDuplicate:
    def test_both_copies_arrive(self) -> None:
        link = Impairment(Shape(duplicate=1.0), seed=1)
        assert link.push(b"abc", 1.0) == ([(1.0, b"abc"), (1.0, b"abc")], None)
        assert link.counts["duplicate"] == 1

    def test_each_copy_takes_its_time_and_its_place_in_the_queue(self) -> None:
        link = Impairment(Shape(duplicate=1.0, rate=MBIT, queue_packets=2), seed=1)
        assert [at for at, _ in link.push(SEGMENT, 0.0)[0]] == pytest.approx([0.01, 0.02])
        assert [at for at, _ in link.push(SEGMENT, 0.0)[0]] == pytest.approx([0.03])


def test_corrupt_turns_exactly_one_bit() -> None:
    link = Impairment(Shape(corrupt=1.0), seed=1)
    turned = set()
    for _ in range(2000):
        [(_, damaged)], _ = link.push(bytes(20), 0.0)
        assert len(damaged) == 20
        assert int.from_bytes(damaged).bit_count() == 1
        turned.add(damaged)
    assert len(turned) == 20 * 8  # any of them
    assert link.counts["corrupt"] == 2000


class TestChange:
    """A link that changes while segments are on it."""

    def test_what_comes_later_meets_the_new_shape(self) -> None:
        link = Impairment(Shape(delay=0.1), seed=1)
        assert arrivals(link, 0.0) == [0.1]
        assert link.change(Shape(delay=0.5), 1.0) == []
        assert arrivals(link, 1.0) == [1.5]

    def test_what_waits_leaves_at_the_new_rate(self) -> None:
        link = Impairment(Shape(rate=MBIT), seed=1)
        assert arrivals(link, 0.0, 0.0, 0.0) == pytest.approx([0.01, 0.02, 0.03])
        shifts = link.change(Shape(rate=10 * MBIT), 0.015)  # one has left
        assert shifts == pytest.approx([0.0155 - 0.02, 0.0165 - 0.03])
        assert arrivals(link, 0.015) == pytest.approx([0.0175])

    def test_without_a_rate_nothing_waits_any_more(self) -> None:
        link = Impairment(Shape(rate=MBIT), seed=1)
        arrivals(link, 0.0, 0.0)
        assert link.change(Shape(), 0.001) == pytest.approx([-0.009, -0.019])
        assert arrivals(link, 0.001) == pytest.approx([0.001])

    def test_order_is_kept(self) -> None:
        link = Impairment(Shape(delay=0.2), seed=1)
        assert arrivals(link, 0.0) == [0.2]
        link.change(Shape(), 0.1)
        assert arrivals(link, 0.1) == [0.2]

    def test_random_choices_and_counted_rules_go_on(self) -> None:
        shape = Shape(loss=0.5, drops=(Drop("any", 3, 3),))
        changed, unchanged = Impairment(shape, seed=7), Impairment(shape, seed=7)
        before = [history(link, 20) for link in (changed, unchanged)]
        changed.change(shape, 1.0)
        assert before[0] == before[1]
        assert history(changed, 20) == history(unchanged, 20)

    def test_down(self) -> None:
        link = Impairment(Shape(down=True), seed=1)
        assert link.push(SEGMENT, 0.0) == ([], "down")
        link.change(Shape(), 1.0)
        assert arrivals(link, 1.0) == [1.0]
        assert link.counts == {"down": 1}
