"""What this machine can do for a lab, found out by doing it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed import backends, state
from testbed.backends import local, wire
from testbed.backends.base import Report
from testbed.unavailable import Unavailable

_SHAPE = "tc qdisc add dev lo root netem delay 1ms && tc qdisc del dev lo root"
_WITHOUT_NETEM = (
    "chitcpd does delay, jitter and rate itself then, and the run's manifest says so. "
    "`sudo modprobe sch_netem` helps if the kernel has the module."
)


_BRIDGES = "/proc/sys/net/bridge/bridge-nf-call-iptables"


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that was tried."""

    name: str
    ok: bool
    found: str
    remedy: str = ""  # what to do about it, or what goes without it


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was tried, and the backend that a run takes here; None: none works."""

    probes: tuple[Probe, ...]
    backend: str | None
    why: str


def examine(report: Report) -> Findings:
    """Try everything that a lab needs, telling `report` of each before it is tried."""
    probes: list[Probe] = []
    for name, attempt in ATTEMPTS.items():
        report(f"trying {name}")
        probes.append(_try(name, attempt))
    report("choosing a backend")
    try:
        choice = backends.choose()
    except Unavailable as unavailable:
        return Findings(tuple(probes), None, str(unavailable))
    return Findings(tuple(probes), choice.backend.name, choice.why)


def _try(name: str, attempt: Callable[[], str]) -> Probe:
    try:
        return Probe(name, True, attempt())
    except Unavailable as unavailable:
        return Probe(name, False, str(unavailable), unavailable.remedy)


# Each attempt returns what it found, or raises Unavailable with what goes without it.


def _python() -> str:
    """An application's `python`, from a directory that is not ours, as on the local backend."""
    remedy = "Install testbed in a virtual environment (`make demo` does), and run it from there."
    command = ["python", "-c", "import chisocket, sys; print(sys.version.split()[0], 'at', sys.executable)"]
    tried = _run(command, local.environment(), remedy)
    if tried.returncode != 0:
        said = tried.stderr.splitlines() or [f"status {tried.returncode}"]
        raise Unavailable(f"an application's `python` can't use chisocket ({said[-1]}).", remedy)
    return f"{tried.stdout.strip()}, and it has chisocket"


def _run(command: list[str], environment: dict[str, str], remedy: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=20, env=environment, cwd="/", check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"it could not be tried: {error}.", remedy) from error


def _engine() -> str:
    from testbed.backends import engine

    api = engine.connect(1)
    try:
        with engine.faults():
            found = api.version(api_version=False)
    finally:
        api.close()
    return f"Docker {found['Version']} on kernel {found['KernelVersion']}, and we may use its socket"


def _image() -> str:
    backends.get("docker").check()
    return "the image is there"


def _netem_here() -> str:
    # An ordinary user may do it in a user namespace of its own, where the system lets them make one.
    namespace = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    environment = {**os.environ, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"}
    tried = _run([*namespace, "sh", "-c", _SHAPE], environment, _WITHOUT_NETEM)
    if tried.returncode != 0:
        raise Unavailable(" ".join(tried.stderr.split()) or f"status {tried.returncode}", _WITHOUT_NETEM)
    return "a qdisc was added and deleted in a scratch network namespace"


def _netem_in_the_engine() -> str:
    """The same in a container, with the rights that a host's container has."""
    status, said = _in_the_engine(["sh", "-c", _SHAPE], network_mode="none")
    if status != 0:
        raise Unavailable(" ".join(said.split()) or f"status {status}", _WITHOUT_NETEM)
    return "a qdisc was added and deleted in a container"


def _in_the_engine(command: list[str], *, network_mode: str) -> tuple[int, str]:
    from testbed.backends import docker_hosts, engine

    backends.get("docker").check()
    api = engine.connect(1)
    try:
        with engine.faults():
            return docker_hosts.try_out(api, command, network_mode=network_mode)
    finally:
        api.close()


def _bridges_of_the_engine() -> str:
    """Whether the engine's machine sends what crosses a bridge through its firewall, which knows no routers of ours."""
    status, said = _in_the_engine(["cat", _BRIDGES], network_mode="host")
    if status == 0 and said.strip() != "0":
        raise Unavailable(
            "the engine's firewall sees what crosses a bridge (br_netfilter), and stops plain IP past routers.",
            "Segments pass routers all the same: only ping, and hosts with an `image:` of their own, are held up. "
            "`sysctl net.bridge.bridge-nf-call-iptables=0` on the engine's machine lets them pass.",
        )
    return "what crosses a bridge passes no firewall"


def _tcpdump() -> str:
    """Capture in earnest, for a moment."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        try:
            command = wire.command(["127.0.0.1"], local.port())
            with log.open("wb") as errors:
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
            try:
                wire.wait_listening(process, log)
            finally:
                process.terminate()
                process.wait()
        except wire.NoCapture as why:
            raise Unavailable(f"{why}.", why.remedy) from why
    return f"{command[0]} captures on the loopback interface"


def _state_directory() -> str:
    return str(state.directory())


def _addresses() -> str:
    addresses = ("127.64.0.2", "127.64.0.3", "127.127.255.254")
    taken = backends.get("local").subnets_in_use()
    free = [address for address in addresses if f"{address}/32" not in taken]  # a lab that is up is no fault
    for address in free:
        local.check_address(address)
    return f"port {local.port()} is free on {', '.join(free)}" if free else f"all used by labs: {', '.join(addresses)}"


#: What is tried -> how, in the order in which it is shown.
ATTEMPTS: dict[str, Callable[[], str]] = {
    "Python": _python,
    "Docker engine": _engine,
    "Docker image": _image,
    "netem here": _netem_here,
    "netem in the engine": _netem_in_the_engine,
    "bridges of the engine": _bridges_of_the_engine,
    "tcpdump": _tcpdump,
    "state directory": _state_directory,
    "loopback addresses": _addresses,
}
