"""Reads a topology file: a Topology, or every fault of the file in one pass, each with file:line:column.

The text is composed to YAML nodes, which know where they stand; the nodes become plain data; pydantic judges its
structure, and `references` judges what refers to what. Both work on the plain data, so that a wrong unit in one place
does not hide a missing host in another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from testbed.topology import source
from testbed.topology.faults import Fault, Steps, TopologyError, fault_at, nearest, quoted, shown
from testbed.topology.files import Files, OwnFile
from testbed.topology.model import DIRECTION, FILE_KINDS, Link, LinkSettings, Topology
from testbed.topology.references import references
from testbed.topology.source import DEPTH, Source

NODES = 50_000  # after aliases are followed: ten lines of them can stand for a billion nodes


def load(
    path: str | Path, variables: Mapping[str, str] | None = None, *, inputs: Mapping[str, OwnFile] | None = None
) -> Topology:
    """Read and check the topology file at `path`, and the files that it names. Raises TopologyError.

    `variables` stand over the environment's for each `${NAME}` in the file. `inputs`: what the files are that it
    names, path -> content, in place of those on the disk.
    """
    read = source.compose(Path(path), variables or {})
    document = _Document(read, list(read.faults))
    data = document.data()
    try:
        files = Files(Path(path).parent, instead=inputs)
        topology = Topology.model_validate(data, context=files)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            document.structural(details)
    if isinstance(data, dict):
        for where, message in references(data):
            document.fault(where, message)
    if document.faults:
        raise TopologyError(document.faults)
    topology._variables.update(read.variables)
    topology._inputs.update(files.read)
    return topology


def resolved(path: str | Path, variables: Mapping[str, str] | None = None) -> str:
    """The text of the topology file at `path`, with includes merged and variables replaced; else as it stands there.

    Raises TopologyError if that can't be done; whether the topology is right, `load` says.
    """
    written = source.read(Path(path))
    read = source.compose(Path(path), variables or {})
    if read.faults:
        raise TopologyError(read.faults)
    return read.text() if read.includes or "${" in written else written


_STANDARD_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
}


@dataclass(slots=True)
class _Document:
    """The nodes of a topology, and the faults found in it so far."""

    source: Source
    faults: list[Fault] = field(default_factory=list)
    nodes: int = 0

    def data(self) -> Any:
        """Mappings as dict, sequences as list, scalars as the text in the file."""
        return self._plain(self.source.root, ())

    def _plain(self, node: yaml.Node, path: Steps) -> Any:
        self.nodes += 1
        if self.nodes > NODES or len(path) > DEPTH:
            limit = f"expected at most {NODES} values and {DEPTH} levels of nesting, with all aliases followed"
            raise TopologyError([*self.faults, fault_at(node, path[:3], f"found too much, {limit}")])
        if node.tag not in _STANDARD_TAGS:
            self.faults.append(fault_at(node, path, f"found the tag {shown(node.tag)}, expected a plain value"))
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return self._text(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Steps) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.faults.append(fault_at(key, path, "found a key that is not text, expected a name"))
                continue
            name = self._text(key, path)
            data.setdefault(name, self._plain(value, (*path, name)))  # of one that is there again, the first
        return data

    def _text(self, node: yaml.Node, path: Steps) -> str:
        text = str(node.value)
        if any("\ud800" <= character <= "\udfff" for character in text):  # escapes can say what UTF-8 can't
            self.faults.append(fault_at(node, path, "found half a surrogate pair, expected characters"))
            return text.encode(errors="replace").decode()
        return text

    def fault(self, path: Steps, message: str, *, at_key: bool = False) -> None:
        """Add a fault at the value that `path` leads to, or at its key; or as near to it as there is something."""
        key = value = self.source.root
        for step in path:
            inside = _step(value, step)
            if inside is None:
                break
            key, value = inside
        if id(value) not in self.source.unresolved:
            self.faults.append(fault_at(key if at_key else value, path, message))

    def structural(self, error: ErrorDetails) -> None:
        """Add what pydantic found."""
        path = error["loc"]
        if path[:1] == ("apps",) and path[4:5] and path[4] in FILE_KINDS:  # apps.A.files.F.KIND
            path = path[:4] + path[5:]
        if path[:1] == ("links",) and path[2:3] == (DIRECTION,):  # in the file the directions are keys of the link
            path = path[:2] + path[3:]
        kind, found = error["type"], shown(error["input"])
        if kind == "missing":
            self.fault(path[:-1], f"found no key '{path[-1]}', expected one")
        elif kind == "extra_forbidden":
            self.fault(path, _unknown_key(str(path[-1]), _keys_at(path[:-1])), at_key=True)
        elif path and path[-1] == "[key]":
            self.fault(path[:-1], f"found {shown(path[-2])}, {_expected(error)}", at_key=True)
        elif kind == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]:
            pass  # pydantic counts only the items that are good, and what is wrong with the others is said of them
        elif kind in ("too_short", "too_long"):
            self.fault(path, f"found {len(error['input'])} entries, {_expected(error)}")
        elif kind == "model_type":
            keys = ", ".join(_keys_at(path))
            self.fault(path, f"found {found}, expected a mapping" + (f" with the keys {keys}" if keys else ", like {}"))
        else:
            self.fault(path, f"found {found}, {_expected(error)}")


def _step(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """(key, value) one step further into `node`; an item of a sequence is its own key."""
    if isinstance(node, yaml.MappingNode):
        return next((pair for pair in node.value if pair[0].value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _unknown_key(key: str, known: Iterable[str]) -> str:
    names = list(known)
    expected = f"one of {', '.join(names)}" if names else "none"
    return f"found unknown key {quoted(key)}, expected {expected}{nearest(key, names)}"


def _expected(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        options = re.findall(r"'(.*?)'", context["expected"])
        return f"expected {context['expected']}{nearest(str(error['input']), options)}"
    if kind == "too_short":
        return f"expected at least {context['min_length']}"
    if kind == "too_long":
        return f"expected at most {context['max_length']}"
    if kind == "dict_type":
        return "expected a mapping, like {name: ...}"
    if kind == "tuple_type":
        return "expected a list, like [one, two]"
    return f"expected something else: {error['msg']}"


def _keys_at(path: Steps) -> list[str]:
    """The keys that the mapping at `path` may have."""
    kind: Any = Topology
    for step in path:
        model = _model_in(kind)
        if model is Link and "->" in str(step):
            kind = LinkSettings
            continue
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()} if model else {}
        kind = fields[step] if step in fields else _inner(kind)
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
