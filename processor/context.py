"""What an operation works with: one account's view over one database connection.

Reads are made at once. Writes are gathered, and `flush` makes them all in one statement: one round trip, and a
transaction by itself. Until then nothing has happened, so a refusal half-way has nothing to take back.

What must not happen twice at a time is held by advisory locks of the session. `flush` hands them over to its own
transaction, so they end in the instant in which its effects can be seen, like a lock that was taken after BEGIN.
"""

import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import asyncpg

from processor.database import Connection, Pool
from processor.errors import lock_timeout
from processor.forms import JSON

PLACEHOLDER = re.compile(r"\$(\d+)")


class Listeners(Protocol):
    """Who wants to be told of events. `delay`: seconds before they are."""

    delay: float

    def listens(self, account: str, type_: str) -> bool: ...
    def wake(self) -> None: ...


@dataclass
class Context:
    """`base_url` is where a browser reaches the processor's pages; `now` is in whole seconds."""

    connection: Connection
    account: str
    base_url: str
    now: int = field(default_factory=lambda: int(time.time()))
    outbox: "Listeners | None" = None
    request_id: str | None = None
    key: str | None = None  # of the request that this is about
    told: bool = False  # an event is among the writes
    _statements: list[str] = field(default_factory=list)
    _values: list[Any] = field(default_factory=list)
    _changes: dict[str, JSON] = field(default_factory=dict)
    _encoded: dict[int, tuple[JSON, str]] = field(default_factory=dict)
    _locks: list[int] = field(default_factory=list)

    async def lock(self, function: str, *names: str) -> Any:
        """Call `processor.<function>(lock, *names)`, which tries to take the lock of these names for this session.

        Answers its row; whoever reads there that the lock is another's, says so with `lost`.
        """
        lock = _lock_id(function, names)
        self._locks.append(lock)  # before it is asked for: should the answer not come, it is let go all the same
        parameters = ", ".join(f"${number}" for number in range(2, len(names) + 2))
        return await self.connection.fetchrow(f"SELECT * FROM processor.{function}($1, {parameters})", lock, *names)

    def lost(self) -> None:
        """The lock last asked for was not given, or has been given back."""
        self._locks.pop()

    def write(self, statement: str, *values: Any) -> None:
        """Have `statement` (an INSERT or UPDATE, `$1` its first value) run by `flush`. A row may be written once."""
        self._statements.append(statement)
        self._values.append(values)

    def encoded(self, document: JSON) -> str:
        """`document` as JSON. The same object is stored, shown, and kept under the key: it is encoded once."""
        known = self._encoded.get(id(document))
        if known is None:
            known = self._encoded[id(document)] = (document, json.dumps(document))
        return known[1]

    def changing(self, id_: str, members: JSON) -> str:
        """`members` as JSON, with a note that this is what the object `id_` will hold once it is written."""
        self._changes[id_] = members
        return self.encoded(members)

    def current(self, id_: str, stored: JSON | None) -> JSON | None:
        """`stored`, or what becomes of it by the writes that wait."""
        changes = self._changes.get(id_)
        return stored if changes is None else {**(stored or {}), **changes}

    async def flush(self) -> None:
        """Make the writes that wait, in one transaction, and let go of the locks with it.

        Raises StripeError 429 if somebody else holds a row that is to be written.
        """
        if not self._statements:
            return
        values = [value for values in self._values for value in values]
        statement = _joined(tuple(self._statements), tuple(len(values) for values in self._values))
        try:
            await self.connection.execute(statement, *values, self._locks)
        except asyncpg.LockNotAvailableError:
            raise lock_timeout("PaymentIntent") from None
        self._statements, self._values, self._locks = [], [], []
        if self.told and self.outbox:
            self.outbox.wake()

    async def release(self) -> None:
        """Let go of the locks of what was not flushed. A connection that cannot is closed, which does it too."""
        if not self._locks:
            return
        try:
            await self.connection.execute("SELECT pg_advisory_unlock_all()")
        except BaseException:
            self.connection.terminate()
            raise


@asynccontextmanager
async def working(pool: Pool, account: str, base_url: str, **about: Any) -> AsyncIterator[Context]:
    """A context over a connection of `pool`; `about` are its further fields. What it has not flushed is forgotten."""
    async with pool.acquire(timeout=5) as connection:
        context = Context(connection, account, base_url, **about)
        try:
            yield context
        finally:
            await context.release()


def _lock_id(kind: str, names: tuple[str, ...]) -> int:
    digest = hashlib.blake2b("\0".join((kind, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


@lru_cache
def _joined(statements: tuple[str, ...], lengths: tuple[int, ...]) -> str:
    """One statement of many, its values numbered through; the last value is the locks that are held.

    A lock of the session is taken a second time for the transaction before it is given back, so it is never free in
    between. The texts are few and ours, so the connection keeps each of them prepared.
    """
    parts, before = [], 0
    for number, (statement, length) in enumerate(zip(statements, lengths, strict=True)):
        shifted = PLACEHOLDER.sub(lambda match, before=before: f"${int(match[1]) + before}", statement)  # type: ignore[misc]
        parts.append(f"w{number} AS ({shifted})")
        before += length
    locks = f"FROM unnest(${before + 1}::bigint[]) AS held"
    return f"WITH {', '.join(parts)} SELECT pg_advisory_xact_lock(held), pg_advisory_unlock(held) {locks}"
