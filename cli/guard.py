"""Holds a server still, and lets go whatever happens: after some seconds, or as soon as whoever asked for it is gone.

A process of its own in a session of its own, started by `cli.servers`: an interrupted or killed command ends its
standard input, and that is the sign to undo. Imports little, because it is started in the middle of things.

    python -m cli.guard pause SECONDS PID         SIGSTOP of it and all below it, then SIGCONT
    python -m cli.guard deaf SECONDS HOST PORT    Valkey closes its door and all connections, then opens it again
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

HELD = b"held\n"


def main(arguments: Sequence[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # wakes the wait below, which then undoes
    what, seconds, *rest = arguments
    if what == "pause":
        pause(int(rest[0]), float(seconds))
    else:
        deaf(rest[0], int(rest[1]), float(seconds))


def pause(pid: int, seconds: float) -> None:
    """Stop the process and all below it for `seconds`."""
    stopped: list[int] = []
    try:
        _signal(pid, signal.SIGSTOP)  # first: from here on it has no more children
        stopped += family(pid)
        for one in stopped:
            _signal(one, signal.SIGSTOP)
        _hold(seconds)
    finally:
        for one in {pid, *stopped}:
            _signal(one, signal.SIGCONT)


def kill(pid: int) -> None:
    """`kill -9` of the process and all below it, as when the machine loses them; harmless when it has ended."""
    _signal(pid, signal.SIGSTOP)
    for one in family(pid):
        _signal(one, signal.SIGKILL)


def family(pid: int) -> list[int]:
    """The process and all below it, itself first. PostgreSQL's backends have left its process group."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # "pid (name) state ppid ...": the name may hold spaces and brackets
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def deaf(host: str, port: int, seconds: float) -> None:
    """Valkey hears nobody for `seconds`: connections are closed and new ones refused. Its data stays."""
    with socket.create_connection((host, port), timeout=5) as connection:
        try:
            for command in ("CONFIG SET port 0", "CLIENT KILL TYPE normal SKIPME yes", "CLIENT KILL TYPE pubsub"):
                _ask(connection, command)
            _hold(seconds)
        finally:
            _ask(connection, f"CONFIG SET port {port}")


def _ask(connection: socket.socket, command: str) -> None:
    connection.sendall(command.encode() + b"\r\n")
    answer = connection.recv(1024)
    if answer.startswith(b"-"):
        raise SystemExit(f"Valkey refused {command}: {answer.decode().strip()}")


def _hold(seconds: float) -> None:
    """Say that it is held, then wait for the time, for the end of standard input, or for a signal."""
    os.write(sys.stdout.fileno(), HELD)
    read, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    select.select([sys.stdin, read], [], [], seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
