"""R43, R44: the same wish a thousand times, or far too much at once, harms nobody, and keeps histories short."""

import asyncio
from typing import Any
from uuid import uuid4

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.e2e.shop import Shop
from tests.e2e.shopper import DECLINED, problem
from workflows.checkout import CheckoutWorkflow
from workflows.options import checkout_workflow_id, fulfilment_workflow_id

WISHES = 300  # the API binds each to a key of its own; a signal a wish would be 300 events
MOST_EVENTS = 1_000
LONGEST_PAYLOAD = 50_000  # bytes; Temporal's own limit is 2 MB
STAFF = {"actor": "sue", "reason": "clicked again"}


async def _temporal(shop: Shop) -> Client:
    return await Client.connect(shop.platform.temporal_address, data_converter=pydantic_data_converter)


async def _history(shop: Shop, workflow_id: str) -> Any:
    return await (await _temporal(shop)).get_workflow_handle(workflow_id).fetch_history()


async def test_hundreds_of_cancels_are_one_cancel(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    async with asyncio.timeout(120):
        wishes = asyncio.Semaphore(20)

        async def wish() -> int:
            async with wishes:
                return (await shopper.cancel(order_id, wait=2)).status_code

        statuses = await asyncio.gather(*(wish() for _ in range(WISHES)))
    assert set(statuses) <= {200, 202, 503}, sorted(set(statuses))
    await shopper.until(order_id, status="cancelled")
    history = await _history(shop, checkout_workflow_id(order_id))
    assert len(history.events) < 100
    assert await shop.stock(product) == (10, 0)
    await shop.nothing_charged(order_id)


async def test_hundreds_of_cancels_while_no_worker_lives_leave_one_word(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    await shop.platform.worker.stop()
    try:
        for _ in range(20):
            answer = await shopper.cancel(order_id, wait=0)
            assert answer.status_code in (202, 503), answer.text
        told = [
            event
            async for event in (await _temporal(shop))
            .get_workflow_handle(checkout_workflow_id(order_id))
            .fetch_history_events()
            if event.HasField("workflow_execution_signaled_event_attributes")
        ]
        assert len(told) <= 2, "one word is enough"
    finally:
        await shop.platform.worker.restart()
    await shopper.until(order_id, status="cancelled")
    assert await shop.stock(product) == (10, 0)


async def test_a_flood_of_signals_is_one_cancel_and_a_bounded_history(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    handle = (await _temporal(shop)).get_workflow_handle(checkout_workflow_id(order_id))

    async def signal() -> None:
        await handle.signal(CheckoutWorkflow.cancel_soon, STAFF)

    await asyncio.gather(*(signal() for _ in range(WISHES)), return_exceptions=True)  # the last ones find it closed
    await shopper.until(order_id, status="cancelled")
    assert len((await handle.fetch_history()).events) < MOST_EVENTS
    assert await shop.stock(product) == (10, 0)


async def test_hundreds_of_cancels_of_a_sold_order_are_one_refund(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = (await shopper.place()).json()["id"]
    answers = await asyncio.gather(*(shopper.cancel(order_id, wait=5) for _ in range(40)))
    assert {answer.status_code for answer in answers} <= {200, 202, 503}
    await shopper.until(order_id, status="cancelled", paymentStatus="refunded")
    assert len((await _history(shop, fulfilment_workflow_id(order_id))).events) < 100
    (intent,) = await shop.books(order_id)
    assert intent["captured"] == intent["refunded"]


async def test_the_largest_order_fits_into_a_small_history(shop: Shop) -> None:
    """A hundred lines with the longest names: no payload comes near what Temporal refuses."""
    shopper = await shop.shopper()
    made = []
    for _ in range(100):
        body = {
            "sku": uuid4().hex,
            "name": "W" * 200,
            "description": "W" * 5_000,
            "category": "books",
            "price": {"amount": 100, "currency": "EUR"},
        }
        answer = await shop.http.post("/api/products", json=body, headers=shop.admin.headers)
        made.append(answer.raise_for_status().json()["id"])
        await shop.set_stock(made[-1], 10)
    for product in made:
        await shopper.add(product)
    placed = await shopper.place()
    assert placed.status_code in (201, 202), placed.text
    order_id = placed.json()["id"]
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    history = await _history(shop, checkout_workflow_id(order_id))
    sizes = [event.ByteSize() for event in history.events]
    assert max(sizes) < LONGEST_PAYLOAD, sizes
    assert sum(sizes) < 3 * LONGEST_PAYLOAD


async def test_a_bomb_at_the_webhook_is_refused_unread(shop: Shop) -> None:
    """Too many bytes, too many fields, too many levels: before anybody asks what the signature is worth."""
    for bomb in (b"x" * 300_000, b"&".join(b"a=1" for _ in range(100_000))):
        answer = await shop.http.post("/api/payments/webhook", content=bomb)
        problem(answer, 413, "body_too_large")
    deep = b"[" * 1_000 + b"]" * 1_000
    assert (await shop.http.post("/api/payments/webhook", content=deep)).status_code == 401
