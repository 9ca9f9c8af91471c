"""What a backend can do: build a lab from a Plan, run applications in it, hand out what it left, take it down.

The core (`testbed/run.py`) talks to this protocol only. The order of calls in a run:

    check -> subnets_in_use -> up -> (start -> wait_ready)* -> exits.get()* -> stop* -> collect -> down

Everything that a backend makes bears the lab's name and the run's id, so that `down`, `labs` and `ps` work from what
is there and never from a topology file: also after the controller was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, Protocol

from testbed.plan import AppPlan, Plan

Report = Callable[[str], None]  # told of each step as it begins, in a few words for a person


class Unavailable(Exception):
    """This machine can't (exit status 3): one sentence that says what is wrong, one that says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Exit:
    """A process of the lab has ended."""

    kind: Literal["host", "app"]
    name: str
    status: int  # as a shell says it: 128 + the signal's number after a signal


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is there, for `ps`."""

    lab: str
    run_id: str
    kind: Literal["host", "app", "link"]
    name: str
    state: str  # "running", "exited 0", ...
    detail: str  # addresses of a host, subnet of a link, command of an app


@dataclass(slots=True)
class Mechanism:
    """How a link is shaped, one way: what was asked, what does it, and why not the better thing."""

    link: str
    direction: str  # "alice->bob"
    delay_jitter_rate: Literal["netem", "chitcpd", "none"] = "none"
    why: str = ""  # why chitcpd shapes in place of netem


@dataclass(slots=True)
class Built:
    """What `up` has made, as far as it could not be known before."""

    mechanisms: list[Mechanism] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)  # of the engine, the image, the kernel
    notes: list[str] = field(default_factory=list)  # what could not be done, and why, for a person


class Backend(Protocol):
    """One way to build a lab."""

    name: str
    pool: str  # the network that subnets for links are taken from

    def check(self) -> None:
        """Raise Unavailable if this backend can't work here: no engine, no permission, no image."""

    def subnets_in_use(self) -> dict[str, str]:
        """Subnets that links can't have -> who has them, for a person."""

    def up(self, plan: Plan, report: Report) -> Built:
        """Build links and hosts; return when every daemon answers and every link is shaped.

        Raises Unavailable, with everything taken down again: a clash of subnets, a port in use, a daemon that does
        not start (with its log's last lines).
        """

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Start an application with its files and its environment.

        A command that can't be executed is an application that ends at once with 127 (not found) or 126, as in a
        shell.
        """

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Wait until the app's daemon has a listener on `app.listening`; False after `app.timeout` seconds, or if
        the app or its daemon ended first."""

    def exits(self, plan: Plan) -> SimpleQueue[Exit]:
        """Where the end of each app and of each daemon is told, once."""

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, and SIGKILL after a bounded time; nothing if it has ended."""

    def collect(self, plan: Plan, directory: Path) -> None:
        """Stop the captures and the daemons in order, then write what the lab left:

        `hosts/H/{chitcpd.log,trace.jsonl,segments.pcap,wire.pcap}` and `apps/A/{stdout,stderr}`, `apps/A/files/...`.
        """

    def labs(self) -> list[str]:
        """Names of the labs of which anything is there. Raises Unavailable if the engine does not answer."""

    def ps(self, lab: str | None) -> list[Item]:
        """What is there, of one lab or of all."""

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """(host or app, line) of the named ones, or of all; with `follow` until they end."""

    def down(self, lab: str, report: Report) -> int:
        """Remove everything of this lab, from labels alone; return how many things that were."""
