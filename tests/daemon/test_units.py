"""Quantities as people write them: what is understood, and what is said about the rest."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chitcpd import units
from chitcpd.units import Queue

READERS: list[Callable[[object], object]] = [
    units.seconds,
    units.bits_per_second,
    units.probability,
    units.size,
    units.queue,
]


@pytest.mark.parametrize(
    ("text", "value"),
    [("25ms", 0.025), ("1.5s", 1.5), ("2 min", 120.0), ("3us", 3e-6), ("7ns", 7e-9), (" 0s ", 0.0)],
)
def test_seconds(text: str, value: float) -> None:
    assert units.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("10mbit", 1e7), ("512kbit", 512e3), ("1.5gbit", 1.5e9), ("9600bit", 9600.0)]
)
def test_bits_per_second(text: str, value: float) -> None:
    assert units.bits_per_second(text) == value


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.1%", 0.001), ("100%", 1.0), ("0%", 0.0)])
def test_probability(text: str, value: float) -> None:
    assert units.probability(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("100B", 100), ("64kB", 64_000), ("1MB", 10**6), ("2GB", 2 * 10**9), ("1KiB", 1024), ("5MiB", 5 << 20)],
)
def test_size(text: str, value: int) -> None:
    assert units.size(text) == value


@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("100pkt", Queue(packets=100)),
        ("64kB", Queue(bytes=64_000)),
        ("50ms", Queue(seconds=0.05)),
        ("2bdp", Queue(bdp=2.0)),
    ],
)
def test_queue(text: str, queue: Queue) -> None:
    assert units.queue(text) == queue


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100pkt", (100, None)),
        ("64kB", (None, 64_000)),
        ("50ms", (None, 62_500)),  # what 10 Mbit/s carry in 50 ms
        ("2bdp", (None, 100_000)),  # twice what 10 Mbit/s carry in a round trip of 40 ms
        ("1ms", (None, 1600)),  # never less than a packet
    ],
)
def test_the_limit_of_a_queue_on_a_link_of_10_mbit_and_20_ms(text: str, limit: tuple[int | None, int | None]) -> None:
    assert units.queue(text).limit(rate=1e7, delay=0.02) == limit


@pytest.mark.parametrize("text", ["50ms", "2bdp"])
def test_a_queue_in_time_needs_a_rate(text: str) -> None:
    with pytest.raises(ValueError, match="needs the link's rate; give it in pkt or kB, or add a rate"):
        units.queue(text).limit(rate=None, delay=0.02)


TIME, RATE = "expected a time with its unit, like 25ms or 1.5s", "expected a rate with its unit, like 10mbit or 512kbit"
SHARE, SIZE = "expected a share in percent, like 1% or 0.1%", "expected a size with its unit, like 64kB or 5MiB"
QUEUE = "expected a queue in packets, bytes, time or bdp, like 100pkt, 64kB, 50ms or 2bdp"


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (units.seconds, "25", TIME),  # could be milliseconds or seconds
        (units.seconds, 25, TIME),
        (units.seconds, None, TIME),
        (units.seconds, "", TIME),
        (units.seconds, "-1s", TIME),
        (units.seconds, "1h", TIME),
        (units.seconds, "1MS", TIME),
        (units.seconds, "9" * 400 + "s", TIME),
        (units.seconds, "\N{ARABIC-INDIC DIGIT FIVE}s", TIME),
        (units.bits_per_second, "10Mbps", RATE),
        (units.bits_per_second, "10MB", RATE),
        (units.bits_per_second, "0mbit", "expected a rate above zero, like 10mbit"),
        (units.probability, "0.01", SHARE),
        (units.probability, "101%", "expected a share of at most 100%"),
        (units.size, "5", SIZE),
        (units.size, "5 megabytes", SIZE),
        (units.queue, "100", QUEUE),
        (units.queue, "100packets", QUEUE),
        (units.queue, "0pkt", "expected a queue above zero, like 100pkt"),
    ],
)
def test_what_is_refused(reader: Callable[[object], object], text: object, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        reader(text)
    assert str(refusal.value) == message


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # this machine may be busy


def finite_or_refused(reader: Callable[[object], object], text: object) -> None:
    try:
        value = reader(text)
    except ValueError as error:
        assert str(error).startswith("expected ")
    else:
        assert isinstance(value, Queue) or (isinstance(value, int | float) and 0 <= value < math.inf)


@unhurried
@given(st.sampled_from(READERS), st.text() | st.none() | st.integers() | st.floats() | st.binary())
def test_anything_is_read_or_refused_with_a_value_error(reader: Callable[[object], object], text: object) -> None:
    finite_or_refused(reader, text)


NUMBERS = (
    st.integers(-1, 10**330).map(str) | st.floats(-1, 1e16).map(str) | st.sampled_from(["", ".", "1e9", "0x1", "1_0"])
)
UNITS = st.sampled_from(
    ["ns", "us", "ms", "s", "min", "bit", "kbit", "gbit", "%", "B", "kB", "GiB", "pkt", "bdp", "µs", ""]
)


@unhurried
@given(st.sampled_from(READERS), NUMBERS, UNITS)
def test_any_number_with_any_unit_is_read_or_refused(
    reader: Callable[[object], object], number: str, unit: str
) -> None:
    finite_or_refused(reader, number + unit)


@unhurried
@given(NUMBERS, st.sampled_from(["pkt", "B", "GiB", "s", "min", "bdp"]), st.floats(1, 1e300), st.floats(0, 1e300))
def test_the_limit_of_a_queue_is_a_number_or_refused(number: str, unit: str, rate: float, delay: float) -> None:
    try:
        packets, size = units.queue(number + unit).limit(rate=rate, delay=delay)
    except ValueError:
        return
    assert (packets is None) != (size is None)
