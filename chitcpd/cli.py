"""The command line of chitcpd."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import grp
import ipaddress
import json
import logging
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import chitcpd
from chisocket.protocol.location import control_path, socket_path
from chitcpd import ctl, settings
from chitcpd.daemon import Announcement, Settings, StartError, serve
from chitcpd.loader import REFERENCE, LoadError, load, try_out
from chitcpd.tcp.api import PROFILES, Config
from chitcpd.trace import VERBOSE

_DEFAULT_PORT = 23300
_LEVELS = (logging.INFO, VERBOSE, logging.DEBUG, 1)  # none, -v, -vv, -vvv
_USAGE, _CANT_START = 2, 3
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGE = 1 << 22  # bytes: only what is larger is asked of the kernel by itself
_KEPT = 1 << 26  # bytes that are free at the end of the heap: what is more goes back


def main() -> None:
    """`chitcpd ...`, or `chitcpd ctl ...`."""
    if sys.argv[1:2] == ["ctl"]:
        sys.exit(ctl.main(sys.argv[2:]))
    parser = _parser()
    arguments = parser.parse_args()
    try:
        config = settings.configure(arguments.profile, dict(arguments.set))
    except ValueError as error:
        parser.error(f"argument --set: {error}")
    if arguments.settings:
        print(f"Profile {arguments.profile}; --set NAME=VALUE changes a setting:\n")
        print(settings.listing(config, max(shutil.get_terminal_size().columns, 40)))
        return
    _set_up_logging(arguments.verbose)
    announcement = _announcement(arguments.announce)  # first: what a TCP prints as it is loaded is for the log
    try:
        _collect_less()
        _keep_memory()
        asyncio.run(serve(_settings(arguments, config, announcement)))
    except LoadError as error:
        print(f"chitcpd: --tcp: {error}", file=sys.stderr)
        sys.exit(_USAGE)
    except StartError as error:
        print(f"chitcpd: {error}", file=sys.stderr)
        sys.exit(_CANT_START)


def _announcement(name: str | None) -> Announcement | None:
    """The standard output as it was; what is written there from now on goes to the standard error."""
    if name is None:
        return None
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return Announcement(name, descriptor)


def _settings(arguments: argparse.Namespace, config: Config, announcement: Announcement | None) -> Settings:
    tcp = load(arguments.tcp)
    try_out(tcp, arguments.tcp, config)
    seed = os.urandom(16) if arguments.seed is None else str(arguments.seed).encode()
    return Settings(
        port=arguments.port,
        socket=arguments.socket,
        group=arguments.group,
        control=arguments.control or control_path(arguments.socket),
        addresses=arguments.bind or ["0.0.0.0"],
        tcp_name=arguments.tcp,
        tcp=tcp,
        profile=arguments.profile,
        changes=dict(arguments.set),
        config=config,
        seed=seed,
        capture=arguments.capture,
        trace=arguments.trace,
        forwards=arguments.forward,
        links=arguments.links,
        announcement=announcement,
        append=arguments.append,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chitcpd",
        description="The chiTCP daemon: holds a TCP for the applications of this host, and carries its segments to "
        "the daemons of other hosts.",
        epilog="`chitcpd ctl --help`: ask a running daemon. Example of two hosts on one machine: "
        "chitcpd --bind 127.0.0.2 -s /tmp/a.sock & chitcpd --bind 127.0.0.3 -s /tmp/b.sock -v",
    )
    port = os.environ.get("CHITCPD_PORT", str(_DEFAULT_PORT))
    parser.add_argument(
        "-p",
        "--port",
        type=_port,
        default=port,
        help="the port of all daemons of a lab (default: $CHITCPD_PORT, else 23300)",
    )
    parser.add_argument("-s", "--socket", default=socket_path(), help="the applications' socket (default: %(default)s)")
    parser.add_argument("--group", type=_group, metavar="NAME", help="a group whose members may use that socket too")
    parser.add_argument(
        "--control", metavar="PATH", help="the socket of `chitcpd ctl` (default: $CHITCPD_CONTROL, else SOCKET.control)"
    )
    parser.add_argument("-c", "--capture", metavar="FILE.pcap", help="write every segment, as plain TCP packets")
    parser.add_argument("--trace", metavar="FILE.jsonl", help="write a JSON line for every event")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log segments and states; -vv calls too")
    parser.add_argument(
        "--bind",
        action="append",
        type=_address,
        metavar="ADDRESS",
        help="an address of ours; again for more (default: 0.0.0.0, all of this host's)",
    )
    parser.add_argument(
        "--tcp",
        default=REFERENCE,
        metavar="FILE.py|MODULE:CLASS",
        help="the TCP to run: a subclass of chitcpd.tcp.api.TcpConnection (default: %(default)s)",
    )
    parser.add_argument(
        "--profile",
        choices=sorted(PROFILES, reverse=True),
        default="modern",
        help="what the settings begin with: as today's TCPs have them, or as the C chitcpd (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        type=_setting,
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the TCP over the profile's, like rto_min=1s, receive_buffer=64KiB, nagle=off or "
        "congestion=newreno; again for more",
    )
    parser.add_argument(
        "--settings",
        action="store_true",
        help="list all settings, with their values, what else they may be, and what they are for; then end",
    )
    parser.add_argument(
        "--links",
        type=_links,
        metavar="FILE|JSON",
        default=os.environ.get("CHITCPD_LINKS", "[]"),
        help="how peers are reached, as `chitcpd ctl request links` takes it (default: $CHITCPD_LINKS)",
    )
    parser.add_argument("--forward", action="store_true", help="be a router: carry segments on, from link to link")
    parser.add_argument(
        "--announce",
        metavar="NAME",
        help="say on the standard output, in JSON, when it is ready, and what the links that are to be probed do",
    )
    parser.add_argument("--append", action="store_true", help="go on with the trace and the capture that are there")
    parser.add_argument("--seed", type=int, help="the same ports, and secret of sequence numbers, in each run")
    parser.add_argument("--version", action="version", version=f"chitcpd {chitcpd.__version__}")
    return parser


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=VALUE, like rto_min=200ms; --settings lists them")
    return name, value


def _group(text: str) -> int:
    try:
        return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no group {text!r}") from None


def _links(text: str) -> list[dict[str, Any]]:
    try:
        links = json.loads(text if text.startswith("[") else Path(text).read_text())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        links = None
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise argparse.ArgumentTypeError("expected a list of objects, in JSON")
    return links


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address, like 10.0.0.2") from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535")
    return int(text)


def _collect_less() -> None:
    """Each connection leaves cycles behind, so the garbage collector stays; but its work was a tenth of all."""
    gc.freeze()
    gc.set_threshold(10_000)


def _keep_memory() -> None:
    """What a burst of data took stays for the next one: memory from the kernel costs a page fault for each 4 KiB.

    glibc asks the kernel for all that is large, and gives it back as soon as it is free, unless it is told otherwise.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


class _Formatter(logging.Formatter):
    """`[16:01:00.674312866]     tcp-socket-1 [S1] SENT ...`, as the C chitcpd writes it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more with a traceback."""
        nanoseconds = f"{record.created % 1:.9f}"[1:]
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = record.getMessage()
        source = f"tcp-socket-{message[2 : message.index(']')]}" if message.startswith("[S") else "chitcpd"
        text = f"[{clock}{nanoseconds}] {source:>16} {message}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _set_up_logging(verbose: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=_LEVELS[min(verbose, len(_LEVELS) - 1)], handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.WARNING)
