"""The send buffer and its scoreboard against a model that knows of each single byte what became of it."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chitcpd.tcp.send import Record, SendBuffer
from chitcpd.tcp.seq import add, diff

CAPACITY = 60
STREAM = bytes(position % 251 for position in range(1, 2000))


class Scoreboard(RuleBasedStateMachine):
    """Bytes count from the first; what is in flight lies between `una` and `nxt`, and each record has one fate."""

    @initialize(iss=st.sampled_from((0, 2**32 - 1, 2**32 - 20, 2**31 - 20)) | st.integers(0, 2**32 - 1))
    def begin(self, iss: int) -> None:
        self.start = add(iss, 1)
        self.buffer = SendBuffer(iss, CAPACITY)
        self.written = self.una = self.nxt = 0
        self.edges: list[int] = []  # where the records end
        self.sacked: set[int] = set()  # the ends of those that are
        self.lost: set[int] = set()
        self.now = 0.0

    @rule(length=st.integers(0, 80))
    def write(self, length: int) -> None:
        room = CAPACITY - (self.written - self.una)
        assert self.buffer.room == room
        assert self.buffer.write(STREAM[self.written : self.written + length]) == min(length, room)
        self.written += min(length, room)

    @precondition(lambda self: self.nxt < self.written)
    @rule(length=st.integers(1, 20))
    def send(self, length: int) -> None:
        length = min(length, self.written - self.nxt)
        seq = add(self.start, self.nxt)
        assert self.buffer.payload(seq, length) == STREAM[self.nxt : self.nxt + length]
        self.buffer.sent(Record(seq, add(seq, length), 0, self.now, self.now))
        self.nxt += length
        self.edges.append(self.nxt)

    @precondition(lambda self: self.una < self.nxt)
    @rule(share=st.floats(0, 1))
    def acknowledge(self, share: float) -> None:
        """Anywhere, also within a segment."""
        ack = self.una + round(share * (self.nxt - self.una))
        covered = self.buffer.acknowledge(add(self.start, ack))
        assert [diff(record.end, self.start) for record in covered] == [edge for edge in self.edges if edge <= ack]
        self.edges = [edge for edge in self.edges if edge > ack]
        self.sacked &= set(self.edges)
        self.lost &= set(self.edges)
        self.una = ack

    @precondition(lambda self: self.una < self.nxt)
    @rule(blocks=st.lists(st.tuples(st.integers(-5, 70), st.integers(-3, 40)), max_size=4))
    def selectively(self, blocks: list[tuple[int, int]]) -> None:
        """What reaches out of what is in flight, or is empty, is not believed; of the rest, whole segments."""
        told = [(self.una + first, self.una + first + length) for first, length in blocks]
        news = self.buffer.mark_sacked(
            tuple((add(self.start, first), add(self.start, behind)) for first, behind in told),
            add(self.start, self.una),
            add(self.start, self.nxt),
        )
        fresh = set()
        for first, behind in told:
            if self.una <= first < behind <= self.nxt:
                fresh |= {end for begin, end in self._records() if first <= begin and end <= behind}
        fresh -= self.sacked
        assert {diff(record.end, self.start) for record in news} == fresh
        assert len(news) == len(fresh)
        self.sacked |= fresh
        self.lost -= fresh

    @precondition(lambda self: self.edges)
    @rule(choice=st.integers(0, 100))
    def lose(self, choice: int) -> None:
        at = choice % len(self.edges)
        self.buffer.mark_lost(self.buffer.records[at])
        if self.edges[at] not in self.sacked:
            self.lost.add(self.edges[at])

    @precondition(lambda self: self.edges)
    @rule(choice=st.integers(0, 100))
    def send_again(self, choice: int) -> None:
        self.now += 1.0
        at = choice % len(self.edges)
        record = self.buffer.records[at]
        if record.sacked:
            return
        before = record.retransmissions
        self.buffer.sent_again(record, self.now)
        assert (record.sent_at, record.retransmissions) == (self.now, before + 1)
        self.lost.discard(self.edges[at])

    @precondition(lambda self: self.edges)
    @rule()
    def time_out(self) -> None:
        """RFC 2018 §8: the SACKs are forgotten if they can't be true."""
        self.buffer.forget_sacks_if_broken()
        if self.edges[0] in self.sacked:
            self.sacked.clear()

    @invariant()
    def it_says_what_the_model_says(self) -> None:
        records, buffer = self._records(), self.buffer
        held = [(diff(record.seq, self.start), diff(record.end, self.start)) for record in buffer.records]
        assert held == records
        assert [record.length for record in buffer.records] == [end - begin for begin, end in records]
        assert {diff(record.end, self.start) for record in buffer.records if record.sacked} == self.sacked
        assert {diff(record.end, self.start) for record in buffer.records if record.lost} == self.lost
        assert buffer.sacked == len(self.sacked)
        gone = self.sacked | self.lost
        assert buffer.in_flight == sum(end - begin for begin, end in records if end not in gone)
        assert [diff(record.end, self.start) for record in buffer.lost()] == sorted(self.lost)
        assert buffer.unsent(add(self.start, self.nxt)) == self.written - self.nxt
        assert buffer.peek() == STREAM[self.una : self.written]

    def _records(self) -> list[tuple[int, int]]:
        """(begin, end) of each."""
        return list(zip([self.una, *self.edges], self.edges, strict=False))


Scoreboard.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestScoreboard = Scoreboard.TestCase
