"""Workers and API processes that end, in good order or not, while many order (R3, R46)."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.chaos.crowd import Crowd
from tests.e2e.shop import PRICE, Shop, browser
from tests.e2e.shopper import eventually
from tests.stack import Platform


@pytest.fixture(scope="module")
async def market(arena: Platform) -> AsyncIterator[Shop]:
    async with Shop.open(arena) as shop:
        yield shop


@pytest.mark.parametrize("orders", [30, pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
async def test_orders_wait_for_a_worker_and_none_is_lost(orders: int, arena: Platform, market: Shop) -> None:
    """R3: every worker dies under load; the backlog is carried out once one is back."""
    crowd = await Crowd.gathered(market, orders)
    placing = asyncio.create_task(crowd.one_after_another(every=0.05, wait=0))
    await _some_are_placed(market, crowd, orders // 3)
    await arena.worker.kill()
    order_ids = await placing
    open_ones = "SELECT count(*) FROM orders.orders WHERE id = ANY($1::uuid[]) AND status = 'pending'"
    backlog = await market.database.fetchval(open_ones, order_ids)
    assert backlog >= orders // 3
    begun = time.monotonic()
    await arena.worker.restart()
    await crowd.sold(order_ids, PRICE, seconds=60 + orders / 10)
    print(f"{backlog} orders waited for a worker and were sold within {time.monotonic() - begun:.1f} s")  # noqa: T201


async def test_a_worker_that_ends_in_good_order_leaves_nothing_undone(arena: Platform, market: Shop) -> None:
    """R46, worker: SIGTERM while orders are under way; another one is there already, as in a rolling deployment."""
    crowd = await Crowd.gathered(market, 20)
    placing = asyncio.create_task(crowd.one_after_another(every=0.1))
    await _some_are_placed(market, crowd, 5)
    next_one = await asyncio.to_thread(arena.start_worker)
    await arena.worker.stop()
    await crowd.sold(await placing, PRICE)
    assert not crowd.failures
    await arena.worker.restart()
    await next_one.stop()


async def test_an_api_that_ends_in_good_order_owes_nobody_an_answer(arena: Platform, market: Shop) -> None:
    """R46, API: what it took it answers or drops the connection of, never a raw error; the same key finds the order.

    A stream is closed in good order, and goes on at another process from the last id.
    """
    crowd = await Crowd.gathered(market, 20)
    leaving = await asyncio.to_thread(arena.start_api)
    listener = crowd.shoppers[0]
    await market.fault(mode="latency", seconds=1, operations=["confirm"])
    async with browser(leaving.base_url) as http, listener.at(http).listen() as stream:
        assert (await stream.next()).type == "snapshot"
        placing = asyncio.create_task(crowd.order(wait=10, through=http))
        first = await stream.next()
        await leaving.stop()
        seen = [first, *(await stream.rest())]  # no error: the stream ends
        order_ids = await placing
    await market.no_faults()
    await crowd.sold(order_ids, PRICE)
    async with listener.listen(last=seen[-1].id) as stream:
        while seen[-1].type != "payment.captured":
            event = await stream.next()
            seen += [event] if event.id else []
    assert [int(event.id) for event in seen] == list(range(1, len(seen) + 1))


async def test_afterwards_every_invariant_holds(market: Shop) -> None:
    await market.checked()


async def _some_are_placed(shop: Shop, crowd: Crowd, count: int) -> None:
    placed = "SELECT count(*) >= $2 FROM orders.orders WHERE customer_id = ANY($1::uuid[])"
    ids = [shopper.user_id for shopper in crowd.shoppers]
    await eventually(lambda: shop.database.fetchval(placed, ids, count))
