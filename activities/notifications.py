"""Temporal's face of the notifications service."""

from dataclasses import dataclass
from uuid import UUID

from temporalio import activity

from core.db import Sessions
from models.messages import QueueConfirmation
from models.types import OrderStatus
from services import notifications, orders


@dataclass(frozen=True)
class NotificationActivities:
    sessions: Sessions
    orders: Sessions

    @activity.defn(name="notify")
    async def queue_confirmation(self, request: QueueConfirmation) -> bool:
        """Queue one confirmation e-mail for the order; False when it was queued before, or the order is being cancelled
        by now: a step that was held up may be carried out after that."""
        if _was_held_up() and await self._is_cancelled(request.order_id):
            return False
        async with self.sessions() as session:
            return await notifications.queue(
                session,
                order_id=request.order_id,
                customer_id=request.customer_id,
                kind="order.confirmed",
                channel="email",
                data={"number": request.number, "total": request.total.model_dump()},
            )

    async def _is_cancelled(self, order_id: UUID) -> bool:
        async with self.orders() as session:
            order = await orders.get(session, order_id)
        return order.status == OrderStatus.CANCELLED or order.cancel_requested is not None


def _was_held_up() -> bool:
    """Whether this is not the first attempt of the fast path, which follows the sale at once."""
    info = activity.info()
    return info.attempt > 1 or not info.is_local
