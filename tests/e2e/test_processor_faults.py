"""The processor is slow, refuses, or charges and does not say so: one charge, and the order confirms all the same."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import Shopper, eventually

FAULTS: dict[str, dict[str, Any]] = {
    "charged, reply lost": {"mode": "reply_lost", "times": 1, "operations": ["confirm"]},
    "captured, reply lost": {"mode": "reply_lost", "times": 1, "operations": ["capture"]},
    "intent made, reply lost": {"mode": "reply_lost", "times": 1, "operations": ["create"]},
    "charged, then a stored 500": {"mode": "error_500_after", "times": 1, "operations": ["confirm"]},
    "captured, then a stored 500": {"mode": "error_500_after", "times": 1, "operations": ["capture"]},
    "a stored 500, not charged": {"mode": "error_500_stored", "times": 1, "operations": ["confirm"]},
    "500 to everything": {"mode": "error_500", "times": 4},
    "429 to everything": {"mode": "error_429", "times": 4},
    "charged, answered too late": {"mode": "latency_after", "seconds": 4, "times": 1, "operations": ["confirm"]},
    "charged too late": {"mode": "latency", "seconds": 4, "times": 1, "operations": ["confirm"]},
    "charging while asked again": {"mode": "latency_in_flight", "seconds": 4, "times": 1, "operations": ["confirm"]},
    "captured, answered too late": {"mode": "latency_after", "seconds": 4, "times": 1, "operations": ["capture"]},
    "no answer": {"mode": "silent", "seconds": 4, "times": 1, "operations": ["confirm"]},
    "connection dropped": {"mode": "drop", "times": 3},
}


@pytest.fixture(autouse=True)
async def _healthy_afterwards(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.no_faults()


async def _placed(shop: Shop, shopper: Shopper, product: int) -> str:
    await shopper.add(product, 2)
    placed = await shopper.place(wait=1)
    assert placed.status_code in (201, 202), placed.text
    return str(placed.json()["orderId"])


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_whatever_the_processor_does_the_order_is_charged_once(fault: dict[str, Any], shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shop.fault(**fault)
    order_id = await _placed(shop, shopper, product)
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    await shop.charged_once(order_id, 2 * PRICE)
    assert await shop.stock(product) == (8, 0)


async def test_a_reply_lost_after_a_decline_is_still_a_decline(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    await shop.fault(mode="reply_lost", times=1, operations=["confirm"])
    placed = await shopper.place("pm_card_chargeDeclinedInsufficientFunds")
    order_id = placed.json()["orderId"]
    order = await shopper.until(order_id, status="action_required")
    assert order["actionRequired"]["reason"] == "insufficient_funds"
    await shop.nothing_charged(order_id)
    assert (await shopper.pay(order_id)).status_code == 201
    await shopper.until(order_id, paymentStatus="captured")
    await shop.charged_once(order_id, PRICE)


async def test_a_card_whose_answer_is_late_has_not_been_declined(shop: Shop) -> None:
    """The decline before was another card's: until the new one is answered the order is still going."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = (await shopper.place("pm_card_chargeDeclined")).json()["orderId"]
    await shop.fault(mode="latency_in_flight", seconds=3, times=1, operations=["confirm"])
    paid = await shopper.pay(order_id, key="late", wait=0.5)
    assert (paid.status_code, paid.json()["orderId"]) == (202, order_id), paid.text
    await shopper.until(order_id, paymentStatus="captured")
    assert (await shopper.pay(order_id, key="late")).status_code == 201
    await shop.charged_once(order_id, PRICE)


async def test_a_long_outage_calls_for_attention_and_heals_by_itself(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shop.fault(mode="drop")
    async with shopper.listen() as stream:
        order_id = await _placed(shop, shopper, product)
        told = await stream.until("order.needs_attention")
        assert told[-1].data["needsAttention"]
        assert (await shopper.order(order_id))["needsAttention"]
        staff_view = (await shop.support.get(f"/api/orders/{order_id}")).json()
        assert staff_view["attention"]["step"] == "authorize"
        assert await shop.stock(product) == (10, 2)

        async def listed() -> bool:
            found = await shop.support.get("/api/orders", needsAttention=True, customer=shopper.user_id)
            return [order["id"] for order in found.json()["items"]] == [order_id]

        await eventually(listed)
        await shop.no_faults()
        healed = [event.type for event in await stream.until("payment.captured")]
    assert "order.attention_cleared" in healed
    order = await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    assert not order["needsAttention"]
    await shop.charged_once(order_id, 2 * PRICE)


async def test_an_order_is_cancelled_though_the_processor_is_down(shop: Shop) -> None:
    """What is held, or was taken before the cancel, goes back when the processor is there again."""
    product, shopper = await shop.product(), await shop.shopper()
    await shop.fault(mode="reply_lost", operations=["confirm"])
    order_id = await _placed(shop, shopper, product)
    await shop.fault(mode="drop")
    cancelled = await shopper.insist(lambda: shopper.cancel(order_id, key="cancel", wait=0))
    assert cancelled.status_code in (200, 202), cancelled.text
    await shop.no_faults()
    await shopper.until(order_id, status="cancelled")
    await shop.nothing_kept(order_id)
    assert await shop.stock(product) == (10, 0)


async def test_an_ended_order_leaves_no_doubt_about_its_money(shop: Shop) -> None:
    """No card was tried when the doubt arose, so that there is nothing to void: the doubt ends with the order."""
    product, shopper = await shop.product(), await shop.shopper()
    await shop.fault(mode="wrong_amount", operations=["create", "retrieve"])
    order_id = await _placed(shop, shopper, product)
    await shopper.until(order_id, paymentStatus="unknown")
    cancelled = await shopper.cancel(order_id, wait=0)
    assert cancelled.status_code in (200, 202), cancelled.text
    await shop.no_faults()
    await shopper.until(order_id, status="cancelled", paymentStatus="voided")
    await shop.nothing_charged(order_id)
    assert await shop.stock(product) == (10, 0)


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
