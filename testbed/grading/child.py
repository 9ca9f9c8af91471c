"""The submission's process: it holds the connections of somebody's TCP, and answers calls. It judges nothing.

It is forked by testbed.grading.forker, and spoken with over its standard input and output. A message is four bytes, how
long it is, and JSON; bytes are text there, a character each (latin-1). The first one
names the file, its text and the limits; the answer comes when it is loaded. Each of the others is a call of one
connection, and its answer all that the connection then shows: what sandbox.py reads. What the submission prints goes
along.
"""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from chitcpd import loader
from chitcpd.tcp.api import Config, Expiry, Options, Segment, TcpConnection, Transition
from testbed.grading import confine

_HERE = str(Path(__file__).resolve().parents[2])

_PLAIN = re.compile(r"\w[\w.-]{0,200}\.py", re.ASCII)  # a name that a file may have everywhere
_LENGTH = struct.Struct("!I")
_MOST_PRINTED = 4000  # characters in one answer
MOST_OUTPUTS = 2000  # of one call
_FIELDS = ("seq", "ack", "flags", "wnd", "up")


class Hang(BaseException):
    """A call has taken its time."""


class Printed:
    """What stands for the standard output: it remembers a little, and drops the rest."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._text = ""

    def write(self, text: str) -> int:
        """Keep it, if there is room."""
        if len(self._text) < _MOST_PRINTED:
            self._text += text[: _MOST_PRINTED - len(self._text)]
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> str:
        """What was kept since the last time."""
        text, self._text = self._text, ""
        return text


class OnlyTheContract:
    """Refuses to import any other part of ours: what is graded stands on the contract alone."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Let Python look for what isn't ours."""
        if name.partition(".")[0] in ("chitcpd", "chisocket", "testbed"):
            raise ImportError(f"a TCP that is graded imports chitcpd.tcp.api and Python's own library, not {name}")


class Service:
    """Connections by number, and the calls to them."""

    def __init__(
        self, tcp: type[TcpConnection], told: Callable[[BaseException], dict[str, Any]], cpu: float, printed: Printed
    ) -> None:
        self._tcp = tcp
        self._told = told
        self._cpu = cpu
        self._printed = printed
        self._connections: dict[int, TcpConnection] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do one call, and tell all that the connection shows afterwards."""
        answer: dict[str, Any] = {}
        try:
            signal.setitimer(signal.ITIMER_PROF, self._cpu)
            answer["value"] = self._call(request)
        except OSError as error:
            if not isinstance(error.errno, int) or not may_raise(request):
                return {"fault": self._told(error), "printed": self._printed.take()}
            answer["errno"], answer["raised"] = error.errno, self._told(error)
        except Hang as hang:
            return {"hang": self._told(hang), "printed": self._printed.take()}
        except BaseException as error:
            return {"fault": self._told(error), "printed": self._printed.take()}
        try:
            answer |= shown(self._connections[request["connection"]])
        except Hang as hang:
            return {"hang": self._told(hang), "printed": self._printed.take()}
        except BaseException as error:
            return {"fault": self._told(error), "printed": self._printed.take()}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return answer | {"printed": self._printed.take()}

    def _call(self, request: dict[str, Any]) -> Any:
        name, number, arguments = request["call"], request["connection"], request["arguments"]
        if name == "new":
            config = Config(**arguments["config"])
            self._connections[number] = self._tcp(iss=arguments["iss"], config=config)
            return None
        connection = self._connections[number]
        now = arguments.pop("now")
        if name == "segment_arrives":
            return connection.segment_arrives(segment_of(arguments["segment"]), now)
        if name == "send":
            return connection.send(arguments["data"].encode("latin-1"), now)
        if name == "receive":
            return text_of(connection.receive(arguments["limit"], now), "what receive returns")
        if name == "open":
            return connection.open(now, active=arguments["active"])
        method: Callable[[float], None] = getattr(connection, name)
        return method(now)


def may_raise(request: dict[str, Any]) -> bool:
    """Whether an OSError is the proper answer: to a call of the application."""
    return request["call"] in ("open", "send", "receive", "close", "abort")


def shown(connection: TcpConnection) -> dict[str, Any]:
    """All that a connection shows."""
    outputs = connection.take_output()
    if len(outputs) > MOST_OUTPUTS:
        raise RuntimeError(f"one call has sent more than {MOST_OUTPUTS} segments")
    variables = connection.variables()
    return {
        "outputs": [output_of(output) for output in outputs],
        "variables": [whole(getattr(variables, name), name) for name in variables.__slots__],
        "error": None if connection.error is None else whole(connection.error, "error"),
        "readable": whole(connection.readable, "readable"),
        "writable": whole(connection.writable, "writable"),
        "at_eof": bool(connection.at_eof),
        "deadline": connection.next_deadline(),
    }


def output_of(output: object) -> list[Any]:
    """A segment, a change of state or an expiry, for JSON."""
    if isinstance(output, Segment):
        numbers = [whole(getattr(output, name), f"{name} of a segment") for name in _FIELDS]
        return ["segment", *numbers, text_of(output.data, "data of a segment"), options_of(output.options)]
    if isinstance(output, Transition):
        return ["state", int(output.old), int(output.new)]
    if isinstance(output, Expiry):
        return ["timer", int(output.timer)]
    raise TypeError(f"this was sent, which is no Segment: {output!r}"[:300])


def options_of(options: Options | None) -> dict[str, Any] | None:
    """Options, for JSON."""
    if options is None:
        return None
    if not isinstance(options, Options):
        raise TypeError(f"options of a segment are {options!r}, expected Options or None"[:300])
    return {name: getattr(options, name) for name in options.__slots__}


def segment_of(fields: dict[str, Any]) -> Segment:
    """A segment that arrives."""
    options = fields.pop("options")
    data = fields.pop("data").encode("latin-1")
    if options is not None:
        options["sack"] = tuple((first, behind) for first, behind in options["sack"])
        options["timestamp"] = options["timestamp"] and tuple(options["timestamp"])
        options = Options(**options)
    return Segment(data=data, options=options, **fields)


def whole(value: object, name: str) -> int:
    """A whole number. Raises TypeError."""
    if not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, expected a whole number"[:300])
    return int(value)


def text_of(data: object, name: str) -> str:
    """Bytes for JSON. Raises TypeError."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"{name} is {type(data).__name__}, expected bytes"[:300])
    return bytes(data).decode("latin-1")


def told(error: BaseException, file: str, name: str) -> dict[str, Any]:
    """What was raised, and where in the submission, which is called `name`: its last line there, and the whole way."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    line = frames[-1].lineno if frames else None
    way = [f"{name}:{f.lineno}, in {f.name}: {f.line or ''}"[:200] for f in frames[-8:]]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return {"text": text[:600], "line": line, "way": way}


def as_python_shows(error: BaseException | None, file: str, name: str) -> list[str]:
    """The last line of the submission on the way to where it raised, with its carets."""
    if error is None:
        return []
    told = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in told.stack if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines = list(told.format_exception_only())[:-1]
    else:
        lines = traceback.StackSummary.from_list(frames[-1:]).format()
    return [line[:200] for line in renamed("".join(lines), file, name).splitlines()[:8]]


def renamed(text: str, file: str, name: str) -> str:
    """With the submission's name in place of its file's, which Python tells with or without the folder."""
    folder, base = map(re.escape, os.path.split(file))
    return re.sub(f"({folder}/)?{base}", lambda _: name, text)


def hang(_number: int, _frame: FrameType | None) -> None:
    """SIGPROF: the time of a call is over."""
    raise Hang


def exchange(source: int, sink: int) -> tuple[Callable[[], dict[str, Any] | None], Callable[[dict[str, Any]], None]]:
    """How to read a message (None: there are no more), and to write one."""

    def exactly(count: int) -> bytes:
        parts = b""
        while len(parts) < count and (part := os.read(source, count - len(parts))):
            parts += part
        return parts

    def read() -> dict[str, Any] | None:
        head = exactly(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        message: dict[str, Any] = json.loads(exactly(*_LENGTH.unpack(head)))
        return message

    def write(message: dict[str, Any]) -> None:
        content = json.dumps(message).encode()
        content = _LENGTH.pack(len(content)) + content
        while content:
            content = content[os.write(sink, content) :]

    return read, write


def main() -> None:
    """Load the submission that the first message names, and serve."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    read, write = exchange(source, sink)
    order = read()
    if order is None:
        return
    file = os.path.join(os.getcwd(), order["name"] if _PLAIN.fullmatch(order["name"]) else "submission.py")
    Path(file).write_text(order["text"], encoding="utf-8", errors="surrogatepass")
    sys.path[:] = [path for path in sys.path if path != _HERE]
    sys.dont_write_bytecode = True
    printed = Printed()
    sys.stdin, sys.stdout, sys.stderr = None, printed, printed
    signal.signal(signal.SIGPROF, hang)
    signal.signal(signal.SIGXCPU, hang)
    try:
        hidden = confine.hide_files([os.getcwd(), os.devnull, "/dev/urandom"], but=_HERE)
        confine.limit(memory=order["memory"], cpu=order["cpu_in_all"])
        confine.leave_few_calls()
    except (OSError, NotImplementedError, AttributeError) as error:
        write({"unable": f"a process can't be locked up here: {error}"})
        return
    sys.meta_path.insert(0, OnlyTheContract)
    tell = partial(told, file=file, name=order["name"])
    try:
        signal.setitimer(signal.ITIMER_PROF, order["cpu"])
        tcp = loader.load(file)
        signal.setitimer(signal.ITIMER_PROF, 0)
    except Hang as error:
        write({"hang": tell(error), "printed": printed.take()})
        return
    except loader.LoadError as error:
        text = renamed(str(error), file, order["name"])[:600]
        write({"fault": {"text": text, "line": None, "way": as_python_shows(error.__cause__, file, order["name"])}})
        return
    except BaseException as error:
        write({"fault": tell(error), "printed": printed.take()})
        return
    if "random" in sys.modules:
        sys.modules["random"].seed(0)  # the same choices each time
    write({"hidden": hidden, "name": tcp.__name__, "printed": printed.take()})
    service = Service(tcp, tell, order["cpu"], printed)
    while (request := read()) is not None:
        write(service.answer(request))
