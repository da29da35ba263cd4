"""The one way out of a sandbox without a network: a TCP port inside it that leads to a Unix socket.

    python forward.py SOCKET -- COMMAND ...

listens on a free port of the sandbox's own loopback interface, puts its address into every environment variable that
has the word LUDUS_ADDRESS in it, runs the command, and exits with its status. Behind the socket is the address of one
rollout and nothing else. Standard library alone.
"""

# ruff: noqa: T201 - a program prints

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

PLACEHOLDER = "LUDUS_ADDRESS"


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until one side has no more, and tell the other."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def connect(client: socket.socket, path: str) -> None:
    """Join a client to the socket, both ways, until both have ended."""
    with client, socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
        except OSError as error:
            print(f"forward: {path}: {error}", file=sys.stderr)
            return
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join()


def listen(path: str) -> int:
    """Serve on a free port, in the background; the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=connect, args=(client, path), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def main() -> int:
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        print("usage: forward.py SOCKET -- COMMAND ...", file=sys.stderr)
        return 2
    address = f"127.0.0.1:{listen(sys.argv[1])}"
    environment = {name: value.replace(PLACEHOLDER, address) for name, value in os.environ.items()}
    try:
        child = subprocess.Popen(sys.argv[3:], env=environment)
    except OSError as error:
        print(f"{sys.argv[3]}: {error.strerror}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
