"""How commands speak: lines anywhere, a moving step and tables on a terminal, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from testbed.backends.base import Report

_Command = TypeVar("_Command", bound=Callable[..., Any])
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # an application's output must not steer the terminal
_SPINNER = 3  # columns of what turns in front of a step, and one that stays free
_LEAST = 12  # columns for the widest cells of a table: in fewer they can't be read
_STYLES = {
    "good": "green",
    "bad": "bold red",
    "note": "yellow",
    "plain": "",
    "head": "bold",
    "state": "cyan",
    "quiet": "dim",
}


@dataclass(slots=True)
class Settings:
    """What holds for the whole command, and for the one sentence if it fails."""

    verbose: bool = False


class Group(click.Group):
    """Commands; their list has the whole first sentence of each one's help."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(200)) for name in self.list_commands(ctx)]
            )


def verbose_option(command: _Command) -> _Command:
    """Give a command -v."""

    def remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        context.ensure_object(Settings).verbose = value

    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Show the traceback of an error that is our fault.",
    )(command)


format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for programs.",
)


def say(text: str, style: str = "plain", *, wrap: bool = False) -> None:
    """Print lines as they are: the terminal breaks what is too long, and a copy of them stays whole.

    `wrap`: on a terminal, break them between words.
    """
    _say(Console(highlight=False), text, style, wrap=wrap)


def say_all(lines: Iterable[tuple[str, str]]) -> None:
    """Print many lines, each with its style."""
    console = Console(highlight=False)
    for text, style in lines:
        _say(console, text, style)


def complain(text: str, remedy: str = "") -> None:
    """Print what is wrong, and what to do about it, to the standard error."""
    console = Console(stderr=True, highlight=False)
    _say(console, f"testbed: {text}", "bad")
    if remedy:
        _say(console, remedy, "plain")


def note_unreachable(backends: Mapping[str, str]) -> None:
    """Say of each backend why it could not be asked: there may be labs that nobody has seen. Many have no Docker."""
    for backend, why in backends.items():
        notice(f"labs on {backend} are not seen: {why.rstrip('.')}.")


def notice(text: str) -> None:
    """Say on the standard error what is worth to know, and no fault."""
    _say(Console(stderr=True, highlight=False), f"note: {text}", "note")


def _say(console: Console, text: str, style: str, *, wrap: bool = False) -> None:
    if console.is_terminal:
        console.print(Text(_CONTROL.sub("?", text), style=_STYLES[style]), soft_wrap=not wrap)
    else:
        click.echo(_CONTROL.sub("?", text), err=console.stderr)


@contextmanager
def progress() -> Iterator[Report]:
    """Steps of long work: one line that changes on a terminal, a line for each elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        yield say
        return
    with console.status("") as status:

        def update(step: str) -> None:
            text = Text(step)
            text.truncate(console.width - _SPINNER, overflow="ellipsis")  # the spinner's line would be broken
            status.update(text)

        yield update


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table; on a terminal its cells are folded so that it fits, elsewhere each row is one line.

    If the terminal is too narrow even so, the widest cell of each row has a line of its own, below the others.
    """
    console = Console(highlight=False)
    lines = [tuple(columns), *(tuple(_CONTROL.sub("?", cell).replace("\n", " ") for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widest = widths.index(max(widths))
    if not console.is_terminal:
        for line in lines:
            say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    elif sum(widths) - widths[widest] + 2 * len(widths) + _LEAST > console.width:
        for line in lines:
            say("  ".join(cell for at, cell in enumerate(line) if cell and at != widest) + f"\n  {line[widest]}")
    else:
        printed = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in columns:
            printed.add_column(column, overflow="fold")
        for line in lines[1:]:
            printed.add_row(*map(Text, line))
        console.print(printed)


@contextmanager
def result_for(output_format: str) -> Iterator[None]:
    """While a command is at work: if its result is for programs, what it says to people is on the standard error."""
    with redirect_stdout(sys.stderr) if output_format == "json" else nullcontext():
        yield


def print_json(value: object) -> None:
    """Print a value for programs. Raises ValueError for NaN and Infinity, which JSON has not."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_pieces(pieces: Iterable[str]) -> None:
    """Print a value for programs that is too long to be held whole."""
    for piece in pieces:
        sys.stdout.write(piece)


def print_json_line(value: object) -> None:
    """Print one of many values for programs, which may want to read it before the next one is there."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()
