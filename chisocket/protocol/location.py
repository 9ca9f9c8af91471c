"""Where the UNIX socket of this host's chitcpd is: the daemon makes it there, its clients look for it there."""

from __future__ import annotations

import functools
import os
import pwd


def socket_path() -> str:
    """$CHITCPD_SOCK, else /tmp/chitcpd.socket.<login>, else (nobody of that name) /tmp/chitcpd.socket."""
    return os.environ.get("CHITCPD_SOCK") or _default_path()


@functools.cache
def _default_path() -> str:
    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number that its /etc/passwd does not know
        return "/tmp/chitcpd.socket"
    return f"/tmp/chitcpd.socket.{login}"
