"""What the docker backend's things are called, what they bear, and what holds for each of its containers."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from typing import Any, Literal

from docker import APIClient
from docker.types import DriverConfig, LogConfig, Mount

from chitcpd import __version__
from testbed import saved
from testbed.backends import processes
from testbed.backends.base import Item
from testbed.plan import HostPlan, Plan

LAB, RUN, KIND, NAME = "org.chitcp.lab", "org.chitcp.run", "org.chitcp.kind", "org.chitcp.name"
OWNER = "org.chitcp.owner"  # who made it, and on which machine
MAKER = "org.chitcp.maker"  # the process there that did
PRINT = "org.chitcp.print"  # of a host: saved.fingerprint
FOREIGN = "org.chitcp.foreign"  # of a host: it runs another chitcpd
STAYS, NODES = "org.chitcp.stays", "org.chitcp.nodes"  # of the volume `whole`
Kind = Literal["host", "router", "beside", "app", "exec", "link", "volume", "helper"]

# The image's side of the contract: see the Dockerfile.
USER, UID = "chitcp", 23300
SOCKET_DIRECTORY, WORK = "/run/chitcp", "/work"
TCP_FILE = "tcp.py"
GRACE = 3  # seconds between SIGTERM and SIGKILL
_MOST_LOG = "1g"  # bytes that an application may write


def image() -> str:
    """Ours."""
    return os.environ.get("CHITCP_IMAGE") or f"chitcp:{__version__}"


def name_of(lab: str, kind: Kind, name: str) -> str:
    """What the engine calls it; no name of a lab has a dot, so that no two things have one."""
    return f"chitcp-{lab}.{kind}-{name}"


def kind_of(node: HostPlan) -> Literal["host", "router", "beside"]:
    """That of the container of ours that shapes and captures the node's links."""
    return "beside" if node.image is not None else "router" if node.forwards else "host"


def owner() -> str:
    """This user, on this machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def labels_of(plan: Plan, kind: Kind, name: str) -> dict[str, str]:
    """What a thing of this lab bears."""
    own = {LAB: plan.lab, RUN: plan.run_id, KIND: kind, NAME: name}
    return {**own, OWNER: owner(), MAKER: processes.this_one()}


def print_of(api: APIClient, plan: Plan, node: HostPlan) -> str:
    """The same for the same host, of the same images (saved.fingerprint). Raises ImageNotFound."""
    images = [image_id(api, name) for name in (image(), node.image) if name is not None]
    return saved.fingerprint(node, plan.capture_segments, plan.capture_wire, images)


def volume(
    plan: Plan, kind: Literal["host", "app"], name: str, target: str, *, driver: DriverConfig | None = None
) -> Mount:
    """A volume, made by the first container that has it: as the directory is there in our image, or by a driver."""
    labels = labels_of(plan, "volume", f"{kind}-{name}")
    return Mount(target, name_of(plan.lab, kind, name), labels=labels, no_copy=driver is not None, driver_config=driver)


def host_of(container: dict[str, Any]) -> str:
    """The host, or router, that a container is of, or that its application is on."""
    labels = container["Labels"]
    if labels[KIND] not in ("app", "exec"):
        return str(labels[NAME])
    sockets = (mount["Name"] for mount in container["Mounts"] if mount.get("Destination") == SOCKET_DIRECTORY)
    return next(sockets, "").removeprefix(name_of(labels[LAB], "host", ""))


def item_of(labels: dict[str, str], kind: Literal["host", "router", "app", "link"], state: str, detail: str) -> Item:
    """A line of `ps`, from labels."""
    return Item(labels[LAB], labels[RUN], kind, labels[NAME], state, detail)


def environment(host: HostPlan) -> dict[str, str]:
    """Of whatever runs on a host."""
    return {"CHITCP_HOSTS": " ".join(f"{name}={address}" for name, address in host.names.items())}


def confined() -> dict[str, Any]:
    """What holds for every container of a lab."""
    return {
        "cap_drop": ["ALL"],
        "mem_limit": "512m",
        "pids_limit": 256,
        "init": True,  # a program that does not handle SIGTERM would not end by it as process 1
        # An engine's own default may be one that can't be read back, or has no end.
        "log_config": LogConfig(type="json-file", config={"max-size": _MOST_LOG}),
    }


def subnet_of(network: dict[str, Any]) -> str:
    """As text; of one of ours it is one."""
    return ", ".join(subnet for subnet, _ in subnets(network))


def subnets(network: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each subnet of a network, and who has it."""
    lab = (network["Labels"] or {}).get(LAB)
    owner = f"Docker network {network['Name']}" + (f" of lab {lab}" if lab else "")
    for pool in network["IPAM"]["Config"] or []:
        if "Subnet" in pool:
            yield pool["Subnet"], owner


def subnets_in_use(api: APIClient) -> dict[str, str]:
    """Of all networks of the engine -> who has them."""
    return {subnet: owner for network in api.networks() for subnet, owner in subnets(network)}


def image_id(api: APIClient, name: str) -> str:
    """The digest of an image. Raises ImageNotFound."""
    return str(api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
