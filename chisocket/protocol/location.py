"""Where the UNIX sockets of this host's chitcpd are: the daemon makes them there, its clients look for them there."""

from __future__ import annotations

import functools
import os
import pwd


def socket_path() -> str:
    """$CHITCPD_SOCK, else /tmp/chitcpd.socket.<login>, else (nobody of that name) /tmp/chitcpd.socket."""
    return os.environ.get("CHITCPD_SOCK") or _default_path()


def control_path(path: str) -> str:
    """Where the chitcpd whose applications' socket is `path` has its socket for control.

    $CHITCPD_CONTROL, which belongs to the socket that `socket_path` names; for another, `path`.control.
    """
    return (path == socket_path() and os.environ.get("CHITCPD_CONTROL")) or f"{path}.control"


@functools.cache
def _default_path() -> str:
    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number that its /etc/passwd does not know
        return "/tmp/chitcpd.socket"
    return f"/tmp/chitcpd.socket.{login}"
