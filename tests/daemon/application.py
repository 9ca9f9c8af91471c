"""An application as a C program would be: framed protobuf messages on a UNIX socket, byte by byte our own."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Any

from chisocket.protocol import chitcpd_pb2 as pb
from tests.daemon.conftest import PATIENCE

ARGUMENTS = {
    pb.SOCKET: "socket_args",
    pb.BIND: "bind_args",
    pb.LISTEN: "listen_args",
    pb.ACCEPT: "accept_args",
    pb.CONNECT: "connect_args",
    pb.SEND: "send_args",
    pb.RECV: "recv_args",
    pb.CLOSE: "close_args",
    pb.SHUTDOWN: "shutdown_args",
    pb.GETSOCKNAME: "name_args",
    pb.GETPEERNAME: "name_args",
    pb.CONTROL: "control_args",
    pb.OPEN: "socket_args",
    pb.START_CONNECT: "connect_args",
    pb.GETSOCKOPT: "sockopt_args",
    pb.SETSOCKOPT: "sockopt_args",
    pb.LINGER: "linger_args",
    pb.GET_SOCKET_STATE: "get_socket_state_args",
    pb.GET_SOCKET_BUFFER_CONTENTS: "get_socket_buffer_contents_args",
    pb.WAIT_FOR_STATE: "wait_for_state_args",
}

Descriptor = socket.socket  # Application.socket is a call


def sockaddr_in(host: str, port: int) -> bytes:
    """The 16 bytes of a Linux sockaddr_in, spelled out."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


class Application:
    """A connection to a daemon."""

    def __init__(self, path: str, *, greet: bool = True) -> None:
        self.raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.raw.settimeout(PATIENCE)
        self.raw.connect(path)
        if greet:
            self.send_message(pb.ChitcpdMsg(code=pb.INIT, init_args=pb.InitArgs(connection_type=pb.COMMAND_CONNECTION)))
            self.instance = self.answer().buf.decode()

    def __enter__(self) -> Application:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Go away, as at the end of a process."""
        self.raw.close()

    # ---- messages

    def send_bytes(self, data: bytes) -> None:
        """Anything."""
        self.raw.sendall(data)

    def send_message(self, message: pb.ChitcpdMsg) -> None:
        """A message behind its length: 8 bytes in native order."""
        body = message.SerializePartialToString()
        self.send_bytes(struct.pack("=Q", len(body)) + body)

    def answer(self) -> pb.Resp:
        """The next answer."""
        (length,) = struct.unpack("=Q", self._read(8))
        message = pb.ChitcpdMsg.FromString(self._read(length))
        assert message.code == pb.RESP
        return message.resp

    def is_closed(self) -> bool:
        """Whether the daemon closes the connection without a word; False if it answers."""
        try:
            return self.raw.recv(1) == b""
        except ConnectionResetError:
            return True

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self.raw.recv(count - len(data))
            assert chunk, "the daemon has closed the connection"
            data += chunk
        return data

    def take_back(self) -> None:
        """Half-close: the request that waits is to be given up, and the daemon closes its half."""
        self.raw.shutdown(socket.SHUT_WR)

    # ---- calls

    def ask(self, code: pb.MsgCode, **arguments: Any) -> None:
        """Send a request, and leave its answer for later."""
        message = pb.ChitcpdMsg(code=code)
        getattr(message, ARGUMENTS[code]).SetInParent()
        for name, value in arguments.items():
            setattr(getattr(message, ARGUMENTS[code]), name, value)
        self.send_message(message)

    def call(self, code: pb.MsgCode, **arguments: Any) -> pb.Resp:
        """A request and its answer."""
        self.ask(code, **arguments)
        return self.answer()

    def good(self, code: pb.MsgCode, **arguments: Any) -> pb.Resp:
        """The same, of which no error is expected."""
        resp = self.call(code, **arguments)
        assert resp.error_code == 0, resp
        return resp

    def socket(self) -> int:
        """A fresh socket's descriptor."""
        return self.good(pb.SOCKET, domain=socket.AF_INET, type=socket.SOCK_STREAM, protocol=0).ret

    def opened(self) -> tuple[int, Descriptor]:
        """(number, the descriptor) of a fresh socket with a pair."""
        self.ask(pb.OPEN, domain=socket.AF_INET, type=socket.SOCK_STREAM, protocol=0)
        frame, fds, _, _ = socket.recv_fds(self.raw, 4096, 1)
        return pb.ChitcpdMsg.FromString(frame[8:]).resp.ret, socket.socket(fileno=fds[0])

    def listening(self, host: str, *, backlog: int = 5) -> tuple[int, int]:
        """(descriptor, port) of a listening socket on a port that the daemon has picked."""
        fd = self.socket()
        self.good(pb.BIND, sockfd=fd, addr=sockaddr_in(host, 0))
        self.good(pb.LISTEN, sockfd=fd, backlog=backlog)
        addr = self.good(pb.GETSOCKNAME, sockfd=fd).addr
        return fd, int.from_bytes(addr[2:4], "big")

    def connected(self, host: str, port: int) -> int:
        """The descriptor of a socket that is connected there."""
        fd = self.socket()
        self.good(pb.CONNECT, sockfd=fd, addr=sockaddr_in(host, port))
        return fd

    def send(self, fd: int, data: bytes) -> int:
        """How many bytes were taken."""
        return self.good(pb.SEND, sockfd=fd, flags=0, buf=data).ret

    def recv(self, fd: int, length: int = 1 << 16) -> bytes:
        """At least one byte, or none at the end of the stream."""
        resp = self.good(pb.RECV, sockfd=fd, flags=0, len=length)
        assert resp.ret == len(resp.buf)
        return resp.buf

    def recv_exactly(self, fd: int, count: int) -> bytes:
        """So many bytes."""
        data = b""
        while len(data) < count:
            chunk = self.recv(fd, count - len(data))
            assert chunk, f"the stream ended after {len(data)} bytes"
            data += chunk
        return data


class Conversation:
    """Two applications of one daemon, or of two, and a connection between them."""

    def __init__(self, client: Application, server: Application, host: str) -> None:
        self.client, self.server = client, server
        self.listener, self.port = server.listening(host)
        server.ask(pb.ACCEPT, sockfd=self.listener)
        self.near = client.connected(host, self.port)
        self.far = server.answer().ret
