"""The UNIX-socket server: applications' requests in, answers out (interop.md section 2 has the messages).

One message at a time per connection: the next is looked at when the last is answered. A connection that goes away in
the middle of a call cancels it, and takes its sockets with it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from chisocket.protocol import addresses, framing
from chisocket.protocol import chitcpd_pb2 as pb
from chitcpd.control import HARMLESS, Control, ControlError
from chitcpd.debug import Debugger, Event
from chitcpd.sockets import Address, Socket, Sockets

log = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_MAX_RECV = 1 << 19  # bytes in one answer, so that it stays below framing.MAX_MESSAGE
_READ = 1 << 18  # bytes of one application at most, before the others have their turn
_MOST_AHEAD = 1 << 20  # bytes that an application may send before its last request is answered
_ALWAYS_TAKEN = 1 << 16  # bytes of a message for which there is room in any case
_MOST_HELD = 1 << 27  # bytes of messages of all applications that have not come whole, or are not answered yet
_BEING_REFUSED = 64  # applications beyond the most, each until its INIT has come
_NOT_WATCHED, _UNKNOWN_CONNECTION_TYPE = -5, -7
_MOST_SHOWN = 7 << 20  # bytes of a buffer, so that both stay below framing.MAX_MESSAGE

Answer = pb.Resp | Awaitable[pb.Resp]  # the latter if it has to wait: a task for each would cost more than most do
Handler = Callable[["Client", pb.ChitcpdMsg], Answer]


class Client(asyncio.BufferedProtocol):
    """One connection of an application."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = bytearray()
        self._call: asyncio.Task[None] | None = None
        self._greeted = False
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None  # the transport's descriptor, for what that can't do
        self._paused = False  # it does not read our answers
        self._half_closed = False  # it sends no more requests
        self._skip = 0  # bytes of a message that is not taken, still to come
        self._why_skipped = errno.EMSGSIZE
        self._length = 0  # bytes of the message that is being answered
        self._held = 0  # bytes that the server knows of
        self.uid = -1
        self._debugger: Debugger | None = None  # it is a debug connection
        self.rights: socket.socket | None = None  # the descriptor that goes with the next answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is."""
        self._transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, self.uid, _ = _CREDENTIALS.unpack(raw)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, sock.fileno())
        if self not in self._server.clients:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: one place for all applications, as `buffer_updated` follows at once."""
        return self._server.scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come: begin the next call if none is under way."""
        self._received += self._server.scratch[:nbytes]
        if self._skip:
            self._pass_over()
        if (self._call is not None or self._paused) and len(self._received) > _MOST_AHEAD:
            self._drop("it sends without waiting for answers")
        else:
            self._next()
        self._count()

    def pause_writing(self) -> None:
        """Answers pile up: no further call until they are read."""
        self._paused = True

    def resume_writing(self) -> None:
        """They were read."""
        self._paused = False
        self._next()

    def eof_received(self) -> bool:
        """It takes its request back; what has been done of that already is still answered."""
        if self._call is None:
            return False
        self._half_closed = True
        self._call.cancel()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The application is gone."""
        if self._socket is not None:
            self._socket.detach()
        if self._call is not None:
            self._call.cancel()
        if self._debugger is not None:
            self._server.sockets.debugging.end(self._debugger)
        self._server.sockets.forget(self)
        self._server.clients.discard(self)
        self._received.clear()
        self._length = 0
        self._count()

    def close(self) -> None:
        """End the connection from our side."""
        if self._transport is not None:
            self._transport.close()

    def _next(self) -> None:
        if self._call is not None or self._paused:
            return
        try:
            message = self._take_message()
        except framing.ProtocolError as error:
            self._drop(str(error))
            return
        if message is None:
            return
        if self._debugger is not None:
            self._take_answer(self._debugger, message)
        elif self._greeted:
            answer = self._server.handle(self, message)
            if isinstance(answer, pb.Resp):
                self._write(answer)
                if self._received:
                    asyncio.get_running_loop().call_soon(self._go_on)
            else:
                self._length = message.ByteSize()
                self._call = asyncio.get_running_loop().create_task(self._answer(answer))
        elif message.code == pb.INIT and message.HasField("init_args"):
            self._greet(message.init_args)
        else:
            self._drop("it does not begin with INIT")

    def _go_on(self) -> None:
        self._next()
        self._count()

    def _take_message(self) -> pb.ChitcpdMsg | None:
        header = framing.LENGTH.size
        if self._skip or len(self._received) < header:
            return None
        try:
            end = header + framing.body_length(self._received[:header])
        except framing.TooLong as error:
            if not self._greeted:
                raise
            self._refuse(header + error.length, errno.EMSGSIZE)
            return None
        if len(self._received) < end:
            if len(self._received) > _ALWAYS_TAKEN and self._server.held > _MOST_HELD:
                self._refuse(end, errno.ENOBUFS)
            return None
        body = bytes(self._received[header:end])
        del self._received[:end]
        return framing.decode(body)

    def _refuse(self, length: int, error: int) -> None:
        """The next message, so long with its header, is not taken: read on to its end, and say so."""
        self._skip, self._why_skipped = length, error
        self._pass_over()

    def _pass_over(self) -> None:
        passed = min(self._skip, len(self._received))
        del self._received[:passed]
        self._skip -= passed
        if not self._skip:
            self._write(pb.Resp(ret=-1, error_code=self._why_skipped))

    def _count(self) -> None:
        held = len(self._received) + self._length
        self._server.held += held - self._held
        self._held = held

    def _greet(self, init: pb.InitArgs) -> None:
        if self._server.excess > 0:
            log.warning("an application is refused: %d are connected", len(self._server.clients))
            self._write(pb.Resp(ret=-1, error_code=errno.EMFILE))
            self.close()
        elif init.connection_type == pb.COMMAND_CONNECTION:
            self._greeted = True
            self._write(pb.Resp(ret=0, error_code=0, buf=self._server.instance.encode()))
            self._next()
        elif init.connection_type == pb.DEBUG_CONNECTION:
            self._begin_debugging(init)
        else:
            self._write(pb.Resp(ret=_UNKNOWN_CONNECTION_TYPE, error_code=errno.EOPNOTSUPP))

    def _begin_debugging(self, init: pb.InitArgs) -> None:
        begin = self._server.sockets.debugging.begin
        try:
            if not init.HasField("debug"):
                raise OSError(errno.EINVAL, "it does not say which socket")
            self._debugger = begin(init.debug.sockfd, self.uid, init.debug.event_flags, self._tell, self.close)
        except OSError as error:
            self._write(pb.Resp(ret=_NOT_WATCHED, error_code=error.errno or errno.EIO))
            return
        self._greeted = True
        self._write(pb.Resp(ret=0, error_code=0, buf=self._server.instance.encode()))

    def _tell(self, event: Event) -> None:
        """An event on a debug connection, which answers it with RESP."""
        arguments = pb.DebugEventArgs(
            sockfd=event.sockfd,
            event_flag=event.flag,
            new_sockfd=event.new_sockfd,
            is_active=event.new_sockfd == -1,
        )
        if self._transport is not None and not self._transport.is_closing():
            message = pb.ChitcpdMsg(code=pb.DEBUG_EVENT, debug_event_args=arguments)
            self._transport.write(framing.encode(message))

    def _take_answer(self, debugger: Debugger, message: pb.ChitcpdMsg) -> None:
        loop = asyncio.get_running_loop()
        try:
            if message.code != pb.RESP or not message.HasField("resp"):
                raise ValueError("a debugger sends another message than RESP")
            debugger.answer(message.resp.ret, loop.time())
        except ValueError as error:
            self._drop(str(error))
        else:
            loop.call_soon(self._next)

    async def _answer(self, answer: Awaitable[pb.Resp]) -> None:
        try:
            self._write(await answer)
        finally:
            self._call = None
            self._length = 0
            self._count()
            if self._half_closed:
                self.close()
        self._next()

    def _write(self, resp: pb.Resp) -> None:
        rights, self.rights = self.rights, None
        frame = _DONE_FRAME if resp is _DONE else framing.encode(pb.ChitcpdMsg(code=pb.RESP, resp=resp))
        if self._transport is None or self._transport.is_closing():
            pass
        elif rights is None:
            self._transport.write(frame)
        else:
            self._write_with_rights(frame, rights)
        if rights is not None:
            rights.close()

    def _write_with_rights(self, frame: bytes, rights: socket.socket) -> None:
        """An answer, and a descriptor with its first byte: asyncio can't send that."""
        assert self._transport is not None
        assert self._socket is not None
        try:
            if self._transport.get_write_buffer_size() == 0:
                sent = socket.send_fds(self._socket, [frame], [rights.fileno()])
                if sent == len(frame):
                    return
        except OSError:
            pass
        self._drop("it does not read the answers")

    def _drop(self, why: str) -> None:
        log.warning("an application is disconnected: %s", why)
        if self._transport is not None:
            self._transport.abort()


class Server:
    """Answers the requests that come through one UNIX socket."""

    def __init__(
        self, sockets: Sockets, control: Control, instance: str, most: int, control_socket: str | None = None
    ) -> None:
        """`instance`: as it stands in the names of descriptors; `most`: connections that may be open at once.

        `control_socket`: who asks for control here is sent there; None: this is it.
        """
        self.sockets = sockets
        self.instance = instance
        self.clients: set[Client] = set()
        self.scratch = memoryview(bytearray(_READ))
        self.held = 0  # bytes of messages that have not come whole, or are not answered yet
        self._most = most
        self._control_socket = control_socket
        self.control = control
        self._handlers: dict[int, tuple[str, Handler]] = {
            pb.SOCKET: ("socket_args", self._socket),
            pb.BIND: ("bind_args", self._bind),
            pb.LISTEN: ("listen_args", self._listen),
            pb.ACCEPT: ("accept_args", self._accept),
            pb.CONNECT: ("connect_args", self._connect),
            pb.SEND: ("send_args", self._send),
            pb.RECV: ("recv_args", self._recv),
            pb.CLOSE: ("close_args", self._close),
            pb.SHUTDOWN: ("shutdown_args", self._shutdown),
            pb.GETSOCKNAME: ("name_args", self._getsockname),
            pb.GETPEERNAME: ("name_args", self._getpeername),
            pb.CONTROL: ("control_args", self._ask_control),
            pb.OPEN: ("socket_args", self._open),
            pb.START_CONNECT: ("connect_args", self._start_connect),
            pb.GETSOCKOPT: ("sockopt_args", self._getsockopt),
            pb.SETSOCKOPT: ("sockopt_args", self._setsockopt),
            pb.LINGER: ("linger_args", self._linger),
            pb.GET_SOCKET_STATE: ("get_socket_state_args", self._get_socket_state),
            pb.GET_SOCKET_BUFFER_CONTENTS: ("get_socket_buffer_contents_args", self._get_socket_buffer_contents),
            pb.WAIT_FOR_STATE: ("wait_for_state_args", self._wait_for_state),
        }

    def new_client(self) -> Client:
        """A connection that an application is making; far beyond the most it is ended without a word."""
        client = Client(self)
        if self.excess < _BEING_REFUSED:
            self.clients.add(client)
        return client

    @property
    def excess(self) -> int:
        """How many more are connected than may be."""
        return len(self.clients) - self._most

    def handle(self, client: Client, message: pb.ChitcpdMsg) -> Answer:
        """The answer to a request; errors become `error_code`."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s of uid %d", _code_name(message.code), client.uid)
        args, handler = self._handlers.get(message.code, ("", None))
        if handler is None or not message.HasField(args):
            return pb.Resp(ret=-1, error_code=errno.EINVAL)
        try:
            answer = handler(client, message)
        except Exception as error:
            return _failure(message.code, error)
        return answer if isinstance(answer, pb.Resp) else _later(message.code, answer)

    def _socket(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        args = message.socket_args
        sock = self.sockets.create(args.domain, args.type, args.protocol, client, client.uid)
        return _success(sock.fd)

    def _bind(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        sock = self.sockets.get(message.bind_args.sockfd, client.uid)
        self.sockets.bind(sock, _unpack(message.bind_args.addr))
        return _success()

    def _listen(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        self.sockets.listen(self.sockets.get(message.listen_args.sockfd, client.uid), message.listen_args.backlog)
        return _success()

    async def _accept(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        sock = self.sockets.get(message.accept_args.sockfd, client.uid)
        new = await self.sockets.accept(sock, client)
        address = addresses.pack(new.named(new.connected().four[2:])).ljust(addresses.STORAGE, b"\0")
        return pb.Resp(ret=new.fd, error_code=0, addr=address)

    async def _connect(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        sock = self.sockets.get(message.connect_args.sockfd, client.uid)
        await self.sockets.connect(sock, _unpack(message.connect_args.addr))
        return _success()

    async def _send(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        args = message.send_args
        return _success(await self.sockets.send(self.sockets.get(args.sockfd, client.uid), args.buf, args.flags))

    async def _recv(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        args = message.recv_args
        sock = self.sockets.get(args.sockfd, client.uid)
        data = await self.sockets.recv(sock, min(args.len, _MAX_RECV), args.flags)
        return pb.Resp(ret=len(data), error_code=0, buf=data)

    async def _close(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        await self.sockets.close(self.sockets.get(message.close_args.sockfd, client.uid))
        return _success()

    async def _linger(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        await self.sockets.linger(message.linger_args.sockfd, message.linger_args.serial, client.uid)
        return _success()

    def _shutdown(self, client: Client, message: pb.ChitcpdMsg) -> Answer:
        args = message.shutdown_args
        sock = self.sockets.get(args.sockfd, client.uid)
        return self._in_turn(sock, lambda: int(self.sockets.shutdown(sock, args.how)))

    def _getsockname(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        sock = self.sockets.get(message.name_args.sockfd, client.uid)
        host, port = sock.local or ("", 0)
        wildcard = "::" if sock.family == socket.AF_INET6 else "0.0.0.0"
        return pb.Resp(ret=0, error_code=0, addr=addresses.pack(sock.named((host or wildcard, port))))

    def _getpeername(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        sock = self.sockets.get(message.name_args.sockfd, client.uid)
        return pb.Resp(ret=0, error_code=0, addr=addresses.pack(sock.named(sock.connected().four[2:])))

    def _open(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        args = message.socket_args
        sock, client.rights = self.sockets.open(args.domain, args.type, args.protocol, client.uid)
        return _success(sock.fd)

    def _start_connect(self, client: Client, message: pb.ChitcpdMsg) -> Answer:
        args = message.connect_args
        sock = self.sockets.get(args.sockfd, client.uid)
        if not (args.wait and sock.connecting):
            client.rights = self.sockets.start_connect(sock, _unpack(args.addr))
        return self._connected(sock) if args.wait and client.rights is None else _success()

    async def _connected(self, sock: Socket) -> pb.Resp:
        await self.sockets.wait_connected(sock)
        return _success()

    def _getsockopt(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        args = message.sockopt_args
        value = self.sockets.get_option(self.sockets.get(args.sockfd, client.uid), args.level, args.name)
        return pb.Resp(ret=0, error_code=0, buf=value)

    def _setsockopt(self, client: Client, message: pb.ChitcpdMsg) -> Answer:
        args = message.sockopt_args
        sock = self.sockets.get(args.sockfd, client.uid)
        return self._in_turn(sock, partial(self.sockets.set_option, sock, args.level, args.name, args.value))

    def _in_turn(self, sock: Socket, act: Callable[[], int | None]) -> Answer:
        """Do it once no debugger holds the connection; what it returns is the answer's `ret`."""
        return _success(act() or 0) if not sock.held else self._in_turn_later(sock, act)

    async def _in_turn_later(self, sock: Socket, act: Callable[[], int | None]) -> pb.Resp:
        await self.sockets.turn(sock)
        return _success(act() or 0)

    def _get_socket_state(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        now = self.sockets.debugging.look(message.get_socket_state_args.sockfd, client.uid).variables
        state = pb.SocketState(
            tcp_state=now.state,
            iss=_as_int32(now.iss),
            irs=_as_int32(now.irs),
            snd_una=_as_int32(now.snd_una),
            rcv_nxt=_as_int32(now.rcv_nxt),
            snd_nxt=_as_int32(now.snd_nxt),
            rcv_wnd=_as_int32(now.rcv_wnd),
            snd_wnd=_as_int32(now.snd_wnd),
        )
        return pb.Resp(ret=0, error_code=0, socket_state=state)

    def _get_socket_buffer_contents(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        now = self.sockets.debugging.look(message.get_socket_buffer_contents_args.sockfd, client.uid)
        contents = pb.SocketBufferContents(snd=now.snd[:_MOST_SHOWN], rcv=now.rcv[:_MOST_SHOWN])
        return pb.Resp(ret=0, error_code=0, socket_buffer_contents=contents)

    async def _wait_for_state(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        args = message.wait_for_state_args
        await self.sockets.debugging.wait_for_state(args.sockfd, client.uid, args.tcp_state)
        return _success()

    async def _ask_control(self, client: Client, message: pb.ChitcpdMsg) -> pb.Resp:
        command = message.control_args.command
        if self._control_socket is not None and command not in HARMLESS:
            why = f"`{command}` is for the control socket, {self._control_socket}; this one is the applications'"
            return pb.Resp(ret=-1, error_code=errno.EPERM, buf=why.encode())
        try:
            answer = await self.control.ask(command, message.control_args.json)
        except ControlError as error:
            return pb.Resp(ret=-1, error_code=errno.EINVAL, buf=str(error).encode())
        return pb.Resp(ret=0, error_code=0, buf=answer)


async def _later(code: int, answer: Awaitable[pb.Resp]) -> pb.Resp:
    try:
        return await answer
    except Exception as error:
        return _failure(code, error)


def _failure(code: int, error: Exception) -> pb.Resp:
    if isinstance(error, OSError):
        log.debug("%s: %s", _code_name(code), error)
        return pb.Resp(ret=-1, error_code=error.errno or errno.EIO)
    log.error("fault in the daemon while answering %s", _code_name(code), exc_info=error)
    return pb.Resp(ret=-1, error_code=errno.EIO)


def _code_name(code: int) -> str:
    return pb.MsgCode.Name(pb.MsgCode.ValueType(code)) if code in pb.MsgCode.values() else f"code {code}"


def _success(ret: int = 0) -> pb.Resp:
    return pb.Resp(ret=ret, error_code=0) if ret else _DONE


_DONE = pb.Resp(ret=0, error_code=0)  # most answers: encoded once
_DONE_FRAME = framing.encode(pb.ChitcpdMsg(code=pb.RESP, resp=_DONE))


def _as_int32(number: int) -> int:
    """A uint32 as the C chiTCP has it on the UNIX socket."""
    return (number & 0xFFFFFFFF ^ 1 << 31) - (1 << 31)


def _unpack(raw: bytes) -> Address:
    try:
        return addresses.unpack(raw)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
