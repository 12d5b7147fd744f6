"""A real catalogue to test against, through the catalogue's own role: bring products in, look at the books."""

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import uuid4

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions
from models.catalog import Product
from services import catalog, inventory

P = ParamSpec("P")
T = TypeVar("T")

CATEGORY = "warehouse"


class Warehouse:
    """Products here are the test's own; `inventory` functions run in a transaction each through `run`."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    async def run(
        self, work: Callable[Concatenate[AsyncSession, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        async with self.sessions.begin() as session:
            return await work(session, *args, **kwargs)

    async def rows(self, statement: str, **parameters: Any) -> list[Any]:
        async with self.sessions.begin() as session:
            result = await (await session.connection()).execute(text(statement), parameters)
            return list(result.all()) if result.returns_rows else []

    async def product(self, on_hand: int = 0, **columns: Any) -> int:
        """The id of a new product with so much on the shelf."""
        await self.rows(
            "INSERT INTO catalog.categories VALUES (:c, 'Warehouse', 99) ON CONFLICT DO NOTHING", c=CATEGORY
        )
        given = {"name": "Thing", "description": "", "category": CATEGORY, "price_amount": 250, "currency": "EUR"}
        created = await self.run(catalog.create, Product(sku=f"W-{uuid4()}", **{**given, **columns}))
        await self.run(inventory.set_on_hand, created.id, on_hand, actor="test")
        return created.id

    async def stock(self, product_id: int) -> tuple[int, int]:
        """On hand and reserved."""
        rows = await self.rows("SELECT on_hand, reserved FROM catalog.stock WHERE product_id = :p", p=product_id)
        return rows[0].on_hand, rows[0].reserved

    async def breaks(self) -> list[Any]:
        """Products whose stock is not the sum of their ledger, or whose reserved units nobody holds."""
        return await self.rows("""
            SELECT s.product_id FROM catalog.stock s
            LEFT JOIN (
                SELECT product_id, sum(on_hand_delta) AS on_hand, sum(reserved_delta) AS reserved
                FROM catalog.stock_ledger GROUP BY product_id
            ) l USING (product_id)
            LEFT JOIN (
                SELECT product_id, sum(quantity) AS held FROM catalog.reservation_lines
                JOIN catalog.reservations USING (order_id) WHERE state = 'active' GROUP BY product_id
            ) r USING (product_id)
            WHERE s.on_hand <> coalesce(l.on_hand, 0) OR s.reserved <> coalesce(l.reserved, 0)
               OR s.reserved <> coalesce(r.held, 0)
        """)
