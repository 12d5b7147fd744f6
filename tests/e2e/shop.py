"""The shop from behind the counter: products to sell, stock and books to look into, the processor's faults."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from cli.seed import DEMO_PASSWORD
from tests.e2e.shopper import Json, Shopper
from tests.stack import Platform

PRICE = 2500  # minor units


def browser(base_url: str) -> httpx.AsyncClient:
    """A client that may hold many streams and requests at once."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    return httpx.AsyncClient(base_url=base_url, timeout=30, limits=limits)


@dataclass
class Shop:
    platform: Platform
    http: httpx.AsyncClient
    database: asyncpg.Pool
    admin: Shopper
    support: Shopper

    @classmethod
    @asynccontextmanager
    async def open(cls, platform: Platform) -> AsyncIterator["Shop"]:
        async with (
            asyncpg.create_pool(platform.owner_url, min_size=0, max_size=2) as database,
            browser(platform.base_url) as http,
        ):
            admin = await Shopper.signed_in(http, "admin@mercato.test", DEMO_PASSWORD)
            support = await Shopper.signed_in(http, "support@mercato.test", DEMO_PASSWORD)
            yield cls(platform, http, database, admin, support)

    async def shopper(self) -> Shopper:
        return await Shopper.registered(self.http)

    async def product(self, stock: int = 10, price: int = PRICE) -> int:
        """A new product for sale."""
        body = {
            "sku": uuid4().hex[:12].upper(),
            "name": "Test lamp",
            "description": "A lamp",
            "category": "books",
            "price": {"amount": price, "currency": "EUR"},
        }
        made = await self.http.post("/api/products", json=body, headers=self.admin.headers)
        product = int(made.raise_for_status().json()["id"])
        await self.set_stock(product, stock)
        return product

    async def set_stock(self, product: int, on_hand: int) -> None:
        body = {"onHand": on_hand}
        answer = await self.http.put(f"/api/products/{product}/stock", json=body, headers=self.admin.headers)
        answer.raise_for_status()

    async def set_price(self, product: int, amount: int) -> None:
        body = {"price": {"amount": amount, "currency": "EUR"}}
        answer = await self.http.patch(f"/api/products/{product}", json=body, headers=self.admin.headers)
        answer.raise_for_status()

    async def stock(self, product: int) -> tuple[int, int]:
        """(on hand, reserved)"""
        query = "SELECT on_hand, reserved FROM catalog.stock WHERE product_id = $1"
        row = await self.database.fetchrow(query, product)
        assert row is not None
        return row["on_hand"], row["reserved"]

    async def payment(self, order_id: str) -> Json:
        """What support sees of the order's payment."""
        answer: Json = (await self.support.get(f"/api/payments/{order_id}")).raise_for_status().json()
        return answer

    async def books(self, order_id: str) -> list[Json]:
        """What the processor knows of the order, a row an intent."""
        async with httpx.AsyncClient(base_url=self.platform.processor_url) as processor:
            answer = await processor.get(
                "/test/books",
                params={"order_id": order_id},
                headers={"Authorization": "Bearer sk_test_mercato"},
            )
        books: list[Json] = answer.raise_for_status().json()["data"]
        return books

    async def charged_once(self, order_id: str, amount: int) -> None:
        """One intent, one charge, exactly `amount` taken and nothing held any more; our ledger says the same."""
        (intent,) = await self.books(order_id)
        told = {name: intent[name] for name in ("charges", "captured", "amount_authorized_open", "refunded")}
        assert told == {"charges": 1, "captured": amount, "amount_authorized_open": 0, "refunded": 0}
        payment = await self.payment(order_id)
        assert payment["status"] == "captured"
        assert payment["amount"] == {"amount": amount, "currency": "EUR"}
        assert all(sum(entry["amount"] for entry in posted["entries"]) == 0 for posted in payment["ledger"])
        assert sorted(posted["kind"] for posted in payment["ledger"]) == ["authorize", "capture"]

    async def nothing_charged(self, order_id: str) -> None:
        """Nothing held and nothing taken, whether or not the processor has heard of the order."""
        for intent in await self.books(order_id):
            assert intent["captured"] == intent["amount_authorized_open"] == intent["charges"] == 0, intent

    async def nothing_kept(self, order_id: str) -> None:
        """Nothing held, and what was taken is given back."""
        for intent in await self.books(order_id):
            assert intent["captured"] == intent["refunded"], intent
            assert intent["amount_authorized_open"] == 0, intent

    async def fault(self, **fault: Any) -> None:
        """Arm one fault at the processor, in place of those before."""
        async with httpx.AsyncClient(base_url=self.platform.processor_url) as processor:
            (await processor.put("/test/faults", json=fault)).raise_for_status()

    async def no_faults(self) -> None:
        async with httpx.AsyncClient(base_url=self.platform.processor_url) as processor:
            (await processor.delete("/test/faults")).raise_for_status()

    async def checked(self) -> None:
        """`mercato check` finds nothing."""
        environment = {**self.platform.env, "MERCATO_DATABASE_URL": self.platform.owner_url}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "cli.main", "check"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
