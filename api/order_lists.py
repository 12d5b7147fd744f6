"""Reading orders over HTTP: a shopper's own, staff's search, one order. Works with Temporal and all workers down."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query

from api.auth import CurrentUser, require_staff
from api.deps import OrdersSession
from api.order_views import OrderPage, SeenOrder, StaffOrderPage, load_order_view, order_views
from api.routing import Router
from models.errors import InvalidRequest
from models.orders import Order
from models.types import OrderStatus
from services import orders

router = Router(tags=["orders"])


@router.get("/api/orders/history", response_model=OrderPage)
async def history(
    user: CurrentUser,
    session: OrdersSession,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> OrderPage:
    """My orders, newest first. Works with Temporal and all workers down."""
    found = await orders.history(session, user.user_id, _cursor(cursor), limit + 1)
    return OrderPage(
        items=await order_views(session, found[:limit], staff=False), next_cursor=_next_cursor(found, limit)
    )


@router.get("/api/orders", response_model=StaffOrderPage, dependencies=[Depends(require_staff)])
async def search(
    session: OrdersSession,
    status: OrderStatus | None = None,
    needs_attention: Annotated[bool | None, Query(alias="needsAttention")] = None,
    customer: UUID | None = None,
    number: Annotated[str | None, Query(max_length=20)] = None,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> StaffOrderPage:
    """Staff: find orders by status, attention, customer or number, newest first."""
    found = await orders.search(
        session,
        status=status,
        needs_attention=needs_attention,
        customer_id=customer,
        number=number,
        before=_cursor(cursor),
        limit=limit + 1,
    )
    return StaffOrderPage(
        items=await order_views(session, found[:limit], staff=True), next_cursor=_next_cursor(found, limit)
    )


@router.get("/api/orders/{order_id}", response_model=None)
async def read(user: CurrentUser, order: SeenOrder, session: OrdersSession) -> Any:
    """One order; staff see step and cause of what stands still."""
    return await load_order_view(session, order.id, staff=user.role.is_staff)


def _cursor(cursor: str | None) -> UUID | None:
    if not cursor:
        return None
    try:
        return UUID(cursor)
    except ValueError:
        raise InvalidRequest("this cursor was not given out here", code="validation_error") from None


def _next_cursor(found: list[Order], limit: int) -> str | None:
    return str(found[limit - 1].id) if len(found) > limit else None
