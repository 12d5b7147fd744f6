"""What people send while something is under way: whichever comes first counts, and never half of each."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from uuid import uuid4

import httpx
import pytest

from tests.e2e.shop import PRICE, Shop, browser
from tests.e2e.shopper import problem

DECLINED = "pm_card_chargeDeclined"


@pytest.fixture(autouse=True)
async def _healthy_afterwards(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.no_faults()


async def test_a_card_still_being_tried_is_not_answered_by_the_decline_of_the_one_before(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    await shop.fault(mode="latency", seconds=0.8, times=1, operations=["confirm"])
    paid = await shopper.pay(order_id, key="second-card", wait=0)
    assert paid.status_code == 202, paid.text
    again = await shopper.pay(order_id, key="second-card", wait=5)
    assert (again.status_code, again.json()["status"]) == (201, "confirmed")
    assert again.headers["Idempotent-Replayed"] == "true"
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    await shop.charged_once(order_id, 2 * PRICE)


async def test_two_cards_at_once_are_one_charge(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    answers = await asyncio.gather(*(shopper.pay(order_id) for _ in range(4)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] in (201, 202)
    assert all(status in (201, 202, 409) for status in statuses), [answer.text for answer in answers]
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    await shop.charged_once(order_id, 2 * PRICE)


@pytest.mark.parametrize("step", range(12))
async def test_a_cancel_at_any_moment_gives_everything_back(step: int, shop: Shop) -> None:
    """R32: never confirmed and cancelled, never cancelled and charged; before the sale, in it and after it."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    await shop.fault(mode="latency", seconds=0.1, times=10)
    placed = await shopper.place(wait=0)
    order_id = placed.json()["orderId"]
    await asyncio.sleep(step * 0.05)
    key = uuid4().hex
    answer = await shopper.insist(lambda: shopper.cancel(order_id, key=key, wait=8))
    assert answer.status_code in (200, 202), answer.text
    order = await shopper.until(order_id, status="cancelled")
    was_sold = order["paymentStatus"] == "refunded"
    assert await shop.stock(product) == (10, 0)
    await shop.nothing_kept(order_id)
    assert await shopper.cart() == ({} if was_sold else {product: 2})
    again = await shopper.cancel(order_id)
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_five_hundred_cancels_at_random_moments(shop: Shop) -> None:
    """R32: before the card is asked, while it is, after the sale: each ends cancelled, and nothing of it is kept.

    Half of them take the regular path: a run on the fast path hears of a cancel only when its steps are through, so
    that nearly all of those are sold first.
    """
    dice = Random(32)
    product = await shop.product(stock=600)
    await shop.fault(mode="latency", seconds=0.3)  # so that there is time before the sale, and in it

    async def one(place_at: httpx.AsyncClient) -> str:
        shopper = await shop.shopper()
        await shopper.add(product)
        buyer = shopper.at(place_at)
        order_id = str((await shopper.insist(lambda: buyer.place(wait=0, key=shopper.user_id))).json()["orderId"])
        await asyncio.sleep(dice.uniform(0, 1.5))
        key = uuid4().hex
        answer = await shopper.insist(lambda: shopper.cancel(order_id, key=key, wait=5))
        assert answer.status_code in (200, 202), answer.text
        order = await shopper.until(order_id, seconds=60, status="cancelled")
        await shop.nothing_kept(order_id)
        return str(order["paymentStatus"])

    regular = await asyncio.to_thread(shop.platform.start_api, env={"MERCATO_FAST_PATH": "false"})
    async with browser(regular.base_url) as regular_path:
        endings: Counter[str] = Counter()
        for _ in range(50):
            ways = [shop.http, regular_path] * 5
            endings.update(await asyncio.gather(*(one(way) for way in ways)))
    await regular.stop()
    assert sum(endings.values()) == 500
    assert endings["refunded"] > 50, endings  # both sides of the sale were hit
    assert endings["refunded"] < 450, endings
    assert await shop.stock(product) == (600, 0)
