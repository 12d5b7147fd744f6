"""Placing an order: the idempotency row and the pending order are one transaction."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import Conflict, InvalidRequest
from models.messages import CheckoutInput
from models.orders import IdempotencyKey, Order
from models.types import EventType, order_number
from services import events


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
    flight = func.now() + timedelta(seconds=in_flight_seconds)
    inserted = await session.exec(
        insert(IdempotencyKey)
        .values(
            user_id=request.user_id,
            method=request.method,
            path=request.path,
            key=request.key,
            body_sha256=request.body_sha256,
            order_id=order_id,
            in_flight_until=flight,
            expires_at=func.now() + ttl,
        )
        .on_conflict_do_update(
            index_elements=["user_id", "method", "path", "key"],
            set_={
                "body_sha256": request.body_sha256,
                "order_id": order_id,
                "in_flight_until": flight,
                "created_at": func.now(),
                "expires_at": func.now() + ttl,
            },
            where=IdempotencyKey.expires_at < func.now(),
        )
        .returning(col(IdempotencyKey.order_id))
    )
    if inserted.first():
        return order_id, False
    return await _bound(session, request, in_flight_seconds), True


async def _bound(session: AsyncSession, request: RequestKey, in_flight_seconds: float) -> UUID:
    row = (
        await session.exec(  # type: ignore[call-overload]
            text(
                """
                SELECT order_id, body_sha256, coalesce(in_flight_until > now(), false) AS in_flight
                FROM orders.idempotency_keys
                WHERE user_id = :user_id AND method = :method AND path = :path AND key = :key FOR UPDATE
                """
            ),
            params=_key_of(request),
        )
    ).one()
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
    await session.exec(  # type: ignore[call-overload]
        text(
            """
            UPDATE orders.idempotency_keys SET in_flight_until = now() + make_interval(secs => :seconds)
            WHERE user_id = :user_id AND method = :method AND path = :path AND key = :key
            """
        ),
        params={**_key_of(request), "seconds": in_flight_seconds},
    )
    order_id: UUID = row.order_id
    return order_id


async def release(session: AsyncSession, request: RequestKey) -> None:
    """The request is answered: a repeat may come at once."""
    await session.exec(  # type: ignore[call-overload]
        text(
            """
            UPDATE orders.idempotency_keys SET in_flight_until = NULL
            WHERE user_id = :user_id AND method = :method AND path = :path AND key = :key
            """
        ),
        params=_key_of(request),
    )


async def forget(session: AsyncSession, request: RequestKey) -> None:
    """The request changed nothing and never will (a refusal before anything was sent): free its key."""
    await session.exec(  # type: ignore[call-overload]
        text(
            """
            DELETE FROM orders.idempotency_keys
            WHERE user_id = :user_id AND method = :method AND path = :path AND key = :key
            """
        ),
        params=_key_of(request),
    )


async def create_pending(
    session: AsyncSession,
    checkout: CheckoutInput,
    *,
    currency: str,
    shipping_address: dict[str, Any] | None,
    trace_id: str | None,
) -> Order:
    """The pending order, with the workflow's input so that it can be started later, and its first event."""
    order = Order(
        id=checkout.order_id,
        number=order_number(checkout.order_id),
        customer_id=checkout.customer_id,
        currency=currency,
        shipping_address=shipping_address,
        checkout=checkout.model_dump(mode="json"),
        trace_id=trace_id,
    )
    session.add(order)
    await session.flush()
    await events.append(
        session,
        customer_id=order.customer_id,
        order_id=order.id,
        event_key=EventType.ORDER_PLACED.value,
        type=EventType.ORDER_PLACED,
        data={
            "orderId": str(order.id),
            "type": EventType.ORDER_PLACED.value,
            "number": order.number,
            "status": str(order.status),
            "paymentStatus": str(order.payment_status),
            "needsAttention": False,
        },
    )
    return order


def _key_of(request: RequestKey) -> dict[str, Any]:
    return {"user_id": request.user_id, "method": request.method, "path": request.path, "key": request.key}
