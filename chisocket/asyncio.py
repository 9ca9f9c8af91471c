"""asyncio's own streams, over chiTCP: `open_connection` and `start_server`, as `asyncio` has them.

from chisocket.asyncio import open_connection

reader, writer = await open_connection("bob", 7000)
"""

from __future__ import annotations

import asyncio
import socket as system
from collections.abc import Awaitable, Callable
from typing import Any

from chisocket._socket import DEFAULT_BACKLOG, create_server, socket
from chisocket.names import resolve

_Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


async def open_connection(
    host: str, port: int, *, local_addr: tuple[str, int] | None = None, ssl: Any = None, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As asyncio.open_connection(): to the first of the host's addresses that accepts."""
    if ssl and "server_hostname" not in options:
        options["server_hostname"] = host
    sock = await _connect(host, port, local_addr)
    try:
        return await asyncio.open_connection(sock=sock, ssl=ssl, **options)
    except BaseException:
        sock.close()
        raise


async def start_server(
    client_connected_cb: _Client, host: str = "", port: int = 0, *, backlog: int = DEFAULT_BACKLOG, **options: Any
) -> asyncio.Server:
    """As asyncio.start_server(), for one address; the host "" is each of this host's, IPv4 and IPv6."""
    if host:
        family = system.AF_INET6 if ":" in resolve(host)[0] else system.AF_INET
        sock = create_server((host, port), family=family, backlog=backlog)
    else:
        sock = create_server(("", port), family=system.AF_INET6, dualstack_ipv6=True, backlog=backlog)
    try:
        return await asyncio.start_server(client_connected_cb, sock=sock, **options)
    except BaseException:
        sock.close()
        raise


async def _connect(host: str, port: int, local_addr: tuple[str, int] | None) -> socket:
    errors = []
    for ip in await asyncio.to_thread(resolve, host):
        sock = socket(system.AF_INET6 if ":" in ip else system.AF_INET, proto=system.IPPROTO_TCP)
        try:
            sock.setblocking(False)
            if local_addr is not None:
                sock.bind(local_addr)
            await asyncio.get_running_loop().sock_connect(sock, (ip, port))
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            errors.append(error)
        else:
            return sock
    try:
        raise errors[0]
    finally:
        errors.clear()
