"""`kill -9` of the worker before and after each step's effect, on both paths (R1): every order still ends right."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.killing import kill_server, temporal_of
from tests.chaos.shop import STOCK, Shop
from tests.e2e.shopper import eventually
from tests.stack import Platform, Running

STEPS = ("prepare", "reserve", "authorize", "confirm", "capture", "clear_cart", "notify")
KILLS = [f"{step}:{moment}" for step in STEPS for moment in ("before", "after")]


@pytest.fixture(params=["fast", "regular"])
async def via(request: pytest.FixtureRequest, arena: Platform) -> AsyncIterator[str]:
    """The address of an API whose checkouts take this path."""
    if request.param == "fast":
        yield arena.base_url
        return
    api = await asyncio.to_thread(arena.start_api, env={"MERCATO_FAST_PATH": "false"})
    yield api.base_url
    await api.stop()


@asynccontextmanager
async def doomed_worker(arena: Platform, kill: str) -> AsyncIterator[Running]:
    """The only worker is one that will kill itself at `kill`; afterwards a sound one works again, come what may."""
    await arena.worker.stop()
    try:
        doomed = await asyncio.to_thread(arena.start_worker, {"MERCATO_CRASH_AT": kill})
        yield doomed
    finally:
        await arena.worker.restart()


async def at_rest(arena: Platform, *workflow_ids: str) -> None:
    """The runs have ended: none of their steps is left to a worker that is to be killed by another order's."""
    temporal = await temporal_of(arena)
    for workflow_id in workflow_ids:
        await temporal.get_workflow_handle(workflow_id).result()


@pytest.mark.parametrize("kill", KILLS)
async def test_a_worker_killed_at_a_step_costs_nothing(kill: str, via: str, arena: Platform, shop: Shop) -> None:
    product, headers = await shop.product(), await shop.shopper()
    async with doomed_worker(arena, kill) as doomed:
        placed = await shop.place(headers, product, via=via)
        assert placed.status_code in (201, 202)
        order_id = placed.json()["orderId"]
        await doomed.died()

    await shop.until(headers, order_id, status="confirmed", paymentStatus="captured")
    (intent,) = await shop.books(order_id)
    assert (intent["captured"], intent["charges"]) == (5000, 1)
    assert await shop.stock(product) == (STOCK - 2, 0)

    async def cart_is_empty() -> bool:
        cart = await shop.http.get("/api/cart", headers=headers)
        return not cart.json()["lines"]

    await eventually(cart_is_empty)
    query = "SELECT count(*) FROM notifications.messages WHERE order_id = $1::uuid"

    async def told() -> bool:
        return bool(await shop.database.fetchval(query, order_id))

    await eventually(told)
    await at_rest(arena, f"checkout-{order_id}")
    assert await shop.database.fetchval(query, order_id) == 1


@pytest.mark.parametrize(
    "kill", ["void:before", "void:after", "release:before", "release:after", "close:before", "close:after"]
)
async def test_a_worker_killed_during_undo_loses_none_of_it(kill: str, via: str, arena: Platform, shop: Shop) -> None:
    """R30: compensations delivered twice give back once."""
    product, headers = await shop.product(), await shop.shopper()
    placed = await shop.place(headers, product, via=via, paymentMethodId="pm_card_chargeDeclined")
    assert placed.status_code in (202, 402), placed.text
    order_id = placed.json()["orderId"]
    await shop.until(headers, order_id, status="action_required")
    async with doomed_worker(arena, kill) as doomed:
        cancelled = await shop.http.post(
            f"/api/orders/{order_id}/cancel", json={}, headers={**headers, "Idempotency-Key": kill, "Prefer": "wait=0"}
        )
        assert cancelled.status_code in (200, 202), cancelled.text
        await doomed.died()

    await shop.until(headers, order_id, status="cancelled")
    assert await shop.stock(product) == (STOCK, 0)
    assert all(intent["captured"] == intent["amount_authorized_open"] == 0 for intent in await shop.books(order_id))
    await at_rest(arena, f"checkout-{order_id}")


@pytest.mark.parametrize("kill", ["confirm:after", "capture:after"])
async def test_a_sale_that_died_with_its_card_is_found_before_money_is_voided(
    kill: str, arena: Platform, shop: Shop
) -> None:
    """The second card comes as an update, and its worker sells and dies. The server has that update in memory only:
    the next worker knows of neither. When the time for a card is over, it must find the sale (chaos, seed 37).
    """
    product, headers = await shop.product(), await shop.shopper()
    impatient = await asyncio.to_thread(arena.start_api, env={"MERCATO_RESERVATION_TTL_SECONDS": "8"})
    async with doomed_worker(arena, kill) as doomed:
        placed = await shop.place(headers, product, via=impatient.base_url, paymentMethodId="pm_card_chargeDeclined")
        order_id = placed.json()["orderId"]
        await shop.until(headers, order_id, status="action_required")
        paying = {**headers, "Idempotency-Key": kill, "Prefer": "wait=0"}
        paid = await shop.http.post(
            f"/api/orders/{order_id}/payment", json={"paymentMethodId": "pm_card_visa"}, headers=paying
        )
        assert paid.status_code in (201, 202), paid.text
        await doomed.died()
        await kill_server(arena, "temporal")
    await impatient.stop()

    await shop.until(headers, order_id, status="confirmed", paymentStatus="captured", needsAttention=False)
    checkout = (await temporal_of(arena)).get_workflow_handle(f"checkout-{order_id}")
    assert (await checkout.result())["status"] == "confirmed"
    (intent,) = await shop.books(order_id)
    assert (intent["captured"], intent["charges"], intent["refunded"]) == (5000, 1, 0)
    assert await shop.stock(product) == (STOCK - 2, 0)


AFTER_THE_SALE = ("begin_cancel", "refund", "restock", "cancel_sold")


@pytest.mark.parametrize("kill", [f"{step}:{moment}" for step in AFTER_THE_SALE for moment in ("before", "after")])
async def test_a_worker_killed_while_a_sold_order_is_cancelled_gives_back_once(
    kill: str, arena: Platform, shop: Shop
) -> None:
    product, headers = await shop.product(), await shop.shopper()
    order_id = (await shop.place(headers, product)).json()["orderId"]
    await shop.until(headers, order_id, status="confirmed", paymentStatus="captured")
    async with doomed_worker(arena, kill) as doomed:
        cancelled = await shop.http.post(
            f"/api/orders/{order_id}/cancel", json={}, headers={**headers, "Idempotency-Key": kill, "Prefer": "wait=0"}
        )
        assert cancelled.status_code in (200, 202), cancelled.text
        await doomed.died()

    await shop.until(headers, order_id, status="cancelled", paymentStatus="refunded")
    (intent,) = await shop.books(order_id)
    assert (intent["captured"], intent["refunded"]) == (5000, 5000)
    assert await shop.stock(product) == (STOCK, 0)
    await at_rest(arena, f"checkout-{order_id}", f"fulfilment-{order_id}")


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
