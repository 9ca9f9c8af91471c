"""What runs inside a host's container to measure its links: kernel TCP, and none of our code. See Lab.

Standard library only, for the image's Python: `python3 -c SOURCE FUNCTION ARGUMENTS...`.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

PORT = 9000  # of the kernel's TCP; nothing else in a host's container has it
ROUND_TRIPS = 15
WARM_UP = 0.5  # seconds until the sender has filled what is between it and the link


def round_trip(address: str) -> None:
    """Print how long a connect to chitcpd's port takes: SYN and SYN-ACK, so one round trip.

    In seconds, the least of several: a machine that is busy can only add to what the link takes.
    """
    times = []
    for _ in range(ROUND_TRIPS):
        with socket.socket() as connection:
            start = time.perf_counter()
            connection.connect((address, 23300))
            times.append(time.perf_counter() - start)
    print(json.dumps(min(times)))


def round_trips(address: str, seconds: str) -> None:
    """Print [when it began, how long it took] of one connect after the other, in seconds of the wall clock."""
    end = time.time() + float(seconds)
    while (start := time.time()) < end:
        with socket.socket() as connection:
            connection.connect((address, 23300))
            print(json.dumps([start, time.time() - start]), flush=True)


def send(address: str) -> None:
    """Say "listening", then send to the one that connects, as fast as it goes, until it ends."""
    with socket.create_server((address, PORT)) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
    with connection:
        while True:
            try:
                connection.sendall(bytes(1 << 16))
            except ConnectionError:
                return


def receive(address: str, device: str, seconds: str) -> None:
    """Take what a sender sends, and print how fast it comes over `device`: bits per second on the wire."""
    with socket.create_connection((address, PORT)) as connection:
        _take(connection, WARM_UP)
        before, start = _received(device), time.perf_counter()
        _take(connection, float(seconds))
        after, end = _received(device), time.perf_counter()
    print(json.dumps((after - before) * 8 / (end - start)))


def _take(connection: socket.socket, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if not connection.recv(1 << 18):
            raise EOFError("the sender ended")


def _received(device: str) -> int:
    """Bytes that have come over an interface, with their Ethernet headers: as netem counts them."""
    return int(Path(f"/sys/class/net/{device}/statistics/rx_bytes").read_text())


if __name__ == "__main__":
    function, *arguments = sys.argv[1:]
    globals()[function](*arguments)
