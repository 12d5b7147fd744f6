"""Lists of orders, newest first: a customer's own, and what staff search for. Ids are version 7, so they sort by time.

Which index each search reads is in docs/operations.md, "What a search of orders reads".
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.orders import Order
from models.types import OrderStatus, PaymentStatus, first_uuid7

WHOLE_NUMBER = len("XXXXX-XXXXX")
CLOCKS_DIFFER = 300_000  # milliseconds: between the clock that ids are made by and the database's, at most


@dataclass(frozen=True)
class OrderFilter:
    """What an order must be, all of it; None and () ask for nothing."""

    statuses: Collection[OrderStatus] = ()
    payment_statuses: Collection[PaymentStatus] = ()
    needs_attention: bool | None = None
    customer_id: UUID | None = None
    number: str | None = None  # or its beginning, as models.types.normalize_order_number gives it
    placed_after: datetime | None = None  # or then
    placed_before: datetime | None = None


async def history(session: AsyncSession, customer_id: UUID, before: UUID | None, limit: int) -> list[Order]:
    """A customer's orders; keyset by `before`."""
    return await _page(session, OrderFilter(customer_id=customer_id), before, limit)


async def search(session: AsyncSession, wanted: OrderFilter, before: UUID | None, limit: int) -> list[Order]:
    """The orders that match `wanted`; keyset by `before`. The session's transaction must be a real one."""
    # Which index is best depends on the values: how many orders this customer has, whether a partial index has them.
    await (await session.connection()).execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    return await _page(session, wanted, before, limit)


async def _page(session: AsyncSession, wanted: OrderFilter, before: UUID | None, limit: int) -> list[Order]:
    query = select(Order).where(*_conditions(wanted)).order_by(col(Order.id).desc()).limit(limit)
    if before:
        query = query.where(col(Order.id) < before)
    return list((await session.exec(query)).all())


def _conditions(wanted: OrderFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.statuses:
        yield col(Order.status).in_(wanted.statuses)
    if wanted.payment_statuses:
        yield col(Order.payment_status).in_(wanted.payment_statuses)
    if wanted.needs_attention is not None:
        yield col(Order.needs_attention) == wanted.needs_attention
    if wanted.customer_id:
        yield col(Order.customer_id) == wanted.customer_id
    if wanted.number and len(wanted.number) == WHOLE_NUMBER:
        yield col(Order.number) == wanted.number
    elif wanted.number:
        yield col(Order.number).between(wanted.number, f"{wanted.number}~")
    yield from _placed(wanted.placed_after, wanted.placed_before)


def _placed(after: datetime | None, before: datetime | None) -> Iterator[ColumnElement[bool]]:
    """By `created_at`, which people see; the id, which is indexed, says nearly the same and bounds what is read."""
    if after:
        yield col(Order.created_at) >= after
        yield col(Order.id) >= first_uuid7(int(after.timestamp() * 1000) - CLOCKS_DIFFER)
    if before:
        yield col(Order.created_at) < before
        yield col(Order.id) < first_uuid7(int(before.timestamp() * 1000) + CLOCKS_DIFFER)
