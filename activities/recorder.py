"""The second half of a step: what happened, told to the orders service, and a hint to the streams that listen."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions
from core.events import publish_hint
from models.orders import Order


@dataclass(frozen=True)
class OrderRecorder:
    """One change of one order, a single statement, under the orders service's role."""

    sessions: Sessions
    redis: Redis

    async def record(self, change: Callable[[AsyncSession], Awaitable[Order]]) -> Order:
        """Run `change`, then hint that the customer has news. Returns the order as it stands."""
        async with self.sessions() as session:
            order = await change(session)
        await publish_hint(self.redis, order.customer_id)
        return order
