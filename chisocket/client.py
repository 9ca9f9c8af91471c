"""Requests to a chitcpd: one message out, one RESP back, over a bounded pool of command connections.

A request may block (accept, connect, recv ...) and a connection carries one request at a time, so each request takes
an idle connection, or opens one, and puts it back. A connection whose request was interrupted (Ctrl-C, a signal
handler that raises) is closed: the daemon then gives the request up, and no late answer meets the next request.

The daemon aborts the sockets of a connection that goes. So a connection that made a socket, by SOCKET or ACCEPT, is
set aside until that socket is closed and carries nothing but its CLOSE: whatever is interrupted, no socket dies of it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading

from chisocket.protocol.chitcpd_pb2 import COMMAND_CONNECTION, INIT, RESP, ChitcpdMsg, InitArgs, Resp
from chisocket.protocol.framing import LENGTH, ProtocolError, body_length, decode, encode
from chisocket.protocol.location import socket_path

_INT = struct.Struct("=i")
MAX_CONNECTIONS = 2048  # of one process: one for each socket it has, and one for each request that waits
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_AT_ONCE = 1 << 12  # bytes to read, whatever is expected

_UnixSocket = socket.SocketType  # of the C module: patched() does not change it


class Connection:
    """One command or debug connection to the daemon at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.instance = ""  # of the daemon; a C chitcpd has none
        self._rest = b""  # what has come behind the last message
        self._socket = _UnixSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(None)  # whatever socket.setdefaulttimeout() has been told

    def open(self, init: InitArgs | None = None) -> None:
        """Connect and say INIT. Raises OSError that tells what to do if no daemon answers."""
        try:
            self._socket.connect(self.path)
        except PermissionError:
            raise PermissionError(
                errno.EACCES,
                f"the chitcpd at {self.path} belongs to another user: "
                "set CHITCPD_SOCK to the socket of a chitcpd of your own",
            ) from None
        except OSError as error:
            raise OSError(
                errno.ENETDOWN,
                f"no chitcpd answers at {self.path} ({error.strerror or error}): "
                f"start one with `chitcpd -s {self.path}`, or set CHITCPD_SOCK to the socket of one that runs",
            ) from None
        hello = ChitcpdMsg(code=INIT, init_args=init or InitArgs(connection_type=COMMAND_CONNECTION))
        self.instance = _raise_if_refused(self.exchange(hello)).buf.decode(errors="replace")

    def exchange(self, message: ChitcpdMsg, rights: list[int] | None = None) -> Resp:
        """Send `message` and wait for its answer. After any exception the connection is of no more use.

        A descriptor that comes with the answer is added to `rights`.
        """
        try:
            self._socket.sendall(encode(message))
            header = self._read(LENGTH.size) if rights is None else self._read_with_rights(LENGTH.size, rights)
            answer = decode(self._read(body_length(header)))
        except ConnectionError as error:  # and not OSError: a signal handler may raise TimeoutError here
            raise OSError(
                errno.ENETDOWN,
                f"the chitcpd at {self.path} has gone away ({error.strerror}): see the end of its log",
            ) from None
        except ProtocolError as error:
            raise self._not_chitcpd(str(error)) from None
        if answer.code != RESP or not answer.HasField("resp"):
            raise self._not_chitcpd("it answers with another message than RESP")
        return answer.resp

    def send(self, message: ChitcpdMsg) -> bool:
        """Send `message`; False if the daemon has closed the connection. Raises OSError."""
        try:
            self._socket.sendall(encode(message))
        except ConnectionError:
            return False
        return True

    def receive(self) -> ChitcpdMsg | None:
        """The next message, or None if the daemon has closed the connection. Raises OSError."""
        try:
            return decode(self._read(body_length(self._read(LENGTH.size))))
        except ConnectionError:
            return None
        except ProtocolError as error:
            raise self._not_chitcpd(str(error)) from None

    def set_timeout(self, seconds: float | None) -> None:
        """For how long to wait for an answer, from now on."""
        if self._socket.gettimeout() != seconds:
            self._socket.settimeout(seconds)

    def is_gone(self) -> bool:
        """Whether the daemon has closed this idle connection, or has sent what nobody asked for."""
        if self._rest:
            return True
        try:
            self._socket.recv(1, _PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _read(self, length: int) -> bytes:
        while (missing := length - len(self._rest)) > 0:
            # Most messages are short: they come whole with the first call.
            chunk = self._socket.recv(max(missing, _AT_ONCE), socket.MSG_WAITALL if missing > _AT_ONCE else 0)
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
            self._rest += chunk
        data, self._rest = self._rest[:length], self._rest[length:]
        return data

    def _read_with_rights(self, length: int, rights: list[int]) -> bytes:
        space = socket.CMSG_SPACE(_INT.size)
        data, ancillary, flags, _ = self._socket.recvmsg(_AT_ONCE, space, socket.MSG_CMSG_CLOEXEC)
        rights += [_INT.unpack_from(content)[0] for _, kind, content in ancillary if kind == socket.SCM_RIGHTS]
        if flags & socket.MSG_CTRUNC and not rights:  # the kernel had no number for it, and has closed it
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._rest += data
        return self._read(length)

    def _not_chitcpd(self, found: str) -> OSError:
        return OSError(
            errno.EPROTO,
            f"what answers at {self.path} is no chitcpd ({found}): set CHITCPD_SOCK to the socket of one that runs",
        )


class Client:
    """A process's connections to the daemon that `socket_path()` names, and to those that it has named before.

    Thread-safe. Each request raises OSError: with the daemon's errno if the daemon refuses it, ENETDOWN if no daemon
    answers, EMFILE if MAX_CONNECTIONS are in use (waiting for one could wait for ever: for a thread that waits for us).
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: its holder may be interrupted by a signal handler that asks too
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._makers: dict[tuple[str, int], Connection] = {}  # path, descriptor -> the connection that made it
        self._paths: dict[str, str] = {}  # instance -> where it is

    def request(self, message: ChitcpdMsg, instance: str | None = None, timeout: float | None = None) -> Resp:
        """The daemon's answer to `message`, which makes and closes no socket. Raises TimeoutError too."""
        return self._request(message, instance, None, timeout)

    def request_rights(self, message: ChitcpdMsg, instance: str | None = None) -> tuple[Resp, int | None]:
        """The same for a message whose answer may bring a descriptor: it is the caller's to close."""
        rights: list[int] = []
        try:
            return self._request(message, instance, rights, None), (rights[0] if rights else None)
        except BaseException:
            for fd in rights:
                os.close(fd)
            raise

    def _request(
        self, message: ChitcpdMsg, instance: str | None, rights: list[int] | None, timeout: float | None
    ) -> Resp:
        connection = self._take(self.path(instance))
        if instance is not None and connection.instance != instance:
            self._put_back(connection)
            raise OSError(errno.ENETDOWN, f"the chitcpd of this socket has ended; another one is at {connection.path}")
        connection.set_timeout(timeout)
        answer = self._exchange(connection, message, rights)
        connection.set_timeout(None)
        self._put_back(connection)
        return _raise_if_refused(answer)

    def path(self, instance: str | None) -> str:
        """Where the daemon of this run is, or the one of now."""
        return self._paths.get(instance or "", "") or socket_path()

    def make(self, message: ChitcpdMsg) -> Resp:
        """The daemon's answer to `message`, SOCKET or ACCEPT, which makes the socket `ret`."""
        connection = self._take(socket_path())
        answer = self._exchange(connection, message)
        if answer.error_code:
            self._put_back(connection)
        else:
            with self._lock:
                former = self._makers.pop((connection.path, answer.ret), None)
                self._makers[connection.path, answer.ret] = connection
            if former is not None:  # its socket ended without a CLOSE that succeeded: the number was free again
                self._put_back(former)
        return _raise_if_refused(answer)

    def close(self, sockfd: int, message: ChitcpdMsg) -> Resp:
        """The daemon's answer to `message`, CLOSE of `sockfd`."""
        key = (socket_path(), sockfd)
        with self._lock:
            # Before the request: once the daemon has freed the number, another thread may be given it.
            maker = self._makers.pop(key, None)
        if maker is None:
            return self.request(message)
        answer = self._exchange(maker, message)
        with self._lock:
            if answer.error_code and key not in self._makers:
                self._makers[key] = maker  # the socket may still be there
            else:
                self._idle.append(maker)
        return _raise_if_refused(answer)

    def forget(self) -> None:
        """In the child of a fork: close our copies of the parent's connections. Its sockets are not ours."""
        self._lock = threading.RLock()  # a thread of the parent may have held the old one
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()
        self._makers.clear()

    def _take(self, path: str) -> Connection:
        while True:
            with self._lock:
                at = next((i for i in reversed(range(len(self._idle))) if self._idle[i].path == path), None)
                if at is not None:
                    connection = self._idle.pop(at)
                elif len(self._all) >= MAX_CONNECTIONS:
                    raise OSError(
                        errno.EMFILE,
                        f"{MAX_CONNECTIONS} sockets and waiting requests are all that a process can have: "
                        "close some sockets first",
                    )
                else:
                    connection = Connection(path)
                    self._all.add(connection)
                    break
            if not connection.is_gone():
                return connection
            self._discard(connection)
        try:
            connection.open()
        except BaseException:
            self._discard(connection)
            raise
        if connection.instance:
            self._paths[connection.instance] = path
        return connection

    def _put_back(self, connection: Connection) -> None:
        with self._lock:
            self._idle.append(connection)

    def _exchange(self, connection: Connection, message: ChitcpdMsg, rights: list[int] | None = None) -> Resp:
        try:
            return connection.exchange(message, rights)
        except BaseException:
            self._discard(connection)
            raise

    def _discard(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._all.discard(connection)


def _raise_if_refused(answer: Resp) -> Resp:
    if answer.error_code:
        raise OSError(answer.error_code, os.strerror(answer.error_code))
    return answer


client = Client()
os.register_at_fork(after_in_child=client.forget)
