"""What a topology file may say, as types. Quantities are in SI units once they are read.

The YAML's scalars come here as the text that stands in the file, and each field says how it reads its text. So a host
may be called `no`, `7000` in a command stays `7000`, and nothing is a number or a date by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    PrivateAttr,
    Tag,
    create_model,
    model_validator,
)

from chitcpd import settings, units
from chitcpd.faults import MOST_DROPS
from testbed.topology.files import BesideTopology, Implementation, RandomSize
from testbed.topology.files import OwnFile as OwnFile  # those who read an App's `files` need its name
from testbed.topology.presets import PRESETS
from testbed.topology.scalars import (
    SCALAR,
    Count,
    Delay,
    Doublings,
    Down,
    EnvName,
    ExitStatus,
    FileName,
    Flag,
    Image,
    Index,
    Jitter,
    Memory,
    Moment,
    Mtu,
    Name,
    Nth,
    Pattern,
    Port,
    Processes,
    QueueLimit,
    Rate,
    Restarts,
    Seed,
    Share,
    Subnet,
    TcpState,
    Text,
    Timeout,
    TrueOnly,
    Victim,
)
from testbed.topology.scalars import LabName as LabName  # and a command's `--name` reads it as the file's is read

HOSTS = APPS = CHECKS = EVENTS = 256  # hosts: with the routers
LINKS = 512
ENDPOINTS = 256  # of a LAN
INCLUDED = 16  # files in all


class Part(BaseModel):
    """A mapping of the file: it has the keys that are fields here and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # built once, as a whole

    def _given(self) -> list[str]:
        """The keys that stand in the file, in the order of the fields."""
        given = self.model_fields_set
        return [field.alias or name for name, field in type(self).model_fields.items() if name in given]

    def _exactly_one(self) -> None:
        if len(self._given()) != 1:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}")

    def _at_least_one(self) -> None:
        if not self._given():
            raise ValueError(f"expected at least one of {', '.join(type(self).model_fields)}")


def _bare(value: object) -> object:
    return {} if value == "" else value  # `alice:` is as good as `alice: {}`


def _setting(name: str) -> Callable[[object], str]:
    """A setting stays as it was written: so chitcpd's command line takes it, and so a person knows it again."""

    def read(value: object) -> str:
        text = value if isinstance(value, str) else ""
        settings.parse(name, text)
        return text

    return read


class _Tcp(Part):
    """What of a host's TCP is no setting."""

    profile: Literal["modern", "classic"] = Field(default="modern", description="`classic`: the C chiTCP's constants")
    implementation: Implementation | None = Field(default=None, description="a TCP of your own, like ./my_tcp.py")

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
                Annotated[str, PlainValidator(_setting(name)), SCALAR] | None,
                Field(default=None, description=f"{setting.meaning} ({setting.source})"),
            )
            for name, setting in settings.TABLE.items()
        },
    )


class HostDefaults(Part):
    """What hosts are where they say nothing else."""

    tcp: Tcp = Field(default=Tcp(), description="the host's TCP: its profile, and settings over it")


class Host(HostDefaults):
    """A host: one chitcpd."""

    image: Image | None = Field(default=None, description="another chitcpd: the image that it runs from")
    command: Annotated[tuple[Text, ...], Field(max_length=256)] = Field(
        default=(), description="what the image runs, a list of words; its own command if it is not there"
    )


class Router(Part):
    """A router: it carries segments on between its links, and looks into none."""


class Underlay(Part):
    """What befalls the packets of the real TCP connections: shares."""

    loss: Share = Field(default=0.0, description="share of packets that are lost")
    duplicate: Share = Field(default=0.0, description="share of packets that come twice")
    reorder: Share = Field(default=0.0, description="share of packets that skip the delay")
    corrupt: Share = Field(default=0.0, description="share of packets in which a bit is turned")

    @model_validator(mode="after")
    def _says_something(self) -> Underlay:
        self._at_least_one()
        return self


class LinkChanges(Part):
    """What of a link can change while it is up, each way."""

    delay: Delay = Field(default=0.0, description="one way")  # seconds
    jitter: Jitter = Field(default=0.0, description="at most the delay; order is kept")  # seconds
    rate: Rate | None = Field(default=None, description="per second")  # bits per second
    queue: QueueLimit | None = Field(default=None, description="what is sent faster waits here; lost if full")
    loss: Share = Field(default=0.0, description="share of segments that are lost")
    duplicate: Share = Field(default=0.0, description="share of segments that come twice")
    reorder: Share = Field(default=0.0, description="share of segments that are held back for the delay once more")
    corrupt: Share = Field(default=0.0, description="share of segments in which a bit is turned")
    underlay: Underlay | None = Field(default=None, description="what befalls the real connection's packets: stalls")

    def over(self, below: LinkSettings) -> LinkSettings:
        """These settings, as far as they were given, and those below where they were not."""
        own = self.model_fields_set & LinkSettings.model_fields.keys()
        return below.model_copy(update={key: getattr(self, key) for key in own})


class LinkSettings(LinkChanges):
    """What a link does to what passes, each way; also the defaults of all links."""

    mtu: Mtu = Field(default=1500, description="bytes")

    def impossible(self) -> Iterator[tuple[str, str, str]]:
        """(key, other key, message) for each key that the other makes meaningless."""
        if self.jitter > self.delay:
            yield "jitter", "delay", "found a jitter above the delay, expected at most the delay"
        without_delay = "found reorder without a delay, expected a delay too"
        if self.reorder and not self.delay:
            yield "reorder", "delay", f"{without_delay}: what is overtaken is what is held back for it once more"
        if self.underlay is not None and self.underlay.reorder and not self.delay:
            yield "underlay", "delay", f"{without_delay}: what overtakes is what skips the delay"
        queue = self.queue or units.Queue()
        if self.queue is not None and self.rate is None:
            message = "found a queue without a rate, expected a rate too: nothing waits for a link that is never busy"
            yield "queue", "rate", message
        if queue.bdp and not self.delay:
            yield "queue", "delay", "found a queue in bdp without a delay, expected a delay too: the product is zero"
        if queue.bytes and queue.bytes < self.mtu:
            yield "queue", "mtu", f"found a queue in which no full segment fits, expected at least the MTU, {self.mtu}B"


class DropRule(Part):
    """Segments that are lost by their number: of this kind, from this end."""

    sender: Text = Field(alias="from", description="the end of the link that sends them")
    match: Literal["any", "SYN", "SYN-ACK", "FIN", "RST", "ACK", "data"] = Field(
        default="any", description="which kind of segment; ACK: without data"
    )
    nth: Nth = Field(description="which of those that match, counted from 1 as they enter the link: 3, or 3-5")


DIRECTION = "A->B"  # how a key for one direction of a link is written, and what a list of keys calls it


def link_title(name: str | None, endpoints: Sequence[str]) -> str:
    """A link's name: its own, or that of its ends."""
    return name or "-".join(endpoints)


def direction(sender: str, endpoints: Sequence[str], title: str) -> str:
    """The key of what `sender` sends: to the other end, or into the LAN."""
    others = [end for end in endpoints if end != sender]
    return f"{sender}->{others[0] if len(endpoints) == 2 and others else title}"


class Link(LinkSettings):
    """A link joins two, or is a LAN of more."""

    name: Name | None = Field(default=None, description="in place of `alice-bob`; a LAN must have one")
    endpoints: Annotated[tuple[Text, ...], Field(min_length=2, max_length=ENDPOINTS)] = Field(
        description="two hosts or routers; more make it a LAN"
    )
    subnet: Subnet | None = Field(default=None, description="in place of one of the testbed's own")
    link: Literal["lan", "wifi", "dsl", "lte", "satellite", "intercontinental"] | None = Field(
        default=None, description="a preset; keys beside it stand over its own"
    )
    drop: Annotated[tuple[DropRule, ...], Field(max_length=MOST_DROPS)] = Field(
        default=(), description="segments that are lost by their number"
    )
    directions: dict[str, LinkSettings] = Field(default={}, alias="A->B")  # DIRECTION

    @property
    def title(self) -> str:
        """The name by which the link is known."""
        return link_title(self.name, self.endpoints)

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

    host: HostDefaults = Field(default=HostDefaults(), description="of all hosts")
    link: LinkSettings = Field(default=LinkSettings(), description="of all links")


class Ready(Part):
    """What tells that an app serves: one of these."""

    listening: Port | None = Field(default=None, description="its host has a listener on this port")
    output: Pattern | None = Field(
        default=None, description="a line that it has written, to its standard output or error, matches this"
    )

    @model_validator(mode="after")
    def _one(self) -> Ready:
        self._exactly_one()
        return self


class Expect(Part):
    """How an app has to end."""

    exit: ExitStatus = Field(description="its exit status")


class Limits(Part):
    """What an app may use."""

    memory: Memory = Field(default=2**29, description="512MiB if it is not there")  # bytes
    processes: Processes = Field(default=256, description="processes and threads; 256 if it is not there")


class RandomFile(Part):
    """A file of random bytes, made from the seed."""

    random: RandomSize = Field(description="its size")


def _kind_of_file(value: object) -> str:
    return "random file" if isinstance(value, (dict, RandomFile)) else "own file"


FILE_KINDS = ("random file", "own file")  # pydantic puts them into the path of an error
File = Annotated[
    Annotated[BesideTopology, Tag("own file")] | Annotated[RandomFile, Tag("random file")],
    Discriminator(_kind_of_file),
]


class App(Part):
    """An application on a host."""

    host: Text = Field(description="where it runs")
    run: Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)] = Field(
        description="a list of words: [python, -m, chisocket.apps.echo, serve]"
    )
    via: Literal["chirun"] | None = Field(default=None, description="for a program that knows nothing of chisocket")
    env: Annotated[dict[EnvName, Text], Field(max_length=64)] = Field(default={}, description="its environment")
    files: Annotated[dict[FileName, File], Field(max_length=16)] = Field(
        default={}, description="what is in its folder: ./payload.bin, or {random: 5MiB}"
    )
    needs: Annotated[tuple[Text, ...], Field(max_length=APPS)] = Field(
        default=(), description="it starts after these apps are ready"
    )
    ready: Ready | None = Field(default=None, description="what tells that it serves")
    expect: Expect | None = Field(
        default=None,
        description="how it has to end; an app without it serves until the run ends",
    )
    timeout: Timeout = Field(default=60.0, description="it has to be ready, or to end, within this")  # seconds
    restart: Restarts = Field(default=0, description="how often it is started anew if it ends as it should not")
    limits: Limits = Field(default=Limits(), description="what it may use")


FORMS = (  # of an event: the keys that it must have, and those that it may
    (("at", "link", "set"), ("for", "from")),
    (("at", "link", "down"), ()),
    (("at", "link", "up"), ()),
    (("at", "partition"), ("for",)),
    (("at", "host", "restart"), ()),
    (("at", "host", "kill"), ()),
    (("at", "host", "pause"), ()),
    (("at", "app", "kill"), ()),
)


def _changes(value: object) -> object:
    if isinstance(value, dict) and "mtu" in value:
        raise ValueError("expected changes without mtu, which is the link's own: it can't change in a run")
    if value == {}:
        raise ValueError("expected at least one change, like {rate: 1mbit}")
    return value


def _apart(groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    seen: set[str] = set()
    for host in (host for group in groups for host in group):
        if host in seen:
            raise ValueError(f"expected groups that have no host in common, but {host} is there twice")
        seen.add(host)
    return groups


Groups = Annotated[
    tuple[Annotated[tuple[Text, ...], Field(min_length=1, max_length=HOSTS)], ...],
    Field(min_length=2, max_length=HOSTS),
    AfterValidator(_apart),
]


class Event(Part):
    """What happens while applications run: it has one of FORMS."""

    at: Moment = Field(description="since the first application was started")  # seconds
    link: Text | None = Field(default=None, description="the link that changes")
    set_: Annotated[LinkChanges, BeforeValidator(_changes)] | None = Field(
        default=None, alias="set", description="what the link does from then on, over its own settings"
    )
    duration: Timeout | None = Field(
        default=None, alias="for", description="after this, all is as it was before"
    )  # seconds
    sender: Text | None = Field(default=None, alias="from", description="only what this end of the link sends")
    down: Down | None = Field(  # seconds; math.inf: until `up`
        default=None, description="nothing passes for so long; `true`: until an event with `up: true`"
    )
    up: TrueOnly = Field(default=False, description="the link is up again")
    partition: Groups | None = Field(
        default=None, description="groups of hosts: those of different groups do not reach each other"
    )
    host: Text | None = Field(default=None, description="the host whose chitcpd it befalls")
    app: Text | None = Field(default=None, description="the app that gets the signal")
    kill: Victim | None = Field(default=None, description="`chitcpd` of a host; the signal, of an app")
    restart: Literal["chitcpd"] | None = Field(default=None, description="the host's chitcpd is ended and started anew")
    pause: Timeout | None = Field(default=None, description="the host's chitcpd stands still for so long")  # seconds

    @model_validator(mode="after")
    def _has_a_form(self) -> Event:
        given = set(self._given())
        matches = [must for must, may in FORMS if set(must) <= given <= {*must, *may}]
        if not matches or (self.kill is not None and (self.kill == "chitcpd") != (self.host is not None)):
            raise ValueError(f"expected one of {'; '.join(map(_form, FORMS))}")
        return self


def _form(form: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
    must, may = form
    words = {("host", "kill"): "kill: chitcpd", ("app", "kill"): "kill: SIGTERM"}
    keys = [words.get((must[1], key), key) for key in must]
    return f"{{{', '.join(keys)}}}" + (f" with {' or '.join(may)}" if may else "")


class Capture(Part):
    """What is captured on each host and router."""

    segments: Flag = Field(default=True, description="the segments of the TCP under study")
    wire: Flag = Field(default=True, description="the packets of the real connections")


class AtMost(Part):
    """A number that must not be exceeded on the connections of an app's host."""

    app: Text = Field(description="on the connections of its host")
    max: Count = Field(description="not more than so many")


class Completes(Part):
    """An app that has to end by itself in time: at most its own `timeout:`, after which it is stopped."""

    app: Text = Field(description="it has to end by itself")
    within: Timeout = Field(description="from its start")  # seconds


class Output(Part):
    """What an app has to write to its standard output: something in it matches a regular expression."""

    app: Text = Field(description="what it has written is searched")
    matches: Pattern = Field(description="a regular expression")


class Goodput(Part):
    """How fast data has to cross, to and from an app's host, each byte counted once: what is sent, if acknowledged."""

    app: Text = Field(description="what crosses to and from its host")
    min: Rate = Field(description="per second")  # bits per second


class Visited(Part):
    """States that connections of an app's host have to pass through."""

    app: Text = Field(description="on the connections of its host")
    all: Annotated[tuple[TcpState, ...], Field(min_length=1)] = Field(description="all of these states")


class Backoff(Part):
    """How often the time-out has to double while nothing comes back, on connections of an app's host."""

    app: Text = Field(description="on the connections of its host")
    min: Doublings = Field(description="so many times in a row")


class Fairness(Part):
    """How evenly apps have to share: Jain's index of what crosses to and from their hosts."""

    apps: Annotated[tuple[Text, ...], Field(min_length=2, max_length=APPS)] = Field(
        description="apps of different hosts"
    )
    min: Index = Field(description="Jain's index: 1 if all get the same, 1/n if one gets all")


class Check(Part):
    """What has to hold after the run: one of these."""

    integrity: Text | None = Field(
        default=None, description="files of this app, not given to it, are what others were given"
    )
    completes: Completes | None = Field(default=None, description="an app ended by itself in time")
    output: Output | None = Field(default=None, description="something on its standard output matches")
    goodput: Goodput | None = Field(default=None, description="so much data crossed, each byte counted once")
    retransmissions: AtMost | None = Field(default=None, description="no more segments of data were sent again")
    resets: AtMost | None = Field(default=None, description="no more segments with RST were sent")
    states: Visited | None = Field(default=None, description="connections passed through all of these")
    backoff: Backoff | None = Field(default=None, description="the retransmission time-out doubled so often")
    fairness: Fairness | None = Field(default=None, description="apps shared evenly")

    @property
    def title(self) -> str:
        """For a person, like "integrity of client"."""
        (kind,) = self.model_fields_set
        asked = getattr(self, kind)
        if isinstance(asked, Fairness):
            return f"{kind} of {', '.join(asked.apps)}"
        return f"{kind} of {asked if kind == 'integrity' else asked.app}"

    @model_validator(mode="after")
    def _one(self) -> Check:
        self._exactly_one()
        return self


class Topology(Part):
    """A whole topology file. References in it (hosts of links, apps of checks...) are checked by `load`."""

    name: LabName = Field(description="of the lab")
    include: Annotated[tuple[Text, ...], Field(max_length=INCLUDED)] = Field(
        default=(), description="files from which this one takes what it does not say itself"
    )
    seed: Seed = Field(default=0, description="all random choices derive from it")
    defaults: Defaults = Field(default=Defaults(), description="for those that say nothing else")
    hosts: Annotated[dict[Name, Annotated[Host, BeforeValidator(_bare)]], Field(min_length=1, max_length=HOSTS)] = (
        Field(description="name -> host")
    )
    routers: Annotated[dict[Name, Annotated[Router, BeforeValidator(_bare)]], Field(max_length=HOSTS)] = Field(
        default={}, description="name -> router; they carry segments on"
    )
    links: Annotated[tuple[Link, ...], Field(max_length=LINKS)] = Field(default=(), description="what joins them")
    apps: Annotated[dict[Name, App], Field(max_length=APPS)] = Field(default={}, description="name -> application")
    events: Annotated[tuple[Event, ...], Field(max_length=EVENTS)] = Field(
        default=(), description="what happens while applications run"
    )
    capture: Capture = Field(default=Capture(), description="what is captured")
    checks: Annotated[tuple[Check, ...], Field(max_length=CHECKS)] = Field(
        default=(), description="what has to hold after the run"
    )
    _variables: dict[str, str] = PrivateAttr(default_factory=dict)
    _inputs: dict[str, OwnFile] = PrivateAttr(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """What stood for each `${NAME}` that the file uses."""
        return self._variables

    @property
    def inputs(self) -> dict[str, OwnFile]:
        """The files that it names, by their paths as it has them."""
        return self._inputs

    def settings(self, link: Link, sender: str) -> LinkSettings:
        """Of what leaves `sender`: this direction's own over the link's, over its preset's, over the defaults."""
        preset = LinkSettings.model_validate(PRESETS[link.link] if link.link else {})
        both_ways = link.over(preset.over(self.defaults.link))
        own = link.directions.get(direction(sender, link.endpoints, link.title), LinkSettings())
        return own.over(both_ways)

    def tcp(self, host: str) -> Tcp:
        """The host's own TCP over the defaults."""
        own = self.hosts[host].tcp
        return self.defaults.host.tcp.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
