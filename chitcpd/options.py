"""Socket options: what getsockopt and setsockopt mean here, with Linux's numbers and layouts.

Those that change the TCP change its Config. Those in _KEPT are for a network layer that is not ours: they are taken
and given back, and nothing else, so that programs which set them go on.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from chitcpd.driver import Endpoint
from chitcpd.settings import CONGESTION
from chitcpd.tcp.api import Config, Info, State

_INT = struct.Struct("=i")
_LINGER = struct.Struct("=ii")
_MOST_BUFFER, _LEAST_BUFFER = 1 << 26, 2048  # bytes that an application may ask for
_KEEP_ALIVE = 7200.0  # seconds of idleness, if an application doesn't say (RFC 9293 §3.8.4)
_TCP_NAMES = {"reno": "newreno"}  # Linux's name for it
_MOST_NAME = 16  # bytes of a congestion control's name

# include/uapi/linux: Python's socket module has not all of them.
_IP_TOS, _IP_TTL = 1, 2
_IPV6_TCLASS, _IPV6_UNICAST_HOPS = 67, 16
_TCP_CORK, _TCP_LINGER2, _TCP_DEFER_ACCEPT, _TCP_WINDOW_CLAMP, _TCP_QUICKACK, _TCP_FASTOPEN = 3, 8, 9, 10, 12, 23
_TCP_NOTSENT_LOWAT = 25

Key = tuple[int, int]  # level, name
_SOL, _TCP = socket.SOL_SOCKET, socket.IPPROTO_TCP

_KEPT: frozenset[Key] = frozenset(
    {
        (_SOL, socket.SO_REUSEADDR),  # a port in TIME-WAIT can always be bound here
        (_SOL, socket.SO_REUSEPORT),
        (_SOL, socket.SO_BROADCAST),
        (_SOL, socket.SO_OOBINLINE),  # urgent data always comes in line (RFC 6093)
        (_SOL, socket.SO_PRIORITY),
        (_SOL, socket.SO_DONTROUTE),
        (socket.IPPROTO_IP, _IP_TOS),
        (socket.IPPROTO_IP, _IP_TTL),
        (socket.IPPROTO_IPV6, _IPV6_TCLASS),
        (socket.IPPROTO_IPV6, _IPV6_UNICAST_HOPS),
        *((_TCP, name) for name in (_TCP_CORK, _TCP_LINGER2, _TCP_DEFER_ACCEPT, _TCP_WINDOW_CLAMP)),
        *((_TCP, name) for name in (_TCP_QUICKACK, _TCP_FASTOPEN, _TCP_NOTSENT_LOWAT)),
    }
)


@dataclass(slots=True)
class Options:
    """The options of one socket. An accepted one begins with those of its listener."""

    config: Config
    linger: int | None = None  # seconds; None: close() returns at once
    keep_idle: float = _KEEP_ALIVE
    v6only: bool = False
    kept: dict[Key, int] = field(default_factory=dict)

    def copy(self) -> Options:
        """Those of another socket, which may change on their own."""
        return replace(self, kept=dict(self.kept))


def integer(value: int) -> bytes:
    """An option's value that is a C int."""
    return _INT.pack(value)


def get(options: Options, state: State, endpoint: Endpoint | None, level: int, name: int, now: float) -> bytes:
    """The option's value. Raises OSError(ENOPROTOOPT)."""
    key = (level, name)
    if key in _KEPT:
        return _INT.pack(options.kept.get(key, 0))
    if key == (_TCP, socket.TCP_INFO):
        return _tcp_info(options, state, endpoint, now)
    if key not in _GETTERS:
        raise _unknown(key)
    return _GETTERS[key](options, endpoint)


def put(options: Options, level: int, name: int, value: bytes) -> None:
    """Change an option. Raises OSError: ENOPROTOOPT, EINVAL, ENOENT for a congestion control that is not there."""
    key = (level, name)
    if key == (_TCP, socket.TCP_CONGESTION):
        _set_congestion(options, value)
    elif key == (_SOL, socket.SO_LINGER):
        on, seconds = _unpack(_LINGER, value)
        options.linger = max(seconds, 0) if on else None
    elif key in _KEPT:
        options.kept[key] = _unpack(_INT, value)[0]
    elif key in _SETTERS:
        _SETTERS[key](options, _unpack(_INT, value)[0])
    else:
        raise _unknown(key)


def _unknown(key: Key) -> OSError:
    return OSError(errno.ENOPROTOOPT, "level {}, option {}".format(*key))


def _invalid() -> OSError:
    return OSError(errno.EINVAL, "a value that the option can't have")


def _unpack(form: struct.Struct, value: bytes) -> tuple[int, ...]:
    if len(value) < form.size:
        raise _invalid()
    return form.unpack_from(value)


# ---- one by one ------------------------------------------------------------------------------------------------


def _in_range(value: int, lowest: int, highest: int) -> int:
    if not lowest <= value <= highest:
        raise _invalid()
    return value


def _set_congestion(options: Options, value: bytes) -> None:
    name = value.rstrip(b"\0").decode(errors="replace")
    name = _TCP_NAMES.get(name, name)
    if name not in CONGESTION:
        raise OSError(errno.ENOENT, f"no congestion control {name!r:.40}")
    options.config = replace(options.config, congestion=name)


def _set_nodelay(options: Options, value: int) -> None:
    options.config = _with_nagle(options.config, not value)


def _with_nagle(config: Config, nagle: bool) -> Config:
    """Most programs set this option on each of their sockets: one copy of the settings is enough for all of them."""
    before, after = _nagle_copies.get((id(config), nagle), (None, config))
    if before is not config:
        before, after = config, replace(config, nagle=nagle)
        if len(_nagle_copies) >= _MOST_COPIES:
            _nagle_copies.clear()
        _nagle_copies[id(config), nagle] = before, after
    return after


_MOST_COPIES = 64
_nagle_copies: dict[tuple[int, bool], tuple[Config, Config]] = {}  # by the number of the first, which stays its own


def _set_keep_alive(options: Options, value: int) -> None:
    options.config = replace(options.config, keep_alive=options.keep_idle if value else None)


def _set_keep_idle(options: Options, value: int) -> None:
    options.keep_idle = float(_in_range(value, 1, 32767))
    if options.config.keep_alive is not None:
        options.config = replace(options.config, keep_alive=options.keep_idle)


def _set_keep_interval(options: Options, value: int) -> None:
    options.config = replace(options.config, keep_alive_interval=float(_in_range(value, 1, 32767)))


def _set_keep_count(options: Options, value: int) -> None:
    options.config = replace(options.config, keep_alive_probes=_in_range(value, 1, 127))


def _set_user_timeout(options: Options, value: int) -> None:
    options.config = replace(options.config, user_timeout=_in_range(value, 0, 1 << 31) / 1000 or None)


def _set_max_segment(options: Options, value: int) -> None:
    largest = _in_range(value, 64, 65495)
    options.config = replace(options.config, mss=largest, send_mss=largest)


def _set_syn_count(options: Options, value: int) -> None:
    options.config = replace(options.config, syn_retries=_in_range(value, 1, 127))


def _set_send_buffer(options: Options, value: int) -> None:
    options.config = replace(options.config, send_buffer=min(max(value, _LEAST_BUFFER), _MOST_BUFFER))


def _set_receive_buffer(options: Options, value: int) -> None:
    options.config = replace(options.config, receive_buffer=min(max(value, _LEAST_BUFFER), _MOST_BUFFER))


def _set_v6only(options: Options, value: int) -> None:
    options.v6only = bool(value)


def _max_segment(options: Options, endpoint: Endpoint | None) -> bytes:
    known = endpoint.connection.info().mss if endpoint is not None else None
    return _INT.pack(options.config.mss if known is None else known)


def _linger(options: Options, _: Endpoint | None) -> bytes:
    return _LINGER.pack(options.linger is not None, options.linger or 0)


def _congestion(options: Options, _: Endpoint | None) -> bytes:
    return options.config.congestion.encode().ljust(_MOST_NAME, b"\0")


def _of_config(read: Callable[[Config], int]) -> Callable[[Options, Endpoint | None], bytes]:
    return lambda options, _: _INT.pack(read(options.config))


_SETTERS: dict[Key, Callable[[Options, int], None]] = {
    (_SOL, socket.SO_KEEPALIVE): _set_keep_alive,
    (_SOL, socket.SO_SNDBUF): _set_send_buffer,
    (_SOL, socket.SO_RCVBUF): _set_receive_buffer,
    (_TCP, socket.TCP_NODELAY): _set_nodelay,
    (_TCP, socket.TCP_MAXSEG): _set_max_segment,
    (_TCP, socket.TCP_KEEPIDLE): _set_keep_idle,
    (_TCP, socket.TCP_KEEPINTVL): _set_keep_interval,
    (_TCP, socket.TCP_KEEPCNT): _set_keep_count,
    (_TCP, socket.TCP_SYNCNT): _set_syn_count,
    (_TCP, socket.TCP_USER_TIMEOUT): _set_user_timeout,
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY): _set_v6only,
}
_GETTERS: dict[Key, Callable[[Options, Endpoint | None], bytes]] = {
    (_SOL, socket.SO_KEEPALIVE): _of_config(lambda config: config.keep_alive is not None),
    (_SOL, socket.SO_SNDBUF): _of_config(lambda config: config.send_buffer),
    (_SOL, socket.SO_RCVBUF): _of_config(lambda config: config.receive_buffer),
    (_SOL, socket.SO_LINGER): _linger,
    (_TCP, socket.TCP_NODELAY): _of_config(lambda config: not config.nagle),
    (_TCP, socket.TCP_MAXSEG): _max_segment,
    (_TCP, socket.TCP_CONGESTION): _congestion,
    (_TCP, socket.TCP_KEEPIDLE): lambda options, _: _INT.pack(int(options.keep_idle)),
    (_TCP, socket.TCP_KEEPINTVL): _of_config(lambda config: int(config.keep_alive_interval)),
    (_TCP, socket.TCP_KEEPCNT): _of_config(lambda config: config.keep_alive_probes),
    (_TCP, socket.TCP_SYNCNT): _of_config(lambda config: config.syn_retries),
    (_TCP, socket.TCP_USER_TIMEOUT): _of_config(lambda config: int((config.user_timeout or 0) * 1000)),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY): lambda options, _: _INT.pack(options.v6only),
}

# ---- TCP_INFO --------------------------------------------------------------------------------------------------

# struct tcp_info up to tcpi_total_retrans, and the counters that later kernels have put behind it.
_TCP_INFO = struct.Struct("=8B24I2Q2Q2I2I2I")
_LINUX_STATES = {  # include/net/tcp_states.h
    State.ESTABLISHED: 1,
    State.SYN_SENT: 2,
    State.SYN_RCVD: 3,
    State.FIN_WAIT_1: 4,
    State.FIN_WAIT_2: 5,
    State.TIME_WAIT: 6,
    State.CLOSED: 7,
    State.CLOSE_WAIT: 8,
    State.LAST_ACK: 9,
    State.LISTEN: 10,
    State.CLOSING: 11,
}
_CA_STATES = {"open": 0, "recovery": 3, "loss": 4}  # tcp_ca_state
_OPT_TIMESTAMPS, _OPT_SACK, _OPT_WSCALE = 1, 2, 4
_NO_SSTHRESH = 0x7FFFFFFF


def _tcp_info(options: Options, state: State, endpoint: Endpoint | None, now: float) -> bytes:
    """struct tcp_info: times in microseconds or milliseconds, windows in segments, as Linux has them."""
    if endpoint is None:
        return bytes([_LINUX_STATES[state]]).ljust(_TCP_INFO.size, b"\0")
    connection, counters, info = endpoint.connection, endpoint.counters, endpoint.connection.info()
    mss = info.mss or options.config.mss
    unacked = _segments(info.in_flight, mss)
    waiting = len(connection.unacknowledged) - (info.in_flight or 0)
    return _TCP_INFO.pack(
        _LINUX_STATES[state],
        _CA_STATES.get(info.recovery or "open", 0),
        min(info.backoff or 0, 255),  # retransmits
        0,  # probes
        min(info.backoff or 0, 255),
        _option_bits(info),
        (info.snd_wscale or 0) | (info.rcv_wscale or 0) << 4,
        0,  # delivery rate limited by the application; fast open
        _microseconds(info.rto),
        _microseconds(options.config.delayed_ack),  # ato
        mss,
        mss,  # of what comes, which nobody measures
        unacked,
        info.sacked or 0,
        info.lost or 0,
        0,  # retrans: those that are out again, which is not told
        0,  # fackets
        _milliseconds_ago(counters.last_sent, now),
        0,  # last ACK sent, which is not remembered
        _milliseconds_ago(counters.last_received, now),
        _milliseconds_ago(counters.last_received, now),
        min(options.config.send_mss + 40, 0xFFFF),  # pmtu
        connection.rcv_wnd & 0xFFFFFFFF,
        _microseconds(info.srtt),
        _microseconds(info.rttvar),
        _NO_SSTHRESH if info.ssthresh is None else min(_segments(info.ssthresh, mss), _NO_SSTHRESH),
        _segments(info.cwnd, mss),
        options.config.mss,  # advmss
        3,  # reordering
        0,  # rcv_rtt
        options.config.receive_buffer,  # rcv_space
        counters.retransmissions & 0xFFFFFFFF,
        0,  # pacing rate: none
        0xFFFFFFFFFFFFFFFF,  # and no limit to it
        max((connection.snd_una - connection.iss & 0xFFFFFFFF) - 1, 0),  # bytes acked
        counters.bytes_received,
        counters.segs_out & 0xFFFFFFFF,
        counters.segs_in & 0xFFFFFFFF,
        max(waiting, 0),  # notsent_bytes
        _microseconds(info.min_rtt),
        counters.data_segs_in & 0xFFFFFFFF,
        counters.data_segs_out & 0xFFFFFFFF,
    )


def _option_bits(info: Info) -> int:
    scaled = bool(info.snd_wscale or info.rcv_wscale)
    return bool(info.timestamps) * _OPT_TIMESTAMPS | bool(info.sack) * _OPT_SACK | scaled * _OPT_WSCALE


def _segments(count: float | None, mss: int) -> int:
    return min(int(-(-(count or 0) // mss)), 0xFFFFFFFF)


def _microseconds(seconds: float | None) -> int:
    return min(int((seconds or 0.0) * 1e6), 0xFFFFFFFF)


def _milliseconds_ago(then: float, now: float) -> int:
    return max(min(int((now - then) * 1000), 0xFFFFFFFF), 0) if then else 0
