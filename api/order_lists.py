"""Reading orders over HTTP: a shopper's own, staff's search, one order. Works with Temporal and all workers down."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from pydantic import AfterValidator

from api.auth import CurrentUser, require_staff
from api.deps import OrdersSession, ResourcesDep
from api.order_views import OrderPage, SeenOrder, StaffOrderPage, load_order_view, order_views
from api.routing import Router
from api.shapes import Moment
from models.errors import InvalidRequest
from models.orders import Order
from models.types import OrderStatus, PaymentStatus, normalize_order_number
from services import order_lists
from services.order_lists import OrderFilter

router = Router(tags=["orders"])


def _customer(text: str) -> str:
    text = text.strip()
    if "@" not in text:
        try:
            UUID(text)
        except ValueError:
            raise ValueError("neither a customer's id nor an e-mail address") from None
    return text


Cursor = Annotated[str | None, Query(max_length=64, description="`nextCursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=100)]
Statuses = Annotated[list[OrderStatus] | None, Query(description="One of these: may be given several times")]
PaymentStatuses = Annotated[list[PaymentStatus] | None, Query(alias="paymentStatus", description="As `status`")]
Customer = Annotated[
    str,
    Query(max_length=320, description="Id or e-mail address; an unknown one has no orders"),
    AfterValidator(_customer),
]
Number = Annotated[
    str | None,
    Query(max_length=200, description="As people type it, whole or from its first 4 characters: `#t9qon v2`"),
]
PlacedAfter = Annotated[Moment | None, Query(alias="placedAfter", description="Then or later; without a zone UTC")]
PlacedBefore = Annotated[Moment | None, Query(alias="placedBefore", description="Earlier than then")]


@router.get("/api/orders/history", response_model=OrderPage)
async def history(user: CurrentUser, session: OrdersSession, cursor: Cursor = None, limit: Limit = 20) -> OrderPage:
    """My orders, newest first. Works with Temporal and all workers down."""
    found = await order_lists.history(session, user.user_id, _before(cursor), limit + 1)
    return OrderPage(
        items=await order_views(session, found[:limit], staff=False), next_cursor=_next_cursor(found, limit)
    )


@router.get("/api/orders", response_model=StaffOrderPage, dependencies=[Depends(require_staff)])
async def search(
    resources: ResourcesDep,
    session: OrdersSession,
    status: Statuses = None,
    payment_status: PaymentStatuses = None,
    needs_attention: Annotated[bool | None, Query(alias="needsAttention")] = None,
    customer: Customer | None = None,
    number: Number = None,
    placed_after: PlacedAfter = None,
    placed_before: PlacedBefore = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> StaffOrderPage:
    """Staff: the orders that fit every filter, newest first. What can be no number or nobody's address fits none."""
    before = _before(cursor)
    beginning = normalize_order_number(number) if number else None
    customer_id = await _customer_id(resources, customer) if customer else None
    if (number and not beginning) or (customer and not customer_id):
        return StaffOrderPage(items=[], next_cursor=None)
    wanted = OrderFilter(
        statuses=status or (),
        payment_statuses=payment_status or (),
        needs_attention=needs_attention,
        customer_id=customer_id,
        number=beginning,
        placed_after=placed_after,
        placed_before=placed_before,
    )
    found = await order_lists.search(session, wanted, before, limit + 1)
    return StaffOrderPage(
        items=await order_views(session, found[:limit], staff=True), next_cursor=_next_cursor(found, limit)
    )


@router.get("/api/orders/{order_id}", response_model=None)
async def read(user: CurrentUser, order: SeenOrder, session: OrdersSession) -> Any:
    """One order; staff see step and cause of what stands still."""
    return await load_order_view(session, order.id, staff=user.role.is_staff)


async def _customer_id(resources: ResourcesDep, customer: str) -> UUID | None:
    return await resources.users.user_id_of(customer) if "@" in customer else UUID(customer)


def _before(cursor: str | None) -> UUID | None:
    if not cursor:
        return None
    try:
        return UUID(cursor)
    except ValueError:
        raise InvalidRequest("this cursor was not given out here", code="validation_error") from None


def _next_cursor(found: list[Order], limit: int) -> str | None:
    return str(found[limit - 1].id) if len(found) > limit else None
