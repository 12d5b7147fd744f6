"""Writes breaks down, counts them, and marks the orders that wait because of one."""

from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from loguru import logger
from prometheus_client import Counter

from activities.recorder import OrderRecorder
from models.errors import NotFound
from models.orders import Order
from services import breaks, orders

FOUND = Counter("mercato_breaks_found_total", "Breaks found by reconciliation, each once", ("kind",))


@dataclass(frozen=True)
class BreakBook:
    """Under the orders service's role."""

    recorder: OrderRecorder

    async def open(self, kind: str, subject: str, order: Order | UUID | None, says: str) -> breaks.Seen | None:
        """Found, and not mended yet; an open order is marked, so that staff see it there, too. None: resolved."""
        order_id = order.id if isinstance(order, Order) else order
        async with self.recorder.sessions() as session:
            seen = await breaks.found(session, kind, subject, order_id, says=says)
        if seen is None:
            return None
        if seen.is_new:
            self._say(kind, subject, order_id, says)
        if isinstance(order, Order) and order.status in orders.OPEN and not order.needs_attention:
            await self.recorder.record(
                lambda session: orders.mark_attention(session, order.id, breaks.RECONCILIATION, says)
            )
        return seen

    async def close(self, kind: str, subject: str, order_id: UUID | None, how: str) -> None:
        """It is no longer so."""
        async with self.recorder.sessions() as session:
            closed = await breaks.repaired(session, kind, subject, how)
        if not closed or order_id is None:
            return
        with suppress(NotFound):  # of an order that never was there is no row
            await self.recorder.record(
                lambda session: orders.clear_attention(session, order_id, only=breaks.RECONCILIATION)
            )

    async def mended(self, kind: str, subject: str, order_id: UUID | None, says: str, how: str) -> None:
        """Found and mended in one go: the row tells that it has been."""
        async with self.recorder.sessions() as session:
            seen = await breaks.found(session, kind, subject, order_id, says=says)
            await breaks.repaired(session, kind, subject, how)
        if seen is not None:
            self._say(kind, subject, order_id, f"{says}: {how}")

    def _say(self, kind: str, subject: str, order_id: UUID | None, says: str) -> None:
        FOUND.labels(kind).inc()
        with logger.contextualize(order_id=str(order_id) if order_id else None):
            logger.warning("Break {kind} of {subject}: {says}", kind=kind, subject=subject, says=says)
