"""PostgreSQL: one engine a service role. Whoever opens a session owns the transaction; services never commit."""

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

Sessions = async_sessionmaker[AsyncSession]


def make_engine(url: str, *, application: str = "mercato", pool_size: int = 8) -> AsyncEngine:
    """An engine for `postgresql://user:password@host:port/database`.

    Timeouts are set on the server so that no statement outlives the budget of the step it serves (seconds: lock 2,
    statement 5, idle transaction 10).
    """
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=3,
        pool_pre_ping=True,
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


def make_sessions(engine: AsyncEngine) -> Sessions:
    """`async with sessions.begin() as session:` is one transaction; objects stay readable after it."""
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
