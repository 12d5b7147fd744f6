"""Orders: the read model and its only transitions. Each change of a row and its event are one transaction."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import NotFound
from models.messages import OrderLine, Refusal
from models.orders import AuditEntry, Order, OrderLineRow
from models.types import EventType, Money, OrderStatus, PaymentStatus, Service
from services import events

SERVICE = Service.ORDERS
OPEN = (OrderStatus.PENDING, OrderStatus.ACTION_REQUIRED)

ENDINGS = {
    OrderStatus.REJECTED: EventType.ORDER_REJECTED,
    OrderStatus.EXPIRED: EventType.ORDER_EXPIRED,
    OrderStatus.CANCELLED: EventType.ORDER_CANCELLED,
}


async def get(session: AsyncSession, order_id: UUID) -> Order:
    """The order's row.

    Raises:
        NotFound: there is none.
    """
    order = await session.get(Order, order_id)
    if order is None:
        raise NotFound("no such order")
    return order


async def lines_of(session: AsyncSession, order_ids: Sequence[UUID]) -> dict[UUID, list[OrderLine]]:
    """The lines of several orders in one query, in the cart's order."""
    rows = await session.exec(
        select(OrderLineRow)
        .where(col(OrderLineRow.order_id).in_(order_ids))
        .order_by(col(OrderLineRow.order_id), col(OrderLineRow.position))
    )
    currencies = dict((await session.exec(select(Order.id, Order.currency).where(col(Order.id).in_(order_ids)))).all())
    found: dict[UUID, list[OrderLine]] = {order_id: [] for order_id in order_ids}
    for row in rows:
        currency = currencies[row.order_id]
        found[row.order_id].append(
            OrderLine(
                product_id=row.product_id,
                sku=row.sku,
                name=row.name,
                quantity=row.quantity,
                unit_price=Money(amount=row.unit_amount, currency=currency),
                line_total=Money(amount=row.line_amount, currency=currency),
            )
        )
    return found


async def write_prepared(
    session: AsyncSession, order_id: UUID, lines: Sequence[OrderLine], *, shipping: Money, tax: Money
) -> Money:
    """Write what the order buys, once; a repeat keeps what stands. Returns the total in minor units."""
    order = await _locked(session, order_id)
    if order.total_amount is None:
        subtotal = sum(line.line_total.amount for line in lines)
        order.subtotal_amount, order.shipping_amount, order.tax_amount = subtotal, shipping.amount, tax.amount
        order.total_amount = subtotal + shipping.amount + tax.amount
        session.add(order)
        session.add_all(
            OrderLineRow(
                order_id=order_id,
                product_id=line.product_id,
                position=position,
                sku=line.sku,
                name=line.name,
                quantity=line.quantity,
                unit_amount=line.unit_price.amount,
                line_amount=line.line_total.amount,
            )
            for position, line in enumerate(lines)
        )
        await session.flush()
    return Money(amount=order.total_amount, currency=order.currency)


async def record_reserved(session: AsyncSession, order_id: UUID, expires_at: datetime) -> Order:
    """The stock is held until `expires_at`."""
    return await _change(
        session, order_id, EventType.ORDER_RESERVED, allowed=OPEN, data={"expiresAt": expires_at.isoformat()}
    )


async def record_authorized(session: AsyncSession, order_id: UUID, amount: Money) -> Order:
    """Money is held; an order that waited for another card goes on."""
    return await _change(
        session,
        order_id,
        EventType.PAYMENT_AUTHORIZED,
        allowed=OPEN,
        values={"payment_status": PaymentStatus.AUTHORIZED, "status": OrderStatus.PENDING, "action_required": None},
        data={"amount": amount.model_dump()},
    )


async def record_declined(
    session: AsyncSession, order_id: UUID, attempt: int, code: str, deadline: datetime | None
) -> Order:
    """The card was declined for certain: the order waits until `deadline` for another one."""
    action = {
        "type": "payment_method",
        "reason": code,
        "deadline": deadline.isoformat() if deadline else None,
    }
    return await _change(
        session,
        order_id,
        EventType.PAYMENT_DECLINED,
        key=f"payment.declined:{attempt}",
        allowed=OPEN,
        late_after=(PaymentStatus.AUTHORIZED,),
        values={
            "payment_status": PaymentStatus.DECLINED,
            "status": OrderStatus.ACTION_REQUIRED,
            "action_required": action,
        },
        data={"declineCode": code, "attempt": attempt, "actionRequired": action},
    )


async def record_payment_unknown(session: AsyncSession, order_id: UUID, attempt: int) -> Order:
    """The processor did not say what happened. Never a decline: it is asked until it says."""
    return await _change(
        session,
        order_id,
        EventType.PAYMENT_UNKNOWN,
        key=f"payment.unknown:{attempt}",
        allowed=OPEN,
        late_after=(PaymentStatus.AUTHORIZED,),
        values={"payment_status": PaymentStatus.UNKNOWN, "status": OrderStatus.PENDING, "action_required": None},
        data={"attempt": attempt},
    )


async def confirm(session: AsyncSession, order_id: UUID) -> Order:
    """The point of no return: the stock is sold."""
    return await _change(
        session,
        order_id,
        EventType.ORDER_CONFIRMED,
        allowed=OPEN,
        values={"status": OrderStatus.CONFIRMED, "action_required": None},
    )


async def record_captured(session: AsyncSession, order_id: UUID, amount: Money) -> Order:
    """The money is ours."""
    return await _change(
        session,
        order_id,
        EventType.PAYMENT_CAPTURED,
        allowed=(OrderStatus.CONFIRMED,),
        values={"payment_status": PaymentStatus.CAPTURED},
        data={"amount": amount.model_dump()},
    )


async def record_voided(session: AsyncSession, order_id: UUID) -> Order:
    """The money held was given back."""
    return await _change(
        session, order_id, EventType.PAYMENT_VOIDED, allowed=OPEN, values={"payment_status": PaymentStatus.VOIDED}
    )


async def end(
    session: AsyncSession,
    order_id: UUID,
    status: OrderStatus,
    *,
    refusal: Refusal | None = None,
    actor: str = "",
    reason: str = "",
) -> Order:
    """Reject, expire or cancel an open order; an order that was sold or has ended stays as it is."""
    was_open = (await _locked(session, order_id)).status in OPEN
    order = await _change(
        session,
        order_id,
        ENDINGS[status],
        allowed=OPEN,
        values={
            "status": status,
            "action_required": None,
            "refusal": refusal.model_dump(mode="json") if refusal else None,
            "cancel_reason": reason or None,
            "needs_attention": False,
            "attention": None,
        },
        data={"code": refusal.code, "detail": refusal.detail} if refusal else {"reason": reason} if reason else None,
    )
    if actor and was_open:
        await audit(session, order_id, actor, status.value, reason)
    return order


async def mark_attention(session: AsyncSession, order_id: UUID, step: str, cause: str) -> Order:
    """`step` stands still; staff see step and cause, the shopper only that somebody looks after it."""
    return await _change_attention(session, order_id, {"step": step, "cause": cause})


async def clear_attention(session: AsyncSession, order_id: UUID) -> Order:
    """All steps move again."""
    return await _change_attention(session, order_id, None)


async def audit(session: AsyncSession, order_id: UUID, actor: str, action: str, reason: str) -> None:
    """Who did what to an order, and why."""
    session.add(AuditEntry(order_id=order_id, actor=actor, action=action, reason=reason))
    await session.flush()


async def _locked(session: AsyncSession, order_id: UUID) -> Order:
    """The row, locked until the transaction ends. Rows are locked order first, then the customer's counter."""
    row = await session.exec(select(Order).where(Order.id == order_id).with_for_update())
    order = row.one_or_none()
    if order is None:
        raise NotFound("no such order")
    return order


async def _change(
    session: AsyncSession,
    order_id: UUID,
    event: EventType,
    *,
    allowed: Collection[OrderStatus],
    late_after: Collection[PaymentStatus] = (),
    values: Mapping[str, Any] | None = None,
    key: str = "",
    data: Mapping[str, Any] | None = None,
) -> Order:
    """The single place that moves an order: from an allowed status only, once for each event key.

    A change that comes late (the order has moved on) or twice leaves everything as it is and returns the row.
    """
    order = await _locked(session, order_id)
    if order.status not in allowed or order.payment_status in late_after:
        return order
    new = dict(values or {})
    seq = await _tell(session, order, event, key or event.value, new, data or {})
    if seq is None:
        return order
    await _write(session, order, new)
    return order


async def _change_attention(session: AsyncSession, order_id: UUID, attention: dict[str, str] | None) -> Order:
    order = await _locked(session, order_id)
    if order.attention == attention or OrderStatus(order.status).is_ended:
        return order
    event = EventType.ORDER_NEEDS_ATTENTION if attention else EventType.ORDER_ATTENTION_CLEARED
    told = (attention or {}).get("step", "")
    values = {"needs_attention": attention is not None, "attention": attention}
    # The state condition above is the guard against repeats; the key must differ each time attention comes and goes.
    number = await events.count_of_order(session, order_id)
    await _tell(session, order, event, f"{event.value}:{told}:{number}", values, {"step": told} if told else {})
    await _write(session, order, values)
    return order


async def _tell(
    session: AsyncSession, order: Order, event: EventType, key: str, new: Mapping[str, Any], data: Mapping[str, Any]
) -> int | None:
    return await events.append(
        session,
        customer_id=order.customer_id,
        order_id=order.id,
        event_key=key,
        type=event,
        data={
            "orderId": str(order.id),
            "type": event.value,
            "number": order.number,
            "status": str(new.get("status", order.status)),
            "paymentStatus": str(new.get("payment_status", order.payment_status)),
            "needsAttention": bool(new.get("needs_attention", order.needs_attention)),
            **data,
        },
    )


async def _write(session: AsyncSession, order: Order, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(order, name, value)
    order.updated_at = func.now()  # type: ignore[assignment]
    session.add(order)
    await session.flush()
