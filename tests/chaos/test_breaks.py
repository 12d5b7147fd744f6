"""Breaks made on purpose: each is found, is a row with its events, counts in the metrics, and is mended or resolved."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from cli.stuck import open_breaks
from models.messages import ReconcileInput, ReconcileResult
from tests.chaos.conftest import SOON
from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import eventually, problem
from tests.stack import NEVER, Platform, Stack, start_platform, start_processor
from workflows.reconciliation import ReconciliationWorkflow

KEY = {"Authorization": "Bearer sk_test_mercato"}
LATER = {"MERCATO_RECONCILE_EVERY_SECONDS": NEVER}  # a pass is made when a test asks for one


@pytest.fixture(scope="module")
def bench() -> Iterator[Platform]:
    stack = Stack()
    try:
        database = stack.make_database("breaks")
        yield start_platform(stack, database, start_processor(stack, database), {**SOON, **LATER})
    finally:
        stack.close()


@pytest.fixture
async def shop(bench: Platform) -> AsyncIterator[Shop]:
    async with Shop.open(bench) as shop:
        yield shop


async def reconcile(shop: Shop, **wanted: Any) -> ReconcileResult:
    """One whole pass, now."""
    client = await Client.connect(shop.platform.temporal_address, data_converter=pydantic_data_converter)
    request = ReconcileInput(**{"older_than_seconds": 0, "everything": True, "give_back_after_seconds": 0, **wanted})
    return await client.execute_workflow(
        ReconciliationWorkflow.run, request, id=f"pass-{uuid4()}", task_queue="checkout"
    )


async def rows(shop: Shop, kind: str, subject: str = "", order: str = "") -> list[Any]:
    query = (
        "SELECT * FROM orders.breaks WHERE kind = $1 AND ($2 = '' OR subject = $2) AND ($3 = '' OR order_id::text = $3)"
    )
    return list(await shop.database.fetch(query, kind, subject, order))


async def told(shop: Shop, break_id: int) -> list[str]:
    query = "SELECT type FROM orders.break_events WHERE break_id = $1 ORDER BY id"
    return [row["type"] for row in await shop.database.fetch(query, break_id)]


async def sold(shop: Shop) -> tuple[int, Any, str]:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = (await shopper.place()).json()["id"]
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    return product, shopper, order_id


async def terminate(shop: Shop, workflow_id: str) -> None:
    client = await Client.connect(shop.platform.temporal_address)
    await client.get_workflow_handle(workflow_id).terminate("the wrong button")


async def test_a_healthy_shop_has_no_breaks(shop: Shop) -> None:
    await sold(shop)
    result = await reconcile(shop)
    assert (result.started, result.repaired, result.breaks_open) == (0, 0, 0)


async def test_orders_under_way_are_left_alone(shop: Shop) -> None:
    product, buyers = await shop.product(stock=40), [await shop.shopper() for _ in range(12)]
    for buyer in buyers:
        await buyer.add(product)
    placing = asyncio.gather(*(buyer.place(wait=8) for buyer in buyers))
    for _ in range(3):
        await reconcile(shop, older_than_seconds=5)
    for buyer, answer in zip(buyers, await placing, strict=True):
        assert answer.status_code in (201, 202), answer.text
        await buyer.until(answer.json()["orderId"], status="confirmed", paymentStatus="captured")
    assert await rows(shop, "run_lost") == []


async def test_success_twice_with_two_ids_is_found_and_the_extra_is_given_back(shop: Shop) -> None:
    """R13: a processor that holds the money twice for one confirm."""
    await shop.fault(mode="success_twice", times=1)
    _, shopper, order_id = await sold(shop)
    await shop.no_faults()
    ours = (await shop.payment(order_id))["intentId"]
    (extra,) = [book["id"] for book in await shop.books(order_id) if book["id"] != ours]
    assert (await reconcile(shop, give_back_after_seconds=600)).breaks_open == 1
    (found,) = await rows(shop, "extra_charge", extra)
    assert (found["state"], str(found["order_id"])) == ("open", order_id)
    assert await told(shop, found["id"]) == ["break.opened"]
    metrics = (await shop.http.get("/metrics")).text
    assert 'mercato_breaks_open{kind="extra_charge"}' in metrics
    await reconcile(shop)
    (found,) = await rows(shop, "extra_charge", extra)
    assert (found["state"], found["closed_by"]) == ("repaired", "reconciliation")
    assert await told(shop, found["id"]) == ["break.opened", "break.repaired"]
    held = {book["id"]: (book["amount_authorized_open"], book["captured"]) for book in await shop.books(order_id)}
    assert held == {ours: (0, 2 * PRICE), extra: (0, 0)}
    assert (await reconcile(shop)).breaks_open == 0
    assert (await shopper.order(order_id))["status"] == "confirmed"


async def test_an_extra_charge_that_was_taken_is_refunded_once(shop: Shop) -> None:
    order_id = str(uuid4())
    form = {"amount": "700", "currency": "eur", "confirm": "true", "payment_method": "pm_card_visa"}
    async with httpx.AsyncClient(base_url=shop.platform.processor_url, headers=KEY) as processor:
        data = {**form, "metadata[order_id]": order_id, "allowed_payment_method_types[]": "card"}
        made = await processor.post("/v1/payment_intents", data=data)
        assert made.json()["status"] == "succeeded", made.text
    for _ in range(3):
        await reconcile(shop)
    (book,) = await shop.books(order_id)
    assert (book["captured"], book["refunded"]) == (700, 700)
    assert [found["state"] for found in await rows(shop, "extra_charge", made.json()["id"])] == ["repaired"]


async def test_a_wrong_amount_is_believed_by_nobody_and_resolved_by_a_person(shop: Shop) -> None:
    """R13: the processor answers for another amount; the order waits, visibly, until it says otherwise."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    await shop.fault(mode="wrong_amount", operations=["confirm", "retrieve", "list"])
    order_id = (await shopper.place(wait=0)).json()["orderId"]
    waiting = await shopper.until(order_id, needsAttention=True)
    assert (waiting["status"], waiting["paymentStatus"]) == ("pending", "unknown")
    await reconcile(shop)
    (found,) = await rows(shop, "amount_mismatch", order=order_id)
    assert found["state"] == "open"
    said = f"amount_mismatch {found['subject']}: {json.loads(found['detail'])['says']}"
    assert said in await open_breaks(shop.platform.owner_url)
    page = (await shop.support.get("/api/orders/breaks", state="open", kind="amount_mismatch")).json()
    assert order_id in [item["orderId"] for item in page["items"]]
    problem(await shopper.get("/api/orders/breaks"), 403, "forbidden")
    path = f"/api/orders/breaks/{found['id']}/resolve"
    assert (await shopper.post(path, {"reason": "let me"})).status_code == 403
    resolved = await shop.support.post(path, {"reason": "they sent a corrected statement"})
    assert (resolved.status_code, resolved.json()["state"]) == (200, "resolved")
    assert (await shop.support.post(path, {"reason": "they sent a corrected statement"})).status_code == 200
    problem(await shop.support.post(path, {"reason": "another"}), 409, "break_closed")
    await reconcile(shop)
    assert [row["state"] for row in await rows(shop, "amount_mismatch", order=order_id)] == ["resolved"]
    assert said not in await open_breaks(shop.platform.owner_url)
    assert await told(shop, found["id"]) == ["break.opened", "break.resolved"]
    await shop.no_faults()
    await shopper.until(order_id, status="confirmed", paymentStatus="captured", needsAttention=False)
    await shop.charged_once(order_id, PRICE)


async def test_an_unknown_outcome_is_resolved_by_reconciliation(shop: Shop) -> None:
    """R11: charged, then silent for long; no webhook comes. The order is woken when the processor is back."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    faults = [
        {"mode": "latency_after", "seconds": 30, "operations": ["confirm"]},
        {"mode": "drop", "operations": ["retrieve"]},
        {"mode": "webhook_lost"},
    ]
    async with httpx.AsyncClient(base_url=shop.platform.processor_url) as processor:
        (await processor.put("/test/faults", json=faults)).raise_for_status()
    order_id = (await shopper.place(wait=0)).json()["orderId"]
    waiting = await shopper.until(order_id, needsAttention=True, paymentStatus="unknown")
    assert waiting["status"] == "pending"
    assert (await shop.stock(product))[1] == 1, "the reservation is neither leaked nor lost"
    await shop.no_faults()
    await reconcile(shop)
    await shopper.until(order_id, status="confirmed", paymentStatus="captured", needsAttention=False)
    await shop.charged_once(order_id, PRICE)


async def test_a_cancel_whose_run_was_ended_from_outside_is_carried_out(shop: Shop) -> None:
    """R33, after the sale: refunded, and then terminated before the stock was put back."""
    product, shopper, order_id = await sold(shop)
    await shop.database.execute("REVOKE UPDATE ON catalog.reservations FROM mercato_catalog")
    try:
        assert (await shopper.cancel(order_id, wait=1)).status_code == 202
        await shopper.until(order_id, paymentStatus="refunded", status="confirmed")
        await terminate(shop, f"fulfilment-{order_id}")
    finally:
        await shop.database.execute("GRANT UPDATE ON catalog.reservations TO mercato_catalog")
    assert (await reconcile(shop)).started == 1
    await shopper.until(order_id, status="cancelled", paymentStatus="refunded")
    assert await shop.stock(product) == (10, 0)
    (book,) = await shop.books(order_id)
    assert (book["captured"], book["refunded"]) == (2 * PRICE, 2 * PRICE)
    (found,) = await rows(shop, "cancel_not_carried_out", order_id)
    assert found["state"] == "repaired"


async def test_a_customer_who_was_never_told_is_told(shop: Shop) -> None:
    """The run was ended from outside between the payment and the message."""
    _, shopper, order_id = await sold(shop)
    query = "SELECT count(*) FROM notifications.messages WHERE order_id = $1::uuid"

    async def was_told() -> bool:
        return await shop.database.fetchval(query, order_id) == 1

    await eventually(was_told)
    await shop.database.execute("DELETE FROM notifications.messages WHERE order_id = $1::uuid", order_id)
    assert (await reconcile(shop)).repaired == 1
    await eventually(was_told)
    assert (await shopper.order(order_id))["status"] == "confirmed"
    (found,) = await rows(shop, "run_lost", order_id)
    assert await told(shop, found["id"]) == ["break.opened", "break.repaired"]


async def test_two_passes_at_once_are_harmless(shop: Shop) -> None:
    await shop.fault(mode="success_twice", times=1)
    _, _, order_id = await sold(shop)
    await shop.no_faults()
    await asyncio.gather(*(reconcile(shop) for _ in range(3)))
    assert sorted(book["captured"] for book in await shop.books(order_id)) == [0, 2 * PRICE]
    assert (await reconcile(shop)).breaks_open == 0


async def test_a_refund_that_fails_later_is_told_to_staff(shop: Shop) -> None:
    _, shopper, order_id = await sold(shop)
    await shopper.cancel(order_id)
    intent = (await shop.payment(order_id))["intentId"]
    await shop.database.execute(
        """INSERT INTO payments.processor_events (event_id, type, intent_id, order_id, created_at, signatures)
           VALUES ($1, 'refund.failed', $2, $3::uuid, now(), '{}')""",
        f"evt_{order_id}",
        intent,
        order_id,
    )
    await reconcile(shop)
    (found,) = await rows(shop, "refund_failed", f"evt_{order_id}")
    assert (found["state"], str(found["order_id"])) == ("open", order_id)
    await shop.support.post(f"/api/orders/breaks/{found['id']}/resolve", {"reason": "paid back by transfer"})


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    assert (await reconcile(shop)).breaks_open == 0
    await shop.checked()
