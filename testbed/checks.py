"""The checks of a run: pure verdicts on how applications ended, on what they left, and on what the traces tell."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testbed import traces
from testbed.outcome import Comparison, Ending, Result
from testbed.plan import AppPlan
from testbed.search import search
from testbed.topology.model import AtMost, Backoff, Check, Completes, Fairness, Goodput, Output, Visited
from testbed.traces import Event

_SEARCH_WITHIN = 10  # seconds


def judge(check: Check, endings: dict[str, Ending], addresses: dict[str, frozenset[str]], directory: Path) -> Result:
    """The verdict on one check of a topology, from what a run has left in `directory`; `addresses`: of each host."""
    if check.integrity is not None:
        apps = [ending.app for ending in endings.values()]
        return integrity(check.integrity, apps, directory / "apps" / check.integrity / "files")
    if check.completes is not None:
        return completes(check.completes, endings[check.completes.app])
    if check.output is not None:
        return output(check.output, directory / "apps" / check.output.app / "stdout")
    run = _Traces(directory / "hosts", addresses)
    try:
        return _of_traces(check, endings, run)
    except _NoTraceError as error:
        message = f"{error} has no trace to judge by: its chitcpd writes none"
        return Result(check.title.replace(" of ", " ", 1), False, message)


class _NoTraceError(Exception):
    """This host has no trace."""


@dataclass(frozen=True, slots=True)
class _Traces:
    """The traces of a run."""

    hosts: Path
    addresses: dict[str, frozenset[str]]

    def own(self, host: str) -> Iterator[Event]:
        """What the host's daemon has seen. Raises _NoTraceError."""
        try:
            yield from traces.of_host(traces.read(self.hosts / host / "trace.jsonl"), self.addresses[host])
        except FileNotFoundError as error:
            raise _NoTraceError(host) from error

    def both_ends(self, host: str) -> Iterator[Event]:
        """What the host's daemon and those of its peers have seen of their connections. Raises _NoTraceError."""
        peers = traces.peers(self.own(host))
        for name in self.addresses:
            if name == host:
                yield from self.own(host)
            elif not peers.isdisjoint(self.addresses[name]):
                yield from traces.of_host(self.own(name), self.addresses[host])


def _of_traces(check: Check, endings: dict[str, Ending], run: _Traces) -> Result:
    if check.fairness is not None:
        hosts = {app: endings[app].app.host for app in check.fairness.apps}
        return fairness(check.fairness, {app: partial(run.own, host) for app, host in hosts.items()})
    asked = check.goodput or check.retransmissions or check.resets or check.states or check.backoff
    assert asked is not None
    host = endings[asked.app].app.host
    if isinstance(asked, Goodput):
        return goodput(asked, traces.flow(run.own(host)))
    if isinstance(asked, Visited):
        return states(asked, traces.states(run.own(host)))
    if isinstance(asked, Backoff):
        return backoff(asked, traces.backoffs(run.both_ends(host)))
    kind, count = ("retransmissions", traces.retransmissions) if check.retransmissions else ("resets", traces.resets)
    return at_most(kind, asked, count(run.both_ends(host)))


def completes(asked: Completes, ending: Ending) -> Result:
    """Whether an application has ended by itself in time."""
    check = f"completes {asked.app}"
    if ending.how != "by itself":
        return Result(check, False, f"{asked.app} did not end by itself: {ending.how}")
    good = ending.seconds <= asked.within
    return Result(check, good, f"{asked.app} ended after {ending.seconds:.3g} s, expected at most {asked.within:g} s")


def output(asked: Output, stdout: Path) -> Result:
    """Whether something that an application has written matches."""
    check = f"output {asked.app}"
    try:
        with (stdout if stdout.is_file() else Path(os.devnull)).open("rb") as text:
            found = search(asked.matches, text, within=_SEARCH_WITHIN)
    except TimeoutError:
        return Result(check, False, f"{asked.matches} was not found within {_SEARCH_WITHIN} s: is it a simple one?")
    except ChildProcessError as error:
        return Result(check, False, f"what {asked.app} wrote could not be searched: {error}")
    what = "wrote nothing" if found is None else f"wrote {found!r:.80}"
    return Result(check, found is not None, f"{asked.app} {what} that matches {asked.matches}")


def goodput(asked: Goodput, flow: traces.Flow | None) -> Result:
    """Whether data has crossed fast enough."""
    good = flow is not None and flow.bits_per_second >= asked.min
    return Result(f"goodput {asked.app}", good, f"{_speed(flow)}, expected at least {asked.min / 1e6:g} mbit")


def _speed(flow: traces.Flow | None) -> str:
    if flow is None:
        return "no data"
    if flow.seconds > 0:
        return f"{flow.bytes} bytes in {flow.seconds:.3g} s, {flow.bits_per_second / 1e6:.3g} mbit"
    if flow.segments == 1:
        return f"{flow.bytes} bytes in one segment, which takes no time: too few to tell how fast"
    return f"{flow.bytes} bytes in no time"


def states(asked: Visited, seen: list[str]) -> Result:
    """Whether all of these states were passed through."""
    missing = [state for state in asked.all if state not in seen]
    details = f"never in {', '.join(missing)}; " if missing else ""
    return Result(f"states {asked.app}", not missing, f"{details}passed through {', '.join(seen) or 'none'}")


def at_most(kind: str, asked: AtMost, count: int) -> Result:
    """Whether there were no more of these."""
    return Result(f"{kind} {asked.app}", count <= asked.max, f"{count} {kind}, expected at most {asked.max}")


def backoff(asked: Backoff, seen: list[traces.Backoff]) -> Result:
    """Whether the time-out doubled so often in a row, and always when it expired again."""
    check = f"backoff {asked.app}"
    flat = next((one.flat for one in seen if one.flat), None)
    if flat is not None:
        return Result(check, False, f"after a wait of {flat[0]:.3g} s came one of {flat[1]:.3g} s, expected twice that")
    most = max((one.doublings for one in seen), default=0)
    return Result(check, most >= asked.min, f"the wait doubled {most} times in a row, expected at least {asked.min}")


def fairness(asked: Fairness, run: dict[str, Callable[[], Iterable[Event]]]) -> Result:
    """Whether apps shared evenly while all of them had data; `run`: what each app's host has seen, read twice."""
    check = f"fairness {', '.join(asked.apps)}"
    flows = {app: traces.flow(seen()) for app, seen in run.items()}
    busy = [flow for flow in flows.values() if flow is not None]
    idle = [app for app, flow in flows.items() if flow is None]
    if idle:
        return Result(check, False, f"no data crossed to or from the host of {', '.join(idle)}")
    first, last = max(flow.first for flow in busy), min(flow.last for flow in busy)
    if first >= last:
        return Result(check, False, "there was no time in which all of them had data in flight")
    rates = [traces.bytes_between(seen(), first, last) * 8 / (last - first) for seen in run.values()]
    index = traces.jain(rates)
    each = ", ".join(f"{app} {rate / 1e6:.3g} mbit" for app, rate in zip(run, rates, strict=True))
    details = f"{each} in {last - first:.3g} s together"
    return Result(check, index >= asked.min, f"index {index:.3g}, expected at least {asked.min:g}: {details}")


def exit_status(ending: Ending) -> Result:
    """Whether an application that was expected to end has done so, by itself, in time, with the right status."""
    app = ending.app
    check = f"exit {app.name}"
    if ending.how == "timed out" or (ending.how == "by itself" and ending.seconds > app.timeout):
        return Result(check, False, f"{app.name} did not end within {app.timeout:g} s")
    if ending.how != "by itself":
        return Result(check, False, f"{app.name} did not end by itself: {ending.how}")
    if ending.status != app.expect_exit:
        return Result(check, False, f"{app.name} ended with status {ending.status}, expected {app.expect_exit}")
    return Result(check, True, f"{app.name} ended with status {ending.status}")


def integrity(receiver: str, apps: Iterable[AppPlan], files: Path) -> Result:
    """Whether what `receiver` has in its working directory `files` is what the others were given.

    Every file that another application was given, and `receiver` not, and that it has under the same name, is
    compared; at least one such file must be there.
    """
    check = f"integrity {receiver}"
    given = [(app, name) for app in apps for name in app.files]
    own = {name for app, name in given if app.name == receiver}
    given = [(app, name) for app, name in given if name not in own]
    if not given:
        return Result(check, False, "no other application was given another file: there is nothing to compare with")
    comparisons = tuple(
        Comparison(name, app.name, hashlib.sha256(app.files[name]).hexdigest(), _sha256(files / name))
        for app, name in given
    )
    arrived = tuple(comparison for comparison in comparisons if comparison.received is not None)
    if not arrived:
        names = ", ".join(dict.fromkeys(name for _, name in given))
        return Result(check, False, f"{receiver} has no file {names} in its working directory", comparisons)
    different = [comparison for comparison in arrived if comparison.received != comparison.sent]
    if different:
        details = ", ".join(f"{one.file} is not what {one.giver} was given" for one in different)
        return Result(check, False, details, arrived)
    whole = [one.file for one in arrived]
    missing = [name for name in dict.fromkeys(name for _, name in given) if name not in whole]
    rest = f"; {receiver} has no {', '.join(missing)}" if missing else ""
    return Result(check, True, f"{', '.join(whole)} arrived whole{rest}", arrived)


def _sha256(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file():  # a link may lead to the very file that was to be sent
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
