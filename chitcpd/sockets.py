"""The daemon's sockets: descriptors, and the calls on them that may have to wait.

A call that has to wait is a coroutine; cancelling it leaves the socket as it is. Errors are OSError with the errno
that the application will see.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import socket
from collections.abc import Callable
from dataclasses import dataclass

from chitcpd.demux import ANY, Listener
from chitcpd.driver import Driver, Endpoint
from chitcpd.tcp.api import State

Address = tuple[str, int]

MAX_SOCKETS = 1024
_CLOSE_ENDS_IN = frozenset({State.CLOSED, State.FIN_WAIT_2, State.CLOSING, State.TIME_WAIT, State.LAST_ACK})
_NO_MORE_TO_READ = frozenset({State.CLOSING, State.LAST_ACK, State.TIME_WAIT})


class Signal:
    """Something that may change, and those who wait for it to be as they want."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def changed(self) -> None:
        """Whoever waits looks again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds."""
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


@dataclass(eq=False)
class Socket(Signal):
    """One descriptor of an application: fresh, bound, listening or connected."""

    fd: int
    family: int
    owner: object  # whose end closes it: the connection to the application
    uid: int  # whose user may use it
    local: Address | None = None
    listener: Listener | None = None
    endpoint: Endpoint | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def connected(self) -> Endpoint:
        """The connection. Raises OSError(ENOTCONN) if there is none."""
        if self.endpoint is None:
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        return self.endpoint

    @property
    def state(self) -> State:
        """The state of its connection, as RFC 9293 names it."""
        if self.listener is not None:
            return State.LISTEN
        return self.endpoint.connection.state if self.endpoint is not None else State.CLOSED


class Sockets:
    """All sockets of this daemon."""

    def __init__(self, driver: Driver, is_own: Callable[[str], bool], clock: Callable[[], float]) -> None:
        """`is_own`: whether an address is one of this daemon's."""
        self._driver = driver
        self._is_own = is_own
        self._now = clock
        self._free = list(range(MAX_SOCKETS))
        self.table: dict[int, Socket] = {}
        self._listeners = Signal()

    def get(self, fd: int, uid: int) -> Socket:
        """The socket with this descriptor. Raises OSError(EBADF), also if it is another user's."""
        sock = self.table.get(fd)
        if sock is None or sock.uid != uid:
            raise OSError(errno.EBADF, f"no socket {fd}")
        return sock

    def create(self, domain: int, kind: int, protocol: int, owner: object, uid: int) -> Socket:
        """A fresh socket with the lowest free descriptor."""
        if domain not in (socket.AF_INET, socket.AF_INET6):
            raise OSError(errno.EAFNOSUPPORT, f"address family {domain} is neither AF_INET nor AF_INET6")
        if kind != socket.SOCK_STREAM:
            raise OSError(errno.ESOCKTNOSUPPORT, "only SOCK_STREAM")
        if protocol not in (0, socket.IPPROTO_TCP):
            raise OSError(errno.EPROTONOSUPPORT, "only IPPROTO_TCP")
        if not self._free:
            raise OSError(errno.ENOMEM, f"all {MAX_SOCKETS} sockets are in use")
        sock = Socket(heapq.heappop(self._free), domain, owner, uid)
        self.table[sock.fd] = sock
        return sock

    def bind(self, sock: Socket, address: Address) -> None:
        """Give it a local address; port 0 picks one."""
        if sock.state != State.CLOSED or sock.endpoint is not None:
            raise OSError(errno.EBADF, "the socket is in use")
        host, port = _any(address[0]), address[1]
        if host != ANY and not self._is_own(host):
            raise OSError(errno.EADDRNOTAVAIL, f"{host} is no address of this daemon")
        if port == 0:
            bound = {s.local[1] for s in self.table.values() if s.local is not None}
            port = self._driver.demux.ephemeral_port(host, bound)
        self._driver.demux.check_bind(host, port)
        if any(s.local is not None and s.local[1] == port and _overlap(s.local[0], host) for s in self.table.values()):
            raise OSError(errno.EADDRINUSE, f"port {port} is in use")
        sock.local = (host, port)

    def listen(self, sock: Socket, backlog: int) -> None:
        """Take connections."""
        if sock.state != State.CLOSED or sock.endpoint is not None:
            raise OSError(errno.EBADF, "the socket is in use")
        if sock.local is None:
            self.bind(sock, (ANY, 0))
        assert sock.local is not None
        sock.listener = self._driver.listen(*sock.local, min(backlog, MAX_SOCKETS), sock.changed)
        self._listeners.changed()

    async def wait_listening(self, port: int) -> None:
        """Return once some socket listens on `port`."""
        await self._listeners.until(lambda: any(at == port for _, at in self._driver.demux.listeners))

    async def accept(self, sock: Socket, owner: object) -> Socket:
        """The next connection, once there is one that is established or has been."""
        listener = sock.listener
        if listener is None:
            raise OSError(errno.EINVAL, "the socket does not listen")
        await sock.until(lambda: bool(listener.ready) or sock.listener is None)
        if sock.listener is None:
            raise OSError(errno.EBADF, "the socket was closed")
        new = self.create(sock.family, socket.SOCK_STREAM, 0, owner, sock.uid)
        new.endpoint = listener.ready.popleft()
        new.endpoint.changed = new.changed
        new.local = new.endpoint.four[:2]
        return new

    async def connect(self, sock: Socket, peer: Address) -> None:
        """Open a connection; return once it is established."""
        if sock.state != State.CLOSED or sock.endpoint is not None:
            raise OSError(errno.EALREADY, "the socket is in use")
        local = sock.local or (ANY, 0)
        endpoint = sock.endpoint = self._driver.connect(local, peer, sock.changed, self._now())
        sock.local = endpoint.four[:2]
        await sock.until(lambda: endpoint.established or endpoint.connection.state == State.CLOSED)
        if not endpoint.established:
            sock.endpoint = None
            raise OSError(_error(endpoint) or errno.ECONNABORTED, "the connection could not be opened")

    async def send(self, sock: Socket, data: bytes) -> int:
        """Queue all of `data`, or as much as the send buffer holds at most; how much that was."""
        if not data:
            raise OSError(errno.EINVAL, "nothing to send")
        if sock.listener is not None:
            raise OSError(errno.EOPNOTSUPP, "the socket listens")
        endpoint, view, taken = sock.connected(), memoryview(data), 0
        goal = min(len(data), endpoint.connection.config.send_buffer)
        while True:
            self._raise_error(endpoint)
            taken += self._driver.send(endpoint, view[taken:goal], self._now())
            if taken == goal:
                return taken
            if endpoint.connection.writable > 0 or not _may_send(endpoint):
                raise OSError(errno.EIO, "the TCP took less than it said it would")  # and would for ever
            await sock.until(lambda: endpoint.connection.writable > 0 or not _may_send(endpoint))

    async def recv(self, sock: Socket, limit: int) -> bytes:
        """What has come, at least one byte; b"" at the end of the stream."""
        if limit <= 0:
            raise OSError(errno.EINVAL, "nothing to receive into")
        endpoint = sock.connected()
        connection = endpoint.connection
        await sock.until(lambda: _ready_to_receive(endpoint))
        if connection.readable:
            return self._driver.receive(endpoint, limit, self._now())
        if not connection.at_eof:
            self._raise_error(endpoint)
        return b""

    def shutdown(self, sock: Socket, how: int) -> None:
        """SHUT_WR and SHUT_RDWR send a FIN; SHUT_RD has no effect on the connection."""
        endpoint = sock.connected()
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise OSError(errno.EINVAL, f"{how} is no way to shut down")
        if how != socket.SHUT_RD:
            self._driver.close(endpoint, self._now())

    async def close(self, sock: Socket) -> None:
        """Free the descriptor; a connection is closed, and waited for until it needs no more of us."""
        self._free_descriptor(sock)
        if sock.listener is not None:
            listener, sock.listener = sock.listener, None
            self._driver.unlisten(listener, self._now())
            sock.changed()
            return
        endpoint = sock.endpoint
        if endpoint is None:
            return
        if endpoint.connection.state == State.CLOSED:
            raise OSError(errno.ENOTCONN, "the connection is closed")
        self._driver.release(endpoint, self._now())
        await sock.until(lambda: endpoint.connection.state in _CLOSE_ENDS_IN)

    def forget(self, owner: object) -> None:
        """The application is gone: reset what it leaves."""
        for sock in [s for s in self.table.values() if s.owner is owner]:
            self._free_descriptor(sock)
            if sock.listener is not None:
                self._driver.unlisten(sock.listener, self._now())
            elif sock.endpoint is not None:
                self._driver.abort(sock.endpoint, self._now())

    def _free_descriptor(self, sock: Socket) -> None:
        del self.table[sock.fd]
        heapq.heappush(self._free, sock.fd)

    def _raise_error(self, endpoint: Endpoint) -> None:
        error = _error(endpoint)
        if error is not None:
            raise OSError(error, "the connection has failed")


def _error(endpoint: Endpoint) -> int | None:
    return endpoint.error or endpoint.connection.error


def _may_send(endpoint: Endpoint) -> bool:
    return endpoint.connection.state in (State.ESTABLISHED, State.CLOSE_WAIT)


def _ready_to_receive(endpoint: Endpoint) -> bool:
    connection = endpoint.connection
    ended = connection.state in _NO_MORE_TO_READ or connection.state == State.CLOSED
    return bool(connection.readable) or connection.at_eof or ended


def _any(host: str) -> str:
    return ANY if host in ("0.0.0.0", "::") else host


def _overlap(a: str, b: str) -> bool:
    return a == b or ANY in (a, b)
