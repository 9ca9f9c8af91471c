"""Echo (RFC 862): a server that sends back what it receives, and a client that compares.

python -m chisocket.apps.echo serve --port 7
python -m chisocket.apps.echo send bob:7 hello there
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable

import chisocket
from chisocket.apps import _command
from chisocket.apps._serving import serve_until_signal

CHUNK = 64 << 10  # bytes that the server asks for at a time
# Bytes that the client sends before it reads them back. The smallest buffers that a chitcpd has hold them: else both
# sides could wait for each other to read.
PIECE = 4096


def echo(client: chisocket.socket, peer: str) -> None:
    """Send back all that the client sends, until it ends."""
    total = 0
    while data := client.recv(CHUNK):
        client.sendall(data)
        total += len(data)
    _command.say(f"echoed {total} bytes to {peer}")


def send(to: _command.Endpoint, pieces: Iterable[bytes]) -> int:
    """Send each piece, of at most PIECE bytes, and print what comes back; 1 if it is something else."""
    with _command.connected(to) as connection, connection.makefile("rb") as answers:
        for piece in pieces:
            connection.sendall(piece)
            answer = answers.read(len(piece))
            sys.stdout.buffer.write(answer)
            sys.stdout.buffer.flush()
            if answer != piece:
                raise _command.Failed(
                    f"sent {len(piece)} bytes, and {len(answer)} other ones came back: is it an echo server?"
                    if len(answer) == len(piece)
                    else f"the server ended after {len(answer)} of {len(piece)} bytes: see what it printed"
                )
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m chisocket.apps.echo",
        description="Send back what comes in, or send something and compare what comes back.",
        epilog="CHITCPD_SOCK names the UNIX socket of the chitcpd to use.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve_parser = commands.add_parser("serve", help="echo to all who connect, until SIGTERM or Ctrl-C")
    serve_parser.add_argument("--port", type=_command.port, default=7, help="listen here (default: 7)")
    send_parser = commands.add_parser("send", help="send text and print the echo; status 1 if it differs")
    send_parser.add_argument("to", type=_command.endpoint, metavar="HOST:PORT", help="the server, like bob:7")
    send_parser.add_argument("text", nargs="*", metavar="TEXT", help="one line (default: the lines of stdin)")
    options = parser.parse_args(arguments)
    if options.command == "serve":
        return _command.run("echo", lambda: serve_until_signal("echo", options.port, "echoing", echo))
    return _command.run("echo", lambda: send(options.to, _pieces(options.text)))


def _pieces(words: list[str]) -> Iterable[bytes]:
    if not words:
        return iter(lambda: sys.stdin.buffer.readline(PIECE), b"")
    line = os.fsencode(" ".join(words)) + b"\n"
    return (line[start : start + PIECE] for start in range(0, len(line), PIECE))


if __name__ == "__main__":
    sys.exit(main())
