"""The applications whose traffic is measured: `python -m benchmarks.programs WORKLOAD-ROLE PLACE [NAME=VALUE ...]`.

Each is a process of its own and prints one line of JSON at its end; a server prints, first, the place that reaches it.
Which TCP they run over is the place's business (benchmarks/places.py): the code is the same.
"""

from __future__ import annotations

import inspect
import json
import select
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import places

PIECE = bytes(1 << 16)  # what a sender hands over at once
ROOM = 1 << 18  # bytes that a receiver takes at once
_LONGEST = 120  # seconds: whoever started us may be gone
Said = dict[str, Any]


def bulk_server(place: str) -> Said:
    """Take one connection's data, and answer its end with a byte."""
    with _accept_one(place) as sock:
        received = _read_all(sock)
        sock.sendall(b"!")
    return {"bytes": received}


def bulk_client(place: str, seconds: float) -> Said:
    """Send for so long; the time counts until the server has all."""
    with places.connect(place) as sock:
        sent, begun = 0, time.monotonic()
        while time.monotonic() - begun < seconds:
            sock.sendall(PIECE)
            sent += len(PIECE)
        sock.shutdown(socket.SHUT_WR)
        if sock.recv(1) != b"!":
            raise RuntimeError("the server has not received all")
        return {"bytes": sent, "seconds": time.monotonic() - begun}


def echo_server(place: str) -> Said:
    """Send back what comes."""
    with _accept_one(place) as sock:
        while data := sock.recv(ROOM):
            sock.sendall(data)
    return {}


def echo_client(place: str, seconds: float) -> Said:
    """Send a byte and wait for it, again and again: all round trips in seconds, but for a warm-up."""
    with places.connect(place) as sock:
        _round_trips(sock, seconds / 10)
        trips = sorted(_round_trips(sock, seconds))
    return {"median": trips[len(trips) // 2], "p99": trips[len(trips) * 99 // 100], "count": len(trips)}


def _round_trips(sock: socket.socket, seconds: float) -> list[float]:
    trips = []
    now = begun = time.perf_counter()
    while now - begun < seconds:
        sock.send(b"?")
        if not sock.recv(1):
            raise RuntimeError("the server has gone")
        before, now = now, time.perf_counter()
        trips.append(now - before)
    return trips


def connects_server(place: str) -> Said:
    """Take connections, a byte of each, and its end, until there were as many as the last one says."""
    listener, poll = _listening(place)
    connections: dict[int, socket.socket] = {}
    ended, all_of_them, begun = 0, -1, 0.0
    while ended != all_of_them:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                begun = begun or time.monotonic()
                connections[sock.fileno()] = sock
                poll.register(sock, select.EPOLLIN)
            elif data := connections[fd].recv(16):
                all_of_them = all_of_them if data == b"?" else int(data)
            else:
                connections.pop(fd).close()
                ended += 1
    return {"connections": ended, "seconds": time.monotonic() - begun}


def connects_client(place: str, seconds: float, at_once: int) -> Said:
    """Connect, send a byte and close, again and again, in so many threads; then tell how often."""
    done: Counter[int] = Counter()
    until = time.monotonic() + seconds

    def connect_again_and_again(number: int) -> None:
        while time.monotonic() < until:
            with places.connect(place) as sock:
                sock.send(b"?")
            done[number] += 1

    threads = [threading.Thread(target=connect_again_and_again, args=[i], daemon=True) for i in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with places.connect(place) as sock:
        sock.send(b"%d" % (done.total() + 1))
    return {"connections": done.total()}


def many_server(place: str, connections: int, seconds: float) -> Said:
    """Take so many connections, and once data has come of all of them count for so long what each brings."""
    listener, poll = _listening(place)
    taken: dict[int, socket.socket] = {}
    buffer = bytearray(ROOM)

    def bring(wait: float) -> Iterator[tuple[int, int]]:
        """(descriptor, bytes) of all that have something; whoever wants to connect is taken."""
        for fd, _ in poll.poll(wait):
            if fd != listener.fileno():
                yield fd, taken[fd].recv_into(buffer)
                continue
            sock, _ = listener.accept()
            taken[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)

    heard: set[int] = set()
    while len(heard) < connections:
        heard.update(fd for fd, _ in bring(1.0))
    brought: Counter[int] = Counter()
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        for fd, count in bring(0.1):
            brought[fd] += count
    return {"bytes": [brought[fd] for fd in taken], "seconds": passed}


def many_client(place: str, connections: int) -> Said:
    """Send on so many connections whatever they take, until the server ends."""
    poll = select.epoll()
    socks = {sock.fileno(): sock for sock in (places.connect(place) for _ in range(connections))}
    for fd, sock in socks.items():
        sock.setblocking(False)
        poll.register(fd, select.EPOLLOUT)
    while socks:
        for fd, _ in poll.poll():
            try:
                socks[fd].send(PIECE)
            except BlockingIOError:
                pass
            except OSError:  # the server has seen enough
                poll.unregister(fd)
                socks.pop(fd).close()
    return {}


def hold_server(place: str, connections: int) -> Said:
    """Take so many connections, a byte of each, and keep them."""
    listener, _ = _listening(place)
    taken = [listener.accept()[0] for _ in range(connections)]
    return _keep(taken, {"bytes": sum(len(sock.recv(1)) for sock in taken)})


def hold_client(place: str, connections: int) -> Said:
    """Open so many connections, send a byte on each, and keep them."""
    opened = [places.connect(place) for _ in range(connections)]
    return _keep(opened, {"bytes": sum(sock.send(b"?") for sock in opened)})


def _keep(_connections: list[socket.socket], said: Said) -> Said:
    print(json.dumps(said), flush=True)
    signal.pause()  # until we are ended
    return said


# ---- common ----------------------------------------------------------------------------------------------------


def _listening(place: str) -> tuple[socket.socket, select.epoll]:
    """A listener, and what waits for it; whoever started us is told of it."""
    listener, reached = places.listen(place)
    print(reached, flush=True)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    return listener, poll


def _accept_one(place: str) -> socket.socket:
    listener, _ = _listening(place)
    sock, _ = listener.accept()
    places.send_at_once(sock)
    return sock


def _read_all(sock: socket.socket) -> int:
    """The number of bytes that came until the end."""
    buffer, received = bytearray(ROOM), 0
    while count := sock.recv_into(buffer):
        received += count
    return received


WORKLOADS: dict[str, Callable[..., Said]] = {
    "bulk-server": bulk_server,
    "bulk-client": bulk_client,
    "echo-server": echo_server,
    "echo-client": echo_client,
    "connects-server": connects_server,
    "connects-client": connects_client,
    "many-server": many_server,
    "many-client": many_client,
    "hold-server": hold_server,
    "hold-client": hold_client,
}


def main() -> None:
    """Run one of them, and say what it saw; the CPU seconds that this process has used for it besides."""
    name, place, *given = sys.argv[1:]
    workload = WORKLOADS[name]
    kinds = {"float": float, "int": int}
    parameters = inspect.signature(workload).parameters
    values = dict(argument.split("=", 1) for argument in given)
    signal.alarm(_LONGEST)
    places.prepare(place)
    before = time.process_time()
    said = workload(place, **{key: kinds[parameters[key].annotation](value) for key, value in values.items()})
    print(json.dumps({**said, "cpu": time.process_time() - before}), flush=True)


if __name__ == "__main__":
    main()
