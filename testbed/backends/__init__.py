"""The backends that there are, and which of them to take on this machine."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from testbed.backends.base import Backend
from testbed.unavailable import Unavailable
from testbed.wrong import Wrong


def _docker() -> Backend:
    from testbed.backends.docker import DockerBackend  # the client is slow to import; local never needs it

    return DockerBackend()


def _local() -> Backend:
    from testbed.backends.local import LocalBackend

    return LocalBackend()


def _sim() -> Backend:
    from testbed.backends.sim import SimBackend  # it loads all of chitcpd

    return SimBackend()


#: Name -> how to open it, the best first: the automatic choice takes the first that works here.
FACTORIES: dict[str, Callable[[], Backend]] = {"docker": _docker, "local": _local, "sim": _sim}
_ASKED_FOR_ONLY = frozenset({"sim"})  # it does not run all that a topology may ask for


class UnknownBackend(Wrong):
    """No backend has this name; the message lists those that there are."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend that works here, and why it was taken, for a person."""

    backend: Backend
    why: str


def get(name: str) -> Backend:
    """The backend of this name. Raises UnknownBackend."""
    if name not in FACTORIES:
        near = difflib.get_close_matches(name, FACTORIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownBackend(f"there is no backend {name!r}, there are {', '.join(FACTORIES)}{hint}")
    return FACTORIES[name]()


def choose(name: str | None = None, why: str = "asked for") -> Choice:
    """The named backend, for the reason `why`; or the first that works on this machine.

    Raises UnknownBackend, and Unavailable if the named one, or every one, can't work here.
    """
    if name is not None:
        backend = get(name)
        backend.check()
        return Choice(backend, why)
    reasons: list[str] = []
    remedy = ""
    for name in [name for name in FACTORIES if name not in _ASKED_FOR_ONLY]:
        try:
            backend = get(name)
            backend.check()
        except Unavailable as unavailable:
            reasons.append(f"{name} can't be used: {unavailable}")
            remedy = unavailable.remedy
            continue
        return Choice(backend, "; ".join(reasons) or "the best there is, and it works here")
    raise Unavailable("; ".join(reasons), remedy)


def with_labs() -> tuple[list[tuple[Backend, list[str]]], dict[str, str]]:
    """Each backend that can be asked, with the labs it has; and for each other one why it can't be.

    `check` is not asked: labs are found, and taken down, also after their image has gone.
    """
    asked: list[tuple[Backend, list[str]]] = []
    unreachable: dict[str, str] = {}
    for name in FACTORIES:
        try:
            backend = get(name)
            asked.append((backend, backend.labs()))
        except Unavailable as unavailable:
            unreachable[name] = str(unavailable)
    return asked, unreachable
