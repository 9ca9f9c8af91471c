"""One message on the UNIX socket: its length as 8 bytes in native byte order, then one protobuf ChitcpdMsg."""

from __future__ import annotations

import struct

from google.protobuf.message import DecodeError

from chisocket.protocol.chitcpd_pb2 import ChitcpdMsg

LENGTH = struct.Struct("=Q")
MAX_MESSAGE = 16 << 20  # bytes
_NONSENSE = 1 << 40  # bytes; such a length is somebody else's protocol, or an attack


class ProtocolError(Exception):
    """The other side sent what is no chitcpd message: the connection can't be used any more."""


class TooLong(ProtocolError):
    """A message of `length` bytes; MAX_MESSAGE are allowed."""

    def __init__(self, length: int) -> None:
        super().__init__(f"a message of {length} bytes; {MAX_MESSAGE} are allowed")
        self.length = length


def encode(message: ChitcpdMsg) -> bytes:
    """The bytes of `message` on the UNIX socket, its length before it."""
    body = message.SerializeToString()
    return LENGTH.pack(len(body)) + body


def body_length(header: bytes | bytearray) -> int:
    """The length of the body that follows these 8 bytes.

    Raises TooLong if it is more than MAX_MESSAGE, ProtocolError if it makes no sense.
    """
    (length,) = LENGTH.unpack(header)
    if length >= _NONSENSE:
        raise ProtocolError(f"a message of {length} bytes")
    if length > MAX_MESSAGE:
        raise TooLong(length)
    return int(length)


def decode(body: bytes) -> ChitcpdMsg:
    """The message in `body`, without its length.

    Raises ProtocolError if it is not one, or if a required field is missing.
    """
    try:
        message = ChitcpdMsg.FromString(body)
    except DecodeError as error:
        raise ProtocolError(str(error)) from None
    if not message.IsInitialized():  # protobuf's C parser does not look for it
        raise ProtocolError("a message without its required fields")
    return message
