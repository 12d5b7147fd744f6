"""One child process: start it, read what it says, know when it is ready, end it without leaving anything behind."""

import asyncio
import ctypes
import os
import pwd
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cli.probes import Probe

Write = Callable[[str, str], None]  # (name of the program, line)

PROBE_PAUSE = 0.05
KEPT_LINES = 40
LONGEST_LINE = 16 * 1024
_PR_SET_PDEATHSIG = 1
# PyDLL keeps the interpreter lock during the call: nothing may wait for it between fork and exec.
_LIBC = ctypes.PyDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Program:
    """What to run and how to treat it. Times in seconds."""

    name: str
    command: Sequence[str]
    ready: Probe
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None  # None: ours
    directory: Path | None = None
    user: int | None = None  # run as this uid (and its gid), for programs that refuse root
    prepare: Callable[[], Awaitable[None]] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_group: bool = True  # False: the signal goes to the process alone (PostgreSQL's postmaster tells its own)
    death_signal: signal.Signals = signal.SIGTERM  # what the kernel sends when the supervisor is killed
    start_seconds: float = 30
    stop_seconds: float = 10
    restarts: int = 5  # failures in a row until it is given up; 0: its end is final
    advice: str = ""  # what a person can do when it does not start


class ProgramFailed(Exception):
    """A program did not start, or ended once too often. The message is meant for people."""

    def __init__(self, program: Program, what: str, lines: Sequence[str]) -> None:
        said = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
        advice = f"\n{program.advice}" if program.advice else ""
        super().__init__(f"{program.name} {what}. Its last lines:\n{said}{advice}")
        self.program = program


class Process:
    """A running `Program`."""

    def __init__(self, program: Program, write: Write) -> None:
        self.program = program
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._write = write
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def returncode(self) -> int | None:
        return self._child.returncode if self._child else None

    async def start(self) -> None:
        """Prepare, spawn and wait until the gate opens.

        Raises:
            ProgramFailed: it ended or was not ready in time.
        """
        program = self.program
        self.last_lines.clear()
        if program.prepare:
            await program.prepare()
        try:
            self._child = await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=program.environment,
                cwd=program.directory,
                start_new_session=True,
                preexec_fn=_die_with_parent(program.death_signal),
                user=program.user,
                group=None if program.user is None else pwd.getpwuid(program.user).pw_gid,
                extra_groups=None if program.user is None else [],
            )
        except OSError as error:
            raise ProgramFailed(program, "cannot be run", [f"{program.command[0]}: {error.strerror}"]) from error
        self._reader = asyncio.create_task(self._read(self._child))
        await self._until_ready()

    async def ended(self) -> int:
        """Wait until the process has ended and its output is read; its return code."""
        assert self._child is not None
        code = await self._child.wait()
        if self._reader:
            await asyncio.wait([self._reader], timeout=1)  # a grandchild may hold the pipe open
        return code

    async def stop(self, stop_signal: signal.Signals | None = None) -> None:
        """Ask it to end, wait, and kill what is left of it."""
        if self._child is None:
            return
        if self._child.returncode is None:
            self._signal(stop_signal or self.program.stop_signal, group=self.program.stop_group)
            try:
                await asyncio.wait_for(self._child.wait(), self.program.stop_seconds)
            except TimeoutError:
                self._write(self.program.name, f"did not end within {self.program.stop_seconds:g} s: killed")
        self.kill()
        await self.ended()

    def kill(self) -> None:
        """End the whole process group at once; harmless when it has ended."""
        if self._child is not None:
            self._signal(signal.SIGKILL, group=True)

    def _signal(self, number: signal.Signals, *, group: bool) -> None:
        assert self._child is not None
        with suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(self._child.pid, number)
            else:
                os.kill(self._child.pid, number)

    async def _until_ready(self) -> None:
        assert self._child is not None
        ended = asyncio.create_task(self._child.wait())
        ready = asyncio.create_task(self._probe())
        try:
            await asyncio.wait({ended, ready}, timeout=self.program.start_seconds, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ProgramFailed(self.program, f"ended with {await self.ended()}", tuple(self.last_lines))
            if not ready.done():
                seconds = f"{self.program.start_seconds:g} s"
                raise ProgramFailed(self.program, f"was not ready within {seconds}", tuple(self.last_lines))
            ready.result()
        finally:
            ended.cancel()
            ready.cancel()

    async def _probe(self) -> None:
        while not await self.program.ready():  # noqa: ASYNC110  (another process: there is no event to wait for)
            await asyncio.sleep(PROBE_PAUSE)

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        rest = b""
        while chunk := await child.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._say(line)
        if rest:
            self._say(rest)

    def _say(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if line:
            self.last_lines.append(line)
            self._write(self.program.name, line)


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Runs in the child before exec: without it, `kill -9` of the supervisor would leave servers behind (on Linux)."""
    if _LIBC is None:
        return None
    prctl, parent = _LIBC.prctl, os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    return arm
