"""Socket addresses as raw Linux bytes: `sockaddr_in` and `sockaddr_in6`."""

from __future__ import annotations

import ipaddress
import socket
import struct

_IN = struct.Struct("=H2s4s8x")  # sin_family (native), sin_port (network order), sin_addr, sin_zero
_IN6 = struct.Struct("=H2s4s16s4s")  # sin6_family, sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id
STORAGE = 128  # bytes of a sockaddr_storage, which accept answers with

Address = tuple[str, int]  # an IP address in its shortest text form, and a port


def pack(address: Address) -> bytes:
    """The bytes of `address`: 16 for IPv4, 28 for IPv6.

    Raises ValueError if it is not an IP address or not a port.
    """
    packed = _packed(address[0])
    if not 0 <= address[1] <= 0xFFFF:
        raise ValueError(f"port {address[1]} is not in 0 to 65535")
    port = address[1].to_bytes(2, "big")
    if len(packed) == 4:
        return _IN.pack(socket.AF_INET, port, packed)
    return _IN6.pack(socket.AF_INET6, port, bytes(4), packed, bytes(4))


def _packed(ip: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET, ip)  # most are, and it takes a tenth of the other's time
    except (OSError, ValueError):
        return ipaddress.ip_address(ip).packed


def unpack(raw: bytes) -> Address:
    """The address in `raw`, which may be longer (`sockaddr_storage`).

    Raises ValueError if it is too short or of another family.
    """
    if len(raw) < 2:
        raise ValueError("a socket address of less than 2 bytes")
    (family,) = struct.unpack_from("=H", raw)
    form = {socket.AF_INET: _IN, socket.AF_INET6: _IN6}.get(family)
    if form is None or len(raw) < form.size:
        raise ValueError(f"{len(raw)} bytes of address family {family} are no IPv4 or IPv6 socket address")
    fields = form.unpack_from(raw)
    packed = fields[2] if family == socket.AF_INET else fields[3]
    return socket.inet_ntop(family, packed), int.from_bytes(fields[1], "big")
