"""The text of a topology, to YAML nodes that know where they stand: files read, includes merged, variables replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from testbed.topology.faults import Fault, Steps, TopologyError, fault_at, nearest, printable, quoted, shown
from testbed.topology.model import INCLUDED

FILE_SIZE = 1024 * 1024  # bytes
DEPTH = 16  # levels of nesting
NESTED = 4  # levels of includes
EXPANDED = 4 * 1024 * 1024  # characters that variables may bring: a long one can be named often
_VARIABLE = re.compile(
    r"\$\$\{"  # a plain ${
    r"|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{)[^}])*))?\}"  # no variable within a default
    r"|\$\{[^}]{0,20}\}?"  # and whatever else begins so
)
_STR = "tag:yaml.org,2002:str"


@dataclass(slots=True)
class Source:
    """A topology as it was written: one tree of nodes, whatever files its parts come from."""

    root: yaml.Node
    variables: dict[str, str]  # what stood for each `${NAME}`
    faults: list[Fault]  # of its includes and variables
    unresolved: set[int]  # id of nodes whose variables have a fault: what else is wrong with them says nothing

    @property
    def includes(self) -> bool:
        """Whether it takes anything from other files."""
        pairs = self.root.value if isinstance(self.root, yaml.MappingNode) else []
        return any(key.value == "include" for key, _ in pairs)

    def text(self) -> str:
        """One YAML file that says the same, without includes and variables."""
        root = _without_include(self.root) if isinstance(self.root, yaml.MappingNode) else self.root
        for node, _ in _each(root, (), set()):
            if isinstance(node, yaml.ScalarNode) and "${" in node.value:
                node.value = node.value.replace("${", "$${")
        text: str = yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True, width=120)
        return text


def compose(path: Path, variables: Mapping[str, str]) -> Source:
    """The nodes of the file at `path`, and of those that it includes; `variables` stand over the environment's.

    Raises TopologyError if one of them is no YAML; what else is wrong is in the source's `faults`.
    """
    composer = _Composer(variables)
    root = composer.compose(path, ())
    composer.replace(root)
    return Source(root, composer.used, composer.faults, composer.unresolved)


@dataclass(slots=True)
class _Composer:
    given: Mapping[str, str]
    used: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    unresolved: set[int] = field(default_factory=set)
    _files: set[Path] = field(default_factory=set)
    _roots: list[yaml.Node] = field(default_factory=list)  # of all files: an id is a node's only while that lives
    _done: set[int] = field(default_factory=set)  # id of nodes that were replaced: of one with aliases, once
    _left: int = EXPANDED

    def compose(self, path: Path, above: tuple[Path, ...]) -> yaml.Node:
        """The nodes of one file, on top of those that it includes; `above`: the files that include this one."""
        root = _nodes(str(path), read(path))
        self._files.add(path.resolve())
        self._roots.append(root)
        self.faults += _found_again(root)  # before anything is merged: that would hide some
        if not isinstance(root, yaml.MappingNode):
            return root
        includes = next((value for key, value in root.value if key.value == "include"), None)
        if not isinstance(includes, yaml.SequenceNode):
            return root
        self.replace(includes, ("include",))
        merged: yaml.MappingNode | None = None
        for index, node in enumerate(includes.value[:INCLUDED]):
            part = self._included(node, index, path, (*above, path.resolve()))
            if part is not None:
                merged = part if merged is None else _merged(merged, part)
        return root if merged is None else _merged(merged, root)

    def _included(self, node: yaml.Node, index: int, path: Path, above: tuple[Path, ...]) -> yaml.MappingNode | None:
        """What is in an included file, unless it was included already; None after a fault, too."""
        if not isinstance(node, yaml.ScalarNode) or id(node) in self.unresolved:
            return None
        file = path.parent / node.value
        message = self._why_not(file, above)
        if message is None and file.resolve() in self._files:
            return None
        if message is None:
            try:
                part = self.compose(file, above)
            except _UnreadableError as error:
                message = f"expected a file that can be read, from the folder of this one ({error.reason})"
            else:
                if isinstance(part, yaml.MappingNode):
                    return _without_include(part)
                self.faults.append(fault_at(part, (), "found no mapping, expected the keys of a topology"))
                return None
        self.faults.append(fault_at(node, ("include", index), f"found {shown(node.value)}, {message}"))
        return None

    def _why_not(self, file: Path, above: tuple[Path, ...]) -> str | None:
        try:
            resolved = file.resolve()
        except (OSError, ValueError, RuntimeError):  # a NUL in it; a loop of symbolic links
            return "expected the path of a file"
        if resolved in above:
            return "expected files that do not include each other in a circle"
        if len(above) > NESTED:
            return f"expected at most {NESTED} levels of includes"
        if len(self._files) >= INCLUDED and resolved not in self._files:
            return f"expected at most {INCLUDED} files in all"
        return None

    def replace(self, root: yaml.Node, path: Steps = ()) -> None:
        """Put values in the place of variables, in all scalars that are no keys."""
        for node, where in _each(root, path, self._done):
            if not isinstance(node, yaml.ScalarNode) or "${" not in node.value:
                continue
            try:
                value = _VARIABLE.sub(self._value, node.value)
            except ValueError as error:
                self.unresolved.add(id(node))
                self.faults.append(fault_at(node, where, str(error)))
                continue
            except OverflowError as error:
                raise TopologyError([*self.faults, fault_at(node, where, str(error))]) from error
            node.value, node.tag = value, _STR

    def _value(self, match: re.Match[str]) -> str:
        whole, name, default = match[0], match[1], match[2]
        if whole == "$${":
            return "${"
        if name is None:
            raise ValueError(f"found {quoted(whole)}, expected ${{NAME}}, ${{NAME:-default}}, or $${{ for a plain ${{")
        value = self.given.get(name, os.environ.get(name))
        if default is not None:
            value = value or default  # as a shell does: also where it is empty
        if value is None:
            what = "expected a variable that is given or in the environment, or a default: ${NAME:-default}"
            raise ValueError(f"found ${{{printable(name)}}}, {what}{nearest(name, self.given)}")
        self.used[name] = value
        self._left -= len(value)
        if self._left < 0:
            raise OverflowError(f"found too much, expected variables of at most {EXPANDED >> 20}MiB in all")
        return value


def _each(node: yaml.Node, path: Steps, done: set[int]) -> Iterator[tuple[yaml.Node, Steps]]:
    """This node and all that are values in it, each once."""
    if id(node) in done:
        return
    done.add(id(node))
    yield node, path
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            step = key.value if isinstance(key, yaml.ScalarNode) else "?"
            yield from _each(value, (*path, step), done)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _each(value, (*path, index), done)


def _found_again(root: yaml.Node) -> Iterator[Fault]:
    """Each key that its mapping has already."""
    for node, path in _each(root, (), set()):
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                already = f"expected it once: it is on line {lines[key.value]} already"
                yield fault_at(key, (*path, key.value), f"found the key {shown(key.value)} again, {already}")
            else:
                lines[key.value] = key.start_mark.line + 1


# Merging


def _without_include(root: yaml.MappingNode) -> yaml.MappingNode:
    return _mapping(root, [pair for pair in root.value if pair[0].value != "include"])


def _merged(below: yaml.MappingNode, above: yaml.MappingNode, *, deep: bool = True) -> yaml.MappingNode:
    """Both: of a key in both the one above; at the top level mappings are merged by key, lists appended."""
    own = {key.value for key, _ in above.value if isinstance(key, yaml.ScalarNode)}
    kept = [(key, value) for key, value in below.value if not (isinstance(key, yaml.ScalarNode) and key.value in own)]
    inherited = {key.value: value for key, value in below.value if isinstance(key, yaml.ScalarNode)} if deep else {}
    pairs = [
        (key, _joined(inherited.get(key.value) if isinstance(key, yaml.ScalarNode) else None, value))
        for key, value in above.value
    ]
    return _mapping(above, [*kept, *pairs])


def _joined(below: yaml.Node | None, above: yaml.Node) -> yaml.Node:
    if isinstance(below, yaml.MappingNode) and isinstance(above, yaml.MappingNode):
        return _merged(below, above, deep=False)
    if isinstance(below, yaml.SequenceNode) and isinstance(above, yaml.SequenceNode):
        values = [*below.value, *above.value]
        return yaml.SequenceNode(above.tag, values, above.start_mark, above.end_mark, flow_style=False)
    return above


def _mapping(like: yaml.MappingNode, pairs: list[tuple[yaml.Node, yaml.Node]]) -> yaml.MappingNode:
    return yaml.MappingNode(like.tag, pairs, like.start_mark, like.end_mark, flow_style=False)


# Reading


class _UnreadableError(TopologyError):
    """There is no file that can be read, for this reason."""

    def __init__(self, file: str, reason: str) -> None:
        message = f"found no file that can be read ({reason}), expected a topology file"
        super().__init__([Fault(file, 0, 0, "", message)])
        self.reason = reason


def read(path: Path) -> str:
    """The text of a file. Raises TopologyError if it is none, or too much."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        raise _UnreadableError(file, getattr(error, "strerror", None) or "not a usable path") from error
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


def _nodes(file: str, text: str) -> yaml.Node:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        message = f"found the character U+{ord(text[error.position]):04X}, expected a text file"
        raise TopologyError([_fault_after(file, text[: error.position], message)]) from error
    loader.name = file  # each mark has it, and so each node
    try:
        node = loader.get_single_node()  # what yaml.compose does; the loader knows how far it came
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        message = f"{printable(problem, 200)}; expected YAML"
        raise TopologyError([Fault(file, line, column, "", message)]) from error
    except (ValueError, OverflowError) as error:  # PyYAML's scanner, on escapes and versions beyond all bounds
        line, column = loader.line + 1, loader.column + 1
        raise TopologyError([Fault(file, line, column, "", "found an impossible number, expected YAML")]) from error
    if node is None:
        raise TopologyError([Fault(file, 1, 1, "", "found an empty file, expected a topology with name and hosts")])
    return node
