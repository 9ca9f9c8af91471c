"""What a topology file may say, as types. Quantities are in SI units once they are read.

The YAML's scalars come here as the text that stands in the file, and each field says how it reads its text. So a host
may be called `no`, `7000` in a command stays `7000`, and nothing is a number or a date by accident.
A validator raises ValueError("expected ..."); `load` adds what was found, and where.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    model_validator,
)

from chitcpd import settings, units
from chitcpd.faults import MOST_DROPS
from testbed.topology.presets import PRESETS

T = TypeVar("T")

HOSTS = APPS = CHECKS = 64
LINKS = 128
SOURCE_SIZE = 1 << 20  # bytes, of somebody's own TCP
FILES_IN_ALL = 2**30  # bytes: they are held in memory
RESERVED_ENV = {"CHITCPD_SOCK", "CHITCP_HOSTS"}  # the testbed gives them to each application
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_SUBNET = re.compile(r"\d{1,3}(\.\d{1,3}){3}/\d{1,2}", re.ASCII)


@dataclass(slots=True)
class Files:
    """The validation context: where relative paths begin, and how many bytes of files may still be read or made."""

    directory: Path
    left: int = FILES_IN_ALL

    def take(self, size: int) -> None:
        """Count `size` bytes; ValueError if that is too much for one topology."""
        if size > self.left:
            raise ValueError("expected at most 1GiB for all files of a topology together")
        self.left -= size


# Readers: text -> value, or ValueError("expected ...")


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 8192:
        raise ValueError("expected text of at most 8192 characters")
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


def _quantity(parse: Callable[[object], T], fits: Callable[[T], bool], expected: str) -> Callable[[object], T]:
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


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file for an application."""

    content: bytes
    executable: bool


def _own_file(value: object, info: ValidationInfo) -> OwnFile:
    """A path, relative to the topology file -> what is there."""
    if not isinstance(value, str) or not value:
        raise ValueError("expected a path, like ./payload.bin, or {random: 5MiB}")
    return _read(value, info)


def _implementation(value: object, info: ValidationInfo) -> bytes:
    """The Python of a TCP."""
    if not isinstance(value, str) or not value:
        raise ValueError("expected the path of a Python file, like ./my_tcp.py")
    source = _read(value, info).content
    if len(source) > SOURCE_SIZE:
        raise ValueError(f"expected a Python file of at most {SOURCE_SIZE >> 20}MiB")
    try:
        compile(source, value, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise ValueError(f"expected Python, but{where} it is none ({getattr(error, 'msg', error)})") from error
    return source


def _read(value: str, info: ValidationInfo) -> OwnFile:
    files = info.context if isinstance(info.context, Files) else Files(Path())
    try:
        path = files.directory / _text(value)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("expected an ordinary file")
        files.take(found.st_size)
        with path.open("rb") as file:
            content = file.read(found.st_size)  # no more than was counted: it may grow meanwhile
        return OwnFile(content, executable=bool(found.st_mode & stat.S_IXUSR))
    except OSError as error:
        reason = error.strerror or "it can't be read"
        raise ValueError(f"expected a file that can be read, beside the topology file ({reason})") from error


def _random_size(value: object, info: ValidationInfo) -> int:
    size = _quantity(units.size, lambda size: 1 <= size <= FILES_IN_ALL, "a size from 1B to 1GiB")(value)
    if isinstance(info.context, Files):
        info.context.take(size)
    return size


def _pattern(value: object) -> str:
    """A regular expression, which stays text: so a person knows it again."""
    text = _text(value)
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression, but {error}") from error
    return text


def _env_name(value: object) -> str:
    name = _matching(r"[A-Za-z_][A-Za-z0-9_]{0,99}", "a variable's name, like LANG")(value)
    if name in RESERVED_ENV:
        raise ValueError("expected another name: the testbed sets this variable itself")
    return name


# What an editor is told of each (`testbed schema`). It sees YAML's own types: 7000 is a number there, and text here.
_SCALAR = WithJsonSchema({"type": ["string", "number", "boolean"]})


def _written(pattern: str, *examples: str) -> WithJsonSchema:
    """Text of this form."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": list(examples)})


def _number(lowest: int, highest: int) -> WithJsonSchema:
    whole = {"type": "integer", "minimum": lowest, "maximum": highest}
    return WithJsonSchema({"anyOf": [whole, {"type": "string", "pattern": r"^\d{1,10}$"}]})


_A_NUMBER = r"\d+(\.\d+)?\s*"
_TIME = _A_NUMBER + "(ns|us|ms|s|min)"
_SIZE = _A_NUMBER + "(B|kB|MB|GB|KiB|MiB|GiB)"
_A_NAME = "[a-z]([a-z0-9-]*[a-z0-9])?"

Text = Annotated[str, PlainValidator(_text), _SCALAR]
Name = Annotated[str, PlainValidator(_name(32)), _written(_A_NAME, "alice")]
LabName = Annotated[str, PlainValidator(_name(40)), _written(_A_NAME, "my-lab")]
EnvName = Annotated[str, PlainValidator(_env_name), _written("[A-Za-z_][A-Za-z0-9_]*", "LANG")]
FileName = Annotated[
    str,
    PlainValidator(
        _matching(
            r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", "a file's plain name of at most 100 characters, like payload.bin"
        )
    ),
    _written("[A-Za-z0-9_][A-Za-z0-9._-]*", "payload.bin"),
]
Flag = Annotated[bool, PlainValidator(_true_or_false), WithJsonSchema({"type": "boolean"})]
Seed = Annotated[int, PlainValidator(_whole(0, 2**32 - 1)), _number(0, 2**32 - 1)]
Port = Annotated[int, PlainValidator(_whole(1, 65535)), _number(1, 65535)]
ExitStatus = Annotated[int, PlainValidator(_whole(0, 255)), _number(0, 255)]
Mtu = Annotated[int, PlainValidator(_whole(100, 65535)), _number(100, 65535)]
Delay = Annotated[
    float,
    PlainValidator(_quantity(units.seconds, lambda s: s <= 60, "a time of at most 60s")),
    _written(_TIME, "25ms"),
]
Jitter = Annotated[  # netem holds it in 31 bits of nanoseconds, and cuts what is more without a word
    float,
    PlainValidator(_quantity(units.seconds, lambda s: s <= 2, "a time of at most 2s")),
    _written(_TIME, "2ms"),
]
Timeout = Annotated[
    float,
    PlainValidator(_quantity(units.seconds, lambda s: 0 < s <= 86400, "a time above zero, of at most 1440min")),
    _written(_TIME, "60s"),
]
Rate = Annotated[
    float,
    PlainValidator(
        _quantity(units.bits_per_second, lambda r: 1e3 <= r <= 1e11, "a rate from 1kbit to 100gbit, like 10mbit")
    ),
    _written(_A_NUMBER + "(bit|kbit|mbit|gbit)", "10mbit"),
]
Share = Annotated[float, PlainValidator(units.probability), _written(_A_NUMBER + "%", "1%")]
QueueLimit = Annotated[
    units.Queue,
    PlainValidator(_quantity(units.queue, _queue_fits, "a queue from one packet to 1000000pkt, 1GiB, 60s or 1000bdp")),
    _written(f"({_SIZE}|{_TIME}|{_A_NUMBER}(pkt|bdp))", "100pkt", "64kB", "50ms", "2bdp"),
]
Count = Annotated[int, PlainValidator(_whole(0, 2**32 - 1)), _number(0, 2**32 - 1)]
Pattern = Annotated[str, PlainValidator(_pattern), WithJsonSchema({"type": "string", "format": "regex"})]
Subnet = Annotated[IPv4Network, PlainValidator(subnet), _written(r"\d+(\.\d+){3}/\d+", "10.9.0.0/29")]
RandomSize = Annotated[int, PlainValidator(_random_size), _written(_SIZE, "5MiB")]
_PATH = WithJsonSchema({"type": "string", "examples": ["./my_tcp.py"]})  # from the topology file's folder


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


class Part(BaseModel):
    """A mapping of the file: it has the keys that are fields here and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _setting(name: str) -> Callable[[object], str]:
    """A setting stays as it was written: so chitcpd's command line takes it, and so a person knows it again."""

    def read(value: object) -> str:
        text = value if isinstance(value, str) else ""
        settings.parse(name, text)
        return text

    return read


class _Tcp(Part):
    """What of a host's TCP is no setting."""

    profile: Literal["modern", "classic"] = "modern"
    implementation: Annotated[bytes, PlainValidator(_implementation), _PATH] | None = None

    @property
    def changes(self) -> dict[str, str]:
        """The settings over the profile's, as they were written."""
        return {name: getattr(self, name) for name in settings.TABLE if getattr(self, name) is not None}


if TYPE_CHECKING:
    Tcp = _Tcp
else:
    Tcp = create_model(
        "Tcp",
        __base__=_Tcp,
        __doc__="The TCP of a host: it has a key for every setting of chitcpd.",
        **{
            name: (
                Annotated[str, PlainValidator(_setting(name)), _SCALAR] | None,
                Field(default=None, description=f"{setting.meaning} ({setting.source})"),
            )
            for name, setting in settings.TABLE.items()
        },
    )


class Host(Part):
    """A host: one chitcpd."""

    tcp: Tcp = Tcp()


class LinkSettings(Part):
    """What a link does to what passes, each way; also the defaults of all links."""

    delay: Delay = 0.0  # seconds, one way
    jitter: Jitter = 0.0  # seconds
    rate: Rate | None = None  # bits per second
    queue: QueueLimit | None = None
    loss: Share = 0.0
    duplicate: Share = 0.0
    reorder: Share = 0.0
    corrupt: Share = 0.0
    mtu: Mtu = 1500  # bytes

    def impossible(self) -> Iterator[tuple[str, str, str]]:
        """(key, other key, message) for each key that the other makes meaningless."""
        if self.jitter > self.delay:
            yield "jitter", "delay", "found a jitter above the delay, expected at most the delay"
        if self.reorder and not self.delay:
            message = "found reorder without a delay, expected a delay too: what overtakes is what skips the delay"
            yield "reorder", "delay", message
        queue = self.queue or units.Queue()
        if self.queue is not None and self.rate is None:
            message = "found a queue without a rate, expected a rate too: nothing waits for a link that is never busy"
            yield "queue", "rate", message
        if queue.bdp and not self.delay:
            yield "queue", "delay", "found a queue in bdp without a delay, expected a delay too: the product is zero"
        if queue.bytes and queue.bytes < self.mtu:
            yield "queue", "mtu", f"found a queue in which no full segment fits, expected at least the MTU, {self.mtu}B"

    def over(self, below: LinkSettings) -> LinkSettings:
        """These settings, as far as they were given, and those below where they were not."""
        own = self.model_fields_set & LinkSettings.model_fields.keys()
        return below.model_copy(update={key: getattr(self, key) for key in own})


def _nth(value: object) -> tuple[int, int]:
    """`1` or `3-5`: (first, last), counted from 1."""
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", value if isinstance(value, str) else "", re.ASCII)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise ValueError("expected which, counted from 1, like 1 or 3-5")
    return first, last


_NTH = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d+(-\d+)?$"}]})


class DropRule(Part):
    """Segments that are lost by their number: of this kind, from this host."""

    sender: Text = Field(alias="from")
    match: Literal["any", "SYN", "SYN-ACK", "FIN", "RST", "ACK", "data"] = "any"
    nth: Annotated[tuple[int, int], PlainValidator(_nth), _NTH]


DIRECTION = "A->B"  # how a key for one direction of a link is written, and what a list of keys calls it


class Link(LinkSettings):
    """A link joins two hosts."""

    name: Name | None = None
    endpoints: Annotated[tuple[Text, ...], Field(min_length=2, max_length=2)]
    subnet: Subnet | None = None
    link: Literal["lan", "wifi", "dsl", "lte", "satellite", "intercontinental"] | None = None  # a preset
    drop: Annotated[tuple[DropRule, ...], Field(max_length=MOST_DROPS)] = ()
    directions: dict[str, LinkSettings] = Field(default={}, alias="A->B")  # DIRECTION

    @model_validator(mode="before")
    @classmethod
    def _gather_directions(cls, data: object) -> object:
        """`"alice->bob": {...}` are keys of the link in the file."""
        if not isinstance(data, dict):
            return data
        directions = {key: value for key, value in data.items() if "->" in key}
        return {key: value for key, value in data.items() if key not in directions} | {DIRECTION: directions}


class Defaults(Part):
    """What hosts and links are where they say nothing else."""

    host: Host = Host()
    link: LinkSettings = LinkSettings()


class Ready(Part):
    """What tells that an app serves."""

    listening: Port


class Expect(Part):
    """How an app has to end."""

    exit: ExitStatus


class RandomFile(Part):
    """A file of random bytes, made from the seed."""

    random: RandomSize


def _kind_of_file(value: object) -> str:
    return "random file" if isinstance(value, (dict, RandomFile)) else "own file"


FILE_KINDS = ("random file", "own file")  # pydantic puts them into the path of an error
File = Annotated[
    Annotated[OwnFile, PlainValidator(_own_file), _PATH, Tag("own file")] | Annotated[RandomFile, Tag("random file")],
    Discriminator(_kind_of_file),
]


class App(Part):
    """An application on a host."""

    host: Text
    run: Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)]
    via: Literal["chirun"] | None = None  # for a program that knows nothing of chisocket
    env: Annotated[dict[EnvName, Text], Field(max_length=64)] = {}
    files: Annotated[dict[FileName, File], Field(max_length=16)] = {}
    needs: Annotated[tuple[Text, ...], Field(max_length=APPS)] = ()
    ready: Ready | None = None
    expect: Expect | None = None
    timeout: Timeout = 60.0  # seconds


class Capture(Part):
    """What is captured on each host."""

    segments: Flag = True
    wire: Flag = True


class AtMost(Part):
    """A number that must not be exceeded on the connections of an app's host."""

    app: Text
    max: Count


class Completes(Part):
    """An app that has to end by itself in time, whatever its own `timeout:`."""

    app: Text
    within: Timeout


class Output(Part):
    """What an app has to write to its standard output: something in it matches a regular expression."""

    app: Text
    matches: Pattern


class Goodput(Part):
    """How fast data has to cross, to and from an app's host, each byte counted once."""

    app: Text
    min: Rate


class Visited(Part):
    """States that connections of an app's host have to pass through."""

    app: Text
    all: Annotated[tuple[TcpState, ...], Field(min_length=1)]


class Check(Part):
    """What has to hold after the run: one of these."""

    integrity: Text | None = None
    completes: Completes | None = None
    output: Output | None = None
    goodput: Goodput | None = None
    retransmissions: AtMost | None = None
    resets: AtMost | None = None
    states: Visited | None = None

    @property
    def title(self) -> str:
        """For a person, like "integrity of client"."""
        (kind,) = self.model_fields_set
        asked = getattr(self, kind)
        return f"{kind} of {asked if kind == 'integrity' else asked.app}"

    @model_validator(mode="after")
    def _exactly_one(self) -> Check:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}")
        return self


def _bare_host(value: object) -> object:
    return {} if value == "" else value  # `alice:` is as good as `alice: {}`


class Topology(Part):
    """A whole topology file. References in it (hosts of links, apps of checks...) are checked by `load`."""

    name: LabName
    seed: Seed = 0
    defaults: Defaults = Defaults()
    hosts: Annotated[dict[Name, Annotated[Host, BeforeValidator(_bare_host)]], Field(min_length=1, max_length=HOSTS)]
    links: Annotated[tuple[Link, ...], Field(max_length=LINKS)] = ()
    apps: Annotated[dict[Name, App], Field(max_length=APPS)] = {}
    capture: Capture = Capture()
    checks: Annotated[tuple[Check, ...], Field(max_length=CHECKS)] = ()

    def settings(self, link: Link, sender: str) -> LinkSettings:
        """Of what leaves `sender`: this direction's own over the link's, over its preset's, over the defaults."""
        first, second = link.endpoints
        direction = f"{sender}->{second if sender == first else first}"
        preset = LinkSettings.model_validate(PRESETS[link.link] if link.link else {})
        both_ways = link.over(preset.over(self.defaults.link))
        return link.directions.get(direction, LinkSettings()).over(both_ways)

    def tcp(self, host: str) -> Tcp:
        """The host's own TCP over the defaults."""
        own = self.hosts[host].tcp
        return self.defaults.host.tcp.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
