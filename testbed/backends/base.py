"""What a backend can do: build a lab from a Plan, run applications in it, change it, hand out its files, take it down.

The core (`testbed/run.py`, `testbed/lab.py`) talks to this protocol only. The order of calls in a run:

    check -> subnets_in_use -> up -> (start -> wait_ready)* -> (reshape | block | deed | kill | exits.get)*
          -> stop* -> collect -> down

Everything that a backend makes bears the lab's name and the run's id, so that `down`, `labs` and `ps` work from what
is there and never from a topology file: also after the controller was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from chitcpd.faults import Shape
from testbed.clock import WALL, Clock, Queue
from testbed.events import Deed, Reshape
from testbed.plan import AppPlan, HostPlan, Interface, Plan, Underlay

Report = Callable[[str], None]  # told of each step as it begins, in a few words for a person
Recording = Literal["segments", "wire"]


@dataclass(frozen=True, slots=True)
class Exit:
    """A process of the lab has ended."""

    kind: Literal["host", "app"]
    name: str
    status: int  # as a shell says it: 128 + the signal's number after a signal
    at: float = field(default_factory=WALL.now, compare=False)  # when, as the backend's clock says it


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is there, for `ps`."""

    lab: str
    run_id: str
    kind: Literal["host", "router", "app", "link"]
    name: str
    state: str  # "running", "exited 0", ...; of a link "up": that it may be down by now, its daemons know
    detail: str  # addresses of a host, subnet of a link, command of an app


@dataclass(slots=True)
class Mechanism:
    """How a link is shaped, one way: what was asked, what does it, and what was measured."""

    link: str
    direction: str  # "alice->bob", or "alice->LAN"
    delay_jitter_rate: Literal["netem", "chitcpd", "sim", "none"] = "none"
    why: str = ""  # why netem does not
    all_else: Literal["chitcpd", "sim", "none"] = "chitcpd"


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe of a link has found, and what was asked for."""

    link: str
    direction: str  # of the probe: "alice->bob"
    asked_rtt: float  # seconds
    measured_rtt: float
    asked_rate: float | None  # bits per second, in this direction
    measured_rate: float | None
    TOLERATED_RATE: ClassVar = 0.03  # by which share the rate may differ

    @property
    def good(self) -> bool:
        """Whether both are."""
        return self.good_rtt and self.good_rate

    @property
    def good_rtt(self) -> bool:
        """Whether the round trip is within max(1 ms, 2 %) of what was asked for."""
        return abs(self.measured_rtt - self.asked_rtt) <= self.tolerated_rtt

    @property
    def tolerated_rtt(self) -> float:
        """By how many seconds the round trip may differ."""
        return max(0.001, 0.02 * self.asked_rtt)

    @property
    def good_rate(self) -> bool:
        """Whether the rate is within 3 % of what was asked for, if it was measured."""
        if self.measured_rate is None or self.asked_rate is None:
            return True
        return abs(self.measured_rate / self.asked_rate - 1) <= self.TOLERATED_RATE


@dataclass(slots=True)
class Built:
    """What `up` has made, as far as it could not be known before."""

    mechanisms: list[Mechanism] = field(default_factory=list)
    probed: list[Probed] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)  # of the engine, the images, the kernel
    notes: list[str] = field(default_factory=list)  # what could not be done, and why, for a person


@dataclass(frozen=True, slots=True)
class Now:
    """What an end of a link does at this moment, and has done so far."""

    shape: Shape
    underlay: Underlay = field(default_factory=Underlay)
    counts: Counter[str] = field(default_factory=Counter)  # kind -> segments


class Backend(Protocol):
    """One way to build a lab."""

    name: str
    pool: str  # the network that subnets for links are taken from
    clock: Clock  # the time that its labs take
    repeatable: bool  # the same topology and seed give the same files: no time of day is in them, and no machine

    def check(self) -> None:
        """Raise Unavailable if this backend can't work here: no engine, no permission, no image."""

    def subnets_in_use(self) -> dict[str, str]:
        """Subnets that links can't have -> who has them, for a person."""

    def check_plan(self, plan: Plan) -> None:
        """Raise Unavailable if this backend can't do a run of this plan, for the reason that `up` would have."""

    def up(self, plan: Plan, report: Report, *, stays: bool) -> Built:
        """Build links and hosts; return when every daemon answers, every link is shaped and was probed.

        `stays`: the lab is to outlive this command; else it is garbage once this command is gone (`garbage`). Raises
        Unavailable, with everything taken down again: a clash of subnets, a port in use, a daemon that does not start
        (with its log's last lines).
        """

    def change(self, plan: Plan, report: Report) -> Built | None:
        """Make the lab that is up what the plan says: add, remove and change only what differs.

        None if nothing did; what links were told since then is not looked at. Raises Unavailable: then the lab is as
        far as it came, and what the message says.
        """

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Start an application with its files and its environment; anew, if it has ended before.

        A command that can't be executed is an application that ends at once with 127 (not found) or 126, as in a
        shell.
        """

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Wait until the app's daemon has a listener on `app.listening`, or the app has written what `app.says`.

        False after `app.timeout` seconds, or if the app or its daemon ended first.
        """

    def exits(self, plan: Plan) -> Queue[Exit]:
        """Where the end of each app and of each daemon is told, once; not that of one that a deed starts anew."""

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, and SIGKILL after a bounded time; nothing if it has ended."""

    def nodes(self, lab: str) -> tuple[HostPlan, ...]:
        """Hosts and routers of a lab that is up, as they were planned (but for somebody's own TCP)."""

    def attend(self, lab: str, hosts: Sequence[str]) -> None:
        """Make ready what it takes to change these hosts' links without delay."""

    def now(self, lab: str, node: HostPlan, interface: Interface) -> Now:
        """What this end of a link does."""

    def reshape(self, lab: str, changes: Sequence[Reshape]) -> None:
        """Let ends of links do something else from now on. Raises Unavailable."""

    def block(self, lab: str, host: str, addresses: Sequence[str]) -> None:
        """Let nothing pass between this host and these addresses, and again between it and all others."""

    def deed(self, lab: str, host: str, deed: Deed) -> None:
        """Kill the host's chitcpd, start it anew (with the links as they were planned), stop it and let it go on."""

    def kill(self, lab: str, app: str, signal: str) -> bool:
        """Send an application a signal, like SIGTERM; False if it does not run."""

    def collect(self, plan: Plan, directory: Path) -> list[str]:
        """Stop the captures and the daemons in order, then write what the lab left:

        `hosts/H/{chitcpd.log,trace.jsonl,segments.pcap,wire.pcap}` and `apps/A/{stdout,stderr}`, `apps/A/files/...`.
        Return what of it can't be read, and why, for a person.
        """

    def snapshot(self, lab: str, directory: Path) -> list[str]:
        """Write the same, of a lab that goes on, as it is at this moment."""

    def recording(self, lab: str, node: str, recording: Recording, *, follow: bool) -> Iterator[bytes]:
        """A node's capture so far; with `follow` also what comes, until the lab is down. Raises Unavailable."""

    def execute(self, lab: str, host: str, command: Sequence[str], *, terminal: bool) -> int:
        """Run a command as an application of the host, with our standard streams; return its status."""

    def labs(self) -> list[str]:
        """Names of the labs of which anything is there. Raises Unavailable if the engine does not answer."""

    def garbage(self) -> list[str]:
        """The labs of this user, made on this machine, that nobody left up.

        A command may be at work on one of them at this very moment: that is for the lab's lock to say.
        """

    def ps(self, lab: str | None) -> list[Item]:
        """What is there, of one lab or of all."""

    def logs(self, lab: str, names: tuple[str, ...], *, follow: bool) -> Iterator[tuple[str, str]]:
        """(host or app, line) of the named ones, or of all; with `follow` until they end."""

    def down(self, lab: str, report: Report) -> int:
        """Remove everything of this lab, from labels alone; return how many things that were."""
