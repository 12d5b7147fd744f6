"""Orders written straight into every schema and into the processor's books, whole, so that tests can break them."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx

from core.settings import Settings
from models.types import order_number, uuid7

PRICE = 1500
LONG_AGO = datetime.now(UTC) - timedelta(hours=3)

STORIES = {
    "sold": ["order.placed", "order.reserved", "payment.authorized", "order.confirmed", "payment.captured"],
    "cancelled": ["order.placed", "order.reserved", "order.cancelled"],
    "open": ["order.placed", "order.reserved"],
}
STATES = {
    "sold": ("confirmed", "captured", "committed", "consumed"),
    "cancelled": ("cancelled", "none", "released", "released"),
    "open": ("pending", "none", "active", "active"),
}
AFTER = {"order.confirmed": ("confirmed", "authorized"), "payment.captured": ("confirmed", "captured")}


@dataclass
class Books:
    """A database of its own and an account of its own at the processor, with one product."""

    settings: Settings
    database: asyncpg.Connection
    http: httpx.AsyncClient
    product: int = 1
    customer: UUID = field(default_factory=uuid4)

    async def open_shop(self) -> None:
        await self.database.execute(
            "INSERT INTO catalog.categories (slug, name, position) VALUES ('books', 'Books', 1)"
        )
        await self.database.execute(
            "INSERT INTO catalog.products (id, sku, name, description, category, price_amount, currency)"
            " VALUES (1, 'B-1', 'A book', '', 'books', $1, 'EUR')",
            PRICE,
        )
        await self.database.execute("INSERT INTO catalog.stock (product_id, on_hand) VALUES (1, 100)")
        await self.stock_ledger("receive", 100, 0)

    async def order(self, kind: str, at: datetime = LONG_AGO) -> UUID:
        """An order of one unit that is `sold`, `cancelled` or `open`, and right in every store."""
        order_id = uuid7()
        status, payment, reservation, claim = STATES[kind]
        await self.database.execute(
            """
            INSERT INTO orders.orders (id, number, customer_id, status, payment_status, currency, subtotal_amount,
                                       shipping_amount, tax_amount, total_amount, checkout, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, 'EUR', $6, 0, 0, $6, '{}', $7, $7)
            """,
            *(order_id, order_number(order_id), self.customer, status, payment, PRICE, at),
        )
        await self.database.execute(
            "INSERT INTO orders.order_lines VALUES ($1, 1, 0, 'B-1', 'A book', 1, $2, $2)", order_id, PRICE
        )
        for type_ in STORIES[kind]:
            await self.event(order_id, type_, *AFTER.get(type_, (status if type_ == f"order.{status}" else "pending",)))
        await self._reserve(order_id, reservation)
        await self._claim(order_id, claim)
        if kind == "sold":
            await self._pay(order_id)
            await self.database.execute(
                "INSERT INTO notifications.messages (id, order_id, customer_id, kind, channel, data)"
                " VALUES ($1, $2, $3, 'order.confirmed', 'email', '{}')",
                *(uuid7(), order_id, self.customer),
            )
        return order_id

    async def event(self, order_id: UUID, type_: str, status: str, payment_status: str = "none") -> None:
        seq = await self.database.fetchval(
            """
            INSERT INTO orders.customer_counters AS c VALUES ($1, 1)
            ON CONFLICT (customer_id) DO UPDATE SET last_seq = c.last_seq + 1 RETURNING last_seq
            """,
            self.customer,
        )
        await self.database.execute(
            "INSERT INTO orders.customer_event (customer_id, seq, order_id, event_key, type, data)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            *(self.customer, seq, order_id, f"{type_}:{seq}", type_),
            json.dumps({"status": status, "paymentStatus": payment_status}),
        )

    async def stock_ledger(self, kind: str, on_hand: int, reserved: int, order_id: UUID | None = None) -> None:
        await self.database.execute(
            "INSERT INTO catalog.stock_ledger (product_id, kind, on_hand_delta, reserved_delta, order_id)"
            " VALUES (1, $1, $2, $3, $4)",
            *(kind, on_hand, reserved, order_id),
        )

    async def intent(self, order_id: UUID | None, *, capture: bool = False) -> str:
        """Money held, or taken, at the processor."""
        form = {
            "amount": str(PRICE),
            "currency": "eur",
            "capture_method": "manual",
            "confirm": "true",
            "payment_method": "pm_card_visa",
            "payment_method_types[]": "card",
        }
        if order_id:
            form["metadata[order_id]"] = str(order_id)
        made: dict[str, Any] = (await self.http.post("/v1/payment_intents", data=form)).raise_for_status().json()
        if capture:
            (await self.http.post(f"/v1/payment_intents/{made['id']}/capture")).raise_for_status()
        return str(made["id"])

    async def _reserve(self, order_id: UUID, state: str) -> None:
        ended = None if state == "active" else LONG_AGO
        await self.database.execute(
            "INSERT INTO catalog.reservations (order_id, state, expires_at, ended_at) VALUES ($1, $2, $3, $4)",
            *(order_id, state, LONG_AGO + timedelta(minutes=10), ended),
        )
        await self.database.execute("INSERT INTO catalog.reservation_lines VALUES ($1, 1, 1)", order_id)
        await self.stock_ledger("reserve", 0, 1, order_id)
        if state == "active":
            await self.database.execute("UPDATE catalog.stock SET reserved = reserved + 1")
        elif state == "released":
            await self.stock_ledger("release", 0, -1, order_id)
        else:
            await self.stock_ledger("commit", -1, -1, order_id)
            await self.database.execute("UPDATE catalog.stock SET on_hand = on_hand - 1")

    async def _claim(self, order_id: UUID, state: str) -> None:
        cart = await self.database.fetchval(
            "INSERT INTO carts.carts (id, customer_id, version) VALUES ($1, $2, 1) RETURNING id", uuid4(), uuid4()
        )
        ended = None if state == "active" else LONG_AGO
        await self.database.execute(
            "INSERT INTO carts.claims (order_id, cart_id, state, lines, version, ended_at)"
            " VALUES ($1, $2, $3, '[]', 1, $4)",
            *(order_id, cart, state, ended),
        )

    async def _pay(self, order_id: UUID) -> None:
        intent = await self.intent(order_id, capture=True)
        await self.database.execute(
            "INSERT INTO payments.payments (order_id, intent_id, amount, currency, status)"
            " VALUES ($1, $2, $3, 'EUR', 'captured')",
            *(order_id, intent, PRICE),
        )
        holds = {"customer:authorized": PRICE, "processor:holds": -PRICE}
        sale = {"processor:receivable": PRICE, "sales": -PRICE}
        await self.post(order_id, "authorize", holds)
        await self.post(order_id, "capture", {**{name: -amount for name, amount in holds.items()}, **sale})

    async def post(self, order_id: UUID, kind: str, entries: dict[str, int]) -> None:
        """A transaction of our ledger."""
        async with self.database.transaction():
            txn = await self.database.fetchval(
                "INSERT INTO payments.ledger_transactions (order_id, kind, key) VALUES ($1, $2, $3) RETURNING id",
                *(order_id, kind, f"{order_id}:{kind}"),
            )
            await self.database.executemany(
                "INSERT INTO payments.ledger_entries (txn_id, account, amount_minor, currency)"
                " VALUES ($1, $2, $3, 'EUR')",
                [(txn, account, amount) for account, amount in entries.items()],
            )
