"""Both ways to use a daemon behind one face; `python -m tests.chisocket.ends KIND HOST` echoes over either."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Self

import chisocket


class Number:
    """A descriptor of the daemon's: each call is a request (chisocket_*)."""

    def __init__(self, family: int, sockfd: int | None = None) -> None:
        self._family = family
        self._sockfd = chisocket.chisocket_socket(family, socket.SOCK_STREAM, 0) if sockfd is None else sockfd

    def listen_at(self, host: str) -> int:
        """Returns the port."""
        chisocket.chisocket_bind(self._sockfd, (host, 0))
        chisocket.chisocket_listen(self._sockfd, 5)
        return chisocket.chisocket_getsockname(self._sockfd)[1]

    def accept(self) -> Number:
        return Number(self._family, chisocket.chisocket_accept(self._sockfd)[0])

    def connect(self, host: str, port: int) -> None:
        chisocket.chisocket_connect(self._sockfd, (host, port))

    def send(self, data: bytes) -> int:
        return chisocket.chisocket_send(self._sockfd, data)

    def recv(self, limit: int) -> bytes:
        return chisocket.chisocket_recv(self._sockfd, limit)

    def send_end(self) -> None:
        chisocket.chisocket_shutdown(self._sockfd, socket.SHUT_WR)

    def close(self) -> None:
        """Also of a connection that is over: in TIME-WAIT, a reset may have ended it since (RFC 1337)."""
        try:
            chisocket.chisocket_close(self._sockfd)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise


class Descriptor:
    """A descriptor of this process: reads and writes are its kernel's (chisocket.socket)."""

    def __init__(self, family: int, sock: chisocket.socket | None = None) -> None:
        self._sock = sock or chisocket.socket(family)

    def listen_at(self, host: str) -> int:
        """Returns the port."""
        self._sock.bind((host, 0))
        self._sock.listen(5)
        return int(self._sock.getsockname()[1])

    def accept(self) -> Self:
        return type(self)(self._sock.family, self._sock.accept()[0])

    def connect(self, host: str, port: int) -> None:
        self._sock.connect((host, port))

    def send(self, data: bytes) -> int:
        return self._sock.send(data)

    def recv(self, limit: int) -> bytes:
        return self._sock.recv(limit)

    def send_end(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()


KINDS: dict[str, type[Number] | type[Descriptor]] = {"functions": Number, "descriptors": Descriptor}


def family_of(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def send_all(end: Number | Descriptor, data: bytes) -> None:
    while data:
        data = data[end.send(data) :]


def main(kind: str, host: str) -> None:
    """Print the port, echo one connection to its end."""
    listener = KINDS[kind](family_of(host))
    print(listener.listen_at(host), flush=True)
    end = listener.accept()
    while data := end.recv(10_000):
        send_all(end, data)
    end.close()
    listener.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
