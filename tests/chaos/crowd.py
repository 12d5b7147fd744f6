"""Many shoppers at once, each a good client: one key an order, again and again until there is an answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from tests.e2e.shop import Shop
from tests.e2e.shopper import Shopper, eventually

AT_THE_DOOR = 20  # that register at the same time; many more are told that too many are signing in
MOST_PAUSE = 1.0  # seconds; a test need not wait as long as it is told to


@dataclass
class Crowd:
    """`failures` are the answers that were no answer yet: each has been found to be a proper 503."""

    shop: Shop
    product: int
    shoppers: Sequence[Shopper]
    failures: int = 0

    @classmethod
    async def gathered(cls, shop: Shop, count: int) -> "Crowd":
        """Each with one piece of the same product in the cart; there is just enough for all."""
        product = await shop.product(stock=count)
        door = asyncio.Semaphore(AT_THE_DOOR)

        async def enter() -> Shopper:
            async with door:
                shopper = await shop.shopper()
                await shopper.add(product)
                return shopper

        shoppers = await asyncio.gather(*(enter() for _ in range(count)))
        return cls(shop, product, shoppers)

    async def order(self, *, wait: float = 1, through: httpx.AsyncClient | None = None) -> list[str]:
        """Everybody orders; the ids, as soon as each has been told one for good."""
        return list(await asyncio.gather(*(self._insist(shopper, wait, through) for shopper in self.shoppers)))

    async def one_after_another(self, *, every: float, wait: float = 1) -> list[str]:
        """As `order`, one every so many seconds."""
        orders = []
        for shopper in self.shoppers:
            orders.append(asyncio.create_task(self._insist(shopper, wait, None)))
            await asyncio.sleep(every)
        return list(await asyncio.gather(*orders))

    async def sold(self, order_ids: Sequence[str], price: int, seconds: float = 90) -> None:
        """Wait until all are paid; each was charged once, and exactly so many were sold."""
        assert len(set(order_ids)) == len(self.shoppers)
        paid = (
            "SELECT count(*) = $2 FROM orders.orders"
            " WHERE id = ANY($1::uuid[]) AND status = 'confirmed' AND payment_status = 'captured'"
        )
        await eventually(lambda: self.shop.database.fetchval(paid, order_ids, len(order_ids)), seconds)
        for order_id in order_ids:
            await self.shop.charged_once(order_id, price)
        assert await self.shop.stock(self.product) == (0, 0)
        placed = "SELECT count(*) FROM orders.orders WHERE customer_id = ANY($1::uuid[])"
        assert await self.shop.database.fetchval(placed, [one.user_id for one in self.shoppers]) == len(order_ids)

    async def _insist(self, shopper: Shopper, wait: float, through: httpx.AsyncClient | None) -> str:
        """As tests.e2e.shopper.Shopper.insist, and every answer that is none yet is looked at.

        The first request may go `through` another address, where nobody may answer any more.
        """
        clients = [through or shopper.http]
        async with asyncio.timeout(90):
            while True:
                try:
                    answer = await shopper.at(clients[-1]).place(key="insist", wait=wait)
                except httpx.TransportError:
                    self.failures += 1
                    clients = [shopper.http]
                    await asyncio.sleep(0.2)
                    continue
                if answer.status_code in (201, 202):
                    return str(answer.json()["orderId"])
                self.failures += 1
                assert answer.headers["content-type"].startswith("application/problem+json"), answer.text
                assert "Traceback" not in answer.text
                assert (answer.status_code, answer.json()["code"]) in {
                    (503, "dependency_unavailable"),
                    (409, "idempotency_in_progress"),
                }, answer.text
                await asyncio.sleep(min(int(answer.headers["retry-after"]), MOST_PAUSE))
