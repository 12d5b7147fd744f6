"""The customer's event log, `orders.customer_event`: appended to with a change of an order, read by streams.

For one customer seq is 1..n without a hole and in the order of commits, so "everything after n" never misses a row
that is committed later.
"""

from collections.abc import Mapping
from datetime import UTC
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from core.events import PAGE
from models.orders import CustomerEvent, Order
from models.types import OrderStatus, PaymentStatus

OPEN_ORDERS = 50


def telling(entries: str) -> str:
    """The CTEs that append the CTE `entries`, at most one row (customer_id, order_id, event_key, type, data).

    The counter's row stays locked until the transaction ends: that is what makes a customer's events follow each other
    without a hole. An event that the log has already breaks its unique key, and the whole statement is undone with it,
    the number taken included. `told` holds the new seq.
    """
    return f"""counter AS (
        INSERT INTO orders.customer_counters AS c (customer_id, last_seq) SELECT customer_id, 1 FROM {entries}
        ON CONFLICT (customer_id) DO UPDATE SET last_seq = c.last_seq + 1
        RETURNING last_seq
    ), told AS (
        INSERT INTO orders.customer_event (customer_id, seq, order_id, event_key, type, data)
        SELECT e.customer_id, counter.last_seq, e.order_id, e.event_key, e.type, e.data FROM {entries} e, counter
        RETURNING seq
    )"""


_AFTER = text(
    """
    SELECT customer_id, seq, order_id, event_key, type, data, at FROM orders.customer_event
    WHERE customer_id = :customer_id AND seq > :seq
      AND (CAST(:order_id AS uuid) IS NULL OR order_id = CAST(:order_id AS uuid))
    ORDER BY seq LIMIT :limit
    """
)
_NEWER = text(
    """
    SELECT e.* FROM unnest(CAST(:customers AS uuid[]), CAST(:seqs AS bigint[])) AS live (customer_id, seq)
    CROSS JOIN LATERAL (
        SELECT customer_id, seq, order_id, event_key, type, data, at FROM orders.customer_event
        WHERE customer_id = live.customer_id AND seq > live.seq ORDER BY seq LIMIT :page
    ) AS e
    ORDER BY e.customer_id, e.seq
    """
)


async def after(
    session: AsyncSession, customer_id: UUID, seq: int, *, order_id: UUID | None = None, limit: int = 500
) -> list[CustomerEvent]:
    """A customer's events (of one order if given) that follow `seq`, in order."""
    connection = await session.connection()
    rows = await connection.execute(
        _AFTER, {"customer_id": customer_id, "seq": seq, "order_id": order_id, "limit": limit}
    )
    return [_event(row) for row in rows]


async def newer(session: AsyncSession, cursors: Mapping[UUID, int]) -> list[CustomerEvent]:
    """For each customer at most PAGE events that follow the seq given, in order; one query for all."""
    if not cursors:
        return []
    connection = await session.connection()
    rows = await connection.execute(
        _NEWER, {"customers": list(cursors.keys()), "seqs": list(cursors.values()), "page": PAGE}
    )
    return [_event(row) for row in rows]


async def last_seq(session: AsyncSession, customer_id: UUID) -> int:
    """The customer's newest seq, 0 before the first event."""
    connection = await session.connection()
    query = text("SELECT last_seq FROM orders.customer_counters WHERE customer_id = :customer_id")
    return await connection.scalar(query, {"customer_id": customer_id}) or 0


async def last_seq_of_order(session: AsyncSession, order_id: UUID) -> int:
    """The newest seq among the order's events, 0 before the first."""
    connection = await session.connection()
    query = text("SELECT max(seq) FROM orders.customer_event WHERE order_id = :order_id")
    return await connection.scalar(query, {"order_id": order_id}) or 0


async def open_orders(session: AsyncSession, customer_id: UUID) -> list[Order]:
    """A customer's orders that something may still happen to, newest first, OPEN_ORDERS at most."""
    sold = col(Order.status) == OrderStatus.CONFIRMED
    waiting = col(Order.status).in_((OrderStatus.PENDING, OrderStatus.ACTION_REQUIRED))
    query = (
        select(Order)
        .where(Order.customer_id == customer_id)
        .where(waiting | (sold & (col(Order.payment_status) != PaymentStatus.CAPTURED)))
        .order_by(col(Order.id).desc())
        .limit(OPEN_ORDERS)
    )
    return list((await session.exec(query)).all())


def is_finished(status: str, payment_status: str) -> bool:
    """Whether an order's story is told: it has ended, or was confirmed and is paid."""
    sold = status == OrderStatus.CONFIRMED and payment_status == PaymentStatus.CAPTURED
    return sold or OrderStatus(status).is_ended


def _event(row: Row[Any]) -> CustomerEvent:
    """A row of its own, unknown to the session: the log is append-only, nothing may write it back by accident."""
    event = CustomerEvent(**row._mapping)
    if "at" not in event.data:
        event.data = {**event.data, "at": event.at.astimezone(UTC).isoformat(timespec="milliseconds")}
    return event
