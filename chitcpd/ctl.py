"""Asks a running daemon: `chitcpd ctl`, and the function behind it that the testbed uses."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import socket
import sys
import time
from typing import Any

from chisocket.names import resolve
from chisocket.protocol import chitcpd_pb2 as pb
from chisocket.protocol import framing
from chisocket.protocol.location import control_path, socket_path
from chitcpd import ss, units
from chitcpd.control import HARMLESS, ControlError

__all__ = ["ControlError", "main", "request"]

_RETRY = 0.01  # seconds between two tries to reach a daemon that is starting
_LINK_UNITS = {
    "delay": units.seconds,
    "jitter": units.seconds,
    "rate": units.bits_per_second,
    "loss": units.probability,
    "duplicate": units.probability,
    "reorder": units.probability,
    "corrupt": units.probability,
}


def request(
    path: str, command: str, arguments: dict[str, Any], *, wait: float = 0.0, timeout: float | None = 5.0
) -> dict[str, Any]:
    """The answer of the daemon whose UNIX socket for applications is `path`.

    `wait`: for how many seconds to try, if no daemon is there yet; `timeout`: for how many seconds to wait for the
    answer, None for ever. Raises OSError if no daemon answers (TimeoutError if one is there), ControlError if it
    refuses.
    """
    with _connect(path if command in HARMLESS else control_path(path), time.monotonic() + wait) as sock:
        sock.settimeout(timeout)
        init = pb.InitArgs(connection_type=pb.COMMAND_CONNECTION)
        _exchange(sock, pb.ChitcpdMsg(code=pb.INIT, init_args=init))
        control = pb.ControlArgs(command=command, json=json.dumps(arguments).encode())
        resp = _exchange(sock, pb.ChitcpdMsg(code=pb.CONTROL, control_args=control))
    if resp.error_code:
        raise ControlError(resp.buf.decode(errors="replace") or os.strerror(resp.error_code))
    answer = json.loads(resp.buf)
    assert isinstance(answer, dict)
    return answer


def _connect(path: str, until: float) -> socket.socket:
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            if time.monotonic() >= until:
                raise OSError(error.errno, f"no chitcpd answers at {path}: is it running?") from None
            time.sleep(_RETRY)  # the file appears when the daemon is ready; nothing else tells of that
        except PermissionError:
            sock.close()
            raise PermissionError(errno.EACCES, f"{path} belongs to another user") from None
        except OSError:
            sock.close()
            raise
        else:
            return sock


def _exchange(sock: socket.socket, message: pb.ChitcpdMsg) -> pb.Resp:
    sock.sendall(framing.encode(message))
    body = _receive(sock, framing.body_length(_receive(sock, framing.LENGTH.size)))
    return framing.decode(body).resp


def _receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise ConnectionResetError(errno.ECONNRESET, "the daemon has closed the connection")
        data += chunk
    return data


def main(arguments: list[str]) -> int:
    """`chitcpd ctl ...`; the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        return _serve(parsed.socket) if parsed.command == "serve" else _ask(parsed)
    except KeyboardInterrupt:
        return 130


def _ask(parsed: argparse.Namespace) -> int:
    """One request, and its answer printed."""
    try:
        command, content, timeout = _command(parsed)
        answer = request(parsed.socket, command, content, wait=parsed.wait, timeout=timeout)
        if parsed.command == "link" and command == "links":  # how it is now
            answer = request(parsed.socket, "link", {"peer": content["links"][0]["peers"][0]})
    except TimeoutError:
        what = f"no application listens on port {parsed.port}" if parsed.command == "listening" else "no answer in time"
        print(f"chitcpd ctl: {what}", file=sys.stderr)
        return 1
    except (OSError, ControlError, ValueError, framing.ProtocolError) as error:
        print(f"chitcpd ctl: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    if parsed.command == "sockets" and sys.stdout.isatty() and not parsed.json:
        print(ss.table(answer, shutil.get_terminal_size().columns))
    else:
        print(json.dumps(answer, indent=2 if sys.stdout.isatty() else None))
    return 0


def _serve(path: str) -> int:
    """Requests from the standard input, answers to the standard output: for who has many, or is in a hurry."""
    for line in sys.stdin:
        try:
            asked = json.loads(line)
            arguments, wait = asked["arguments"], asked.get("wait", 0.0)
            answer: dict[str, Any] = {"answer": request(path, asked["command"], arguments, wait=wait)}
        except (OSError, ControlError, ValueError, KeyError, TypeError, framing.ProtocolError) as error:
            answer = {"error": str(getattr(error, "strerror", None) or error)}
        print(json.dumps(answer), flush=True)
    return 0


def _command(parsed: argparse.Namespace) -> tuple[str, dict[str, Any], float | None]:
    """(command, its arguments, time-out) of a command line. Raises ValueError."""
    if parsed.command == "link":
        return *_link(resolve(parsed.peer)[0], parsed.settings), 5.0
    if parsed.command == "listening":
        return "wait_listening", {"port": parsed.port}, parsed.wait or 0.1
    if parsed.command == "request":
        return parsed.name, _json(parsed.json), None
    return parsed.command, {}, 5.0


def _link(peer: str, words: list[str]) -> tuple[str, dict[str, Any]]:
    if not words:
        return "link", {"peer": peer}
    return "links", {"links": [{"peers": [peer], **_settings([] if words == ["reset"] else words)}]}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the arguments are no JSON: {error}") from None


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected a whole number") from None


def _settings(words: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            if name in _LINK_UNITS:
                settings[name] = _LINK_UNITS[name](value)
            elif name == "own":
                settings[name] = value
            elif name in ("mtu", "seed"):
                settings[name] = _whole_number(value)
            elif name == "queue":
                settings["queue"] = units.queue(value)
            else:
                known = ", ".join(sorted([*_LINK_UNITS, "mtu", "own", "queue", "seed"]))
                raise ValueError(f"unknown setting {name!r}, expected one of {known}")
        except ValueError as error:
            raise ValueError(f"{word}: {error}") from None
    if (queue := settings.pop("queue", None)) is not None:
        limit = queue.limit(rate=settings.get("rate"), delay=settings.get("delay", 0.0))
        settings["queue_packets"], settings["queue_bytes"] = limit
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chitcpd ctl", description="Ask a running chitcpd.")
    parser.add_argument("-s", "--socket", default=socket_path(), help="its UNIX socket (default: %(default)s)")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="try for so long (default: once)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("ping", help="is it there, and which TCP does it run?")
    sockets = commands.add_parser(
        "sockets", help="its sockets and their connections; what happened to segments on links"
    )
    sockets.add_argument("--json", action="store_true", help="as JSON on a terminal too")
    link = commands.add_parser(
        "link",
        help="show or change what happens to segments towards a peer",
        epilog="Example: chitcpd ctl link bob loss=5% delay=20ms rate=10mbit queue=100pkt. `chitcpd ctl link bob` "
        "shows the link, `chitcpd ctl link bob reset` makes it perfect again.",
    )
    link.add_argument("peer", help="the peer's IP address, or its name in $CHITCP_HOSTS or the system's resolver")
    link.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="or the word `reset`; nothing: show it")
    listening = commands.add_parser("listening", help="wait (--wait) until an application listens on a port")
    listening.add_argument("port", type=int)
    commands.add_parser("serve", help="read requests, one JSON object in a line, and answer each in a line")
    raw = commands.add_parser("request", help="any request, as JSON")
    raw.add_argument("name")
    raw.add_argument("json")
    return parser
