from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MsgCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INIT: _ClassVar[MsgCode]
    SOCKET: _ClassVar[MsgCode]
    BIND: _ClassVar[MsgCode]
    LISTEN: _ClassVar[MsgCode]
    ACCEPT: _ClassVar[MsgCode]
    CONNECT: _ClassVar[MsgCode]
    SEND: _ClassVar[MsgCode]
    RECV: _ClassVar[MsgCode]
    CLOSE: _ClassVar[MsgCode]
    GET_SOCKET_STATE: _ClassVar[MsgCode]
    GET_SOCKET_BUFFER_CONTENTS: _ClassVar[MsgCode]
    RESP: _ClassVar[MsgCode]
    DEBUG: _ClassVar[MsgCode]
    DEBUG_EVENT: _ClassVar[MsgCode]
    WAIT_FOR_STATE: _ClassVar[MsgCode]
    SHUTDOWN: _ClassVar[MsgCode]
    GETSOCKNAME: _ClassVar[MsgCode]
    GETPEERNAME: _ClassVar[MsgCode]
    CONTROL: _ClassVar[MsgCode]
    OPEN: _ClassVar[MsgCode]
    START_CONNECT: _ClassVar[MsgCode]
    GETSOCKOPT: _ClassVar[MsgCode]
    SETSOCKOPT: _ClassVar[MsgCode]
    LINGER: _ClassVar[MsgCode]

class ConnectionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMMAND_CONNECTION: _ClassVar[ConnectionType]
    DEBUG_CONNECTION: _ClassVar[ConnectionType]
INIT: MsgCode
SOCKET: MsgCode
BIND: MsgCode
LISTEN: MsgCode
ACCEPT: MsgCode
CONNECT: MsgCode
SEND: MsgCode
RECV: MsgCode
CLOSE: MsgCode
GET_SOCKET_STATE: MsgCode
GET_SOCKET_BUFFER_CONTENTS: MsgCode
RESP: MsgCode
DEBUG: MsgCode
DEBUG_EVENT: MsgCode
WAIT_FOR_STATE: MsgCode
SHUTDOWN: MsgCode
GETSOCKNAME: MsgCode
GETPEERNAME: MsgCode
CONTROL: MsgCode
OPEN: MsgCode
START_CONNECT: MsgCode
GETSOCKOPT: MsgCode
SETSOCKOPT: MsgCode
LINGER: MsgCode
COMMAND_CONNECTION: ConnectionType
DEBUG_CONNECTION: ConnectionType

class DebugInitArgs(_message.Message):
    __slots__ = ("sockfd", "event_flags")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    EVENT_FLAGS_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    event_flags: int
    def __init__(self, sockfd: _Optional[int] = ..., event_flags: _Optional[int] = ...) -> None: ...

class InitArgs(_message.Message):
    __slots__ = ("connection_type", "debug")
    CONNECTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    connection_type: int
    debug: DebugInitArgs
    def __init__(self, connection_type: _Optional[int] = ..., debug: _Optional[_Union[DebugInitArgs, _Mapping]] = ...) -> None: ...

class SocketArgs(_message.Message):
    __slots__ = ("domain", "type", "protocol")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    domain: int
    type: int
    protocol: int
    def __init__(self, domain: _Optional[int] = ..., type: _Optional[int] = ..., protocol: _Optional[int] = ...) -> None: ...

class BindArgs(_message.Message):
    __slots__ = ("sockfd", "addr")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    addr: bytes
    def __init__(self, sockfd: _Optional[int] = ..., addr: _Optional[bytes] = ...) -> None: ...

class ListenArgs(_message.Message):
    __slots__ = ("sockfd", "backlog")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    backlog: int
    def __init__(self, sockfd: _Optional[int] = ..., backlog: _Optional[int] = ...) -> None: ...

class AcceptArgs(_message.Message):
    __slots__ = ("sockfd",)
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    def __init__(self, sockfd: _Optional[int] = ...) -> None: ...

class ConnectArgs(_message.Message):
    __slots__ = ("sockfd", "addr", "wait")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    addr: bytes
    wait: bool
    def __init__(self, sockfd: _Optional[int] = ..., addr: _Optional[bytes] = ..., wait: bool = ...) -> None: ...

class RecvArgs(_message.Message):
    __slots__ = ("sockfd", "flags", "len")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    LEN_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    flags: int
    len: int
    def __init__(self, sockfd: _Optional[int] = ..., flags: _Optional[int] = ..., len: _Optional[int] = ...) -> None: ...

class SendArgs(_message.Message):
    __slots__ = ("sockfd", "flags", "buf")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    BUF_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    flags: int
    buf: bytes
    def __init__(self, sockfd: _Optional[int] = ..., flags: _Optional[int] = ..., buf: _Optional[bytes] = ...) -> None: ...

class CloseArgs(_message.Message):
    __slots__ = ("sockfd",)
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    def __init__(self, sockfd: _Optional[int] = ...) -> None: ...

class GetSocketStateArgs(_message.Message):
    __slots__ = ("sockfd",)
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    def __init__(self, sockfd: _Optional[int] = ...) -> None: ...

class GetSocketBufferContentsArgs(_message.Message):
    __slots__ = ("sockfd",)
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    def __init__(self, sockfd: _Optional[int] = ...) -> None: ...

class DebugEventArgs(_message.Message):
    __slots__ = ("sockfd", "event_flag", "new_sockfd", "is_active")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    EVENT_FLAG_FIELD_NUMBER: _ClassVar[int]
    NEW_SOCKFD_FIELD_NUMBER: _ClassVar[int]
    IS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    event_flag: int
    new_sockfd: int
    is_active: bool
    def __init__(self, sockfd: _Optional[int] = ..., event_flag: _Optional[int] = ..., new_sockfd: _Optional[int] = ..., is_active: bool = ...) -> None: ...

class WaitForStateArgs(_message.Message):
    __slots__ = ("sockfd", "tcp_state")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    TCP_STATE_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    tcp_state: int
    def __init__(self, sockfd: _Optional[int] = ..., tcp_state: _Optional[int] = ...) -> None: ...

class SocketState(_message.Message):
    __slots__ = ("tcp_state", "iss", "irs", "snd_una", "rcv_nxt", "snd_nxt", "rcv_wnd", "snd_wnd")
    TCP_STATE_FIELD_NUMBER: _ClassVar[int]
    ISS_FIELD_NUMBER: _ClassVar[int]
    IRS_FIELD_NUMBER: _ClassVar[int]
    SND_UNA_FIELD_NUMBER: _ClassVar[int]
    RCV_NXT_FIELD_NUMBER: _ClassVar[int]
    SND_NXT_FIELD_NUMBER: _ClassVar[int]
    RCV_WND_FIELD_NUMBER: _ClassVar[int]
    SND_WND_FIELD_NUMBER: _ClassVar[int]
    tcp_state: int
    iss: int
    irs: int
    snd_una: int
    rcv_nxt: int
    snd_nxt: int
    rcv_wnd: int
    snd_wnd: int
    def __init__(self, tcp_state: _Optional[int] = ..., iss: _Optional[int] = ..., irs: _Optional[int] = ..., snd_una: _Optional[int] = ..., rcv_nxt: _Optional[int] = ..., snd_nxt: _Optional[int] = ..., rcv_wnd: _Optional[int] = ..., snd_wnd: _Optional[int] = ...) -> None: ...

class SocketBufferContents(_message.Message):
    __slots__ = ("snd", "rcv")
    SND_FIELD_NUMBER: _ClassVar[int]
    RCV_FIELD_NUMBER: _ClassVar[int]
    snd: bytes
    rcv: bytes
    def __init__(self, snd: _Optional[bytes] = ..., rcv: _Optional[bytes] = ...) -> None: ...

class Resp(_message.Message):
    __slots__ = ("ret", "error_code", "addr", "buf", "socket_state", "socket_buffer_contents")
    RET_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    BUF_FIELD_NUMBER: _ClassVar[int]
    SOCKET_STATE_FIELD_NUMBER: _ClassVar[int]
    SOCKET_BUFFER_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    ret: int
    error_code: int
    addr: bytes
    buf: bytes
    socket_state: SocketState
    socket_buffer_contents: SocketBufferContents
    def __init__(self, ret: _Optional[int] = ..., error_code: _Optional[int] = ..., addr: _Optional[bytes] = ..., buf: _Optional[bytes] = ..., socket_state: _Optional[_Union[SocketState, _Mapping]] = ..., socket_buffer_contents: _Optional[_Union[SocketBufferContents, _Mapping]] = ...) -> None: ...

class ShutdownArgs(_message.Message):
    __slots__ = ("sockfd", "how")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    how: int
    def __init__(self, sockfd: _Optional[int] = ..., how: _Optional[int] = ...) -> None: ...

class NameArgs(_message.Message):
    __slots__ = ("sockfd",)
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    def __init__(self, sockfd: _Optional[int] = ...) -> None: ...

class LingerArgs(_message.Message):
    __slots__ = ("sockfd", "serial")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    serial: int
    def __init__(self, sockfd: _Optional[int] = ..., serial: _Optional[int] = ...) -> None: ...

class SockoptArgs(_message.Message):
    __slots__ = ("sockfd", "level", "name", "value")
    SOCKFD_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    sockfd: int
    level: int
    name: int
    value: bytes
    def __init__(self, sockfd: _Optional[int] = ..., level: _Optional[int] = ..., name: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class ControlArgs(_message.Message):
    __slots__ = ("command", "json")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    command: str
    json: bytes
    def __init__(self, command: _Optional[str] = ..., json: _Optional[bytes] = ...) -> None: ...

class ChitcpdMsg(_message.Message):
    __slots__ = ("code", "init_args", "socket_args", "bind_args", "listen_args", "accept_args", "connect_args", "recv_args", "send_args", "close_args", "get_socket_state_args", "get_socket_buffer_contents_args", "resp", "debug_event_args", "wait_for_state_args", "shutdown_args", "name_args", "control_args", "sockopt_args", "linger_args")
    CODE_FIELD_NUMBER: _ClassVar[int]
    INIT_ARGS_FIELD_NUMBER: _ClassVar[int]
    SOCKET_ARGS_FIELD_NUMBER: _ClassVar[int]
    BIND_ARGS_FIELD_NUMBER: _ClassVar[int]
    LISTEN_ARGS_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_ARGS_FIELD_NUMBER: _ClassVar[int]
    CONNECT_ARGS_FIELD_NUMBER: _ClassVar[int]
    RECV_ARGS_FIELD_NUMBER: _ClassVar[int]
    SEND_ARGS_FIELD_NUMBER: _ClassVar[int]
    CLOSE_ARGS_FIELD_NUMBER: _ClassVar[int]
    GET_SOCKET_STATE_ARGS_FIELD_NUMBER: _ClassVar[int]
    GET_SOCKET_BUFFER_CONTENTS_ARGS_FIELD_NUMBER: _ClassVar[int]
    RESP_FIELD_NUMBER: _ClassVar[int]
    DEBUG_EVENT_ARGS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_STATE_ARGS_FIELD_NUMBER: _ClassVar[int]
    SHUTDOWN_ARGS_FIELD_NUMBER: _ClassVar[int]
    NAME_ARGS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_ARGS_FIELD_NUMBER: _ClassVar[int]
    SOCKOPT_ARGS_FIELD_NUMBER: _ClassVar[int]
    LINGER_ARGS_FIELD_NUMBER: _ClassVar[int]
    code: int
    init_args: InitArgs
    socket_args: SocketArgs
    bind_args: BindArgs
    listen_args: ListenArgs
    accept_args: AcceptArgs
    connect_args: ConnectArgs
    recv_args: RecvArgs
    send_args: SendArgs
    close_args: CloseArgs
    get_socket_state_args: GetSocketStateArgs
    get_socket_buffer_contents_args: GetSocketBufferContentsArgs
    resp: Resp
    debug_event_args: DebugEventArgs
    wait_for_state_args: WaitForStateArgs
    shutdown_args: ShutdownArgs
    name_args: NameArgs
    control_args: ControlArgs
    sockopt_args: SockoptArgs
    linger_args: LingerArgs
    def __init__(self, code: _Optional[int] = ..., init_args: _Optional[_Union[InitArgs, _Mapping]] = ..., socket_args: _Optional[_Union[SocketArgs, _Mapping]] = ..., bind_args: _Optional[_Union[BindArgs, _Mapping]] = ..., listen_args: _Optional[_Union[ListenArgs, _Mapping]] = ..., accept_args: _Optional[_Union[AcceptArgs, _Mapping]] = ..., connect_args: _Optional[_Union[ConnectArgs, _Mapping]] = ..., recv_args: _Optional[_Union[RecvArgs, _Mapping]] = ..., send_args: _Optional[_Union[SendArgs, _Mapping]] = ..., close_args: _Optional[_Union[CloseArgs, _Mapping]] = ..., get_socket_state_args: _Optional[_Union[GetSocketStateArgs, _Mapping]] = ..., get_socket_buffer_contents_args: _Optional[_Union[GetSocketBufferContentsArgs, _Mapping]] = ..., resp: _Optional[_Union[Resp, _Mapping]] = ..., debug_event_args: _Optional[_Union[DebugEventArgs, _Mapping]] = ..., wait_for_state_args: _Optional[_Union[WaitForStateArgs, _Mapping]] = ..., shutdown_args: _Optional[_Union[ShutdownArgs, _Mapping]] = ..., name_args: _Optional[_Union[NameArgs, _Mapping]] = ..., control_args: _Optional[_Union[ControlArgs, _Mapping]] = ..., sockopt_args: _Optional[_Union[SockoptArgs, _Mapping]] = ..., linger_args: _Optional[_Union[LingerArgs, _Mapping]] = ...) -> None: ...
