"""What the testbed and `chitcpd ctl` may ask of a running daemon: JSON in, JSON out.

ping {}                          -> version, pid, tcp, profile, addresses
links {"links": [{...}]}         -> {}: how peers are reached, and what happens to segments on the way
                                    ("only": true: and no other peers are known)
link {"peer": "10.0.0.3"}        -> that link: own, mtu, via, its shape where it is not perfect, underlay, and counts
block {"peers": ["10.0.0.3"]}    -> {}: a partition: nothing passes to and from these, and only these
probe {"peer": "10.0.0.3", ...}  -> rtt in seconds and rate in bits per second, measured (good_rtt, rate: probe.py)
sockets {}                       -> sockets, with the variables of their connections; impairments, by peer
wait_listening {"port": 7000}    -> {} once there is a listener on that port

The daemon has a socket of its own for this; the applications' takes what is HARMLESS, and no more.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from typing import Any

from chitcpd import ss
from chitcpd.faults import KINDS, MOST_DROPS, Drop, Shape
from chitcpd.peers import Peers
from chitcpd.probe import Prober
from chitcpd.sockets import Socket, Sockets

Json = dict[str, Any]

HARMLESS = frozenset({"ping", "wait_listening"})  # what any application may ask
_SHAPE_FIELDS = {field.name for field in fields(Shape)}
_SHARES = ("loss", "duplicate", "reorder", "corrupt")
_LINK_FIELDS = _SHAPE_FIELDS | {"peers", "own", "mtu", "seed", "via", "underlay"}
_MOST_PEERS = 4096  # of one link
_MIN_MTU, _MAX_MTU = 68, 65535  # RFC 791; what the length in the chiTCP header can say


class ControlError(Exception):
    """The request can't be carried out; the text says why."""


class Control:
    """Carries out control requests."""

    def __init__(self, about: Json, peers: Peers, prober: Prober, sockets: Sockets) -> None:
        """`about`: what ping answers."""
        self.about = about
        self._peers = peers
        self._prober = prober
        self._sockets = sockets
        self._commands: dict[str, Callable[[Json], Awaitable[Json]]] = {
            "ping": self._ping,
            "links": self._links,
            "link": self._show_link,
            "block": self._block,
            "probe": self._probe,
            "sockets": self._list_sockets,
            "wait_listening": self._wait_listening,
        }

    async def ask(self, command: str, arguments: bytes) -> bytes:
        """The answer to a request. Raises ControlError."""
        if command not in self._commands:
            raise ControlError(f"unknown command {command!r}, expected one of {', '.join(self._commands)}")
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise ControlError(f"the arguments are no JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise ControlError("the arguments are no JSON object")
        return json.dumps(await self._commands[command](parsed)).encode()

    async def _ping(self, arguments: Json) -> Json:
        return self.about

    async def _links(self, arguments: Json) -> Json:
        self.set_links(arguments.get("links"), only=arguments.get("only") is True)
        return {}

    def set_links(self, entries: object, *, only: bool = False) -> None:
        """Set these links, each as far as it makes sense; `only`: and know no others from then on.

        Raises ControlError, before anything is set if an entry is malformed.
        """
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ControlError("`links` must be a list of objects")
        wanted, links = [_link(entry) for entry in entries], self._peers.links
        if only:
            links.forget_routes()
        try:
            for peers, via, shape, seed, known in wanted:
                if via is None:
                    links.set_shape(peers, shape, seed, known)
                else:
                    links.set_route(peers, via, known)
        except LookupError as error:
            raise ControlError(str(error)) from None
        if only:
            links.keep([peer for peers, *_ in wanted for peer in peers])

    async def _show_link(self, arguments: Json) -> Json:
        peer = _address(arguments.get("peer"), "peer")
        link = self._peers.links.get(peer)
        shown: Json = {"blocked": True} if peer in self._peers.links.blocked else {}
        if link is None:
            return shown
        shown |= {"own": link.own, "mtu": link.mtu, "via": link.via, "underlay": link.underlay or None}
        if link.impairment is not None and not link.impairment.passes_all:
            shape = asdict(link.impairment.shape)
            shown |= {name: value for name, value in shape.items() if value != getattr(Shape(), name)}
            shown["counts"] = dict(link.impairment.counts)
        return {name: value for name, value in shown.items() if value is not None}

    async def _block(self, arguments: Json) -> Json:
        self._peers.links.block(_addresses(arguments.get("peers")))
        return {}

    async def _probe(self, arguments: Json) -> Json:
        peer = _address(arguments.get("peer"), "peer")
        if not self._peers.links.is_neighbour(peer):
            raise ControlError(f"no link leads to {peer}")
        good_rtt, rate = arguments.get("good_rtt", 0.001), arguments.get("rate")
        _check_quantity("good_rtt", good_rtt)
        _check_quantity("rate", rate)
        return asdict(await self._prober.measure(peer, good_rtt=good_rtt, rate=rate))

    async def _list_sockets(self, arguments: Json) -> Json:
        all_ = [*self._sockets.table.values(), *self._sockets.parting.values()]
        sockets = [_describe(sock, asyncio.get_running_loop().time()) for sock in all_]
        return {"sockets": sockets, "impairments": self._peers.links.counts()}

    async def _wait_listening(self, arguments: Json) -> Json:
        port = arguments.get("port")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port <= 0xFFFF:
            raise ControlError("`port` must be a number from 1 to 65535")
        await self._sockets.wait_listening(port)
        return {}


def _link(entry: Json) -> tuple[list[str], str | None, Shape, int | None, Json]:
    """(peers, router, shape, seed, further fields of Link that are given) of one entry, every value checked."""
    unknown = sorted(set(entry) - _LINK_FIELDS)
    if unknown:
        raise ControlError(f"unknown {', '.join(unknown)}; expected {', '.join(sorted(_LINK_FIELDS))}")
    known: Json = {}
    if entry.get("own") is not None:
        known["own"] = _address(entry["own"], "own")
    if (mtu := entry.get("mtu")) is not None:
        if not isinstance(mtu, int) or not _MIN_MTU <= mtu <= _MAX_MTU:
            raise ControlError(f"`mtu` must be {_MIN_MTU} to {_MAX_MTU} bytes")
        known["mtu"] = mtu
    if "underlay" in entry:
        if not isinstance(entry["underlay"], dict):
            raise ControlError("`underlay` must be an object")
        known["underlay"] = entry["underlay"]
    seed = entry.get("seed")
    if seed is not None and not isinstance(seed, int):
        raise ControlError("`seed` must be a whole number")
    via = None if entry.get("via") is None else _address(entry["via"], "via")
    peers = _addresses(entry.get("peers"))
    if via is not None and any(":" in address for address in [*peers, via]):
        raise ControlError("what is past a router has an IPv4 address, and so has the router")
    return peers, via, _shape(entry), seed, known


def _shape(entry: Json) -> Shape:
    given = {name: value for name, value in entry.items() if name in _SHAPE_FIELDS - {"drops"}}
    for name, value in given.items():
        if name != "down":
            _check_quantity(name, value)
        elif not isinstance(value, bool):
            raise ControlError("`down` must be true or false")
    return Shape(**given, drops=_drops(entry.get("drops", [])))


def _addresses(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > _MOST_PEERS:
        raise ControlError(f"`peers` must be a list of at most {_MOST_PEERS} addresses")
    return [_address(address, "peers") for address in value]


def _drops(entries: object) -> tuple[Drop, ...]:
    if not isinstance(entries, list) or len(entries) > MOST_DROPS:
        raise ControlError(f"`drops` must be a list of at most {MOST_DROPS} rules")
    return tuple(map(_drop, entries))


def _drop(entry: object) -> Drop:
    if isinstance(entry, dict) and entry.keys() == {"kind", "first", "last"} and entry["kind"] in list(KINDS):
        first, last = entry["first"], entry["last"]
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (first, last))
        if whole and 1 <= first <= last < 1 << 32:
            return Drop(entry["kind"], first, last)
    raise ControlError(f"a rule of `drops` has a kind ({', '.join(KINDS)}), and first and last, counted from 1")


def _check_quantity(name: str, value: object) -> None:
    optional = name in ("rate", "queue_packets", "queue_bytes")
    if value is None and optional:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= sys.float_info.max or (name == "rate" and value == 0):  # type: ignore[operator]
        raise ControlError(f"`{name}` must be a number above or equal to zero")
    if name in _SHARES and value > 1:  # type: ignore[operator]
        raise ControlError(f"`{name}` must be a share from 0 to 1")


def _address(value: object, name: str) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ControlError(f"`{name}` must be an IP address") from None


def _describe(sock: Socket, now: float) -> Json:
    described: Json = {"sockfd": sock.fd, "state": sock.state.name, "local": _text(sock.local)}
    if sock.listener is not None:
        described |= {"backlog": sock.listener.backlog, "waiting": len(sock.listener.ready)}
    if sock.endpoint is not None:
        described["peer"] = _text(sock.endpoint.four[2:])
        try:
            described |= ss.describe(sock.endpoint, now)
        except Exception as fault:  # the loaded TCP's, in what it tells of itself: the others are shown all the same
            described["fault"] = f"{type(fault).__name__}: {fault}"
    return described


def _text(address: tuple[str, int] | None) -> str:
    return f"{address[0] or '*'}:{address[1]}" if address is not None else "*:*"
