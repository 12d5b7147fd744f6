"""PostgreSQL: one engine a service role. Whoever opens a session owns the transaction; services never commit."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel.ext.asyncio.session import AsyncSession

_CLOCK = select(func.clock_timestamp())


@dataclass(frozen=True)
class Sessions:
    """Two ways into one pool.

    `async with sessions() as session:` commits each statement by itself, in one round trip: for reads, and for a
    change that is a single statement. `async with sessions.begin() as session:` is one transaction, which costs two
    round trips more. Objects stay readable after both.
    """

    engine: AsyncEngine
    _single: async_sessionmaker[AsyncSession]
    _transaction: async_sessionmaker[AsyncSession]

    def __call__(self) -> AsyncSession:
        return self._single()

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self._transaction.begin()


def make_engine(url: str, *, application: str = "mercato", pool_size: int = 16) -> AsyncEngine:
    """An engine for `postgresql://user:password@host:port/database`. Each statement commits by itself, unless the
    engine is asked for `transactions`.

    Timeouts are set on the server so that no statement outlives the budget of the step it serves (seconds: lock 2,
    statement 5, idle transaction 10).
    """
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,  # an overflow is closed after each use: a busy process would do little else than connect
        pool_timeout=3,
        hide_parameters=True,  # they are people's data; errors are logged and kept
        connect_args={
            "timeout": 3,
            "command_timeout": 6,
            "server_settings": {
                "application_name": application,
                "lock_timeout": "2s",
                "statement_timeout": "5s",
                "idle_in_transaction_session_timeout": "10s",
            },
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def make_sessions(engine: AsyncEngine) -> Sessions:
    """Sessions on the engine's pool."""
    options: dict[str, Any] = {"class_": AsyncSession, "expire_on_commit": False}
    return Sessions(engine, async_sessionmaker(engine, **options), async_sessionmaker(transactions(engine), **options))


async def clock(session: AsyncSession) -> datetime:
    """The database's clock, the one that ages are measured by: machines differ, and whoever asks may be wrong."""
    at: datetime = (await (await session.connection()).execute(_CLOCK)).scalar_one()
    return at


def transactions(engine: AsyncEngine) -> AsyncEngine:
    """The same engine and pool, for transactions of several statements."""
    return engine.execution_options(isolation_level="READ COMMITTED")


def _refuse_closed(_: Any, entry: ConnectionPoolEntry, __: Any) -> None:
    """A connection that the server has closed is known to be closed: the pool makes new ones, and nobody has to ask
    the server before each use whether it is still there (`pool_pre_ping`, a round trip each time)."""
    connection: Any = entry.driver_connection
    if connection is None or connection.is_closed():
        raise InvalidatePoolError
