"""Orders and events as the orders service writes them, for tests that need one without the way there."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from models.messages import CheckoutInput
from models.types import EventType
from services import events, placing

_APPEND = text(f"""
    WITH entry AS (
        SELECT CAST(:customer_id AS uuid) AS customer_id, CAST(:order_id AS uuid) AS order_id,
               CAST(:event_key AS text) AS event_key, CAST(:type AS text) AS type, CAST(:data AS jsonb) AS data
    ), {events.telling("entry")}
    SELECT seq FROM told
""")


async def place(session: AsyncSession, checkout: CheckoutInput) -> None:
    """The order as the API leaves it: pending, bound to a key of its own, no checkout started."""
    key = placing.RequestKey(checkout.customer_id, "POST", "/api/orders/place", str(checkout.order_id), "")
    assert await placing.place(
        session,
        key,
        checkout,
        currency="EUR",
        shipping_address=None,
        trace_id=None,
        in_flight_seconds=0,
        ttl=timedelta(days=7),
    )


async def append(
    session: AsyncSession, *, customer_id: UUID, order_id: UUID, event_key: str, type: EventType, data: dict[str, Any]
) -> int | None:
    """The new event's seq; None when the order has an event of this key already, and then nothing changes."""
    entry = {"customer_id": customer_id, "order_id": order_id, "event_key": event_key, "type": type.value}
    try:
        async with session.begin_nested():
            connection = await session.connection()
            seq: int = (await connection.execute(_APPEND, {**entry, "data": json.dumps(data)})).scalar_one()
            return seq
    except IntegrityError:
        return None
