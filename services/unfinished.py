"""What reconciliation looks for among the orders: those that a run should be looking after."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.orders import Order
from models.types import OrderStatus, PaymentStatus
from services.orders import OPEN


async def untouched(
    session: AsyncSession, older_than_seconds: int, limit: int, *, behind: Order | None = None
) -> list[Order]:
    """Orders not at an end that have not changed for a while (database clock), oldest first; keyset by `behind`.

    Not at an end: open, sold and not paid, or sold while something of it stands still.
    """
    age = func.now() - timedelta(seconds=older_than_seconds)
    sold = col(Order.status) == OrderStatus.CONFIRMED
    unpaid, stands_still = col(Order.payment_status) != PaymentStatus.CAPTURED, col(Order.needs_attention)
    query = (
        select(Order)
        .where(col(Order.status).in_(OPEN) | (sold & unpaid) | (sold & stands_still))
        .where(col(Order.updated_at) < age)
        .order_by(col(Order.updated_at), col(Order.id))
        .limit(limit)
    )
    if behind is not None:
        query = query.where(tuple_(col(Order.updated_at), col(Order.id)) > (behind.updated_at, behind.id))
    return list((await session.exec(query)).all())


async def of_status(session: AsyncSession, order_ids: Sequence[UUID], statuses: Collection[OrderStatus]) -> list[Order]:
    """Those of these orders that have one of the statuses."""
    query = select(Order).where(col(Order.id).in_(order_ids)).where(col(Order.status).in_(statuses))
    return list((await session.exec(query)).all())
