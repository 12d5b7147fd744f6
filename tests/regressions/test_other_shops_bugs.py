"""Races and undos that went wrong in other shops, each shown not to happen here.

The table of what is shown where is in docs/reliability.md.
"""

import asyncio
from typing import Any
from uuid import uuid4

import temporalio.api.workflowservice.v1 as service
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import DECLINED, eventually, problem


async def test_medusa_16502_lines_of_one_product_are_summed_before_they_are_checked(shop: Shop) -> None:
    product, shopper = await shop.product(stock=3), await shop.shopper()
    await asyncio.gather(*(shopper.add(product) for _ in range(4)))
    assert await shopper.cart() == {product: 4}
    refused = problem(await shopper.place(), 409, "out_of_stock")
    assert refused["lines"] == [{"productId": product, "requested": 4, "available": 3}]
    assert await shop.stock(product) == (3, 0)
    await shop.nothing_charged(refused["orderId"])


async def test_medusa_11403_carts_with_the_same_products_in_any_order_do_not_wait_for_ever(shop: Shop) -> None:
    """R22: {A, B} beside {B, A}, many at once, and every one of them is sold."""
    first, second = await shop.product(stock=50), await shop.product(stock=50)
    buyers = [await shop.shopper() for _ in range(16)]
    for number, buyer in enumerate(buyers):
        for product in (first, second) if number % 2 else (second, first):
            await buyer.add(product)
    answers = await asyncio.gather(*(buyer.place() for buyer in buyers))
    assert {answer.status_code for answer in answers} <= {201, 202}, [answer.text for answer in answers]
    for buyer, answer in zip(buyers, answers, strict=True):
        await buyer.until(answer.json()["id"], status="confirmed", paymentStatus="captured")
    assert await shop.stock(first) == await shop.stock(second) == (34, 0)


async def test_medusa_16825_the_loser_of_the_last_unit_keeps_the_cart_and_nothing_else(shop: Shop) -> None:
    """R23: one line could be had, the other not: nothing of it is held, charged or lost."""
    there, gone = await shop.product(), await shop.product(stock=0)
    shopper = await shop.shopper()
    await shopper.add(there)
    await shopper.add(gone)
    order_id = problem(await shopper.place(), 409, "out_of_stock")["orderId"]
    assert (await shopper.order(order_id))["status"] == "rejected"
    assert await shop.stock(there) == (10, 0)
    assert await shopper.cart() == {there: 1, gone: 1}
    await shop.nothing_charged(order_id)


async def test_medusa_15527_a_late_undo_of_one_order_leaves_the_next_one_of_the_same_cart_alone(shop: Shop) -> None:
    """R31: the first order was undone, the second one of the same cart sold; then the first undo comes once more."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    failed = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    assert (await shopper.cancel(failed)).status_code == 200
    sold = (await shopper.place()).json()["id"]
    await shopper.until(sold, status="confirmed", paymentStatus="captured")
    client = await Client.connect(shop.platform.temporal_address, data_converter=pydantic_data_converter)
    checkout = client.get_workflow_handle(f"checkout-{failed}")
    await client.workflow_service.reset_workflow_execution(
        service.ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=checkout.id),
            reason="the undo once more, from its beginning",
            workflow_task_finish_event_id=3,
            request_id=uuid4().hex,
        )
    )
    again: Any = await client.get_workflow_handle(checkout.id).result()
    assert again["status"] == "cancelled"
    await shop.charged_once(sold, 2 * PRICE)
    assert await shop.stock(product) == (8, 0)
    assert (await shopper.order(sold))["status"] == "confirmed"


async def test_medusa_11906_after_an_undo_that_failed_the_cart_can_be_bought(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    await shop.fault(mode="error_500_stored", operations=["cancel"], times=3)
    assert (await shopper.cancel(order_id, wait=0)).status_code == 202
    await shopper.until(order_id, status="cancelled")
    await shop.no_faults()
    assert (await shopper.place()).status_code == 201
    assert await shop.stock(product) == (9, 0)


async def test_saleor_14733_money_is_held_only_for_what_can_still_be_sold(shop: Shop) -> None:
    """The reservation is gone when the payment is there: the order expires, and the money is let go."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    await shop.fault(mode="latency_in_flight", seconds=3, operations=["confirm"], times=1)
    order_id = (await shopper.place(wait=0)).json()["orderId"]

    async def reserved() -> bool:
        return (await shop.stock(product))[1] == 2

    await eventually(reserved)
    await shop.database.execute(
        """WITH gone AS (
               UPDATE catalog.reservations SET state = 'released', ended_at = now()
               WHERE order_id = $1::uuid RETURNING 1
           ), back AS (UPDATE catalog.stock SET reserved = reserved - 2 WHERE product_id = $2)
           INSERT INTO catalog.stock_ledger (product_id, kind, on_hand_delta, reserved_delta, order_id)
           VALUES ($2, 'release', 0, -2, $1::uuid)""",
        order_id,
        product,
    )
    await shopper.until(order_id, status="expired")
    await shop.no_faults()
    assert await shop.stock(product) == (10, 0)
    for intent in await shop.books(order_id):
        assert intent["captured"] == intent["amount_authorized_open"] == 0


async def test_saleor_11069_nobody_waits_for_stock_while_another_ones_card_is_asked(shop: Shop) -> None:
    product, slow, quick = await shop.product(), await shop.shopper(), await shop.shopper()
    await slow.add(product)
    await quick.add(product)
    await shop.fault(mode="latency_in_flight", seconds=5, operations=["confirm"], times=1)
    waiting = asyncio.create_task(slow.place())

    async def reserved() -> bool:
        return (await shop.stock(product))[1] == 1

    await eventually(reserved)
    sold = await quick.place()
    assert sold.status_code == 201, "it did not wait for the card of the first"
    assert not waiting.done()
    assert (await waiting).status_code in (201, 202)
    await shop.no_faults()


async def test_simplcommerce_cve_2024_53476_many_clicks_are_one_order(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    answers = await asyncio.gather(*(shopper.place() for _ in range(10)))  # each with a key of its own
    placed = [answer.json()["id"] for answer in answers if answer.status_code in (201, 202)]
    assert len(placed) == 1
    await shopper.until(placed[0], status="confirmed", paymentStatus="captured")
    assert await shop.stock(product) == (9, 0)
    await shop.charged_once(placed[0], PRICE)


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
