"""The activities on real databases, and orders brought to where a test wants them, each by its own service."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from redis.asyncio import Redis
from sqlalchemy import text

from activities.orders import OrderActivities
from activities.recorder import OrderRecorder
from core.db import Sessions
from models.carts import CartOwner
from models.messages import CheckoutInput, ClaimedCart, PreparedOrder, PrepareOrder
from models.orders import Order
from models.types import Service, uuid7
from services import carts, claims, orders, pricing
from tests import order_log
from tests.warehouse import Warehouse

RATES = pricing.Rates(currency="EUR", shipping_flat_amount=0, shipping_free_from_amount=0, tax_basis_points=0)


@dataclass(frozen=True)
class Desk:
    sessions: dict[Service, Sessions]
    redis: Redis
    payments_url: str = ""

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.sessions[Service.CATALOG])

    @property
    def recorder(self) -> OrderRecorder:
        return OrderRecorder(self.sessions[Service.ORDERS], self.redis)

    @property
    def orders(self) -> OrderActivities:
        return OrderActivities(self.recorder, self.sessions[Service.CARTS], self.sessions[Service.CATALOG], RATES)

    async def placed(self, **changes: Any) -> CheckoutInput:
        """An order as the API leaves it: pending, no checkout started."""
        values = {"order_id": uuid7(), "customer_id": uuid4(), "payment_method_id": "pm_card_visa", **changes}
        checkout = CheckoutInput(**values)
        async with self.sessions[Service.ORDERS].begin() as session:
            await order_log.place(session, checkout)
        return checkout

    async def add_to_cart(self, checkout: CheckoutInput, product: int, quantity: int = 1) -> None:
        async with self.sessions[Service.CARTS].begin() as session:
            await carts.add(session, CartOwner(customer_id=checkout.customer_id), product, quantity)

    async def claim(self, checkout: CheckoutInput) -> ClaimedCart:
        async with self.sessions[Service.CARTS].begin() as session:
            return await claims.claim(session, checkout.customer_id, checkout.order_id)

    async def prepare(self, checkout: CheckoutInput) -> PreparedOrder:
        return await self.orders.prepare(
            PrepareOrder(
                order_id=checkout.order_id, customer_id=checkout.customer_id, expected_total=checkout.expected_total
            )
        )

    async def order(self, order_id: UUID) -> Order:
        async with self.sessions[Service.ORDERS]() as session:
            return await orders.get(session, order_id)

    async def age(self, *order_ids: UUID) -> None:
        """Make these orders look untouched for longer than anything else, in the order given."""
        async with self.sessions[Service.ORDERS].begin() as session:
            for number, order_id in enumerate(order_ids):
                statement = text("UPDATE orders.orders SET updated_at = to_timestamp(:at) WHERE id = :id")
                await (await session.connection()).execute(statement, {"at": number, "id": order_id})

        async with self.sessions[Service.CARTS].begin() as session:
            statement = text("UPDATE carts.claims SET created_at = to_timestamp(0) WHERE order_id = ANY(:ids)")
            await (await session.connection()).execute(statement, {"ids": list(order_ids)})

    async def set_aside(self) -> None:
        """Let no order of another test be looked at by a pass that this test starts."""
        async with self.sessions[Service.ORDERS].begin() as session:
            await (await session.connection()).execute(text("UPDATE orders.orders SET updated_at = now()"))
