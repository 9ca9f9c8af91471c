"""Links of a lab that is up: what they do, and something else for a while or for good.

The newest change of a setting holds. When one that passes is over, the setting is again what the newest of the others
says that still lasts; when all are over, what it was before them, or what it was set to for good meanwhile. For that a
file (`state.passing`) has, oldest first, what each end did before each change that lasts: what is over leaves it, and
leaves what it found to the next one that has changed the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from secrets import token_hex
from typing import Any

from pydantic import ValidationError

from chitcpd import units
from chitcpd.faults import Shape
from testbed import state
from testbed.backends.base import Backend, Now
from testbed.events import Reshape
from testbed.lab import NoSuchLab, UnknownName, having
from testbed.plan import HostPlan, Interface
from testbed.topology.model import LinkChanges, LinkSettings
from testbed.wrong import Wrong

SETTINGS = tuple(name for name in LinkChanges.model_fields if name != "underlay")
_QUEUE = {"queue_packets", "queue_bytes"}  # what `queue` is in a Shape
_PATIENCE = 30.0  # seconds for which a link that is to be as it was waits for another command


class BadSetting(Wrong):
    """What a link is to do can't be; the message says what can."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: what leaves there."""

    node: HostPlan
    interface: Interface
    now: Now

    @property
    def direction(self) -> str:
        """Like alice->bob."""
        return f"{self.node.name}->{self.interface.towards}"

    @property
    def is_as_planned(self) -> bool:
        """Whether it does what the topology says."""
        return self.now.shape == self.interface.shape and self.now.underlay == self.interface.underlay


@dataclass(slots=True)
class _Passing:
    """A change of an end of a link that is to pass."""

    change: str  # which
    node: str
    link: str
    before: dict[str, Any]  # of its Shape: what was changed


def show(lab: str, names: Sequence[str] = ()) -> list[End]:
    """Each end of these links, or of all. Raises NoSuchLab, UnknownName and Unavailable."""
    backend = having(lab)[0]
    return [End(node, end, backend.now(lab, node, end)) for node, end in _ends(backend, lab, names, None)]


def change(lab: str, link: str, settings: LinkChanges, sender: str | None, *, passing: bool = False) -> str:
    """Let a link, or what `sender` sends over it, do this beside what it does; return what `undo` takes.

    `passing`: it will be undone. Raises NoSuchLab, UnknownName, BadSetting, and Unavailable.
    """

    def changed(now: Now, interface: Interface) -> Now:
        shape = _over(settings, now.shape, interface.queue)
        _refuse_nonsense(shape, interface)
        return Now(shape, now.underlay)

    names = settings.model_fields_set - {"queue"}
    if settings.model_fields_set & {"queue", "rate", "delay"}:
        names |= _QUEUE
    return _reshape(lab, link, sender, changed, names, passing=passing)


def set_down(lab: str, link: str, *, down: bool, passing: bool = False) -> str:
    """Let nothing pass a link, or let it pass again; as `change`."""

    def changed(now: Now, _interface: Interface) -> Now:
        return Now(replace(now.shape, down=down), now.underlay)

    return _reshape(lab, link, None, changed, {"down"}, passing=passing)


def reset(lab: str, link: str | None) -> None:
    """Let a link, or all of them, do what the topology says."""

    def planned(_now: Now, interface: Interface) -> Now:
        return Now(interface.shape, interface.underlay)

    _reshape(lab, link, None, planned, set(Shape.__dataclass_fields__), passing=False)


def undo(lab: str, change: str) -> str | None:
    """A change is over; say for a person how the link is now. None if the lab is down by now.

    If another command is at work on the lab, wait for it, though not for ever. Raises Unavailable.
    """
    with state.lab_lock(lab, patience=_PATIENCE):
        try:
            backend = having(lab)[0]
        except NoSuchLab:
            return None
        passing = _passing(lab)
        due = {
            (one.node, one.link): _due(one, passing[at + 1 :]) for at, one in enumerate(passing) if one.change == change
        }
        _keep(lab, [one for one in passing if one.change != change])
        known = [(node, end) for node, end in _ends(backend, lab, (), None) if due.get((node.name, end.link))]
        ends = [End(node, end, backend.now(lab, node, end)) for node, end in known]
        after = [_with(end, due[end.node.name, end.interface.link]) for end in ends]
        backend.reshape(lab, [_as_reshape(end) for end in after])
        return "as it was" if ends else "as it was changed later"


def _due(over: _Passing, later: Sequence[_Passing]) -> dict[str, Any]:
    """What an end has to do again; the rest is left to later changes of the same, for their own end."""
    due: dict[str, Any] = {}
    for name, value in over.before.items():
        heirs = (one.before for one in later if (one.node, one.link) == (over.node, over.link) and name in one.before)
        next(heirs, due)[name] = value
    return due


def _with(end: End, settings: Mapping[str, Any]) -> End:
    return replace(end, now=Now(replace(end.now.shape, **settings), end.now.underlay))


def parse(words: Sequence[str]) -> LinkChanges:
    """`["delay=50ms", "rate=1mbit"]` -> settings. Raises BadSetting."""
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in SETTINGS:
            raise BadSetting(f"found {word!r}, expected NAME=VALUE with one of {', '.join(SETTINGS)}")
        if name in given:
            raise BadSetting(f"found {name} twice, expected each once")
        given[name] = value
    try:
        return LinkChanges.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadSetting(f"{first['loc'][0]}: {first['ctx']['error']}") from error


def _ends(backend: Backend, lab: str, names: Sequence[str], sender: str | None) -> list[tuple[HostPlan, Interface]]:
    """The ends of these links, or of all; only the sender's, if there is one. Raises UnknownName."""
    nodes = backend.nodes(lab)
    known = list(dict.fromkeys(end.link for node in nodes for end in node.interfaces))
    for name in names:
        if name not in known:
            raise UnknownName(f"lab {lab} has no link {name!r}, it has {', '.join(known) or 'none'}")
    order = {name: index for index, name in enumerate(known)}
    all_ends = [(node, end) for node in nodes for end in node.interfaces if not names or end.link in names]
    found = [(node, end) for node, end in all_ends if sender in (None, node.name)]
    if not found:
        ends = ", ".join(node.name for node, _ in all_ends)
        raise UnknownName(f"{sender!r} is at no end of {' '.join(names)}, there are {ends}")
    return sorted(found, key=lambda pair: order[pair[1].link])


def _reshape(
    lab: str,
    link: str | None,
    sender: str | None,
    changed: Callable[[Now, Interface], Now],
    names: Set[str],
    *,
    passing: bool,
) -> str:
    """Change ends of links, in the settings of these names; return which change that is."""
    with state.lab_lock(lab):
        backend = having(lab)[0]
        before = [
            End(node, end, backend.now(lab, node, end))
            for node, end in _ends(backend, lab, [] if link is None else [link], sender)
        ]
        after = [replace(end, now=changed(end.now, end.interface)) for end in before]
        backend.reshape(lab, [_as_reshape(end) for end in after])
        which, kept = token_hex(8), _passing(lab)
        for end in before:
            own = end.node.name, end.interface.link
            if passing:
                kept.append(_Passing(which, *own, {name: getattr(end.now.shape, name) for name in names}))
            else:  # from now on nobody goes back behind this
                for one in kept:
                    if (one.node, one.link) == own:
                        one.before = {name: value for name, value in one.before.items() if name not in names}
        _keep(lab, kept)
        return which


def _passing(lab: str) -> list[_Passing]:
    path = state.passing(lab)
    return [_Passing(**one) for one in json.loads(path.read_text())] if path.exists() else []


def _keep(lab: str, passing: Sequence[_Passing]) -> None:
    path = state.passing(lab)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps([asdict(one) for one in passing]))
    fresh.replace(path)  # whole or not at all


def _as_reshape(end: End) -> Reshape:
    return Reshape(end.node.name, end.interface, end.now.shape, end.now.underlay)


def _over(settings: LinkChanges, shape: Shape, planned: units.Queue | None) -> Shape:
    given = {name: getattr(settings, name) for name in settings.model_fields_set - {"queue"}}
    queue = settings.queue
    if queue is None and planned is not None and _is_now(planned, shape):  # it goes with the rate and the delay
        queue = planned
    shape = replace(shape, **given)
    if queue is not None:
        try:
            packets, size = queue.limit(rate=shape.rate, delay=shape.delay)
        except ValueError as error:
            raise BadSetting(f"queue: {error}") from error
        shape = replace(shape, queue_packets=packets, queue_bytes=size)
    return shape


def _is_now(queue: units.Queue, shape: Shape) -> bool:
    limit = None if shape.rate is None else queue.limit(rate=shape.rate, delay=shape.delay)
    return limit == (shape.queue_packets, shape.queue_bytes)


def _refuse_nonsense(shape: Shape, interface: Interface) -> None:
    queue = None
    if shape.queue_packets is not None or shape.queue_bytes is not None:
        queue = units.Queue(packets=shape.queue_packets, bytes=shape.queue_bytes)
    settings = LinkSettings.model_construct(
        delay=shape.delay,
        jitter=shape.jitter,
        rate=shape.rate,
        queue=queue,
        reorder=shape.reorder,
        mtu=interface.mtu,
    )
    for key, _, message in settings.impossible():
        raise BadSetting(f"{key}: {message}")
