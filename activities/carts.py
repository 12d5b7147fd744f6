"""Temporal's face of the carts service."""

from dataclasses import dataclass

from temporalio import activity

from core.db import Sessions
from models.messages import OrderRef
from services import claims


@dataclass(frozen=True)
class CartActivities:
    sessions: Sessions

    @activity.defn(name="clear_cart")
    async def clear(self, request: OrderRef) -> None:
        """Remove what was bought, keep what was added since."""
        async with self.sessions() as session:
            await claims.consume_claim(session, request.order_id)
