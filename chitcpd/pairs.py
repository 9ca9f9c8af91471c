"""Pairs of UNIX sockets: one end is an application's descriptor, the other the daemon's.

What the application writes goes to the TCP as far as the TCP has room, what the TCP has received goes to the
application as far as the pair has: so the TCP's flow control is the application's. Kernel buffers between them are
no larger than the TCP's own.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache

from chitcpd.driver import Driver, Endpoint
from chitcpd.peers import Peers
from chitcpd.tcp.api import Config
from chitcpd.turns import Turn

log = logging.getLogger(__name__)

_AT_ONCE = 1 << 18  # bytes of one system call
_MOST_BUFFER = 1 << 17  # bytes that one end of a pair holds; the kernel makes it twice as much
_BALLAST = 1 << 18  # bytes, more than any end holds
_scratch = memoryview(bytearray(_AT_ONCE))  # what is read from an application: memory that is new costs page faults
_NOT_ALL = select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLHUP  # with these, a short read is not the last
_WORTH_READING = 4  # the part of the TCP's send buffer that must be free again


def make_pair(names: Iterable[bytes], config: Config, most_descriptors: int) -> tuple[socket.socket, socket.socket]:
    """(our end, the application's end, which bears the first of `names` that is free), neither of which blocks.

    Raises OSError(EMFILE) if the process has `most_descriptors` open already.
    """
    # What one end has sent is counted there; the kernel takes 4 KiB at least, and counts its own overhead too.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if max(ours.fileno(), theirs.fileno()) >= most_descriptors:  # the kernel gives the lowest number that is free
            raise OSError(errno.EMFILE, "the daemon's descriptors are in use")
        _bind_first(theirs, names)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        bound(ours, config.receive_buffer)
        bound(theirs, config.send_buffer)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return ours, theirs


def _bind_first(theirs: socket.socket, names: Iterable[bytes]) -> None:
    for name in names:
        with suppress(OSError):
            theirs.bind(name)
            return
    raise OSError(errno.EADDRINUSE, "the names of descriptors are in use")


def bound(end: socket.socket, buffer: int) -> None:
    """Let it hold about as much of what is written to it as the TCP's own buffer, of so many bytes."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(buffer // 2, _MOST_BUFFER))


def fill(theirs: socket.socket) -> None:
    """Let the application's end take no more: who waits to write to it waits until connect has ended."""
    with suppress(BlockingIOError):
        while True:
            os.sendfile(theirs.fileno(), _ballast(), 0, _BALLAST)
    theirs.setblocking(True)


@cache
def _ballast() -> int:
    """A file of zeros: the kernel need not copy what is sent of it, and fills an end in half the time."""
    file = os.memfd_create("ballast")
    os.truncate(file, _BALLAST)
    return file


def empty(ours: socket.socket) -> None:
    """Throw away what is in the application's end now: who waits to write to it may go on."""
    waiting = struct.unpack("i", fcntl.ioctl(ours, termios.FIONREAD, bytes(4)))[0]
    source, sink, nowhere = drain()
    with suppress(OSError):
        while waiting > 0 and (moved := os.splice(ours.fileno(), sink, waiting)):
            waiting -= os.splice(source, nowhere, moved)


@cache
def drain() -> tuple[int, int, int]:
    """A pipe's two ends, and /dev/null: the kernel need not copy what goes that way, nor do our caches fill with it."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    return *os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC), nowhere


class Ends:
    """Tells when an application has written or read, and when it has closed its end, also while we don't read ours.

    One epoll for all of them, in which each end stands once, for as long as it is there: it tells of what is new
    (EPOLLET), so nothing need be changed there while the TCP has no room. Who is told that data has come reads all of
    it, or remembers that there is more. The kernel calls a pair hung up as soon as both directions are shut down, and
    wakes us again when the other end is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn) -> None:
        self._loop = loop
        self._turn = turn
        self._epoll = select.epoll()
        self._probe = _unnamed()
        drain()  # now: strangers may have all descriptors later
        self._closed: dict[int, tuple[bytes, Callable[[], None]]] = {}  # our end -> the other's name, whom to tell
        self._others: dict[int, Callable[[int], None]] = {}  # our end -> whom to tell of other events
        loop.add_reader(self._epoll.fileno(), self._tell)

    def is_closed(self, name: bytes) -> bool:
        """Whether nobody has the end with this name any more, and not merely shut it down: then the name is free.

        Looking takes a descriptor, and strangers may have all others: so one is kept for that.
        """
        try:
            self._probe.bind(name)
        except OSError:
            return False
        self._probe.close()
        self._probe = _unnamed()
        return True

    def watch(self, ours: socket.socket, name: bytes, closed: Callable[[], None]) -> None:
        """Call `closed` once the other end, which bears `name`, is closed."""
        self._closed[ours.fileno()] = (name, closed)
        self._epoll.register(ours.fileno(), select.EPOLLET)  # EPOLLHUP is always waited for

    def watch_too(self, ours: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Of an end that is watched, while the other is not closed: call `callback` with these events and EPOLLHUP."""
        self._others[ours.fileno()] = callback
        self._epoll.modify(ours.fileno(), select.EPOLLET | events)

    def forget(self, ours: socket.socket) -> None:
        """Before our end is closed."""
        self._others.pop(ours.fileno(), None)
        if self._closed.pop(ours.fileno(), None) is not None:
            self._epoll.unregister(ours.fileno())

    def close(self) -> None:
        """Wait no more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._probe.close()

    def _tell(self) -> None:
        with self._turn:
            for fd, events in self._epoll.poll(0):
                try:
                    self._tell_of(fd, events)
                except Exception as error:  # nobody else must miss what is told only once
                    self._loop.call_exception_handler({"message": "fault in the daemon", "exception": error})

    def _tell_of(self, fd: int, events: int) -> None:
        if fd not in self._closed:  # it was forgotten since
            return
        name, closed = self._closed[fd]
        if events & select.EPOLLHUP and self.is_closed(name):
            closed()
        elif fd in self._others:
            self._others[fd](events)


def _unnamed() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


class Stream:
    """Carries the bytes of one open connection between the pair and the TCP."""

    def __init__(
        self,
        peers: Peers,
        ours: socket.socket,
        ends: Ends,
        name: bytes,
        driver: Driver,
        endpoint: Endpoint,
    ) -> None:
        """`ends` watches our end; `name` is that of the application's."""
        self._peers = peers
        self._loop = peers.loop
        self._turn = peers.turn
        self._ours = ours
        self._ends = ends
        self._name = name
        self._driver = driver
        self._endpoint = endpoint
        self._scheduled = False  # a look, or one goes on
        self._closed = False
        self._written = False  # the application may have written more than we have read
        self._read_on = False  # also after less than was wanted: the end comes then, or what is behind MSG_OOB
        self._writing = False  # the event loop tells us when the application has read
        self._untaken = memoryview(b"")  # from the application, and the TCP did not take it
        self._undelivered = memoryview(b"")  # from the TCP, and the pair did not take it
        self._receiving = True  # the application may still read
        self._sending = True  # it may still write
        self._most = 0  # bytes that the TCP would take when it was emptiest
        self._shut = 0  # the ways of our end that are shut: 1 for reading, 2 for writing
        self._hung_up = False
        self._ended = False
        self.error: int | None = None  # how the connection has failed; 0: it has not, or that was told
        self.reset_on_close = False  # SO_LINGER with a time of 0
        self.ended: Callable[[], None] = _nobody  # called once the application has closed, and the TCP has all of it
        ends.watch_too(ours, select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP, self._on_written)

    def changed(self) -> None:
        """The connection may have news. Looked at once, after all segments that have come together."""
        if not self._scheduled:
            self._scheduled = True
            self._turn.put_off(self._look)

    def hang_up(self) -> None:
        """The application has closed its end; what it has written before is sent."""
        self._hung_up = True
        self._endpoint.orphan = True  # what comes from now on is answered by a reset
        if self._undelivered or self.reset_on_close:
            self._abort()
        elif not self._sending:
            self._release()
        else:
            self._written = self._read_on = True
            self._look()

    def stop_receiving(self) -> None:
        """The application wants no more (SHUT_RD): it reads what is in the pair, and what comes is thrown away."""
        self._receiving = False
        self._quietly_shut(socket.SHUT_WR)
        self.changed()

    def finish(self) -> None:
        """The application may write no more, and the peer gets a FIN after what it has written; it may still read."""
        self._quietly_shut(socket.SHUT_RD)

    def close(self) -> None:
        """Give up the pair."""
        self._closed = True
        self._write(False)
        self._endpoint.changed = _nobody
        self._ours.close()

    # ---- the TCP's side ------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._carry(deliver=not self._writing or not self._receiving)

    def _on_writable(self) -> None:
        self._carry(deliver=True)

    def _carry(self, *, deliver: bool) -> None:
        """Carry what there is, both ways. What that changes of the connection, and tells us, is looked at here."""
        if self._closed:
            return
        self._scheduled = True
        try:
            if deliver:
                self._deliver()
            all_taken = self._take()
            if self._endpoint.over:
                self._is_over()
        finally:
            self._scheduled = False
        if not all_taken:  # the others have their turn
            self._scheduled = True
            self._loop.call_soon(self._look)

    def _deliver(self) -> None:
        """Give the application what the TCP has received."""
        while (levels := self._driver.levels(self._endpoint)).readable or self._undelivered:
            if not self._undelivered:
                self._undelivered = memoryview(self._receive())
                if not self._undelivered:  # a TCP that has said it has something
                    break
            if self._receiving and not self._hand_over() and self._receiving:
                return  # the application must read first
            if not self._receiving:
                self._undelivered = memoryview(b"")
                self._write(False)
        if self._receiving and levels.at_eof:
            self._receiving = False
            self._quietly_shut(socket.SHUT_WR)

    def _receive(self) -> bytes:
        try:
            return self._driver.receive(self._endpoint, _AT_ONCE, self._loop.time())
        except OSError:  # the TCP has failed, and _is_over tells of it
            return b""

    def _hand_over(self) -> bool:
        """Whether the application has taken all that was not delivered."""
        try:
            sent = self._ours.send(self._undelivered)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has closed, or shut down its end for reading
            self._receiving = False
            if self._ends.is_closed(self._name):
                self._abort()
            return False
        self._undelivered = self._undelivered[sent:]
        self._write(bool(self._undelivered))
        return not self._undelivered

    def _is_over(self) -> None:
        """The connection is: who waits to write is told at once, even if there is something to read still.

        If there is nothing, both ways end in one step: who finds one of them shut looks whether the other is too, and
        only then asks for the error.
        """
        if self.error is None:
            self.error = self._endpoint.error or self._endpoint.connection.error or 0
        if self._undelivered or self._ended:
            if self._sending:
                self._send_no_more(socket.SHUT_RD)
            return
        self._receiving = False
        self._send_no_more(socket.SHUT_RDWR)
        if self._hung_up:
            self._end()

    def _send_no_more(self, how: int) -> None:
        self._quietly_shut(how)
        if self._sending:
            self._sending = False
            empty(self._ours)  # who polls learns of room only

    # ---- the application's side ----------------------------------------------------------------------------

    def _room(self) -> int:
        """Bytes to read from the application: what the TCP would take, unless that is little of what it can hold.

        And none while much waits for the way to the peer: then we are told as well.
        """
        writable = self._driver.levels(self._endpoint).writable
        self._most = min(max(self._most, writable), self._endpoint.connection.config.send_buffer)
        if writable * _WORTH_READING < self._most:
            return 0
        four = self._endpoint.four
        return writable if self._peers.has_room(four.local, four.peer, self._look) else 0

    def _on_written(self, events: int) -> None:
        self._written, self._read_on = True, bool(events & _NOT_ALL)
        self._look()

    def _take(self) -> bool:
        """Give the TCP what the application has written, as far as it has room; False: there is more of both."""
        while self._sending and (self._written or self._untaken):
            if self._untaken:
                if not self._give(self._untaken):
                    return True
                continue
            wanted = min(self._room(), _AT_ONCE)
            if not wanted:
                return True  # once there is, we are told
            try:
                count = self._ours.recv_into(_scratch, wanted)
            except BlockingIOError:
                self._written = False
                return True
            except OSError:  # closed, with something unread
                self._abort()
                return True
            if not count:
                self._end_of_application()
                return True
            if count < wanted:  # that was all: of more, and of the end, we are told
                self._written = self._read_on
            if not self._give(memoryview(bytes(_scratch[:count]))):  # new bytes: a TCP may keep them
                return True
            if count == wanted:
                return False
        return True

    def _give(self, data: memoryview) -> bool:
        """Whether the TCP has taken all of it."""
        try:
            taken = self._driver.send(self._endpoint, data, self._loop.time())
        except OSError:  # the connection has failed, and _is_over tells of it
            taken = len(data)
        self._untaken = data[taken:]
        if self._untaken and self._driver.levels(self._endpoint).writable:
            log.error("[S%d] the TCP took less than it said it would: connection reset", self._endpoint.number)
            self._driver.abort(self._endpoint, self._loop.time(), errno.EIO)
        return not self._untaken

    def _end_of_application(self) -> None:
        """It writes no more: it has shut down its end, or closed it."""
        self._sending = False
        if self._hung_up or self._ends.is_closed(self._name):
            self._release()
        else:
            with suppress(OSError):  # the connection has failed, and _is_over tells of it
                self._driver.close(self._endpoint, self._loop.time())

    def _release(self) -> None:
        if self.reset_on_close:
            self._abort()
            return
        with suppress(OSError):
            self._driver.release(self._endpoint, self._loop.time())
        self._end()

    def _abort(self) -> None:
        self._sending = False
        self._driver.abort(self._endpoint, self._loop.time())
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self.ended()

    # ---- the event loop: it is told numbers, for of an object that it does not know it asks the kernel the name ---

    def _write(self, on: bool) -> None:
        if on != self._writing:
            self._writing = on
            if on:
                self._loop.add_writer(self._ours.fileno(), self._on_writable)
            else:
                self._loop.remove_writer(self._ours.fileno())

    def _quietly_shut(self, how: int) -> None:
        ways = how + 1
        if not ways & ~self._shut:  # again would be news: the kernel would tell us of it, and we would look, for ever
            return
        self._shut |= ways
        with suppress(OSError):  # it is closed already
            self._ours.shutdown(how)


def _nobody() -> None:
    """Nobody needs to know."""


class Offers:
    """Hands connections that are ready over a listening pair, a few ahead of the application."""

    def __init__(self, ours: socket.socket, ends: Ends, make: Callable[[], Offer | None]) -> None:
        """`ends` watches our end; `make`: the next one that waits, or None."""
        self._ours = ours
        self._make = make
        self._closed = False
        self._poll = select.poll()
        self._poll.register(ours, select.POLLOUT)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)  # the least: two records, and it can't be written to
        ends.watch_too(ours, select.EPOLLOUT, lambda _: self.look())

    def look(self) -> None:
        """Hand over what waits, as far as the application takes it; when it has taken one, we are told."""
        while not self._closed and self._is_writable() and (offer := self._make()) is not None:
            self._send(*offer)

    def close(self) -> None:
        """Hand over nothing more."""
        self._closed = True

    def _is_writable(self) -> bool:
        """Not if it is shut down or closed: then what waits will be reset."""
        return any(events == select.POLLOUT for _, events in self._poll.poll(0))

    def _send(self, record: bytes, theirs: socket.socket) -> None:
        with theirs, suppress(OSError):  # it has closed; then theirs is closed too, and that says all
            socket.send_fds(self._ours, [record], [theirs.fileno()])


Offer = tuple[bytes, socket.socket]  # the record, and the application's end of the connection's pair
