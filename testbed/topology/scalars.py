"""The scalars of a topology file, as types: each says how it reads the text in the file, and what an editor is told.

A reader raises ValueError("expected ..."); `load` adds what was found, and where. Quantities become SI units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Annotated, Literal, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from chitcpd import units

T = TypeVar("T")

RESERVED_ENV = {"CHITCPD_SOCK", "CHITCP_HOSTS"}  # the testbed gives them to each application
LONGEST = 8192  # characters of a text
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_SUBNET = re.compile(r"\d{1,3}(\.\d{1,3}){3}/\d{1,2}", re.ASCII)
_DOMAIN = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:\d{1,5})?/"
_PATH_PART = r"[a-z0-9]+([._-]+[a-z0-9]+)*"
_IMAGE = rf"({_DOMAIN})?{_PATH_PART}(/{_PATH_PART})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?"


# Readers: text -> value, or ValueError("expected ...")


def text(value: object) -> str:
    """Any text that a command line can hold."""
    if not isinstance(value, str) or len(value) > LONGEST:
        raise ValueError(f"expected text of at most {LONGEST} characters")
    if "\0" in value:
        raise ValueError("expected text that a command line can hold, without NUL")
    return value


def _matching(pattern: str, expected: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or re.fullmatch(pattern, value, re.ASCII) is None:
            raise ValueError(f"expected {expected}")
        return value

    return read


def _name(longest: int) -> Callable[[object], str]:
    """A name becomes part of container names and DNS names."""

    def read(value: object) -> str:
        if not isinstance(value, str) or len(value) > longest or _NAME.fullmatch(value) is None:
            rule = "lowercase letters, digits and hyphens, the first a letter, the last no hyphen"
            raise ValueError(f"expected at most {longest} {rule}")
        return value

    return read


def _whole(lowest: int, highest: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d{1,10}", value, re.ASCII):
            value = int(value)
        if not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"expected a whole number from {lowest} to {highest}")
        return value

    return read


def _true_or_false(value: object) -> bool:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _true(value: object) -> bool:
    if value not in ("true", True):
        raise ValueError("expected true")
    return True


def quantity(parse: Callable[[object], T], fits: Callable[[T], bool], expected: str) -> Callable[[object], T]:
    """A reader of what `parse` reads, if it fits."""

    def read(value: object) -> T:
        # Some hundred digits are infinity as a float: no quantity needs so many.
        quantity = parse(value if isinstance(value, str) and len(value) <= 40 else "")
        if not fits(quantity):
            raise ValueError(f"expected {expected}")
        return quantity

    return read


def _queue_fits(queue: units.Queue) -> bool:
    return (
        (queue.packets is None or 1 <= queue.packets <= 10**6)
        and (queue.bytes is None or 1 <= queue.bytes <= 2**30)
        and (queue.seconds is None or queue.seconds <= 60)
        and (queue.bdp is None or queue.bdp <= 1000)
    )


read_timeout = quantity(units.seconds, lambda s: 0 < s <= 86400, "a time above zero, of at most 1440min")


def _down(value: object) -> float:
    """How long: `true` is until it is said to be up again."""
    return math.inf if value in ("true", True) else read_timeout(value)


def _index(value: object) -> float:
    """A plain number, above 0 and at most 1."""
    number = float(value) if isinstance(value, str) and re.fullmatch(r"\d(\.\d{1,15})?", value, re.ASCII) else 0.0
    if not 0 < number <= 1:
        raise ValueError("expected a number above 0, of at most 1, like 0.9")
    return number


def subnet(value: object) -> IPv4Network:
    """`10.9.0.0/24` -> the network. ValueError unless it has room for a gateway and two hosts, and can be used."""
    expected = "expected an IPv4 network from /8 to /29, like 10.9.0.0/29"
    if not isinstance(value, str) or _SUBNET.fullmatch(value) is None:
        raise ValueError(expected)
    try:
        network = IPv4Network(value, strict=False)
    except ValueError as error:
        raise ValueError(expected) from error
    first = network.network_address
    if not 8 <= network.prefixlen <= 29:
        raise ValueError(expected)
    if str(network) != value:
        raise ValueError(f"{expected}; did you mean {network}?")
    if first.is_multicast or first.is_reserved or first.packed[0] == 0:
        raise ValueError("expected a network that hosts can have, from 10.0.0.0/8 or 192.168.0.0/16")
    return network


def _pattern(value: object) -> str:
    """A regular expression, which stays text: so a person knows it again."""
    expression = text(value)
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"expected a regular expression, but {error}") from error
    return expression


def _env_name(value: object) -> str:
    name = _matching(r"[A-Za-z_][A-Za-z0-9_]{0,99}", "a variable's name, like LANG")(value)
    if name in RESERVED_ENV:
        raise ValueError("expected another name: the testbed sets this variable itself")
    return name


def _image(value: object) -> str:
    name = _matching(_IMAGE, "the name of an image, like my-chitcpd:1.0")(value)
    if len(name) > 255:
        raise ValueError("expected the name of an image, of at most 255 characters")
    return name


def _nth(value: object) -> tuple[int, int]:
    """`1` or `3-5`: (first, last), counted from 1."""
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", value if isinstance(value, str) else "", re.ASCII)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise ValueError("expected which, counted from 1, like 1 or 3-5")
    return first, last


# What an editor is told of each (`testbed schema`). It sees YAML's own types: 7000 is a number there, and text here.


def written(pattern: str, *examples: str) -> WithJsonSchema:
    """Text of this form."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": list(examples)})


def _number(lowest: int, highest: int) -> WithJsonSchema:
    whole = {"type": "integer", "minimum": lowest, "maximum": highest}
    return WithJsonSchema({"anyOf": [whole, {"type": "string", "pattern": r"^\d{1,10}$"}]})


SCALAR = WithJsonSchema({"type": ["string", "number", "boolean"]})
PATH = WithJsonSchema({"type": "string", "examples": ["./my_tcp.py"]})  # from the topology file's folder
_TRUE = {"const": True}
_A_NUMBER = r"\d+(\.\d+)?\s*"
_TIME = _A_NUMBER + "(ns|us|ms|s|min)"
SIZE = _A_NUMBER + "(B|kB|MB|GB|KiB|MiB|GiB)"
_A_NAME = "[a-z]([a-z0-9-]*[a-z0-9])?"

Text = Annotated[str, PlainValidator(text), SCALAR]
Name = Annotated[str, PlainValidator(_name(32)), written(_A_NAME, "alice")]
LabName = Annotated[str, PlainValidator(_name(40)), written(_A_NAME, "my-lab")]
EnvName = Annotated[str, PlainValidator(_env_name), written("[A-Za-z_][A-Za-z0-9_]*", "LANG")]
FileName = Annotated[
    str,
    PlainValidator(
        _matching(
            r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", "a file's plain name of at most 100 characters, like payload.bin"
        )
    ),
    written("[A-Za-z0-9_][A-Za-z0-9._-]*", "payload.bin"),
]
Flag = Annotated[bool, PlainValidator(_true_or_false), WithJsonSchema({"type": "boolean"})]
TrueOnly = Annotated[bool, PlainValidator(_true), WithJsonSchema(_TRUE)]
Seed = Annotated[int, PlainValidator(_whole(0, 2**32 - 1)), _number(0, 2**32 - 1)]
Port = Annotated[int, PlainValidator(_whole(1, 65535)), _number(1, 65535)]
ExitStatus = Annotated[int, PlainValidator(_whole(0, 255)), _number(0, 255)]
Mtu = Annotated[int, PlainValidator(_whole(100, 65535)), _number(100, 65535)]
Restarts = Annotated[int, PlainValidator(_whole(0, 100)), _number(0, 100)]
Processes = Annotated[int, PlainValidator(_whole(1, 32768)), _number(1, 32768)]
Memory = Annotated[
    int,
    PlainValidator(quantity(units.size, lambda size: 2**24 <= size <= 2**36, "a size from 16MiB to 64GiB")),
    written(SIZE, "512MiB"),
]
Delay = Annotated[
    float,
    PlainValidator(quantity(units.seconds, lambda s: s <= 60, "a time of at most 60s")),
    written(_TIME, "25ms"),
]
Jitter = Annotated[  # netem holds it in 31 bits of nanoseconds, and cuts what is more without a word
    float,
    PlainValidator(quantity(units.seconds, lambda s: s <= 2, "a time of at most 2s")),
    written(_TIME, "2ms"),
]
Moment = Annotated[
    float,
    PlainValidator(quantity(units.seconds, lambda s: s <= 86400, "a time of at most 1440min")),
    written(_TIME, "5s"),
]
Timeout = Annotated[float, PlainValidator(read_timeout), written(_TIME, "60s")]
Down = Annotated[
    float,
    PlainValidator(_down),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_TIME}$", "examples": ["2s"]}, _TRUE]}),
]
Rate = Annotated[
    float,
    PlainValidator(
        quantity(units.bits_per_second, lambda r: 1e3 <= r <= 1e11, "a rate from 1kbit to 100gbit, like 10mbit")
    ),
    written(_A_NUMBER + "(bit|kbit|mbit|gbit)", "10mbit"),
]
Share = Annotated[float, PlainValidator(units.probability), written(_A_NUMBER + "%", "1%")]
QueueLimit = Annotated[
    units.Queue,
    PlainValidator(quantity(units.queue, _queue_fits, "a queue from one packet to 1000000pkt, 1GiB, 60s or 1000bdp")),
    written(f"({SIZE}|{_TIME}|{_A_NUMBER}(pkt|bdp))", "100pkt", "64kB", "50ms", "2bdp"),
]
Count = Annotated[int, PlainValidator(_whole(0, 2**32 - 1)), _number(0, 2**32 - 1)]
Doublings = Annotated[int, PlainValidator(_whole(1, 100)), _number(1, 100)]
Index = Annotated[
    float,
    PlainValidator(_index),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^\d(\.\d+)?$"},
            ]
        }
    ),
]
Pattern = Annotated[str, PlainValidator(_pattern), WithJsonSchema({"type": "string", "format": "regex"})]
Subnet = Annotated[IPv4Network, PlainValidator(subnet), written(r"\d+(\.\d+){3}/\d+", "10.9.0.0/29")]
Image = Annotated[str, PlainValidator(_image), written(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", "my-chitcpd:1.0")]
Nth = Annotated[
    tuple[int, int],
    PlainValidator(_nth),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d+(-\d+)?$"}]}),
]
Victim = Literal["chitcpd", "SIGTERM", "SIGKILL", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"]
TcpState = Literal[
    "CLOSED",
    "LISTEN",
    "SYN_SENT",
    "SYN_RCVD",
    "ESTABLISHED",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "CLOSE_WAIT",
    "CLOSING",
    "LAST_ACK",
    "TIME_WAIT",
]
