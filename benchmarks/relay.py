"""A relay in plain Python: `python -m benchmarks.relay LISTEN DIAL BYTES`. Two of them are what we measure against.

    application ── UNIX socket ── relay ── kernel TCP ── relay ── UNIX socket ── application

That is the way of a segment through two daemons (four hops: each is a system call that sends and one that receives),
without any TCP in them: what a daemon in Python can reach at best. One thread and epoll, because a daemon has many
connections; one buffer, no copy, at most BYTES in a system call.

Sending blocks. Two full directions of one connection would wait for each other for ever; no workload here does that.
"""

from __future__ import annotations

import select
import socket
import sys
from contextlib import suppress

from benchmarks import places

Ways = dict[int, tuple[socket.socket, socket.socket]]  # descriptor -> what comes there, and where it goes


def relay(listener: socket.socket, dial: str, limit: int) -> None:
    """Join each connection that comes to one to `dial`; without end."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    ways: Ways = {}
    buffer = memoryview(bytearray(limit))
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                _join(listener.accept()[0], dial, poll, ways)
            elif fd in ways:  # else it was closed just now
                source, sink = ways[fd]
                if not _pass_on(source, sink, buffer):
                    _end(source, sink, poll, ways)


def _join(near: socket.socket, dial: str, poll: select.epoll, ways: Ways) -> None:
    places.send_at_once(near)
    try:
        far = places.connect(dial)
    except OSError:  # who listened there has ended
        near.close()
        return
    for source, sink in ((near, far), (far, near)):
        ways[source.fileno()] = source, sink
        poll.register(source, select.EPOLLIN)


def _pass_on(source: socket.socket, sink: socket.socket, buffer: memoryview) -> bool:
    """Whether there was anything, and somebody who takes it."""
    try:
        count = source.recv_into(buffer)
        sink.sendall(buffer[:count])
        return count > 0
    except OSError:
        return False


def _end(source: socket.socket, sink: socket.socket, poll: select.epoll, ways: Ways) -> None:
    """Nothing more comes from `source`: tell `sink`, and close both if that was the second direction."""
    del ways[source.fileno()]
    poll.unregister(source)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    if sink.fileno() not in ways:
        source.close()
        sink.close()


def main() -> None:
    """Say where it listens, and relay until it is killed."""
    listen, dial, limit = sys.argv[1:]
    listener, place = places.listen(listen)
    print(place, flush=True)
    relay(listener, dial, int(limit))


if __name__ == "__main__":
    main()
