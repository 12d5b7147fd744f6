"""The fault switchboard: what shall go wrong, at which step, for whom and how often. Never installed in production.

The faults stand in one small JSON file that `mercato faults` writes and every worker and API process reads: a `stat` a
step, and the content again only when it has changed. A fault that is counted is counted down in the file, on disk,
before it happens: a process that kills itself must not do so for ever.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from loguru import logger

from core.settings import Settings
from models.errors import Conflict, Unavailable
from models.types import order_number

Place = Literal["worker", "api"]
Kind = Literal["crash", "error", "refuse", "delay", "hang"]
Moment = Literal["before", "after"]

KINDS: dict[Place, tuple[Kind, ...]] = {
    "worker": ("crash", "error", "refuse", "delay", "hang"),
    "api": ("crash", "error"),
}
STEPS: dict[Place, tuple[str, ...]] = {
    "worker": (
        *("prepare", "reserve", "prolong", "authorize", "confirm", "capture", "clear_cart", "notify"),
        *("void", "release", "close", "refund", "restock", "begin_cancel", "cancel_sold"),
        *("mark_attention", "clear_attention", "audit", "reconcile", "compare_books"),
    ),
    "api": ("start_checkout",),  # between the order's row and its workflow
}
HANG_SECONDS = 3600.0  # longer than anybody waits

CustomerOf = Callable[[UUID], Awaitable[UUID | None]]


@dataclass(frozen=True)
class Fault:
    """One thing that shall go wrong. `seconds` is for delay and hang; `times` None: until it is cleared.

    `order` is an order's id or number, `customer` a customer's id; `rate` picks orders, always the same ones for the
    same `seed`.
    """

    id: str
    place: Place
    kind: Kind
    step: str
    moment: Moment = "before"
    seconds: float = 0
    times: int | None = 1
    order: str = ""
    customer: str = ""
    rate: float = 1
    seed: int = 0

    def is_at(self, place: Place, step: str, moment: Moment) -> bool:
        return (self.place, self.step, self.moment) == (place, step, moment)

    def picks(self, order_id: UUID | None) -> bool:
        """Whether it concerns this order, as far as the order's id tells. Without an order: only if it names none."""
        if self.order and not (order_id and self.order in (str(order_id), order_number(order_id))):
            return False
        return self.rate >= 1 or (order_id is not None and _share(self.seed, order_id) < self.rate)

    @property
    def says(self) -> str:
        """What it will do, in a sentence."""
        who = {"worker": "The worker", "api": "The API"}[self.place]
        what = {
            "crash": "kills itself (kill -9)",
            "error": "fails as if something could not be reached, which is retried",
            "refuse": "refuses, which is not retried",
            "delay": f"waits {self.seconds:g} s",
            "hang": f"says nothing for {self.seconds:g} s, then fails",
        }[self.kind]
        effect = {"before": "before", "after": "after the effect of"}[self.moment]
        whose = f" of order {self.order}" if self.order else f" of customer {self.customer}" if self.customer else ""
        share = f", for {self.rate:.0%} of the orders" if self.rate < 1 else ""
        often = "until it is cleared" if self.times is None else "once" if self.times == 1 else f"{self.times} times"
        return f"{who} {what} {effect} {self.step}{whose}{share}, {often}."


class FaultFile:
    """The faults of one data folder, shared by processes. Every change is made under a lock and is on disk after it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._faults: tuple[Fault, ...] = ()

    def read(self) -> tuple[Fault, ...]:
        """What is armed now. A file that is missing or that makes no sense holds no faults."""
        try:
            status = os.stat(self._path)
        except OSError:
            self._seen, self._faults = None, ()
            return ()
        now = (status.st_mtime_ns, status.st_ino, status.st_size)
        if now != self._seen:
            self._faults, self._seen = self._load(), now
        return self._faults

    def add(self, fault: Fault) -> None:
        with self._locked() as faults:
            faults.append(fault)

    def remove(self, *ids: str) -> list[Fault]:
        """Take the named faults away (none named: all); those that were there."""
        with self._locked() as faults:
            gone = [fault for fault in faults if not ids or fault.id in ids]
            faults[:] = [fault for fault in faults if fault not in gone]
        return gone

    def take(self, fault: Fault) -> bool:
        """Use it once. False: another process has used it up, or it was cleared."""
        if fault.times is None:
            return True
        with self._locked() as faults:
            left = next((one for one in faults if one.id == fault.id), None)
            if left is None:
                return False
            at = faults.index(left)
            rest = (left.times or 1) - 1
            faults[at : at + 1] = [replace(left, times=rest)] if rest else []
        return True

    def _load(self) -> tuple[Fault, ...]:
        try:
            return tuple(Fault(**one) for one in json.loads(self._path.read_text())["faults"])
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("{path} cannot be used: {error}", path=self._path.name, error=str(error))
            return ()

    @contextmanager
    def _locked(self) -> Iterator[list[Fault]]:
        """The faults, to be changed in place; written when the block ends."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            faults = list(self._load())
            yield faults
            self._write(faults)
        finally:
            os.close(lock)

    def _write(self, faults: list[Fault]) -> None:
        half = self._path.with_suffix(".new")
        with half.open("w") as file:
            json.dump({"faults": [asdict(fault) for fault in faults]}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        half.rename(self._path)


class Switchboard:
    """One process's look at the faults: `reach` a point, and what is armed there happens."""

    def __init__(
        self, place: Place, file: FaultFile | None, *, crash_at: str = "", customer_of: CustomerOf | None = None
    ) -> None:
        self._place = place
        self._file = file
        self._own = _of_crash_at(crash_at)
        self._customer_of = customer_of

    async def reach(self, step: str, moment: Moment, order_id: UUID | None, customer_id: UUID | None = None) -> None:
        """Go on, or not.

        Raises:
            Unavailable: an `error` or a `hang` is armed here.
            Conflict: a `refuse` is armed here.
        """
        if self._own and self._own.is_at(self._place, step, moment):
            await _strike(self._own)
        for fault in self._file.read() if self._file else ():
            if not fault.is_at(self._place, step, moment) or not fault.picks(order_id):
                continue
            if fault.customer and not await self._is_of(fault.customer, order_id, customer_id):
                continue
            if self._file and self._file.take(fault):
                await _strike(fault)

    async def _is_of(self, customer: str, order_id: UUID | None, customer_id: UUID | None) -> bool:
        if customer_id is None and order_id is not None and self._customer_of:
            customer_id = await self._customer_of(order_id)
        return str(customer_id) == customer


def switchboard(settings: Settings, place: Place, customer_of: CustomerOf | None = None) -> Switchboard | None:
    """The switchboard of this process; None where there is nothing to switch, and always in production."""
    if settings.environment == "production" or not (settings.faults_file or settings.crash_at):
        return None
    file = FaultFile(Path(settings.faults_file)) if settings.faults_file else None
    return Switchboard(place, file, crash_at=settings.crash_at, customer_of=customer_of)


def _of_crash_at(crash_at: str) -> Fault | None:
    """`reserve:after`: another way to say a fault, for this process only and without end."""
    step, _, moment = crash_at.partition(":")
    given: Any = {"moment": "before" if moment == "before" else "after", "times": None}
    return Fault(id="MERCATO_CRASH_AT", place="worker", kind="crash", step=step, **given) if step else None


def _share(seed: int, order_id: UUID) -> float:
    """Where in [0, 1) the order stands for this seed: the same at every step and in every process."""
    digest = hashlib.sha256(f"{seed}:{order_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


async def _strike(fault: Fault) -> None:
    logger.warning("fault {fault}: {says}", fault=fault.id, says=fault.says)
    if fault.kind == "crash":
        logger.complete()
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.kind in ("delay", "hang"):
        await asyncio.sleep(fault.seconds)
    if fault.kind in ("error", "hang"):
        raise Unavailable(f"a fault on purpose {fault.moment} {fault.step}")
    if fault.kind == "refuse":
        raise Conflict(f"a fault on purpose {fault.moment} {fault.step}", code="fault_on_purpose")
