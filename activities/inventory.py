"""Temporal's face of inventory."""

from dataclasses import dataclass

from temporalio import activity

from activities.recorder import OrderRecorder
from core.db import Sessions
from models.messages import OrderRef, ProlongReservation, Reservation, ReserveStock
from models.types import ReservationState
from services import inventory, orders


@dataclass(frozen=True)
class InventoryActivities:
    sessions: Sessions
    recorder: OrderRecorder

    @activity.defn
    async def reserve(self, request: ReserveStock) -> Reservation:
        """Hold every line or none, then tell the customer."""
        async with self.sessions() as session:
            reservation = await inventory.reserve(session, request.order_id, request.quantities, request.ttl_seconds)
        expires_at = reservation.expires_at
        if reservation.state is ReservationState.ACTIVE and expires_at is not None:
            await self.recorder.record(lambda session: orders.record_reserved(session, request.order_id, expires_at))
        return reservation

    @activity.defn
    async def prolong(self, request: ProlongReservation) -> Reservation:
        """Push the expiry away while the checkout is still at work."""
        async with self.sessions() as session:
            return await inventory.prolong(session, request.order_id, request.ttl_seconds)

    @activity.defn
    async def release(self, request: OrderRef) -> ReservationState:
        """Give the stock back; a reservation that comes later holds nothing."""
        async with self.sessions() as session:
            return await inventory.release(session, request.order_id)

    @activity.defn
    async def restock(self, request: OrderRef) -> ReservationState | None:
        """Put what was sold back on the shelf."""
        async with self.sessions() as session:
            return await inventory.restock(session, request.order_id)
