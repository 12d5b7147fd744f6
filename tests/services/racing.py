"""For tests of one statement that waits for another one's lock."""

import asyncio

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions

_BLOCKED = text("SELECT pid FROM pg_stat_activity WHERE :backend = ANY (pg_blocking_pids(pid))")

_WAITING = text("""
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
""")


async def somebody_waits_for(holder: AsyncSession, sessions: Sessions) -> None:
    """Return as soon as another connection waits for a lock of `holder`'s transaction."""
    backend = (await (await holder.connection()).execute(text("SELECT pg_backend_pid()"))).scalar_one()
    async with asyncio.timeout(10), sessions() as watcher:
        connection = await watcher.connection()
        while not (await connection.execute(_BLOCKED, {"backend": backend})).first():  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.01)


async def so_many_wait(sessions: Sessions, number: int) -> None:
    """Return as soon as `number` connections of this database wait for locks."""
    async with asyncio.timeout(10), sessions() as watcher:
        connection = await watcher.connection()
        while len((await connection.execute(_WAITING)).all()) < number:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.01)
