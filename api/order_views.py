"""An order as the shopper, or staff, sees it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth import CurrentUser
from api.deps import ResourcesDep
from api.shapes import ResponseModel
from models.errors import NotFound
from models.messages import OrderLine
from models.orders import Order
from models.types import Money, OrderStatus, PaymentStatus
from services import orders


class OrderLineView(ResponseModel):
    product_id: int
    sku: str
    name: str
    quantity: int
    unit_price: Money
    line_total: Money


class ActionRequired(ResponseModel):
    """What the shopper has to do, until when."""

    type: str
    reason: str
    url: str | None = None
    deadline: datetime | None = None


class AttentionView(ResponseModel):
    step: str
    cause: str


class OrderView(ResponseModel):
    """`orderId` repeats `id` for those who read it from any answer, an error's included. Money in minor units."""

    id: UUID
    order_id: UUID
    number: str
    status: OrderStatus
    payment_status: PaymentStatus
    needs_attention: bool
    action_required: ActionRequired | None
    lines: list[OrderLineView]
    subtotal: Money | None
    shipping_total: Money | None
    tax_total: Money | None
    total: Money | None
    shipping_address: dict[str, Any] | None
    reason: str | None
    created_at: datetime
    updated_at: datetime


class StaffOrderView(OrderView):
    """What staff see besides."""

    customer_id: UUID
    attention: AttentionView | None
    workflow_id: str
    trace_id: str | None


class OrderPage(ResponseModel):
    items: list[OrderView]
    next_cursor: str | None


class StaffOrderPage(ResponseModel):
    items: list[StaffOrderView]
    next_cursor: str | None


def order_view(order: Order, lines: Sequence[OrderLine], *, staff: bool) -> OrderView:
    """The public face of a row; never the table itself."""

    def money(amount: int | None) -> Money | None:
        return None if amount is None else Money(amount=amount, currency=order.currency)

    shared: dict[str, Any] = {
        "id": order.id,
        "order_id": order.id,
        "number": order.number,
        "status": OrderStatus(order.status),
        "payment_status": PaymentStatus(order.payment_status),
        "needs_attention": order.needs_attention,
        "action_required": ActionRequired.model_validate(order.action_required) if order.action_required else None,
        "lines": [OrderLineView.model_validate(line.model_dump()) for line in lines],
        "subtotal": money(order.subtotal_amount),
        "shipping_total": money(order.shipping_amount),
        "tax_total": money(order.tax_amount),
        "total": money(order.total_amount),
        "shipping_address": order.shipping_address,
        "reason": order.refusal["code"] if order.refusal else order.cancel_reason,
        "created_at": order.created_at,
        "updated_at": order.updated_at,
    }
    if not staff:
        return OrderView(**shared)
    return StaffOrderView(
        **shared,
        customer_id=order.customer_id,
        attention=AttentionView.model_validate(order.attention) if order.attention else None,
        workflow_id=f"checkout-{order.id}",
        trace_id=order.trace_id,
    )


async def order_views(session: AsyncSession, found: Sequence[Order], *, staff: bool) -> list[Any]:
    """Views of several orders in two queries."""
    lines = await orders.lines_of(session, [order.id for order in found]) if found else {}
    return [order_view(order, lines[order.id], staff=staff) for order in found]


async def load_order_view(session: AsyncSession, order_id: UUID, *, staff: bool) -> OrderView:
    """One order's view.

    Raises:
        NotFound: there is none.
    """
    order, lines = await orders.with_lines(session, order_id)
    return order_view(order, lines, staff=staff)


async def owned_order(session: AsyncSession, order_id: str, user_id: UUID, *, staff: bool) -> Order:
    """The order, if it may be seen: another shopper's does not exist.

    Raises:
        NotFound: unknown, not an id, or somebody else's.
    """
    try:
        order = await orders.get(session, UUID(order_id))
    except ValueError:
        raise NotFound("no such order") from None
    if order.customer_id != user_id and not staff:
        raise NotFound("no such order")
    return order


async def may_see(order_id: str, user: CurrentUser, resources: ResourcesDep) -> Order:
    """The order in the path, if the caller may see it; read in a transaction of its own."""
    async with resources.sessions[orders.SERVICE]() as session:
        return await owned_order(session, order_id, user.user_id, staff=user.role.is_staff)


SeenOrder = Annotated[Order, Depends(may_see)]
