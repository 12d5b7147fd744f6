"""R41: the clocks of API and worker are ten minutes wrong, in opposite directions; the database and Temporal are right.

The programs run under a clock that lies (`wrong_clock`); nothing of theirs is replaced.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.chaos.test_breaks import reconcile
from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import problem
from tests.stack import Platform

TTL_SECONDS = 6
LYING = str(Path(__file__).parent / "wrong_clock")


def wrong_by(seconds: int) -> dict[str, str]:
    """The environment of a program whose clock is wrong."""
    return {"PYTHONPATH": LYING, "WRONG_BY_SECONDS": str(seconds)}


@asynccontextmanager
async def shop_with_wrong_clocks(arena: Platform, api: int, worker: int) -> AsyncIterator[Shop]:
    await arena.worker.stop()
    try:
        wrong_worker = await asyncio.to_thread(arena.start_worker, wrong_by(worker))
        ttl = {"MERCATO_RESERVATION_TTL_SECONDS": str(TTL_SECONDS)}
        wrong_api = await asyncio.to_thread(arena.start_api, env={**wrong_by(api), **ttl})
        lying = copy(arena)
        lying.base_url = wrong_api.base_url
        async with Shop.open(lying) as shop:
            yield shop
        await wrong_api.stop()
        await wrong_worker.stop()
    finally:
        await arena.worker.restart()


@pytest.mark.parametrize("api", [600, -600])
async def test_wrong_clocks_sell_expire_and_give_back_in_time(arena: Platform, api: int) -> None:
    async with shop_with_wrong_clocks(arena, api, worker=-api) as shop:
        product, shopper = await shop.product(), await shop.shopper()
        # sold, and everything told in its order
        async with shopper.listen() as stream:
            await shopper.add(product, 2)
            sold = (await shopper.place()).json()["id"]
            told = [event for event in await stream.until("payment.captured") if event.id]
        await shopper.until(sold, status="confirmed", paymentStatus="captured")
        await shop.charged_once(sold, 2 * PRICE)
        assert told[0].type == "order.placed"
        assert [int(event.id) for event in told] == list(range(1, len(told) + 1))

        # held for as long as was said, by the database's clock, and no longer
        await shopper.cart_is_free()
        await shopper.add(product, 3)
        waiting = problem(await shopper.place("pm_card_chargeDeclined"), 402, "payment_declined")["orderId"]
        deadline = datetime.fromisoformat((await shopper.order(waiting))["actionRequired"]["deadline"])
        assert 0 < (deadline - datetime.now(UTC)).total_seconds() <= TTL_SECONDS
        assert await shop.stock(product) == (8, 3)
        await shopper.until(waiting, status="expired", seconds=TTL_SECONDS + 20)
        ended = await shop.database.fetchval("SELECT updated_at FROM orders.orders WHERE id = $1::uuid", waiting)
        assert ended >= deadline
        assert await shop.stock(product) == (8, 0)

        # nobody's money is late, early or forgotten for reconciliation
        result = await reconcile(shop, older_than_seconds=5, give_back_after_seconds=600)
        assert (result.started, result.repaired, result.breaks_open) == (0, 0, 0)

        # given back
        assert (await shopper.cancel(sold)).status_code in (200, 202)
        await shopper.until(sold, status="cancelled", paymentStatus="refunded")
        await shop.nothing_kept(sold)
        assert await shop.stock(product) == (10, 0)
        await shop.checked()


async def test_a_token_of_a_clock_that_is_ahead_is_not_valid_yet(arena: Platform) -> None:
    wrong = await asyncio.to_thread(arena.start_api, env=wrong_by(600))
    ahead = copy(arena)
    ahead.base_url = wrong.base_url
    async with Shop.open(ahead) as shop, Shop.open(arena) as true_shop:
        shopper = await shop.shopper()
        assert (await shopper.get("/api/cart")).status_code == 200
        problem(await shopper.at(true_shop.http).get("/api/cart"), 401, "unauthenticated")
    await wrong.stop()
