"""The contract with the C chiTCP: numbers of codes and fields, bytes of addresses, frames."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from chisocket.protocol import addresses, chitcpd_pb2, framing
from chisocket.protocol.chitcpd_pb2 import (
    COMMAND_CONNECTION,
    INIT,
    RESP,
    SEND,
    ChitcpdMsg,
    InitArgs,
    Resp,
    SendArgs,
)

CODES = {
    "INIT": 0,
    "SOCKET": 1,
    "BIND": 2,
    "LISTEN": 3,
    "ACCEPT": 4,
    "CONNECT": 5,
    "SEND": 6,
    "RECV": 7,
    "CLOSE": 8,
    "GET_SOCKET_STATE": 9,
    "GET_SOCKET_BUFFER_CONTENTS": 10,
    "RESP": 11,
    "DEBUG": 12,
    "DEBUG_EVENT": 13,
    "WAIT_FOR_STATE": 14,
}
SUB_MESSAGES = {
    "init_args": 2,
    "socket_args": 3,
    "bind_args": 4,
    "listen_args": 5,
    "accept_args": 6,
    "connect_args": 7,
    "recv_args": 8,
    "send_args": 9,
    "close_args": 10,
    "get_socket_state_args": 11,
    "get_socket_buffer_contents_args": 12,
    "resp": 13,
    "debug_event_args": 14,
    "wait_for_state_args": 15,
}
# sub-message -> field -> (number, type, required)
SOCKFD = {"sockfd": (1, "int32", True)}
FIELDS = {
    "init_args": {"connection_type": (1, "int32", True), "debug": (2, "message", False)},
    "socket_args": {
        "domain": (1, "int32", True),
        "type": (2, "int32", True),
        "protocol": (3, "int32", True),
    },
    "bind_args": SOCKFD | {"addr": (2, "bytes", True)},
    "connect_args": SOCKFD | {"addr": (2, "bytes", True)},
    "listen_args": SOCKFD | {"backlog": (2, "int32", True)},
    "accept_args": SOCKFD,
    "close_args": SOCKFD,
    "get_socket_state_args": SOCKFD,
    "get_socket_buffer_contents_args": SOCKFD,
    "recv_args": SOCKFD | {"flags": (2, "int32", True), "len": (3, "int32", True)},
    "send_args": SOCKFD | {"flags": (2, "int32", True), "buf": (3, "bytes", True)},
    "debug_event_args": SOCKFD
    | {"event_flag": (2, "int32", True), "new_sockfd": (3, "int32", True), "is_active": (4, "bool", True)},
    "wait_for_state_args": SOCKFD | {"tcp_state": (2, "int32", True)},
    "resp": {
        "ret": (1, "int32", True),
        "error_code": (2, "int32", True),
        "addr": (3, "bytes", False),
        "buf": (4, "bytes", False),
        "socket_state": (5, "message", False),
        "socket_buffer_contents": (6, "message", False),
    },
}
NESTED = {
    "DebugInitArgs": SOCKFD | {"event_flags": (2, "int32", True)},
    "SocketState": {
        "tcp_state": (1, "int32", True),
        "iss": (2, "int32", True),
        "irs": (3, "int32", True),
        "snd_una": (4, "int32", True),
        "rcv_nxt": (5, "int32", True),
        "snd_nxt": (6, "int32", True),
        "rcv_wnd": (7, "int32", True),
        "snd_wnd": (8, "int32", True),
    },
    "SocketBufferContents": {"snd": (1, "bytes", True), "rcv": (2, "bytes", True)},
}
TYPES = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
}
MESSAGE = ChitcpdMsg.DESCRIPTOR


def fields_of(message: Any) -> dict[str, tuple[int, str, bool]]:
    """Those of the C chiTCP."""
    return {f.name: (f.number, TYPES[f.type], f.is_required) for f in message.fields if f.number < 100}


def test_codes_below_100_are_those_of_the_c_chitcp() -> None:
    numbers = chitcpd_pb2.DESCRIPTOR.enum_types_by_name["MsgCode"].values_by_name
    assert {name: value.number for name, value in numbers.items() if value.number < 100} == CODES


def test_sub_messages_below_100_are_those_of_the_c_chitcp() -> None:
    found = {f.name: f.number for f in MESSAGE.fields if f.message_type and f.number < 100}
    assert found == SUB_MESSAGES
    # Of the C chiTCP's it is an enum: the same bytes. As a number, one that nobody knows can be answered.
    assert fields_of(MESSAGE)["code"] == (1, "int32", True)
    assert not any(f.is_required for f in MESSAGE.fields if f.name != "code")


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_a_sub_message(name: str) -> None:
    assert fields_of(MESSAGE.fields_by_name[name].message_type) == FIELDS[name]


@pytest.mark.parametrize("name", NESTED)
def test_fields_of_a_nested_message(name: str) -> None:
    assert fields_of(chitcpd_pb2.DESCRIPTOR.message_types_by_name[name]) == NESTED[name]


def test_connection_types() -> None:
    kinds = chitcpd_pb2.DESCRIPTOR.enum_types_by_name["ConnectionType"].values
    assert [kind.number for kind in kinds] == [0, 1]  # command, debug


def test_a_frame_is_a_native_8_byte_length_and_the_message() -> None:
    hello = ChitcpdMsg(code=INIT, init_args=InitArgs(connection_type=COMMAND_CONNECTION))
    body = bytes.fromhex("0800 1202 0800")  # field 1 = 0; field 2, 2 bytes: field 1 = 0
    assert framing.encode(hello) == len(body).to_bytes(8, sys.byteorder) + body


def test_bytes_of_an_answer() -> None:
    answer = ChitcpdMsg(code=RESP, resp=Resp(ret=-1, error_code=9))
    assert framing.encode(answer)[8:] == bytes.fromhex("080b 6a0d 08ffffffffffffffffff01 1009")


@given(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=2000))
def test_what_was_encoded_is_decoded(sockfd: int, data: bytes) -> None:
    message = ChitcpdMsg(code=SEND, send_args=SendArgs(sockfd=sockfd, flags=0, buf=data))
    raw = framing.encode(message)
    assert framing.body_length(raw[: framing.LENGTH.size]) == len(raw) - framing.LENGTH.size
    assert framing.decode(raw[framing.LENGTH.size :]) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(raw: bytes) -> None:
    try:
        message = framing.decode(raw)
    except framing.ProtocolError:
        return
    assert message.IsInitialized()


def test_a_missing_required_field_is_a_protocol_error() -> None:
    with pytest.raises(framing.ProtocolError):
        framing.decode(b"")


@given(st.integers(0, 2**64 - 1))
def test_a_length_beyond_the_limit_is_a_protocol_error(length: int) -> None:
    header = length.to_bytes(8, sys.byteorder)
    if length <= framing.MAX_MESSAGE:
        assert framing.body_length(header) == length
    else:
        with pytest.raises(framing.ProtocolError, match=str(length)):
            framing.body_length(header)


def test_bytes_of_an_ipv4_address_are_a_linux_sockaddr_in() -> None:
    family = socket.AF_INET.to_bytes(2, sys.byteorder)
    assert addresses.pack(("10.0.1.2", 7000)) == family + bytes.fromhex("1b58 0a000102 0000000000000000")


def test_bytes_of_an_ipv6_address_are_a_linux_sockaddr_in6() -> None:
    family = socket.AF_INET6.to_bytes(2, sys.byteorder)
    ip = bytes.fromhex("20010db8 00000000 00000000 00000001")
    assert addresses.pack(("2001:db8::1", 80)) == family + b"\0\x50" + bytes(4) + ip + bytes(4)


@given(st.ip_addresses(), st.integers(0, 0xFFFF), st.booleans())
def test_what_was_packed_is_unpacked(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, storage: bool
) -> None:
    raw = addresses.pack((str(ip), port))
    assert len(raw) == (16 if ip.version == 4 else 28)
    if storage:  # accept answers with a whole sockaddr_storage
        raw = raw.ljust(addresses.STORAGE, b"\0")
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    assert addresses.unpack(raw) == (socket.inet_ntop(family, ip.packed), port)  # mapped ones as ::ffff:1.2.3.4


@given(st.binary(max_size=addresses.STORAGE))
def test_any_bytes_are_an_address_or_a_value_error(raw: bytes) -> None:
    try:
        ip, port = addresses.unpack(raw)
    except ValueError:
        return
    ipaddress.ip_address(ip)
    assert 0 <= port <= 0xFFFF


@pytest.mark.parametrize("address", [("bob", 7), ("10.0.0.256", 7), ("10.0.0.1", -1), ("10.0.0.1", 65536)])
def test_what_is_no_address_is_refused(address: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=r"address|port"):
        addresses.pack(address)
