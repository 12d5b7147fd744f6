"""Idempotency keys for the processor: `{order}:{operation}`, the same however often the operation is repeated.

A processor stores a 500 under its key and repeats it for ever, so a key that has brought two of them is spent, and the
next one is `{order}:{operation}:{n}`, noted before it is used. That cannot charge twice: an intent takes one charge,
one capture and one cancel, whatever the keys, and only the one intent whose id is stored is ever confirmed.
"""

from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions

ERRORS_PER_KEY = 2
INTENT, CAPTURE, VOID, REFUND = "intent", "capture", "void", "refund"  # operations; `authorize:{attempt}` is one more


def key(order_id: UUID, operation: str, number: int | None = None) -> str:
    """The operation's key of this number; none, or 0, is its first."""
    return f"{order_id}:{operation}:{number}" if number else f"{order_id}:{operation}"


async def key_of(session: AsyncSession, order_id: UUID, operation: str) -> str:
    """The key to use now."""
    connection = await session.connection()
    statement = text("SELECT number FROM payments.processor_keys WHERE order_id = :order AND operation = :operation")
    number = (await connection.execute(statement, {"order": order_id, "operation": operation})).scalar()
    return key(order_id, operation, number)


async def count_error(session: AsyncSession, order_id: UUID, operation: str) -> None:
    """A 5xx came back under the operation's key."""
    connection = await session.connection()
    statement = text(
        """
        INSERT INTO payments.processor_keys AS k (order_id, operation, errors) VALUES (:order, :operation, 1)
        ON CONFLICT (order_id, operation) DO UPDATE SET
            number = k.number + (k.errors + 1 >= :most)::int,
            errors = CASE WHEN k.errors + 1 >= :most THEN 0 ELSE k.errors + 1 END
        """
    )
    await connection.execute(statement, {"order": order_id, "operation": operation, "most": ERRORS_PER_KEY})


async def note_key_error(sessions: Sessions, order_id: UUID, operation: str) -> None:
    """The operation's key has brought an answer that would be repeated."""
    async with sessions.begin() as session:
        await count_error(session, order_id, operation)


async def key_for(sessions: Sessions, order_id: UUID, operation: str) -> str:
    async with sessions() as session:
        return await key_of(session, order_id, operation)
