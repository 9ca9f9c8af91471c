"""The receive buffer against a model that is slow and obvious: which bytes have come, one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from chitcpd.tcp.receive import ReceiveBuffer
from chitcpd.tcp.seq import add, diff

LENGTH = 90  # bytes of the stream
STREAM = bytes(range(1, LENGTH + 1))
starts = st.sampled_from((0, 2**32 - 1, 2**32 - 45, 2**31 - 45)) | st.integers(0, 2**32 - 1)
pieces = st.tuples(st.integers(0, LENGTH - 1), st.integers(1, 25))
steps = st.lists(pieces | st.integers(0, 40), max_size=40)  # a piece comes; or so many bytes are read


@dataclass
class Model:
    """What has come, and when each byte of it last did."""

    came: dict[int, int] = field(default_factory=dict)
    clock: int = 0
    read: int = 0

    def insert(self, first: int, behind: int) -> None:
        self.clock += 1
        self.came |= dict.fromkeys(range(first, behind), self.clock)

    @property
    def rcv_nxt(self) -> int:
        return next(at for at in range(LENGTH + 30) if at not in self.came)

    def blocks(self) -> list[tuple[int, int]]:
        """What is ahead of the gap, as ranges."""
        ahead = sorted(at for at in self.came if at > self.rcv_nxt)
        firsts = [at for at in ahead if at - 1 not in self.came]
        return [(first, next(at for at in range(first, LENGTH + 30) if at not in self.came)) for first in firsts]

    def age(self, block: tuple[int, int]) -> int:
        """When the newest byte of a block came."""
        return max(self.came[at] for at in range(*block))


@given(starts, steps)
def test_it_holds_what_the_model_holds(start: int, steps: list[tuple[int, int] | int]) -> None:
    buffer, model, rcv_nxt = ReceiveBuffer(), Model(), start
    for step in steps:
        if isinstance(step, int):
            done = model.rcv_nxt - model.read
            assert buffer.read(step) == STREAM[model.read : model.read + min(step, done)]
            model.read += min(step, done)
        else:
            first, behind = max(step[0], model.rcv_nxt), min(step[0] + step[1], LENGTH)
            if first < behind:  # what is below RCV.NXT was cut off before
                rcv_nxt = buffer.insert(add(start, first), STREAM[first:behind], rcv_nxt)
                model.insert(first, behind)
        blocks = model.blocks()
        assert diff(rcv_nxt, start) == model.rcv_nxt
        assert buffer.peek() == STREAM[model.read : model.rcv_nxt]
        assert buffer.readable == model.rcv_nxt - model.read
        assert buffer.has_gap == bool(blocks)
        told = [(diff(first, start), diff(behind, start)) for first, behind in buffer.blocks(99)]
        assert sorted(told) == blocks
        assert sum(len(data) for _, data in buffer._ahead) == sum(behind - first for first, behind in blocks)


@given(starts, st.lists(pieces, max_size=30))
def test_the_block_that_came_last_is_told_first(start: int, arrivals: list[tuple[int, int]]) -> None:
    """RFC 2018 §4: and the others in the order in which they came."""
    buffer, model = ReceiveBuffer(), Model()
    for first, length in arrivals:
        first, behind = first + 1, first + 1 + length  # the first byte never comes
        if first == behind:
            continue
        buffer.insert(add(start, first), bytes(length), start)
        model.insert(first, behind)
        told = [(diff(a, start), diff(b, start)) for a, b in buffer.blocks(99)]
        assert told == sorted(model.blocks(), key=model.age, reverse=True)
        assert buffer.blocks(2) == buffer.blocks(99)[:2]


@given(starts, st.lists(pieces, max_size=12), st.integers(1, LENGTH - 1), st.integers(1, 30))
def test_it_knows_what_it_has(start: int, arrivals: list[tuple[int, int]], first: int, length: int) -> None:
    buffer, model = ReceiveBuffer(), Model()
    for at, count in arrivals:
        buffer.insert(add(start, at + 1), bytes(count), start)
        model.insert(at + 1, at + 1 + count)
    held = all(at in model.came for at in range(first, first + length))
    assert buffer.has(add(start, first), add(start, first + length)) == held
    buffer.clear_ahead()
    assert not buffer.has_gap
    assert not buffer.has(add(start, first), add(start, first + 1))
    assert buffer.blocks(4) == ()


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.lists(st.integers(0, 12), max_size=20))
def test_reading_in_pieces_gives_the_same_bytes(writes: list[bytes], reads: list[int]) -> None:
    buffer, rcv_nxt = ReceiveBuffer(), 0
    for data in writes:
        rcv_nxt = buffer.insert(rcv_nxt, data, rcv_nxt)
    whole, got = b"".join(writes), b""
    for limit in reads:
        data = buffer.read(limit)
        assert len(data) == min(limit, len(whole) - len(got))
        got += data
    assert got + buffer.peek() == whole
    assert buffer.readable == len(whole) - len(got)
