"""What is wrong with a topology file, where, and in which words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import yaml

from testbed.wrong import Wrong

Steps = tuple[str | int, ...]  # keys and indexes from the root of the file


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


class TopologyError(Wrong):
    """The topology can't be used: `faults` says all that is wrong with it, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(set(faults))
        super().__init__("\n".join(map(str, self.faults)))

    @property
    def sentences(self) -> list[str]:
        """Each fault."""
        return list(map(str, self.faults))


def fault_at(node: yaml.Node, path: Steps, message: str) -> Fault:
    """A fault where `node` begins: it knows its file."""
    mark = node.start_mark
    return Fault(mark.name, mark.line + 1, mark.column + 1, _path_text(path), message)


def printable(text: str, longest: int = 60) -> str:
    """The text, of at most so many characters, without what moves a terminal's cursor."""
    seen = text if text.isprintable() else repr(text)[1:-1]
    return seen if len(seen) <= longest else seen[: longest - 3] + "..."


def quoted(text: object) -> str:
    """The same in quotes."""
    return f"'{printable(str(text))}'"


def shown(value: object) -> str:
    """What was found, as a person sees it in the file."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value == "":
        return "nothing"
    text = str(value)
    return text if re.fullmatch(r"[\w./%+@:-]{1,60}", text, re.ASCII) else quoted(text)


def _path_text(path: Steps) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{printable(step)}"
    return text.removeprefix(".")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the word that was probably meant; empty if none is near."""
    match = get_close_matches(word[:64], list(known)[:512], n=1)
    return f"; did you mean '{match[0]}'?" if match else ""


def one_of(word: object, known: Iterable[str], what: str) -> str:
    """The message for a name that is none of the known ones."""
    names = [printable(name) for name in known]
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    message = f"found {shown(word)}, expected {what}"
    return (f"{message}: {listed}" if names else f"{message}, but there is none") + nearest(str(word), names)
