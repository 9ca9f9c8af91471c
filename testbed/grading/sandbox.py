"""The judge's end of a submission: its locked-up process, and connections that stand for those that it holds.

    with cells("process") as new_cell, Sandbox(source, new_cell()) as sandbox:
        connection = sandbox.tcp(iss=1000, config=Config())     # to any driver a TcpConnection like others
        connection.open(0.0, active=True)

The process knows nothing of tests, points or verdicts: whatever it prints or answers, it can only be a TCP that behaves
like this or like that. What comes from it is read strictly, and bounded. When it dies, hangs, raises or answers
nonsense, the call raises Broken, which says so in words for its author.
"""

from __future__ import annotations

import json
import math
import re
import struct
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from chitcpd.tcp import wire
from chitcpd.tcp.api import Config, Expiry, Options, Segment, State, TcpConnection, Timer, Transition
from testbed.grading.child import MOST_OUTPUTS
from testbed.unavailable import Unavailable

CPU = 2.0  # seconds that one call may take of the processor
CPU_IN_ALL = 10  # seconds, of one process: that is of one test
PATIENCE = 10.0  # seconds to wait for an answer; whoever computes has been stopped by then
TIME = 20.0  # seconds that a test may take in all, the judge's own time too
MEMORY = 512 << 20  # bytes
FILE_SIZE = 1 << 20  # bytes of a submission

_STEERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_FORBIDDEN = re.compile(r"(?:^|: )(PermissionError|ModuleNotFoundError): ")
_MAY_NOT = {
    "PermissionError": "; a submission may only compute: it can read no files but Python's library, and write none",
    "ModuleNotFoundError": "; a submission has chitcpd.tcp.api and Python's own library, no other",
}
_LENGTH = struct.Struct("!I")
_MOST = 2 << 20  # bytes of an answer
_MOST_IN_ALL = 16 << 20  # of one process
_MOST_OUTPUTS = 20_000  # of one process: segments, changes of state, expiries; those of the reference are 600
_MOST_DATA = 0xFFFF  # bytes in a segment
_MOST_OPTIONS = 40  # bytes: a header has 60, and 20 of them are taken
_MOST_BLOCKS = 4  # of SACK
_MAX = 0xFFFFFFFF  # a sequence number, or a timestamp
_PRINTED = 20_000  # characters that are kept of what one process prints


class Broken(BaseException):
    """The submission can't go on: it raised, hung or died. Not an Exception: a driver would hush it up.

    `hung`: it took all the time that it was given, so there is no use in trying that many times.
    """

    def __init__(self, text: str, way: tuple[str, ...] = (), *, hung: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.way = way  # the lines of the submission on the way to the one that raised
        self.hung = hung


@dataclass(frozen=True, slots=True)
class Source:
    """A submission: the text of a file."""

    name: str  # of the file, without folders, as it may be shown anywhere
    text: str
    trouble: str = ""  # why there is none to be graded

    @staticmethod
    def read(path: Path) -> Source:
        """Raises Unreadable."""
        try:
            with path.open("rb") as file:
                content = file.read(FILE_SIZE + 1)
        except OSError as error:
            raise Unreadable(f"{path} can't be read: {error.strerror or error}") from error
        if len(content) > FILE_SIZE:
            raise Unreadable(f"{path} has more than {FILE_SIZE >> 20} MiB")
        return Source(harmless(path.name), content.decode("utf-8", "surrogateescape"))

    @staticmethod
    def missing(path: Path, why: str) -> Source:
        """What should have been there, and why it is not."""
        return Source(harmless(path.name), "", harmless(why))


class Raised(OSError):
    """What the submission has raised, as it may where the application has made a mistake."""

    def __init__(self, number: int, text: str, way: tuple[str, ...]) -> None:
        super().__init__(number, text)
        self.way = way


def harmless(text: str, most: int = 600) -> str:
    """A stranger's text, for any terminal, page and file: without what steers one, turns text around or is no text.

    In one line: another could be taken for one of ours.
    """
    return _harmless_lines(text[:most]).replace("\n", " ")


def _harmless_lines(text: str) -> str:
    return _STEERS.sub("?", text)


class Slow(Exception):
    """The test has taken too long."""


class Unreadable(Exception):
    """There is no submission there; the text says why."""


class Cell(Protocol):
    """Where the submission's process runs."""

    def write(self, content: bytes) -> None:
        """Tell it something."""

    def read(self, until: float) -> bytes:
        """What it says; b"" if it has ended. Raises TimeoutError when it is `until` (time.monotonic)."""

    def end(self) -> str:
        """End it, whatever it does; how it has ended, if it did so by itself."""


class Sandbox:
    """One process with a submission in it, until the end of the `with`."""

    def __init__(self, source: Source, cell: Cell) -> None:
        """`load` lets the process in the cell load the submission."""
        self.printed = ""
        self.hidden = True  # whether files are hidden from it
        self._source = source
        self._cell = cell
        self.broken: Broken | None = None
        self._numbers = 0
        self._loaded = False
        self._buffer = bytearray()
        self._answered = 0  # bytes
        self._outputs = 0
        self._began = time.monotonic()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self.broken = self.broken or Broken("the process was ended")
        self._cell.end()

    def load(self) -> None:
        """Let it load the submission, and wait for that. Raises Broken, with what is wrong with the file."""
        if self._loaded:
            return
        self._loaded = True
        limits = {"memory": MEMORY, "cpu": CPU, "cpu_in_all": CPU_IN_ALL}
        answer = self._exchange({"name": self._source.name, "text": self._source.text, **limits}, "loading the file")
        if "unable" in answer:
            raise Unavailable(str(answer["unable"])[:300], "Let it run in a container: --sandbox docker.")
        self.hidden = bool(answer.get("hidden", False))

    @property
    def tcp(self) -> type[TcpConnection]:
        """The class of the connections that it holds, for a driver to make them."""
        sandbox = self

        class Submission(Remote):
            """A connection of this sandbox."""

            def __init__(self, *, iss: int, config: Config) -> None:
                super().__init__(iss=iss, config=config)
                self._begin(sandbox)

        return Submission

    def call(self, number: int, name: str, **arguments: Any) -> dict[str, Any]:
        """One call of a connection, and what it shows afterwards. Raises Broken."""
        self.load()
        return self._exchange({"connection": number, "call": name, "arguments": arguments}, _yours(name))

    @property
    def taken(self) -> float:
        """Seconds that the test has taken so far: those in which it computed, and those in which we did."""
        return time.monotonic() - self._began

    def count(self, outputs: int) -> None:
        """So many more came in an answer. Raises ValueError if they are too many: each costs us time."""
        self._outputs += outputs
        if outputs > MOST_OUTPUTS or self._outputs > _MOST_OUTPUTS:
            raise ValueError(f"{outputs} segments were sent at once, and {self._outputs} in all")

    def number(self) -> int:
        """A number for a new connection."""
        self._numbers += 1
        return self._numbers

    # ---- inside --------------------------------------------------------------------------------------------

    def _exchange(self, request: dict[str, Any], what: str) -> dict[str, Any]:
        if self.broken is not None:
            raise self.broken
        began = time.monotonic()
        answer: dict[str, Any] = {}
        try:
            if self.taken > TIME:
                raise Slow
            content = json.dumps(request).encode()
            self._cell.write(_LENGTH.pack(len(content)) + content)
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size, began + PATIENCE))
            self._answered += length
            if length > _MOST or self._answered > _MOST_IN_ALL:
                raise ValueError(f"an answer of {length} bytes, and {self._answered} in all")
            told = json.loads(self._read(length, began + PATIENCE))
            if not isinstance(told, dict):
                raise ValueError("an answer that is no object")
            answer = told
        except TimeoutError:
            self._die(f"{what} did not return within {PATIENCE:g} s", hung=True)
        except Slow:
            self._die(f"this test has taken more than {TIME:g} s", hung=True)
        except EOFError:
            how = self._cell.end()
            self._die(f"your process is gone: {how} (in {what})", hung="time" in how)
        except (ValueError, RecursionError) as error:
            self._die(f"your process has answered what makes no sense ({harmless(str(error), 100)}), in {what}")
        self._keep(answer.get("printed"))
        if answer.get("hang") is not None:
            self._die(*_told(answer["hang"], f"{what} did not return within {CPU:g} s"), hung=True)
        if answer.get("fault") is not None:
            self._die(*_told(answer["fault"], "" if what == "loading the file" else f"{what} raised"))
        return answer

    def _die(self, text: str, way: tuple[str, ...] = (), *, hung: bool = False) -> None:
        self.broken = Broken(text, way, hung=hung)
        raise self.broken

    def _keep(self, printed: object) -> None:
        if isinstance(printed, str) and len(self.printed) < _PRINTED:
            self.printed += _harmless_lines(printed[: _PRINTED - len(self.printed)])

    def _read(self, length: int, until: float) -> bytes:
        while len(self._buffer) < length:
            part = self._cell.read(until)
            if not part:
                raise EOFError
            self._buffer += part
        content = bytes(self._buffer[:length])
        del self._buffer[:length]
        return content


def _yours(name: str) -> str:
    """A call, as an author of a TCP names it."""
    return "your constructor" if name == "new" else f"your {name}"


def _remedy(text: str) -> str:
    """What a submission may not do, where that is why it raised (docs/grading.md)."""
    found = _FORBIDDEN.search(text)
    return _MAY_NOT[found[1]] if found else ""


def _told(fault: object, before: str) -> tuple[str, tuple[str, ...]]:
    """The sentence for what a process tells of a fault, and the lines on the way there."""
    if not isinstance(fault, dict):
        return before or "it could not be loaded", ()
    text, line, way = fault.get("text"), fault.get("line"), fault.get("way")
    text = harmless(text) if isinstance(text, str) else "?"
    where = (f" (line {line})" if type(line) is int else "") + _remedy(text)
    lines = tuple(harmless(str(step), 200) for step in way[:8]) if isinstance(way, list) else ()
    if not before:
        return f"{text}{where}", lines
    return (f"{before}{where}" if text.startswith("Hang") else f"{before} {text}{where}"), lines


_NONSENSE = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError)  # of an answer


class Remote(TcpConnection):
    """A connection that a submission's process holds: it hands on each call, and shows what that shows."""

    _sandbox: Sandbox

    def _begin(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._number = sandbox.number()
        self._readable = self._writable = 0
        self._at_eof = False
        self._deadline: float | None = None
        self._do("new", iss=self.iss, config=asdict(self.config))

    def open(self, now: float, *, active: bool) -> None:
        """See the contract, as for all of these."""
        self._do("open", now=now, active=active)

    def send(self, data: bytes | memoryview, now: float) -> int:  # noqa: D102
        taken = self._do("send", now=now, data=bytes(data).decode("latin-1"))
        if type(taken) is not int or not 0 <= taken <= len(data):
            raise Broken(
                f"your send returned {harmless(repr(taken), 60)}, expected how many of {len(data)} bytes it took"
            )
        return taken

    def receive(self, limit: int, now: float) -> bytes:  # noqa: D102
        try:
            data = _bytes(self._do("receive", now=now, limit=limit))
        except _NONSENSE as error:
            raise Broken(f"your receive: {harmless(str(error), 200)}") from None
        if len(data) > limit:
            raise Broken(f"your receive returned {len(data)} bytes, expected at most {limit}")
        return data

    def close(self, now: float) -> None:  # noqa: D102
        self._do("close", now=now)

    def abort(self, now: float) -> None:
        """Nothing if its process has ended: an application that nobody runs any more aborts whenever it is cleared."""
        if self._sandbox.broken is None:
            self._do("abort", now=now)

    def segment_arrives(self, seg: Segment, now: float) -> None:  # noqa: D102
        options = None if seg.options is None else asdict(seg.options)
        fields = {"seq": seg.seq, "ack": seg.ack, "flags": seg.flags, "wnd": seg.wnd, "up": seg.up}
        self._do("segment_arrives", now=now, segment=fields | {"data": seg.data.decode("latin-1"), "options": options})

    def timeout(self, timer: Timer, now: float) -> None:
        """Nobody calls it here: `expire` is handed on whole."""
        raise NotImplementedError

    def expire(self, now: float) -> None:  # noqa: D102
        self._do("expire", now=now)

    def next_deadline(self) -> float | None:  # noqa: D102
        return self._deadline

    @property
    def readable(self) -> int:  # noqa: D102
        return self._readable

    @property
    def writable(self) -> int:  # noqa: D102
        return self._writable

    @property
    def at_eof(self) -> bool:  # noqa: D102
        return self._at_eof

    def _do(self, name: str, **arguments: Any) -> Any:
        answer = self._sandbox.call(self._number, name, **arguments)
        try:
            if name != "new" or "variables" in answer:
                self._show(answer)
            number = None if answer.get("errno") is None else _whole(answer["errno"], "errno")
        except _NONSENSE as error:
            raise Broken(f"{_yours(name)}: {harmless(str(error), 200)}") from None
        if number is not None:
            raise Raised(number, *_told(answer.get("raised"), f"{_yours(name)} raised"))
        return answer.get("value")

    def _show(self, answer: dict[str, Any]) -> None:
        state, *numbers = (_whole(value, "a variable of 3.3.1") for value in answer["variables"])
        self.state = State(state)
        self.iss, self.irs, self.snd_una, self.snd_nxt, self.snd_wnd, self.rcv_nxt, self.rcv_wnd = numbers
        self.error = None if answer["error"] is None else _whole(answer["error"], "error")
        self._readable = _whole(answer["readable"], "readable")
        self._writable = _whole(answer["writable"], "writable")
        self._at_eof = answer["at_eof"] is True
        self._deadline = _deadline(answer["deadline"])
        self._sandbox.count(len(answer["outputs"]))
        for kind, *values in answer["outputs"]:
            self._outputs.append(_output(self, kind, values))


def _output(connection: TcpConnection, kind: object, values: list[Any]) -> Segment | Transition | Expiry:
    if kind == "segment":
        seq, ack, flags, wnd, up, data, options = values
        for name, value, most in (
            ("seq", seq, _MAX),
            ("ack", ack, _MAX),
            ("flags", flags, 0x3F),
            ("wnd", wnd, 0xFFFF),
            ("up", up, 0xFFFF),
        ):
            _fits(value, name, most)
        content = _bytes(data)
        if len(content) > _MOST_DATA:
            raise ValueError(f"a segment has {len(content)} bytes of data, expected at most {_MOST_DATA}")
        return Segment(seq, ack, flags, wnd, content, _options(options), up)
    if kind == "state":
        old, new = values
        return Transition(State(_whole(old, "a state")), State(_whole(new, "a state")), connection.variables())
    if kind == "timer":
        return Expiry(Timer(_whole(values[0], "a timer")))
    raise ValueError("an output of no kind")


def _deadline(value: object) -> float | None:
    """Seconds; None if no timer runs, or one that never expires."""
    if value is None or value == math.inf:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"a timer is armed for {str(value)[:60]!r}, expected seconds")
    return float(value)


def _options(fields: object) -> Options | None:
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise TypeError("options that are none")
    mss, scale, stamp, sack = (fields.get(name) for name in ("mss", "window_scale", "timestamp", "sack"))
    sack = sack or ()
    _fits(len(sack), "the number of SACK blocks", _MOST_BLOCKS)
    options = Options(
        mss=None if mss is None else _fits(mss, "mss", 0xFFFF),
        window_scale=None if scale is None else _fits(scale, "window_scale", 0xFF),
        sack_permitted=fields.get("sack_permitted") is True,
        sack=tuple((_fits(first, "sack", _MAX), _fits(behind, "sack", _MAX)) for first, behind in sack),
        timestamp=None if stamp is None else (_fits(stamp[0], "timestamp", _MAX), _fits(stamp[1], "timestamp", _MAX)),
    )
    if (length := wire.options_length(options)) > _MOST_OPTIONS:
        raise ValueError(f"the options of a segment take {length} bytes, expected at most {_MOST_OPTIONS}")
    return options


def _fits(value: object, name: str, most: int) -> int:
    """A field of a segment's header, or of its options."""
    if not 0 <= (number := _whole(value, name)) <= most:
        raise ValueError(f"{name} of a segment is {number}, expected 0 to {most}")
    return number


def _whole(value: object, name: str) -> int:
    """A number that fits into 64 bits, and nothing that only looks like one."""
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise TypeError(f"{name} is {str(value)[:60]!r}, expected a whole number")
    return value


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError("data that is no text of bytes")
    return text.encode("latin-1")
