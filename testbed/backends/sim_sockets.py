"""chisocket in virtual time: what the applications use of it, by calls of their host's simulated daemon."""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Callable, Generator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self, TypeVar

from chitcpd.sim import Host, Listener, Signal, Socket, Wait

if TYPE_CHECKING:
    from testbed.backends.sim_apps import AppLife

T = TypeVar("T")


class Chisocket:
    """chisocket: what the applications use of it."""

    SHUT_RD, SHUT_WR, SHUT_RDWR = socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR

    def __init__(self, life: AppLife) -> None:
        self._life = life
        self.socket = _Socket

    def create_connection(self, address: tuple[str, int]) -> _Socket:
        """A connection to (name, port). Raises OSError."""
        return _Socket(self._life, (self._resolve(address[0]), address[1]))

    def create_server(self, address: tuple[str, int]) -> _Listening:
        """A listener on a port of all addresses. Raises OSError."""
        return _Listening(self._life, address[1])

    def _resolve(self, name: str) -> str:
        hosts = self._life.hosts
        if name in hosts:
            return hosts[name]
        try:
            return str(ip_address("127.0.0.1" if name == "localhost" else name))
        except ValueError:
            known = f"CHITCP_HOSTS names {', '.join(hosts)}"
            raise socket.gaierror(socket.EAI_NONAME, f"no host is known by the name {name!r} ({known})") from None


class End:
    """What an application has of its host's daemon: a socket, with the daemon that was there when it was made."""

    def __init__(self, life: AppLife, gone: int) -> None:
        """`gone`: the errno that tells of the daemon's end. Raises OSError if it is gone already."""
        self._life = life
        self._node = life.node
        self._gone = errno.ENETDOWN
        self.host: Host = life.node.host
        self._require_daemon()
        self._gone = gone
        life.sockets[self] = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it, if it is not closed."""
        if self in self._life.sockets:
            del self._life.sockets[self]
            if self._alive and not self._node.hold(self._close):
                self._node.lab.speaking = self._node
                self._close()

    def _close(self) -> None:
        """What the daemon does then."""

    def _wait(self, what: Signal) -> None:
        """Wait for a change, or for something that befalls the daemon."""
        self._node.waiting[what] = None
        try:
            self._life.wait(what)
        finally:
            self._node.waiting.pop(what, None)

    def _ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """Do something with the daemon, as soon as it answers. Raises OSError, in the system's words."""
        still = Signal(self._life.clock.simulation)
        while self._node.paused:
            self._wait(still)
        self._require_daemon()
        self._node.lab.speaking = self._node
        try:
            return call(*arguments)
        except OSError as error:
            raise _of_the_system(error.errno or errno.EIO) from None

    def _blocking(self, steps: Generator[Wait, None, T]) -> T:
        """What waits in a simulated host."""
        while True:
            try:
                waits_for = self._ask(next, steps)
            except StopIteration as done:
                result: T = done.value
                return result
            assert isinstance(waits_for, Signal)
            self._wait(waits_for)

    @property
    def _alive(self) -> bool:
        return self._node.runs and self._node.host is self.host

    def _require_daemon(self) -> None:
        if not self._alive:
            raise _of_the_system(self._gone)


class _Socket(End):
    """chisocket.socket, connected."""

    def __init__(self, life: AppLife, connected: Socket | tuple[str, int]) -> None:
        """`connected`: a connection that was accepted, or where to connect to. Raises OSError."""
        super().__init__(life, errno.ECONNRESET)
        self._opening: Generator[Wait, None, Socket] | None = None
        if isinstance(connected, tuple):
            self._opening = self._ask(self.host.connect, *connected)
            try:
                connected = self._blocking(self._opening)
            except OSError:
                self.close()
                raise
            self._opening = None
        self._socket = connected

    def recv(self, limit: int) -> bytes:
        """At least one byte, b"" at the end."""
        return self._blocking(self._socket.recv(limit))

    def sendall(self, data: bytes) -> None:
        """Wait until all of it is in the send buffer."""
        self._blocking(self._socket.send(data))

    def makefile(self, mode: str) -> io.BufferedReader:
        """A file of what comes."""
        if mode != "rb":
            raise ValueError(f"a simulated socket has no file of mode {mode!r}")
        return io.BufferedReader(_Incoming(self))

    def shutdown(self, how: int) -> None:
        """No more sending."""
        if how != socket.SHUT_RD:
            self._ask(self._socket.shutdown)

    def _close(self) -> None:
        if self._opening is not None:
            self._opening.close()
        else:
            self._socket.close()


class _Incoming(io.RawIOBase):
    """What comes on a socket, as a file."""

    def __init__(self, from_: _Socket) -> None:
        self._from = from_

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._from.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Listening(End):
    """chisocket.socket, listening on all addresses of its host."""

    def __init__(self, life: AppLife, port: int) -> None:
        super().__init__(life, errno.EINVAL)
        self._listener: Listener | None = None
        try:
            self._listener = self._ask(self.host.listen, port)
        except BaseException:
            self.close()
            raise
        self._port = self._listener.port
        life.changed()

    def accept(self) -> tuple[_Socket, tuple[str, int]]:
        """The next connection, and the peer's address. Raises OSError(EINVAL) after a shutdown."""
        listener = self._listener
        if listener is None:
            raise _of_the_system(errno.EINVAL)
        accepted = self._blocking(self._until_shut(listener))
        four = accepted.endpoint.four
        return _Socket(self._life, accepted), (four.peer, four.peer_port)

    def getsockname(self) -> tuple[str, int]:
        """Where it listens."""
        return "0.0.0.0", self._port

    def shutdown(self, how: int) -> None:
        """Take no more; who waits to accept is told."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            self._ask(listener.close)
            listener.changed()

    def _until_shut(self, listener: Listener) -> Generator[Wait, None, Socket]:
        steps = listener.accept()
        while self._listener is listener:
            try:
                yield next(steps)
            except StopIteration as done:
                accepted: Socket = done.value
                return accepted
        raise _of_the_system(errno.EINVAL)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _of_the_system(number: int) -> OSError:
    return OSError(number, os.strerror(number))
