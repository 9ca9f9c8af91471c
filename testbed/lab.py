"""Labs as a whole: bring one up, find those that are up, read from them, take them down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from testbed import backends, folder, state
from testbed.backends.base import Backend, Built, Item, Report, Unavailable
from testbed.plan import Plan, plan
from testbed.signals import Signals
from testbed.topology import Fault, Topology, TopologyError
from testbed.topology.model import LabName


class NoSuchLab(LookupError):
    """No backend that can be asked has anything of this lab."""


class UnknownName(LookupError):
    """The lab has no host and no application of this name; the message lists those that it has."""


def name_in(file: Path) -> str:
    """The name of the lab of a topology file, whatever else is in that file. Raises TopologyError without one."""
    try:
        data = yaml.load(file.read_bytes(), Loader=yaml.BaseLoader)
        return TypeAdapter(LabName).validate_python(data["name"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError, yaml.YAMLError) as error:
        fault = Fault(str(file), 0, 0, "name", "found no name that can be read, expected the name of the lab")
        raise TopologyError([fault]) from error


def build(
    topology: Topology, backend: Backend, *, lab: str, run_id: str, signals: Signals, report: Report
) -> tuple[Plan, Built]:
    """Plan the lab and bring it up; its lock must be held.

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
            stack.enter_context(state.allocation_lock())
        concrete = plan(topology, run_id=run_id, lab=lab, pool=backend.pool, in_use=backend.subnets_in_use())
        try:
            return concrete, backend.up(concrete, step)
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


def up(topology: Topology, backend: Backend, *, lab: str, report: Report) -> list[Item]:
    """Bring the lab's hosts and links up, and leave them so; return what is there.

    If it is up already, and whole, nothing is done. Raises Unavailable and Interrupted, with nothing left behind.
    """
    with Signals() as signals, state.lab_lock(lab):
        if lab in backend.labs():
            _refuse_unless_whole(topology, backend, lab)
            report(f"lab {lab} is already up")
            return backend.ps(lab)
        build(topology, backend, lab=lab, run_id=folder.run_id(), signals=signals, report=report)
        if signals.came:
            backend.down(lab, report)
            signals.raise_if_any()
        return backend.ps(lab)


def _refuse_unless_whole(topology: Topology, backend: Backend, lab: str) -> None:
    hosts = {item.name: item.state for item in backend.ps(lab) if item.kind == "host"}
    faults = [f"host {name} is {hosts.get(name, 'missing')}" for name in topology.hosts if hosts.get(name) != "running"]
    faults += [f"host {name} is not in the topology" for name in hosts if name not in topology.hosts]
    if faults:
        raise Unavailable(
            f"lab {lab} is already up on {backend.name}, but not as the topology says: {', '.join(faults)}.",
            f"Take it down first: testbed down {lab}",
        )


def down(lab: str, report: Report) -> int:
    """Remove everything of this lab on every backend; return how many things that were.

    Raises NoSuchLab if there is nothing, and Unavailable if another command is at work on it.
    """
    _having(lab)  # before the lock: what is not a lab's name is no file's either
    with Signals(), state.lab_lock(lab):
        return sum(backend.down(lab, report) for backend in _having(lab))


def labs() -> tuple[list[str], dict[str, str]]:
    """(the labs of every backend that can be asked, backend -> why it can't)."""
    asked, unreachable = backends.with_labs()
    return sorted({lab for _, found in asked for lab in found}), unreachable


def ps(lab: str | None) -> list[tuple[str, Item]]:
    """(backend, item) of one lab, or of all. Raises NoSuchLab if that one is nowhere."""
    if lab is not None:
        return [(backend.name, item) for backend in _having(lab) for item in backend.ps(lab)]
    asked, _ = backends.with_labs()
    return [(backend.name, item) for backend, found in asked if found for item in backend.ps(None)]


def logs(lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
    """(host or app, line) of the named ones, or of all. Raises NoSuchLab and UnknownName."""
    backend = _having(lab)[0]
    known = [item.name for item in backend.ps(lab) if item.kind != "link"]
    for name in names:
        if name not in known:
            raise UnknownName(f"lab {lab} has no host or app {name!r}, it has {', '.join(known)}")
    return backend.logs(lab, names, follow=follow)


def _having(lab: str) -> list[Backend]:
    asked, unreachable = backends.with_labs()
    having = [backend for backend, found in asked if lab in found]
    if not having:
        blind = "".join(f"; {name} could not be asked: {why.rstrip('.')}" for name, why in unreachable.items())
        up = sorted({name for _, found in asked for name in found})
        known = f"up are {', '.join(up)}" if up else "none is up"
        raise NoSuchLab(f"there is no lab {lab} here, {known}{blind}")
    return having
