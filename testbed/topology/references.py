"""What refers to what in a topology, and what makes no sense together: the names of hosts, links and apps.

All of this sees plain data of any shape: it skips what is malformed, which has its own fault already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from ipaddress import IPv4Network
from typing import Any

from pydantic import ValidationError

from chitcpd import settings, units
from testbed.topology.faults import Steps, one_of, printable, quoted, shown
from testbed.topology.model import HOSTS, App, LinkSettings, direction, link_title
from testbed.topology.presets import PRESETS
from testbed.topology.scalars import read_timeout, subnet

_Faults = Iterator[tuple[Steps, str]]

_AROUND = 3  # addresses of a subnet that no end of a link can have: the network, the gateway, the broadcast address


@dataclass(frozen=True, slots=True)
class _Link:
    """A link whose ends can be read, as plain data."""

    index: int
    data: dict[str, Any]
    ends: list[str]

    @property
    def title(self) -> str:
        """By this name events refer to it."""
        name = self.data.get("name")
        return link_title(name if isinstance(name, str) else None, self.ends)

    def directions(self) -> dict[str, str]:
        """Who sends -> the key of what that one sends."""
        return {end: direction(end, self.ends, self.title) for end in self.ends}

    @property
    def path(self) -> Steps:
        """Where it is in the file."""
        return "links", self.index


def references(data: dict[str, Any]) -> _Faults:
    """(path, message) of each fault between the parts of a topology."""
    hosts, routers = data.get("hosts"), _dict(data.get("routers"))
    defaults = _dict(data.get("defaults"))
    links = list(_links(data.get("links")))
    apps = {name: app for name, app in _dict(data.get("apps")).items() if isinstance(app, dict)}
    events = list(enumerate(_mappings(data.get("events"))))
    if isinstance(hosts, dict):  # else each reference to a host would seem wrong
        yield from _names(hosts, routers)
        yield from _unknown_nodes(hosts, routers, data.get("links"))
        yield from _unknown_hosts(hosts, routers, apps, events)
        yield from _images(hosts, apps)
    yield from _contradictory_tcps(_tcp_of(defaults.get("host")), _dict(hosts))
    yield from _endpoints(links)
    yield from _directions(links)
    yield from _link_names(links)
    yield from _subnets(links)
    yield from _impossible_links(_dict(defaults.get("link")), links)
    yield from _needs(apps)
    yield from _events(_dict(defaults.get("link")), links, apps, events)
    yield from _checks(data.get("checks"), apps)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mappings(value: object) -> list[dict[str, Any]]:
    return [_dict(item) for item in _list(value)]


def _links(value: object) -> Iterator[_Link]:
    for index, link in enumerate(_mappings(value)):
        ends = _list(link.get("endpoints"))
        if len(ends) >= 2 and all(isinstance(end, str) for end in ends):
            yield _Link(index, link, ends)


# Hosts and routers


def _names(hosts: dict[str, Any], routers: dict[str, Any]) -> _Faults:
    for name in routers:
        if name in hosts:
            yield ("routers", name), f"found {quoted(name)}, expected another name: a host is called so"
    if len(hosts) <= HOSTS and len(routers) <= HOSTS < len(hosts) + len(routers):
        message = f"found {len(hosts)} hosts and {len(routers)} routers, expected at most {HOSTS} in all"
        yield ("routers",), message


def _unknown_nodes(hosts: dict[str, Any], routers: dict[str, Any], links: object) -> _Faults:
    known = list(dict.fromkeys([*hosts, *routers]))
    what = "a host or router of this topology" if routers else "a host of this topology"
    for index, link in enumerate(_mappings(links)):
        for place, end in enumerate(_list(link.get("endpoints"))):
            if isinstance(end, str) and end not in known:
                yield ("links", index, "endpoints", place), one_of(end, known, what)


def _unknown_hosts(
    hosts: dict[str, Any], routers: dict[str, Any], apps: dict[str, Any], events: list[tuple[int, dict[str, Any]]]
) -> _Faults:
    references: list[tuple[Steps, object]] = [(("apps", name, "host"), app.get("host")) for name, app in apps.items()]
    for index, event in events:
        references.append((("events", index, "host"), event.get("host")))
        for number, group in enumerate(_list(event.get("partition"))):
            path: Steps = ("events", index, "partition", number)
            references += [((*path, place), host) for place, host in enumerate(_list(group))]
    for where, host in references:
        if not isinstance(host, str) or host in hosts:
            continue
        what = "a host of this topology, and no router" if host in routers else "a host of this topology"
        yield where, one_of(host, hosts, what)


def _images(hosts: dict[str, Any], apps: dict[str, Any]) -> _Faults:
    for name, host in ((name, _dict(host)) for name, host in hosts.items()):
        if "command" in host and "image" not in host:
            message = "found a command without an image, expected an `image:` too: the testbed's own has its command"
            yield ("hosts", name, "command"), message
        if "image" in host and "tcp" in host:
            message = "found a tcp beside an image, expected one of them: another chitcpd has settings of its own"
            yield ("hosts", name, "tcp"), message
    for name, app in apps.items():
        host = app.get("host")
        if isinstance(host, str) and "image" in _dict(hosts.get(host)) and "listening" in _dict(app.get("ready")):
            message = f"found listening, expected `output:`: the chitcpd of {host} is another, which can't be asked"
            yield ("apps", name, "ready", "listening"), message


def _tcp_of(host: object) -> dict[str, Any]:
    return _dict(_dict(host).get("tcp"))


def _contradictory_tcps(defaults: dict[str, Any], hosts: dict[str, Any]) -> _Faults:
    """Settings of which each could be, but not both; said at the one that the host has written itself."""
    for host, own in [(host, _tcp_of(hosts[host])) for host in hosts]:
        tcp = {key: value for key, value in (defaults | own).items() if isinstance(value, str)}
        profile = tcp.get("profile")
        for name, other, message in settings.contradictions(profile if profile == "classic" else "modern", tcp):
            if name in own or other in own:
                yield ("hosts", host, "tcp", name if name in own else other), message
            else:
                yield ("defaults", "host", "tcp", name if name in defaults else other), message


# Links


def _endpoints(links: list[_Link]) -> _Faults:
    for link in links:
        at: Steps = (*link.path, "endpoints")
        if len(link.ends) == 2 and link.ends[0] == link.ends[1]:
            yield at, f"found {shown(link.ends[0])} at both ends, expected two hosts"
        elif len(set(link.ends)) < len(link.ends):
            twice = next(end for place, end in enumerate(link.ends) if end in link.ends[:place])
            yield at, f"found {shown(twice)} again, expected each once"
        if len(link.ends) > 2 and "name" not in link.data:
            yield at, f"found {len(link.ends)} endpoints without a name, expected a `name:` for this LAN, like lan"


def _directions(links: list[_Link]) -> _Faults:
    for link in links:
        known = list(link.directions().values())
        if len(link.ends) > 2 and not isinstance(link.data.get("name"), str):
            known = []  # what its directions are called, nobody knows
        for key in link.data:
            if known and "->" in key and key not in known:
                yield (*link.path, key), one_of(key, known, "a direction of this link")
        for number, rule in enumerate(_mappings(link.data.get("drop"))):
            if isinstance(rule.get("from"), str) and rule["from"] not in link.ends:
                at: Steps = (*link.path, "drop", number, "from")
                yield at, one_of(rule["from"], link.ends, "an end of this link")


def _link_names(links: list[_Link]) -> _Faults:
    first: dict[str, int] = {}
    for link in links:
        if link.title in first:
            at = "name" if isinstance(link.data.get("name"), str) else "endpoints"
            owner = f"links[{first[link.title]}]"
            remedy = f"expected a name of its own: {owner} has this one; give one of them another `name:`"
            yield (*link.path, at), f"found the link {quoted(link.title)} again, {remedy}"
        first.setdefault(link.title, link.index)


def _subnets(links: list[_Link]) -> _Faults:
    taken: list[tuple[IPv4Network, int]] = []
    for link in links:
        try:
            network = subnet(link.data.get("subnet"))
        except ValueError:
            continue
        at: Steps = (*link.path, "subnet")
        needed = len(link.ends) + _AROUND
        if network.num_addresses < needed:
            prefix = 32 - (needed - 1).bit_length()
            room = f"{len(link.ends)} endpoints, the network, a gateway and the broadcast address"
            yield at, f"found {network}, expected a /{prefix} or larger, with room for {room}"
        overlapping = next((pair for pair in taken if network.overlaps(pair[0])), None)
        if overlapping is not None:
            yield at, f"found {network}, expected a subnet apart from {overlapping[0]} of links[{overlapping[1]}]"
        taken.append((network, link.index))


def _impossible_links(defaults: dict[str, Any], links: list[_Link]) -> _Faults:
    for link in links:
        below = _both_ways(defaults, link)
        preset = PRESETS.get(str(link.data.get("link")), {})
        for key, message in _impossible(below):
            at: Steps = (*link.path, key if key in link.data else "link")
            yield at if key in link.data or key in preset else ("defaults", "link", key), message
        for way in (key for key in link.data if "->" in key):
            own = _dict(link.data[way])
            for key, message in _impossible(below | own):
                if key in own or (key, message) not in _impossible(below):  # else it is said above
                    yield (*link.path, way, *([key] if key in own else [])), message


def _both_ways(defaults: dict[str, Any], link: _Link) -> dict[str, Any]:
    """What a link does in both directions, as it was written."""
    written = defaults | PRESETS.get(str(link.data.get("link")), {}) | link.data
    return {key: value for key, value in written.items() if key in LinkSettings.model_fields}


def _impossible(given: dict[str, Any]) -> list[tuple[str, str]]:
    """(key, message) of what makes no sense together."""
    readable = _readable({key: value for key, value in given.items() if key in LinkSettings.model_fields})
    # What another key makes meaningless that is malformed: its own fault comes first.
    return [
        (key, message)
        for key, other, message in readable.impossible()
        if other not in given or other in readable.model_fields_set
    ]


def _readable(given: dict[str, Any]) -> LinkSettings:
    """The settings without those that have a fault of their own."""
    try:
        return LinkSettings.model_validate(given)
    except ValidationError as error:
        wrong = {details["loc"][0] for details in error.errors()}
        return LinkSettings.model_validate({key: given[key] for key in given.keys() - wrong})


# Applications


def _needs(apps: dict[str, Any]) -> _Faults:
    graph: dict[str, list[str]] = {}
    for name, app in apps.items():
        graph[name] = []
        for index, need in enumerate(_list(app.get("needs"))):
            if isinstance(need, str) and need in apps:
                graph[name].append(need)
            elif isinstance(need, str):
                yield ("apps", name, "needs", index), one_of(need, apps, "an app of this topology")
    while cycle := _cycle(graph):
        first = min(cycle, key=list(graph).index)
        at = cycle.index(first)
        around = " needs ".join(printable(name) for name in (*cycle[at:], *cycle[:at], first))
        yield ("apps", first, "needs"), f"found a cycle: {around}; expected an order in which apps can start"
        graph = {name: [need for need in graph[name] if need not in cycle] for name in graph if name not in cycle}


def _cycle(graph: dict[str, list[str]]) -> list[str]:
    """Some apps of which each needs the next and the last the first; empty if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[:0:-1]  # graphlib says each that is needed before who needs it, and its first again at the end
    return []


# Events and checks


def _events(
    defaults: dict[str, Any], links: list[_Link], apps: dict[str, Any], events: list[tuple[int, dict[str, Any]]]
) -> _Faults:
    titles = {link.title: link for link in links}
    for index, event in events:
        at: Steps = ("events", index)
        app, name = event.get("app"), event.get("link")
        if isinstance(app, str) and app not in apps:
            yield (*at, "app"), one_of(app, apps, "an app of this topology")
        if not isinstance(name, str):
            continue
        if name not in titles:
            yield (*at, "link"), one_of(name, titles, "the name of a link")
            continue
        link, sender = titles[name], event.get("from")
        if isinstance(sender, str) and sender not in link.ends:
            yield (*at, "from"), one_of(sender, link.ends, "an end of this link")
        elif isinstance(event.get("set"), dict):
            yield from _impossible_changes((*at, "set"), event["set"], defaults, link, sender)
    for title, link in titles.items():
        yield from _impossible_overlaps(defaults, link, [pair for pair in events if pair[1].get("link") == title])


def _impossible_changes(
    at: Steps, changes: dict[str, Any], defaults: dict[str, Any], link: _Link, sender: object
) -> _Faults:
    """What makes no sense once the link has changed, and is not said of the link already."""
    said: list[tuple[str, str]] = []
    for end, way in link.directions().items():
        below = _both_ways(defaults, link) | _dict(link.data.get(way))
        if sender is None or sender == end:
            changed = below | {key: value for key, value in changes.items() if key != "mtu"}
            said += [fault for fault in _impossible(changed) if fault not in _impossible(below)]
    for key, message in dict.fromkeys(said):
        yield (*at, *([key] if key in changes else [])), f"{message}, once the link is changed"


def _impossible_overlaps(defaults: dict[str, Any], link: _Link, events: list[tuple[int, dict[str, Any]]]) -> _Faults:
    """What makes no sense while several events change a link, and is not said of the link, or of one of them."""
    changes = sorted((change for pair in events for change in _lasting(*pair)), key=lambda change: change.begin)
    said: list[tuple[int, str, str]] = []
    seen = []  # of a LAN, most directions are alike
    for end, way in link.directions().items():
        below = _both_ways(defaults, link) | _dict(link.data.get(way))
        own = [change for change in changes if change.sender in (None, end)]
        if (below, own) in seen:
            continue
        seen.append((below, own))
        known = [fault for one in ({}, *(change.settings for change in own)) for fault in _impossible(below | one)]
        for moment in sorted({moment for change in own for moment in (change.begin, change.end)}):
            lasting = [change for change in own if change.begin <= moment < change.end]
            together = below | {key: value for change in lasting for key, value in change.settings.items()}
            for key, message in _impossible(together) if len(lasting) > 1 else ():
                if (key, message) not in known:
                    last = next((change for change in reversed(lasting) if key in change.settings), lasting[-1])
                    said.append((last.index, key, message))
    for index, key, message in dict.fromkeys(said):
        at: Steps = ("events", index, "set")
        settings = next(change.settings for change in changes if change.index == index)
        yield (*at, *([key] if key in settings else [])), f"{message}, while events that overlap change the link"


@dataclass(frozen=True, slots=True)
class _Lasting:
    """What an event changes of a link, and when."""

    index: int
    begin: float
    end: float
    sender: object  # whose direction; None: both
    settings: dict[str, Any]


def _lasting(index: int, event: dict[str, Any]) -> Iterator[_Lasting]:
    try:
        begin = units.seconds(event.get("at"))
        end = begin + units.seconds(event["for"]) if "for" in event else math.inf
    except ValueError:
        return
    if isinstance(event.get("set"), dict):
        settings = {key: value for key, value in event["set"].items() if key != "mtu"}
        yield _Lasting(index, begin, end, event.get("from"), settings)


def _checks(checks: object, apps: dict[str, Any]) -> _Faults:
    for index, check in enumerate(_mappings(checks)):
        for kind, asked in check.items():
            at: Steps = ("checks", index, kind)
            named = _asked_of(at, asked)
            for where, name in named:
                if name not in apps:
                    yield where, one_of(name, apps, "an app of this topology")
            if kind == "integrity" and isinstance(asked, str) and asked in apps:
                yield from _nothing_to_compare(at, asked, apps)
            if kind == "completes":
                yield from _beyond_timeout(at, _dict(asked), apps)
            if kind == "fairness":
                yield from _on_one_host([(where, name) for where, name in named if name in apps], apps)


def _asked_of(at: Steps, asked: object) -> list[tuple[Steps, str]]:
    """(path, name) of each app that a check asks about."""
    names: list[tuple[Steps, object]] = [(at, asked), ((*at, "app"), _dict(asked).get("app"))]
    names += [((*at, "apps", number), app) for number, app in enumerate(_list(_dict(asked).get("apps")))]
    return [(where, name) for where, name in names if isinstance(name, str)]


def _nothing_to_compare(at: Steps, receiver: str, apps: dict[str, Any]) -> _Faults:
    own = _dict(apps[receiver].get("files")).keys()
    if not any(_dict(app.get("files")).keys() - own for app in apps.values()):
        message = (
            f"found {shown(receiver)}, expected another app with `files:` that this one is not given itself, "
            "to compare with what it got"
        )
        yield at, message


def _beyond_timeout(at: Steps, asked: dict[str, Any], apps: dict[str, Any]) -> _Faults:
    """An app that is waited for can't take longer: then it is stopped."""
    name, within = asked.get("app"), asked.get("within")
    if not isinstance(name, str) or name not in apps:
        return
    app = apps[name]
    try:
        limit = read_timeout(app["timeout"]) if "timeout" in app else App.model_fields["timeout"].default
        beyond = read_timeout(within) > limit
    except ValueError:
        return
    if beyond and ("expect" in app or not any("expect" in other for other in apps.values())):
        what = f"found {shown(within)}, expected at most {limit:g}s: then {printable(name)} is stopped"
        yield (*at, "within"), f"{what}, by its own `timeout:`"


def _on_one_host(named: list[tuple[Steps, str]], apps: dict[str, Any]) -> _Faults:
    first: dict[str, str] = {}
    for where, name in named:
        host = apps[name].get("host")
        if isinstance(host, str) and host in first:
            yield where, f"found {shown(name)}, expected an app of another host than {first[host]}, which is on {host}"
        elif isinstance(host, str):
            first[host] = name
