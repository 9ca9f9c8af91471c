"""How each peer is reached: from which address of ours, over which link, past which router, with what on the way.

A lab's testbed tells it (`chitcpd --links`, `chitcpd ctl`); of a peer of which nothing was said, the kernel knows the
way. What leaves over one link meets one Impairment, whichever peer it is for: so the flows to all peers on a LAN, and
to all behind a router, share that link's rate and its queue.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chitcpd.faults import Impairment, Shape
from chitcpd.turns import Turn

Carry = Callable[[str, str, Sequence[bytes], bytes], None]  # from, to, the segments, the route in their headers

_UNDER_WAY_BYTES = 1 << 27  # on all links with a delay: a second of 1 Gbit/s
_HANDLE = 400  # bytes that a delayed segment takes beside its own


@dataclass(slots=True)
class Link:
    """The way to one peer."""

    own: str | None = None  # our address to dial from
    mtu: int | None = None  # bytes, of the smallest link on the way
    impairment: Impairment | None = None  # of the link that is next on the way; None: nothing was said of that
    via: str | None = None  # the router that is next on the way; None: the peer is on the link itself
    underlay: Mapping[str, Any] = field(default_factory=dict)  # what shapes the real link below, for who asks

    @property
    def passes_all(self) -> bool:
        """Neither the link nor what is below it does anything to segments."""
        return not self.underlay and (self.impairment is None or self.impairment.passes_all)


class Links:
    """The links to all peers, by address."""

    def __init__(self, under_way: UnderWay) -> None:
        self._links: dict[str, Link] = {}
        self._under_way = under_way
        self.blocked: frozenset[str] = frozenset()  # a partition: nothing passes between us and these

    def get(self, peer: str) -> Link | None:
        """What was said of the way to `peer`."""
        return self._links.get(peer)

    def is_neighbour(self, peer: str) -> bool:
        """Whether a link of ours leads to `peer`, past no router."""
        link = self._links.get(peer)
        return link is not None and link.via is None

    def counts(self) -> dict[str, dict[str, int]]:
        """What was done to segments so far: neighbour -> kind -> segments."""
        near = ((peer, link.impairment) for peer, link in self._links.items() if link.via is None)
        return {peer: dict(done.counts) for peer, done in near if done is not None and not done.passes_all}

    def set_shape(self, peers: Sequence[str], shape: Shape, seed: int | None, known: Mapping[str, Any]) -> None:
        """The link to these peers does this from now on; `known`: fields of Link that are said anew.

        It does so to whatever else leaves by it. What waits stays in order, and the random choices go on, unless there
        is another seed. Raises LookupError for a peer past a router: there are other links on the way.
        """
        own = [link for peer in peers if (link := self._links.get(peer)) is not None]
        if behind := next((link.via for link in own if link.via is not None), None):
            raise LookupError(f"the way there is past the router {behind}: change the link to it, or the router's own")
        before = next((link.impairment for link in own), None)
        if before is not None and seed in (None, before.seed):
            self._under_way.shift(before, before.change(shape, self._under_way.now()))
            impairment = before
        else:
            impairment = Impairment(shape, seed or 0)
            for link in self._links.values():
                if link.impairment is before is not None:
                    link.impairment = impairment
        for peer in peers:
            self._update(peer, impairment=impairment, **known)

    def set_route(self, peers: Sequence[str], via: str, known: Mapping[str, Any]) -> None:
        """These peers are past the router `via`, over the link to it. Raises LookupError if no link leads there."""
        if not self.is_neighbour(via):
            raise LookupError(f"no link leads to the router {via}")
        first = self._links[via]
        for peer in peers:
            self._update(peer, via=via, impairment=first.impairment, **{"own": first.own, **known})

    def forget_routes(self) -> None:
        """No peer is past a router any more; what is known of the links themselves stays."""
        self._links = {peer: link for peer, link in self._links.items() if link.via is None}

    def keep(self, peers: Sequence[str]) -> None:
        """Nothing is known of any others from now on."""
        for peer in self._links.keys() - set(peers):
            del self._links[peer]

    def block(self, peers: Sequence[str]) -> None:
        """Nothing passes between us and these peers any more; between us and all others it does again."""
        self.blocked = frozenset(peers)

    def _update(self, peer: str, **known: Any) -> None:
        link = self._links.setdefault(peer, Link())
        for name, value in known.items():
            setattr(link, name, value)


class UnderWay:
    """The segments that are on links with a delay, or wait for one with a rate: one timer for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn, carry: Carry) -> None:
        self.now = loop.time
        self._loop = loop
        self._turn = turn
        self._carry = carry
        # (due, number, impairment, (from, to, the segment, its route)): the numbers say in which order they came
        self._heap: list[tuple[float, int, Impairment, tuple[str, str, bytes, bytes]]] = []
        self._numbers = itertools.count()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._set_for = 0.0  # when that rings

    def add(self, due: float, impairment: Impairment, source: str, peer: str, raw: bytes, route: bytes) -> bool:
        """Carry this at `due`; False if there is no room for it."""
        if self._bytes > _UNDER_WAY_BYTES:
            return False
        self._bytes += len(raw) + _HANDLE
        heapq.heappush(self._heap, (due, next(self._numbers), impairment, (source, peer, raw, route)))
        self._set_timer()
        return True

    def shift(self, impairment: Impairment, by: Sequence[float]) -> None:
        """What entered this link last comes so much later: by[-1] for the very last."""
        own = sorted((entry for entry in self._heap if entry[2] is impairment), key=lambda entry: entry[1])
        if not by or not own:
            return
        later = dict(zip((number for _, number, *_ in own[-len(by) :]), by[-len(own) :], strict=True))
        latest = 0.0
        for index, (due, number, _, what) in enumerate(sorted(own, key=lambda entry: entry[:2])):
            latest = max(latest, due + later.get(number, 0.0))  # who was behind stays behind
            own[index] = (latest, number, impairment, what)
        self._heap = [entry for entry in self._heap if entry[2] is not impairment] + own
        heapq.heapify(self._heap)
        self._set_timer()

    def _set_timer(self) -> None:
        due = self._heap[0][0]
        if self._timer is None or due < self._set_for:
            if self._timer is not None:
                self._timer.cancel()
            self._set_for = due
            self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        with self._turn:
            while self._heap and self._heap[0][0] <= now:
                source, peer, raw, route = heapq.heappop(self._heap)[3]
                self._bytes -= len(raw) + _HANDLE
                self._carry(source, peer, (raw,), route)
        if self._heap:
            self._set_timer()
