"""What the payment tests share: one order's money, with the processor's faults and books at hand."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import httpx
from pydantic import SecretStr

from core.db import Sessions
from models.errors import Unavailable
from models.messages import Authorization, Capture, Refund, Voiding
from models.payments import Attempt, Payment
from models.types import Money, uuid7
from services import payments, refunds
from services.processor import Processor

T = TypeVar("T")
GOOD = "pm_card_visa"
BAD = "pm_card_chargeDeclined"
ACCOUNT = SecretStr("sk_test_payment_tests")  # not the platform's: its books must not hold money of these orders
KEY = {"Authorization": f"Bearer {ACCOUNT.get_secret_value()}"}


@dataclass
class Purchase:
    """One order that is to be paid."""

    sessions: Sessions
    processor: Processor
    admin: httpx.AsyncClient
    amount: Money = field(default_factory=lambda: Money(amount=4999))
    order_id: UUID = field(default_factory=uuid7)

    async def authorize(self, card: str = GOOD, attempt: int = 1) -> Authorization:
        return await payments.authorize(
            self.sessions,
            self.processor,
            order_id=self.order_id,
            attempt=attempt,
            amount=self.amount,
            payment_method_id=card,
        )

    async def capture(self) -> Capture:
        return await payments.capture(self.sessions, self.processor, order_id=self.order_id)

    async def refund(self) -> Refund:
        return await refunds.refund(self.sessions, self.processor, order_id=self.order_id)

    async def authenticate(self, url: str, verdict: str = "complete") -> None:
        """What the shopper does at the bank's page: `complete` or `fail`."""
        page = httpx.URL(url)
        answer = await self.admin.post(f"{page.path}/{verdict}", params=page.params)
        assert answer.status_code in (200, 303), answer.text

    async def void(self) -> Voiding:
        return await payments.void(self.sessions, self.processor, order_id=self.order_id)

    async def fault(self, mode: str, *operations: str, **settings: Any) -> None:
        """The next of `operations` for this order goes wrong."""
        await self.faults({"mode": mode, "operations": operations, **settings})

    async def faults(self, *faults: dict[str, Any]) -> None:
        """Each of them strikes once for this order, if it does not say otherwise."""
        armed = [{"order_id": str(self.order_id), "times": 1, **fault} for fault in faults]
        (await self.admin.put("/test/faults", json=armed)).raise_for_status()

    async def heal(self) -> None:
        (await self.admin.delete("/test/faults", params={"order_id": str(self.order_id)})).raise_for_status()

    async def books(self) -> list[dict[str, Any]]:
        """The processor's own account of this order, one item an intent."""
        answer = await self.admin.get("/test/books", params={"order_id": str(self.order_id)}, headers=KEY)
        items: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
        return items

    async def money(self) -> tuple[int, int, int]:
        """(held, captured, live charges) at the processor, over all intents of the order."""
        books = await self.books()
        held, captured = (sum(item[name] for item in books) for name in ("amount_authorized_open", "captured"))
        return held, captured, sum(item["charges"] for item in books)

    async def payment(self) -> Payment:
        async with self.sessions() as session:
            found = await payments.get_payment(session, self.order_id)
        assert found is not None
        return found

    async def attempts(self) -> list[Attempt]:
        async with self.sessions() as session:
            return list(await payments.attempts_of(session, self.order_id))

    async def ledger(self) -> list[str]:
        async with self.sessions() as session:
            return [posted.kind for posted in await payments.ledger_of(session, self.order_id)]

    async def status(self) -> str:
        return (await self.payment()).status


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait for `condition`."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the condition is in another process
            await asyncio.sleep(0.02)


async def insist(call: Callable[[], Awaitable[T]], times: int = 10) -> T:
    """Repeat what is worth a retry, as a workflow does."""
    for _ in range(times - 1):
        try:
            return await call()
        except Unavailable:
            continue
    return await call()


async def is_held(order: Purchase) -> bool:
    """Whether the processor holds money for it."""
    return (await order.money())[0] > 0


async def was_sent(order: Purchase) -> bool:
    """Whether a confirm has been noted as sent."""
    attempts = await order.attempts()
    return bool(attempts) and attempts[0].tries > 0
