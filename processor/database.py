"""The processor's PostgreSQL pool, and the schema it makes for itself."""

import json
from typing import Any

import asyncpg
from asyncpg.pool import Pool
from asyncpg.pool import PoolConnectionProxy as Connection

from processor.schema import DDL, LOCK

__all__ = ["UNREACHABLE", "Connection", "Pool", "create_schema", "open_pool"]

# what a lost or refused database raises, as against a mistake in a statement
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)


async def create_schema(url: str) -> None:
    """Make schema and tables where they are missing; several processes may start at once.

    A role that owns the schema needs no right to create schemas.
    """
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            if not await connection.fetchval("SELECT to_regnamespace('processor') IS NOT NULL"):
                await connection.execute("CREATE SCHEMA processor")
            await connection.execute("SET LOCAL client_min_messages = warning")
            await connection.execute(DDL)
    finally:
        await connection.close()


async def open_pool(url: str, size: int) -> Pool:
    """A pool whose connections read and write jsonb as Python objects. Statements end after 10 seconds.

    A connection goes back as it is. What asyncpg would reset by one more statement a call, we never set: no session
    settings, no LISTEN, no cursors; and locks are let go by who took them (`Context`).
    """
    pool: Pool = await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        timeout=5,
        command_timeout=10,
        init=_speak_json,
        reset=_leave_as_it_is,
        server_settings={"application_name": "processor"},
    )
    return pool


async def _leave_as_it_is(_: Any) -> None:
    pass


async def _speak_json(connection: Any) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
