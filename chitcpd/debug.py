"""Debug connections: what happens to a watched socket happens step by step, each as soon as its debugger has answered.

A Watch is the hand on one connection. What its TCP has given out (segments to send, states) stands in a queue, and is
carried out one by one; what comes meanwhile (segments, timers, the application's close) stands in a second one. A
Debugger is the debug connection: it asks about one event at a time, of all its sockets.

The TCP itself knows nothing of this, and so is ahead of what has happened: `moment` is how it was at the event.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from chitcpd.driver import Driver, Endpoint
from chitcpd.tcp.api import Moment, Output, Segment, State, Transition

if TYPE_CHECKING:
    from chitcpd.sockets import Socket, Sockets

STATE_CHANGE, INCOMING_PACKET, OUTGOING_PACKET, PENDING_CONNECTION = 1, 2, 4, 8
NONE, STOP, ACCEPT_MONITOR, DROP, DUPLICATE, WITHHOLD, DRAW_WITHHELD = range(7)

_MOST_WAITING = 1000  # segments to a connection that is held; likewise those that are withheld

Answered = Callable[[int, float], None]  # the response, the time


class Event(NamedTuple):
    """What a debugger is asked about."""

    watch: Watch
    flag: int
    sockfd: int
    new_sockfd: int  # -1, unless `flag` is PENDING_CONNECTION


class Watch:
    """A debugger's hand on one connection: the driver's Watch."""

    def __init__(self, driver: Driver, endpoint: Endpoint, debugger: Debugger, loop: asyncio.AbstractEventLoop) -> None:
        self.flags = 0  # which events it asks about
        self.sockfd = -1
        self.stopped: Callable[[], None] = lambda: None  # called when the debugger wants no more of it
        self.moment: Transition | Moment | None = None  # how it was at the event that is not answered yet
        self._driver = driver
        self._endpoint = endpoint
        self._debugger = debugger
        self._loop = loop
        self._answered: Answered | None = None  # what to do with the answer to the event
        self._passed: Callable[[float], None] | None = None  # carries out what has been let pass
        self._outputs: deque[Output] = deque()
        self._waiting: deque[Callable[[float], None]] = deque()
        self._scheduled = False
        self._withheld: deque[tuple[Segment, bytes]] = deque()
        endpoint.watch = self

    # ---- for the driver ------------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """An event is not answered, or what the TCP gave with it has not all been carried out."""
        return self._answered is not None or bool(self._outputs)

    def happened(self, outputs: list[Output], now: float) -> None:
        """Carry out what the TCP has given, up to the next event."""
        passed, self._passed = self._passed, None
        self._outputs += outputs
        if passed is not None:
            passed(now)
        while self._outputs and self._answered is None:
            output = self._outputs.popleft()
            if isinstance(output, Moment):
                self.moment = output
            elif isinstance(output, Segment) and self.flags & OUTGOING_PACKET:
                self.ask(OUTGOING_PACKET, partial(self._send, output))
            elif isinstance(output, Transition) and self.flags & STATE_CHANGE:
                self.moment = output
                self.ask(STATE_CHANGE, partial(self._enter, output))
            else:
                self._driver.carry_out(self._endpoint, (output,), now)
        if not self.held:
            self.moment = None

    def segment_arrives(self, seg: Segment, raw: bytes, now: float) -> None:
        """Ask whether it may come, once it is its turn."""
        if len(self._waiting) >= _MOST_WAITING:
            self._driver.refuse(self._endpoint, raw)
        else:
            self.put(partial(self._comes, seg, raw), now)

    def put(self, event: Callable[[float], None], now: float) -> None:
        """Let it happen behind all that waits."""
        if self.held or self._waiting:
            self._waiting.append(event)
        else:
            event(now)

    def put_first(self, event: Callable[[float], None]) -> None:
        """Let it happen before all that waits: what an application does goes before packets."""
        self._waiting.appendleft(event)

    # ---- events --------------------------------------------------------------------------------------------

    def ask(self, flag: int, answered: Answered, sockfd: int | None = None, new_sockfd: int = -1) -> None:
        """Hold the connection until the debugger has answered."""
        self._answered = answered
        self._debugger.ask(Event(self, flag, self.sockfd if sockfd is None else sockfd, new_sockfd))

    def answer(self, response: int, now: float) -> None:
        """The event's answer: go on, up to the next one."""
        answered, self._answered = self._answered, None
        if answered is None:
            return
        if response == STOP:
            self.flags = 0
        answered(response, now)
        if response == STOP:
            self.stopped()
        if not self.flags:
            self.stop(now)
        self._go_on()

    @property
    def asks(self) -> bool:
        """There is an event to be answered."""
        return self._answered is not None

    def stop(self, now: float) -> None:
        """Let all pass, and watch no more."""
        self.flags = 0
        self.answer(NONE, now)
        while self._waiting:
            self._waiting.popleft()(now)
        while self._withheld:
            self._driver.refuse(self._endpoint, self._withheld.popleft()[1])
        if self._endpoint.watch is self:
            self._endpoint.watch = None
            self._endpoint.connection.watched = False

    def _go_on(self) -> None:
        """What waits has its turn one by one; between two of them, the application has one."""
        if self._waiting and not self.held and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._waiting and not self.held:
            self._waiting.popleft()(self._loop.time())
        self._go_on()

    def _comes(self, seg: Segment, raw: bytes, now: float) -> None:
        if self.flags & INCOMING_PACKET:
            self.ask(INCOMING_PACKET, partial(self._deliver, seg, raw))
        else:
            self._driver.deliver(self._endpoint, seg, raw, now)

    def _deliver(self, seg: Segment, raw: bytes, response: int, now: float) -> None:
        if response == WITHHOLD and len(self._withheld) < _MOST_WAITING:
            self._withheld.append((seg, raw))
        elif response in (DROP, WITHHOLD):
            self._driver.refuse(self._endpoint, raw)
        else:
            if response == DUPLICATE:
                self._waiting.appendleft(partial(self._deliver_as, "duplicate", seg, raw))
            elif response == DRAW_WITHHELD and self._withheld:
                self._waiting.appendleft(partial(self._deliver_as, "delayed", *self._withheld.popleft()))
            self._driver.deliver(self._endpoint, seg, raw, now)

    def _deliver_as(self, event: str, seg: Segment, raw: bytes, now: float) -> None:
        self._driver.deliver(self._endpoint, seg, raw, now, event)

    def _send(self, seg: Segment, response: int, now: float) -> None:
        if response == DROP:
            self._passed = partial(self._driver.lose, self._endpoint, seg)
        else:
            self._passed = partial(self._driver.carry_out, self._endpoint, (seg,))
        self._driver.go_on(self._endpoint, now)

    def _enter(self, transition: Transition, response: int, now: float) -> None:
        self._driver.carry_out(self._endpoint, (transition,), now)
        self._endpoint.changed()  # who waits for this state need not wait for what is behind it
        self._driver.go_on(self._endpoint, now)


class Debugger:
    """A debug connection: its sockets, and their events, one at a time."""

    def __init__(self, flags: int, send: Callable[[Event], None], close: Callable[[], None]) -> None:
        """`send` asks the application; `close` is called when there is nothing more to ask."""
        self.flags = flags
        self.sockets: set[Socket] = set()
        self._send = send
        self._close = close
        self._asked: Event | None = None
        self._events: deque[Event] = deque()

    def ask(self, event: Event) -> None:
        """Ask about it when all that has happened before is answered."""
        self._events.append(event)
        self._ask_next()

    def answer(self, response: int, now: float) -> None:
        """The application's answer to what was asked. Raises ValueError if it was not asked."""
        if self._asked is None:
            raise ValueError("it answers what it was not asked")
        event, self._asked = self._asked, None
        event.watch.answer(response, now)
        self._ask_next()

    def forget(self, sock: Socket) -> None:
        """The socket is not watched any more."""
        self.sockets.discard(sock)
        if not self.sockets:
            self._close()

    def refuse_pending(self, now: float, sockfd: int | None = None) -> None:
        """Nobody wants to watch connections that come to this listening socket, or to any."""
        events = [*self._events] if self._asked is None else [self._asked, *self._events]
        for event in events:
            if event.flag == PENDING_CONNECTION and sockfd in (None, event.sockfd):
                event.watch.stop(now)

    def _ask_next(self) -> None:
        while self._asked is None and self._events:
            event = self._events.popleft()
            if event.watch.asks:  # else its watch was stopped
                self._asked = event
                self._send(event)


class Debugging:
    """Which sockets are watched; and what they look like."""

    def __init__(self, sockets: Sockets, driver: Driver, loop: asyncio.AbstractEventLoop) -> None:
        self._sockets = sockets
        self._driver = driver
        self._loop = loop

    def begin(
        self, fd: int, uid: int, flags: int, send: Callable[[Event], None], close: Callable[[], None]
    ) -> Debugger:
        """Watch a socket from now on. Raises OSError: EBADF, EAGAIN if it is watched already."""
        sock = self._sockets.get(fd, uid)
        if sock.debugger is not None:
            raise OSError(errno.EAGAIN, f"socket {fd} is watched already")
        debugger = Debugger(flags, send, close)
        self._attach(sock, debugger)
        if sock.endpoint is not None:
            self.hold(sock, sock.endpoint)
        self.listens(sock)
        return debugger

    def end(self, debugger: Debugger) -> None:
        """Its debug connection is gone: all that it holds goes on."""
        debugger.refuse_pending(self._loop.time())
        for sock in list(debugger.sockets):
            self.stop(sock)

    def end_all(self) -> None:
        """The end of the daemon is near."""
        for sock in [*self._sockets.table.values(), *self._sockets.parting.values()]:
            if sock.debugger is not None:
                sock.debugger.refuse_pending(self._loop.time(), sock.fd)
                self.stop(sock)

    def stop(self, sock: Socket) -> None:
        """Watch a socket no more."""
        debugger, sock.debugger = sock.debugger, None
        if debugger is None:
            return
        if sock.listener is not None:
            sock.listener.offered = None
        if sock.endpoint is not None and isinstance(sock.endpoint.watch, Watch):
            sock.endpoint.watch.stop(self._loop.time())
        debugger.forget(sock)
        if sock.gone:
            self._sockets.free_number(sock)

    def listens(self, sock: Socket) -> None:
        """A socket listens, and is perhaps watched."""
        if sock.listener is not None and sock.debugger is not None and sock.debugger.flags & PENDING_CONNECTION:
            sock.listener.offered = partial(self._offered, sock, sock.debugger)

    def hold(self, sock: Socket, endpoint: Endpoint) -> None:
        """A watched socket has a connection, to which nothing has happened that was not told."""
        if sock.debugger is not None:
            self._take(Watch(self._driver, endpoint, sock.debugger, self._loop), sock, endpoint, sock.debugger)

    def _take(self, watch: Watch, sock: Socket, endpoint: Endpoint, debugger: Debugger) -> None:
        watch.flags = debugger.flags
        watch.sockfd = sock.fd
        watch.stopped = partial(self.stop, sock)
        endpoint.connection.watched = True

    def _attach(self, sock: Socket, debugger: Debugger) -> None:
        sock.debugger = debugger
        debugger.sockets.add(sock)

    def _offered(self, listening: Socket, debugger: Debugger, endpoint: Endpoint) -> None:
        """A SYN has come to a watched listener: before its connection runs, shall it be watched too?"""
        try:
            new = self._sockets.reserve(listening, endpoint)
        except OSError:  # there is no number to call it by
            return
        watch = Watch(self._driver, endpoint, debugger, self._loop)

        def answered(response: int, now: float) -> None:
            if response == ACCEPT_MONITOR:
                self._attach(new, debugger)
                self._take(watch, new, endpoint, debugger)
            elif response == STOP:
                debugger.refuse_pending(now, listening.fd)
                self.stop(listening)

        watch.ask(PENDING_CONNECTION, answered, listening.fd, new.fd)

    # ---- what a socket looks like ------------------------------------------------------------------------------

    def look(self, fd: int, uid: int) -> Transition | Moment:
        """A connected socket's variables and buffers, as they were at an event if one is not answered yet.

        Raises OSError(EBADF) if it is no connected socket of this user.
        """
        endpoint = self._connected(fd, uid).endpoint
        assert endpoint is not None
        if isinstance(endpoint.watch, Watch) and endpoint.watch.moment is not None:
            return endpoint.watch.moment
        connection = endpoint.connection
        return Moment(connection.variables(), connection.unacknowledged, connection.unread)

    async def wait_for_state(self, fd: int, uid: int, number: int) -> None:
        """Return once the connection is in this state, or was since the call.

        Raises OSError: EINVAL if there is no such state, EBADF if it is no connected socket, or none any more.
        """
        try:
            state = State(number)
        except ValueError:
            raise OSError(errno.EINVAL, f"there is no state {number}") from None
        if state == State.CLOSED and self._sockets.is_free(fd):
            return
        sock = self._connected(fd, uid)
        endpoint = sock.endpoint
        assert endpoint is not None
        before = max(len(endpoint.states) - 1, 0)
        await sock.until(lambda: state in endpoint.states[before:] or endpoint.over)
        if state not in endpoint.states[before:] and state != State.CLOSED:
            raise OSError(errno.EBADF, f"the connection has ended, and was never {state.name}")

    def _connected(self, fd: int, uid: int) -> Socket:
        sock = self._sockets.table.get(fd) or self._sockets.parting.get(fd)
        if sock is None or sock.uid != uid or sock.endpoint is None:
            raise OSError(errno.EBADF, f"no connected socket {fd}")
        return sock
