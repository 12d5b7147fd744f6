"""Runs programs side by side: each starts when what it needs is ready, comes back when it dies, and ends in order."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from cli.process import Process, Program, ProgramFailed, Write

State = Literal["starting", "ready", "restarting", "stopping", "ended", "failed"]

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
STEADY_SECONDS = 60.0  # ran that long: earlier failures are forgotten


@dataclass
class Supervised:
    """A program with its present process, as `mercato status` shows it."""

    program: Program
    process: Process
    state: State = "starting"
    restarts: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Belongs to one event loop, which must run in the thread that made it for as long as the programs live."""

    def __init__(self, write: Write, changed: Callable[[], None] = lambda: None) -> None:
        self.programs: dict[str, Supervised] = {}
        self._write = write
        self._changed = changed
        self._given_up: asyncio.Future[ProgramFailed] = asyncio.get_running_loop().create_future()

    async def start(self, *programs: Program) -> None:
        """Start all, each after those it needs, and return when all are ready.

        Raises:
            ProgramFailed: the first of them that did not start; the others are left as they are, for `stop`.
        """
        added = [Supervised(program, Process(program, self._write)) for program in programs]
        for one in added:
            self.programs[one.program.name] = one
        starts = [asyncio.create_task(self._start(one)) for one in added]
        try:
            await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)

    async def given_up(self) -> ProgramFailed:
        """Wait until some program has failed too often in a row."""
        return await asyncio.shield(self._given_up)

    async def stop(self, *names: str, stop_signal: signal.Signals | None = None) -> None:
        """End the named programs (none named: all), each after those that need it."""
        chosen = set(names or self.programs)
        stops: dict[str, asyncio.Task[None]] = {}

        async def stop(one: Supervised) -> None:
            await asyncio.sleep(0)  # let every task exist before one looks for another
            after = [stops[name] for name in chosen if one.program.name in self.programs[name].program.needs]
            await asyncio.gather(*after)
            await self._stop(one, stop_signal)

        stops.update({name: asyncio.create_task(stop(self.programs[name])) for name in chosen})
        await asyncio.gather(*stops.values())

    def kill(self) -> None:
        """End everything now, without order."""
        for one in self.programs.values():
            one.stopping = True
            one.process.kill()

    async def _start(self, one: Supervised) -> None:
        for name in one.program.needs:
            await self.programs[name].ready.wait()
        self._enter(one, "starting")
        try:
            await one.process.start()
        except ProgramFailed:
            one.process.kill()
            self._enter(one, "failed")
            raise
        self._enter(one, "ready")
        one.ready.set()
        one.task = asyncio.create_task(self._keep(one))

    async def _keep(self, one: Supervised) -> None:
        """Start the program again each time it ends, with growing pauses."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            since = loop.time()
            what = f"ended with {await one.process.ended()}"
            if one.stopping or one.program.restarts == 0:
                self._enter(one, "ended")
                return
            failures = 1 if loop.time() - since > STEADY_SECONDS else failures + 1
            while True:
                if failures > one.program.restarts:
                    self._give_up(one, what)
                    return
                self._enter(one, "restarting")
                pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
                self._write(one.program.name, f"{what}; starting it again in {pause:g} s")
                await asyncio.sleep(pause)
                one.restarts += 1
                try:
                    await one.process.start()
                    break
                except ProgramFailed as failure:
                    what, failures = str(failure).partition(".")[0].removeprefix(f"{one.program.name} "), failures + 1
                    await one.process.stop(signal.SIGKILL)
            self._enter(one, "ready")

    def _give_up(self, one: Supervised, what: str) -> None:
        self._enter(one, "failed")
        if not self._given_up.done():
            failed = f"failed {one.program.restarts + 1} times in a row and was given up ({what})"
            self._given_up.set_result(ProgramFailed(one.program, failed, tuple(one.process.last_lines)))

    async def _stop(self, one: Supervised, stop_signal: signal.Signals | None) -> None:
        one.stopping = True
        if one.task and one.state == "restarting":
            one.task.cancel()
            with suppress(asyncio.CancelledError):
                await one.task
        self._enter(one, "stopping")
        await one.process.stop(stop_signal)
        if one.task:
            await asyncio.gather(one.task, return_exceptions=True)
        self._enter(one, "ended")

    def _enter(self, one: Supervised, state: State) -> None:
        one.state = state
        self._changed()
