"""Requests to this host's chitcpd: one message out, one RESP back, over a bounded pool of command connections.

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
import threading

from chisocket.protocol.chitcpd_pb2 import COMMAND_CONNECTION, INIT, RESP, ChitcpdMsg, InitArgs, Resp
from chisocket.protocol.framing import LENGTH, ProtocolError, body_length, decode, encode
from chisocket.protocol.location import socket_path

MAX_CONNECTIONS = 2048  # of one process: one for each socket it has, and one for each request that waits


class _Connection:
    """One command connection to the daemon that `socket_path()` names."""

    def __init__(self) -> None:
        self._path = socket_path()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def open(self) -> None:
        """Connect and say INIT. Raises OSError that tells what to do if no daemon answers."""
        try:
            self._socket.connect(self._path)
        except PermissionError:
            raise PermissionError(
                errno.EACCES,
                f"the chitcpd at {self._path} belongs to another user: "
                "set CHITCPD_SOCK to the socket of a chitcpd of your own",
            ) from None
        except OSError as error:
            raise OSError(
                errno.ENETDOWN,
                f"no chitcpd answers at {self._path} ({error.strerror or error}): "
                f"start one with `chitcpd -s {self._path}`, or set CHITCPD_SOCK to the socket of one that runs",
            ) from None
        hello = ChitcpdMsg(code=INIT, init_args=InitArgs(connection_type=COMMAND_CONNECTION))
        _raise_if_refused(self.exchange(hello))

    def exchange(self, message: ChitcpdMsg) -> Resp:
        """Send `message` and wait for its answer. After any exception the connection is of no more use."""
        try:
            self._socket.sendall(encode(message))
            answer = decode(self._read(body_length(self._read(LENGTH.size))))
        except ConnectionError as error:  # and not OSError: a signal handler may raise TimeoutError here
            raise OSError(
                errno.ENETDOWN,
                f"the chitcpd at {self._path} has gone away ({error.strerror}): see the end of its log",
            ) from None
        except ProtocolError as error:
            raise self._not_chitcpd(str(error)) from None
        if answer.code != RESP or not answer.HasField("resp"):
            raise self._not_chitcpd("it answers with another message than RESP")
        return answer.resp

    def is_gone(self) -> bool:
        """Whether the daemon has closed this idle connection, or has sent what nobody asked for."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self._socket.close()

    def _read(self, length: int) -> bytes:
        chunks = []
        while length:
            chunk = self._socket.recv(length, socket.MSG_WAITALL)
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
            chunks.append(chunk)
            length -= len(chunk)
        return b"".join(chunks)

    def _not_chitcpd(self, found: str) -> OSError:
        return OSError(
            errno.EPROTO,
            f"what answers at {self._path} is no chitcpd ({found}): set CHITCPD_SOCK to the socket of one that runs",
        )


class Client:
    """A process's connections to its host's daemon. Thread-safe.

    Each request raises OSError: with the daemon's errno if the daemon refuses it, ENETDOWN if no daemon answers,
    EMFILE if MAX_CONNECTIONS are in use (waiting for one could wait for ever: for a thread that waits for us).
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: its holder may be interrupted by a signal handler that asks too
        self._all: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._makers: dict[int, _Connection] = {}  # descriptor -> the connection that made it

    def request(self, message: ChitcpdMsg) -> Resp:
        """The daemon's answer to `message`, which makes and closes no socket."""
        connection = self._take()
        answer = self._exchange(connection, message)
        self._put_back(connection)
        return _raise_if_refused(answer)

    def make(self, message: ChitcpdMsg) -> Resp:
        """The daemon's answer to `message`, SOCKET or ACCEPT, which makes the socket `ret`."""
        connection = self._take()
        answer = self._exchange(connection, message)
        if answer.error_code:
            self._put_back(connection)
        else:
            with self._lock:
                former = self._makers.pop(answer.ret, None)
                self._makers[answer.ret] = connection
            if former is not None:  # its socket ended without a CLOSE that succeeded: the number was free again
                self._put_back(former)
        return _raise_if_refused(answer)

    def close(self, sockfd: int, message: ChitcpdMsg) -> Resp:
        """The daemon's answer to `message`, CLOSE of `sockfd`."""
        with self._lock:
            # Before the request: once the daemon has freed the number, another thread may be given it.
            maker = self._makers.pop(sockfd, None)
        if maker is None:
            return self.request(message)
        answer = self._exchange(maker, message)
        with self._lock:
            if answer.error_code and sockfd not in self._makers:
                self._makers[sockfd] = maker  # the socket may still be there
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

    def _take(self) -> _Connection:
        while True:
            with self._lock:
                if self._idle:
                    connection = self._idle.pop()
                elif len(self._all) >= MAX_CONNECTIONS:
                    raise OSError(
                        errno.EMFILE,
                        f"{MAX_CONNECTIONS} sockets and waiting requests are all that a process can have: "
                        "close some sockets first",
                    )
                else:
                    connection = _Connection()
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
        return connection

    def _put_back(self, connection: _Connection) -> None:
        with self._lock:
            self._idle.append(connection)

    def _exchange(self, connection: _Connection, message: ChitcpdMsg) -> Resp:
        try:
            return connection.exchange(message)
        except BaseException:
            self._discard(connection)
            raise

    def _discard(self, connection: _Connection) -> None:
        connection.close()
        with self._lock:
            self._all.discard(connection)


def _raise_if_refused(answer: Resp) -> Resp:
    if answer.error_code:
        raise OSError(answer.error_code, os.strerror(answer.error_code))
    return answer


client = Client()
os.register_at_fork(after_in_child=client.forget)
