"""The judge as an application: calls over the UNIX protocol, each on a connection of its own while it blocks."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread

from chisocket.protocol import addresses, framing
from chisocket.protocol import chitcpd_pb2 as pb
from testbed.grading.outside.wire import Gone
from testbed.grading.script import Failed

ANSWER = 10.0  # seconds for the answer to a call that does not block
_BLOCKS = 90.0  # seconds, for one that does: longer than any test


class Connection:
    """One connection to the daemon's UNIX socket. Raises Gone, and Failed for an answer that makes no sense."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER)
        try:
            self._greet(path)
        except BaseException:
            self._socket.close()
            raise

    def _greet(self, path: str) -> None:
        try:
            self._socket.connect(path)
        except OSError as error:
            raise Gone(f"its UNIX socket refuses a connection: {error.strerror or error}") from error
        hello = pb.ChitcpdMsg(code=pb.INIT, init_args=pb.InitArgs(connection_type=pb.COMMAND_CONNECTION))
        if error_code := self.ask(hello).error_code:
            raise Failed(f"expected INIT to be answered with RESP and error 0; got error {error_code}")

    def ask(self, message: pb.ChitcpdMsg, within: float = ANSWER) -> pb.Resp:
        """Its answer."""
        name = pb.MsgCode.Name(message.code)
        self._socket.settimeout(within)
        try:
            self._socket.sendall(framing.encode(message))
            answer = framing.decode(self._read(framing.body_length(self._read(framing.LENGTH.size))))
        except TimeoutError as error:
            raise Failed(f"expected an answer to {name}; got none within {within:g} s") from error
        except OSError as error:
            raise Gone(f"its UNIX socket was closed during {name}: {error.strerror or error}") from error
        except framing.ProtocolError as error:
            raise Failed(f"expected a RESP to {name}; got what is no message of chitcpd's ({error})") from error
        if answer.code != pb.RESP or not answer.HasField("resp"):
            raise Failed(f"expected a RESP to {name}; got a message with code {answer.code}")
        return answer.resp

    def close(self) -> None:
        """End it; a call that waits ends too."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            if not (piece := self._socket.recv(min(length - len(data), 1 << 18))):
                raise ConnectionResetError(0, "end of file")
            data += piece
        return bytes(data)


class Application:
    """An application with one socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._all: list[Connection] = []
        self._idle: list[Connection] = []
        self._lock = Lock()
        self._closed = False
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._worker: Thread | None = None

    def ask(self, message: pb.ChitcpdMsg, within: float = ANSWER) -> pb.Resp:
        """Make a call; what it answers."""
        connection = self._take()
        answer = connection.ask(message, within)
        with self._lock:
            self._idle.append(connection)
        return answer

    def begin(self, message: pb.ChitcpdMsg) -> Future[pb.Resp]:
        """Make a call that may block."""
        future: Future[pb.Resp] = Future()
        Thread(target=_fulfil, args=(future, lambda: self.ask(message, _BLOCKS)), daemon=True).start()
        return future

    def in_turn(self, call: Callable[[], pb.Resp]) -> Future[pb.Resp]:
        """Do this when what was to be done before is done: sending, and closing after it."""
        if self._worker is None:
            self._worker = Thread(target=self._work, daemon=True)
            self._worker.start()
        future: Future[pb.Resp] = Future()
        self._orders.put(lambda: _fulfil(future, call))
        return future

    def send(self, sockfd: int, data: bytes) -> pb.Resp:
        """SEND until all of it was taken, or an error."""
        while True:
            args = pb.SendArgs(sockfd=sockfd, flags=0, buf=data)
            answer = self.ask(pb.ChitcpdMsg(code=pb.SEND, send_args=args), _BLOCKS)
            if answer.error_code:
                return answer
            if not 0 < answer.ret <= len(data):
                raise Failed(f"expected SEND to take 1 to {len(data)} bytes; got {answer.ret}")
            data = data[answer.ret :]
            if not data:
                return answer

    def close(self) -> None:
        """End all connections: the daemon forgets the socket."""
        self._orders.put(None)
        with self._lock:
            self._closed = True
            for connection in self._all:
                connection.close()

    def _take(self) -> Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        connection = Connection(self._path)
        with self._lock:
            if self._closed:
                connection.close()
                raise Gone("the test is over")
            self._all.append(connection)
        return connection

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order()


def _fulfil(future: Future[pb.Resp], call: Callable[[], pb.Resp]) -> None:
    try:
        future.set_result(call())
    except (Failed, Gone, OSError) as error:
        future.set_exception(error)


def wait_for_socket(path: str, within: float) -> str | None:
    """Wait until a daemon answers INIT there; why not, or None."""
    end = time.monotonic() + within
    while True:
        try:
            Connection(path).close()
        except (Gone, Failed) as error:
            if time.monotonic() >= end or isinstance(error, Failed):
                return str(error)
            time.sleep(0.05)
        else:
            return None


def address(ip: str, port: int) -> bytes:
    """As the calls have it."""
    return addresses.pack((ip, port))
