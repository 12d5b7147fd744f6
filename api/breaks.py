"""Breaks over HTTP, for staff: what reconciliation has found wrong, and taking one upon oneself."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Query
from pydantic import Field

from api.auth import StaffUser, require_staff
from api.deps import OrdersSession
from api.routing import Router
from api.shapes import RequestModel, ResponseModel
from models.errors import InvalidRequest, NotFound
from services import breaks, orders
from services.breaks import Break

router = Router(tags=["orders"])

State = Literal["open", "repaired", "resolved"]


class BreakView(ResponseModel):
    """`subject` is an order's, intent's or event's id; `says` a sentence; closed by `reconciliation` or by staff."""

    id: int
    kind: str
    subject: str
    order_id: UUID | None
    says: str
    state: State
    first_seen_at: datetime
    last_seen_at: datetime
    times_seen: int
    closed_at: datetime | None
    closed_by: str | None
    reason: str | None


class BreakPage(ResponseModel):
    items: list[BreakView]
    next_cursor: str | None


class ResolveBreak(RequestModel):
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


@router.get("/api/orders/breaks", dependencies=[Depends(require_staff)])
async def listed(
    session: OrdersSession,
    state: State | None = None,
    kind: Annotated[str | None, Query(max_length=50)] = None,
    order: Annotated[UUID | None, Query(description="Only of this order")] = None,
    cursor: Annotated[str | None, Query(max_length=20, description="`nextCursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> BreakPage:
    """Staff: what reconciliation has found, newest first."""
    found = await breaks.listed(
        session, state=state, kind=kind, order_id=order, before=_before(cursor), limit=limit + 1
    )
    following = str(found[limit - 1].id) if len(found) > limit else None
    return BreakPage(items=[_view(one) for one in found[:limit]], next_cursor=following)


@router.post("/api/orders/breaks/{break_id}/resolve")
async def resolve(user: StaffUser, break_id: str, session: OrdersSession, body: ResolveBreak) -> BreakView:
    """Staff: it may stay so, for this reason. Audited; reconciliation does not open it again."""
    if not break_id.isascii() or not break_id.isdecimal() or len(break_id) > 18:
        raise NotFound("There is no such break.")
    closed = await breaks.resolve(session, int(break_id), f"{user.role}:{user.user_id}", body.reason)
    if closed.order_id is not None:
        with suppress(NotFound):  # of an order that never was there is no row
            await orders.clear_attention(session, closed.order_id, only=breaks.RECONCILIATION)
    return _view(closed)


def _before(cursor: str | None) -> int | None:
    if not cursor:
        return None
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 18:
        raise InvalidRequest("this cursor was not given out here", code="validation_error")
    return int(cursor)


def _view(one: Break) -> BreakView:
    shown: dict[str, Any] = {name: getattr(one, name) for name in BreakView.model_fields if name != "says"}
    return BreakView(**shown, says=str(one.detail.get("says", "")))
