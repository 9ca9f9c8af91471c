"""What the command lines of the applications share: HOST:PORT, and failures told in one sentence."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator

import chisocket

Endpoint = tuple[str, int]

_PEER_ERRORS = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
}


class Failed(Exception):
    """The application could not do what it was asked to; the text says why, and what to do."""


def port(text: str) -> int:
    """An argument PORT."""
    if not (text.isascii() and text.isdigit()) or int(text) > 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: expected a number from 0 to 65535")
    return int(text)


def endpoint(text: str) -> Endpoint:
    """An argument HOST:PORT, like bob:7000 or [::1]:7000."""
    host, colon, number = text.rpartition(":")
    if not colon or not host:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT: expected something like bob:7000")
    return host.removeprefix("[").removesuffix("]"), port(number)


@contextlib.contextmanager
def connected(to: Endpoint) -> Iterator[chisocket.socket]:
    """A connection to `to`, for the block. Raises Failed, with what to do, if there is none or it breaks."""
    host, number = to
    try:
        connection = chisocket.create_connection(to)
    except OSError as error:
        if error.errno not in _PEER_ERRORS:
            raise  # of the name, or of our own daemon: the text says which
        remedy = f"is a server running there? Its chitcpd knows: `chitcpd ctl listening {number}`"
        raise Failed(f"can't connect to {host}:{number} ({reason(error)}): {remedy}") from None
    try:
        with connection:
            yield connection
    except OSError as error:
        if error.errno not in _PEER_ERRORS:
            raise
        remedy = "see what the server printed, and the logs of both chitcpd"
        raise Failed(f"the connection to {host}:{number} broke ({reason(error)}): {remedy}") from None


def run(name: str, command: Callable[[], int]) -> int:
    """The exit status of `command`; failures go to stderr in one sentence, with status 1."""
    try:
        return command()
    except Failed as failure:
        return complain(name, str(failure))
    except OSError as error:
        return complain(name, reason(error))
    except KeyboardInterrupt:
        return 130


def say(text: str) -> None:
    """Print a line at once and in one piece: many threads do, and somebody may wait for it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(name: str, text: str) -> int:
    """Tell a person on stderr that something failed; returns the exit status 1."""
    sys.stderr.write(f"{name}: {text}\n")
    sys.stderr.flush()
    return 1


def reason(error: OSError) -> str:
    """What a person is told of an OSError."""
    text = error.strerror or str(error)
    return f"{os.fspath(error.filename)}: {text}" if error.filename else text
