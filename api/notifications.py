"""Notifications over HTTP: what I have been told."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from api.auth import CurrentUser
from api.deps import NotificationsSession
from api.shapes import ResponseModel
from models.errors import InvalidRequest
from models.notifications import Message
from services import notifications

router = APIRouter(tags=["notifications"])


class NotificationView(ResponseModel):
    id: UUID
    order_id: UUID
    kind: str
    channel: str
    data: dict[str, Any]
    state: str
    created_at: datetime


class NotificationPage(ResponseModel):
    """`nextCursor` null: there is no more."""

    items: list[NotificationView]
    next_cursor: str | None


@router.get("/api/notifications")
async def mine(
    user: CurrentUser,
    session: NotificationsSession,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> NotificationPage:
    """My notifications, newest first."""
    found = await notifications.of_customer(session, user.user_id, _before(cursor), limit + 1)
    return NotificationPage(
        items=[_view(message) for message in found[:limit]],
        next_cursor=str(found[limit - 1].id) if len(found) > limit else None,
    )


def _view(message: Message) -> NotificationView:
    return NotificationView(
        id=message.id,
        order_id=message.order_id,
        kind=message.kind,
        channel=message.channel,
        data=message.data,
        state=message.state,
        created_at=message.created_at,
    )


def _before(cursor: str | None) -> UUID | None:
    if not cursor:
        return None
    try:
        return UUID(cursor)
    except ValueError:
        raise InvalidRequest("This cursor was not given out here.") from None
