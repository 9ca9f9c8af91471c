"""The daemon's sockets: descriptors, and the calls on them that may have to wait.

A socket is of one of two kinds. Of the first, made by `create`, each read and write is a call of ours (the C chiTCP's
way). Of the second, made by `open`, the application has one end of a pair of UNIX sockets, and reads and writes that
(pairs.py); it lives until that end is closed.

A call that has to wait is a coroutine; cancelling it leaves the socket as it is. Errors are OSError with the errno
that the application will see.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import ipaddress
import itertools
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from chisocket.protocol import addresses, descriptors
from chitcpd import options, pairs
from chitcpd.debug import Debugger, Debugging
from chitcpd.demux import ANY, ANY_IPV4, ANY_IPV6, Listener, ip_address, overlap
from chitcpd.driver import Driver, Endpoint
from chitcpd.options import Options
from chitcpd.peers import Peers
from chitcpd.tcp.api import State

Address = tuple[str, int]

MAX_SOCKETS = 8192
_CLOSE_ENDS_IN = frozenset({State.CLOSED, State.FIN_WAIT_2, State.CLOSING, State.TIME_WAIT, State.LAST_ACK})
_ALL_ACKNOWLEDGED = frozenset({State.CLOSED, State.FIN_WAIT_2, State.TIME_WAIT})  # our FIN too
_NO_MORE_TO_READ = frozenset({State.CLOSING, State.LAST_ACK, State.TIME_WAIT})
_MOST_NAMES = 100  # that are tried for a descriptor: another process may have taken some
_MOST_FAILURES = 1024  # that are remembered for those who may still ask
_ORPHAN_LIMIT = 60.0  # seconds without progress (at most twice that): then one that no application has is reset


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
            try:
                await waiter
            except asyncio.CancelledError:
                with suppress(ValueError):  # it was called already
                    self._waiters.remove(waiter)
                raise


class Socket(Signal):
    """One descriptor of an application: fresh, bound, listening or connected."""

    def __init__(self, fd: int, family: int, owner: object, uid: int, its_options: Options) -> None:
        """`owner`: whose end closes it, the connection to the application; None: the pair's."""
        super().__init__()
        self.fd = fd
        self.family = family
        self.owner = owner
        self.uid = uid  # whose user may use it
        self.options = its_options
        self.bound: Address | None = None  # what bind() has given it
        self.local: Address | None = None
        self.listener: Listener | None = None
        self.endpoint: Endpoint | None = None
        self.ours: socket.socket | None = None  # our end of the pair, if it has one
        self.name = b""  # of the application's end
        self.stream: pairs.Stream | None = None  # what carries its data, if it has a pair and is connected
        self.offers: pairs.Offers | None = None  # what hands connections over, if it has a pair and listens
        self.gone = False  # its descriptor is free again
        self.failed = False  # its last connect has failed, and so its pair is shut down
        self.error: int | None = None  # why; the application has not been told yet
        self.debugger: Debugger | None = None  # who watches it

    def connected(self) -> Endpoint:
        """The connection. Raises OSError(ENOTCONN) if there is none."""
        if self.endpoint is None or (self.ours is not None and self.stream is None):
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        return self.endpoint

    @property
    def serial(self) -> int | None:
        """Of its descriptor's name, if it has a pair."""
        name = descriptors.parse(self.name)
        return None if name is None else name.serial

    @property
    def connecting(self) -> bool:
        """Whether the opening of its connection goes on, and it has a pair."""
        return self.ours is not None and self.endpoint is not None and self.stream is None and not self.gone

    @property
    def held(self) -> bool:
        """Whether a debugger holds its connection."""
        return self.endpoint is not None and self.endpoint.held

    @property
    def state(self) -> State:
        """The state of its connection, as RFC 9293 names it."""
        if self.listener is not None:
            return State.LISTEN
        return self.endpoint.connection.state if self.endpoint is not None else State.CLOSED

    def named(self, address: Address) -> Address:
        """An address as this socket's family has it: IPv4 ones mapped, for IPv6 (RFC 4291 §2.5.5.2)."""
        host, port = address
        mapped = self.family == socket.AF_INET6 and ":" not in host
        return (f"::ffff:{host}" if mapped else host, port)


class Sockets:
    """All sockets of this daemon."""

    def __init__(
        self,
        driver: Driver,
        peers: Peers,
        instance: str,
        most_descriptors: int,
    ) -> None:
        """`instance`: in the names of its descriptors.

        `most_descriptors`: the process may have so many open before a pair is made; the rest is for others.
        """
        self._driver = driver
        self._peers = peers
        self._loop = peers.loop
        self._now = peers.loop.time
        self._free = list(range(MAX_SOCKETS))
        self._instance = instance
        self._most_descriptors = most_descriptors
        self._serials = itertools.count()
        self._ends = pairs.Ends(peers.loop, peers.turn)
        self._bound: dict[Address, Socket] = {}  # by what bind() has given them
        self._short_of_sockets: set[Socket] = set()  # listening; a connection of theirs waits for a descriptor
        self.table: dict[int, Socket] = {}
        self.parting: dict[int, Socket] = {}  # that no application has any more, but whose connection is not over
        self._failures: dict[tuple[int, int, int | None], int] = {}  # uid, fd, serial of a closed one -> errno
        self._reserved: dict[Endpoint, Socket] = {}  # that a debugger knows, and no application yet
        self._orphans: dict[int, int] = {}  # number of a connection -> its SND.UNA when orphans were last judged
        self._orphan_timer: asyncio.TimerHandle | None = None
        self._listeners = Signal()
        self.debugging = Debugging(self, driver, peers.loop)

    def get(self, fd: int, uid: int) -> Socket:
        """The socket with this descriptor. Raises OSError(EBADF), also if it is another user's."""
        sock = self.table.get(fd)
        if sock is None or sock.uid != uid or (self._reserved and sock in self._reserved.values()):
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
        return self._new(domain, owner, uid, Options(self._driver.config))

    def open(self, domain: int, kind: int, protocol: int, uid: int) -> tuple[Socket, socket.socket]:
        """A fresh socket, and the application's end of its pair."""
        sock = self.create(domain, kind, protocol, None, uid)
        theirs = self._give_pair(sock)
        pairs.fill(theirs)
        return sock, theirs

    def bind(self, sock: Socket, address: Address) -> None:
        """Give it a local address; port 0 picks one."""
        if sock.state != State.CLOSED or sock.endpoint is not None or (sock.ours is not None and sock.local):
            raise OSError(errno.EBADF if sock.ours is None else errno.EINVAL, "the socket is in use")
        host, port = self._plain(sock, address)
        if host not in (ANY, ANY_IPV4, ANY_IPV6) and not self._peers.is_own(host):
            raise OSError(errno.EADDRNOTAVAIL, f"{host} is no address of this daemon")
        if port == 0:
            port = self._driver.demux.ephemeral_port(host, {bound for _, bound in self._bound})
        self._driver.demux.check_bind(host, port)
        if any(bound == port and overlap(at, host) for at, bound in self._bound):
            raise OSError(errno.EADDRINUSE, f"port {port} is in use")
        sock.bound = sock.local = (host, port)
        self._bound[sock.bound] = sock

    def listen(self, sock: Socket, backlog: int) -> None:
        """Take connections; again, only to change the backlog of one that has a pair."""
        if sock.listener is not None and sock.ours is not None:
            sock.listener.backlog = _backlog(backlog)
            return
        if sock.state != State.CLOSED or sock.endpoint is not None or sock.failed or sock.offers is not None:
            raise OSError(errno.EBADF if sock.ours is None else errno.EINVAL, "the socket is in use")
        if sock.local is None:
            self.bind(sock, (ANY_IPV6 if sock.family == socket.AF_INET6 else ANY_IPV4, 0))
        assert sock.local is not None
        offers = None
        if sock.ours is not None:
            offers = pairs.Offers(sock.ours, self._ends, lambda: self._next_offer(sock))
        changed = sock.changed if offers is None else offers.look
        sock.listener = self._driver.listen(*sock.local, _backlog(backlog), changed, sock.options.config)
        sock.offers = offers
        if sock.ours is not None:
            pairs.empty(sock.ours)
        self.debugging.listens(sock)
        self._listeners.changed()

    async def wait_listening(self, port: int) -> None:
        """Return once some socket listens on `port`."""
        await self._listeners.until(lambda: any(at == port for _, at in self._driver.demux.listeners))

    async def accept(self, sock: Socket, owner: object) -> Socket:
        """The next connection, once there is one that is established or has been."""
        listener = sock.listener
        if listener is None or sock.ours is not None:
            raise OSError(errno.EINVAL, "the socket does not listen, or is accepted from by its descriptor")
        await sock.until(lambda: bool(listener.ready) or sock.listener is None)
        if sock.listener is None:
            raise OSError(errno.EBADF, "the socket was closed")
        new = self._for_accepted(sock, listener.ready[0], owner)
        endpoint = listener.ready.popleft()
        self._adopt(new, endpoint)
        endpoint.changed = new.changed
        return new

    async def connect(self, sock: Socket, peer: Address) -> None:
        """Open a connection; return once it is established."""
        if sock.state != State.CLOSED or sock.endpoint is not None or sock.ours is not None:
            raise OSError(errno.EALREADY, "the socket is in use")
        endpoint = self._begin_connect(sock, peer, sock.changed)
        await sock.until(lambda: endpoint.established or endpoint.over)
        if not endpoint.established:
            sock.endpoint = None
            raise OSError(_error(endpoint) or errno.ECONNABORTED, "the connection could not be opened")

    def start_connect(self, sock: Socket, peer: Address) -> socket.socket | None:
        """Open a connection for a socket with a pair: its end can be written to once that has succeeded.

        Returns the application's end of a new pair, if a former connect has failed: a pair that is shut down stays so.
        If nobody was told how that one has failed, this does, and nothing else.
        """
        if sock.ours is None or sock.listener is not None:
            raise OSError(errno.EOPNOTSUPP, "the socket has no descriptor, or listens")
        if sock.endpoint is not None:
            raise OSError(errno.EISCONN if sock.stream is not None else errno.EALREADY, "the socket is in use")
        if sock.failed and sock.error is not None:
            raise OSError(_take_error(sock), "connecting has failed, and nobody was told")
        endpoint = self._begin_connect(sock, peer, lambda: self._connecting(sock))
        try:
            theirs = self._renew_pair(sock) if sock.failed else None
        except OSError:
            self._driver.abort(endpoint, self._now())
            raise
        self._connecting(sock)  # it may have ended already
        return theirs

    async def wait_connected(self, sock: Socket) -> None:
        """Return once its connection is open. Raises OSError if connecting has failed."""
        await sock.until(lambda: not sock.connecting)
        if sock.stream is None:
            raise OSError(_take_error(sock) or errno.ECONNABORTED, "the connection could not be opened")

    async def send(self, sock: Socket, data: bytes, flags: int = 0) -> int:
        """Queue all of `data`, or as much as the send buffer holds at most; how much that was.

        One that is cancelled returns what it has queued, if anything: it can't be taken back.
        """
        if not data:
            raise OSError(errno.EINVAL, "nothing to send")
        if sock.listener is not None:
            raise OSError(errno.EOPNOTSUPP, "the socket listens")
        endpoint, view, taken = self._without_pair(sock), memoryview(data), 0
        goal = min(len(data), sock.options.config.send_buffer)
        try:
            while True:
                if endpoint.held and not flags & socket.MSG_DONTWAIT:
                    await sock.until(lambda: not endpoint.held)
                self._raise_error(endpoint)
                taken += self._driver.send(endpoint, view[taken:goal], self._now())
                if taken == goal or (taken and flags & socket.MSG_DONTWAIT):
                    return taken
                if not endpoint.held and (self._driver.levels(endpoint).writable > 0 or not _may_send(endpoint)):
                    raise OSError(errno.EIO, "the TCP took less than it said it would")  # and would for ever
                if flags & socket.MSG_DONTWAIT:
                    raise OSError(errno.EAGAIN, "the send buffer is full")
                await sock.until(lambda: self._driver.levels(endpoint).writable > 0 or not _may_send(endpoint))
        except asyncio.CancelledError:
            if taken:
                return taken
            raise

    async def recv(self, sock: Socket, limit: int, flags: int = 0) -> bytes:
        """What has come, at least one byte; b"" at the end of the stream."""
        if limit <= 0:
            raise OSError(errno.EINVAL, "nothing to receive into")
        endpoint = self._without_pair(sock)
        if flags & socket.MSG_DONTWAIT and not self._ready_to_receive(endpoint):
            raise OSError(errno.EAGAIN, "nothing has come")
        await sock.until(lambda: self._ready_to_receive(endpoint))
        levels = self._driver.levels(endpoint)
        if levels.readable and flags & socket.MSG_PEEK:
            if not endpoint.connection.unread:
                raise OSError(errno.EOPNOTSUPP, "the TCP does not show what it has")
            return endpoint.connection.unread[:limit]
        if levels.readable:
            return self._driver.receive(endpoint, limit, self._now())
        if not levels.at_eof:
            self._raise_error(endpoint)
        return b""

    async def turn(self, sock: Socket) -> None:
        """Return once no debugger holds the connection."""
        await sock.until(lambda: not sock.held)

    def shutdown(self, sock: Socket, how: int) -> bool:
        """SHUT_WR and SHUT_RDWR send a FIN; SHUT_RD throws away what comes, if the socket has a pair.

        Returns whether it has one and listens: then the application shuts down its end, and that ends the listening.
        """
        if sock.listener is not None and sock.ours is not None:
            if how != socket.SHUT_WR:
                self._stop_listening(sock)
            return True
        endpoint = sock.connected()
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise OSError(errno.EINVAL, f"{how} is no way to shut down")
        if how != socket.SHUT_WR and sock.stream is not None:
            sock.stream.stop_receiving()
        if how != socket.SHUT_RD and sock.stream is None:  # else the application has shut down its end
            self._driver.close(endpoint, self._now())
        return False

    def get_option(self, sock: Socket, level: int, name: int) -> bytes:
        """The value of a socket option. Raises OSError(ENOPROTOOPT)."""
        if level == socket.SOL_SOCKET and name in _OF_THE_SOCKET:
            return options.integer(_OF_THE_SOCKET[name](sock))
        return options.get(sock.options, sock.state, sock.endpoint, level, name, self._now())

    def set_option(self, sock: Socket, level: int, name: int, value: bytes) -> None:
        """Change a socket option. Raises OSError: ENOPROTOOPT, EINVAL, ENOENT."""
        before = sock.options.config
        options.put(sock.options, level, name, value)
        config = sock.options.config
        if sock.listener is not None:
            sock.listener.config = config
        if sock.endpoint is not None and config is not before and sock.endpoint.connection.state != State.CLOSED:
            self._driver.reconfigure(sock.endpoint, config, self._now())
        if sock.ours is not None and sock.offers is None and config.receive_buffer != before.receive_buffer:
            pairs.bound(sock.ours, config.receive_buffer)  # the other end is the application's to change
        if sock.stream is not None:
            sock.stream.reset_on_close = sock.options.linger == 0

    async def close(self, sock: Socket) -> None:
        """Free the descriptor; a connection is closed, and waited for until it needs no more of us."""
        if sock.ours is not None:
            raise OSError(errno.EOPNOTSUPP, "this socket is closed by its descriptor")
        self._free_descriptor(sock)
        if sock.listener is not None:
            self._stop_listening(sock)
        elif sock.endpoint is not None:
            await self._close_connection(sock, sock.endpoint)

    async def linger(self, fd: int, serial: int, uid: int) -> None:
        """After a descriptor was closed: return once its peer has acknowledged all. Raises OSError if it never will.

        At once if others have it, too, or if the number is another socket's by now.
        """
        named = (sock for sock in (self.table.get(fd), self.parting.get(fd)) if sock is not None and sock.uid == uid)
        sock = next((sock for sock in named if sock.serial == serial), None)
        if sock is None:
            failure = self._failures.pop((uid, fd, serial), None)
            if failure is not None:
                raise OSError(failure, "the connection has failed")
        elif sock.endpoint is not None and (sock.gone or self._ends.is_closed(sock.name)):
            endpoint = sock.endpoint
            await sock.until(lambda: _is_in(endpoint, _ALL_ACKNOWLEDGED))
            self._raise_error(endpoint)

    async def _close_connection(self, sock: Socket, endpoint: Endpoint) -> None:
        if endpoint.connection.state == State.CLOSED:
            raise OSError(errno.ENOTCONN, "the connection is closed")
        self._driver.release(endpoint, self._now())
        self._watch_orphans()
        await sock.until(lambda: _is_in(endpoint, _CLOSE_ENDS_IN))
        self._raise_error(endpoint)

    def forget(self, owner: object) -> None:
        """The application is gone: reset what it leaves."""
        for sock in [s for s in self.table.values() if s.owner is owner]:
            self._give_up(sock)

    def stop_listening(self) -> None:
        """Take no more connections."""
        for sock in [s for s in self.table.values() if s.listener is not None]:
            self._give_up(sock)

    def finish(self) -> None:
        """The end is near: no new connections, and a FIN on each that there is, after its data."""
        self.debugging.end_all()
        self.stop_listening()
        for sock in list(self.table.values()):
            if sock.stream is not None:
                sock.stream.finish()
            elif sock.endpoint is not None:
                with suppress(OSError):  # it is closed already
                    self._driver.close(sock.endpoint, self._now())

    def stop(self) -> None:
        """The end of the daemon."""
        for sock in list(self.table.values()):
            if not sock.gone:  # with the listening one, for which it was reserved
                self._give_up(sock)
        self._ends.close()

    # ---- descriptors ---------------------------------------------------------------------------------------

    def _new(self, family: int, owner: object, uid: int, its_options: Options) -> Socket:
        if not self._free:
            raise OSError(errno.ENOMEM, f"all {MAX_SOCKETS} sockets are in use")
        sock = Socket(heapq.heappop(self._free), family, owner, uid, its_options)
        self.table[sock.fd] = sock
        return sock

    def _free_descriptor(self, sock: Socket) -> None:
        sock.gone = True
        del self.table[sock.fd]
        if sock.bound is not None:
            del self._bound[sock.bound]
        self._remember_failure(sock)
        if sock.endpoint is not None and not sock.endpoint.over:
            self.parting[sock.fd] = sock
            sock.endpoint.changed = lambda: self._parting_changed(sock)
        elif sock.debugger is not None:
            self.debugging.stop(sock)
            return
        if sock.debugger is None:
            self.free_number(sock)

    def _remember_failure(self, sock: Socket) -> None:
        """How the connection of a closed descriptor has failed: whoever closed it may ask a moment later."""
        failure = None if sock.endpoint is None or sock.ours is None else _error(sock.endpoint)
        if failure is not None:
            if len(self._failures) >= _MOST_FAILURES:
                del self._failures[next(iter(self._failures))]
            self._failures[sock.uid, sock.fd, sock.serial] = failure

    def _parting_changed(self, sock: Socket) -> None:
        sock.changed()
        if sock.endpoint is not None and sock.endpoint.over:
            self._remember_failure(sock)
            if self.parting.get(sock.fd) is sock:
                del self.parting[sock.fd]
            self.debugging.stop(sock)

    def is_free(self, fd: int) -> bool:
        """Whether it is the descriptor of no socket."""
        return 0 <= fd < MAX_SOCKETS and fd not in self.table and fd not in self.parting

    def free_number(self, sock: Socket) -> None:
        """A descriptor that is gone may be given to another socket: no debugger calls this one by it any more."""
        heapq.heappush(self._free, sock.fd)
        while self._short_of_sockets:
            listening = self._short_of_sockets.pop()
            if listening.offers is not None:
                self._loop.call_soon(listening.offers.look)

    def _give_up(self, sock: Socket) -> None:
        """Free the descriptor; what is open is reset."""
        self._close_pair(sock)
        self._free_descriptor(sock)
        if sock.listener is not None:
            self._stop_listening(sock)
        elif sock.endpoint is not None:
            self._driver.abort(sock.endpoint, self._now())

    def _stop_listening(self, sock: Socket) -> None:
        assert sock.listener is not None
        listener, sock.listener = sock.listener, None
        self._driver.unlisten(listener, self._now())
        sock.changed()

    # ---- sockets with a pair -------------------------------------------------------------------------------

    def _give_pair(self, sock: Socket) -> socket.socket:
        """Make its pair; the application's end of it. Raises OSError, and then the socket is gone."""
        names = (descriptors.name(self._instance, sock.fd, next(self._serials)) for _ in range(_MOST_NAMES))
        try:
            sock.ours, theirs = pairs.make_pair(names, sock.options.config, self._most_descriptors)
        except OSError:
            self._free_descriptor(sock)
            raise
        sock.name = theirs.getsockname()
        self._ends.watch(sock.ours, sock.name, lambda: self._hung_up(sock))
        return theirs

    def _renew_pair(self, sock: Socket) -> socket.socket:
        self._close_pair(sock)
        theirs = self._give_pair(sock)
        pairs.fill(theirs)
        sock.failed, sock.error = False, None
        return theirs

    def _close_pair(self, sock: Socket) -> None:
        if sock.ours is None:
            return
        self._ends.forget(sock.ours)
        if sock.offers is not None:
            sock.offers.close()
        if sock.stream is not None:
            sock.stream.close()
        sock.ours.close()

    def _hung_up(self, sock: Socket) -> None:
        """The application has closed its end."""
        if sock.stream is None:
            self._give_up(sock)
        else:
            self._watch_orphans()
            sock.stream.hang_up()

    def _stream_ended(self, sock: Socket) -> None:
        """The TCP has all that the application has written; it may still be sending it."""
        self._watch_orphans()
        self._close_pair(sock)
        self._free_descriptor(sock)

    def _connecting(self, sock: Socket) -> None:
        """The opening of a connection goes on, or has ended."""
        endpoint = sock.endpoint
        sock.changed()
        if sock.gone or endpoint is None or sock.ours is None or sock.stream is not None:
            return
        if endpoint.established:
            pairs.empty(sock.ours)
            self._stream(sock, endpoint)
        elif endpoint.over:
            sock.failed, sock.error = True, _error(endpoint) or errno.ECONNABORTED
            sock.endpoint, sock.local = None, sock.bound
            sock.ours.shutdown(socket.SHUT_RDWR)
            pairs.empty(sock.ours)  # select(2) calls what is full not writable, though it is hung up

    def _stream(self, sock: Socket, endpoint: Endpoint) -> None:
        assert sock.ours is not None
        with suppress(OSError):  # somebody else has that name; then the application's end shows none
            sock.ours.bind(descriptors.connected_name(sock.name))
        sock.stream = pairs.Stream(self._peers, sock.ours, self._ends, sock.name, self._driver, endpoint)
        sock.stream.reset_on_close = sock.options.linger == 0
        sock.stream.ended = lambda: self._stream_ended(sock)
        look = sock.stream.changed

        def changed() -> None:
            look()
            sock.changed()

        endpoint.changed = changed
        look()

    def _next_offer(self, listening: Socket) -> pairs.Offer | None:
        """The next connection that waits to be accepted, as it goes to the application."""
        listener = listening.listener
        if listener is None or not listener.ready:
            return None
        try:
            new = self._for_accepted(listening, listener.ready[0], None)
            theirs = self._give_pair(new)
        except OSError:  # no socket is free, or no descriptor of the daemon's: it waits
            self._short_of_sockets.add(listening)
            return None
        endpoint = listener.ready.popleft()
        self._adopt(new, endpoint)
        self._stream(new, endpoint)
        theirs.setblocking(True)
        peer = addresses.pack(new.named(endpoint.four[2:]))
        return peer.ljust(descriptors.RECORD, b"\0"), theirs

    # ---- connections ---------------------------------------------------------------------------------------

    def _begin_connect(self, sock: Socket, peer: Address, changed: Callable[[], None]) -> Endpoint:
        host, port = self._plain(sock, peer)
        to = (host or ANY_IPV6, port)
        made = partial(self.debugging.hold, sock) if sock.debugger is not None else None
        endpoint = self._driver.connect(sock.local or (ANY, 0), to, changed, self._now(), sock.options.config, made)
        self._adopt(sock, endpoint)
        return endpoint

    def reserve(self, listening: Socket, endpoint: Endpoint) -> Socket:
        """A socket for a connection that comes to this one, and may be accepted later. Raises OSError(ENOMEM)."""
        new = self._new(listening.family, endpoint, listening.uid, listening.options.copy())
        self._adopt(new, endpoint)
        self._reserved[endpoint] = new
        endpoint.changed = lambda: self._reserved_changed(new, listening, endpoint)
        return new

    def _reserved_changed(self, new: Socket, listening: Socket, endpoint: Endpoint) -> None:
        new.changed()
        if endpoint.over and not (endpoint.established and listening.listener is not None):  # nobody will accept it
            del self._reserved[endpoint]
            endpoint.changed = new.changed
            self._free_descriptor(new)

    def _for_accepted(self, listening: Socket, endpoint: Endpoint, owner: object) -> Socket:
        """The socket of a connection that is accepted now. Raises OSError(ENOMEM)."""
        new = self._reserved.pop(endpoint, None)
        if new is None:
            return self._new(listening.family, owner, listening.uid, listening.options.copy())
        new.owner = owner
        return new

    def _adopt(self, sock: Socket, endpoint: Endpoint) -> None:
        sock.endpoint = endpoint
        sock.local = endpoint.four[:2]

    def _plain(self, sock: Socket, address: Address) -> Address:
        """The address as the TCP knows it. Raises OSError(EAFNOSUPPORT) if it is not of the socket's family."""
        ip = ip_address(address[0])
        if (ip.version == 6) != (sock.family == socket.AF_INET6):
            raise OSError(errno.EAFNOSUPPORT, f"{address[0]} is not of the socket's address family")
        if isinstance(ip, ipaddress.IPv6Address):
            if ip.ipv4_mapped is not None:
                return str(ip.ipv4_mapped), address[1]
            if ip.is_unspecified and not sock.options.v6only:
                return ANY, address[1]
            return str(ip), address[1]
        return address  # IPv4's have one form only

    def _watch_orphans(self) -> None:
        """There is a connection that no application has any more: would its peer never answer, nobody would notice."""
        if self._orphan_timer is None:
            self._orphan_timer = self._loop.call_later(_ORPHAN_LIMIT, self._judge_orphans)

    def _judge_orphans(self) -> None:
        """Reset those that have made no progress since the last time."""
        before, self._orphans, self._orphan_timer = self._orphans, {}, None
        for endpoint in list(self._driver.demux.connections.values()):
            if not endpoint.orphan or endpoint.connection.state == State.TIME_WAIT:
                continue
            if before.get(endpoint.number) == endpoint.connection.snd_una and not endpoint.held:
                self._driver.abort(endpoint, self._now(), errno.ETIMEDOUT)
            else:
                self._orphans[endpoint.number] = endpoint.connection.snd_una
        if self._orphans:
            self._watch_orphans()

    def _without_pair(self, sock: Socket) -> Endpoint:
        if sock.ours is not None:
            raise OSError(errno.EOPNOTSUPP, "this socket is read and written by its descriptor")
        return sock.connected()

    def _raise_error(self, endpoint: Endpoint) -> None:
        error = _error(endpoint)
        if error is not None:
            raise OSError(error, "the connection has failed")

    def _ready_to_receive(self, endpoint: Endpoint) -> bool:
        if endpoint.held:
            return False
        levels = self._driver.levels(endpoint)
        state = endpoint.connection.state
        return bool(levels.readable) or levels.at_eof or state in _NO_MORE_TO_READ or state == State.CLOSED


def _take_error(sock: Socket) -> int:
    """SO_ERROR: told once."""
    if sock.stream is not None and sock.stream.error is not None:
        error, sock.stream.error = sock.stream.error, 0
    else:
        error, sock.error = sock.error or 0, None
    return error


_OF_THE_SOCKET: dict[int, Callable[[Socket], int]] = {
    socket.SO_ERROR: _take_error,
    socket.SO_ACCEPTCONN: lambda sock: sock.listener is not None,
    socket.SO_DOMAIN: lambda sock: sock.family,
    socket.SO_TYPE: lambda _: socket.SOCK_STREAM,
    socket.SO_PROTOCOL: lambda _: socket.IPPROTO_TCP,
}


def _backlog(asked: int) -> int:
    return min(max(asked, 1), MAX_SOCKETS)


def _error(endpoint: Endpoint) -> int | None:
    return endpoint.error or endpoint.connection.error


def _is_in(endpoint: Endpoint, states: frozenset[State]) -> bool:
    return endpoint.connection.state in states and not endpoint.held


def _may_send(endpoint: Endpoint) -> bool:
    return endpoint.connection.state in (State.ESTABLISHED, State.CLOSE_WAIT)
