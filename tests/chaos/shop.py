"""A shopper with a cart, and eyes on the database and on the processor's books."""

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

from tests.e2e.shopper import eventually
from tests.stack import Platform

PASSWORD = "correct-horse-battery"
STOCK = 5


@dataclass
class Shop:
    platform: Platform
    http: httpx.AsyncClient
    database: asyncpg.Connection

    @classmethod
    @asynccontextmanager
    async def open(cls, platform: Platform) -> AsyncIterator["Shop"]:
        database = await asyncpg.connect(platform.owner_url)
        async with httpx.AsyncClient(base_url=platform.base_url, timeout=20) as http:
            yield cls(platform, http, database)
        await database.close()

    async def shopper(self) -> dict[str, str]:
        """A new shopper's headers."""
        email = f"{uuid4().hex}@mercato.test"
        account = {"email": email, "password": PASSWORD}
        (await self.http.post("/api/auth/register", json={**account, "fullName": "Shopper"})).raise_for_status()
        login = (await self.http.post("/api/auth/login", json=account)).raise_for_status()
        return {"Authorization": f"Bearer {login.json()['accessToken']}"}

    async def product(self) -> int:
        """A new product of which there are STOCK."""
        login = await self.http.post(
            "/api/auth/login", json={"email": "admin@mercato.test", "password": "mercato-demo-pass"}
        )
        staff = {"Authorization": f"Bearer {login.json()['accessToken']}"}
        body = {
            "sku": uuid4().hex[:12].upper(),
            "name": "Chaos lamp",
            "description": "A lamp",
            "category": "books",
            "price": {"amount": 2500, "currency": "EUR"},
        }
        product = (await self.http.post("/api/products", json=body, headers=staff)).raise_for_status().json()["id"]
        stock = await self.http.put(f"/api/products/{product}/stock", json={"onHand": STOCK}, headers=staff)
        stock.raise_for_status()
        return int(product)

    async def place(self, headers: dict[str, str], product: int, *, via: str = "", **body: Any) -> httpx.Response:
        """Two of `product` in the cart, placed without waiting for the outcome."""
        added = await self.http.post("/api/cart/add", json={"productId": product, "quantity": 2}, headers=headers)
        added.raise_for_status()
        return await self.http.post(
            f"{via or self.platform.base_url}/api/orders/place",
            json={"paymentMethodId": "pm_card_visa", **body},
            headers={**headers, "Idempotency-Key": uuid4().hex, "Prefer": "wait=0"},
        )

    async def order(self, headers: dict[str, str], order_id: str) -> dict[str, Any]:
        response = await self.http.get(f"/api/orders/{order_id}", headers=headers)
        answer: dict[str, Any] = response.raise_for_status().json()
        return answer

    async def until(self, headers: dict[str, str], order_id: str, **wanted: Any) -> dict[str, Any]:
        """The order, once it has all of `wanted`."""

        async def look() -> Any:
            order = await self.order(headers, order_id)
            return order if all(order[name] == value for name, value in wanted.items()) else None

        order: dict[str, Any] = await eventually(look, 40)
        return order

    async def stock(self, product: int) -> tuple[int, int]:
        """(on hand, reserved)"""
        row = await self.database.fetchrow("SELECT on_hand, reserved FROM catalog.stock WHERE product_id = $1", product)
        return row["on_hand"], row["reserved"]

    async def books(self, order_id: str) -> list[dict[str, Any]]:
        """What the processor knows of the order."""
        response = await self.http.get(
            f"{self.platform.processor_url}/test/books",
            params={"order_id": order_id},
            headers={"Authorization": "Bearer sk_test_mercato"},
        )
        books: list[dict[str, Any]] = response.raise_for_status().json()["data"]
        return books

    async def fault(self, **fault: Any) -> None:
        response = await self.http.put(f"{self.platform.processor_url}/test/faults", json=fault)
        response.raise_for_status()

    async def no_faults(self) -> None:
        (await self.http.delete(f"{self.platform.processor_url}/test/faults")).raise_for_status()

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
