"""Messages to customers. What is queued here waits for delivery; nothing is sent twice for the same thing."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.notifications import Message
from models.types import uuid7


async def queue(
    session: AsyncSession, *, order_id: UUID, customer_id: UUID, kind: str, channel: str, data: Mapping[str, Any]
) -> bool:
    """Queue one message for (order, kind, channel); False when it was queued before, and then nothing changes."""
    statement = (
        insert(Message)
        .values(id=uuid7(), order_id=order_id, customer_id=customer_id, kind=kind, channel=channel, data=dict(data))
        .on_conflict_do_nothing(index_elements=["order_id", "kind", "channel"])
        .returning(col(Message.id))
    )
    connection = await session.connection()
    return (await connection.execute(statement)).first() is not None


async def of_customer(session: AsyncSession, customer_id: UUID, before: UUID | None, limit: int) -> Sequence[Message]:
    """At most `limit` messages of a customer, newest first, older than the message `before`."""
    statement = select(Message).where(Message.customer_id == customer_id)
    if before is not None:
        statement = statement.where(col(Message.id) < before)
    return (await session.exec(statement.order_by(col(Message.id).desc()).limit(limit))).all()


async def without(session: AsyncSession, order_ids: Sequence[UUID], kind: str) -> list[UUID]:
    """Those of these orders for which no message of this kind was ever queued."""
    query = select(Message.order_id).where(col(Message.order_id).in_(order_ids)).where(Message.kind == kind)
    told = set((await session.exec(query)).all())
    return [order_id for order_id in order_ids if order_id not in told]
