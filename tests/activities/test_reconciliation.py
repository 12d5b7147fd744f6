"""Reconciliation on a real Temporal that nobody works for: a checkout that was started runs until it is ended.

Orders are looked at one at a time (`limit=1`), the oldest first.
"""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment

from activities.breaks import BreakBook
from activities.reconciliation import ReconciliationActivities
from core.temporal import ensure_search_attributes
from models.messages import CheckoutInput, ReconcileInput, ReconcileResult
from models.types import Money, OrderStatus, Service
from services import inventory, notifications, orders
from tests.activities.desk import Desk

QUEUE = f"nobody-{uuid4()}"


@pytest.fixture(scope="module")
async def client(temporal_address: str) -> Client:
    client = await Client.connect(temporal_address, data_converter=pydantic_data_converter)
    await ensure_search_attributes(client)
    return client


@pytest.fixture
async def calm(desk: Desk) -> Desk:
    await desk.set_aside()
    return desk


async def _reconcile(desk: Desk, client: Client) -> ReconcileResult:
    sessions = desk.sessions
    activities = ReconciliationActivities(
        orders=sessions[Service.ORDERS],
        catalog=sessions[Service.CATALOG],
        carts=sessions[Service.CARTS],
        notifications=sessions[Service.NOTIFICATIONS],
        book=BreakBook(desk.recorder),
        client=client,
    )
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, task_queue=QUEUE)  # what it starts is started where it runs
    result: Any = await environment.run(activities.reconcile, ReconcileInput(older_than_seconds=30, limit=1))
    assert isinstance(result, ReconcileResult)
    return result


async def _started(client: Client, checkout: CheckoutInput) -> Any:
    order = checkout.order_id
    return await client.start_workflow("CheckoutWorkflow", checkout, id=f"checkout-{order}", task_queue=QUEUE)


async def _runs(client: Client, workflow_id: str) -> bool:
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).status == 1
    except RPCError:
        return False


async def _confirmed_and_captured(desk: Desk, order_id: UUID) -> None:
    """And told: who was not would be repaired for that."""
    async with desk.sessions[Service.NOTIFICATIONS].begin() as session:
        await notifications.queue(
            session, order_id=order_id, customer_id=uuid4(), kind="order.confirmed", channel="email", data={}
        )
    async with desk.sessions[Service.ORDERS].begin() as session:
        await orders.confirm(session, order_id)
        await orders.record_captured(session, order_id, Money(amount=250))


async def test_an_order_without_a_checkout_is_found_behind_those_that_are_looked_after(
    calm: Desk, client: Client
) -> None:
    waiting = [await calm.placed() for _ in range(3)]
    for checkout in waiting:
        await _started(client, checkout)
    forgotten = await calm.placed()
    await calm.age(*(checkout.order_id for checkout in waiting), forgotten.order_id)
    result = await _reconcile(calm, client)
    assert (result.started, result.repaired) == (1, 0)
    description = await client.get_workflow_handle(f"checkout-{forgotten.order_id}").describe()
    assert description.search_attributes["CustomerId"] == [str(forgotten.customer_id)]


async def test_an_order_whose_checkout_was_terminated_is_repaired_once(calm: Desk, client: Client) -> None:
    checkout = await calm.placed()
    await (await _started(client, checkout)).terminate()
    await calm.age(checkout.order_id)
    assert (await _reconcile(calm, client)).repaired == 1
    assert (await _reconcile(calm, client)).repaired == 0
    assert await _runs(client, f"repair-{checkout.order_id}")


async def test_a_sold_order_whose_checkout_was_terminated_while_it_stood_still_is_repaired(
    calm: Desk, client: Client
) -> None:
    """Captured, so not open; but clearing the cart stood still, and staff still read that somebody has to look."""
    checkout = await calm.placed()
    await (await _started(client, checkout)).terminate()
    await _confirmed_and_captured(calm, checkout.order_id)
    async with calm.sessions[Service.ORDERS].begin() as session:
        await orders.mark_attention(session, checkout.order_id, "clear_cart", "carts are down")
    await calm.age(checkout.order_id)
    assert (await _reconcile(calm, client)).repaired == 1


async def test_a_cart_left_claimed_by_a_sold_order_is_repaired(calm: Desk, client: Client) -> None:
    """Terminated between capture and clear_cart: without it the customer could never order again."""
    product = await calm.warehouse.product(5)
    checkout = await calm.placed()
    await calm.add_to_cart(checkout, product)
    await calm.claim(checkout)
    await (await _started(client, checkout)).terminate()
    await _confirmed_and_captured(calm, checkout.order_id)
    await calm.age(checkout.order_id)
    assert (await _reconcile(calm, client)).repaired == 1
    assert await _runs(client, f"repair-{checkout.order_id}")


async def test_stock_of_an_ended_order_goes_back_behind_that_of_live_ones(calm: Desk, client: Client) -> None:
    product = await calm.warehouse.product(5)
    live, ended = await calm.placed(), await calm.placed()
    for checkout in (live, ended):
        await calm.warehouse.run(inventory.reserve, checkout.order_id, {product: 1}, 0)
    async with calm.sessions[Service.ORDERS].begin() as session:
        await orders.end(session, ended.order_id, OrderStatus.CANCELLED)
    assert (await _reconcile(calm, client)).reservations_released == 1
    assert await calm.warehouse.stock(product) == (5, 1)
