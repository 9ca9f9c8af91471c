"""PyTCP, another TCP in Python: one end of a connection, the kernel the other, over a TAP interface.

Everything is in a network namespace of its own. That way has two hops fewer than ours, and one TCP in Python, not two:
it is a figure to be seen beside ours, and no way to reach it by.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks import paths
from benchmarks.measures import MB, US, Findings, Quantities, Session, Unavailable, benchmark, figure
from benchmarks.processes import python, running, succeeds
from benchmarks.traffic import OURS, bulk, round_trip, segment_size

_PYTCP = "PyTCP"
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]
_INTERFACE, _KERNEL, _HOST, _PREFIX = "tap7", "10.9.0.1", "10.9.0.2", 24
_BULK_PORT, _ECHO_PORT = 7000, 7001
_ROOM = 1 << 16  # bytes that it takes at once


@benchmark("pytcp", "the same by PyTCP, another TCP in Python: bulk and ping-pong, segments of 1,460 bytes")
def pytcp(session: Session) -> Findings:
    """What others reach in this language."""
    if find_spec("pytcp") is None:
        raise Unavailable("PyTCP is not installed; pip install PyTCP does that")
    if not os.access("/dev/net/tun", os.W_OK) or not succeeds([*_NAMESPACE, "true"]):
        raise Unavailable(
            "it needs /dev/net/tun and a network namespace of its own, which this machine does not give us"
        )
    with session.daemons(*segment_size(1460)) as ours:
        samples = session.in_turns({OURS: partial(_ours, ours, session), _PYTCP: partial(_theirs, session)})
    return Findings(
        [
            figure(samples, "goodput", "MB/s", "more", of=OURS, beside=_PYTCP),
            figure(samples, "median", "µs", "less", of=OURS, beside=_PYTCP),
        ]
    )


def _ours(way: paths.Way, session: Session) -> Quantities:
    return {"goodput": bulk(way, session)["goodput"], "median": round_trip(way, session)["median"]}


def _theirs(session: Session) -> Quantities:
    with running([*_NAMESPACE, *python("benchmarks.pytcp", session.effort.seconds)]) as program:
        return program.result()


# ---- the program in the namespace ------------------------------------------------------------------------------


def main() -> None:
    """Let kernel TCP talk to PyTCP for so many seconds, and say what it saw."""
    seconds = float(sys.argv[1])
    _start()
    for port, serve in ((_BULK_PORT, _take_all), (_ECHO_PORT, _send_back)):
        threading.Thread(target=_serve, args=(_listening(port), serve), daemon=True).start()
    sent, trips = _client("bulk-client", _BULK_PORT, seconds), _client("echo-client", _ECHO_PORT, seconds)
    print(json.dumps({"goodput": sent["bytes"] / sent["seconds"] / MB, "median": trips["median"] * US}), flush=True)
    os._exit(0)  # its threads go on


def _start() -> None:
    from pytcp import TcpIpStack, config

    for command in (
        f"tuntap add {_INTERFACE} mode tap",
        f"address add {_KERNEL}/{_PREFIX} dev {_INTERFACE}",
        f"link set {_INTERFACE} up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    config.LOG_CHANEL.clear()  # it logs each packet otherwise
    TcpIpStack(interface=_INTERFACE, ip4_address=f"{_HOST}/{_PREFIX}", ip4_gateway=_KERNEL).start()


def _listening(port: int) -> Any:
    from pytcp.lib import socket

    listener = socket.socket(family=socket.AF_INET4, type=socket.SOCK_STREAM)
    listener.bind((_HOST, port))
    listener.listen()
    return listener


def _serve(listener: Any, serve: Callable[[Any], None]) -> None:
    sock, _ = listener.accept()
    serve(sock)
    sock.close()


def _take_all(sock: Any) -> None:
    while sock.recv(_ROOM):
        pass
    sock.send(b"!")


def _send_back(sock: Any) -> None:
    while data := sock.recv(_ROOM):
        sock.send(data)


def _client(workload: str, port: int, seconds: float) -> dict[str, Any]:
    with running(python("benchmarks.programs", workload, f"tcp:{_HOST}:{port}", f"seconds={seconds}")) as client:
        return client.result()


if __name__ == "__main__":
    main()
