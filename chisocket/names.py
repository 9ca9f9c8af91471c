"""Names to addresses: the lab's names in $CHITCP_HOSTS first, then the system's resolver."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket


def resolve(host: str) -> list[str]:
    """The IP addresses of `host`, at least one, IPv4 first. The empty name is the wildcard address.

    Raises socket.gaierror (an OSError) if nobody knows the name, OSError EINVAL if CHITCP_HOSTS can't be read.
    """
    if not host:
        return ["0.0.0.0", "::"]
    lab = lab_hosts()
    if host in lab:
        return [lab[host]]
    if _is_ipv4(host):
        return [host]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise unknown_host(host, error) from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


def unknown_host(host: str, error: Exception) -> socket.gaierror:
    """What to raise for a name, in place of what the system's resolver has raised."""
    lab = lab_hosts()
    known = f"CHITCP_HOSTS names {', '.join(lab)}" if lab else "CHITCP_HOSTS names none"
    code = error.errno if isinstance(error, socket.gaierror) else socket.EAI_NONAME
    return socket.gaierror(code, f"no host is known by the name {host!r} ({known})")


def lab_hosts() -> dict[str, str]:
    """What CHITCP_HOSTS says, like "alice=10.213.0.2 bob=10.213.0.3": name -> address."""
    text = os.environ.get("CHITCP_HOSTS", "")
    return _read_hosts(text) if text else {}


def _read_hosts(text: str) -> dict[str, str]:
    hosts = {}
    for entry in text.split():
        name, _, address = entry.partition("=")
        try:
            hosts[name] = str(ipaddress.ip_address(address))
        except ValueError:
            raise OSError(
                errno.EINVAL, f"CHITCP_HOSTS has {entry!r}, expected NAME=ADDRESS, like alice=10.213.0.2"
            ) from None
    return hosts


def _is_ipv4(host: str) -> bool:
    """Whether it is an address as every resolver writes it: so often asked that no resolver need be."""
    try:
        return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, host)) == host
    except (OSError, ValueError):
        return False
