"""Reaches the hosts of a lab that is up, on a Docker engine: their chitcpd, and a shell of root's for tc.

By commands that run in their containers as long as we do: to be quick, for a change has its moment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound

from chitcpd.faults import Shape
from testbed import shaping
from testbed.backends import engine, setup
from testbed.backends.docker_labels import USER, Kind, name_of
from testbed.plan import HostPlan, Interface, Underlay
from testbed.unavailable import Unavailable

# Of the container in which a host is reached; beside another chitcpd's, in ours.
_KINDS: tuple[Kind, ...] = ("beside", "host", "router")


class Reach:
    """The sessions with the hosts of labs."""

    def __init__(self, api: APIClient) -> None:
        self._api = api
        self._sessions: dict[str, dict[tuple[str, Sequence[str]], engine.Session]] = {}  # lab -> container, command
        self._devices: dict[str, dict[str, dict[str, str]]] = {}  # lab -> host -> address -> interface
        self._lock = Lock()

    def shape(self, lab: str, node: str, interface: Interface, shape: Shape, underlay: Underlay) -> bool:
        """Let netem do its part from now on; whether it does."""
        lines = setup.reshape(self._device(lab, node, interface), interface, shape, underlay)
        qdiscs, wrong = self._tc(lab, node, lines)
        if not shaping.has_work(shape, underlay):  # then it was deleted, if there was one
            return True
        if not wrong:
            setup.compare(interface, shape, underlay, qdiscs[0])
        elif underlay != Underlay():
            raise Unavailable(
                f"link {interface.link} can't have `underlay`: {setup.why_no_netem(wrong)}.", "Leave it out."
            )
        return not wrong

    def shown(self, lab: str, node: str, interface: Interface) -> tuple[Shape, Underlay]:
        """What netem does."""
        return setup.shown(self._tc(lab, node, setup.show(self._device(lab, node, interface)))[0])

    def attend(self, lab: str, node: HostPlan) -> None:
        """Open the sessions by which its links are changed."""
        for interface in node.interfaces[:1]:
            self.shown(lab, node.name, interface)
        self.ask(lab, node.name, "ping")

    def _tc(self, lab: str, host: str, lines: str) -> tuple[list[dict[str, Any]], str]:
        return setup.answer(self._told(lab, host, "root", setup.TC, lines, ends="["))

    def _device(self, lab: str, host: str, interface: Interface) -> str:
        known = self._devices.setdefault(lab, {})
        if host not in known:
            known[host] = setup.devices(json.loads(self.root(lab, host, setup.ADDRESSES)))
        if interface.address not in known[host]:
            raise Unavailable(f"{host} has no interface with {interface.address}.", f"See: testbed ps {lab}")
        return known[host][interface.address]

    def is_foreign(self, lab: str, host: str) -> bool:
        """Whether it runs another chitcpd. Of a host that was reached before, the engine is not asked: it is slow."""
        with self._lock:
            reached = {container for container, _ in self._sessions.get(lab, {})}
        known = [kind for kind in _KINDS if name_of(lab, kind, host) in reached]
        if known:
            return known == ["beside"]
        try:
            self._api.inspect_container(name_of(lab, "beside", host))
        except NotFound:
            return False
        return True

    def _session(self, lab: str, host: str, user: str, command: Sequence[str]) -> engine.Session:
        for kind in _KINDS:
            key = name_of(lab, kind, host), command
            with self._lock:
                known = self._sessions.get(lab, {}).get(key)
            if known is not None:
                return known
            with suppress(NotFound):
                return self._keep(lab, key, engine.Session(self._api, key[0], list(command), user=user))
        raise Unavailable(f"there is no container of {host} in lab {lab}.", f"See: testbed ps {lab}")

    def _keep(self, lab: str, key: tuple[str, Sequence[str]], fresh: engine.Session) -> engine.Session:
        with self._lock:
            kept = self._sessions.setdefault(lab, {}).setdefault(key, fresh)
        if kept is not fresh:  # another thread was faster
            fresh.close()
        return kept

    def end_sessions(self, lab: str) -> None:
        """Others of the same names may be there later."""
        with self._lock:
            self._devices.pop(lab, None)
            for session in self._sessions.pop(lab, {}).values():
                session.close()

    def close(self) -> None:
        """End all sessions."""
        for lab in list(self._sessions):
            self.end_sessions(lab)

    def root(self, lab: str, host: str, line: str) -> str:
        """What a shell of root's in the host's container answers."""
        return self._told(lab, host, "root", ("sh",), line)

    def ask(self, lab: str, host: str, command: str, wait: float = 0.0, **arguments: object) -> dict[str, Any]:
        """What the host's chitcpd answers."""
        line = json.dumps({"command": command, "arguments": arguments, "wait": wait})
        answer = json.loads(self._told(lab, host, USER, ("chitcpd", "ctl", "serve"), line))
        if "error" in answer:
            raise Unavailable(f"chitcpd of {host}: {answer['error']}.", f"See its log: testbed logs {lab} {host}")
        return dict(answer["answer"])

    def _told(self, lab: str, host: str, user: str, command: Sequence[str], line: str, ends: str = "") -> str:
        with engine.faults():
            try:
                return self._session(lab, host, user, command).ask(line, ends)
            except (EOFError, OSError, APIError) as error:
                self.end_sessions(lab)  # an answer that comes late must not be taken for the next one
                raise Unavailable(
                    f"the container of {host} does not answer.", f"See whether it runs: testbed ps {lab}"
                ) from error
