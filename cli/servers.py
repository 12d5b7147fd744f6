"""Does things to the programs of a running `mercato up`, and to nothing else: kill -9, pause, Valkey deaf."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cli import guard
from cli.running import Running

Held = subprocess.Popen[bytes]


class NotThere(Exception):
    """The program does not run here, or cannot be held. The message is meant for people."""


def process_of(present: Running, name: str) -> int:
    """The pid of the named program.

    Raises:
        NotThere: it is none of ours, or is not running just now.
    """
    found = next((one for one in present.programs if one["name"] == name), None)
    if found is None:
        ours = ", ".join(str(one["name"]) for one in present.programs)
        raise NotThere(f"`mercato up` has not started {name} here; it runs {ours}.")
    if found["state"] != "ready" or not isinstance(found["pid"], int):
        raise NotThere(f"{name} is {found['state']} just now.")
    return found["pid"]


def kill(pid: int) -> None:
    """`kill -9` of the process and all below it; harmless when it has ended."""
    guard.kill(pid)


@contextmanager
def paused(pid: int, seconds: float) -> Iterator[Held]:
    """The process and all below it stand still inside the block, at most `seconds`; what is yielded ends then."""
    with _guarded("pause", f"{seconds:g}", str(pid)) as held:
        yield held


@contextmanager
def deaf(host: str, port: int, seconds: float) -> Iterator[Held]:
    """Valkey hears nobody inside the block, at most `seconds`; what is yielded ends then."""
    with _guarded("deaf", f"{seconds:g}", host, str(port)) as held:
        yield held


@contextmanager
def _guarded(*arguments: str) -> Iterator[Held]:
    held = subprocess.Popen(
        [sys.executable, "-m", "cli.guard", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert held.stdin is not None
    assert held.stdout is not None
    try:
        if held.stdout.readline() != guard.HELD:
            raise NotThere("It could not be held.")
        yield held
    finally:
        held.stdin.close()  # the sign to undo
        held.wait()
        held.stdout.close()
