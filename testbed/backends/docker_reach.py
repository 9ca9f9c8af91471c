"""Reaches the hosts of a lab that is up, on a Docker engine: their chitcpd, and a shell of root's for tc.

By commands that run in their containers as long as we do: to be quick, for a change has its moment.
"""

from __future__ import annotations

import json
from contextlib import suppress
from threading import Lock
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound

from chitcpd.faults import Shape
from testbed import shaping
from testbed.backends import engine, setup
from testbed.backends.docker_labels import USER, name_of
from testbed.plan import Interface, Underlay
from testbed.unavailable import Unavailable


class Reach:
    """The sessions with the hosts of labs."""

    def __init__(self, api: APIClient) -> None:
        self._api = api
        self._sessions: dict[str, dict[tuple[str, str], engine.Session]] = {}  # lab -> by container and user
        self._lock = Lock()

    def shape(self, lab: str, node: str, interface: Interface, shape: Shape, underlay: Underlay) -> bool:
        """Let netem do its part from now on; whether it does."""
        line = self.root(lab, node, setup.reshape(interface, shape, underlay))
        status, said = setup.answer(line)
        if status == 0 and shaping.has_work(shape, underlay):
            setup.compare(interface, shape, underlay, json.loads(said)[0])
        elif status != 0 and underlay != Underlay():
            raise Unavailable(
                f"link {interface.link} can't have `underlay`: {setup.why_no_netem(said)}.", "Leave it out."
            )
        return status == 0

    def is_foreign(self, lab: str, host: str) -> bool:
        """Whether it runs another chitcpd."""
        try:
            self._api.inspect_container(name_of(lab, "beside", host))
        except NotFound:
            return False
        return True

    def _session(self, lab: str, host: str, user: str, command: list[str]) -> engine.Session:
        for kind in ("beside", "host", "router"):
            key = name_of(lab, kind, host), user
            with self._lock:
                known = self._sessions.get(lab, {}).get(key)
            if known is not None:
                return known
            with suppress(NotFound):
                return self._keep(lab, key, engine.Session(self._api, key[0], command, user=user))
        raise Unavailable(f"there is no container of {host} in lab {lab}.", f"See: testbed ps {lab}")

    def _keep(self, lab: str, key: tuple[str, str], fresh: engine.Session) -> engine.Session:
        with self._lock:
            kept = self._sessions.setdefault(lab, {}).setdefault(key, fresh)
        if kept is not fresh:  # another thread was faster
            fresh.close()
        return kept

    def end_sessions(self, lab: str) -> None:
        """Others of the same names may be there later."""
        with self._lock:
            for session in self._sessions.pop(lab, {}).values():
                session.close()

    def close(self) -> None:
        """End all sessions."""
        for lab in list(self._sessions):
            self.end_sessions(lab)

    def root(self, lab: str, host: str, line: str) -> str:
        """What a shell of root's in the host's container answers."""
        return self._told(lab, host, "root", ["sh"], line)

    def ask(self, lab: str, host: str, command: str, wait: float = 0.0, **arguments: object) -> dict[str, Any]:
        """What the host's chitcpd answers."""
        line = json.dumps({"command": command, "arguments": arguments, "wait": wait})
        answer = json.loads(self._told(lab, host, USER, ["chitcpd", "ctl", "serve"], line))
        if "error" in answer:
            raise Unavailable(f"chitcpd of {host}: {answer['error']}.", f"See its log: testbed logs {lab} {host}")
        return dict(answer["answer"])

    def _told(self, lab: str, host: str, user: str, command: list[str], line: str) -> str:
        with engine.faults():
            try:
                return self._session(lab, host, user, command).ask(line)
            except (EOFError, OSError, APIError) as error:
                self.end_sessions(lab)  # an answer that comes late must not be taken for the next one
                raise Unavailable(
                    f"the container of {host} does not answer.", f"See whether it runs: testbed ps {lab}"
                ) from error
