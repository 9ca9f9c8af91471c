"""What applications write is searched in a process of its own, which can be ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event

import pytest

from testbed.search import LineSearch, search

FOR_EVER = "^(a+)+b$"


def test_of_a_text_all_lines_are_searched_together() -> None:
    assert search("one\ntwo$", b"zero\none\ntwo\n", within=10) == "one\ntwo"
    assert search("three", b"zero\none\ntwo\n", within=10) is None


def test_a_search_that_takes_for_ever_is_ended() -> None:
    with pytest.raises(TimeoutError):
        search(FOR_EVER, b"a" * 60, within=0.5)
    began = time.monotonic()
    with LineSearch(FOR_EVER, [b"a" * 60 + b"\n"]) as lines:
        assert lines.found(0.5) is None
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("pieces", "pattern"),
    [
        ([b"one\ntw", b"o\n"], "^two$"),
        ([b"one\r\n"], "^one$"),
        ([b"one\n", b"\n"], "^$"),
        ([b"no end"], "end$"),
        ([b"x" * 100_000, b"end\n"], "end"),
    ],
)
def test_a_line_is_found_however_it_comes(pieces: list[bytes], pattern: str) -> None:
    with LineSearch(pattern, pieces) as lines:
        assert lines.found() is True


def test_a_line_that_does_not_come_is_not_found() -> None:
    with LineSearch("one\ntwo", [b"one\ntwo\n"]) as lines:
        assert lines.found() is False


def test_a_line_is_found_as_soon_as_it_is_whole() -> None:
    given: SimpleQueue[bytes | None] = SimpleQueue()
    over = Event()

    def pieces() -> Iterator[bytes]:
        yield from iter(given.get, None)
        over.set()

    with LineSearch("^ready$", pieces()) as lines:
        given.put(b"rea")
        given.put(b"dy\n")
        assert lines.found(10) is True
    given.put(None)
    assert over.wait(10)
