"""What reconciliation looks for among the orders: those that a run should be looking after."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.orders import Order
from models.types import OrderStatus
from services.order_changes import COLUMNS, columns_of

# The words of the index `orders_unfinished`, so that it is used whatever the plan: no parameter among them.
_UNTOUCHED = f"""
    SELECT {columns_of("o")} FROM orders.orders o
    WHERE (o.status IN ('pending', 'action_required') OR (o.status = 'confirmed' AND
              (o.payment_status <> 'captured' OR o.needs_attention OR o.cancel_requested IS NOT NULL)))
      AND o.updated_at < now() - make_interval(secs => :age) {{behind}}
    ORDER BY o.updated_at, o.id LIMIT :limit
"""
_FIRST = text(_UNTOUCHED.format(behind="")).columns(*COLUMNS)
_NEXT = text(_UNTOUCHED.format(behind="AND (o.updated_at, o.id) > (:updated_at, :id)")).columns(*COLUMNS)

_SOLD_BETWEEN = text("""
    SELECT id FROM orders.orders
    WHERE id BETWEEN :first AND :last AND status = 'confirmed' AND payment_status = 'captured'
    ORDER BY id DESC LIMIT :limit
""")


async def untouched(
    session: AsyncSession, older_than_seconds: int, limit: int, *, behind: Order | None = None
) -> list[Order]:
    """Orders not at an end that have not changed for a while (database clock), oldest first; keyset by `behind`.

    Not at an end: open, sold and not paid, sold while something of it stands still, or sold and to be cancelled.
    """
    parameters: dict[str, Any] = {"age": float(older_than_seconds), "limit": limit}
    statement = _FIRST
    if behind is not None:
        statement, parameters = _NEXT, {**parameters, "updated_at": behind.updated_at, "id": behind.id}
    rows = (await (await session.connection()).execute(statement, parameters)).mappings()
    return [Order(**row) for row in rows]


async def sold_between(session: AsyncSession, first: UUID, last: UUID, limit: int) -> list[UUID]:
    """Orders sold and paid whose ids, which begin with the time they were placed, lie between these."""
    rows = await (await session.connection()).execute(_SOLD_BETWEEN, {"first": first, "last": last, "limit": limit})
    return list(rows.scalars())


async def of_status(session: AsyncSession, order_ids: Sequence[UUID], statuses: Collection[OrderStatus]) -> list[Order]:
    """Those of these orders that have one of the statuses."""
    query = select(Order).where(col(Order.id).in_(order_ids)).where(col(Order.status).in_(statuses))
    return list((await session.exec(query)).all())
