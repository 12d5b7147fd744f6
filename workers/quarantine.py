"""A step that kills its worker again and again is not given a worker any more, so that the other orders have one.

A worker notes which steps of which orders it is at, in memory that outlives it (a mapped file: no system call a step).
The next one reads what the dead one was at. Whoever was there at three deaths is refused for a while: the step fails,
stands still, and staff read why, like any other step that stands still. It may kill one worker more after that, and is
refused again. A new version of the code begins with a clean slate.
"""

import fcntl
import json
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from loguru import logger
from prometheus_client import Gauge
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from workers.errors import order_of

DEATHS = 3
REMEMBERED_SECONDS = 24 * 3600.0  # whoever has been let try again is refused at the next death
SLOT, SLOTS = 128, 256  # bytes; more steps than a worker carries out at once
QUARANTINED = Gauge("mercato_steps_quarantined", "Steps that have killed workers and are not tried for now")


class Journal:
    """What a living worker is at. Its file is locked for as long as it lives, and removed when it ends in order."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{uuid4().hex}.journal"
        self._file = self._path.open("w+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.truncate(SLOT * SLOTS)
        self._map = mmap.mmap(self._file.fileno(), SLOT * SLOTS)
        self._free = list(range(SLOTS))

    def begin(self, what: str) -> int:
        """Note `what` (`{order}:{step}`); the place it stands at. -1: no place left, it is not noted."""
        if not self._free:
            return -1
        place = self._free.pop()
        text = what.encode()[: SLOT - 1]
        self._map[place * SLOT : place * SLOT + len(text) + 1] = text + b"\0"
        return place

    def end(self, place: int) -> None:
        """It has come to an end, whichever."""
        if place >= 0:
            self._map[place * SLOT] = 0
            self._free.append(place)

    def close(self) -> None:
        """The worker ends in order."""
        self._path.unlink(missing_ok=True)
        self._map.close()
        self._file.close()


def left_behind(folder: Path) -> list[str]:
    """What dead workers were at; their journals are gone after that."""
    found = []
    for path in folder.glob("*.journal"):
        with suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its worker lives
            content = file.read()
            path.unlink()
            slots = (content[start : start + SLOT] for start in range(0, len(content), SLOT))
            found += [text.decode(errors="replace") for slot in slots if (text := slot.partition(b"\0")[0])]
    return found


@dataclass
class Quarantine:
    """Which steps were there when workers died: {`{order}:{step}`: times}, shared by the workers of a machine."""

    folder: Path
    seconds: float
    _until: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with (self.folder / "deaths.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            deaths = self._read()
            for what in left_behind(self.folder):
                deaths.setdefault(what, []).append(time.time())
            self._write(deaths)
        self._until = {what: max(times) + self.seconds for what, times in deaths.items() if len(times) >= DEATHS}
        QUARANTINED.set(len(self._until))
        for what in self._until:
            logger.error("{what} has ended {times} workers: it is not tried for now", what=what, times=DEATHS)

    def refuse(self, what: str) -> None:
        """Raises ApplicationError `quarantined`, which is tried again later, while the step is not to be tried."""
        until = self._until.get(what)
        if until is None:
            return
        if time.time() >= until:
            del self._until[what]
            QUARANTINED.set(len(self._until))
            return
        when = time.strftime("%H:%M:%S", time.gmtime(until))
        raise ApplicationError(
            f"This step has ended the worker {DEATHS} times; it is not tried again before {when} UTC",
            type="quarantined",
        )

    def _read(self) -> dict[str, list[float]]:
        """Deaths of this version of the code that count still."""
        try:
            kept = json.loads((self.folder / "deaths.json").read_text())
            since = time.time() - REMEMBERED_SECONDS
            deaths: dict[str, list[float]] = kept["deaths"] if kept["version"] == version("mercato") else {}
            return {what: recent for what, times in deaths.items() if (recent := [at for at in times if at > since])}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write(self, deaths: dict[str, list[float]]) -> None:
        half = self.folder / f"deaths.{os.getpid()}"
        half.write_text(json.dumps({"version": version("mercato"), "deaths": deaths}))
        half.replace(self.folder / "deaths.json")


class QuarantineInterceptor(Interceptor):
    """Notes each step while it is carried out, and refuses those in quarantine."""

    def __init__(self, quarantine: Quarantine, journal: Journal) -> None:
        self._quarantine, self._journal = quarantine, journal

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Noted(next, self._quarantine, self._journal)


class _Noted(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, quarantine: Quarantine, journal: Journal) -> None:
        super().__init__(next)
        self._quarantine, self._journal = quarantine, journal

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        order = order_of(info.workflow_id)
        if order is None:
            return await super().execute_activity(input)
        what = f"{order}:{info.activity_type}"
        self._quarantine.refuse(what)
        place = self._journal.begin(what)
        try:
            return await super().execute_activity(input)
        finally:
            self._journal.end(place)


@contextmanager
def quarantine(folder: Path, seconds: float) -> Iterator[Sequence[Interceptor]]:
    """The interceptor of a worker that lives in this block; none where `folder` cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known, journal = Quarantine(folder, seconds), Journal(folder)
    except OSError as error:
        logger.warning("steps that kill their worker will not be told apart: {error}", error=str(error))
        yield ()
        return
    yield (QuarantineInterceptor(known, journal),)
    journal.close()  # in order: after an exception nobody knows what it was at, and the journal stays
