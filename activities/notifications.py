"""Temporal's face of the notifications service."""

from dataclasses import dataclass

from temporalio import activity

from core.db import Sessions
from models.messages import QueueConfirmation
from services import notifications


@dataclass(frozen=True)
class NotificationActivities:
    sessions: Sessions

    @activity.defn(name="notify")
    async def queue_confirmation(self, request: QueueConfirmation) -> bool:
        """Queue one confirmation e-mail for the order; False when it was queued before."""
        async with self.sessions() as session:
            return await notifications.queue(
                session,
                order_id=request.order_id,
                customer_id=request.customer_id,
                kind="order.confirmed",
                channel="email",
                data={"number": request.number, "total": request.total.model_dump()},
            )
