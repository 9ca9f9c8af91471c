"""The class `socket`: Python's own, as far as blocking streams go, over chiTCP."""

from __future__ import annotations

import errno
import io
import os
import warnings
from socket import (
    AF_INET,
    AF_INET6,
    EAI_ADDRFAMILY,
    SOCK_STREAM,
    AddressFamily,
    SocketKind,
    gaierror,
)
from types import TracebackType
from typing import IO, Any, Self, cast

from chisocket.functions import (
    chisocket_accept,
    chisocket_bind,
    chisocket_close,
    chisocket_connect,
    chisocket_getpeername,
    chisocket_getsockname,
    chisocket_listen,
    chisocket_recv,
    chisocket_send,
    chisocket_shutdown,
    chisocket_socket,
)
from chisocket.names import resolve
from chisocket.protocol.addresses import Address

_Bytes = bytes | bytearray | memoryview
_RetAddress = tuple[str, int] | tuple[str, int, int, int]  # the longer one for IPv6: flow and scope are 0
DEFAULT_BACKLOG = 128


class socket:  # noqa: N801  # spelled as what it replaces
    """A stream socket whose TCP is chitcpd's. Methods do what those of the standard library's class of this name do.

    Close it, or use it in a `with`: the end of the process aborts a socket that is still open. It may be used by many
    threads, and by no child of a fork. There are neither timeouts nor a non-blocking mode, and no `fileno()`: the
    descriptor is chitcpd's, and `select` could not wait for it.
    """

    _sockfd = -1

    def __init__(self, family: int = AF_INET, type: int = SOCK_STREAM, proto: int = 0) -> None:  # noqa: A002
        self._sockfd = chisocket_socket(family, type, proto)
        self._describe(family, type, proto)

    def _describe(self, family: int, type: int, proto: int) -> None:  # noqa: A002
        self.family = AddressFamily(family)
        self.type = SocketKind(type)
        self.proto = proto
        self._files = 0  # made by makefile() and still open
        self._closed = False

    def bind(self, address: tuple[Any, ...]) -> None:
        """Take (host, port) as the own address; host "" is every address of the host, port 0 one that is free."""
        chisocket_bind(self._sockfd, self._resolve(address))

    def listen(self, backlog: int = DEFAULT_BACKLOG) -> None:
        """Wait for connections, at most `backlog` of them until they are accepted."""
        chisocket_listen(self._sockfd, max(backlog, 0))

    def accept(self) -> tuple[socket, _RetAddress]:
        """Wait for a connection: a socket for it, and the peer's address."""
        sockfd, address = chisocket_accept(self._sockfd)
        accepted = socket.__new__(socket)
        accepted._sockfd = sockfd
        accepted._describe(self.family, self.type, self.proto)
        return accepted, self._named(address)

    def connect(self, address: tuple[Any, ...]) -> None:
        """Connect to (host, port); returns once the connection is established."""
        chisocket_connect(self._sockfd, self._resolve(address))

    def connect_ex(self, address: tuple[Any, ...]) -> int:
        """As connect(), but return the errno of a failure to connect, or 0."""
        resolved = self._resolve(address)
        try:
            chisocket_connect(self._sockfd, resolved)
        except OSError as error:
            if error.errno is None:
                raise
            return error.errno
        return 0

    def send(self, data: _Bytes, flags: int = 0) -> int:
        """Queue data, waiting for room; returns how many of its bytes were taken."""
        return chisocket_send(self._sockfd, data, flags) if len(data) else 0

    def sendall(self, data: _Bytes, flags: int = 0) -> None:
        """Queue all of the data, waiting for room."""
        left = memoryview(data).cast("B")
        while left:
            left = left[chisocket_send(self._sockfd, left, flags) :]

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Wait for data: from 1 to `bufsize` bytes, or b"" at the end of the stream."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        return chisocket_recv(self._sockfd, bufsize, flags) if bufsize else b""

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """As recv(), into a buffer; returns the number of bytes. At most `nbytes`, or what the buffer holds."""
        view = memoryview(buffer).cast("B")
        if nbytes < 0:
            raise ValueError("negative buffersize in recv_into")
        if nbytes > len(view):
            raise ValueError("buffer too small for requested bytes")
        data = self.recv(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def shutdown(self, how: int) -> None:
        """End one direction or both: SHUT_RD, SHUT_WR or SHUT_RDWR."""
        chisocket_shutdown(self._sockfd, how)

    def close(self) -> None:
        """Close the connection in order, once the files that makefile() made are closed too.

        Returns when the peer has acknowledged all that was sent. Closing again does nothing.
        """
        self._closed = True
        if not self._files:
            self._close()

    def getsockname(self) -> _RetAddress:
        """The own address."""
        return self._named(chisocket_getsockname(self._sockfd))

    def getpeername(self) -> _RetAddress:
        """The peer's address; ENOTCONN if there is none."""
        return self._named(chisocket_getpeername(self._sockfd))

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """A file over this connection, as `open()` makes them. Closing it leaves the socket open."""
        if not mode or not set(mode) <= set("rwb"):
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        binary = "b" in mode
        if buffering == 0 and not binary:
            raise ValueError("unbuffered streams must be binary")
        writing = "w" in mode
        reading = "r" in mode or not writing
        raw = _SocketFile(self, reading=reading, writing=writing)
        self._files += 1
        size = buffering if buffering is not None and buffering > 0 else io.DEFAULT_BUFFER_SIZE
        stream: Any = raw
        if buffering != 0 and reading and writing:
            stream = io.BufferedRWPair(raw, raw, size)
        elif buffering != 0:
            stream = io.BufferedReader(raw, size) if reading else io.BufferedWriter(raw, size)
        return cast(IO[Any], stream if binary else io.TextIOWrapper(stream, encoding, errors, newline))

    def _file_closed(self) -> None:
        self._files -= 1
        if self._closed and not self._files:
            self._close()

    def _close(self) -> None:
        sockfd, self._sockfd = self._sockfd, -1
        if sockfd < 0:
            return
        try:
            chisocket_close(sockfd)
        except OSError as error:
            # Of a socket that never connected, or whose connection is over, the C daemon says ENOTCONN. Python's own
            # class passes over a reset that it meets here.
            if error.errno not in (errno.ENOTCONN, errno.ECONNRESET):
                raise

    def _resolve(self, address: tuple[Any, ...]) -> Address:
        host, port = address[:2]
        for ip in resolve(host):
            if (":" in ip) == (self.family == AF_INET6):
                return ip, port
        raise gaierror(EAI_ADDRFAMILY, f"{host} has no address of the family {self.family.name}")

    def _named(self, address: Address) -> _RetAddress:
        return (*address, 0, 0) if self.family == AF_INET6 else address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._sockfd < 0:
            return "<chisocket.socket [closed]>"
        return f"<chisocket.socket sockfd={self._sockfd}, family={self.family.name}, pid={os.getpid()}>"

    def __del__(self) -> None:
        # It can't be closed here: that waits for the peer, and the garbage collector may run inside a request.
        if self._sockfd >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)


class _SocketFile(io.RawIOBase):
    """The unbuffered file below what makefile() returns."""

    def __init__(self, sock: socket, *, reading: bool, writing: bool) -> None:
        self._socket = sock
        self._reading = reading
        self._writing = writing

    def readable(self) -> bool:
        return self._reading and not self.closed

    def writable(self) -> bool:
        return self._writing and not self.closed

    def readinto(self, buffer: Any) -> int:
        return self._socket.recv_into(buffer)

    def write(self, data: Any) -> int:
        return self._socket.send(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._socket._file_closed()


def create_connection(address: tuple[str, int], *, source_address: tuple[str, int] | None = None) -> socket:
    """A socket connected to (host, port): to the first of the host's addresses that accepts.

    Raises the last address's OSError if none does.
    """
    host, port = address
    for ip in resolve(host):
        sock = socket(AF_INET6 if ":" in ip else AF_INET)
        try:
            if source_address is not None:
                sock.bind(source_address)
            sock.connect((ip, port))
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            failure = error
        else:
            return sock
    raise failure


def create_server(address: tuple[str, int], *, family: int = AF_INET, backlog: int = DEFAULT_BACKLOG) -> socket:
    """A socket that listens at (host, port)."""
    sock = socket(family)
    try:
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock
