"""What there is of labs on a Docker engine, found by its labels: to be told, and to be removed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from secrets import token_hex
from typing import Any, Literal

from docker import APIClient
from docker.errors import APIError, NotFound

from testbed import saved
from testbed.backends import engine, processes
from testbed.backends.base import Item
from testbed.backends.docker_labels import (
    KIND,
    LAB,
    MAKER,
    NAME,
    NODES,
    OWNER,
    STAYS,
    item_of,
    labels_of,
    name_of,
    owner,
    subnet_of,
)
from testbed.plan import HostPlan, Plan
from testbed.unavailable import Unavailable


class Things:
    """Containers, networks and volumes that bear a lab's label."""

    def __init__(self, api: APIClient) -> None:
        self._api = api

    def containers(self, *label: str) -> list[dict[str, Any]]:
        """Those with all of these labels."""
        found: list[dict[str, Any]] = self._api.containers(all=True, filters={"label": list(label)})
        return found

    def networks(self, *label: str) -> list[dict[str, Any]]:
        """Those with all of these labels."""
        found: list[dict[str, Any]] = self._api.networks(filters={"label": list(label)})
        return found

    def labelled(self, *label: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Containers, networks, volumes with all of these labels."""
        networks = self.networks(*label)
        volumes = self._api.volumes(filters={"label": list(label)})["Volumes"] or []
        return self.containers(*label), networks, volumes

    def labs(self) -> list[str]:
        """Whatever bears a lab's label."""
        with engine.faults():
            return sorted({thing["Labels"][LAB] for things in self.labelled(LAB) for thing in things})

    def garbage(self) -> list[str]:
        """By the labels: what is ours, is not marked as whole and to stay, and was made by a process that is gone."""
        with engine.faults():
            things = list(chain.from_iterable(self.labelled(LAB, f"{OWNER}={owner()}")))
        labels = [thing["Labels"] for thing in things]
        stays = {own[LAB] for own in labels if own.get(STAYS) == "yes" or processes.is_known(own.get(MAKER, ""))}
        return sorted({own[LAB] for own in labels} - stays)

    def items(self, lab: str | None) -> list[Item]:
        """Containers and networks; volumes belong to their containers."""
        label = LAB if lab is None else f"{LAB}={lab}"
        with engine.faults(), ThreadPoolExecutor(engine.WORKERS) as pool:
            containers, networks, _ = self.labelled(label)
            containers = [c for c in containers if c["Labels"][KIND] not in ("beside", "helper")]
            items = [item for item in pool.map(self._container_item, containers) if item is not None]
            items += [item_of(network["Labels"], "link", "up", subnet_of(network)) for network in networks]
        order = ("host", "router", "app", "link")
        return sorted(items, key=lambda item: (item.lab, order.index(item.kind), item.name))

    def _container_item(self, container: dict[str, Any]) -> Item | None:
        try:
            found = self._api.inspect_container(container["Id"])
        except NotFound:
            return None
        state = found["State"]
        told = f"exited {state['ExitCode']}" if state["Status"] == "exited" else str(state["Status"])
        if container["Labels"][KIND] in ("app", "exec"):
            return item_of(container["Labels"], "app", told, shlex.join(found["Config"]["Cmd"]))
        ends = found["NetworkSettings"]["Networks"].values()
        addresses = [end["IPAMConfig"]["IPv4Address"] for end in ends if end["IPAMConfig"]]
        kind: Literal["host", "router"] = "router" if container["Labels"][KIND] == "router" else "host"
        return item_of(container["Labels"], kind, told, " ".join(addresses))

    def mark_whole(self, plan: Plan, *, stays: bool) -> None:
        """Mark the lab as whole; the old mark goes then: at no moment is a lab that is whole without one."""
        before = self.marks(plan.lab)
        nodes = json.dumps([saved.dump(node) for node in plan.nodes])
        self._api.create_volume(
            name_of(plan.lab, "volume", f"whole-{token_hex(4)}"),
            labels={**labels_of(plan, "volume", "whole"), STAYS: "yes" if stays else "no", NODES: nodes},
        )
        for mark in before:
            self.remove_one(self._api.remove_volume, mark["Name"])

    def marks(self, lab: str) -> list[dict[str, Any]]:
        """The volumes that say that the lab is whole, the latest first."""
        found = self._api.volumes(filters={"label": [f"{LAB}={lab}", f"{NAME}=whole"]})["Volumes"] or []
        return sorted(found, key=lambda volume: str(volume["CreatedAt"]), reverse=True)

    def nodes(self, lab: str) -> tuple[HostPlan, ...]:
        """Of a lab, as they were planned: the volume `whole` says it. Raises Unavailable."""
        with engine.faults():
            marks = self.marks(lab)
            if not marks:
                raise Unavailable(f"lab {lab} never came up whole.", f"Remove what is there of it: testbed down {lab}")
            return nodes_in(marks[0])

    def remove(self, *label: str) -> int:
        """Remove all that bears these labels, until nothing does; return how many things that were.

        Again and again, because a controller that was killed may have asked the engine for something that comes only
        now; and another `down` may be at work on the same.
        """
        api = self._api
        removed = 0
        while any(found := self.labelled(*label)):
            containers, networks, volumes = found
            with ThreadPoolExecutor(engine.WORKERS) as pool:
                for remove, ids in (
                    (partial(api.remove_container, v=True, force=True), [c["Id"] for c in containers]),
                    (api.remove_network, [network["Id"] for network in networks]),
                    (api.remove_volume, [volume["Name"] for volume in volumes]),
                ):
                    removed += sum(pool.map(partial(self.remove_one, remove), ids))
        return removed

    def remove_one(self, remove: Callable[[str], None], thing: str) -> bool:
        """Whether it was us who removed it."""
        try:
            remove(thing)
        except NotFound:
            return False
        except APIError as error:
            if engine.is_status(error, 403) and (others := self._attached(thing)):
                raise Unavailable(*_in_use(*others)) from error
            if not engine.is_status(error, 409) or "already in progress" not in str(error.explanation):
                raise
            with suppress(NotFound):
                self._api.wait(thing, condition="removed")
            return False
        return True

    def _attached(self, network: str) -> tuple[str, list[str]] | None:
        """The name of a network, and what is on it."""
        with suppress(NotFound):
            found = self._api.inspect_network(network)
            if names := sorted(end["Name"] for end in found["Containers"].values()):
                return str(found["Name"]), names
        return None


def _in_use(network: str, others: list[str]) -> tuple[str, str]:
    """What is said of a network of a lab on which there is what does not belong to the lab."""
    commands = "; ".join(f"docker network disconnect {network} {name}" for name in others)
    return f"the network {network} can't be removed: {', '.join(others)} is on it.", f"{commands}; then try again."


def nodes_in(mark: dict[str, Any]) -> tuple[HostPlan, ...]:
    """What a volume `whole` says of the lab's nodes."""
    return tuple(map(saved.load, json.loads(mark["Labels"][NODES])))
