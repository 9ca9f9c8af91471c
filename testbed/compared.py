"""Two folders of the same run beside each other: whether it came out the same, and where it first differs.

A simulation is the same to the last byte, or something has changed: then the first event that is another one is what
there is to look at. Elsewhere times vary, and with them which segments are sent: there verdicts are compared, how
applications ended, what they wrote (but for numbers) and the files that they have, and what is drawn from the seed
alone: whether the n-th segment that enters a link is lost.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from testbed import finished
from testbed.report import read
from testbed.report.read import Unreadable, inside
from testbed.traces import Event

_MOST_TEXT = 1 << 20  # bytes of an output, or of one line, that are compared
_SHOWN = 200  # characters of a line
_NUMBER = re.compile(r"\d+(\.\d+)?")
_BY_CHANCE = ("duplicate", "corrupt", "reorder", "jitter")  # what draws numbers too, so many as the segments ask for


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that came out otherwise."""

    where: str  # like "host alice", "app client"
    what: str  # like "event 118", "stdout, line 1"
    at: float | None  # seconds, as the trace counts them
    then: str
    now: str


@dataclass(slots=True)
class Comparison:
    """Two runs beside each other."""

    first: Path
    second: Path
    exact: bool  # byte for byte
    versions: list[tuple[str, str, str]] = field(default_factory=list)  # what differs: name, then, now
    compared: list[str] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)  # and why
    differences: list[Difference] = field(default_factory=list)  # what came first is the first
    files: list[str] = field(default_factory=list)  # of an exact comparison, those that differ

    @property
    def same(self) -> bool:
        """Whether it came out the same."""
        return not self.differences and not self.files


def compare(first: Path, second: Path, *, exact: bool) -> Comparison:
    """Two run folders; `exact`: byte for byte. Raises Unreadable and BadTrace."""
    result = Comparison(first, second, exact)
    then, now = read.manifest(first), read.manifest(second)
    try:
        result.versions = _versions(then, now)
        if exact:
            _compare_bytes(result)
        else:
            _compare_what_lasts(result, then, now)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # somebody else has written it
        raise Unreadable(f"{first}/manifest.json is not what a run writes: {error!r:.200}") from error
    return result


def _versions(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What is another one now: of the program, Python, the kernel, somebody's own TCP."""
    both = [{name: str(value) for name, value in dict(one.get("versions", {})).items()} for one in (then, now)]
    for one, hosts in zip(both, (then.get("hosts", {}), now.get("hosts", {})), strict=True):
        one.update({f"TCP of {name}": str(dict(host).get("implementation_sha256")) for name, host in hosts.items()})
    names = dict.fromkeys([*both[0], *both[1]])
    pairs = [(name, both[0].get(name, "unknown"), both[1].get(name, "unknown")) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


# ---- byte for byte


def _compare_bytes(result: Comparison) -> None:
    first, second = result.first, result.second
    names = sorted({*_files(first), *_files(second)})
    for name in names:
        if not _is_same(first, second, name):
            result.files.append(name)
    result.compared = [f"{len(names)} files, byte for byte"]
    texts = [name for name in result.files if not name.endswith(".pcap") and "/files/" not in name]
    found = [difference for name in texts if (difference := _first_line(result, name)) is not None]
    # An event of a trace has a time, and comes before what it led to; the manifest tells of consequences.
    found.sort(key=lambda one: (one.at is None, one.at or 0.0, one.where == "manifest.json"))
    result.differences = found or [_of_a_file(result, name) for name in result.files[:1]]


def _is_same(first: Path, second: Path, name: str) -> bool:
    here, there = inside(first, name), inside(second, name)
    if here is not None and there is not None and filecmp.cmp(here, there, shallow=False):
        return True
    return name == "manifest.json" and _without_versions(first) == _without_versions(second)


def _without_versions(folder: Path) -> dict[str, Any]:
    """What a manifest says, but for the versions: those are told apart."""
    return {name: value for name, value in read.manifest(folder).items() if name != "versions"}


def _files(folder: Path, pattern: str = "**/*") -> Iterator[str]:
    """Files of the folder itself, but for those that a program makes of the others, for people."""
    for path in sorted(folder.glob(pattern)):
        name = str(path.relative_to(folder))
        if path.name != "report.html" and inside(folder, name) is not None:
            yield name


def _first_line(result: Comparison, name: str) -> Difference | None:
    here, there = inside(result.first, name), inside(result.second, name)
    if here is None or there is None:
        return _of_a_file(result, name)
    with here.open("rb") as one, there.open("rb") as other:
        lines = [iter(partial(file.readline, _MOST_TEXT), b"") for file in (one, other)]
        for number, (then, now) in enumerate(zip_longest(*lines, fillvalue=b""), 1):
            if then != now:
                return _of_a_line(name, number, then, now)
    return None


def _of_a_line(name: str, number: int, then: bytes, now: bytes) -> Difference:
    part, _, rest = name.partition("/")
    owner, _, file = rest.partition("/")
    where = f"{part.removesuffix('s')} {owner}" if file else name
    what = f"{file}, line {number}" if file else f"line {number}"
    if file == "trace.jsonl":
        events = [_event(line) for line in (then, now)]
        times = [event["t"] for event in events if event is not None]
        texts = ["nothing more" if event is None else _said(event) for event in events]
        return Difference(where, f"event {number}", min(times, default=None), *texts)
    return Difference(where, what, None, _shown(then), _shown(now))


def _of_a_file(result: Comparison, name: str) -> Difference:
    sizes = [
        "no such file" if path is None else f"{path.stat().st_size} bytes"
        for path in (inside(result.first, name), inside(result.second, name))
    ]
    return Difference(name, "other bytes", None, *sizes)


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
        return event if isinstance(event, dict) and finished.is_time(event.get("t")) else None
    except (ValueError, RecursionError):
        return None


def _said(event: Event) -> str:
    """An event in one line: like "0.204000 sent S. seq 17 len 0 wnd 65535 ack 4"."""
    left_out = ("t", "event", "connection", "local", "peer")
    fields = [f"{name} {_value(value)}" for name, value in event.items() if name not in left_out]
    ends = f"{event.get('local', '?')} {event.get('peer', '?')}"
    return f"{event['t']:.6f} {event.get('event')} {ends} {' '.join(fields)}"[:_SHOWN]


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shown(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\n")[:_SHOWN] or "nothing"


# ---- where times vary


def _compare_what_lasts(result: Comparison, then: dict[str, Any], now: dict[str, Any]) -> None:
    _compare_each(result, "check", "verdict", *(_verdicts(one) for one in (then, now)))
    _compare_each(result, "app", "end", *(_ends(one) for one in (then, now)))
    for stream in ("stdout", "stderr"):
        _compare_each(result, "app", stream, *(_outputs(one, stream) for one in (result.first, result.second)))
    _compare_each(result, "file", "content", *(_contents(one) for one in (result.first, result.second)))
    result.compared = ["verdicts", "how applications ended", "what they wrote, but for numbers", "the files they have"]
    result.not_compared = ["when anything happened, and so which segments there were: times vary on this backend"]
    _compare_losses(result, then, now)


def _compare_each(result: Comparison, where: str, what: str, then: dict[str, str], now: dict[str, str]) -> None:
    for name in dict.fromkeys([*then, *now]):
        pair = then.get(name, "nothing"), now.get(name, "nothing")
        if pair[0] != pair[1]:
            result.differences.append(Difference(f"{where} {name}", what, None, *pair))


def _verdicts(manifest: dict[str, Any]) -> dict[str, str]:
    checks = {str(one["check"]): "passed" if one["ok"] else "failed" for one in manifest.get("checks", [])}
    return {"of the run": str(manifest.get("verdict")), **checks}


def _ends(manifest: dict[str, Any]) -> dict[str, str]:
    apps = dict(manifest.get("apps", {})).items()
    return {name: f"{app['ended']}, status {app['status']}" for name, app in apps if app["expected"] is not None}


def _outputs(folder: Path, stream: str) -> dict[str, str]:
    """Without numbers, and in any order of the lines: a server's clients may end in another one."""
    outputs = {}
    for name in _files(folder, f"apps/*/{stream}"):
        with (folder / name).open("rb") as file:
            lines = file.read(_MOST_TEXT).decode(errors="replace").splitlines()
        outputs[Path(name).parent.name] = "\n".join(sorted(_NUMBER.sub("#", line) for line in lines)) or "nothing"
    return outputs


def _contents(folder: Path) -> dict[str, str]:
    found = {}
    for name in _files(folder, "apps/*/files/**/*"):
        if not name.endswith(".part"):  # of a transfer that was cut off
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name.removeprefix("apps/")] = f"sha256 {digest}"
    return found


def _compare_losses(result: Comparison, manifest: dict[str, Any], again: dict[str, Any]) -> None:
    """Of each host's link that does nothing else by chance: whether the n-th segment on it was lost."""
    if manifest.get("events"):
        result.not_compared.append("which segments were lost: events change links at a time, not at a segment")
        return
    count = 0
    for direction in manifest.get("links", []):
        asked, sender = direction["asked"], str(direction["direction"]).partition("->")[0]
        # Another lab that is up meanwhile may have the addresses of the first run.
        owns = [_address(one, sender, direction["link"]) for one in (manifest, again)]
        if not asked.get("loss") or None in owns:
            continue
        if any(asked.get(name) for name in _BY_CHANCE):
            result.not_compared.append(
                f"which segments of {sender} were lost on {direction['link']}: more is left to chance there"
            )
            continue
        paths = [inside(folder, "hosts", sender, "trace.jsonl") for folder in (result.first, result.second)]
        then, now = (_fates(path, str(own)) for path, own in zip(paths, owns, strict=True))
        length = min(len(then), len(now))
        count += length
        other = next((at for at in range(length) if then[at] != now[at]), None)
        if other is not None:
            said = ["lost" if one[other] else "not lost" for one in (then, now)]
            what = f"segment {other + 1} on {direction['link']}"
            result.differences.append(Difference(f"host {sender}", what, None, *said))
    if count:
        result.compared.append(f"which of the first {count} segments were lost, by the seed")


def _address(manifest: dict[str, Any], host: str, link: str) -> str | None:
    """The host's own on this link; None for a router's, or somebody else's."""
    found: str | None = dict(manifest["hosts"].get(host, {})).get("addresses", {}).get(link)
    return found


def _fates(path: Path | None, own: str) -> list[bool]:
    """Of each segment that has left by this address, whether it was lost, but for those that a rule has dropped."""
    fates: list[bool | None] = []  # None: it never came to where losses are drawn
    left: dict[tuple[Any, ...], list[int]] = {}  # what was sent, and of which nothing else was told: its places there
    if path is None:
        return []
    for event in finished.events(path):
        if not str(event["local"]).startswith(f"{own}:"):
            continue
        key = tuple(event.get(name) for name in ("peer", "flags", "seq", "len", "ack"))
        if event["event"] == "sent":
            left.setdefault(key, []).append(len(fates))
            fates.append(False)
        elif event["event"] == "dropped" and event["direction"] == "sent" and left.get(key):
            at = left[key].pop()  # it stands behind all that were sent together
            fates[at] = None if event["why"] in ("drop rule", "down", "partition") else event["why"] == "loss"
    return [fate for fate in fates if fate is not None]


def as_json(comparison: Comparison) -> dict[str, object]:
    """For programs: docs/schemas/replay.schema.json."""
    return {
        "run": str(comparison.first),
        "again": str(comparison.second),
        "same": comparison.same,
        "exact": comparison.exact,
        "versions": [{"name": name, "then": then, "now": now} for name, then, now in comparison.versions],
        "compared": comparison.compared,
        "not_compared": comparison.not_compared,
        "differences": [
            {"where": one.where, "what": one.what, "at": one.at, "then": one.then, "now": one.now}
            for one in comparison.differences
        ],
        "files": comparison.files,
    }
