"""Labs as a whole: bring one up, find those that are up, read from them, take them down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from pydantic import TypeAdapter

from testbed import backends, folder, state
from testbed.backends.base import Backend, Built, Item, Recording, Report
from testbed.events import Reshape
from testbed.plan import Plan, plan
from testbed.signals import Signals
from testbed.topology import Fault, Topology, TopologyError, source
from testbed.topology.model import LabName
from testbed.unavailable import Unavailable
from testbed.wrong import Wrong

_WAITING = "waiting for another lab to come up"


class NoSuchLab(Wrong):
    """No backend that can be asked has anything of this lab."""


class UnknownName(Wrong):
    """The lab has no host and no application of this name; the message lists those that it has."""


def name_in(file: Path) -> str:
    """The name of the lab of a topology file, whatever else is in it or in what it includes.

    Raises TopologyError without one.
    """
    try:
        pairs = source.compose(file, {}).root.value
        name = next((value.value for key, value in pairs if key.value == "name"), None)
        return TypeAdapter(LabName).validate_python(name)
    except (TopologyError, TypeError, ValueError) as error:
        what = "found no name that can be read, expected the name of the lab; `testbed down LAB` needs no file"
        raise TopologyError([Fault(str(file), 0, 0, "name", what)]) from error


def build(
    topology: Topology, backend: Backend, *, lab: str, run_id: str, stays: bool, signals: Signals, report: Report
) -> tuple[Plan, Built]:
    """Plan the lab and bring it up; its lock must be held. `stays`: it is to outlive this command.

    Raises Unavailable and Interrupted, with everything taken down again.
    """

    told = False

    def step(text: str) -> None:
        """Between two steps is where `up` can be interrupted; once, for it reports as it rolls back, too."""
        nonlocal told
        if not told:
            told = signals.came
            signals.raise_if_any()
        report(text)

    with ExitStack() as stack:
        with signals.interruptible():
            stack.enter_context(state.allocation_lock(lambda: report(_WAITING)))
        concrete = plan(topology, run_id=run_id, lab=lab, pool=backend.pool, in_use=backend.subnets_in_use())
        try:
            return concrete, backend.up(concrete, step, stays=stays)
        except Unavailable:
            raise  # already taken down; and if the lab was another's, it is not for us to take down
        except BaseException:
            backend.down(lab, report)
            raise


def refuse_if_up(backend: Backend, lab: str) -> None:
    """Raise Unavailable if the backend has anything of this lab."""
    if lab in backend.labs():
        raise Unavailable(
            f"lab {lab} is already up on {backend.name}.",
            f"Take it down (testbed down {lab}), or give this one another name: --name LAB.",
        )


def up(topology: Topology, backend: Backend, *, lab: str, report: Report) -> tuple[list[Item], Built | None]:
    """Bring the lab's hosts and links up, and leave them so; return what is there, and what was made.

    If it is up already, only what differs is added, removed or changed; None if nothing does: every link does what the
    topology says, as every chitcpd of ours has answered. Raises Unavailable and Interrupted; a lab that was not up
    before then leaves nothing behind, and one that was is whole after a signal.
    """
    with Signals() as signals, state.lab_lock(lab):
        elsewhere = [name for name in where(lab) if name != backend.name]
        if elsewhere:
            raise Unavailable(
                f"lab {lab} is already up on {elsewhere[0]}.",
                f"Take it down (testbed down {lab}), or give this one another name: --name LAB.",
            )
        if lab in backend.labs():
            if items := backend.ps(lab):
                items, built = _change(topology, backend, lab, items, report)
                if built is not None:  # all links are as the topology says
                    state.passing(lab).unlink(missing_ok=True)
                signals.raise_if_any()
                return items, built
            if lab in backend.garbage():  # whoever began to make it was killed before there was anything
                backend.down(lab, report)
        state.passing(lab).unlink(missing_ok=True)
        _, built = build(topology, backend, lab=lab, run_id=folder.run_id(), stays=True, signals=signals, report=report)
        if signals.came:
            backend.down(lab, report)
            signals.raise_if_any()
        return backend.ps(lab), built


def where(lab: str) -> list[str]:
    """The names of the backends that have anything of this lab."""
    asked, _ = backends.with_labs()
    return [backend.name for backend, found in asked if lab in found]


def choose(lab: str, asked: str | None) -> backends.Choice:
    """The backend for `up`: without one that was asked for, that on which the lab is up already. Raises as there."""
    if asked is None and (found := where(lab)):
        return backends.choose(found[0], f"lab {lab} is up there")
    return backends.choose(asked)


def _change(
    topology: Topology, backend: Backend, lab: str, items: list[Item], report: Report
) -> tuple[list[Item], Built | None]:
    keep = {item.name: item.detail for item in items if item.kind == "link"}

    def wanted() -> Plan:
        others = {subnet: owner for subnet, owner in backend.subnets_in_use().items() if not _within(subnet, keep)}
        return plan(topology, run_id=items[0].run_id, lab=lab, pool=backend.pool, in_use=others, keep=keep)

    concrete = wanted()
    if keep == {link.name: link.subnet for link in concrete.links}:  # it takes none: no need to wait for who takes some
        built = backend.change(concrete, report)
    else:
        with state.allocation_lock(lambda: report(_WAITING)):
            built = backend.change(wanted(), report)
    if built is None and (others := _not_as_planned(backend, concrete)):
        report(f"resetting {', '.join(dict.fromkeys(other.interface.link for other in others))}")
        backend.reshape(lab, others)
        built = Built()
    return backend.ps(lab), built


def _not_as_planned(backend: Backend, concrete: Plan) -> list[Reshape]:
    """What makes ends of links do what was planned, of those that do something else.

    Not asked are chitcpds that are not ours: how near netem comes to a plan is not known. Raises Unavailable if one
    does not answer.
    """
    ends = [(node, end) for node in concrete.nodes if node.image is None for end in node.interfaces]
    try:
        nows = [backend.now(concrete.lab, node, end) for node, end in ends]
    except Unavailable as why:
        remedy = f"Take the lab down (testbed down {concrete.lab}), then bring it up anew."
        raise Unavailable(str(why), remedy) from why
    return [
        Reshape(node.name, end, end.shape, end.underlay)
        for (node, end), now in zip(ends, nows, strict=True)
        if (now.shape, now.underlay) != (end.shape, end.underlay)
    ]


def _within(subnet: str, own: dict[str, str]) -> bool:
    network = ip_network(subnet)
    return any(network.version == 4 and network.overlaps(IPv4Network(one)) for one in own.values())


def down(lab: str, report: Report) -> int:
    """Remove everything of this lab on every backend; return how many things that were.

    Raises NoSuchLab if there is nothing, and Unavailable if another command is at work on it.
    """
    having(lab)  # before the lock: what is not a lab's name is no file's either
    with Signals(), state.lab_lock(lab):
        removed = sum(backend.down(lab, report) for backend in having(lab))
        state.passing(lab).unlink(missing_ok=True)
        return removed


def labs() -> tuple[list[str], dict[str, str]]:
    """(the labs of every backend that can be asked, backend -> why it can't)."""
    asked, unreachable = backends.with_labs()
    return sorted({lab for _, found in asked for lab in found}), unreachable


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of one lab, or of all."""

    items: list[tuple[str, Item]]  # with their backends' names
    left_behind: list[str]  # labs among them of commands that were killed: what `gc` would remove
    unreachable: dict[str, str]  # backend -> why it can't be asked


def ps(lab: str | None) -> Found:
    """Look at one lab, or at all. Raises NoSuchLab if it is nowhere."""
    unreachable: dict[str, str] = {}
    if lab is not None:
        found = [(backend, backend.ps(lab)) for backend in having(lab)]
    else:
        asked, unreachable = backends.with_labs()
        found = [(backend, backend.ps(None)) for backend, labs in asked if labs]
    return Found(
        items=[(backend.name, item) for backend, items in found for item in _with_links_down(backend, items)],
        left_behind=sorted({lab for backend, items in found for lab in _left_behind(backend, items)}),
        unreachable=unreachable,
    )


def _left_behind(backend: Backend, items: list[Item]) -> set[str]:
    with suppress(Unavailable):  # the engine has gone meanwhile, or the state directory can't be read
        # Asked in this order: what a command takes down as it ends is not left behind.
        idle = {lab for lab in {item.lab for item in items} if not state.is_at_work(lab)}
        return idle.intersection(backend.garbage())
    return set()


def _with_links_down(backend: Backend, items: list[Item]) -> list[Item]:
    """The same, but links that let nothing pass are down: the backend sees the networks, and the daemons know that."""
    running = {(item.lab, item.name) for item in items if item.kind in ("host", "router") and item.state == "running"}
    down = {
        (lab, link) for lab in {lab for lab, _ in running} for link, is_down in _asked(backend, lab, running) if is_down
    }
    return [
        replace(item, state="down") if item.kind == "link" and (item.lab, item.name) in down else item for item in items
    ]


def _asked(backend: Backend, lab: str, running: set[tuple[str, str]]) -> Iterator[tuple[str, bool]]:
    """(link, whether it is down), as one end of it says. Of a link of which nobody answers there is nothing."""
    known: set[str] = set()
    with suppress(Unavailable, ValueError):  # it never came up whole, or another version of us has made it
        ours = [node for node in backend.nodes(lab) if node.image is None and (lab, node.name) in running]
        for node in sorted(ours, key=lambda node: -len(node.interfaces)):  # so that few are asked
            with suppress(Unavailable):  # it stands still, or is gone: another end may answer
                for end in node.interfaces:
                    if end.link not in known:
                        yield end.link, backend.now(lab, node, end).shape.down
                        known.add(end.link)


def logs(lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
    """(host or app, line) of the named ones, or of all. Raises NoSuchLab and UnknownName."""
    backend = having(lab)[0]
    known = [item.name for item in backend.ps(lab) if item.kind != "link"]
    for name in names:
        if name not in known:
            raise UnknownName(f"lab {lab} has no host or app {name!r}, it has {', '.join(known)}")
    return backend.logs(lab, names, follow=follow)


def collect(lab: str, runs: Path) -> tuple[Path, list[str]]:
    """Write what a lab that is up has left so far into a folder as that of a run; return it, and what is not in it.

    Raises NoSuchLab and Unavailable.
    """
    backend = having(lab)[0]
    with folder.created(runs, lab) as directory:
        missing = backend.snapshot(lab, directory)
    folder.point_latest(directory)
    return directory, missing


def recording(lab: str, node: str, kind: Recording, *, follow: bool) -> Iterator[bytes]:
    """A host's or router's capture so far, and with `follow` what comes.

    Raises NoSuchLab, UnknownName and Unavailable.
    """
    backend = having(lab)[0]
    known = [one.name for one in backend.nodes(lab)]
    if node not in known:
        raise UnknownName(f"lab {lab} has no host or router {node!r}, it has {', '.join(known)}")
    return backend.recording(lab, node, kind, follow=follow)


def execute(lab: str, host: str, command: Sequence[str], *, terminal: bool) -> int:
    """Run a command as an application of a host; return its status.

    Raises NoSuchLab, UnknownName and Unavailable; and Interrupted, with the command ended.
    """
    backend = having(lab)[0]
    hosts = [node.name for node in backend.nodes(lab) if not node.forwards]
    if host not in hosts:
        raise UnknownName(f"lab {lab} has no host {host!r}, it has {', '.join(hosts)}")
    with Signals() as signals, signals.interruptible():
        return backend.execute(lab, host, command, terminal=terminal)


def gc(report: Report, *, dry_run: bool) -> tuple[dict[str, int], dict[str, str]]:
    """Remove what commands that were killed have left: (lab -> things removed, backend -> why it can't be asked).

    That is every lab that was a run's, or never came up whole, and that no command of this user is at work on.
    """
    asked, unreachable = backends.with_labs()
    removed: dict[str, int] = {}
    with Signals():
        for backend, _ in asked:
            for lab in backend.garbage():
                with suppress(Unavailable), state.lab_lock(lab):  # else a command is at work on it
                    if lab not in backend.garbage():  # any more: one was at work until now
                        continue
                    count = sum(item.lab == lab for item in backend.ps(lab)) if dry_run else backend.down(lab, report)
                    removed[lab] = removed.get(lab, 0) + count
        if not dry_run:
            state.tidy()
    return removed, unreachable


def having(lab: str) -> list[Backend]:
    """The backends that have this lab; one, as a rule. Raises NoSuchLab."""
    asked, unreachable = backends.with_labs()
    having = [backend for backend, found in asked if lab in found]
    if not having:
        blind = "".join(f"; {name} could not be asked: {why.rstrip('.')}" for name, why in unreachable.items())
        up = sorted({name for _, found in asked for name in found})
        known = f"up are {', '.join(up)}" if up else "none is up"
        raise NoSuchLab(f"there is no lab {lab} here, {known}{blind}")
    return having
