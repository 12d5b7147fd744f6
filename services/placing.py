"""Placing an order: the idempotency row and the pending order are one transaction."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import Conflict, InvalidRequest, Unavailable
from models.messages import CheckoutInput, OrderLine
from models.orders import Order
from models.types import EventType, OrderStatus, PaymentStatus, order_number
from services import events, orders
from services.order_changes import FACTS


@dataclass(frozen=True)
class RequestKey:
    """What an idempotency key is bound to: (user, method, path, key), and the body it came with."""

    user_id: UUID
    method: str
    path: str
    key: str
    body_sha256: str


def fingerprint(body: Mapping[str, Any]) -> str:
    """SHA-256 of the body in canonical JSON, so that spacing and the order of fields do not matter."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_KEY = "user_id = :user_id AND method = :method AND path = :path AND key = :key"

# A key that has run out is free again.
_BIND = """INSERT INTO orders.idempotency_keys AS k (
            user_id, method, path, key, body_sha256, order_id, in_flight_until, expires_at
        ) VALUES (
            :user_id, :method, :path, :key, :body_sha256, :order_id,
            now() + make_interval(secs => :in_flight), now() + make_interval(secs => :ttl)
        )
        ON CONFLICT (user_id, method, path, key) DO UPDATE SET
            body_sha256 = excluded.body_sha256, order_id = excluded.order_id, created_at = now(),
            in_flight_until = excluded.in_flight_until, expires_at = excluded.expires_at
        WHERE k.expires_at < now()
        RETURNING order_id"""

_RELEASE = f"UPDATE orders.idempotency_keys SET in_flight_until = NULL WHERE {_KEY}"

_BIND_KEY, _RELEASE_KEY = text(_BIND), text(_RELEASE)
_FIND = text(f"""
    SELECT order_id, body_sha256, coalesce(in_flight_until > now(), false) AS in_flight
    FROM orders.idempotency_keys WHERE {_KEY} FOR UPDATE
""")
_TAKE = text(f"""
    UPDATE orders.idempotency_keys SET in_flight_until = now() + make_interval(secs => :seconds) WHERE {_KEY}
""")
_FORGET = text(f"DELETE FROM orders.idempotency_keys WHERE {_KEY}")

# The key, the pending order and its first event; nothing at all when the key is bound already.
_PLACE = text(f"""
    WITH bound AS (
        {_BIND}
    ), placed AS (
        INSERT INTO orders.orders (
            id, number, customer_id, status, payment_status, currency, shipping_address, checkout, trace_id
        )
        SELECT order_id, :number, :user_id, :status, :payment_status, :currency, CAST(:shipping_address AS jsonb),
               CAST(:checkout AS jsonb), CAST(:trace_id AS text)
        FROM bound RETURNING *
    ), entry AS (
        SELECT customer_id, id AS order_id, CAST(:type AS text) AS event_key, CAST(:type AS text) AS type,
               {FACTS.format(row="placed")} AS data FROM placed
    ), {events.telling("entry")}
    SELECT order_id FROM bound
""")

# The answer to a request, read as its key is let go: a repeat may come at once.
_ANSWER = text(f"""
    WITH released AS (
        {_RELEASE}
    )
    {orders.READ} FROM orders.orders o WHERE o.id = :order_id
""").columns(*orders.READ_COLUMNS)


async def place(
    session: AsyncSession,
    request: RequestKey,
    checkout: CheckoutInput,
    *,
    currency: str,
    shipping_address: dict[str, Any] | None,
    trace_id: str | None,
    in_flight_seconds: float,
    ttl: timedelta,
) -> bool:
    """Bind the key to a new pending order, with the workflow's input so that it can be started later, and tell it.

    All of it or, when the key is bound already, nothing: False then, and `join` tells to what.
    """
    parameters = {
        **_key_of(request),
        **_times(in_flight_seconds, ttl),
        "body_sha256": request.body_sha256,
        "order_id": checkout.order_id,
        "number": order_number(checkout.order_id),
        "status": OrderStatus.PENDING.value,
        "payment_status": PaymentStatus.NONE.value,
        "currency": currency,
        "shipping_address": json.dumps(shipping_address) if shipping_address else None,
        "checkout": checkout.model_dump_json(),
        "trace_id": trace_id,
        "type": EventType.ORDER_PLACED.value,
    }
    return (await (await session.connection()).execute(_PLACE, parameters)).first() is not None


async def answer(session: AsyncSession, request: RequestKey, order_id: UUID) -> tuple[Order, list[OrderLine]]:
    """Where the order stands now, with its lines; and the request counts as answered."""
    parameters = {**_key_of(request), "order_id": order_id}
    return orders.read_row((await (await session.connection()).execute(_ANSWER, parameters)).mappings().one())


async def bind(
    session: AsyncSession, request: RequestKey, order_id: UUID, *, in_flight_seconds: float, ttl: timedelta
) -> tuple[UUID, bool]:
    """Bind `request` to `order_id`, or find what it was bound to. Returns (order id, whether it is a repeat).

    Whoever gets an answer here is the one in flight until `release` or `in_flight_seconds` (database clock) have
    passed: a process that died does not lock its client out.

    Raises:
        InvalidRequest: `idempotency_key_reused`, another body came with this key.
        Conflict: `idempotency_in_progress`, the first request is still being answered.
    """
    parameters = {
        **_key_of(request),
        **_times(in_flight_seconds, ttl),
        "body_sha256": request.body_sha256,
        "order_id": order_id,
    }
    inserted = await (await session.connection()).execute(_BIND_KEY, parameters)
    if inserted.first():
        return order_id, False
    return await join(session, request, in_flight_seconds=in_flight_seconds), True


async def join(session: AsyncSession, request: RequestKey, *, in_flight_seconds: float) -> UUID:
    """The order that `request` is bound to, for a repeat, which is the one in flight then. Binds nothing.

    Raises:
        InvalidRequest, Conflict: as `bind`.
        Unavailable: it is bound to nothing, or not any more; ask again.
    """
    connection = await session.connection()
    row = (await connection.execute(_FIND, _key_of(request))).first()
    if row is None:
        raise Unavailable("This Idempotency-Key has just run out.")
    if row.body_sha256 != request.body_sha256:
        raise InvalidRequest(
            "this Idempotency-Key came with another body before",
            code="idempotency_key_reused",
            orderId=str(row.order_id),
        )
    if row.in_flight:
        raise Conflict(
            "the first request with this Idempotency-Key is still being answered",
            code="idempotency_in_progress",
            retry_after=1,
            orderId=str(row.order_id),
        )
    await connection.execute(_TAKE, {**_key_of(request), "seconds": in_flight_seconds})
    order_id: UUID = row.order_id
    return order_id


async def release(session: AsyncSession, request: RequestKey) -> None:
    """The request is answered: a repeat may come at once."""
    await (await session.connection()).execute(_RELEASE_KEY, _key_of(request))


async def forget(session: AsyncSession, request: RequestKey) -> None:
    """The request changed nothing and never will (a refusal before anything was sent): free its key."""
    await (await session.connection()).execute(_FORGET, _key_of(request))


def _key_of(request: RequestKey) -> dict[str, Any]:
    return {"user_id": request.user_id, "method": request.method, "path": request.path, "key": request.key}


def _times(in_flight_seconds: float, ttl: timedelta) -> dict[str, float]:
    return {"in_flight": float(in_flight_seconds), "ttl": ttl.total_seconds()}
