"""Orders: the read model and its only transitions. Each change of a row and its event are one transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import RowMapping, column, insert, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import NotFound
from models.messages import OrderLine, Refusal
from models.orders import AuditEntry, Order, OrderLineRow
from models.types import EventType, Money, OrderStatus, PaymentStatus, Service
from services.order_changes import COLUMNS, attend, columns_of, move

SERVICE = Service.ORDERS
OPEN = (OrderStatus.PENDING, OrderStatus.ACTION_REQUIRED)

# What the processor says of a card changes nothing once another one holds the money, or all has been given back.
ANSWERED = (PaymentStatus.AUTHORIZED, PaymentStatus.VOIDED)

# What a payment that the row says is held, or in doubt, turns out to be when the order ends.
NOTHING_HELD = {PaymentStatus.UNKNOWN: PaymentStatus.VOIDED, PaymentStatus.AUTHORIZED: PaymentStatus.VOIDED}

ENDINGS = {
    OrderStatus.REJECTED: EventType.ORDER_REJECTED,
    OrderStatus.EXPIRED: EventType.ORDER_EXPIRED,
    OrderStatus.CANCELLED: EventType.ORDER_CANCELLED,
}


# One order with its lines, in one round trip; READ needs `o`, the order's row, in FROM.
READ = f"""SELECT {columns_of("o")}, (
    SELECT jsonb_agg(to_jsonb(l) ORDER BY l.position) FROM orders.order_lines l WHERE l.order_id = o.id
) AS lines"""
READ_COLUMNS = (*COLUMNS, column("lines", JSONB))
_WITH_LINES = text(f"{READ} FROM orders.orders o WHERE o.id = :order_id").columns(*READ_COLUMNS)

_WRITE_PREPARED = text("""
    WITH prepared AS (
        UPDATE orders.orders SET
            subtotal_amount = :subtotal, shipping_amount = :shipping, tax_amount = :tax,
            total_amount = CAST(:subtotal AS bigint) + :shipping + :tax, updated_at = now()
        WHERE id = :order_id AND total_amount IS NULL RETURNING id, total_amount, currency
    ), lines AS (
        INSERT INTO orders.order_lines (
            order_id, product_id, position, sku, name, quantity, unit_amount, line_amount
        )
        SELECT prepared.id, w.product_id, w.nth - 1, w.sku, w.name, w.quantity, w.unit_amount, w.line_amount
        FROM prepared, unnest(
            CAST(:products AS bigint[]), CAST(:skus AS text[]), CAST(:names AS text[]), CAST(:quantities AS integer[]),
            CAST(:unit_amounts AS bigint[]), CAST(:line_amounts AS bigint[])
        ) WITH ORDINALITY AS w (product_id, sku, name, quantity, unit_amount, line_amount, nth)
    )
    SELECT total_amount, currency FROM prepared
""")


async def get(session: AsyncSession, order_id: UUID) -> Order:
    """The order's row.

    Raises:
        NotFound: there is none.
    """
    order = await session.get(Order, order_id)
    if order is None:
        raise NotFound("no such order")
    return order


async def with_lines(session: AsyncSession, order_id: UUID) -> tuple[Order, list[OrderLine]]:
    """The order's row and its lines, in the cart's order; no lines before they are written.

    Raises:
        NotFound: there is none.
    """
    row = (await (await session.connection()).execute(_WITH_LINES, {"order_id": order_id})).mappings().first()
    if row is None:
        raise NotFound("no such order")
    return read_row(row)


def read_row(row: RowMapping) -> tuple[Order, list[OrderLine]]:
    """What READ selects."""
    columns = dict(row)
    lines = columns.pop("lines") or []
    order = Order(**columns)
    return order, [
        OrderLine(
            product_id=line["product_id"],
            sku=line["sku"],
            name=line["name"],
            quantity=line["quantity"],
            unit_price=Money(amount=line["unit_amount"], currency=order.currency),
            line_total=Money(amount=line["line_amount"], currency=order.currency),
        )
        for line in lines
    ]


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
    """Write what the order buys, once; a repeat keeps what stands. Returns the total in minor units.

    Raises:
        NotFound: there is no such order.
    """
    parameters = {
        "order_id": order_id,
        "subtotal": sum(line.line_total.amount for line in lines),
        "shipping": shipping.amount,
        "tax": tax.amount,
        "products": [line.product_id for line in lines],
        "skus": [line.sku for line in lines],
        "names": [line.name for line in lines],
        "quantities": [line.quantity for line in lines],
        "unit_amounts": [line.unit_price.amount for line in lines],
        "line_amounts": [line.line_total.amount for line in lines],
    }
    connection = await session.connection()
    row = (await connection.execute(_WRITE_PREPARED, parameters)).first()
    if row is None:  # it had been written before, and nothing was changed
        order = await get(session, order_id)
        return Money(amount=order.total_amount or 0, currency=order.currency)
    return Money(amount=row.total_amount, currency=row.currency)


async def record_reserved(session: AsyncSession, order_id: UUID, expires_at: datetime) -> Order:
    """The stock is held until `expires_at`."""
    return await move(
        session, order_id, EventType.ORDER_RESERVED, allowed=OPEN, data={"expiresAt": expires_at.isoformat()}
    )


async def record_authorized(session: AsyncSession, order_id: UUID, amount: Money) -> Order:
    """Money is held; an order that waited for another card goes on."""
    return await move(
        session,
        order_id,
        EventType.PAYMENT_AUTHORIZED,
        allowed=OPEN,
        late_after=(PaymentStatus.VOIDED,),
        changes={"payment_status": PaymentStatus.AUTHORIZED, "status": OrderStatus.PENDING, "action_required": None},
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
    return await move(
        session,
        order_id,
        EventType.PAYMENT_DECLINED,
        key=f"payment.declined:{attempt}",
        allowed=OPEN,
        late_after=ANSWERED,
        late_beyond=(attempt, True),
        changes={
            "payment_status": PaymentStatus.DECLINED,
            "status": OrderStatus.ACTION_REQUIRED,
            "action_required": {**action, "attempt": attempt},
        },
        data={"declineCode": code, "attempt": attempt, "actionRequired": action},
    )


async def record_action_required(
    session: AsyncSession, order_id: UUID, attempt: int, url: str, deadline: datetime | None
) -> Order:
    """The card's bank wants to see the shopper, at `url` and before `deadline`."""
    action = {
        "type": "redirect",
        "reason": "authentication_required",
        "url": url,
        "deadline": deadline.isoformat() if deadline else None,
    }
    return await move(
        session,
        order_id,
        EventType.PAYMENT_ACTION_REQUIRED,
        key=f"payment.action_required:{attempt}",
        allowed=OPEN,
        late_after=ANSWERED,
        late_beyond=(attempt, False),
        changes={
            "payment_status": PaymentStatus.NONE,
            "status": OrderStatus.ACTION_REQUIRED,
            "action_required": {**action, "attempt": attempt},
        },
        data={"attempt": attempt, "actionRequired": action},
    )


async def record_payment_unknown(session: AsyncSession, order_id: UUID, attempt: int) -> Order:
    """The processor did not say what happened. Never a decline: it is asked until it says.

    It is no news where the row says more of this card already. While the shopper is with the card's bank, what is not
    known is what the shopper has done there.
    """
    return await move(
        session,
        order_id,
        EventType.PAYMENT_UNKNOWN,
        key=f"payment.unknown:{attempt}",
        allowed=OPEN,
        late_after=ANSWERED,
        late_beyond=(attempt - 1, True),
        changes={"payment_status": PaymentStatus.UNKNOWN, "status": OrderStatus.PENDING, "action_required": None},
        data={"attempt": attempt},
    )


async def confirm(session: AsyncSession, order_id: UUID) -> Order:
    """The point of no return: the stock is sold."""
    return await move(
        session,
        order_id,
        EventType.ORDER_CONFIRMED,
        allowed=OPEN,
        changes={"status": OrderStatus.CONFIRMED, "action_required": None},
    )


async def record_captured(session: AsyncSession, order_id: UUID, amount: Money) -> Order:
    """The money is ours."""
    return await move(
        session,
        order_id,
        EventType.PAYMENT_CAPTURED,
        allowed=(OrderStatus.CONFIRMED,),
        late_after=(PaymentStatus.REFUNDED,),
        changes={"payment_status": PaymentStatus.CAPTURED},
        data={"amount": amount.model_dump()},
    )


async def record_voided(session: AsyncSession, order_id: UUID) -> Order:
    """The money held was given back."""
    return await move(
        session, order_id, EventType.PAYMENT_VOIDED, allowed=OPEN, changes={"payment_status": PaymentStatus.VOIDED}
    )


async def record_refunded(session: AsyncSession, order_id: UUID, amount: Money) -> Order:
    """The money was given back to whoever paid."""
    return await move(
        session,
        order_id,
        EventType.PAYMENT_REFUNDED,
        allowed=(OrderStatus.CONFIRMED,),
        changes={"payment_status": PaymentStatus.REFUNDED},
        data={"amount": amount.model_dump()},
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
    """Reject, expire or cancel an open order; an order that was sold or has ended stays as it is.

    Nothing is held for it by now. A doubt about its payment ends with it: it was about a card that was never tried, or
    it, and a hold too, was told late.
    """
    data = {"code": refusal.code, "detail": refusal.detail} if refusal else {"reason": reason} if reason else None
    return await move(
        session,
        order_id,
        ENDINGS[status],
        allowed=OPEN,
        changes={
            "status": status,
            "action_required": None,
            "refusal": refusal.model_dump(mode="json") if refusal else None,
            "cancel_reason": reason or None,
            "needs_attention": False,
            "attention": None,
        },
        payment=NOTHING_HELD,
        data=data,
        actor=actor,
        reason=reason,
    )


async def request_cancel(session: AsyncSession, order_id: UUID, actor: str, reason: str) -> Order:
    """Write down, once, that the order is to be cancelled, before anything is given back; audited.

    Of an open order too, when nobody takes the wish in time: should it be sold meanwhile, it is cancelled after that.
    """
    return await move(
        session,
        order_id,
        EventType.ORDER_CANCEL_REQUESTED,
        allowed=(*OPEN, OrderStatus.CONFIRMED),
        changes={"cancel_requested": {"actor": actor, "reason": reason}},
        data={"reason": reason},
        actor=actor,
        reason=reason,
    )


async def cancel_sold(session: AsyncSession, order_id: UUID, reason: str) -> Order:
    """The end of a sold order whose money and stock are given back, and whose cancel was requested.

    What was only held has lapsed by now: else it would have been taken, and refunded.
    """
    return await move(
        session,
        order_id,
        EventType.ORDER_CANCELLED,
        allowed=(OrderStatus.CONFIRMED,),
        changes={
            "status": OrderStatus.CANCELLED,
            "cancel_reason": reason or None,
            "needs_attention": False,
            "attention": None,
        },
        payment=NOTHING_HELD,
        data={"reason": reason},
    )


async def mark_attention(session: AsyncSession, order_id: UUID, step: str, cause: str) -> Order:
    """`step` stands still; staff see step and cause, the shopper only that somebody looks after it."""
    return await attend(session, order_id, EventType.ORDER_NEEDS_ATTENTION, {"step": step, "cause": cause}, told=step)


async def clear_attention(session: AsyncSession, order_id: UUID, *, only: str = "") -> Order:
    """All steps move again; or `only` this one does, if it is the one that stood still."""
    return await attend(session, order_id, EventType.ORDER_ATTENTION_CLEARED, None, told="", only=only)


async def audit(session: AsyncSession, order_id: UUID, actor: str, action: str, reason: str) -> None:
    """Who did what to an order, and why."""
    await (await session.connection()).execute(
        insert(AuditEntry).values(order_id=order_id, actor=actor, action=action, reason=reason)
    )
