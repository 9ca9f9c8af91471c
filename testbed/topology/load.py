"""Reads a topology file: a Topology, or every fault of the file in one pass, each with file:line:column.

The text is composed to YAML nodes, which know where they stand; the nodes become plain data; pydantic judges its
structure, and the checks at the end of this file judge what refers to what. Both work on the plain data, so that
a wrong unit in one place does not hide a missing host in another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from chitcpd import settings
from testbed.topology.model import DIRECTION, FILE_KINDS, Files, Link, LinkSettings, Topology, subnet
from testbed.topology.presets import PRESETS

FILE_SIZE = 256 * 1024  # bytes
NODES = 10_000  # after aliases are followed: ten lines of them can stand for a billion nodes
DEPTH = 16  # levels of nesting

Path_ = tuple[str | int, ...]  # keys and indexes from the root of the file


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong with a topology file. `line` and `column` begin at 1; line 0: the file as a whole."""

    file: str
    line: int
    column: int
    path: str  # like links[0].delay; empty: the whole file
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class TopologyError(Exception):
    """The topology can't be used: `faults` says all that is wrong with it, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(set(faults))
        super().__init__("\n".join(map(str, self.faults)))


def load(path: str | Path) -> Topology:
    """Read and check the topology file at `path`, and the files that it names. Raises TopologyError."""
    document = _Document(str(path), _compose(str(path), _read(Path(path))))
    data = document.data()
    try:
        topology = Topology.model_validate(data, context=Files(Path(path).parent))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            document.structural(details)
    if isinstance(data, dict):
        for where, message in _references(data):
            document.fault(where, message)
    if document.faults:
        raise TopologyError(document.faults)
    return topology


# Text and nodes


def _read(path: Path) -> str:
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable path"
        message = f"found no file that can be read ({reason}), expected a topology file"
        raise TopologyError([Fault(file, 0, 0, "", message)]) from error
    if len(content) > FILE_SIZE:
        message = f"found a file of more than {FILE_SIZE // 1024}KiB, expected a topology"
        raise TopologyError([Fault(file, 0, 0, "", message)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        message = f"found the byte {content[error.start]:#04x}, expected text in UTF-8"
        raise TopologyError([_fault_after(file, before, message)]) from error


def _fault_after(file: str, before: str, message: str) -> Fault:
    return Fault(file, before.count("\n") + 1, len(before) - before.rfind("\n"), "", message)


class _Loader(yaml.SafeLoader):
    """Composes nodes, to a bounded depth: PyYAML's composer calls itself for each level."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEPTH:
            mark = parent.start_mark if parent else None
            raise yaml.composer.ComposerError(None, None, f"found more than {DEPTH} levels of nesting", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(file: str, text: str) -> yaml.Node:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        message = f"found the character U+{ord(text[error.position]):04X}, expected a text file"
        raise TopologyError([_fault_after(file, text[: error.position], message)]) from error
    try:
        node = loader.get_single_node()  # what yaml.compose does; the loader knows how far it came
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        message = f"{_printable(problem, 200)}; expected YAML"
        raise TopologyError([Fault(file, line, column, "", message)]) from error
    except (ValueError, OverflowError) as error:  # PyYAML's scanner, on escapes and versions beyond all bounds
        line, column = loader.line + 1, loader.column + 1
        raise TopologyError([Fault(file, line, column, "", "found an impossible number, expected YAML")]) from error
    if node is None:
        raise TopologyError([Fault(file, 1, 1, "", "found an empty file, expected a topology with name and hosts")])
    return node


_STANDARD_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
}


@dataclass(slots=True)
class _Document:
    """The nodes of a file, and the faults found in it so far."""

    file: str
    root: yaml.Node
    faults: list[Fault] = field(default_factory=list)
    nodes: int = 0

    def data(self) -> Any:
        """Mappings as dict, sequences as list, scalars as the text in the file."""
        return self._plain(self.root, ())

    def _plain(self, node: yaml.Node, path: Path_) -> Any:
        self.nodes += 1
        if self.nodes > NODES or len(path) > DEPTH:
            limit = f"expected at most {NODES} values and {DEPTH} levels of nesting, with all aliases followed"
            raise TopologyError([*self.faults, self._at(node, path[:3], f"found too much, {limit}")])
        if node.tag not in _STANDARD_TAGS:
            self.faults.append(self._at(node, path, f"found the tag {_shown(node.tag)}, expected a plain value"))
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return self._text(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.faults.append(self._at(key, path, "found a key that is not text, expected a name"))
                continue
            name = self._text(key, path)
            plain = self._plain(value, (*path, name))
            if name in data:
                message = f"found the key {_shown(name)} again, expected it once: it is on line {lines[name]} already"
                self.faults.append(self._at(key, (*path, name), message))
                continue
            data[name], lines[name] = plain, key.start_mark.line + 1
        return data

    def _text(self, node: yaml.Node, path: Path_) -> str:
        text = str(node.value)
        if any("\ud800" <= character <= "\udfff" for character in text):  # escapes can say what UTF-8 can't
            self.faults.append(self._at(node, path, "found half a surrogate pair, expected characters"))
            return text.encode(errors="replace").decode()
        return text

    def fault(self, path: Path_, message: str, *, at_key: bool = False) -> None:
        """Add a fault at the value that `path` leads to, or at its key; or as near to it as there is something."""
        key = value = self.root
        for step in path:
            inside = _step(value, step)
            if inside is None:
                break
            key, value = inside
        self.faults.append(self._at(key if at_key else value, path, message))

    def _at(self, node: yaml.Node, path: Path_, message: str) -> Fault:
        mark = node.start_mark
        return Fault(self.file, mark.line + 1, mark.column + 1, _path_text(path), message)

    def structural(self, error: ErrorDetails) -> None:
        """Add what pydantic found."""
        path = error["loc"]
        if path[:1] == ("apps",) and path[4:5] and path[4] in FILE_KINDS:  # apps.A.files.F.KIND
            path = path[:4] + path[5:]
        if path[:1] == ("links",) and path[2:3] == (DIRECTION,):  # in the file the directions are keys of the link
            path = path[:2] + path[3:]
        kind, found = error["type"], _shown(error["input"])
        if kind == "missing":
            self.fault(path[:-1], f"found no key '{path[-1]}', expected one")
        elif kind == "extra_forbidden":
            known = _keys_at(path[:-1])
            message = f"found unknown key {_quoted(path[-1])}, expected one of {', '.join(known)}"
            self.fault(path, message + _nearest(str(path[-1]), known), at_key=True)
        elif path and path[-1] == "[key]":
            self.fault(path[:-1], f"found {_shown(path[-2])}, {_expected(error)}", at_key=True)
        elif kind in ("too_short", "too_long"):
            self.fault(path, f"found {len(error['input'])} entries, {_expected(error)}")
        elif kind == "model_type":
            self.fault(path, f"found {found}, expected a mapping with the keys {', '.join(_keys_at(path))}")
        else:
            self.fault(path, f"found {found}, {_expected(error)}")


def _step(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """(key, value) one step further into `node`; an item of a sequence is its own key."""
    if isinstance(node, yaml.MappingNode):
        return next((pair for pair in node.value if pair[0].value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


# Words


def _expected(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        options = re.findall(r"'(.*?)'", context["expected"])
        return f"expected {context['expected']}{_nearest(str(error['input']), options)}"
    if kind == "too_short":
        return f"expected at least {context['min_length']}"
    if kind == "too_long":
        return f"expected at most {context['max_length']}"
    if kind == "dict_type":
        return "expected a mapping, like {name: ...}"
    if kind == "tuple_type":
        return "expected a list, like [one, two]"
    return f"expected something else: {error['msg']}"


def _printable(text: str, longest: int = 60) -> str:
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def _quoted(text: object) -> str:
    return f"'{_printable(str(text))}'"


def _shown(value: object) -> str:
    """What was found, as a person sees it in the file."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value == "":
        return "nothing"
    text = str(value)
    return text if re.fullmatch(r"[\w./%+@:-]{1,60}", text, re.ASCII) else _quoted(text)


def _path_text(path: Path_) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{_printable(step)}"
    return text.removeprefix(".")


def _nearest(word: str, known: Iterable[str]) -> str:
    match = get_close_matches(word[:64], list(known)[:64], n=1)
    return f"; did you mean '{match[0]}'?" if match else ""


def _one_of(word: object, known: Iterable[str], what: str) -> str:
    names = [_printable(name) for name in known]
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    message = f"found {_shown(word)}, expected {what}"
    return (f"{message}: {listed}" if names else f"{message}, but there is none") + _nearest(str(word), names)


def _keys_at(path: Path_) -> list[str]:
    """The keys that the mapping at `path` may have."""
    kind: Any = Topology
    for step in path:
        model = _model_in(kind)
        if model is Link and "->" in str(step):
            return list(LinkSettings.model_fields)
        kind = model.model_fields[str(step)].annotation if model and step in model.model_fields else _inner(kind)
    model = _model_in(kind)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _inner(kind: Any) -> Any:
    """The type of what is in a dict or a tuple."""
    return next(inner for inner in reversed(get_args(kind)) if inner is not ...)


def _model_in(kind: Any) -> type[BaseModel] | None:
    """The model that `kind` is, or has as an alternative."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    if getattr(kind, "__origin__", None) in (dict, tuple):
        return None
    return next((model for inner in get_args(kind) if (model := _model_in(inner))), None)


# What refers to what. These see data of any shape: they skip what is malformed, which has its own fault already.

_Faults = Iterator[tuple[Path_, str]]


def _references(data: dict[str, Any]) -> _Faults:
    hosts = data.get("hosts")
    links = list(enumerate(_mappings(data.get("links"))))
    apps = {name: app for name, app in _dict(data.get("apps")).items() if isinstance(app, dict)}
    if isinstance(hosts, dict):  # else each reference to a host would seem wrong
        yield from _unknown_hosts(hosts, links, apps)
    yield from _contradictory_tcps(_tcp_of(_dict(data.get("defaults")).get("host")), _dict(hosts))
    yield from _endpoints(links)
    yield from _directions(links)
    yield from _link_names(links)
    yield from _subnets(links)
    yield from _impossible_links(_dict(_dict(data.get("defaults")).get("link")), links)
    yield from _needs(apps)
    yield from _checks(data.get("checks"), apps)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mappings(value: object) -> list[dict[str, Any]]:
    return [_dict(item) for item in _list(value)]


def _unknown_hosts(hosts: dict[str, Any], links: list[tuple[int, dict[str, Any]]], apps: dict[str, Any]) -> _Faults:
    what = "a host of this topology"
    for index, link in links:
        for end, host in enumerate(_list(link.get("endpoints"))):
            if isinstance(host, str) and host not in hosts:
                yield ("links", index, "endpoints", end), _one_of(host, hosts, what)
    for name, app in apps.items():
        host = app.get("host")
        if isinstance(host, str) and host not in hosts:
            yield ("apps", name, "host"), _one_of(host, hosts, what)


def _tcp_of(host: object) -> dict[str, Any]:
    return _dict(_dict(host).get("tcp"))


def _contradictory_tcps(defaults: dict[str, Any], hosts: dict[str, Any]) -> _Faults:
    """Settings of which each could be, but not both; said at the one that the host has written itself."""
    for host, own in [(host, _tcp_of(hosts[host])) for host in hosts]:
        tcp = {key: value for key, value in (defaults | own).items() if isinstance(value, str)}
        profile = tcp.get("profile")
        for name, other, message in settings.contradictions(profile if profile == "classic" else "modern", tcp):
            if name in own or other in own:
                yield ("hosts", host, "tcp", name if name in own else other), message
            else:
                yield ("defaults", "host", "tcp", name if name in defaults else other), message


def _endpoints(links: list[tuple[int, dict[str, Any]]]) -> _Faults:
    for index, link in links:
        ends = _list(link.get("endpoints"))
        if len(ends) == 2 and ends[0] == ends[1] and isinstance(ends[0], str):
            message = f"found {_shown(ends[0])} at both ends, expected two hosts"
            yield ("links", index, "endpoints"), message


def _directions(links: list[tuple[int, dict[str, Any]]]) -> _Faults:
    for index, link in links:
        ends = _list(link.get("endpoints"))
        if len(ends) != 2 or not all(isinstance(end, str) for end in ends):
            continue
        known = [f"{ends[0]}->{ends[1]}", f"{ends[1]}->{ends[0]}"]
        for key in link:
            if "->" in key and key not in known:
                yield ("links", index, key), _one_of(key, known, "a direction of this link")
        for number, rule in enumerate(_mappings(link.get("drop"))):
            if isinstance(rule.get("from"), str) and rule["from"] not in ends:
                yield ("links", index, "drop", number, "from"), _one_of(rule["from"], ends, "an end of this link")


def _link_names(links: list[tuple[int, dict[str, Any]]]) -> _Faults:
    first: dict[str, int] = {}
    for index, link in links:
        ends = _list(link.get("endpoints"))
        given = isinstance(link.get("name"), str)
        if not given and not (len(ends) == 2 and all(isinstance(end, str) for end in ends)):
            continue
        name = link["name"] if given else "-".join(ends)
        if name in first:
            remedy = f"expected a name of its own: links[{first[name]}] has this one; give one of them another `name:`"
            yield ("links", index, "name" if given else "endpoints"), f"found the link {_quoted(name)} again, {remedy}"
        first.setdefault(name, index)


def _subnets(links: list[tuple[int, dict[str, Any]]]) -> _Faults:
    taken: list[tuple[IPv4Network, int]] = []
    for index, link in links:
        try:
            network = subnet(link.get("subnet"))
        except ValueError:
            continue
        for other, owner in taken:
            if network.overlaps(other):
                message = f"found {network}, expected a subnet apart from {other} of links[{owner}]"
                yield ("links", index, "subnet"), message
                break
        taken.append((network, index))


def _impossible_links(defaults: dict[str, Any], links: list[tuple[int, dict[str, Any]]]) -> _Faults:
    for index, link in links:
        preset = PRESETS.get(str(link.get("link")), {})
        below = {key: value for key, value in (defaults | preset | link).items() if key in LinkSettings.model_fields}
        for key, message in _impossible(below):
            at_link: Path_ = ("links", index, key if key in link else "link")
            yield at_link if key in link or key in preset else ("defaults", "link", key), message
        for direction in (key for key in link if "->" in key):
            own = _dict(link[direction])
            for key, message in _impossible(below | own):
                if key in own or (key, message) not in _impossible(below):  # else it is said above
                    yield ("links", index, direction, *([key] if key in own else [])), message


def _impossible(given: dict[str, Any]) -> list[tuple[str, str]]:
    """(key, message) of what makes no sense together."""
    readable = _readable({key: value for key, value in given.items() if key in LinkSettings.model_fields})
    # What another key makes meaningless that is malformed: its own fault comes first.
    return [
        (key, message)
        for key, other, message in readable.impossible()
        if other not in given or other in readable.model_fields_set
    ]


def _readable(given: dict[str, Any]) -> LinkSettings:
    """The settings without those that have a fault of their own."""
    try:
        return LinkSettings.model_validate(given)
    except ValidationError as error:
        wrong = {details["loc"][0] for details in error.errors()}
        return LinkSettings.model_validate({key: given[key] for key in given.keys() - wrong})


def _needs(apps: dict[str, Any]) -> _Faults:
    graph: dict[str, list[str]] = {}
    for name, app in apps.items():
        graph[name] = []
        for index, need in enumerate(_list(app.get("needs"))):
            if isinstance(need, str) and need in apps:
                graph[name].append(need)
            elif isinstance(need, str):
                yield ("apps", name, "needs", index), _one_of(need, apps, "an app of this topology")
    while cycle := _cycle(graph):
        first = min(cycle, key=list(graph).index)
        at = cycle.index(first)
        around = " needs ".join(_printable(name) for name in (*cycle[at:], *cycle[:at], first))
        yield ("apps", first, "needs"), f"found a cycle: {around}; expected an order in which apps can start"
        graph = {name: [need for need in graph[name] if need not in cycle] for name in graph if name not in cycle}


def _cycle(graph: dict[str, list[str]]) -> list[str]:
    """Some apps of which each needs the next and the last the first; empty if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[:0:-1]  # graphlib says each that is needed before who needs it, and its first again at the end
    return []


def _checks(checks: object, apps: dict[str, Any]) -> _Faults:
    for index, check in enumerate(_mappings(checks)):
        for kind, asked in check.items():
            path: Path_ = ("checks", index, kind) if kind == "integrity" else ("checks", index, kind, "app")
            name = asked if kind == "integrity" else _dict(asked).get("app")
            if not isinstance(name, str):
                continue
            others = [app for other, app in apps.items() if other != name]
            if name not in apps:
                yield path, _one_of(name, apps, "an app of this topology")
            elif kind == "integrity" and not any(_dict(app.get("files")) for app in others):
                message = f"found {_shown(name)}, expected another app with `files:`, to compare with what this one got"
                yield path, message
