"""A server of the applications: a thread for each client, a bounded number of them, until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

import chisocket
from chisocket.apps import _command

Serve = Callable[[chisocket.socket, str], None]  # a client's socket, and "ip:port" of it

MAX_CLIENTS = 64  # at a time; the next ones wait in the listener's backlog
GRACE = 2.0  # seconds that clients have to come to their end after the signal


class _Clients:
    """The threads that serve."""

    def __init__(self, name: str, serve: Serve) -> None:
        self._name = name
        self._serve = serve
        self._room = threading.Semaphore(MAX_CLIENTS)
        self._threads: set[threading.Thread] = set()

    def accept(self, listener: chisocket.socket, over: SimpleQueue[OSError | None]) -> None:
        """Serve all who come, until the listener fails; the failure goes to `over`."""
        while True:
            self._room.acquire()
            try:
                client, address = listener.accept()
            except OSError as error:
                over.put(error)
                return
            peer = f"{address[0]}:{address[1]}"
            thread = threading.Thread(target=self._run, args=(client, peer), daemon=True)
            self._threads.add(thread)
            thread.start()

    def finish(self) -> None:
        """Wait for the clients that are being served, GRACE seconds in all."""
        deadline = time.monotonic() + GRACE
        for thread in list(self._threads):
            thread.join(max(deadline - time.monotonic(), 0))

    def _run(self, client: chisocket.socket, peer: str) -> None:
        try:
            with client:
                self._serve(client, peer)
        except OSError as error:
            _command.complain(self._name, f"{peer}: {_command.reason(error)}")
        except _command.Failed as failure:
            _command.complain(self._name, f"{peer}: {failure}")
        finally:
            self._threads.discard(threading.current_thread())
            self._room.release()


def serve_until_signal(name: str, port: int, what: str, serve: Serve) -> int:
    """Serve on `port` of every address of the host; returns the exit status 0 after SIGTERM or SIGINT.

    `what` tells a person what is served. Raises OSError if the port can't be listened on, or accept fails.
    """
    over: SimpleQueue[OSError | None] = SimpleQueue()  # its put() may be called by a signal handler
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.put(None))
    clients = _Clients(name, serve)
    with chisocket.create_server(("", port)) as listener:
        print(f"{name}: {what} on port {port or listener.getsockname()[1]}", file=sys.stderr, flush=True)
        threading.Thread(target=clients.accept, args=(listener, over), daemon=True).start()
        failure = over.get()
        with suppress(OSError):  # it has failed, and that was why
            listener.shutdown(chisocket.SHUT_RDWR)  # closing it would not wake the thread that accepts
    clients.finish()
    if failure is not None:
        raise failure
    return 0
