"""Finds the TCP that a daemon runs: the reference, or somebody's own from a file or a module."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from chitcpd.tcp.api import REQUIRED, Config, TcpConnection

REFERENCE = "reference"


class LoadError(Exception):
    """There is no TCP there; the text says why and what was expected."""


def load(name: str, given: Mapping[str, object] | None = None) -> type[TcpConnection]:
    """The TCP called `name`: `reference`, `path/to/file.py`, `path/to/file.py:Class` or `module:Class`.

    A file may leave out the class if it defines just one; `given`: names that it finds defined. Raises LoadError.
    """
    if name == REFERENCE:
        name = "chitcpd.tcp.connection:Connection"
    source, _, class_name = name.partition(":")
    module = _from_file(Path(source), given or {}) if source.endswith(".py") else _from_module(source)
    return _find(module, class_name, source)


def try_out(tcp: type[TcpConnection], name: str, config: Config) -> None:
    """Make one connection of the TCP called `name`: what can't be made is refused before anybody needs it.

    Raises LoadError.
    """
    try:
        connection = tcp(iss=0, config=config)
        connection.variables()  # an __init__ that leaves out its base class's shows here
        connection.take_output()
    except (Exception, SystemExit) as error:
        where = _where(error, getattr(sys.modules[tcp.__module__], "__file__", None)) or _init_line(tcp)
        why = f"{where}{type(error).__name__}: {error}; {_remedy(error, tcp)}"
        raise LoadError(f"{name} can't make a connection: {why}") from error


def _init_line(tcp: type[TcpConnection]) -> str:
    return f"line {tcp.__init__.__code__.co_firstlineno}: " if inspect.isfunction(tcp.__init__) else ""


def _remedy(error: BaseException, tcp: type[TcpConnection]) -> str:
    bare = isinstance(error, AttributeError) and isinstance(error.obj, tcp)  # the base class has given it nothing
    if bare:
        return "begin __init__ with `super().__init__(iss=iss, config=config)`"
    if isinstance(error, TypeError):
        return "expected `def __init__(self, *, iss: int, config: Config)`, which begins with that of its base class"
    return "mend its __init__"


def _from_file(path: Path, given: Mapping[str, object]) -> ModuleType:
    if not path.is_file():
        raise LoadError(f"{path}: no such file")
    name = f"{path.stem} (--tcp)"  # no module that somebody imports is called so: a file may be named json.py
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends with .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module).update(given)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        where = _where(error, spec.origin)
        raise LoadError(f"{path} can't be loaded: {where}{type(error).__name__}: {error}") from error
    return module


def _from_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise LoadError(f"{name!r} is neither `reference`, nor a file ending in .py, nor the name of a module")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise LoadError(
            f"{name!r} is neither `reference`, nor a file ending in .py, nor a module that can be loaded: {why}"
        ) from error


def _where(error: BaseException, file: str | None) -> str:
    """The line of the file in which it failed, if it got that far."""
    lines = [line for frame, line in _frames(error) if frame == file]
    return f"line {lines[-1]}: " if lines else ""


def _frames(error: BaseException) -> list[tuple[str, int]]:
    frames, at = [], error.__traceback__
    while at is not None:
        frames.append((at.tb_frame.f_code.co_filename, at.tb_lineno))
        at = at.tb_next
    return frames


def _find(module: ModuleType, class_name: str, source: str) -> type[TcpConnection]:
    candidates = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, TcpConnection)
        and (name == class_name if class_name else value.__module__ == module.__name__)
    }
    found = {name: value for name, value in candidates.items() if not _missing(value) and not inspect.isabstract(value)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not class_name and len(candidates) == 1:
        class_name = next(iter(candidates))
    if class_name:
        raise LoadError(_why_not(getattr(module, class_name, None), class_name, source))
    what = f"{len(found)} TCPs ({', '.join(sorted(found))}): say which, as {source}:NAME" if found else "no TCP"
    raise LoadError(f"{source} has {what}; expected one complete subclass of chitcpd.tcp.api.TcpConnection")


def _missing(tcp: type[TcpConnection]) -> list[str]:
    """What the contract asks for, and it does not define. By name: a compiled contract has no abstract methods."""
    return [name for name in REQUIRED if getattr(tcp, name) is getattr(TcpConnection, name)]


def _why_not(value: object, class_name: str, source: str) -> str:
    if value is None:
        return f"{source} has no {class_name}"
    if inspect.isclass(value) and issubclass(value, TcpConnection):
        missing = ", ".join(_missing(value))
        return f"{class_name} in {source} does not define {missing}, which chitcpd.tcp.api.TcpConnection asks for"
    return f"{class_name} in {source} is no subclass of chitcpd.tcp.api.TcpConnection"
